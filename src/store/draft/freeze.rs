//! Freezing a draft, or a directory in it, for as long as it is being sealed.
//!
//! Invariant D3: while a `FrozenDraft` exists, nothing below it changes through the tree: nobody
//! has a file in it open for writing, nobody can open one, and no name or attribute moves; only the
//! link count of a file may fall, when a name of it elsewhere goes, and the draft's own directory has
//! the owner and mode of its model at all times. What the tree cannot see, such
//! as a writable mapping that has outlived its descriptor, is caught by a lease (`sys::lease`) on
//! each file while it is read.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use super::nodes::{Inode, Writer};
use super::{DraftTree, Frozen, Shared, Space, Status, error};
use crate::sys::at;

/// Why a draft could not be frozen.
#[derive(Debug, Error)]
pub enum FreezeError {
    #[error(
        "{} open for writing in the draft: {}; close what is open and try again",
        plural(.paths.len()), quoted(.paths)
    )]
    Busy {
        /// Relative to the draft, sorted.
        paths: Vec<PathBuf>,
    },
    #[error("`{}` in the draft is being sealed already; wait for that to end", .path.display())]
    Frozen { path: PathBuf },
    #[error(
        "`{}` is no directory in the draft; give the path of one, relative to it",
        .path.display()
    )]
    NotFound { path: PathBuf },
    #[error("cannot freeze `{}`", .path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A directory of a draft in which nothing changes; dropping it lets changes in again.
#[derive(Debug)]
pub struct FrozenDraft {
    shared: Arc<Shared>,
    id: u64,
    sub: PathBuf,
    path: PathBuf,
    directory: File,
}

impl DraftTree {
    /// Freezes `sub`, relative to the draft; empty for all of it.
    ///
    /// # Errors
    /// `Busy` with what is open for writing, `Frozen` where it overlaps with another freeze.
    pub fn freeze(&self, sub: &Path) -> Result<FrozenDraft, FreezeError> {
        let shared = &self.shared;
        let not_found = || FreezeError::NotFound { path: sub.to_owned() };
        let sub = plain_path(sub).ok_or_else(not_found)?;
        let mut space = shared.space.write();
        if let Some(other) = space.frozen.iter().find(|other| overlap(&other.sub, &sub)) {
            return Err(FreezeError::Frozen { path: other.sub.clone() });
        }
        let path = shared.directory.join(&sub);
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let opened = at::open_beneath(&space.root, &sub, flags);
        let directory = opened.map_err(|source| match source.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => not_found(),
            _ => FreezeError::Io { path: path.clone(), source },
        })?;
        let writers = shared.nodes.lock().writers();
        let paths = busy_paths(&writers, &sub)
            .map_err(|source| FreezeError::Io { path: path.clone(), source })?;
        if !paths.is_empty() {
            return Err(FreezeError::Busy { paths });
        }
        let id = space.next_freeze;
        space.next_freeze += 1;
        space.frozen.push(Frozen { id, sub: sub.clone() });
        let directory = File::from(directory);
        Ok(FrozenDraft { shared: Arc::clone(shared), id, sub, path, directory })
    }
}

impl FrozenDraft {
    /// The frozen directory, opened for listing and for resolving from.
    pub fn directory(&self) -> &File {
        &self.directory
    }

    /// Where the frozen directory is on the backing file system.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it is in the draft; empty for the draft itself.
    pub fn sub(&self) -> &Path {
        &self.sub
    }

    /// Moves the frozen tree to `destination`, which must not exist and must be on the same file
    /// system, and ends the freeze.
    ///
    /// The draft's own directory is replaced by an empty one with the same owner and mode, in one
    /// step where the file system can; a directory in the draft is simply gone. Descriptors stay
    /// good, nodes of the tree answer ESTALE from here on. Nothing is made durable. Gives the inodes,
    /// with their devices, that can still be reached through the draft: those that somebody has open.
    ///
    /// # Errors
    /// The system call's; the draft is then as it was, and no longer frozen.
    pub fn consume(self, destination: &Path) -> io::Result<HashSet<(u64, u64)>> {
        let shared = &self.shared;
        let mut space = shared.space.write();
        let status = at::status(&self.directory)?;
        if self.sub.as_os_str().is_empty() {
            let fresh = swap_for_fresh(&shared.directory, destination, &status)?;
            let inode = Inode::of(&at::status(&fresh)?);
            let mut nodes = shared.nodes.lock();
            nodes.cut(Inode::of(&status));
            nodes.replace_root(inode);
            space.root = fresh;
        } else {
            let (parent, name) = split(&self.sub)?;
            let parent = at::open_beneath(&space.root, parent, libc::O_PATH | libc::O_DIRECTORY)?;
            let (to, to_name) = open_parent(destination)?;
            let moved = at::rename(&parent, name, &to, to_name, libc::RENAME_NOREPLACE);
            match moved.as_ref().map_err(io::Error::raw_os_error) {
                // The file system has no such flag; the caller says that nothing is there.
                Err(Some(libc::EINVAL | libc::ENOSYS)) => {
                    at::rename(&parent, name, &to, to_name, 0)?;
                }
                _ => moved?,
            }
            shared.nodes.lock().cut(Inode::of(&status));
        }
        let held = shared.nodes.lock().held();
        space.frozen.retain(|frozen| frozen.id != self.id);
        drop(space);
        Ok(held)
    }
}

