//! Hot files: read without us, never wrong, never above the limit, and never needed.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Mount, Output, as_user_command, bounded, noise, require_root, wait_for};
use crate::syscalls;

/// Large enough for a hot copy.
const BYTES: usize = 300_000;

/// A mount with `churn/v1`, whose one file `w` is hot.
fn with_hot_version() -> (Mount, Vec<u8>) {
    let mount = Mount::with_churn();
    let bytes = noise(1, BYTES);
    mount.seal_files("churn", &[("w", &bytes), ("small", b"small")], "one");
    (mount, bytes)
}

fn hot_directory(mount: &Mount) -> PathBuf {
    mount.bench.store.join("hot")
}

/// Removes all that is hot, also while something is being made hot.
fn remove_hot_files(mount: &Mount) {
    wait_for("the hot files to go", || match fs::remove_dir_all(hot_directory(mount)) {
        Ok(()) => Some(()),
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => None,
        Err(error) => panic!("{error}"),
    });
}

/// The hot files, the index left out.
fn hot_files(mount: &Mount) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(hot_directory(mount)) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = paths.filter(|path| !path.ends_with("index")).collect();
    files.sort();
    files
}

/// The hot file of these bytes.
fn hot_file(mount: &Mount, bytes: &[u8]) -> PathBuf {
    let content = |path: &PathBuf| fs::read(path).is_ok_and(|found| found == bytes);
    let files = hot_files(mount);
    files.into_iter().find(content).unwrap_or_else(|| panic!("not hot\n{}", mount.log()))
}

fn is_hot(mount: &Mount, bytes: &[u8]) -> bool {
    hot_files(mount).iter().any(|path| fs::read(path).is_ok_and(|found| found == bytes))
}

fn status(mount: &Mount) -> Value {
    serde_json::from_str(&mount.text(".modelfs/status.json")).expect("JSON")
}

/// Opens of sealed files that passed through, those that did not, and reads from hot files by us.
fn counts(mount: &Mount) -> (u64, u64, u64) {
    let hot = &status(mount)["hot"];
    let count = |name: &str| hot[name].as_u64().expect("a number");
    (count("opens_passed_through"), count("opens_cached"), count("reads"))
}

#[track_caller]
fn assert_reads(mount: &Mount, below: &str, bytes: &[u8]) {
    let read = fs::read(mount.path(below));
    assert!(read.is_ok_and(|read| read == bytes), "{below}\n{}", mount.log());
}

/// Bytes that the disk gives for a directory and what is in it.
fn disk_bytes(directory: &Path) -> u64 {
    let blocks = |path: &Path| fs::symlink_metadata(path).map_or(0, |found| found.blocks() * 512);
    let files = fs::read_dir(directory).into_iter().flatten();
    blocks(directory) + files.map(|file| blocks(&file.expect("an entry").path())).sum::<u64>()
}

/// Changes a byte behind the back of the daemon, as root can.
fn damage(path: &Path) {
    // Kernels before 6.13 count the time of a change in ticks.
    std::thread::sleep(Duration::from_millis(20));
    let file = File::options().read(true).write(true).open(path).expect("root may write it");
    let mut byte = [0];
    file.read_exact_at(&mut byte, 777).expect("a byte");
    file.write_all_at(&[byte[0] ^ 1], 777).expect("room for a byte");
}

