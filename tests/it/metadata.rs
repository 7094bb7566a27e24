//! `metadata.json`: what is declared, what is found, and the schema that both follow.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Bench, Mount, require_root};
use crate::python::Python;
use crate::syscalls::User;

const JUDGE: [&str; 2] = ["jsonschema==4.26.0", "rfc3339-validator==0.1.4"];
const STRANGER: User = User { uid: 4301, gid: 4301, groups: &[4301] };

/// All that a caller can say.
fn everything() -> Value {
    json!({
        "message": "June data", "metrics": {"auc": 0.93}, "params": {"depth": 6}, "labels": {"team": "risk"},
        "datasets": ["s3://data/june", {"name": "may", "digest": "ab", "rows": 7, "schema": [], "preprocessing": []}],
        "source": {"vcs": "git", "commit": "1f0c", "branch": null, "dirty": false, "entrypoint": "train.py"},
        "environment": {"python": "3.11.7", "packages": {"numpy": "2.0"}, "os": "Linux", "seeds": [1],
                        "gpu": [{"model": "H100"}]},
        "run": {"started": "2026-06-01T12:00:00Z", "ended": "2026-06-01T13:00:00Z", "duration_s": 3600.0,
                "exit_code": 0, "experimenter": "ann", "experiment": "e1", "ci": {"GITHUB_RUN_ID": "7"}},
        "parents": ["base/v3"],
    })
}

