//! A walk over a folder of models: names, sizes, times, owners. No file is opened, no link followed.
//!
//! Directories that cannot hold models of somebody are passed by: stores and mounts of ours, what Python,
//! Git and DVC keep for themselves. What cannot be listed is named, and the walk goes on.

use std::ffi::{OsStr, OsString};
use std::fs::{DirEntry, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::kept::Keeper;
use crate::format::manifest::{DEPTH_MAX, Mtime};
use crate::ops::{OpsError, Progress};

/// Files of one inventory: their names and what is known of them take some 200 bytes each.
pub const FILE_COUNT_MAX: usize = 20_000_000;
/// Directories and links that are told one by one where they could not be looked at.
const UNREADABLE_MAX: usize = 1_000;

/// What Git and DVC keep for themselves, in the directory that they work in.
pub(super) const GIT: &str = ".git";
pub(super) const DVC: &str = ".dvc";

/// What is passed by because of its name.
const PASSED_BY: [&str; 10] = [
    GIT,
    DVC,
    ".trash",
    ".ipynb_checkpoints",
    "__pycache__",
    "node_modules",
    "site-packages",
    "lost+found",
    ".modelfs",
    ".Trash",
];

/// A directory by its place in the walk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct FolderIndex(pub u32);

/// A file by its place in the walk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct FileIndex(pub u32);

#[derive(Debug)]
pub(super) struct Folder {
    pub name: OsString,
    pub parent: Option<FolderIndex>,
    /// In the order of their names.
    pub folders: Vec<FolderIndex>,
    /// In the order of their names.
    pub files: Vec<FileIndex>,
}

/// A regular file.
#[derive(Debug)]
pub(super) struct FoundFile {
    pub name: OsString,
    pub folder: FolderIndex,
    pub bytes: u64,
    pub modified: Mtime,
    pub uid: u32,
    /// Where its bytes are, absolute, if not at its own place.
    pub elsewhere: Option<PathBuf>,
    pub keeper: Option<Keeper>,
}

/// What lies below a directory.
#[derive(Debug)]
pub(super) struct Found {
    pub root: PathBuf,
    pub folders: Vec<Folder>,
    pub files: Vec<FoundFile>,
    /// Links to directories or files of the same walk: where each is, and what its target says.
    pub links: Vec<(FolderIndex, OsString, PathBuf)>,
    /// Directories with what Git or DVC keep for themselves; absolute.
    pub kept: Vec<PathBuf>,
    /// Places that could not be looked at, and why.
    pub unreadable: Vec<(PathBuf, String)>,
    pub unreadable_count: u64,
}

impl Found {
    /// The place of the walk itself.
    pub const ROOT: FolderIndex = FolderIndex(0);

    /// Walks everything below `root`.
    ///
    /// # Errors
    /// Where `root` cannot be listed, or holds more than can be kept in mind.
    pub fn walk(root: &Path, progress: &dyn Progress) -> Result<Self, OpsError> {
        let mut found = Self {
            root: root.to_owned(),
            folders: Vec::new(),
            files: Vec::new(),
            links: Vec::new(),
            kept: Vec::new(),
            unreadable: Vec::new(),
            unreadable_count: 0,
        };
        let first = entries(root).map_err(|e| OpsError::file("list", root, e))?;
        progress.begin("looking for models", 0);
        found.folders.push(Folder {
            name: root.file_name().unwrap_or_default().to_owned(),
            parent: None,
            folders: Vec::new(),
            files: Vec::new(),
        });
        let mut pending = found.take(Self::ROOT, first)?;
        while let Some((folder, depth)) = pending.pop() {
            let path = root.join(found.path(folder));
            match entries(&path) {
                _ if DEPTH_MAX < depth => found.cannot(path, "it is too deep".to_owned()),
                Err(error) => found.cannot(path, error.to_string()),
                Ok(listed) => {
                    let below = found.take(folder, listed)?;
                    pending.extend(below.into_iter().map(|(folder, _)| (folder, depth + 1)));
                }
            }
            progress.advance(0);
        }
        Ok(found)
    }

    /// Adds the entries of a directory; the directories among them are still to be listed.
    fn take(
        &mut self,
        folder: FolderIndex,
        listed: Vec<(DirEntry, Metadata)>,
    ) -> Result<Vec<(FolderIndex, usize)>, OpsError> {
        let mut below = Vec::new();
        for (entry, status) in listed {
            let name = entry.file_name();
            if name == GIT || name == DVC {
                // Of a working tree that Git made for a branch it is a file.
                self.kept.push(entry.path());
                continue;
            }
            if status.is_dir() {
                if is_passed_by(&entry.path(), &name) {
                    continue;
                }
                let index = FolderIndex(count(self.folders.len())?);
                let (parent, folders, files) = (Some(folder), Vec::new(), Vec::new());
                self.folders.push(Folder { name, parent, folders, files });
                self.folder_mut(folder).folders.push(index);
                below.push((index, 1));
            } else if status.is_file() {
                let index = FileIndex(count(self.files.len())?);
                let modified = Mtime {
                    seconds: status.mtime(),
                    nanos: u32::try_from(status.mtime_nsec()).unwrap_or(0),
                };
                let (bytes, uid) = (status.len(), status.uid());
                let (elsewhere, keeper) = (None, None);
                let file = FoundFile { name, folder, bytes, modified, uid, elsewhere, keeper };
                self.files.push(file);
                self.folder_mut(folder).files.push(index);
            } else if status.is_symlink()
                && let Ok(target) = std::fs::read_link(entry.path())
            {
                self.links.push((folder, name, target));
            }
        }
        // The last is taken first: so they come in the order of their names.
        below.reverse();
        Ok(below)
    }

    /// Adds a file at a path below the root where no file is, with the directories above it.
    ///
    /// # Errors
    /// Where there are more than can be kept in mind.
    pub fn insert(
        &mut self,
        path: &Path,
        file: impl FnOnce(FolderIndex) -> FoundFile,
    ) -> Result<(), OpsError> {
        let mut folder = Self::ROOT;
        for name in path.parent().into_iter().flatten() {
            let place = self.place_of_folder(folder, name);
            folder = match place {
                Ok(place) => self.folder(folder).folders[place],
                Err(place) => {
                    let index = FolderIndex(count(self.folders.len())?);
                    let (parent, folders, files) = (Some(folder), Vec::new(), Vec::new());
                    self.folders.push(Folder { name: name.to_owned(), parent, folders, files });
                    self.folder_mut(folder).folders.insert(place, index);
                    index
                }
            };
        }
        let index = FileIndex(count(self.files.len())?);
        let file = file(folder);
        if let Err(place) = self.place_of_file(folder, &file.name) {
            self.files.push(file);
            self.folder_mut(folder).files.insert(place, index);
        }
        Ok(())
    }

    /// The file at a path below the root.
    pub fn find(&self, path: &Path) -> Option<FileIndex> {
        let mut folder = Self::ROOT;
        for name in path.parent().into_iter().flatten() {
            folder = self.folder(folder).folders[self.place_of_folder(folder, name).ok()?];
        }
        self.file_called(folder, path.file_name()?)
    }

    fn place_of_folder(&self, folder: FolderIndex, name: &OsStr) -> Result<usize, usize> {
        let folders = &self.folder(folder).folders;
        folders.binary_search_by(|below| self.folder(*below).name.as_os_str().cmp(name))
    }

    fn place_of_file(&self, folder: FolderIndex, name: &OsStr) -> Result<usize, usize> {
        let files = &self.folder(folder).files;
        files.binary_search_by(|file| self.file(*file).name.as_os_str().cmp(name))
    }

    /// Notes a place that could not be looked at.
    pub fn cannot(&mut self, path: PathBuf, why: String) {
        self.unreadable_count += 1;
        if self.unreadable.len() < UNREADABLE_MAX {
            self.unreadable.push((path, why));
        }
    }

    pub fn folder(&self, index: FolderIndex) -> &Folder {
        &self.folders[index.0 as usize]
    }

    fn folder_mut(&mut self, index: FolderIndex) -> &mut Folder {
        &mut self.folders[index.0 as usize]
    }

    pub fn file(&self, index: FileIndex) -> &FoundFile {
        &self.files[index.0 as usize]
    }

    /// The path of a directory below the root; empty for the root itself.
    pub fn path(&self, folder: FolderIndex) -> PathBuf {
        let mut names: Vec<&OsStr> = Vec::new();
        let mut at = folder;
        while let Some(parent) = self.folder(at).parent {
            names.push(&self.folder(at).name);
            at = parent;
        }
        names.into_iter().rev().collect()
    }

    /// The path of a file below the root.
    pub fn path_of(&self, file: FileIndex) -> PathBuf {
        let file = self.file(file);
        self.path(file.folder).join(&file.name)
    }

    /// Where the bytes of a file are; absolute.
    pub fn source_of(&self, file: FileIndex) -> PathBuf {
        match &self.file(file).elsewhere {
            Some(elsewhere) => elsewhere.clone(),
            None => self.root.join(self.path_of(file)),
        }
    }

    /// The path of a file below one of the directories that it is in.
    pub fn path_below(&self, folder: FolderIndex, file: FileIndex) -> PathBuf {
        let whole = self.path_of(file);
        let above = self.path(folder);
        whole.strip_prefix(above).expect("the file is in the directory").to_owned()
    }

    /// All files in a directory and below it, in the order of the walk.
    pub fn files_below(&self, folder: FolderIndex) -> Vec<FileIndex> {
        let (mut files, mut pending) = (Vec::new(), vec![folder]);
        while let Some(next) = pending.pop() {
            let folder = self.folder(next);
            files.extend(&folder.files);
            pending.extend(folder.folders.iter().rev());
        }
        files
    }

    pub fn file_mut(&mut self, index: FileIndex) -> &mut FoundFile {
        &mut self.files[index.0 as usize]
    }

    /// The entry of a directory called `name`, if it is a file.
    pub fn file_called(&self, folder: FolderIndex, name: &OsStr) -> Option<FileIndex> {
        let place = self.place_of_file(folder, name);
        place.ok().map(|place| self.folder(folder).files[place])
    }
}

/// A number of files or directories that can still be one's place.
fn count(length: usize) -> Result<u32, OpsError> {
    if FILE_COUNT_MAX <= length {
        let why = format!("it holds more than {FILE_COUNT_MAX} files: take a part of it at a time");
        return Err(OpsError::Option { what: "the directory", why });
    }
    Ok(u32::try_from(length).expect("below the limit"))
}

/// The entries of a directory in the order of their names. What is gone meanwhile is left out.
fn entries(path: &Path) -> io::Result<Vec<(DirEntry, Metadata)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if let Ok(status) = entry.metadata() {
            found.push((entry, status));
        }
    }
    found.sort_by_cached_key(|(entry, _)| entry.file_name());
    Ok(found)
}

