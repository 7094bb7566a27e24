//! The life of a daemon: it ends cleanly, is replaced when dead, and never shares a store.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{Bench, MODELFS, Mount, Output, bounded, is_mounted, require_root, wait_for};
use crate::syscalls;

#[track_caller]
fn check_end(signal: i32) {
    let mut mount = Mount::with_churn();
    mount.seal_files("churn", &[("a", b"a")], "one");
    assert_eq!(mount.end_with(signal), 0, "{}", mount.log());
    assert!(!is_mounted(&mount.point), "the mount is gone");
    assert!(fs::read_dir(&mount.point).expect("an ordinary directory").next().is_none());
    assert!(!mount.bench.store.join("daemon.sock").exists(), "the socket is gone");
    mount.cli(&["verify", "--read-data"]).ok();
    mount.start();
    assert_eq!(mount.text("churn/v1/a"), "a");
}

#[test]
fn sigterm_ends_it_cleanly() {
    check_end(libc::SIGTERM);
}

#[test]
fn sigint_ends_it_cleanly() {
    check_end(libc::SIGINT);
}

#[test]
fn umount_ends_it_cleanly() {
    require_root();
    let mut mount = Mount::with_churn();
    mount.run("bash", "umount \"$M\"").ok();
    assert_eq!(mount.wait_for_end(), 0, "{}", mount.log());
    assert!(!is_mounted(&mount.point));
    mount.start();
    let point = mount.point.to_str().expect("text").to_owned();
    mount.cli(&["umount", &point]).ok();
    assert_eq!(mount.wait_for_end(), 0, "{}", mount.log());
    assert!(!is_mounted(&mount.point));
    mount.cli(&["umount", &point]).exits(4).says(&point);
}

#[test]
fn a_busy_mount_ends_too() {
    let mut mount = Mount::with_churn();
    mount.seal_files("churn", &[("a", b"a")], "one");
    let mut sleeper = Command::new("sleep");
    let mut sleeper =
        sleeper.arg("600").current_dir(mount.path("churn/v1")).spawn().expect("sleep");
    let held = fs::File::open(mount.path("churn/v1/a")).expect("sealed");
    let status = mount.end_with(libc::SIGTERM);
    sleeper.kill().expect("it is our child");
    sleeper.wait().expect("it is our child");
    drop(held);
    assert_eq!(status, 0, "{}", mount.log());
    assert!(!is_mounted(&mount.point), "detached, whoever was in it");
    mount.start();
    assert_eq!(mount.text("churn/v1/a"), "a");
}

#[test]
fn a_dead_mount_is_replaced() {
    let mut mount = Mount::with_churn();
    mount.seal_files("churn", &[("a", b"a")], "one");
    for _ in 0..3 {
        mount.kill9();
        // Not stat: the kernel may know that by heart.
        let dead = fs::read_dir(&mount.point).expect_err("nobody serves it");
        assert_eq!(dead.raw_os_error(), Some(libc::ENOTCONN));
        mount.start();
        assert_eq!(mount.text("churn/v1/a"), "a");
    }
    let (other, text) = (mount.bench.root.join("other"), mount.point.to_str().expect("text"));
    let mut command = bounded(MODELFS);
    let refused = Output::of(command.arg("--store").arg(other).args(["mount", text]));
    refused.exits(5).says(text).says(mount.bench.store.to_str().expect("text"));
    assert_eq!(mount.text("churn/v1/a"), "a", "a living one is not touched");
    let table = fs::read("/proc/self/mountinfo").expect("procfs is mounted");
    let table = String::from_utf8_lossy(&table);
    let point = mount.point.to_str().expect("text");
    let count = table.lines().filter(|line| line.split(' ').nth(4) == Some(point)).count();
    assert_eq!(count, 1, "the dead ones are gone: {table}");
}

#[test]
fn a_command_works_while_a_dead_mount_lies_around() {
    let mut mount = Mount::with_churn();
    mount.seal_files("churn", &[("a", b"a")], "one");
    mount.kill9();
    mount.cli(&["promote", "churn/v1", "prod"]).ok();
    mount.start();
    mount.assert_link("churn/prod", "v1");
}

#[test]
fn a_mount_point_of_somebody_else_is_refused() {
    require_root();
    let bench = Bench::new();
    let point = bench.root.join("taken");
    fs::create_dir(&point).expect("a directory");
    let mut command = Command::new("mount");
    Output::of(command.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&point)).ok();
    fs::write(point.join("precious"), "data").expect("it is ours");
    let text = point.to_str().expect("text");
    let refused = bench.cli(&["mount", text]);
    assert!(refused.status == 5 || refused.status == 1, "{refused:?}");
    refused.says(text);
    assert_eq!(fs::read_to_string(point.join("precious")).expect("untouched"), "data");
    bench.cli(&["umount", text]).says(text);
    assert!(point.join("precious").exists(), "what is not ours is not unmounted");
}

#[test]
fn a_mount_point_that_is_no_empty_directory_is_refused() {
    let bench = Bench::new();
    let missing = bench.root.join("missing");
    let missing = missing.to_str().expect("text");
    bench.cli(&["mount", missing]).exits(4).says(missing);
    let file = bench.write("file", "x");
    let file = file.to_str().expect("text");
    let refused = bench.cli(&["mount", file]);
    assert!([1, 4].contains(&refused.status), "{refused:?}");
    refused.says(file);
}

