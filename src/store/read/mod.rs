//! Reading chunks: find the record, read its blocks, check them, decode them.
//!
//! Invariant R1: bytes are handed out only after the checksum of the block they came from, and the
//! head of the record it belongs to, were found good. Anything else is an error, never other bytes.
//! A block that is wanted whole is decoded where its reader wants it; one of which a part is wanted
//! is kept for a while, as are blocks that were read ahead (`ahead`) and bases (`blocks`).
//! Memory: the cache's limit, and for each thread that reads [`RUN_BLOCKS_MAX`] stored blocks, a
//! loose block for each record of a chain of bases, and the bases of a patch.

mod ahead;
mod blocks;
mod records;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::HashSet;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use quick_cache::sync::Cache;

use super::Store;
use super::catalog::{Catalog, Place};
use super::error::StoreError;
use super::layout::Layout;
use crate::format::codec::{self, BLOCK_BYTES, Bases, Codec};
use crate::format::ids::{ChunkId, PackId};
use crate::format::manifest::ChunkRef;
use crate::format::pack;
use crate::sys::io::{self as durable, Io};

use ahead::{Ahead, Job, Pace};
use blocks::{Block, BlockCache, Claim, DEPTH_UNKNOWN, Flight, Look};
use records::Found;

pub use ahead::Cursor;
pub use blocks::Use;

/// Packs that are kept open.
const OPEN_PACKS_MAX: usize = 256;
/// Heads of records that are kept parsed: about 200 bytes each.
const HEADS_MAX: usize = 16_384;
/// Stored blocks that are read from a pack together: 512 KiB at most. More would leave the core's cache
/// before they are decoded.
const RUN_BLOCKS_MAX: usize = 4;

/// Longest record: a chunk that did not shrink, and its head.
const RECORD_BYTES_MAX: usize = codec::CHUNK_BYTES_MAX + pack::HEAD_BYTES_MAX;

thread_local! {
    /// The stored bytes of a run. Taken while in use: reading a base needs one of its own.
    static STORED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Reads chunks, and keeps between reads what was checked.
pub(super) struct ChunkReader {
    io: Arc<dyn Io>,
    layout: Layout,
    catalog: Arc<RwLock<Catalog>>,
    blocks: BlockCache,
    heads: Cache<ChunkId, Arc<Found>>,
    packs: Cache<PackId, Arc<File>>,
    /// Packs in which something damaged was met: their chunks are stored anew when they come again.
    /// Guards nothing else; no lock is taken while it is held.
    suspect: Mutex<HashSet<PackId>>,
    pace: Arc<Pace>,
    #[cfg(test)]
    decodes: std::sync::atomic::AtomicUsize,
}

/// What of a block is wanted, and where.
struct Want<'a> {
    index: u32,
    /// First byte, from the block's start.
    from: usize,
    /// Bytes of the block.
    block_bytes: usize,
    /// As long as what is wanted.
    out: &'a mut [u8],
    /// Of the block after this read.
    usage: Use,
}

impl Want<'_> {
    fn is_whole(&self) -> bool {
        self.out.len() == self.block_bytes
    }

    fn fill(&mut self, block: &[u8]) {
        let len = self.out.len();
        self.out.copy_from_slice(&block[self.from..self.from + len]);
    }
}

/// Cuts a read at `offset` of a chunk into what it wants of each block; all of `out` is within it.
fn wants<'a>(
    chunk: &ChunkRef,
    offset: u32,
    mut out: &'a mut [u8],
    usage: Use,
) -> impl Iterator<Item = Want<'a>> {
    let mut at = offset as usize;
    let chunk_bytes = chunk.bytes as usize;
    std::iter::from_fn(move || {
        if out.is_empty() {
            return None;
        }
        let (place, from) = (at / BLOCK_BYTES, at % BLOCK_BYTES);
        let block_bytes = codec::block_plain_bytes(chunk_bytes, place);
        let count = (block_bytes - from).min(out.len());
        let (here, after) = std::mem::take(&mut out).split_at_mut(count);
        (out, at) = (after, at + count);
        let index = u32::try_from(place).expect("a chunk is at most 16 MiB");
        // A stream that stops within a block comes back for the rest of it.
        let usage = if from + count == block_bytes { usage } else { Use::Again };
        Some(Want { index, from, block_bytes, out: here, usage })
    })
}

