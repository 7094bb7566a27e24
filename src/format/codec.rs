//! Codecs: plain bytes of a chunk to stored blocks and back.
//!
//! A chunk is cut into blocks of [`BLOCK_BYTES`], the last may be shorter. Each block is stored by
//! itself with an xxh3 of its stored bytes, so that a small read decodes, and checks, a small part.
//! Invariant C1: a block whose stored length equals its plain length is stored as it is.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::frame::{self, Effort};
use super::ids::DIGEST_BYTES;
use super::manifest::ChunkRef;
use super::planes;

pub use super::planes::Structs;

/// Plain bytes of a block.
pub const BLOCK_BYTES: usize = 128 << 10;
/// Plain bytes of the largest chunk.
pub const CHUNK_BYTES_MAX: usize = 16 << 20;
/// A chunk that shrinks by less than this part of 100 is stored raw: reading it is then a copy.
const GAIN_PERCENT_MIN: usize = 3;
/// Plain bytes by which planes and zstd are compared; a chunk up to this size is encoded both ways.
const PROBE_BYTES: usize = 16 << 10;
/// Where zstd makes less than this part of 100 of what planes make, it is taken: it is slower, and
/// the heads and codes of planes weigh more in a probe than in a block.
const PROBE_PERCENT: usize = 98;
/// Where differences make less than this part of 100 of what the chunk makes alone, they are taken:
/// whoever reads it then reads the base too.
const DELTA_PERCENT: usize = 98;
/// Most chunks that one chunk is encoded against.
pub const BASE_COUNT_MAX: usize = 16;
/// Plain bytes of all bases of one chunk.
pub const BASE_BYTES_MAX: usize = 16 << 20;
/// One line of the table of bases in the head of a record.
pub(super) const BASE_LINE_BYTES: usize = DIGEST_BYTES + 4;
/// Longest chain of bases that is read.
pub const DEPTH_MAX: u8 = 8;

/// How a chunk's blocks are stored. The numbers are part of the format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Codec {
    /// As they are.
    Raw = 0,
    /// One zstd frame a block.
    Zstd = 1,
    /// The bytes of numbers split into planes, each stored as suits it.
    Planes = 2,
    /// As planes, of the differences to a base of the same length.
    Delta = 3,
    /// One zstd frame a block, with all of the bases before it as a prefix.
    Patch = 4,
}

impl Codec {
    /// Whether a chunk of `plain_bytes` in this form can have these bases.
    pub fn takes(self, bases: &Bases, plain_bytes: u32) -> bool {
        let bytes: usize = bases.chunks.iter().map(|base| base.bytes as usize).sum();
        let fits = match self {
            Self::Raw | Self::Zstd | Self::Planes => bases.chunks.is_empty(),
            Self::Delta => matches!(bases.chunks[..], [base] if base.bytes == plain_bytes),
            Self::Patch => (1..=BASE_COUNT_MAX).contains(&bases.chunks.len()),
        };
        fits && bytes <= BASE_BYTES_MAX
            && (bases.depth == 0) == bases.chunks.is_empty()
            && bases.depth <= DEPTH_MAX
    }
}

/// The chunks that a chunk was encoded against: they are needed to read it.
///
/// Invariant C2: a chunk is read by records of its bases that are less deep than its own, so that
/// every chain ends.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Bases {
    /// 0 without bases; else more than that of each of them, at most [`DEPTH_MAX`].
    pub depth: u8,
    /// In the order in which the codec takes them.
    pub chunks: Vec<ChunkRef>,
}

impl Bases {
    /// Bytes that they take in the head of a record.
    pub fn bytes(&self) -> usize {
        BASE_LINE_BYTES * self.chunks.len()
    }
}

/// What the bytes of a chunk are, as far as its file tells. Decoding does not need it.
///
/// The chunk starts with a whole element. A wrong hint costs size, never content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Elements {
    /// A file of unknown format: zstd or raw.
    Unknown,
    /// Numbers of several or unknown kinds: each block guesses its own by a sample.
    Mixed,
    /// Bytes without a wider structure: booleans, packed integers of 4 bits.
    Bytes,
    /// Quantised blocks.
    Structs(Structs),
    F8,
    F16,
    Bf16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
}

impl Elements {
    /// What the bytes are `offset` bytes further on.
    pub fn at(self, offset: u64) -> Self {
        match self {
            Self::Structs(structs) => Self::Structs(structs.at(offset)),
            other => other,
        }
    }

