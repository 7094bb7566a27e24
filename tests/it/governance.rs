//! Policies at every door: the same refusals, the same records, for root too.

use std::fs;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use crate::harness::{Bench, Mount, require_program, require_root};
use crate::syscalls::{self, User, as_user};

/// Owner of the model.
const OWNER: User = User { uid: 4101, gid: 4101, groups: &[4101] };
const ANN: User = User { uid: 4102, gid: 4102, groups: &[4102] };
const BOB: User = User { uid: 4103, gid: 4103, groups: &[4103] };
const ONCALL: User = User { uid: 4104, gid: 4104, groups: &[4104] };

pub const POLICY: &str = r#"
[roles.validator]
users = ["4102", "4103", "4101"]
[roles.oncall]
users = ["4104", "root"]

[[gate]]
models = ["churn*"]
aliases = ["prod", "prod-*"]
rules = [
  { name = "auc-floor", expr = "metrics.auc >= 0.85", message = "AUC is below the agreed level" },
  { name = "four-eyes", expr = "approvals.filter(a, a.role == 'validator' && a.user != sealed_by).size() >= 2" },
  { name = "no-pickle", expr = "!files.exists(f, f.format == 'pickle')", enforce = "warn" },
]
rollback = { to = "previously-approved" }
break_glass = { roles = ["oncall"], needs = "reason", for = "4h" }
"#;

/// `churn` of OWNER, writable by all, with v1 (auc 0.9), v2 (0.91) and v3 (0.5), and the policy.
fn governed() -> Mount {
    require_root();
    let mount = Mount::with_churn();
    let churn = mount.path("churn");
    syscalls::lchown(&churn, OWNER.uid, OWNER.gid).expect("root may");
    syscalls::chmod(&churn, 0o777).expect("root may");
    for (text, auc) in [("one", "0.9"), ("two", "0.91"), ("three", "0.5")] {
        let command = format!("{{\"message\":\"{text}\",\"metrics\":{{\"auc\":{auc}}}}}");
        mount.seal_files("churn", &[("who", text.as_bytes())], &command);
    }
    set_policy(&mount, POLICY);
    mount
}

fn set_policy(mount: &Mount, text: &str) {
    let file = mount.bench.write("policy.toml", text);
    mount.cli(&["policy", "set", file.to_str().expect("a plain path")]).ok();
}

fn cli_as(mount: &Mount, user: User, args: &[&str]) -> crate::harness::Output {
    mount.bench.cli_as(user, args)
}

fn approve(mount: &Mount, user: User, version: &str) {
    let file = mount.path(format!("churn/.modelfs/approve/{version}"));
    as_user(user, || fs::write(&file, "approve as validator: looked at it\n"))
        .expect("may approve");
}

/// The records of the store, oldest first.
fn records(mount: &Mount) -> Vec<Value> {
    let text = mount.text(".modelfs/history.jsonl");
    text.lines().map(|line| serde_json::from_str(line).expect("a record is JSON")).collect()
}

fn refusals(mount: &Mount) -> Vec<Value> {
    records(mount).into_iter().filter(|record| record["verdict"] == "refused").collect()
}

/// Refusals of one kind within a second are recorded once.
fn wait_a_second() {
    std::thread::sleep(std::time::Duration::from_millis(1_050));
}

