//! A source that is put together: files from anywhere, each with the name that it has in the version.
//!
//! Invariant S1 holds here too: each file is opened in its own directory without following a link, and is
//! a regular file.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::source::{SourceTree, mtime_of};
use super::{OpsError, PlacedFile};
use crate::format::manifest::{
    DEPTH_MAX, ENTRY_COUNT_MAX, METADATA_NAME, Mtime, Node, PATH_BYTES_MAX, Tree,
};
use crate::sys::at::{self, EntryKind};

/// Longest name of one entry, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// Permission bits that make a file executable.
const EXECUTE: u32 = 0o111;

/// What is known of a file before it is read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FileFacts {
    pub bytes: u64,
    pub modified: Mtime,
    pub executable: bool,
}

/// Files by their names in the version.
#[derive(Debug)]
pub(super) struct Composed(BTreeMap<PathBuf, PathBuf>);

impl Composed {
    /// A source of these files.
    ///
    /// # Errors
    /// `Unfit` for names that cannot be those of a version's files, or stand twice.
    pub fn new(files: &[PlacedFile]) -> Result<Self, OpsError> {
        let mut composed = BTreeMap::new();
        for PlacedFile { from, name } in files {
            check_name(name)?;
            if !from.is_absolute() {
                return Err(unfit(from, "it is no absolute path"));
            }
            if composed.insert(name.clone(), from.clone()).is_some() {
                return Err(unfit(name, "it stands there twice"));
            }
        }
        Ok(Self(composed))
    }

    /// Opens a file by its name in the version.
    pub fn open_file(&self, name: &Path) -> io::Result<File> {
        let from = self.0.get(name).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let (Some(parent), Some(file)) = (from.parent(), from.file_name()) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        Ok(at::open_beneath(at::open_named(parent)?, Path::new(file), flags)?.into())
    }

    /// Looks at all files.
    ///
    /// # Errors
    /// Where one cannot be looked at, or is no regular file.
    pub fn walk(&self) -> Result<SourceTree, OpsError> {
        let mut facts = BTreeMap::new();
        for (name, from) in &self.0 {
            let failed = |e| OpsError::file("open", from, e);
            let status = self.open_file(name).and_then(at::status).map_err(failed)?;
            if status.kind() != EntryKind::File {
                return Err(unfit(from, "it is no regular file"));
            }
            let (bytes, modified) = (status.size, mtime_of(&status));
            let executable = status.mode & EXECUTE != 0;
            facts.insert(name.clone(), FileFacts { bytes, modified, executable });
        }
        tree_of(&facts)
    }
}

/// A directory that is put together.
#[derive(Default)]
struct Directory<'a> {
    directories: BTreeMap<&'a OsStr, Directory<'a>>,
    files: BTreeMap<&'a OsStr, FileFacts>,
    /// When the newest file in it was written.
    modified: Mtime,
}

impl<'a> Directory<'a> {
    fn put(&mut self, path: &'a Path, facts: FileFacts) {
        let time = |it: Mtime| (it.seconds, it.nanos);
        if time(self.modified) < time(facts.modified) {
            self.modified = facts.modified;
        }
        let mut names = path.iter();
        let first = names.next().expect("names are not empty");
        match names.as_path() {
            rest if rest.as_os_str().is_empty() => drop(self.files.insert(first, facts)),
            rest => self.directories.entry(first).or_default().put(rest, facts),
        }
    }
}

