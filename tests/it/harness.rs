//! A mounted store of its own for each test, and the ways to speak to it.
//!
//! What cannot be tested here is never skipped: without FUSE, root or a needed program a test
//! fails and says how to get it. A [`Mount`] cleans up when dropped, also after a panic: the mount
//! point is detached before the directory around it is deleted.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::syscalls::{self, User};

/// The binary under test.
pub const MODELFS: &str = env!("CARGO_BIN_EXE_modelfs");

/// How long anything may take before a test says that it hangs. Not a measure of speed.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The real models that tests seal: `v1`, `v2`, `v3`.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/churn")
}

/// A directory in memory where there is one: for many small stores whose durability is not the question.
pub fn quick_directory() -> TempDir {
    let made = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    made.expect("room for a directory")
}

/// A number from the environment, so that CI may run a sample and `scripts/test --full` all.
pub fn setting(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| {
        text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}, expected a number"))
    })
}

pub fn require_root() {
    assert!(syscalls::is_root(), "this test changes users and mounts: run it as root");
}

pub fn require_program(name: &str, package: &str) {
    let found = Command::new("sh").args(["-c", &format!("command -v {name}")]).output();
    let found = found.is_ok_and(|output| output.status.success());
    assert!(found, "`{name}` is missing: apt-get install {package} (scripts/test does it)");
}

fn require_fuse() {
    let help = "modprobe fuse; in a container add --device /dev/fuse --cap-add SYS_ADMIN";
    assert!(Path::new("/dev/fuse").exists(), "/dev/fuse is missing: {help}");
    if !syscalls::is_root() {
        // It is setuid root: the device need not be open to all.
        return require_program("fusermount3", "fuse3");
    }
    if let Err(e) = File::options().read(true).write(true).open("/dev/fuse") {
        panic!("cannot open /dev/fuse ({e}): {help}");
    }
}

/// What a command did. A signal counts as 128 and its number, as in a shell.
#[derive(Debug)]
pub struct Output {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
    #[expect(dead_code, reason = "shown, with the rest, where a test fails")]
    command: String,
}

impl Output {
    pub fn of(command: &mut Command) -> Output {
        let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Output {
            status: status_number(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            command: format!("{command:?}"),
        }
    }

    #[track_caller]
    pub fn ok(self) -> Output {
        self.exits(0)
    }

    #[track_caller]
    pub fn exits(self, status: i32) -> Output {
        assert_eq!(self.status, status, "expected exit status {status} from\n{self:#?}");
        self
    }

    #[track_caller]
    pub fn says(self, text: &str) -> Output {
        let said = format!("{}{}", self.stdout, self.stderr);
        assert!(said.contains(text), "expected `{text}` in what was said by\n{self:#?}");
        self
    }

    /// The one JSON value on standard output.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_str(&self.stdout) {
            Ok(value) => value,
            Err(e) => panic!("expected one JSON value on standard output ({e}) from\n{self:#?}"),
        }
    }
}

pub fn status_number(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().expect("neither code nor signal"))
}

/// A temporary directory that everybody may enter, with the parts of a test below it.
pub struct Bench {
    base: Option<TempDir>,
    pub root: PathBuf,
    pub store: PathBuf,
}

