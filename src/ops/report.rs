//! What a verb answers, as values; `cli` makes text of them, `--json` prints them as they are.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Anchor, DiffReport, InspectReport};
use crate::format::codec::Codec;
use crate::format::ids::{BlobDigest, ManifestId, PolicyDigest, RecordDigest, TreeDigest};
use crate::format::names::{AliasName, Label, ModelName, Reference, VersionNumber};
use crate::format::path;
use crate::format::record::{Access, Actor, Mark, Move, Subject, Verdict};

/// A version was sealed, or was there already.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotReport {
    pub model: ModelName,
    pub version: VersionNumber,
    pub digest: TreeDigest,
    pub files: u64,
    pub bytes: u64,
    /// What it added to the packs; 0 where nothing was new.
    pub stored_bytes: u64,
    pub ms: u64,
    /// The same content with the same metadata had been sealed before, as this version.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub existing: bool,
    /// What was left out on purpose, such as a setuid bit, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A version was taken over, or was before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImportReport {
    pub model: ModelName,
    pub version: VersionNumber,
    pub files: u64,
    pub bytes: u64,
    /// What it added to the packs.
    pub stored_bytes: u64,
    /// It had been taken over before: nothing was read where it came from.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub existing: bool,
    /// What was read back from the store and found to be what was read outside, now or before.
    pub verified_files: u64,
    pub verified_bytes: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One model in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelSummary {
    pub model: ModelName,
    pub access: Access,
    pub versions: u64,
    pub latest: Option<VersionNumber>,
    pub aliases: Vec<AliasSummary>,
    /// Bytes of all versions' files, as if nothing were shared.
    pub bytes: u64,
    pub changed: Timestamp,
}

/// One alias and what it points to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AliasSummary {
    pub alias: AliasName,
    pub version: VersionNumber,
    pub since: Timestamp,
    pub by: Actor,
}

/// One version in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionSummary {
    pub version: VersionNumber,
    pub sealed: Timestamp,
    pub by: Actor,
    pub message: String,
    pub files: u64,
    pub bytes: u64,
    pub stored_bytes: u64,
    pub digest: TreeDigest,
    pub manifest: ManifestId,
    pub follows: Option<VersionNumber>,
    /// Aliases that point to it, `latest` among them.
    pub aliases: Vec<String>,
}

/// A version with its metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogVersion {
    #[serde(flatten)]
    pub summary: VersionSummary,
    /// Those asked for. Names of objects within each other have a `.` between them.
    pub metrics: BTreeMap<String, Value>,
}

/// The versions of a model, oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogReport {
    pub model: ModelName,
    pub versions: Vec<LogVersion>,
    /// Versions before these.
    pub left_out: u64,
}

/// What changed when aliases moved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetargetReport {
    /// Empty where all was as asked for already.
    pub moves: Vec<Move>,
    /// Number of the record; `None` where nothing had to change.
    pub seq: Option<u64>,
}

/// What the gates say to one move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedMove {
    /// Its judgement is absent where the alias has no gate.
    pub step: Move,
    pub verdict: Verdict,
    /// What stands against it, a sentence each.
    pub why: Vec<String>,
    /// Commands that would help.
    pub next: Vec<String>,
}

/// What would happen if aliases were moved. Nothing was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanReport {
    /// What is as wished for already is left out.
    pub moves: Vec<PlannedMove>,
    pub policy: Option<PolicyDigest>,
}

/// An approval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApprovalSummary {
    pub by: Actor,
    pub role: Option<Label>,
    pub message: String,
    pub at: Timestamp,
    pub expires: Option<Timestamp>,
    /// It counts no more.
    pub expired: bool,
    pub seq: u64,
}

/// The last result of a check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckSummary {
    pub name: Label,
    pub passed: bool,
    pub by: Actor,
    pub at: Timestamp,
    pub metrics: BTreeMap<String, Value>,
    pub failures: Vec<String>,
    pub suite: Option<BlobDigest>,
    pub seq: u64,
}

/// What a version is marked as.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MarkSummary {
    pub mark: Mark,
    pub by: Actor,
    pub at: Timestamp,
    pub message: String,
}

/// What was said of a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VettingReport {
    #[serde(flatten)]
    pub subject: Subject,
    pub approvals: Vec<ApprovalSummary>,
    pub checks: Vec<CheckSummary>,
    pub mark: Option<MarkSummary>,
}

/// The policy in force; an empty text where there is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyReport {
    pub text: String,
    pub digest: Option<PolicyDigest>,
    pub since: Option<Timestamp>,
    pub by: Option<Actor>,
    pub seq: Option<u64>,
}

