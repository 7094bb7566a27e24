//! Open files of a draft: data goes straight to the backing file and takes no lock of the tree.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::{NodeId, Shared, Status};
use crate::sys::at;

/// A file of a draft, opened; dropping it is the release.
///
/// It goes on working after its name is gone, and after the draft was sealed and taken away. While
/// one opened for writing exists, the tree it is in cannot be frozen.
#[derive(Debug)]
pub struct DraftFile {
    shared: Arc<Shared>,
    node: NodeId,
    open: u64,
    file: Arc<File>,
    writable: bool,
}

impl DraftFile {
    pub(super) fn new(
        shared: &Arc<Shared>,
        node: NodeId,
        file: File,
        writable: bool,
    ) -> io::Result<DraftFile> {
        let file = Arc::new(file);
        let open = shared.nodes.lock().add_open(node, &file, writable)?;
        Ok(DraftFile { shared: Arc::clone(shared), node, open, file, writable })
    }

    /// The backing file, with the access it was opened for.
    pub fn file(&self) -> &File {
        &self.file
    }

    pub fn node(&self) -> NodeId {
        self.node
    }

    pub fn is_writable(&self) -> bool {
        self.writable
    }

    pub fn status(&self) -> io::Result<Status> {
        at::status(&*self.file)
    }

    /// Reads from `offset` until `buffer` is full or the file ends; the count of bytes.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What was read is answered; the next read meets the error again.
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Writes all of `bytes` at `offset`, or at the end where the file was opened with O_APPEND.
    ///
    /// Fewer than all are written only where the disk, a limit or a fault ends it; the next write
    /// then gives the reason.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match self.file.write_at(&bytes[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Cuts the file off or extends it with zeros.
    pub fn set_len(&self, bytes: u64) -> io::Result<()> {
        at::set_len(&*self.file, bytes)
    }

    /// Makes the file durable; with `data_only` as fdatasync does.
    pub fn sync(&self, data_only: bool) -> io::Result<()> {
        if data_only { at::sync_data(&*self.file) } else { at::sync(&*self.file) }
    }

    /// Allocates or frees space: fallocate(2), `mode` in its flags.
    pub fn allocate(&self, mode: i32, offset: u64, bytes: u64) -> io::Result<()> {
        at::allocate(&*self.file, mode, offset, bytes)
    }

    /// Finds the first byte of data at or after `offset`; ENXIO where there is none.
    pub fn seek_data(&self, offset: u64) -> io::Result<u64> {
        at::seek_data(&*self.file, offset)
    }

    /// Finds the first hole at or after `offset`, the end counting as one.
    pub fn seek_hole(&self, offset: u64) -> io::Result<u64> {
        at::seek_hole(&*self.file, offset)
    }

    /// Copies up to `bytes` to another file of a draft without passing them through this process.
    pub fn copy_range(
        &self,
        offset: u64,
        to: &DraftFile,
        to_offset: u64,
        bytes: usize,
    ) -> io::Result<usize> {
        at::copy_range(&*self.file, offset, &*to.file, to_offset, bytes)
    }
}

impl Drop for DraftFile {
    fn drop(&mut self) {
        // The table's own handle is dropped here, after its lock: closing the last descriptor of a
        // large unlinked file frees its blocks, which may take long.
        let last = self.shared.nodes.lock().remove_open(self.node, self.open);
        drop(last);
    }
}
