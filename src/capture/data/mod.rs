//! Fingerprints of data: a digest of what a file or directory holds, and what its tables look like.
//!
//! Invariant D1: the digest is of names and contents alone. Times, owners, the order in which a file
//! system lists entries and the number of threads leave it as it is.
//! Invariant D2: what is told is of bytes that did not change while they were read, or it is an error.
//! Invariant D3: no text of a table gets into a summary but the names of its columns, dates and times:
//! a summary is kept for ever, and a column of names or addresses is nobody's to publish.
//! The digest of a file is the BLAKE3 of its bytes; that of a directory is described in FORMAT.md,
//! "Data digest".

mod column;
mod csv;
mod hash;
mod json_lines;
mod names;
mod parquet;
mod table;
mod time;
mod tree;
mod work;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::format::ids::DataDigest;

pub use column::{ColumnKind, ColumnSummary};
pub use table::{COLUMNS_MAX, Table, TableFormat};
pub use tree::ENTRIES_MAX;

/// Sentences about one fingerprint; more would not be read.
const NOTES_MAX: usize = 20;

/// What a file or directory holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    pub digest: DataDigest,
    pub bytes: u64,
    pub files: u64,
    /// `csv`, `json-lines` or `parquet`, where all its tables are of one; else absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Of all its tables; absent without any, or where one cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// The columns that all its tables have, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schema: Vec<ColumnSummary>,
    /// What could not be told, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What all files of a data set looked like when it was listed: equal while nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp([u8; 32]);

/// Why there is no fingerprint.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("cannot {action} `{}`", .path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("`{}` changed while it was being read", .path.display())]
    Changed { path: PathBuf },
    #[error("`{}` is {what}: data is files and directories", .path.display())]
    Unfit { path: PathBuf, what: &'static str },
    #[error("`{}` holds more than {limit} {what}", .path.display())]
    Large { path: PathBuf, limit: usize, what: &'static str },
    #[error("stopped")]
    Stopped,
}

impl DataError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// Hears how far the work is, and says whether it is still wanted.
pub trait Watcher: Sync {
    /// So many bytes are to be read.
    fn begin(&self, bytes_total: u64);
    /// So many more were; false to stop.
    fn advance(&self, bytes: u64) -> bool;
}

/// Nobody listens.
pub struct NoWatcher;

impl Watcher for NoWatcher {
    fn begin(&self, _: u64) {}
    fn advance(&self, _: u64) -> bool {
        true
    }
}

/// Takes the fingerprint of what is at `path`, with `threads` threads (at least one).
///
/// Links are followed: data sets are often made of them. Memory is bounded: some MiB a thread, for what a
/// table of the longest lines, the largest footer or the most columns takes up to 100 MiB, and about 80
/// bytes and its name for each file.
///
/// # Errors
/// `Changed` where somebody writes to it meanwhile; nothing is told of part of it.
pub fn fingerprint(
    path: &Path,
    threads: usize,
    watcher: &dyn Watcher,
) -> Result<(Fingerprint, Stamp), DataError> {
    let mut tree = tree::DataTree::list(path)?;
    watcher.begin(tree.bytes());
    let tables = work::read_all(&mut tree, threads, watcher)?;
    let digest = tree.digest();
    let mut notes = tables.notes;
    notes.truncate(NOTES_MAX);
    let found = Fingerprint {
        digest,
        bytes: tree.bytes(),
        files: tree.file_count(),
        format: tables.format,
        rows: tables.rows,
        schema: tables.schema,
        notes,
    };
    Ok((found, tree.stamp()))
}

/// Sums up one table from its bytes, which come in parts; of Parquet, from its footer.
///
/// # Errors
/// Why it is no table, in words.
pub fn parse_table(format: TableFormat, parts: &[&[u8]]) -> Result<Table, String> {
    work::parse(format, parts)
}

/// What `path` looks like now, its contents not read.
///
/// # Errors
/// Those of listing it.
pub fn stamp(path: &Path) -> Result<Stamp, DataError> {
    Ok(tree::DataTree::list(path)?.stamp())
}

#[cfg(test)]
mod tests;