#[test]
fn a_second_daemon_on_one_store_is_refused_by_name_and_pid() {
    let mount = Mount::with_churn();
    let other = mount.bench.root.join("other");
    fs::create_dir(&other).expect("a directory");
    let other = other.to_str().expect("text");
    let refused = mount.cli(&["mount", other]).exits(5);
    assert!(refused.stderr.contains(&mount.pid().to_string()), "{refused:?}");
    assert!(refused.stderr.contains("modelfs"), "{refused:?}");
    assert!(refused.stderr.contains(mount.bench.store.to_str().expect("text")), "{refused:?}");
    assert!(!is_mounted(std::path::Path::new(other)));
    mount.seal_files("churn", &[("a", b"a")], "the first one goes on");
}

#[test]
fn two_stores_are_mounted_side_by_side() {
    let (one, two) = (Mount::with_churn(), Mount::with_churn());
    one.seal_files("churn", &[("a", b"one")], "one");
    two.seal_files("churn", &[("a", b"two")], "two");
    assert_eq!((one.text("churn/v1/a"), two.text("churn/v1/a")), ("one".into(), "two".into()));
}

#[test]
fn in_the_background_it_returns_when_the_mount_is_there() {
    let bench = Bench::new();
    let point = bench.root.join("models");
    fs::create_dir(&point).expect("a directory");
    let text = point.to_str().expect("text");
    // Pipes are inherited: the command ends only if the daemon lets go of them.
    bench.cli(&["mount", text, "--background"]).ok();
    assert!(is_mounted(&point));
    fs::create_dir(point.join("churn")).expect("it answers at once");
    let status = bench.cli_json(&["status"]);
    let pid = find(&status, "pid").and_then(Value::as_u64).expect("the pid of the daemon");
    assert!(fs::metadata(format!("/proc/{pid}")).is_ok(), "{status}");
    bench.cli(&["umount", text]).ok();
    wait_for("the daemon's end", || fs::metadata(format!("/proc/{pid}")).is_err().then_some(()));
    assert!(!is_mounted(&point));
    bench.cli(&["list"]).ok().says("churn");
    let missing = bench.root.join("missing");
    let refused = bench.cli(&["mount", missing.to_str().expect("text"), "--background"]);
    assert_ne!(refused.status, 0, "what went wrong is told before it returns: {refused:?}");
    refused.says("missing");
}

/// The first value under `key`, however deep.
pub fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(object) => {
            object.get(key).or_else(|| object.values().find_map(|inner| find(inner, key)))
        }
        Value::Array(items) => items.iter().find_map(|inner| find(inner, key)),
        _ => None,
    }
}

#[test]
fn the_mount_is_named_after_its_store() {
    let mount = Mount::with_churn();
    let shown = mount.run("bash", "findmnt -n -o FSTYPE,SOURCE,OPTIONS \"$M\"").ok().stdout;
    assert!(shown.starts_with("fuse.modelfs"), "{shown}");
    assert!(shown.contains(mount.bench.store.to_str().expect("text")), "{shown}");
    assert!(shown.contains("default_permissions"), "{shown}");
    assert!(shown.contains("nosuid") && shown.contains("nodev"), "{shown}");
}

#[test]
fn a_frozen_daemon_is_survived() {
    let mut mount = Mount::with_churn();
    mount.seal_files("churn", &[("a", &[7; 200_000])], "one");
    syscalls::signal(mount.pid(), libc::SIGSTOP);
    let mut reader = Command::new("cat");
    reader.arg(mount.path("churn/v1/a")).stdout(Stdio::null());
    let mut reader = reader.spawn().expect("cat runs");
    syscalls::signal(mount.pid(), libc::SIGCONT);
    assert!(reader.wait().expect("it is our child").success(), "it goes on where it was");
    mount.stop();
}

#[test]
fn many_clients_at_once_are_served() {
    let mount = Mount::with_churn();
    let bytes = crate::harness::noise(1, 2_000_000);
    mount.seal_files("churn", &[("weights", &bytes), ("sub/small", b"s")], "one");
    let script = r#"
for client in $(seq 16); do
  ( for round in $(seq 20); do
      sha256sum < "$M/churn/v1/weights"; ls -lR "$M/churn/v1" > /dev/null
      echo "$client $round" > "$M/churn/draft/$client.$round"
    done ) &
done | sort -u | wc -l
wait
ls "$M/churn/draft" | wc -l
"#;
    assert_eq!(mount.run("bash", script).ok().stdout, "1\n320\n");
    assert!(!mount.log().contains("panicked"), "{}", mount.log());
}

#[test]
fn the_environment_names_the_store() {
    let bench = Bench::new();
    let source = bench.write("source/a", "a");
    let mut command = bounded(MODELFS);
    command.env("MODELFS_STORE", &bench.store).args(["snapshot", "churn"]).arg(&source);
    Output::of(&mut command).ok().says("v1");
    bench.cli(&["list"]).ok().says("churn");
}
