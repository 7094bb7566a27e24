//! Why the mount refuses something, in words; `errno` says with which number.

use std::io;
use std::sync::Arc;

use crate::format::names::{ModelName, NameError};
use crate::ops::OpsError;
use crate::store::StoreError;

/// Why an operation of the mount was not done.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// Below a version, or in a view of the store.
    #[error("`{path}` cannot change: {reason}")]
    ReadOnly { path: String, reason: &'static str },
    #[error("no such entry")]
    Missing,
    #[error("{what} does not exist: {advice}")]
    Unknown { what: String, advice: String },
    #[error("`{name}` exists already")]
    Exists { name: String },
    /// Against the rules of a model's or the store's directory, whoever asks.
    #[error("cannot {action}: {advice}")]
    Refused { action: String, advice: &'static str },
    /// Not what a name, a link's target or a command can be.
    #[error("{what} {reason}: {advice}")]
    Malformed { what: String, reason: String, advice: &'static str },
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("`{model}` has {limit} temporary links already: remove some, or wait a minute")]
    TooManyLinks { model: ModelName, limit: usize },
    #[error("{running} snapshots are being made already: try again when one is done")]
    TooManySnapshots { running: usize },
    #[error("the snapshot takes longer than an hour and goes on: see `.modelfs/status.json`")]
    Slow,
    #[error("{count} {what} by {by} already: try again when one is done")]
    TooManyTexts { count: u64, what: &'static str, by: &'static str },
    #[error("{by} hold {bytes} bytes of texts open already: close some of them")]
    TooManyOpen { bytes: u64, by: &'static str },
    #[error("what is to be read is longer than {bytes_max} bytes: `{command}` gives it whole")]
    LongText { bytes_max: usize, command: String },
    /// Of a text that several wait for.
    #[error(transparent)]
    Text(Arc<FsError>),
    #[error(
        "what is to be read takes longer than half a minute to make and goes on for another: open it again"
    )]
    SlowText,
    #[error("a draft is a tree of its own: copy instead of moving or linking")]
    OtherTree,
    #[error("a name of {bytes} bytes is too long: 255 are the most")]
    NameLength { bytes: usize },
    #[error("not a directory")]
    NotDirectory,
    #[error("is a directory")]
    Directory,
    #[error("extended attributes are not kept")]
    Attribute,
    #[error("there is no such operation on this file")]
    Operation,
    #[error("no terminal and no device")]
    Device,
    #[error("the handle is not open for this")]
    Handle,
    #[error("the kernel asks for an inode that it has forgotten")]
    Stale,
    #[error("a request was answered by a panic, which is logged: please report it")]
    Panic,
    /// From the disk behind a draft.
    #[error("{}", draft_text(.0))]
    Draft(#[source] io::Error),
    #[error("cannot ask the disk of the store for its size")]
    Disk(#[source] io::Error),
    #[error("cannot start a thread for a snapshot or a text")]
    Thread(#[source] io::Error),
    #[error(transparent)]
    Ops(#[from] OpsError),
}

impl From<StoreError> for FsError {
    fn from(error: StoreError) -> Self {
        Self::Ops(error.into())
    }
}

fn draft_text(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EBUSY) => {
            "the draft is being sealed: try again when `.modelfs/status.json` shows no `sealing`"
                .to_owned()
        }
        _ => format!("the disk behind the draft says: {error}"),
    }
}

impl FsError {
    /// The whole chain as one line: what, why, what to do next.
    pub fn explanation(&self) -> String {
        if let Self::Text(error) = self {
            return error.explanation();
        }
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let because = error.to_string();
            if !text.contains(&because) {
                text.push_str(": ");
                text.push_str(&because);
            }
            cause = error.source();
        }
        if let Self::Ops(error) = self {
            let reasons = error.reasons();
            let before = if reasons.is_empty() { "" } else { ": " };
            text.push_str(before);
            text.push_str(&reasons.join("; "));
        }
        if let Self::Ops(error) = self
            && let Some(hint) = error.hint()
        {
            text.push_str("; try: ");
            text.push_str(&hint);
        }
        text.replace('\n', " ")
    }

    /// The same as lines: a policy may have several reasons, and several ways out.
    pub fn account(&self) -> String {
        if let Self::Text(error) = self {
            return error.account();
        }
        let Self::Ops(OpsError::Gated { why, next, .. }) = self else {
            return self.explanation() + "\n";
        };
        let mut text = format!("{self}\n");
        why.iter().for_each(|line| text += &format!("  because: {}\n", line.replace('\n', " ")));
        next.iter().for_each(|line| text += &format!("  try: {line}\n"));
        text
    }

    /// Whether the caller was told no for a reason that `why` should keep.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::ReadOnly { .. }
            | Self::Unknown { .. }
            | Self::Refused { .. }
            | Self::Malformed { .. }
            | Self::Name(_)
            | Self::TooManyLinks { .. }
            | Self::TooManySnapshots { .. }
            | Self::Slow
            | Self::TooManyTexts { .. }
            | Self::TooManyOpen { .. }
            | Self::LongText { .. }
            | Self::SlowText
            | Self::OtherTree
            | Self::Thread(_)
            | Self::Ops(_) => true,
            Self::Draft(error) => error.raw_os_error() == Some(libc::EBUSY),
            Self::Text(error) => error.is_refusal(),
            Self::Missing
            | Self::Exists { .. }
            | Self::NameLength { .. }
            | Self::NotDirectory
            | Self::Directory
            | Self::Attribute
            | Self::Operation
            | Self::Device
            | Self::Handle
            | Self::Stale
            | Self::Panic
            | Self::Disk(_) => false,
        }
    }
}
