//! The catalog: where each chunk is, in sled. A cache and nothing else.
//! Where the disk does not take one, as it is full, there is one in memory: what is stored can be read.
//!
//! Invariant K1: whatever the catalog says is checked before it is believed: a chunk's place by the
//! head of the record found there, its set of packs by the directory.
//! Invariant K2: an error, a panic or a slow open of sled costs time, never data: the owner makes a
//! new catalog from the packs.
//! Each catalog lies in a directory of its own below `catalog/`, so that a sled which hangs or is
//! still closing never writes into its successor.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use parking_lot::Mutex;

use super::known::Known;
use super::layout::CHECKPOINT;
use crate::format::codec::Codec;
use crate::format::ids::{ChunkId, DIGEST_BYTES, PackId};
use crate::format::pack::FooterLine;
use crate::sys::io::{Io, random_bytes};

/// Memory that sled may take for its pages.
const CACHE_BYTES: u64 = 32 << 20;
/// An open that takes longer is given up: making a new catalog is faster than a sick sled.
const OPEN_WAIT: Duration = Duration::from_secs(30);
/// Bytes of a chunk's place.
const PLACE_BYTES: usize = DIGEST_BYTES + 15;

/// Why the catalog did not answer.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("the catalog cannot be used: {0}")]
    Sled(#[from] sled::Error),
    #[error("the catalog panicked")]
    Panicked,
    #[error("the catalog did not open within {} s", OPEN_WAIT.as_secs())]
    Slow,
    #[error("the catalog holds a value that is not {what}")]
    Value { what: &'static str },
    #[error("there is no catalog")]
    Absent,
    #[error("cannot make a directory for the catalog: {0}")]
    Io(#[from] std::io::Error),
}

/// Where a chunk is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub pack: PackId,
    pub offset: u32,
    pub record_bytes: u32,
    pub plain_bytes: u32,
    pub codec: Codec,
    pub depth: u8,
    pub base_count: u8,
}

impl Place {
    /// The place that a line of the pack's footer gives.
    pub fn of(pack: PackId, line: &FooterLine) -> Self {
        let FooterLine { offset, record_bytes, plain_bytes, codec, depth, base_count, .. } = *line;
        Self { pack, offset, record_bytes, plain_bytes, codec, depth, base_count }
    }

    fn encode(&self) -> [u8; PLACE_BYTES] {
        let mut bytes = [0; PLACE_BYTES];
        bytes[..DIGEST_BYTES].copy_from_slice(self.pack.as_bytes());
        bytes[32..36].copy_from_slice(&self.offset.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.record_bytes.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.plain_bytes.to_le_bytes());
        bytes[44..].copy_from_slice(&[self.codec as u8, self.depth, self.base_count]);
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Self, CatalogError> {
        let wrong = CatalogError::Value { what: "a chunk's place" };
        let Ok(bytes) = <&[u8; PLACE_BYTES]>::try_from(bytes) else { return Err(wrong) };
        let number = |at: usize| {
            u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes of a fixed array"))
        };
        let Ok(codec) = Codec::try_from(bytes[44]) else { return Err(wrong) };
        let pack = PackId(bytes[..DIGEST_BYTES].try_into().expect("the first bytes are a digest"));
        Ok(Self {
            pack,
            offset: number(32),
            record_bytes: number(36),
            plain_bytes: number(40),
            codec,
            depth: bytes[45],
            base_count: bytes[46],
        })
    }
}

/// How much a catalog holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CatalogCounts {
    pub packs: u64,
    pub chunks: u64,
    pub bytes: u64,
}

/// An open catalog.
pub enum Catalog {
    Disk(Disk),
    /// No other lock is taken while it is held.
    Memory(Mutex<Known>),
}

/// A catalog in sled.
pub struct Disk {
    db: sled::Db,
    chunks: sled::Tree,
    packs: sled::Tree,
}

impl Catalog {
    /// Opens the catalog that is in `directory`.
    ///
    /// # Errors
    /// When there is none, or it cannot be used: then [`Catalog::replace`] makes a new one.
    pub fn open(io: &dyn Io, directory: &Path) -> Result<Self, CatalogError> {
        match databases(io, directory)?.as_slice() {
            [only] => open_within(only.clone(), OPEN_WAIT),
            // More than one is left where a replacement was cut off.
            _ => Err(CatalogError::Absent),
        }
    }

    /// Makes an empty catalog in `directory` and removes those that were there.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn replace(io: &dyn Io, directory: &Path) -> Result<Self, CatalogError> {
        let name = crate::format::ids::to_hex(&random_bytes::<8>()?);
        for old in databases(io, directory)? {
            io.remove_tree(&old)?;
        }
        open_within(directory.join(name), OPEN_WAIT)
    }

    /// An empty one in memory.
    pub fn in_memory() -> Self {
        Self::Memory(Mutex::default())
    }

    /// Where a chunk is, if the catalog knows it.
    pub fn place(&self, id: &ChunkId) -> Result<Option<Place>, CatalogError> {
        match self {
            Self::Disk(disk) => disk.place(id),
            Self::Memory(known) => Ok(known.lock().place(id)),
        }
    }

    /// Visits every chunk that the catalog knows.
    pub fn places(&self, mut visit: impl FnMut(ChunkId, Place)) -> Result<(), CatalogError> {
        match self {
            Self::Disk(disk) => disk.places(visit),
            Self::Memory(known) => {
                known.lock().places().for_each(|(id, place)| visit(id, place));
                Ok(())
            }
        }
    }

    /// Remembers a pack and its chunks.
    pub fn add_pack(
        &self,
        pack: PackId,
        pack_bytes: u64,
        lines: &[FooterLine],
    ) -> Result<(), CatalogError> {
        match self {
            Self::Disk(disk) => disk.add_pack(pack, pack_bytes, lines),
            Self::Memory(known) => {
                known.lock().add_pack(pack, pack_bytes, lines);
                Ok(())
            }
        }
    }

    /// The packs that the catalog covers, with their lengths, sorted.
    pub fn packs(&self) -> Result<Vec<(PackId, u64)>, CatalogError> {
        match self {
            Self::Disk(disk) => disk.packs(),
            Self::Memory(known) => Ok(known.lock().packs()),
        }
    }

    /// Hands what is new to the kernel. Not durable, and need not be (K2).
    pub fn flush(&self) -> Result<(), CatalogError> {
        match self {
            Self::Disk(disk) => guarded(|| disk.db.flush().map(drop)),
            Self::Memory(_) => Ok(()),
        }
    }

    /// Counts everything. O(n).
    pub fn counts(&self) -> Result<CatalogCounts, CatalogError> {
        match self {
            Self::Disk(disk) => disk.counts(),
            Self::Memory(known) => Ok(known.lock().counts()),
        }
    }
}

