//! A full disk: refused, nothing lost, and it goes on when there is room again.

use std::fs;
use std::path::Path;

use crate::harness::{Mount, noise};
use crate::syscalls;

/// Fills the file system below `directory` until at most `leave` bytes are free.
fn fill_bytes(directory: &Path, leave: u64) {
    let (_, free) = syscalls::disk_bytes(directory);
    let len = usize::try_from(free.saturating_sub(leave)).expect("a small disk");
    fs::write(directory.join("filler"), noise(99, len)).expect("there was room for it");
}

#[test]
fn a_full_disk_refuses_a_seal_and_loses_nothing() {
    let mount = Mount::on_tmpfs("size=48m");
    let disk = mount.bench.root.join("disk");
    fs::create_dir(mount.path("churn")).expect("mkdir makes a model");
    mount.seal_files("churn", &[("weights", &noise(1, 1_000_000))], "before");
    let weights = noise(2, 12 << 20);
    fs::write(mount.path("churn/draft/weights"), &weights).expect("there is room for the draft");
    fill_bytes(&disk, 5 << 20);
    let shown = mount.run("bash", r#"echo "no room" > "$M/churn/snapshot""#);
    assert_eq!(shown.status, 1, "{shown:?}");
    shown.says("No space left on device");
    let answer = mount.answer("churn");
    assert_eq!(answer["errno"], "ENOSPC", "{answer}");
    assert_eq!(mount.names("churn"), ["draft", "latest", "snapshot", "v1"]);
    assert!(fs::read(mount.path("churn/draft/weights")).expect("kept") == weights, "the draft");
    assert!(fs::read(mount.path("churn/v1/weights")).expect("kept") == noise(1, 1_000_000));
    mount.assert_sound();
    fs::remove_file(disk.join("filler")).expect("it is ours");
    assert_eq!(mount.seal("churn", "room again")["version"], "v2");
    assert!(fs::read(mount.path("churn/v2/weights")).expect("sealed") == weights);
    mount.assert_sound();
}

#[test]
fn a_full_disk_refuses_a_seal_from_the_command_line() {
    let mount = Mount::on_tmpfs("size=48m");
    let disk = mount.bench.root.join("disk");
    let source = mount.bench.write("source/weights", noise(4, 12 << 20));
    let source = source.to_str().expect("text");
    mount.bench.write("small/a", "a");
    fill_bytes(&disk, 6 << 20);
    mount.cli(&["snapshot", "churn", source]).exits(1).says("space");
    fs::remove_file(disk.join("filler")).expect("it is ours");
    mount.cli(&["snapshot", "churn", source]).ok().says("v1");
    assert!(fs::read(mount.path("churn/v1/weights")).expect("sealed") == noise(4, 12 << 20));
    mount.assert_sound();
}

#[test]
fn a_store_on_a_full_disk_can_be_mounted_and_read() {
    let mut mount = Mount::on_tmpfs("size=48m");
    let disk = mount.bench.root.join("disk");
    fs::create_dir(mount.path("churn")).expect("mkdir makes a model");
    let weights = noise(6, 3 << 20);
    mount.seal_files("churn", &[("weights", &weights)], "before");
    // What is hot would be read without the catalog.
    fs::remove_dir_all(mount.bench.store.join("hot")).expect("it may go at any time");
    mount.stop();
    for database in fs::read_dir(mount.bench.store.join("catalog")).expect("there") {
        let database = database.expect("an entry").path();
        if database.is_dir() {
            fs::remove_dir_all(database).expect("it may go at any time");
        }
    }
    fill_bytes(&disk, 0);
    mount.start();
    assert!(fs::read(mount.path("churn/v1/weights")).expect("there") == weights);
    assert!(mount.log().contains("it is kept in memory"), "{}", mount.log());
    fs::remove_file(disk.join("filler")).expect("it is ours");
    let same = mount.seal_files("churn", &[("weights", &weights)], "again");
    assert!(same["stored_bytes"].as_u64().expect("a number") < 100_000, "{same}");
    mount.assert_sound();
}

#[test]
fn a_hot_copy_that_is_refused_for_the_disk_says_what_to_do() {
    let mount = Mount::on_tmpfs("size=48m");
    let disk = mount.bench.root.join("disk");
    fs::create_dir(mount.path("churn")).expect("mkdir makes a model");
    mount.seal_files("churn", &[("weights", &noise(7, 3 << 20))], "before");
    fs::remove_dir_all(mount.bench.store.join("hot")).expect("it may go at any time");
    fill_bytes(&disk, 4 << 20);
    let shown = mount.cli(&["warm", "churn/v1"]).ok();
    shown.says("less than 5 % of the disk would be free").says("free some space");
    fs::remove_file(disk.join("filler")).expect("it is ours");
    mount.cli(&["warm", "churn/v1"]).ok().says("1 file");
}

#[test]
fn a_disk_without_inodes_refuses_a_seal_and_loses_nothing() {
    let mut mount = Mount::on_tmpfs("size=64m,nr_inodes=400");
    let disk = mount.bench.root.join("disk");
    fs::create_dir(mount.path("churn")).expect("mkdir makes a model");
    fs::write(mount.path("churn/draft/weights"), "w").expect("a draft file");
    let fillers = disk.join("fillers");
    fs::create_dir(&fillers).expect("an inode is left");
    let full = (0..1000).find(|n| fs::write(fillers.join(n.to_string()), "").is_err());
    assert!(full.is_some(), "the disk has no end");
    let (errno, answer) = mount.refused("churn", b"no inodes\n");
    assert_eq!((errno, answer["errno"].as_str()), (libc::ENOSPC, Some("ENOSPC")), "{answer}");
    assert_eq!(mount.text("churn/draft/weights"), "w");
    assert_eq!(mount.names("churn"), ["draft", "snapshot"]);
    fs::remove_dir_all(&fillers).expect("it is ours");
    assert_eq!(mount.seal("churn", "inodes again")["version"], "v1");
    mount.assert_sound();
    mount.restart();
    assert_eq!(mount.text("churn/v1/weights"), "w");
}

#[test]
fn df_tells_the_truth() {
    let mount = Mount::on_tmpfs("size=48m");
    let disk = mount.bench.root.join("disk");
    let (total, _) = syscalls::disk_bytes(&mount.point);
    assert_eq!(total, syscalls::disk_bytes(&disk).0);
    assert_eq!(total, 48 << 20);
    let (_, before) = syscalls::disk_bytes(&mount.point);
    fs::write(disk.join("ballast"), noise(5, 10 << 20)).expect("there is room for it");
    let (_, after) = syscalls::disk_bytes(&mount.point);
    let taken = before - after;
    assert!((10 << 20..12 << 20).contains(&taken), "10 MiB were taken, df says {taken}");
}
