//! `modelfs stats`: the numbers add up, of the store and of each version, with and without a daemon.

use serde_json::Value;

use crate::harness::{Bench, Mount, noise};

const VERSIONS: [&str; 3] = ["m/v1", "m/v2", "other/v1"];

/// A safetensors file of a long tensor, a short one and a mask.
fn model(seed: u64) -> Vec<u8> {
    let (long, short) = (noise(seed, 2_500_000), noise(9, 4_000));
    let header = concat!(
        r#"{"long":{"dtype":"BF16","shape":[1250,1000],"data_offsets":[0,2500000]},"#,
        r#""short":{"dtype":"F32","shape":[1000],"data_offsets":[2500000,2504000]},"#,
        r#""mask":{"dtype":"BOOL","shape":[64000],"data_offsets":[2504000,2568000]}}"#
    );
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&long);
    file.extend_from_slice(&short);
    file.extend_from_slice(&[1; 64_000]);
    file
}

/// Three versions: the second has the first's model and one more, the third the first's alone.
fn sealed() -> Bench {
    let bench = Bench::new();
    let text = "a line that repeats\n".repeat(20_000);
    for (place, of, files) in [
        ("1", "m", &[("a.safetensors", 1), ("b.safetensors", 1)][..]),
        ("2", "m", &[("a.safetensors", 1), ("deep/c.safetensors", 2)]),
        ("3", "other", &[("a.safetensors", 1)]),
    ] {
        for (name, seed) in files {
            bench.write(&format!("{place}/{name}"), model(*seed));
        }
        bench.write(&format!("{place}/notes.txt"), &text);
        bench.write(&format!("{place}/empty"), "");
        let path = bench.root.join(place);
        bench.cli(&["snapshot", of, path.to_str().expect("text")]).ok();
    }
    bench
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("{key} in {value}"))
}

fn sum(list: &Value, key: &str) -> u64 {
    list.as_array().expect("a list").iter().map(|line| number(line, key)).sum()
}

/// What must hold of any report with `--files`.
fn adds_up(report: &Value) {
    let (logical, stored) = (number(report, "logical_bytes"), number(report, "stored_bytes"));
    let unique = number(report, "unique_bytes");
    let codecs_saved = report["codecs_saved_bytes"].as_i64().expect("a number");
    assert_eq!(logical - number(report, "duplicates_saved_bytes"), unique);
    assert_eq!(unique.checked_add_signed(-codecs_saved), Some(stored));
    let codecs = &report["codecs"];
    assert_eq!(sum(codecs, "chunks"), number(report, "chunks"));
    assert_eq!(sum(codecs, "plain_bytes"), unique);
    assert_eq!(sum(codecs, "stored_bytes"), stored);
    let contents = &report["contents"];
    for list in [&contents["files"], &contents["dtypes"]] {
        assert_eq!((sum(list, "bytes"), sum(list, "stored_bytes")), (logical, stored), "{list}");
    }
    let files = contents["files"].as_array().expect("a list");
    assert_eq!(files.len() as u64, number(report, "files"));
    for file in files {
        assert_eq!(sum(&file["codecs"], "plain_bytes"), number(file, "bytes"), "{file}");
        assert_eq!(sum(&file["codecs"], "stored_bytes"), number(file, "stored_bytes"), "{file}");
    }
    assert_eq!(sum(&contents["dtypes"], "tensors"), sum(&contents["files"], "tensors"));
    assert_eq!(number(report, "missing_chunks"), 0);
}

fn check(bench: &Bench) {
    let store = bench.cli_json(&["stats", "--files"]);
    adds_up(&store);
    assert_eq!((number(&store, "models"), number(&store, "versions")), (2, 3));
    let used = number(&store, "stored_bytes") + number(&store, "unused_bytes");
    let overhead = number(&store, "pack_bytes").checked_sub(used).expect("records are in packs");
    assert!(overhead < 64 * number(&store, "chunks") + 64 * number(&store, "packs"), "{store}");
    let mut logical = 0;
    for version in VERSIONS {
        let report = bench.cli_json(&["stats", version, "--files"]);
        adds_up(&report);
        assert_eq!(report["version"], version);
        let (own, shared) = (&report["sharing"]["own"], &report["sharing"]["shared"]);
        for (key, whole) in [
            ("chunks", "chunks"),
            ("plain_bytes", "unique_bytes"),
            ("stored_bytes", "stored_bytes"),
        ] {
            assert_eq!(number(own, key) + number(shared, key), number(&report, whole), "{key}");
        }
        // The generated metadata.json is of this version alone; only the second has weights too.
        let own_tensors = 2_400_000 < number(own, "plain_bytes");
        assert_eq!(own_tensors, version == "m/v2", "{report}");
        logical += number(&report, "logical_bytes");
    }
    assert_eq!(logical, number(&store, "logical_bytes"));
}

#[test]
fn stats_add_up() {
    let bench = sealed();
    check(&bench);
    check(&Mount::on(bench).bench);
}

#[test]
fn stats_say_what_files_and_dtypes_take() {
    let bench = sealed();
    let report = bench.cli_json(&["stats", "m", "--files"]);
    assert_eq!(report["version"], "m/v2");
    let files = report["contents"]["files"].as_array().expect("a list");
    let paths: Vec<_> = files.iter().map(|file| file["path"].as_str().expect("text")).collect();
    let expected = ["a.safetensors", "deep/c.safetensors", "empty", "metadata.json", "notes.txt"];
    assert_eq!(paths, expected);
    assert_eq!((&files[0]["format"], number(&files[0], "tensors")), (&"safetensors".into(), 3));
    assert_eq!((&files[4]["format"], number(&files[4], "tensors")), (&Value::Null, 0));
    let dtypes = report["contents"]["dtypes"].as_array().expect("a list");
    let found: Vec<_> = dtypes
        .iter()
        .map(|line| (line["dtype"].as_str(), number(line, "tensors"), number(line, "bytes")))
        .collect();
    let (bf16, f32, bool) = (2 * 2_500_000, 2 * 4_000, 2 * 64_000);
    let rest = number(&report, "logical_bytes") - bf16 - f32 - bool;
    let expected =
        [(Some("bf16"), 2, bf16), (None, 0, rest), (Some("bool"), 2, bool), (Some("f32"), 2, f32)];
    assert_eq!(found, expected);
    let text = bench.cli(&["stats", "m/v2", "--files"]).ok();
    text.says("only in this version").says("deep/c.safetensors").says("bf16").says("no tensor");
    bench.cli(&["stats"]).ok().says("saved by duplicates").says("made anew when deleted");
    bench.cli(&["stats", "m/v9"]).exits(4);
}
