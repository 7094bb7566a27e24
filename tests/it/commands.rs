//! The command line: the same answers with a daemon and without one, as text and as JSON.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::daemon::find;
use crate::harness::{Bench, MODELFS, Mount, Output, bounded, fixtures};

/// A store with the three fixtures as versions of `churn` and `prod` at v2, made by commands alone.
fn store_with_three() -> Bench {
    let bench = Bench::new();
    for version in ["v1", "v2", "v3"] {
        let source = fixtures().join(version);
        let source = source.to_str().expect("text");
        let args = ["snapshot", "churn", source, "-m", version, "--metric", "auc=0.9"];
        bench.cli(&args).ok().says(version);
    }
    bench.cli(&["promote", "churn/v2", "prod"]).ok();
    bench
}

/// Runs `check` on a store without a daemon, then on the same store with one.
fn both_ways(check: impl Fn(&Bench)) {
    check(&store_with_three());
    check(&Mount::on(store_with_three()).bench);
}

#[test]
fn every_command_has_json() {
    both_ways(|bench| {
        for args in [
            &["list"][..],
            &["list", "churn"],
            &["show", "churn/v1"],
            &["show", "churn/prod"],
            &["show", "churn"],
            &["history"],
            &["history", "churn"],
            &["history", "--verify"],
            &["stats"],
            &["stats", "--files"],
            &["stats", "churn"],
            &["stats", "churn/v1", "--files"],
            &["status"],
            &["promote", "churn/v3", "prod"],
            &["rollback", "churn", "prod"],
            &["rollback", "churn", "prod", "--to", "churn/v1"],
            &["alias", "list", "churn"],
            &["alias", "remove", "churn", "prod"],
            &["verify"],
            &["verify", "--read-data"],
            &["debug", "catalog"],
            &["repair"],
        ] {
            let answer = bench.cli_json(args);
            assert!(answer.is_object() || answer.is_array(), "{args:?}: {answer}");
            bench.cli(args);
        }
    });
}

#[test]
fn a_failure_with_json_is_json_too() {
    both_ways(|bench| {
        let failed = bench.cli(&["show", "churn/v9", "--json"]).exits(4);
        let text = if failed.stdout.trim().is_empty() { &failed.stderr } else { &failed.stdout };
        let answer: Value =
            serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {failed:?}"));
        let error = find(&answer, "error").map(Value::to_string).unwrap_or_default();
        assert!(error.contains("churn"), "{answer}");
    });
}

#[test]
fn promote_and_rollback_move_an_alias() {
    both_ways(|bench| {
        let at = || {
            let aliases = bench.cli_json(&["alias", "list", "churn"]).to_string();
            ["v1", "v2", "v3"].map(|v| aliases.contains(&format!("\"{v}\"")))
        };
        bench.cli(&["alias", "remove", "churn", "prod"]).ok();
        bench.cli(&["promote", "churn/v1", "stage"]).ok();
        assert_eq!(at()[..2], [true, false]);
        bench.cli(&["promote", "churn/v2", "stage"]).ok();
        assert_eq!(at()[..2], [false, true]);
        bench.cli(&["rollback", "churn", "stage"]).ok();
        assert_eq!(at()[..2], [true, false]);
        bench.cli(&["promote", "churn/v2", "stage"]).ok();
        bench.cli(&["promote", "churn", "stage"]).ok().says("v3");
        bench.cli(&["rollback", "churn", "stage", "--to", "churn/v1"]).ok();
        assert_eq!(at()[..2], [true, false]);
    });
}

#[test]
fn a_rollback_without_a_past_is_refused() {
    both_ways(|bench| {
        bench.cli(&["promote", "churn/v1", "fresh"]).ok();
        let refused = bench.cli(&["rollback", "churn", "fresh"]);
        assert!(matches!(refused.status, 1 | 4 | 5), "{refused:?}");
        refused.says("fresh");
        bench.cli(&["rollback", "churn", "nothing"]).exits(4).says("nothing");
    });
}

