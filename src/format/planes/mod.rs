//! Codec 2, byte planes: a block of numbers, split so that like bytes lie together.
//!
//! The sign and exponent of a weight take few values and its mantissa takes all; side by side
//! neither compresses well. A block says itself how it was split and how each plane is stored, so
//! that a reader needs no hint, and a writer is free to choose (FORMAT.md, "Byte planes").
//! Nothing here trusts stored bytes: what is not a block is an error, and nothing is allocated for it.

mod sample;
mod split;

use std::cell::RefCell;

use super::codec::{BLOCK_BYTES, CodecError, Elements};
use super::frame::{self, Effort};
use sample::Sample;
use split::Layout;

/// A plane whose sampled entropy is above this is stored as it is, in bits a byte.
const RAW_ENTROPY: f32 = 7.9;
/// One below this may be sparse: matches can beat Huffman's one bit a byte. Measured: of bytes that
/// are zero but for some at random, matches make less only below 0.7.
const SPARSE_ENTROPY: f32 = 0.75;
/// Bytes of a block by which its layout is guessed.
const GUESS_BYTES: usize = 16 << 10;
/// Bits a byte by which a guess must beat the simpler layouts before it.
const GUESS_MARGIN: f32 = 0.01;
/// Bits that a Huffman code takes for each byte that comes, about.
const CODE_BITS: f32 = 4.0;
/// Bytes of an element at most.
const WIDTH_MAX: usize = 8;
/// Bytes of a plane's line in the head of a block.
const LINE_BYTES: usize = 4;
/// Bit of the first byte of a block: its elements are rotated.
const ROTATED: u8 = 0x10;

/// How a plane is stored. The numbers are part of the format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Method {
    /// One byte, which all of the plane's are.
    Constant = 0,
    /// As it is.
    Raw = 1,
    /// One zstd frame.
    Zstd = 2,
}

impl Method {
    fn parse(byte: u32) -> Option<Self> {
        [Self::Constant, Self::Raw, Self::Zstd].into_iter().find(|method| *method as u32 == byte)
    }
}

thread_local! {
    // The planes of one block, so that no call allocates.
    static PLANES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Layout {
    /// The layout for a block of these elements; `None` where their bytes are not known.
    fn of(elements: Elements) -> Option<Self> {
        let (width, rotated) = match elements {
            Elements::Unknown | Elements::Mixed => return None,
            Elements::Bytes | Elements::F8 | Elements::I8 => (1, false),
            Elements::F16 | Elements::I16 => (2, false),
            Elements::Bf16 => (2, true),
            Elements::I32 => (4, false),
            Elements::F32 => (4, true),
            // The exponent of fp64 has 11 bits: rotated, a part of it would lie among more mantissa.
            Elements::I64 | Elements::F64 => (8, false),
        };
        Some(Self { width, rotated })
    }

    /// The layout for `plain`, of which only its bytes tell: the one with the least entropy.
    fn guess(plain: &[u8]) -> Self {
        let runs: Vec<u8> = sample::runs(plain, GUESS_BYTES).flatten().copied().collect();
        let mut planes = vec![0; runs.len()];
        let mut least = f32::MAX;
        let mut best = Self { width: 1, rotated: false };
        for layout in Self::ALL {
            let bits = cost(layout, &runs, &mut planes, plain.len());
            if bits + GUESS_MARGIN < least {
                (least, best) = (bits, layout);
            }
        }
        best
    }

    fn byte(self) -> u8 {
        let width = u8::try_from(self.width).expect("an element has at most 8 bytes");
        if self.rotated { width | ROTATED } else { width }
    }

    fn parse(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|layout| layout.byte() == byte)
    }
}

/// Appends the stored form of a block, `plain`, to `out`; it may be longer than the block.
pub(super) fn encode(plain: &[u8], elements: Elements, out: &mut Vec<u8>) {
    assert!(plain.len() <= BLOCK_BYTES, "block of {} bytes", plain.len());
    let layout = Layout::of(elements).unwrap_or_else(|| Layout::guess(plain));
    let width = layout.width;
    let count = layout.count(plain.len());
    let (whole, tail) = plain.split_at(count * width);
    let head = out.len();
    out.push(layout.byte());
    out.resize(head + 1 + width * LINE_BYTES, 0);
    with_scratch(|planes| {
        let planes = match width {
            1 => whole,
            _ => {
                let planes = &mut planes[..whole.len()];
                split::split(layout, whole, planes);
                &*planes
            }
        };
        for place in 0..width {
            let start = out.len();
            let method = put_plane(&planes[place * count..][..count], out);
            let bytes = u32::try_from(out.len() - start).expect("a plane is at most 128 KiB");
            let line = u32::from(method as u8) << 24 | bytes;
            out[head + 1 + place * LINE_BYTES..][..LINE_BYTES].copy_from_slice(&line.to_le_bytes());
        }
    });
    out.extend_from_slice(tail);
}

