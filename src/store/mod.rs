//! The store: chunks in packs, manifests, the history, and a catalog over them.
//!
//! Everything but the catalog is immutable, checksummed and durable before it is referred to. The
//! order of a commit is: packs, manifest, history record; what a crash leaves before the record is
//! garbage that nothing refers to. Nothing here knows of models, versions or aliases.

mod catalog;
mod check;
mod checkpoint;
pub mod draft;
pub mod encode;
pub mod hot;

mod error;
mod history;
mod known;
mod layout;
mod packs;
mod read;
mod usage;
mod write;

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};

use crate::format::config::{CONFIG_BYTES_MAX, Config};
use crate::format::ids::{ManifestId, to_hex};
use crate::format::manifest::Manifest;
use crate::format::record::Record;
use crate::sys::io::{self as durable, Io, Put};
use crate::sys::lock::{self, LockError, LockGuard};

use catalog::Catalog;
use hot::{Hot, HotLimit};
use packs::FinishedPack;
use read::{ChunkReader, Reading};

pub use catalog::{CatalogCounts, CatalogError, Place};
pub use check::{Finding, PackCheck};
pub use checkpoint::{Checkpoint, CheckpointWriter};
pub use encode::Like;
pub use error::{StoreError, with_causes};
pub use history::{Head, History, Line};
pub use layout::Layout;
pub use packs::{list_named, name_of, read_footer, scan};
pub use read::{Cursor, Use};
pub use usage::DiskUsage;
pub use write::{ChunkWriter, Piece, Written};

/// Largest manifest that is read: one of a million files with long names has about 150 MiB.
const MANIFEST_BYTES_MAX: u64 = 1 << 30;

/// An open store, under its lock.
pub struct Store {
    io: Arc<dyn Io>,
    layout: Layout,
    config: Config,
    /// Written only to put a new catalog in the place of a bad one. Taken last of all locks.
    catalog: Arc<RwLock<Catalog>>,
    read: Reading,
    history: History,
    hot: Hot,
    /// Whether nothing lies beyond the newest record. No other lock is taken while it is held.
    end_known: Mutex<bool>,
    _lock: LockGuard,
}

/// What a start made of the catalog that it found.
#[derive(Clone, Debug, Default)]
pub struct RebuildReport {
    pub packs: u64,
    pub chunks: u64,
    /// Packs that could not be indexed whole.
    pub damaged: Vec<(String, String)>,
}

impl Store {
    /// Makes a store in `directory`, which does not exist or is empty.
    ///
    /// # Errors
    /// `Foreign` where the directory holds something else. A store that was cut off while being
    /// made is made anew.
    pub fn init(io: &dyn Io, directory: &Path, now: Timestamp) -> Result<(), StoreError> {
        let layout = Layout::new(directory);
        let failed = |e| StoreError::io("create", directory, e);
        if !directory.exists() {
            // Parents of the store are the user's business, but a missing one is made.
            make_parents(io, directory).map_err(failed)?;
        }
        let known: Vec<_> = layout.directories().into_iter().chain([layout.lock()]).collect();
        let entries = io.list(directory).map_err(failed)?;
        if entries.iter().any(|entry| !known.contains(entry)) {
            return Err(StoreError::Foreign { directory: directory.to_owned() });
        }
        for path in layout.directories() {
            durable::ensure_directory(io, &path).map_err(|e| StoreError::io("create", &path, e))?;
        }
        let id = to_hex(&durable::random_bytes::<16>().map_err(failed)?);
        let bytes = Config::new(id, now).encode();
        // Last: where the configuration is, all else is.
        let path = layout.config();
        durable::write_durably(io, &layout.temporary(), &path, &bytes, Put::IfAbsent)
            .map_err(|e| StoreError::io("write", &path, e))
    }

