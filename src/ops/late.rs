//! Files that were read, and whose hash is still to come: each is kept, and nobody may write to it, until
//! its last byte was hashed (S2).
//!
//! Dropped before that, their threads end with the step that they are at.

use std::thread;

use super::OpsError;
use super::digests::{BATCHES_WAITING_MAX, Hashed, Rest};
use super::quiet::QuietFile;
use crate::format::hot::Stamp;

/// Most files that are late at a time.
const FILES_MAX: usize = 4;
/// A smaller file is waited for: it is not worth a thread.
const FILE_BYTES_MIN: u64 = 16 << 20;
/// A file is waited for unless this part of its bytes comes after it: reading it again makes its hash a tenth slower,
/// and nothing would be gained meanwhile.
const FOLLOWING_PART: u64 = 4;

/// Which files may be late.
#[derive(Clone, Copy)]
pub(super) struct LateLimits {
    /// So many at a time.
    pub files_max: usize,
    pub file_bytes_min: u64,
    /// Batches that wait to be hashed where whoever reads is held up.
    pub batches_waiting: usize,
}

impl LateLimits {
    /// None on up to three cores, which all else keeps busy as long as one thread hashes; for every two more
    /// one that can hash beside it.
    fn of_cores(count: usize) -> Self {
        Self {
            files_max: (count / 2).saturating_sub(1).min(FILES_MAX),
            file_bytes_min: FILE_BYTES_MIN,
            batches_waiting: BATCHES_WAITING_MAX,
        }
    }
}

impl Default for LateLimits {
    fn default() -> Self {
        Self::of_cores(thread::available_parallelism().map_or(1, usize::from))
    }
}

/// The files that are late now.
pub(super) struct LateFiles<'scope> {
    limits: LateLimits,
    waiting: Vec<LateFile<'scope>>,
    settled: Vec<Settled>,
}

struct LateFile<'scope> {
    index: usize,
    file: QuietFile,
    rest: Rest<'scope>,
}

/// What a late file was in the end.
pub(super) struct Settled {
    /// Its place among all files.
    pub index: usize,
    pub sha256: [u8; 32],
    /// As [`QuietFile::release`] gave it.
    pub sealed: Option<Box<Stamp>>,
}

impl<'scope> LateFiles<'scope> {
    pub fn new(limits: LateLimits) -> Self {
        Self { limits, waiting: Vec::new(), settled: Vec::new() }
    }

    /// Whether a file may be late that so many bytes come after. What is read twice must be the same twice,
    /// so the kernel has to say so.
    pub fn may_take(&self, file: &QuietFile, following_bytes: u64) -> bool {
        let bytes = file.source.bytes;
        self.waiting.len() < self.limits.files_max
            && self.limits.file_bytes_min <= bytes
            && bytes / FOLLOWING_PART <= following_bytes
            && file.is_leased()
    }

    /// Takes a file that was read to its end.
    pub fn push(&mut self, index: usize, file: QuietFile, rest: Rest<'scope>) {
        self.waiting.push(LateFile { index, file, rest });
    }

    /// Settles those whose hash is known by now.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub fn settle_done(&mut self) -> Result<(), OpsError> {
        for late in self.waiting.extract_if(.., |late| late.rest.is_done()) {
            self.settled.push(late.settle()?);
        }
        Ok(())
    }

    /// Settles all.
    ///
    /// # Errors
    /// As reading them, and as [`QuietFile::release`].
    pub fn finish(mut self) -> Result<Vec<Settled>, OpsError> {
        for late in self.waiting {
            self.settled.push(late.settle()?);
        }
        Ok(self.settled)
    }
}