#[test]
fn every_door_gives_the_same_refusal_and_the_same_record() {
    let mut mount = governed();
    mount.retarget("churn", "staging", "v1").expect("an alias without a gate");
    let path = |name: &str| mount.path(format!("churn/{name}"));
    let denied = Err(libc::EACCES);
    let mut doors = 0;
    let mut check = |what: &str, refused: bool| {
        assert!(refused, "{what} was not refused");
        assert!(fs::symlink_metadata(path("prod")).is_err(), "{what} made prod");
        doors += 1;
        let found = refusals(&mount);
        assert_eq!(found.len(), doors, "{what}: {found:#?}");
        let last = &found[doors - 1];
        let moves = last["op"]["moves"].as_array().expect("moves were refused");
        let step = moves.iter().find(|step| step["alias"] == "prod").expect("prod's");
        assert_eq!((&step["alias"], &step["to"]), (&"prod".into(), &"v1".into()), "{what}: {last}");
        let rules = step["judgement"]["rules"].as_array().expect("rules were applied");
        let outcomes: Vec<_> = rules.iter().map(|rule| rule["outcome"].as_str().unwrap()).collect();
        assert_eq!(outcomes, ["passed", "failed", "passed"], "{what}: {last}");
        assert_eq!(rules[0]["found"], "metrics.auc is 0.9");
        assert_eq!(last["actor"]["uid"], 0, "root is subject to gates");
        assert!(last["policy"].is_string());
        wait_a_second();
    };
    check("ln -sfn", mount.retarget("churn", "prod", "v1") == denied);
    check("symlink", syscalls::symlink("v1", &path("prod")) == denied);
    require_program("busybox", "busybox");
    let busybox = mount.run("sh", "cd \"$M\" && busybox ln -sfn v1 churn/prod");
    check("busybox ln", busybox.status != 0 && busybox.stderr.contains("Permission denied"));
    let bash = mount.run("bash", "cd \"$M\" && ln -sfn v1 churn/prod");
    check("bash ln", bash.status != 0 && bash.stderr.contains("Permission denied"));
    check("mv -T", mount.run("dash", "cd \"$M\" && mv -T churn/staging churn/prod").status != 0);
    check(
        "promote",
        mount.cli(&["promote", "churn/v1", "prod"]).exits(3).stderr.contains("four-eyes"),
    );
    let why = mount.text("churn/.modelfs/why");
    for part in
        ["four-eyes", "0; it needs >= 2", "modelfs approve churn/v1 --as validator", "4102, 4103"]
    {
        assert!(why.contains(part), "expected {part} in {why}");
    }
    mount.assert_link("churn/staging", "v1");
    // Without a daemon, straight at the store: one more.
    mount.stop();
    let bench = mount.into_bench();
    bench.cli(&["promote", "churn/v1", "prod"]).exits(3).says("four-eyes");
    let history = bench.cli_json(&["history", "churn"]);
    let refused = history["records"].as_array().expect("records").iter();
    assert_eq!(refused.filter(|record| record["verdict"] == "refused").count(), doors + 1);
}

#[test]
fn every_door_to_an_alias_that_is_there_is_as_shut_for_its_owner_and_for_root() {
    let mount = governed();
    approve(&mount, ANN, "v2");
    approve(&mount, BOB, "v2");
    mount.retarget("churn", "prod", "v2").expect("approved");
    mount.retarget("churn", "staging", "v1").expect("no gate");
    let churn = |name: &str| mount.path(format!("churn/{name}"));
    let gone = |name: &str| syscalls::errno(fs::remove_file(churn(name)));
    let exchange = || syscalls::rename2(&churn("staging"), &churn("prod"), libc::RENAME_EXCHANGE);
    let rename = |from: &str, to: &str| syscalls::errno(fs::rename(churn(from), churn(to)));
    let snapshot = || syscalls::errno(fs::write(churn("snapshot"), "{\"alias\":\"prod\"}"));
    fs::write(churn("draft/who"), "four").expect("a draft");
    // What is done, and where `prod` would be then.
    type Door<'a> = (&'a str, &'a (dyn Fn() -> syscalls::Outcome + Sync), &'a str);
    let doors: [Door<'_>; 6] = [
        ("ln -sfn", &|| mount.retarget("churn", "prod", "v1"), "v1"),
        ("mv -T", &|| rename("staging", "prod"), "v1"),
        ("RENAME_EXCHANGE", &exchange, "v1"),
        ("rm", &|| gone("prod"), ""),
        ("mv away", &|| rename("prod", "elsewhere"), ""),
        ("snapshot", &snapshot, "v4"),
    ];
    for user in [User { uid: 0, gid: 0, groups: &[0] }, OWNER] {
        for (what, door, to) in doors {
            let before = records(&mount).len();
            assert_eq!(as_user(user, door), Err(libc::EACCES), "{what} as {}", user.uid);
            let found = records(&mount).split_off(before);
            let [record] = &found[..] else { panic!("{what} made {found:#?}") };
            assert_eq!(
                (&record["verdict"], &record["actor"]["uid"]),
                (&"refused".into(), &user.uid.into())
            );
            let moves = record["op"]["moves"].as_array().expect("moves");
            let step = moves.iter().find(|step| step["alias"] == "prod").expect("prod's");
            assert_eq!(step["from"], "v2", "{what}: {record}");
            assert_eq!(step["to"].as_str().unwrap_or_default(), to, "{what}: {record}");
            let rule = if to.is_empty() { "alias-stays" } else { "four-eyes" };
            assert!(step["judgement"]["rules"].to_string().contains(rule), "{what}: {record}");
            assert!(mount.text("churn/.modelfs/why").contains(rule), "{what}");
            mount.assert_link("churn/prod", "v2");
            mount.assert_link("churn/staging", "v1");
            wait_a_second();
        }
    }
    for (args, next) in [
        (&["promote", "churn/v1", "prod"][..], "try: modelfs approve churn/v1 --as validator"),
        (&["rollback", "churn", "prod", "--to", "v1"], "try: modelfs approve churn/v1"),
        // Nobody can approve what is not there.
        (&["snapshot", "churn", "--alias", "prod"], "try: modelfs snapshot churn    # without"),
    ] {
        mount.cli(args).exits(3).says("four-eyes").says(next);
        cli_as(&mount, OWNER, args).exits(3).says("four-eyes").says(next);
    }
    mount.cli(&["alias", "remove", "churn", "prod"]).exits(3).says("alias-stays");
    mount.run("sh", "cd \"$M\" && busybox ln -sfn v1 churn/prod").exits(1);
    assert_eq!(fs::read(churn("draft/who")).expect("as it was"), b"four");
    mount.assert_link("churn/prod", "v2");
    mount.assert_link("churn/staging", "v1");
}

