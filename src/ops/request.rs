//! What a caller can ask for, as values: the same whether they come from the mount, the command
//! line or, over the socket, from another process.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::format::ids::{BlobDigest, ContentDigest, RecordDigest};
use crate::format::names::{AliasName, Label, ModelName, Reference};
use crate::format::path;
use crate::format::record::{CheckResult, Mark};
use crate::format::signature::PublicKey;
use crate::ops::Document;

/// What is to be sealed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The model's draft, or the directory `sub` below it.
    Draft {
        #[serde(default, with = "path::option")]
        sub: Option<PathBuf>,
    },
    /// A directory or a file outside, by its absolute path; it is left as it is.
    Path(#[serde(with = "path")] PathBuf),
    /// The same, as it was found when somebody looked at it.
    Taken(Box<TakenSource>),
}

impl Source {
    /// What is to be read outside the store: a path, and the files that are meant there, all where none
    /// is named.
    pub fn outside(&self) -> Option<(&Path, &[PlacedFile])> {
        match self {
            Self::Draft { .. } => None,
            Self::Path(path) => Some((path, &[])),
            Self::Taken(taken) => Some((&taken.path, &taken.files)),
        }
    }
}

/// Something outside that is to become a version as it was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TakenSource {
    /// What places are below; absolute.
    #[serde(with = "path")]
    pub root: PathBuf,
    /// Absolute.
    #[serde(with = "path")]
    pub path: PathBuf,
    /// These files under these names, instead of all that is at `path`.
    pub files: Vec<PlacedFile>,
    /// What its files hold: anything else is not sealed.
    pub content: Option<ContentDigest>,
}

impl TakenSource {
    /// What a version holds that was taken from here, of its files by their names in it: places are those
    /// outside, so that a file may be called anything there.
    pub fn content_of(
        &self,
        files: impl IntoIterator<Item = (PathBuf, BlobDigest)>,
    ) -> ContentDigest {
        let listed = self.files.iter().map(|file| (file.name.as_path(), self.place(&file.from)));
        let places: HashMap<&Path, &Path> = listed.collect();
        let place = |name: PathBuf| places.get(&*name).map_or(name, |place| place.to_path_buf());
        ContentDigest::of_files(files.into_iter().map(|(name, digest)| (place(name), digest)))
    }

    fn place<'a>(&self, from: &'a Path) -> &'a Path {
        match from.file_name() {
            Some(name) if from == self.path => Path::new(name),
            _ => from.strip_prefix(&self.root).unwrap_or(from),
        }
    }
}

/// A file with the place that it has in a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedFile {
    /// Absolute.
    #[serde(with = "path")]
    pub from: PathBuf,
    /// Below the version.
    #[serde(with = "path")]
    pub name: PathBuf,
}

/// How a version was made, as the caller says: members of `metadata.json`, absent where nothing was said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Provenance {
    #[serde(skip_serializing_if = "Value::is_null")]
    pub source: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub environment: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub run: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub interface: Value,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<Value>,
}

/// Seal a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotOptions {
    pub model: ModelName,
    pub source: Source,
    pub message: String,
    pub metrics: BTreeMap<String, Value>,
    pub params: BTreeMap<String, Value>,
    pub labels: BTreeMap<String, Value>,
    pub datasets: Vec<Value>,
    #[serde(default)]
    pub provenance: Box<Provenance>,
    /// What the program that asks found out by itself of the same members, `datasets` too: it counts after
    /// what somebody declared.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub captured: Map<String, Value>,
    /// Moves to the new version in the same step.
    pub alias: Option<AliasName>,
}

/// One version for one alias.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Promotion {
    pub reference: Reference,
    pub alias: AliasName,
}

/// Put versions under aliases, all in one step or none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PromoteOptions {
    pub promotions: Vec<Promotion>,
    pub message: String,
}

/// Stand up for a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApproveOptions {
    pub reference: Reference,
    /// In which role; needed by who has several.
    pub role: Option<Label>,
    pub message: String,
    /// Seconds from now.
    pub expires_s: Option<i64>,
}

/// Take an approval back: one's own, or that of `user`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RevokeOptions {
    pub reference: Reference,
    pub user: Option<String>,
    pub message: String,
}

/// Mark a version, or take its mark away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MarkOptions {
    pub reference: Reference,
    pub mark: Option<Mark>,
    pub message: String,
}

/// Record what a check gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckOptions {
    pub result: Box<CheckResult>,
}

