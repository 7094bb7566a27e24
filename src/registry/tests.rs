//! Histories of every kind of record, added up at once and by way of checkpoints.

use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use super::model::{Body, Content};
use super::shelf::Shelf;
use super::state::State;
use crate::format::ids::{BlobDigest, DataDigest, ManifestId, PolicyDigest, TreeDigest};
use crate::format::names::{AliasName, ModelName, VersionNumber};
use crate::format::record::{
    Access, Actor, Approval, BreakGlass, CheckResult, Door, Judgement, Mark, Marking, Move, Op,
    Record, Refusal, Seal, Subject, Verdict,
};
use crate::format::signature;
use crate::store::{Checkpoint, Head, History, Layout, StoreError};
use crate::sys::io::Real;

/// Kinds of records, as `kind_of` numbers them.
const KINDS: u8 = 13;
/// What the bytes of the checkpoint of `every_kind` are.
const GOLDEN: &str = "f67ac8b112a99d397e6772e560e808b7603182b8587d659e99576450ffdbd9b0";

/// A store's directory with nothing but a history.
struct Place {
    directory: tempfile::TempDir,
    layout: Layout,
    history: History,
    head: Head,
    time: Timestamp,
}

/// Numbers that a record is made of.
type Choice = (u8, u8, u8, u8);

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path());
        for path in [layout.temporary(), layout.catalog(), layout.history()] {
            std::fs::create_dir(path).unwrap();
        }
        let history = History::new(Arc::new(Real), layout.clone());
        let time = "2026-01-01T00:00:00.5Z".parse().unwrap();
        Self { directory, layout, history, head: Head::empty(), time }
    }

    fn append(&mut self, choice: Choice) {
        let (_, _, _, user) = choice;
        self.time += jiff::SignedDuration::from_secs(u8::into(user % 3));
        let actor = Actor {
            user: format!("user-{}", user % 3),
            uid: 7 + u32::from(user % 3),
            door: Door::Cli,
        };
        let op = op(choice, self.time);
        let verdict = op.verdict();
        let (seq, prev, time) = (self.head.seq + 1, self.head.digest, self.time);
        let (policy, signature) = (None, None);
        let mut record = Record { seq, prev, time, actor, policy, verdict, op, signature };
        if user.is_multiple_of(5) {
            record.sign(&signature::tests::signer());
        }
        let (bytes, digest) = record.encode().unwrap();
        std::fs::write(self.layout.record(seq), bytes).unwrap();
        self.head = Head { seq, digest };
    }

    /// What the history makes of `state`.
    fn follow(&self, mut state: State) -> State {
        self.history.follow(state.head(), |line| state.take(line)).unwrap();
        state
    }

    fn save(&self, state: &State) -> (Checkpoint, super::shelf::Shelved) {
        let io = Arc::new(Real);
        let writer = crate::store::CheckpointWriter::create(io, self.layout.clone()).unwrap();
        state.save(writer, "a line", None).unwrap()
    }

    fn load(&self) -> Result<State, StoreError> {
        let checkpoint = Checkpoint::open(Arc::new(Real), &self.layout)?;
        let checkpoint = checkpoint.expect("it was saved");
        let (state, _, line) = State::load(checkpoint, self.history.clone())?;
        assert_eq!(line, "a line");
        Ok(state)
    }

    fn checkpoint(&self) -> std::path::PathBuf {
        self.directory.path().join("catalog/checkpoint")
    }
}

fn model(number: u8) -> ModelName {
    format!("m{}", number % 4).parse().unwrap()
}

fn alias(number: u8) -> AliasName {
    format!("a{}", number % 3).parse().unwrap()
}

/// `v1` to `v5`.
fn version(number: u8) -> VersionNumber {
    format!("v{}", number % 5 + 1).parse().unwrap()
}

fn manifest(model: u8, version: u8) -> ManifestId {
    ManifestId::of(&[model % 4, version % 5])
}

