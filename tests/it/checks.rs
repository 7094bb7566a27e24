//! `modelfs check`: commands that judge a version, run by whoever asks, recorded by the store.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Bench, Mount, Output, require_root, wait_for};
use crate::syscalls::{self, User};

const OWNER: User = User { uid: 4201, gid: 4201, groups: &[4201] };
const TESTER: User = User { uid: 4202, gid: 4202, groups: &[4202] };

/// Prints the AUC that stands in the version's file, and where it found it.
const MEASURE: &str = r#"
[[check]]
name = "accuracy"
run = ["sh", "-c", "echo in $MODELFS_PATH of $MODELFS_REF; echo \"{\\\"auc\\\": $(cat $MODELFS_PATH/auc)}\""]
against = "prod"
metrics = { auc = { min = 0.6, max_drop = 0.05 } }
"#;

/// `churn` with a version for each AUC.
fn measured(aucs: &[&str]) -> Mount {
    let mount = Mount::with_churn();
    for auc in aucs {
        mount.seal_files("churn", &[("auc", auc.as_bytes())], auc);
    }
    mount
}

/// `modelfs check REF --suite` with this text as the suite.
fn check(bench: &Bench, reference: &str, suite: &str) -> Output {
    let file = bench.write("suite/checks.toml", suite);
    bench.cli(&["check", reference, "--suite", file.to_str().expect("plain")])
}

/// What was recorded of the last check.
fn last_record(bench: &Bench) -> Value {
    let history = bench.cli_json(&["history", "churn"]);
    let records = history["records"].as_array().expect("records").clone();
    records.into_iter().rfind(|it| it["op"]["kind"] == "check").expect("a check")["op"].clone()
}

#[test]
fn a_check_runs_on_the_files_of_the_version_with_and_without_a_mount() {
    let mut mount = measured(&["0.90"]);
    check(&mount.bench, "churn/v1", MEASURE).ok().says("accuracy  passed  auc=0.9");
    let record = last_record(&mount.bench);
    let place = format!("in {} of churn/v1", mount.path("churn/v1").display());
    assert!(record["output"].as_str().unwrap().contains(&place), "{record}");
    assert_eq!((&record["passed"], &record["exit"]), (&true.into(), &0.into()));
    assert_eq!(record["metrics"]["auc"], 0.9);
    assert!(record["suite"].is_string() && record["against"].is_null(), "{record}");
    mount.stop();
    let bench = mount.into_bench();
    check(&bench, "churn", MEASURE).ok();
    let output = last_record(&bench)["output"].as_str().unwrap().to_owned();
    let copy = output.strip_prefix("in ").and_then(|rest| rest.split(' ').next()).unwrap();
    assert!(!copy.starts_with(bench.root.to_str().unwrap()), "{output}");
    assert!(!fs::exists(copy).unwrap(), "the copy is gone: {copy}");
}

#[test]
fn a_version_is_compared_with_the_one_in_an_alias() {
    let mount = measured(&["0.90", "0.86", "0.80", "0.5"]);
    let bench = &mount.bench;
    mount.retarget("churn", "prod", "v1").expect("it is there");
    check(bench, "churn/v2", MEASURE).ok();
    let against = last_record(bench)["against"].clone();
    assert_eq!((&against["version"], &against["metrics"]["auc"]), (&"v1".into(), &0.9.into()));
    check(bench, "churn/prod", MEASURE).ok();
    assert!(last_record(bench)["against"].is_null(), "nothing is compared with itself");
    check(bench, "churn/v3", MEASURE)
        .exits(3)
        .says("`auc` is 0.8, and 0.9 in churn/prod (v1); it may drop by 0.05")
        .says("error: churn/v3 does not pass: accuracy");
    check(bench, "churn/v4", MEASURE).exits(3).says("it needs >= 0.6").says("may drop");
    let failed = last_record(bench);
    assert_eq!((&failed["passed"], &failed["version"]), (&false.into(), &"v4".into()));
    assert_eq!(failed["failures"].as_array().map(Vec::len), Some(2));
    let answer = check(bench, "churn/v2", &MEASURE.replace("cat $MODELFS_PATH/auc", "false"));
    answer.exits(3).says("its result cannot be read: it is not JSON");
}

