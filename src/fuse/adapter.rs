//! The kernel's requests, one method each: translate, ask the tree, answer.
//!
//! Invariant F3: each request is answered once, whatever happens, a panic included; a request that
//! is not answered hangs its program for ever. Errors are logged here and nowhere below.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BackingId, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, FopenFlags,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags,
    PollNotifier, RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::answers::{
    GENERATION, answer_empty, answer_entry, answer_later, answer_opened, answer_to, answer_written,
    guarded,
};
use super::convert;
use super::passthrough::{Modes, Refusal, Unusable};
use crate::fs::{
    Backing, Cache, Changes, Detail, Entry, Filesystem, Flow, FsError, Kind, Lookup,
    NAME_BYTES_MAX, Opened, Opening, Reader, RenameMode, Requester, SyncScope, Way, Written,
};

/// Largest piece that the kernel writes at once.
const WRITE_BYTES_MAX: u32 = 1 << 20;
/// Most requests that the kernel sends ahead of programs, such as read-ahead.
const BACKGROUND_MAX: u16 = 64;
/// The disk behind drafts and hot files may be one file system, but none that is stacked on another.
const STACK_DEPTH: u32 = 1;

thread_local! {
    /// What a read is answered from; grows to the largest read of its thread, at most 1 MiB.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Serves a tree to the kernel.
pub(super) struct Adapter {
    filesystem: Arc<Filesystem>,
    modes: Modes<Registered>,
}

/// A file that the kernel uses by itself.
struct Registered {
    id: BackingId,
    /// The file again, where it has to stay what it is; a draft's is not held any longer than by who
    /// has it open.
    immutable: Option<Backing>,
}

impl Adapter {
    pub(super) fn new(filesystem: Arc<Filesystem>) -> Self {
        Self { filesystem, modes: Modes::new() }
    }

    /// Does the work of a request; what went wrong as the errno to answer.
    fn ask<T>(
        &self,
        request: &str,
        work: impl FnOnce(&Filesystem) -> Result<T, FsError>,
    ) -> Result<T, Errno> {
        guarded(|| work(&self.filesystem)).map_err(|error| answer_to(request, &error))
    }

    /// Says how an opened file does its I/O, and answers the open.
    fn choose<R>(
        &self,
        number: u64,
        opened: &Opened,
        register: impl FnOnce(&Backing) -> io::Result<BackingId>,
        answer: impl FnOnce(Result<(FopenFlags, Option<&BackingId>), Errno>) -> R,
    ) -> R {
        let flags = convert::file_flags(opened);
        if opened.cache == Cache::Direct {
            return answer(Ok((flags, None)));
        }
        let was_enabled = self.modes.is_enabled();
        let register = || {
            let Some(backing) = &opened.backing else { return Err(Refusal::Once) };
            let id = register(backing).map_err(|error| refusal(&error))?;
            Ok(Registered { id, immutable: backing.immutable() })
        };
        let usable = |it: &Registered| it.immutable.as_ref().is_none_or(Backing::is_intact);
        let chosen = self.modes.open(number, register, usable);
        if was_enabled && !self.modes.is_enabled() {
            self.filesystem.set_passthrough(false);
        }
        match chosen {
            Ok(None) => {
                self.filesystem.count_open(opened.handle, Way::Cached);
                answer(Ok((flags, None)))
            }
            Ok(Some(registered)) => {
                self.filesystem.count_open(opened.handle, Way::Passthrough);
                // What the kernel reads by itself is not in its cache for us: the two exclude each
                // other, and it answers EIO to both.
                answer(Ok((flags & !FopenFlags::FOPEN_KEEP_CACHE, Some(&registered.id))))
            }
            Err(Unusable) => {
                log::error!("a hot file that is open was changed: EIO until all have closed it");
                self.filesystem.release(opened.handle);
                answer(Err(Errno::EIO))
            }
        }
    }

    fn list(
        &self,
        handle: FileHandle,
        offset: u64,
        detail: Detail,
        take: &mut dyn FnMut(&Entry<'_>) -> Flow,
    ) -> Result<(), Errno> {
        self.ask("readdir", |fs| fs.list(handle.0, offset, detail, take))
    }
}

/// Whether the kernel will refuse other files as well.
fn refusal(error: &io::Error) -> Refusal {
    match error.raw_os_error() {
        // ELOOP: the disk is stacked on another. EPERM: without CAP_SYS_ADMIN.
        Some(libc::ELOOP | libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOTTY) => {
            log::info!("files go through this process: the kernel says {error}");
            Refusal::ForGood
        }
        _ => {
            log::debug!("a file goes through this process: the kernel says {error}");
            Refusal::Once
        }
    }
}

fn requester(request: &Request) -> Requester {
    Requester { uid: request.uid(), gid: request.gid(), pid: request.pid() }
}

impl fuser::Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // One by one: a kernel that lacks one has the others.
        for wanted in [
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_CACHE_SYMLINKS,
        ] {
            if let Err(missing) = config.add_capabilities(wanted) {
                log::debug!("the kernel lacks {missing:?}");
            }
        }
        let limits = [
            config.set_max_write(WRITE_BYTES_MAX).is_ok(),
            config.set_max_background(BACKGROUND_MAX).is_ok(),
            config.set_max_stack_depth(STACK_DEPTH).is_ok(),
        ];
        assert_eq!(limits, [true; 3], "the limits are within what fuser allows");
        match config.add_capabilities(InitFlags::FUSE_PASSTHROUGH) {
            Ok(()) => {
                self.modes.enable();
                self.filesystem.set_passthrough(true);
            }
            Err(missing) => log::debug!("the kernel lacks {missing:?}"),
        }
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.ask("lookup", |fs| fs.lookup(requester(request), parent.0, name)) {
            Ok(Lookup::Found(found)) => answer_entry(reply, Ok(found)),
            Ok(Lookup::Missing { ttl: Duration::ZERO }) => reply.error(Errno::ENOENT),
            Ok(Lookup::Missing { ttl }) => {
                // An entry with the number 0 is "not there", and may be kept.
                let nothing = convert::bare_attributes(0, Kind::File);
                reply.entry_with_ttls(&Duration::ZERO, &ttl, &nothing, GENERATION);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn forget(&self, _request: &Request, number: INodeNo, lookups: u64) {
        let forgotten = self.ask("forget", |fs| {
            fs.forget(number.0, lookups);
            Ok(())
        });
        // There is no answer to this request, and what went wrong was logged.
        let _ = forgotten;
    }

    fn getattr(
        &self,
        _request: &Request,
        number: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        match self.ask("getattr", |fs| fs.attributes(number.0)) {
            Ok((attributes, ttl)) => reply.attr(&ttl, &convert::attributes(&attributes)),
            Err(errno) => reply.error(errno),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changes = Changes {
            mode,
            uid,
            gid,
            bytes: size,
            accessed: atime.map(convert::new_time),
            modified: mtime.map(convert::new_time),
        };
        let changed =
            self.ask("setattr", |fs| fs.set_attributes(requester(request), number.0, &changes));
        match changed {
            Ok((attributes, ttl)) => reply.attr(&ttl, &convert::attributes(&attributes)),
            Err(errno) => reply.error(errno),
        }
    }

    fn readlink(&self, _request: &Request, number: INodeNo, reply: ReplyData) {
        match self.ask("readlink", |fs| fs.readlink(number.0)) {
            Ok(target) => reply.data(target.as_encoded_bytes()),
            Err(errno) => reply.error(errno),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        let made =
            self.ask("mknod", |fs| fs.make_node(requester(request), parent.0, name, mode, device));
        answer_entry(reply, made);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let made =
            self.ask("mkdir", |fs| fs.make_directory(requester(request), parent.0, name, mode));
        answer_entry(reply, made);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.ask("unlink", |fs| fs.unlink(requester(request), parent.0, name));
        answer_empty(reply, done);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.ask("rmdir", |fs| fs.remove_directory(requester(request), parent.0, name));
        answer_empty(reply, done);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let target = target.as_os_str();
        let made = self.ask("symlink", |fs| fs.symlink(requester(request), parent.0, name, target));
        answer_entry(reply, made);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mode = match flags {
            _ if flags.is_empty() => RenameMode::Replace,
            RenameFlags::RENAME_NOREPLACE => RenameMode::KeepExisting,
            RenameFlags::RENAME_EXCHANGE => RenameMode::Exchange,
            // RENAME_WHITEOUT is for overlays, which a draft is not made for.
            _ => return reply.error(Errno::EINVAL),
        };
        let (from, to) = ((parent.0, name), (new_parent.0, new_name));
        let done = self.ask("rename", |fs| fs.rename(requester(request), from, to, mode));
        answer_empty(reply, done);
    }

    fn link(
        &self,
        request: &Request,
        number: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        let linked = self.ask("link", |fs| fs.link(requester(request), number.0, parent.0, name));
        answer_entry(reply, linked);
    }

    fn open(&self, request: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let opened = self.ask("open", |fs| fs.open(requester(request), number.0, flags.0));
        let opened = match opened {
            Ok(Opening::Done(opened)) => opened,
            Ok(Opening::Pending(pending)) => {
                let filesystem = Arc::clone(&self.filesystem);
                return answer_later("text", move || {
                    answer_opened(reply, guarded(|| pending.wait(&filesystem)));
                });
            }
            Err(errno) => return reply.error(errno),
        };
        let (handle, replying) = (FileHandle(opened.handle), RefCell::new(Some(reply)));
        let register = |backing: &Backing| match &*replying.borrow() {
            Some(reply) => reply.open_backing(backing),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        self.choose(number.0, &opened, register, |chosen| {
            let reply = replying.take().expect("the reply is taken here only");
            match chosen {
                Ok((flags, Some(id))) => reply.opened_passthrough(handle, flags, id),
                Ok((flags, None)) => reply.opened(handle, flags),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let made =
            self.ask("create", |fs| fs.create(requester(request), parent.0, name, mode, flags));
        let (found, opened) = match made {
            Ok(made) => made,
            Err(errno) => return reply.error(errno),
        };
        let attributes = convert::attributes(&found.attributes);
        let ttl = found.entry_ttl.min(found.attribute_ttl);
        let (handle, replying) = (FileHandle(opened.handle), RefCell::new(Some(reply)));
        let register = |backing: &Backing| match &*replying.borrow() {
            Some(reply) => reply.open_backing(backing),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        self.choose(found.attributes.number, &opened, register, |chosen| {
            let reply = replying.take().expect("the reply is taken here only");
            match chosen {
                Ok((flags, Some(id))) => {
                    reply.created_passthrough(&ttl, &attributes, GENERATION, handle, flags, id);
                }
                Ok((flags, None)) => {
                    reply.created(&ttl, &attributes, GENERATION, handle, flags);
                }
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn read(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let size = size as usize;
        // Only a read for a program itself comes with the owner of its locks.
        let reader = if lock_owner.is_some() { Reader::Program } else { Reader::PageCache };
        BUFFER.with_borrow_mut(|buffer| {
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            let out = &mut buffer[..size];
            match self.ask("read", |fs| fs.read(handle.0, offset, reader, out)) {
                Ok(count) => reply.data(&buffer[..count]),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn write(
        &self,
        request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.ask("write", |fs| fs.write(requester(request), handle.0, offset, data)) {
            Ok(Written::Done(bytes)) => answer_written(reply, Ok(bytes)),
            Ok(Written::Pending(pending)) => answer_later("snapshot", move || {
                let done = pending.wait().map_err(|error| answer_to("snapshot", &error));
                answer_written(reply, done);
            }),
            Err(errno) => answer_written(reply, Err(errno)),
        }
    }

    fn flush(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // What was written is with the disk's file already; no shell looks at errors of a close.
        reply.ok();
    }

    fn release(
        &self,
        _request: &Request,
        number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let done = self.ask("release", |fs| {
            self.modes.release(number.0);
            fs.release(handle.0);
            Ok(())
        });
        answer_empty(reply, done);
    }

    fn fsync(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        let scope = if data_only { SyncScope::Data } else { SyncScope::All };
        answer_empty(reply, self.ask("fsync", |fs| fs.sync(handle.0, scope)));
    }

    fn opendir(&self, request: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.ask("opendir", |fs| fs.open_directory(requester(request), number.0)) {
            Ok(opened) => {
                reply.opened(FileHandle(opened.handle), convert::directory_flags(&opened));
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let mut take = |entry: &Entry<'_>| {
            let number = INodeNo(entry.number);
            let full = reply.add(number, entry.next, convert::kind(entry.kind), entry.name);
            if full { Flow::Full } else { Flow::More }
        };
        match self.list(handle, offset, Detail::Names, &mut take) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let mut take = |entry: &Entry<'_>| {
            let (attributes, ttl) = match &entry.found {
                Some(found) => {
                    // One time for both here, so the shorter one.
                    let ttl = found.entry_ttl.min(found.attribute_ttl);
                    (convert::attributes(&found.attributes), ttl)
                }
                None => (convert::bare_attributes(entry.number, entry.kind), Duration::ZERO),
            };
            let number = INodeNo(entry.number);
            let full = reply.add(number, entry.next, entry.name, &ttl, &attributes, GENERATION);
            if full { Flow::Full } else { Flow::More }
        };
        match self.list(handle, offset, Detail::Attributes, &mut take) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn releasedir(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let done = self.ask("releasedir", |fs| {
            fs.release(handle.0);
            Ok(())
        });
        answer_empty(reply, done);
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        answer_empty(reply, self.ask("fsyncdir", |fs| fs.sync(handle.0, SyncScope::All)));
    }

    fn statfs(&self, _request: &Request, _number: INodeNo, reply: ReplyStatfs) {
        let name_bytes_max = u32::try_from(NAME_BYTES_MAX).expect("a small constant");
        match self.ask("statfs", Filesystem::space) {
            Ok(space) => {
                let unit = u32::try_from(space.block_bytes).expect("a disk's block is small");
                let (free, available) = (space.blocks_free, space.blocks_available);
                let (files, files_free) = (space.files, space.files_free);
                reply.statfs(
                    space.blocks,
                    free,
                    available,
                    files,
                    files_free,
                    unit,
                    name_bytes_max,
                    unit,
                );
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn setxattr(
        &self,
        _request: &Request,
        number: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        // Never ENOSYS: the kernel would not ask again, and say the wrong thing below a version.
        let refused = self.ask("setxattr", |fs| Err(fs.refuse_attribute(number.0)));
        answer_empty(reply, refused);
    }

    fn getxattr(
        &self,
        _request: &Request,
        _number: INodeNo,
        _name: &OsStr,
        _size: u32,
        reply: ReplyXattr,
    ) {
        // The kernel makes EOPNOTSUPP of it and asks no more; it would before every write.
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _request: &Request, _number: INodeNo, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn removexattr(&self, _request: &Request, number: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        let refused = self.ask("removexattr", |fs| Err(fs.refuse_attribute(number.0)));
        answer_empty(reply, refused);
    }

    fn access(&self, _request: &Request, _number: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        // The kernel checks permissions by itself.
        reply.error(Errno::ENOSYS);
    }

    fn bmap(
        &self,
        _request: &Request,
        _number: INodeNo,
        _block_bytes: u32,
        _index: u64,
        reply: ReplyBmap,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _input: &[u8],
        _output_bytes: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn poll(
        &self,
        _request: &Request,
        _number: INodeNo,
        _handle: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        // The kernel takes every file for ready then.
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let done = self.ask("fallocate", |fs| fs.allocate(handle.0, mode, offset, length));
        answer_empty(reply, done);
    }

    fn lseek(
        &self,
        _request: &Request,
        _number: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        match self.ask("lseek", |fs| fs.seek(handle.0, offset, whence)) {
            Ok(found) => match i64::try_from(found) {
                Ok(found) => reply.offset(found),
                Err(_too_far) => reply.error(Errno::EOVERFLOW),
            },
            Err(errno) => reply.error(errno),
        }
    }

    fn copy_file_range(
        &self,
        _request: &Request,
        _number_in: INodeNo,
        handle_in: FileHandle,
        offset_in: u64,
        _number_out: INodeNo,
        handle_out: FileHandle,
        offset_out: u64,
        bytes: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (from, to) = ((handle_in.0, offset_in), (handle_out.0, offset_out));
        answer_written(reply, self.ask("copy", |fs| fs.copy_range(from, to, bytes)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_cannot_pass_through_is_not_asked_again() {
        for (errno, expected) in [
            (libc::ELOOP, Refusal::ForGood),
            (libc::EPERM, Refusal::ForGood),
            (libc::ENOMEM, Refusal::Once),
        ] {
            assert_eq!(refusal(&io::Error::from_raw_os_error(errno)), expected, "{errno}");
        }
    }
}
