//! Read leases: the kernel's word that nobody has a file open for writing.
//!
//! A lease also sees writers that we do not count ourselves: a shared writable mapping that has
//! outlived its descriptor, and processes that reach the file past the mount. It is advice with a
//! time limit: a writer who comes later waits until the lease is given back, or until as many
//! seconds are over as `/proc/sys/fs/lease-break-time` says, so `LeaseGuard::holds` is asked again
//! after the reading.
//!
//! A broken lease sends SIGIO, whose default action ends the process: from the first lease on the
//! process ignores that signal.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Once;

static IGNORE_BREAK_SIGNALS: Once = Once::new();

/// What came of asking for a read lease.
#[derive(Debug)]
pub enum Lease<F: AsFd> {
    /// Nobody has the file open for writing, and nobody will until the guard is dropped.
    Held(LeaseGuard<F>),
    /// Somebody has the file open for writing, or mapped writable.
    Busy,
    /// The file system has no leases, or the file is not ours to lease: nothing is known.
    Unsupported,
}

/// A read lease; given back on drop.
#[derive(Debug)]
pub struct LeaseGuard<F: AsFd> {
    file: F,
}

/// Takes a read lease on `file`, which must be a regular file opened for reading only.
///
/// # Errors
/// Only what says nothing about writers, such as EBADF; a refused lease is `Busy` or `Unsupported`.
pub fn take<F: AsFd>(file: F) -> io::Result<Lease<F>> {
    IGNORE_BREAK_SIGNALS.call_once(|| {
        // SAFETY: SIG_IGN installs no handler, so no code of ours runs in signal context.
        let before = unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
        assert_ne!(before, libc::SIG_ERR, "SIGIO can be ignored");
    });
    match fcntl(&file, libc::F_SETLEASE, libc::F_RDLCK) {
        Ok(_) => Ok(Lease::Held(LeaseGuard { file })),
        Err(error) => match error.raw_os_error() {
            Some(libc::EAGAIN) => Ok(Lease::Busy),
            // EACCES: the file is another user's and we lack CAP_LEASE.
            Some(libc::EINVAL | libc::EACCES | libc::EOPNOTSUPP | libc::ENOLCK | libc::ENOSYS) => {
                Ok(Lease::Unsupported)
            }
            _ => Err(error),
        },
    }
}

impl<F: AsFd> LeaseGuard<F> {
    /// Whether no writer has asked for the file since the lease was taken.
    ///
    /// # Errors
    /// What `fcntl` answers.
    pub fn holds(&self) -> io::Result<bool> {
        Ok(fcntl(&self.file, libc::F_GETLEASE, 0)? == libc::F_RDLCK)
    }
}

impl<F: AsFd> Drop for LeaseGuard<F> {
    fn drop(&mut self) {
        // A lease that the kernel took back answers EAGAIN, and is as gone as we want it.
        let _ = fcntl(&self.file, libc::F_SETLEASE, libc::F_UNLCK);
    }
}

fn fcntl(file: &impl AsFd, command: i32, argument: i32) -> io::Result<i32> {
    // SAFETY: the descriptor is open as long as `file` is borrowed, and both lease commands take an
    // integer, so the kernel touches no memory of ours.
    let answer = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), command, argument) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::OpenOptionsExt;

    #[test]
    fn a_lease_is_refused_while_a_writer_has_the_file_and_held_after() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weights");
        let writer = File::create(&path).unwrap();
        let reader = File::open(&path).unwrap();
        let got = take(&reader).unwrap();
        assert!(matches!(got, Lease::Busy | Lease::Unsupported), "{got:?}");
        drop(writer);
        let Lease::Held(guard) = take(&reader).unwrap() else {
            println!("no leases on {}: the rest of this test did not run", path.display());
            return;
        };
        assert!(guard.holds().unwrap());
        let late = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(&path);
        assert_eq!(late.unwrap_err().raw_os_error(), Some(libc::EWOULDBLOCK));
        assert!(!guard.holds().unwrap(), "the writer's attempt shows");
        drop(guard);
        File::options().write(true).open(&path).unwrap();
    }
}
