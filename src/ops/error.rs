//! Why a verb did not do what it was asked, by what the caller can do about it.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::PlacedFile;
use crate::format::names::{AliasName, At, ModelName, NameError, VersionNumber};
use crate::store::StoreError;

/// Everything that a verb can fail with. Nothing was changed when one of these is returned.
#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("there is no model `{model}`")]
    NoModel { model: ModelName },
    #[error("there is no version `{model}/{at}`")]
    NoVersion { model: ModelName, at: At },
    #[error("the model `{model}` exists already")]
    ModelExists { model: ModelName },
    #[error("the model `{model}` cannot be removed: {why}")]
    ModelInUse { model: ModelName, why: &'static str },
    #[error("the alias `{model}/{alias}` exists already")]
    AliasExists { model: ModelName, alias: AliasName },
    #[error("there is no alias `{model}/{alias}`")]
    NoAlias { model: ModelName, alias: AliasName },
    #[error("the alias `{model}/{alias}` was at no other version that is not marked bad")]
    NoEarlierVersion { model: ModelName, alias: AliasName },
    #[error("{user} may not {action} `{what}`: it needs {needs}")]
    Denied { user: String, action: &'static str, what: String, needs: String },
    #[error("{user} may not {action}: the policy is against it")]
    Gated { user: String, action: String, why: Vec<String>, next: Vec<String> },
    #[error("this is no policy that can be set: {} {}", .faults.len(), if .faults.len() == 1 { "mistake" } else { "mistakes" })]
    BadPolicy { faults: Vec<String> },
    #[error("the policy in force cannot be read, so nothing that it may speak of is done")]
    PolicyUnreadable { why: String },
    #[error("{user} has the roles {}: say in which one", .roles.join(", "))]
    ManyRoles { user: String, roles: Vec<String> },
    #[error("{user} does not have the role `{role}`")]
    NoRole { user: String, role: String, members: String },
    #[error("`{model}/{version}` has no approval of {user}")]
    NoApproval { model: ModelName, version: VersionNumber, user: String },
    #[error("no version of `{model}` has a metric `{metric}`")]
    NoMetric { model: ModelName, metric: String, known: Vec<String> },
    #[error("`{model}` is being sealed already")]
    SealInProgress { model: ModelName },
    #[error("cannot seal `{model}`: open for writing: {}", quoted(.paths))]
    DraftBusy { model: ModelName, paths: Vec<PathBuf> },
    #[error("cannot seal `{model}`: there are no files in {what}")]
    Empty { model: ModelName, what: String },
    #[error("cannot seal `{}`: {why}", .path.display())]
    Unfit { path: PathBuf, why: String },
    #[error("`{}` changed while it was being sealed", .path.display())]
    Changed { path: PathBuf },
    #[error("`{}` is not what the plan says: it changed since it was looked at", .path.display())]
    NotAsPlanned { path: PathBuf },
    #[error("cannot {action} `{}`", .path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{what} is not as it must be: {why}")]
    Option { what: &'static str, why: String },
    #[error("`{}` is not empty", .path.display())]
    NotEmpty { path: PathBuf },
    #[error("no hot files are made here: their limit is 0")]
    HotOff,
    #[error("the records of this store are signed, and there is no key here to sign another with")]
    NoKey,
    #[error("this store is closing")]
    Closing,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The first of some names.
fn first(names: &[String]) -> String {
    /// More would not help anybody.
    const SHOWN_MAX: usize = 12;
    let mut text = names.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
    if SHOWN_MAX < names.len() {
        text.push_str(", …");
    }
    text
}

fn quoted(paths: &[PathBuf]) -> String {
    /// More names would not help anybody.
    const SHOWN_MAX: usize = 8;
    let shown = paths.iter().take(SHOWN_MAX).map(|path| format!("`{}`", path.display()));
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if SHOWN_MAX < paths.len() {
        text.push_str(&format!(" and {} more", paths.len() - SHOWN_MAX));
    }
    text
}

/// What a failure means to a script: each has an exit status.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    CouldNot,
    Usage,
    Refused,
    NotFound,
    Busy,
    Damaged,
}

impl OpsError {
    /// An error of the file system outside the store.
    pub fn file(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::File { action, path: path.into(), source }
    }

    /// The same error with the paths that it names, which are below `base`, in full.
    pub(super) fn below(mut self, base: &Path) -> Self {
        match &mut self {
            Self::Unfit { path, .. } | Self::Changed { path } | Self::File { path, .. } => {
                *path = base.join(&*path);
            }
            Self::DraftBusy { paths, .. } => {
                paths.iter_mut().for_each(|path| *path = base.join(&*path));
            }
            _ => {}
        }
        self
    }

    /// The same error about the files themselves instead of their names in the version.
    pub(super) fn about_files(mut self, files: &[PlacedFile]) -> Self {
        let to_source = |path: &mut PathBuf| {
            if let Some(file) = files.iter().find(|file| file.name == *path) {
                path.clone_from(&file.from);
            }
        };
        match &mut self {
            Self::Unfit { path, .. } | Self::Changed { path } | Self::File { path, .. } => {
                to_source(path);
            }
            Self::DraftBusy { paths, .. } => paths.iter_mut().for_each(to_source),
            _ => {}
        }
        self
    }

    /// Reasons that are more than one sentence: each a line of its own.
    pub fn reasons(&self) -> &[String] {
        match self {
            Self::Gated { why, .. } => why,
            Self::BadPolicy { faults } => faults,
            Self::PolicyUnreadable { why } => std::slice::from_ref(why),
            _ => &[],
        }
    }

    /// Where it belongs in the table of exit statuses.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Name(_)
            | Self::Option { .. }
            | Self::BadPolicy { .. }
            | Self::ManyRoles { .. } => FailureKind::Usage,
            Self::NoModel { .. }
            | Self::NoVersion { .. }
            | Self::NoAlias { .. }
            | Self::NoApproval { .. }
            | Self::NoMetric { .. }
            | Self::NoEarlierVersion { .. } => FailureKind::NotFound,
            Self::Denied { .. } | Self::Gated { .. } | Self::NoRole { .. } | Self::NoKey => {
                FailureKind::Refused
            }
            Self::ModelExists { .. }
            | Self::ModelInUse { .. }
            | Self::AliasExists { .. }
            | Self::SealInProgress { .. }
            | Self::DraftBusy { .. }
            | Self::Closing
            | Self::NotAsPlanned { .. }
            | Self::Changed { .. } => FailureKind::Busy,
            Self::Empty { .. }
            | Self::Unfit { .. }
            | Self::NotEmpty { .. }
            | Self::PolicyUnreadable { .. }
            | Self::HotOff => FailureKind::CouldNot,
            Self::File { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => FailureKind::NotFound,
                io::ErrorKind::PermissionDenied => FailureKind::Refused,
                _ => FailureKind::CouldNot,
            },
            Self::Store(error) => kind_of_store(error),
        }
    }

    /// What to do next, where we know it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoModel { .. } => "modelfs list".to_owned(),
            Self::NoVersion { model, .. } => format!("modelfs list {model}"),
            Self::NoAlias { model, .. } => format!("modelfs alias list {model}"),
            Self::NoEarlierVersion { model, alias } => {
                format!("modelfs rollback {model} {alias} --to {model}/vN")
            }
            Self::AliasExists { model, alias } => format!("modelfs promote {model}/vN {alias}"),
            Self::Denied { .. } => "ask its owner, or an administrator, for that".to_owned(),
            Self::Gated { next, .. } => return next.first().cloned(),
            Self::BadPolicy { .. } => "modelfs policy check FILE, until it finds none".to_owned(),
            Self::PolicyUnreadable { .. } => {
                "use the release of modelfs that set it, or set it anew".to_owned()
            }
            Self::ManyRoles { roles, .. } => {
                format!("--as {}", roles.first().map_or("ROLE", String::as_str))
            }
            Self::NoRole { members, .. } => format!("ask one who has it: {members}"),
            Self::NoApproval { model, version, .. } => {
                format!("modelfs approvals {model}/{version}")
            }
            Self::NoMetric { known, .. } if known.is_empty() => {
                "modelfs snapshot --metric NAME=VALUE keeps one with a version".to_owned()
            }
            Self::NoMetric { known, .. } => format!("one of {}", first(known)),
            Self::SealInProgress { .. } => "wait for it; modelfs status shows how far it is".into(),
            Self::DraftBusy { .. } => {
                "close what has them open, then write to snapshot again".into()
            }
            Self::Empty { model, .. } => format!("write files into {model}/draft first"),
            Self::NotAsPlanned { .. } => {
                "make an inventory anew, or take `content` out of the plan there".to_owned()
            }
            Self::Changed { .. } => "stop what is writing to it, then seal again".to_owned(),
            Self::NoKey => "name it with --sign-key FILE, also for a mount".to_owned(),
            Self::HotOff => "mount with `--hot-bytes`, such as --hot-bytes 10G".to_owned(),
            Self::NotEmpty { .. } => "name a directory that does not exist yet".to_owned(),
            Self::Store(error) => return hint_of_store(error),
            Self::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free some space, then try again: nothing was lost".to_owned()
            }
            Self::Name(_)
            | Self::ModelExists { .. }
            | Self::ModelInUse { .. }
            | Self::Unfit { .. }
            | Self::File { .. }
            | Self::Option { .. }
            | Self::Closing => return None,
        };
        Some(hint)
    }
}

