//! What is about to be sealed: a walk over a directory, and its files opened one by one.
//!
//! Invariant S1: whatever is read was opened below the source's own directory, without following a
//! link, and was a regular file that nobody had open for writing.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::compose::Composed;
use super::{OpsError, Source};
use crate::capture::record;
use crate::format::ids::BlobDigest;
use crate::format::manifest::{
    DEPTH_MAX, ENTRY_COUNT_MAX, EntryIndex, METADATA_NAME, Mtime, Node, PATH_BYTES_MAX, Tree,
};
use crate::sys::at::{self, EntryKind, Status};

/// Notes on one snapshot; more would not be read.
const NOTES_MAX: usize = 100;
/// Links that a link's target may lead through, as in Linux.
const LINKS_MAX: usize = 40;
/// Permission bits that make a file executable.
const EXECUTE: u32 = 0o111;
/// Permission bits that a version does not keep.
const SPECIAL: u32 = 0o6000;

/// One regular file of the source.
#[derive(Debug)]
pub(super) struct SourceFile {
    pub index: EntryIndex,
    /// Below the source.
    pub path: PathBuf,
    pub bytes: u64,
}

/// The source's tree; its files are still to be read.
#[derive(Debug, Default)]
pub(super) struct SourceTree {
    pub tree: Tree,
    /// `metadata.json` left out.
    pub file_count: u64,
    /// Where the generated `metadata.json` goes.
    pub metadata: EntryIndex,
    /// The source has a `metadata.json` of its own: it becomes part of the generated one.
    pub has_user_metadata: bool,
    pub notes: Vec<String>,
    pub bytes: u64,
}

impl SourceTree {
    /// Its files, in the order of their entries.
    pub fn files(&self) -> impl Iterator<Item = SourceFile> + '_ {
        let mut files = Files::of(self);
        std::iter::from_fn(move || files.next(self))
    }

    /// The digest of a file that was read.
    pub fn digest(&self, file: &SourceFile) -> BlobDigest {
        match &self.tree.entry(file.index).node {
            Node::File(read) => read.digest,
            Node::Directory { .. } | Node::Symlink { .. } => unreachable!("only files are listed"),
        }
    }
}

/// Goes along the files of a source, in the order of their entries. There may be a million of them: none is
/// kept, and its tree may be told what they hold meanwhile.
pub(super) struct Files {
    /// Entries that are still to come, by directory, and the path of that.
    pending: VecDeque<(Range<u32>, PathBuf)>,
}

impl Files {
    pub fn of(source: &SourceTree) -> Self {
        let root = (source.tree.children(EntryIndex::ROOT), PathBuf::new());
        Self { pending: VecDeque::from([root]) }
    }

    /// The next file of the same source.
    pub fn next(&mut self, source: &SourceTree) -> Option<SourceFile> {
        let tree = &source.tree;
        loop {
            let (children, directory) = self.pending.front_mut()?;
            let Some(index) = children.next().map(EntryIndex) else {
                self.pending.pop_front();
                continue;
            };
            let path = |directory: &Path| directory.join(OsStr::from_bytes(tree.name(index)));
            match &tree.entry(index).node {
                Node::Directory { .. } => {
                    let path = path(directory);
                    self.pending.push_back((tree.children(index), path));
                }
                Node::File(file) if index != source.metadata => {
                    let path = path(directory);
                    return Some(SourceFile { index, path, bytes: file.bytes });
                }
                Node::File(_) | Node::Symlink { .. } => {}
            }
        }
    }
}

/// Where a snapshot's files come from.
pub(super) enum Root {
    /// All that is in a directory.
    Directory(OwnedFd),
    /// One file of a directory.
    File { parent: OwnedFd, name: PathBuf },
    /// Files from anywhere.
    Composed(Composed),
}

impl Root {
    /// The source at `path`.
    ///
    /// # Errors
    /// As opening it; `Unfit` for what is neither a directory nor a regular file.
    pub fn open(path: &Path) -> Result<Self, OpsError> {
        let failed = |e| OpsError::file("open", path, e);
        let named = at::open_named(path).map_err(failed)?;
        match at::status(&named).map_err(failed)?.kind() {
            EntryKind::Directory => return Ok(Self::Directory(named)),
            EntryKind::File => {}
            _ => return Err(unfit(path, "it is neither a directory nor a regular file")),
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(unfit(path, "it has no name in a directory"));
        };
        let parent = at::open_named(parent).map_err(failed)?;
        Ok(Self::File { parent, name: name.into() })
    }

    /// A source outside the store.
    ///
    /// # Errors
    /// As opening it; `Unfit` for what can be none.
    pub fn outside(source: &Source) -> Result<Self, OpsError> {
        let (path, files) = source.outside().expect("a draft is opened by who froze it");
        match files {
            [] => Self::open(path),
            files => Composed::new(files).map(Self::Composed),
        }
    }

