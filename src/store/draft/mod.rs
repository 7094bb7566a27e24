//! A draft: an ordinary directory, served by node number as the kernel's file system calls ask.
//!
//! All of POSIX is the backing file system's; this is only the way from a node to its object. A
//! node is an inode of the backing file system with the names we were told of, and is reached by
//! such a name from an open descriptor of the draft's directory, never through a symbolic link.
//! What was reached is compared with what the node stands for, so a change behind our back gives
//! ESTALE and never another file. An object without a name is reached by an open descriptor of it.
//!
//! Permissions are not checked here: whoever calls has done so (`default_permissions`).
//! Every error is an `io::Error` with the errno for the caller.

mod file;
mod freeze;
mod nodes;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

pub use file::DraftFile;
pub use freeze::{FreezeError, FrozenDraft};
use nodes::{Inode, NodeTable};

use crate::sys::at;
pub use crate::sys::at::{DirectoryEntry, EntryKind, SetTime, Status};

/// Longest name of an entry.
const NAME_BYTES_MAX: usize = 255;

/// Longest path that the kernel resolves in one call, without the NUL.
const PATH_BYTES_MAX: usize = libc::PATH_MAX as usize - 1;

/// How often `create` without O_EXCL looks again when the name comes and goes.
const CREATE_TRIES_MAX: u32 = 16;

/// What of an open's flags reaches the backing file: the access, and what changes reads and writes.
const OPEN_FLAGS_KEPT: i32 =
    libc::O_ACCMODE | libc::O_APPEND | libc::O_TRUNC | libc::O_SYNC | libc::O_DSYNC;

/// An object of a draft; valid from the call that gave it until it is forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The draft's own directory; always valid, also after the draft was sealed and begun anew.
    pub const ROOT: NodeId = NodeId(1);
}

/// Who makes an object, and so will own it where the process may give objects away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Creator {
    pub uid: u32,
    pub gid: u32,
}

/// Attributes to change; `None` keeps one.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SetAttributes {
    /// Permission bits; type bits are ignored.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
}

/// One draft. Clones are the same draft.
#[derive(Clone, Debug)]
pub struct DraftTree {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    /// Whether new objects can be given to their creator.
    gives_away: bool,
    /// Guards where things are: shared by all that resolves a name, exclusive for what takes a name
    /// away (rename, unlink, rmdir, consume) and for freeze. Taken with no other lock held, and
    /// never twice by one thread.
    space: RwLock<Space>,
    /// Guards what is known; held for memory operations only. May be taken under `space`.
    nodes: Mutex<NodeTable>,
}

#[derive(Debug)]
struct Space {
    /// The draft's directory, opened with O_PATH.
    root: OwnedFd,
    frozen: Vec<Frozen>,
    next_freeze: u64,
}

#[derive(Debug)]
struct Frozen {
    id: u64,
    sub: PathBuf,
}

/// The object of a node, reached.
struct Located<'a> {
    place: Place<'a>,
    status: Status,
}

enum Place<'a> {
    Root(&'a OwnedFd),
    /// An O_PATH descriptor, and the path that led to it.
    Named(OwnedFd, PathBuf),
    /// No name leads there, but it is open.
    Unnamed(Arc<File>),
}

/// What kind of name a removal takes away.
#[derive(Clone, Copy)]
enum Removal {
    File,
    Directory,
}

impl AsFd for Located<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.place {
            Place::Root(descriptor) => descriptor.as_fd(),
            Place::Named(descriptor, _) => descriptor.as_fd(),
            Place::Unnamed(file) => file.as_fd(),
        }
    }
}

impl Located<'_> {
    /// ENAMETOOLONG where an entry `name` of this directory could not be reached by its path.
    fn check_room(&self, name: &OsStr) -> io::Result<()> {
        let bytes = match &self.place {
            Place::Named(_, path) => path.as_os_str().len() + 1 + name.len(),
            Place::Root(_) | Place::Unnamed(_) => name.len(),
        };
        if PATH_BYTES_MAX < bytes { Err(error(libc::ENAMETOOLONG)) } else { Ok(()) }
    }
}