    /// Takes the lock of the store in `directory`, opens it, and removes what an earlier process
    /// left half-written. `holder` is what others are told while we have it.
    ///
    /// # Errors
    /// `Missing`, `Locked`, `Config`, or the file system's. A bad catalog is no error: it is made
    /// anew, and what could not be indexed is logged.
    pub fn open(
        io: Arc<dyn Io>,
        directory: &Path,
        holder: &str,
        cache_bytes: u64,
        hot_limit: HotLimit,
    ) -> Result<Self, StoreError> {
        let layout = Layout::new(directory);
        // A configuration that cannot be looked at is another thing than none.
        let config = layout.config();
        if !config.try_exists().map_err(|e| StoreError::io("open", &config, e))? {
            return Err(StoreError::Missing { directory: directory.to_owned() });
        }
        let lock = lock::acquire(&layout.lock(), holder).map_err(|error| match error {
            LockError::Held { pid, holder } => {
                StoreError::Locked { directory: directory.to_owned(), pid, holder }
            }
            LockError::Io(source) => StoreError::io("lock", &layout.lock(), source),
        })?;
        let path = layout.config();
        let bytes = durable::read_file(&*io, &path, CONFIG_BYTES_MAX as u64)
            .map_err(|e| StoreError::io("read", &path, e))?;
        let config = Config::parse(&bytes).map_err(|source| StoreError::Config { path, source })?;
        let catalog = layout.catalog();
        if !catalog.is_dir() {
            // Whatever stands in its place: a cache is made anew.
            io.remove_tree(&catalog).map_err(|e| StoreError::io("remove", &catalog, e))?;
        }
        for path in layout.directories() {
            durable::ensure_directory(&*io, &path)
                .map_err(|e| StoreError::io("create", &path, e))?;
        }
        // A process that was killed may have given names that it did not live to make durable. From
        // here on they are relied on.
        for path in [layout.root().to_owned()].into_iter().chain(layout.directories()) {
            durable::sync_directory(&*io, &path);
        }
        clear_temporary(&*io, &layout)?;
        let found = open_catalog(&*io, &layout)?;
        let is_sound = found.is_some();
        let history = History::new(io.clone(), layout.clone());
        let catalog = Arc::new(RwLock::new(found.unwrap_or_else(Catalog::in_memory)));
        let read = ChunkReader::new(io.clone(), layout.clone(), catalog.clone(), cache_bytes);
        let read = Reading::new(read);
        let hot = Hot::open(io.clone(), layout.clone(), hot_limit);
        let end_known = Mutex::new(false);
        let store =
            Self { io, layout, config, catalog, read, history, hot, end_known, _lock: lock };
        if !is_sound {
            store.rebuild_catalog()?;
        }
        Ok(store)
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn io(&self) -> &Arc<dyn Io> {
        &self.io
    }

    pub fn history(&self) -> &History {
        &self.history
    }

    /// The hot files.
    pub fn hot(&self) -> &Hot {
        &self.hot
    }

    /// The checkpoint, if there is one.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open_checkpoint(&self) -> Result<Option<Checkpoint>, StoreError> {
        Checkpoint::open(self.io.clone(), &self.layout)
    }

    /// Begins a checkpoint, which takes the place of the one before when it is finished.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn begin_checkpoint(&self) -> Result<CheckpointWriter, StoreError> {
        CheckpointWriter::create(self.io.clone(), self.layout.clone())
    }

    /// Removes the checkpoint, or what is in its place.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn remove_checkpoint(&self) -> Result<(), StoreError> {
        let path = self.layout.checkpoint();
        self.io.remove_tree(&path).map_err(|e| StoreError::io("remove", &path, e))
    }

    /// The record that a checkpoint goes up to, whose line was `copy`; `None` where both are damaged.
    ///
    /// # Errors
    /// `Diverged` where it is not there, or is another. No crash leaves that: a record is durable before it
    /// is in any checkpoint.
    pub fn record_of(&self, head: Head, copy: &[u8]) -> Result<Option<Record>, StoreError> {
        let seq = head.seq;
        let Some(file) = self.history.read(seq)? else { return Err(StoreError::cut(seq)) };
        match Record::parse(&file) {
            Ok((record, digest)) if digest == head.digest => Ok(Some(record)),
            Ok(_) => Err(StoreError::other_record(seq)),
            Err(error) => {
                let copy = Record::parse(copy).ok().filter(|(_, digest)| *digest == head.digest);
                if copy.is_some() {
                    // Then the store can go on serving, and `verify` names the file.
                    log::error!("history record {seq} is damaged: {error}; going on with a copy");
                }
                // Else whoever reads the history finds it.
                Ok(copy.map(|(record, _)| record))
            }
        }
    }

    /// Sees to it that no record lies beyond `head`; once.
    ///
    /// # Errors
    /// As [`History::check_end`].
    pub fn ensure_end(&self, head: Head) -> Result<(), StoreError> {
        let mut known = self.end_known.lock();
        if !*known {
            self.history.check_end(head)?;
            *known = true;
        }
        Ok(())
    }

    /// Appends a record, the commit point of every operation.
    ///
    /// # Errors
    /// As [`History::append`] and [`History::check_end`].
    pub fn append(&self, head: Head, record: Record) -> Result<Line, StoreError> {
        self.ensure_end(head)?;
        self.history.append(head, record)
    }

    /// A record's line, newline and all.
    ///
    /// # Errors
    /// `RecordMissing`, or the file system's.
    pub fn record_line(&self, seq: u64) -> Result<Vec<u8>, StoreError> {
        self.history.read(seq)?.ok_or(StoreError::RecordMissing { seq })
    }

    /// Reads, checks and parses a manifest.
    ///
    /// # Errors
    /// `ManifestMissing`, `ManifestDamaged`, or the file system's.
    pub fn load_manifest(&self, id: &ManifestId) -> Result<Manifest, StoreError> {
        load_manifest(&*self.io, &self.layout, id)
    }

    /// Makes the catalog of chunks anew from the packs; in memory, where the disk does not take it.
    ///
    /// # Errors
    /// When the packs cannot be listed. A damaged pack is indexed as far as its records go, and named.
    pub fn rebuild_catalog(&self) -> Result<RebuildReport, StoreError> {
        let mut catalog = self.catalog.write();
        // The room of the old one, on a full disk too.
        *catalog = Catalog::in_memory();
        self.read.clear();
        // The old catalog knew durable packs only; a pack that is found may just have got its name.
        packs::sync_names(&*self.io, &self.layout)?;
        let on_disk = Catalog::replace(&*self.io, &self.layout.catalog());
        let on_disk = on_disk.map_err(StoreError::Catalog).and_then(|new| self.fill_catalog(new));
        let (new, report) = match on_disk {
            Err(StoreError::Catalog(error)) => {
                log::warn!("{error}; until the next start it is kept in memory");
                self.fill_catalog(Catalog::in_memory())?
            }
            made => made?,
        };
        *catalog = new;
        Ok(report)
    }

    /// A new catalog with all that the packs have.
    fn fill_catalog(&self, new: Catalog) -> Result<(Catalog, RebuildReport), StoreError> {
        let mut report = RebuildReport::default();
        for (id, bytes) in packs::list(&*self.io, &self.layout)? {
            let path = self.layout.pack(&id);
            let lines = match packs::read_footer(&*self.io, &path) {
                Ok(lines) => lines,
                Err(error) => {
                    let why = std::error::Error::source(&error).map(ToString::to_string);
                    let why = why.unwrap_or_else(|| error.to_string());
                    report.damaged.push((self.layout.name_of(&path), why));
                    packs::scan(&*self.io, &path).unwrap_or_default()
                }
            };
            new.add_pack(id, bytes, &lines).map_err(StoreError::Catalog)?;
            report.packs += 1;
            report.chunks += lines.len() as u64;
        }
        new.flush().map_err(StoreError::Catalog)?;
        Ok((new, report))
    }

    /// Counts what the catalog holds.
    pub fn catalog_counts(&self) -> Result<CatalogCounts, StoreError> {
        self.catalog.read().counts().map_err(StoreError::Catalog)
    }

    /// Hands the news of the catalog to the kernel.
    pub fn flush(&self) {
        if let Err(error) = self.catalog.read().flush() {
            log::warn!("{error}; it will be made anew at the next start");
        }
    }

    /// Tells the catalog of a pack that is durable. Where it cannot be told, as on a full disk, another one
    /// is made; where that fails as well, chunks may be stored twice and reads search the packs.
    fn index_pack(&self, pack: &FinishedPack) {
        let told = self.catalog.read().add_pack(pack.id, pack.bytes, &pack.lines);
        let Err(error) = told else { return };
        log::warn!("{error}; making a new one");
        if let Err(error) = self.rebuild_catalog() {
            log::error!("{}; the next start tries again", with_causes(&error));
        }
    }
}

