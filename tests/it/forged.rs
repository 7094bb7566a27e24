//! A checkpoint that somebody edited, checks and all: what a start believes of it, `verify` does not.

use std::fs;
use std::path::{Path, PathBuf};

use modelfs::format::checkpoint::{Section, TRAILER_BYTES, Trailer};
use modelfs::format::names::{AliasName, VersionNumber};
use modelfs::format::signature::{Signature, Signer};
use modelfs::registry::model::{Body, Model};
use modelfs::registry::state::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::checkpoint::{checkpoint, log, seal, small_store, state};
use crate::harness::{Bench, Mount, wait_for};
use crate::signing::{PUBLIC, key};
use crate::tamper::KEYS;

/// Exit status for damaged data.
const DAMAGED: i32 = 6;

const POLICY: &str = "[[gate]]\nmodels = ['fraud']\naliases = ['prod']\n\
                      rules = [{ name = 'no', expr = 'false' }]\n";

/// The index as the store writes it, with the bodies that it speaks of.
#[derive(Serialize, Deserialize)]
struct Index {
    state: State,
    models: Vec<(Model, Section)>,
    line: String,
}

/// What somebody changes.
pub struct Parts {
    signature: Option<Signature>,
    state: Vec<u8>,
    pub models: Vec<(Model, Vec<u8>)>,
    /// A place in the index, and the bits there that are turned.
    pub flip: Option<(usize, u8)>,
}

/// Writes a checkpoint anew as `change` wants it, all its checks made to fit, but for a signature.
pub fn forge(path: &Path, change: impl FnOnce(&mut Parts)) {
    forge_with(path, None, change);
}

/// The same, signed.
fn forge_with(path: &Path, signer: Option<&Signer>, change: impl FnOnce(&mut Parts)) {
    let whole = fs::read(path).expect("a checkpoint");
    let (sections, trailer) = whole.split_last_chunk::<TRAILER_BYTES>().expect("a trailer");
    let trailer = Trailer::parse(trailer).expect("a good trailer");
    let plain = |section: &Section| {
        let start = section.offset as usize;
        let stored = &sections[start..start + section.stored_bytes as usize];
        section.decode(stored).expect("a good section")
    };
    let index: Index = rmp_serde::from_slice(&plain(&trailer.index)).expect("an index");
    let models = index.models.into_iter().map(|(model, section)| (model, plain(&section)));
    let state = rmp_serde::to_vec_named(&index.state).expect("it was read");
    let models = models.collect();
    let mut parts = Parts { signature: trailer.signature, state, models, flip: None };
    change(&mut parts);
    let mut forged = Vec::new();
    let mut put = |plain: &[u8]| {
        let (section, stored) = Section::encode(forged.len() as u64, plain).expect("short");
        forged.extend(stored);
        section
    };
    let models =
        parts.models.into_iter().map(|(model, body)| (model, put(&body))).collect::<Vec<_>>();
    let state = rmp_serde::from_slice(&parts.state).expect("of the same form");
    let index = Index { state, models, line: index.line };
    let mut index = rmp_serde::to_vec_named(&index).expect("it was read");
    if let Some((at, bits)) = parts.flip {
        let at = at % index.len();
        index[at] ^= bits;
    }
    let index = put(&index);
    let trailer = Trailer { index, signature: parts.signature, ..trailer };
    forged.extend(signer.map_or(trailer, |signer| trailer.sign(signer)).encode());
    fs::write(path, forged).expect("it is ours");
}

/// Puts `new` in the place of `old`, which is as long.
fn replace(bytes: &mut [u8], old: &str, new: &str) {
    assert_eq!(old.len(), new.len());
    let at = bytes.windows(old.len()).position(|window| window == old.as_bytes());
    let at = at.unwrap_or_else(|| panic!("`{old}` is in it"));
    bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
}

/// Points `churn/prod` to v3; everybody is told v2 otherwise.
fn move_prod(parts: &mut Parts) {
    let (model, body) = &mut parts.models[0];
    let body: Body = rmp_serde::from_slice(body).expect("a body");
    let version: VersionNumber = "v3".parse().expect("a number");
    let manifest = body.versions.get(version).expect("it is there").manifest;
    let prod = model.aliases.get_mut(&"prod".parse::<AliasName>().expect("a name"));
    let prod = prod.expect("it is there");
    (prod.version, prod.manifest) = (version, manifest);
}

