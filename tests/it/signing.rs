//! Keys that sign the history: at the mount, at the command line, and in the hands of an auditor.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::harness::{Bench, Mount};
use crate::syscalls;
use crate::tamper::KEYS;

/// The public half of the first key, as `openssl pkey -pubout` prints it.
pub const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
    MCowBQYDK2VwAyEAj9bWvUhnsyKIg5FiQ4aj5D+cadrfqkIGguCDrFBcplc=\n\
    -----END PUBLIC KEY-----\n";

pub fn key(bench: &Bench, name: &str, text: &str, mode: u32) -> String {
    let path: PathBuf = bench.write(name, text);
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
    path.to_str().expect("a plain path").to_owned()
}

#[test]
fn a_mount_with_a_key_signs_what_comes_through_every_door() {
    let mut mount = Mount::with_churn();
    mount.seal_files("churn", &[("who", b"one")], "one");
    let private = key(&mount.bench, "key.pem", KEYS[0], 0o600);
    let public = key(&mount.bench, "key.pub", PUBLIC, 0o644);
    mount.cli(&["history", "--verify", "--key", &public]).exits(6).says("has a signature");
    mount.stop();
    mount.set_options(&["--allow-other", "--sign-key", &private]);
    mount.start();
    mount.seal_files("churn", &[("who", b"two")], "two");
    mount.retarget("churn", "prod", "v1").expect("no gate");
    mount.cli(&["promote", "churn/v2", "qa"]).ok();
    mount
        .cli(&["history", "--verify", "--key", &public])
        .ok()
        .says("3 records from 4 on, each signed");
    let signed =
        mount.text(".modelfs/history.jsonl").matches("\"signature\":{\"key\":\"8fd6d6bd").count();
    assert_eq!(signed, 3);
    // What is printed can be pasted back.
    let verified = mount.cli(&["history", "--verify"]).ok().stdout;
    let head = verified.trim_end().rsplit(' ').next().expect("a head").to_owned();
    assert!(head.starts_with("6:"), "{verified}");
    mount.cli(&["history", "--verify", "--head", &head]).ok();
    let report = mount.cli_json(&["history", "--verify", "--key", &public, "--head", &head]);
    assert_eq!((&report["anchor"], &report["verified"]), (&head.into(), &true.into()));
    assert_eq!(report["signed"]["first"], 4);
    // Without the key it can be read, and not changed.
    mount.stop();
    mount.set_options(&["--allow-other"]);
    mount.start();
    assert_eq!(mount.text("churn/prod/who"), "one");
    assert_eq!(mount.retarget("churn", "prod", "v2"), Err(libc::EROFS));
    assert_eq!(syscalls::mkdir(&mount.path("fraud"), 0o755), Err(libc::EROFS));
    assert!(mount.text("churn/.modelfs/why").contains("--sign-key"));
    mount.cli(&["promote", "churn/v2", "prod"]).exits(3).says("--sign-key");
    mount.stop();
    let bench = mount.into_bench();
    bench.cli(&["promote", "churn/v2", "prod"]).exits(3);
    bench.cli(&["promote", "churn/v2", "prod", "--sign-key", &private]).ok();
    bench.cli(&["history", "--verify", "--key", &public]).ok().says("4 records from 4 on");
}

#[test]
fn a_key_that_others_can_read_is_not_used() {
    let bench = Bench::new();
    let file = bench.write("model.bin", "x");
    bench.cli(&["snapshot", "churn", file.to_str().expect("plain")]).ok();
    let promote = |key: &str| bench.cli(&["promote", "churn/v1", "prod", "--sign-key", key]);
    promote(&key(&bench, "open.pem", KEYS[0], 0o640))
        .exits(3)
        .says("its mode is 0640")
        .says("chmod 600");
    promote(&key(&bench, "public.pem", PUBLIC, 0o600)).exits(2).says("it is no key");
    promote(&key(&bench, "long.pem", &"x".repeat(20_000), 0o600)).exits(2).says("16384 bytes");
    promote("/no/such/key").exits(4);
    let private = key(&bench, "key.pem", KEYS[0], 0o400);
    let history = |key: &str| bench.cli(&["history", "--verify", "--key", key]);
    history(&private).exits(2).says("it is a private key");
    bench.cli(&["history", "--key", &private]).exits(2).says("--verify");
    let mount = ["mount", "/mnt", "--background", "--sign-key", "/no/such/key"];
    bench.cli(&mount).exits(4).says("cannot use the key");
    promote(&private).ok();
}
