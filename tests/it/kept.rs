//! Taking over what Git LFS, DVC and MLflow keep: states with their dates, messages and figures.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::documents::TOOLS;
use crate::harness::Mount;
use crate::python::Python;

fn versions<'a>(report: &'a Value, model: &str) -> &'a [Value] {
    let models = report["models"].as_array().expect("a list");
    let found = models.iter().find(|it| it["name"] == model);
    let found = found.unwrap_or_else(|| panic!("no model `{model}`: {report}"));
    found["versions"].as_array().expect("a list")
}

/// The members that a version has by the name of a model and its number.
fn metadata(mount: &Mount, version: &str) -> Value {
    let text = fs::read(mount.path(version).join("metadata.json")).expect("it is mounted");
    serde_json::from_slice(&text).expect("JSON")
}

#[test]
fn what_other_tools_keep_is_taken_over_with_what_they_know() {
    let mount = Mount::new();
    let yard = mount.bench.root.join("yard");
    let made = Python::with("documents", &TOOLS).run("kept.py", &[&yard]);
    let report = mount.bench.cli_json(&["inventory", "yard", "--plan", "plan.toml"]);

    let times: Vec<_> = versions(&report, "ranker").iter().map(|it| &it["modified"]).collect();
    assert_eq!(times, [&json!("2024-03-01T10:00:00Z"), &json!("2024-03-03T10:00:00Z")]);
    let gone = &report["unreadable"][0];
    assert!(gone["why"].as_str().expect("text").contains("git lfs fetch"), "{gone}");
    for (model, keeper, count) in [
        ("ranker", "git-lfs", 2),
        ("scorer", "dvc", 2),
        ("bundle", "dvc", 2),
        ("churn-prod", "mlflow", 2),
        ("churn", "mlflow", 1),
        ("churn-scaler", "mlflow", 3),
    ] {
        let versions = versions(&report, model);
        assert_eq!(versions.len(), count, "{model}: {report}");
        for version in versions {
            assert_eq!(version["kept_by"], keeper, "{version}");
            assert!(
                version.get("copies").is_none() && version.get("faults").is_none(),
                "{version}"
            );
        }
    }
    assert_eq!(report["models"].as_array().map(Vec::len), Some(6), "{report}");
    mount.cli(&["import", "--plan", "plan.toml"]).ok().says("12 versions taken over");

    check_states(&mount, &made);
    check_runs(&mount, &made);
}

/// States in Git have their commits, and the bytes that they had.
fn check_states(mount: &Mount, made: &Value) {
    let first = metadata(mount, "ranker/v1");
    assert_eq!(first["message"], "ranker of day 1");
    assert_eq!(first["labels"]["git_author"], "Ann");
    assert_eq!(first["labels"]["git_commit"].as_str().map(str::len), Some(40));
    assert_eq!(first["artifacts"][0]["sha256"], made["lfs"]["sha256"][0]);
    let last = metadata(mount, "ranker/v2");
    assert_eq!(last["artifacts"][0]["sha256"], made["lfs"]["sha256"][2]);
    for index in [0, 1] {
        let version = metadata(mount, &format!("scorer/v{}", index + 1));
        assert_eq!(version["artifacts"][0]["sha256"], made["dvc"]["sha256"][index]);
        assert_eq!(version["message"], format!("scorer of day {}", index + 11));
    }
    let bundle = mount.path("bundle/v2");
    assert!(bundle.join("parts/net.npz").exists() && bundle.join("config.json").exists());
}

/// Runs have their figures, registered versions their numbers and the alias.
fn check_runs(mount: &Mount, made: &Value) {
    let runs = made["runs"].as_array().expect("a list");
    let of = |version: &str, run: &Value| {
        let found = metadata(mount, version);
        assert_eq!(found["labels"]["mlflow_run_id"], run["run"], "{version}");
        assert_eq!(found["params"]["lr"], run["lr"], "{version}");
        assert_eq!(found["metrics"]["auc"], run["auc"], "{version}");
    };
    of("churn/v1", &runs[0]);
    of("churn-prod/v1", &runs[1]);
    of("churn-prod/v2", &runs[2]);
    for (index, run) in (1..).zip(runs) {
        of(&format!("churn-scaler/v{index}"), run);
    }
    let champion = fs::read_link(mount.path("churn-prod/champion")).expect("an alias");
    assert_eq!(champion, Path::new("v2"));
}