/// Files that trainers leave, at the root and below.
const TRAINERS: [(&str, &str); 8] = [
    ("metrics.json", r#"{"auc": 0.1, "f1": NaN, "loss": 0.25}"#),
    ("params.yaml", "depth: 9\nlr: 0.1\napi_key: verysecret\n"),
    (
        "model/MLmodel",
        "run_id: 77aa\nflavors:\n  python_function: {python_version: 3.10.1}\n\
         signature:\n  inputs: '[{\"type\": \"double\", \"name\": \"age\"}]'\n",
    ),
    (
        "hf/config.json",
        r#"{"model_type": "bert", "_name_or_path": "org/base", "transformers_version": "4.4"}"#,
    ),
    ("hf/README.md", "---\nlicense: mit\ndatasets: [may, imdb]\n---\n# Hello\n"),
    ("hf/trainer_state.json", r#"{"epoch": 2.0, "log_history": [{"eval_f1": 0.8}]}"#),
    (
        "dvc.lock",
        "stages:\n  train:\n    cmd: x\n    deps:\n    - {path: raw.csv, md5: aa, size: 3}\n",
    ),
    ("params.json", "[1, 2]"),
];

fn metadata(mount: &Mount, version: &str) -> Value {
    let text = mount.text(&format!("churn/{version}/metadata.json"));
    serde_json::from_str(&text).expect("metadata is JSON")
}

#[test]
fn metadata_follows_the_schema_that_the_mount_serves() {
    let mount = Mount::with_churn();
    mount.fill_draft("v1");
    mount.seal("churn", "plain");
    mount.fill_draft("v2");
    let files: Vec<_> = TRAINERS.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
    mount.seal_files("churn", &files, &everything().to_string());
    let schema = mount.path(".modelfs/schema/metadata-v1.json");
    let (first, second) =
        (mount.path("churn/v1/metadata.json"), mount.path("churn/v2/metadata.json"));
    let python = Python::with("metadata", &JUDGE);
    let arguments: [&Path; 3] = [&schema, &first, &second];
    assert_eq!(python.run("metadata.py", &arguments), json!([]));
    let names = mount.names(".modelfs");
    assert!(names.contains(&"schema".to_owned()), "{names:?}");
    assert_eq!(mount.names(".modelfs/schema"), ["metadata-v1.json"]);
}

#[test]
fn what_was_declared_counts_before_what_was_found() {
    let mount = Mount::with_churn();
    let files: Vec<_> = TRAINERS.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
    let answer = mount.seal_files("churn", &files, &everything().to_string());
    let notes = answer["notes"].to_string();
    assert!(notes.contains("`params.json` was not understood: it is no object"), "{answer}");
    let found = metadata(&mount, "v1");
    assert_eq!(found["metrics"], json!({"auc": 0.93, "loss": 0.25, "epoch": 2.0, "eval_f1": 0.8}));
    assert_eq!(found["params"], json!({"depth": 6, "lr": 0.1, "api_key": "***"}));
    assert_eq!(
        found["labels"],
        json!({"team": "risk", "mlflow_flavors": ["python_function"],
                                       "model_type": "bert", "license": "mit"})
    );
    let names: Vec<_> =
        found["datasets"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["s3://data/june", "may", "raw.csv", "imdb"]);
    assert_eq!(found["parents"], json!([{"name": "base/v3"}, {"name": "org/base"}]));
    assert_eq!(found["environment"]["python"], "3.11.7");
    assert_eq!(found["environment"]["packages"], json!({"numpy": "2.0", "transformers": "4.4"}));
    assert_eq!(
        (&found["run"]["experiment"], &found["run"]["mlflow_run_id"]),
        (&json!("e1"), &json!("77aa"))
    );
    assert!(found["source"].get("branch").is_none(), "null says nothing: {found}");
    assert_eq!(found["interface"]["inputs"], json!([{"name": "age", "dtype": "double"}]));
    let capture = &found["capture"];
    assert_eq!(
        capture["auto"],
        json!([
            "datasets",
            "environment",
            "interface",
            "labels",
            "metrics",
            "params",
            "parents",
            "run"
        ])
    );
    assert_eq!(
        capture["declared"],
        json!([
            "datasets",
            "environment",
            "labels",
            "metrics",
            "params",
            "parents",
            "run",
            "source"
        ])
    );
    assert_eq!(capture["missing"], json!([]));
    assert!(!found.to_string().contains("verysecret"));
}

#[test]
fn a_model_file_says_what_it_is_and_gaps_are_named() {
    let mount = Mount::with_churn();
    mount.fill_draft("v1");
    mount.seal("churn", "plain");
    let found = metadata(&mount, "v1");
    let weights =
        found["artifacts"].as_array().unwrap().iter().find(|it| it["path"] == "weights.onnx");
    let weights = weights.expect("it was sealed");
    assert!(weights["details"]["operators"].is_object(), "{weights}");
    assert!(found["interface"]["inputs"][0]["dtype"].is_string(), "{found}");
    assert_eq!(found["capture"]["auto"], json!(["interface", "metrics", "params"]));
    assert_eq!(found["capture"]["declared"], json!([]));
    assert_eq!(found["capture"]["missing"], json!(["datasets", "environment", "run", "source"]));
    // What an alias shows, and the command line, are the same.
    let shown = mount.cli_json(&["show", "churn"]);
    assert_eq!(shown["metadata"]["capture"], found["capture"]);
    mount.cli(&["show", "churn"]).ok().says("not known: datasets, environment, run, source");
}

#[test]
fn a_wrong_declaration_seals_nothing_and_names_the_member() {
    let mount = Mount::with_churn();
    mount.fill_draft("v1");
    for (command, why) in [
        (json!({"source": {"dirty": "yes"}}), "`source.dirty` is a text, expected true or false"),
        (json!({"datasets": [{"rows": -1}]}), "`datasets[0].rows` is -1, at least 0"),
        (json!({"parents": [7]}), "`parents[0]` is a number, expected an object"),
        (json!({"run": {"started": "today"}}), "`run.started` is no time"),
        (json!({"environment": "linux"}), "`environment` is a text, expected an object"),
        (json!({"interface": {"inputs": [{"name": "x"}]}}), "`interface.inputs[0]` has no `dtype`"),
        (json!({"sources": {}}), "unknown field `sources`"),
    ] {
        let (errno, answer) = mount.refused("churn", command.to_string().as_bytes());
        assert_eq!(errno, libc::EINVAL, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(why), "{why}: {answer}");
        let file = mount.bench.write("declared.json", command.to_string());
        let out = mount.cli(&["snapshot", "churn", "--metadata", file.to_str().unwrap()]);
        out.exits(2).says(why);
    }
    assert_eq!(mount.names("churn"), ["draft", "snapshot"]);
    let file = mount
        .bench
        .write("declared.json", everything().to_string().replace("\"message\":\"June data\",", ""));
    let args = ["snapshot", "churn", "--metadata", file.to_str().unwrap(), "--metric", "auc=1"];
    mount.cli(&args).ok();
    let found = metadata(&mount, "v1");
    assert_eq!((&found["metrics"]["auc"], &found["params"]["depth"]), (&json!(1), &json!(6)));
    assert_eq!(found["source"]["commit"], "1f0c");
}

#[test]
fn a_run_done_again_with_the_same_result_is_the_same_version() {
    let bench = Bench::new();
    let model = bench.write("model/weights", "w").parent().unwrap().display().to_string();
    let seal = |declared: Value| {
        let file = bench.write("declared.json", declared.to_string());
        let args = ["snapshot", "churn", &model, "--metadata", file.to_str().unwrap()];
        bench.cli_json(&args)["version"].clone()
    };
    let run =
        |hour: u8| json!({"started": format!("2026-06-01T{hour}:00:00Z"), "duration_s": hour});
    assert_eq!(seal(json!({"run": run(10), "source": {"commit": "a"}})), "v1");
    let again = seal(json!({"run": run(11), "source": {"commit": "a"}}));
    assert_eq!(again, "v1", "when it ran makes no difference");
    assert_eq!(seal(json!({"run": run(11), "source": {"commit": "b"}})), "v2");
    assert_eq!(seal(json!({"environment": {"os": "Linux"}})), "v3");
    assert_eq!(seal(json!({})), "v3");
    assert_eq!(seal(json!({"parents": ["x"]})), "v4");
}

#[test]
fn everybody_may_read_the_schema() {
    require_root();
    let mount = Mount::with_churn();
    let path = mount.path(".modelfs/schema/metadata-v1.json");
    let text = crate::syscalls::as_user(STRANGER, || std::fs::read_to_string(&path));
    let schema: Value = serde_json::from_str(&text.expect("it is for all")).expect("JSON");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
}

#[test]
fn a_secret_is_written_down_nowhere_whoever_says_it() {
    let mount = Mount::with_churn();
    let draft = mount.path("churn/draft");
    std::fs::write(draft.join("metadata.json"), r#"{"db": {"password": "sesame"}}"#).expect("room");
    std::fs::write(draft.join("params.json"), r#"{"api_key": "sesame", "lr": 1}"#).expect("room");
    let command = json!({
        "message": "x", "params": {"hf_token": "sesame"}, "labels": {"secret": "sesame"},
        "source": {"remote": "https://ann:sesame@host/r.git"}, "parents": ["s3://u:sesame@b/x"],
        "run": {"command": ["train", "--token", "sesame"], "notes": ["curl -H 'Authorization: a sesame'"]},
        "datasets": [{"name": "d", "preprocessing": ["get https://host/x?sig=sesame"]}],
    });
    mount.seal("churn", &command.to_string());
    let text = mount.text("churn/v1/metadata.json") + &mount.text(".modelfs/history.jsonl");
    assert!(!text.contains("sesame"), "{text}");
    let found = metadata(&mount, "v1");
    assert_eq!(found["user"], json!({"db": {"password": "***"}}));
    assert_eq!(found["params"], json!({"api_key": "***", "hf_token": "***", "lr": 1}));
    assert_eq!(found["source"]["remote"], "https://host/r.git");
}
