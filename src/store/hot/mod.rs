//! Hot files: whole plaintext files of versions, for the kernel to read without us.
//!
//! A cache: any file, or the whole directory, may be deleted at any time. What is in `hot/` under
//! the name of a digest was hashed, or moved there from where it had been hashed, and is handed out
//! only as long as its stamp (device, inode, size, time of change) is the one it had then.
//!
//! Invariant W1 is in `table`: the limit is hard.
//! Invariant W2: a file gets its name when it is complete and read-only; copies were hashed on the
//! way, moved files have the stamp under which sealing hashed them, and a lease says that nobody
//! has them open for writing from before the stamp is compared until after the new one is taken.
//! Invariant W3: a file is believed after a start only where the index has its stamp, and the index
//! speaks of a file only after its bytes were synced. All others are hashed before they are used, so
//! what a power cut tore is never read.
//!
//! Nothing here fails a caller whose work does not need a hot file.

mod make;
mod table;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::Layout;
use crate::format::hot::{Stamp, encode_line, parse_line};
use crate::format::ids::{BlobDigest, ManifestId};
use crate::sys::at::{self, EntryKind, Status};
use crate::sys::io::{self as durable, Io};
use table::{Belief, Table};

pub use make::{Adopted, Begun, NewHotFile};
pub use table::Claim;

/// Smaller files get no hot copy: one of a single block is one request and one decoded block away,
/// and after that in the page cache.
pub const HOT_FILE_BYTES_MIN: u64 = 128 << 10;
/// Default limit: this part of the disk, at most so much.
const DISK_SHARE: u64 = 10;
const LIMIT_BYTES_MAX: u64 = 50 << 30;
/// Longest index that is read: a million files have less.
const INDEX_BYTES_MAX: u64 = 256 << 20;
/// Lines of the index beyond those of the files that are there, before it is written anew.
const INDEX_SPARE_LINES: u64 = 4_096;
/// Read at once while hashing.
const PIECE_BYTES: usize = 1 << 20;

/// How much of the disk hot files may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HotLimit {
    /// None is used, made or removed: for a single command.
    Untouched,
    /// A tenth of the disk, at most 50 GiB.
    OfDisk,
    /// The same, or what there is already where that is more: for a single command.
    Kept,
    /// So many bytes; with 0 there are none.
    Bytes(u64),
}

/// A hot file, open for reading, with the stamp under which its bytes were right.
#[derive(Clone, Debug)]
pub struct HotFile {
    file: Arc<File>,
    stamp: Stamp,
    modified: SystemTime,
}

/// What there is of a file's content in `hot/`.
#[derive(Debug)]
pub enum Found {
    Ready(HotFile),
    /// It has to be hashed before it is used.
    Unsure,
    Absent,
}

/// What hashing a hot file said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checked {
    Good,
    /// The bytes were wrong; the file is removed.
    Removed,
    /// It is not there any more, or the check was stopped.
    Skipped,
}

/// What hot files there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HotTotals {
    pub files: u64,
    pub bytes: u64,
    pub bytes_max: u64,
}

/// The hot files of one store.
pub struct Hot {
    io: Arc<dyn Io>,
    layout: Layout,
    is_on: bool,
    /// Guards what is known. Taken under `room` and `index`; no other lock is taken under it.
    table: Mutex<Table>,
    /// Held while room is made, so that two makers do not count on the same bytes.
    room: Mutex<()>,
    /// Guards the index's file.
    index: Mutex<Index>,
}

/// The index, open for appending; `None` where it has to be written anew first.
#[derive(Default)]
struct Index {
    file: Option<File>,
    lines: u64,
}

impl HotFile {
    /// The file, for the kernel.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether the bytes are still those that were hashed. Losing its name is no change.
    pub fn is_intact(&self) -> bool {
        let Ok(status) = at::status(&*self.file) else { return false };
        let stamp = stamp_of(&status);
        let unlinked = Stamp { changed: stamp.changed, ..self.stamp };
        let same_bytes = stamp == unlinked && status.mtime == self.modified;
        same_bytes && (stamp == self.stamp || status.nlink == 0)
    }