fn is_passed_by(path: &Path, name: &OsStr) -> bool {
    PASSED_BY.iter().any(|passed| name == *passed)
        // An environment of Python, a store of ours, a mount of ours.
        || path.join("pyvenv.cfg").exists()
        || path.join("modelfs.json").exists()
        || path.join(".modelfs/status.json").exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::NoProgress;
    use std::fs;

    #[test]
    fn a_walk_names_files_and_passes_by_what_nobody_made() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for path in
            ["b/x/deep.pt", "b/a.pt", "a.onnx", ".git/objects/b", "env/lib/m.pt", "s/packs/p"]
        {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), path).unwrap();
        }
        fs::write(root.join("env/pyvenv.cfg"), "").unwrap();
        fs::write(root.join("s/modelfs.json"), "").unwrap();
        std::os::unix::fs::symlink("b/a.pt", root.join("prod")).unwrap();
        let found = Found::walk(root, &NoProgress).unwrap();
        let paths: Vec<_> = found.files_below(Found::ROOT);
        let paths: Vec<_> = paths.iter().map(|file| found.path_of(*file)).collect();
        assert_eq!(paths, ["a.onnx", "b/a.pt", "b/x/deep.pt"].map(PathBuf::from));
        assert_eq!(found.links.len(), 1);
        let folder = found.folder(Found::ROOT).folders[0];
        let deep = found.files_below(folder)[1];
        assert_eq!(found.path_below(folder, deep), Path::new("x/deep.pt"));
        assert!(found.file_called(folder, OsStr::new("a.pt")).is_some());
        assert!(found.file_called(folder, OsStr::new("b.pt")).is_none());
    }
}