#[test]
fn from_a_refused_link_over_an_approval_to_production_and_back() {
    let mount = governed();
    let ln = |version| mount.retarget("churn", "prod", version);
    assert_eq!(ln("v1"), Err(libc::EACCES));
    approve(&mount, ANN, "v1");
    assert_eq!(ln("v1"), Err(libc::EACCES), "one is not two");
    approve(&mount, ANN, "v1");
    assert_eq!(ln("v1"), Err(libc::EACCES), "nobody counts twice");
    approve(&mount, BOB, "v1");
    mount
        .cli(&["promote", "--plan", "churn/v1", "prod"])
        .ok()
        .says("approved by 4103 as validator");
    ln("v1").expect("two validators");
    let last = records(&mount).pop().expect("records");
    assert_eq!(last["verdict"], "allowed");
    let approvals = last["op"]["moves"][0]["judgement"]["approvals"].as_array().unwrap().clone();
    assert_eq!(
        approvals.iter().map(|a| a["user"].as_str().unwrap()).collect::<Vec<_>>(),
        ["4102", "4103"]
    );

    approve(&mount, ANN, "v2");
    approve(&mount, BOB, "v2");
    ln("v2").expect("approved");
    // A second thought does not move what is there; the way in is shut.
    as_user(ANN, || fs::write(mount.path("churn/.modelfs/approve/v2"), "revoke: wrong set"))
        .expect("own");
    mount.assert_link("churn/prod", "v2");
    mount.cli(&["rollback", "churn", "prod"]).ok().says("v1 (was v2)");
    let back = records(&mount).pop().expect("records");
    assert_eq!(back["verdict"], "rollback");
    let approvals = back["op"]["moves"][0]["judgement"]["approvals"].to_string();
    assert!(approvals.contains("4102") && approvals.contains("4103"), "by whose approval: {back}");
    // Both were let in by the rules, so both are ways back; by ln too.
    ln("v2").expect("it was let in before");
    mount.cli(&["mark", "churn/v1", "bad", "-m", "drifts"]).ok();
    assert_eq!(ln("v1"), Err(libc::EACCES), "marked bad");
    mount
        .cli(&["rollback", "churn", "prod"])
        .exits(4)
        .says("no other version that is not marked bad");
    assert_eq!(ln("v3"), Err(libc::EACCES), "never let in");
    let grep = mount.run("sh", "grep -c '\"alias\":\"prod\"' \"$M\"/.modelfs/history.jsonl").ok();
    assert!(grep.stdout.trim().parse::<u32>().expect("a number") >= 6, "{grep:?}");
}

