//! System calls on an object of a file system by descriptor, or by one name in a directory.
//!
//! Nothing here follows a symbolic link, and every error carries the kernel's errno. Descriptors
//! opened with O_PATH are accepted wherever `impl AsFd` is: what the kernel refuses on those is
//! done through `/proc/self/fd`, whose links lead to the object itself, so a name that is replaced
//! meanwhile cannot mislead a call. Needs Linux 5.6 (openat2) and a mounted `/proc`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirEntryExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{
    AtFlags, FallocateFlags, OFlag, OpenHow, PosixFadviseAdvice, RenameFlags, ResolveFlag,
};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, LinkatFlags, Uid, UnlinkatFlags, Whence};

/// The attributes of an object, as stat(2) has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    pub dev: u64,
    pub ino: u64,
    /// With the type bits.
    pub mode: u32,
    pub nlink: u64,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    /// In units of 512 bytes.
    pub blocks: u64,
    pub block_bytes: u32,
    pub atime: SystemTime,
    pub mtime: SystemTime,
    pub ctime: SystemTime,
}

/// What an entry of a directory is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EntryKind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharacterDevice,
    BlockDevice,
}

/// One entry of a directory; never `.` or `..`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectoryEntry {
    pub name: OsString,
    pub ino: u64,
    pub kind: EntryKind,
}

/// A time to set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetTime {
    /// The kernel's clock at the moment of the call.
    Now,
    At(SystemTime),
}

impl Status {
    /// What the type bits say; a type that Linux does not have counts as a file.
    pub fn kind(&self) -> EntryKind {
        match self.mode & libc::S_IFMT {
            libc::S_IFDIR => EntryKind::Directory,
            libc::S_IFLNK => EntryKind::Symlink,
            libc::S_IFIFO => EntryKind::Fifo,
            libc::S_IFSOCK => EntryKind::Socket,
            libc::S_IFCHR => EntryKind::CharacterDevice,
            libc::S_IFBLK => EntryKind::BlockDevice,
            _ => EntryKind::File,
        }
    }

    /// The mode without the type bits.
    pub fn permissions(&self) -> u32 {
        self.mode & 0o7777
    }

    fn from_stat(stat: &FileStat) -> Status {
        Status {
            dev: stat.st_dev,
            ino: stat.st_ino,
            mode: stat.st_mode,
            #[allow(clippy::useless_conversion, reason = "u32 on some of the platforms")]
            nlink: u64::from(stat.st_nlink),
            uid: stat.st_uid,
            gid: stat.st_gid,
            rdev: stat.st_rdev,
            size: stat.st_size.try_into().unwrap_or(0),
            blocks: stat.st_blocks.try_into().unwrap_or(0),
            block_bytes: stat.st_blksize.try_into().unwrap_or(4096),
            atime: system_time(stat.st_atime, stat.st_atime_nsec),
            mtime: system_time(stat.st_mtime, stat.st_mtime_nsec),
            ctime: system_time(stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

/// Opens the directory at `path` as a place to resolve from (O_PATH); its last component must not
/// be a link.
pub fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open(path, flags, Mode::empty())?)
}

/// Opens what somebody else named, as a place to resolve from (O_PATH). Links are followed, but not those
/// of `/proc` that lead to what a process has open: to a thread of this one, whatever rights it
/// assumed, they would open what this process has.
///
/// # Errors
/// ELOOP for such a link, EPERM for what lies in `/proc` itself.
pub fn open_named(path: &Path) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let opened = nix::fcntl::openat2(nix::fcntl::AT_FDCWD, path, how)?;
    match nix::sys::statfs::fstatfs(&opened)?.filesystem_type() {
        nix::sys::statfs::PROC_SUPER_MAGIC => Err(io::Error::from_raw_os_error(libc::EPERM)),
        _ => Ok(opened),
    }
}

/// Makes a directory the current one of this thread, and of no other.
///
/// # Errors
/// Those of unshare(2) and fchdir(2).
pub fn enter(directory: impl AsFd) -> io::Result<()> {
    // SAFETY: takes one number and touches no memory; it concerns this thread's own view of the
    // current directory, root and umask.
    if unsafe { libc::unshare(libc::CLONE_FS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(nix::unistd::fchdir(directory)?)
}

/// Opens `path`, which is relative to `root` and may not leave it or pass through a link.
///
/// The empty path is `root` itself. With O_PATH in `flags` a link at the end is opened itself.
///
/// # Errors
/// ELOOP for a link, EXDEV for a way out of `root`, ENAMETOOLONG from PATH_MAX bytes.
pub fn open_beneath(root: impl AsFd, path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let how = OpenHow::new().flags(flags).resolve(resolve);
    // EAGAIN: something was renamed while `..` could have been passed; the kernel wants a retry.
    // With O_NONBLOCK it may also mean a lease, which a few retries do not wait for.
    for _ in 0..3 {
        match nix::fcntl::openat2(root.as_fd(), path, how) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            opened => return Ok(opened?),
        }
    }
    Ok(nix::fcntl::openat2(root.as_fd(), path, how)?)
}

/// Opens the entry `name` of `directory`; `mode` counts with O_CREAT.
pub fn open_at(directory: impl AsFd, name: &OsStr, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::openat(directory, name, flags, permissions(mode))?)
}

/// Opens the object behind `descriptor` once more, whether or not it still has a name.
pub fn reopen(descriptor: impl AsFd, flags: i32) -> io::Result<OwnedFd> {
    // Without O_NOFOLLOW: the entry in `/proc` is a link, the only one that is followed.
    let flags = OFlag::from_bits_retain(flags & !libc::O_NOFOLLOW) | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open(&proc_path(&descriptor), flags, Mode::empty())?)
}

