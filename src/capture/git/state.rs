//! The state of a working tree: which commit, and what is not in it.

use std::path::{Path, PathBuf};

use git2::{
    Delta, Diff, DiffFormat, DiffLineType, DiffOptions, FileMode, Repository, StatusOptions,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{GitError, discover};
use crate::capture::url::without_credentials;
use crate::format::ids::to_hex;

/// A changed file past this makes no patch.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a patch that is hashed.
const PATCH_BYTES_MAX: u64 = 256 << 20;
/// Files that Git does not know and does not ignore, of which contents are hashed.
const UNTRACKED_FILES_MAX: usize = 10_000;
/// Their bytes.
const UNTRACKED_BYTES_MAX: u64 = 1 << 30;

/// Where a training's source code stood: the member `source` of `metadata.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceState {
    /// `git`.
    pub vcs: String,
    /// Without credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// Absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Absent where a commit is checked out by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Whether anything differs from the commit, or is not in it and not ignored.
    pub dirty: bool,
    /// SHA-256 of what `git diff --binary --full-index --no-renames --ignore-submodules=dirty HEAD` prints
    /// without any settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirty_patch_sha256: Option<String>,
    /// Files that are neither in the commit nor ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untracked: Option<u64>,
    /// SHA-256 of what `sha256sum` prints of them, sorted by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untracked_sha256: Option<String>,
    /// The working tree, which is no part of the member.
    #[serde(skip)]
    pub root: PathBuf,
    /// What could not be told, a sentence each; no part of the member either.
    #[serde(skip)]
    pub notes: Vec<String>,
}

/// The state of the working tree that `directory` is in; `None` where it is in none.
///
/// # Errors
/// Those of reading the repository, one of somebody else's among them (Git's `safe.directory`).
pub fn state(directory: &Path) -> Result<Option<SourceState>, GitError> {
    let Some(repository) = discover(directory)? else { return Ok(None) };
    let Some(root) = repository.workdir().map(Path::to_owned) else { return Ok(None) };
    let (commit, branch) = head(&repository, &root)?;
    let remote = remote(&repository, branch.as_deref());
    let vcs = "git".to_owned();
    let mut state = SourceState { vcs, remote, commit, branch, root, ..SourceState::default() };
    state.read_changes(&repository)?;
    state.read_untracked(&repository)?;
    Ok(Some(state))
}

/// The commit and the branch that are checked out.
fn head(
    repository: &Repository,
    root: &Path,
) -> Result<(Option<String>, Option<String>), GitError> {
    let name = |reference: &git2::Reference<'_>| {
        let branch = reference.is_branch().then(|| reference.shorthand_bytes());
        branch.map(|name| String::from_utf8_lossy(name).into_owned())
    };
    match repository.head() {
        Ok(head) => Ok((head.target().map(|id| id.to_string()), name(&head))),
        // A branch without a commit.
        Err(error) if error.code() == git2::ErrorCode::UnbornBranch => {
            let head = repository.find_reference("HEAD").ok();
            let target = head.and_then(|head| {
                let target = head.symbolic_target_bytes()?.strip_prefix(b"refs/heads/")?;
                Some(String::from_utf8_lossy(target).into_owned())
            });
            Ok((None, target))
        }
        Err(error) => Err(GitError::git("read HEAD of", root)(error)),
    }
}

/// The address that the branch is pushed to, else that of `origin`, else that of the only remote.
pub(super) fn remote(repository: &Repository, branch: Option<&str>) -> Option<String> {
    let upstream = branch.and_then(|branch| {
        let name = repository.branch_upstream_remote(&format!("refs/heads/{branch}")).ok()?;
        name.as_str().ok().map(str::to_owned)
    });
    let only = || {
        let remotes = repository.remotes().ok()?;
        let mut names = remotes.iter().flatten().flatten();
        let first = names.next()?.to_owned();
        names.next().is_none().then_some(first)
    };
    let found = upstream.and_then(|name| repository.find_remote(&name).ok());
    let found = found.or_else(|| repository.find_remote("origin").ok());
    let found = found.or_else(|| repository.find_remote(&only()?).ok())?;
    found.url().ok().map(without_credentials)
}

impl SourceState {
    /// What differs from the commit, staged or not.
    fn read_changes(&mut self, repository: &Repository) -> Result<(), GitError> {
        let root = self.root.clone();
        let failed = || GitError::git("compare with its commit", &root);
        let tree = match repository.head().and_then(|head| head.peel_to_tree()) {
            Ok(tree) => Some(tree),
            Err(_) if self.commit.is_none() => None,
            Err(error) => return Err(failed()(error)),
        };
        let mut options = DiffOptions::new();
        options.show_binary(true).id_abbrev(40);
        let diff = repository.diff_tree_to_workdir_with_index(tree.as_ref(), Some(&mut options));
        let diff = diff.map_err(failed())?;
        let changes = || diff.deltas().filter(|delta| delta.status() != Delta::Unmodified);
        self.dirty = changes().next().is_some();
        for delta in changes().filter(is_only_within) {
            let path = delta.new_file().path().unwrap_or(Path::new("")).display().to_string();
            self.notes.push(format!("the submodule `{path}` has changes of its own, in no digest"));
        }
        if changes().all(|delta| is_only_within(&delta)) {
            return Ok(());
        }
        if let Some(large) = self.large_file(&diff) {
            self.notes.push(format!("no digest of the changes: `{}` is large", large.display()));
            return Ok(());
        }
        match patch_sha256(&diff) {
            Ok(digest) => self.dirty_patch_sha256 = Some(digest),
            Err(why) => self.notes.push(format!("no digest of the changes: {why}")),
        }
        Ok(())
    }

