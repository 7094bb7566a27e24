//! The control file `snapshot`: one write is one command, and the answer can be read.

use std::fs::{self, File};
use std::io::{Read, Write};

use serde_json::{Value, json};

use crate::harness::{Mount, wait_for};

fn metadata(mount: &Mount, version: &str) -> Value {
    let text = mount.text(&format!("churn/{version}/metadata.json"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// A mount with one file in the draft of `churn`.
fn with_draft() -> Mount {
    let mount = Mount::with_churn();
    fs::write(mount.path("churn/draft/a"), "content").expect("a draft file");
    mount
}

/// `command` is refused with `errno` and changes nothing; the answer.
#[track_caller]
fn check_refused(command: &[u8], errno: &[i32]) -> Value {
    let mount = with_draft();
    let (found, answer) = mount.refused("churn", command);
    assert!(errno.contains(&found), "errno {found}: {answer}");
    assert_eq!(mount.names("churn"), ["draft", "snapshot"], "no version was made");
    assert_eq!(mount.text("churn/draft/a"), "content");
    assert_eq!(mount.seal("churn", "after the refusal")["version"], "v1");
    answer
}

#[test]
fn the_answer_comes_on_the_same_descriptor() {
    let mount = with_draft();
    let script = r#"exec 3<>"$M/churn/snapshot"; echo "one" >&3; cat <&3"#;
    for (shell, version) in [("bash", "v1"), ("dash", "v2"), ("busybox sh", "v3")] {
        fs::write(mount.path("churn/draft/a"), version).expect("a draft file");
        let shown = mount.run(shell, script).ok();
        assert_eq!(shown.json()["version"], version, "{shown:?}");
        assert!(shown.stdout.ends_with('\n'), "{shown:?}");
    }
}

#[test]
fn a_failed_command_is_explained_on_the_same_descriptor() {
    let mount = Mount::with_churn();
    let mut control = File::options()
        .read(true)
        .write(true)
        .open(mount.path("churn/snapshot"))
        .expect("the control file is there");
    control.write_all(b"nothing to seal\n").expect_err("an empty draft is refused");
    let mut text = String::new();
    control.read_to_string(&mut text).expect("the answer can be read");
    let answer: Value = serde_json::from_str(&text).expect("one line of JSON");
    assert_eq!(answer["ok"], Value::Bool(false), "{answer}");
    assert!(answer["errno"].as_str().is_some_and(|name| name.starts_with('E')), "{answer}");
    assert_eq!(answer, mount.answer("churn"), "a later `cat` says the same");
}

#[test]
fn a_descriptor_takes_one_command_after_another() {
    let mount = with_draft();
    let mut control = File::options()
        .read(true)
        .write(true)
        .open(mount.path("churn/snapshot"))
        .expect("the control file is there");
    for version in ["v1", "v2"] {
        fs::write(mount.path("churn/draft/a"), version).expect("a draft file");
        control.write_all(b"again\n").expect("it is sealed");
        let mut bytes = [0; 4096];
        let len = control.read(&mut bytes).expect("the answer can be read");
        let answer: Value = serde_json::from_slice(&bytes[..len]).expect("one line of JSON");
        assert_eq!(answer["version"], version, "{answer}");
    }
}

#[test]
fn reading_before_any_command_is_no_error() {
    let mount = with_draft();
    let text = mount.text("churn/snapshot");
    assert!(text.len() < 4096, "{text}");
    assert_eq!(mount.names("churn"), ["draft", "snapshot"], "reading seals nothing");
    mount.run("bash", r#": > "$M/churn/snapshot""#).ok();
    assert_eq!(mount.names("churn"), ["draft", "snapshot"], "opening and closing seals nothing");
}

#[test]
fn a_json_command_sets_everything() {
    let mount = Mount::with_churn();
    fs::create_dir(mount.path("churn/draft/run7")).expect("a directory");
    fs::write(mount.path("churn/draft/run7/weights"), "w").expect("a draft file");
    fs::write(mount.path("churn/draft/other"), "stays").expect("a draft file");
    let command = json!({
        "message": "trained on the march data",
        "draft": "run7",
        "metrics": {"auc": 0.917_28, "rows": 12_345_678_901_u64},
        "params": {"depth": 5, "name": "gbt"},
        "datasets": [],
        "labels": {"team": "risk"},
        "alias": "candidate",
    });
    let answer = mount.seal("churn", &command.to_string());
    assert_eq!(answer["files"], 1, "{answer}");
    mount.assert_link("churn/candidate", "v1");
    assert_eq!(mount.text("churn/v1/weights"), "w");
    assert_eq!(mount.text("churn/draft/other"), "stays", "only run7 was sealed");
    assert!(!mount.path("churn/draft/run7/weights").exists(), "what was sealed is gone");
    let metadata = metadata(&mount, "v1");
    for key in ["message", "metrics", "params", "labels"] {
        assert_eq!(metadata[key], command[key], "`{key}` of {metadata}");
    }
}

#[test]
fn versions_say_which_one_they_follow() {
    let mount = with_draft();
    mount.seal("churn", "one");
    mount.seal_files("churn", &[("b", b"b")], "two");
    let second = metadata(&mount, "v2");
    assert_eq!((&second["supersedes"], &second["version"]), (&"v1".into(), &"v2".into()));
    let text = mount.text("churn/v2/metadata.json");
    let door = ["\"mount\"", "\"Mount\""].iter().any(|door| text.contains(door));
    assert!(door, "it came through the mount: {text}");
}

#[test]
fn a_message_may_have_many_lines() {
    let mount = with_draft();
    mount.run("bash", "/usr/bin/printf 'one\\ntwo\\n' > \"$M/churn/snapshot\"").ok();
    assert_eq!(metadata(&mount, "v1")["message"], "one\ntwo");
}

#[test]
fn two_writes_are_two_commands() {
    let mount = with_draft();
    // The shell's own printf writes each line by itself: the second finds an empty draft.
    let shown = mount.run("bash", r#"printf 'one\ntwo\n' > "$M/churn/snapshot""#);
    assert_ne!(shown.status, 0, "the second line was refused: {shown:?}");
    assert_eq!(mount.names("churn"), ["draft", "latest", "snapshot", "v1"]);
    assert_eq!(metadata(&mount, "v1")["message"], "one");
    assert_eq!(mount.answer("churn")["ok"], Value::Bool(false));
}

#[test]
fn an_empty_message_is_fine() {
    let mount = with_draft();
    mount.run("bash", r#"echo > "$M/churn/snapshot""#).ok();
    assert_eq!(mount.answer("churn")["version"], "v1");
}

#[test]
fn malformed_json_is_refused() {
    for command in ["{\"message\": ", "{\"message\": 7}", "{\"draft\": []}", "{]", "{} {}"] {
        let answer = check_refused(command.as_bytes(), &[libc::EINVAL]);
        assert_eq!(answer["errno"], "EINVAL", "{command}");
    }
}

#[test]
fn an_unknown_key_is_refused_by_name() {
    let answer = check_refused(br#"{"mesage": "a typing error"}"#, &[libc::EINVAL]);
    assert!(answer["error"].as_str().is_some_and(|text| text.contains("mesage")), "{answer}");
}

#[test]
fn what_is_not_utf8_is_refused() {
    check_refused(b"caf\xe9\n", &[libc::EINVAL]);
}

#[test]
fn a_command_has_a_limit_of_64_kib() {
    let limit = 64 << 10;
    check_refused(&vec![b'x'; limit + 1], &[libc::EINVAL, libc::E2BIG, libc::EFBIG]);
    let mount = with_draft();
    let control = mount.path("churn/snapshot");
    fs::write(&control, vec![b'x'; limit]).unwrap_or_else(|e| panic!("{e}: {}", mount.log()));
    assert_eq!(metadata(&mount, "v1")["message"].as_str().map(str::len), Some(limit));
}

#[test]
fn a_draft_that_leads_out_is_refused() {
    for draft in ["..", "../v1", "/etc", "a/../..", "missing"] {
        let command = json!({"message": "out", "draft": draft}).to_string();
        check_refused(command.as_bytes(), &[libc::EINVAL, libc::ENOENT]);
    }
}

#[test]
fn an_alias_that_is_reserved_is_refused_before_anything_is_sealed() {
    for alias in ["latest", "draft", "snapshot", "v7", "a b", "", "-x"] {
        let command = json!({"message": "x", "alias": alias}).to_string();
        check_refused(command.as_bytes(), &[libc::EINVAL, libc::EPERM]);
    }
}

#[test]
fn an_asynchronous_command_answers_at_once() {
    let mount = Mount::with_churn();
    // It cannot know yet that this is in vain: that takes a second.
    let held = File::create(mount.path("churn/draft/held")).expect("a draft file");
    let mut control = File::options().read(true).write(true).open(mount.path("churn/snapshot"));
    let control = control.as_mut().expect("the control file is there");
    control.write_all(br#"{"async": true}"#).expect("it was only begun");
    let mut begun = String::new();
    control.read_to_string(&mut begun).expect("the answer can be read");
    assert!(begun.contains(r#""ok":true,"async":true"#) && !begun.contains("version"), "{begun}");
    let last = || Some(mount.answer("churn")).filter(|answer| answer["ok"] == json!(false));
    assert_eq!(wait_for("the refusal", last)["errno"], "EBUSY");
    drop(held);
    fs::remove_file(mount.path("churn/draft/held")).expect("a draft is writable");
    fs::write(mount.path("churn/draft/a"), vec![7; 4 << 20]).expect("a draft file");
    let answer = mount.seal("churn", r#"{"message": "later", "async": true}"#);
    assert_eq!(answer["ok"], Value::Bool(true), "{answer}");
    wait_for("the version", || fs::metadata(mount.path("churn/v1/a")).ok());
    assert_eq!(fs::read(mount.path("churn/v1/a")).expect("sealed"), vec![7; 4 << 20]);
    wait_for("the draft to be empty", || mount.names("churn/draft").is_empty().then_some(()));
    // The draft is empty a moment before that is told.
    wait_for("its end", || (mount.answer("churn")["version"] == "v1").then_some(()));
    let status = mount.text("churn/.modelfs/status.json");
    let status: Value = serde_json::from_str(&status).expect("status.json is JSON");
    assert_eq!((&status["last"]["version"], &status["sealing"]), (&json!("v1"), &json!([])));
}

#[test]
fn commands_at_the_same_time_make_versions_one_by_one() {
    let mount = Mount::with_churn();
    let count = 8;
    for number in 0..count {
        let sub = mount.path("churn/draft").join(format!("d{number}"));
        fs::create_dir(&sub).expect("a directory");
        fs::write(sub.join("who"), number.to_string()).expect("a draft file");
    }
    let seal = |number: i32| {
        let command = json!({"message": number.to_string(), "draft": format!("d{number}")});
        let mut control = File::options()
            .read(true)
            .write(true)
            .open(mount.path("churn/snapshot"))
            .expect("the control file is there");
        control.write_all(command.to_string().as_bytes()).expect("it is sealed");
        let mut text = String::new();
        control.read_to_string(&mut text).expect("the answer can be read");
        let answer: Value = serde_json::from_str(&text).expect("one line of JSON");
        answer["version"].as_str().expect("a version").to_owned()
    };
    let versions: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..count).map(|n| scope.spawn(move || seal(n))).collect();
        workers.into_iter().map(|worker| worker.join().expect("no panic")).collect()
    });
    for (number, version) in versions.iter().enumerate() {
        let who = mount.text(&format!("churn/{version}/who"));
        assert_eq!(who, number.to_string(), "each descriptor has the answer to its own command");
    }
    let mut unique = versions.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), versions.len(), "{versions:?}");
}

#[test]
fn metadata_of_the_user_is_kept_under_user() {
    let mount = with_draft();
    fs::write(mount.path("churn/draft/metadata.json"), r#"{"mine": [1, 2]}"#).expect("a file");
    mount.seal("churn", "with metadata");
    assert_eq!(metadata(&mount, "v1")["user"], json!({"mine": [1, 2]}));
    for text in ["[1, 2]", "not json", "\"text\""] {
        let mount = with_draft();
        fs::write(mount.path("churn/draft/metadata.json"), text).expect("a draft file");
        let (_, answer) = mount.refused("churn", b"wrong metadata\n");
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(error.contains("metadata.json"), "the path is named: {answer}");
        assert_eq!(mount.text("churn/draft/metadata.json"), text);
    }
}
