//! Promises of SEMANTICS.md, a test of the name of each: drafts, and the file that seals them.
//!
//! The others are in `semantics`, which says where those are that neither has.

use std::fs::{self, File};
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Bench, Mount, Output, require_program, require_root, wait_for};
use crate::syscalls::{self, Outcome};

/// A mount with one file in the draft of `churn`.
fn with_draft() -> Mount {
    let mount = Mount::with_churn();
    fs::write(mount.path("churn/draft/a"), "content").expect("a draft file");
    mount
}

fn metadata(mount: &Mount, version: &str) -> Value {
    let text = mount.text(&format!("churn/{version}/metadata.json"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn a_draft_is_an_ordinary_directory() {
    // That what was synced outlives a killed daemon: `a_draft_survives_a_killed_daemon`.
    require_root();
    let mount = Mount::with_churn();
    fs::create_dir(mount.bench.root.join("plain")).expect("a directory");
    let script = r#"
cd "$D"
umask 027
mkdir -p a/b; echo one > a/file; : > a/b/empty; mkfifo pipe; ln -s a/file soft; ln a/file hard
chmod 4751 a/file; chown -h 4001:4002 soft; chown 4003 a/b/empty
chmod 2775 a; chgrp 4500 a; : > a/inherits; mkdir a/inherits-too
mv a/b/empty moved; mv -T a/b renamed; cp -a a copy; rm copy/file
printf abc > sparse; truncate -s 1M sparse; echo tail >> sparse; truncate -s 10 a/inherits
touch -d '2021-03-04T05:06:07.123456789Z' a/file sparse moved; touch -h -d @77 soft
touch -d @78 a renamed copy copy/inherits-too a/inherits-too
touch -d @79 a/inherits copy/inherits pipe
chmod 1777 .
for id in 4001 4002; do
  setpriv --reuid $id --regid $id --clear-groups sh -c "mkdir of-$id; : > of-$id/f; ln -s f of-$id/l"
done
sync -f . && sync renamed moved a
touch -h -d @80 of-*/*; touch -d @81 of-*
for try in 'rmdir a' 'rm renamed' 'mkdir a' 'cat missing' 'cat a/file/x' 'ln a hardlink' 'cd soft' \
  'mv a a/b' 'ln -s x soft' ": > $(printf n%.0s {1..256})" 'truncate -s 7E moved' \
  'setpriv --reuid 4003 --regid 4003 --clear-groups cat a/file'; do
  said=$(eval "$try" 2>&1); echo "$? $try: ${said##*: }"
done
find . -mindepth 1 -printf '%p %y %m %n %U %G %T@ %l\n' | sort
find . -type f -printf '%p %s\n' | sort; cat a/file hard moved sparse | sha256sum
"#;
    let run = |place: &str| mount.run("bash", &format!("D={place}\n{script}")).ok();
    let (plain, draft) = (run("\"$BASE/plain\""), run("\"$M/churn/draft\""));
    assert!(plain.stdout.contains("of-4002/f f 640 1 4002 4002"), "{plain:?}");
    assert!(plain.stdout.lines().count() > 30, "{plain:?}");
    assert_eq!(draft.stdout, plain.stdout);
    assert_eq!(draft.stderr, plain.stderr);
}

/// Changes to a draft with `file` in it, and what each gives.
fn changes(mount: &Mount) -> Vec<(&'static str, Outcome)> {
    let at = |name: &str| mount.path("churn/draft").join(name);
    let open = |name: &str, flags| syscalls::open(&at(name), flags, 0o644).map(drop);
    vec![
        ("create", open("new", libc::O_WRONLY | libc::O_CREAT)),
        ("open to write", open("file", libc::O_WRONLY)),
        ("open to cut", open("file", libc::O_RDONLY | libc::O_TRUNC)),
        ("truncate", syscalls::truncate(&at("file"), 1)),
        ("mkdir", syscalls::mkdir(&at("new"), 0o755)),
        ("mknod", syscalls::mknod(&at("new"), libc::S_IFIFO | 0o644, 0)),
        ("symlink", syscalls::symlink("file", &at("new"))),
        ("link", syscalls::link(&at("file"), &at("new"))),
        ("unlink", syscalls::errno(fs::remove_file(at("file")))),
        ("rmdir", syscalls::errno(fs::remove_dir(at("empty")))),
        ("rename", syscalls::rename2(&at("file"), &at("new"), 0)),
        ("chmod", syscalls::chmod(&at("file"), 0o600)),
        ("utimens", syscalls::utimes(&at("file"), Some(7))),
        ("another seal", syscalls::errno(fs::write(mount.path("churn/snapshot"), "again\n"))),
    ]
}

#[test]
fn a_draft_that_is_being_sealed_is_busy() {
    // How long sealing takes is not ours to say: a file twice as large, until it is long enough.
    for mib in [64, 256, 1_024, 4_096] {
        let mount = Mount::with_churn();
        let file = mount.path("churn/draft/file");
        fs::create_dir(mount.path("churn/draft/empty")).expect("a directory");
        let large = File::create(&file).expect("a draft file");
        large.set_len(mib << 20).expect("holes take no room");
        drop(large);
        mount.seal("churn", r#"{"async": true}"#);
        let is_sealing = || mount.text("churn/.modelfs/status.json").contains("\"bytes_done\"");
        let begun = Instant::now();
        while syscalls::chmod(&file, 0o644) == Ok(()) && begun.elapsed() < Duration::from_secs(1) {}
        let found = changes(&mount);
        let mut start = [1; 16];
        let read = File::open(&file).and_then(|mut file| file.read_exact(&mut start));
        let names = mount.names("churn/draft");
        if !is_sealing() {
            continue;
        }
        for (change, outcome) in found {
            assert_eq!(outcome, Err(libc::EBUSY), "{change}");
        }
        read.expect("reading goes on");
        assert_eq!(start, [0; 16]);
        assert_eq!(names, ["empty", "file"]);
        wait_for("the end of it", || (!is_sealing()).then_some(()));
        assert_eq!(fs::metadata(mount.path("churn/v1/file")).expect("sealed").len(), mib << 20);
        fs::write(mount.path("churn/draft/new"), "n").expect("then it may be changed again");
        return;
    }
    panic!("sealing 4 GiB ended before anybody could look");
}

#[test]
fn extended_attributes_are_not_kept() {
    require_program("python3", "python3");
    let mount = with_draft();
    let script = r#"
import errno, fcntl, os, struct
path = os.environ["M"] + "/churn/draft/a"
# Version 2: owner rw-, group r--, others r--.
acl = struct.pack("<IHHIHHIHHI", 2, 1, 6, 0xffffffff, 4, 4, 0xffffffff, 0x20, 4, 0xffffffff)
def refused(work, *errnos):
    try:
        work()
    except OSError as error:
        assert error.errno in errnos, error
    else:
        raise SystemExit("it was kept")
for key, value in ("user.note", b"x"), ("system.posix_acl_access", acl), ("trusted.note", b"x"):
    refused(lambda: os.setxattr(path, key, value), errno.EOPNOTSUPP)
    # Of an ACL the kernel says by itself that there is none.
    refused(lambda: os.getxattr(path, key), errno.EOPNOTSUPP, errno.ENODATA)
for lock in fcntl.flock, fcntl.lockf:
    with open(path, "r+") as held:
        lock(held, fcntl.LOCK_EX)
        child = os.fork()
        if child == 0:
            with open(path, "r+") as other:
                try:
                    lock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7, "two have one lock"
"#;
    mount.run("python3", script).ok();
}

#[test]
fn one_write_is_one_command() {
    let mut mount = with_draft();
    let control = mount.path("churn/snapshot");
    assert_eq!(syscalls::truncate(&control, 0), Ok(()));
    assert_eq!(syscalls::utimes(&control, Some(7)), Ok(()));
    mount.run("bash", r#": > "$M/churn/snapshot"; touch "$M/churn/snapshot""#).ok();
    assert_eq!(mount.names("churn"), ["draft", "snapshot"], "neither is a command");
    let long = [br#"{"message": ""#.to_vec(), vec![b'x'; 64 << 10], br#""}"#.to_vec()].concat();
    for wrong in [
        &br#"{"message": "x", "other": 1}"#[..],
        br#"{"message": 7}"#,
        br#"{"metrics": []}"#,
        br#"{"draft": "../.."}"#,
        br#"{"alias": "a b"}"#,
        br#"{"message": "x"} {}"#,
        b"\xff",
        &vec![b'x'; (64 << 10) + 1],
        &long,
    ] {
        let (errno, answer) = mount.refused("churn", wrong);
        assert_eq!(errno, libc::EINVAL, "{answer}");
        assert_eq!(mount.names("churn"), ["draft", "snapshot"], "{answer}");
        assert_eq!(mount.text("churn/draft/a"), "content");
    }
    fs::write(&control, "two lines,\nand the last newline is none\n").expect("it is sealed");
    mount.kill9();
    mount.start();
    assert_eq!(mount.text("churn/v1/a"), "content", "it was durable when the write returned");
    assert_eq!(metadata(&mount, "v1")["message"], "two lines,\nand the last newline is none");
    fs::create_dir(mount.path("churn/draft/run")).expect("a directory");
    fs::write(mount.path("churn/draft/run/b"), "b").expect("a draft file");
    let command = json!({
        "message": "all of it", "draft": "run", "metrics": {"auc": 0.9}, "params": {"depth": 5},
        "datasets": [{"name": "march"}], "labels": {"team": "risk"}, "alias": "candidate",
        "async": false,
    });
    mount.seal("churn", &command.to_string());
    mount.assert_link("churn/candidate", "v2");
    assert_eq!(mount.text("churn/v2/b"), "b");
    let found = metadata(&mount, "v2");
    for key in ["message", "metrics", "params", "datasets", "labels"] {
        assert_eq!(found[key], command[key], "`{key}` of {found}");
    }
}

#[test]
fn the_answer_is_one_line_of_json() {
    require_program("python3", "python3");
    let mut mount = with_draft();
    assert_eq!(mount.text("churn/snapshot"), "", "there was no command yet");
    let script = r#"
import errno, io, json, os
path = os.environ["M"] + "/churn/snapshot"
with open(path, "r+b", buffering=0) as control:
    control.write(b"one\n")
    line = control.read(4096)
    assert line.endswith(b"\n") and line.count(b"\n") == 1, line
    assert json.loads(line)["version"] == "v1", line
    assert control.read(4096) == b""
    try:
        control.seek(0)
        raise SystemExit("it was sought")
    except OSError as error:
        assert error.errno == errno.ESPIPE, error
try:
    open(path, "r+")
    raise SystemExit("a buffered descriptor for both is refused by Python")
except io.UnsupportedOperation:
    pass
"#;
    mount.run("python3", script).ok();
    let shown = mount.run("bash", r#"cat "$M/churn/snapshot"; cat < "$M/churn/snapshot""#).ok();
    let lines: Vec<&str> = shown.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{shown:?}");
    assert_eq!(lines[0], lines[1], "as often as one likes");
    assert!(lines[0].starts_with(r#"{"ok":true,"version":"v1","#), "{shown:?}");
    mount.restart();
    assert_eq!(mount.text("churn/snapshot"), "", "an answer lasts as long as the daemon");
}

/// What is in the draft of `churn`, as one text.
fn picture(mount: &Mount) -> String {
    let script = r#"cd "$M/churn/draft"; find . -printf '%p %y %m %s %T@ %i %l\n' | sort
find . -type f -exec sha256sum {} + | sort"#;
    mount.run("bash", script).ok().stdout
}

#[test]
fn a_failed_write_says_why() {
    // A full disk is in `full`, a mapping in `busy`, each error of a disk in `faults`.
    let mount = Mount::with_churn();
    let draft = mount.path("churn/draft");
    let check = |errno: i32, name: &str, says: &str| {
        let before = picture(&mount);
        let (found, answer) = mount.refused("churn", b"too early\n");
        assert_eq!((found, answer["errno"].as_str()), (errno, Some(name)), "{answer}");
        assert!(answer["error"].as_str().is_some_and(|text| text.contains(says)), "{answer}");
        assert_eq!(picture(&mount), before, "the draft is as it was: {answer}");
        assert_eq!(mount.names("churn"), ["draft", "snapshot"]);
    };
    check(libc::ENODATA, "ENODATA", "draft");
    fs::create_dir(draft.join("deep")).expect("a directory");
    fs::write(draft.join("good"), "good").expect("a draft file");
    let held = File::create(draft.join("deep/held")).expect("a draft file");
    let begun = Instant::now();
    check(libc::EBUSY, "EBUSY", "deep/held");
    assert!(Duration::from_secs(1) <= begun.elapsed(), "a close may be under way");
    drop(held);
    syscalls::mknod(&draft.join("deep/pipe"), libc::S_IFIFO | 0o644, 0).expect("a fifo");
    check(libc::EINVAL, "EINVAL", "deep/pipe");
    fs::remove_file(draft.join("deep/pipe")).expect("a draft is writable");
    syscalls::symlink("../../out", &draft.join("deep/out")).expect("a draft takes links");
    check(libc::EINVAL, "EINVAL", "deep/out");
    fs::remove_file(draft.join("deep/out")).expect("a draft is writable");
    assert_eq!(mount.seal("churn", "after all")["version"], "v1");
}

#[test]
fn sealing_empties_the_draft() {
    let mount = Mount::with_churn();
    let draft = mount.path("churn/draft");
    for name in ["run/a", "run/b", "other/a", "top"] {
        let path = draft.join(name);
        fs::create_dir_all(path.parent().expect("below the draft")).expect("a directory");
        fs::write(path, name).expect("a draft file");
    }
    let (version, done) = (mount.path("churn/v2"), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // A directory that goes while it is listed gives an error, which is no answer.
                let Ok(entries) = fs::read_dir(&draft) else { continue };
                let Ok(names) = entries.collect::<Result<Vec<_>, _>>() else { continue };
                assert!([0, 2, 3].contains(&names.len()), "half empty: {names:?}");
                assert!(!names.is_empty() || version.exists(), "empty before it is sealed");
            }
        });
        let sealed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            mount.seal("churn", r#"{"message": "a directory of it", "draft": "run"}"#);
            let left = mount.names("churn/draft");
            mount.seal("churn", "all of it");
            (left, mount.names("churn/draft"))
        }));
        done.store(true, Ordering::Relaxed);
        let (first, second) = sealed.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert_eq!(first, ["other", "top"]);
        assert!(second.is_empty(), "{second:?}");
    });
    assert_eq!(mount.names("churn/v1"), ["a", "b", "metadata.json"]);
    assert_eq!(mount.names("churn/v2"), ["metadata.json", "other", "top"]);
}

/// What a program does with draft files, by each of the ways that there are.
const WAYS_OF_IO: &str = r##"
import errno, fcntl, hashlib, mmap, os
os.chdir(os.environ["M"] + "/churn/draft")
def show(*what): print(*what)
def seal():
    control = os.open("../snapshot", os.O_WRONLY)
    try: show(os.write(control, b"sealed\n"))
    except OSError as error: show(errno.errorcode[error.errno])
    os.close(control)
both = os.open("file", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
show(os.write(both, b"a" * 100_000), os.fstat(both).st_size)
reader, appender = os.open("file", os.O_RDONLY), os.open("file", os.O_WRONLY | os.O_APPEND)
show(os.write(appender, b"tail"), os.pwrite(both, b"middle", 50_000), os.stat("file").st_size)
show(os.pread(reader, 10, 49_998), os.pread(reader, 10, 99_998), os.pread(reader, 10, 200_000))
with mmap.mmap(both, 0) as shared:
    shared[:5] = b"by me"
    show(os.pread(reader, 5, 0))
    os.pwrite(both, b"and", 6)
    show(shared[:10], shared[-4:])
    shared.flush()
os.ftruncate(both, 10)
show(os.stat("file").st_size, os.pread(reader, 20, 0))
os.posix_fallocate(both, 0, 1 << 20)
show(os.fstat(reader).st_size, os.lseek(reader, 0, os.SEEK_END))
hole = os.open("hole", os.O_RDWR | os.O_CREAT)
os.pwrite(hole, b"end", 4 << 20)
show(os.lseek(hole, 0, os.SEEK_HOLE), os.lseek(hole, 1 << 20, os.SEEK_DATA) >> 20)
show(os.copy_file_range(both, hole, 10, 0, 100), os.sendfile(hole, reader, 0, 10))
os.fsync(hole), os.fdatasync(both)
for flags in os.O_RDONLY, os.O_WRONLY:
    fd = os.open("file", flags)
    try: show(os.read(fd, 3))
    except OSError as error: show(errno.errorcode[error.errno])
    try: show(os.write(fd, b"x"))
    except OSError as error: show(errno.errorcode[error.errno])
    os.close(fd)
os.unlink("hole")
show(os.fstat(hole).st_nlink, os.pwrite(hole, b"unseen", 0), os.pread(hole, 6, 0))
os.utime("file", (1, 1))
show(os.stat("file").st_mtime, os.pwrite(both, b"later", 0), os.stat("file").st_mtime > 1)
os.close(os.open("file", os.O_WRONLY | os.O_TRUNC))
show(os.fstat(reader).st_size, os.pread(reader, 1, 0))
log = os.open("log", os.O_RDWR | os.O_CREAT | os.O_APPEND)
show(os.write(log, b"a" * 5_000), os.write(log, b"end"))
with mmap.mmap(log, 0) as mapped:
    mapped[:5] = b"front"
    mapped.flush()
show(os.fstat(log).st_size, os.pread(log, 6, 0), os.pread(log, 9, 5_000)), os.close(log)
seal()
for fd in both, reader, appender, hole: os.close(fd)
with open("run", "wb") as run:
    for number in range(300): run.write(hashlib.sha256(b"%d" % number).digest() * 100)
os.chmod("run", 0o755)
show(hashlib.sha256(open("run", "rb").read()).hexdigest())
open("script", "w").write("#!/bin/sh\necho it runs\n"), os.chmod("script", 0o755)
show(os.popen("./script; stat -c '%A %h %s %n' *").read())
seal()
show(hashlib.sha256(open("../v1/run", "rb").read()).hexdigest(), open("../v1/script").read())
"##;

/// Whether the kernel reads and writes draft files by itself, and what a program sees then.
fn io_on(mount: &Mount) -> (bool, Output) {
    fs::create_dir(mount.path("churn")).expect("mkdir makes a model");
    let shown = mount.run("python3", WAYS_OF_IO).ok();
    let status: Value = serde_json::from_str(&mount.text(".modelfs/status.json")).expect("JSON");
    (status["daemon"]["passthrough"].as_bool().expect("it says whether"), shown)
}

#[test]
fn passthrough_is_invisible() {
    require_root();
    require_program("python3", "python3");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs is mounted");
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let release = (numbers.next().expect("a number"), numbers.next().expect("a number"));
    let (passed, by_the_kernel) = io_on(&Mount::on_tmpfs("size=64m"));
    assert_eq!(passed, (6, 9) <= release, "on an ordinary disk, with Linux {release:?}");
    // One file system on another is not passed through.
    let mut bench = Bench::new();
    let disk = bench.root.join("disk");
    let script = r#"
set -eu
mkdir "$0" && mount -t tmpfs -o size=64m tmpfs "$0" && cd "$0" && mkdir lower upper work stacked
mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay stacked"#;
    Output::of(std::process::Command::new("bash").args(["-c", script]).arg(&disk)).ok();
    bench.store = disk.join("stacked/store");
    let (passed, by_the_daemon) = io_on(&Mount::on(bench));
    assert!(!passed, "a store on a stacked file system");
    assert!(by_the_kernel.stdout.contains("\nEBUSY\n"), "{by_the_kernel:?}");
    assert!(by_the_kernel.stdout.ends_with("echo it runs\n\n"), "{by_the_kernel:?}");
    assert_eq!(by_the_kernel.stdout, by_the_daemon.stdout);
    assert_eq!(by_the_kernel.stderr, by_the_daemon.stderr);
}
