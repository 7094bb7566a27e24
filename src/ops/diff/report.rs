//! What a diff answers, as values. Everything in it follows from the two versions alone, which never
//! change: so the answer never does.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::format::ids::TreeDigest;
use crate::format::names::{ModelName, VersionNumber};

/// Entries of each list at most; totals count all.
pub const LISTED_MAX: usize = 100_000;

/// What changed from one version to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiffReport {
    pub before: DiffSide,
    pub after: DiffSide,
    pub metadata: MetadataChanges,
    pub files: FileChanges,
    pub tensors: TensorChanges,
    /// Those in which something changed, in their natural order.
    pub layers: Vec<LayerChange>,
    /// Of ONNX files, where more changed than numbers.
    pub graphs: Vec<GraphChange>,
    /// Of boosted trees.
    pub ensembles: Vec<EnsembleChange>,
    /// What other files say of themselves: headers of models, members of short JSON.
    pub values: Vec<FileValues>,
    /// Files that changed, and do not parse as what they begin like.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub malformed: Vec<MalformedFile>,
    /// Bytes of files that were read for it. Tensors that are the same are told by their digests.
    pub bytes_read: u64,
}

/// One of the two versions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiffSide {
    pub model: ModelName,
    pub version: VersionNumber,
    pub digest: TreeDigest,
    pub sealed: Timestamp,
    pub by: String,
    pub message: String,
    pub files: u64,
    pub bytes: u64,
}

/// A value of the metadata, before and after; `None`: absent, or null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValueChange {
    /// Names of objects within each other have a `.` between them.
    pub key: String,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

/// What changed in `metadata.json`, by the names of its members there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MetadataChanges {
    /// All of them: those that did not change are half of the story. In the rest only what changed.
    pub metrics: Vec<ValueChange>,
    pub params: Vec<ValueChange>,
    pub labels: Vec<ValueChange>,
    /// By name, each whole.
    pub datasets: Vec<ValueChange>,
    /// Versions of installed packages, by name.
    pub packages: Vec<ValueChange>,
    pub source: Vec<ValueChange>,
    /// But for packages.
    pub environment: Vec<ValueChange>,
    pub interface: Vec<ValueChange>,
    pub user: Vec<ValueChange>,
}

/// What an entry of a version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    File,
    Executable,
    Symlink,
    /// An empty one: others are told by what they hold.
    Directory,
}

/// A file, link or empty directory of one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryForm {
    pub kind: EntryKind,
    pub bytes: u64,
    /// Of a symbolic link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// An entry that only one version has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileLine {
    pub path: String,
    #[serde(flatten)]
    pub form: EntryForm,
}

/// A file of the same content under another name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRename {
    pub before: String,
    pub after: String,
    pub bytes: u64,
}

/// An entry that is something else now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    pub path: String,
    pub before: EntryForm,
    pub after: EntryForm,
    /// Of what it holds now, bytes of chunks that it had before.
    pub shared_bytes: u64,
}

/// What became of the files; the generated `metadata.json` is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FileChanges {
    /// Entries with the same name and content.
    pub same: u64,
    pub same_bytes: u64,
    pub added_total: u64,
    pub added: Vec<FileLine>,
    pub removed_total: u64,
    pub removed: Vec<FileLine>,
    pub renamed_total: u64,
    pub renamed: Vec<FileRename>,
    pub changed_total: u64,
    pub changed: Vec<FileChange>,
}

/// Mean and spread of the finite numbers of a tensor; `None` where there are none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub mean: Option<f64>,
    /// Of the population, as numpy has it by default.
    pub std: Option<f64>,
    pub nan: u64,
    pub infinite: u64,
}

/// How far two tensors of one shape are apart.
///
/// Of elements that are finite on both sides, in `f64`. `None` is what is no number: 0 / 0, or too large.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Length of the difference by length of what was before.
    pub relative_l2: Option<f64>,
    pub cosine: Option<f64>,
    pub max_abs: Option<f64>,
    /// How many elements these are of.
    pub compared: u64,
    pub before: Spread,
    pub after: Spread,
}

/// A tensor of one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorForm {
    pub file: String,
    pub name: String,
    pub dtype: String,
    /// Outermost first.
    pub shape: Vec<u64>,
    pub bytes: u64,
}