#[test]
fn a_sealed_draft_is_hot_at_once_without_a_copy() {
    require_root();
    let mount = Mount::with_churn();
    let bytes = noise(1, BYTES);
    fs::write(mount.path("churn/draft/w"), &bytes).expect("a draft file");
    fs::write(mount.path("churn/draft/small"), "small").expect("a draft file");
    let inode = fs::metadata(mount.bench.store.join("draft/churn/w")).expect("there").ino();
    mount.seal("churn", "one");
    let files = hot_files(&mount);
    assert_eq!(files.len(), 1, "{files:?}");
    let found = fs::metadata(&files[0]).expect("there");
    assert_eq!((found.ino(), found.permissions().mode() & 0o7777), (inode, 0o400));
    let directory = fs::metadata(hot_directory(&mount)).expect("there");
    assert_eq!(directory.permissions().mode() & 0o7777, 0o700);
    assert_reads(&mount, "churn/v1/w", &bytes);
    assert_reads(&mount, "churn/v1/small", b"small");
    assert_eq!(status(&mount)["daemon"]["passthrough"], true, "this kernel has none");
    assert_eq!(counts(&mount), (1, 1, 0));
    let shown = mount.cli_json(&["status"]);
    assert_eq!(
        (shown["hot"]["files"].as_u64(), shown["hot"]["bytes"].as_u64()),
        (Some(1), Some(BYTES as u64))
    );
    let hot_bytes = mount.cli_json(&["stats"])["hot_bytes"].as_u64();
    assert!(BYTES as u64 <= hot_bytes.expect("a number"), "{hot_bytes:?}");
    mount.assert_sound();
}

#[test]
fn hot_files_may_be_deleted_at_any_time() {
    let (mut mount, bytes) = with_hot_version();
    let mut open = File::open(mount.path("churn/v1/w")).expect("sealed");
    remove_hot_files(&mount);
    // What is open goes on, also for others; after its close the file is read through us.
    assert_reads(&mount, "churn/v1/w", &bytes);
    let mut read = Vec::new();
    open.read_to_end(&mut read).expect("it is still there for us");
    assert!(read == bytes);
    drop(open);
    assert_reads(&mount, "churn/v1/w", &bytes);
    let two = noise(2, BYTES);
    mount.seal_files("churn", &[("w", &two)], "two");
    assert!(is_hot(&mount, &two));
    assert_reads(&mount, "churn/v2/w", &two);
    mount.stop();
    remove_hot_files(&mount);
    mount.start();
    assert_reads(&mount, "churn/v2/w", &two);
    mount.assert_sound();
}

#[test]
fn a_hot_file_is_as_safe_as_any_plain_file() {
    require_root();
    let (mount, bytes) = with_hot_version();
    let path = hot_file(&mount, &bytes);
    damage(&path);
    assert_reads(&mount, "churn/v1/w", &bytes);
    // It was hashed in the background, and is gone.
    wait_for("the damaged file to go", || (!path.exists()).then_some(()));
    assert_reads(&mount, "churn/v1/w", &bytes);
    mount.cli(&["warm", "churn/v1"]).ok();
    assert_reads(&mount, "churn/v1/w", &bytes);
    // While somebody has it open there is no other way to read the file: an error, no wrong byte.
    let open = File::open(mount.path("churn/v1/w")).expect("sealed");
    damage(&path);
    let error = File::open(mount.path("churn/v1/w")).expect_err("it is damaged");
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    drop(open);
    let read = wait_for("the last close", || fs::read(mount.path("churn/v1/w")).ok());
    assert!(read == bytes);
    wait_for("the damaged file to go", || (!path.exists()).then_some(()));
    mount.assert_sound();
}

#[test]
fn verify_removes_hot_files_with_wrong_bytes() {
    require_root();
    let (mut mount, bytes) = with_hot_version();
    let path = hot_file(&mount, &bytes);
    let report = mount.cli_json(&["verify", "--read-data"]);
    assert_eq!(
        (report["hot_files"].as_u64(), &report["hot_removed"]),
        (Some(1), &Value::Array(vec![]))
    );
    damage(&path);
    let report = mount.cli_json(&["verify"]);
    assert_eq!((report["hot_files"].as_u64(), path.exists()), (Some(0), true));
    mount.cli(&["verify", "--read-data"]).ok().says("removed, had wrong bytes: hot/");
    assert!(!path.exists());
    // The same without a daemon.
    mount.cli(&["warm", "churn"]).ok();
    damage(&path);
    mount.stop();
    mount.cli(&["verify", "--read-data"]).ok().says("removed, had wrong bytes: hot/");
    assert!(!path.exists());
}

