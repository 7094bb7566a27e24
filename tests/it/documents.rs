//! Documents about a version: the tools that they are for take them.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::{Bench, Mount, Output, fixtures, require_program};
use crate::python::Python;

/// The tools, and what they need but do not ask for: pyOpenSSL of model-signing, NumPy and pandas of MLflow.
pub const TOOLS: [&str; 7] = [
    "cyclonedx-python-lib[json-validation]==11.12.0",
    "mlflow-skinny==3.17.2",
    "model-signing==1.1.1",
    "numpy==2.4.6",
    "onnx==1.23.2",
    "pandas==3.1.1",
    "pyOpenSSL==26.4.0",
];

#[test]
fn other_tools_take_what_export_writes() {
    require_program("sha256sum", "coreutils");
    let mount = Mount::with_churn();
    mount.fill_draft("v1");
    let command = r#"{"message":"June data","metrics":{"auc":0.93},"labels":{"license":"apache-2.0"},
        "datasets":[{"name":"June","uri":"s3://data/june","role":"train"}]}"#;
    mount.seal("churn", &command.replace('\n', ""));
    let (python, root) = (Python::with("documents", &TOOLS), &mount.bench.root);
    python.run("documents.py", &[Path::new("key"), root]);
    let private = root.join("key.pem").display().to_string();
    let exported = root.join("out");
    let all = ["--sha256sums", "--format", "cyclonedx", "--format", "mlflow"];
    let signed = ["--format", "model-signing", "--key", &private];
    let out = exported.to_str().expect("text");
    let mut args = vec!["export", "churn/latest", out];
    args.extend(all.into_iter().chain(signed));
    mount.cli(&args).ok().says("model.sig");

    let sums = Output::of(Command::new("sha256sum").args(["-c", "SHA256SUMS"]).current_dir(out));
    assert_eq!(sums.ok().stdout.lines().count(), 4, "three files and the metadata");
    python.run("documents.py", &[Path::new("check"), &exported, &mount.path("churn/v1"), root]);
}

#[test]
fn documents_go_without_files_and_not_over_them() {
    let bench = Bench::new();
    let source = fixtures().join("v1").display().to_string();
    bench.cli(&["snapshot", "churn", &source]).ok();
    let args = ["export", "churn", "out", "--sha256sums", "--documents-only"];
    bench.cli(&args).ok();
    let names: Vec<_> = fs::read_dir(bench.root.join("out"))
        .expect("it was written")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(names, ["SHA256SUMS"]);
    let sums = fs::read_to_string(bench.root.join("out/SHA256SUMS")).expect("text");
    assert!(sums.contains("  weights.onnx\n"), "{sums}");

    bench.write("own/SHA256SUMS", "mine");
    bench.write("own/model.bin", "weights");
    bench.cli(&["snapshot", "own", "own"]).ok();
    let refused = bench.cli(&["export", "own", "mine", "--sha256sums"]);
    refused.exits(2).says("own/v1 has a file of its own called `SHA256SUMS`");
    assert!(!bench.root.join("mine").exists(), "a refused export leaves nothing");
}

#[test]
fn a_signature_needs_a_key_that_can_sign() {
    let bench = Bench::new();
    let source = fixtures().join("v1").display().to_string();
    bench.cli(&["snapshot", "churn", &source]).ok();
    bench.write("key.pem", "no key");
    let export = |more: &[&str]| {
        let args: Vec<&str> =
            ["export", "churn", "out"].into_iter().chain(more.iter().copied()).collect();
        bench.cli(&args).exits(2)
    };
    export(&["--format", "model-signing"]).says("needs a key");
    export(&["--format", "mlflow", "--key", "key.pem"]).says("goes with");
    export(&["--format", "model-signing", "--key", "key.pem"])
        .says("no private key of the curve P-256");
    export(&["--documents-only"]).says("leaves nothing to write");
    assert!(!bench.root.join("out").exists());
}