/// For how long the caller may pass the gates of an alias.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BreakGlassReport {
    pub model: ModelName,
    pub alias: AliasName,
    pub reason: String,
    pub until: Timestamp,
    pub seq: u64,
}

/// Sizes of what the caller may read of a store, or of one version: how much it is, and how little it takes.
///
/// `logical_bytes` less what duplicates and codecs save is `stored_bytes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatsReport {
    /// `churn/v7`; `None`: the store.
    pub version: Option<String>,
    pub models: u64,
    pub versions: u64,
    /// Of all versions, `metadata.json` among them.
    pub files: u64,
    /// Bytes of those files.
    pub logical_bytes: u64,
    /// Distinct chunks of those files.
    pub chunks: u64,
    /// Their bytes, decoded.
    pub unique_bytes: u64,
    /// Their bytes in the packs, heads too.
    pub stored_bytes: u64,
    /// By storing a chunk once that is in several places.
    pub duplicates_saved_bytes: u64,
    /// By how chunks are stored; less than 0 where heads take more than that gains.
    pub codecs_saved_bytes: i64,
    /// Chunks that the catalog does not know: `verify` says more.
    pub missing_chunks: u64,
    /// By codec, those that occur.
    pub codecs: Vec<CodecStats>,
    /// Of the whole store, for who owns the root: what its files take.
    #[serde(flatten)]
    pub disk: Option<DiskStats>,
    /// Of a version: what it shares.
    pub sharing: Option<SharingStats>,
    /// Where asked for.
    pub contents: Option<ContentStats>,
}

/// Chunks stored by one codec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CodecStats {
    pub codec: Codec,
    pub chunks: u64,
    pub plain_bytes: u64,
    pub stored_bytes: u64,
}

/// What the files of a store take. Drafts are left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskStats {
    pub packs: u64,
    pub pack_bytes: u64,
    /// Chunks in the packs that no version has, and their bytes there.
    pub unused_chunks: u64,
    pub unused_bytes: u64,
    pub manifest_bytes: u64,
    pub records: u64,
    pub history_bytes: u64,
    /// May be deleted at any time, as may the next.
    pub catalog_bytes: u64,
    pub hot_bytes: u64,
}

/// What a version has in common with all others that the caller may read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SharingStats {
    /// Chunks that no other version has.
    pub own: ShareStats,
    pub shared: ShareStats,
    pub manifest_bytes: u64,
}

/// Some distinct chunks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShareStats {
    pub chunks: u64,
    pub plain_bytes: u64,
    pub stored_bytes: u64,
}

/// What the stored bytes are spent on. A chunk in several places is divided among those evenly, so
/// that each list adds up to the whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContentStats {
    /// In the order of their paths.
    pub files: Vec<FileStats>,
    /// The largest first.
    pub dtypes: Vec<DtypeStats>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileStats {
    /// Within the version; of the whole store with the version before it.
    pub path: String,
    /// `safetensors`, …; `None` where it has no tensor table.
    pub format: Option<String>,
    pub tensors: u64,
    pub bytes: u64,
    pub stored_bytes: u64,
    /// `chunks` are its own, however often.
    pub codecs: Vec<CodecStats>,
}

/// All tensors of one dtype.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DtypeStats {
    /// `None`: what is in no tensor.
    pub dtype: Option<String>,
    pub tensors: u64,
    pub bytes: u64,
    pub stored_bytes: u64,
}

/// How a store is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    #[serde(with = "path")]
    pub store: PathBuf,
    pub store_id: String,
    pub format: u32,
    /// Number and digest of the newest record.
    pub seq: u64,
    pub head: RecordDigest,
    pub models: u64,
    pub versions: u64,
    pub free_bytes: u64,
    /// Snapshots that are being made now.
    pub sealing: Vec<SealStatus>,
    #[serde(default)]
    pub hot: HotStatus,
    /// The daemon that holds the store; `None` when the store was opened directly.
    pub daemon: Option<DaemonStatus>,
}

/// A snapshot under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SealStatus {
    pub model: ModelName,
    pub bytes_done: u64,
    pub bytes_total: u64,
    pub files_total: u64,
    pub since: Timestamp,
}

/// Plain copies of files of versions, for reading without us.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HotStatus {
    pub files: u64,
    pub bytes: u64,
    /// The limit; 0 where there are to be none.
    pub bytes_max: u64,
    /// The version that is being warmed in the background.
    pub warming: Option<WarmStatus>,
    /// Versions that wait for that.
    pub waiting: u64,
}

