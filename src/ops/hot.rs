//! Hot files of versions: who gets one, and the work on them in the background.
//!
//! Requests never wait for that work: they leave a note in a bounded list, and one thread of the
//! daemon, `work_on_hot_files`, does it until the workspace closes. Without that thread the notes
//! are left undone, which costs speed and nothing else.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::ops::Range;
use std::path::{Path, PathBuf};

use parking_lot::{Condvar, Mutex};

use super::{HotStatus, OpsError, WarmStatus, Workspace};
use crate::format::hot::Stamp;
use crate::format::ids::{BlobDigest, ManifestId};
use crate::format::manifest::{FileEntry, Manifest, Node};
use crate::format::names::{At, ModelName, VersionNumber};
use crate::format::record::Move;
use crate::store::hot::{Adopted, Begun, Checked, Claim, Found, HOT_FILE_BYTES_MIN, HotFile};

/// Versions that wait to be warmed. With more, the oldest wish is dropped.
const WISHES_MAX: usize = 1_024;
/// Files that wait to be hashed. With more, they are noted again at their next open.
const UNSURE_MAX: usize = 65_536;
/// Files that were read and are not hot, of which the next open is awaited. With more, some are forgotten.
const READ_MAX: usize = 65_536;
/// Of what was decoded through one handle of a file, the part that counts as reading it.
const READ_SHARE: u64 = 2;
/// Files that wait for a hot copy because they were opened again. With more, none is added.
const AGAIN_MAX: usize = 1_024;
/// Files of one draft that are moved; the rest of a draft of more large files is not hot.
const MOVED_FILES_MAX: usize = 10_000;
/// Aliased versions whose files are looked for at the start; those of others count as not aliased.
const MARKED_VERSIONS_MAX: usize = 10_000;
/// Hot files leave this part of the disk free.
const FREE_SHARE: u64 = 20;
const NO_SPARE_DISK: &str = "less than 5 % of the disk would be free, and hot copies leave that to the rest; it is read from \
     the packs: free some space, then warm it again";
/// Read at once while warming.
const PIECE_BYTES: usize = 1 << 20;

/// A version whose files are to be hot.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Wish {
    model: ModelName,
    version: VersionNumber,
    manifest: ManifestId,
}

/// What the background thread does next.
enum Job {
    Settle,
    Check(BlobDigest),
    Warm(Wish),
    /// A file of a version, which is read again and again.
    Keep(ManifestId, BlobDigest),
}

#[derive(Default)]
struct Notes {
    settle: bool,
    unsure: BTreeSet<BlobDigest>,
    wishes: VecDeque<Wish>,
    /// Files of which most was decoded for a reader.
    read: BTreeSet<BlobDigest>,
    again: VecDeque<(ManifestId, BlobDigest)>,
    /// What is being warmed in the background.
    warming: Option<WarmStatus>,
    closing: bool,
}

/// Work on hot files that waits.
#[derive(Default)]
pub(super) struct HotJobs {
    /// No other lock is taken while it is held.
    notes: Mutex<Notes>,
    changed: Condvar,
}

/// A file of a draft that was sealed and may be moved: what it was while it was hashed.
pub(super) struct Movable {
    pub path: PathBuf,
    pub digest: BlobDigest,
    pub sealed: Stamp,
}

/// What became of one file that was to be warmed.
pub(super) enum Warmed {
    Made,
    Present,
    /// For this reason there is no hot copy.
    Refused(&'static str),
    Stopped,
}

impl HotJobs {
    pub fn is_closing(&self) -> bool {
        self.notes.lock().closing
    }

    pub fn close(&self) {
        self.notes.lock().closing = true;
        self.changed.notify_all();
    }

    fn leave(&self, note: impl FnOnce(&mut Notes)) {
        note(&mut self.notes.lock());
        self.changed.notify_all();
    }