#[test]
fn an_approval_counts_for_what_was_approved_by_whom_it_was() {
    let mut mount = governed();
    // The owner is a validator too, but sealed nothing: root did. Their own version does not count.
    as_user(OWNER, || {
        fs::write(mount.path("churn/draft/who"), "mine").expect("own draft");
        fs::write(mount.path("churn/snapshot"), "{\"metrics\":{\"auc\":0.99}}").expect("own model");
    });
    approve(&mount, OWNER, "v4");
    approve(&mount, ANN, "v4");
    assert_eq!(mount.retarget("churn", "prod", "v4"), Err(libc::EACCES), "self-approval");
    approve(&mount, BOB, "v4");
    mount.retarget("churn", "prod", "v4").expect("two others");
    // Nobody can name another role or user.
    cli_as(&mount, ONCALL, &["approve", "churn/v1", "--as", "validator"])
        .exits(3)
        .says("does not have the role");
    cli_as(&mount, ANN, &["revoke", "churn/v4", "--user", "4103"]).exits(3).says("to be root");
    cli_as(&mount, ANN, &["approve", "churn/v1", "--expires", "1s"]).ok();
    cli_as(&mount, BOB, &["approve", "churn/v1"]).ok();
    wait_a_second();
    mount.cli(&["approvals", "churn/v1"]).ok().says("EXPIRED");
    mount.cli(&["promote", "churn/v1", "prod"]).exits(3).says("1; it needs >= 2");
    let file = mount.path("churn/.modelfs/approve/v9");
    assert_eq!(syscalls::errno(fs::read(&file)), Err(libc::ENOENT));
    let wrong = as_user(ANN, || fs::write(mount.path("churn/.modelfs/approve/v1"), "yes\n"));
    assert_eq!(syscalls::errno(wrong), Err(libc::EINVAL));
    mount.restart();
    mount.cli(&["approvals", "churn/v4"]).ok().says("approved by 4103 as validator");
}

#[test]
fn what_was_said_of_a_version_is_read_to_its_end() {
    let mount = governed();
    mount.retarget("churn", "staging", "v1").expect("no gate");
    let path = |place: &str| mount.path(format!("churn/.modelfs/{place}"));
    let read = |place: &str| {
        let (mut text, bytes_max) = (String::new(), 1 << 20);
        let file = fs::File::open(path(place)).expect("whoever enters the model may read it");
        file.take(bytes_max).read_to_string(&mut text).expect("a text");
        assert!((text.len() as u64) < bytes_max, "{place} has no end: {}", &text[..100]);
        text
    };
    // Longer than the size that stat(2) shows.
    for (user, letter) in [(ANN, "a"), (BOB, "b")] {
        let words = format!("approve: {}", letter.repeat(4_000));
        as_user(user, || fs::write(path("approve/v1"), words)).expect("may approve");
    }
    for place in ["approve/v1", "mark/v1"] {
        let said: Value = serde_json::from_str(&read(place)).expect("one document");
        let words = |index: usize| said["approvals"][index]["message"].as_str().map(str::len);
        assert_eq!((words(0), words(1), words(2)), (Some(4_000), Some(4_000), None), "{place}");
    }
    assert_eq!(read("break-glass/staging").lines().count(), 1);
}

#[test]
fn words_through_a_file_that_another_user_opened_are_nobodys() {
    let mount = governed();
    for place in ["approve/v1", "mark/v1", "break-glass/staging"] {
        if place.starts_with("break") {
            mount.retarget("churn", "staging", "v1").expect("no gate");
        }
        let path = mount.path(format!("churn/.modelfs/{place}"));
        let open = || fs::OpenOptions::new().write(true).open(&path);
        // As a setuid program that is given the file for its complaints.
        let mut opened = as_user(ANN, open).expect("may say something");
        let written = std::io::Write::write_all(&mut opened, b"approve: by root?\n");
        assert_eq!(syscalls::errno(written), Err(libc::EPERM), "{place}");
    }
    let open = || fs::OpenOptions::new().write(true).open(mount.path("churn/snapshot"));
    let mut opened = as_user(ANN, open).expect("may seal");
    fs::write(mount.path("churn/draft/who"), "four").unwrap();
    let written = std::io::Write::write_all(&mut opened, b"by root?\n");
    assert_eq!(syscalls::errno(written), Err(libc::EPERM));
    let why = mount.text("churn/.modelfs/why");
    assert!(why.contains("another user opened"), "{why}");
    let said = mount.cli_json(&["approvals", "churn/v1"]);
    assert_eq!(said["approvals"], serde_json::json!([]), "{said}");
    assert_eq!(mount.names("churn").iter().filter(|name| name.starts_with('v')).count(), 3);
}