impl ChunkReader {
    pub(super) fn new(
        io: Arc<dyn Io>,
        layout: Layout,
        catalog: Arc<RwLock<Catalog>>,
        cache_bytes: u64,
    ) -> Self {
        Self {
            io,
            layout,
            catalog,
            blocks: BlockCache::new(cache_bytes),
            heads: Cache::new(HEADS_MAX),
            packs: Cache::new(OPEN_PACKS_MAX),
            suspect: Mutex::new(HashSet::new()),
            pace: Arc::new(Pace::new()),
            #[cfg(test)]
            decodes: Default::default(),
        }
    }

    pub(super) fn is_suspect(&self, pack: &PackId) -> bool {
        self.suspect.lock().contains(pack)
    }

    /// Remembers that something in a pack is damaged.
    pub(super) fn suspect(&self, pack: PackId) {
        self.suspect.lock().insert(pack);
    }

    /// Forgets everything that was learned from packs.
    pub(super) fn clear(&self) {
        self.heads.clear();
        self.packs.clear();
        self.blocks.clear();
    }

    fn read_at(
        &self,
        chunk: &ChunkRef,
        offset: u32,
        out: &mut [u8],
        usage: Use,
    ) -> Result<usize, StoreError> {
        let _reading = self.pace.enter();
        let length = (chunk.bytes.saturating_sub(offset) as usize).min(out.len());
        let (mut mine, mut others) = (Vec::new(), Vec::new());
        for mut want in wants(chunk, offset, &mut out[..length], usage) {
            match self.blocks.look((chunk.id, want.index), want.usage) {
                Look::Kept(block) => want.fill(&block),
                Look::Mine(claim) => mine.push((claim, want)),
                Look::Busy(flight) => others.push((flight, want)),
            }
        }
        self.decode_claimed(chunk, mine)?;
        // Only now, when no claim is held: none waits in a circle (B2).
        for (flight, want) in others {
            self.await_block(chunk, flight, want)?;
        }
        Ok(length)
    }

    /// Waits for a block that somebody decodes, and decodes it where that came to nothing.
    fn await_block(
        &self,
        chunk: &ChunkRef,
        mut flight: Arc<Flight>,
        mut want: Want<'_>,
    ) -> Result<(), StoreError> {
        let key = (chunk.id, want.index);
        loop {
            if let Some(block) = flight.wait() {
                want.fill(&block);
                if want.usage == Use::Once {
                    self.blocks.drop_block(&key);
                }
                return Ok(());
            }
            match self.blocks.look(key, want.usage) {
                Look::Kept(block) => {
                    want.fill(&block);
                    return Ok(());
                }
                Look::Mine(claim) => return self.decode_claimed(chunk, vec![(claim, want)]),
                Look::Busy(other) => flight = other,
            }
        }
    }