    /// The next job; waits for one, and `None` at the end.
    fn next(&self) -> Option<Job> {
        let mut notes = self.notes.lock();
        loop {
            if notes.closing {
                return None;
            }
            if let Some(digest) = notes.unsure.pop_first() {
                return Some(Job::Check(digest));
            }
            if std::mem::take(&mut notes.settle) {
                return Some(Job::Settle);
            }
            if let Some(wish) = notes.wishes.pop_front() {
                return Some(Job::Warm(wish));
            }
            if let Some((version, digest)) = notes.again.pop_front() {
                return Some(Job::Keep(version, digest));
            }
            self.changed.wait(&mut notes);
        }
    }
}

impl Workspace {
    /// Works on hot files until the workspace closes: for a thread of its own.
    pub fn work_on_hot_files(&self) {
        self.mark_aliased();
        while let Some(job) = self.hot_jobs.next() {
            match job {
                Job::Settle => self.store.hot().settle(&|| self.may_work()),
                Job::Check(digest) => {
                    self.store.hot().check(&digest, &mut |_| self.may_work());
                }
                Job::Keep(version, digest) => {
                    if let Err(error) = self.keep_read(version, &digest) {
                        log::warn!("cannot make a hot copy of what is read again: {error}");
                    }
                }
                Job::Warm(wish) => {
                    if let Err(error) = self.warm_wish(&wish) {
                        log::warn!("cannot warm `{}/{}`: {error}", wish.model, wish.version);
                    }
                    self.hot_jobs.leave(|notes| notes.warming = None);
                }
            }
        }
    }

    /// The hot file of a file of a version, where there is one that can be used now.
    pub fn open_hot(&self, version: &ManifestId, file: &FileEntry) -> Option<HotFile> {
        match self.store.hot().find(&file.digest, file.bytes, version) {
            Found::Ready(hot) => Some(hot),
            Found::Absent => {
                self.note_opened(version, file);
                None
            }
            Found::Unsure => {
                self.hot_jobs.leave(|notes| {
                    if notes.unsure.len() < UNSURE_MAX {
                        notes.unsure.insert(file.digest);
                    }
                });
                None
            }
        }
    }

    /// Notes that bytes of a file were decoded for who has it open: those from `start` to `end` of all
    /// that were, wherever they lie.
    pub fn note_decoded(&self, file: &FileEntry, Range { start, end }: Range<u64>) {
        let most = file.bytes / READ_SHARE;
        if HOT_FILE_BYTES_MIN <= file.bytes
            && (start..end).contains(&most)
            && self.store.hot().is_on()
        {
            self.hot_jobs.leave(|notes| {
                if READ_MAX <= notes.read.len() {
                    notes.read.pop_first();
                }
                notes.read.insert(file.digest);
            });
        }
    }

    /// Leaves a note to make a hot copy of a file that was read before: the kernel keeps what it was
    /// given, but hands it out more slowly than pages of the disk's own file system.
    fn note_opened(&self, version: &ManifestId, file: &FileEntry) {
        if file.bytes < HOT_FILE_BYTES_MIN || !self.store.hot().is_on() {
            return;
        }
        let mut notes = self.hot_jobs.notes.lock();
        if notes.read.remove(&file.digest) && notes.again.len() < AGAIN_MAX {
            notes.again.push_back((*version, file.digest));
            drop(notes);
            self.hot_jobs.changed.notify_all();
        }
    }

    /// Makes a hot copy of a file of a version where there is room: nothing goes for it.
    fn keep_read(&self, version: ManifestId, digest: &BlobDigest) -> Result<(), OpsError> {
        let manifest = self.manifest(&version)?;
        let files = files_to_warm(&manifest, None);
        let Some((path, file)) = files.iter().find(|(_, file)| file.digest == *digest) else {
            return Ok(());
        };
        if !self.store.hot().has_room(file.bytes) {
            log::debug!("`{path}` is read again and stays cold: there is no room");
            return Ok(());
        }
        let claim = Claim { version, strong: false, aliased: self.aliased() };
        self.warm_file(&claim, &manifest, file, &mut |_| self.may_work())?;
        Ok(())
    }

    /// Reads from a hot file; `None` where it cannot be used any more.
    pub fn read_hot(&self, hot: &HotFile, offset: u64, out: &mut [u8]) -> Option<usize> {
        hot.read_at(&**self.store.io(), offset, out)
    }

    /// Whether work on hot files may go on.
    pub(super) fn may_work(&self) -> bool {
        !self.hot_jobs.is_closing()
    }

