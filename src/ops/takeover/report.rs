//! What an inventory found, as values.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::format::names::ModelName;
use crate::format::path;

/// What lies below a folder, and what it would be in a store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InventoryReport {
    #[serde(with = "path")]
    pub root: PathBuf,
    /// Everything that was looked at.
    pub files: u64,
    pub bytes: u64,
    /// Families of versions, in the order of their names.
    pub models: Vec<FoundModel>,
    /// Bytes of all models that were found, copies too.
    pub model_bytes: u64,
    /// Of them, what lies there more than once.
    pub copy_bytes: u64,
    /// Of them, what is broken and would be left out.
    pub broken_bytes: u64,
    /// What a store would take for the rest.
    pub stored_bytes: u64,
    /// What that rest takes now, less that.
    pub saved_bytes: i64,
    /// Not everything was encoded for that: part of it is taken as the like of a sample.
    pub is_sampled: bool,
    /// Places that could not be looked at, the first of them.
    pub unreadable: Vec<UnreadablePlace>,
    pub unreadable_count: u64,
}

/// One family.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FoundModel {
    pub name: ModelName,
    /// The earliest first.
    pub versions: Vec<FoundVersion>,
    /// Of the versions, without copies.
    pub bytes: u64,
    pub stored_bytes: u64,
}

/// One state of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FoundVersion {
    /// A file or a directory, below the root.
    #[serde(with = "path")]
    pub path: PathBuf,
    /// Of its models, each once.
    pub formats: Vec<String>,
    pub files: u64,
    pub bytes: u64,
    pub owner: String,
    /// When the newest of its models was written.
    pub modified: Option<Timestamp>,
    /// The earlier version that it has most in common with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<Nearest>,
    /// Where the same lies too.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "path::list")]
    pub copies: Vec<PathBuf>,
    /// To load it as its library does by default may run code that is in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub runs_code: bool,
    /// What it would call when loaded that no model needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<String>,
    /// What is wrong with it, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    /// The tool that kept it: `git-lfs`, `dvc`, `mlflow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_by: Option<String>,
}

/// How much a version has in common with an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nearest {
    #[serde(with = "path")]
    pub path: PathBuf,
    /// Of the larger of the two, of 100, rounded down.
    pub percent: u64,
}

/// A place that could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadablePlace {
    #[serde(with = "path")]
    pub path: PathBuf,
    pub why: String,
}
