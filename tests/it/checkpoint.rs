//! Checkpoints are a cache: a store shows the same with a good one, a bad one, an old one, and none.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::harness::{Bench, Mount, Output};

/// Exit status for damaged data.
const DAMAGED: i32 = 6;

pub fn checkpoint(bench: &Bench) -> PathBuf {
    bench.store.join("catalog/checkpoint")
}

pub fn record(bench: &Bench, seq: u64) -> PathBuf {
    bench.store.join(format!("history/{seq:020}.json"))
}

pub fn seal(bench: &Bench, model: &str, content: &str) {
    let source = bench.write(&format!("source/{model}/{content}/weights"), content);
    let source = source.parent().and_then(std::path::Path::to_str).expect("text");
    bench.cli(&["snapshot", model, source, "-m", content]).ok();
}

/// Two models, several versions, an approval, a mark, a policy.
pub fn small_store() -> Bench {
    let bench = Bench::new();
    for content in ["one", "two", "three"] {
        seal(&bench, "churn", content);
        seal(&bench, "fraud", content);
    }
    bench.cli(&["promote", "churn/v2", "prod"]).ok();
    bench.cli(&["approve", "churn/v2", "-m", "seen"]).ok();
    bench.cli(&["mark", "fraud/v1", "bad", "-m", "drifts"]).ok();
    bench
}

/// All that a store says of itself.
pub fn state(bench: &Bench) -> Vec<Value> {
    let said = [
        &["list"][..],
        &["list", "churn"],
        &["list", "fraud"],
        &["alias", "list", "churn"],
        &["approvals", "churn/v2"],
        &["approvals", "fraud/v1"],
        &["history"],
        &["history", "churn"],
    ];
    said.iter().map(|command| bench.cli_json(command)).collect()
}

/// What a start said on its log.
pub fn log(found: Output) -> String {
    found.ok().stderr
}

#[test]
fn a_store_shows_the_same_with_its_checkpoint_and_without() {
    let bench = small_store();
    assert!(checkpoint(&bench).exists(), "whoever closed the store made it");
    let before = state(&bench);
    fs::remove_file(checkpoint(&bench)).expect("it is ours");
    assert_eq!(state(&bench), before);
    assert!(checkpoint(&bench).exists(), "a look at the store makes it anew");
    fs::remove_dir_all(bench.store.join("catalog")).expect("it is ours");
    assert_eq!(state(&bench), before);
    // A damaged body: found when somebody asks for it, and read from the history then.
    let whole = fs::read(checkpoint(&bench)).expect("a checkpoint");
    let mut damaged = whole.clone();
    damaged[3] ^= 1;
    damaged[40] ^= 1;
    fs::write(checkpoint(&bench), &damaged).expect("it is ours");
    let said = log(bench.cli(&["list", "churn"]));
    assert!(said.contains("reading the history instead"), "{said}");
    assert_eq!(state(&bench), before);
    assert_ne!(fs::read(checkpoint(&bench)).expect("made anew"), damaged);
    bench.cli(&["verify"]).ok();
}

#[test]
fn a_checkpoint_of_yesterday_does_not_hide_what_came_since() {
    let bench = small_store();
    let yesterday = fs::read(checkpoint(&bench)).expect("a checkpoint");
    seal(&bench, "churn", "four");
    seal(&bench, "new", "one");
    bench.cli(&["promote", "churn/v4", "prod"]).ok();
    bench.cli(&["revoke", "churn/v2"]).ok();
    let before = state(&bench);
    fs::write(checkpoint(&bench), yesterday).expect("it is ours");
    assert_eq!(state(&bench), before);
}

#[test]
fn a_checkpoint_of_another_store_is_passed_over() {
    let (bench, other) = (small_store(), small_store());
    let before = state(&bench);
    fs::copy(checkpoint(&other), checkpoint(&bench)).expect("it is ours");
    let said = log(bench.cli(&["list"]));
    assert!(said.contains("is of the store"), "{said}");
    assert_eq!(state(&bench), before);
}

#[test]
fn a_checkpoint_of_another_release_is_passed_over() {
    let bench = small_store();
    let before = state(&bench);
    let mut bytes = fs::read(checkpoint(&bench)).expect("a checkpoint");
    *bytes.last_mut().expect("it is not empty") += 1;
    fs::write(checkpoint(&bench), bytes).expect("it is ours");
    let said = log(bench.cli(&["list"]));
    assert!(said.contains("as this release writes it"), "{said}");
    assert_eq!(state(&bench), before);
}

#[test]
fn what_is_no_file_in_the_place_of_a_checkpoint_hinders_nobody() {
    let bench = small_store();
    let before = state(&bench);
    for repaired in [false, true] {
        for directory in [false, true] {
            fs::remove_file(checkpoint(&bench)).expect("it is ours");
            if directory {
                fs::create_dir_all(checkpoint(&bench).join("in/it")).expect("room");
            } else {
                nix::unistd::mkfifo(&checkpoint(&bench), nix::sys::stat::Mode::S_IRWXU)
                    .expect("room");
            }
            // Each call is ended by the harness should it wait.
            let command = if repaired { &["repair"][..] } else { &["list"] };
            assert!(log(bench.cli(command)).contains("catalog/checkpoint"));
            assert!(checkpoint(&bench).is_file(), "{command:?} heals it");
            assert_eq!(log(bench.cli(&["list"])), "");
            assert_eq!(state(&bench), before);
        }
    }
}

/// The number of the newest record.
pub fn newest(bench: &Bench) -> u64 {
    (1..).take_while(|seq| record(bench, *seq).exists()).last().expect("records")
}