    /// How much is hot, and what is being made so. Names models whoever may read them.
    pub fn hot_status(&self) -> HotStatus {
        let totals = self.store.hot().totals();
        let notes = self.hot_jobs.notes.lock();
        HotStatus {
            files: totals.files,
            bytes: totals.bytes,
            bytes_max: totals.bytes_max,
            warming: notes.warming.clone(),
            waiting: notes.wishes.len() as u64,
        }
    }

    /// Leaves a note that the goals of these moves are to be warmed.
    pub(super) fn warm_later(&self, moves: &[Move]) {
        if !self.store.hot().is_on() {
            return;
        }
        for step in moves {
            let Some(version) = step.to else { continue };
            let at = At::Alias(step.alias.clone());
            let goal = self.state().model(&step.model).and_then(|model| model.goal(&at));
            let Some(manifest) = goal.filter(|it| it.0 == version).map(|it| it.1) else { continue };
            let wish = Wish { model: step.model.clone(), version, manifest };
            self.hot_jobs.leave(|notes| {
                notes.wishes.retain(|other| *other != wish);
                if notes.wishes.len() == WISHES_MAX {
                    notes.wishes.pop_front();
                }
                notes.wishes.push_back(wish);
            });
        }
    }

    /// Moves files of a draft that was sealed into `hot/`; `tree` is what was the draft, out of
    /// everybody's reach but for open descriptors on the inodes in `held`. What cannot be moved stays
    /// there: never an error, as the version is sealed.
    pub(super) fn keep_hot(
        &self,
        tree: &Path,
        version: ManifestId,
        files: &[Movable],
        held: &HashSet<(u64, u64)>,
    ) {
        if !self.store.hot().is_on() || files.is_empty() {
            return;
        }
        let claim = Claim { version, strong: false, aliased: self.aliased() };
        for file in files.iter().take(MOVED_FILES_MAX) {
            // Whoever has it open could open it again for writing, through its own descriptor.
            if held.contains(&(file.sealed.device, file.sealed.inode)) {
                log::debug!("`{}` is open: not moved to the hot files", file.path.display());
                continue;
            }
            let path = tree.join(&file.path);
            match self.store.hot().adopt(&path, &file.digest, &file.sealed, &claim) {
                Ok(Adopted::Moved) => {}
                Ok(Adopted::Left(why)) => {
                    log::debug!("`{}` is not moved to the hot files: {why}", file.path.display());
                }
                Err(error) => {
                    log::warn!("cannot move `{}` to the hot files: {error}", file.path.display());
                }
            }
        }
        let missing = self.space().map(|it| {
            let (free, whole) = (it.blocks_available * it.block_bytes, it.blocks * it.block_bytes);
            (whole / FREE_SHARE).saturating_sub(free)
        });
        self.store.hot().give_way(missing.unwrap_or(0));
        self.hot_jobs.leave(|notes| notes.settle = true);
    }

    /// Learns which hot files belong to versions with an alias, so that they go last.
    fn mark_aliased(&self) {
        let hot = self.store.hot();
        if !hot.is_on() || hot.totals().files == 0 {
            return;
        }
        for version in self.aliased().into_iter().take(MARKED_VERSIONS_MAX) {
            if !self.may_work() {
                return;
            }
            // Past the cache of manifests, which is for those that somebody reads.
            match self.store.load_manifest(&version) {
                Ok(manifest) => {
                    let files = files_to_warm(&manifest, None);
                    hot.mark(files.iter().map(|(_, file)| file.digest), &version);
                }
                Err(error) => log::warn!("cannot tell which files of it are hot: {error}"),
            }
        }
    }

    /// Lets hot files go where a source of `bytes` would not fit on the disk beside them.
    pub(super) fn give_way(&self, bytes: u64) {
        let free = self.space().map(|space| space.blocks_available * space.block_bytes);
        if let Ok(free) = free
            && free < bytes
        {
            self.store.hot().give_way(bytes - free);
        }
    }

