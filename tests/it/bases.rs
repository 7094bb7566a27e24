//! Versions that follow one another are stored as what changed, and are read, checked and healed
//! like any other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::{Bench, Mount, noise};

/// Longest chain that is written.
const DEPTH_MAX: u64 = 4;
const VERSIONS: usize = 7;

/// bf16 numbers that change a little from version to version.
fn weights(version: usize) -> Vec<u8> {
    let count = 300_000;
    let mut numbers: Vec<u16> = noise(1, 2 * count)
        .chunks_exact(2)
        // Near 1: all exponents alike, signs and mantissas without pattern.
        .map(|two| 0x3f00 | u16::from(two[0] & 0x7f) | u16::from(two[1]) << 15)
        .collect();
    for step in 1..=version {
        for (number, change) in numbers.iter_mut().zip(noise(100 + step as u64, count)) {
            // Most stay, some go to a neighbour.
            *number = number.wrapping_add(u16::from(change % 16 == 0));
        }
    }
    numbers.into_iter().flat_map(u16::to_le_bytes).collect()
}

/// A safetensors file with one tensor; `padding` makes its header longer.
fn safetensors(data: &[u8], padding: usize) -> Vec<u8> {
    let (count, bytes) = (data.len() / 2, data.len());
    let header = format!(
        r#"{{"w":{{"dtype":"BF16","shape":[{count}],"data_offsets":[0,{bytes}]}}}}{}"#,
        " ".repeat(padding)
    );
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}

/// A text to which each version adds lines, and of which it changes some.
fn trees(version: usize) -> Vec<u8> {
    let line = |n: usize| {
        let of = noise((n * 7 + usize::from(n % 50 == version)) as u64, 24);
        let digits: String = of.iter().map(|byte| format!("{byte}.")).collect();
        format!("tree {n}: split {digits} leaf\n")
    };
    (0..2_000 + 200 * version).map(line).collect::<String>().into_bytes()
}

