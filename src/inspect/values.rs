//! Values: the stored bytes of a tensor as numbers.
//!
//! Every dtype with a layout that is known here has them, most of GGUF's blocks too (`quants`). A number
//! is what a program would get that reads the tensor as `f64`: exact, but for integers past 2^53.

use super::quants::Quant;
use super::{BlockType, Dtype};

/// How the bytes of a tensor become numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Values {
    layout: Layout,
    unit_elements: usize,
    unit_bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Layout {
    F64,
    F32,
    F16,
    Bf16,
    F8E4m3,
    F8E5m2,
    F8E4m3Fnuz,
    F8E5m2Fnuz,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Quant(Quant),
}

impl Values {
    /// Those of a tensor of this dtype; `None` where the bytes are all that is known.
    pub fn of(dtype: Dtype) -> Option<Self> {
        let layout = match dtype {
            Dtype::F64 => Layout::F64,
            Dtype::F32 => Layout::F32,
            Dtype::F16 => Layout::F16,
            Dtype::Bf16 => Layout::Bf16,
            Dtype::F8E4m3 => Layout::F8E4m3,
            Dtype::F8E5m2 => Layout::F8E5m2,
            Dtype::F8E4m3Fnuz => Layout::F8E4m3Fnuz,
            Dtype::F8E5m2Fnuz => Layout::F8E5m2Fnuz,
            Dtype::I64 => Layout::I64,
            Dtype::I32 => Layout::I32,
            Dtype::I16 => Layout::I16,
            Dtype::I8 => Layout::I8,
            Dtype::U64 => Layout::U64,
            Dtype::U32 => Layout::U32,
            Dtype::U16 => Layout::U16,
            Dtype::U8 | Dtype::Bool => Layout::U8,
            Dtype::Block(block) => Layout::Quant(Quant::of(block)?),
            Dtype::Other => return None,
        };
        let (elements, bytes) = dtype.unit()?;
        let small = |number: u64| usize::try_from(number).expect("a unit is a few hundred bytes");
        Some(Self { layout, unit_elements: small(elements), unit_bytes: small(bytes) })
    }

    /// Bytes of `elements`, which are whole units.
    pub fn bytes_of(self, elements: u64) -> u64 {
        elements / self.unit_elements as u64 * self.unit_bytes as u64
    }

    /// Appends the numbers of `bytes`, which are whole units.
    pub fn decode(self, bytes: &[u8], out: &mut Vec<f64>) {
        match self.layout {
            Layout::F64 => each(bytes, out, f64::from_le_bytes),
            Layout::F32 => each(bytes, out, |it| f32::from_le_bytes(it).into()),
            Layout::F16 => each(bytes, out, |it| half(u16::from_le_bytes(it)).into()),
            Layout::Bf16 => each(bytes, out, |it| {
                f32::from_bits(u32::from(u16::from_le_bytes(it)) << 16).into()
            }),
            Layout::F8E4m3 => each(bytes, out, |[it]| e4m3(it).into()),
            // The upper byte of a half.
            Layout::F8E5m2 => each(bytes, out, |[it]| half(u16::from(it) << 8).into()),
            Layout::F8E4m3Fnuz => each(bytes, out, |[it]| fnuz(it, 3, 8).into()),
            Layout::F8E5m2Fnuz => each(bytes, out, |[it]| fnuz(it, 2, 16).into()),
            Layout::I64 => each(bytes, out, |it| nearest(i64::from_le_bytes(it).into())),
            Layout::I32 => each(bytes, out, |it| i32::from_le_bytes(it).into()),
            Layout::I16 => each(bytes, out, |it| i16::from_le_bytes(it).into()),
            Layout::I8 => each(bytes, out, |it| i8::from_le_bytes(it).into()),
            Layout::U64 => each(bytes, out, |it| nearest(u64::from_le_bytes(it).into())),
            Layout::U32 => each(bytes, out, |it| u32::from_le_bytes(it).into()),
            Layout::U16 => each(bytes, out, |it| u16::from_le_bytes(it).into()),
            Layout::U8 => each(bytes, out, |[it]: [u8; 1]| it.into()),
            Layout::Quant(quant) => {
                for block in bytes.chunks_exact(self.unit_bytes) {
                    quant.decode(block, |value| out.push(value.into()));
                }
            }
        }
    }
}

