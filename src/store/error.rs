//! What can go wrong with a store, by what a caller can do about it.

use std::io;
use std::path::{Path, PathBuf};

use super::catalog::CatalogError;
use crate::format::config::ConfigError;
use crate::format::ids::{ChunkId, ManifestId, PackId};
use crate::format::manifest::ManifestError;
use crate::format::pack::PackError;
use crate::format::record::RecordError;

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("there is no store in `{}`", .directory.display())]
    Missing { directory: PathBuf },
    #[error("`{}` is not empty and holds no modelfs store", .directory.display())]
    Foreign { directory: PathBuf },
    #[error("the store `{}` is in use by process {pid} (`{holder}`)", .directory.display())]
    Locked { directory: PathBuf, pid: u32, holder: String },
    #[error("cannot {action} `{}`", .path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("`{}` is damaged", .path.display())]
    Config { path: PathBuf, source: ConfigError },
    #[error("the pack `{}` is damaged", .path.display())]
    Pack { path: PathBuf, source: PackError },
    #[error("history record {seq} is damaged")]
    Record { seq: u64, source: RecordError },
    #[error("history record {seq} does not follow the one before it: {why}")]
    Chain { seq: u64, why: &'static str },
    #[error("history record {seq} is not signed as it must be: {why}")]
    Signature { seq: u64, why: String },
    #[error("the checkpoint in the catalog is not signed as it must be: {why}")]
    CheckpointSignature { why: String },
    #[error("history record {seq} is missing")]
    RecordMissing { seq: u64 },
    #[error("history record {seq} {why}")]
    Diverged { seq: u64, why: &'static str },
    #[error("another writer made history record {seq} first")]
    Conflict { seq: u64 },
    #[error("the record cannot be written")]
    Unwritable { source: RecordError },
    #[error("chunk {chunk} is in no pack")]
    ChunkMissing { chunk: ChunkId },
    #[error("chunk {chunk} in pack {pack} is damaged: {why}")]
    ChunkDamaged { chunk: ChunkId, pack: PackId, why: String },
    #[error("manifest {manifest} is missing")]
    ManifestMissing { manifest: ManifestId },
    #[error("manifest {manifest} is damaged: {why}")]
    ManifestDamaged { manifest: ManifestId, why: String },
    #[error("manifest {manifest} cannot be read back")]
    ManifestUnreadable { manifest: ManifestId, source: ManifestError },
    #[error("chunk {chunk} did not decode to what was encoded: nothing was stored")]
    Encoder { chunk: ChunkId },
    #[error("the checkpoint in the catalog cannot be used: {why}")]
    Checkpoint { why: String },
    #[error("{place} says what no record of the history says: {what}")]
    Untrue { place: &'static str, what: String },
    #[error("the catalog cannot be made")]
    Catalog(#[source] CatalogError),
}

impl StoreError {
    /// An error of the file system.
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    /// A record is not there any more that was believed to be.
    pub fn cut(seq: u64) -> Self {
        let why = "is missing, and was there before: records were removed, or an older copy of the \
                   history was put back";
        Self::Diverged { seq, why }
    }

    /// A record is not the one that was believed to be there.
    pub fn other_record(seq: u64) -> Self {
        let why = "is not the one that was there before: the history was written anew";
        Self::Diverged { seq, why }
    }

    /// The system's own error number, where one is behind it.
    pub fn raw_errno(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } => source.raw_os_error(),
            Self::Catalog(CatalogError::Io(source)) => source.raw_os_error(),
            _ => None,
        }
    }

    /// Whether it is the checkpoint that is of no use, which the history can do without.
    pub fn is_of_checkpoint(&self) -> bool {
        matches!(
            self,
            Self::Checkpoint { .. } | Self::CheckpointSignature { .. } | Self::Untrue { .. }
        )
    }

    /// Whether stored bytes are not what they were: no retry helps.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Config { .. }
            | Self::Pack { .. }
            | Self::Record { .. }
            | Self::Chain { .. }
            | Self::Signature { .. }
            | Self::RecordMissing { .. }
            | Self::Diverged { .. }
            | Self::CheckpointSignature { .. }
            | Self::Untrue { .. }
            | Self::ChunkMissing { .. }
            | Self::ChunkDamaged { .. }
            | Self::ManifestMissing { .. }
            | Self::ManifestDamaged { .. }
            | Self::ManifestUnreadable { .. }
            | Self::Encoder { .. } => true,
            Self::Missing { .. }
            | Self::Foreign { .. }
            | Self::Locked { .. }
            | Self::Io { .. }
            | Self::Conflict { .. }
            | Self::Unwritable { .. }
            | Self::Checkpoint { .. }
            | Self::Catalog(_) => false,
        }
    }
}

/// An error and what is behind it, in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