/// Appends one plane in the form that its sample asks for.
fn put_plane(plane: &[u8], out: &mut Vec<u8>) -> Method {
    if let [first, rest @ ..] = plane
        && is_all(rest, *first)
    {
        out.push(*first);
        return Method::Constant;
    }
    let start = out.len();
    let sample = Sample::of(plane);
    let sparse = sample.entropy < SPARSE_ENTROPY || sample.repeats;
    let mut least = usize::MAX;
    if sparse {
        least = frame::put(Effort::Fast, plane, out);
    }
    // Huffman cannot go below one bit a byte, and need not be tried where matches have.
    if plane.len() / 8 < least && (sparse || sample.entropy <= RAW_ENTROPY) {
        let first = out.len() - start;
        let second = frame::put(Effort::Huffman, plane, out);
        if second < least {
            out.drain(start..start + first);
            least = second;
        }
    }
    if least < plane.len() {
        out.truncate(start + least);
        return Method::Zstd;
    }
    out.truncate(start);
    out.extend_from_slice(plane);
    Method::Raw
}

fn is_all(bytes: &[u8], value: u8) -> bool {
    // In pieces: a whole piece is compared at once, and most planes differ in the first.
    bytes.chunks(256).all(|piece| piece.iter().fold(0, |all, byte| all | (byte ^ value)) == 0)
}

/// Bits that a byte of a block of `block_bytes` takes in this layout, judged by `runs` of it.
fn cost(layout: Layout, runs: &[u8], planes: &mut [u8], block_bytes: usize) -> f32 {
    let count = layout.count(runs.len());
    let planes = &mut planes[..count * layout.width];
    split::split(layout, &runs[..planes.len()], planes);
    let plane_bytes = layout.count(block_bytes).max(1) as f32;
    let bits = |plane| {
        let Sample { entropy, distinct, .. } = Sample::of(plane);
        match entropy + CODE_BITS * distinct as f32 / plane_bytes {
            bits if RAW_ENTROPY < bits => 8.0,
            bits => bits,
        }
    };
    planes.chunks_exact(count.max(1)).map(bits).sum::<f32>() / layout.width as f32
}

fn with_scratch<T>(body: impl FnOnce(&mut [u8]) -> T) -> T {
    PLANES.with_borrow_mut(|planes| {
        planes.resize(BLOCK_BYTES, 0);
        body(planes)
    })
}

/// Decodes a stored block into exactly `plain`.
///
/// # Errors
/// Where the bytes are not such a block; `plain` then holds nothing of meaning.
pub(super) fn decode(stored: &[u8], plain: &mut [u8]) -> Result<(), CodecError> {
    let wrong = |why| CodecError::Planes { why };
    if BLOCK_BYTES < plain.len() {
        return Err(CodecError::Length { expected: BLOCK_BYTES, found: plain.len() });
    }
    let (&first, rest) = stored.split_first().ok_or(wrong("it is empty"))?;
    let layout = Layout::parse(first).ok_or(wrong("its layout is not known"))?;
    let width = layout.width;
    let count = layout.count(plain.len());
    let (lines, mut rest) =
        rest.split_at_checked(width * LINE_BYTES).ok_or(wrong("it ends within its head"))?;
    let (lines, _) = lines.as_chunks::<LINE_BYTES>();
    let (whole, tail) = plain.split_at_mut(count * width);
    with_scratch(|scratch| {
        let mut planes: [&[u8]; WIDTH_MAX] = [&[]; WIDTH_MAX];
        let mut scratch = &mut scratch[..whole.len()];
        for (plane, line) in planes.iter_mut().zip(lines) {
            let line = u32::from_le_bytes(*line);
            let bytes = (line & 0x00ff_ffff) as usize;
            let (stored, after) =
                rest.split_at_checked(bytes).ok_or(wrong("it ends within a plane"))?;
            let (room, room_after) = scratch.split_at_mut(count);
            *plane = load_plane(line >> 24, stored, room)?;
            (rest, scratch) = (after, room_after);
        }
        if rest.len() != tail.len() {
            return Err(wrong("its planes do not fill it"));
        }
        tail.copy_from_slice(rest);
        split::join(layout, &planes[..width], whole);
        Ok(())
    })
}

/// The bytes of a plane: those stored, or those decoded into `room`.
fn load_plane<'a>(
    method: u32,
    stored: &'a [u8],
    room: &'a mut [u8],
) -> Result<&'a [u8], CodecError> {
    let wrong = |why| CodecError::Planes { why };
    match Method::parse(method).ok_or(wrong("a plane's method is not known"))? {
        Method::Constant => {
            let [value] = stored else {
                return Err(wrong("a constant plane has not one byte"));
            };
            room.fill(*value);
            Ok(room)
        }
        Method::Raw if stored.len() == room.len() => Ok(stored),
        Method::Raw => Err(CodecError::Length { expected: room.len(), found: stored.len() }),
        Method::Zstd => {
            frame::load(stored, room)?;
            Ok(room)
        }
    }
}

#[cfg(test)]
mod tests;
