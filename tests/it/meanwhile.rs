//! What happens between two steps of a verb: to the disk, to the rights of who asked, to the store.
//!
//! A verb is given I/O or progress that does something else at one moment of its work. No daemon
//! and no mount: all doors call these verbs.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use modelfs::format::names::ModelName;
use modelfs::format::record::{Access, Door};
use modelfs::ops::{
    Caller, Context, HotLimit, NoProgress, OpenOptions, OpsError, Progress, Report, Request,
    SnapshotOptions, SnapshotReport, Source, VerifyOptions, Workspace,
};
use modelfs::sys::identity;
use modelfs::sys::io::{Io, Real};

use crate::harness;

/// The calls at which a test does something.
type Hook = dyn Fn(&'static str, &Path) -> io::Result<()> + Send + Sync;

/// Sound I/O that tells a test of each call after it was made; the test may let it fail.
struct Told {
    hook: Box<Hook>,
}

impl Told {
    fn io(
        hook: impl Fn(&'static str, &Path) -> io::Result<()> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { hook: Box::new(hook) })
    }
}

impl Io for Told {
    fn create(&self, path: &Path) -> io::Result<File> {
        Real.create(path)
    }
    fn open(&self, path: &Path) -> io::Result<File> {
        Real.open(path)
    }
    fn read_at(&self, file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
        Real.read_at(file, out, offset)
    }
    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<usize> {
        Real.write(file, bytes)
    }
    fn sync_file(&self, file: &File) -> io::Result<()> {
        Real.sync_file(file)
    }
    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        Real.sync_directory(path)?;
        (self.hook)("sync directory", path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Real.rename(from, to)
    }
    fn rename_if_absent(&self, from: &Path, to: &Path) -> io::Result<()> {
        Real.rename_if_absent(from, to)?;
        (self.hook)("rename if absent", to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        Real.remove_file(path)
    }
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        Real.create_directory(path)?;
        (self.hook)("create directory", path)
    }
    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        Real.remove_tree(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        Real.list(path)
    }
    fn visit_names(&self, path: &Path, visit: &mut dyn FnMut(&OsStr)) -> io::Result<()> {
        Real.visit_names(path, visit)
    }
    fn file_bytes(&self, path: &Path) -> io::Result<u64> {
        Real.file_bytes(path)
    }
}

/// Does something when work begins, or once part of it is done.
struct During<B: Fn(), A: Fn()> {
    begin: B,
    advance: A,
}

impl<B: Fn() + Sync, A: Fn() + Sync> Progress for During<B, A> {
    fn begin(&self, _: &str, _: u64) {
        (self.begin)();
    }
    fn advance(&self, _: u64) {
        (self.advance)();
    }
}

fn as_user(uid: u32) -> Context {
    let (user, groups) = (uid.to_string(), Vec::new());
    let caller = Caller { user, uid, gid: uid, groups, door: Door::Cli };
    Context { caller, now: Timestamp::UNIX_EPOCH, assume: false }
}

fn owner() -> Context {
    as_user(identity::own_uid())
}

fn open(store: &Path, io: Arc<dyn Io>) -> Workspace {
    let options = OpenOptions {
        directory: store.to_owned(),
        create: true,
        holder: "meanwhile".to_owned(),
        cache_bytes: 1 << 20,
        hot_limit: HotLimit::Untouched,
        clock: || Timestamp::UNIX_EPOCH,
        signer: None,
    };
    Workspace::open(options, io, Timestamp::UNIX_EPOCH, &owner().caller).expect("a sound store")
}

fn model() -> ModelName {
    "m".parse().expect("a name")
}

/// Makes the model `m`, whose draft is `draft/m` in the store.
fn create_model(workspace: &Workspace) {
    let Caller { uid, gid, .. } = owner().caller;
    let access = Access { uid, gid, mode: 0o755 };
    workspace.create_model(&owner(), &model(), access).expect("a new model");
}

fn draft_options(message: &str) -> SnapshotOptions {
    SnapshotOptions {
        model: model(),
        source: Source::Draft { sub: None },
        message: message.to_owned(),
        metrics: Default::default(),
        params: Default::default(),
        labels: Default::default(),
        datasets: Vec::new(),
        provenance: Default::default(),
        captured: Default::default(),
        alias: None,
    }
}

fn seal(workspace: &Workspace, message: &str) -> Result<SnapshotReport, OpsError> {
    workspace.snapshot(&owner(), &draft_options(message), &NoProgress)
}

#[test]
fn what_is_written_into_a_draft_that_could_not_be_emptied_is_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = directory.path().join("store");
    let (temporary, aside) = (store.join("tmp"), store.join("tmp.aside"));
    let armed = Arc::new(AtomicBool::new(false));
    let io = {
        let (armed, temporary, aside) = (armed.clone(), temporary.clone(), aside.clone());
        Told::io(move |call, path| {
            // As soon as the version is recorded, there is no place to move the draft to.
            if call == "rename if absent"
                && path.parent().is_some_and(|at| at.ends_with("history"))
                && armed.swap(false, Ordering::SeqCst)
            {
                fs::rename(&temporary, &aside)?;
                fs::write(&temporary, "in the way")?;
            }
            Ok(())
        })
    };
    let workspace = open(&store, io);
    create_model(&workspace);
    fs::write(store.join("draft/m/sealed"), "one").expect("room");
    armed.store(true, Ordering::SeqCst);
    let report = seal(&workspace, "one").expect("the record is there");
    assert!(!armed.load(Ordering::SeqCst), "the disk refused at that moment");
    assert!(report.notes.iter().any(|note| note.contains("draft")), "{report:?}");
    fs::remove_file(&temporary).expect("ours");
    fs::rename(&aside, &temporary).expect("ours");
    fs::write(store.join("draft/m/later"), "not sealed by anybody").expect("room");
    drop(workspace);
    drop(open(&store, Arc::new(Real)));
    let later = fs::read_to_string(store.join("draft/m/later")).expect("it was never sealed");
    assert_eq!(later, "not sealed by anybody");
}

#[test]
fn names_that_a_killed_process_gave_are_durable_before_they_are_relied_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = directory.path().join("store");
    let workspace = open(&store, Arc::new(Real));
    create_model(&workspace);
    fs::write(store.join("draft/m/file"), "one").expect("room");
    seal(&workspace, "one").expect("sound");
    drop(workspace);
    // As after a kill between the pack's rename and the catalog: the catalog does not know it.
    fs::remove_dir_all(store.join("catalog")).expect("it may be deleted at any time");
    let synced = Arc::new(Mutex::new(BTreeSet::new()));
    let told = synced.clone();
    let io = Told::io(move |call, path| {
        if call == "sync directory" {
            told.lock().expect("no test panics with it").insert(path.to_owned());
        }
        Ok(())
    });
    drop(open(&store, io));
    let synced = synced.lock().expect("no test panics with it");
    let packs = fs::read_dir(store.join("packs")).expect("there").map(|e| e.expect("one").path());
    let fixed = ["history", "packs", "manifests", "draft"].map(|name| store.join(name));
    for path in packs.chain(fixed) {
        assert!(synced.contains(&path), "{} was not synced: {synced:?}", path.display());
    }
}

