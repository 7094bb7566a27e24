//! Fills a store with many models and versions, for `scripts/bench scale`.
//!
//! `cargo bench --bench fill -- STORE MODELS VERSIONS` makes the models `m00000`, `m00001`, … through the
//! same verb as every door. Nothing is synced, for a million versions would take a day of fsync: the
//! bytes and names are those of a real store, their durability is not. All versions hold one small
//! file of a few contents; each has a manifest and a record of its own.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use modelfs::format::record::Door;
use modelfs::ops::{
    Caller, Context, HotLimit, NoProgress, OpenOptions, SnapshotOptions, Source, Workspace,
};
use modelfs::sys::identity;
use modelfs::sys::io::{Io, Real};

/// Contents that take turns.
const CONTENTS: u64 = 4;
/// Blocks that are kept decoded; nothing is read back.
const CACHE_BYTES: u64 = 1 << 20;

/// The operating system, without waiting for the disk.
struct Unsynced;

impl Io for Unsynced {
    fn create(&self, path: &Path) -> io::Result<File> {
        Real.create(path)
    }
    fn open(&self, path: &Path) -> io::Result<File> {
        Real.open(path)
    }
    fn read_at(&self, file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
        Real.read_at(file, out, offset)
    }
    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<usize> {
        Real.write(file, bytes)
    }
    fn sync_file(&self, _: &File) -> io::Result<()> {
        Ok(())
    }
    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Real.rename(from, to)
    }
    fn rename_if_absent(&self, from: &Path, to: &Path) -> io::Result<()> {
        Real.rename_if_absent(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        Real.remove_file(path)
    }
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        Real.create_directory(path)
    }
    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        Real.remove_tree(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        Real.list(path)
    }
    fn file_bytes(&self, path: &Path) -> io::Result<u64> {
        Real.file_bytes(path)
    }
}

fn context(now: Timestamp) -> Context {
    let (uid, gid) = (identity::own_uid(), identity::own_gid());
    let caller = Caller { user: "bench".into(), uid, gid, groups: Vec::new(), door: Door::Cli };
    Context { caller, now, assume: false }
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
    fill(&store, count(models), count(versions));
}

fn fill(store: &Path, models: u64, versions: u64) {
    let sources = store.with_extension("sources");
    for turn in 0..CONTENTS {
        let directory = sources.join(turn.to_string());
        fs::create_dir_all(&directory).expect("a directory beside the store");
        fs::write(directory.join("weights.bin"), [turn as u8; 100]).expect("a small file");
    }
    let start: Timestamp = "2025-01-01T00:00:00Z".parse().expect("a time");
    let options = OpenOptions {
        directory: store.to_owned(),
        create: true,
        holder: "bench".to_owned(),
        cache_bytes: CACHE_BYTES,
        hot_limit: HotLimit::Untouched,
        clock: Timestamp::now,
    };
    let opened = Workspace::open(options, Arc::new(Unsynced), start, &context(start).caller);
    let workspace = opened.expect("a new store");
    let begun = Instant::now();
    for version in 0..versions {
        for model in 0..models {
            let number = version * models + model;
            let now = start + SignedDuration::from_secs(i64::try_from(number).expect("small"));
            seal(&workspace, &sources, model, number, now);
        }
        if version % 10 == 9 {
            println!("{} versions, {:.0} s", (version + 1) * models, begun.elapsed().as_secs_f64());
        }
    }
    workspace.close();
    fs::remove_dir_all(&sources).expect("it is ours");
}

fn seal(workspace: &Workspace, sources: &Path, model: u64, number: u64, now: Timestamp) {
    let options = SnapshotOptions {
        model: format!("m{model:05}").parse().expect("a name"),
        source: Source::Path(sources.join((number % CONTENTS).to_string())),
        message: format!("run {number}"),
        metrics: [("auc".to_owned(), 0.9.into())].into(),
        params: Default::default(),
        labels: Default::default(),
        datasets: Vec::new(),
        alias: None,
    };
    workspace.snapshot(&context(now), &options, &NoProgress).expect("a version");
}