impl DraftTree {
    /// Serves `directory`, which exists and whose last component is no link.
    pub fn open(directory: &Path) -> io::Result<DraftTree> {
        let root = at::open_directory(directory)?;
        let nodes = NodeTable::new(Inode::of(&at::status(&root)?));
        let space = Space { root, frozen: Vec::new(), next_freeze: 0 };
        let shared = Shared {
            directory: directory.to_owned(),
            gives_away: at::is_root(),
            space: RwLock::new(space),
            nodes: Mutex::new(nodes),
        };
        Ok(DraftTree { shared: Arc::new(shared) })
    }

    /// Where the draft is on the backing file system.
    pub fn directory(&self) -> &Path {
        &self.shared.directory
    }

    /// Finds an entry and takes a reference to it.
    pub fn lookup(&self, parent: NodeId, name: &OsStr) -> io::Result<(NodeId, Status)> {
        check_name(name)?;
        let space = self.shared.space.read();
        let directory = self.shared.locate_directory(&space, parent)?;
        let status = at::status_at(&directory, name)?;
        Ok((self.shared.intern(parent, name, &status)?, status))
    }

    /// Gives back `count` references.
    pub fn forget(&self, node: NodeId, count: u64) {
        // Closed after the lock: it may be the last way to a large file.
        drop(self.shared.nodes.lock().forget(node, count));
    }

    pub fn status(&self, node: NodeId) -> io::Result<Status> {
        let space = self.shared.space.read();
        Ok(self.shared.locate(&space, node)?.status)
    }

    /// Changes attributes, in the order size, owner, mode, times; the attributes then.
    ///
    /// A change of owner drops set-id bits of a file, also root's; a mode given with it stays.
    ///
    /// # Errors
    /// EOPNOTSUPP for the mode of a symbolic link. Changes before the one that failed stay made.
    pub fn set_attributes(&self, node: NodeId, change: &SetAttributes) -> io::Result<Status> {
        let space = self.shared.space.read();
        let object = self.shared.locate(&space, node)?;
        if *change == SetAttributes::default() {
            return Ok(object.status);
        }
        self.shared.check_object(&space, node, &object.status)?;
        if let Some(bytes) = change.size {
            self.shared.truncate(&space, node, &object, bytes)?;
        }
        if change.uid.is_some() || change.gid.is_some() {
            at::change_owner(&object, change.uid, change.gid)?;
        }
        if let Some(mode) = change.mode {
            at::change_mode(&object, mode)?;
        }
        if change.atime.is_some() || change.mtime.is_some() {
            at::set_times(&object, change.atime, change.mtime)?;
        }
        at::status(&object)
    }

    /// Sets mode, owner and group of the draft's own directory, also while it is frozen: they are no
    /// part of what is sealed, and the empty draft that comes after has them.
    pub fn set_root_access(&self, mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
        let space = self.shared.space.read();
        if let Some((uid, gid)) = owner {
            at::change_owner(&space.root, Some(uid), Some(gid))?;
        }
        at::change_mode(&space.root, mode)
    }

    /// Creates a file, or opens the one that is there where `flags` lack O_EXCL.
    pub fn create(
        &self,
        parent: NodeId,
        name: &OsStr,
        mode: u32,
        flags: i32,
        creator: &Creator,
    ) -> io::Result<(NodeId, Status, DraftFile)> {
        check_name(name)?;
        let (kept, writable) = open_flags(flags)?;
        let shared = &self.shared;
        let space = shared.space.read();
        shared.check_directory(&space, parent)?;
        let directory = shared.locate_directory(&space, parent)?;
        directory.check_room(name)?;
        let fresh = kept | libc::O_CREAT | libc::O_EXCL;
        for _ in 0..CREATE_TRIES_MAX {
            let made = match at::open_at(&directory, name, fresh, mode) {
                Ok(made) => made,
                Err(error) if !has_errno(&error, libc::EEXIST) => return Err(error),
                Err(error) if flags & libc::O_EXCL != 0 => return Err(error),
                Err(_exists) => match self.open_existing(&space, parent, name, flags) {
                    Err(error) if has_errno(&error, libc::ENOENT) => continue,
                    opened => return opened,
                },
            };
            let adopted = shared.adopt(&made, &directory.status, mode, creator);
            let status = undo_on_error(adopted, || at::unlink(&directory, name))?;
            let node = shared.intern(parent, name, &status)?;
            let file = DraftFile::new(shared, node, File::from(made), writable)?;
            return Ok((node, status, file));
        }
        // The name comes and goes faster than we can look, so it was there all the same.
        Err(error(libc::EEXIST))
    }

