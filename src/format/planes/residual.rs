//! Differences of numbers to those of a base, small where a training step changed little.
//!
//! Floats are compared by their order: their bits, as sign and magnitude, become integers that
//! follow one another as the floats do. A difference wraps around and loses nothing. Zigzag puts
//! small differences of both signs next to zero, so that their high bytes are all the same.

/// What a block stores of its numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Residual {
    /// The numbers.
    None,
    /// Differences of integers.
    Integer,
    /// Differences of floats, counted in floats between them.
    Float,
}

/// Puts what is between `plain` and `base` into `out`; all three are as long, in whole elements.
pub(super) fn subtract(kind: Residual, width: usize, plain: &[u8], base: &[u8], out: &mut [u8]) {
    assert!(plain.len() == base.len() && plain.len() == out.len());
    match (kind, width) {
        (Residual::None, _) => out.copy_from_slice(plain),
        (Residual::Integer, 1) => subtract_1::<false>(plain, base, out),
        (Residual::Integer, 2) => subtract_2::<false>(plain, base, out),
        (Residual::Integer, 4) => subtract_4::<false>(plain, base, out),
        (Residual::Integer, _) => subtract_8::<false>(plain, base, out),
        (Residual::Float, 1) => subtract_1::<true>(plain, base, out),
        (Residual::Float, 2) => subtract_2::<true>(plain, base, out),
        (Residual::Float, 4) => subtract_4::<true>(plain, base, out),
        (Residual::Float, _) => subtract_8::<true>(plain, base, out),
    }
}

/// Undoes [`subtract`]: `plain` holds the differences and then the numbers.
pub(super) fn add(kind: Residual, width: usize, base: &[u8], plain: &mut [u8]) {
    assert_eq!(plain.len(), base.len());
    match (kind, width) {
        (Residual::None, _) => {}
        (Residual::Integer, 1) => add_1::<false>(base, plain),
        (Residual::Integer, 2) => add_2::<false>(base, plain),
        (Residual::Integer, 4) => add_4::<false>(base, plain),
        (Residual::Integer, _) => add_8::<false>(base, plain),
        (Residual::Float, 1) => add_1::<true>(base, plain),
        (Residual::Float, 2) => add_2::<true>(base, plain),
        (Residual::Float, 4) => add_4::<true>(base, plain),
        (Residual::Float, _) => add_8::<true>(base, plain),
    }
}

/// A pair of loops for elements of one width.
macro_rules! loops {
    ($subtract:ident, $add:ident, $word:ty, $width:literal) => {
        fn $subtract<const FLOAT: bool>(plain: &[u8], base: &[u8], out: &mut [u8]) {
            let (plain, _) = plain.as_chunks::<$width>();
            let (base, _) = base.as_chunks::<$width>();
            let (out, _) = out.as_chunks_mut::<$width>();
            for ((plain, base), out) in plain.iter().zip(base).zip(out) {
                let ordered = |bytes: [u8; $width]| {
                    let word = <$word>::from_le_bytes(bytes);
                    let mask = (0 as $word).wrapping_sub(word >> (<$word>::BITS - 1));
                    if FLOAT { word ^ (mask | 1 << (<$word>::BITS - 1)) } else { word }
                };
                let difference = ordered(*plain).wrapping_sub(ordered(*base));
                let sign = (0 as $word).wrapping_sub(difference >> (<$word>::BITS - 1));
                *out = (difference << 1 ^ sign).to_le_bytes();
            }
        }

        fn $add<const FLOAT: bool>(base: &[u8], plain: &mut [u8]) {
            let (base, _) = base.as_chunks::<$width>();
            let (plain, _) = plain.as_chunks_mut::<$width>();
            for (base, plain) in base.iter().zip(plain) {
                let word = <$word>::from_le_bytes(*base);
                let mask = (0 as $word).wrapping_sub(word >> (<$word>::BITS - 1));
                let base = if FLOAT { word ^ (mask | 1 << (<$word>::BITS - 1)) } else { word };
                let zigzag = <$word>::from_le_bytes(*plain);
                let difference = zigzag >> 1 ^ (0 as $word).wrapping_sub(zigzag & 1);
                let word = base.wrapping_add(difference);
                let mask = (word >> (<$word>::BITS - 1)).wrapping_sub(1);
                let word = if FLOAT { word ^ (mask | 1 << (<$word>::BITS - 1)) } else { word };
                *plain = word.to_le_bytes();
            }
        }
    };
}

loops!(subtract_1, add_1, u8, 1);
loops!(subtract_2, add_2, u16, 2);
loops!(subtract_4, add_4, u32, 4);
loops!(subtract_8, add_8, u64, 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_comes_back_from_its_difference_to_any() {
        let mut bytes = vec![0; 4096];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
        let base: Vec<u8> = bytes.iter().rev().copied().collect();
        for kind in [Residual::None, Residual::Integer, Residual::Float] {
            for width in [1, 2, 4, 8] {
                let mut out = vec![0; bytes.len()];
                subtract(kind, width, &bytes, &base, &mut out);
                add(kind, width, &base, &mut out);
                assert!(out == bytes, "{kind:?} {width}");
            }
        }
    }

    #[test]
    fn neighbours_are_one_apart_across_zero_too() {
        let check = |a: f32, b: f32, expected: u32| {
            let mut out = [0; 4];
            subtract(Residual::Float, 4, &a.to_le_bytes(), &b.to_le_bytes(), &mut out);
            assert_eq!(u32::from_le_bytes(out), expected, "{a} against {b}");
        };
        check(1.0, 1.0, 0);
        check(f32::from_bits(0x3f80_0001), 1.0, 2);
        check(f32::from_bits(0x3f7f_ffff), 1.0, 1);
        check(-1.0, f32::from_bits(0xbf80_0001), 2);
        check(0.0, -0.0, 2);
        check(-0.0, 0.0, 1);
        let mut out = [0; 2];
        subtract(Residual::Integer, 2, &(-3_i16).to_le_bytes(), &4_i16.to_le_bytes(), &mut out);
        assert_eq!(u16::from_le_bytes(out), 13);
    }
}