/// Reads, checks and parses a manifest without a store's lock.
///
/// # Errors
/// As [`Store::load_manifest`].
pub fn load_manifest(
    io: &dyn Io,
    layout: &Layout,
    id: &ManifestId,
) -> Result<Manifest, StoreError> {
    let manifest = *id;
    let path = layout.manifest(id);
    let bytes = match durable::read_file(io, &path, MANIFEST_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(StoreError::ManifestMissing { manifest });
        }
        Err(error) => return Err(StoreError::io("read", &path, error)),
    };
    if ManifestId::of(&bytes) != manifest {
        let why = "its bytes have another digest".to_owned();
        return Err(StoreError::ManifestDamaged { manifest, why });
    }
    Manifest::parse(&bytes).map_err(|source| StoreError::ManifestUnreadable { manifest, source })
}

fn make_parents(io: &dyn Io, directory: &Path) -> std::io::Result<()> {
    if let Some(parent) = directory.parent().filter(|parent| !parent.exists()) {
        make_parents(io, parent)?;
    }
    durable::ensure_directory(io, directory)
}

/// Removes what an earlier process wrote and gave no name.
fn clear_temporary(io: &dyn Io, layout: &Layout) -> Result<(), StoreError> {
    let directory = layout.temporary();
    for path in io.list(&directory).map_err(|e| StoreError::io("list", &directory, e))? {
        io.remove_tree(&path).map_err(|e| StoreError::io("remove", &path, e))?;
    }
    Ok(())
}

/// Opens the catalog, if it covers exactly the packs that are there.
fn open_catalog(io: &dyn Io, layout: &Layout) -> Result<Option<Catalog>, StoreError> {
    let there = packs::list(io, layout)?;
    let why = match Catalog::open(io, &layout.catalog()) {
        Ok(catalog) => match catalog.packs() {
            Ok(known) if known == there => return Ok(Some(catalog)),
            Ok(_) => "it speaks of other packs than there are".to_owned(),
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    };
    if !there.is_empty() {
        log::info!("making a new catalog from the packs: {why}");
    }
    Ok(None)
}