#[test]
fn the_limit_of_hot_files_is_hard_and_aliased_versions_go_last() {
    let mut mount = Mount::with_churn();
    mount.stop();
    let limit = 1_500_000;
    mount.set_options(&["--allow-other", "--hot-bytes", &limit.to_string()]);
    mount.start();
    let first = noise(0, BYTES);
    mount.seal_files("churn", &[("w", &first)], r#"{"message":"first","alias":"prod"}"#);
    for seed in 1..8 {
        mount.seal_files("churn", &[("w", &noise(seed, BYTES))], "more");
        let taken = disk_bytes(&hot_directory(&mount));
        assert!(taken <= limit, "{taken} bytes are hot");
        assert!(is_hot(&mount, &first), "prod was to stay, {seed}");
        assert!(is_hot(&mount, &noise(seed, BYTES)), "the newest was to be hot, {seed}");
    }
    assert!(!is_hot(&mount, &noise(1, BYTES)));
    // A start knows it too.
    mount.restart();
    for seed in 11..18 {
        mount.seal_files("churn", &[("w", &noise(seed, BYTES))], "more");
    }
    assert!(is_hot(&mount, &first), "prod was to stay");
    let large = noise(9, 2_000_000);
    mount.seal_files("churn", &[("w", &large)], "larger than the limit");
    assert_reads(&mount, "churn/latest/w", &large);
    assert!(is_hot(&mount, &first) && !is_hot(&mount, &large));
    let report = mount.cli_json(&["warm", "churn"]);
    assert_eq!(
        (report["files"].as_u64(), report["skipped"][0]["path"].as_str()),
        (Some(0), Some("w"))
    );
    mount.stop();
    mount.set_options(&["--allow-other", "--hot-bytes", "400K"]);
    mount.start();
    assert_eq!(hot_files(&mount).len(), 1);
    mount.assert_sound();
}

#[test]
fn with_a_limit_of_0_there_are_no_hot_files() {
    let (mut mount, bytes) = with_hot_version();
    mount.stop();
    mount.set_options(&["--allow-other", "--hot-bytes", "0"]);
    mount.start();
    assert!(hot_files(&mount).is_empty());
    mount.seal_files("churn", &[("w", &noise(2, BYTES))], "two");
    mount.retarget("churn", "prod", "v1").expect("an alias");
    mount.cli(&["warm", "churn/v1"]).exits(1).says("--hot-bytes");
    assert_reads(&mount, "churn/v1/w", &bytes);
    assert_reads(&mount, "churn/v2/w", &noise(2, BYTES));
    assert!(hot_files(&mount).is_empty());
    assert_eq!(counts(&mount), (0, 2, 0));
}

#[test]
fn warm_makes_a_version_hot() {
    let mut mount = Mount::with_churn();
    let (one, two) = (noise(1, BYTES), noise(2, 3 * BYTES));
    let files: [(&str, &[u8]); 4] =
        [("a/one", &one), ("b/two", &two), ("b/same", &two), ("b/small", b"small")];
    mount.seal_files("churn", &files, "one");
    // A daemon that goes on might make them again.
    mount.stop();
    remove_hot_files(&mount);
    mount.start();
    let report = mount.cli_json(&["warm", "churn/v1", "a"]);
    assert_eq!(
        (report["files"].as_u64(), report["made_bytes"].as_u64()),
        (Some(1), Some(BYTES as u64))
    );
    assert!(is_hot(&mount, &one) && !is_hot(&mount, &two));
    let report = mount.cli_json(&["warm", "churn"]);
    assert_eq!((report["files"].as_u64(), report["made_files"].as_u64()), (Some(2), Some(1)));
    assert!(is_hot(&mount, &two));
    assert_reads(&mount, "churn/v1/b/two", &two);
    mount.cli(&["warm", "churn/v1", "no/such/path"]).exits(4).says("no/such/path");
    mount.cli(&["warm", "churn/v9"]).exits(4);
    // The same without a daemon, and what it made is believed by the next one.
    mount.stop();
    remove_hot_files(&mount);
    mount.cli(&["warm", "churn/v1", "/b/"]).ok().says("1 file");
    mount.start();
    assert_reads(&mount, "churn/v1/b/same", &two);
    if status(&mount)["daemon"]["passthrough"] == true {
        assert_eq!(counts(&mount), (1, 0, 0));
    }
    mount.assert_sound();
}

#[test]
fn a_file_that_is_read_again_becomes_hot_where_there_is_room() {
    require_root();
    let mut mount = Mount::with_churn();
    let (first, second) = (noise(1, BYTES), noise(2, BYTES));
    mount.seal_files("churn", &[("w", &first), ("x", &second)], "one");
    mount.stop();
    remove_hot_files(&mount);
    mount.start();
    assert_reads(&mount, "churn/v1/w", &first);
    // Only a part of this one is read, however often it is opened.
    for _ in 0..3 {
        let file = File::open(mount.path("churn/v1/x")).expect("sealed");
        file.read_exact_at(&mut [0; 8], 0).expect("a few bytes");
    }
    assert!(hot_files(&mount).is_empty(), "it was read once");
    assert_reads(&mount, "churn/v1/w", &first);
    wait_for("the file that was read again", || is_hot(&mount, &first).then_some(()));
    assert!(!is_hot(&mount, &second));
    wait_for("an open that passes through", || {
        assert_reads(&mount, "churn/v1/w", &first);
        (0 < counts(&mount).0).then_some(())
    });
    mount.assert_sound();
}

#[test]
fn nothing_goes_for_a_file_that_is_read_again() {
    let mut mount = Mount::with_churn();
    let (first, second) = (noise(1, BYTES), noise(2, BYTES));
    mount.seal_files("churn", &[("w", &first)], "one");
    fs::remove_file(hot_file(&mount, &first)).expect("it is ours");
    mount.seal_files("churn", &[("w", &second)], "two");
    mount.stop();
    mount.set_options(&["--allow-other", "--hot-bytes", "500K"]);
    mount.start();
    for _ in 0..4 {
        assert_reads(&mount, "churn/v1/w", &first);
    }
    // Whatever was noted is done before this.
    let third = noise(3, 4_096);
    mount.seal_files("churn", &[("w", &third)], "three");
    assert!(is_hot(&mount, &second) && !is_hot(&mount, &first));
    mount.assert_sound();
}

#[test]
fn a_retarget_warms_through_every_door() {
    let mount = Mount::with_churn();
    let contents: Vec<Vec<u8>> = (1..4).map(|seed| noise(seed, BYTES)).collect();
    for bytes in &contents {
        mount.seal_files("churn", &[("w", bytes)], "a version");
    }
    let goes_cold = || remove_hot_files(&mount);
    let becomes_hot = |index: usize| {
        wait_for("the version to be warm", || is_hot(&mount, &contents[index]).then_some(()));
    };
    goes_cold();
    mount.retarget("churn", "prod", "v1").expect("an alias");
    becomes_hot(0);
    goes_cold();
    mount.cli(&["promote", "churn/v2", "prod"]).ok();
    becomes_hot(1);
    goes_cold();
    mount.cli(&["rollback", "churn", "prod"]).ok();
    becomes_hot(0);
    let outside = mount.bench.write("outside/w", noise(7, BYTES));
    let outside = outside.parent().and_then(Path::to_str).expect("text");
    mount.cli(&["snapshot", "churn", outside, "--alias", "staging"]).ok();
    wait_for("the version to be warm", || is_hot(&mount, &noise(7, BYTES)).then_some(()));
    assert!(!is_hot(&mount, &contents[2]));
}

#[test]
fn hot_files_of_a_killed_daemon_are_used_again_once_they_were_hashed() {
    let (mut mount, bytes) = with_hot_version();
    let inode = fs::metadata(hot_file(&mount, &bytes)).expect("there").ino();
    mount.kill9();
    // Whatever the index knew is gone as well.
    let _ = fs::remove_file(hot_directory(&mount).join("index"));
    mount.start();
    let index = hot_directory(&mount).join("index");
    wait_for("the hashing", || {
        assert_reads(&mount, "churn/v1/w", &bytes);
        index.exists().then_some(())
    });
    assert_eq!(fs::metadata(hot_file(&mount, &bytes)).expect("there").ino(), inode);
    let (before, ..) = counts(&mount);
    assert_reads(&mount, "churn/v1/w", &bytes);
    if status(&mount)["daemon"]["passthrough"] == true {
        assert_eq!(counts(&mount).0, before + 1);
    }
    mount.kill9();
    mount.start();
    assert_reads(&mount, "churn/v1/w", &bytes);
    mount.assert_sound();
}

/// Through its own descriptor a program may open its file again, for writing.
#[test]
fn a_draft_file_that_somebody_has_open_or_linked_is_not_moved() {
    let mount = Mount::with_churn();
    let (open, linked) = (noise(1, BYTES), noise(2, BYTES));
    for (name, bytes) in [("open", &open), ("linked", &linked)] {
        fs::write(mount.path("churn/draft").join(name), bytes).expect("a draft file");
    }
    fs::hard_link(mount.path("churn/draft/linked"), mount.path("churn/draft/again")).expect("link");
    let mut reader = File::open(mount.path("churn/draft/open")).expect("a draft file");
    mount.seal("churn", "one");
    assert!(hot_files(&mount).is_empty(), "{:?}", hot_files(&mount));
    let mut read = Vec::new();
    reader.read_to_end(&mut read).expect("it stays open");
    assert!(read == open);
    let own = format!("/proc/self/fd/{}", reader.as_raw_fd());
    if let Ok(writer) = File::options().write(true).open(own) {
        writer.write_all_at(b"other bytes", 0).expect("a file without a name");
        writer.sync_all().expect("as any");
    }
    reader.seek(SeekFrom::Start(0)).expect("as any");
    assert_reads(&mount, "churn/v1/open", &open);
    assert_reads(&mount, "churn/v1/again", &linked);
    drop(reader);
    mount.cli(&["warm", "churn/v1"]).ok().says("2 files");
    assert_reads(&mount, "churn/v1/open", &open);
    mount.assert_sound();
}

/// A disk that is stacked on others: the kernel passes nothing through to it.
#[test]
fn without_passthrough_hot_files_are_read_by_the_daemon() {
    require_root();
    let mut bench = crate::harness::Bench::new();
    let disk = bench.root.join("disk");
    for name in ["disk", "below", "stack"] {
        fs::create_dir(bench.root.join(name)).expect("a directory");
    }
    let below = bench.root.join("below");
    Output::of(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&below)).ok();
    for name in ["lower", "upper", "work"] {
        fs::create_dir(below.join(name)).expect("a directory");
    }
    let at = below.display();
    let options = format!("lowerdir={at}/lower,upperdir={at}/upper,workdir={at}/work");
    Output::of(Command::new("mount").args(["-t", "overlay", "-o", &options, "o"]).arg(&disk)).ok();
    bench.store = disk.join("store");
    let mount = Mount::on(bench);
    fs::create_dir(mount.path("churn")).expect("mkdir makes a model");
    let bytes = noise(1, BYTES);
    mount.seal_files("churn", &[("w", &bytes)], "one");
    mount.cli(&["warm", "churn/v1"]).ok();
    assert_reads(&mount, "churn/v1/w", &bytes);
    let (passed, _, reads) = counts(&mount);
    assert_eq!(passed, 0);
    assert!(0 < reads, "not read from the hot file");
    // Damage is seen here too, while the file is open.
    let open = File::open(mount.path("churn/v1/w")).expect("sealed");
    damage(&hot_file(&mount, &bytes));
    let mut read = vec![0; BYTES];
    open.read_exact_at(&mut read, 0).expect("from the packs");
    assert!(read == bytes);
    mount.assert_sound();
}