/// Reads the attributes of the object behind `descriptor`.
pub fn status(descriptor: impl AsFd) -> io::Result<Status> {
    Ok(Status::from_stat(&nix::sys::stat::fstat(descriptor)?))
}

/// Reads the attributes of the entry `name` of `directory`.
pub fn status_at(directory: impl AsFd, name: &OsStr) -> io::Result<Status> {
    let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
    Ok(Status::from_stat(&nix::sys::stat::fstatat(directory, name, flags)?))
}

/// Reads the target of the symbolic link behind `link`, an O_PATH descriptor.
pub fn read_link(link: impl AsFd) -> io::Result<OsString> {
    nix::fcntl::readlinkat(link, "").map_err(|errno| match errno {
        // What the empty path answers where the object is no link.
        Errno::ENOENT => io::Error::from_raw_os_error(libc::EINVAL),
        other => other.into(),
    })
}

/// Reads all entries of the directory behind `directory`, in the file system's order.
pub fn list(directory: impl AsFd) -> io::Result<Vec<DirectoryEntry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(proc_path(&directory))? {
        let entry = entry?;
        let kind = match entry.file_type() {
            Ok(kind) => kind_of(kind),
            // Gone between the listing and the question: as if it had gone a moment earlier.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        entries.push(DirectoryEntry { ino: entry.ino(), name: entry.file_name(), kind });
    }
    Ok(entries)
}

/// Whether the directory behind `directory` has no entries.
pub fn is_empty(directory: impl AsFd) -> io::Result<bool> {
    Ok(std::fs::read_dir(proc_path(&directory))?.next().transpose()?.is_none())
}

/// Makes a directory.
pub fn make_directory(directory: impl AsFd, name: &OsStr, mode: u32) -> io::Result<()> {
    Ok(nix::sys::stat::mkdirat(directory, name, permissions(mode))?)
}

/// Makes a fifo, socket, device or empty file: the type bits of `mode` say which.
pub fn make_node(directory: impl AsFd, name: &OsStr, mode: u32, rdev: u64) -> io::Result<()> {
    let kind = SFlag::from_bits_truncate(mode & libc::S_IFMT);
    Ok(nix::sys::stat::mknodat(directory, name, kind, permissions(mode), rdev)?)
}

/// Makes a symbolic link with the text `target`.
pub fn make_symlink(directory: impl AsFd, name: &OsStr, target: &OsStr) -> io::Result<()> {
    Ok(nix::unistd::symlinkat(target, directory, name)?)
}