    /// Bytes after which the same begins anew, whatever the elements: none is wider than 8.
    fn step(self) -> usize {
        match self {
            Self::Structs(structs) => structs.bytes(),
            _ => 8,
        }
    }
}

impl TryFrom<u8> for Codec {
    type Error = CodecError;
    fn try_from(byte: u8) -> Result<Self, CodecError> {
        match byte {
            0 => Ok(Self::Raw),
            1 => Ok(Self::Zstd),
            2 => Ok(Self::Planes),
            3 => Ok(Self::Delta),
            4 => Ok(Self::Patch),
            _ => Err(CodecError::Unknown { codec: byte }),
        }
    }
}

/// Why stored bytes are not a block.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("codec {codec} is not known to this release: a newer modelfs wrote it")]
    Unknown { codec: u8 },
    #[error("block has checksum {found:016x}, expected {expected:016x}")]
    Check { expected: u64, found: u64 },
    #[error("block decodes to {found} bytes, expected {expected}")]
    Length { expected: usize, found: usize },
    #[error("zstd cannot read the block: {0}")]
    Zstd(#[source] std::io::Error),
    #[error("block of byte planes cannot be read: {why}")]
    Planes { why: &'static str },
}

/// A stored block: its length and the xxh3 of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block {
    pub stored_bytes: u32,
    pub check: u64,
}

/// A chunk in stored form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encoded {
    pub codec: Codec,
    pub blocks: Vec<Block>,
    /// The blocks' stored bytes, one after the other.
    pub payload: Vec<u8>,
}

/// Number of blocks of a chunk of `plain_bytes`.
pub const fn block_count(plain_bytes: usize) -> usize {
    plain_bytes.div_ceil(BLOCK_BYTES)
}

/// Plain length of block `index` of a chunk of `plain_bytes`.
pub fn block_plain_bytes(plain_bytes: usize, index: usize) -> usize {
    debug_assert!(index < block_count(plain_bytes));
    (plain_bytes - index * BLOCK_BYTES).min(BLOCK_BYTES)
}

/// Encodes a chunk of 1 to [`CHUNK_BYTES_MAX`] bytes.
///
/// Whatever is smaller by a sample: planes or zstd; raw where neither gains. Equal input gives
/// equal output in one release; another release may encode otherwise, and reads both.
pub fn encode(plain: &[u8], elements: Elements) -> Encoded {
    assert!((1..=CHUNK_BYTES_MAX).contains(&plain.len()), "chunk of {} bytes", plain.len());
    let encoded = match elements {
        Elements::Unknown => encode_zstd(plain),
        _ if plain.len() <= PROBE_BYTES => {
            let (planes, zstd) = (encode_planes(plain, elements), encode_zstd(plain));
            if zstd.payload.len() < planes.payload.len() { zstd } else { planes }
        }
        _ if probe_prefers_zstd(plain, elements) => encode_zstd(plain),
        _ => encode_planes(plain, elements),
    };
    or_raw(encoded, plain)
}

fn or_raw(encoded: Encoded, plain: &[u8]) -> Encoded {
    match plain.len() * (100 - GAIN_PERCENT_MIN) < encoded.payload.len() * 100 {
        true => encode_raw(plain),
        false => encoded,
    }
}

/// Encodes a chunk as its differences to `base`, which is as long.
pub fn encode_delta(plain: &[u8], elements: Elements, base: &[u8]) -> Encoded {
    assert_eq!(plain.len(), base.len(), "the base of a delta is as long as the chunk");
    let encoded = encode_blocks(Codec::Delta, plain, |at, block, out| {
        let base = &base[at..at + block.len()];
        planes::encode(block, elements.at(at as u64), Some(base), out);
    });
    or_raw(encoded, plain)
}

/// Encodes a chunk with `prefix`, the bytes of all its bases, before each block; alone, where that
/// cannot be one.
pub fn encode_patch(plain: &[u8], prefix: &[u8]) -> Encoded {
    let Some(mut patcher) = frame::Patcher::new(prefix) else {
        return encode(plain, Elements::Unknown);
    };
    let encoded = encode_blocks(Codec::Patch, plain, |_, block, out| patcher.put(block, out));
    or_raw(encoded, plain)
}