    /// Decodes blocks of a chunk, in order, that this thread has claimed.
    fn decode_claimed(
        &self,
        chunk: &ChunkRef,
        mut mine: Vec<(Claim<'_>, Want<'_>)>,
    ) -> Result<(), StoreError> {
        if mine.is_empty() {
            return Ok(());
        }
        let found = self.find(chunk)?;
        let depth = found.head.bases.depth;
        mine.iter().for_each(|(claim, _)| claim.set_depth(depth));
        for run in mine
            .chunk_by_mut(|before, next| before.1.index + 1 == next.1.index)
            .flat_map(|run| run.chunks_mut(RUN_BLOCKS_MAX))
        {
            let first = run[0].1.index;
            self.with_stored(&found, first, run.len(), |stored| {
                for (place, (claim, want)) in run.iter_mut().enumerate() {
                    let stored = stored.map(|stored| block_of(&found, first, place, stored));
                    let index = claim.index();
                    let decode = |plain: &mut [u8]| {
                        self.decode_or_elsewhere(chunk, &found, index, stored, plain)
                    };
                    self.land(claim, want, decode)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Decodes a claimed block to where it is wanted.
    fn land(
        &self,
        claim: &mut Claim<'_>,
        want: &mut Want<'_>,
        decode: impl FnOnce(&mut [u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if want.is_whole() {
            decode(want.out)?;
            claim.pass(want.out);
            return Ok(());
        }
        let room = self.blocks.room(want.block_bytes);
        let mut block = room.unwrap_or_else(|| Block::loose(want.block_bytes));
        decode(block.bytes_mut())?;
        want.fill(&block);
        claim.keep(block, want.usage);
        Ok(())
    }

    /// Decodes what a stream of reads will want next, as far as there is room; says nothing of what
    /// goes wrong (A1).
    fn read_ahead(&self, job: &Job) {
        let claim = |index| self.blocks.claim((job.chunk.id, index));
        let mut mine: Vec<_> = job.blocks.clone().filter_map(claim).collect();
        // After the claims: a reader who has come this far meanwhile either sees them or is seen.
        mine.retain(|claim| job.is_wanted(claim.index()));
        if mine.is_empty() {
            return;
        }
        let Ok(found) = self.find_by_catalog(&job.chunk) else { return };
        mine.iter().for_each(|claim| claim.set_depth(found.head.bases.depth));
        for run in mine.chunk_by_mut(|before, next| before.index() + 1 == next.index()) {
            let first = run[0].index();
            let done: Result<(), StoreError> =
                self.with_stored(&found, first, run.len(), |stored| {
                    let Some(stored) = stored else { return Ok(()) };
                    for (place, claim) in run.iter_mut().enumerate() {
                        let stored = block_of(&found, first, place, stored);
                        let bytes = found.head.plain_bytes as usize;
                        let bytes = codec::block_plain_bytes(bytes, claim.index() as usize);
                        let Some(mut block) = self.blocks.room(bytes) else { return Ok(()) };
                        let depth = found.head.bases.depth;
                        let plain = block.bytes_mut();
                        self.decode_block(&found, claim.index(), stored, depth, plain)?;
                        claim.keep(block, Use::Again);
                    }
                    Ok(())
                });
            if let Err(error) = done {
                log::debug!("reading ahead: {error}");
            }
        }
    }

    /// Reads `count` stored blocks with one call and hands them on; `None` where they cannot be read
    /// together, so that each is read alone.
    fn with_stored<T>(
        &self,
        found: &Found,
        first: u32,
        count: usize,
        body: impl FnOnce(Option<&[u8]>) -> T,
    ) -> T {
        let range = stored_range(found, first as usize..first as usize + count);
        let mut buffer = STORED.take();
        let bytes = usize::try_from(range.end - range.start).expect("within a record");
        if buffer.len() < bytes {
            buffer.resize(bytes, 0);
        }
        let read = self.pack_file(&found.pack).is_ok_and(|file| {
            durable::read_exact_at(&*self.io, &file, &mut buffer[..bytes], range.start).is_ok()
        });
        let result = body(read.then_some(&buffer[..bytes]));
        STORED.set(buffer);
        result
    }

    /// Decodes one block, of this record or, where that is damaged, of another of the same chunk.
    fn decode_or_elsewhere(
        &self,
        chunk: &ChunkRef,
        found: &Found,
        index: u32,
        stored: Option<&[u8]>,
        plain: &mut [u8],
    ) -> Result<(), StoreError> {
        let below = found.head.bases.depth;
        let decoded = match stored {
            Some(stored) => self.decode_block(found, index, stored, below, plain),
            None => self.read_block(found, index, below, plain),
        };
        let Err(error) = decoded else { return Ok(()) };
        let other = self.find_elsewhere(chunk, found, DEPTH_UNKNOWN, error)?;
        // The other may be deeper than was said when the block was claimed.
        self.read_block(&other, index, below.min(other.head.bases.depth), plain)?;
        self.heads.insert(chunk.id, other);
        Ok(())
    }

    /// Reads and decodes one block by itself.
    fn read_block(
        &self,
        found: &Found,
        index: u32,
        below: u8,
        plain: &mut [u8],
    ) -> Result<(), StoreError> {
        let range = stored_range(found, index as usize..index as usize + 1);
        let mut stored = vec![0; usize::try_from(range.end - range.start).expect("a block")];
        let file = self.pack_file(&found.pack)?;
        durable::read_exact_at(&*self.io, &file, &mut stored, range.start).map_err(|error| {
            match error.kind() {
                std::io::ErrorKind::UnexpectedEof => {
                    damaged(found, "the pack ends within it".to_owned())
                }
                _ => StoreError::io("read", &self.layout.pack(&found.pack), error),
            }
        })?;
        self.decode_block(found, index, &stored, below, plain)
    }

    /// Checks and decodes one block: the only place where that is done (R1). Waits for blocks of
    /// bases only where they are less deep than `below` (B2).
    fn decode_block(
        &self,
        found: &Found,
        index: u32,
        stored: &[u8],
        below: u8,
        plain: &mut [u8],
    ) -> Result<(), StoreError> {
        #[cfg(test)]
        self.decodes.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let head = &found.head;
        let block = &head.blocks[index as usize];
        let is_plain = stored.len() == plain.len();
        let range =
            codec::base_range(head.codec, &head.bases, head.plain_bytes as usize, index as usize);
        let base = match head.bases.chunks[..] {
            _ if is_plain => Base::None,
            [base] if head.codec == Codec::Delta => {
                Base::Block(self.base_block(&base, index, head.bases.depth, below)?)
            }
            _ => Base::Bytes(self.base_bytes(&head.bases, range, below)?),
        };
        codec::decode_block(head.codec, block, stored, base.bytes(), plain)
            .map_err(|error| damaged(found, error.to_string()))
    }

    /// A range of the plain bytes of all bases, one after the other. Recurses as deep as they are.
    fn base_bytes(
        &self,
        bases: &Bases,
        range: Range<usize>,
        below: u8,
    ) -> Result<Vec<u8>, StoreError> {
        let mut found = Vec::with_capacity(range.len());
        let mut start = 0;
        for base in &bases.chunks {
            let end = start + base.bytes as usize;
            let (from, to) = (range.start.max(start), range.end.min(end));
            let mut at = from;
            while at < to {
                let index = u32::try_from((at - start) / BLOCK_BYTES).expect("within a chunk");
                let block = self.base_block(base, index, bases.depth, below)?;
                let skip = (at - start) % BLOCK_BYTES;
                let count = (block.len() - skip).min(to - at);
                found.extend_from_slice(&block[skip..skip + count]);
                at += count;
            }
            start = end;
        }
        Ok(found)
    }

    /// A block of a base of a record that is `depth` deep, by a record that is less deep (C2). Waits
    /// for it only where it is less deep than `below` (B2).
    fn base_block(
        &self,
        base: &ChunkRef,
        index: u32,
        depth: u8,
        below: u8,
    ) -> Result<Arc<Block>, StoreError> {
        let mut found = self.find(base)?;
        if depth <= found.head.bases.depth {
            // Another copy may be less deep; the catalog names only one.
            found = self
                .find_in_footers(base, depth)?
                .ok_or(StoreError::ChunkMissing { chunk: base.id })?;
        }
        let own = found.head.bases.depth;
        let mut claim = loop {
            match self.blocks.look_below((base.id, index), Use::Again, own, below) {
                Some(Look::Kept(block)) => return Ok(block),
                Some(Look::Mine(claim)) => break Some(claim),
                Some(Look::Busy(flight)) => {
                    if let Some(block) = flight.wait() {
                        return Ok(block);
                    }
                }
                // Two who decode the same base both do it, and none can wait for itself.
                None => break None,
            }
        };
        let bytes = codec::block_plain_bytes(base.bytes as usize, index as usize);
        let room = claim.as_ref().and_then(|_| self.blocks.room(bytes));
        let mut block = room.unwrap_or_else(|| Block::loose(bytes));
        let below = below.min(own);
        if let Err(error) = self.read_block(&found, index, below, block.bytes_mut()) {
            let other = self.find_elsewhere(base, &found, depth, error)?;
            self.read_block(&other, index, below, block.bytes_mut())?;
        }
        Ok(match &mut claim {
            Some(claim) => claim.keep(block, Use::Again),
            None => Arc::new(block),
        })
    }

    /// Checks, past everything that is kept in memory, that a chunk's record and those of its bases
    /// are as they were written: their heads, and the checksums of their blocks.
    fn check_stored(&self, chunk: &ChunkRef, place: Place) -> Result<(), StoreError> {
        let damaged =
            |why: String| StoreError::ChunkDamaged { chunk: chunk.id, pack: place.pack, why };
        let path = self.layout.pack(&place.pack);
        let file = self.io.open(&path).map_err(|e| StoreError::io("open", &path, e))?;
        let mut record = vec![0; (place.record_bytes as usize).min(RECORD_BYTES_MAX)];
        let offset = u64::from(place.offset);
        durable::read_exact_at(&*self.io, &file, &mut record, offset)
            .map_err(|e| StoreError::io("read", &path, e))?;
        let head = pack::parse_head(&record, offset).map_err(|e| damaged(e.to_string()))?;
        if head.id != chunk.id || head.plain_bytes != chunk.bytes {
            return Err(damaged("another chunk is where it should be".to_owned()));
        }
        let mut rest = &record[head.head_bytes()..];
        for block in &head.blocks {
            let stored = rest.split_off(..block.stored_bytes as usize);
            let stored = stored.ok_or_else(|| damaged("its record is cut off".to_owned()))?;
            codec::check_block(block, stored).map_err(|e| damaged(e.to_string()))?;
        }
        for base in &head.bases.chunks {
            // Not in the head of the match: the lock would be held until its end, and who waits for it
            // alone would come between.
            let of_base = self.catalog.read().place(&base.id).map_err(StoreError::Catalog)?;
            match of_base {
                Some(of_base) if of_base.depth < head.bases.depth => {
                    self.check_stored(base, of_base)?;
                }
                _ => return Err(damaged(format!("it needs chunk {}", base.id))),
            }
        }
        Ok(())
    }
}

/// What a block is decoded against.
enum Base {
    None,
    Block(Arc<Block>),
    Bytes(Vec<u8>),
}

impl Base {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Block(block) => block,
            Self::Bytes(bytes) => bytes,
        }
    }
}

fn damaged(found: &Found, why: String) -> StoreError {
    StoreError::ChunkDamaged { chunk: found.head.id, pack: found.pack, why }
}

/// Where blocks of a record lie in its pack.
fn stored_range(found: &Found, blocks: Range<usize>) -> Range<u64> {
    let bytes = |blocks: &[codec::Block]| -> u64 {
        blocks.iter().map(|block| u64::from(block.stored_bytes)).sum()
    };
    let head = &found.head;
    let start = found.offset + head.head_bytes() as u64 + bytes(&head.blocks[..blocks.start]);
    start..start + bytes(&head.blocks[blocks])
}

/// The stored bytes of a block, of a run that begins with block `first`.
fn block_of<'a>(found: &Found, first: u32, place: usize, run: &'a [u8]) -> &'a [u8] {
    let first = first as usize;
    let run_start = stored_range(found, first..first).start;
    let range = stored_range(found, first + place..first + place + 1);
    let within = |at: u64| usize::try_from(at - run_start).expect("within a run");
    &run[within(range.start)..within(range.end)]
}

/// Reads ahead for a [`Store`]; ends with it.
pub(super) struct Reading {
    ahead: Ahead,
    chunks: Arc<ChunkReader>,
}

impl Reading {
    pub(super) fn new(chunks: ChunkReader) -> Self {
        Self { ahead: Ahead::new(Arc::clone(&chunks.pace)), chunks: Arc::new(chunks) }
    }
}

impl std::ops::Deref for Reading {
    type Target = ChunkReader;
    fn deref(&self) -> &ChunkReader {
        &self.chunks
    }
}

impl Store {
    /// Reads from a chunk at `offset` until `out` is full or the chunk ends; the bytes read.
    ///
    /// # Errors
    /// `ChunkMissing`, `ChunkDamaged`, or the file system's; `out` then holds nothing of meaning.
    pub fn read_chunk_at(
        &self,
        chunk: &ChunkRef,
        offset: u32,
        out: &mut [u8],
        usage: Use,
    ) -> Result<usize, StoreError> {
        self.read.read_at(chunk, offset, out, usage)
    }

    /// Reads a whole chunk and checks its digest: for `verify`, export and whoever wants certainty.
    ///
    /// # Errors
    /// As [`Store::read_chunk_at`].
    pub fn read_chunk(&self, chunk: &ChunkRef) -> Result<Vec<u8>, StoreError> {
        let mut plain = vec![0; chunk.bytes as usize];
        self.read_chunk_at(chunk, 0, &mut plain, Use::Again)?;
        if ChunkId::of(&plain) != chunk.id {
            let pack = self.read.find(chunk)?.pack;
            self.read.suspect(pack);
            let why = "its bytes have another digest".to_owned();
            return Err(StoreError::ChunkDamaged { chunk: chunk.id, pack, why });
        }
        Ok(plain)
    }

    /// Has bytes `range` of each chunk decoded before they are asked for, unless the reader is there
    /// first: each chunk with the place in its file where it begins.
    pub fn read_ahead<'a>(
        &self,
        chunks: impl Iterator<Item = (&'a ChunkRef, u64, Range<u32>)>,
        cursor: &Arc<Cursor>,
    ) {
        let jobs =
            chunks.flat_map(|(chunk, start, range)| ahead::jobs(chunk, start, range, cursor));
        self.read.ahead.submit(&self.read.chunks, jobs);
    }

    /// Bytes of decoded blocks that are kept at most.
    pub fn cache_bytes(&self) -> u64 {
        self.read.blocks.limit()
    }

    /// As [`ChunkReader::check_stored`].
    pub(super) fn check_stored(&self, chunk: &ChunkRef, place: Place) -> Result<(), StoreError> {
        self.read.check_stored(chunk, place)
    }

    /// The plain bytes of all bases, one after the other.
    pub(super) fn read_bases(&self, bases: &Bases) -> Result<Vec<u8>, StoreError> {
        let bytes = bases.chunks.iter().map(|base| base.bytes as usize).sum();
        self.read.base_bytes(bases, 0..bytes, DEPTH_UNKNOWN)
    }

    /// As [`ChunkReader::base_below`].
    pub(super) fn base_below(&self, base: &ChunkRef, depth: u8) -> Option<(ChunkRef, u8)> {
        self.read.base_below(base, depth)
    }
}
