//! Elements to planes and back: byte `p` of every element lies in plane `p`.
//!
//! Plain loops that the compiler turns into vector instructions: one step gathers [`LANES`] elements
//! into words on the stack, where they stay in the first-level cache.

use std::ops::{BitOr, Range, Shl};

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
        (8, _) => split_8(plain, planes),
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
        (8, _) => join_8(planes, plain),
        _ => plain.copy_from_slice(planes[0]),
    }
}

/// A word and its lower and its higher half.
trait Halves: Copy {
    type Half;
    fn halves(self) -> (Self::Half, Self::Half);
}

macro_rules! halves {
    ($word:ty, $half:ty) => {
        impl Halves for $word {
            type Half = $half;
            fn halves(self) -> ($half, $half) {
                (self as $half, (self >> <$half>::BITS) as $half)
            }
        }
    };
}

halves!(u16, u8);
halves!(u32, u16);
halves!(u64, u32);

/// The inverse of [`pair`].
fn part<W: Halves>(words: impl Iterator<Item = W>, (low, high): (&mut [W::Half], &mut [W::Half])) {
    for ((word, low), high) in words.zip(low).zip(high) {
        (*low, *high) = word.halves();
    }
}

/// The bytes for elements `range` in the plane `place`, of `count` each, and in the one after it.
fn two(
    planes: &mut [u8],
    place: usize,
    count: usize,
    range: Range<usize>,
) -> (&mut [u8], &mut [u8]) {
    let (low, high) = planes[place * count..].split_at_mut(count);
    (&mut low[range.clone()], &mut high[range])
}

/// The ranges of the steps that `count` elements are gone through in.
fn steps(count: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count).step_by(LANES).map(move |start| start..count.min(start + LANES))
}

fn split_2<const ROTATE: u32>(plain: &[u8], planes: &mut [u8]) {
    let (elements, _) = plain.as_chunks::<2>();
    let count = elements.len();
    let words = elements.iter().map(|it| u16::from_le_bytes(*it).rotate_left(ROTATE));
    part(words, two(planes, 0, count, 0..count));
}

fn split_4<const ROTATE: u32>(plain: &[u8], planes: &mut [u8]) {
    let (elements, _) = plain.as_chunks::<4>();
    let count = elements.len();
    for range in steps(count) {
        let [mut low, mut high] = [[0_u16; LANES]; 2];
        let words = elements[range.clone()].iter();
        let words = words.map(|it| u32::from_le_bytes(*it).rotate_left(ROTATE));
        part(words, (&mut low, &mut high));
        part(low.iter().copied(), two(planes, 0, count, range.clone()));
        part(high.iter().copied(), two(planes, 2, count, range));
    }
}

fn split_8(plain: &[u8], planes: &mut [u8]) {
    let (elements, _) = plain.as_chunks::<8>();
    let count = elements.len();
    for range in steps(count) {
        let [mut low, mut high] = [[0_u32; LANES]; 2];
        let words = elements[range.clone()].iter().map(|it| u64::from_le_bytes(*it));
        part(words, (&mut low, &mut high));
        for (place, half) in [(0, low), (4, high)] {
            let [mut low, mut high] = [[0_u16; LANES]; 2];
            part(half.iter().copied(), (&mut low, &mut high));
            part(low.iter().copied(), two(planes, place, count, range.clone()));
            part(high.iter().copied(), two(planes, place + 2, count, range.clone()));
        }
    }
}

/// Makes each word of its lower and its higher half. Two planes, then two pairs of them, and so on: that
/// is what vector instructions interleave, two to four times as fast as a shift for each byte.
fn pair<H, W>(low: &[H], high: &[H], words: &mut [W])
where
    H: Copy,
    W: From<H> + Shl<usize, Output = W> + BitOr<Output = W>,
{
    for ((word, low), high) in words.iter_mut().zip(low).zip(high) {
        *word = W::from(*low) | W::from(*high) << (8 * size_of::<H>());
    }
}

fn join_2<const ROTATE: u32>(planes: &[&[u8]], plain: &mut [u8]) {
    let (elements, _) = plain.as_chunks_mut::<2>();
    for ((element, low), high) in elements.iter_mut().zip(planes[0]).zip(planes[1]) {
        *element = u16::from_le_bytes([*low, *high]).rotate_right(ROTATE).to_le_bytes();
    }
}

fn join_4<const ROTATE: u32>(planes: &[&[u8]], plain: &mut [u8]) {
    let (elements, _) = plain.as_chunks_mut::<4>();
    for (step, elements) in elements.chunks_mut(LANES).enumerate() {
        let of = |place: usize| &planes[place][step * LANES..][..elements.len()];
        let mut halves = [[0_u16; LANES]; 2];
        pair(of(0), of(1), &mut halves[0]);
        pair(of(2), of(3), &mut halves[1]);
        for ((element, low), high) in elements.iter_mut().zip(&halves[0]).zip(&halves[1]) {
            let word = u32::from(*low) | u32::from(*high) << 16;
            *element = word.rotate_right(ROTATE).to_le_bytes();
        }
    }
}

fn join_8(planes: &[&[u8]], plain: &mut [u8]) {
    let (elements, _) = plain.as_chunks_mut::<8>();
    for (step, elements) in elements.chunks_mut(LANES).enumerate() {
        let of = |place: usize| &planes[place][step * LANES..][..elements.len()];
        let mut quarters = [[0_u16; LANES]; 4];
        for (place, quarter) in quarters.iter_mut().enumerate() {
            pair(of(2 * place), of(2 * place + 1), quarter);
        }
        let mut halves = [[0_u32; LANES]; 2];
        for (half, quarters) in halves.iter_mut().zip(quarters.chunks_exact(2)) {
            pair(&quarters[0], &quarters[1], half);
        }
        for ((element, low), high) in elements.iter_mut().zip(&halves[0]).zip(&halves[1]) {
            *element = (u64::from(*low) | u64::from(*high) << 32).to_le_bytes();
        }
    }
}