fn each<const N: usize>(bytes: &[u8], out: &mut Vec<f64>, value: impl Fn([u8; N]) -> f64) {
    let (elements, rest) = bytes.as_chunks::<N>();
    debug_assert!(rest.is_empty(), "whole elements");
    out.extend(elements.iter().map(|element| value(*element)));
}

/// The nearest `f64` of an integer of 64 bits.
#[allow(clippy::cast_precision_loss)]
fn nearest(integer: i128) -> f64 {
    integer as f64
}

/// An IEEE 754 half.
pub(super) fn half(bits: u16) -> f32 {
    /// 2^112: what the exponent of a half lacks to that of a float.
    const SCALE: f32 = f32::from_bits((127 + 112) << 23);
    let sign = u32::from(bits & 0x8000) << 16;
    let rest = u32::from(bits & 0x7fff) << 13;
    let magnitude = if bits & 0x7c00 == 0x7c00 {
        // Infinity, or a NaN with its bits.
        f32::from_bits(0x7f80_0000 | rest)
    } else {
        // Exact: also where it is subnormal as a half.
        f32::from_bits(rest) * SCALE
    };
    f32::from_bits(magnitude.to_bits() | sign)
}

/// A float of 4 bits of exponent and 3 of mantissa, without infinities.
fn e4m3(bits: u8) -> f32 {
    if bits & 0x7f == 0x7f { f32::NAN } else { small(bits, 3, 7) }
}

/// A float without infinities, and with a NaN where others have negative zero.
fn fnuz(bits: u8, mantissa_bits: u8, bias: i32) -> f32 {
    if bits == 0x80 { f32::NAN } else { small(bits, mantissa_bits, bias) }
}

/// A float of a sign, an exponent with this `bias`, and so many bits of mantissa, all of it finite.
fn small(bits: u8, mantissa_bits: u8, bias: i32) -> f32 {
    let steps = 1_u8 << mantissa_bits;
    let (exponent, step) = ((bits & 0x7f) >> mantissa_bits, f32::from(bits & (steps - 1)));
    let share = step / f32::from(steps);
    let magnitude = match exponent {
        0 => share * 2_f32.powi(1 - bias),
        _ => (1.0 + share) * 2_f32.powi(i32::from(exponent) - bias),
    };
    if bits & 0x80 == 0 { magnitude } else { -magnitude }
}