/// A tensor that both versions have, and that is not the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorChange {
    pub before: TensorForm,
    pub after: TensorForm,
    /// `None` where the shapes differ, or the bytes of the dtype are not understood.
    pub figures: Option<Figures>,
}

/// The same tensor under another name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorRename {
    pub before: TensorForm,
    pub after: TensorForm,
}

/// What became of the tensors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TensorChanges {
    /// Tensors of the same name, dtype, shape and digest.
    pub same: u64,
    pub same_bytes: u64,
    pub added_total: u64,
    pub added: Vec<TensorForm>,
    pub removed_total: u64,
    pub removed: Vec<TensorForm>,
    pub renamed_total: u64,
    pub renamed: Vec<TensorRename>,
    /// Of another shape or dtype, and else of the same name.
    pub reshaped_total: u64,
    pub reshaped: Vec<TensorChange>,
    /// Of other numbers.
    pub changed_total: u64,
    /// Of those as they are now.
    pub changed_bytes: u64,
    pub changed: Vec<TensorChange>,
}

/// What became of the tensors whose names begin alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerChange {
    pub layer: String,
    /// Of both versions, and their bytes as they are now.
    pub tensors: u64,
    pub bytes: u64,
    /// In number or shape.
    pub changed: u64,
    /// Of those, and of the added ones.
    pub changed_bytes: u64,
    pub added: u64,
    pub removed: u64,
    /// Of all tensors of the layer that changed, as if they were one.
    pub relative_l2: Option<f64>,
    pub max_abs: Option<f64>,
}

/// How often an operator stands in a graph.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorChange {
    /// With its domain: `ai.onnx:MatMul`.
    pub operator: String,
    /// Graphs within the graph counted.
    pub before: u64,
    pub after: u64,
    /// Nodes of the graph that the other does not have: of other wires, or of attributes with other names.
    pub added: u64,
    pub removed: u64,
}

impl OperatorChange {
    /// An operator that stands nowhere yet.
    pub(super) fn of(operator: String) -> Self {
        Self { operator, ..Self::default() }
    }
}

/// What changed in an ONNX graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GraphChange {
    pub path: String,
    /// Operator sets, producer, metadata.
    pub header: Vec<ValueChange>,
    pub inputs: Vec<ValueChange>,
    pub outputs: Vec<ValueChange>,
    pub nodes_before: u64,
    pub nodes_after: u64,
    pub operators: Vec<OperatorChange>,
    pub initializers_before: u64,
    pub initializers_after: u64,
    pub initializers_added: Vec<String>,
    pub initializers_removed: Vec<String>,
}

/// How large an ensemble is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnsembleSide {
    pub library: String,
    pub trees: u64,
    pub splits: u64,
    pub leaves: u64,
    /// Splits on the longest way to a leaf.
    pub depth_max: u64,
}

/// How trees use a feature.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FeatureUse {
    pub splits: u64,
    /// Of all splits together.
    pub gain: Option<f64>,
    pub gain_median: Option<f64>,
    /// Of the splits that ask for a number.
    pub threshold_median: Option<f64>,
}

/// A feature that trees use in another way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureChange {
    pub feature: String,
    pub before: FeatureUse,
    pub after: FeatureUse,
}

/// What changed in boosted trees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnsembleChange {
    pub path: String,
    /// Trees that are the same in both, wherever they stand.
    pub trees_kept: u64,
    /// Those of them that stand at the start of both: what was trained on has all of the earlier ones.
    pub trees_kept_first: u64,
    pub trees_added: u64,
    pub trees_removed: u64,
    pub before: EnsembleSide,
    pub after: EnsembleSide,
    pub parameters: Vec<ValueChange>,
    /// By the name of a feature: `rising` or `falling`; and `interactions`.
    pub constraints: Vec<ValueChange>,
    pub features: Vec<FeatureChange>,
}

/// What changed in a file that has names and values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileValues {
    pub path: String,
    pub values: Vec<ValueChange>,
}

/// Why a file does not parse in one version or in both; `None` where it does, or is of no known format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MalformedFile {
    pub path: String,
    pub before: Option<String>,
    pub after: Option<String>,
}