/// Gives the entry `name` of `directory` a second name.
pub fn link(
    directory: impl AsFd,
    name: &OsStr,
    new_directory: impl AsFd,
    new_name: &OsStr,
) -> io::Result<()> {
    Ok(nix::unistd::linkat(directory, name, new_directory, new_name, LinkatFlags::empty())?)
}

/// Removes a name that is not a directory's.
pub fn unlink(directory: impl AsFd, name: &OsStr) -> io::Result<()> {
    Ok(nix::unistd::unlinkat(directory, name, UnlinkatFlags::NoRemoveDir)?)
}

/// Removes an empty directory.
pub fn remove_directory(directory: impl AsFd, name: &OsStr) -> io::Result<()> {
    Ok(nix::unistd::unlinkat(directory, name, UnlinkatFlags::RemoveDir)?)
}

/// Renames an entry; `flags` are those of renameat2(2).
pub fn rename(
    directory: impl AsFd,
    name: &OsStr,
    new_directory: impl AsFd,
    new_name: &OsStr,
    flags: u32,
) -> io::Result<()> {
    let flags = RenameFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    if flags.is_empty() {
        // Every file system has this one; some refuse renameat2 altogether.
        return Ok(nix::fcntl::renameat(directory, name, new_directory, new_name)?);
    }
    Ok(nix::fcntl::renameat2(directory, name, new_directory, new_name, flags)?)
}

/// Changes owner and group; `None` keeps one. The kernel drops set-id bits of a file.
pub fn change_owner(object: impl AsFd, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    Ok(nix::unistd::fchownat(object, "", uid, gid, AtFlags::AT_EMPTY_PATH)?)
}

/// Changes the permission bits.
///
/// # Errors
/// EOPNOTSUPP for a symbolic link, which has none.
pub fn change_mode(object: impl AsFd, mode: u32) -> io::Result<()> {
    let path = proc_path(&object);
    let follow = FchmodatFlags::FollowSymlink;
    Ok(nix::sys::stat::fchmodat(nix::fcntl::AT_FDCWD, &path, permissions(mode), follow)?)
}

/// Sets the times; `None` keeps one.
pub fn set_times(
    object: impl AsFd,
    atime: Option<SetTime>,
    mtime: Option<SetTime>,
) -> io::Result<()> {
    let (atime, mtime) = (time_spec(atime), time_spec(mtime));
    let (path, follow) = (proc_path(&object), UtimensatFlags::FollowSymlink);
    Ok(nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, &path, &atime, &mtime, follow)?)
}

/// Has the kernel read the first bytes of a file, without waiting for them; only a hint.
pub fn will_need(file: impl AsFd, bytes: u64) {
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    let advice = PosixFadviseAdvice::POSIX_FADV_WILLNEED;
    let _ = nix::fcntl::posix_fadvise(file, 0, bytes, advice);
}

/// Sets the length of a file opened for writing.
///
/// # Errors
/// EFBIG past what an offset can say.
pub fn set_len(file: impl AsFd, bytes: u64) -> io::Result<()> {
    Ok(nix::unistd::ftruncate(file, offset(bytes)?)?)
}

/// Allocates or frees space: fallocate(2), `mode` in its flags.
pub fn allocate(file: impl AsFd, mode: i32, start: u64, bytes: u64) -> io::Result<()> {
    let mode = FallocateFlags::from_bits(mode).ok_or(Errno::EOPNOTSUPP)?;
    Ok(nix::fcntl::fallocate(file, mode, offset(start)?, offset(bytes)?)?)
}

/// Finds the first byte of data at or after `start`; ENXIO where there is none.
pub fn seek_data(file: impl AsFd, start: u64) -> io::Result<u64> {
    seek(file, start, Whence::SeekData)
}

/// Finds the first hole at or after `start`, the file's end counting as one.
pub fn seek_hole(file: impl AsFd, start: u64) -> io::Result<u64> {
    seek(file, start, Whence::SeekHole)
}

