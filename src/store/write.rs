//! Writing chunks and manifests: everything is durable before anybody refers to it.
//!
//! Invariant P2: a manifest is written only after every pack it needs is durable.
//! Invariant P4: a chunk that is there already counts only after it was read back and compared: the
//! source may be removed on the word of it.

use std::collections::HashMap;

use super::Store;
use super::error::StoreError;
use super::packs::OpenPack;
use crate::format::codec::{self, Elements};
use crate::format::ids::{ChunkId, ManifestId};
use crate::format::manifest::{ChunkRef, Manifest};
use crate::format::pack::PACK_BYTES;
use crate::sys::io::{self as durable, Put};

/// Chunks of one snapshot on their way into packs. Dropped before `finish`: the pack that was open
/// goes; packs that were finished stay, known to the catalog, so that a second try need not write
/// them again.
pub struct ChunkWriter<'a> {
    store: &'a Store,
    open: Option<OpenPack<'a>>,
    /// Chunks in the open pack, which the catalog does not know yet.
    pending: HashMap<ChunkId, ()>,
    stored_bytes: u64,
}

impl Store {
    /// Starts writing chunks.
    pub fn chunk_writer(&self) -> ChunkWriter<'_> {
        ChunkWriter { store: self, open: None, pending: HashMap::new(), stored_bytes: 0 }
    }

    /// Whether a chunk is stored and reads back as `plain` (P4).
    fn holds(&self, chunk: &ChunkRef, plain: &[u8]) -> bool {
        let place = match self.catalog.read().place(&chunk.id) {
            Ok(Some(place)) if !self.read.is_suspect(&place.pack) => place,
            // Unknown is a legal answer: a chunk may be stored twice.
            Ok(_) | Err(_) => return false,
        };
        match self.read_back(chunk, place) {
            Ok(back) => back == plain,
            Err(error) => {
                log::error!("{error}; it is stored anew");
                self.read.suspect(place.pack);
                false
            }
        }
    }

    /// Makes a manifest durable under its name.
    pub fn put_manifest(&self, manifest: &Manifest) -> Result<ManifestId, StoreError> {
        let (bytes, id) = manifest.encode();
        // Read back before it counts, as chunks are (P3).
        let back = Manifest::parse(&bytes).and_then(|back| back.tensors().map(|_| back));
        match back {
            Ok(back) => assert!(back == *manifest, "a manifest reads back as another"),
            Err(source) => return Err(StoreError::ManifestUnreadable { manifest: id, source }),
        }
        let path = self.layout.manifest(&id);
        let parent = path.parent().expect("a manifest lies in a directory");
        durable::ensure_directory(&*self.io, parent)
            .map_err(|e| StoreError::io("create", parent, e))?;
        let temporary = self.layout.temporary();
        durable::write_durably(&*self.io, &temporary, &path, &bytes, Put::Replace)
            .map_err(|e| StoreError::io("write", &path, e))?;
        Ok(id)
    }
}

impl ChunkWriter<'_> {
    /// Stores a chunk of 1 byte to 16 MiB unless it is there; `elements` only help to make it small.
    ///
    /// # Errors
    /// As writing; nothing that was put so far is lost to others, and nothing refers to it yet.
    pub fn put(&mut self, plain: &[u8], elements: Elements) -> Result<ChunkRef, StoreError> {
        let id = ChunkId::of(plain);
        let bytes = u32::try_from(plain.len()).expect("a chunk is at most 16 MiB");
        let chunk = ChunkRef { id, bytes };
        if self.pending.contains_key(&id) || self.store.holds(&chunk, plain) {
            return Ok(chunk);
        }
        let encoded = codec::encode(plain, elements);
        let store = self.store;
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(OpenPack::create(&*store.io, &store.layout)?),
        };
        open.put(id, plain, &encoded)?;
        self.pending.insert(id, ());
        if PACK_BYTES <= open.bytes() {
            self.close_pack()?;
        }
        Ok(chunk)
    }

    /// Makes all that was put durable; the bytes that it took in packs.
    pub fn finish(mut self) -> Result<u64, StoreError> {
        self.close_pack()?;
        Ok(self.stored_bytes)
    }

    fn close_pack(&mut self) -> Result<(), StoreError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let pack = open.finish(&self.store.layout)?;
        self.stored_bytes += pack.bytes;
        self.pending.clear();
        self.store.index_pack(&pack);
        Ok(())
    }
}