    /// Reads at `offset` until `out` is full or the file ends; `None` where the bytes cannot be had
    /// from here any more.
    pub fn read_at(&self, io: &dyn Io, offset: u64, out: &mut [u8]) -> Option<usize> {
        let rest = self.stamp.bytes.saturating_sub(offset);
        let count = usize::try_from(rest).unwrap_or(usize::MAX).min(out.len());
        let read = durable::read_exact_at(io, &self.file, &mut out[..count], offset);
        (read.is_ok() && self.is_intact()).then_some(count)
    }
}

impl Hot {
    /// Looks at what hot files there are, and removes what is above the limit. What goes wrong is
    /// logged: a store opens without its hot files.
    pub(super) fn open(io: Arc<dyn Io>, layout: Layout, limit: HotLimit) -> Self {
        let limit_bytes = match limit {
            HotLimit::Untouched => None,
            HotLimit::OfDisk | HotLimit::Kept => Some(default_limit(layout.root())),
            HotLimit::Bytes(bytes) => Some(bytes),
        };
        let is_on = limit_bytes.is_some_and(|bytes| bytes != 0);
        let table = Mutex::new(Table::new(limit_bytes.unwrap_or(u64::MAX)));
        let (room, index) = (Mutex::new(()), Mutex::default());
        let hot = Self { io, layout, is_on, table, room, index };
        if let Err(error) = hot.load() {
            log::warn!("cannot look through `{}`: {error}", hot.layout.hot().display());
        }
        if limit == HotLimit::Kept {
            hot.table.lock().raise_limit();
        }
        if limit_bytes.is_some() {
            let overflow = hot.table.lock().overflow();
            for digest in overflow {
                hot.drop_file(&digest);
            }
        }
        hot
    }

    /// Whether hot files are used at all.
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    pub fn totals(&self) -> HotTotals {
        let table = self.table.lock();
        let (files, bytes) = table.totals();
        HotTotals { files, bytes, bytes_max: if self.is_on { table.limit() } else { 0 } }
    }

