//! Where chunks are, in memory: what the catalog is where the disk does not take one.
//!
//! Nothing here fails. What finds no room is not known, as in any catalog (K1).

use std::collections::{BTreeMap, HashMap};

use super::catalog::{CatalogCounts, Place};
use crate::format::ids::{ChunkId, PackId};
use crate::format::pack::FooterLine;

/// Most chunks that are known: some 500 MiB. Those beyond are looked for in the packs.
const CHUNKS_MAX: usize = 4 << 20;

/// Chunks and packs that are known.
#[derive(Default)]
pub struct Known {
    chunks: HashMap<ChunkId, Place>,
    packs: BTreeMap<PackId, u64>,
}

impl Known {
    pub fn place(&self, id: &ChunkId) -> Option<Place> {
        self.chunks.get(id).copied()
    }

    pub fn places(&self) -> impl Iterator<Item = (ChunkId, Place)> {
        self.chunks.iter().map(|(id, place)| (*id, *place))
    }

    pub fn add_pack(&mut self, pack: PackId, pack_bytes: u64, lines: &[FooterLine]) {
        let room = CHUNKS_MAX.saturating_sub(self.chunks.len());
        let places = lines.iter().map(|line| (line.id, Place::of(pack, line)));
        self.chunks.extend(places.take(room));
        self.packs.insert(pack, pack_bytes);
    }

    /// The packs with their lengths, sorted.
    pub fn packs(&self) -> Vec<(PackId, u64)> {
        self.packs.iter().map(|(id, bytes)| (*id, *bytes)).collect()
    }

    /// How much there is; nothing of it on the disk.
    pub fn counts(&self) -> CatalogCounts {
        let (packs, chunks) = (self.packs.len() as u64, self.chunks.len() as u64);
        CatalogCounts { packs, chunks, bytes: 0 }
    }
}
