//! Reading chunks: find the record, read a block, check it, decode it, keep it for a while.
//!
//! Invariant R1: bytes are handed out only after the checksum of the block they came from, and the
//! head of the record it belongs to, were found good. Anything else is an error, never other bytes.

use std::collections::HashSet;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Weighter};

use super::Store;
use super::catalog::Place;
use super::error::StoreError;
use super::packs;
use crate::format::codec::{self, BLOCK_BYTES, Bases, Codec};
use crate::format::ids::{ChunkId, PackId};
use crate::format::manifest::ChunkRef;
use crate::format::pack::{self, FooterLine, RecordHead};
use crate::sys::io as durable;

/// Packs that are kept open.
const OPEN_PACKS_MAX: usize = 256;
/// Heads of records that are kept parsed: about 200 bytes each.
const HEADS_MAX: usize = 16_384;
/// Estimate of the blocks in a cache, for sizing its table.
const BLOCK_BYTES_TYPICAL: u64 = 64 << 10;

/// Longest record: a chunk that did not shrink, and its head.
const RECORD_BYTES_MAX: usize = codec::CHUNK_BYTES_MAX + pack::HEAD_BYTES_MAX;

type BlockKey = (ChunkId, u32);

/// A block's weight is its bytes.
#[derive(Clone)]
struct BlockWeight;

impl Weighter<BlockKey, Arc<[u8]>> for BlockWeight {
    fn weight(&self, _: &BlockKey, block: &Arc<[u8]>) -> u64 {
        block.len().max(1) as u64
    }
}

/// What reads keep between them. All of it is checked before it goes in.
pub(super) struct ReadCache {
    blocks: Cache<BlockKey, Arc<[u8]>, BlockWeight>,
    heads: Cache<ChunkId, Arc<Found>>,
    packs: Cache<PackId, Arc<File>>,
    /// Packs in which something damaged was met: their chunks are stored anew when they come again.
    /// Guards nothing else; no lock is taken while it is held.
    suspect: Mutex<HashSet<PackId>>,
}

/// A record that was found good.
struct Found {
    pack: PackId,
    offset: u64,
    head: RecordHead,
}

impl ReadCache {
    pub(super) fn new(cache_bytes: u64) -> Self {
        let blocks = usize::try_from(cache_bytes / BLOCK_BYTES_TYPICAL).unwrap_or(usize::MAX);
        let hasher = DefaultHashBuilder::default();
        Self {
            blocks: Cache::with(
                blocks.max(16),
                cache_bytes,
                BlockWeight,
                hasher,
                quick_cache::sync::DefaultLifecycle::default(),
            ),
            heads: Cache::new(HEADS_MAX),
            packs: Cache::new(OPEN_PACKS_MAX),
            suspect: Mutex::new(HashSet::new()),
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
    ) -> Result<usize, StoreError> {
        let length = (chunk.bytes.saturating_sub(offset) as usize).min(out.len());
        let mut done = 0;
        while done < length {
            let at = offset as usize + done;
            let index = u32::try_from(at / BLOCK_BYTES).expect("a chunk is at most 16 MiB");
            let block = self.block(chunk, index)?;
            let from = at % BLOCK_BYTES;
            let count = (block.len() - from).min(length - done);
            out[done..done + count].copy_from_slice(&block[from..from + count]);
            done += count;
        }
        Ok(length)
    }

    /// Reads a whole chunk and checks its digest: for `verify`, export and whoever wants certainty.
    ///
    /// # Errors
    /// As [`Store::read_chunk_at`].
    pub fn read_chunk(&self, chunk: &ChunkRef) -> Result<Vec<u8>, StoreError> {
        let mut plain = vec![0; chunk.bytes as usize];
        self.read_chunk_at(chunk, 0, &mut plain)?;
        if ChunkId::of(&plain) != chunk.id {
            let pack = self.find(chunk)?.pack;
            self.read.suspect(pack);
            let why = "its bytes have another digest".to_owned();
            return Err(StoreError::ChunkDamaged { chunk: chunk.id, pack, why });
        }
        Ok(plain)
    }

    /// Checks, past everything that is kept in memory, that a chunk's record and those of its bases
    /// are as they were written: their heads, and the checksums of their blocks.
    pub(super) fn check_stored(&self, chunk: &ChunkRef, place: Place) -> Result<(), StoreError> {
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
            match self.catalog.read().place(&base.id).map_err(StoreError::Catalog)? {
                Some(of_base) if of_base.depth < head.bases.depth => {
                    self.check_stored(base, of_base)?;
                }
                _ => return Err(damaged(format!("it needs chunk {}", base.id))),
            }
        }
        Ok(())
    }

