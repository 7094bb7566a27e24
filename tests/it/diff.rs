//! `modelfs diff`: figures that numpy agrees with, and no byte read that need not be.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Bench, Mount, Output, as_user_command, noise, require_root};
use crate::python::Python;
use crate::syscalls::{self, User};

/// A safetensors file of tensors of `u8` that lie in this order.
fn safetensors(tensors: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut lines, mut data) = (Vec::new(), Vec::new());
    for (name, bytes) in tensors {
        let (start, length) = (data.len(), bytes.len());
        let name = Value::from(*name);
        lines.push(format!(
            r#"{name}:{{"dtype":"U8","shape":[{length}],"data_offsets":[{start},{}]}}"#,
            start + length
        ));
        data.extend_from_slice(bytes);
    }
    let header = format!("{{{}}}", lines.join(","));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&data);
    file
}

fn seal(bench: &Bench, model: &str, path: &Path) {
    bench.cli(&["snapshot", model, path.to_str().expect("text")]).ok();
}

/// Seals files with these contents as the next version.
fn seal_files(bench: &Bench, model: &str, number: u32, files: &[(&str, &[u8])]) {
    for (name, bytes) in files {
        bench.write(&format!("{model}{number}/{name}"), bytes);
    }
    seal(bench, model, &bench.root.join(format!("{model}{number}")));
}

/// Whether two figures are one to a millionth.
fn is_close(found: &Value, expected: &Value) -> bool {
    match (found.as_f64(), expected.as_f64()) {
        (Some(found), Some(expected)) => (found - expected).abs() <= 1e-6 * expected.abs(),
        (None, None) => true,
        _ => false,
    }
}

/// All numbers of an object, by their paths.
fn numbers(value: &Value, path: &str, found: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(members) => {
            members
                .iter()
                .for_each(|(name, value)| numbers(value, &format!("{path}.{name}"), found));
        }
        value => drop(found.insert(path.to_owned(), value.clone())),
    }
}

