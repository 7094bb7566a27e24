//! Packs: the bytes of an immutable file of chunks.
//!
//! header, records, footer, trailer. A record describes itself, so that a pack whose footer is
//! damaged can still be read from its start; the footer lists the records, so that an index is made
//! without reading them. All numbers are little endian.
//! Invariant P1: a pack's name is the BLAKE3 of all its bytes.

use xxhash_rust::xxh3::xxh3_64;

use super::codec::{
    BASE_COUNT_MAX, BASE_LINE_BYTES, Bases, Block, CHUNK_BYTES_MAX, Codec, CodecError, Encoded,
    block_count,
};
use super::ids::{ChunkId, DIGEST_BYTES};
use super::manifest::ChunkRef;

/// The first bytes of a pack: its kind and version 1.
pub const HEADER: [u8; 16] = *b"MFSPACK\0\x01\0\0\0\0\0\0\0";
/// Packs are closed at about this size.
pub const PACK_BYTES: u64 = 64 << 20;
/// No pack is larger: one more record than `PACK_BYTES` had room for.
pub const PACK_BYTES_MAX: u64 = PACK_BYTES + 2 * CHUNK_BYTES_MAX as u64 + (64 << 20);

/// Starts each record.
const RECORD_MAGIC: [u8; 4] = *b"MFSR";
/// A record's head before its block table.
const RECORD_FIXED_BYTES: usize = 56;
/// One line of the block table.
const BLOCK_LINE_BYTES: usize = 12;
/// The longest head of all.
pub const HEAD_BYTES_MAX: usize = head_bytes(CHUNK_BYTES_MAX, BASE_COUNT_MAX);
/// One line of the footer.
const FOOTER_LINE_BYTES: usize = 48;
/// The last bytes of a pack.
pub const TRAILER_BYTES: usize = 24;
const TRAILER_MAGIC: [u8; 8] = *b"MFSPEND\x01";

/// Why bytes are not part of a pack.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error("not a pack of version 1: its first bytes are `{found}`")]
    Header { found: String },
    #[error("no record at byte {offset}: {why}")]
    Record { offset: u64, why: &'static str },
    #[error("record at byte {offset}: {source}")]
    Codec { offset: u64, source: CodecError },
    #[error("its trailer is cut off or damaged")]
    Trailer,
    #[error("its footer is damaged: {why}")]
    Footer { why: &'static str },
}

/// Where a chunk is inside a pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FooterLine {
    pub id: ChunkId,
    /// Of the record, from the start of the pack.
    pub offset: u32,
    /// Of the record with its head.
    pub record_bytes: u32,
    pub plain_bytes: u32,
    pub codec: Codec,
    pub depth: u8,
    pub base_count: u8,
}

/// The head of a record: what the chunk is and where its blocks lie.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordHead {
    pub id: ChunkId,
    pub codec: Codec,
    pub plain_bytes: u32,
    /// Of all blocks together.
    pub payload_bytes: u32,
    pub blocks: Vec<Block>,
    pub bases: Bases,
}

/// Bytes of a record's head for a chunk of `plain_bytes` with `base_count` bases.
pub const fn head_bytes(plain_bytes: usize, base_count: usize) -> usize {
    RECORD_FIXED_BYTES + BLOCK_LINE_BYTES * block_count(plain_bytes) + BASE_LINE_BYTES * base_count
}

/// The head of a record; the chunk's payload follows it.
pub fn encode_head(id: &ChunkId, plain_bytes: u32, encoded: &Encoded, bases: &Bases) -> Vec<u8> {
    assert_eq!(encoded.blocks.len(), block_count(plain_bytes as usize));
    let base_count = u8::try_from(bases.chunks.len()).expect("a chunk has at most 16 bases");
    let payload_bytes = u32::try_from(encoded.payload.len()).expect("a chunk is at most 16 MiB");
    let mut head = Vec::with_capacity(head_bytes(plain_bytes as usize, bases.chunks.len()));
    head.extend_from_slice(&RECORD_MAGIC);
    head.extend_from_slice(&[encoded.codec as u8, bases.depth, base_count, 0]);
    head.extend_from_slice(&plain_bytes.to_le_bytes());
    head.extend_from_slice(&payload_bytes.to_le_bytes());
    head.extend_from_slice(id.as_bytes());
    head.extend_from_slice(&[0; 8]);
    for block in &encoded.blocks {
        head.extend_from_slice(&block.stored_bytes.to_le_bytes());
        head.extend_from_slice(&block.check.to_le_bytes());
    }
    for base in &bases.chunks {
        head.extend_from_slice(base.id.as_bytes());
        head.extend_from_slice(&base.bytes.to_le_bytes());
    }
    let check = xxh3_64(&head);
    head[RECORD_FIXED_BYTES - 8..RECORD_FIXED_BYTES].copy_from_slice(&check.to_le_bytes());
    head
}

