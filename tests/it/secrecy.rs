//! What is known of a model to those who may not enter it: its name and its bits, as of any directory.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::harness::{Mount, require_root};
use crate::permissions::{DENIED, GROUP, MEMBER, OWNER, STRANGER};
use crate::syscalls::{self, User, as_user};

/// `open` for all and `pii` for a group, each with v1 in `prod`; `canary` is an alias of `pii` only. Both
/// were moved in one step, and once refused in one.
fn with_pii() -> Mount {
    require_root();
    let mount = Mount::new();
    for (model, mode) in [("open", 0o755), ("pii", 0o750)] {
        syscalls::mkdir(&mount.path(model), 0o755).expect("mkdir makes a model");
        let command = format!("{{\"message\":\"of {model}\",\"metrics\":{{\"auc\":0.777}}}}");
        mount.seal_files(model, &[("who", model.as_bytes())], &command);
        syscalls::lchown(&mount.path(model), OWNER.uid, GROUP).expect("root may");
        syscalls::chmod(&mount.path(model), mode).expect("root may");
    }
    mount.cli(&["promote", "--set", "open/v1=prod", "--set", "pii/v1=prod", "-m", "both"]).ok();
    mount.cli(&["promote", "pii/v1", "canary"]).ok();
    let policy = "[[gate]]\nmodels = ['pii']\naliases = ['next']\n\
                  rules = [{ name = 'auc', expr = 'metrics.auc > 0.9' }]\n";
    let file = mount.bench.write("policy.toml", policy);
    mount.cli(&["policy", "set", file.to_str().expect("plain")]).ok();
    mount.cli(&["promote", "--set", "open/v1=next", "--set", "pii/v1=next"]).exits(3).says("0.777");
    mount
}

fn names(user: User, directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = as_user(user, || {
        let entries = fs::read_dir(directory).unwrap_or_else(|e| panic!("{directory:?}: {e}"));
        let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
        entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect()
    });
    names.sort();
    names
}

#[test]
fn a_model_is_known_to_who_may_enter_it() {
    let mount = with_pii();
    let stat = |user: User, path: &str| {
        as_user(user, || syscalls::errno(fs::symlink_metadata(mount.path(path))))
    };
    // The views lead past the model's directory, so they ask for its permission themselves.
    assert_eq!(names(STRANGER, &mount.path(".live")), ["latest", "prod"]);
    assert_eq!(names(STRANGER, &mount.path(".live/prod")), ["open"]);
    assert_eq!(names(STRANGER, &mount.path(".live/canary")), Vec::<String>::new());
    for hidden in [".live/prod/pii", ".live/canary/pii", ".live/none/pii", ".live/prod/pii/who"] {
        assert_eq!(stat(STRANGER, hidden), DENIED, "{hidden}");
    }
    assert_eq!(stat(STRANGER, ".live/prod/nobody"), Err(libc::ENOENT));
    assert_eq!(stat(STRANGER, ".live/prod/open/who"), Ok(()));
    // A supplementary group that only the process has is one.
    assert_eq!(names(MEMBER, &mount.path(".live")), ["canary", "latest", "prod"]);
    assert_eq!(names(MEMBER, &mount.path(".live/prod")), ["open", "pii"]);
    assert_eq!(stat(MEMBER, ".live/canary/pii/who"), Ok(()));
    assert_eq!(stat(MEMBER, ".live/none/pii"), Err(libc::ENOENT));
    assert_eq!(stat(STRANGER, ".live/canary/pii"), DENIED, "whoever looked before");
    let today = mount.run("sh", "date -u +%Y-%m-%dT%H:%M:%S.%NZ").ok().stdout.trim().to_owned();
    for hidden in ["prod", "v1", "canary", "v1/who", "none"] {
        assert_eq!(stat(STRANGER, &format!(".at/{today}/pii/{hidden}")), DENIED, "{hidden}");
        assert_eq!(stat(STRANGER, &format!("pii/{hidden}")), DENIED, "{hidden}");
    }
    for own in ["history.jsonl", "status.json", "why"] {
        let read =
            as_user(STRANGER, || syscalls::errno(fs::read(mount.path(".modelfs").join(own))));
        assert_eq!(read, DENIED, "the store's {own}");
        let read = as_user(STRANGER, || fs::read_to_string(mount.path("open/.modelfs").join(own)));
        let read = read.expect("the open model's");
        assert!(!read.contains("pii") && !read.contains("canary"), "{own}: {read}");
    }
}