    /// Opens a regular file; access, O_APPEND, O_TRUNC and the sync flags count, others do not.
    pub fn open_file(&self, node: NodeId, flags: i32) -> io::Result<DraftFile> {
        let space = self.shared.space.read();
        self.open_checked(&space, node, flags)
    }

    /// Makes a directory; in one with the set-group-id bit it inherits group and bit.
    pub fn make_directory(
        &self,
        parent: NodeId,
        name: &OsStr,
        mode: u32,
        creator: &Creator,
    ) -> io::Result<(NodeId, Status)> {
        let mode = libc::S_IFDIR | mode & 0o7777;
        self.make(parent, name, mode, creator, |at| at::make_directory(at, name, mode))
    }

    /// Makes a fifo, socket, device or empty file; the type bits of `mode` say which.
    pub fn make_node(
        &self,
        parent: NodeId,
        name: &OsStr,
        mode: u32,
        rdev: u64,
        creator: &Creator,
    ) -> io::Result<(NodeId, Status)> {
        self.make(parent, name, mode, creator, |at| at::make_node(at, name, mode, rdev))
    }

    /// Makes a symbolic link with any text; what it leads to is not looked at.
    pub fn symlink(
        &self,
        parent: NodeId,
        name: &OsStr,
        target: &OsStr,
        creator: &Creator,
    ) -> io::Result<(NodeId, Status)> {
        let mode = libc::S_IFLNK | 0o777;
        self.make(parent, name, mode, creator, |at| at::make_symlink(at, name, target))
    }

    /// Gives an object a second name.
    pub fn link(
        &self,
        node: NodeId,
        new_parent: NodeId,
        new_name: &OsStr,
    ) -> io::Result<(NodeId, Status)> {
        check_name(new_name)?;
        let shared = &self.shared;
        let space = shared.space.read();
        let object = shared.locate(&space, node)?;
        shared.check_object(&space, node, &object.status)?;
        shared.check_directory(&space, new_parent)?;
        let directory = shared.locate_directory(&space, new_parent)?;
        directory.check_room(new_name)?;
        let path = match &object.place {
            Place::Root(_) => return Err(error(libc::EPERM)),
            Place::Unnamed(_) => return Err(error(libc::ENOENT)),
            Place::Named(_, path) => path,
        };
        let name = path.file_name().expect("a node's path ends in a name");
        let source = path.parent().expect("a path with a last component has a parent");
        let source = at::open_beneath(&space.root, source, libc::O_PATH | libc::O_DIRECTORY)?;
        at::link(&source, name, &directory, new_name)?;
        let status = at::status_at(&directory, new_name)?;
        if Inode::of(&status) != Inode::of(&object.status) {
            // Changed behind our back between the two steps: this is not what was asked for.
            at::unlink(&directory, new_name)?;
            return Err(error(libc::ESTALE));
        }
        Ok((shared.intern(new_parent, new_name, &status)?, status))
    }

    /// Removes a name that is not a directory's.
    pub fn unlink(&self, parent: NodeId, name: &OsStr) -> io::Result<()> {
        self.remove(parent, name, Removal::File)
    }

    /// Removes an empty directory.
    pub fn remove_directory(&self, parent: NodeId, name: &OsStr) -> io::Result<()> {
        self.remove(parent, name, Removal::Directory)
    }