#[test]
fn export_writes_what_was_sealed() {
    both_ways(|bench| {
        for (reference, fixture) in [("churn/v1", "v1"), ("churn/prod", "v2"), ("churn", "v3")] {
            let out = bench.root.join("out").join(fixture);
            fs::create_dir_all(out.parent().expect("below the root")).expect("a directory");
            bench.cli(&["export", reference, out.to_str().expect("text")]).ok();
            for entry in fs::read_dir(fixtures().join(fixture)).expect("a fixture") {
                let source = entry.expect("an entry").path();
                let copy = out.join(source.file_name().expect("a file"));
                let (source, copy) = (fs::read(source).expect("there"), fs::read(copy));
                assert!(source == copy.expect("exported"), "{reference}");
            }
        }
        let taken = bench.root.join("out/v1");
        let refused = bench.cli(&["export", "churn/v2", taken.to_str().expect("text")]);
        assert_ne!(refused.status, 0, "what is there is not written over: {refused:?}");
        let kept = fs::read(taken.join("weights.onnx")).expect("kept");
        assert!(kept == fs::read(fixtures().join("v1/weights.onnx")).expect("a fixture"));
    });
}

#[test]
fn a_snapshot_takes_its_metadata_from_options() {
    let bench = Bench::new();
    let source = bench.write("one-file.bin", "a single file");
    let source = source.to_str().expect("text");
    let options = [
        "-m",
        "why it exists",
        "--metric",
        "auc=0.91728",
        "--param",
        "depth=5",
        "--param",
        "name=gbt",
        "--label",
        "team=risk",
        "--alias",
        "prod",
    ];
    let args: Vec<&str> = ["snapshot", "churn", source].into_iter().chain(options).collect();
    bench.cli(&args).ok().says("v1");
    let mount = Mount::on(bench);
    assert_eq!(mount.text("churn/prod/one-file.bin"), "a single file");
    let metadata: Value =
        serde_json::from_str(&mount.text("churn/v1/metadata.json")).expect("JSON");
    assert_eq!(metadata["message"], "why it exists");
    assert_eq!(metadata["metrics"]["auc"], 0.91728, "a number stays a number: {metadata}");
    assert_eq!(metadata["params"]["depth"], 5, "{metadata}");
    assert_eq!(metadata["params"]["name"], "gbt");
    assert_eq!(metadata["labels"]["team"], "risk");
    let door = metadata.to_string();
    assert!(door.contains("\"cli\""), "it came through the command line: {door}");
    let shown = mount.cli(&["show", "churn/prod"]).ok();
    assert!(
        shown.stdout.contains("why it exists") && shown.stdout.contains("0.91728"),
        "{shown:?}"
    );
}

#[test]
fn a_version_is_shown_with_all_its_files_however_many() {
    let bench = store_with_three();
    let names: Vec<String> =
        (0..4_000).map(|number| format!("{}{number:04}", "ä".repeat(100))).collect();
    for name in &names {
        bench.write(&format!("many/{name}"), name);
    }
    let source = bench.root.join("many");
    bench.cli(&["snapshot", "churn", source.to_str().expect("text"), "-m", "many"]).ok();
    let check = |bench: &Bench| -> Value {
        let shown = bench.cli(&["show", "churn/v4"]).ok().stdout;
        let (_, table) = shown.split_once(" FILE\n").expect("a table");
        let shown: Vec<_> = table.lines().filter_map(|line| line.split(' ').next_back()).collect();
        assert_eq!(shown, names);
        let head = format!("{MODELFS} --store {} show churn | head -1", bench.store.display());
        let head = Output::of(Command::new("bash").args(["-o", "pipefail", "-c", &head]));
        assert_eq!(head.ok().stdout, "version     churn/v4\n");
        bench.cli_json(&["show", "churn/v4"])
    };
    let alone = check(&bench);
    let mount = Mount::on(bench);
    let text = mount.text("churn/v4/metadata.json");
    assert!(1 << 20 < text.len(), "{} bytes are one part", text.len());
    let metadata: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(alone["metadata"], metadata);
    assert_eq!(check(&mount.bench), alone);
}