/// Some without a gate, some by its rules, some back, some in an emergency.
fn a_move(of: u8, to: u8) -> Move {
    let verdicts =
        [None, Some(Verdict::Allowed), Some(Verdict::Rollback), Some(Verdict::BreakGlass)];
    let judgement = verdicts[usize::from(to % 4)].map(|verdict| {
        let (rules, approvals, reason) = (Vec::new(), Vec::new(), String::new());
        Box::new(Judgement { verdict, rules, approvals, reason })
    });
    let (from, to) = (None, (!to.is_multiple_of(7)).then(|| version(to)));
    Move { model: model(of), alias: alias(of / 4), from, to, judgement }
}

fn subject(of: u8, number: u8) -> Subject {
    let digest = TreeDigest::of(&[number]);
    Subject { model: model(of), version: version(number), manifest: manifest(of, number), digest }
}

fn check(of: u8, number: u8, user: u8) -> CheckResult {
    CheckResult {
        subject: subject(of, number),
        name: format!("check-{}", user % 2).parse().unwrap(),
        passed: user.is_multiple_of(3),
        metrics: [
            ("auc".to_owned(), json!(f64::from(number) / 7.0)),
            ("n".to_owned(), json!(number)),
        ]
        .into(),
        failures: vec![format!("failure {number}")],
        against: None,
        suite: user.is_multiple_of(2).then(|| BlobDigest::of(&[user])),
        exit: Some(1),
        duration_ms: 5,
        output: "said".to_owned(),
    }
}

/// Any record, sensible or not: versions out of order, models that are not there.
fn op((kind, of, number, user): Choice, now: Timestamp) -> Op {
    let access = Access { uid: user.into(), gid: of.into(), mode: 0o750 };
    let message = format!("message {number}");
    match kind % KINDS {
        0 => Op::Init { store: "a store".to_owned(), root: access },
        1 => Op::CreateModel { model: model(of), access },
        2 => Op::RemoveModel { model: model(of) },
        3 => Op::SetAccess { model: (!of.is_multiple_of(3)).then(|| model(of)), access },
        4 => Op::Seal(Box::new(Seal {
            model: model(of),
            version: version(number),
            manifest: manifest(of, number),
            digest: TreeDigest::of(&[number]),
            fingerprint: TreeDigest::of(&[number, user]),
            message,
            files: number.into(),
            bytes: u64::from(number) << 40,
            stored_bytes: user.into(),
            follows: (!number.is_multiple_of(5)).then(|| version(number - 1)),
            moves: user.is_multiple_of(2).then(|| a_move(of, number)).into_iter().collect(),
            data: (0..user % 3).map(|it| DataDigest::of(&[it])).collect(),
        })),
        5 => {
            let moves = vec![a_move(of, number), a_move(of.wrapping_add(1), user)];
            Op::Retarget { moves, message, rollback: user.is_multiple_of(2) }
        }
        6 => {
            let text = if number.is_multiple_of(4) { "" } else { "rules" }.to_owned();
            Op::SetPolicy { digest: PolicyDigest::of(text.as_bytes()), text }
        }
        7 => {
            let role = user.is_multiple_of(2).then(|| "validator".parse().unwrap());
            let expires = number.is_multiple_of(2).then_some(now);
            Op::Approve(Box::new(Approval { subject: subject(of, number), role, message, expires }))
        }
        8 => {
            let (uid, user) = (7 + u32::from(user % 3), "user".to_owned());
            Op::Revoke { subject: subject(of, number), uid, user, message }
        }
        9 => Op::Check(Box::new(check(of, number, user))),
        10 => {
            let mark = [None, Some(Mark::Bad), Some(Mark::Golden)][usize::from(user % 3)];
            Op::Mark(Box::new(Marking { subject: subject(of, number), mark, message }))
        }
        11 => Op::BreakGlass(Box::new(BreakGlass {
            model: model(of),
            alias: alias(number),
            reason: message,
            until: now,
        })),
        _ => Op::Refused(Box::new(Refusal {
            action: "move".to_owned(),
            model: user.is_multiple_of(2).then(|| model(of)),
            moves: vec![a_move(of, number)],
            why: vec![message],
        })),
    }
}