#[test]
fn a_command_has_a_time_limit_little_environment_and_keeps_no_secret() {
    let mount = measured(&["0.9"]);
    let bench = &mount.bench;
    let suite = r#"
[[check]]
name = "hangs"
run = ["sh", "-c", "sleep 1000 & echo $! > left; sleep 1000"]
timeout = "300ms"
[[check]]
name = "file"
run = ["./result.sh"]
env = { WORD = "said" }
pass = ["MY_TOKEN"]
[[check]]
name = "silent"
run = ["true"]
metrics = { auc = { min = 0 } }
[[check]]
name = "exit"
run = ["sh", "-c", "exit 7"]
"#;
    let file = bench.write("suite/checks.toml", suite);
    let script = "#!/bin/sh\nenv | sort >&2\necho \"token $MY_TOKEN\"\n\
                  echo '{\"why\": \"x\", \"files\": 1}' > $MODELFS_RESULT\necho '{\"not\": \"this\"}'\n";
    let script = bench.write("suite/result.sh", script);
    syscalls::chmod(&script, 0o755).expect("it is ours");
    let script = format!(
        "MY_TOKEN=verysecret OTHER=hidden \"$MODELFS\" check churn/v1 --suite {} --json",
        file.display()
    );
    let answer = mount.run("sh", &script).exits(3);
    let report = answer.json();
    assert!(answer.stderr.contains("hangs, silent, exit"), "{answer:?}");
    let of = |index: usize| report["checks"][index].clone();
    assert_eq!(of(0)["failures"][0], "it took longer than 0.3 s, and was ended");
    let left = fs::read_to_string(bench.root.join("suite/left")).expect("it was begun");
    let state = fs::read_to_string(format!("/proc/{}/status", left.trim()));
    assert!(state.is_err() || state.is_ok_and(|text| text.contains("State:\tZ")), "it is gone");
    assert_eq!(of(1)["metrics"], serde_json::json!({"files": 1}), "the file counts");
    let output = of(1)["output"].as_str().unwrap().to_owned();
    assert!(output.contains("token ***") && output.contains("WORD=said"), "{output}");
    assert!(output.contains("LANG=C.UTF-8") && !output.contains("OTHER"), "{output}");
    assert!(of(2)["failures"][0].as_str().unwrap().contains("gave no result"), "{report}");
    assert_eq!(of(3)["failures"][0], "the command exited with 7");
    assert!(!mount.text(".modelfs/history.jsonl").contains("verysecret"));
}

#[test]
fn nothing_that_a_command_started_outlives_a_check_that_is_killed() {
    let mount = measured(&["0.9"]);
    let suite = r#"
[[check]]
name = "detaches"
run = ["sh", "-c", "setsid -f env -i sh -c 'echo $$ > detached; exec sleep 1000'; echo $$ > begun; sleep 1000"]
"#;
    let file = mount.bench.write("suite/checks.toml", suite);
    let mut command = Command::new(env!("CARGO_BIN_EXE_modelfs"));
    mount.environment(&mut command);
    let arguments = ["check", "churn/v1", "--suite", file.to_str().expect("plain")];
    let mut check = command.args(arguments).spawn().expect("it starts");
    let begun = ["detached", "begun"].map(|name| {
        wait_for(name, || {
            let text = fs::read_to_string(mount.bench.root.join("suite").join(name)).ok()?;
            text.strip_suffix('\n').map(|pid| PathBuf::from(format!("/proc/{pid}")))
        })
    });
    assert!(begun.iter().all(|process| process.exists()), "{begun:?}");
    check.kill().expect("it runs");
    check.wait().expect("it is our child");
    for process in begun {
        wait_for("its end", || (!process.exists()).then_some(()));
    }
}