/// The places in a chunk of `plain_bytes` by which ways to encode it are compared.
pub fn sample_places(plain_bytes: usize, elements: Elements) -> [Range<usize>; 2] {
    let step = elements.step();
    let piece_bytes = PROBE_BYTES / 2 / step * step;
    if plain_bytes <= 2 * piece_bytes {
        return [0..plain_bytes, plain_bytes..plain_bytes];
    }
    let start = |quarter| (plain_bytes - piece_bytes) / 4 * quarter / step * step;
    [1, 3].map(|quarter| start(quarter)..start(quarter) + piece_bytes)
}

/// Whether a chunk makes enough less as differences to a base, by [`sample_places`] of both.
pub fn sample_prefers_delta(plain: &[u8], elements: Elements, base: &[u8]) -> bool {
    let mut out = Vec::with_capacity(4 * PROBE_BYTES);
    let zstd_bytes = frame::put(Effort::Fast, plain, &mut out);
    planes::encode(plain, elements, None, &mut out);
    let alone = zstd_bytes.min(out.len() - zstd_bytes).min(plain.len());
    out.clear();
    planes::encode(plain, elements, Some(base), &mut out);
    100 * out.len() < DELTA_PERCENT * alone
}

/// Whether zstd beats planes on two pieces of a chunk that has more.
fn probe_prefers_zstd(plain: &[u8], elements: Elements) -> bool {
    let mut piece = Vec::with_capacity(PROBE_BYTES);
    for place in sample_places(plain.len(), elements) {
        piece.extend_from_slice(&plain[place]);
    }
    let mut out = Vec::with_capacity(2 * PROBE_BYTES);
    let zstd_bytes = frame::put(Effort::Fast, &piece, &mut out);
    planes::encode(&piece, elements, None, &mut out);
    100 * zstd_bytes < PROBE_PERCENT * (out.len() - zstd_bytes)
}

fn encode_raw(plain: &[u8]) -> Encoded {
    let blocks = plain.chunks(BLOCK_BYTES).map(block_of).collect();
    Encoded { codec: Codec::Raw, blocks, payload: plain.to_vec() }
}

fn encode_zstd(plain: &[u8]) -> Encoded {
    encode_blocks(Codec::Zstd, plain, |_, block, out| {
        frame::put(Effort::General, block, out);
    })
}

fn encode_planes(plain: &[u8], elements: Elements) -> Encoded {
    encode_blocks(Codec::Planes, plain, |at, block, out| {
        planes::encode(block, elements.at(at as u64), None, out);
    })
}

/// Encodes each block, told where in the chunk it is, with `put`, or as it is where that is not
/// longer.
fn encode_blocks(
    codec: Codec,
    plain: &[u8],
    mut put: impl FnMut(usize, &[u8], &mut Vec<u8>),
) -> Encoded {
    let mut payload = Vec::with_capacity(plain.len() + (BLOCK_BYTES >> 4));
    let mut blocks = Vec::with_capacity(block_count(plain.len()));
    for (index, block) in plain.chunks(BLOCK_BYTES).enumerate() {
        let start = payload.len();
        put(index * BLOCK_BYTES, block, &mut payload);
        if block.len() <= payload.len() - start {
            payload.truncate(start);
            payload.extend_from_slice(block);
        }
        blocks.push(block_of(&payload[start..]));
    }
    Encoded { codec, blocks, payload }
}

fn block_of(stored: &[u8]) -> Block {
    let stored_bytes = u32::try_from(stored.len()).expect("a block is at most 128 KiB");
    Block { stored_bytes, check: xxh3_64(stored) }
}

/// Plain bytes that a block needs of the bases of its chunk: for `Delta` the same bytes of the
/// base, for `Patch` all of all bases, one after the other; else nothing.
pub fn base_range(codec: Codec, bases: &Bases, plain_bytes: usize, index: usize) -> Range<usize> {
    match codec {
        Codec::Raw | Codec::Zstd | Codec::Planes => 0..0,
        Codec::Delta => {
            let start = index * BLOCK_BYTES;
            start..start + block_plain_bytes(plain_bytes, index)
        }
        Codec::Patch => 0..bases.chunks.iter().map(|base| base.bytes as usize).sum(),
    }
}

/// Checks and decodes one block into `plain`, whose length is the block's plain length. `base` is
/// what [`base_range`] asks for.
///
/// # Errors
/// When the bytes are not those that were stored; `plain` then holds nothing of meaning.
pub fn decode_block(
    codec: Codec,
    block: &Block,
    stored: &[u8],
    base: &[u8],
    plain: &mut [u8],
) -> Result<(), CodecError> {
    check_block(block, stored)?;
    if stored.len() == plain.len() {
        plain.copy_from_slice(stored);
        return Ok(());
    }
    match codec {
        Codec::Raw => Err(CodecError::Length { expected: plain.len(), found: stored.len() }),
        Codec::Zstd => frame::load(stored, plain),
        Codec::Planes => planes::decode(stored, None, plain),
        Codec::Delta => planes::decode(stored, Some(base), plain),
        Codec::Patch => frame::load_patch(stored, base, plain),
    }
}