#[test]
fn a_snapshot_of_the_draft_is_made_from_the_command_line() {
    let mount = Mount::with_churn();
    mount.fill_draft("v1");
    mount.cli(&["snapshot", "churn", "-m", "by command"]).ok().says("v1");
    assert!(mount.names("churn/draft").is_empty());
    assert_eq!(mount.names("churn/v1").len(), 4);
}

#[test]
fn a_relative_path_is_of_the_caller() {
    let mount = Mount::new();
    mount.bench.write("here/a", "a");
    mount.cli(&["snapshot", "churn", "here"]).ok().says("v1");
    assert_eq!(mount.text("churn/v1/a"), "a");
    mount.cli(&["export", "churn", "out"]).ok();
    assert_eq!(fs::read_to_string(mount.bench.root.join("out/a")).expect("exported"), "a");
}

#[test]
fn exit_statuses_are_those_of_the_table() {
    both_ways(|bench| {
        let nowhere = bench.root.join("nowhere");
        let nowhere = nowhere.to_str().expect("text");
        for (status, args) in [
            (0, &["list"][..]),
            (0, &["--help"]),
            (0, &["--version"]),
            (2, &[]),
            (2, &["frobnicate"]),
            (2, &["list", "--frobnicate"]),
            (2, &["promote", "churn/v1"]),
            (2, &["promote", "churn/v1", "v7"]),
            (2, &["promote", "churn/v1", "a b"]),
            (2, &["show", "churn/a/b"]),
            (2, &["show", "../churn"]),
            (4, &["list", "nope"]),
            (4, &["show", "nope"]),
            (4, &["show", "churn/v9"]),
            (4, &["show", "churn/nope"]),
            (4, &["promote", "churn/v9", "prod"]),
            (4, &["alias", "remove", "churn", "nope"]),
            (4, &["export", "churn/v9", "out"]),
            (4, &["snapshot", "churn", nowhere]),
        ] {
            let found = bench.cli(args);
            assert_eq!(found.status, status, "{args:?}: {found:#?}");
            if status != 0 {
                assert!(found.stdout.is_empty(), "an error is on standard error: {found:#?}");
                assert!(!found.stderr.trim().is_empty(), "an error says something: {found:#?}");
                assert!(!found.stderr.contains("panicked"), "{found:#?}");
            }
        }
    });
}

#[test]
fn a_store_that_is_not_there_is_not_made_by_a_question() {
    let bench = Bench::new();
    for args in [&["list"][..], &["show", "churn"], &["verify"], &["history"], &["stats"]] {
        let found = bench.cli(args);
        assert!(found.status == 4, "{found:#?}");
        assert!(found.stderr.contains(bench.store.to_str().expect("text")), "{found:#?}");
        assert!(!bench.store.exists(), "{args:?} made a store");
    }
}

#[test]
fn a_directory_that_is_no_store_is_left_alone() {
    let bench = Bench::new();
    let precious = bench.write("store/precious", "data");
    let source = bench.write("source/a", "a");
    let found = bench.cli(&["snapshot", "churn", source.to_str().expect("text")]);
    assert_ne!(found.status, 0, "{found:#?}");
    assert!(found.stderr.contains(bench.store.to_str().expect("text")), "it is named: {found:#?}");
    assert_eq!(fs::read_dir(&bench.store).expect("there").count(), 1, "nothing was added");
    assert_eq!(fs::read_to_string(precious).expect("kept"), "data");
}

#[test]
fn the_history_is_a_chain() {
    let bench = store_with_three();
    let answer = bench.cli_json(&["history", "--verify"]);
    let records = find(&answer, "records").and_then(Value::as_array).expect("records");
    for (index, record) in records.iter().enumerate() {
        assert_eq!(record["seq"], index + 1, "{record}");
    }
    assert!(3 + 1 < records.len(), "{answer}");
    assert_eq!(find(&answer, "verified"), Some(&Value::Bool(true)));
    for args in [&["history"][..], &["history", "churn"]] {
        let text = bench.cli(args).ok().stdout;
        assert!(text.contains("prod") && text.contains("v3"), "{text}");
    }
}