#[test]
fn a_version_that_is_sealed_while_the_store_is_verified_is_no_damage() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = directory.path().join("store");
    let workspace = open(&store, Arc::new(Real));
    create_model(&workspace);
    fs::write(store.join("draft/m/file"), "one").expect("room");
    seal(&workspace, "one").expect("sound");
    let fresh = AtomicBool::new(true);
    let during = During {
        begin: || (),
        // The packs have been listed.
        advance: || {
            if fresh.swap(false, Ordering::SeqCst) {
                fs::write(store.join("draft/m/file"), "two").expect("room");
                seal(&workspace, "two").expect("sound");
            }
        },
    };
    let request = Request::Verify(VerifyOptions { read_data: true });
    match workspace.run(&owner(), request, &during) {
        Ok(Report::Verify(report)) => assert!(report.damage.is_empty(), "{:?}", report.damage),
        other => panic!("{other:?}"),
    }
    assert!(!fresh.load(Ordering::SeqCst), "a version was sealed meanwhile");
}

#[test]
fn the_status_names_no_closed_model_that_is_sealed() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = directory.path().join("store");
    let workspace = open(&store, Arc::new(Real));
    create_model(&workspace);
    let Caller { uid, gid, .. } = owner().caller;
    let access = Access { uid, gid, mode: 0o700 };
    workspace.set_access(&owner(), Some(&model()), access).expect("its owner may");
    fs::write(store.join("draft/m/file"), "one").expect("room");
    let seen_by = |uid: u32| workspace.status(&as_user(uid)).expect("sound").sealing.len();
    let during =
        During { begin: || assert_eq!((seen_by(0), seen_by(4001)), (1, 0)), advance: || () };
    workspace.snapshot(&owner(), &draft_options("one"), &during).expect("sound");
}

