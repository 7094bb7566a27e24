//! What a data set is made of: its files and directories, listed before any is read.
//!
//! Invariant T1: entries stand breadth first, those of one directory together and sorted by the bytes of
//! their names; so a directory comes before all that it holds.

use std::fs::{self, Metadata};
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{DataError, Stamp};
use crate::format::ids::DataDigest;

/// Files and directories of one data set.
pub const ENTRIES_MAX: usize = 4_000_000;
/// Directories within each other.
const DEPTH_MAX: usize = 64;

/// Context of the digest of a directory; FORMAT.md, "Data digest".
const DIRECTORY_CONTEXT: &str = "modelfs data v1";

/// What `stat` said of a file when it was listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileState {
    pub bytes: u64,
    /// Seconds and nanoseconds of the last change of content and of status.
    times: [i64; 4],
}

impl FileState {
    pub fn of(found: &Metadata) -> Self {
        let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
        Self { bytes: found.len(), times }
    }
}

#[derive(Clone, Debug)]
enum Kind {
    File(FileState),
    /// Its entries, and what is needed to see that a link leads back into it.
    Directory {
        children: Range<u32>,
        device: u64,
        inode: u64,
    },
}

#[derive(Clone, Debug)]
struct Entry {
    /// Its own index for the root.
    parent: u32,
    name: Range<u32>,
    kind: Kind,
    digest: [u8; 32],
}

/// A data set that was listed.
#[derive(Debug)]
pub struct DataTree {
    root: PathBuf,
    entries: Vec<Entry>,
    names: Vec<u8>,
    bytes: u64,
    files: u64,
}

impl DataTree {
    /// Lists what is at `path`.
    pub fn list(path: &Path) -> Result<Self, DataError> {
        let mut tree = Self {
            root: path.to_owned(),
            entries: Vec::new(),
            names: Vec::new(),
            bytes: 0,
            files: 0,
        };
        let found = fs::metadata(path).map_err(DataError::io("find", path))?;
        tree.push(0, b"", &found, path)?;
        let mut next = 0;
        // Each level is listed when its turn comes: entries that are added come later (T1).
        while next < tree.entries.len() {
            if matches!(tree.entries[next].kind, Kind::Directory { .. }) {
                tree.list_directory(place(next))?;
            }
            next += 1;
        }
        Ok(tree)
    }

    fn list_directory(&mut self, index: u32) -> Result<(), DataError> {
        let path = self.path(index);
        let listed = fs::read_dir(&path).map_err(DataError::io("list", &path))?;
        let mut names = Vec::new();
        for entry in listed {
            let entry = entry.map_err(DataError::io("list", &path))?;
            names.push(entry.file_name().into_vec());
            self.check_room(self.entries.len() + names.len())?;
        }
        names.sort_unstable();
        let first = place(self.entries.len());
        for name in &names {
            let path = path.join(std::ffi::OsStr::from_bytes(name));
            let found = fs::metadata(&path).map_err(DataError::io("find", &path))?;
            self.push(index, name, &found, &path)?;
        }
        let end = place(self.entries.len());
        if let Kind::Directory { children, .. } = &mut self.entries[index as usize].kind {
            *children = first..end;
        }
        Ok(())
    }

    fn check_room(&self, entries: usize) -> Result<(), DataError> {
        if entries <= ENTRIES_MAX {
            return Ok(());
        }
        let (path, what) = (self.root.clone(), "files and directories");
        Err(DataError::Large { path, limit: ENTRIES_MAX, what })
    }

    fn push(
        &mut self,
        parent: u32,
        name: &[u8],
        found: &Metadata,
        path: &Path,
    ) -> Result<(), DataError> {
        let unfit = |what| Err(DataError::Unfit { path: path.to_owned(), what });
        let of = found.file_type();
        let kind = if of.is_file() {
            self.files += 1;
            self.bytes = self.bytes.saturating_add(found.len());
            Kind::File(FileState::of(found))
        } else if of.is_dir() {
            let (device, inode) = (found.dev(), found.ino());
            self.check_above(parent, (device, inode), path)?;
            Kind::Directory { children: 0..0, device, inode }
        } else if of.is_fifo() {
            return unfit("a fifo");
        } else if of.is_socket() {
            return unfit("a socket");
        } else {
            return unfit("a device");
        };
        let start = place(self.names.len());
        self.names.extend_from_slice(name);
        let name = start..place(self.names.len());
        self.entries.push(Entry { parent, name, kind, digest: [0; 32] });
        Ok(())
    }