    /// Opens a file of the source by its path below it. A fifo does not make it hang.
    pub fn open_file(&self, path: &Path) -> io::Result<File> {
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        match self {
            Self::Directory(root) | Self::File { parent: root, .. } => {
                Ok(at::open_beneath(root, path, flags)?.into())
            }
            Self::Composed(files) => files.open_file(path),
        }
    }

    /// Walks the source.
    ///
    /// # Errors
    /// `Unfit` with the path of the first thing that cannot be part of a version.
    pub fn walk(&self) -> Result<SourceTree, OpsError> {
        self.walk_beside(&Map::new())
    }

    /// Walks the source, in which the record of a run that is `captured` may lie: that is no file of the
    /// version.
    ///
    /// # Errors
    /// As [`Root::walk`].
    pub fn walk_beside(&self, captured: &Map<String, Value>) -> Result<SourceTree, OpsError> {
        let mut walk = Walk { record: record::encode(captured), ..Walk::default() };
        match self {
            Self::Directory(root) => walk.directory(root)?,
            Self::File { parent, name } => walk.single_file(parent, name)?,
            Self::Composed(files) => return files.walk(),
        }
        check_links(&walk.found.tree)?;
        Ok(walk.found)
    }
}

/// A directory whose entries are still to be looked at.
struct Pending {
    index: EntryIndex,
    path: PathBuf,
    depth: usize,
}

#[derive(Default)]
struct Walk {
    found: SourceTree,
    pending: VecDeque<Pending>,
    /// What the file with it would have in it.
    record: Vec<u8>,
}

impl Walk {
    fn directory(&mut self, root: &OwnedFd) -> Result<(), OpsError> {
        let status = at::status(root).map_err(|e| OpsError::file("stat", ".", e))?;
        let index = self.found.tree.push(b"", mtime_of(&status), empty_directory());
        self.pending.push_back(Pending { index, path: PathBuf::new(), depth: 0 });
        while let Some(next) = self.pending.pop_front() {
            self.visit(root, next)?;
        }
        Ok(())
    }

    fn single_file(&mut self, parent: &OwnedFd, name: &Path) -> Result<(), OpsError> {
        let status = at::status_at(parent, name.as_os_str());
        let status = status.map_err(|e| OpsError::file("stat", name, e))?;
        let time = mtime_of(&status);
        let root = self.found.tree.push(b"", time, empty_directory());
        let bytes = name.as_os_str().as_bytes();
        if bytes == METADATA_NAME {
            return Err(unfit(name, "a version needs a file besides its metadata"));
        }
        let metadata_first = METADATA_NAME < bytes;
        for is_metadata in [metadata_first, !metadata_first] {
            if is_metadata {
                self.reserve_metadata(time);
            } else {
                self.entry(bytes, name.to_owned(), &status, 1, None)?;
            }
        }
        self.found.tree.set_children(root, 1..3);
        Ok(())
    }

    /// Adds the entries of one directory, sorted, with a place for the metadata at the root.
    fn visit(&mut self, root: &OwnedFd, next: Pending) -> Result<(), OpsError> {
        let Pending { index, path, depth } = next;
        let failed = |action| {
            let path = path.clone();
            move |e| OpsError::file(action, path, e)
        };
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let directory =
            if depth == 0 { root.try_clone() } else { at::open_beneath(root, &path, flags) };
        let directory = directory.map_err(failed("open"))?;
        let listed = at::list(&directory).map_err(failed("list"))?;
        let mut names: Vec<Vec<u8>> =
            listed.into_iter().map(|entry| entry.name.as_bytes().to_vec()).collect();
        if depth == 0 {
            names.retain(|name| name != record::NAME.as_bytes() || !self.is_captured(&directory));
            self.found.has_user_metadata = names.iter().any(|name| name == METADATA_NAME);
            if !self.found.has_user_metadata {
                names.push(METADATA_NAME.to_vec());
            }
        }
        names.sort();
        let first = self.found.tree.entry_count();
        for name in names {
            let place = path.join(OsStr::from_bytes(&name));
            if depth == 0 && name == METADATA_NAME {
                if self.found.has_user_metadata {
                    self.check_user_metadata(&directory)?;
                }
                self.reserve_metadata(Mtime::default());
                continue;
            }
            let status = at::status_at(&directory, OsStr::from_bytes(&name));
            let status = status.map_err(|e| OpsError::file("stat", &place, e))?;
            self.entry(&name, place, &status, depth + 1, Some(&directory))?;
        }
        self.found.tree.set_children(index, first..self.found.tree.entry_count());
        Ok(())
    }