    /// Renames an entry; `flags` are 0, RENAME_NOREPLACE or RENAME_EXCHANGE.
    pub fn rename(
        &self,
        parent: NodeId,
        name: &OsStr,
        new_parent: NodeId,
        new_name: &OsStr,
        flags: u32,
    ) -> io::Result<()> {
        check_name(name)?;
        check_name(new_name)?;
        if flags & !(libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE) != 0 {
            return Err(error(libc::EINVAL));
        }
        let shared = &self.shared;
        // Before `space`, so that it is closed after that is given back: see `remove`.
        let replaced;
        let space = shared.space.write();
        shared.check_entry(&space, parent, name)?;
        shared.check_entry(&space, new_parent, new_name)?;
        let from = shared.locate_directory(&space, parent)?;
        let to = shared.locate_directory(&space, new_parent)?;
        to.check_room(new_name)?;
        let moved = Inode::of(&at::status_at(&from, name)?);
        replaced = match at::open_at(&to, new_name, libc::O_PATH, 0) {
            Ok(there) => Some((Inode::of(&at::status(&there)?), Arc::new(File::from(there)))),
            Err(error) if has_errno(&error, libc::ENOENT) => None,
            Err(error) => return Err(error),
        };
        at::rename(&from, name, &to, new_name, flags)?;
        let gone = match &replaced {
            Some((_, there)) => is_gone(&**there)?,
            None => false,
        };
        let mut nodes = shared.nodes.lock();
        match &replaced {
            // Two names of one object: rename does nothing then.
            Some((inode, _)) if *inode == moved => return Ok(()),
            Some((inode, _)) if flags & libc::RENAME_EXCHANGE != 0 => {
                nodes.move_name(*inode, (new_parent, new_name), (parent, name));
            }
            Some((inode, there)) => {
                nodes.remove_name(*inode, (new_parent, new_name), gone, there);
            }
            None => {}
        }
        nodes.move_name(moved, (parent, name), (new_parent, new_name));
        Ok(())
    }

    /// Reads the text of a symbolic link.
    pub fn readlink(&self, node: NodeId) -> io::Result<OsString> {
        let space = self.shared.space.read();
        at::read_link(self.shared.locate(&space, node)?)
    }

    /// Lists a directory, without `.` and `..`, in the backing file system's order.
    pub fn list(&self, node: NodeId) -> io::Result<Vec<DirectoryEntry>> {
        // The listing itself needs no lock: only the way there does.
        at::list(self.open_directory(node)?)
    }

    /// Makes the entries of a directory durable.
    pub fn sync_directory(&self, node: NodeId) -> io::Result<()> {
        at::sync(self.open_directory(node)?)
    }

    /// Whether the draft holds nothing at all.
    pub fn is_empty(&self) -> io::Result<bool> {
        at::is_empty(self.open_directory(NodeId::ROOT)?)
    }

    fn open_directory(&self, node: NodeId) -> io::Result<OwnedFd> {
        let space = self.shared.space.read();
        let object = self.shared.locate_directory(&space, node)?;
        at::open_at(&object, OsStr::new("."), libc::O_RDONLY | libc::O_DIRECTORY, 0)
    }

    fn make(
        &self,
        parent: NodeId,
        name: &OsStr,
        mode: u32,
        creator: &Creator,
        call: impl FnOnce(&Located) -> io::Result<()>,
    ) -> io::Result<(NodeId, Status)> {
        check_name(name)?;
        let shared = &self.shared;
        let space = shared.space.read();
        shared.check_directory(&space, parent)?;
        let directory = shared.locate_directory(&space, parent)?;
        directory.check_room(name)?;
        call(&directory)?;
        let made = at::open_at(&directory, name, libc::O_PATH, 0)?;
        let adopted = shared.adopt(&made, &directory.status, mode, creator);
        let status = undo_on_error(adopted, || match mode & libc::S_IFMT {
            libc::S_IFDIR => at::remove_directory(&directory, name),
            _ => at::unlink(&directory, name),
        })?;
        Ok((shared.intern(parent, name, &status)?, status))
    }

    fn open_checked(&self, space: &Space, node: NodeId, flags: i32) -> io::Result<DraftFile> {
        let (kept, writable) = open_flags(flags)?;
        let object = self.shared.locate(space, node)?;
        if writable || kept & libc::O_TRUNC != 0 {
            self.shared.check_object(space, node, &object.status)?;
        }
        let file = self.shared.open_located(space, &object, kept)?;
        DraftFile::new(&self.shared, node, file, writable)
    }

    /// Opens what was there when it was to be created.
    fn open_existing(
        &self,
        space: &Space,
        parent: NodeId,
        name: &OsStr,
        flags: i32,
    ) -> io::Result<(NodeId, Status, DraftFile)> {
        let directory = self.shared.locate_directory(space, parent)?;
        let node = self.shared.intern(parent, name, &at::status_at(&directory, name)?)?;
        let opened = self.open_checked(space, node, flags);
        let opened = opened.and_then(|file| Ok((node, file.status()?, file)));
        if opened.is_err() {
            self.forget(node, 1);
        }
        opened
    }