impl LateFile<'_> {
    fn settle(self) -> Result<Settled, OpsError> {
        let Self { index, file, rest } = self;
        let Hashed { sha256, bytes } = rest.finish().map_err(|e| file.failed(e))?;
        if bytes != file.source.bytes {
            return Err(file.changed());
        }
        Ok(Settled { index, sha256, sealed: file.release()? })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use jiff::Timestamp;
    use serde_json::Value;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::format::ids::to_hex;
    use crate::format::manifest::{EntryIndex, METADATA_NAME, Node};
    use crate::format::names::{At, ModelName, Reference};
    use crate::format::record::Door;
    use crate::ops::digests::FileHasher;
    use crate::ops::source::SourceFile;
    use crate::ops::{
        Caller, Context, HotLimit, NoProgress, OpenOptions, Progress, SnapshotOptions,
        SnapshotReport, Source, Workspace,
    };
    use crate::sys::identity;
    use crate::sys::io::Real;

    /// Two files that are cut into pieces; the first is read first.
    const TWO: [(&str, usize); 2] = [("a", 2 << 20), ("b", 2 << 20)];

    /// All that may be late is.
    fn always(files_max: usize) -> LateLimits {
        LateLimits { files_max, file_bytes_min: 1, batches_waiting: 0 }
    }

    fn model() -> ModelName {
        "m".parse().unwrap()
    }

    fn owner() -> Context {
        let uid = identity::own_uid();
        let (user, groups) = (uid.to_string(), Vec::new());
        let caller = Caller { user, uid, gid: uid, groups, door: Door::Cli };
        Context { caller, now: Timestamp::UNIX_EPOCH, assume: false }
    }

    struct Scratch {
        directory: tempfile::TempDir,
        workspace: Workspace,
    }

    impl Scratch {
        fn new(limits: LateLimits) -> Self {
            let directory = tempfile::tempdir().unwrap();
            fs::create_dir(directory.path().join("source")).unwrap();
            let options = OpenOptions {
                directory: directory.path().join("store"),
                create: true,
                holder: "late".to_owned(),
                cache_bytes: 1 << 20,
                hot_limit: HotLimit::Untouched,
                clock: || Timestamp::UNIX_EPOCH,
                signer: None,
            };
            let (now, caller) = (Timestamp::UNIX_EPOCH, owner().caller);
            let mut workspace = Workspace::open(options, Arc::new(Real), now, &caller).unwrap();
            workspace.late_limits = limits;
            Self { directory, workspace }
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.directory.path().join("source").join(name)
        }

        /// Writes files of noise.
        fn write(&self, seed: u8, files: &[(&str, usize)]) {
            for (name, len) in files {
                let mut noise = vec![0; *len];
                blake3::Hasher::new_keyed(&[seed; 32])
                    .update(name.as_bytes())
                    .finalize_xof()
                    .fill(&mut noise);
                fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
                fs::write(self.path(name), noise).unwrap();
            }
        }

        fn seal(&self, progress: &dyn Progress) -> Result<SnapshotReport, OpsError> {
            let options = SnapshotOptions {
                model: model(),
                source: Source::Path(self.path("")),
                message: String::new(),
                metrics: Default::default(),
                params: Default::default(),
                labels: Default::default(),
                datasets: Vec::new(),
                provenance: Default::default(),
                captured: Default::default(),
                alias: None,
            };
            self.workspace.snapshot(&owner(), &options, progress)
        }

        /// Seals, and sees to it that `metadata.json` has the digest of every file.
        fn seal_and_check(&self, count: usize) {
            let report = self.seal(&NoProgress).unwrap();
            let reference = Reference { model: model(), at: At::Version(report.version) };
            let id = self.workspace.resolve(&owner(), &reference).unwrap().manifest;
            let manifest = self.workspace.manifest(&id).unwrap();
            let index = manifest.find(EntryIndex::ROOT, METADATA_NAME).unwrap();
            let Node::File(file) = &manifest.entry(index).node else { panic!("a file") };
            let mut text = vec![0; file.bytes as usize];
            self.workspace.read_file(&manifest, file, 0, &mut text).unwrap();
            let metadata: Value = serde_json::from_slice(&text).unwrap();
            let listed = metadata["artifacts"].as_array().unwrap();
            assert_eq!(listed.len(), count);
            for line in listed {
                let path = line["path"].as_str().unwrap();
                let bytes = fs::read(self.path(path)).unwrap();
                assert_eq!(line["sha256"], to_hex(&Sha256::digest(&bytes)), "{path}");
                assert_eq!(line["blake3"], blake3::hash(&bytes).to_hex().as_str(), "{path}");
            }
        }

        /// Whether somebody holds a program up that wants to write to a file, and so is told of it.
        fn is_held(&self, name: &str) -> bool {
            let options = File::options().write(true).custom_flags(libc::O_NONBLOCK).clone();
            let opened = options.open(self.path(name));
            opened.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        }
    }

    /// Does something once so many bytes were read.
    struct Once<F> {
        left: AtomicU64,
        act: F,
    }

    impl<F: Fn() + Sync> Progress for Once<F> {
        fn begin(&self, _: &str, _: u64) {}
        fn advance(&self, bytes: u64) {
            let before = self.left.load(Ordering::Relaxed);
            self.left.store(before.saturating_sub(bytes), Ordering::Relaxed);
            if 0 < before && before <= bytes {
                (self.act)();
            }
        }
    }

    fn changed(result: Result<SnapshotReport, OpsError>) -> std::path::PathBuf {
        match result {
            Err(OpsError::Changed { path }) => path,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_version_has_the_digests_of_its_files_however_many_were_late() {
        let files = [
            ("a", 3 << 20),
            ("b", 0),
            ("c", 300_000),
            ("d", 1),
            ("e", (1 << 20) + 7),
            ("f", 256 << 10),
            ("g/a", 700_001),
            ("g/b", 12),
            ("h", 2 << 20),
            ("i", 90_000),
            ("j", 4 << 20),
        ];
        for limits in [always(0), always(1), always(3), LateLimits::of_cores(64)] {
            let scratch = Scratch::new(limits);
            scratch.write(1, &files);
            scratch.seal_and_check(files.len());
            // Some are as they were, and not hashed again.
            scratch.write(2, &[files[2], files[4], files[8], files[9]]);
            scratch.seal_and_check(files.len());
        }
    }

    #[test]
    fn a_late_file_that_somebody_wants_to_write_to_is_refused() {
        let scratch = Scratch::new(always(1));
        scratch.write(1, &TWO);
        for is_disturbed in [false, true] {
            let settled = thread::scope(|scope| {
                let opened = File::open(scratch.path("a")).unwrap();
                let (path, bytes) = (Path::new("a").to_owned(), 2 << 20);
                let source = SourceFile { index: EntryIndex::ROOT, path, bytes };
                let file = QuietFile::hold(source, opened, &model(), false)?;
                let mut late = LateFiles::new(always(1));
                assert!(late.may_take(&file, bytes));
                let mut hasher = FileHasher::start(scope, 0);
                hasher.may_leave(&file.opened);
                let whole = fs::read(scratch.path("a")).unwrap();
                hasher.update(&Arc::new(whole[..300_000].to_vec()));
                late.push(0, file, hasher.end_file().expect("it is left at once"));
                assert_eq!(is_disturbed, is_disturbed && scratch.is_held("a"));
                late.finish()
            });
            match settled {
                Ok(settled) if !is_disturbed => assert_eq!(settled.len(), 1),
                Err(OpsError::Changed { path }) if is_disturbed => assert_eq!(path, Path::new("a")),
                Ok(_) => panic!("it was sealed"),
                Err(other) => panic!("{other}"),
            }
            assert!(!scratch.is_held("a"), "the lease is given back");
        }
    }

    #[test]
    fn a_snapshot_that_ends_early_leaves_nothing_behind() {
        let scratch = Scratch::new(always(2));
        scratch.write(1, &TWO);
        let sealed_while = |bytes: u64, written: &'static str| {
            let act = || assert!(scratch.is_held(written), "`{written}` is being read");
            scratch.seal(&Once { left: AtomicU64::new(bytes), act })
        };
        // Left at its first batch, and written to at its last byte; and so the other, while this one is late.
        let first = changed(sealed_while(2 << 20, "a"));
        assert!(first.ends_with("a"), "{first:?}");
        let second = changed(sealed_while(4 << 20, "b"));
        assert!(second.ends_with("b"), "{second:?}");
        for (name, _) in TWO {
            assert!(!scratch.is_held(name), "the lease of `{name}` is given back");
        }
        scratch.seal_and_check(2);
    }

    #[test]
    fn a_file_is_late_only_where_something_is_gained() {
        let scratch = Scratch::new(always(0));
        scratch.write(1, &[("a", 1000)]);
        let hold = || {
            let opened = File::open(scratch.path("a")).unwrap();
            let source = SourceFile {
                index: EntryIndex::ROOT,
                path: Path::new("a").to_owned(),
                bytes: 1000,
            };
            QuietFile::hold(source, opened, &model(), false).unwrap()
        };
        let check = |limits, following_bytes, expected| {
            let may = LateFiles::new(limits).may_take(&hold(), following_bytes);
            assert_eq!(may, expected, "{following_bytes} bytes after it");
        };
        check(always(1), 250, true);
        check(always(1), 249, false);
        check(always(0), 1000, false);
        check(LateLimits { file_bytes_min: 1001, ..always(1) }, 1000, false);
        let by_cores = [1, 2, 3, 4, 6, 8, 16, 128].map(|it| LateLimits::of_cores(it).files_max);
        assert_eq!(by_cores, [0, 0, 0, 1, 2, 3, 4, 4]);
    }
}