    /// Whether a directory has the record that is captured, and no other.
    fn is_captured(&self, directory: &OwnedFd) -> bool {
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let opened = at::open_at(directory, OsStr::new(record::NAME), flags, 0).map(File::from);
        let mut bytes = Vec::new();
        let limit = self.record.len() as u64 + 1;
        let read = opened.and_then(|file| file.take(limit).read_to_end(&mut bytes));
        read.is_ok() && bytes == self.record
    }

    fn check_user_metadata(&self, directory: &OwnedFd) -> Result<(), OpsError> {
        let path = Path::new("metadata.json");
        let status = at::status_at(directory, path.as_os_str());
        let status = status.map_err(|e| OpsError::file("stat", path, e))?;
        if status.kind() != EntryKind::File {
            return Err(unfit(path, "it must be a file with a JSON object"));
        }
        Ok(())
    }

    fn reserve_metadata(&mut self, time: Mtime) {
        self.found.metadata = self.found.tree.push(METADATA_NAME, time, Tree::file_to_come());
    }

    fn entry(
        &mut self,
        name: &[u8],
        path: PathBuf,
        status: &Status,
        depth: usize,
        directory: Option<&OwnedFd>,
    ) -> Result<(), OpsError> {
        self.check_limits(&path, depth)?;
        let time = mtime_of(status);
        match status.kind() {
            EntryKind::Directory => {
                let index = self.found.tree.push(name, time, empty_directory());
                self.pending.push_back(Pending { index, path, depth });
            }
            EntryKind::File => {
                self.note_special(&path, status.mode);
                let executable = status.mode & EXECUTE != 0;
                let node = Tree::file_to_read(executable, status.size);
                self.found.tree.push(name, time, node);
                self.found.bytes += status.size;
                self.found.file_count += 1;
            }
            EntryKind::Symlink => {
                let Some(directory) = directory else {
                    return Err(unfit(&path, "a symbolic link alone is no version"));
                };
                let flags = libc::O_PATH | libc::O_NOFOLLOW;
                let target = at::open_at(directory, OsStr::from_bytes(name), flags, 0)
                    .and_then(at::read_link)
                    .map_err(|e| OpsError::file("read the link", &path, e))?;
                let target = self.found.tree.keep(target.as_bytes());
                self.found.tree.push(name, time, Node::Symlink { target });
            }
            EntryKind::Fifo => return Err(unfit(&path, "it is a fifo")),
            EntryKind::Socket => return Err(unfit(&path, "it is a socket")),
            EntryKind::CharacterDevice | EntryKind::BlockDevice => {
                return Err(unfit(&path, "it is a device"));
            }
        }
        Ok(())
    }

    fn check_limits(&self, path: &Path, depth: usize) -> Result<(), OpsError> {
        if DEPTH_MAX < depth {
            return Err(unfit(path, &format!("deeper than {DEPTH_MAX} directories")));
        }
        if PATH_BYTES_MAX <= path.as_os_str().len() + 1 {
            return Err(unfit(path, &format!("its path is longer than {PATH_BYTES_MAX} bytes")));
        }
        if ENTRY_COUNT_MAX <= self.found.tree.entry_count() as usize + 1 {
            let why = format!("more than {ENTRY_COUNT_MAX} files and directories in one version");
            return Err(unfit(path, &why));
        }
        Ok(())
    }

    fn note_special(&mut self, path: &Path, mode: u32) {
        if mode & SPECIAL != 0 && self.found.notes.len() < NOTES_MAX {
            let note = format!("`{}`: the setuid or setgid bit was dropped", path.display());
            self.found.notes.push(note);
        }
    }
}

fn empty_directory() -> Node {
    Node::Directory { first: 0, count: 0 }
}

fn unfit(path: &Path, why: &str) -> OpsError {
    OpsError::Unfit { path: path.to_owned(), why: why.to_owned() }
}

/// A file's time of change in the manifest's form; before 1970 the seconds are negative.
pub(super) fn mtime_of(status: &Status) -> Mtime {
    mtime_from(status.mtime)
}

/// A point in time in the manifest's form.
pub(super) fn mtime_from(time: SystemTime) -> Mtime {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => {
            let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
            Mtime { seconds, nanos: since.subsec_nanos() }
        }
        Err(error) => {
            let before = error.duration();
            let seconds = -i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            match before.subsec_nanos() {
                0 => Mtime { seconds, nanos: 0 },
                nanos => Mtime { seconds: seconds - 1, nanos: 1_000_000_000 - nanos },
            }
        }
    }
}

