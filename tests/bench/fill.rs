//! Makes a store with many models and versions, for `scripts/bench scale`.
//!
//! `cargo bench --bench fill -- STORE MODELS VERSIONS` seals one version as everybody does, and then writes
//! the records of all others into the history: the models `m00000`, `m00001`, …, whose versions all have
//! that one's files. Nothing is synced, for a million versions would take hours of fsync. The history is
//! what a real one is, byte for byte of its form; manifests and packs are few, and the catalog is behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use modelfs::format::ids::RecordDigest;
use modelfs::format::names::VersionNumber;
use modelfs::format::record::{Access, Actor, Door, Op, Record, Seal};
use modelfs::ops::{
    Caller, Context, HotLimit, NoProgress, OpenOptions, SnapshotOptions, Source, Workspace,
};
use modelfs::sys::identity;
use modelfs::sys::io::Real;

/// Blocks that are kept decoded; nothing is read back.
const CACHE_BYTES: u64 = 1 << 20;
/// Bytes of the one file.
const FILE_BYTES: usize = 100;

fn caller() -> Caller {
    let (uid, gid) = (identity::own_uid(), identity::own_gid());
    Caller { user: "bench".into(), uid, gid, groups: Vec::new(), door: Door::Cli }
}

fn main() {
    // cargo adds `--bench`.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let [store, models, versions] = &words[..] else {
        println!("nothing to do: expected STORE MODELS VERSIONS");
        return;
    };
    let store = PathBuf::from(store);
    let count = |word: &str| word.parse::<u64>().expect("a number");
    let begun = Instant::now();
    let start: Timestamp = "2025-01-01T00:00:00Z".parse().expect("a time");
    seal_one(&store, start);
    let mut history = History::open(&store);
    let pattern = history.newest_seal();
    let Caller { uid, gid, .. } = caller();
    for model in 0..count(models) {
        let access = Access { uid, gid, mode: 0o755 };
        history.append(Op::CreateModel { model: model_name(model), access });
    }
    let (mut follows, mut version) = (None, VersionNumber::FIRST);
    for _ in 0..count(versions) {
        for model in 0..count(models) {
            let model = model_name(model);
            let message = format!("run {version} of {model}");
            let seal = Seal { model, version, follows, message, ..pattern.clone() };
            history.append(Op::Seal(Box::new(seal)));
        }
        (follows, version) = (Some(version), version.next());
    }
    println!("{} records, {:.1} s", history.newest.seq, begun.elapsed().as_secs_f64());
}

fn model_name(number: u64) -> modelfs::format::names::ModelName {
    format!("m{number:05}").parse().expect("a name")
}

/// A new store with the model `pattern` and its one version.
fn seal_one(store: &Path, now: Timestamp) {
    let source = store.with_extension("source");
    fs::create_dir_all(&source).expect("a directory beside the store");
    fs::write(source.join("weights.bin"), [7; FILE_BYTES]).expect("a small file");
    let context = Context { caller: caller(), now, assume: false };
    let options = OpenOptions {
        directory: store.to_owned(),
        create: true,
        holder: "bench".to_owned(),
        cache_bytes: CACHE_BYTES,
        hot_limit: HotLimit::Untouched,
        clock: Timestamp::now,
        signer: None,
    };
    let workspace = Workspace::open(options, Arc::new(Real), now, &context.caller);
    let workspace = workspace.expect("a new store");
    let options = SnapshotOptions {
        model: "pattern".parse().expect("a name"),
        source: Source::Path(source.clone()),
        message: "the one whose files all have".to_owned(),
        metrics: Default::default(),
        params: Default::default(),
        labels: Default::default(),
        datasets: Vec::new(),
        provenance: Default::default(),
        captured: Default::default(),
        alias: None,
    };
    workspace.snapshot(&context, &options, &NoProgress).expect("a version");
    workspace.close();
    fs::remove_dir_all(&source).expect("it is ours");
}

/// The history of a store that nobody has open.
struct History {
    directory: PathBuf,
    newest: Record,
    digest: RecordDigest,
}

impl History {
    fn open(store: &Path) -> History {
        let directory = store.join("history");
        let names = fs::read_dir(&directory).expect("a store has a history");
        let newest = names.map(|name| name.expect("a name").path()).max().expect("has records");
        let bytes = fs::read(newest).expect("a record can be read");
        let (newest, digest) = Record::parse(&bytes).expect("sealing wrote it");
        History { directory, newest, digest }
    }

    fn newest_seal(&self) -> Seal {
        match &self.newest.op {
            Op::Seal(seal) => Seal::clone(seal),
            other => panic!("the newest record seals a version, found {other:?}"),
        }
    }

    fn append(&mut self, op: Op) {
        let Caller { user, uid, door, .. } = caller();
        let record = Record {
            seq: self.newest.seq + 1,
            prev: self.digest,
            time: self.newest.time + SignedDuration::from_secs(1),
            actor: Actor { user, uid, door },
            policy: None,
            verdict: op.verdict(),
            op,
            signature: None,
        };
        let (bytes, digest) = record.encode().expect("a short record");
        let path = self.directory.join(format!("{:020}.json", record.seq));
        fs::write(&path, bytes).expect("room for a record");
        (self.newest, self.digest) = (record, digest);
    }
}
