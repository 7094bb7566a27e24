//! What a verb answers, as values; `cli` makes text of them, `--json` prints them as they are.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::format::ids::{ManifestId, RecordDigest, TreeDigest};
use crate::format::names::{AliasName, ModelName, VersionNumber};
use crate::format::record::{Access, Actor, Move};

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

/// What changed when aliases moved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetargetReport {
    /// Empty where all was as asked for already.
    pub moves: Vec<Move>,
    /// Number of the record; `None` where nothing had to change.
    pub seq: Option<u64>,
}

/// Sizes of a store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatsReport {
    pub models: u64,
    pub versions: u64,
    pub files: u64,
    /// Bytes of all files of all versions.
    pub logical_bytes: u64,
    /// Bytes of the distinct chunks, decoded.
    pub unique_bytes: u64,
    /// Bytes of the packs.
    pub pack_bytes: u64,
    pub manifest_bytes: u64,
    pub history_bytes: u64,
    pub packs: u64,
    pub chunks: u64,
    pub records: u64,
}

/// How a store is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
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

/// The process that serves a mount.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DaemonStatus {
    pub pid: u32,
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
    pub directory: PathBuf,
    pub files: u64,
    pub bytes: u64,
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
    /// Present when asked for: `true` when every record is chained to the one before it.
    pub verified: Option<bool>,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", content = "value", rename_all = "snake_case")]
pub enum Report {
    Snapshot(SnapshotReport),
    Models(Vec<ModelSummary>),
    Versions {
        model: ModelName,
        versions: Vec<VersionSummary>,
    },
    /// A version's `metadata.json`, with the aliases that point to it.
    Version {
        summary: Box<VersionSummary>,
        metadata: Value,
    },
    History(HistoryReport),
    Stats(StatsReport),
    Status(Box<StatusReport>),
    Retarget(RetargetReport),
    Aliases {
        model: ModelName,
        aliases: Vec<AliasSummary>,
    },
    Export(ExportReport),
    Verify(VerifyReport),
    Repair(RepairReport),
    Catalog(CatalogReport),
}