impl Quant {
    /// The blocks of a type of GGUF; `None` where nobody has written down here how they are decoded.
    fn of(block: BlockType) -> Option<Self> {
        Some(match block.id() {
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            10 => Self::Q2K,
            11 => Self::Q3K,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            15 => Self::Q8K,
            20 => Self::Iq4Nl,
            23 => Self::Iq4Xs,
            39 => Self::Mxfp4,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(dtype: Dtype, bytes: &[u8]) -> Vec<f64> {
        let mut out = Vec::new();
        Values::of(dtype).unwrap().decode(bytes, &mut out);
        out
    }

    #[test]
    fn numbers_are_what_their_bytes_say() {
        let check = |dtype: Dtype, bytes: &[u8], expected: &[f64]| {
            assert_eq!(decoded(dtype, bytes), expected, "{dtype}");
        };
        check(Dtype::F64, &(-0.1_f64).to_le_bytes(), &[-0.1]);
        check(Dtype::F32, &1.5_f32.to_le_bytes(), &[1.5]);
        check(Dtype::Bf16, &[0x80, 0x3f, 0, 0xc0], &[1.0, -2.0]);
        check(Dtype::I64, &i64::MIN.to_le_bytes(), &[-9_223_372_036_854_775_808.0]);
        check(Dtype::U64, &u64::MAX.to_le_bytes(), &[18_446_744_073_709_551_615.0]);
        check(Dtype::I32, &(-7_i32).to_le_bytes(), &[-7.0]);
        check(Dtype::U32, &u32::MAX.to_le_bytes(), &[4_294_967_295.0]);
        check(Dtype::I16, &[0, 0x80], &[-32_768.0]);
        check(Dtype::U16, &[0xff, 0xff], &[65_535.0]);
        check(Dtype::I8, &[0x80, 1], &[-128.0, 1.0]);
        check(Dtype::U8, &[255], &[255.0]);
        check(Dtype::Bool, &[0, 1], &[0.0, 1.0]);
    }

    #[test]
    fn small_floats_have_their_steps_ends_and_no_numbers() {
        let half = |bits: u16| decoded(Dtype::F16, &bits.to_le_bytes())[0];
        assert_eq!(half(0x3c00), 1.0);
        assert_eq!(half(0x7bff), 65_504.0);
        assert_eq!(half(1), 2_f64.powi(-24));
        assert_eq!(half(0x83ff), -1_023.0 * 2_f64.powi(-24));
        assert_eq!((half(0x7c00), half(0xfc00)), (f64::INFINITY, f64::NEG_INFINITY));
        assert!(half(0x7e00).is_nan() && half(0xfc01).is_nan());
        assert!(half(0x8000) == 0.0 && half(0x8000).is_sign_negative());
        let e4m3 = |bits| decoded(Dtype::F8E4m3, &[bits])[0];
        assert_eq!((e4m3(0x7e), e4m3(0xfe)), (448.0, -448.0));
        assert_eq!((e4m3(1), e4m3(8), e4m3(0x38)), (2_f64.powi(-9), 2_f64.powi(-6), 1.0));
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
        let e5m2 = |bits| decoded(Dtype::F8E5m2, &[bits])[0];
        assert_eq!(
            (e5m2(0x7b), e5m2(0xfc), e5m2(1)),
            (57_344.0, f64::NEG_INFINITY, 2_f64.powi(-16))
        );
        assert!(e5m2(0x7d).is_nan());
        let fnuz = |dtype, bits| decoded(dtype, &[bits])[0];
        for (dtype, largest, smallest) in
            [(Dtype::F8E4m3Fnuz, 240.0, -10), (Dtype::F8E5m2Fnuz, 57_344.0, -17)]
        {
            assert_eq!((fnuz(dtype, 0x7f), fnuz(dtype, 0xff)), (largest, -largest));
            assert_eq!((fnuz(dtype, 0), fnuz(dtype, 1)), (0.0, 2_f64.powi(smallest)));
            assert_eq!(fnuz(dtype, 0x40), 1.0);
            assert!(fnuz(dtype, 0x80).is_nan());
        }
    }

    #[test]
    fn a_block_that_is_known_gives_as_many_numbers_as_it_has_elements() {
        for id in 0..64 {
            let Some(block) = BlockType::find(id) else { continue };
            let dtype = Dtype::Block(block);
            let Some(values) = Values::of(dtype) else { continue };
            let (elements, bytes) = dtype.unit().unwrap();
            let stored = vec![0x5a; usize::try_from(3 * bytes).unwrap()];
            let mut out = Vec::new();
            values.decode(&stored, &mut out);
            assert_eq!(out.len() as u64, 3 * elements, "{dtype}");
            assert_eq!(values.bytes_of(3 * elements), 3 * bytes, "{dtype}");
            assert_eq!(out[0], out[out.len() / 3], "{dtype}: blocks are alike");
        }
        assert_eq!(Values::of(Dtype::Other), None);
    }
}