    /// A changed file that is too large to be made a patch of.
    fn large_file(&self, diff: &Diff<'_>) -> Option<PathBuf> {
        let large = |delta: git2::DiffDelta<'_>| {
            let path = delta.new_file().path().or(delta.old_file().path())?;
            let found = self.root.join(path).symlink_metadata().map_or(0, |found| found.len());
            let bytes = found.max(delta.old_file().size()).max(delta.new_file().size());
            (FILE_BYTES_MAX < bytes).then(|| path.to_owned())
        };
        diff.deltas().find_map(large)
    }

    /// Files that Git does not know.
    fn read_untracked(&mut self, repository: &Repository) -> Result<(), GitError> {
        let mut options = StatusOptions::new();
        options.include_untracked(true).recurse_untracked_dirs(true).exclude_submodules(true);
        let statuses = repository.statuses(Some(&mut options));
        let statuses = statuses.map_err(GitError::git("look for new files in", &self.root))?;
        let new = statuses.iter().filter(|entry| entry.status().is_wt_new());
        let mut paths: Vec<Vec<u8>> = new.map(|entry| entry.path_bytes().to_vec()).collect();
        if paths.is_empty() {
            return Ok(());
        }
        paths.sort_unstable();
        self.dirty = true;
        self.untracked = Some(paths.len() as u64);
        match untracked_sha256(&self.root, &paths) {
            Ok(digest) => self.untracked_sha256 = Some(digest),
            Err(why) => {
                self.notes.push(format!("no digest of files that Git does not know: {why}"))
            }
        }
        Ok(())
    }
}

/// Whether a submodule is at its commit, and differs from that within.
fn is_only_within(delta: &git2::DiffDelta<'_>) -> bool {
    let (old, new) = (delta.old_file(), delta.new_file());
    new.mode() == FileMode::Commit && old.mode() == FileMode::Commit && old.id() == new.id()
}

/// SHA-256 of the diff as `git diff` prints it.
fn patch_sha256(diff: &Diff<'_>) -> Result<String, String> {
    let (mut sha256, mut bytes) = (Sha256::new(), 0_u64);
    let printed = diff.print(DiffFormat::Patch, |delta, _, line| {
        if is_only_within(&delta) {
            return true;
        }
        match line.origin_value() {
            DiffLineType::FileHeader => sha256.update(as_git_has_it(line.content())),
            DiffLineType::Context | DiffLineType::Addition | DiffLineType::Deletion => {
                sha256.update([line.origin() as u8]);
                sha256.update(line.content());
            }
            _ => sha256.update(line.content()),
        }
        bytes += line.content().len() as u64;
        bytes <= PATCH_BYTES_MAX
    });
    match printed {
        Ok(()) => Ok(to_hex(&sha256.finalize())),
        Err(_) if PATCH_BYTES_MAX < bytes => {
            Err(format!("more than {} MiB", PATCH_BYTES_MAX >> 20))
        }
        Err(error) => Err(error.message().to_owned()),
    }
}

/// The header of a file in a patch: Git ends a name that has blanks in it with a tab.
fn as_git_has_it(header: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(header.len() + 2);
    for line in header.split_inclusive(|byte| *byte == b'\n') {
        let name = line.strip_prefix(b"--- ").or_else(|| line.strip_prefix(b"+++ "));
        match line.strip_suffix(b"\n") {
            Some(line) if name.is_some_and(|name| name.contains(&b' ')) => {
                text.extend_from_slice(line);
                text.extend_from_slice(b"\t\n");
            }
            _ => text.extend_from_slice(line),
        }
    }
    text
}

/// SHA-256 of lines of digest and path, as `sha256sum` prints them of plain names.
fn untracked_sha256(root: &Path, paths: &[Vec<u8>]) -> Result<String, String> {
    use std::os::unix::ffi::OsStrExt;
    if UNTRACKED_FILES_MAX < paths.len() {
        return Err(format!("there are {}", paths.len()));
    }
    let (mut lines, mut bytes) = (Sha256::new(), 0_u64);
    for path in paths {
        let place = root.join(std::ffi::OsStr::from_bytes(path));
        let shown = place.display();
        let found = place.symlink_metadata().map_err(|e| format!("`{shown}`: {e}"))?;
        // A link is told by its target; a directory is a repository of its own.
        let digest = if found.is_symlink() {
            let target = place.read_link().map_err(|e| format!("`{shown}`: {e}"))?;
            Sha256::digest(target.as_os_str().as_bytes())
        } else if found.is_file() {
            bytes += found.len();
            if UNTRACKED_BYTES_MAX < bytes {
                return Err(format!("they have more than {} MiB", UNTRACKED_BYTES_MAX >> 20));
            }
            let mut file = std::fs::File::open(&place).map_err(|e| format!("`{shown}`: {e}"))?;
            let mut sha256 = Hashing(Sha256::new());
            std::io::copy(&mut file, &mut sha256).map_err(|e| format!("`{shown}`: {e}"))?;
            sha256.0.finalize()
        } else {
            continue;
        };
        lines.update(to_hex(&digest));
        lines.update(b"  ");
        lines.update(path);
        lines.update(b"\n");
    }
    Ok(to_hex(&lines.finalize()))
}

/// A digest that can be written to.
struct Hashing(Sha256);

impl std::io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
