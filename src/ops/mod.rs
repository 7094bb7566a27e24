//! The verbs: everything that can be done to a store, once, for every door.
//!
//! The mount, the command line and the socket call the same method, which checks permission, makes
//! the history record and publishes the new state. Nothing here prints or asks.
//! Invariant O1: a change is published only after its record is durable, and then at once.

mod ancestor;
mod audit;
mod cache;
mod check;
mod checkpoint;
mod compose;
mod contents;
pub mod debug;
mod diff;
mod digests;
mod documents;
mod draft;
mod error;
mod export;
mod gate;
mod history;
mod hot;
mod import;
mod inspect;
mod late;
mod listed;
mod log;
mod metadata;
mod model;
mod past;
mod policy;
mod quiet;
mod refusals;
mod report;
mod request;
mod retarget;
mod run;
mod said;
mod show;
mod snapshot;
mod source;
mod stats;
mod streams;
mod takeover;
mod tensors;
mod told;
mod verify;
mod vet;
mod warm;

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use quick_cache::sync::Cache;

use crate::format::ids::ManifestId;
use crate::format::manifest::{ChunkRef, FileEntry, Manifest};
use crate::format::names::ModelName;
use crate::format::record::{Access, Actor, Op, Record, Refusal};
use crate::format::signature::Signer;
use crate::governance::{self, Policy, VersionFacts};
use crate::registry::model::Model;
use crate::registry::state::State;
use crate::store::draft::DraftTree;
pub use crate::store::hot::HotLimit;
use crate::store::{Line, Store, StoreError, Use};
use crate::sys::io::Io;

pub use crate::governance::{Action, Caller, POLICY_BYTES_MAX, Permission, by_bits};
pub use cache::{WeighedCache, weighed_cache};
pub use check::OUTPUT_BYTES_MAX;
pub use diff::*;
pub use documents::{Document, SignError, sign};
pub use error::{Failure, FailureKind, OpsError};
pub use import::{IMPORTED_CONTENT, IMPORTED_FROM};
pub use inspect::{InspectReport, InspectedFile};
pub use log::LOG_VERSIONS_MAX;
pub use policy::check_policy;
pub use report::*;
pub use request::*;
pub use retarget::{Must, Wish};
pub use snapshot::{MESSAGE_BYTES_MAX, check_outside};
pub use takeover::*;

use checkpoint::Checkpoints;
use contents::Sealing;
use diff::Diffs;
use hot::HotJobs;
use late::LateLimits;
use past::Past;
use refusals::RecentRefusals;
use streams::Streams;

/// Manifests that are kept parsed, in entries.
const MANIFEST_ENTRIES_MAX: u64 = 2_000_000;
/// Estimate of the manifests that are kept, for sizing the table.
const MANIFESTS_TYPICAL: usize = 1_024;
/// Versions whose facts are kept for the next decision.
const FACTS_MAX: usize = 128;
/// Mode of a mount's own directory in a new store.
const ROOT_MODE: u32 = 0o755;

/// Where the time comes from.
pub type Clock = fn() -> Timestamp;

/// How a store is to be opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    pub directory: PathBuf,
    /// Make the store where there is none.
    pub create: bool,
    /// What others are told while we hold the store.
    pub holder: String,
    /// Decoded blocks that are kept in memory, in bytes.
    pub cache_bytes: u64,
    pub hot_limit: HotLimit,
    pub clock: Clock,
    /// Signs every record that is made.
    pub signer: Option<Arc<Signer>>,
}

/// Who asks, and when.
#[derive(Clone, Debug)]
pub struct Context {
    pub caller: Caller,
    pub now: Timestamp,
    /// Paths outside the store are reached with the caller's rights instead of our own.
    pub assume: bool,
}

/// What a plan comes to.
enum Change {
    /// All is as it should be.
    Nothing,
    Record(Op),
    /// A policy is against it: that is recorded, and the error is the answer.
    Refuse {
        refusal: Refusal,
        error: OpsError,
    },
}

impl From<Option<Op>> for Change {
    fn from(op: Option<Op>) -> Self {
        op.map_or(Self::Nothing, Self::Record)
    }
}