/// Checks a block's stored bytes.
///
/// # Errors
/// `Check` when they are not those that were stored.
pub fn check_block(block: &Block, stored: &[u8]) -> Result<(), CodecError> {
    let found = xxh3_64(stored);
    if found != block.check || stored.len() != block.stored_bytes as usize {
        return Err(CodecError::Check { expected: block.check, found });
    }
    Ok(())
}

/// Checks and decodes all blocks of a chunk into `plain`, whose length is the chunk's. `base` are
/// the plain bytes of all its bases, one after the other.
///
/// # Errors
/// As [`decode_block`], and where the blocks do not add up to `payload`.
pub fn decode(
    codec: Codec,
    blocks: &[Block],
    payload: &[u8],
    base: &[u8],
    plain: &mut [u8],
) -> Result<(), CodecError> {
    let plain_bytes = plain.len();
    let mut rest = payload;
    for (index, (block, out)) in blocks.iter().zip(plain.chunks_mut(BLOCK_BYTES)).enumerate() {
        let Some((stored, after)) = rest.split_at_checked(block.stored_bytes as usize) else {
            let expected = block.stored_bytes as usize;
            return Err(CodecError::Length { expected, found: rest.len() });
        };
        let base = base_of(codec, base, index, out.len());
        decode_block(codec, block, stored, base, out)?;
        rest = after;
    }
    if !rest.is_empty() || blocks.len() != block_count(plain_bytes) {
        return Err(CodecError::Length { expected: plain_bytes, found: payload.len() });
    }
    Ok(())
}

/// Whether a chunk that was encoded from `plain` decodes to it again; `base` is as for [`decode`].
///
/// Block by block: what was decoded is compared while it is in the core's cache. `scratch` is room
/// for one.
pub fn reads_back(encoded: &Encoded, base: &[u8], plain: &[u8], scratch: &mut Vec<u8>) -> bool {
    let Encoded { codec, blocks, payload } = encoded;
    let mut rest = &payload[..];
    let same = |(index, (plain, block)): (usize, (&[u8], &Block))| {
        let stored = rest.split_off(..block.stored_bytes as usize);
        let base = base_of(*codec, base, index, plain.len());
        scratch.resize(BLOCK_BYTES, 0);
        let back = &mut scratch[..plain.len()];
        stored.is_some_and(|stored| decode_block(*codec, block, stored, base, back).is_ok())
            && back == plain
    };
    blocks.len() == block_count(plain.len())
        && plain.chunks(BLOCK_BYTES).zip(blocks).enumerate().all(same)
        && rest.is_empty()
}