/// Readers with all kinds of reads, and what makes files hot and cold under them, for six seconds.
const READERS: &str = r#"
import hashlib, mmap, os, random, subprocess, sys, threading, time
M, MODELFS = os.environ["M"], os.environ["MODELFS"]
end, failed = time.monotonic() + 6, []
names = ["v2", "v3", "v4"]
whole = {name: open(f"{M}/churn/{name}/w", "rb").read() for name in names}
def guarded(work):
    def run():
        try:
            while time.monotonic() < end and not failed:
                work()
        except BaseException as error:
            failed.append(repr(error))
    return run
def read():
    name = random.choice(names)
    expected = whole[name]
    fd = os.open(f"{M}/churn/{name}/w", os.O_RDONLY)
    kind = random.randrange(3)
    if kind == 0:
        assert os.pread(fd, len(expected), 0) == expected, name
    elif kind == 1:
        for _ in range(20):
            at = random.randrange(len(expected))
            assert os.pread(fd, 5000, at) == expected[at:at + 5000], name
    else:
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as mapped:
            os.close(fd)
            for _ in range(20):
                at = random.randrange(len(expected))
                assert mapped[at:at + 5000] == expected[at:at + 5000], name
        return
    os.close(fd)
def warm():
    subprocess.run([MODELFS, "warm", "churn/" + random.choice(names)], check=True, capture_output=True)
