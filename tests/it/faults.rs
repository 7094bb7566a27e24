//! Every I/O call of init, snapshot, import, retarget and repair crashes once, and fails once in each way.
//!
//! `Faulty` counts the calls of the one I/O trait. A child of this test program does the work with
//! the n-th call going wrong, for n = 1, 2, 3, … until a run ends without meeting its fault; after
//! each, the store is opened with sound I/O and everything that the child was promised is looked
//! for. The child is this same program, told by the environment which part it plays.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use modelfs::format::ids::{BlobDigest, ContentDigest};
use modelfs::format::record::{Access, Door};
use modelfs::ops::{
    Caller, Context, HotLimit, IMPORTED_CONTENT, IMPORTED_FROM, NoProgress, OpenOptions, OpsError,
    PromoteOptions, Promotion, Report, Request, SnapshotOptions, Source, TakenSource,
    VerifyOptions, Workspace,
};
use modelfs::sys::io::{Io, Real};

use crate::harness;

const ROLE: &str = "MODELFS_TEST_FAULT_ROLE";
const PLACE: &str = "MODELFS_TEST_FAULT_PLACE";
const KIND: &str = "MODELFS_TEST_FAULT_KIND";
const CALL: &str = "MODELFS_TEST_FAULT_CALL";

/// The status of a child that ended on purpose in the middle of a call.
const CRASHED: i32 = 77;
/// What the draft holds when a snapshot begins.
/// One file is large enough to become a hot one.
const DRAFT: [(&str, &[u8]); 4] =
    [("a", b"one"), ("b", b""), ("sub/c", b"three"), ("weights", &[7; 128 << 10])];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    CrashBefore,
    CrashAfter,
    Errno(i32),
    Short,
}

impl Fault {
    const ALL: [(&'static str, Fault); 6] = [
        ("crash-before", Fault::CrashBefore),
        ("crash-after", Fault::CrashAfter),
        ("eio", Fault::Errno(libc::EIO)),
        ("enospc", Fault::Errno(libc::ENOSPC)),
        ("eintr", Fault::Errno(libc::EINTR)),
        ("short", Fault::Short),
    ];
}

/// Sound I/O but for one call.
struct Faulty {
    fault: Fault,
    call: u64,
    calls: AtomicU64,
}

impl Faulty {
    /// Runs `work` unless this is the call that goes wrong. The number of the call counts all kinds.
    fn around<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.calls.fetch_add(1, Ordering::SeqCst) + 1 != self.call {
            return work();
        }
        match self.fault {
            Fault::CrashBefore => std::process::exit(CRASHED),
            Fault::CrashAfter => {
                let _ = work();
                std::process::exit(CRASHED)
            }
            Fault::Errno(errno) => Err(io::Error::from_raw_os_error(errno)),
            Fault::Short => work(),
        }
    }

    fn is_short(&self) -> bool {
        self.fault == Fault::Short && self.calls.load(Ordering::SeqCst) + 1 == self.call
    }
}

impl Io for Faulty {
    fn create(&self, path: &Path) -> io::Result<File> {
        self.around(|| Real.create(path))
    }
    fn open(&self, path: &Path) -> io::Result<File> {
        self.around(|| Real.open(path))
    }
    fn read_at(&self, file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let most = if self.is_short() { out.len().div_ceil(2) } else { out.len() };
        self.around(|| Real.read_at(file, &mut out[..most], offset))
    }
    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<usize> {
        let most = if self.is_short() { bytes.len().div_ceil(2) } else { bytes.len() };
        self.around(|| Real.write(file, &bytes[..most]))
    }
    fn sync_file(&self, file: &File) -> io::Result<()> {
        self.around(|| Real.sync_file(file))
    }
    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.around(|| Real.sync_directory(path))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.around(|| Real.rename(from, to))
    }
    fn rename_if_absent(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.around(|| Real.rename_if_absent(from, to))
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.around(|| Real.remove_file(path))
    }
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.around(|| Real.create_directory(path))
    }
    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        self.around(|| Real.remove_tree(path))
    }
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.around(|| Real.list(path))
    }
    fn visit_names(&self, path: &Path, visit: &mut dyn FnMut(&OsStr)) -> io::Result<()> {
        self.around(|| Real.visit_names(path, visit))
    }
    fn file_bytes(&self, path: &Path) -> io::Result<u64> {
        self.around(|| Real.file_bytes(path))
    }
}

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn context() -> Context {
    let (user, groups) = ("tester".to_owned(), Vec::new());
    let caller = Caller { user, uid: 0, gid: 0, groups, door: Door::Cli };
    Context { caller, now: now(), assume: false }
}

