//! A history that somebody changed by hand: `history --verify` finds every change but a tail that was
//! cut off, and that with a head that was written down before.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use modelfs::format::ids::RecordDigest;
use modelfs::format::record::{Access, Door, Record};
use modelfs::format::signature::{PublicKey, Signer};
use modelfs::ops::{
    Anchor, ApproveOptions, Caller, Context, HistoryOptions, HotLimit, NoProgress, OpenOptions,
    OpsError, PromoteOptions, Promotion, Report, Request, Workspace,
};
use modelfs::sys::io::Real;

use crate::harness::quick_directory;

const RECORDS: u64 = 50;

struct Place {
    _keep: tempfile::TempDir,
    root: PathBuf,
}

impl Place {
    fn workspace(&self) -> Result<Workspace, OpsError> {
        self.workspace_with(None)
    }

    fn workspace_with(&self, key: Option<&str>) -> Result<Workspace, OpsError> {
        let signer = key.map(|key| Arc::new(Signer::parse(key).expect("a key")));
        let options = OpenOptions {
            directory: self.root.join("store"),
            create: true,
            holder: "tamper".to_owned(),
            cache_bytes: 1 << 20,
            hot_limit: HotLimit::Untouched,
            clock: Timestamp::now,
            signer,
        };
        Workspace::open(options, Arc::new(Real), Timestamp::now(), &context().caller)
    }

    /// Without what the catalog remembers.
    fn reopened(&self) -> Workspace {
        drop(fs::remove_dir_all(self.root.join("store/catalog")));
        self.workspace().expect("a chain")
    }

    /// Writes the records that are not what they were: a file that is written over costs a wait for the disk.
    fn put_back(&self, lines: &[Vec<u8>]) {
        for (seq, line) in (1..).zip(lines) {
            let path = self.record(seq);
            if fs::read(&path).ok().as_ref() != Some(line) {
                fs::write(path, line).expect("room for a record");
            }
        }
    }

    fn record(&self, seq: u64) -> PathBuf {
        self.root.join(format!("store/history/{seq:020}.json"))
    }
}

pub fn context() -> Context {
    let (user, door) = ("auditor".to_owned(), Door::Cli);
    let caller = Caller { user, uid: 0, gid: 0, groups: Vec::new(), door };
    Context { caller, now: Timestamp::now(), assume: false }
}

/// A store with 50 records of several kinds, refused ones among them.
fn place() -> Place {
    let keep = quick_directory();
    let root = keep.path().to_owned();
    let place = Place { _keep: keep, root };
    let workspace = place.workspace().expect("a new store");
    let model = "churn".parse().expect("a name");
    workspace
        .create_model(&context(), &model, Access { uid: 0, gid: 0, mode: 0o755 })
        .expect("new");
    let file = place.root.join("model.bin");
    fs::write(&file, "weights").expect("room for a file");
    let snapshot = serde_json::json!({"verb": "snapshot", "options": {"model": "churn",
        "source": {"path": file}, "message": "", "metrics": {}, "params": {}, "labels": {},
        "datasets": [], "alias": null}});
    let run = |request| workspace.run(&context(), request, &NoProgress);
    run(serde_json::from_value(snapshot).expect("a request")).expect("sealed");
    let text =
        "[[gate]]\nmodels = ['*']\naliases = ['prod']\nrules = [{ name = 'no', expr = 'false' }]\n";
    run(Request::PolicySet { text: text.to_owned() }).expect("a policy");
    let promote = |alias: &str| {
        let reference = "churn/v1".parse().expect("a reference");
        let promotions = vec![Promotion { reference, alias: alias.parse().expect("a name") }];
        run(Request::Promote(PromoteOptions { promotions, message: "why".to_owned() }))
    };
    promote("prod").expect_err("the gate is shut");
    let mut count = workspace.state().head().seq;
    while count < RECORDS {
        match count % 3 {
            0 => drop(promote(&format!("alias-{count}")).expect("no gate")),
            1 => drop(run(Request::Approve(ApproveOptions {
                reference: "churn/v1".parse().expect("a reference"),
                role: None,
                message: format!("number {count}"),
                expires_s: None,
            }))),
            _ => drop(promote("prod").expect_err("the gate is shut")),
        }
        // A refusal that is repeated within a second is not recorded again.
        let now = workspace.state().head().seq;
        if now == count {
            drop(promote(&format!("instead-{count}")).expect("no gate"));
        }
        count = workspace.state().head().seq;
    }
    assert_eq!(count, RECORDS);
    workspace.close();
    place
}