#[test]
fn only_a_broken_glass_passes_the_gates_and_only_for_its_user() {
    let mount = governed();
    let file = mount.path("churn/.modelfs/break-glass/prod");
    assert_eq!(syscalls::errno(fs::write(&file, "x")), Err(libc::EROFS), "no such alias yet");
    cli_as(&mount, ANN, &["break-glass", "churn", "prod", "-m", "INC-1"]).exits(3).says("oncall");
    cli_as(&mount, ONCALL, &["break-glass", "churn", "prod", "-m", " "]).exits(2);
    cli_as(&mount, ONCALL, &["break-glass", "churn", "prod", "-m", "INC-1"]).ok().says("INC-1");
    cli_as(&mount, ANN, &["promote", "churn/v3", "prod"]).exits(3);
    // Root is on call as well, and broke nothing.
    mount.cli(&["promote", "churn/v3", "prod"]).exits(3).says("four-eyes");
    let moved = as_user(ONCALL, || mount.retarget("churn", "prod", "v3"));
    moved.expect("the window is open");
    let last = records(&mount).pop().expect("records");
    assert_eq!(last["verdict"], "break-glass");
    assert_eq!(last["op"]["moves"][0]["judgement"]["reason"], "INC-1");
    assert_eq!(syscalls::errno(fs::write(&file, "INC-2 by root")), Ok(()), "root is oncall here");
    // An emergency is no precedent.
    mount.run("sh", "rm \"$M\"/churn/prod").ok();
    set_policy(&mount, &POLICY.replace("\"4104\", \"root\"", "\"1\""));
}

#[test]
fn a_broken_glass_is_whole_again_under_a_policy_that_does_not_give_it() {
    let mount = governed();
    cli_as(&mount, ONCALL, &["break-glass", "churn", "prod", "-m", "INC-1"]).ok();
    let line = POLICY.lines().find(|line| line.starts_with("break_glass")).expect("it has one");
    set_policy(&mount, &POLICY.replace(line, ""));
    cli_as(&mount, ONCALL, &["promote", "churn/v3", "prod"]).exits(3).says("four-eyes");
    set_policy(&mount, POLICY);
    cli_as(&mount, ONCALL, &["promote", "churn/v3", "prod"]).ok();
}

#[test]
fn a_broken_glass_passes_what_the_policy_asks_of_roles_as_well() {
    let mount = governed();
    let allow = "[[allow]]\nroles = ['validator']\nmodels = ['churn']\nmay = ['move:staging']\n";
    set_policy(&mount, &format!("{POLICY}{allow}"));
    let to_prod = |user: User, version| as_user(user, || mount.retarget("churn", "prod", version));
    assert_eq!(to_prod(ONCALL, "v3"), Err(libc::EACCES));
    let why = mount.text("churn/.modelfs/why");
    assert!(why.contains("no role may") && why.contains("try: modelfs policy show"), "{why}");
    let plan = ["promote", "--plan", "churn/v3", "prod"];
    // Who is told to approve is somebody who may.
    let told = cli_as(&mount, ONCALL, &plan).exits(3).says("FAIL  role-may-move").stdout;
    assert!(told.contains("no `[[allow]]` lets validator approve `churn`"), "{told}");
    cli_as(&mount, ONCALL, &["break-glass", "churn", "prod", "-m", "INC-1"]).ok();
    cli_as(&mount, ONCALL, &plan).ok().says("the glass is broken");
    to_prod(ONCALL, "v3").expect("the window is open");
    let last = records(&mount).pop().expect("records");
    let judged = &last["op"]["moves"][0]["judgement"];
    assert_eq!((&last["verdict"], &judged["reason"]), (&"break-glass".into(), &"INC-1".into()));
    assert_eq!(judged["rules"][0]["rule"], "role-may-move", "{last}");
    // For this user and this alias only.
    assert_eq!(to_prod(ANN, "v2"), Err(libc::EACCES));
    let staging = as_user(ONCALL, || mount.retarget("churn", "staging", "v3"));
    assert_eq!(staging, Err(libc::EACCES));
    as_user(ANN, || mount.retarget("churn", "staging", "v3")).expect("a validator may");
    assert!(mount.text("churn/.modelfs/why").contains("modelfs policy show    # validator: 4102"));
}

#[test]
fn who_may_not_seal_makes_no_model_by_sealing_either() {
    let mount = Mount::new();
    syscalls::chmod(&mount.point, 0o777).expect("root may");
    let allow = "[roles.boss]\nusers = [\"root\"]\n[[allow]]\nroles = [\"boss\"]\nmodels = [\"*\"]\n\
                 may = [\"write\", \"snapshot\"]\n";
    set_policy(&mount, allow);
    let source = mount.bench.write("w", "weights");
    syscalls::chmod(&source, 0o644).expect("root may");
    let source = source.to_str().expect("a plain path");
    cli_as(&mount, ANN, &["snapshot", "mine", source]).exits(3).says("the roles that may: boss");
    assert!(!mount.path("mine").exists());
    assert_eq!(refusals(&mount).len(), 1, "{:?}", refusals(&mount));
    mount.cli(&["snapshot", "mine", source]).ok();
}