/// Pass the gates of an alias for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BreakGlassOptions {
    pub model: ModelName,
    pub alias: AliasName,
    pub reason: String,
}

/// Put an alias back: to `to`, or to what it pointed to before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RollbackOptions {
    pub model: ModelName,
    pub alias: AliasName,
    pub to: Option<Reference>,
    pub message: String,
}

/// Write a version's files below `directory`, an absolute path that does not exist yet or is empty.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExportOptions {
    pub reference: Reference,
    #[serde(with = "path")]
    pub directory: PathBuf,
    /// What is written there too.
    pub documents: Vec<Document>,
    /// Leave out the files themselves.
    pub documents_only: bool,
}

impl ExportOptions {
    /// The files alone.
    pub fn files(reference: Reference, directory: PathBuf) -> Self {
        Self { reference, directory, documents: Vec::new(), documents_only: false }
    }
}

/// Check the store; with `read_data` every stored byte too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VerifyOptions {
    pub read_data: bool,
}

/// Make plain copies of a version's files, or of what is at `path` in it, for reading without us.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WarmOptions {
    pub reference: Reference,
    #[serde(default, with = "path::option")]
    pub path: Option<PathBuf>,
}

/// A version whose files are looked into.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InspectOptions {
    pub reference: Reference,
    /// A file or directory in it, instead of all.
    #[serde(default, with = "path::option")]
    pub path: Option<PathBuf>,
}

/// A record by its number and digest, as text `SEQ:DIGEST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    pub seq: u64,
    pub digest: RecordDigest,
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.digest)
    }
}

impl Serialize for Anchor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Anchor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl FromStr for Anchor {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no head: expected SEQ:DIGEST, as --verify prints it");
        let (seq, digest) = text.split_once(':').ok_or_else(wrong)?;
        let (Ok(seq), Ok(digest)) = (seq.parse(), digest.parse()) else { return Err(wrong()) };
        Ok(Self { seq, digest })
    }
}

/// Records of one model, or of the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryOptions {
    pub model: Option<ModelName>,
    /// Check the whole chain and give its head.
    pub verify: bool,
    /// A head that was written down somewhere else: the history must still hold it.
    pub anchor: Option<Anchor>,
    /// Those that records may be signed with; from the first that is signed on, all must be.
    #[serde(default)]
    pub keys: Vec<PublicKey>,
}

/// Sizes of the store, or of one version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatsOptions {
    pub reference: Option<Reference>,
    /// Say too what each file and each dtype takes.
    pub files: bool,
}

/// Tell what changed from one version to another, of the same model or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiffOptions {
    pub before: Reference,
    pub after: Reference,
}

/// Tell of the newest versions of a model, with these metrics, or with all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogOptions {
    pub model: ModelName,
    pub metrics: Vec<String>,
    /// So many versions at most.
    pub last: Option<usize>,
}

/// One verb with its options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", content = "options", rename_all = "snake_case")]
pub enum Request {
    Snapshot(SnapshotOptions),
    /// As `Snapshot`, of what is not there yet, and read back.
    Import(SnapshotOptions),
    List {
        model: Option<ModelName>,
    },
    Show {
        reference: Reference,
    },
    /// The text of a version's `metadata.json`, in parts.
    Metadata {
        reference: Reference,
        /// Bytes that were read before.
        offset: u64,
    },
    Diff(DiffOptions),
    Log(LogOptions),
    History(HistoryOptions),
    Stats(StatsOptions),
    Status,
    Promote(PromoteOptions),
    /// What `Promote` would do, and what the gates say to it.
    Plan(PromoteOptions),
    Approve(ApproveOptions),
    /// Approvals, checks and mark of a version.
    Approvals {
        reference: Reference,
    },
    Revoke(RevokeOptions),
    Mark(MarkOptions),
    Check(CheckOptions),
    PolicySet {
        text: String,
    },
    PolicyShow,
    BreakGlass(BreakGlassOptions),
    Rollback(RollbackOptions),
    AliasList {
        model: ModelName,
    },
    AliasRemove {
        model: ModelName,
        alias: AliasName,
    },
    Export(ExportOptions),
    /// What is to be signed of a version.
    Statement {
        reference: Reference,
    },
    Inspect(InspectOptions),
    Warm(WarmOptions),
    Verify(VerifyOptions),
    /// Rebuild the catalog from packs, manifests and history.
    Repair,
    /// What the catalog holds, counted.
    DebugCatalog,
}
