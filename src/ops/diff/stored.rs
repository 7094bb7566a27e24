//! A file of a version as those read it who look into files, with a count of what they read.

use std::cell::{Cell, RefCell};
use std::io;

use super::super::{OpsError, Workspace};
use crate::format::manifest::{FileEntry, Manifest};
use crate::inspect::ReadAt;

/// A file of a version.
pub(super) struct Stored<'a> {
    workspace: &'a Workspace,
    manifest: &'a Manifest,
    file: &'a FileEntry,
    bytes_read: Cell<u64>,
    /// What reading gave: who looks into files knows errors of the system only.
    failed: RefCell<Option<OpsError>>,
}

impl<'a> Stored<'a> {
    pub fn new(workspace: &'a Workspace, manifest: &'a Manifest, file: &'a FileEntry) -> Self {
        let (bytes_read, failed) = (Cell::new(0), RefCell::new(None));
        Self { workspace, manifest, file, bytes_read, failed }
    }

    /// Bytes that were read.
    ///
    /// # Errors
    /// What went wrong with a read.
    pub fn finish(self) -> Result<u64, OpsError> {
        match self.failed.into_inner() {
            Some(error) => Err(error),
            None => Ok(self.bytes_read.get()),
        }
    }
}

impl ReadAt for Stored<'_> {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let read = self.workspace.read_file(self.manifest, self.file, offset, out);
        match read {
            Ok(count) => {
                self.bytes_read.set(self.bytes_read.get() + count as u64);
                Ok(count)
            }
            Err(error) => {
                let text = error.to_string();
                *self.failed.borrow_mut() = Some(error);
                Err(io::Error::other(text))
            }
        }
    }

    fn bytes(&self) -> u64 {
        self.file.bytes
    }
}