impl Disk {
    fn place(&self, id: &ChunkId) -> Result<Option<Place>, CatalogError> {
        let found = guarded(|| self.chunks.get(id.as_bytes()))?;
        found.map(|bytes| Place::parse(&bytes)).transpose()
    }

    fn places(&self, mut visit: impl FnMut(ChunkId, Place)) -> Result<(), CatalogError> {
        let mut all = self.chunks.iter();
        while let Some((key, value)) = guarded(|| all.next().transpose())? {
            let id = <[u8; DIGEST_BYTES]>::try_from(&*key);
            let id = id.map_err(|_| CatalogError::Value { what: "a chunk's id" })?;
            visit(ChunkId(id), Place::parse(&value)?);
        }
        Ok(())
    }

    fn add_pack(
        &self,
        pack: PackId,
        pack_bytes: u64,
        lines: &[FooterLine],
    ) -> Result<(), CatalogError> {
        guarded(|| {
            // In the order of their keys: those of one page follow each other. Not as a batch of sled,
            // which keeps what each line replaces in memory until it has the last.
            let mut sorted: Vec<_> = lines.iter().collect();
            sorted.sort_unstable_by_key(|line| line.id);
            // The chunks first: a pack that is listed has all its chunks listed.
            for line in sorted {
                self.chunks.insert(line.id.as_bytes(), &Place::of(pack, line).encode()[..])?;
            }
            self.packs.insert(pack.as_bytes(), &pack_bytes.to_le_bytes())?;
            Ok(())
        })
    }

    fn packs(&self) -> Result<Vec<(PackId, u64)>, CatalogError> {
        guarded(|| self.packs.iter().collect::<Result<Vec<_>, _>>())?
            .into_iter()
            .map(|(key, value)| {
                let wrong = CatalogError::Value { what: "a pack" };
                match (<[u8; 32]>::try_from(&*key), <[u8; 8]>::try_from(&*value)) {
                    (Ok(id), Ok(bytes)) => Ok((PackId(id), u64::from_le_bytes(bytes))),
                    _ => Err(wrong),
                }
            })
            .collect()
    }

    fn counts(&self) -> Result<CatalogCounts, CatalogError> {
        guarded(|| {
            Ok(CatalogCounts {
                packs: self.packs.len() as u64,
                chunks: self.chunks.len() as u64,
                bytes: self.db.size_on_disk()?,
            })
        })
    }
}

/// Opens the database in `path`, on a thread that can be left behind when it hangs.
fn open_within(path: PathBuf, wait: Duration) -> Result<Catalog, CatalogError> {
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::Builder::new().name("catalog-open".to_owned()).spawn(move || {
        // Nobody may be waiting any more.
        let _ = sender.send(guarded(|| open_now(&path)));
    })?;
    receiver.recv_timeout(wait).unwrap_or(Err(CatalogError::Slow))
}

fn open_now(path: &Path) -> Result<Catalog, sled::Error> {
    let db = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None)
        .mode(sled::Mode::LowSpace)
        .open()?;
    let (chunks, packs) = (db.open_tree("chunks")?, db.open_tree("packs")?);
    Ok(Catalog::Disk(Disk { db, chunks, packs }))
}

/// What is in a catalog's directory but for the checkpoint.
fn databases(io: &dyn Io, directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = io.list(directory)?;
    found.retain(|path| !path.ends_with(CHECKPOINT));
    Ok(found)
}

/// Runs `work`; a panic inside sled becomes an error (K2).
fn guarded<T>(work: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, CatalogError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => Ok(done?),
        Err(_) => Err(CatalogError::Panicked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::io::Real;

    #[test]
    fn a_catalog_keeps_what_it_was_told_until_it_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Catalog::open(&Real, directory.path()).is_err());
        let id = ChunkId::of(b"x");
        let pack = PackId::of(b"pack");
        let codec = Codec::Patch;
        let (record_bytes, plain_bytes, depth, base_count) = (9, 7, 2, 3);
        let line =
            FooterLine { id, offset: 16, record_bytes, plain_bytes, codec, depth, base_count };
        {
            let catalog = Catalog::replace(&Real, directory.path()).unwrap();
            catalog.add_pack(pack, 1234, &[line]).unwrap();
            catalog.flush().unwrap();
        }
        let catalog = Catalog::open(&Real, directory.path()).unwrap();
        assert_eq!(catalog.place(&id).unwrap(), Some(Place::of(pack, &line)));
        assert_eq!(catalog.packs().unwrap(), [(pack, 1234)]);
        let catalog = Catalog::replace(&Real, directory.path()).unwrap();
        assert_eq!(catalog.place(&id).unwrap(), None);
    }
}