/// A version that is being warmed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WarmStatus {
    pub model: ModelName,
    pub version: VersionNumber,
    pub files_done: u64,
    pub files_total: u64,
    pub bytes_done: u64,
    pub bytes_total: u64,
}

/// The process that serves a mount.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DaemonStatus {
    pub pid: u32,
    #[serde(with = "path")]
    pub mountpoint: PathBuf,
    pub since: Timestamp,
    pub version: String,
    pub passthrough: bool,
}

/// A version's files were written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExportReport {
    pub model: ModelName,
    pub version: VersionNumber,
    #[serde(with = "path")]
    pub directory: PathBuf,
    pub files: u64,
    pub bytes: u64,
    /// Names of the documents beside them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub documents: Vec<String>,
}

/// What is to be signed of a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatementReport {
    /// By its number.
    pub reference: Reference,
    pub payload: String,
}

/// A version was made hot, as far as it fits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WarmReport {
    pub model: ModelName,
    pub version: VersionNumber,
    /// Files that are hot now, and their bytes; small ones are never counted.
    pub files: u64,
    pub bytes: u64,
    /// Those of them that were not before.
    pub made_files: u64,
    pub made_bytes: u64,
    /// Files that stay cold.
    pub skipped: Vec<WarmSkip>,
}

/// A file that stays cold, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WarmSkip {
    pub path: String,
    pub bytes: u64,
    pub why: String,
}

/// One thing that is not as it must be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Damage {
    /// The file or the thing, as a path below the store.
    pub place: String,
    /// What is wrong with it.
    pub what: String,
    /// References that cannot be read whole because of it.
    pub hits: Vec<String>,
}

/// What a check of the store found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerifyReport {
    pub records: u64,
    pub versions: u64,
    pub manifests: u64,
    pub packs: u64,
    pub chunks: u64,
    pub bytes_read: u64,
    pub read_data: bool,
    /// Hot files that were hashed, and those of them that were wrong and are gone.
    #[serde(default)]
    pub hot_files: u64,
    #[serde(default)]
    pub hot_removed: Vec<String>,
    /// Empty when all is well.
    pub damage: Vec<Damage>,
    /// Harmless things: packs and manifests that nothing refers to.
    pub garbage: Vec<String>,
}

/// What the catalog held and holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RepairReport {
    pub packs: u64,
    pub chunks: u64,
    pub records: u64,
    /// Packs that could not be indexed, with the reason; `verify` says which versions they hit.
    pub damage: Vec<Damage>,
}

/// What the catalog holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CatalogReport {
    pub packs: u64,
    pub chunks: u64,
    pub records: u64,
    pub bytes: u64,
}

/// Records, and what a check of their chain said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryReport {
    /// The records as they are stored, oldest first.
    pub records: Vec<Value>,
    pub seq: u64,
    pub head: RecordDigest,
    /// Both, to be written down somewhere else: `history --verify --head` takes it.
    pub anchor: Anchor,
    /// Whether it was found that every record is chained to the one before it; else nobody looked.
    pub verified: bool,
    /// Present when keys were given.
    pub signed: Option<SignedReport>,
}

/// Records that are signed: from the first one on, all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedReport {
    pub first: u64,
    pub records: u64,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", content = "value", rename_all = "snake_case")]
pub enum Report {
    Snapshot(SnapshotReport),
    Import(ImportReport),
    Models(Vec<ModelSummary>),
    Versions {
        model: ModelName,
        versions: Vec<VersionSummary>,
    },
    /// A version's `metadata.json` without its list of files, with the aliases that point to it.
    Version {
        summary: Box<VersionSummary>,
        metadata: Value,
    },
    /// A part of the text of a version's `metadata.json`; empty at its end.
    Metadata {
        part: String,
    },
    Diff(Box<DiffReport>),
    Log(LogReport),
    History(HistoryReport),
    Stats(Box<StatsReport>),
    Status(Box<StatusReport>),
    Retarget(RetargetReport),
    Plan(PlanReport),
    Vetting(Box<VettingReport>),
    Policy(PolicyReport),
    BreakGlass(BreakGlassReport),
    Aliases {
        model: ModelName,
        aliases: Vec<AliasSummary>,
    },
    Export(ExportReport),
    Statement(StatementReport),
    Inspect(Box<InspectReport>),
    Warm(WarmReport),
    Verify(VerifyReport),
    Repair(RepairReport),
    Catalog(CatalogReport),
}
