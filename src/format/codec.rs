//! Codecs: plain bytes of a chunk to stored blocks and back.
//!
//! A chunk is cut into blocks of [`BLOCK_BYTES`], the last may be shorter. Each block is stored by
//! itself with an xxh3 of its stored bytes, so that a small read decodes, and checks, a small part.
//! Invariant C1: a block whose stored length equals its plain length is stored as it is.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::frame::{self, Effort};
use super::planes;

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
    /// Bytes without a wider structure: booleans, packed integers of 4 bits, quantised blocks.
    Bytes,
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

impl TryFrom<u8> for Codec {
    type Error = CodecError;
    fn try_from(byte: u8) -> Result<Self, CodecError> {
        match byte {
            0 => Ok(Self::Raw),
            1 => Ok(Self::Zstd),
            2 => Ok(Self::Planes),
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
    if plain.len() * (100 - GAIN_PERCENT_MIN) < encoded.payload.len() * 100 {
        return encode_raw(plain);
    }
    encoded
}

/// Whether zstd beats planes on two pieces of a chunk that has more.
fn probe_prefers_zstd(plain: &[u8], elements: Elements) -> bool {
    let piece_bytes = PROBE_BYTES / 2;
    let mut piece = Vec::with_capacity(PROBE_BYTES);
    for quarter in [1, 3] {
        // Whole elements: no element is wider than 8 bytes.
        let start = (plain.len() - piece_bytes) / 4 * quarter / 8 * 8;
        piece.extend_from_slice(&plain[start..start + piece_bytes]);
    }
    let mut out = Vec::with_capacity(2 * PROBE_BYTES);
    let zstd_bytes = frame::put(Effort::Fast, &piece, &mut out);
    planes::encode(&piece, elements, &mut out);
    100 * zstd_bytes < PROBE_PERCENT * (out.len() - zstd_bytes)
}

fn encode_raw(plain: &[u8]) -> Encoded {
    let blocks = plain.chunks(BLOCK_BYTES).map(block_of).collect();
    Encoded { codec: Codec::Raw, blocks, payload: plain.to_vec() }
}

fn encode_zstd(plain: &[u8]) -> Encoded {
    encode_blocks(Codec::Zstd, plain, |block, out| {
        frame::put(Effort::General, block, out);
    })
}

fn encode_planes(plain: &[u8], elements: Elements) -> Encoded {
    encode_blocks(Codec::Planes, plain, |block, out| planes::encode(block, elements, out))
}

/// Encodes each block with `put`, or as it is where that is not longer.
fn encode_blocks(codec: Codec, plain: &[u8], put: impl Fn(&[u8], &mut Vec<u8>)) -> Encoded {
    let mut payload = Vec::with_capacity(plain.len() + (BLOCK_BYTES >> 4));
    let mut blocks = Vec::with_capacity(block_count(plain.len()));
    for block in plain.chunks(BLOCK_BYTES) {
        let start = payload.len();
        put(block, &mut payload);
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

/// Checks and decodes one block into `plain`, whose length is the block's plain length.
///
/// # Errors
/// When the bytes are not those that were stored; `plain` then holds nothing of meaning.
pub fn decode_block(
    codec: Codec,
    block: &Block,
    stored: &[u8],
    plain: &mut [u8],
) -> Result<(), CodecError> {
    let found = xxh3_64(stored);
    if found != block.check || stored.len() != block.stored_bytes as usize {
        return Err(CodecError::Check { expected: block.check, found });
    }
    if stored.len() == plain.len() {
        plain.copy_from_slice(stored);
        return Ok(());
    }
    match codec {
        Codec::Raw => Err(CodecError::Length { expected: plain.len(), found: stored.len() }),
        Codec::Zstd => frame::load(stored, plain),
        Codec::Planes => planes::decode(stored, plain),
    }
}

/// Checks and decodes all blocks of a chunk of `plain_bytes`.
///
/// # Errors
/// As [`decode_block`], and where the blocks do not add up to `payload`.
pub fn decode(
    codec: Codec,
    blocks: &[Block],
    payload: &[u8],
    plain_bytes: usize,
) -> Result<Vec<u8>, CodecError> {
    let mut plain = vec![0; plain_bytes];
    let mut rest = payload;
    for (block, out) in blocks.iter().zip(plain.chunks_mut(BLOCK_BYTES)) {
        let Some((stored, after)) = rest.split_at_checked(block.stored_bytes as usize) else {
            let expected = block.stored_bytes as usize;
            return Err(CodecError::Length { expected, found: rest.len() });
        };
        decode_block(codec, block, stored, out)?;
        rest = after;
    }
    if !rest.is_empty() || blocks.len() != block_count(plain_bytes) {
        return Err(CodecError::Length { expected: plain_bytes, found: payload.len() });
    }
    Ok(plain)
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

    #[test]
    fn a_chunk_is_its_blocks_and_back() {
        let text = |len| b"layer.0.weight ".iter().copied().cycle().take(len).collect::<Vec<_>>();
        for len in [1, 2, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES + 7] {
            for (plain, codec) in [(text(len), Codec::Zstd), (noise(len), Codec::Raw)] {
                let encoded = encode(&plain, Elements::Unknown);
                if BLOCK_BYTES - 1 <= len {
                    assert_eq!(encoded.codec, codec, "{len}");
                }
                let back = decode(encoded.codec, &encoded.blocks, &encoded.payload, len).unwrap();
                assert_eq!(back, plain);
            }
        }
    }

    #[test]
    fn a_flipped_byte_of_a_block_is_found() {
        let encoded = encode(&b"abc".repeat(1000), Elements::Unknown);
        for index in 0..encoded.payload.len() {
            let mut payload = encoded.payload.clone();
            payload[index] ^= 0x10;
            let back = decode(encoded.codec, &encoded.blocks, &payload, 3000);
            assert!(matches!(back, Err(CodecError::Check { .. })), "{back:?}");
        }
    }
}