/// What of the bases' plain bytes block `index`, of as many `plain_bytes`, is decoded against.
fn base_of(codec: Codec, base: &[u8], index: usize, plain_bytes: usize) -> &[u8] {
    match codec {
        Codec::Delta => {
            let start = index * BLOCK_BYTES;
            base.get(start..start + plain_bytes).unwrap_or_default()
        }
        _ => base,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that no codec makes smaller.
    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn decoded(encoded: &Encoded, base: &[u8], len: usize) -> Result<Vec<u8>, CodecError> {
        let mut plain = vec![0xaa; len];
        decode(encoded.codec, &encoded.blocks, &encoded.payload, base, &mut plain)?;
        Ok(plain)
    }

    #[test]
    fn a_chunk_is_its_blocks_and_back() {
        let text = |len| b"layer.0.weight ".iter().copied().cycle().take(len).collect::<Vec<_>>();
        for len in [1, 2, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES + 7] {
            for (plain, codec) in [(text(len), Codec::Zstd), (noise(len), Codec::Raw)] {
                let encoded = encode(&plain, Elements::Unknown);
                if BLOCK_BYTES - 1 <= len {
                    assert_eq!(encoded.codec, codec, "{len}");
                }
                assert_eq!(decoded(&encoded, &[], len).unwrap(), plain);
            }
        }
    }

    #[test]
    fn a_chunk_against_its_base_is_small_and_comes_back() {
        let structs = Elements::Structs(Structs::new(34, 2).unwrap());
        for elements in [Elements::F32, Elements::Bf16, Elements::I8, Elements::Mixed, structs] {
            for len in [5, 100, BLOCK_BYTES + 1, 3 * BLOCK_BYTES + 7] {
                let base = noise(len);
                let mut plain = base.clone();
                plain.iter_mut().step_by(64).for_each(|byte| *byte ^= 1);
                let encoded = encode_delta(&plain, elements, &base);
                assert!(decoded(&encoded, &base, len).unwrap() == plain, "{elements:?} {len}");
                if BLOCK_BYTES < len {
                    assert_eq!(encoded.codec, Codec::Delta);
                    assert!(encoded.payload.len() < len / 8, "{elements:?} {len}");
                    assert!(decoded(&encoded, &[], len).is_err());
                }
                for place in sample_places(len, elements).into_iter().filter(|it| 1000 < it.len()) {
                    let (plain, base) = (&plain[place.clone()], &base[place]);
                    assert!(sample_prefers_delta(plain, elements, base));
                    assert!(!sample_prefers_delta(
                        plain,
                        elements,
                        &noise(2 * len)[len..][..plain.len()]
                    ));
                }
            }
        }
    }

    #[test]
    fn a_patch_of_what_was_there_is_small_and_comes_back() {
        let prefix = noise(400_000);
        for len in [1, 100, BLOCK_BYTES, 3 * BLOCK_BYTES + 7] {
            let mut plain = prefix[1000..1000 + len].to_vec();
            plain.splice(0..0, *b"new");
            let encoded = encode_patch(&plain, &prefix);
            assert!(decoded(&encoded, &prefix, plain.len()).unwrap() == plain, "{len}");
            if 100 <= len {
                assert_eq!(encoded.codec, Codec::Patch);
                assert!(encoded.payload.len() < 200, "{}", encoded.payload.len());
                assert!(!matches!(decoded(&encoded, b"", plain.len()), Ok(back) if back == plain));
            }
        }
    }

    #[test]
    fn a_prefix_that_looks_like_a_dictionary_is_none() {
        let mut prefix = noise(5000);
        prefix[..4].copy_from_slice(&[0x37, 0xa4, 0x30, 0xec]);
        assert_ne!(encode_patch(&prefix.clone(), &prefix).codec, Codec::Patch);
        let encoded = encode_patch(&prefix.clone(), &prefix[1..]);
        assert_eq!(encoded.codec, Codec::Patch);
        assert!(decoded(&encoded, &prefix[1..], 5000).unwrap() == prefix);
    }

    #[test]
    fn a_chunk_that_does_not_read_back_is_found_out() {
        let (plain, base) = (b"layer.0.weight ".repeat(20_000), noise(300_000));
        let mut near = base.clone();
        near.iter_mut().step_by(64).for_each(|byte| *byte ^= 1);
        let mut scratch = Vec::new();
        for (encoded, base, plain) in [
            (encode(&plain, Elements::Unknown), &[][..], &plain),
            (encode(&base, Elements::F32), &[], &base),
            (encode_delta(&near, Elements::F32, &base), &base, &near),
            (encode_patch(&near, &base), &base, &near),
        ] {
            let mut check =
                |encoded: &Encoded, plain: &[u8]| reads_back(encoded, base, plain, &mut scratch);
            assert!(check(&encoded, plain), "{:?}", encoded.codec);
            for at in [0, BLOCK_BYTES, plain.len() - 1] {
                let mut other = plain.clone();
                other[at] ^= 1;
                assert!(!check(&encoded, &other), "{:?} {at}", encoded.codec);
            }
            assert!(!check(&encoded, &plain[..plain.len() - 1]));
            let mut longer = encoded.clone();
            longer.payload.push(0);
            assert!(!check(&longer, plain));
            let mut shorter = encoded.clone();
            shorter.payload.pop();
            assert!(!check(&shorter, plain));
            shorter.blocks.pop();
            assert!(!check(&shorter, plain));
        }
    }

    #[test]
    fn a_flipped_byte_of_a_block_is_found() {
        let encoded = encode(&b"abc".repeat(1000), Elements::Unknown);
        for index in 0..encoded.payload.len() {
            let mut damaged = encoded.clone();
            damaged.payload[index] ^= 0x10;
            let back = decoded(&damaged, &[], 3000);
            assert!(matches!(back, Err(CodecError::Check { .. })), "{back:?}");
        }
    }
}