/// Hears how far a long piece of work is.
pub trait Progress: Sync {
    /// A part begins that will take `bytes_total` to finish; 0 where that is not known.
    fn begin(&self, what: &str, bytes_total: u64);
    /// So many more bytes are done.
    fn advance(&self, bytes: u64);
    /// Whether nobody waits for the end any more.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Nobody listens.
pub struct NoProgress;

impl Progress for NoProgress {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {}
}

/// Free and total space of the file system below a store.
#[derive(Clone, Copy, Debug)]
pub struct SpaceReport {
    pub block_bytes: u64,
    pub blocks: u64,
    pub blocks_free: u64,
    pub blocks_available: u64,
    pub files: u64,
    pub files_free: u64,
}

/// An open store with its state: the one object that all doors share.
pub struct Workspace {
    store: Store,
    clock: Clock,
    signer: Option<Arc<Signer>>,
    /// Whether the newest record at the start was signed: then no later one goes without.
    is_signed: bool,
    /// Written only in `commit`, after the record is durable. May be taken inside `committing`.
    state: RwLock<State>,
    /// Held from the decision until the record is published: one change at a time. Guards what was
    /// refused last.
    committing: Mutex<RecentRefusals>,
    /// The policy that was asked last. No other lock is taken while it is held.
    policies: Mutex<Option<Arc<Policy>>>,
    facts: Cache<ManifestId, Arc<VersionFacts>>,
    past: Past,
    manifests: WeighedCache<ManifestId, Arc<Manifest>>,
    streams: Streams,
    diffs: Diffs,
    /// Drafts that were touched. No other lock is taken while it is held but the draft's own.
    drafts: Mutex<HashMap<ModelName, DraftTree>>,
    /// Snapshots under way. No other lock is taken while it is held.
    sealing: Mutex<HashMap<ModelName, Arc<Sealing>>>,
    /// By the cores; a test lets every file be late.
    late_limits: LateLimits,
    hot_jobs: HotJobs,
    checkpoints: Checkpoints,
    closing: AtomicBool,
}

impl Workspace {
    /// Opens a store, or makes it, and adds up its history. `init` owns a store that is made.
    ///
    /// # Errors
    /// As [`Store::open`] and [`History::follow`](crate::store::History::follow).
    pub fn open(
        options: OpenOptions,
        io: Arc<dyn Io>,
        now: Timestamp,
        init: &Caller,
    ) -> Result<Self, OpsError> {
        let OpenOptions { directory, create, holder, cache_bytes, hot_limit, clock, signer } =
            options;
        let store = match Store::open(io.clone(), &directory, &holder, cache_bytes, hot_limit) {
            Err(StoreError::Missing { .. }) if create => {
                Store::init(&*io, &directory, now)?;
                Store::open(io, &directory, &holder, cache_bytes, hot_limit)?
            }
            opened => opened?,
        };
        let checkpoints = Checkpoints::default();
        let state =
            checkpoint::open_state(&store, &checkpoints, signer.as_ref().map(|it| it.public()))?;
        let is_signed = state.signed_by().is_some();
        let entries = |_: &ManifestId, manifest: &Arc<Manifest>| u64::from(manifest.entry_count());
        let manifests = weighed_cache(MANIFESTS_TYPICAL, MANIFEST_ENTRIES_MAX, entries);
        let workspace = Self {
            store,
            clock,
            signer,
            is_signed,
            state: RwLock::new(state),
            committing: Mutex::default(),
            policies: Mutex::new(None),
            facts: Cache::new(FACTS_MAX),
            past: Past::default(),
            manifests,
            streams: Streams::new(cache_bytes),
            diffs: Diffs::default(),
            drafts: Mutex::new(HashMap::new()),
            sealing: Mutex::new(HashMap::new()),
            late_limits: LateLimits::default(),
            hot_jobs: HotJobs::default(),
            checkpoints,
            closing: AtomicBool::new(false),
        };
        workspace.ensure_first_record(&Context { caller: init.clone(), now, assume: false })?;
        workspace.finish_intents()?;
        Ok(workspace)
    }

    /// A store without records has just been made, or was cut off while it was.
    fn ensure_first_record(&self, context: &Context) -> Result<(), OpsError> {
        if self.state().head().seq != 0 {
            return Ok(());
        }
        let Caller { uid, gid, .. } = context.caller;
        let root = Access { uid, gid, mode: ROOT_MODE };
        let store = self.store.config().store.clone();
        self.commit(context, |_, _| Ok(Change::Record(Op::Init { store, root })))?;
        Ok(())
    }

    /// What the store holds now. Hold it briefly, and never while reading or writing files.
    pub fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read()
    }

    /// The store's directory.
    pub fn directory(&self) -> &Path {
        self.store.layout().root()
    }