#[test]
fn the_history_of_a_model_has_its_own_part_of_a_step_of_several() {
    let mount = with_pii();
    let history =
        as_user(STRANGER, || fs::read_to_string(mount.path("open/.modelfs/history.jsonl")));
    let history = history.expect("open to all");
    assert_eq!(history.matches("\"part\":true").count(), 2, "{history}");
    assert!(history.contains(r#""message":"both","moves":[{"alias":"prod""#), "{history}");
    assert!(history.contains("what was asked for together with it was refused"), "{history}");
    let bytes = fs::metadata(mount.path("open/.modelfs/history.jsonl")).expect("it is there").len();
    assert_eq!(bytes, history.len() as u64);
    let whole = mount.text(".modelfs/history.jsonl");
    assert!(whole.contains(r#"{"alias":"prod","from":null,"model":"pii","to":"v1"}"#), "{whole}");
    let own = mount.text("pii/.modelfs/history.jsonl");
    assert!(own.contains("metrics.auc is 0.777") && !own.contains("open"), "{own}");
    // The command line says the same, and no more in anything else that it answers.
    let cli = |args: &[&str]| {
        let output = mount.bench.cli_as(STRANGER, args);
        let text = format!("{}{}", output.stdout, output.stderr);
        for secret in ["canary", "of pii", "0.777"] {
            assert!(!text.contains(secret), "{args:?} shows `{secret}`: {text}");
        }
        (output.status, text)
    };
    assert!(!cli(&["history", "open"]).1.contains("pii"));
    assert!(!cli(&["history", "open", "--json"]).1.contains("pii"));
    assert!(!cli(&["list"]).1.contains("pii"));
    for public in [&["stats"][..], &["status"], &["policy", "show"]] {
        assert_eq!(cli(public).0, 0, "{public:?}");
    }
    for closed in [
        &["list", "pii"][..],
        &["show", "pii"],
        &["show", "pii/canary"],
        &["show", "pii/none"],
        &["history", "pii"],
        &["history"],
        &["history", "--verify"],
        &["approvals", "pii"],
        &["approve", "pii/v1"],
        &["alias", "list", "pii"],
        &["promote", "--plan", "pii/v1", "next"],
        &["promote", "--set", "open/v1=x", "--set", "pii/v1=x"],
        &["rollback", "pii", "prod"],
        &["stats", "pii/v1"],
        &["stats", "--files"],
        &["warm", "pii"],
        &["verify"],
    ] {
        assert_eq!(cli(closed).0, 3, "{closed:?}");
    }
    mount.cli(&["history", "--verify"]).ok();
    mount.assert_sound();
}

#[test]
fn sizes_and_counts_are_of_what_one_may_read() {
    let mount = with_pii();
    for (user, models) in [(STRANGER, 1), (MEMBER, 2)] {
        for verb in ["stats", "status"] {
            let told = mount.bench.cli_as(user, &[verb, "--json"]).ok();
            let told: Value = serde_json::from_str(&told.stdout).expect("JSON");
            assert_eq!(
                (&told["models"], &told["versions"]),
                (&models.into(), &models.into()),
                "{verb}"
            );
            assert_eq!(told.get("pack_bytes"), None, "that of all is the owner's");
        }
    }
    assert!(mount.bench.cli_json(&["stats"])["pack_bytes"].as_u64() > Some(0));
    // The same content in a model that one may not see is nothing that is told.
    let same = |model: &str, mode| {
        syscalls::mkdir(&mount.path(model), 0o755).expect("mkdir makes a model");
        mount.seal_files(model, &[("w", &[7; 5_000])], "the same");
        syscalls::lchown(&mount.path(model), OWNER.uid, GROUP).expect("root may");
        syscalls::chmod(&mount.path(model), mode).expect("root may");
    };
    same("seen", 0o755);
    same("unseen", 0o750);
    let shared = |user: User| {
        let told = mount.bench.cli_as(user, &["stats", "seen/v1", "--json"]).ok();
        let told: Value = serde_json::from_str(&told.stdout).expect("JSON");
        told["sharing"]["shared"]["chunks"].as_u64()
    };
    assert_eq!((shared(STRANGER), shared(MEMBER)), (Some(0), Some(1)));
    syscalls::chmod(&mount.path("."), 0o700).expect("root may");
    for verb in ["stats", "status"] {
        mount.bench.cli_as(STRANGER, &[verb]).exits(3).says("the store");
    }
}

#[test]
fn a_role_counts_for_the_groups_that_a_process_has() {
    let mount = with_pii();
    let policy = format!("[roles.validator]\ngroups = ['{GROUP}']\n");
    let file = mount.bench.write("policy.toml", policy);
    mount.cli(&["policy", "set", file.to_str().expect("plain")]).ok();
    let approve = mount.path("open/.modelfs/approve/v1");
    as_user(MEMBER, || fs::write(&approve, "approve as validator")).expect("by the mount");
    mount.bench.cli_as(MEMBER, &["approve", "open/v1", "--as", "validator"]).ok();
    let refused =
        as_user(STRANGER, || syscalls::errno(fs::write(&approve, "approve as validator")));
    assert_eq!(refused, DENIED);
    mount.bench.cli_as(STRANGER, &["approve", "open/v1", "--as", "validator"]).exits(3);
}
