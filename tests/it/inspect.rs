//! What model files say of themselves is what their own libraries say of them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::harness::{Bench, Mount, Output, as_user_command, require_root, setting};
use crate::python::Python;
use crate::syscalls::{self, User};

/// A value within a description by its path: members with dots between them, which names may have too.
fn lookup<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    if path.is_empty() {
        return Some(value);
    }
    let ends = path.match_indices('.').map(|(at, _)| at).chain([path.len()]);
    ends.into_iter().find_map(|end| {
        let rest = path.get(end + 1..).unwrap_or("");
        lookup(value.get(&path[..end])?, rest)
    })
}

/// What the description has under a path of `inspected.py`.
fn found(description: &Value, path: &str) -> Value {
    if path == "tensors" {
        let listed = description["tensors"].as_array().expect("tensors are listed").iter();
        let mut facts: Vec<Value> =
            listed.map(|it| json!([it["name"], it["dtype"], it["shape"]])).collect();
        facts.sort_by_key(Value::to_string);
        return facts.into();
    }
    if let Some(path) = path.strip_suffix(".keys") {
        let object = lookup(description, path).and_then(Value::as_object).expect("an object");
        return object.keys().cloned().collect::<Vec<_>>().into();
    }
    lookup(description, path).cloned().unwrap_or(Value::Null)
}

