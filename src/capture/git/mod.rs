//! Git: the state of a working tree, check-outs of its commits, and small files as they were. Nothing is run, no network is used.
//!
//! The library reads repositories itself: a machine without `git` will do, and no hook, filter or alias
//! of a repository is ever started. Large files of Git LFS are therefore the pointers that they are in
//! the repository.

mod checkout;
mod past;
mod state;

use std::io;
use std::path::{Path, PathBuf};

use git2::Oid;

pub use checkout::{Commit, CommitId, Watched};
pub use past::{PastFile, past};
pub use state::{SourceState, state};

/// Why a repository cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error("there is no Git repository at `{}`", .path.display())]
    Missing { path: PathBuf },
    #[error("there is no commit `{name}` in `{}`", .path.display())]
    NoCommit { path: PathBuf, name: String },
    #[error("the repository of `{}` names its objects by SHA-256, and only those of SHA-1 are read", .path.display())]
    Sha256 { path: PathBuf },
    #[error("commit {commit} has {found} of {what}, at most {limit}")]
    Large { commit: CommitId, what: &'static str, found: u64, limit: u64 },
    #[error("commit {commit} cannot be checked out")]
    Content { commit: CommitId, source: git2::Error },
    #[error("cannot {action} `{}`", .path.display())]
    Git { action: &'static str, path: PathBuf, source: git2::Error },
    #[error("cannot {action} `{}`", .path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

impl GitError {
    fn git(action: &'static str, path: &Path) -> impl FnOnce(git2::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Git { action, path, source }
    }

    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// The repository that `path` is in; `None` where it is in none.
fn discover(path: &Path) -> Result<Option<git2::Repository>, GitError> {
    match git2::Repository::discover(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(None),
        // The library has no number for it.
        Err(error) if error.message().contains("object format 'sha256'") => {
            Err(GitError::Sha256 { path: path.to_owned() })
        }
        Err(error) => Err(GitError::git("open the repository of", path)(error)),
    }
}

/// The working tree that a file is part of: in a commit, or new and not ignored.
pub fn tree_of(file: &Path) -> Option<PathBuf> {
    let file = file.canonicalize().ok()?;
    let repository = discover(file.parent()?).ok()??;
    let root = repository.workdir()?.canonicalize().ok()?;
    let below = file.strip_prefix(&root).ok()?;
    let is_known = || repository.index().is_ok_and(|index| index.get_path(below, 0).is_some());
    (!repository.is_path_ignored(below).ok()? || is_known()).then_some(root)
}

/// The root of the working tree that `path` is in; `None` where it is in none.
///
/// # Errors
/// Those of opening the repository, one of somebody else's among them (Git's `safe.directory`).
pub fn root_of(path: &Path) -> Result<Option<PathBuf>, GitError> {
    Ok(discover(path)?.and_then(|repository| repository.workdir().map(Path::to_owned)))
}

/// An identifier as a number of ours.
fn id_of(oid: Oid) -> CommitId {
    CommitId(oid)
}