fn kind_of_store(error: &StoreError) -> FailureKind {
    match error {
        StoreError::Missing { .. } => FailureKind::NotFound,
        StoreError::Locked { .. } | StoreError::Conflict { .. } => FailureKind::Busy,
        StoreError::Unwritable { .. } => FailureKind::Usage,
        StoreError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            FailureKind::Refused
        }
        _ if error.is_damage() => FailureKind::Damaged,
        _ => FailureKind::CouldNot,
    }
}

fn hint_of_store(error: &StoreError) -> Option<String> {
    let hint = match error {
        StoreError::Missing { .. } => {
            "name the store with --store or MODELFS_STORE; modelfs mount makes a new one"
        }
        StoreError::Foreign { .. } => "name an empty directory, or one that does not exist",
        StoreError::Locked { .. } => "wait for it to end, or use its mount",
        StoreError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
            "free some space, then try again: nothing was lost"
        }
        StoreError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            "only the user that made the store can open it; others go through a mount made with \
             --allow-other"
        }
        StoreError::Signature { .. } => {
            "where one key followed another, give both: --key OLD --key NEW"
        }
        StoreError::Diverged { .. } => {
            "put back the history from a backup; to go on with what is there, for good, remove \
             catalog/checkpoint in the store"
        }
        StoreError::Untrue { .. } | StoreError::CheckpointSignature { .. } => {
            "modelfs repair makes it anew from the history"
        }
        _ if error.is_damage() => {
            "modelfs verify --read-data shows all that is damaged; put back the file from a backup"
        }
        _ => return None,
    };
    Some(hint.to_owned())
}

/// An error as a value that can be sent and shown: what failed, why, what to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
    /// Causes, the nearest first.
    pub because: Vec<String>,
    pub hint: Option<String>,
}

impl From<&OpsError> for Failure {
    fn from(error: &OpsError) -> Self {
        let mut because = error.reasons().to_vec();
        let causes = std::iter::successors(std::error::Error::source(error), |it| it.source());
        because.extend(causes.map(ToString::to_string));
        Self { kind: error.kind(), message: error.to_string(), because, hint: error.hint() }
    }
}