/// The number of a kind: a new one has no place in `op` yet.
fn kind_of(op: &Op) -> u8 {
    match op {
        Op::Init { .. } => 0,
        Op::CreateModel { .. } => 1,
        Op::RemoveModel { .. } => 2,
        Op::SetAccess { .. } => 3,
        Op::Seal(_) => 4,
        Op::Retarget { .. } => 5,
        Op::SetPolicy { .. } => 6,
        Op::Approve(_) => 7,
        Op::Revoke { .. } => 8,
        Op::Check(_) => 9,
        Op::Mark(_) => 10,
        Op::BreakGlass(_) => 11,
        Op::Refused(_) => 12,
    }
}

/// A history in which every kind of record does something.
fn every_kind() -> Vec<Choice> {
    let mut choices = vec![(0, 0, 0, 0), (1, 1, 0, 1), (1, 2, 0, 1), (1, 3, 0, 2), (2, 3, 0, 0)];
    choices.extend([(4, 1, 0, 0), (4, 1, 1, 1), (4, 1, 2, 4), (4, 2, 0, 1), (4, 2, 1, 3)]);
    choices.extend((3..KINDS).flat_map(|kind| [(kind, 1, 1, 3), (kind, 2, 2, 5), (kind, 1, 9, 4)]));
    choices
}

/// All that a state holds.
fn dump(state: &State) -> String {
    let mut whole = state.clone();
    for model in whole.models_mut() {
        let body = model.body().unwrap();
        model.set_content(Content::Here(body));
    }
    format!("{whole:?}")
}

fn any_history() -> impl Strategy<Value = Vec<Choice>> {
    // More of what makes something than of what is in vain.
    let kind = prop_oneof![3 => Just(4_u8), 1 => Just(1_u8), 6 => 0..KINDS];
    prop::collection::vec((kind, 0..16_u8, any::<u8>(), any::<u8>()), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_state_by_way_of_checkpoints_is_the_one_that_the_history_makes(
        mut choices in any_history(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        choices.splice(0..0, [(0, 0, 0, 0), (1, 1, 0, 0), (1, 2, 0, 0)]);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(choices.len())).collect();
        cuts.sort_unstable();
        let mut place = Place::new();
        let mut running = State::default();
        for (index, choice) in choices.iter().enumerate() {
            if cuts.contains(&index) && 0 < index {
                // As a daemon does: it goes on with the state that it has, its bodies on the shelf.
                running = place.follow(running);
                let (checkpoint, shelved) = place.save(&running);
                let shelf = Arc::new(Shelf::new(checkpoint, place.history.clone()));
                let saved = running.clone();
                running.shelve(&saved, shelved, &shelf);
                prop_assert!(!shelf.is_damaged());
            }
            place.append(*choice);
        }
        let expected = dump(&place.follow(State::default()));
        prop_assert_eq!(&dump(&place.follow(running)), &expected);
        if 0 < *cuts.last().unwrap() {
            prop_assert_eq!(&dump(&place.follow(place.load().unwrap())), &expected);
        }
    }
}

#[test]
fn what_changed_while_a_checkpoint_was_written_stays_in_memory() {
    let mut place = Place::new();
    let choices = every_kind();
    let (first, rest) = choices.split_at(10);
    first.iter().for_each(|choice| place.append(*choice));
    let mut state = place.follow(State::default());
    let saved = state.clone();
    let (checkpoint, shelved) = place.save(&saved);
    // Meanwhile.
    rest.iter().for_each(|choice| place.append(*choice));
    state = place.follow(state);
    let shelf = Arc::new(Shelf::new(checkpoint, place.history.clone()));
    state.shelve(&saved, shelved, &shelf);
    assert_eq!(dump(&state), dump(&place.follow(State::default())));
    assert_eq!(dump(&place.follow(place.load().unwrap())), dump(&state));
}

#[test]
fn every_flipped_byte_of_a_checkpoint_is_refused_or_harmless() {
    let mut place = Place::new();
    let some = [(0, 0, 0, 0), (1, 1, 0, 1), (1, 2, 0, 1), (4, 1, 0, 0), (4, 1, 1, 1), (9, 1, 0, 0)];
    some.into_iter().for_each(|choice| place.append(choice));
    let expected = dump(&place.follow(State::default()));
    drop(place.save(&place.follow(State::default())));
    let whole = std::fs::read(place.checkpoint()).unwrap();
    let (mut refused, mut harmless) = (0, 0);
    let mut check = |bytes: &[u8], what: &str| {
        std::fs::write(place.checkpoint(), bytes).unwrap();
        match place.load() {
            Ok(state) => {
                assert_eq!(dump(&place.follow(state)), expected, "{what}");
                harmless += 1;
            }
            Err(StoreError::Checkpoint { .. }) => refused += 1,
            Err(error) => panic!("{what}: {error:?}"),
        }
    };
    check(&whole, "as it was");
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        check(&bytes, &format!("byte {at}"));
    }
    for len in (0..whole.len()).step_by(7) {
        check(&whole[..len], &format!("cut at {len}"));
    }
    assert!(100 < refused && 100 < harmless, "{refused} refused, {harmless} harmless");
}