/// Nothing is answered, and nothing is changed that tells what happened.
fn check_refused(bench: &Bench, message: &str) {
    let kept = fs::read(checkpoint(bench)).expect("a checkpoint");
    let point = bench.root.join("models");
    fs::create_dir_all(&point).expect("room");
    let commands = [
        &["list"][..],
        &["verify"],
        &["history", "--verify"],
        &["repair"],
        &["promote", "churn/v1", "prod"],
        &["mount", point.to_str().expect("text")],
    ];
    let records = newest(bench);
    for command in commands {
        bench.cli(command).exits(DAMAGED).says(message).says("from a backup");
        assert!(fs::read(checkpoint(bench)).expect("it is there") == kept, "{command:?}");
        assert_eq!(newest(bench), records, "{command:?}");
    }
}

#[test]
fn a_tail_that_was_cut_is_damage_and_the_checkpoint_that_tells_so_is_kept() {
    let bench = small_store();
    let (before, last) = (state(&bench), newest(&bench));
    let lines: Vec<Vec<u8>> =
        (1..=last).map(|seq| fs::read(record(&bench, seq)).expect("a record")).collect();
    for first in [last, last - 2, 2] {
        (first..=last).for_each(|seq| fs::remove_file(record(&bench, seq)).expect("a record"));
        check_refused(&bench, &format!("history record {last} is missing, and was there before"));
        for (seq, line) in (1..).zip(&lines).filter(|(seq, _)| first <= *seq) {
            fs::write(record(&bench, seq), line).expect("room");
        }
    }
    assert_eq!(state(&bench), before);
    // Who knows that they are lost says so.
    fs::remove_file(record(&bench, last)).expect("a record");
    fs::remove_file(checkpoint(&bench)).expect("it is ours");
    assert!(!bench.cli(&["approvals", "fraud/v1"]).ok().stdout.contains("bad"));
    bench.cli(&["verify"]).ok();
}

#[test]
fn a_history_that_was_written_anew_is_damage_and_the_checkpoint_that_tells_so_is_kept() {
    let bench = small_store();
    let last = newest(&bench);
    let kept = fs::read(checkpoint(&bench)).expect("a checkpoint");
    fs::remove_file(record(&bench, last)).expect("a record");
    fs::remove_file(checkpoint(&bench)).expect("it is ours");
    bench.cli(&["mark", "fraud/v1", "golden", "-m", "forged"]).ok();
    fs::write(checkpoint(&bench), kept).expect("it is ours");
    check_refused(&bench, &format!("history record {last} is not the one that was there before"));
    fs::remove_file(checkpoint(&bench)).expect("it is ours");
    assert!(bench.cli(&["approvals", "fraud/v1"]).ok().stdout.contains("golden"));
}

#[test]
fn a_tail_that_was_cut_below_a_daemon_is_damage_and_is_not_forgotten() {
    let mut mount = Mount::on(small_store());
    mount.cli(&["promote", "churn/v3", "prod"]).ok();
    let last = newest(&mount.bench);
    let line = fs::read(record(&mount.bench, last)).expect("a record");
    fs::remove_file(record(&mount.bench, last)).expect("a record");
    let missing = format!("history record {last} is missing");
    mount.cli(&["verify"]).exits(DAMAGED).says(&format!("history/{last:020}.json: {missing}"));
    mount.cli(&["history", "--verify"]).exits(DAMAGED);
    mount.cli(&["repair"]).exits(DAMAGED).says(&missing);
    mount.assert_link("churn/prod", "v3");
    mount.stop();
    fs::write(record(&mount.bench, last), line).expect("room");
    mount.start();
    mount.assert_link("churn/prod", "v3");
    mount.cli(&["verify"]).ok().says("no damage");
}

#[test]
fn a_store_whose_records_are_damaged_goes_on_serving() {
    let bench = small_store();
    let before = state(&bench);
    let newest = newest(&bench);
    for seq in [4, newest] {
        let mut line = fs::read(record(&bench, seq)).expect("a record");
        line[20] ^= 1;
        fs::write(record(&bench, seq), line).expect("it is ours");
    }
    let said = log(bench.cli(&["list"]));
    assert!(said.contains("going on with a copy"), "{said}");
    assert_eq!(bench.cli_json(&["list", "churn"]), before[1]);
    bench.cli(&["verify"]).exits(DAMAGED).says("history/00000000000000000004.json");
    bench.cli(&["history", "--verify"]).exits(DAMAGED);
}

#[test]
fn a_record_that_follows_a_gap_is_never_hidden() {
    let bench = small_store();
    let newest = newest(&bench);
    fs::copy(record(&bench, newest), record(&bench, newest + 2)).expect("it is ours");
    let missing = format!("record {} is missing", newest + 1);
    bench.cli(&["list"]).exits(DAMAGED).says(&missing);
    bench.cli(&["promote", "churn/v1", "prod"]).exits(DAMAGED).says(&missing);
    assert!(!record(&bench, newest + 1).exists(), "nothing is made in its place");
}

#[test]
fn a_daemon_that_was_killed_leaves_a_store_that_opens() {
    let mut mount = Mount::on(small_store());
    // More than a daemon waits for until it writes a checkpoint.
    for number in 0..70 {
        let target = format!("v{}", number % 3 + 1);
        mount.cli(&["promote", &format!("churn/{target}"), "prod"]).ok();
    }
    let before = mount.cli_json(&["history"]);
    mount.kill9();
    let bench = mount.into_bench();
    let used = fs::read(checkpoint(&bench)).expect("a checkpoint");
    assert_eq!(bench.cli_json(&["history"]), before);
    let with = state(&bench);
    fs::remove_file(checkpoint(&bench)).expect("it is ours");
    assert_eq!(state(&bench), with);
    assert!(!used.is_empty());
}