def move():
    temporary = f"{M}/churn/.prod.new"
    os.symlink(random.choice(names), temporary)
    os.replace(temporary, f"{M}/churn/prod")
    time.sleep(0.05)
def remove():
    hot = os.environ["STORE"] + "/hot"
    for name in os.listdir(hot):
        if random.randrange(3) == 0:
            try:
                os.unlink(f"{hot}/{name}")
            except FileNotFoundError:
                pass
    time.sleep(0.1)
work = [read] * 12 + [warm, move, remove]
threads = [threading.Thread(target=guarded(one)) for one in work]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
sys.exit("\n".join(failed) if failed else 0)
"#;

/// Many readers with all kinds of reads, while files become hot, go, and aliases move.
#[test]
fn hot_and_cold_opened_together_give_right_bytes_and_no_error() {
    let (mut mount, _) = with_hot_version();
    mount.stop();
    // Room for two of three: something always has to go.
    mount.set_options(&["--allow-other", "--hot-bytes", "8M"]);
    mount.start();
    for seed in 1..4 {
        mount.seal_files("churn", &[("w", &noise(seed, 3 << 20))], "more");
    }
    mount.run("python3", READERS).ok();
    let (passed, cached, _) = counts(&mount);
    if status(&mount)["daemon"]["passthrough"] == true {
        assert!(0 < passed && 0 < cached, "{passed} passed, {cached} cached");
    }
    mount.assert_sound();
}

/// Nobody but root gets at the plaintext past the permissions of the models.
#[test]
fn hot_files_are_closed_to_other_users() {
    require_root();
    let (mount, bytes) = with_hot_version();
    let path = hot_file(&mount, &bytes);
    let user = syscalls::User { uid: 4_711, gid: 4_711, groups: &[] };
    let mut command = as_user_command(user, Path::new("cat"));
    Output::of(command.arg(&path)).exits(1).says("Permission denied");
    Output::of(bounded("cat").arg(&path)).ok();
}