/// Parses the head of the record that starts `bytes`; `offset` is only for the error.
///
/// # Errors
/// Where the bytes are not a record's head, its check does not hold, or they end within it.
pub fn parse_head(bytes: &[u8], offset: u64) -> Result<RecordHead, PackError> {
    let wrong = |why| PackError::Record { offset, why };
    let fixed = bytes.get(..RECORD_FIXED_BYTES).ok_or(wrong("the pack ends within its head"))?;
    if fixed[..4] != RECORD_MAGIC {
        return Err(wrong("its first bytes are not those of a record"));
    }
    let plain_bytes = u32_at(fixed, 8);
    if plain_bytes == 0 || CHUNK_BYTES_MAX < plain_bytes as usize {
        return Err(wrong("chunk size out of range, expected 1 to 16777216"));
    }
    let base_count = usize::from(fixed[6]);
    if BASE_COUNT_MAX < base_count {
        return Err(wrong("it has too many bases"));
    }
    let whole = head_bytes(plain_bytes as usize, base_count);
    let mut head = bytes.get(..whole).ok_or(wrong("the pack ends within its head"))?.to_vec();
    let check_at = RECORD_FIXED_BYTES - 8..RECORD_FIXED_BYTES;
    let check = u64_at(&head, check_at.start);
    head[check_at].fill(0);
    if xxh3_64(&head) != check {
        return Err(wrong("the checksum of its head does not hold"));
    }
    if head[7] != 0 {
        return Err(wrong("it has flags that this release does not know"));
    }
    let codec = Codec::try_from(head[4]).map_err(|source| PackError::Codec { offset, source })?;
    let bases = parse_bases(&head[whole - base_count * BASE_LINE_BYTES..], head[5]);
    let bases = bases.filter(|bases| codec.takes(bases, plain_bytes));
    let bases = bases.ok_or(wrong("its bases are not those of its codec"))?;
    let table = head[RECORD_FIXED_BYTES..whole - base_count * BASE_LINE_BYTES]
        .chunks_exact(BLOCK_LINE_BYTES);
    let blocks: Vec<Block> =
        table.map(|line| Block { stored_bytes: u32_at(line, 0), check: u64_at(line, 4) }).collect();
    let payload_bytes = u32_at(&head, 12);
    let sum: u64 = blocks.iter().map(|block| u64::from(block.stored_bytes)).sum();
    if sum != u64::from(payload_bytes) || plain_bytes < payload_bytes {
        return Err(wrong("its blocks do not add up"));
    }
    let id = ChunkId(digest_at(&head, 16));
    Ok(RecordHead { id, codec, plain_bytes, payload_bytes, blocks, bases })
}

/// The bases in a head; `None` where one has no length that a chunk can have.
fn parse_bases(table: &[u8], depth: u8) -> Option<Bases> {
    let line = |line: &[u8]| ChunkRef {
        id: ChunkId(digest_at(line, 0)),
        bytes: u32_at(line, DIGEST_BYTES),
    };
    let chunks: Vec<_> = table.chunks_exact(BASE_LINE_BYTES).map(line).collect();
    let sound = chunks.iter().all(|base| (1..=CHUNK_BYTES_MAX).contains(&(base.bytes as usize)));
    sound.then_some(Bases { depth, chunks })
}

impl RecordHead {
    /// Bytes of the head itself: the first block lies that far behind the record's start.
    pub fn head_bytes(&self) -> usize {
        head_bytes(self.plain_bytes as usize, self.bases.chunks.len())
    }

    /// Bytes of the record, head and blocks.
    pub fn record_bytes(&self) -> u64 {
        self.head_bytes() as u64 + u64::from(self.payload_bytes)
    }
}

/// The footer and trailer of a pack with these records.
pub fn encode_footer(lines: &[FooterLine]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(lines.len() * FOOTER_LINE_BYTES + TRAILER_BYTES);
    for line in lines {
        bytes.extend_from_slice(line.id.as_bytes());
        bytes.extend_from_slice(&line.offset.to_le_bytes());
        bytes.extend_from_slice(&line.record_bytes.to_le_bytes());
        bytes.extend_from_slice(&line.plain_bytes.to_le_bytes());
        bytes.extend_from_slice(&[line.codec as u8, line.depth, line.base_count, 0]);
    }
    let check = xxh3_64(&bytes);
    let count = u64::try_from(lines.len()).expect("a pack holds few records");
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&check.to_le_bytes());
    bytes.extend_from_slice(&TRAILER_MAGIC);
    bytes
}