    /// A manifest, from the cache or from disk.
    ///
    /// # Errors
    /// As [`Store::load_manifest`].
    pub fn manifest(&self, id: &ManifestId) -> Result<Arc<Manifest>, OpsError> {
        self.manifests
            .get_or_insert_with(id, || self.store.load_manifest(id).map(Arc::new))
            .map_err(OpsError::from)
    }

    /// Reads a file of a version from `offset` until `out` is full or the file ends; the bytes read.
    ///
    /// # Errors
    /// `Store` where a stored byte that is needed is missing or damaged: never other bytes.
    pub fn read_file(
        &self,
        manifest: &Manifest,
        file: &FileEntry,
        offset: u64,
        out: &mut [u8],
    ) -> Result<usize, OpsError> {
        let step = self.streams.note(&file.digest, file.bytes, offset, out.len());
        let chunks = manifest.chunks(file);
        if let Some((range, cursor)) = &step.ahead {
            self.store.read_ahead(parts(chunks, range.clone()), cursor);
        }
        let usage = if step.is_sequential { Use::Once } else { Use::Again };
        let end = offset.saturating_add(out.len() as u64);
        let mut done = 0;
        for (chunk, _, part) in parts(chunks, offset..end) {
            done += self.store.read_chunk_at(chunk, part.start, &mut out[done..], usage)?;
        }
        Ok(done)
    }

    /// All models, for what takes its time with them.
    fn models(&self) -> Vec<Model> {
        self.state().models().cloned().collect()
    }

    /// Bytes of the history as one file of lines: of a model's records, or of all.
    ///
    /// # Errors
    /// As [`Model::body`].
    pub fn history_bytes(&self, model: Option<&ModelName>) -> Result<u64, OpsError> {
        let state = self.state();
        match model.map(|name| state.model(name)) {
            None => Ok(state.lines().bytes()),
            Some(None) => Ok(0),
            Some(Some(model)) => Ok(model.body()?.records.bytes()),
        }
    }

    /// Reads the history as one file of lines, which only ever grows.
    ///
    /// # Errors
    /// As reading the records' files.
    pub fn read_history(
        &self,
        model: Option<&ModelName>,
        offset: u64,
        out: &mut [u8],
    ) -> Result<usize, OpsError> {
        let (seqs, mut at) = self.records_within(model, offset, out.len() as u64)?;
        let mut done = 0;
        for seq in seqs {
            let line = self.line_for(model, seq)?;
            let skip = usize::try_from(offset.saturating_sub(at)).unwrap_or(usize::MAX);
            let rest = line.get(skip..).unwrap_or_default();
            let count = rest.len().min(out.len() - done);
            out[done..done + count].copy_from_slice(&rest[..count]);
            done += count;
            at += line.len() as u64;
        }
        Ok(done)
    }

    /// The records whose lines have some of `offset..offset + bytes` of the file that the lines of a
    /// model, or of all, make, and where the first starts there.
    fn records_within(
        &self,
        model: Option<&ModelName>,
        offset: u64,
        bytes: u64,
    ) -> Result<(Vec<u64>, u64), OpsError> {
        let state = self.state();
        let Some(name) = model else {
            let (lines, start) = state.lines().within(offset, bytes);
            return Ok((lines.map(|index| index as u64 + 1).collect(), start));
        };
        let Some(model) = state.model(name) else { return Ok((Vec::new(), 0)) };
        let body = model.body()?;
        let (seqs, start) = body.records.within(offset, bytes);
        Ok((seqs.to_vec(), start))
    }

    /// Space of the file system that the store is on.
    ///
    /// # Errors
    /// As `statvfs(2)`.
    pub fn space(&self) -> std::io::Result<SpaceReport> {
        let found = nix::sys::statvfs::statvfs(self.directory())?;
        Ok(SpaceReport {
            block_bytes: found.fragment_size(),
            blocks: found.blocks(),
            blocks_free: found.blocks_free(),
            blocks_available: found.blocks_available(),
            files: found.files(),
            files_free: found.files_free(),
        })
    }

    /// Refuses further changes, tells the catalog what is new, and makes a checkpoint of it. The lock
    /// goes when the last holder of the workspace drops it, or the process ends.
    pub fn close(&self) {
        self.stop_hot_work();
        self.closing.store(true, Ordering::Release);
        drop(self.committing.lock());
        self.store.flush();
        self.close_checkpoints();
    }

    /// Ends the work on hot files: what is half made is dropped.
    pub fn stop_hot_work(&self) {
        self.hot_jobs.close();
    }

