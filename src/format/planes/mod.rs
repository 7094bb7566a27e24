//! Codecs 2 and 3, byte planes: a block of numbers, or of their differences to those of a base, split
//! so that like bytes lie together.
//!
//! The sign and exponent of a weight take few values and its mantissa takes all; side by side
//! neither compresses well. A block says itself how it was split and how each plane is stored, so
//! that a reader needs no hint, and a writer is free to choose (FORMAT.md, "Byte planes").
//! Nothing here trusts stored bytes: what is not a block is an error, and nothing is allocated for it.

mod residual;
mod sample;
mod split;
mod structs;

use std::cell::RefCell;

use super::codec::{BLOCK_BYTES, CodecError, Elements};
use super::frame::{self, Effort};
use residual::Residual;
use sample::Sample;
use split::Layout;

pub use structs::Structs;

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
/// Planes of a block at most.
const PLANES_MAX: usize = structs::SCALES_MAX + 1;
/// Bytes of a plane's line in the head of a block.
const LINE_BYTES: usize = 4;
/// Bytes that say which structs a block holds.
const STRUCTS_BYTES: usize = 5;
/// Bits of the first byte of a block: its elements are rotated; they are differences of integers,
/// or of floats, to those of the base.
const ROTATED: u8 = 0x10;
const INTEGERS: u8 = 0x20;
const FLOATS: u8 = 0x40;

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
    // The planes of one block and its differences to the base, so that no call allocates.
    static PLANES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static DIFFERENCES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Layout {
    /// The layout for a block of these elements; `None` where their bytes are not known.
    fn of(elements: Elements) -> Option<Self> {
        let (width, rotated) = match elements {
            Elements::Unknown | Elements::Mixed => return None,
            Elements::Bytes | Elements::F8 | Elements::I8 | Elements::Structs(_) => (1, false),
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
}

/// How a block was split into planes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Split {
    Elements(Layout),
    Structs(Structs),
}

impl Split {
    fn of(elements: Elements, plain: &[u8]) -> Self {
        match elements {
            Elements::Structs(structs) => Self::Structs(structs),
            _ => Self::Elements(Layout::of(elements).unwrap_or_else(|| Layout::guess(plain))),
        }
    }

    /// How differences to a base are made.
    fn residual(self, elements: Elements) -> Residual {
        match (self, elements) {
            (Self::Structs(_), _) => Residual::Integer,
            (_, Elements::F16 | Elements::Bf16 | Elements::F32 | Elements::F64 | Elements::F8) => {
                Residual::Float
            }
            // Guessed: what is wider than a byte is mostly floats.
            (Self::Elements(layout), Elements::Mixed) if 1 < layout.width => Residual::Float,
            _ => Residual::Integer,
        }
    }

    /// The split for differences: there is no exponent left that a rotation would serve.
    fn of_differences(self) -> Self {
        match self {
            Self::Elements(layout) => Self::Elements(Layout { rotated: false, ..layout }),
            Self::Structs(_) => self,
        }
    }

    fn width(self) -> usize {
        match self {
            Self::Elements(layout) => layout.width,
            Self::Structs(_) => 1,
        }
    }

    fn plane_count(self) -> usize {
        match self {
            Self::Elements(layout) => layout.width,
            Self::Structs(structs) => structs.plane_count(),
        }
    }

    /// Bytes of one plane of `whole_bytes`, a whole number of elements.
    fn plane_bytes(self, plane: usize, whole_bytes: usize) -> usize {
        match self {
            Self::Elements(layout) => layout.count(whole_bytes),
            Self::Structs(structs) => structs.plane_bytes(plane, whole_bytes),
        }
    }

    fn split(self, whole: &[u8], planes: &mut [u8]) {
        match self {
            Self::Elements(layout) => split::split(layout, whole, planes),
            Self::Structs(structs) => structs.split(whole, planes),
        }
    }

    fn join(self, planes: &[&[u8]], whole: &mut [u8]) {
        match self {
            Self::Elements(layout) => split::join(layout, planes, whole),
            Self::Structs(structs) => structs.join(planes, whole),
        }
    }

    fn encode(self, residual: Residual, out: &mut Vec<u8>) {
        let flags = match residual {
            Residual::None => 0,
            Residual::Integer => INTEGERS,
            Residual::Float => FLOATS,
        };
        match self {
            Self::Elements(Layout { width, rotated }) => {
                let width = u8::try_from(width).expect("an element has at most 8 bytes");
                out.push(flags | width | if rotated { ROTATED } else { 0 });
            }
            Self::Structs(structs) => {
                out.push(flags);
                out.extend_from_slice(&structs.encode());
            }
        }
    }

    /// The split that a block begins with, and what follows.
    fn parse(stored: &[u8]) -> Option<(Self, Residual, &[u8])> {
        let (&first, rest) = stored.split_first()?;
        let residual = match first & (INTEGERS | FLOATS) {
            0 => Residual::None,
            INTEGERS => Residual::Integer,
            FLOATS => Residual::Float,
            _ => return None,
        };
        let form = first & !(INTEGERS | FLOATS);
        if form == 0 {
            let (structs, rest) = rest.split_first_chunk::<STRUCTS_BYTES>()?;
            return Some((Self::Structs(Structs::decode(*structs)?), residual, rest));
        }
        let (width, rotated) = (usize::from(form & !ROTATED), form & ROTATED != 0);
        let layout = Layout::ALL.into_iter().find(|known| *known == Layout { width, rotated })?;
        Some((Self::Elements(layout), residual, rest))
    }
}

/// Appends the stored form of a block, `plain`, to `out`; it may be longer than the block. With a
/// `base`, which is as long, its differences to that are stored.
pub(super) fn encode(plain: &[u8], elements: Elements, base: Option<&[u8]>, out: &mut Vec<u8>) {
    assert!(plain.len() <= BLOCK_BYTES, "block of {} bytes", plain.len());
    let split = Split::of(elements, plain);
    let Some(base) = base else {
        return encode_numbers(split, Residual::None, plain, out);
    };
    let residual = split.residual(elements);
    let width = split.width();
    let whole = plain.len() / width * width;
    with_scratch(&DIFFERENCES, |differences| {
        let differences = &mut differences[..plain.len()];
        let (base, (numbers, tail)) = (&base[..whole], plain.split_at(whole));
        residual::subtract(residual, width, numbers, base, &mut differences[..whole]);
        differences[whole..].copy_from_slice(tail);
        encode_numbers(split.of_differences(), residual, differences, out);
    });
}

fn encode_numbers(split: Split, residual: Residual, plain: &[u8], out: &mut Vec<u8>) {
    let (whole, tail) = plain.split_at(plain.len() / split.width() * split.width());
    split.encode(residual, out);
    let head = out.len();
    out.resize(head + split.plane_count() * LINE_BYTES, 0);
    with_scratch(&PLANES, |planes| {
        let planes = match split.plane_count() {
            1 => whole,
            _ => {
                let planes = &mut planes[..whole.len()];
                split.split(whole, planes);
                &*planes
            }
        };
        let mut rest = planes;
        for place in 0..split.plane_count() {
            let (plane, after) = rest.split_at(split.plane_bytes(place, whole.len()));
            let start = out.len();
            let method = put_plane(plane, out);
            let bytes = u32::try_from(out.len() - start).expect("a plane is at most 128 KiB");
            let line = u32::from(method as u8) << 24 | bytes;
            out[head + place * LINE_BYTES..][..LINE_BYTES].copy_from_slice(&line.to_le_bytes());
            rest = after;
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

fn with_scratch<T>(
    scratch: &'static std::thread::LocalKey<RefCell<Vec<u8>>>,
    body: impl FnOnce(&mut [u8]) -> T,
) -> T {
    scratch.with_borrow_mut(|bytes| {
        bytes.resize(BLOCK_BYTES, 0);
        body(bytes)
    })
}

/// Decodes a stored block into exactly `plain`. Differences are added to those bytes of the base
/// that `base` gives, which are as long.
///
/// # Errors
/// Where the bytes are not such a block, or differences and `base` is `None`; `plain` then holds
/// nothing of meaning.
pub(super) fn decode(
    stored: &[u8],
    base: Option<&[u8]>,
    plain: &mut [u8],
) -> Result<(), CodecError> {
    let wrong = |why| CodecError::Planes { why };
    if BLOCK_BYTES < plain.len() {
        return Err(CodecError::Length { expected: BLOCK_BYTES, found: plain.len() });
    }
    let (split, residual, rest) = Split::parse(stored).ok_or(wrong("its layout is not known"))?;
    let (lines, mut rest) = rest
        .split_at_checked(split.plane_count() * LINE_BYTES)
        .ok_or(wrong("it ends within its head"))?;
    let (lines, _) = lines.as_chunks::<LINE_BYTES>();
    let (whole, tail) = plain.split_at_mut(plain.len() / split.width() * split.width());
    with_scratch(&PLANES, |scratch| {
        let mut planes: [&[u8]; PLANES_MAX] = [&[]; PLANES_MAX];
        let mut scratch = &mut scratch[..whole.len()];
        for (place, (plane, line)) in planes.iter_mut().zip(lines).enumerate() {
            let line = u32::from_le_bytes(*line);
            let bytes = (line & 0x00ff_ffff) as usize;
            let (stored, after) =
                rest.split_at_checked(bytes).ok_or(wrong("it ends within a plane"))?;
            let (room, room_after) = scratch.split_at_mut(split.plane_bytes(place, whole.len()));
            *plane = load_plane(line >> 24, stored, room)?;
            (rest, scratch) = (after, room_after);
        }
        if rest.len() != tail.len() {
            return Err(wrong("its planes do not fill it"));
        }
        tail.copy_from_slice(rest);
        split.join(&planes[..split.plane_count()], whole);
        Ok(())
    })?;
    if residual != Residual::None {
        let base = base.and_then(|base| base.get(..whole.len()));
        residual::add(residual, split.width(), base.ok_or(wrong("it needs a base"))?, whole);
    }
    Ok(())
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
