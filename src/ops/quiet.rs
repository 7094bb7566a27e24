//! A file of the source while nobody writes to it.
//!
//! Invariant S2: what is stored is what was read while nobody had the file open for writing, and
//! whose size and times were the same before and after.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::OpsError;
use super::source::SourceFile;
use crate::format::hot::Stamp;
use crate::format::names::ModelName;
use crate::store::hot::{HOT_FILE_BYTES_MIN, stamp_of};
use crate::sys::at::{self, EntryKind, Status};
use crate::sys::lease::{self, Lease, LeaseGuard};

/// How long files that were closed may still count as open: the kernel tells of the last close only
/// after the program has gone on, perhaps to ask for the snapshot.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);
/// Longest pause between two looks whether they are closed.
const CLOSE_PAUSE_MAX: Duration = Duration::from_millis(50);

/// A file from before its first byte is read until after its last one was.
pub(super) struct QuietFile {
    pub source: SourceFile,
    pub opened: Arc<File>,
    before: Status,
    /// None where the file system has none.
    lease: Option<LeaseGuard<Arc<File>>>,
    is_draft: bool,
}

impl QuietFile {
    /// Sees to it that nobody writes to a file of a model to be, as far as the kernel can.
    ///
    /// # Errors
    /// `DraftBusy` where somebody does, `Changed` where it is not what was listed.
    pub fn hold(
        source: SourceFile,
        opened: File,
        model: &ModelName,
        is_draft: bool,
    ) -> Result<Self, OpsError> {
        let failed = |e| OpsError::file("read", &source.path, e);
        let before = at::status(&opened).map_err(failed)?;
        if before.kind() != EntryKind::File || before.size != source.bytes {
            return Err(OpsError::Changed { path: source.path });
        }
        let opened = Arc::new(opened);
        let take = || lease::take(Arc::clone(&opened));
        let taken = once_closed(take, |taken| matches!(taken, Ok(Lease::Busy)));
        let lease = match taken.map_err(failed)? {
            Lease::Held(guard) => Some(guard),
            Lease::Unsupported => None,
            Lease::Busy => {
                let (model, paths) = (model.clone(), vec![source.path]);
                return Err(OpsError::DraftBusy { model, paths });
            }
        };
        Ok(Self { source, opened, before, lease, is_draft })
    }

    /// Whether the kernel would say if somebody wrote to it.
    pub fn is_leased(&self) -> bool {
        self.lease.is_some()
    }

    /// Sees that it is still what it was, after the last byte was read; what it is, if a lease said that
    /// nobody wrote to it and it can become hot.
    ///
    /// # Errors
    /// `Changed` where it is another (S2).
    pub fn release(self) -> Result<Option<Box<Stamp>>, OpsError> {
        let (after, held) = self.look().map_err(|e| self.failed(e))?;
        // In the draft, removing another name of the file moves its ctime, and changes nothing.
        let same_time = self.is_draft || self.before.ctime == after.ctime;
        if after.size != self.before.size || after.mtime != self.before.mtime {
            return Err(self.changed());
        }
        if !same_time || !held {
            return Err(self.changed());
        }
        // Another name would be another way to write to it.
        let is_alone = self.is_leased() && after.nlink == 1 && self.before.ctime == after.ctime;
        Ok((is_alone && HOT_FILE_BYTES_MIN <= after.size).then(|| Box::new(stamp_of(&after))))
    }

    fn look(&self) -> io::Result<(Status, bool)> {
        let after = at::status(&self.opened)?;
        let held = match &self.lease {
            Some(lease) => lease.holds()?,
            None => true,
        };
        Ok((after, held))
    }

    /// That a call on it failed.
    pub fn failed(&self, error: io::Error) -> OpsError {
        OpsError::file("read", &self.source.path, error)
    }

    /// That somebody wrote to it.
    pub fn changed(&self) -> OpsError {
        OpsError::Changed { path: self.source.path.clone() }
    }
}

/// Tries again while something seems to be open for writing: it may have been closed just now.
pub(super) fn once_closed<T>(mut attempt: impl FnMut() -> T, is_busy: impl Fn(&T) -> bool) -> T {
    let (mut waited, mut pause) = (Duration::ZERO, Duration::from_millis(1));
    loop {
        let done = attempt();
        if !is_busy(&done) || CLOSE_TIME_MAX <= waited {
            return done;
        }
        std::thread::sleep(pause);
        waited += pause;
        pause = (pause * 2).min(CLOSE_PAUSE_MAX);
    }
}