    /// One decoded block; concurrent readers of the same block decode it once.
    fn block(&self, chunk: &ChunkRef, index: u32) -> Result<Arc<[u8]>, StoreError> {
        self.read.blocks.get_or_insert_with(&(chunk.id, index), || {
            let found = self.find(chunk)?;
            match self.read_block(&found, index) {
                Ok(block) => Ok(block),
                Err(error) => self.read_block_elsewhere(chunk, index, (&found, u8::MAX), error),
            }
        })
    }

    /// After damage: another pack may hold the same chunk, less deep than `depth`. Gives the first error where none does.
    fn read_block_elsewhere(
        &self,
        chunk: &ChunkRef,
        index: u32,
        (found, depth): (&Found, u8),
        error: StoreError,
    ) -> Result<Arc<[u8]>, StoreError> {
        log::error!("{error}; looking for another copy");
        self.read.suspect(found.pack);
        self.read.heads.remove(&chunk.id);
        match self.find_in_footers(chunk, depth)? {
            Some(other) if other.pack != found.pack => {
                let block = self.read_block(&other, index)?;
                self.read.heads.insert(chunk.id, other);
                Ok(block)
            }
            _ => Err(error),
        }
    }

    fn read_block(&self, found: &Found, index: u32) -> Result<Arc<[u8]>, StoreError> {
        let head = &found.head;
        let index = index as usize;
        let before: u64 = head.blocks[..index].iter().map(|b| u64::from(b.stored_bytes)).sum();
        let block = &head.blocks[index];
        let mut stored = vec![0; block.stored_bytes as usize];
        let at = found.offset + head.head_bytes() as u64 + before;
        let file = self.pack_file(&found.pack)?;
        let damaged = |why| StoreError::ChunkDamaged { chunk: head.id, pack: found.pack, why };
        durable::read_exact_at(&*self.io, &file, &mut stored, at).map_err(|error| {
            match error.kind() {
                std::io::ErrorKind::UnexpectedEof => damaged("the pack ends within it".to_owned()),
                _ => StoreError::io("read", &self.layout.pack(&found.pack), error),
            }
        })?;
        let plain_bytes = codec::block_plain_bytes(head.plain_bytes as usize, index);
        let is_plain = block.stored_bytes as usize == plain_bytes;
        let range = codec::base_range(head.codec, &head.bases, head.plain_bytes as usize, index);
        let base = self.read_base(&head.bases, if is_plain { 0..0 } else { range })?;
        let mut plain = vec![0; plain_bytes];
        codec::decode_block(head.codec, block, &stored, &base, &mut plain)
            .map_err(|error| damaged(error.to_string()))?;
        Ok(plain.into())
    }

    /// The plain bytes of all bases, one after the other.
    pub(super) fn read_bases(&self, bases: &Bases) -> Result<Vec<u8>, StoreError> {
        let bytes = bases.chunks.iter().map(|base| base.bytes as usize).sum();
        self.read_base(bases, 0..bytes)
    }

    /// A range of the plain bytes of all bases. Recurses as deep as the bases are.
    fn read_base(&self, bases: &Bases, range: Range<usize>) -> Result<Vec<u8>, StoreError> {
        let mut found = Vec::with_capacity(range.len());
        let mut start = 0;
        for base in &bases.chunks {
            let end = start + base.bytes as usize;
            let (from, to) = (range.start.max(start), range.end.min(end));
            let mut at = from;
            while at < to {
                let index = u32::try_from((at - start) / BLOCK_BYTES).expect("within a chunk");
                let block = self.base_block(base, index, bases.depth)?;
                let skip = (at - start) % BLOCK_BYTES;
                let count = (block.len() - skip).min(to - at);
                found.extend_from_slice(&block[skip..skip + count]);
                at += count;
            }
            start = end;
        }
        Ok(found)
    }

    /// A block of a base of what is `depth` deep (C2). Nobody waits for another here: two who decode
    /// the same base both do it, and none can wait for itself.
    fn base_block(&self, base: &ChunkRef, index: u32, depth: u8) -> Result<Arc<[u8]>, StoreError> {
        let key = (base.id, index);
        if let Some(block) = self.read.blocks.get(&key) {
            return Ok(block);
        }
        let mut found = self.find(base)?;
        if depth <= found.head.bases.depth {
            // Another copy may be less deep; the catalog names only one.
            found = self
                .find_in_footers(base, depth)?
                .ok_or(StoreError::ChunkMissing { chunk: base.id })?;
        }
        let block = match self.read_block(&found, index) {
            Ok(block) => block,
            Err(error) => self.read_block_elsewhere(base, index, (&found, depth), error)?,
        };
        self.read.blocks.insert(key, block.clone());
        Ok(block)
    }