impl Bench {
    /// A directory with room for a store, which is not there yet, and no mount.
    pub fn new() -> Bench {
        let base = tempfile::Builder::new().prefix("modelfs-it-").tempdir().expect("a directory");
        let root = base.path().canonicalize().expect("just made");
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).expect("it is ours");
        let store = root.join("store");
        Bench { base: Some(base), root, store }
    }

    /// `modelfs --store STORE ARGS…`
    pub fn cli(&self, args: &[&str]) -> Output {
        Output::of(
            bounded(MODELFS).arg("--store").arg(&self.store).args(args).current_dir(&self.root),
        )
    }

    /// The same with `--json`, which must succeed; its answer.
    #[track_caller]
    pub fn cli_json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        self.cli(&args).ok().json()
    }

    /// The binary at a place that every user can execute it from.
    pub fn shared_binary(&self) -> PathBuf {
        let place = self.root.join("modelfs-for-all");
        if !place.exists() {
            fs::copy(MODELFS, &place).expect("room for a copy of the binary");
            fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).expect("it is ours");
        }
        place
    }

    pub fn cli_as(&self, user: User, args: &[&str]) -> Output {
        let mut command = as_user_command(user, &self.shared_binary());
        Output::of(command.arg("--store").arg(&self.store).args(args).current_dir("/"))
    }

    /// A new file below the root of the bench.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().expect("below the root")).expect("a directory");
        fs::write(&path, bytes).expect("a file");
        path
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if self.base.is_none() {
            return;
        }
        let mut left = mounts_below(&self.root);
        while let Some(point) = left.pop() {
            let _ = Command::new("umount").arg("-l").arg(&point).stderr(Stdio::null()).status();
        }
        if !mounts_below(&self.root).is_empty() {
            // Never delete through a mount: leave the directory to whoever looks for the reason.
            let kept = self.base.take().map(TempDir::keep);
            eprintln!("still mounted below {kept:?}");
        }
    }
}

/// A running daemon with its mount point.
pub struct Mount {
    pub bench: Bench,
    pub point: PathBuf,
    options: Vec<String>,
    daemon: Option<Child>,
}

impl Mount {
    pub fn new() -> Mount {
        Mount::on(Bench::new())
    }

    /// A mount with the model `churn` in it.
    pub fn with_churn() -> Mount {
        let mount = Mount::new();
        fs::create_dir(mount.path("churn")).expect("mkdir makes a model");
        mount
    }

