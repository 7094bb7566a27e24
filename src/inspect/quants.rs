//! Quantised blocks of GGUF as numbers, in the arithmetic of `f32` that the programs have which run them.
//!
//! A block has scales and small integers; most types differ in where their bits are. Only what occurs in
//! files that people keep is here: types that decode by large tables are not.
//! Source: ggml, `ggml-common.h` and `ggml-quants.c`.

use super::values::half;

/// A type of blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Quant {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Q8K,
    Iq4Nl,
    Iq4Xs,
    Mxfp4,
}

/// What the four bits of `iq4` stand for.
const IQ4: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
/// What those of `mxfp4` stand for, doubled.
const FP4: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

impl Quant {
    /// Hands on the numbers of one block, in order.
    ///
    /// # Panics
    /// When `block` is shorter than a block of the type.
    pub fn decode(self, block: &[u8], mut push: impl FnMut(f32)) {
        match self {
            Self::Q4_0 => {
                let scale = half_at(block, 0);
                nibbles(&block[2..18]).for_each(|q| push((f32::from(q) - 8.0) * scale));
            }
            Self::Q4_1 => {
                let (scale, least) = (half_at(block, 0), half_at(block, 2));
                nibbles(&block[4..20]).for_each(|q| push(f32::from(q) * scale + least));
            }
            Self::Q5_0 => {
                let scale = half_at(block, 0);
                five_bits(&block[2..22]).for_each(|q| push((f32::from(q) - 16.0) * scale));
            }
            Self::Q5_1 => {
                let (scale, least) = (half_at(block, 0), half_at(block, 2));
                five_bits(&block[4..24]).for_each(|q| push(f32::from(q) * scale + least));
            }
            Self::Q8_0 => {
                let scale = half_at(block, 0);
                signed(&block[2..34]).for_each(|q| push(q * scale));
            }
            Self::Q8K => {
                let scale =
                    f32::from_le_bytes(*block.first_chunk().expect("a block has 292 bytes"));
                signed(&block[4..260]).for_each(|q| push(scale * q));
            }
            Self::Iq4Nl => {
                let scale = half_at(block, 0);
                nibbles(&block[2..18]).for_each(|q| push(scale * f32::from(IQ4[usize::from(q)])));
            }
            Self::Mxfp4 => {
                // The scale is a power of two by itself; halved, as the numbers are doubled.
                let scale = power_of_two(i32::from(block[0]) - 128);
                nibbles(&block[1..17]).for_each(|q| push(scale * f32::from(FP4[usize::from(q)])));
            }
            Self::Q2K => q2_k(block, push),
            Self::Q3K => q3_k(block, push),
            Self::Q4K => q4_k(block, push),
            Self::Q5K => q5_k(block, push),
            Self::Q6K => q6_k(block, push),
            Self::Iq4Xs => iq4_xs(block, push),
        }
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    half(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// 2 to a power of -128 to 127, the least of which are subnormal.
fn power_of_two(exponent: i32) -> f32 {
    2_f32.powi(exponent / 2) * 2_f32.powi(exponent - exponent / 2)
}

fn signed(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.iter().map(|byte| f32::from(byte.cast_signed()))
}

/// The lower halves of the bytes, then the upper ones.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.iter().map(|byte| byte & 0xf).chain(bytes.iter().map(|byte| byte >> 4))
}

/// 32 numbers of five bits: four bytes of highest bits, then the others in nibbles.
fn five_bits(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let high = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let bit = move |index: u32| u8::try_from(high >> index & 1).expect("one bit");
    nibbles(&bytes[4..]).zip(0..).map(move |(low, index)| low | bit(index) << 4)
}

/// Scale and offset of group `index` of eight, six bits each, packed into 12 bytes.
fn six_bits(packed: &[u8], index: usize) -> (f32, f32) {
    let (scale, least) = if index < 4 {
        (packed[index] & 63, packed[index + 4] & 63)
    } else {
        let (low, first, second) = (packed[index + 4], packed[index - 4], packed[index]);
        (low & 0xf | first >> 6 << 4, low >> 4 | second >> 6 << 4)
    };
    (scale.into(), least.into())
}

/// 16 groups of 16: scales and offsets of four bits, then numbers of two, then the scales of those.
fn q2_k(block: &[u8], mut push: impl FnMut(f32)) {
    let (groups, quants) = (&block[..16], &block[16..80]);
    let (scale, least) = (half_at(block, 80), half_at(block, 82));
    for (group, index) in groups.iter().zip(0..16) {
        let (of_scale, of_least) = (scale * f32::from(group & 0xf), least * f32::from(group >> 4));
        for q in two_bits(quants, index) {
            push(of_scale * f32::from(q) - of_least);
        }
    }
}

/// The 16 numbers of group `index` of 16: in each half of the bytes four layers, of two groups each.
fn two_bits(quants: &[u8], index: usize) -> impl Iterator<Item = u8> {
    let (half, layer, side) = (index / 8, index % 8 / 2, index % 2);
    let start = half * 32 + side * 16;
    quants[start..start + 16].iter().map(move |byte| byte >> (2 * layer) & 3)
}

/// As `q2_k`, but numbers have a third bit elsewhere, and scales have six.
fn q3_k(block: &[u8], mut push: impl FnMut(f32)) {
    let (high, quants, packed) = (&block[..32], &block[32..96], &block[96..108]);
    let scale = half_at(block, 108);
    for index in 0..16 {
        let low = if index < 8 { packed[index] & 0xf } else { packed[index - 8] >> 4 };
        let top = packed[8 + index % 4] >> (2 * (index / 4)) & 3;
        let of_scale = scale * (f32::from(low | top << 4) - 32.0);
        let (layer, side) = (index / 2, index % 2 * 16);
        for (q, high) in two_bits(quants, index).zip(&high[side..]) {
            let below = if high >> layer & 1 == 0 { 4.0 } else { 0.0 };
            push(of_scale * (f32::from(q) - below));
        }
    }
}

fn q4_k(block: &[u8], mut push: impl FnMut(f32)) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    let (packed, quants) = (&block[4..16], &block[16..144]);
    for (pair, bytes) in quants.chunks_exact(32).enumerate() {
        for (q, place) in nibbles(bytes).zip(0..) {
            let (of_scale, of_least) = six_bits(packed, 2 * pair + place / 32);
            push(scale * of_scale * f32::from(q) - least * of_least);
        }
    }
}

fn q5_k(block: &[u8], mut push: impl FnMut(f32)) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    let (packed, high, quants) = (&block[4..16], &block[16..48], &block[48..176]);
    for (pair, bytes) in quants.chunks_exact(32).enumerate() {
        for (q, place) in nibbles(bytes).zip(0..) {
            let group = 2 * pair + place / 32;
            let (of_scale, of_least) = six_bits(packed, group);
            let top = high[place % 32] >> group & 1;
            push(scale * of_scale * f32::from(q | top << 4) - least * of_least);
        }
    }
}

fn q6_k(block: &[u8], mut push: impl FnMut(f32)) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let scale = half_at(block, 208);
    for index in 0..256 {
        let (side, layer, place) = (index / 128, index % 128 / 32, index % 32);
        let nibble = low[side * 64 + layer % 2 * 32 + place] >> (layer / 2 * 4) & 0xf;
        let top = high[side * 32 + place] >> (2 * layer) & 3;
        let of_scale = scale * f32::from(scales[index / 16].cast_signed());
        push(of_scale * (f32::from(nibble | top << 4) - 32.0));
    }
}

fn iq4_xs(block: &[u8], mut push: impl FnMut(f32)) {
    let scale = half_at(block, 0);
    let high = u16::from_le_bytes([block[2], block[3]]);
    let (low, quants) = (&block[4..8], &block[8..136]);
    for (group, bytes) in quants.chunks_exact(16).enumerate() {
        let top = u8::try_from(high >> (2 * group) & 3).expect("two bits");
        let bits = low[group / 2] >> (group % 2 * 4) & 0xf | top << 4;
        let of_scale = scale * (f32::from(bits) - 32.0);
        for q in nibbles(bytes) {
            push(of_scale * f32::from(IQ4[usize::from(q)]));
        }
    }
}
