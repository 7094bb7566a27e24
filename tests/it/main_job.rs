//! The main job: put files in a draft, seal them with one write, read them back.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::Value;

use crate::harness::{Mount, Output, bounded, fixtures, require_program};

/// The issue's first example, as a script that ends at the first thing that goes wrong.
const FIRST_SNAPSHOT: &str = r#"
set -eu
mkdir "$M/churn"
cp "$FIXTURES"/v1/* "$M/churn/draft/"
echo "first" > "$M/churn/snapshot"
cat "$M/churn/snapshot"
for file in "$FIXTURES"/v1/*; do cmp "$file" "$M/churn/v1/${file##*/}"; done
"#;

#[test]
fn a_version_is_sealed_and_read_back_in_bash() {
    check_shell("bash");
}

#[test]
fn a_version_is_sealed_and_read_back_in_dash() {
    require_program("dash", "dash");
    check_shell("dash");
}

#[test]
fn a_version_is_sealed_and_read_back_in_busybox() {
    require_program("busybox", "busybox-static");
    check_shell("busybox sh");
}

fn check_shell(shell: &str) {
    let mount = Mount::new();
    let answer = mount.run(shell, FIRST_SNAPSHOT).ok().json();
    check_first_version(&mount, &answer);
    let shown = mount.run(shell, r#"ls "$M/churn" && ls "$M/churn/draft""#).ok();
    assert_eq!(shown.stdout, "draft\nlatest\nsnapshot\nv1\n", "{shell}");
}

#[test]
fn a_version_is_sealed_and_read_back_in_python() {
    require_program("python3", "python3");
    let script = r#"
import os, pathlib, shutil
mount, fixtures = (pathlib.Path(os.environ[name]) for name in ("M", "FIXTURES"))
model = mount / "churn"
model.mkdir()
for source in (fixtures / "v1").iterdir():
    shutil.copy(source, model / "draft")
with open(model / "snapshot", "w") as control:
    control.write("first\n")
for source in (fixtures / "v1").iterdir():
    assert source.read_bytes() == (model / "v1" / source.name).read_bytes(), source
assert sorted(os.listdir(model)) == ["draft", "latest", "snapshot", "v1"], os.listdir(model)
print((model / "snapshot").read_text(), end="")
"#;
    let mount = Mount::new();
    let answer = mount.run("python3", script).ok().json();
    check_first_version(&mount, &answer);
}

/// What must hold after [`FIRST_SNAPSHOT`], whoever ran it.
fn check_first_version(mount: &Mount, answer: &Value) {
    assert_eq!(answer["ok"], Value::Bool(true), "{answer}");
    assert_eq!(answer["version"], "v1", "{answer}");
    assert_eq!(answer["files"], 3, "{answer}");
    let source = fixtures().join("v1");
    let bytes: u64 = ["metrics.json", "params.json", "weights.onnx"]
        .iter()
        .map(|name| fs::metadata(source.join(name)).expect("a fixture").len())
        .sum();
    assert_eq!(answer["bytes"], bytes, "{answer}");
    let digest = answer["digest"].as_str().unwrap_or_default();
    assert_eq!(digest.len(), 64, "a BLAKE3 digest in hex: {answer}");
    assert!(answer["stored_bytes"].is_u64() && answer["ms"].is_u64(), "{answer}");
    assert!(mount.names("churn/draft").is_empty(), "sealing leaves the draft empty");
    assert_eq!(mount.names("churn"), ["draft", "latest", "snapshot", "v1"]);
    let sealed = ["metadata.json", "metrics.json", "params.json", "weights.onnx"];
    assert_eq!(mount.names("churn/v1"), sealed);
    mount.assert_link("churn/latest", "v1");
    check_digests(mount, digest);
    mount.assert_sound();
}

/// `metadata.json` agrees with what `sha256sum` and `blake3` say of the sealed files.
fn check_digests(mount: &Mount, digest: &str) {
    let text = mount.text("churn/v1/metadata.json");
    let metadata: Value = serde_json::from_str(&text).expect("metadata.json is JSON");
    for key in ["schema", "model", "version", "digest", "message", "artifacts"] {
        assert!(!metadata[key].is_null(), "metadata.json has no `{key}`: {text}");
    }
    assert_eq!(metadata["model"], "churn");
    assert_eq!(metadata["version"], "v1");
    assert_eq!(metadata["message"], "first");
    assert_eq!(metadata["digest"], digest);
    let files = metadata["artifacts"].as_array().expect("a list of files");
    assert_eq!(files.len(), 3, "{text}");
    for file in files {
        let path = mount.path("churn/v1").join(file["path"].as_str().expect("a path"));
        let sum = Output::of(bounded("sha256sum").arg(&path)).ok();
        let sum = sum.stdout.split(' ').next().expect("a digest").to_owned();
        assert_eq!(file["sha256"], sum, "{}", path.display());
        let bytes = fs::read(&path).expect("a sealed file");
        assert_eq!(file["blake3"], blake3::hash(&bytes).to_hex().as_str(), "{}", path.display());
        assert_eq!(file["size"], bytes.len(), "{}", path.display());
    }
}

#[test]
fn sealed_files_keep_their_times_and_lose_their_write_bits() {
    let mount = Mount::with_churn();
    let script = r#"
set -eu
cd "$M/churn/draft"
mkdir -p deep/er
echo data > deep/er/plain
echo '#!/bin/sh' > run; chmod 755 run
touch -d '2021-03-04T05:06:07.123456789Z' deep/er/plain run
cd /
echo sealed > "$M/churn/snapshot"
stat -c '%a %y' "$M/churn/v1/deep/er/plain" "$M/churn/v1/run"
stat -c '%a' "$M/churn/v1" "$M/churn/v1/deep" "$M/churn/v1/deep/er"
"#;
    let shown = mount.run("bash", &format!("export TZ=UTC\n{script}")).ok();
    let times = "2021-03-04 05:06:07.123456789 +0000";
    assert_eq!(shown.stdout, format!("444 {times}\n555 {times}\n555\n555\n555\n"));
}

#[test]
fn three_versions_stay_as_they_were_sealed_over_a_restart() {
    let mut mount = Mount::with_churn();
    for version in ["v1", "v2", "v3"] {
        mount.fill_draft(version);
        assert_eq!(mount.seal("churn", version)["version"], version);
    }
    let check = |mount: &Mount| {
        for version in ["v1", "v2", "v3"] {
            same_tree(&fixtures().join(version), &mount.path("churn").join(version));
        }
        mount.assert_link("churn/latest", "v3");
    };
    check(&mount);
    let before = inodes(&mount);
    mount.restart();
    check(&mount);
    assert_eq!(before, inodes(&mount), "inode numbers follow from the content");
    mount.assert_sound();
}

fn inodes(mount: &Mount) -> Vec<u64> {
    let names = ["churn/v1", "churn/v1/weights.onnx", "churn/v3/weights.onnx", "churn/v2"];
    names.map(|name| fs::metadata(mount.path(name)).expect("sealed").ino()).to_vec()
}

/// Every file of `source` is in `sealed` with the same bytes and the same time.
fn same_tree(source: &Path, sealed: &Path) {
    for entry in fs::read_dir(source).expect("a fixture") {
        let entry = entry.expect("an entry");
        let copy = sealed.join(entry.file_name());
        assert_eq!(
            fs::read(entry.path()).expect("a fixture"),
            fs::read(&copy).unwrap_or_else(|e| panic!("{}: {e}", copy.display())),
            "{}",
            copy.display()
        );
        let time = |path: &Path| fs::metadata(path).expect("it was read").modified().ok();
        assert_eq!(time(&entry.path()), time(&copy), "{}", copy.display());
    }
}

#[test]
fn the_same_again_is_the_same_version() {
    let mount = Mount::with_churn();
    mount.fill_draft("v1");
    let first = mount.seal("churn", "same");
    mount.fill_draft("v1");
    let again = mount.seal("churn", "same");
    assert_eq!((&first["version"], &first["digest"]), (&again["version"], &again["digest"]));
    assert!(mount.names("churn/draft").is_empty(), "the draft was sealed, if into an old version");
    mount.fill_draft("v1");
    let other = mount.seal("churn", "another message");
    assert_eq!(other["version"], "v2", "other metadata is another version");
    assert_eq!(mount.names("churn"), ["draft", "latest", "snapshot", "v1", "v2"]);
}

#[test]
fn equal_content_is_stored_once() {
    let mount = Mount::with_churn();
    let weights = crate::harness::noise(7, 3_000_000);
    let first = mount.seal_files("churn", &[("weights", &weights)], "one");
    assert!(first["stored_bytes"].as_u64() >= Some(2_900_000), "noise does not shrink: {first}");
    let second = mount.seal_files("churn", &[("weights", &weights), ("note", b"two")], "two");
    assert_eq!(second["version"], "v2");
    assert!(second["stored_bytes"].as_u64() < Some(100_000), "the weights were there: {second}");
    assert_eq!(fs::read(mount.path("churn/v2/weights")).expect("sealed"), weights);
}

#[test]
fn a_model_goes_only_while_it_has_no_version() {
    let mount = Mount::with_churn();
    let empty = mount.path("empty");
    fs::create_dir(&empty).expect("mkdir makes a model");
    assert_eq!(mount.names(""), ["churn", "empty"]);
    fs::remove_dir(&empty).expect("it never had a version");
    assert_eq!(mount.names(""), ["churn"]);
    mount.seal_files("churn", &[("a", b"a")], "one");
    let refused = fs::remove_dir(mount.path("churn")).expect_err("it has a version");
    assert_eq!(refused.raw_os_error(), Some(libc::ENOTEMPTY));
    assert_eq!(mount.text("churn/v1/a"), "a");
}

#[test]
fn names_that_are_not_there_are_enoent() {
    let mount = Mount::with_churn();
    mount.seal_files("churn", &[("a", b"a")], "one");
    let missing = [
        "nope",
        "churn/v2",
        "churn/v0",
        "churn/v01",
        "churn/prod",
        "churn/v1/nope",
        ".live/v1",
        ".live/draft",
        ".live/snapshot",
        "churn/.live/v1",
        "churn/.nothing",
    ];
    for name in missing {
        let found = fs::symlink_metadata(mount.path(name)).expect_err(name);
        assert_eq!(found.raw_os_error(), Some(libc::ENOENT), "{name}");
    }
}

#[test]
fn status_and_history_are_files() {
    let mount = Mount::with_churn();
    mount.seal_files("churn", &[("a", b"a")], "why it exists");
    mount.retarget("churn", "prod", "v1").expect("v1 is there");
    for place in ["churn/.modelfs", ".modelfs"] {
        let status = mount.text(&format!("{place}/status.json"));
        let status: Value = serde_json::from_str(&status).expect("status.json is JSON");
        assert!(status.is_object(), "{status}");
        let history = mount.text(&format!("{place}/history.jsonl"));
        let records: Vec<Value> = history
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
            .collect();
        assert!(3 <= records.len(), "a model, a version, an alias: {history}");
        assert!(history.contains("\"prod\""), "an audit is a grep: {history}");
        for record in &records {
            assert!(record["seq"].is_u64() && record["time"].is_string(), "{record}");
            assert!(record["actor"]["user"].is_string(), "{record}");
            assert!(record["actor"]["uid"].is_u64() && record["actor"]["door"].is_string());
        }
    }
}
