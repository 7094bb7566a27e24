//! Commits of a branch, and each of them checked out in a directory of its own.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use git2::build::CheckoutBuilder;
use git2::{ObjectType, Oid, Repository, RepositoryInitOptions, TreeWalkMode, TreeWalkResult};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::state::remote;
use super::{GitError, discover, id_of};

/// Files and directories of one commit that is checked out.
const ENTRIES_MAX: u64 = 1_000_000;
/// Of a subject and an author that much is kept.
const TEXT_CHARACTERS_MAX: usize = 1_000;
/// What hinders a check-out for the moment, whatever the commit is.
const MACHINE_ERRORS: [i32; 7] =
    [libc::ENOSPC, libc::EDQUOT, libc::EIO, libc::EROFS, libc::EMFILE, libc::ENFILE, libc::ENOMEM];
/// Commits that are walked through to find one again.
const WALK_MAX: usize = 100_000;

/// The name of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CommitId(pub(super) Oid);

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl CommitId {
    /// Its first digits, for people.
    pub fn short(&self) -> String {
        self.0.to_string()[..10].to_owned()
    }
}

/// A text that names no commit.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is no commit: expected its hexadecimal digits")]
pub struct CommitIdError {
    text: String,
}

impl FromStr for CommitId {
    type Err = CommitIdError;
    fn from_str(text: &str) -> Result<Self, CommitIdError> {
        let whole = text.len() == 40;
        let id = whole.then(|| Oid::from_str(text).ok()).flatten();
        id.map(Self).ok_or_else(|| CommitIdError { text: text.to_owned() })
    }
}

impl Serialize for CommitId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CommitId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// What a commit says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Commit {
    pub id: CommitId,
    /// The first line of its message, cut where it is long.
    pub subject: String,
    pub author: String,
}

/// A repository whose commits are looked at and checked out.
pub struct Watched {
    repository: Repository,
    path: PathBuf,
}

impl Watched {
    /// Opens the repository at `path`, with a working tree or without.
    pub fn open(path: &Path) -> Result<Self, GitError> {
        let missing = || GitError::Missing { path: path.to_owned() };
        let repository = discover(path)?.ok_or_else(missing)?;
        Ok(Self { repository, path: path.to_owned() })
    }

    /// The commit that a branch, tag or other name stands for now.
    pub fn tip(&self, name: &str) -> Result<Commit, GitError> {
        let found = self.repository.revparse_single(name).and_then(|found| found.peel_to_commit());
        match found {
            Ok(commit) => Ok(describe(&commit)),
            Err(error) if error.code() == git2::ErrorCode::NotFound => {
                Err(GitError::NoCommit { path: self.path.clone(), name: name.to_owned() })
            }
            Err(error) => Err(GitError::git("find a commit of", &self.path)(error)),
        }
    }

    /// The commits after the nearest that `is_known`, up to `tip`, oldest first, along first parents.
    /// `None` where no ancestor is known: what was there was rewritten.
    pub fn since(
        &self,
        is_known: impl Fn(CommitId) -> bool,
        tip: CommitId,
    ) -> Result<Option<Vec<Commit>>, GitError> {
        let failed = || GitError::git("walk through", &self.path);
        let mut at = self.repository.find_commit(tip.0).map_err(failed())?;
        let mut found = Vec::new();
        for _ in 0..WALK_MAX {
            if is_known(id_of(at.id())) {
                found.reverse();
                return Ok(Some(found));
            }
            found.push(describe(&at));
            at = match at.parent(0) {
                Ok(parent) => parent,
                Err(error) if error.code() == git2::ErrorCode::NotFound => return Ok(None),
                Err(error) => return Err(failed()(error)),
            };
        }
        Ok(None)
    }

    /// The address that it is pushed to, without credentials.
    pub fn remote(&self) -> Option<String> {
        remote(&self.repository, None)
    }