    fn remove(&self, parent: NodeId, name: &OsStr, removal: Removal) -> io::Result<()> {
        check_name(name)?;
        let shared = &self.shared;
        // Before `space`, so that it is closed after that is given back: the last descriptor of a
        // large file frees its blocks, which may take long.
        let removed;
        let space = shared.space.write();
        shared.check_entry(&space, parent, name)?;
        let directory = shared.locate_directory(&space, parent)?;
        removed = Arc::new(File::from(at::open_at(&directory, name, libc::O_PATH, 0)?));
        let inode = Inode::of(&at::status(&*removed)?);
        match removal {
            Removal::File => at::unlink(&directory, name)?,
            Removal::Directory => at::remove_directory(&directory, name)?,
        }
        let gone = is_gone(&*removed)?;
        shared.nodes.lock().remove_name(inode, (parent, name), gone, &removed);
        Ok(())
    }
}

impl Shared {
    fn intern(&self, parent: NodeId, name: &OsStr, status: &Status) -> io::Result<NodeId> {
        self.nodes.lock().intern(parent, name, status).ok_or_else(|| error(libc::ESTALE))
    }

    /// Reaches the object of a node.
    fn locate<'a>(&self, space: &'a Space, node: NodeId) -> io::Result<Located<'a>> {
        if node == NodeId::ROOT {
            let status = at::status(&space.root)?;
            return Ok(Located { place: Place::Root(&space.root), status });
        }
        let (inode, path, opened) = {
            let nodes = self.nodes.lock();
            (nodes.inode(node)?, nodes.path(node), nodes.opened(node))
        };
        let reason = match path.and_then(|path| reach(space, path)) {
            Ok(found) if Inode::of(&found.status) == inode => return Ok(found),
            Ok(_other_object) => error(libc::ESTALE),
            Err(error) if names_nothing(&error) => self::error(libc::ESTALE),
            Err(error) => error,
        };
        let file = opened.ok_or(reason)?;
        let status = at::status(&*file)?;
        Ok(Located { place: Place::Unnamed(file), status })
    }

    /// Reaches a directory; ENOTDIR for anything else.
    fn locate_directory<'a>(&self, space: &'a Space, node: NodeId) -> io::Result<Located<'a>> {
        let found = self.locate(space, node)?;
        let is_directory = found.status.kind() == EntryKind::Directory;
        if is_directory { Ok(found) } else { Err(error(libc::ENOTDIR)) }
    }

    /// Opens the file that was located, for data.
    fn open_located(&self, space: &Space, object: &Located, flags: i32) -> io::Result<File> {
        match object.status.kind() {
            EntryKind::File => {}
            EntryKind::Directory => return Err(error(libc::EISDIR)),
            EntryKind::Symlink => return Err(error(libc::ELOOP)),
            // The kernel that asks us opens these itself; what we serve is their names.
            _ => return Err(error(libc::ENXIO)),
        }
        let opened = match &object.place {
            Place::Named(_, path) => {
                // O_NONBLOCK: should it be a fifo by now, we are not to hang.
                at::open_beneath(&space.root, path, flags & !libc::O_TRUNC | libc::O_NONBLOCK)?
            }
            Place::Unnamed(file) => at::reopen(&**file, flags & !libc::O_TRUNC)?,
            Place::Root(_) => return Err(error(libc::EISDIR)),
        };
        if Inode::of(&at::status(&opened)?) != Inode::of(&object.status) {
            return Err(error(libc::ESTALE));
        }
        // Only now, so that a file that took the name behind our back is not cut off.
        if flags & libc::O_TRUNC != 0 {
            at::set_len(&opened, 0)?;
        }
        Ok(File::from(opened))
    }

    fn truncate(
        &self,
        space: &Space,
        node: NodeId,
        object: &Located,
        bytes: u64,
    ) -> io::Result<()> {
        // A descriptor that may write may go on doing so, whatever the mode says by now.
        let opened = self.nodes.lock().opened_writable(node);
        match opened {
            Some(file) => at::set_len(&*file, bytes),
            None => at::set_len(self.open_located(space, object, libc::O_WRONLY)?, bytes),
        }
    }

    /// Gives what was just made to its creator, with the mode asked for; its attributes then.
    fn adopt(
        &self,
        made: &OwnedFd,
        parent: &Status,
        mode: u32,
        creator: &Creator,
    ) -> io::Result<Status> {
        let status = at::status(made)?;
        let inherits = parent.mode & libc::S_ISGID != 0;
        let gid = if inherits { parent.gid } else { creator.gid };
        let foreign = self.gives_away && (status.uid, status.gid) != (creator.uid, gid);
        if foreign {
            at::change_owner(made, Some(creator.uid), Some(gid))?;
        }
        let kind = status.kind();
        let inherited = if inherits && kind == EntryKind::Directory { libc::S_ISGID } else { 0 };
        let wanted = mode & 0o7777 | inherited;
        // The owner's change drops set-id bits, and the process may have a umask.
        let set_id = foreign && wanted & (libc::S_ISUID | libc::S_ISGID) != 0;
        let redress = set_id || status.permissions() != wanted;
        if redress && kind != EntryKind::Symlink {
            at::change_mode(made, wanted)?;
        }
        at::status(made)
    }

    /// EBUSY where the entries of a directory are frozen.
    fn check_directory(&self, space: &Space, node: NodeId) -> io::Result<()> {
        if space.frozen.is_empty() {
            return Ok(());
        }
        let path = self.nodes.lock().path(node)?;
        if space.covers(&path) { Err(error(libc::EBUSY)) } else { Ok(()) }
    }

    /// EBUSY where an entry is frozen, or leads to what is.
    fn check_entry(&self, space: &Space, parent: NodeId, name: &OsStr) -> io::Result<()> {
        if space.frozen.is_empty() {
            return Ok(());
        }
        let path = self.nodes.lock().path(parent)?.join(name);
        if space.pins(&path) { Err(error(libc::EBUSY)) } else { Ok(()) }
    }

    /// EBUSY where an object is frozen by any of its names, or could be by one we do not know.
    fn check_object(&self, space: &Space, node: NodeId, status: &Status) -> io::Result<()> {
        if space.frozen.is_empty() {
            return Ok(());
        }
        let paths = self.nodes.lock().paths(node);
        let is_file = status.kind() != EntryKind::Directory;
        let hidden = is_file && (paths.len() as u64) < status.nlink;
        let frozen = hidden || paths.iter().any(|path| space.covers(path));
        if frozen { Err(error(libc::EBUSY)) } else { Ok(()) }
    }
}

