//! System calls that std does not have, each with its errno as the answer.
//!
//! Only what tests ask of the kernel; nothing here knows of modelfs.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `Ok`, or the errno that the kernel gave.
pub type Outcome = Result<(), i32>;

pub fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no test path holds a zero byte")
}

fn outcome(status: libc::c_int) -> Outcome {
    if status >= 0 { Ok(()) } else { Err(last_errno()) }
}

pub fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().expect("set by a system call")
}

/// Turns the result of a std call into an [`Outcome`].
pub fn errno<T>(result: io::Result<T>) -> Outcome {
    result.map(drop).map_err(|e| e.raw_os_error().unwrap_or(-1))
}

/// The name of an errno, for tables that a person reads.
pub fn name(outcome: Outcome) -> String {
    let Err(errno) = outcome else { return "ok".to_owned() };
    let known = [
        (libc::EPERM, "EPERM"),
        (libc::ENOENT, "ENOENT"),
        (libc::EIO, "EIO"),
        (libc::EACCES, "EACCES"),
        (libc::EBUSY, "EBUSY"),
        (libc::EEXIST, "EEXIST"),
        (libc::EXDEV, "EXDEV"),
        (libc::ENOTDIR, "ENOTDIR"),
        (libc::EISDIR, "EISDIR"),
        (libc::EINVAL, "EINVAL"),
        (libc::EFBIG, "EFBIG"),
        (libc::E2BIG, "E2BIG"),
        (libc::ENOSPC, "ENOSPC"),
        (libc::EROFS, "EROFS"),
        (libc::ENAMETOOLONG, "ENAMETOOLONG"),
        (libc::ENOSYS, "ENOSYS"),
        (libc::ENOTEMPTY, "ENOTEMPTY"),
        (libc::ELOOP, "ELOOP"),
        (libc::ENODATA, "ENODATA"),
        (libc::EOPNOTSUPP, "EOPNOTSUPP"),
        (libc::ENOTCONN, "ENOTCONN"),
    ];
    let found = known.iter().find(|(number, _)| *number == errno);
    found.map_or_else(|| format!("errno {errno}"), |(_, name)| (*name).to_owned())
}