/// Copies up to `bytes` between files of one file system; how many were copied, 0 at the end.
pub fn copy_range(
    from: impl AsFd,
    from_start: u64,
    to: impl AsFd,
    to_start: u64,
    bytes: usize,
) -> io::Result<usize> {
    let (mut from_start, mut to_start) = (offset(from_start)?, offset(to_start)?);
    let (from, to) = (from.as_fd().as_raw_fd(), to.as_fd().as_raw_fd());
    // SAFETY: both descriptors are borrowed for the call, and the two offsets are our own locals,
    // which the kernel reads and advances.
    let copied =
        unsafe { libc::copy_file_range(from, &mut from_start, to, &mut to_start, bytes, 0) };
    usize::try_from(copied).map_err(|_negative| io::Error::last_os_error())
}

/// Makes the content and attributes of a file, or the entries of a directory, durable.
pub fn sync(descriptor: impl AsFd) -> io::Result<()> {
    Ok(nix::unistd::fsync(descriptor)?)
}

/// Makes the content of a file durable, and of its attributes only what reading it back needs.
pub fn sync_data(file: impl AsFd) -> io::Result<()> {
    Ok(nix::unistd::fdatasync(file)?)
}

/// Whether this process may give files away: whether its effective user is root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn seek(file: impl AsFd, start: u64, whence: Whence) -> io::Result<u64> {
    let found = nix::unistd::lseek(file, offset(start)?, whence)?;
    Ok(found.try_into().expect("lseek answers no negative offset without an error"))
}

fn offset(bytes: u64) -> io::Result<i64> {
    i64::try_from(bytes).map_err(|_too_large| io::Error::from_raw_os_error(libc::EFBIG))
}

fn permissions(mode: u32) -> Mode {
    Mode::from_bits_truncate(mode & 0o7777)
}

/// A link to the object behind `descriptor`, good for as long as that is open: hence a borrow.
fn proc_path(descriptor: &impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd()))
}

fn kind_of(kind: std::fs::FileType) -> EntryKind {
    if kind.is_dir() {
        EntryKind::Directory
    } else if kind.is_symlink() {
        EntryKind::Symlink
    } else if kind.is_fifo() {
        EntryKind::Fifo
    } else if kind.is_socket() {
        EntryKind::Socket
    } else if kind.is_char_device() {
        EntryKind::CharacterDevice
    } else if kind.is_block_device() {
        EntryKind::BlockDevice
    } else {
        EntryKind::File
    }
}

fn system_time(seconds: i64, nanoseconds: i64) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = if seconds < 0 { UNIX_EPOCH - whole } else { UNIX_EPOCH + whole };
    base + Duration::from_nanos(nanoseconds.try_into().unwrap_or(0))
}

fn time_spec(time: Option<SetTime>) -> TimeSpec {
    match time {
        None => TimeSpec::UTIME_OMIT,
        Some(SetTime::Now) => TimeSpec::UTIME_NOW,
        Some(SetTime::At(time)) => match time.duration_since(UNIX_EPOCH) {
            Ok(after) => TimeSpec::new(seconds(after), after.subsec_nanos().into()),
            Err(error) => {
                // The kernel counts nanoseconds forwards, also before 1970.
                let before = error.duration();
                let borrow = i64::from(before.subsec_nanos() != 0);
                let nanoseconds =
                    (1_000_000_000 - i64::from(before.subsec_nanos())) % 1_000_000_000;
                TimeSpec::new(-seconds(before) - borrow, nanoseconds)
            }
        },
    }
}