#[test]
fn a_suite_that_cannot_be_run_records_nothing() {
    let mount = measured(&["0.9"]);
    let bench = &mount.bench;
    let before = mount.text("churn/.modelfs/history.jsonl");
    let wrong = MEASURE.replace("min = 0.6", "least = 0.6");
    check(bench, "churn/v1", &wrong).exits(2).says("line 6, column 21: unknown field `least`");
    check(bench, "churn/v9", MEASURE).exits(4);
    check(bench, "churn/v1", &MEASURE.replace("\"sh\"", "\"/no/such/program\"")).exits(4);
    bench.cli(&["check", "churn/v1"]).exits(4).says("--suite FILE");
    bench.cli(&["check"]).exits(2);
    assert_eq!(mount.text("churn/.modelfs/history.jsonl"), before);
}

#[test]
fn a_failing_check_shuts_the_gate_until_it_passes() {
    let mount = measured(&["0.9", "0.91"]);
    let bench = &mount.bench;
    let policy = "[[gate]]\nmodels = ['*']\naliases = ['prod']\nrollback = { to = 'previously-approved' }\n\
                  rules = [{ name = 'sound', expr = \"checks['sound'].passed\" }]\n";
    let policy = bench.write("policy.toml", policy);
    bench.cli(&["policy", "set", policy.to_str().expect("plain")]).ok();
    let promote = |version: &str| bench.cli(&["promote", &format!("churn/{version}"), "prod"]);
    let record = |version: &str, name: &str, passed: bool| {
        let result = bench.write("result.json", format!("{{\"passed\": {passed}, \"gap\": 0.1}}"));
        let reference = format!("churn/{version}");
        let args =
            ["check", "record", &reference, name, "--result", result.to_str().expect("plain")];
        bench.cli(&args).exits(if passed { 0 } else { 3 });
    };
    promote("v1").exits(3).says("there is no `checks['sound']`");
    record("v1", "sound", true);
    promote("v1").ok();
    record("v2", "sound", true);
    promote("v2").ok();
    // No rule speaks of this check, and it is a reason all the same, for the way back as well.
    record("v1", "drift", false);
    promote("v1").exits(3).says("rule `no-failing-check`: failed: `drift`");
    bench.cli(&["rollback", "churn", "prod"]).exits(3).says("drift");
    mount.assert_link("churn/prod", "v2");
    bench.cli(&["approvals", "churn/v1"]).ok().says("check drift FAILED").says("it says so itself");
    record("v1", "drift", true);
    bench.cli(&["rollback", "churn", "prod"]).ok();
    mount.assert_link("churn/prod", "v1");
    let none = bench.write("none.json", "{\"gap\": 1}");
    let args = ["check", "record", "churn/v1", "x", "--result", none.to_str().expect("plain")];
    bench.cli(&args).exits(2).says("does not say whether the version `passed`");
}

#[test]
fn a_result_counts_from_those_only_who_may_say_so() {
    require_root();
    let mount = measured(&["0.9"]);
    let bench = &mount.bench;
    syscalls::lchown(&mount.path("churn"), OWNER.uid, OWNER.gid).expect("root may");
    syscalls::chmod(&mount.path("churn"), 0o755).expect("root may");
    let result = bench.write("result.json", "{\"passed\": true}");
    let args = ["check", "record", "churn/v1", "x", "--result", result.to_str().expect("plain")];
    bench.cli_as(TESTER, &args).exits(3).says("it needs write permission");
    let mark = ["mark", "churn/v1", "bad", "-m", "why"];
    bench.cli_as(TESTER, &mark).exits(3).says("it needs write permission");
    bench.cli_as(OWNER, &args).ok();
    let policy = "[roles.tester]\nusers = ['4202']\n\
                  [[allow]]\nroles = ['tester']\nmodels = ['churn']\nmay = ['check']\n\
                  [[allow]]\nroles = ['everyone']\nmodels = ['churn']\nmay = ['access']\n";
    let policy = bench.write("policy.toml", policy);
    bench.cli(&["policy", "set", policy.to_str().expect("plain")]).ok();
    bench.cli_as(TESTER, &args).ok();
    bench.cli_as(OWNER, &args).exits(3).says("the roles that may: tester");
    assert_eq!(mount.text("churn/.modelfs/history.jsonl").matches("\"kind\":\"check\"").count(), 2);
    syscalls::chmod(&mount.path("churn"), 0o750).expect("root may");
    bench.cli_as(TESTER, &args).exits(3).says("it needs read permission");
}
