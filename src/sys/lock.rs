//! One process a store: a lock file that says who holds it.
//!
//! The kernel's lock decides, not the file's content: it goes with the process, however that ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

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
}