fn seconds(duration: Duration) -> i64 {
    duration.as_secs().try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    fn scratch() -> (tempfile::TempDir, OwnedFd) {
        let directory = tempfile::tempdir().unwrap();
        let root = open_directory(directory.path()).unwrap();
        (directory, root)
    }

    #[test]
    fn what_somebody_named_is_not_found_in_what_this_process_has_open() {
        let (directory, root) = scratch();
        std::fs::create_dir(directory.path().join("d")).unwrap();
        std::os::unix::fs::symlink("d", directory.path().join("l")).unwrap();
        let fd = format!("/proc/self/fd/{}", root.as_raw_fd());
        std::os::unix::fs::symlink(&fd, directory.path().join("magic")).unwrap();
        let check = |path: &Path, expected: Option<i32>| {
            let got = open_named(path);
            assert_eq!(got.err().and_then(|e| e.raw_os_error()), expected, "{path:?}");
        };
        check(&directory.path().join("l"), None);
        check(&directory.path().join("magic/d"), Some(libc::ELOOP));
        check(&Path::new(&fd).join("d"), Some(libc::ELOOP));
        check(Path::new("/proc/self/cwd"), Some(libc::ELOOP));
        check(Path::new("/proc/self/maps"), Some(libc::EPERM));
        check(Path::new("/proc/self/"), Some(libc::EPERM));
        check(&directory.path().join("none"), Some(libc::ENOENT));
    }

    #[test]
    fn a_thread_enters_a_directory_alone() {
        let (directory, root) = scratch();
        let before = std::env::current_dir().unwrap();
        let there = std::thread::spawn(move || {
            enter(root).unwrap();
            std::env::current_dir().unwrap()
        });
        assert_eq!(there.join().unwrap(), directory.path().canonicalize().unwrap());
        assert_eq!(std::env::current_dir().unwrap(), before);
    }

    #[test]
    fn nothing_is_opened_through_a_link_or_above_the_root() {
        let (directory, root) = scratch();
        std::fs::create_dir(directory.path().join("d")).unwrap();
        std::fs::write(directory.path().join("d/f"), "x").unwrap();
        std::os::unix::fs::symlink("d", directory.path().join("l")).unwrap();
        std::os::unix::fs::symlink("d/f", directory.path().join("lf")).unwrap();
        let check = |path: &str, flags: i32, expected: Option<i32>| {
            let got = open_beneath(&root, Path::new(path), flags);
            assert_eq!(got.err().and_then(|e| e.raw_os_error()), expected, "{path}");
        };
        check("d/f", libc::O_RDONLY, None);
        check("", libc::O_PATH, None);
        check("l/f", libc::O_RDONLY, Some(libc::ELOOP));
        check("lf", libc::O_RDONLY, Some(libc::ELOOP));
        check("lf", libc::O_PATH, None);
        check("..", libc::O_PATH, Some(libc::EXDEV));
        check("d/../../x", libc::O_PATH, Some(libc::EXDEV));
        check(&"d/".repeat(2048), libc::O_PATH, Some(libc::ENAMETOOLONG));
    }

    #[test]
    fn a_link_has_times_and_an_owner_but_no_mode_of_its_own() {
        let (directory, root) = scratch();
        std::fs::write(directory.path().join("f"), "x").unwrap();
        make_symlink(&root, OsStr::new("l"), OsStr::new("f")).unwrap();
        let link = open_at(&root, OsStr::new("l"), libc::O_PATH, 0).unwrap();
        let old = UNIX_EPOCH + Duration::new(1_000_000, 5);
        let before = status_at(&root, OsStr::new("f")).unwrap();
        set_times(&link, Some(SetTime::At(old)), Some(SetTime::At(old))).unwrap();
        assert_eq!(status(&link).unwrap().mtime, old);
        assert_eq!(change_mode(&link, 0o700).unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
        assert_eq!(status_at(&root, OsStr::new("f")).unwrap(), before);
        assert_eq!(read_link(&link).unwrap(), "f");
        let file = open_at(&root, OsStr::new("f"), libc::O_PATH, 0).unwrap();
        assert_eq!(read_link(&file).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn times_before_1970_come_back_as_they_were_set() {
        let (_directory, root) = scratch();
        let file = open_at(&root, OsStr::new("f"), libc::O_CREAT | libc::O_RDWR, 0o600).unwrap();
        for time in [UNIX_EPOCH - Duration::new(86_400, 250), UNIX_EPOCH - Duration::from_secs(7)] {
            set_times(&file, None, Some(SetTime::At(time))).unwrap();
            assert_eq!(status(&file).unwrap().mtime, time);
        }
    }

    #[test]
    fn names_that_are_not_text_are_listed_byte_for_byte() {
        let (_directory, root) = scratch();
        let name = OsStr::from_bytes(b"a\n\xff-b");
        make_node(&root, name, libc::S_IFIFO | 0o600, 0).unwrap();
        let listed = list(&root).unwrap();
        assert_eq!((listed[0].name.as_os_str(), listed[0].kind), (name, EntryKind::Fifo));
        assert!(!is_empty(&root).unwrap());
    }
}