#[test]
fn a_plan_is_bounded_as_a_step_is() {
    let mount = governed();
    let sets: Vec<String> = (0..257).map(|index| format!("churn/v1=a{index}")).collect();
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    for first in [&["promote", "--plan"][..], &["promote"]] {
        mount.cli(&[first, &sets].concat()).exits(2).says("at most 256");
        let twice = ["--set", "churn/v1=prod", "--set", "churn/v2=prod"];
        mount.cli(&[first, &twice].concat()).exits(2).says("named twice");
    }
}

#[test]
fn an_exchange_and_a_set_are_decided_as_a_whole() {
    let mount = governed();
    let churn = |name: &str| mount.path(format!("churn/{name}"));
    for (user, version) in [(ANN, "v1"), (BOB, "v1")] {
        approve(&mount, user, version);
    }
    mount.retarget("churn", "prod", "v1").expect("approved");
    mount.retarget("churn", "staging", "v2").expect("no gate");
    let swapped = syscalls::rename2(&churn("staging"), &churn("prod"), libc::RENAME_EXCHANGE);
    assert_eq!(swapped, Err(libc::EACCES));
    let set = ["promote", "--set", "churn/v2=staging-2", "--set", "churn/v2=prod"];
    mount.cli(&set).exits(3).says("four-eyes");
    assert!(fs::symlink_metadata(churn("staging-2")).is_err(), "all or none");
    let set = ["promote", "--set", "churn/v1=prod-2", "--set", "churn/v2=prod"];
    mount.cli(&set).exits(3).says("four-eyes");
    assert!(fs::symlink_metadata(churn("prod-2")).is_err(), "its own gate would let it in");
    mount.cli(&["promote", "--set", "churn/v2=qa", "--set", "churn/v3=qa"]).exits(2).says("twice");
    assert_eq!(
        syscalls::errno(fs::remove_file(churn("prod"))),
        Err(libc::EACCES),
        "rm of a gated alias"
    );
    mount.cli(&["alias", "remove", "churn", "prod"]).exits(3).says("moved, not removed");
    let sealed = mount.refused("churn", b"{\"alias\":\"prod\"}");
    assert_eq!(sealed.0, libc::ENODATA, "nothing to seal: {sealed:?}");
    fs::write(churn("draft/who"), "four").expect("a draft");
    let (errno, answer) =
        mount.refused("churn", b"{\"alias\":\"prod\",\"metrics\":{\"auc\":0.95}}");
    assert_eq!(errno, libc::EACCES);
    assert!(answer["error"].as_str().unwrap_or_default().contains("four-eyes"), "{answer}");
    assert_eq!(fs::read(churn("draft/who")).expect("the draft is as it was"), b"four");
    mount.assert_link("churn/prod", "v1");
    mount.assert_link("churn/staging", "v2");
    mount.assert_sound();
}

#[test]
fn parts_that_allow_hold_in_the_draft_at_snapshot_and_for_root() {
    let mount = governed();
    set_policy(
        &mount,
        "[roles.dev]\nusers = [\"4102\"]\n[[allow]]\nroles = [\"dev\"]\nmodels = [\"churn\"]\nmay = [\"write\", \"snapshot\", \"move:staging\"]\n",
    );
    let draft = mount.path("churn/draft/file");
    assert_eq!(syscalls::errno(fs::write(&draft, "x")), Err(libc::EACCES), "root is no dev");
    assert_eq!(syscalls::errno(fs::create_dir(mount.path("churn/draft/d"))), Err(libc::EACCES));
    as_user(ANN, || fs::write(&draft, "x")).expect("a dev may");
    assert_eq!(syscalls::errno(fs::remove_file(&draft)), Err(libc::EACCES));
    assert_eq!(mount.refused("churn", b"by root\n").0, libc::EACCES);
    as_user(ANN, || fs::write(mount.path("churn/snapshot"), "by ann\n")).expect("a dev may");
    as_user(ANN, || mount.retarget("churn", "staging", "v4")).expect("a dev may");
    assert_eq!(as_user(ANN, || mount.retarget("churn", "prod", "v4")), Err(libc::EACCES));
    assert_eq!(mount.retarget("churn", "staging", "v1"), Err(libc::EACCES));
    assert!(mount.text("churn/.modelfs/why").contains("the roles that may: dev"));
    mount.cli(&["mark", "churn/v1", "bad"]).exits(3);
    // Who sets the policy is never shut out.
    set_policy(&mount, "");
    mount.retarget("churn", "staging", "v1").expect("no policy any more");
}