fn open(store: &Path, io: Arc<dyn Io>, create: bool) -> Result<Workspace, OpsError> {
    let (directory, holder) = (store.to_owned(), "faults".to_owned());
    let (cache_bytes, hot_limit) = (1 << 20, HotLimit::OfDisk);
    let options =
        OpenOptions { directory, create, holder, cache_bytes, hot_limit, clock: now, signer: None };
    Workspace::open(options, io, now(), &context().caller)
}

fn snapshot(message: &str) -> SnapshotOptions {
    SnapshotOptions {
        model: "m".parse().unwrap(),
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

fn promote(workspace: &Workspace, reference: &str) -> Result<Report, OpsError> {
    let reference = reference.parse().unwrap();
    let alias = "prod".parse().unwrap();
    let promotions = vec![Promotion { reference, alias }];
    let options = PromoteOptions { promotions, message: String::new() };
    workspace.run(&context(), Request::Promote(options), &NoProgress)
}

fn fill_draft(store: &Path) {
    for (name, bytes) in DRAFT {
        let path = store.join("draft/m").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn draft_is(store: &Path, full: bool) -> bool {
    DRAFT.iter().all(|(name, bytes)| {
        let found = fs::read(store.join("draft/m").join(name));
        if full { found.is_ok_and(|found| found == *bytes) } else { found.is_err() }
    })
}

/// A store with model `m`, version 1, `prod` on it, and a full draft.
fn template(place: &Path) -> PathBuf {
    let store = place.join("template");
    let workspace = open(&store, Arc::new(Real), true).unwrap();
    let access = Access { uid: 0, gid: 0, mode: 0o755 };
    workspace.create_model(&context(), &"m".parse().unwrap(), access).unwrap();
    fs::write(store.join("draft/m/first"), "first").unwrap();
    workspace.snapshot(&context(), &snapshot("first"), &NoProgress).unwrap();
    promote(&workspace, "m/v1").unwrap();
    workspace.close();
    drop(workspace);
    fill_draft(&store);
    store
}

/// Two versions as a plan has them, of files beside the store.
fn imports(store: &Path) -> [SnapshotOptions; 2] {
    ["first", "second"].map(|name| {
        let bytes = harness::noise(name.len() as u64, 200_000);
        let path = store.with_file_name(name);
        if !path.exists() {
            fs::write(&path, &bytes).unwrap();
        }
        let content = ContentDigest::of_files([(name.into(), BlobDigest::of(&bytes))]);
        let label = |key: &str, value: String| (key.to_owned(), value.into());
        let labels = [
            label(IMPORTED_FROM, path.display().to_string()),
            label(IMPORTED_CONTENT, content.to_string()),
        ];
        let taken =
            TakenSource { root: "/".into(), path, files: Vec::new(), content: Some(content) };
        SnapshotOptions {
            model: "taken".parse().unwrap(),
            source: Source::Taken(Box::new(taken)),
            labels: labels.into(),
            ..snapshot(name)
        }
    })
}

/// Going on takes over what is missing, and nothing twice.
fn check_imports(workspace: &Workspace, store: &Path, acked: &dyn Fn(&str) -> bool, what: &str) {
    for (number, options) in (1..).zip(imports(store)) {
        let name = options.message.clone();
        match workspace.run(&context(), Request::Import(options), &NoProgress) {
            Ok(Report::Import(report)) => {
                assert_eq!(report.version.get(), number, "{what}");
                assert!(report.existing || !acked(&name), "{what}: `{name}` was promised");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
    let state = workspace.state();
    let model = state.model(&"taken".parse().unwrap()).unwrap();
    assert_eq!(model.version_count(), 2, "{what}");
}

/// What the child does; it prints a line for each promise that it was given.
fn work(role: &str, store: &Path, io: Arc<Faulty>) -> Result<(), OpsError> {
    let workspace = open(store, io, role == "init")?;
    println!("ack open");
    match role {
        "init" => {}
        "snapshot" => {
            workspace.snapshot(&context(), &snapshot("second"), &NoProgress)?;
            println!("ack v2");
        }
        "import" => {
            for options in imports(store) {
                let name = options.message.clone();
                workspace.run(&context(), Request::Import(options), &NoProgress)?;
                println!("ack {name}");
            }
        }
        "retarget" => {
            let wish = "m/v1".to_owned();
            promote(&workspace, &wish)?;
            let model = "m".parse().unwrap();
            let alias = "prod".parse().unwrap();
            workspace.run(&context(), Request::AliasRemove { model, alias }, &NoProgress)?;
            println!("ack removed");
            promote(&workspace, &wish)?;
            println!("ack prod");
        }
        "repair" => {
            workspace.run(&context(), Request::Repair, &NoProgress)?;
            println!("ack repaired");
        }
        other => panic!("no role `{other}`"),
    }
    workspace.close();
    Ok(())
}

/// Not a test of its own: the part that the child plays. Without a role there is nothing to do.
#[test]
fn child_of_the_fault_tests() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let setting = |name: &str| std::env::var(name).unwrap();
    let kind = setting(KIND);
    let fault = Fault::ALL.iter().find(|(name, _)| *name == kind).unwrap().1;
    let call = setting(CALL).parse().unwrap();
    let io = Arc::new(Faulty { fault, call, calls: AtomicU64::new(0) });
    let done = work(&role, Path::new(&setting(PLACE)), io.clone());
    let met = call <= io.calls.load(Ordering::SeqCst);
    println!("{}", if met { "met" } else { "unmet" });
    if let Err(error) = done {
        println!("error {error}");
    }
    io::stdout().flush().unwrap();
    std::process::exit(0);
}

/// All that is known of the models.
fn models(workspace: &Workspace) -> String {
    let state = workspace.state();
    let model = |model: &modelfs::registry::model::Model| {
        format!("{:?} {:?} {:?}", model.name, model.aliases, model.body().unwrap())
    };
    format!("{:?} {:?}", state.head(), state.models().map(model).collect::<Vec<_>>())
}

/// Whatever the child left of a checkpoint is harmless.
fn check_checkpoint(store: &Path, what: &str) {
    let by_checkpoint = open(store, Arc::new(Real), false).map(|it| models(&it));
    drop(fs::remove_file(store.join("catalog/checkpoint")));
    let by_history = open(store, Arc::new(Real), false).map(|it| models(&it));
    assert_eq!(by_checkpoint.unwrap(), by_history.unwrap(), "{what}");
}

/// What is to be true of a store after the child, given what it printed.
fn check(role: &str, store: &Path, said: &str, what: &str) {
    let acked = |line: &str| said.lines().any(|found| found == format!("ack {line}"));
    let workspace = open(store, Arc::new(Real), role == "init")
        .unwrap_or_else(|error| panic!("{what}: does not open: {error:?}"));
    let request = Request::Verify(VerifyOptions { read_data: true });
    match workspace.run(&context(), request, &NoProgress) {
        Ok(Report::Verify(report)) => {
            assert!(report.damage.is_empty(), "{what}: {:?}", report.damage);
            assert!(report.hot_removed.is_empty(), "{what}: {:?}", report.hot_removed);
        }
        other => panic!("{what}: {other:?}"),
    }
    if role == "init" {
        return;
    }
    let name = "m".parse().unwrap();
    // Touching the draft makes it whole, as the mount would.
    workspace.draft(&name).unwrap();
    let state = workspace.state();
    let model = state.model(&name).unwrap_or_else(|| panic!("{what}: the model is gone"));
    assert!(model.resolve(&"v1".parse().unwrap()).unwrap().is_some(), "{what}: v1 is gone");
    let prod = model.aliases.get(&"prod".parse().unwrap()).map(|alias| alias.version.get());
    let sealed = model.version_count() == 2;
    // It is locked while it is looked at.
    drop(state);
    match role {
        "snapshot" => {
            assert!(sealed || !acked("v2"), "{what}: v2 was promised");
            let whole = if sealed { draft_is(store, false) } else { draft_is(store, true) };
            assert!(whole, "{what}: the draft is neither whole nor gone, sealed: {sealed}");
            assert_eq!(prod, Some(1), "{what}");
        }
        "retarget" => {
            let allowed: &[Option<u64>] = match (acked("removed"), acked("prod")) {
                (_, true) => &[Some(1)],
                (true, false) => &[None, Some(1)],
                (false, false) => &[Some(1), None],
            };
            assert!(allowed.contains(&prod), "{what}: prod is {prod:?}");
        }
        "import" => check_imports(&workspace, store, &acked, what),
        _ => assert_eq!(prod, Some(1), "{what}"),
    }
}

fn run_all(role: &str) {
    let scratch = if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" };
    let place = tempfile::tempdir_in(scratch).unwrap();
    let template = (role != "init").then(|| template(place.path()));
    let stride = harness::setting("MODELFS_TEST_FAULT_STRIDE", 1).max(1);
    let mut met = 0;
    for (kind, fault) in Fault::ALL {
        // Steps of another length each time, so that a sample covers different calls for each kind.
        let mut call = 1;
        loop {
            let what = format!("{role}, call {call}, {kind}");
            let store = place.path().join("store");
            if let Some(template) = &template {
                harness::copy_tree(template, &store);
            }
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["faults::child_of_the_fault_tests", "--exact", "--nocapture"])
                .env(ROLE, role)
                .env(PLACE, &store)
                .env(KIND, kind)
                .env(CALL, call.to_string())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&child.stdout).into_owned();
            let noise = String::from_utf8_lossy(&child.stderr).into_owned();
            assert!(!noise.contains("panicked"), "{what}: {noise}");
            check(role, &store, &said, &what);
            check_checkpoint(&store, &what);
            fs::remove_dir_all(&store).unwrap();
            if said.lines().any(|line| line == "unmet") {
                break;
            }
            // The sealed draft is removed in the background: the child may end before that crashes.
            let ended = child.status.code();
            let crashed = matches!(fault, Fault::CrashBefore | Fault::CrashAfter);
            let finished = said.lines().any(|line| line == "met");
            let as_planned = if crashed { ended == Some(CRASHED) || finished } else { true };
            assert!(as_planned, "{what}: {ended:?}\n{said}\n{noise}");
            assert!(crashed || ended != Some(CRASHED), "{what}: {ended:?}");
            met += 1;
            call += stride;
        }
    }
    println!("{role}: {met} faults met");
    assert!(30 / stride < met, "{role}: only {met} faults met");
}

#[test]
fn init_survives_a_fault_at_every_call() {
    run_all("init");
}

#[test]
fn a_snapshot_survives_a_fault_at_every_call() {
    run_all("snapshot");
}

#[test]
fn an_import_goes_on_after_a_fault_at_every_call() {
    run_all("import");
}

#[test]
fn a_retarget_survives_a_fault_at_every_call() {
    run_all("retarget");
}

#[test]
fn a_repair_survives_a_fault_at_every_call() {
    run_all("repair");
}