    /// The nearest chunk in the chain of `base`, itself first, that is less deep than `depth`; with
    /// its depth. `None` where there is none, or it cannot be looked at: it is no base then.
    pub(super) fn base_below(&self, base: &ChunkRef, depth: u8) -> Option<(ChunkRef, u8)> {
        let mut base = *base;
        loop {
            let found = self.find(&base).ok().filter(|it| !self.read.is_suspect(&it.pack))?;
            if found.head.bases.depth < depth {
                return Some((base, found.head.bases.depth));
            }
            // Only a delta's base has the same length and stands for the same numbers.
            match found.head.bases.chunks[..] {
                [next] if found.head.codec == Codec::Delta => base = next,
                _ => return None,
            }
        }
    }

    /// The record of a chunk: by the catalog, and by the packs' footers where that is wrong.
    fn find(&self, chunk: &ChunkRef) -> Result<Arc<Found>, StoreError> {
        if let Some(found) = self.read.heads.get(&chunk.id) {
            return Ok(found);
        }
        let place = self.catalog.read().place(&chunk.id);
        let by_catalog = match place {
            Ok(Some(place)) if !self.read.is_suspect(&place.pack) => self.load_head(chunk, place),
            Ok(_) => Err(StoreError::ChunkMissing { chunk: chunk.id }),
            Err(error) => Err(StoreError::Catalog(error)),
        };
        let found = match by_catalog {
            Ok(found) => found,
            Err(error) => {
                log::warn!("{error}; searching the packs");
                match self.find_in_footers(chunk, u8::MAX)? {
                    Some(found) => found,
                    None => return Err(self.why_not_found(chunk, error)),
                }
            }
        };
        self.read.heads.insert(chunk.id, found.clone());
        Ok(found)
    }

    /// The error that says most: damage that was met rather than "in no pack".
    fn why_not_found(&self, chunk: &ChunkRef, error: StoreError) -> StoreError {
        match error {
            StoreError::Catalog(_) => StoreError::ChunkMissing { chunk: chunk.id },
            other => other,
        }
    }

    /// Reads the head of the record at `place`, and believes neither before they agree (K1).
    fn load_head(&self, chunk: &ChunkRef, place: Place) -> Result<Arc<Found>, StoreError> {
        let damaged = |why: &str| StoreError::ChunkDamaged {
            chunk: chunk.id,
            pack: place.pack,
            why: why.to_owned(),
        };
        if place.plain_bytes != chunk.bytes {
            return Err(damaged("it has another length than the manifest says"));
        }
        let file = self.pack_file(&place.pack)?;
        let base_count = usize::from(place.base_count);
        let mut bytes = vec![0; pack::head_bytes(place.plain_bytes as usize, base_count)];
        let offset = u64::from(place.offset);
        durable::read_exact_at(&*self.io, &file, &mut bytes, offset)
            .map_err(|error| damaged(&format!("its head cannot be read: {error}")))?;
        let head = pack::parse_head(&bytes, offset).map_err(|e| damaged(&e.to_string()))?;
        if head.id != chunk.id || head.plain_bytes != chunk.bytes {
            return Err(damaged("another chunk is where it should be"));
        }
        Ok(Arc::new(Found { pack: place.pack, offset, head }))
    }

    /// A record less deep than `depth`: looks through all packs that are not suspect, then through
    /// those that are. Slow, and rare.
    fn find_in_footers(
        &self,
        chunk: &ChunkRef,
        depth: u8,
    ) -> Result<Option<Arc<Found>>, StoreError> {
        let mut ids: Vec<_> = packs::list(&*self.io, &self.layout)?;
        ids.sort_by_key(|(id, _)| self.read.is_suspect(id));
        for (id, _) in ids {
            let path = self.layout.pack(&id);
            let lines = packs::read_footer(&*self.io, &path)
                .or_else(|_| packs::scan(&*self.io, &path))
                .unwrap_or_default();
            let wanted = |line: &&FooterLine| line.id == chunk.id && line.depth < depth;
            for line in lines.iter().filter(wanted) {
                if let Ok(found) = self.load_head(chunk, Place::of(id, line)) {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    fn pack_file(&self, id: &PackId) -> Result<Arc<File>, StoreError> {
        self.read.packs.get_or_insert_with(id, || {
            let path = self.layout.pack(id);
            self.io.open(&path).map(Arc::new).map_err(|e| StoreError::io("open", &path, e))
        })
    }
}