#[test]
fn a_bad_policy_is_refused_and_the_one_in_force_stays() {
    let mount = governed();
    let before = mount.text(".modelfs/policy.toml");
    assert_eq!(before, POLICY);
    let file = mount.bench.write("bad.toml", "[[gate]]\nmodels = [\"*\"]\naliases = [\"*\"]\nrules = [{ name = \"x\", expr = \"metrik > 1\" }]\n");
    let file = file.to_str().expect("a plain path");
    for command in ["set", "check"] {
        mount
            .cli(&["policy", command, file])
            .exits(2)
            .says("line 4, column 31: there is nothing called `metrik`");
    }
    mount.cli(&["policy", "set", "/no/such/file"]).exits(4);
    assert_eq!(mount.text(".modelfs/policy.toml"), before);
    let ann = cli_as(&mount, ANN, &["policy", "show"]).ok();
    assert!(ann.stdout.contains("auc-floor"));
    let good = mount.bench.write("good.toml", POLICY);
    cli_as(&mount, ANN, &["policy", "set", good.to_str().expect("plain")]).exits(3);
    mount.cli(&["policy", "check", good.to_str().expect("plain")]).ok().says("no mistakes");
}

/// What each of many processes does four times, with its number and `$V`, a version, in hand.
const MOVERS: [&str; 5] = [
    "\"$MODELFS\" promote churn/$V prod",
    "\"$MODELFS\" rollback churn prod",
    "ln -sfn $V churn/prod",
    "ln -s $V churn/.$$ && mv -T churn/.$$ churn/prod",
    "\"$MODELFS\" promote --set churn/$V=qa --set churn/$V=prod",
];

#[test]
fn the_history_stays_linear_while_many_move_and_the_policy_changes() {
    let mount = governed();
    for (user, version) in [(ANN, "v1"), (BOB, "v1"), (ANN, "v2"), (BOB, "v2")] {
        approve(&mount, user, version);
    }
    // Without a way back by itself: what is in force at a record alone decides.
    let strict = POLICY.replace("rollback = { to = \"previously-approved\" }\n", "");
    let open = strict.replace("size() >= 2", "size() >= 0").replace(">= 0.85", ">= 0.0");
    set_policy(&mount, &strict);
    mount.bench.write("0.toml", strict);
    mount.bench.write("1.toml", open);
    let start = |script: &str| {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script]).current_dir(&mount.point).stdin(std::process::Stdio::null());
        mount.environment(&mut command);
        let quiet = || std::process::Stdio::null();
        command.stdout(quiet()).stderr(quiet()).spawn().expect("a shell")
    };
    let mover = |index: usize| {
        let (deed, versions) = (MOVERS[index % MOVERS.len()], ["v1", "v2", "v3", "v1"]);
        start(&format!(
            "s=0; for V in {}; do {deed}; case $? in 0|1|3|4|5) ;; *) s=9 ;; esac; done; exit $s",
            [&versions[index % 4..], &versions[..index % 4]].concat().join(" ")
        ))
    };
    let mut processes: Vec<_> = (0..50).map(mover).collect();
    let policy = "for n in 1 0 1 0 1 0 1 0 1 0; do \"$MODELFS\" policy set \"$BASE\"/$n.toml || exit 9; done";
    processes.push(start(policy));
    // Readers look as long as somebody moves.
    let (prod, mut seen) = (mount.path("churn/prod"), Vec::new());
    while !processes.is_empty() {
        for _ in 0..100 {
            match fs::read_link(&prod).map(|to| to.display().to_string()) {
                Ok(to) if seen.last() == Some(&to) => {}
                Ok(to) => seen.push(to),
                Err(error) => assert!(seen.is_empty(), "prod was there, and is not: {error}"),
            }
        }
        processes.retain_mut(|process| match process.try_wait().expect("our child") {
            Some(status) => {
                assert!(status.success(), "{status}");
                false
            }
            None => true,
        });
    }
    assert_each_record_agrees_with_its_policy(&mount, &seen);
    mount.cli(&["history", "--verify"]).ok();
}