    /// Sees to it that a directory is not within itself, as a link could make it, nor too deep.
    fn check_above(&self, parent: u32, own: (u64, u64), path: &Path) -> Result<(), DataError> {
        let mut depth = 0;
        let mut at = parent;
        while let Some(Entry { kind: Kind::Directory { device, inode, .. }, parent, .. }) =
            self.entries.get(at as usize)
        {
            if (*device, *inode) == own {
                let what = "a link to a directory that it is in";
                return Err(DataError::Unfit { path: path.to_owned(), what });
            }
            depth += 1;
            if DEPTH_MAX < depth {
                let (path, what) = (self.root.clone(), "directories within each other");
                return Err(DataError::Large { path, limit: DEPTH_MAX, what });
            }
            if *parent == at {
                break;
            }
            at = *parent;
        }
        Ok(())
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn file_count(&self) -> u64 {
        self.files
    }

    /// The files with what was known of them, in the order of their entries.
    pub fn files(&self) -> impl Iterator<Item = (u32, FileState)> {
        let file = |(index, entry): (u32, &Entry)| match &entry.kind {
            Kind::File(state) => Some((index, *state)),
            Kind::Directory { .. } => None,
        };
        (0..).zip(&self.entries).filter_map(file)
    }

    /// Where an entry is found.
    pub fn path(&self, index: u32) -> PathBuf {
        let mut names = Vec::new();
        let mut at = index;
        loop {
            let entry = &self.entries[at as usize];
            if entry.parent == at {
                break;
            }
            names.push(std::ffi::OsStr::from_bytes(self.name(entry)));
            at = entry.parent;
        }
        let mut path = self.root.clone();
        path.extend(names.iter().rev());
        path
    }

    fn name(&self, entry: &Entry) -> &[u8] {
        &self.names[entry.name.start as usize..entry.name.end as usize]
    }

    /// Says what a file's bytes hash to.
    pub fn set_digest(&mut self, file: u32, digest: [u8; 32]) {
        self.entries[file as usize].digest = digest;
    }

    /// The digest of the whole, once those of all files are set.
    pub fn digest(&mut self) -> DataDigest {
        // From the last to the first: what a directory holds has its digest before it (T1).
        for index in (0..self.entries.len()).rev() {
            let Kind::Directory { children, .. } = &self.entries[index].kind else { continue };
            let mut hasher = blake3::Hasher::new_derive_key(DIRECTORY_CONTEXT);
            for child in &self.entries[children.start as usize..children.end as usize] {
                let name = self.name(child);
                hasher.update(&(name.len() as u64).to_le_bytes());
                hasher.update(name);
                hasher.update(&[u8::from(matches!(child.kind, Kind::Directory { .. }))]);
                hasher.update(&child.digest);
            }
            self.entries[index].digest = *hasher.finalize().as_bytes();
        }
        DataDigest(self.entries[0].digest)
    }

    /// Names, sizes and times of all files.
    pub fn stamp(&self) -> Stamp {
        let mut hasher = blake3::Hasher::new();
        for entry in &self.entries {
            let name = self.name(entry);
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name);
            hasher.update(&entry.parent.to_le_bytes());
            if let Kind::File(state) = &entry.kind {
                hasher.update(&state.bytes.to_le_bytes());
                for time in state.times {
                    hasher.update(&time.to_le_bytes());
                }
            }
        }
        Stamp(*hasher.finalize().as_bytes())
    }
}

fn place(index: usize) -> u32 {
    u32::try_from(index).expect("4,000,000 names of 255 bytes fit in 4 GiB")
}