/// Refuses links that lead out of the tree, by following each as the kernel would.
fn check_links(tree: &Tree) -> Result<(), OpsError> {
    let mut wrong = None;
    let mut above: Vec<EntryIndex> = Vec::new();
    tree.walk(|path, index, entry| {
        if wrong.is_some() || !matches!(entry.node, Node::Symlink { .. }) {
            return;
        }
        above.clear();
        let parents = path.split(|byte| *byte == b'/');
        let mut at = EntryIndex::ROOT;
        for name in parents {
            above.push(at);
            at = tree.find(at, name).unwrap_or(index);
        }
        if leaves_tree(tree, &mut above, tree.target(index)) {
            let target = String::from_utf8_lossy(tree.target(index)).into_owned();
            let path = Path::new(OsStr::from_bytes(path));
            wrong = Some(unfit(path, &format!("the link to `{target}` leaves the tree")));
        }
    });
    wrong.map_or(Ok(()), Err)
}

/// Whether `target`, read in the directory that is last in `above`, leads out of the tree. What does
/// not exist is taken as a plain directory: a dangling link within the tree is allowed.
fn leaves_tree(tree: &Tree, above: &mut Vec<EntryIndex>, target: &[u8]) -> bool {
    let split = |text: &[u8]| -> Vec<Vec<u8>> {
        text.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect()
    };
    if target.first() == Some(&b'/') {
        return true;
    }
    let mut rest = split(target);
    let mut links = 0;
    // Directories that do not exist, below the last that does.
    let mut missing = 0_usize;
    while let Some(name) = rest.pop() {
        match name.as_slice() {
            b"" | b"." => {}
            b".." if missing != 0 => missing -= 1,
            b".." => {
                above.pop();
                if above.is_empty() {
                    return true;
                }
            }
            _ if missing != 0 => missing += 1,
            name => {
                let directory = *above.last().expect("never emptied");
                match tree.find(directory, name) {
                    None => missing = 1,
                    Some(next) => match tree.entry(next).node {
                        Node::Directory { .. } => above.push(next),
                        Node::File(_) => missing = 1,
                        Node::Symlink { .. } => {
                            links += 1;
                            let target = tree.target(next);
                            if LINKS_MAX < links {
                                // The kernel gives up as well, so nothing is reached.
                                return false;
                            }
                            if target.first() == Some(&b'/') {
                                return true;
                            }
                            rest.extend(split(target));
                        }
                    },
                }
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn walk(make: impl FnOnce(&Path)) -> Result<SourceTree, OpsError> {
        let directory = tempfile::tempdir().unwrap();
        make(directory.path());
        Root::open(directory.path()).unwrap().walk_beside(&captured())
    }

    fn captured() -> Map<String, Value> {
        serde_json::from_str(r#"{"run": {"exit_code": 0, "duration_s": 0.1}}"#).unwrap()
    }

    #[test]
    fn the_record_that_is_captured_is_no_file_of_the_version() {
        let names = |bytes: &[u8], place: &str| {
            let found = walk(|root| {
                fs::create_dir(root.join("d")).unwrap();
                fs::write(root.join("w"), "1").unwrap();
                fs::write(root.join(place), bytes).unwrap();
            });
            found.unwrap().file_count
        };
        assert_eq!(names(&record::encode(&captured()), record::NAME), 1);
        assert_eq!(names(&record::encode(&captured()), "d/modelfs-run.json"), 2);
        for another in [&b"{}"[..], b"", &[&record::encode(&captured())[..], b" "].concat()] {
            assert_eq!(names(another, record::NAME), 2);
        }
    }

    #[test]
    fn a_walk_is_breadth_first_and_sorted() {
        let found = walk(|root| {
            fs::create_dir_all(root.join("b/x")).unwrap();
            fs::write(root.join("b/y"), "2").unwrap();
            fs::write(root.join("z"), "1").unwrap();
            fs::write(root.join("a"), "33").unwrap();
        })
        .unwrap();
        let names: Vec<_> = found.tree.entries().map(|(index, _)| found.tree.name(index)).collect();
        let expected: [&[u8]; 7] = [b"", b"a", b"b", b"metadata.json", b"z", b"x", b"y"];
        assert_eq!(names, expected);
        assert_eq!((found.metadata, found.bytes, found.file_count), (EntryIndex(3), 4, 3));
    }

    #[test]
    fn a_link_may_not_leave_the_tree() {
        let check = |target: &str, allowed: bool| {
            let found = walk(|root| {
                fs::create_dir_all(root.join("d/e")).unwrap();
                symlink("../..", root.join("d/e/up")).unwrap();
                symlink(target, root.join("d/link")).unwrap();
            });
            assert_eq!(found.is_ok(), allowed, "{target}: {found:?}");
        };
        check("e", true);
        check("../d", true);
        check("missing/../e", true);
        check("..", true);
        check("e/up/d", true);
        check("link", true);
        check("../..", false);
        check("/etc/passwd", false);
        check("e/up/..", false);
        check("e/../../..", false);
        check("missing/../../..", false);
    }
}