/// As `small_store`, with a policy.
pub fn store() -> Bench {
    let bench = small_store();
    let policy: PathBuf = bench.write("policy.toml", POLICY);
    bench.cli(&["policy", "set", policy.to_str().expect("text")]).ok();
    bench
}

fn prod(bench: &Bench) -> Value {
    bench.cli_json(&["alias", "list", "churn"])["aliases"][0]["version"].clone()
}

#[test]
fn what_was_written_into_a_checkpoint_is_found_by_who_reads_the_history() {
    type Change = fn(&mut Parts);
    let changes: [(Change, &str); 8] = [
        (move_prod, "`churn/prod` is v3"),
        (|parts| parts.models[0].0.aliases.clear(), "there is no alias `churn/prod`"),
        (|parts| replace(&mut parts.state, "'false'", "'true '"), "the policy in force"),
        (|parts| parts.models[1].0.access.mode = 0o777, "the access of `fraud`"),
        (|parts| replace(&mut parts.models[0].1, "seen", "good"), "marked `churn/v2`"),
        (|parts| replace(&mut parts.models[1].1, "drifts", "superb"), "marked `fraud/v1`"),
        (|parts| replace(&mut parts.models[0].1, "two", "six"), "what `churn/v2` is"),
        (|parts| drop(parts.models.pop()), "there is no model `fraud`"),
    ];
    let bench = store();
    let before = state(&bench);
    let kept = fs::read(checkpoint(&bench)).expect("a checkpoint");
    // As it is, it is good in this form too.
    forge(&checkpoint(&bench), |_| ());
    bench.cli(&["verify"]).ok().says("no damage");
    for (change, what) in changes {
        fs::write(checkpoint(&bench), &kept).expect("it is ours");
        forge(&checkpoint(&bench), change);
        let forged = fs::read(checkpoint(&bench)).expect("a checkpoint");
        bench.cli(&["verify"]).exits(DAMAGED).says("damaged: catalog/checkpoint:").says(what);
        let said = bench.cli(&["history", "--verify"]).exits(DAMAGED).says(what);
        said.says("no record of the history").says("modelfs repair");
        assert!(
            fs::read(checkpoint(&bench)).expect("a checkpoint") == forged,
            "it is kept: {what}"
        );
        bench.cli(&["repair"]).ok();
    }
    assert_eq!(state(&bench), before);
    bench.cli(&["verify"]).ok().says("no damage");
}

#[test]
fn what_a_daemon_took_from_a_forged_checkpoint_is_not_carried_on_once_it_is_found() {
    let bench = store();
    let before = state(&bench);
    forge(&checkpoint(&bench), move_prod);
    let mut mount = Mount::on(bench);
    mount.assert_link("churn/prod", "v3");
    // The file is good again; what was read from it is not.
    seal(&mount.bench, "fraud", "four");
    fs::remove_file(checkpoint(&mount.bench)).expect("it is ours");
    mount.cli(&["verify"]).exits(DAMAGED).says("what is shown now: `churn/prod` is v3");
    mount.cli(&["history", "churn", "--verify"]).exits(DAMAGED).says("what is shown now");
    mount.stop();
    assert!(mount.log().contains("no new checkpoint"), "{}", mount.log());
    assert!(!checkpoint(&mount.bench).exists());
    mount.start();
    mount.assert_link("churn/prod", "v2");
    mount.stop();
    let bench = mount.into_bench();
    forge(&checkpoint(&bench), move_prod);
    let mut mount = Mount::on(bench);
    mount.assert_link("churn/prod", "v3");
    mount.cli(&["repair"]).ok();
    mount.assert_link("churn/prod", "v2");
    mount.cli(&["verify"]).ok().says("no damage");
    mount.stop();
    assert_eq!(prod(&mount.bench), before[3]["aliases"][0]["version"]);
}

#[test]
fn a_daemon_finds_by_itself_that_it_began_with_a_forged_checkpoint() {
    let bench = store();
    forge(&checkpoint(&bench), move_prod);
    let mut mount = Mount::on(bench);
    let said = wait_for("the daemon to say so", || {
        mount.log().lines().find(|line| line.contains("`churn/prod` is v3")).map(str::to_owned)
    });
    assert!(said.contains("modelfs repair"), "{said}");
    // Nothing is made of it, and what the daemon says is to be done helps.
    seal(&mount.bench, "fraud", "four");
    let forged = fs::read(checkpoint(&mount.bench)).expect("a checkpoint");
    mount.stop();
    assert!(fs::read(checkpoint(&mount.bench)).expect("a checkpoint") == forged);
    mount.start();
    mount.cli(&["repair"]).ok();
    mount.assert_link("churn/prod", "v2");
    mount.stop();
    mount.start();
    mount.assert_link("churn/prod", "v2");
    mount.stop();
    mount.cli(&["verify"]).ok().says("no damage");
}

