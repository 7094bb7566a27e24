//! Paths that are not UTF-8: wherever one is given, what is done is done whole, and is said.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::git::Repository;
use crate::harness::{Bench, MODELFS, Output, bounded, is_mounted};

/// A path below the root of the bench that is not UTF-8.
fn odd(bench: &Bench, name: &str) -> PathBuf {
    bench.root.join(OsStr::from_bytes(&[name.as_bytes(), b"\xff"].concat()))
}

/// How such a path is written.
fn written(path: &Path) -> Value {
    let bytes = path.as_os_str().as_bytes();
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({ "path": path.to_string_lossy(), "path_hex": digits })
}

/// `modelfs --store STORE ARGS…` at the root of the bench.
fn command(bench: &Bench, args: &[&OsStr]) -> Command {
    let mut command = bounded(MODELFS);
    command.arg("--store").arg(&bench.store).args(args).current_dir(&bench.root);
    command
}

fn modelfs(bench: &Bench, args: &[&OsStr]) -> Output {
    Output::of(&mut command(bench, args))
}

fn words<'a>(words: &[&'a str]) -> Vec<&'a OsStr> {
    words.iter().map(|word| OsStr::new(*word)).collect()
}

#[test]
fn what_lies_at_a_path_that_is_no_text_is_described() {
    let bench = Bench::new();
    let (table, folder) = (odd(&bench, "x"), odd(&bench, "d"));
    fs::write(&table, "a,b\n1,2\n").expect("a file");
    fs::create_dir(&folder).expect("a directory");
    fs::write(folder.join(OsStr::from_bytes(b"m\xff.gguf")), b"GGUF").expect("a file");
    let json = OsStr::new("--json");
    let found = modelfs(&bench, &["fingerprint".as_ref(), table.as_os_str(), json]).ok().json();
    assert_eq!(found[0]["path"], written(&table));
    let found = modelfs(&bench, &["inventory".as_ref(), folder.as_os_str(), json]).ok().json();
    assert_eq!(found["root"], written(&folder));
    let named = found["models"][0]["versions"][0]["path"].clone();
    assert_eq!(named, written(Path::new(OsStr::from_bytes(b"m\xff.gguf"))), "{found}");
    // A plan is a text: it cannot name what is there.
    let plan = bench.root.join("plan.toml");
    let words = ["inventory".as_ref(), folder.as_os_str(), "--plan".as_ref(), plan.as_os_str()];
    modelfs(&bench, &words).exits(2).says("not UTF-8");
    assert!(!plan.exists());
}

#[test]
fn a_training_may_write_to_a_path_that_is_no_text() {
    let bench = Bench::new();
    let output = odd(&bench, "o");
    let script = "echo weights > \"$MODELFS_DRAFT/w\"";
    let run = |more: &[&str]| {
        let mut args = words(&["run", "--json", "--model", "churn", "--output"]);
        args.push(output.as_os_str());
        args.extend(words(more));
        args.extend(words(&["--", "sh", "-c", script]));
        modelfs(&bench, &args).ok().json()
    };
    assert_eq!(run(&[])["record"], written(&output.join("modelfs-run.json")));
    assert_eq!(run(&["--seal-on-success"])["sealed"]["version"], "v1");
}

#[test]
fn a_watch_may_work_at_paths_that_are_no_text() {
    let bench = Bench::new();
    let repository = Repository::new(bench.root.join("source"));
    let (state, output) = (odd(&bench, "state"), OsStr::from_bytes(b"o\xff"));
    let watch = |script: &str| {
        repository.write("train.sh", script);
        repository.commit(script);
        let mut args =
            words(&["watch", "--once", "--json", "--model", "churn", "--repo", "source"]);
        args.extend(["--output".as_ref(), output]);
        args.extend(words(&["--", "sh", "train.sh"]));
        Output::of(command(&bench, &args).env("XDG_STATE_HOME", &state))
    };
    let sealed =
        watch("mkdir \"$MODELFS_DRAFT\"\necho weights > \"$MODELFS_DRAFT/w\"\n").ok().json();
    assert_eq!(sealed["sealed"]["version"], "v1");
    let failed = watch("exit 3\n").exits(1);
    let told: Value = serde_json::from_str(&failed.stdout).expect("JSON");
    assert!(told["failed"]["log"]["path_hex"].is_string(), "{told}");
}

#[test]
fn a_store_and_a_mount_point_may_be_no_text() {
    let mut bench = Bench::new();
    bench.store = odd(&bench, "store");
    let point = odd(&bench, "mp");
    fs::create_dir(&point).expect("a directory");
    let json = OsStr::new("--json");
    let mount = ["mount".as_ref(), point.as_os_str(), "--background".as_ref(), json];
    let status = modelfs(&bench, &mount).ok().json();
    assert_eq!(status["mountpoint"], written(&point));
    let directory = odd(&bench, "files");
    fs::create_dir(&directory).expect("a directory");
    fs::write(directory.join("w"), "weights").expect("a file");
    let snapshot = ["snapshot", "churn"].map(OsStr::new);
    let snapshot = [&snapshot[..], &[directory.as_os_str()]].concat();
    modelfs(&bench, &snapshot).ok();
    let status = modelfs(&bench, &words(&["status", "--json"])).ok().json();
    assert_eq!(status["store"], written(&bench.store));
    assert_eq!(status["daemon"]["mountpoint"], written(&point));
    let text = fs::read_to_string(point.join(".modelfs/status.json")).expect("a text");
    assert!(text.contains("path_hex"), "{text}");
    modelfs(&bench, &words(&["status"])).ok();
    let ended = modelfs(&bench, &["umount".as_ref(), point.as_os_str(), json]).ok().json();
    assert_eq!((&ended["mountpoint"], &ended["store"]), (&written(&point), &written(&bench.store)));
    assert!(ended["ended"].is_number() && !is_mounted(&point), "{ended}");
}
