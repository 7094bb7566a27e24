//! Answers to the kernel, each once: also where the work panics, or is done on another thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use fuser::{Errno, FileHandle, Generation, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite};

use super::convert;
use crate::fs::{Found, FsError, Opened};

/// Inode numbers are not used for two things at one time, so there is one generation.
pub(super) const GENERATION: Generation = Generation(0);

/// Turns a panic into an error: one that left this function would end its thread without a word, and
/// with the last thread the mount (F3).
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, FsError>) -> Result<T, FsError> {
    // What a panic leaves half done is safe to use on: locks do not poison, and the tables of the
    // tree are changed in single steps.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(FsError::Panic))
}

/// Logs an error where it is answered: loud only where it is ours.
pub(super) fn answer_to(request: &str, error: &FsError) -> Errno {
    let level = match error.errno() {
        nix::errno::Errno::EIO | nix::errno::Errno::EUCLEAN => log::Level::Error,
        nix::errno::Errno::ENOSPC | nix::errno::Errno::EDQUOT => log::Level::Warn,
        _ => log::Level::Debug,
    };
    log::log!(level, "{request}: {} {}", error.errno_name(), error.explanation());
    convert::errno(error)
}

/// Has a request that takes long answered by a thread of its own.
pub(super) fn answer_later(request: &str, answer: impl FnOnce() + Send + 'static) {
    let waiting = thread::Builder::new().name("answer".to_owned()).spawn(answer);
    if let Err(error) = waiting {
        // The reply is dropped, which answers EIO; the work goes on.
        log::error!("cannot start a thread to wait for a {request}: {error}");
    }
}

/// Answers an open after which each read comes to us.
pub(super) fn answer_opened(reply: ReplyOpen, opened: Result<Opened, FsError>) {
    match opened {
        Ok(opened) => reply.opened(FileHandle(opened.handle), convert::file_flags(&opened)),
        Err(error) => reply.error(answer_to("open", &error)),
    }
}

pub(super) fn answer_entry(reply: ReplyEntry, found: Result<Found, Errno>) {
    match found {
        Ok(found) => {
            let attributes = convert::attributes(&found.attributes);
            let (attribute_ttl, entry_ttl) = (&found.attribute_ttl, &found.entry_ttl);
            reply.entry_with_ttls(attribute_ttl, entry_ttl, &attributes, GENERATION);
        }
        Err(errno) => reply.error(errno),
    }
}

pub(super) fn answer_empty(reply: ReplyEmpty, done: Result<(), Errno>) {
    match done {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

pub(super) fn answer_written(reply: ReplyWrite, written: Result<usize, Errno>) {
    match written {
        Ok(bytes) => reply.written(u32::try_from(bytes).expect("no more than was asked for")),
        Err(errno) => reply.error(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error() {
        let answer = guarded(|| -> Result<(), FsError> { panic!("a bug") });
        let error = answer.unwrap_err();
        assert!(matches!(error, FsError::Panic), "{error:?}");
        assert_eq!(i32::from(convert::errno(&error)), libc::EIO);
        assert!(matches!(guarded(|| Ok(7)), Ok(7)), "the same thread serves the next one");
    }
}