fn files(version: usize) -> [(&'static str, Vec<u8>); 2] {
    let model = safetensors(&weights(version), 40 * version);
    [("model.safetensors", model), ("trees.txt", trees(version))]
}

/// A store with a history of versions, and the stored bytes of each.
fn history() -> (Bench, Vec<u64>) {
    let bench = Bench::new();
    let stored = (0..VERSIONS).map(|version| seal(&bench, version)["stored_bytes"].as_u64());
    let stored = stored.map(|bytes| bytes.expect("a number")).collect();
    (bench, stored)
}

fn seal(bench: &Bench, version: usize) -> Value {
    for (name, bytes) in files(version) {
        bench.write(&format!("source/{name}"), bytes);
    }
    let source = bench.root.join("source");
    let message = format!("step {version}");
    bench.cli_json(&["snapshot", "m", source.to_str().expect("text"), "-m", &message])
}

/// Every version gives back what it was given.
#[track_caller]
fn check_contents(bench: &Bench) {
    for version in 0..VERSIONS {
        let to = bench.root.join(format!("out-{version}"));
        let reference = format!("m/v{}", version + 1);
        bench.cli(&["export", &reference, to.to_str().expect("text")]).ok();
        for (name, bytes) in files(version) {
            assert!(fs::read(to.join(name)).unwrap() == bytes, "{reference}/{name}");
        }
        fs::remove_dir_all(to).unwrap();
    }
}

fn packs(bench: &Bench) -> Vec<PathBuf> {
    let below = |path: &Path| -> Vec<PathBuf> {
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let mut found: Vec<_> =
        below(&bench.store.join("packs")).iter().flat_map(|folder| below(folder)).collect();
    found.sort_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
    found
}

/// The records of all packs.
fn records(bench: &Bench) -> Vec<Value> {
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let shown = |path| bench.cli_json(&["debug", "pack", &name(path)]);
    let records = |path| shown(path)["records"].as_array().expect("a list").clone();
    packs(bench).iter().flat_map(records).collect()
}

#[test]
fn a_history_takes_what_its_changes_take() {
    let (bench, stored) = history();
    let first = stored[0];
    for (version, bytes) in stored.iter().enumerate().skip(1) {
        assert!(bytes * 2 < first, "version {version}: {bytes} of {first} bytes");
    }
    let records = records(&bench);
    let codecs: BTreeSet<_> =
        records.iter().map(|record| record["codec"].as_str().unwrap().to_owned()).collect();
    assert!(codecs.contains("delta") && codecs.contains("patch"), "{codecs:?}");
    let deepest = records.iter().map(|record| record["depth"].as_u64().unwrap()).max();
    assert_eq!(deepest, Some(DEPTH_MAX));
    check_contents(&bench);
    bench.cli(&["verify"]).ok();
    bench.cli(&["verify", "--read-data"]).ok();
    fs::remove_dir_all(bench.store.join("catalog")).unwrap();
    check_contents(&bench);
}

#[test]
fn a_version_is_read_through_the_mount_whatever_it_rests_on() {
    let (bench, _) = history();
    let mount = Mount::on(bench);
    for version in (0..VERSIONS).rev() {
        for (name, bytes) in files(version) {
            let path = mount.path(format!("m/v{}/{name}", version + 1));
            assert!(fs::read(path).unwrap() == bytes, "{version} {name}");
        }
    }
}

#[test]
fn a_missing_base_is_named_for_each_version_that_needs_it() {
    let (bench, _) = history();
    let first = packs(&bench).remove(0);
    let away = bench.root.join("away");
    fs::rename(&first, &away).unwrap();
    for options in [&["verify"][..], &["verify", "--read-data"]] {
        let found = bench.cli(options).exits(6);
        let text = format!("{found:?}");
        for version in 1..=VERSIONS {
            assert!(text.contains(&format!("m/v{version}")), "{text}");
        }
    }
    fs::rename(&away, &first).unwrap();
    bench.cli(&["verify", "--read-data"]).ok();
    check_contents(&bench);
}

#[test]
fn a_damaged_base_is_never_served_and_heals_when_its_content_comes_again() {
    let (bench, _) = history();
    let first = packs(&bench).remove(0);
    let whole = fs::read(&first).unwrap();
    let mut damaged = whole.clone();
    // Every hundredth byte of the records, none of header, footer and trailer.
    damaged[16..].iter_mut().step_by(100).take(whole.len() / 200).for_each(|byte| *byte ^= 1);
    fs::remove_file(&first).unwrap();
    fs::write(&first, &damaged).unwrap();
    bench.cli(&["verify", "--read-data"]).exits(6);
    let to = bench.root.join("out");
    bench.cli(&["export", "m/v3", to.to_str().unwrap()]).exits(6).says("is damaged");
    // Sealing what was sealed puts anew what is damaged, alone, and all that rests on it is whole.
    assert_eq!(seal(&bench, 0)["version"], "v1");
    check_contents(&bench);
    for _ in 0..2 {
        // Whichever copy a new catalog names.
        fs::remove_dir_all(bench.store.join("catalog")).unwrap();
        check_contents(&bench);
    }
}

#[test]
fn a_file_that_is_there_under_any_name_is_stored_once_and_known_by_both_digests() {
    let bench = Bench::new();
    let model = safetensors(&weights(0), 0);
    let other = safetensors(&weights(1), 0);
    assert_eq!(model.len(), other.len(), "only the content tells them apart");
    let seal = |version: usize, files: &[(&str, &[u8])]| {
        let folder = format!("v{version}");
        for (name, bytes) in files {
            bench.write(&format!("{folder}/{name}"), bytes);
        }
        let source = bench.root.join(folder);
        bench.cli_json(&["snapshot", "m", source.to_str().expect("text")])
    };
    seal(1, &[("a.safetensors", &model), ("empty.safetensors", b"")]);
    let report = seal(2, &[("b.safetensors", &model), ("a.safetensors", &other)]);
    assert!(report["stored_bytes"].as_u64().unwrap() < 200_000, "{report}");
    let report = seal(3, &[("b.safetensors", &model), ("c.safetensors", &model)]);
    assert!(report["stored_bytes"].as_u64().unwrap() < 2_000, "{report}");
    let shown =
        |reference: &str| bench.cli_json(&["show", reference])["metadata"]["artifacts"].clone();
    let line = |reference: &str, path: &str| {
        let files = shown(reference);
        let of = |file: &&Value| file["path"] == path;
        files.as_array().unwrap().iter().find(of).expect("it is listed").clone()
    };
    let first = line("m/v1", "a.safetensors");
    for (reference, path) in
        [("m/v2", "b.safetensors"), ("m/v3", "b.safetensors"), ("m/v3", "c.safetensors")]
    {
        let again = line(reference, path);
        for digest in ["blake3", "sha256"] {
            assert_eq!(again[digest], first[digest], "{reference}/{path}");
        }
    }
    assert_ne!(line("m/v2", "a.safetensors")["sha256"], first["sha256"]);
    let to = bench.root.join("out");
    bench.cli(&["export", "m/v3", to.to_str().expect("text")]).ok();
    assert!(fs::read(to.join("c.safetensors")).unwrap() == model);
    // Of several as long, each is known by its content, and one that only begins alike is new.
    let mut close = model.clone();
    *close.last_mut().expect("not empty") ^= 1;
    seal(4, &[("p.safetensors", &other), ("q.safetensors", &model), ("r.safetensors", &close)]);
    let of_other = line("m/v2", "a.safetensors");
    assert_eq!(line("m/v4", "p.safetensors")["sha256"], of_other["sha256"]);
    assert_eq!(line("m/v4", "q.safetensors")["sha256"], first["sha256"]);
    assert_ne!(line("m/v4", "r.safetensors")["sha256"], first["sha256"]);
    let report = seal(5, &[("1.safetensors", &close), ("2.safetensors", &other)]);
    assert!(report["stored_bytes"].as_u64().unwrap() < 2_000, "{report}");
    for (path, of) in [("1.safetensors", "r.safetensors"), ("2.safetensors", "p.safetensors")] {
        for digest in ["blake3", "sha256"] {
            assert_eq!(line("m/v5", path)[digest], line("m/v4", of)[digest], "{path}");
        }
    }
    // The tables of the copies are those of the first.
    let tables = bench.cli_json(&["debug", "manifest", "m/v3"])["entries"].to_string();
    assert_eq!(tables.matches(r#""name":"w""#).count(), 2, "{tables}");
    bench.cli(&["verify", "--read-data"]).ok();
}