fn verify(workspace: &Workspace, anchor: Option<Anchor>) -> Result<Anchor, OpsError> {
    verify_with(workspace, anchor, Vec::new())
}

fn verify_with(
    workspace: &Workspace,
    anchor: Option<Anchor>,
    keys: Vec<PublicKey>,
) -> Result<Anchor, OpsError> {
    let options = HistoryOptions { model: None, verify: true, anchor, keys };
    match workspace.run(&context(), Request::History(options), &NoProgress)? {
        Report::History(report) => Ok(report.anchor),
        other => panic!("expected the history, found {other:?}"),
    }
}

/// Changes the files as `damage` says, looks, and puts them back.
fn check(place: &Place, workspace: &Workspace, what: &str, damage: impl FnOnce()) {
    let lines: Vec<Vec<u8>> =
        (1..=RECORDS).map(|seq| fs::read(place.record(seq)).expect("a record")).collect();
    damage();
    let found = verify(workspace, None);
    assert!(found.is_err(), "{what} was not found: {found:?}");
    place.put_back(&lines);
}

#[test]
fn whatever_is_changed_in_the_history_is_found() {
    let place = place();
    let workspace = place.workspace().expect("a sound store");
    let head = verify(&workspace, None).expect("a sound history");
    assert_eq!(head.seq, RECORDS);
    verify(&workspace, Some(head)).expect("the head is there");
    let read = |seq| fs::read(place.record(seq)).expect("a record");

    let mut flips = 0;
    for seq in 1..=RECORDS {
        let line = read(seq);
        for byte in 0..line.len() {
            let mut damaged = line.clone();
            damaged[byte] ^= 1 << (byte % 8);
            // Only this record: the others were read a moment ago.
            assert!(Record::parse(&damaged).is_err(), "bit {} of byte {byte} of {seq}", byte % 8);
            flips += 1;
        }
        let mut damaged = line.clone();
        damaged[line.len() / 2] ^= 1;
        check(&place, &workspace, &format!("a flip in {seq}"), || {
            fs::write(place.record(seq), &damaged).expect("room");
        });
    }
    assert!(flips > 10_000, "{flips} flips");
    for seq in 1..RECORDS {
        check(&place, &workspace, &format!("{seq} without a file"), || {
            fs::remove_file(place.record(seq)).expect("it is there");
        });
        check(&place, &workspace, &format!("{seq} taken out"), || {
            for later in seq..RECORDS {
                fs::rename(place.record(later + 1), place.record(later)).expect("it is there");
            }
        });
        check(&place, &workspace, &format!("{seq} and the next swapped"), || {
            let (one, other) = (read(seq), read(seq + 1));
            fs::write(place.record(seq), other).expect("room");
            fs::write(place.record(seq + 1), one).expect("room");
        });
    }
    // One put in that is right by itself: what follows names another before it.
    for seq in 2..RECORDS {
        let (mut forged, _) = Record::parse(&read(seq)).expect("a record");
        forged.actor.user = "mallory".to_owned();
        let (line, _) = forged.encode().expect("short");
        check(&place, &workspace, &format!("{seq} forged"), || {
            fs::write(place.record(seq), line).expect("room");
        });
    }
    verify(&workspace, Some(head)).expect("all was put back");
}

#[test]
fn a_tail_that_was_cut_is_found_with_a_head_that_was_kept() {
    let place = place();
    let head = {
        let workspace = place.workspace().expect("a sound store");
        verify(&workspace, None).expect("a sound history")
    };
    fs::remove_file(place.record(RECORDS)).expect("it is there");
    drop(fs::remove_dir_all(place.root.join("store/catalog")));
    let workspace = place.workspace().expect("a shorter history is one");
    assert_eq!(verify(&workspace, None).expect("a chain").seq, RECORDS - 1);
    let error = verify(&workspace, Some(head)).expect_err("the head is gone");
    assert!(error.to_string().contains("50"), "{error}");
    let other = Anchor { seq: 3, digest: RecordDigest::of(b"another") };
    assert!(verify(&workspace, Some(other)).is_err());
}