impl Drop for FrozenDraft {
    fn drop(&mut self) {
        self.shared.space.write().frozen.retain(|frozen| frozen.id != self.id);
    }
}

impl Space {
    /// Whether something at `path` may not change.
    pub(super) fn covers(&self, path: &Path) -> bool {
        self.frozen.iter().any(|frozen| path.starts_with(&frozen.sub))
    }

    /// Whether the entry at `path` may not be moved or removed: it may also lead to what is frozen.
    pub(super) fn pins(&self, path: &Path) -> bool {
        self.frozen.iter().any(|frozen| overlap(path, &frozen.sub))
    }
}

/// The names of all that is open for writing in `sub`.
///
/// A file with a link that we were never told of may be in `sub` by it, so it counts.
fn busy_paths(writers: &[Writer], sub: &Path) -> io::Result<Vec<PathBuf>> {
    let mut busy = Vec::new();
    for writer in writers {
        let status = at::status(&*writer.file)?;
        if status.nlink == 0 {
            continue;
        }
        let inside = writer.paths.iter().filter(|path| path.starts_with(sub));
        let before = busy.len();
        busy.extend(inside.cloned());
        if busy.len() == before && (writer.paths.len() as u64) < status.nlink {
            let unnamed = || PathBuf::from(format!("(another name of inode {})", status.ino));
            busy.push(writer.paths.first().cloned().unwrap_or_else(unnamed));
        }
    }
    busy.sort();
    Ok(busy)
}

/// Exchanges `directory` for an empty one with the attributes of `status`; the latter's descriptor.
fn swap_for_fresh(directory: &Path, destination: &Path, status: &Status) -> io::Result<OwnedFd> {
    let (from, from_name) = open_parent(directory)?;
    let (to, to_name) = open_parent(destination)?;
    let fresh = make_like(&to, to_name, status)?;
    match at::rename(&from, from_name, &to, to_name, libc::RENAME_EXCHANGE) {
        Ok(()) => Ok(fresh),
        Err(error) => {
            at::remove_directory(&to, to_name)?;
            // EINVAL, ENOSYS: the file system cannot exchange, so the draft is gone for a moment.
            if !matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) {
                return Err(error);
            }
            at::rename(&from, from_name, &to, to_name, 0)?;
            make_like(&from, from_name, status).or_else(|error| {
                at::rename(&to, to_name, &from, from_name, 0)?;
                Err(error)
            })
        }
    }
}

/// Makes an empty directory with the owner and mode of `status`.
fn make_like(parent: &OwnedFd, name: &OsStr, status: &Status) -> io::Result<OwnedFd> {
    at::make_directory(parent, name, 0o700)?;
    let dress = || {
        let made = at::open_at(parent, name, libc::O_PATH | libc::O_DIRECTORY, 0)?;
        let own = at::status(&made)?;
        if (own.uid, own.gid) != (status.uid, status.gid) {
            at::change_owner(&made, Some(status.uid), Some(status.gid))?;
        }
        at::change_mode(&made, status.permissions())?;
        Ok(made)
    };
    dress().or_else(|error: io::Error| {
        at::remove_directory(parent, name)?;
        Err(error)
    })
}

fn open_parent(path: &Path) -> io::Result<(OwnedFd, &OsStr)> {
    let (parent, name) = split(path)?;
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    Ok((at::open_directory(parent)?, name))
}

/// The directory and the last component of a path; EINVAL where it ends in no name.
fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let (parent, name) = (path.parent(), path.file_name());
    parent.zip(name).ok_or_else(|| error(libc::EINVAL))
}

/// `path` without `.` and doubled slashes; `None` where it is absolute or has a `..`.
fn plain_path(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::ParentDir => return None,
        }
    }
    Some(plain)
}

fn overlap(one: &Path, other: &Path) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

fn plural(count: usize) -> String {
    if count == 1 { "1 file is".to_owned() } else { format!("{count} files are") }
}

/// The first few paths, each in backticks and with control characters escaped.
fn quoted(paths: &[PathBuf]) -> String {
    const PATHS_SHOWN_MAX: usize = 10;
    let shown = paths.iter().take(PATHS_SHOWN_MAX);
    let mut text: Vec<String> =
        shown.map(|path| format!("`{}`", path.to_string_lossy().escape_debug())).collect();
    if PATHS_SHOWN_MAX < paths.len() {
        text.push(format!("and {} more", paths.len() - PATHS_SHOWN_MAX));
    }
    text.join(", ")
}