    /// Sees to it that a file is hot. `goes_on` hears of bytes that are done and may stop it.
    pub(super) fn warm_file(
        &self,
        claim: &Claim,
        manifest: &Manifest,
        file: &FileEntry,
        goes_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Warmed, OpsError> {
        let hot = self.store.hot();
        match hot.find(&file.digest, file.bytes, &claim.version) {
            Found::Ready(_) => return Ok(Warmed::Present),
            Found::Unsure => match hot.check(&file.digest, goes_on) {
                Checked::Good => return Ok(Warmed::Present),
                Checked::Removed | Checked::Skipped => {}
            },
            Found::Absent => {}
        }
        if !goes_on(0) {
            return Ok(Warmed::Stopped);
        }
        let failed = |e| OpsError::file("write", self.store.layout().hot_file(&file.digest), e);
        let space = self.space().map_err(failed)?;
        let spare = space.blocks_available * space.block_bytes;
        if spare.saturating_sub(file.bytes) < space.blocks * space.block_bytes / FREE_SHARE {
            return Ok(Warmed::Refused(NO_SPARE_DISK));
        }
        let mut new = match hot.begin(file.digest, file.bytes, claim).map_err(failed)? {
            Begun::Present => return Ok(Warmed::Present),
            Begun::Refused(why) => return Ok(Warmed::Refused(why)),
            Begun::Write(new) => new,
        };
        // As a stream is read, so that all cores decode; what was written is compared as a whole.
        let (mut piece, mut done) = (vec![0; PIECE_BYTES], 0);
        loop {
            let count = self.read_file(manifest, file, done, &mut piece)?;
            if count == 0 {
                break;
            }
            new.write(&piece[..count]).map_err(failed)?;
            done += count as u64;
            if !goes_on(count as u64) {
                return Ok(Warmed::Stopped);
            }
        }
        new.finish().map_err(failed)?;
        Ok(Warmed::Made)
    }

    /// Versions that an alias points to.
    pub(super) fn aliased(&self) -> HashSet<ManifestId> {
        let state = self.state();
        let mut found = HashSet::new();
        for model in state.models() {
            found.extend(model.aliases.values().map(|alias| alias.manifest));
        }
        found
    }

    /// Warms a version for as long as an alias points to it.
    fn warm_wish(&self, wish: &Wish) -> Result<(), OpsError> {
        let manifest = self.manifest(&wish.manifest)?;
        let files = files_to_warm(&manifest, None);
        let total = files.iter().map(|(_, file)| file.bytes).sum();
        self.hot_jobs.leave(|notes| {
            notes.warming = Some(WarmStatus {
                model: wish.model.clone(),
                version: wish.version,
                files_done: 0,
                files_total: files.len() as u64,
                bytes_done: 0,
                bytes_total: total,
            });
        });
        for (path, file) in &files {
            let aliased = self.aliased();
            if !aliased.contains(&wish.manifest) {
                return Ok(());
            }
            let claim = Claim { version: wish.manifest, strong: true, aliased };
            let mut done = 0;
            let mut advance = |bytes: u64| {
                done += bytes;
                self.count_warmed(0, bytes);
                self.may_work()
            };
            let warmed = self.warm_file(&claim, &manifest, file, &mut advance)?;
            match warmed {
                Warmed::Stopped => return Ok(()),
                Warmed::Refused(why) => {
                    log::info!("`{}/{}/{path}` stays cold: {why}", wish.model, wish.version);
                }
                Warmed::Made | Warmed::Present => {}
            }
            self.count_warmed(1, file.bytes.saturating_sub(done));
        }
        Ok(())
    }

    fn count_warmed(&self, files: u64, bytes: u64) {
        if let Some(status) = &mut self.hot_jobs.notes.lock().warming {
            status.files_done += files;
            status.bytes_done = (status.bytes_done + bytes).min(status.bytes_total);
        }
    }
}

/// The files of a version that are worth a hot copy, each content once, with one of their paths;
/// only those at `below` or in it.
pub(super) fn files_to_warm<'a>(
    manifest: &'a Manifest,
    below: Option<&[u8]>,
) -> Vec<(String, &'a FileEntry)> {
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    manifest.walk(|path, _, entry| {
        let Node::File(file) = &entry.node else { return };
        let inside = below.is_none_or(|below| {
            path.strip_prefix(below).is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
        });
        if inside && HOT_FILE_BYTES_MIN <= file.bytes && seen.insert(file.digest) {
            found.push((String::from_utf8_lossy(path).into_owned(), file));
        }
    });
    found
}
