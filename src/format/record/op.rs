//! What a record says that happened.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::judgement::{Judgement, Verdict};
use crate::format::ids::{BlobDigest, DataDigest, ManifestId, PolicyDigest, TreeDigest};
use crate::format::names::{AliasName, Label, ModelName, VersionNumber};

/// Owner, group and permission bits of a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Access {
    pub uid: u32,
    pub gid: u32,
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
}

/// One alias of one model goes from one version to another; `None` is "not there".
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Move {
    pub model: ModelName,
    pub alias: AliasName,
    pub from: Option<VersionNumber>,
    pub to: Option<VersionNumber>,
    /// What the gates said, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judgement: Option<Box<Judgement>>,
}

/// A version came to be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Seal {
    pub model: ModelName,
    pub version: VersionNumber,
    pub manifest: ManifestId,
    pub digest: TreeDigest,
    /// Digest of content and declared metadata: equal fingerprints are the same snapshot.
    pub fingerprint: TreeDigest,
    pub message: String,
    /// Files of the tree, `metadata.json` left out.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What this version added to the packs, in bytes.
    pub stored_bytes: u64,
    /// The newest version before it.
    pub follows: Option<VersionNumber>,
    /// Aliases that moved to it in the same step.
    pub moves: Vec<Move>,
    /// Digests of the data that it was made from, as far as it is known by them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<DataDigest>,
}

/// The version that an approval, a check or a mark is about, and what it was made of then: it counts
/// for nothing else, whatever gets that number.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Subject {
    pub model: ModelName,
    pub version: VersionNumber,
    /// Covers content and metadata.
    pub manifest: ManifestId,
    /// The content's digest, as `show` prints it.
    pub digest: TreeDigest,
}

/// Somebody stands up for a version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Approval {
    #[serde(flatten)]
    pub subject: Subject,
    /// In which role, of those that the policy gave to the user then.
    pub role: Option<Label>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

/// The version that a check was compared with.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Against {
    pub alias: AliasName,
    pub version: VersionNumber,
    pub metrics: BTreeMap<String, Value>,
}

/// What a check of a version gave.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CheckResult {
    #[serde(flatten)]
    pub subject: Subject,
    pub name: Label,
    pub passed: bool,
    pub metrics: BTreeMap<String, Value>,
    /// Why it did not pass, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<Against>,
    /// BLAKE3 of the suite's file; none for a result from outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<BlobDigest>,
    /// The command's exit status; none where there was none, or a signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    pub duration_ms: u64,
    /// The end of what the command printed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

// Metrics are numbers that JSON can hold: none of them is unequal to itself.
impl Eq for Against {}
impl Eq for CheckResult {}

/// What people think of a version.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    Bad,
    Golden,
}

/// A version is marked, or its mark is taken away.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Marking {
    #[serde(flatten)]
    pub subject: Subject,
    pub mark: Option<Mark>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The one who acts may move an alias past its gates for a while.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BreakGlass {
    pub model: ModelName,
    pub alias: AliasName,
    pub reason: String,
    pub until: Timestamp,
}

/// What was asked for, and why it was not done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// `move`, `snapshot`, `approve`, `check`, `mark`, `policy`, `access`, `break-glass`.
    pub action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelName>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<Move>,
    pub why: Vec<String>,
}

impl Refusal {
    /// Whether it is the same attempt, whatever the rules found this time.
    pub fn is_like(&self, other: &Self) -> bool {
        let goals = |refusal: &Self| {
            let goal = |step: &Move| (step.model.clone(), step.alias.clone(), step.to);
            refusal.moves.iter().map(goal).collect::<Vec<_>>()
        };
        self.action == other.action && self.model == other.model && goals(self) == goals(other)
    }
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Op {
    /// The store was made; `root` is the access of the mount's own directory.
    Init {
        store: String,
        root: Access,
    },
    CreateModel {
        model: ModelName,
        access: Access,
    },
    /// Only of a model that never had a version.
    RemoveModel {
        model: ModelName,
    },
    /// Owner, group or mode of a model changed, or of the root where `model` is absent.
    SetAccess {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<ModelName>,
        access: Access,
    },
    Seal(Box<Seal>),
    /// Aliases were set, moved or removed, all in one step.
    Retarget {
        moves: Vec<Move>,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        message: String,
        /// It was asked for as a step back: the next one goes further back.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        rollback: bool,
    },
    /// The rules from here on; an empty text takes them away.
    SetPolicy {
        digest: PolicyDigest,
        text: String,
    },
    Approve(Box<Approval>),
    /// Takes back what a user approved.
    Revoke {
        #[serde(flatten)]
        subject: Subject,
        /// Whose approval.
        uid: u32,
        user: String,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        message: String,
    },
    Check(Box<CheckResult>),
    Mark(Box<Marking>),
    BreakGlass(Box<BreakGlass>),
    /// Something that was asked for and not done.
    Refused(Box<Refusal>),
}

impl Op {
    /// The models that the operation concerns; none for the store itself.
    pub fn models(&self) -> Vec<&ModelName> {
        match self {
            Self::Init { .. } | Self::SetAccess { model: None, .. } | Self::SetPolicy { .. } => {
                Vec::new()
            }
            Self::CreateModel { model, .. }
            | Self::RemoveModel { model }
            | Self::SetAccess { model: Some(model), .. } => vec![model],
            Self::Seal(seal) => vec![&seal.model],
            Self::Retarget { moves, .. } => models_of(moves),
            Self::Approve(approval) => vec![&approval.subject.model],
            Self::Revoke { subject, .. } => vec![&subject.model],
            Self::Check(check) => vec![&check.subject.model],
            Self::Mark(marking) => vec![&marking.subject.model],
            Self::BreakGlass(window) => vec![&window.model],
            Self::Refused(refusal) => match &refusal.model {
                Some(model) => vec![model],
                None => models_of(&refusal.moves),
            },
        }
    }

    /// What the operation's own judgements come to.
    pub fn verdict(&self) -> Verdict {
        let moves = match self {
            Self::Refused(_) => return Verdict::Refused,
            Self::Retarget { moves, .. } => moves,
            Self::Seal(seal) => &seal.moves,
            _ => return Verdict::Allowed,
        };
        let judged = moves.iter().filter_map(|step| step.judgement.as_ref());
        judged.map(|judgement| judgement.verdict).max().unwrap_or_default()
    }
}

fn models_of(moves: &[Move]) -> Vec<&ModelName> {
    let mut models: Vec<_> = moves.iter().map(|step| &step.model).collect();
    models.sort();
    models.dedup();
    models
}
