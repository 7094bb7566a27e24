//! How much of the disk what takes: chunks by the catalog, all else by its files.

use std::path::Path;

use super::error::StoreError;
use super::{Place, Store, packs};
use crate::format::ids::{ChunkId, ManifestId};
use crate::sys::io::Io;

/// What the files of a store take, in bytes. What drafts hold is not of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DiskUsage {
    pub packs: u64,
    pub pack_bytes: u64,
    pub manifest_bytes: u64,
    pub catalog_bytes: u64,
    pub hot_bytes: u64,
}

impl Store {
    /// Where a chunk is by the catalog, if that knows it.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub fn place(&self, id: &ChunkId) -> Result<Option<Place>, StoreError> {
        self.catalog.read().place(id).map_err(StoreError::Catalog)
    }

    /// Visits every chunk that the catalog knows.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub fn places(&self, visit: impl FnMut(ChunkId, Place)) -> Result<(), StoreError> {
        self.catalog.read().places(visit).map_err(StoreError::Catalog)
    }

    /// Bytes of a manifest's file.
    ///
    /// # Errors
    /// When it is not there.
    pub fn manifest_file_bytes(&self, id: &ManifestId) -> Result<u64, StoreError> {
        let path = self.layout.manifest(id);
        self.io.file_bytes(&path).map_err(|e| StoreError::io("stat", &path, e))
    }

    /// What the files take.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn disk_usage(&self) -> Result<DiskUsage, StoreError> {
        let packs = packs::list(&*self.io, &self.layout)?;
        Ok(DiskUsage {
            packs: packs.len() as u64,
            pack_bytes: packs.iter().map(|(_, bytes)| bytes).sum(),
            manifest_bytes: tree_bytes(&*self.io, &self.layout.manifests())?,
            catalog_bytes: tree_bytes(&*self.io, &self.layout.catalog())?,
            hot_bytes: tree_bytes(&*self.io, &self.layout.hot())?,
        })
    }
}

/// Bytes of the files below a directory; 0 where there is none. What goes in the meantime, as files
/// of a cache may, counts nothing.
fn tree_bytes(io: &dyn Io, directory: &Path) -> Result<u64, StoreError> {
    let gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    let paths = match io.list(directory) {
        Err(error) if gone(&error) => return Ok(0),
        listed => listed.map_err(|e| StoreError::io("list", directory, e))?,
    };
    let mut bytes = 0;
    for path in paths {
        bytes += match io.file_bytes(&path) {
            _ if path.is_dir() => tree_bytes(io, &path)?,
            Err(error) if gone(&error) => 0,
            found => found.map_err(|e| StoreError::io("stat", &path, e))?,
        };
    }
    Ok(bytes)
}