fn reach(space: &Space, path: PathBuf) -> io::Result<Located<'_>> {
    let descriptor = at::open_beneath(&space.root, &path, libc::O_PATH)?;
    let status = at::status(&descriptor)?;
    Ok(Located { place: Place::Named(descriptor, path), status })
}

/// The flags for the backing file, and whether they let write.
fn open_flags(flags: i32) -> io::Result<(i32, bool)> {
    match flags & libc::O_ACCMODE {
        libc::O_RDONLY => Ok((flags & OPEN_FLAGS_KEPT, false)),
        libc::O_WRONLY | libc::O_RDWR => Ok((flags & OPEN_FLAGS_KEPT, true)),
        _ => Err(error(libc::EINVAL)),
    }
}

/// A name is one component and no way to another directory.
fn check_name(name: &OsStr) -> io::Result<()> {
    let bytes = name.as_bytes();
    if bytes.is_empty() {
        Err(error(libc::ENOENT))
    } else if NAME_BYTES_MAX < bytes.len() {
        Err(error(libc::ENAMETOOLONG))
    } else if bytes == b"." || bytes == b".." || bytes.iter().any(|byte| matches!(byte, b'/' | 0)) {
        Err(error(libc::EINVAL))
    } else {
        Ok(())
    }
}

/// Takes back a step whose next one failed; that one's reason is the answer.
fn undo_on_error<T>(result: io::Result<T>, undo: impl FnOnce() -> io::Result<()>) -> io::Result<T> {
    if result.is_err()
        && let Err(error) = undo()
    {
        log::warn!("cannot take back an object that could not be given to its creator: {error}");
    }
    result
}

/// Whether no name leads to the object behind `descriptor` any more.
fn is_gone(descriptor: impl AsFd) -> io::Result<bool> {
    let status = at::status(descriptor)?;
    Ok(status.nlink == 0 || status.kind() == EntryKind::Directory)
}

fn names_nothing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP))
}

fn has_errno(error: &io::Error, errno: i32) -> bool {
    error.raw_os_error() == Some(errno)
}

fn error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}