/// `seen` is what a reader saw in `prod`, one after the other.
fn assert_each_record_agrees_with_its_policy(mount: &Mount, seen: &[String]) {
    let (mut at, mut put) = (Value::Null, Vec::new());
    let (mut in_force, mut is_strict, mut verdicts) = (Value::Null, true, Vec::new());
    for (index, record) in records(mount).iter().enumerate() {
        assert_eq!(record["seq"], index as u64 + 1, "linear");
        if record["op"]["kind"] == "set_policy" {
            in_force = record["op"]["digest"].clone();
            is_strict = record["op"]["text"].as_str().expect("a text").contains("0.85");
            continue;
        }
        assert_eq!(record.get("policy").unwrap_or(&Value::Null), &in_force, "{record}");
        let moves = record["op"]["moves"].as_array().into_iter().flatten();
        for step in moves.filter(|step| step["alias"] == "prod") {
            let expected = if is_strict && step["to"] == "v3" { "refused" } else { "allowed" };
            assert_eq!(step["judgement"]["verdict"], expected, "{record}");
            assert_eq!(record["verdict"], expected, "{record}");
            assert_eq!(step["from"], at, "each starts where the last ended: {record}");
            verdicts.push(expected);
            if expected == "allowed" {
                at = step["to"].clone();
                put.push(at.as_str().expect("never removed").to_owned());
            }
        }
    }
    let mut way = put.iter();
    let in_order = seen.iter().all(|version| way.any(|it| it == version));
    assert!(!seen.is_empty() && in_order, "readers saw {seen:?}, put there {put:?}");
    for verdict in ["allowed", "refused"] {
        assert!(verdicts.contains(&verdict), "none was {verdict}");
    }
}

#[test]
fn a_store_without_a_policy_asks_for_permission_bits_only() {
    require_root();
    let bench = Bench::new();
    let path: &Path = &bench.write("model.bin", "x");
    bench.cli(&["snapshot", "churn", path.to_str().expect("plain"), "--alias", "prod"]).ok();
    bench.cli(&["policy", "show"]).ok().says("no policy is set");
    bench.cli(&["promote", "--plan", "churn/v1", "next"]).ok().says("allowed: no gate");
    bench.cli(&["break-glass", "churn", "prod", "-m", "x"]).exits(2).says("has no gate");
    bench.cli(&["approve", "churn/v1"]).ok().says("approved by root");
    bench.cli(&["revoke", "churn/v1"]).ok().says("no approvals");
    bench.cli(&["revoke", "churn/v1"]).exits(4);
}

#[test]
fn what_was_is_still_there_under_its_time() {
    let mount = governed();
    let now = || mount.run("sh", "date -u +%Y-%m-%dT%H:%M:%S.%NZ").ok().stdout.trim().to_owned();
    let before_models = "2001-01-01";
    mount.retarget("churn", "staging", "v1").expect("no gate");
    let first = now();
    mount.retarget("churn", "staging", "v2").expect("no gate");
    mount.seal_files("churn", &[("who", b"four")], "four");
    let second = now();
    // The moment of a record is the first of what it did.
    let sealed = records(&mount).pop().expect("a record")["time"].as_str().map(str::to_owned);
    mount.assert_link(&format!(".at/{}/churn/latest", sealed.expect("a time")), "v4");
    mount.run("sh", "rm \"$M\"/churn/staging").ok();
    let at = |time: &str, below: &str| format!(".at/{time}/churn/{below}");
    mount.assert_link(&at(&first, "staging"), "v1");
    assert_eq!(mount.text(&at(&first, "staging/who")), "one");
    mount.assert_link(&at(&first, "latest"), "v3");
    mount.assert_link(&at(&second, "staging"), "v2");
    assert_eq!(mount.text(&at(&second, "latest/who")), "four");
    assert_eq!(mount.names(&at(&first, "")), ["latest", "staging", "v1", "v2", "v3"]);
    assert_eq!(mount.names(&format!(".at/{first}")), ["churn"]);
    assert!(mount.names(&format!(".at/{before_models}")).is_empty());
    for missing in ["2999-01-01T00:00:00Z", "yesterday", "now"] {
        assert!(!mount.path(format!(".at/{missing}")).exists(), "{missing}");
    }
    assert_eq!(mount.names(".at"), Vec::<String>::new());
    let link = mount.path(at(&second, "new"));
    assert_eq!(syscalls::symlink("v1", &link), Err(libc::EROFS));
    // What people may see is decided by what the model is now.
    syscalls::chmod(&mount.path("churn"), 0o700).expect("root may");
    let path = mount.path(at(&first, "v1/who"));
    assert_eq!(as_user(ANN, || syscalls::errno(fs::read(&path))), Err(libc::EACCES));
}
