//! Codecs: plain bytes of a chunk to stored blocks and back.
//!
//! A chunk is cut into blocks of [`BLOCK_BYTES`], the last may be shorter. Each block is stored by
//! itself with an xxh3 of its stored bytes, so that a small read decodes, and checks, a small part.
//! Invariant C1: a block whose stored length equals its plain length is stored as it is.

use std::cell::RefCell;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;
use zstd::bulk::{Compressor, Decompressor};

/// Plain bytes of a block.
pub const BLOCK_BYTES: usize = 128 << 10;
/// Plain bytes of the largest chunk.
pub const CHUNK_BYTES_MAX: usize = 16 << 20;
/// Level of zstd for bytes of which nothing is known.
pub const ZSTD_LEVEL: i32 = 3;
/// A chunk that shrinks by less than this part of 100 is stored raw: reading it is then a copy.
const GAIN_PERCENT_MIN: usize = 3;

/// How a chunk's blocks are stored. The numbers are part of the format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Codec {
    /// As they are.
    Raw = 0,
    /// One zstd frame a block.
    Zstd = 1,
}

impl TryFrom<u8> for Codec {
    type Error = CodecError;
    fn try_from(byte: u8) -> Result<Self, CodecError> {
        match byte {
            0 => Ok(Self::Raw),
            1 => Ok(Self::Zstd),
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
pub fn block_count(plain_bytes: usize) -> usize {
    plain_bytes.div_ceil(BLOCK_BYTES)
}

/// Plain length of block `index` of a chunk of `plain_bytes`.
pub fn block_plain_bytes(plain_bytes: usize, index: usize) -> usize {
    debug_assert!(index < block_count(plain_bytes));
    (plain_bytes - index * BLOCK_BYTES).min(BLOCK_BYTES)
}

thread_local! {
    // One context a thread: making one costs more than compressing a block with it.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Encodes a chunk of 1 to [`CHUNK_BYTES_MAX`] bytes.
pub fn encode(plain: &[u8]) -> Encoded {
    assert!((1..=CHUNK_BYTES_MAX).contains(&plain.len()), "chunk of {} bytes", plain.len());
    let zstd = encode_zstd(plain);
    if plain.len() * (100 - GAIN_PERCENT_MIN) < zstd.payload.len() * 100 {
        return encode_raw(plain);
    }
    zstd
}

fn encode_raw(plain: &[u8]) -> Encoded {
    let blocks = plain.chunks(BLOCK_BYTES).map(block_of).collect();
    Encoded { codec: Codec::Raw, blocks, payload: plain.to_vec() }
}

fn encode_zstd(plain: &[u8]) -> Encoded {
    let mut payload = Vec::with_capacity(plain.len());
    let mut blocks = Vec::with_capacity(block_count(plain.len()));
    for block in plain.chunks(BLOCK_BYTES) {
        let compressed = compress(block);
        let stored = if compressed.len() < block.len() { &compressed } else { block };
        blocks.push(block_of(stored));
        payload.extend_from_slice(stored);
    }
    Encoded { codec: Codec::Zstd, blocks, payload }
}

fn block_of(stored: &[u8]) -> Block {
    let stored_bytes = u32::try_from(stored.len()).expect("a block is at most 128 KiB");
    Block { stored_bytes, check: xxh3_64(stored) }
}

/// One zstd frame of `bytes`, at the level of the format.
pub(super) fn compress(bytes: &[u8]) -> Vec<u8> {
    COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = slot.get_or_insert_with(|| {
            Compressor::new(ZSTD_LEVEL).expect("a context needs only memory and a valid level")
        });
        compressor.compress(bytes).expect("the output has room for the bound of the input")
    })
}

/// Decodes one zstd frame into exactly `plain`.
pub(super) fn decompress(stored: &[u8], plain: &mut [u8]) -> Result<(), CodecError> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        let decompressor =
            slot.get_or_insert_with(|| Decompressor::new().expect("a context needs only memory"));
        let expected = plain.len();
        match decompressor.decompress_to_buffer(stored, plain) {
            Ok(found) if found == expected => Ok(()),
            Ok(found) => Err(CodecError::Length { expected, found }),
            Err(error) => Err(CodecError::Zstd(error)),
        }
    })
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
        Codec::Zstd => decompress(stored, plain),
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
                let encoded = encode(&plain);
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
        let encoded = encode(&b"abc".repeat(1000));
        for index in 0..encoded.payload.len() {
            let mut payload = encoded.payload.clone();
            payload[index] ^= 0x10;
            let back = decode(encoded.codec, &encoded.blocks, &payload, 3000);
            assert!(matches!(back, Err(CodecError::Check { .. })), "{back:?}");
        }
    }
}