#[test]
fn stats_show_what_is_shared() {
    let bench = store_with_three();
    let before = bench.cli_json(&["stats"]);
    let number =
        |stats: &Value, key: &str| find(stats, key).and_then(Value::as_u64).expect("there");
    let expected: u64 = ["v1", "v2", "v3"].iter().map(|v| tree_bytes(&fixtures().join(v))).sum();
    let logical = number(&before, "logical_bytes");
    assert!(expected <= logical && logical < expected + 100_000, "{logical}, {expected}");
    let source = fixtures().join("v1");
    bench.cli(&["snapshot", "other", source.to_str().expect("text")]).ok();
    let after = bench.cli_json(&["stats"]);
    assert!(logical < number(&after, "logical_bytes"));
    let grown = number(&after, "unique_bytes") - number(&before, "unique_bytes");
    assert!(grown < 20_000, "the same files are stored once, it grew by {grown}");
}

fn tree_bytes(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).expect("a fixture");
    entries.map(|entry| entry.expect("an entry").metadata().expect("there").len()).sum()
}

#[test]
fn debug_shows_the_parts_of_a_store() {
    let bench = store_with_three();
    let shown = bench.cli_json(&["show", "churn/v1"]);
    let manifest = find(&shown, "manifest").and_then(Value::as_str).expect("its manifest");
    let manifest = manifest.to_owned();
    let text = bench.cli(&["debug", "manifest", &manifest]).ok().stdout;
    assert!(text.contains("weights.onnx"), "{text}");
    let packs = bench.store.join("packs");
    let pack = fs::read_dir(&packs)
        .expect("a store has packs")
        .flat_map(|folder| fs::read_dir(folder.expect("an entry").path()).expect("a folder"))
        .map(|pack| pack.expect("an entry").file_name().into_string().expect("text"))
        .next()
        .expect("a pack");
    let text = bench.cli(&["debug", "pack", &pack]).ok().stdout;
    assert!(!text.is_empty());
    bench.cli(&["debug", "catalog"]).ok();
    let unknown = "0".repeat(64);
    for kind in ["chunk", "pack", "manifest"] {
        bench.cli(&["debug", kind, &unknown]).exits(4).says("000000");
    }
}

#[test]
fn what_a_daemon_holds_is_asked_of_the_daemon() {
    let mount = Mount::with_churn();
    fs::write(mount.path("churn/draft/a"), "a").expect("a draft file");
    mount.seal("churn", "one");
    mount.cli(&["promote", "churn/v1", "prod"]).ok();
    mount.assert_link("churn/prod", "v1");
    let status = mount.cli_json(&["status"]);
    assert_eq!(find(&status, "pid"), Some(&Value::from(mount.pid())), "{status}");
}

#[test]
fn no_progress_bar_is_drawn_into_a_pipe() {
    let bench = Bench::new();
    let source = bench.write("source/weights", crate::harness::noise(1, 20 << 20));
    let source = source.to_str().expect("text");
    let made = bench.cli(&["snapshot", "churn", source, "-m", "big"]).ok();
    assert!(!made.stderr.contains('\x1b') && !made.stderr.contains('\r'), "{made:?}");
    assert!(!made.stdout.contains('\x1b') && !made.stdout.contains('\r'), "{made:?}");
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let bench = store_with_three();
    let mut command = bounded("bash");
    command.args(["-c", "\"$0\" --store \"$1\" history --json | true; exit ${PIPESTATUS[0]}"]);
    let shown = Output::of(command.arg(MODELFS).arg(&bench.store));
    assert!(!shown.stderr.contains("panicked"), "{shown:?}");
}

#[test]
fn help_names_every_command() {
    let bench = Bench::new();
    let help = bench.cli(&["--help"]).ok().stdout;
    for command in [
        "mount", "umount", "snapshot", "list", "show", "history", "stats", "status", "promote",
        "rollback", "alias", "export", "verify", "repair", "debug",
    ] {
        assert!(help.contains(command), "`{command}` is not in the help:\n{help}");
        let own = bench.cli(&[command, "--help"]).ok().stdout;
        assert!(own.contains("--json"), "`{command} --help` does not name --json:\n{own}");
    }
}
