//! Elements to planes and back: byte `p` of every element lies in plane `p`.
//!
//! Plain loops that the compiler turns into vector instructions: one step gathers [`LANES`] elements
//! into words on the stack, where they stay in the first-level cache.

/// Elements of one step.
const LANES: usize = 128;

/// What the elements of a block are, as far as their bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    /// Bytes of an element: 1, 2, 4 or 8.
    pub width: usize,
    /// Whether each element is rotated left by one bit before it is split: the sign moves to the
    /// lowest bit, and the exponents of bf16 and fp32 fill the highest byte.
    pub rotated: bool,
}

impl Layout {
    /// All that the format knows.
    pub const ALL: [Self; 6] = [
        Self { width: 1, rotated: false },
        Self { width: 2, rotated: false },
        Self { width: 2, rotated: true },
        Self { width: 4, rotated: false },
        Self { width: 4, rotated: true },
        Self { width: 8, rotated: false },
    ];

    /// Elements in `plain_bytes`, without a last one that is cut off.
    pub const fn count(self, plain_bytes: usize) -> usize {
        plain_bytes / self.width
    }
}

/// Splits `plain`, a whole number of elements, into planes one after the other.
pub(super) fn split(layout: Layout, plain: &[u8], planes: &mut [u8]) {
    assert_eq!(plain.len(), planes.len());
    assert_eq!(plain.len() % layout.width, 0);
    match (layout.width, layout.rotated) {
        (2, false) => split_2::<0>(plain, planes),
        (2, true) => split_2::<1>(plain, planes),
        (4, false) => split_4::<0>(plain, planes),
        (4, true) => split_4::<1>(plain, planes),
        (8, _) => split_8::<0>(plain, planes),
        _ => planes.copy_from_slice(plain),
    }
}

/// Joins as many planes as an element has bytes, each with a byte for every element.
pub(super) fn join(layout: Layout, planes: &[&[u8]], plain: &mut [u8]) {
    assert_eq!(planes.len(), layout.width);
    assert!(planes.iter().all(|plane| plane.len() * layout.width == plain.len()));
    match (layout.width, layout.rotated) {
        (2, false) => join_2::<0>(planes, plain),
        (2, true) => join_2::<1>(planes, plain),
        (4, false) => join_4::<0>(planes, plain),
        (4, true) => join_4::<1>(planes, plain),
        (8, _) => join_8::<0>(planes, plain),
        _ => plain.copy_from_slice(planes[0]),
    }
}

/// A pair of loops for elements of one width.
macro_rules! loops {
    ($split:ident, $join:ident, $word:ty, $width:literal) => {
        fn $split<const ROTATE: u32>(plain: &[u8], planes: &mut [u8]) {
            let (elements, _) = plain.as_chunks::<$width>();
            for (step, elements) in elements.chunks(LANES).enumerate() {
                let mut words: [$word; LANES] = [0; LANES];
                for (word, element) in words.iter_mut().zip(elements) {
                    *word = <$word>::from_le_bytes(*element).rotate_left(ROTATE);
                }
                let mut start = step * LANES;
                for place in 0..$width {
                    let plane = &mut planes[start..start + elements.len()];
                    for (byte, word) in plane.iter_mut().zip(&words) {
                        *byte = (word >> (8 * place)) as u8;
                    }
                    start += plain.len() / $width;
                }
            }
        }

        fn $join<const ROTATE: u32>(planes: &[&[u8]], plain: &mut [u8]) {
            let (elements, _) = plain.as_chunks_mut::<$width>();
            for (step, elements) in elements.chunks_mut(LANES).enumerate() {
                let mut words: [$word; LANES] = [0; LANES];
                let start = step * LANES;
                for (place, plane) in planes.iter().enumerate() {
                    let plane = &plane[start..start + elements.len()];
                    for (byte, word) in plane.iter().zip(&mut words) {
                        *word |= <$word>::from(*byte) << (8 * place);
                    }
                }
                for (word, element) in words.iter().zip(elements) {
                    *element = word.rotate_right(ROTATE).to_le_bytes();
                }
            }
        }
    };
}

loops!(split_2, join_2, u16, 2);
loops!(split_4, join_4, u32, 4);
loops!(split_8, join_8, u64, 8);
