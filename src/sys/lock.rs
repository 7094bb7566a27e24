//! One process a store: a lock file that says who holds it. And one command a directory.
//!
//! The kernel's lock decides, not the file's content: it goes with the process, however that ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, fcntl};

use super::io::FILE_MODE;

/// Longest line that is read from a lock file.
const HOLDER_BYTES_MAX: u64 = 4_096;

/// Held until it is dropped.
#[derive(Debug)]
pub struct LockGuard {
    _file: Flock<File>,
}

/// Why a lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("process {pid} (`{holder}`) holds it")]
    Held { pid: u32, holder: String },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Takes the lock at `path` at once or not at all, and writes `holder` into it.
///
/// # Errors
/// `Held` with what its holder wrote.
pub fn acquire(path: &Path, holder: &str) -> Result<LockGuard, LockError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut file) => {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{} {holder}", std::process::id())?;
            Ok(LockGuard { _file: file })
        }
        Err((file, nix::errno::Errno::EWOULDBLOCK)) => Err(read_holder(file)),
        Err((_, errno)) => Err(LockError::Io(errno.into())),
    }
}

fn read_holder(file: File) -> LockError {
    let mut text = String::new();
    // An unreadable line only makes the message poorer.
    let _ = file.take(HOLDER_BYTES_MAX).read_to_string(&mut text);
    let (pid, holder) = text.trim_end().split_once(' ').unwrap_or(("0", "not yet known"));
    LockError::Held { pid: pid.parse().unwrap_or(0), holder: holder.to_owned() }
}

/// Held as long as this is, and as long as any process lives that was started meanwhile: they inherit it.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

/// Takes a directory for a command that is about to be started; `None` where another one has it.
///
/// # Errors
/// As opening it; `Unsupported` where its file system locks no directories, as NFS.
pub fn take_directory(path: &Path) -> io::Result<Option<DirectoryLock>> {
    let file = File::open(path)?;
    match file.try_lock() {
        Ok(()) => {
            fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))?;
            Ok(Some(DirectoryLock { _file: file }))
        }
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(io::Error::new(io::ErrorKind::Unsupported, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_says_who_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let guard = acquire(&path, "modelfs mount /models").unwrap();
        match acquire(&path, "another") {
            Err(LockError::Held { pid, holder }) => {
                assert_eq!((pid, holder.as_str()), (std::process::id(), "modelfs mount /models"));
            }
            other => panic!("{other:?}"),
        }
        drop(guard);
        acquire(&path, "another").unwrap();
    }

    #[test]
    fn a_directory_is_taken_until_the_last_one_that_inherits_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let lock = take_directory(directory.path()).unwrap().expect("nobody has it");
        assert!(take_directory(directory.path()).unwrap().is_none());
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        drop(lock);
        assert!(take_directory(directory.path()).unwrap().is_none(), "it goes on");
        child.kill().unwrap();
        child.wait().unwrap();
        // Programs that another test started meanwhile may have it for a moment, until they begin.
        while take_directory(directory.path()).unwrap().is_none() {
            std::thread::yield_now();
        }
    }
}