    /// Whether a file of so many bytes finds room without another going for it.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.is_on && self.table.lock().has_room(bytes)
    }

    /// All that are there, the least recently used first.
    pub fn digests(&self) -> Vec<BlobDigest> {
        self.table.lock().digests()
    }

    /// Says which hot files belong to a version; no use of them is counted.
    pub fn mark(&self, digests: impl Iterator<Item = BlobDigest>, version: &ManifestId) {
        let mut table = self.table.lock();
        digests.for_each(|digest| table.mark(&digest, version));
    }

    /// Opens the hot file with this content, counting a use of it for `version`.
    pub fn find(&self, digest: &BlobDigest, bytes: u64, version: &ManifestId) -> Found {
        if !self.is_on || bytes < HOT_FILE_BYTES_MIN {
            return Found::Absent;
        }
        let belief = {
            let mut table = self.table.lock();
            let Some(entry) = table.get(digest) else { return Found::Absent };
            let belief = entry.belief;
            table.touch(digest, version);
            belief
        };
        let Some((file, status)) = self.open_file(digest) else { return Found::Absent };
        let stamp = stamp_of(&status);
        match belief {
            Belief::Good { stamp: known, .. } if known == stamp && stamp.bytes == bytes => {
                let (file, modified) = (Arc::new(file), status.mtime);
                Found::Ready(HotFile { file, stamp, modified })
            }
            _ => {
                self.table.lock().set_belief(digest, Belief::Unknown);
                Found::Unsure
            }
        }
    }

    /// Hashes a hot file; from then on it is believed, or it is gone. `goes_on` hears of the bytes
    /// that were read and may stop it.
    pub fn check(&self, digest: &BlobDigest, goes_on: &mut dyn FnMut(u64) -> bool) -> Checked {
        let Some((file, before)) = self.open_file(digest) else { return Checked::Skipped };
        let hashed = match self.hash(&file, goes_on) {
            Ok(None) => return Checked::Skipped,
            Ok(Some(found)) => Ok(found),
            Err(error) => Err(error),
        };
        let stamp = stamp_of(&before);
        let unchanged = at::status(&file).is_ok_and(|after| stamp_of(&after) == stamp);
        // Synced before the index speaks of it (W3).
        let sound = hashed.as_ref().is_ok_and(|found| found == digest) && unchanged;
        if sound && self.io.sync_file(&file).is_ok() {
            self.table.lock().set_belief(digest, Belief::Good { stamp, durable: true });
            self.note(digest, &stamp);
            return Checked::Good;
        }
        let path = self.layout.hot_file(digest);
        match hashed {
            Ok(_) => log::error!("`{}` has other bytes than it should: removed", path.display()),
            Err(error) => log::error!("cannot read `{}`: {error}; removed", path.display()),
        }
        self.drop_file(digest);
        Checked::Removed
    }

    /// Makes hot files durable that were moved here, so that they are believed after a power cut too.
    pub fn settle(&self, goes_on: &dyn Fn() -> bool) {
        for digest in self.digests() {
            let belief = self.table.lock().get(&digest).map(|entry| entry.belief);
            let Some(Belief::Good { stamp, durable: false }) = belief else { continue };
            if !goes_on() {
                return;
            }
            let Some((file, _)) = self.open_file(&digest) else { continue };
            let synced = self.io.sync_file(&file);
            match synced.and_then(|()| at::status(&file)) {
                Ok(status) if stamp_of(&status) == stamp => {
                    let belief = Belief::Good { stamp, durable: true };
                    self.table.lock().set_belief(&digest, belief);
                    self.note(&digest, &stamp);
                }
                Ok(_) => self.table.lock().set_belief(&digest, Belief::Unknown),
                Err(error) => {
                    // What the page cache has may never have reached the disk.
                    log::error!("a hot file cannot be made durable and goes: {error}");
                    self.drop_file(&digest);
                }
            }
        }
    }

    /// Removes hot files, the least recently used first, until `bytes` are free that were not.
    pub fn give_way(&self, bytes: u64) {
        let mut freed = 0;
        for digest in self.digests() {
            if bytes <= freed || !self.is_on {
                return;
            }
            freed += self.table.lock().get(&digest).map_or(0, |entry| entry.bytes);
            self.drop_file(&digest);
        }
    }

    /// Reads the index and the directory.
    fn load(&self) -> io::Result<()> {
        let mut known = HashMap::new();
        match durable::read_file(&*self.io, &self.layout.hot_index(), INDEX_BYTES_MAX) {
            Ok(text) => {
                let text = String::from_utf8_lossy(&text);
                known.extend(text.lines().filter_map(parse_line));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => log::info!("hot files will be hashed before they are used: {error}"),
        }
        let directory = at::open_directory(&self.layout.hot())?;
        let mut files = Vec::new();
        for path in self.io.list(&self.layout.hot())? {
            let name = path.file_name().unwrap_or_default();
            let digest = name.to_str().and_then(|name| name.parse::<BlobDigest>().ok());
            let Some(digest) = digest else { continue };
            let Ok(status) = at::status_at(&directory, name) else { continue };
            if status.kind() == EntryKind::File {
                files.push((status, digest));
            }
        }
        // The nearest there is to the last use.
        files.sort_by_key(|(status, _)| status.ctime);
        let mut table = self.table.lock();
        for (status, digest) in files {
            let stamp = stamp_of(&status);
            let belief = match known.get(&digest) {
                Some(noted) if *noted == stamp => Belief::Good { stamp, durable: true },
                _ => Belief::Unknown,
            };
            table.put(digest, status.size, status.blocks * 512, belief);
        }
        Ok(())
    }

    /// Opens a hot file; forgets it where it is gone.
    fn open_file(&self, digest: &BlobDigest) -> Option<(File, Status)> {
        let path = self.layout.hot_file(digest);
        let opened = self.io.open(&path).and_then(|file| Ok((at::status(&file)?, file)));
        match opened {
            Ok((status, file)) if status.kind() == EntryKind::File => Some((file, status)),
            Ok(_) => None,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.table.lock().remove(digest);
                None
            }
            Err(error) => {
                log::warn!("cannot open `{}`: {error}", path.display());
                None
            }
        }
    }

    /// Removes a file; whoever has it open goes on reading it.
    fn drop_file(&self, digest: &BlobDigest) {
        let path = self.layout.hot_file(digest);
        match self.io.remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // It goes on being charged (W1), and is never handed out.
                self.table.lock().set_belief(digest, Belief::Unknown);
                log::warn!("cannot remove `{}`: {error}", path.display());
            }
            _ => drop(self.table.lock().remove(digest)),
        }
    }

    /// `None` where it was stopped.
    fn hash(
        &self,
        file: &File,
        goes_on: &mut dyn FnMut(u64) -> bool,
    ) -> io::Result<Option<BlobDigest>> {
        let mut hasher = blake3::Hasher::new();
        let (mut piece, mut offset) = (vec![0; PIECE_BYTES], 0);
        loop {
            let count = match self.io.read_at(file, &mut piece, offset) {
                Ok(0) => return Ok(Some(BlobDigest(*hasher.finalize().as_bytes()))),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hasher.update(&piece[..count]);
            offset += count as u64;
            if !goes_on(count as u64) {
                return Ok(None);
            }
        }
    }

    /// Appends to the index. A lost line costs a hashing after the next start, nothing else.
    fn note(&self, digest: &BlobDigest, stamp: &Stamp) {
        let mut index = self.index.lock();
        let files = self.table.lock().totals().0;
        let written = match &index.file {
            Some(file) if index.lines < 2 * files + INDEX_SPARE_LINES => {
                durable::write_all(&*self.io, file, encode_line(digest, stamp).as_bytes())
            }
            _ => self.write_index(&mut index),
        };
        index.lines += 1;
        if let Err(error) = written {
            log::info!("the index of hot files will be written anew: {error}");
            index.file = None;
        }
    }

    /// Writes the index anew, of what is believed and durable.
    fn write_index(&self, index: &mut Index) -> io::Result<()> {
        let (mut text, mut lines) = (String::new(), 0);
        {
            let table = self.table.lock();
            for digest in table.digests() {
                let belief = table.get(&digest).map(|entry| entry.belief);
                if let Some(Belief::Good { stamp, durable: true }) = belief {
                    text += &encode_line(&digest, &stamp);
                    lines += 1;
                }
            }
        }
        let temporary = durable::temporary_path(&self.layout.temporary());
        let file = self.io.create(&temporary)?;
        let written = durable::write_all(&*self.io, &file, text.as_bytes())
            .and_then(|()| self.io.rename(&temporary, &self.layout.hot_index()));
        if let Err(error) = written {
            // What is left there is removed at the next start.
            let _ = self.io.remove_file(&temporary);
            return Err(error);
        }
        *index = Index { file: Some(file), lines };
        Ok(())
    }
}

/// What identifies the content of a file that was looked at.
pub fn stamp_of(status: &Status) -> Stamp {
    let changed = match status.ctime.duration_since(UNIX_EPOCH) {
        Ok(after) => (i64::try_from(after.as_secs()).unwrap_or(i64::MAX), after.subsec_nanos()),
        Err(early) => {
            let before = early.duration();
            (-i64::try_from(before.as_secs()).unwrap_or(i64::MAX), before.subsec_nanos())
        }
    };
    Stamp { device: status.dev, inode: status.ino, bytes: status.size, changed }
}

/// A tenth of the disk below the store, at most 50 GiB; nothing where the disk does not say.
fn default_limit(root: &Path) -> u64 {
    let share = nix::sys::statvfs::statvfs(root)
        .map(|disk| disk.blocks().saturating_mul(disk.fragment_size()) / DISK_SHARE);
    share.unwrap_or(0).min(LIMIT_BYTES_MAX)
}

#[cfg(test)]
mod tests;