pub fn open(path: &Path, flags: libc::c_int, mode: libc::c_uint) -> Result<OwnedFd, i32> {
    let path = c(path);
    // SAFETY: the path is a C string that outlives the call; a descriptor >= 0 is ours alone.
    unsafe {
        let fd = libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, mode);
        if fd < 0 { Err(last_errno()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Opens `name` below an open directory for reading.
pub fn open_at(dir: &OwnedFd, name: &str) -> Result<OwnedFd, i32> {
    let name = c(Path::new(name));
    // SAFETY: the name is a C string that outlives the call; a descriptor >= 0 is ours alone.
    unsafe {
        let fd = libc::openat(dir.as_raw_fd(), name.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if fd < 0 { Err(last_errno()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

pub fn rename2(from: &Path, to: &Path, flags: libc::c_uint) -> Outcome {
    let (from, to) = (c(from), c(to));
    let here = libc::AT_FDCWD;
    // SAFETY: both paths are C strings that outlive the call.
    outcome(unsafe { libc::renameat2(here, from.as_ptr(), here, to.as_ptr(), flags) })
}

pub fn link(from: &Path, to: &Path) -> Outcome {
    let (from, to) = (c(from), c(to));
    // SAFETY: both paths are C strings that outlive the call.
    outcome(unsafe { libc::link(from.as_ptr(), to.as_ptr()) })
}

pub fn symlink(target: &str, at: &Path) -> Outcome {
    errno(std::os::unix::fs::symlink(target, at))
}

pub fn mknod(path: &Path, mode: libc::mode_t, device: libc::dev_t) -> Outcome {
    let path = c(path);
    // SAFETY: the path is a C string that outlives the call.
    outcome(unsafe { libc::mknod(path.as_ptr(), mode, device) })
}

pub fn mkdir(path: &Path, mode: libc::mode_t) -> Outcome {
    let path = c(path);
    // SAFETY: the path is a C string that outlives the call.
    outcome(unsafe { libc::mkdir(path.as_ptr(), mode) })
}

pub fn chmod(path: &Path, mode: libc::mode_t) -> Outcome {
    let path = c(path);
    // SAFETY: the path is a C string that outlives the call.
    outcome(unsafe { libc::chmod(path.as_ptr(), mode) })
}

pub fn lchown(path: &Path, uid: u32, gid: u32) -> Outcome {
    errno(std::os::unix::fs::lchown(path, Some(uid), Some(gid)))
}

pub fn truncate(path: &Path, len: i64) -> Outcome {
    let path = c(path);
    // SAFETY: the path is a C string that outlives the call.
    outcome(unsafe { libc::truncate(path.as_ptr(), len) })
}

/// Sets both times of the object itself (a link is not followed): to now, or to these seconds.
pub fn utimes(path: &Path, seconds: Option<i64>) -> Outcome {
    let path = c(path);
    let time = |seconds| libc::timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = seconds.map(|s| [time(s), time(s)]);
    let times = times.as_ref().map_or(std::ptr::null(), |times| times.as_ptr());
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: the path and the times, where given, outlive the call.
    outcome(unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times, flags) })
}

pub fn set_xattr(path: &Path, key: &str, value: &[u8]) -> Outcome {
    let (path, key) = (c(path), c(Path::new(key)));
    let at = value.as_ptr().cast();
    // SAFETY: every pointer outlives the call and the length is that of the value.
    outcome(unsafe { libc::lsetxattr(path.as_ptr(), key.as_ptr(), at, value.len(), 0) })
}

pub fn remove_xattr(path: &Path, key: &str) -> Outcome {
    let (path, key) = (c(path), c(Path::new(key)));
    // SAFETY: both are C strings that outlive the call.
    outcome(unsafe { libc::lremovexattr(path.as_ptr(), key.as_ptr()) })
}

/// `fchmod` through a descriptor opened for reading: needs no write permission on the way.
pub fn fchmod(path: &Path, mode: libc::mode_t) -> Outcome {
    let fd = open(path, libc::O_RDONLY, 0)?;
    // SAFETY: the descriptor is open.
    outcome(unsafe { libc::fchmod(fd.as_raw_fd(), mode) })
}

/// `fsync` of a file or a directory.
pub fn fsync(path: &Path) -> Outcome {
    let fd = open(path, libc::O_RDONLY, 0)?;
    // SAFETY: the descriptor is open.
    outcome(unsafe { libc::fsync(fd.as_raw_fd()) })
}

/// Lets the kernel forget the pages of a file that nobody has mapped.
pub fn drop_pages(file: &std::fs::File) {
    // SAFETY: no memory is involved.
    let status = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(status, 0, "the kernel takes the advice");
}

/// Total and free bytes of the file system at `path`, as `df` shows them.
pub fn disk_bytes(path: &Path) -> (u64, u64) {
    let path = c(path);
    // SAFETY: all zeros is a value of this plain struct, which the call then fills.
    unsafe {
        let mut found: libc::statvfs = std::mem::zeroed();
        assert_eq!(libc::statvfs(path.as_ptr(), &raw mut found), 0, "statvfs: {}", last_errno());
        (found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)
    }
}

/// Tells the kernel to drop what it has cached of a file, so that it must be read anew.
pub fn forget_pages(file: &File) {
    // SAFETY: the descriptor is open.
    let failed = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(failed, 0, "posix_fadvise");
}

/// A whole file, mapped for reading; it outlives the descriptor.
pub struct Mapping {
    at: *mut libc::c_void,
    len: usize,
}

// SAFETY: the pages can only be read, and belong to this value until it is dropped.
unsafe impl Send for Mapping {}

impl Mapping {
    pub fn of(file: &File) -> io::Result<Mapping> {
        let len = usize::try_from(file.metadata()?.len()).expect("a small file");
        let fd = file.as_raw_fd();
        // SAFETY: a new mapping at a place that the kernel chooses; the descriptor is open.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, fd, 0)
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { at, len })
    }

    /// What is read here may end the process with SIGBUS where the file cannot be read.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes are mapped at `at` until drop; sealed files do not change.
        unsafe { std::slice::from_raw_parts(self.at.cast(), self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `of`, and nothing borrows it any more.
        unsafe { libc::munmap(self.at, self.len) };
    }
}

pub fn signal(pid: u32, signal: libc::c_int) {
    let pid = libc::pid_t::try_from(pid).expect("a process id fits");
    // SAFETY: plain numbers; the process is a child of ours that was not waited for.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "kill {pid}: {}", last_errno());
}

pub fn is_root() -> bool {
    // SAFETY: has no demands.
    unsafe { libc::geteuid() == 0 }
}

/// A user and its groups, by number: none of them needs an account.
#[derive(Clone, Copy, Debug)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: &'static [u32],
}

/// Runs `work` as `user` on a thread of its own. Needs root.
pub fn as_user<T: Send>(user: User, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            become_user(user);
            work()
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Changes this thread alone: the raw calls are per thread, glibc's wrappers are per process.
fn become_user(user: User) {
    // SAFETY: plain numbers, and a slice with its own length.
    unsafe {
        let groups = user.groups;
        let done = libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr());
        assert_eq!(done, 0, "setgroups: {}", last_errno());
        let done = libc::syscall(libc::SYS_setresgid, user.gid, user.gid, user.gid);
        assert_eq!(done, 0, "setresgid: {}", last_errno());
        let done = libc::syscall(libc::SYS_setresuid, user.uid, user.uid, user.uid);
        assert_eq!(done, 0, "setresuid: {}", last_errno());
    }
}