    /// Writes a commit's files below `to`, a directory that does not exist yet, as a repository of
    /// its own that has the commit checked out and borrows the objects of this one.
    ///
    /// # Errors
    /// `Large` where the files have more than `bytes_max`; then nothing is written. `Content` where what the
    /// commit holds cannot be written here, today or another day.
    pub fn check_out(&self, commit: CommitId, to: &Path, bytes_max: u64) -> Result<(), GitError> {
        self.check_size(commit, bytes_max)?;
        let failed = |action| GitError::git(action, to);
        let mut options = RepositoryInitOptions::new();
        options.external_template(false).no_reinit(true);
        let made = Repository::init_opts(to, &options).map_err(failed("make a repository at"))?;
        let objects = self.repository.commondir().join("objects");
        let alternates = made.path().join("objects/info/alternates");
        let objects = objects.canonicalize().map_err(GitError::io("find", &objects))?;
        let line = [objects.as_os_str().as_encoded_bytes(), b"\n"].concat();
        std::fs::create_dir_all(alternates.parent().expect("it has two"))
            .and_then(|()| std::fs::write(&alternates, line))
            .map_err(GitError::io("write", &alternates))?;
        // Where the history was cut off, if it was.
        let shallow = self.repository.commondir().join("shallow");
        match std::fs::copy(&shallow, made.path().join("shallow")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(GitError::io("copy", &shallow)(error));
            }
            _ => {}
        }
        // Opened again, as alternates are read once.
        let made = Repository::open(to).map_err(failed("open"))?;
        let object = made.find_object(commit.0, Some(ObjectType::Commit));
        let object = object.map_err(failed("find the commit from"))?;
        let mut checkout = CheckoutBuilder::new();
        made.checkout_tree(&object, Some(checkout.force())).map_err(|error| {
            if is_of_machine(&error) {
                return failed("check out into")(error);
            }
            GitError::Content { commit, source: error }
        })?;
        made.set_head_detached(commit.0).map_err(failed("check out into"))
    }

    /// Sees to it that a commit's files are not more than there is to be room for.
    fn check_size(&self, commit: CommitId, bytes_max: u64) -> Result<(), GitError> {
        let failed = || GitError::git("look through", &self.path);
        let content = |source| GitError::Content { commit, source };
        let found = self.repository.find_commit(commit.0).map_err(failed())?;
        let tree = found.tree().map_err(content)?;
        let odb = self.repository.odb().map_err(failed())?;
        let (mut entries, mut bytes, mut error) = (0_u64, 0_u64, None);
        let walked = tree.walk(TreeWalkMode::PreOrder, |_, entry| {
            entries += 1;
            if entry.kind() == Some(ObjectType::Blob) {
                match odb.read_header(entry.id()) {
                    Ok((length, _)) => bytes = bytes.saturating_add(length as u64),
                    Err(failure) => error = Some(failure),
                }
            }
            let go_on = error.is_none() && entries <= ENTRIES_MAX && bytes <= bytes_max;
            if go_on { TreeWalkResult::Ok } else { TreeWalkResult::Abort }
        });
        let large = |what, found, limit| Err(GitError::Large { commit, what, found, limit });
        match error {
            Some(error) => Err(content(error)),
            None if ENTRIES_MAX < entries => large("files and directories", entries, ENTRIES_MAX),
            None if bytes_max < bytes => large("bytes", bytes, bytes_max),
            None => walked.map_err(content),
        }
    }
}

/// Whether it is for the machine that it failed. The library tells of that in a text alone.
fn is_of_machine(error: &git2::Error) -> bool {
    MACHINE_ERRORS.iter().any(|errno| {
        let text = io::Error::from_raw_os_error(*errno).to_string();
        let said = text.split(" (os error").next().unwrap_or(&text);
        error.message().contains(said)
    })
}

pub(super) fn describe(commit: &git2::Commit<'_>) -> Commit {
    let text =
        |bytes: &[u8]| String::from_utf8_lossy(bytes).chars().take(TEXT_CHARACTERS_MAX).collect();
    Commit {
        id: id_of(commit.id()),
        subject: text(commit.summary_bytes().unwrap_or_default()),
        author: text(commit.author().name_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_no_fault_of_a_commit() {
        let check = |text: &str, expected: bool| {
            assert_eq!(is_of_machine(&git2::Error::from_str(text)), expected, "{text}");
        };
        check("could not write to 'x': No space left on device", true);
        check("failed to open 'x': Too many open files", true);
        check("cannot checkout to invalid path '.git/config'", false);
        check("failed to open 'x': File name too long", false);
    }
}