    /// A mount whose store lies on a tmpfs of its own, made with these options. Needs root.
    pub fn on_tmpfs(options: &str) -> Mount {
        require_root();
        let mut bench = Bench::new();
        let disk = bench.root.join("disk");
        fs::create_dir(&disk).expect("a new directory");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&disk);
        Output::of(&mut command).ok();
        bench.store = disk.join("store");
        Mount::on(bench)
    }

    pub fn on(bench: Bench) -> Mount {
        let point = bench.root.join("models");
        fs::create_dir_all(&point).expect("a directory");
        // Other users are part of the picture where root mounts; a user mounts for itself.
        let options = if syscalls::is_root() { vec!["--allow-other".to_owned()] } else { vec![] };
        let mut mount = Mount { bench, point, options, daemon: None };
        mount.start();
        mount
    }

    /// Starts the daemon and waits until the mount answers.
    pub fn start(&mut self) {
        require_fuse();
        assert!(self.daemon.is_none(), "the daemon runs already");
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log");
        let child = Command::new(MODELFS)
            .arg("--store")
            .arg(&self.bench.store)
            .arg("mount")
            .arg(&self.point)
            .args(&self.options)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second descriptor"))
            .stderr(log)
            .spawn()
            .expect("the binary was built by cargo");
        self.daemon = Some(child);
        self.wait_until_mounted();
    }

    fn wait_until_mounted(&mut self) {
        let begun = Instant::now();
        loop {
            let daemon = self.daemon.as_mut().expect("just started");
            if let Some(status) = daemon.try_wait().expect("it is our child") {
                self.daemon = None;
                panic!("the daemon ended with {status} before it mounted:\n{}", self.log());
            }
            // Only its own word says that this daemon serves the path, and not one before it.
            let pid = format!("\"pid\": {}", daemon.id());
            let status = fs::read_to_string(self.point.join(".modelfs/status.json"));
            if status.is_ok_and(|status| status.contains(&pid)) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "nothing mounted:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Options of `modelfs mount` for the next start.
    pub fn set_options(&mut self, options: &[&str]) {
        self.options = options.iter().map(|option| (*option).to_owned()).collect();
    }

    /// Takes the bench back, the daemon having been stopped, so that it may be mounted again.
    pub fn into_bench(mut self) -> Bench {
        assert!(self.daemon.is_none(), "the daemon still runs");
        std::mem::replace(
            &mut self.bench,
            Bench { base: None, root: PathBuf::new(), store: PathBuf::new() },
        )
    }

    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.point.join(below)
    }

    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("the daemon runs").id()
    }

    fn log_path(&self) -> PathBuf {
        self.bench.root.join("daemon.log")
    }

    /// What the daemon has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn kill9(&mut self) {
        let mut daemon = self.daemon.take().expect("the daemon runs");
        daemon.kill().expect("it is our child");
        daemon.wait().expect("it is our child");
    }

    /// Sends a signal and waits for the daemon's end; its exit status.
    #[track_caller]
    pub fn end_with(&mut self, signal: i32) -> i32 {
        syscalls::signal(self.pid(), signal);
        self.wait_for_end()
    }

    /// Waits until the daemon ends by itself; its exit status.
    #[track_caller]
    pub fn wait_for_end(&mut self) -> i32 {
        let mut daemon = self.daemon.take().expect("the daemon runs");
        let begun = Instant::now();
        loop {
            if let Some(status) = daemon.try_wait().expect("it is our child") {
                return status_number(status);
            }
            if PATIENCE < begun.elapsed() {
                let _ = daemon.kill();
                let _ = daemon.wait();
                panic!("the daemon did not end:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the daemon as an operator would.
    #[track_caller]
    pub fn stop(&mut self) {
        let status = self.end_with(libc::SIGTERM);
        assert_eq!(status, 0, "the daemon ended badly:\n{}", self.log());
    }

    pub fn restart(&mut self) {
        if self.daemon.is_some() {
            self.stop();
        }
        self.start();
    }

    pub fn cli(&self, args: &[&str]) -> Output {
        self.bench.cli(args)
    }

    #[track_caller]
    pub fn cli_json(&self, args: &[&str]) -> Value {
        self.bench.cli_json(args)
    }

    /// Runs a script with `M` (the mount point), `STORE`, `FIXTURES`, `MODELFS` and `BASE` set, in a
    /// shell ("bash", "dash", "busybox sh") or "python3".
    pub fn run(&self, shell: &str, script: &str) -> Output {
        let mut words = shell.split(' ');
        let program = words.next().expect("a program");
        let mut command = bounded(program);
        command.args(words).arg("-c").arg(script).current_dir(&self.bench.root);
        self.environment(&mut command);
        Output::of(&mut command)
    }

    pub fn environment(&self, command: &mut Command) {
        command
            .env("M", &self.point)
            .env("STORE", &self.bench.store)
            .env("MODELFS_STORE", &self.bench.store)
            .env("BASE", &self.bench.root)
            .env("FIXTURES", fixtures())
            .env("MODELFS", MODELFS);
    }

    /// Copies a fixture (`v1`, `v2`, `v3`) into the draft of `churn`, times and all.
    pub fn fill_draft(&self, fixture: &str) {
        let script = format!("cp -p \"$FIXTURES\"/{fixture}/* \"$M\"/churn/draft/");
        self.run("bash", &script).ok();
    }

    /// Seals the draft of `model` with one write, as `echo` does; the answer.
    #[track_caller]
    pub fn seal(&self, model: &str, command: &str) -> Value {
        let control = self.path(model).join("snapshot");
        let written = fs::write(&control, format!("{command}\n"));
        let answer = self.answer(model);
        assert!(written.is_ok(), "sealing `{model}`: {written:?}, {answer}\n{}", self.log());
        assert_eq!(answer["ok"], Value::Bool(true), "{answer}");
        answer
    }

    /// Seals files with these contents as the next version of `model`; the answer.
    #[track_caller]
    pub fn seal_files(&self, model: &str, files: &[(&str, &[u8])], command: &str) -> Value {
        for (name, bytes) in files {
            let path = self.path(model).join("draft").join(name);
            fs::create_dir_all(path.parent().expect("below the draft")).expect("a directory");
            fs::write(&path, bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
        self.seal(model, command)
    }

    /// Writes a command that must be refused; the errno and the answer that explains it.
    #[track_caller]
    pub fn refused(&self, model: &str, command: &[u8]) -> (i32, Value) {
        let written = fs::write(self.path(model).join("snapshot"), command);
        let answer = self.answer(model);
        let Err(e) = written else { panic!("`{model}` was sealed: {answer}") };
        assert_eq!(answer["ok"], Value::Bool(false), "{answer}");
        let text = answer["error"].as_str().unwrap_or_default();
        assert!(!text.is_empty(), "a refusal explains itself: {answer}");
        (e.raw_os_error().expect("an errno"), answer)
    }

    /// What reading the control file gives: one line of JSON.
    #[track_caller]
    pub fn answer(&self, model: &str) -> Value {
        let path = self.path(model).join("snapshot");
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(text.lines().count(), 1, "one line: {text:?}");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text:?}: {e}"))
    }

    /// Names that `ls` shows of a directory below the mount point, sorted.
    #[track_caller]
    pub fn names(&self, below: &str) -> Vec<String> {
        let path = self.path(below);
        let entries = fs::read_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let name = |e: std::io::Result<fs::DirEntry>| e.map(|e| e.file_name());
        let mut names: Vec<String> = entries
            .map(|entry| name(entry).expect("an entry").to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[track_caller]
    pub fn text(&self, below: &str) -> String {
        let path = self.path(below);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// Points an alias at a version as `ln -sfn` does: a temporary link, renamed over the alias.
    pub fn retarget(&self, model: &str, alias: &str, target: &str) -> syscalls::Outcome {
        let directory = self.path(model);
        let temporary = directory.join(format!(".{alias}.new"));
        syscalls::symlink(target, &temporary)?;
        let moved = syscalls::errno(fs::rename(&temporary, directory.join(alias)));
        if moved.is_err() {
            // As `ln` does. It may be gone with its time.
            drop(fs::remove_file(&temporary));
        }
        moved
    }

    /// Checks the whole store, every byte of it.
    #[track_caller]
    pub fn assert_sound(&self) {
        let found = self.cli(&["verify", "--read-data"]);
        assert_eq!(found.status, 0, "{found:#?}\n{}", self.log());
    }

    #[track_caller]
    pub fn assert_link(&self, below: &str, target: &str) {
        let path = self.path(below);
        let found = fs::read_link(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(found, Path::new(target), "{}", path.display());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the daemon's log:\n{}", self.log());
        }
    }
}

/// A command that is ended after [`PATIENCE`]: status 124 then, and no test hangs.
pub fn bounded(program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", &PATIENCE.as_secs().to_string(), program]);
    command.env_remove("MODELFS_STORE").env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    command
}

/// A command that runs as `user`, who needs no account.
pub fn as_user_command(user: User, program: &Path) -> Command {
    require_root();
    let groups: Vec<String> = user.groups.iter().map(u32::to_string).collect();
    let mut command = bounded("setpriv");
    command.arg(format!("--reuid={}", user.uid)).arg(format!("--regid={}", user.gid));
    match groups.is_empty() {
        true => command.arg("--clear-groups"),
        false => command.arg(format!("--groups={}", groups.join(","))),
    };
    command.arg(program);
    command
}

/// Whether a modelfs is mounted at `point`, alive or dead.
pub fn is_mounted(point: &Path) -> bool {
    mount_table().iter().any(|(at, kind)| at == point && kind == "fuse.modelfs")
}

/// Mount points at and below `root`, as often as something is mounted there.
fn mounts_below(root: &Path) -> Vec<PathBuf> {
    let table = mount_table().into_iter().map(|(at, _)| at);
    table.filter(|at| at.starts_with(root)).collect()
}

fn mount_table() -> Vec<(PathBuf, String)> {
    let table = fs::read("/proc/self/mountinfo").expect("procfs is mounted");
    let parse = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b' ');
        let point = OsStr::from_bytes(fields.nth(4)?);
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        Some((PathBuf::from(point), String::from_utf8_lossy(kind).into_owned()))
    };
    table.split(|byte| *byte == b'\n').filter_map(parse).collect()
}

/// Polls until `seen` gives something, or panics with what was waited for.
#[track_caller]
pub fn wait_for<T>(what: &str, mut seen: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = seen() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Bytes that look random and are the same in every run.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    // An odd multiplier spreads small seeds over all bits; a state of zero would stay zero.
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        // xorshift64: any non-zero state leads through all of them.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len.div_ceil(8)).flat_map(|_| next()).take(len).collect()
}

/// Copies a directory with all that is in it, which is files and directories.
pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap_or_else(|e| panic!("{}: {e}", to.display()));
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_tree(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
    }
}