/// Compares what is said of each file with the facts of its library.
#[track_caller]
fn check_descriptions(bench: &Bench, folder: &Path, expected: &Map<String, Value>) {
    let mut wrong = Vec::new();
    for (name, facts) in expected {
        let path = folder.join(name);
        let shown = bench.cli_json(&["inspect", path.to_str().expect("text")]);
        for (path, mut value) in facts.as_object().expect("facts by path").clone() {
            if path == "tensors" {
                value.as_array_mut().expect("tensors").sort_by_key(Value::to_string);
            }
            let found = found(&shown["description"], &path);
            if found != value {
                wrong.push(format!("{name} {path}: found {found}, the library says {value}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_description_of_tflite_knows_every_operator_and_type() {
    let requirements = ["flatbuffers==25.12.19", "numpy==2.4.6", "tflite==2.18.0"];
    let bench = Bench::new();
    let folder = bench.root.join("models");
    fs::create_dir(&folder).expect("a fresh directory");
    let expected = Python::with("tflite", &requirements).run("tflite_model.py", &[&folder]);
    check_descriptions(&bench, &folder, expected.as_object().expect("files by name"));
}

#[test]
fn a_description_says_what_the_library_of_the_format_says() {
    let python = Python::models();
    let bench = Bench::new();
    let folder = bench.root.join("models");
    fs::create_dir(&folder).expect("a fresh directory");
    let expected = python.run("inspected.py", &[&folder]);
    let expected = expected.as_object().expect("files by name");
    assert!(20 <= expected.len(), "{} files", expected.len());
    check_descriptions(&bench, &folder, expected);
    let evil = bench.cli(&["inspect", folder.join("evil.pkl").to_str().expect("text")]).ok();
    assert!(evil.stdout.contains("which runs commands"), "{evil:?}");

    // A version says the same of its files as the files did on disk.
    let source = folder.to_str().expect("text");
    bench.cli(&["snapshot", "many", source]).ok();
    let version = bench.cli_json(&["inspect", "many/v1"]);
    let files = version["files"].as_array().expect("files");
    assert_eq!(files.len(), expected.len());
    for file in files {
        let path = folder.join(file["path"].as_str().expect("a path"));
        let on_disk = bench.cli_json(&["inspect", path.to_str().expect("text")]);
        assert_eq!(file["description"], on_disk["description"], "{path:?}");
    }
}

#[test]
fn tensors_of_pytorch_are_those_that_pytorch_loads() {
    let bench = Bench::new();
    // With its libraries for GPUs PyTorch takes gigabytes: else asked is what it said of the fixtures.
    let folder = match setting("MODELFS_TEST_TORCH", 0) {
        0 => fixture("formats"),
        _ => {
            let folder = bench.root.join("torch");
            fs::create_dir(&folder).expect("room for a directory");
            let python = Python::with("torch", &["torch==2.15.0", "numpy==2.4.6"]);
            let mut command = Command::new(python.interpreter());
            Output::of(command.arg(fixture("formats/make_torch.py")).arg(&folder)).ok();
            folder
        }
    };
    let facts = fs::read(folder.join("torch.json")).expect("facts by file");
    let facts: Map<String, Value> = serde_json::from_slice(&facts).expect("facts by file");
    assert_eq!(facts.len(), 5);
    check_descriptions(&bench, &folder, &facts);
}

#[test]
fn a_file_a_version_or_what_is_in_it_can_be_inspected() {
    let bench = Bench::new();
    let fixture = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
    let source = fixture("fixtures/churn/v1");
    bench.cli(&["snapshot", "churn", source.to_str().expect("text")]).ok();
    let onnx = fixture("fixtures/churn/v1/weights.onnx");
    let text = bench.cli(&["inspect", onnx.to_str().expect("text")]).ok().stdout;
    for part in ["format", "onnx", "operators", "TreeEnsembleClassifier", "f32[?, 10]"] {
        assert!(text.contains(part), "expected {part} in {text}");
    }
    for target in ["churn/v1/weights.onnx", "churn/latest/weights.onnx"] {
        let report = bench.cli_json(&["inspect", target]);
        assert_eq!(report["files"].as_array().map(Vec::len), Some(1), "{report}");
        assert_eq!(report["files"][0]["format"], "onnx");
    }
    let report = bench.cli_json(&["inspect", "churn", "weights.onnx"]);
    assert_eq!(report["version"], "v1");
    let all = bench.cli(&["inspect", "churn"]).ok().stdout;
    assert!(all.contains("weights.onnx") && !all.contains("metadata.json"), "{all}");
    bench.cli(&["inspect", "churn/v9"]).exits(4);
    bench.cli(&["inspect", "churn/v1/none.onnx"]).exits(4).says("none.onnx");
    bench.cli(&["inspect", "nobody"]).exits(4);
    bench.cli(&["inspect", "../nothing"]).exits(4);
    bench.cli(&["inspect", "churn/draft"]).exits(2).says("name a file, MODEL");
    bench.cli(&["inspect", "/"]).exits(2);
    // A header that lies is told, and is no failure.
    let cut = bench.write("cut.safetensors", "\u{7f}\0\0\0\0\0\0\0{\"a\":");
    let text = bench.cli(&["inspect", cut.to_str().expect("text")]).ok().stdout;
    assert!(text.contains("unclear"), "{text}");
}

#[test]
fn what_files_say_of_themselves_is_made_when_it_is_opened() {
    let mount = Mount::new();
    let source = fixture("churn/v1");
    for message in ["first", "second"] {
        let source = source.to_str().expect("text");
        mount.cli(&["snapshot", "churn", source, "-m", message]).ok();
    }
    assert_eq!(mount.names("churn/.modelfs/inspect"), ["v1.json", "v2.json"]);
    assert!(mount.names("churn/.modelfs").contains(&"inspect".to_owned()));
    let path = mount.path("churn/.modelfs/inspect/v1.json");
    assert_eq!(fs::metadata(&path).unwrap().len(), 4_096, "nothing was made yet");
    let text = mount.text("churn/.modelfs/inspect/v1.json");
    assert_eq!(fs::metadata(&path).unwrap().len(), text.len() as u64);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report, mount.cli(&["inspect", "churn/v1", "--json"]).ok().json());
    let format = |file: &Value| file["format"].as_str().map(str::to_owned);
    let formats: Vec<_> = report["files"].as_array().unwrap().iter().filter_map(format).collect();
    assert_eq!(formats, ["json", "json", "onnx"]);

    mount.retarget("churn", "prod", "v1").unwrap();
    mount.retarget("churn", "a.json", "v1").unwrap();
    assert_eq!(mount.text("churn/.modelfs/inspect/prod.json"), text);
    assert_eq!(
        mount.text("churn/.modelfs/inspect/a.json.json"),
        text,
        "an alias by its whole name"
    );
    let open = fs::File::open(mount.path("churn/.modelfs/inspect/prod.json")).unwrap();
    mount.retarget("churn", "prod", "v2").unwrap();
    let moved = mount.text("churn/.modelfs/inspect/prod.json");
    assert!(moved.contains("\"v2\"") && moved != text, "{moved}");
    assert_eq!(io::read_to_string(open).unwrap(), text, "what is open stays as it is");

    for missing in ["v3.json", "v1", "v1.txt", ".json", "draft.json"] {
        let error = fs::read(mount.path("churn/.modelfs/inspect").join(missing)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{missing}");
    }
    let read_only = Err(libc::EROFS);
    assert_eq!(syscalls::errno(fs::write(&path, "x")), read_only);
    assert_eq!(syscalls::errno(fs::remove_file(&path)), read_only);
    assert!(!mount.path(".modelfs/inspect").exists(), "versions are of models");
    mount
        .run("dash", "ls -l \"$M\"/churn/.modelfs/inspect && cat \"$M\"/churn/.modelfs/inspect/*")
        .ok();
}

#[test]
fn an_inspection_is_for_who_may_read_the_model() {
    require_root();
    let mount = Mount::new();
    let source = fixture("churn/v1");
    mount.cli(&["snapshot", "churn", source.to_str().expect("text"), "-m", "first"]).ok();
    let [owner, stranger] = [4_001, 4_002].map(|id| User { uid: id, gid: id, groups: &[] });
    mount.run("bash", "chown 4001 \"$M\"/churn && chmod 700 \"$M\"/churn").ok();
    let cat = |user: User| {
        let mut command = as_user_command(user, Path::new("cat"));
        Output::of(command.arg(mount.path("churn/.modelfs/inspect/v1.json")))
    };
    cat(owner).ok().says("onnx");
    cat(stranger).exits(1).says("Permission denied");
    mount.bench.cli_as(stranger, &["inspect", "churn/v1"]).exits(3);
}

/// A fixture of the tests.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}