#[test]
fn who_may_not_write_any_more_when_all_is_read_seals_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = directory.path().join("store");
    let workspace = open(&store, Arc::new(Real));
    create_model(&workspace);
    let (owned, closed) = (Access { uid: 4001, gid: 4001, mode: 0o755 }, owner().caller);
    let closed = Access { uid: closed.uid, gid: closed.gid, mode: 0o700 };
    let set = |access| workspace.set_access(&as_user(0), Some(&model()), access);
    set(owned).expect("root may");
    fs::write(store.join("draft/m/file"), "one").expect("room");
    let during = During { begin: || drop(set(closed)), advance: || () };
    let refused = workspace.snapshot(&as_user(4001), &draft_options("one"), &during);
    assert!(matches!(refused, Err(OpsError::Denied { .. })), "{refused:?}");
    assert!(store.join("draft/m/file").exists(), "the draft is as it was");
    seal(&workspace, "one").expect("the owner may");
}

#[test]
fn a_model_that_is_closed_while_it_is_sealed_has_a_closed_draft() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = directory.path().join("store");
    let workspace = open(&store, Arc::new(Real));
    create_model(&workspace);
    fs::write(store.join("draft/m/file"), "one").expect("room");
    let Caller { uid, gid, .. } = owner().caller;
    let close = || {
        let access = Access { uid, gid, mode: 0o700 };
        workspace.set_access(&owner(), Some(&model()), access).expect("at any time");
    };
    let during = During { begin: close, advance: || () };
    workspace.snapshot(&owner(), &draft_options("one"), &during).expect("sound");
    let mode = fs::metadata(store.join("draft/m")).expect("an empty draft").permissions().mode();
    assert_eq!(mode & 0o7777, 0o700, "{mode:o}");
}

#[test]
fn a_draft_has_its_mode_before_it_has_its_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = directory.path().join("store");
    let armed = Arc::new(AtomicBool::new(false));
    let told = armed.clone();
    let workspace = open(
        &store,
        Told::io(move |call, _| match call {
            // All that comes after the directory was made does not happen.
            "create directory" if told.load(Ordering::SeqCst) => {
                Err(io::Error::from_raw_os_error(libc::EIO))
            }
            _ => Ok(()),
        }),
    );
    armed.store(true, Ordering::SeqCst);
    let Caller { uid, gid, .. } = owner().caller;
    let access = Access { uid, gid, mode: 0o775 };
    workspace.create_model(&owner(), &model(), access).expect_err("the disk refused");
    drop(workspace);
    let workspace = open(&store, Arc::new(Real));
    workspace.draft(&model()).expect("a draft");
    let mode = fs::metadata(store.join("draft/m")).expect("the draft").permissions().mode();
    assert_eq!(mode & 0o7777, 0o775, "{mode:o}");
}

#[test]
fn a_pack_that_cannot_be_closed_ends_its_snapshot_and_no_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = directory.path().join("store");
    // How many more directories of packs can be made: each pack here is the first of its own.
    let left = Arc::new(AtomicUsize::new(usize::MAX));
    let told = left.clone();
    let io = Told::io(move |call, path| {
        let of_a_pack = path.parent().is_some_and(|at| at.ends_with("packs"));
        if call != "create directory" || !of_a_pack || told.fetch_sub(1, Ordering::SeqCst) != 0 {
            return Ok(());
        }
        fs::remove_dir(path)?;
        Err(io::Error::from_raw_os_error(libc::EIO))
    });
    let workspace = open(&store, io);
    create_model(&workspace);
    // Two packs and a part of one, no two MiB alike.
    let some = harness::noise(1, 1 << 20);
    let large: Vec<u8> = (0..140).flat_map(|turn| some.iter().map(move |it| it ^ turn)).collect();
    let path = store.join("draft/m/large");
    fs::write(&path, &large).expect("room");
    // The first that is closed is known to the next try.
    for closed in [0, 1, 1] {
        left.store(closed, Ordering::SeqCst);
        let failed = seal(&workspace, "large").expect_err("a pack has no place");
        assert!(failed.to_string().contains("create"), "{failed}");
        assert!(fs::read(&path).expect("a full draft") == large, "the draft is as it was");
        let temporary = fs::read_dir(store.join("tmp")).expect("there").count();
        assert_eq!(temporary, 0, "no part of a pack is left");
    }
    left.store(usize::MAX, Ordering::SeqCst);
    seal(&workspace, "large").expect("sound");
    match workspace.run(&owner(), Request::Verify(VerifyOptions { read_data: true }), &NoProgress) {
        Ok(Report::Verify(report)) => assert!(report.damage.is_empty(), "{:?}", report.damage),
        other => panic!("{other:?}"),
    }
}
