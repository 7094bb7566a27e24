//! A history that somebody changed by hand: `history --verify` finds every change but a tail that was
//! cut off, and that with a head that was written down before.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use modelfs::format::ids::RecordDigest;
use modelfs::format::record::{Access, Door, Record};
use modelfs::ops::{
    Anchor, ApproveOptions, Caller, Context, HistoryOptions, HotLimit, NoProgress, OpenOptions,
    OpsError, PromoteOptions, Promotion, Report, Request, Workspace,
};
use modelfs::sys::io::Real;

const RECORDS: u64 = 50;

struct Place {
    _keep: tempfile::TempDir,
    root: PathBuf,
}

impl Place {
    fn workspace(&self) -> Result<Workspace, OpsError> {
        let options = OpenOptions {
            directory: self.root.join("store"),
            create: true,
            holder: "tamper".to_owned(),
            cache_bytes: 1 << 20,
            hot_limit: HotLimit::Untouched,
            clock: Timestamp::now,
        };
        Workspace::open(options, Arc::new(Real), Timestamp::now(), &context().caller)
    }

    fn record(&self, seq: u64) -> PathBuf {
        self.root.join(format!("store/history/{seq:020}.json"))
    }
}

fn context() -> Context {
    let (user, door) = ("auditor".to_owned(), Door::Cli);
    let caller = Caller { user, uid: 0, gid: 0, groups: Vec::new(), door };
    Context { caller, now: Timestamp::now(), assume: false }
}

/// A store with 50 records of several kinds, refused ones among them.
fn place() -> Place {
    let keep = tempfile::tempdir().expect("room for a store");
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
    let options = HistoryOptions { model: None, verify: true, anchor };
    match workspace.run(&context(), Request::History(options), &NoProgress)? {
        Report::History(report) => Ok(Anchor { seq: report.seq, digest: report.head }),
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
    for (seq, line) in (1..).zip(&lines) {
        fs::write(place.record(seq), line).expect("room for a record");
    }
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