    /// Whether nothing can be changed, as records are signed here and there is no key to sign more.
    pub fn needs_key(&self) -> bool {
        self.is_signed && self.signer.is_none()
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Makes one change: `plan` looks at the state and decides, for the time that the record will
    /// have; then the record is made durable and published. The one way to change state.
    fn commit(
        &self,
        context: &Context,
        plan: impl FnOnce(&State, Timestamp) -> Result<Change, OpsError>,
    ) -> Result<Option<Line>, OpsError> {
        let mut refusals = self.committing.lock();
        if self.is_closing() {
            return Err(OpsError::Closing);
        }
        // A clock that went back must not make the history do so.
        let now = context.now.max(self.state().time());
        let change = plan(&self.state(), now)?;
        let (op, error) = match change {
            Change::Nothing => return Ok(None),
            Change::Record(op) => (op, None),
            Change::Refuse { refusal, error } => {
                if !refusals.admit(&context.caller, &refusal, now) {
                    return Err(error);
                }
                (Op::Refused(Box::new(refusal)), Some(error))
            }
        };
        let line = self.append(context, now, op)?;
        match error {
            Some(error) => Err(error),
            None => Ok(Some(line)),
        }
    }

    /// Makes an operation durable and then known; only ever called by `commit`.
    fn append(&self, context: &Context, time: Timestamp, op: Op) -> Result<Line, OpsError> {
        let (head, policy) = {
            let state = self.state();
            (state.head(), state.policy().map(|policy| policy.digest))
        };
        let Caller { user, uid, door, .. } = context.caller.clone();
        if self.needs_key() {
            return Err(OpsError::NoKey);
        }
        let mut record = Record {
            seq: head.seq + 1,
            prev: head.digest,
            time,
            actor: Actor { user, uid, door },
            policy,
            verdict: op.verdict(),
            op,
            signature: None,
        };
        if let Some(signer) = &self.signer {
            record.sign(signer);
        }
        let ready = self.state().ready(&record.op)?;
        let line = self.store.append(head, record)?;
        self.state.write().apply(&line, ready);
        self.checkpoints.note(line.record.seq);
        // Those of a snapshot wait until its files were moved there.
        if let Op::Retarget { moves, .. } = &line.record.op {
            self.warm_later(moves);
        }
        Ok(line)
    }
}

/// The chunks of a file that hold some of `range`: each with the place in the file where it begins,
/// and what of it is in the range.
fn parts(
    chunks: &[ChunkRef],
    range: Range<u64>,
) -> impl Iterator<Item = (&ChunkRef, u64, Range<u32>)> {
    let mut end = 0;
    let starts = chunks.iter().map(move |chunk| {
        let start = end;
        end += u64::from(chunk.bytes);
        (chunk, start)
    });
    let (first, last) = (range.start, range.end);
    starts
        .skip_while(move |(chunk, start)| start + u64::from(chunk.bytes) <= first)
        .take_while(move |(_, start)| *start < last)
        .map(move |(chunk, start)| {
            let within = |at: u64| at.saturating_sub(start).min(u64::from(chunk.bytes));
            let within = |at| u32::try_from(within(at)).expect("within a chunk");
            (chunk, start, within(first)..within(last))
        })
}

/// Sees to it that the caller may do `action` to a model: as in the mount, the way there leads through
/// the root.
fn permit(
    state: &State,
    context: &Context,
    name: &ModelName,
    action: Action,
) -> Result<(), OpsError> {
    permit_access(context, state.root_access(), Action::Enter, "the store")?;
    let Some(model) = state.model(name) else {
        return Err(OpsError::NoModel { model: name.clone() });
    };
    permit_access(context, model.access, action, name.as_str())
}

/// What is asked for, as the one who was refused reads it.
fn words_of(action: Action) -> &'static str {
    match action {
        Action::Enter => "enter",
        Action::Read => "read",
        Action::Write => "change",
        Action::Own => "change the owner or mode of",
        Action::Administer => "administer",
    }
}

fn permit_access(
    context: &Context,
    access: Access,
    action: Action,
    what: &str,
) -> Result<(), OpsError> {
    match governance::may(&context.caller, access, action) {
        Permission::Allowed => Ok(()),
        Permission::Refused { needs } => Err(OpsError::Denied {
            user: context.caller.user.clone(),
            action: words_of(action),
            what: what.to_owned(),
            needs,
        }),
    }
}