#[test]
fn figures_are_those_that_numpy_gives() {
    let python = Python::models();
    let bench = Bench::new();
    let place = bench.root.join("figures");
    let expected = python.run("figures.py", &[&place]);
    seal(&bench, "m", &place.join("1"));
    seal(&bench, "m", &place.join("2"));
    let report = bench.cli_json(&["diff", "m/v1", "m/v2"]);
    let changed = report["tensors"]["changed"].as_array().expect("a list");
    let by_name = |name: &str| changed.iter().find(|it| it["after"]["name"] == name);
    let expected = expected.as_object().expect("an object");
    assert_eq!((changed.len(), expected.len() > 40), (expected.len(), true));
    let mut wrong = Vec::new();
    for (name, expected) in expected {
        let found = by_name(name).unwrap_or_else(|| panic!("`{name}` is not in the report"));
        let (mut left, mut right) = (BTreeMap::new(), BTreeMap::new());
        numbers(&found["figures"], "", &mut left);
        numbers(expected, "", &mut right);
        assert_eq!(left.keys().collect::<Vec<_>>(), right.keys().collect::<Vec<_>>(), "{name}");
        for (path, expected) in right {
            if !is_close(&left[&path], &expected) {
                wrong.push(format!("{name}{path}: {}, numpy has {expected}", left[&path]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_tensors_that_changed_are_read() {
    const MIB: usize = 1 << 20;
    let bench = Bench::new();
    let tensors: Vec<Vec<u8>> = (0..20).map(|seed| noise(seed, MIB / 4)).collect();
    let names: Vec<String> = (0..20).map(|number| format!("layer.{number}.weight")).collect();
    let long = noise(99, 4 * MIB);
    let file = |tensors: &[Vec<u8>], long: &[u8]| {
        let all = names.iter().zip(tensors).map(|(name, it)| (name.as_str(), it.as_slice()));
        safetensors(&all.chain([("long", long)]).collect::<Vec<_>>())
    };
    let first = file(&tensors, &long);
    seal_files(&bench, "m", 1, &[("model.safetensors", &first), ("notes.txt", b"one")]);
    let mut changed = tensors.clone();
    changed[7] = noise(77, MIB / 4);
    let second = file(&changed, &long);
    seal_files(&bench, "m", 2, &[("model.safetensors", &second), ("notes.txt", b"one")]);
    let report = bench.cli_json(&["diff", "m/v1", "m/v2"]);
    let of = &report["tensors"];
    assert_eq!((&of["same"], &of["changed_total"]), (&json!(20), &json!(1)));
    assert_eq!(of["changed_bytes"], json!(MIB / 4));
    assert_eq!(report["bytes_read"], json!(2 * MIB / 4), "both sides, and nothing else");
    assert_eq!(report["layers"].as_array().map(Vec::len), Some(1));
    assert_eq!(report["layers"][0]["layer"], "layer.7");

    // One of four chunks of a tensor: what both have is read once, for both.
    let mut partly = long.clone();
    partly[MIB..MIB + 10].fill(7);
    seal_files(&bench, "m", 3, &[("model.safetensors", &file(&changed, &partly))]);
    let report = bench.cli_json(&["diff", "m/v2", "m/v3"]);
    assert_eq!(report["bytes_read"], json!(5 * MIB));
    let same = bench.cli_json(&["diff", "m/v3", "m/v3"]);
    assert_eq!((&same["bytes_read"], &same["files"]["changed_total"]), (&json!(0), &json!(0)));
}

#[test]
fn a_tensor_is_followed_into_other_files_and_names() {
    let bench = Bench::new();
    let [a, b, c] = [1, 2, 3].map(|seed| noise(seed, 50_000));
    let whole = safetensors(&[("a", &a), ("b", &b), ("c", &c)]);
    seal_files(&bench, "m", 1, &[("model.safetensors", &whole), ("old.bin", &noise(9, 5_000))]);
    let mut touched = b.clone();
    touched[0] ^= 1;
    let (first, second) = (safetensors(&[("a", &a)]), safetensors(&[("b", &touched), ("x.c", &c)]));
    seal_files(
        &bench,
        "m",
        2,
        &[("one.safetensors", &first), ("two.safetensors", &second), ("new.bin", &noise(9, 5_000))],
    );
    let report = bench.cli_json(&["diff", "m/v1", "m"]);
    let (files, tensors) = (&report["files"], &report["tensors"]);
    assert_eq!(
        files["renamed"],
        json!([{"before": "old.bin", "after": "new.bin", "bytes": 5_000}])
    );
    assert_eq!((&files["added_total"], &files["removed_total"]), (&json!(2), &json!(1)));
    assert_eq!((&tensors["same"], &tensors["changed_total"]), (&json!(1), &json!(1)));
    let (before, after) = (&tensors["changed"][0]["before"], &tensors["changed"][0]["after"]);
    assert_eq!(
        (&before["file"], &after["file"]),
        (&json!("model.safetensors"), &json!("two.safetensors"))
    );
    let renamed = &tensors["renamed"][0];
    assert_eq!(
        (&renamed["before"]["name"], &renamed["after"]["name"]),
        (&json!("c"), &json!("x.c"))
    );
    let text = bench.cli(&["diff", "m/v1", "m/v2"]).ok();
    text.says("m/v1 → m/v2").says("old.bin → new.bin").says("1 the same (48.8 KiB), 1 changed");
}

#[test]
fn trees_are_those_of_the_libraries_own_dumps() {
    let python = Python::models();
    let bench = Bench::new();
    let place = bench.root.join("trees");
    let expected = python.run("trees.py", &[&place]);
    seal(&bench, "m", &place.join("1"));
    seal(&bench, "m", &place.join("2"));
    let report = bench.cli_json(&["diff", "m/v1", "m/v2"]);
    let found = report["ensembles"].as_array().expect("a list");
    for path in ["lightgbm.txt", "xgboost.json", "xgboost.ubj"] {
        let change = found.iter().find(|it| it["path"] == path);
        let change = change.unwrap_or_else(|| panic!("`{path}` is not in {found:#?}"));
        let expected = &expected[path];
        for count in ["trees_kept", "trees_added", "trees_removed"] {
            assert_eq!(change[count], expected[count], "{path}: {count}");
        }
        assert_eq!(change["trees_kept_first"], expected["trees_kept"], "{path}");
        for (side, index) in [("before", 0), ("after", 1)] {
            for (count, value) in expected["sizes"][index].as_object().expect("an object") {
                assert_eq!(&change[side][count], value, "{path}: {count} {side}");
            }
        }
        let parameters = change["parameters"].as_array().expect("a list");
        for (name, before) in expected["settings"][0].as_object().expect("an object") {
            let change =
                json!({"key": name, "before": before, "after": expected["settings"][1][name]});
            assert!(parameters.contains(&change), "{path}: {change} in {parameters:?}");
        }
        let features = change["features"].as_array().expect("a list");
        let uses = expected["after"].as_object().expect("an object");
        let is_used =
            |name: &str| expected["before"][name]["splits"] != 0 || uses[name]["splits"] != 0;
        for name in uses.keys().filter(|name| is_used(name)) {
            let feature = features.iter().find(|it| it["feature"] == name.as_str());
            let feature = feature.unwrap_or_else(|| panic!("{path}: no feature `{name}`"));
            for side in ["before", "after"] {
                for (figure, value) in expected[side][name].as_object().expect("an object") {
                    let shown = &feature[side][figure];
                    assert!(
                        is_close(shown, value),
                        "{path}: {name} {side} {figure}: {shown} {value}"
                    );
                }
            }
        }
        let constraints = json!([
            {"key": "age", "before": null, "after": "rising"},
            {"key": "evaluation", "before": null, "after": "falling"},
        ]);
        // XGBoost writes no constraints into its models.
        let expected = if path == "lightgbm.txt" { constraints } else { json!([]) };
        assert_eq!(change["constraints"], expected, "{path}");
    }
}

#[test]
fn values_in_files_are_compared_by_name() {
    let bench = Bench::new();
    let config = |layers: u32| json!({"model": {"layers": layers, "width": 64}, "tags": ["a"]});
    let (first, second) = (config(2).to_string(), config(3).to_string());
    seal_files(&bench, "m", 1, &[("config.json", first.as_bytes()), ("broken.json", b"{")]);
    seal_files(&bench, "m", 2, &[("config.json", second.as_bytes()), ("broken.json", b"{}")]);
    let report = bench.cli_json(&["diff", "m/v1", "m/v2"]);
    let values = json!([{"key": "model.layers", "before": 2, "after": 3}]);
    assert_eq!(report["values"], json!([{"path": "config.json", "values": values}]));
    bench.cli(&["diff", "m/v1", "m/v2"]).ok().says("Values in config.json").says("model.layers");
}

#[test]
fn a_file_that_does_not_parse_says_why() {
    let bench = Bench::new();
    let whole = safetensors(&[("w", &[1; 8])]);
    let broken = b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff";
    let first: [(&str, &[u8]); 3] =
        [("a.gguf", b"GGUF"), ("b.gguf", broken), ("m.safetensors", &whole)];
    let second: [(&str, &[u8]); 3] =
        [("a.gguf", broken), ("b.gguf", broken), ("m.safetensors", &whole[..9])];
    seal_files(&bench, "m", 1, &first);
    seal_files(&bench, "m", 2, &second);
    let report = bench.cli_json(&["diff", "m/v1", "m/v2"]);
    let inspected = |version: &str| bench.cli_json(&["inspect", version])["files"].clone();
    let (old, new) = (inspected("m/v1"), inspected("m/v2"));
    let expected = json!([
        {"path": "a.gguf", "before": old[0]["why"], "after": new[0]["why"]},
        {"path": "m.safetensors", "before": null, "after": new[2]["why"]},
    ]);
    assert!(new.as_array().expect("files").iter().all(|file| file["why"].is_string()), "{new}");
    assert_eq!(report["malformed"], expected);
    let text = bench.cli(&["diff", "m/v1", "m/v2"]).ok().says("Files that do not parse");
    text.says("its gguf header does not parse").says("its safetensors header does not parse");
}

#[test]
fn metadata_of_two_models_is_compared() {
    let bench = Bench::new();
    bench.write("files/a.txt", "one");
    let path = bench.root.join("files");
    let path = path.to_str().expect("text");
    bench.cli(&["snapshot", "m", path, "--metric", "auc=0.9", "--param", "lr=0.1"]).ok();
    bench.cli(&["snapshot", "other", path, "--metric", "auc=0.95", "--param", "lr=0.1"]).ok();
    let report = bench.cli_json(&["diff", "m", "other"]);
    let auc = json!([{"key": "auc", "before": 0.9, "after": 0.95}]);
    assert_eq!((&report["metadata"]["metrics"], &report["metadata"]["params"]), (&auc, &json!([])));
    assert_eq!(report["files"]["same"], json!(1));
    let markdown = bench.cli(&["diff", "m", "other", "--markdown"]).ok();
    markdown.says("## m/v1 → other/v1").says("| 0.9 | 0.95 | +0.05 | auc |");
    bench.cli(&["diff", "m", "other", "--markdown", "--json"]).exits(2);
    bench.cli(&["diff", "m/v1", "m/v7"]).exits(4).says("there is no version `m/v7`");
    bench.cli(&["diff", "m/v1"]).exits(2);
}

/// A mount whose model `churn` has two versions that differ in a tensor and a metric.
fn two_versions() -> Mount {
    let mount = Mount::with_churn();
    for (seed, auc) in [(1, "0.9"), (2, "0.95")] {
        let file =
            safetensors(&[("head.weight", &noise(seed, 40_000)), ("body", &noise(9, 80_000))]);
        let command = format!("{{\"metrics\":{{\"auc\":{auc}}}}}");
        mount.seal_files("churn", &[("model.safetensors", &file)], &command);
    }
    mount
}

#[test]
fn a_diff_is_made_when_it_is_opened() {
    let mount = two_versions();
    let path = mount.path("churn/.diff/v1..v2");
    assert_eq!(fs::metadata(&path).unwrap().len(), 4_096, "nothing was made yet");
    let text = mount.text("churn/.diff/v1..v2");
    assert!(text.starts_with("churn/v1 → churn/v2\n") && text.contains("head.weight"), "{text}");
    assert_eq!(fs::metadata(&path).unwrap().len(), text.len() as u64);
    let copy = mount.bench.root.join("copy");
    fs::copy(&path, &copy).unwrap();
    assert_eq!(fs::read_to_string(&copy).unwrap(), text);
    let said = mount.cli(&["diff", "churn/v1", "churn/v2"]).ok();
    assert_eq!(said.stdout, text, "every door says the same");
    let json = mount.text("churn/.diff/v1..v2.json");
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report, mount.cli(&["diff", "churn/v1", "churn/v2", "--json"]).ok().json());
    assert_eq!(report["bytes_read"], json!(80_000));

    mount.retarget("churn", "prod", "v1").unwrap();
    mount.retarget("churn", "a..b.json", "v2").unwrap();
    assert_eq!(mount.text("churn/.diff/prod..latest"), text);
    assert_eq!(mount.text("churn/.diff/v1..a..b.json"), text, "an alias by its whole name");
    assert_eq!(mount.text("churn/.diff/v1..a..b.json.json"), json);
    let open = fs::File::open(mount.path("churn/.diff/prod..latest")).unwrap();
    mount.retarget("churn", "prod", "v2").unwrap();
    let moved = mount.text("churn/.diff/prod..latest");
    assert!(moved.starts_with("churn/v2 → churn/v2\n"), "{moved}");
    assert_eq!(io::read_to_string(open).unwrap(), text, "what is open stays as it is");

    for missing in ["v1..v3", "v1", "v1..", "v1..v2.text", "nothing..v1", "v1...v2", "draft..v1"] {
        let error = fs::read(mount.path("churn/.diff").join(missing)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{missing}");
    }
    assert!(mount.names("churn/.diff").is_empty());
    assert!(!mount.names("churn").contains(&".diff".to_owned()));
    let read_only = Err(libc::EROFS);
    assert_eq!(syscalls::errno(fs::write(&path, "x")), read_only);
    assert_eq!(syscalls::errno(fs::remove_file(&path)), read_only);
    assert_eq!(syscalls::errno(fs::create_dir(mount.path("churn/.diff/x"))), read_only);
    mount.run("bash", "cat \"$M\"/churn/.diff/v2..v1 && wc -c < \"$M\"/churn/.diff/v2..v1").ok();
}

#[test]
fn a_diff_is_for_who_may_read_the_model() {
    require_root();
    let mount = two_versions();
    let [owner, stranger] = [4_001, 4_002].map(|id| User { uid: id, gid: id, groups: &[] });
    mount.run("bash", "chown 4001 \"$M\"/churn && chmod 700 \"$M\"/churn").ok();
    let cat = |user: User| {
        let mut command = as_user_command(user, Path::new("cat"));
        Output::of(command.arg(mount.path("churn/.diff/v1..v2")))
    };
    cat(owner).ok().says("head.weight");
    cat(stranger).exits(1).says("Permission denied");
    mount.bench.cli_as(stranger, &["diff", "churn/v1", "churn/v2"]).exits(3);
}

#[test]
fn a_diff_that_cannot_be_made_says_why() {
    let mount = two_versions();
    let packs = mount.bench.store.join("packs");
    mount.run("bash", "rm -rf \"$STORE\"/hot/* && sync").ok();
    for folder in fs::read_dir(&packs).unwrap() {
        for pack in fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = pack.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle..middle + 64].fill(0xff);
            fs::write(&path, bytes).unwrap();
        }
    }
    let error = fs::read(mount.path("churn/.diff/v1..v2")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{}", mount.log());
    let why = mount.text("churn/.modelfs/why");
    assert!(why.contains("EIO") && why.contains("verify"), "{why}");
    mount.cli(&["diff", "churn/v1", "churn/v2"]).exits(6);
}