/// Made by `openssl genpkey -algorithm ed25519`, for these tests only.
pub const KEYS: [&str; 2] = [
    "-----BEGIN PRIVATE KEY-----\n\
     MC4CAQAwBQYDK2VwBCIEIPpvDEP3+IpaeaDfhPITxQdfr9gS/2AtBuGkl3jSoQ1v\n\
     -----END PRIVATE KEY-----\n",
    "-----BEGIN PRIVATE KEY-----\n\
     MC4CAQAwBQYDK2VwBCIEICSbq7ddYCTvoQLL8zmRwCGVSaP0G0Fze1Yb3VragDGz\n\
     -----END PRIVATE KEY-----\n",
];

fn public(key: &str) -> PublicKey {
    Signer::parse(key).expect("a key").public()
}

fn point(workspace: &Workspace, alias: &str) -> Result<Report, OpsError> {
    let reference = "churn/v1".parse().expect("a reference");
    let promotions = vec![Promotion { reference, alias: alias.parse().expect("a name") }];
    let options = PromoteOptions { promotions, message: String::new() };
    workspace.run(&context(), Request::Promote(options), &NoProgress)
}

#[test]
fn a_history_that_was_written_anew_is_found_by_its_signatures() {
    let place = place();
    let (keys, last) = (vec![public(KEYS[0])], RECORDS + 4);
    {
        let workspace = place.workspace_with(Some(KEYS[0])).expect("a sound store");
        (0..4).for_each(|index| drop(point(&workspace, &format!("signed-{index}")).expect("free")));
        verify_with(&workspace, None, keys.clone()).expect("as it was made");
        workspace.close();
    }
    let lines: Vec<Vec<u8>> =
        (1..=last).map(|seq| fs::read(place.record(seq)).expect("a record")).collect();
    // From record `first` on, by somebody who can write the store and has no key.
    let write_anew = |first: u64, drop_signatures: bool| {
        let mut prev = None;
        for (seq, line) in (1..).zip(&lines) {
            let (mut record, mut digest) = Record::parse(line).expect("a record");
            if seq >= first {
                record.prev = prev.unwrap_or(record.prev);
                record.actor.user = "mallory".to_owned();
                record.signature = record.signature.filter(|_| !drop_signatures);
                let encoded = record.encode().expect("short");
                fs::write(place.record(seq), &encoded.0).expect("room");
                digest = encoded.1;
            }
            prev = Some(digest);
        }
    };
    for first in [1, 2, RECORDS, RECORDS + 1, RECORDS + 2, last] {
        for drop_signatures in [false, true] {
            write_anew(first, drop_signatures);
            let workspace = place.reopened();
            verify(&workspace, None).expect("a chain like any other");
            let found = verify_with(&workspace, None, keys.clone());
            assert!(found.is_err(), "from {first} on was not found: {found:?}");
            drop(workspace);
            place.put_back(&lines);
        }
    }
    verify_with(&place.reopened(), None, keys).expect("all was put back");
}

#[test]
fn once_records_are_signed_none_goes_without_and_one_key_may_follow_another() {
    let place = place();
    let made = |key| {
        let workspace = place.workspace_with(key).expect("a sound store");
        let made = point(&workspace, if key == Some(KEYS[0]) { "one" } else { "other" });
        workspace.close();
        made
    };
    made(Some(KEYS[0])).expect("the first that is signed");
    let error = made(None).expect_err("no key");
    assert!(matches!(error, OpsError::NoKey), "{error:?}");
    made(Some(KEYS[1])).expect("another key");
    let workspace = place.reopened();
    let [one, other] = KEYS.map(public);
    verify_with(&workspace, None, vec![one, other]).expect("both");
    for keys in [vec![one], vec![other]] {
        let error = verify_with(&workspace, None, keys).expect_err("half of them");
        assert!(error.to_string().contains("another key"), "{error}");
    }
}