#[test]
fn where_records_are_signed_a_checkpoint_is_believed_with_that_key_only() {
    let bench = store();
    let [private, public] = [("key.pem", KEYS[0]), ("key.pub", PUBLIC)]
        .map(|(name, text)| key(&bench, name, text, 0o600));
    let unsigned = fs::read(checkpoint(&bench)).expect("a checkpoint");
    let sign = |args: &[&str]| bench.cli(&[&["--sign-key", &private], args].concat());
    let audit = || bench.cli(&["history", "--verify", "--key", &public]);
    sign(&["promote", "churn/v1", "qa"]).ok();
    let (before, signed) = (state(&bench), fs::read(checkpoint(&bench)).expect("a checkpoint"));
    assert_eq!(log(bench.cli(&["list"])), "", "who has no key believes it too");
    audit().ok();

    let other = Signer::parse(KEYS[1]).expect("a key");
    type Forgery<'a> = (&'a [u8], Option<&'a Signer>, fn(&mut Parts), &'a str);
    let forgeries: [Forgery; 5] = [
        (&signed, None, move_prod, "expected a signature with the key"),
        (&signed, None, forget_signatures, "not fit its record"),
        (&signed, Some(&other), move_prod, "expected a signature with the key"),
        (&signed, Some(&other), |_| (), "expected a signature with the key"),
        (&unsigned, None, move_prod, "expected a signature with the key"),
    ];
    for (kept, signer, change, why) in forgeries {
        fs::write(checkpoint(&bench), kept).expect("it is ours");
        forge_with(&checkpoint(&bench), signer, change);
        let forged = fs::read(checkpoint(&bench)).expect("a checkpoint");
        assert!(log(bench.cli(&["list"])).contains(why), "{why}");
        assert_eq!(prod(&bench), before[3]["aliases"][0]["version"], "{why}");
        if signer.is_some() {
            audit().exits(DAMAGED).says("it is signed with another key");
        } else {
            audit().exits(DAMAGED);
        }
        assert!(fs::read(checkpoint(&bench)).expect("a checkpoint") == forged, "no key: {why}");
        sign(&["list"]).ok().says(why);
        audit().ok();
        assert_eq!(log(bench.cli(&["list"])), "", "it is made anew: {why}");
    }
    // Without the key what is there is removed, and nothing is put in its place.
    forge(&checkpoint(&bench), move_prod);
    bench.cli(&["verify"]).exits(DAMAGED).says("`churn/prod` is v3");
    bench.cli(&["repair"]).ok();
    assert!(!checkpoint(&bench).exists());
    bench.cli(&["verify"]).ok().says("no damage");
    assert_eq!(state(&bench), before);
    // Who has another key goes by that one.
    let second = key(&bench, "second.pem", KEYS[1], 0o600);
    sign(&["list"]).ok();
    bench.cli(&["--sign-key", &second, "list"]).ok().says("expected a signature with the key");
}

/// Has the checkpoint say that the newest record is not signed, and not signed itself.
fn forget_signatures(parts: &mut Parts) {
    move_prod(parts);
    parts.signature = None;
    let name = b"signed_by";
    let at = parts.state.windows(name.len()).position(|window| window == name);
    let value = at.expect("it is in it") + name.len();
    // A text of 64 digits, with two bytes before it, and nothing at all.
    assert_eq!(parts.state[value..value + 2], [0xd9, 64]);
    parts.state.splice(value..value + 66, [0xc0]);
}

#[test]
fn a_forged_checkpoint_that_contradicts_itself_is_read_from_the_history() {
    let bench = store();
    let before = state(&bench);
    forge(&checkpoint(&bench), |parts| {
        let (one, other) = parts.models.split_at_mut(1);
        std::mem::swap(&mut one[0].1, &mut other[0].1);
    });
    let said = log(bench.cli(&["list", "churn"]));
    assert!(said.contains("`churn`: "), "{said}");
    assert_eq!(state(&bench), before);
}
