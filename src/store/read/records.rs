//! Where the record of a chunk is: by the catalog, which is checked, and by the packs themselves.

use std::fs::File;
use std::sync::Arc;

use super::ChunkReader;
use crate::format::codec::Codec;
use crate::format::ids::PackId;
use crate::format::manifest::ChunkRef;
use crate::format::pack::{self, FooterLine, RecordHead};
use crate::store::catalog::Place;
use crate::store::error::StoreError;
use crate::store::packs;
use crate::sys::io as durable;

/// A record that was found good.
pub struct Found {
    pub pack: PackId,
    pub offset: u64,
    pub head: RecordHead,
}

impl ChunkReader {
    /// The record of a chunk: by the catalog, and by the packs' footers where that is wrong.
    pub(super) fn find(&self, chunk: &ChunkRef) -> Result<Arc<Found>, StoreError> {
        let error = match self.find_by_catalog(chunk) {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        log::warn!("{error}; searching the packs");
        let Some(found) = self.find_in_footers(chunk, u8::MAX)? else {
            return Err(why_not_found(chunk, error));
        };
        self.heads.insert(chunk.id, found.clone());
        Ok(found)
    }

    /// The record of a chunk where the catalog says that it is.
    pub(super) fn find_by_catalog(&self, chunk: &ChunkRef) -> Result<Arc<Found>, StoreError> {
        if let Some(found) = self.heads.get(&chunk.id) {
            return Ok(found);
        }
        let place = self.catalog.read().place(&chunk.id);
        let found = match place {
            Ok(Some(place)) if !self.is_suspect(&place.pack) => self.load_head(chunk, place)?,
            Ok(_) => return Err(StoreError::ChunkMissing { chunk: chunk.id }),
            Err(error) => return Err(StoreError::Catalog(error)),
        };
        self.heads.insert(chunk.id, found.clone());
        Ok(found)
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
    pub(super) fn find_in_footers(
        &self,
        chunk: &ChunkRef,
        depth: u8,
    ) -> Result<Option<Arc<Found>>, StoreError> {
        let mut ids: Vec<_> = packs::list(&*self.io, &self.layout)?;
        ids.sort_by_key(|(id, _)| self.is_suspect(id));
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

    /// After damage in `found`: another pack may hold the same chunk, less deep than `depth`.
    ///
    /// # Errors
    /// `error`, where none does.
    pub(super) fn find_elsewhere(
        &self,
        chunk: &ChunkRef,
        found: &Found,
        depth: u8,
        error: StoreError,
    ) -> Result<Arc<Found>, StoreError> {
        log::error!("{error}; looking for another copy");
        self.suspect(found.pack);
        self.heads.remove(&chunk.id);
        let other = self.find_in_footers(chunk, depth)?;
        other.filter(|other| other.pack != found.pack).ok_or(error)
    }

    /// The nearest chunk in the chain of `base`, itself first, that is less deep than `depth`; with
    /// its depth. `None` where there is none, or it cannot be looked at: it is no base then.
    pub(super) fn base_below(&self, base: &ChunkRef, depth: u8) -> Option<(ChunkRef, u8)> {
        let mut base = *base;
        loop {
            let found = self.find(&base).ok().filter(|it| !self.is_suspect(&it.pack))?;
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

    pub(super) fn pack_file(&self, id: &PackId) -> Result<Arc<File>, StoreError> {
        self.packs.get_or_insert_with(id, || {
            let path = self.layout.pack(id);
            self.io.open(&path).map(Arc::new).map_err(|e| StoreError::io("open", &path, e))
        })
    }
}

/// The error that says most: damage that was met rather than "in no pack".
fn why_not_found(chunk: &ChunkRef, error: StoreError) -> StoreError {
    match error {
        StoreError::Catalog(_) => StoreError::ChunkMissing { chunk: chunk.id },
        other => other,
    }
}