/// The tree of files with these names, which were checked.
///
/// # Errors
/// `Unfit` for a name that is a file and a directory.
pub(super) fn tree_of(files: &BTreeMap<PathBuf, FileFacts>) -> Result<SourceTree, OpsError> {
    if ENTRY_COUNT_MAX <= files.len() {
        let why = format!("more than {ENTRY_COUNT_MAX} files and directories in one version");
        return Err(unfit(Path::new("."), &why));
    }
    let mut root = Directory::default();
    files.iter().for_each(|(name, facts)| root.put(name, *facts));
    let metadata = OsStr::from_bytes(METADATA_NAME);
    if root.directories.contains_key(metadata) {
        return Err(unfit(Path::new(metadata), "it is a file that is made, and no directory"));
    }
    let mut found = SourceTree::default();
    let index = found.tree.push(b"", root.modified, Node::Directory { first: 0, count: 0 });
    let mut pending = VecDeque::from([(index, PathBuf::new(), &root)]);
    while let Some((index, path, directory)) = pending.pop_front() {
        let is_root = path.as_os_str().is_empty();
        let first = found.tree.entry_count();
        let names = directory.files.keys().chain(directory.directories.keys()).copied();
        let mut names: Vec<&OsStr> = names.collect();
        if is_root {
            found.has_user_metadata = directory.files.contains_key(metadata);
            if !found.has_user_metadata {
                names.push(metadata);
            }
        }
        names.sort_unstable();
        for name in names {
            let place = path.join(name);
            if is_root && name == metadata {
                let node = Tree::file_to_come();
                found.metadata = found.tree.push(METADATA_NAME, Mtime::default(), node);
                continue;
            }
            match (directory.files.get(name), directory.directories.get(name)) {
                (Some(_), Some(_)) => return Err(unfit(&place, "it is a file and a directory")),
                (Some(facts), None) => {
                    let FileFacts { bytes, executable, .. } = *facts;
                    let node = Tree::file_to_read(executable, bytes);
                    found.tree.push(name.as_bytes(), facts.modified, node);
                    found.bytes += bytes;
                    found.file_count += 1;
                }
                (None, below) => {
                    let below = below.expect("it is one of both");
                    let node = Node::Directory { first: 0, count: 0 };
                    let index = found.tree.push(name.as_bytes(), below.modified, node);
                    pending.push_back((index, place, below));
                }
            }
        }
        found.tree.set_children(index, first..found.tree.entry_count());
    }
    Ok(found)
}

/// Sees to it that a name can be that of a version's file.
///
/// # Errors
/// `Unfit` says why it cannot.
pub(super) fn check_name(name: &Path) -> Result<(), OpsError> {
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    let parts = name.components().count();
    if parts == 0 || !name.components().all(is_plain) || name.as_os_str().as_bytes().contains(&0) {
        return Err(unfit(name, "a file's name in a version is a plain path below it"));
    }
    if DEPTH_MAX < parts {
        return Err(unfit(name, &format!("deeper than {DEPTH_MAX} directories")));
    }
    let is_long = name.iter().any(|part| NAME_BYTES_MAX < part.len());
    if is_long || PATH_BYTES_MAX <= name.as_os_str().len() + 1 {
        return Err(unfit(name, "its name is too long"));
    }
    Ok(())
}

fn unfit(path: &Path, why: &str) -> OpsError {
    OpsError::Unfit { path: path.to_owned(), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(files: &[(&Path, &str)]) -> Vec<PlacedFile> {
        let file =
            |(from, name): &(&Path, &str)| PlacedFile { from: from.into(), name: name.into() };
        files.iter().map(file).collect()
    }

    #[test]
    fn files_from_anywhere_make_one_tree() {
        let directory = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| directory.path().join(name));
        std::fs::write(&a, "1").unwrap();
        std::fs::write(&b, "22").unwrap();
        let files = placed(&[(&a, "x/y/model.bin"), (&b, "weights.bin"), (&a, "x/z")]);
        let composed = Composed::new(&files).unwrap();
        let found = composed.walk().unwrap();
        let names: Vec<_> = found.tree.entries().map(|(index, _)| found.tree.name(index)).collect();
        let expected: [&[u8]; 7] =
            [b"", b"metadata.json", b"weights.bin", b"x", b"y", b"z", b"model.bin"];
        assert_eq!(names, expected);
        assert_eq!((found.bytes, found.file_count, found.has_user_metadata), (4, 3, false));
        assert!(composed.open_file(Path::new("x/z")).is_ok());
        assert!(composed.open_file(Path::new("x")).is_err());
    }

    #[test]
    fn what_cannot_be_put_together_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let a = directory.path().join("a");
        std::fs::write(&a, "1").unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&a, &link).unwrap();
        let check = |files: &[(&Path, &str)]| {
            Composed::new(&placed(files)).and_then(|composed| composed.walk()).is_err()
        };
        for name in ["", "/a", "../a", "a/../../b", "."] {
            assert!(check(&[(&a, name)]), "{name}");
        }
        assert!(check(&[(Path::new("a"), "x")]), "relative");
        assert!(check(&[(&a, "x"), (&a, "x")]), "twice");
        assert!(check(&[(&a, "x"), (&a, "x/y")]), "a file and a directory");
        assert!(check(&[(&a, "metadata.json/x")]), "a directory called as what is made");
        assert!(check(&[(&link, "x")]), "a link");
        assert!(check(&[(directory.path(), "x")]), "a directory");
        assert!(check(&[(&directory.path().join("none"), "x")]), "nothing");
    }
}
