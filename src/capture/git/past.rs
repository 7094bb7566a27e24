//! Small files of a repository as all its commits have them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use git2::{Delta, DiffOptions, ObjectType, Oid, Repository, Sort};

use super::checkout::describe;
use super::{Commit, GitError, discover};

/// Commits that are looked at.
const COMMITS_MAX: usize = 100_000;
/// States of files that are given.
const FILES_MAX: usize = 1_000_000;
/// Their bytes.
const BYTES_MAX: u64 = 256 << 20;

/// A file as a commit made it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PastFile {
    /// Below the working tree.
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    pub commit: Commit,
    /// When it was committed, in seconds since 1970.
    pub seconds: i64,
}

/// Each state that `wants` takes of every file in the commits of all branches and tags of the working tree
/// at `directory`, the earliest first and each once. `wants` is given paths below the tree, and sizes.
///
/// # Errors
/// Those of reading the repository, one of somebody else's among them (Git's `safe.directory`).
pub fn past(
    directory: &Path,
    wants: &dyn Fn(&Path, u64) -> bool,
) -> Result<Vec<PastFile>, GitError> {
    let Some(repository) = discover(directory)? else { return Ok(Vec::new()) };
    let failed = || GitError::git("walk through the commits of", directory);
    let mut past =
        Past { repository: &repository, wants, found: Vec::new(), seen: HashSet::new(), bytes: 0 };
    for commit in commits(&repository).map_err(failed())? {
        past.look(commit).map_err(failed())?;
    }
    Ok(past.found)
}

/// The commits of all branches and tags, the earliest first.
fn commits(repository: &Repository) -> Result<Vec<Oid>, git2::Error> {
    let mut walk = repository.revwalk()?;
    walk.set_sorting(Sort::TOPOLOGICAL | Sort::TIME)?;
    for names in ["refs/heads/*", "refs/tags/*"] {
        walk.push_glob(names)?;
    }
    // There may be none yet.
    let _ = walk.push_head();
    let mut commits = walk.take(COMMITS_MAX).collect::<Result<Vec<_>, _>>()?;
    commits.reverse();
    Ok(commits)
}

struct Past<'a> {
    repository: &'a Repository,
    wants: &'a dyn Fn(&Path, u64) -> bool,
    found: Vec<PastFile>,
    seen: HashSet<(PathBuf, Oid)>,
    bytes: u64,
}

impl Past<'_> {
    /// Takes what a commit changed from its first parent.
    fn look(&mut self, commit: Oid) -> Result<(), git2::Error> {
        let commit = self.repository.find_commit(commit)?;
        let before = commit.parent(0).and_then(|parent| parent.tree()).ok();
        let mut options = DiffOptions::new();
        options.skip_binary_check(true).ignore_submodules(true);
        let tree = commit.tree()?;
        let diff =
            self.repository.diff_tree_to_tree(before.as_ref(), Some(&tree), Some(&mut options))?;
        let objects = self.repository.odb()?;
        for delta in diff.deltas() {
            let file = delta.new_file();
            let (Some(path), id) = (file.path(), file.id()) else { continue };
            if delta.status() == Delta::Deleted || self.seen.contains(&(path.to_owned(), id)) {
                continue;
            }
            // What a partial clone does not have says nothing.
            let Ok((length, ObjectType::Blob)) = objects.read_header(id) else { continue };
            let length = length as u64;
            let is_room = self.found.len() < FILES_MAX && self.bytes + length <= BYTES_MAX;
            if !is_room || !(self.wants)(path, length) {
                continue;
            }
            self.bytes += length;
            self.seen.insert((path.to_owned(), id));
            let bytes = objects.read(id)?.data().to_vec();
            let (commit, seconds) = (describe(&commit), commit.time().seconds());
            self.found.push(PastFile { path: path.to_owned(), bytes, commit, seconds });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use git2::{Signature, Time};

    fn commit(repository: &Repository, files: &[(&str, &str)], seconds: i64) {
        let top = repository.workdir().unwrap();
        let mut index = repository.index().unwrap();
        for (path, text) in files {
            std::fs::create_dir_all(top.join(path).parent().unwrap()).unwrap();
            std::fs::write(top.join(path), text).unwrap();
            index.add_path(Path::new(path)).unwrap();
        }
        index.write().unwrap();
        let tree = repository.find_tree(index.write_tree().unwrap()).unwrap();
        let who = Signature::new("ann", "a@x", &Time::new(seconds, 0)).unwrap();
        let parent = repository.head().ok().map(|head| head.peel_to_commit().unwrap());
        let parents: Vec<_> = parent.iter().collect();
        let message = format!("at {seconds}\n\nand more");
        repository.commit(Some("HEAD"), &who, &who, &message, &tree, &parents).unwrap();
    }

    #[test]
    fn each_state_of_a_file_is_given_once() {
        let directory = tempfile::tempdir().unwrap();
        let repository = Repository::init(directory.path()).unwrap();
        let small = |path: &Path, bytes: u64| path.ends_with("m") && bytes < 9;
        assert_eq!(past(directory.path(), &small).unwrap(), []);
        for (text, seconds) in
            [("one", 100), ("two", 200), ("too long to be one", 300), ("one", 400)]
        {
            commit(&repository, &[("a/m", text), ("n", text)], seconds);
        }
        let found = past(directory.path(), &small).unwrap();
        let told: Vec<_> = found
            .iter()
            .map(|it| {
                (it.path.to_str().unwrap(), &it.bytes[..], it.seconds, it.commit.subject.as_str())
            })
            .collect();
        let expected: [(&str, &[u8], i64, &str); 2] =
            [("a/m", b"one", 100, "at 100"), ("a/m", b"two", 200, "at 200")];
        assert_eq!(told, expected);
    }
}