#[test]
fn a_checkpoint_of_a_model_that_the_history_does_not_make_is_an_error() {
    let (mut place, mut other) = (Place::new(), Place::new());
    for choice in every_kind() {
        other.append(choice);
        if choice.1 != 2 {
            place.append(choice);
        }
    }
    // Of another history, with a first body that cannot be read.
    drop(place.save(&other.follow(State::default())));
    let mut bytes = std::fs::read(place.checkpoint()).unwrap();
    bytes[3] ^= 1;
    bytes[40] ^= 1;
    std::fs::write(place.checkpoint(), bytes).unwrap();
    let state = place.load().unwrap();
    state.model(&model(1)).unwrap().body().expect("the history has it");
    let missing = state.model(&model(2)).unwrap();
    let Content::Shelved(section, _) = missing.content() else { panic!("{missing:?}") };
    let mut bytes = std::fs::read(place.checkpoint()).unwrap();
    bytes[section.offset as usize] ^= 1;
    std::fs::write(place.checkpoint(), bytes).unwrap();
    let error = missing.body().unwrap_err();
    assert!(matches!(error, StoreError::Untrue { .. }), "{error:?}");
    assert!(error.to_string().contains("`m2`"), "{error}");
}

#[test]
fn a_checkpoint_that_contradicts_itself_is_not_believed() {
    let mut place = Place::new();
    every_kind().into_iter().for_each(|choice| place.append(choice));
    let state = place.follow(State::default());
    let expected = dump(&state);
    let changes: [fn(&mut Body); 3] = [
        |body| *body = Body::default(),
        |body| body.versions = Default::default(),
        |body| body.records = Default::default(),
    ];
    for change in changes {
        let mut forged = state.clone();
        let forged_model = forged.models_mut().find(|it| it.name == model(1)).unwrap();
        let mut body = Body::clone(&forged_model.body().unwrap());
        change(&mut body);
        forged_model.set_content(Content::Here(Arc::new(body)));
        drop(place.save(&forged));
        assert_eq!(dump(&place.load().unwrap()), expected);
    }
}

#[test]
fn a_checkpoint_of_each_kind_of_record_is_as_it_was() {
    let mut seen: Vec<u8> = Vec::new();
    let mut place = Place::new();
    for choice in every_kind() {
        seen.push(kind_of(&op(choice, Timestamp::UNIX_EPOCH)));
        place.append(choice);
    }
    assert!((0..KINDS).all(|kind| seen.contains(&kind)), "{seen:?}");
    let bytes = super::shelf::plain_bytes(&place.follow(State::default()));
    let found = blake3::hash(&bytes).to_string();
    assert_eq!(
        found, GOLDEN,
        "the same history makes another state, or a state other bytes: raise the version at the end of \
         the magic in format::checkpoint, so that checkpoints of before are passed over, and put this \
         digest into GOLDEN"
    );
}