/// Bytes of the footer, from the last [`TRAILER_BYTES`] of a pack of `pack_bytes`.
///
/// # Errors
/// Where they are not a trailer, or the footer would not fit into the pack.
pub fn parse_trailer(trailer: &[u8], pack_bytes: u64) -> Result<usize, PackError> {
    if trailer.len() != TRAILER_BYTES || trailer[16..] != TRAILER_MAGIC {
        return Err(PackError::Trailer);
    }
    let bytes = u64_at(trailer, 0).checked_mul(FOOTER_LINE_BYTES as u64);
    let room = pack_bytes.saturating_sub((HEADER.len() + TRAILER_BYTES) as u64);
    match bytes {
        Some(bytes) if bytes <= room => {
            Ok(usize::try_from(bytes).expect("a pack's length was checked"))
        }
        _ => Err(PackError::Trailer),
    }
}

/// Parses a footer with the trailer behind it.
///
/// # Errors
/// Where its checksum does not hold or its lines leave the pack's records.
pub fn parse_footer(bytes: &[u8], pack_bytes: u64) -> Result<Vec<FooterLine>, PackError> {
    let at = bytes.len().checked_sub(TRAILER_BYTES).ok_or(PackError::Trailer)?;
    let (lines, trailer) = bytes.split_at(at);
    if parse_trailer(trailer, pack_bytes)? != lines.len() {
        return Err(PackError::Trailer);
    }
    if xxh3_64(lines) != u64_at(trailer, 8) {
        return Err(PackError::Footer { why: "its checksum does not hold" });
    }
    let records_end = pack_bytes - bytes.len() as u64;
    let mut expected = HEADER.len() as u64;
    let mut found = Vec::with_capacity(lines.len() / FOOTER_LINE_BYTES);
    for line in lines.chunks_exact(FOOTER_LINE_BYTES) {
        let codec = Codec::try_from(line[44])
            .map_err(|source| PackError::Codec { offset: expected, source })?;
        let line = FooterLine {
            id: ChunkId(digest_at(line, 0)),
            offset: u32_at(line, 32),
            record_bytes: u32_at(line, 36),
            plain_bytes: u32_at(line, 40),
            codec,
            depth: line[45],
            base_count: line[46],
        };
        if u64::from(line.offset) != expected {
            return Err(PackError::Footer { why: "its records do not follow one another" });
        }
        expected += u64::from(line.record_bytes);
        found.push(line);
    }
    if expected != records_end {
        return Err(PackError::Footer { why: "its records do not fill the pack" });
    }
    Ok(found)
}

/// Checks the first bytes of a pack.
///
/// # Errors
/// `Header` where they are not those of version 1.
pub fn check_header(bytes: &[u8]) -> Result<(), PackError> {
    if bytes != HEADER {
        let found = super::ids::to_hex(&bytes[..bytes.len().min(HEADER.len())]);
        return Err(PackError::Header { found });
    }
    Ok(())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn digest_at(bytes: &[u8], at: usize) -> [u8; DIGEST_BYTES] {
    bytes[at..at + DIGEST_BYTES].try_into().expect("as many bytes as a digest has")
}

#[cfg(test)]
mod tests {
    use super::super::codec;
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_head_is_found() {
        let plain = b"weights ".repeat(40_000);
        let id = ChunkId::of(&plain);
        let encoded = codec::encode_patch(&plain, b"weights");
        let base = |bytes: &[u8]| ChunkRef { id: ChunkId::of(bytes), bytes: bytes.len() as u32 };
        let bases = Bases { depth: 2, chunks: vec![base(b"weig"), base(b"hts")] };
        let plain_bytes = u32::try_from(plain.len()).unwrap();
        let mut record = encode_head(&id, plain_bytes, &encoded, &bases);
        record.extend_from_slice(&encoded.payload);
        let head = parse_head(&record, 0).unwrap();
        assert_eq!((head.id, head.record_bytes()), (id, record.len() as u64));
        assert_eq!((&head.blocks, &head.bases), (&encoded.blocks, &bases));
        for bit in 0..head.head_bytes() * 8 {
            let mut damaged = record.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(parse_head(&damaged, 0).is_err(), "bit {bit}");
        }
        for len in 0..head.head_bytes() {
            assert!(parse_head(&record[..len], 0).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn every_flipped_bit_of_a_footer_is_found() {
        let line = |index: u32| FooterLine {
            id: ChunkId::of(&[index as u8]),
            offset: 16 + index * 100,
            record_bytes: 100,
            plain_bytes: 50,
            codec: Codec::Patch,
            depth: 1,
            base_count: 3,
        };
        let lines: Vec<_> = (0..3).map(line).collect();
        let bytes = encode_footer(&lines);
        let pack_bytes = 16 + 300 + bytes.len() as u64;
        assert_eq!(parse_footer(&bytes, pack_bytes).unwrap(), lines);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(parse_footer(&damaged, pack_bytes).is_err(), "bit {bit}");
        }
        assert!(parse_footer(&bytes, pack_bytes + 1).is_err());
    }
}
