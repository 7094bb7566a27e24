//! Checkpoints on disk: one file below `catalog/`, written whole beside the one before, then named.
//!
//! Invariant K3: a checkpoint is a cache. It is not synced: what a power cut leaves of one is found
//! by its checks. It is only believed as far as the history has the record that it goes up to.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::StoreError;
use super::history::Head;
use super::layout::Layout;
use crate::format::checkpoint::{
    CheckpointError, SECTION_BYTES_MAX, Section, TRAILER_BYTES, Trailer,
};
use crate::format::signature::{PublicKey, Signer};
use crate::sys::io::{self as durable, Io};

/// Sections that wait to be written together, in bytes.
const ROOM_BYTES: usize = 1 << 20;

/// A checkpoint that can be read, whatever becomes of its name.
pub struct Checkpoint {
    io: Arc<dyn Io>,
    file: File,
    trailer: Trailer,
    signed_by: Option<PublicKey>,
}

impl Checkpoint {
    /// Opens the checkpoint of a store; `None` where there is none.
    ///
    /// # Errors
    /// `Checkpoint` for what is none, of another release, or cannot be read.
    pub fn open(io: Arc<dyn Io>, layout: &Layout) -> Result<Option<Self>, StoreError> {
        let path = layout.checkpoint();
        match io.open(&path) {
            Ok(file) => Self::read_end(io, file, &path).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(&path, &error)),
        }
    }

    fn read_end(io: Arc<dyn Io>, file: File, path: &Path) -> Result<Self, StoreError> {
        let failed = |error| unreadable(path, &error);
        let bytes = file.metadata().map_err(failed)?.len();
        let end = bytes.checked_sub(TRAILER_BYTES as u64);
        let end = end.ok_or(CheckpointError::Short { bytes }).map_err(damaged)?;
        let mut trailer = [0; TRAILER_BYTES];
        durable::read_exact_at(&*io, &file, &mut trailer, end).map_err(failed)?;
        let trailer = Trailer::parse(&trailer).map_err(damaged)?;
        let signed_by = trailer.signed_by();
        Ok(Self { io, file, trailer, signed_by })
    }

    /// The record that it goes up to.
    pub fn head(&self) -> Head {
        Head { seq: self.trailer.seq, digest: self.trailer.digest }
    }

    /// The key that it is signed with, if that is a good signature.
    pub fn signed_by(&self) -> Option<PublicKey> {
        self.signed_by
    }

    /// The plain bytes of its index.
    ///
    /// # Errors
    /// As [`Checkpoint::read`].
    pub fn read_index(&self) -> Result<Vec<u8>, StoreError> {
        self.read(&self.trailer.index)
    }

    /// The plain bytes of a section.
    ///
    /// # Errors
    /// `Checkpoint`.
    pub fn read(&self, section: &Section) -> Result<Vec<u8>, StoreError> {
        section.decode(&self.read_stored(section)?).map_err(damaged)
    }

    fn read_stored(&self, section: &Section) -> Result<Vec<u8>, StoreError> {
        let (offset, bytes) = (section.offset, section.stored_bytes as usize);
        // What does not shrink grows by a few bytes at most: no more room than that is made.
        if SECTION_BYTES_MAX + ROOM_BYTES < bytes {
            return Err(damaged(CheckpointError::Large { offset, bytes }));
        }
        let mut stored = vec![0; bytes];
        durable::read_exact_at(&*self.io, &self.file, &mut stored, offset)
            .map_err(|error| StoreError::Checkpoint { why: error.to_string() })?;
        Ok(stored)
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Checkpoint { why: format!("cannot read `{}`: {error}", path.display()) }
}

fn damaged(error: CheckpointError) -> StoreError {
    StoreError::Checkpoint { why: error.to_string() }
}

/// A checkpoint that is being written. Dropped before `finish`, it leaves nothing.
pub struct CheckpointWriter {
    io: Arc<dyn Io>,
    layout: Layout,
    file: File,
    path: PathBuf,
    room: Vec<u8>,
    /// Of what was put, written or not.
    bytes: u64,
    finished: bool,
}

impl CheckpointWriter {
    /// Begins one, without a name.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn create(io: Arc<dyn Io>, layout: Layout) -> Result<Self, StoreError> {
        let path = durable::temporary_path(&layout.temporary());
        let file = io.create(&path).map_err(|e| StoreError::io("create", &path, e))?;
        let (room, bytes, finished) = (Vec::with_capacity(ROOM_BYTES), 0, false);
        Ok(Self { io, layout, file, path, room, bytes, finished })
    }

    /// Adds a section of these bytes.
    ///
    /// # Errors
    /// When it is too large, or cannot be written.
    pub fn put(&mut self, plain: &[u8]) -> Result<Section, StoreError> {
        let (section, stored) = Section::encode(self.bytes, plain).map_err(damaged)?;
        self.write(&stored)?;
        Ok(section)
    }

    /// Adds a section as another checkpoint has it.
    ///
    /// # Errors
    /// `Checkpoint` where that one is damaged.
    pub fn copy(&mut self, from: &Checkpoint, section: &Section) -> Result<Section, StoreError> {
        let stored = from.read_stored(section)?;
        section.check(&stored).map_err(damaged)?;
        let copied = Section { offset: self.bytes, ..*section };
        self.write(&stored)?;
        Ok(copied)
    }

    /// Ends the checkpoint with its index, signs it where there is a key, and gives it its name.
    ///
    /// # Errors
    /// When it cannot be written: the checkpoint before is as it was.
    pub fn finish(
        mut self,
        head: Head,
        index: &[u8],
        signer: Option<&Signer>,
    ) -> Result<Checkpoint, StoreError> {
        let index = self.put(index)?;
        let trailer = Trailer { seq: head.seq, digest: head.digest, index, signature: None };
        let trailer = signer.map_or(trailer, |signer| trailer.sign(signer));
        self.write(&trailer.encode())?;
        self.flush()?;
        // Not synced: this is a cache, and its checks find what never arrived (K3).
        let path = self.layout.checkpoint();
        if path.is_dir() {
            // The one thing that nothing can be renamed over.
            self.io.remove_tree(&path).map_err(|e| StoreError::io("remove", &path, e))?;
        }
        self.io.rename(&self.path, &path).map_err(|e| StoreError::io("rename", &self.path, e))?;
        self.finished = true;
        let file = self.io.open(&path).map_err(|error| unreadable(&path, &error))?;
        Checkpoint::read_end(Arc::clone(&self.io), file, &path)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.bytes += bytes.len() as u64;
        self.room.extend_from_slice(bytes);
        if ROOM_BYTES <= self.room.len() { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        durable::write_all(&*self.io, &self.file, &self.room)
            .map_err(|e| StoreError::io("write", &self.path, e))?;
        self.room.clear();
        Ok(())
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        if !self.finished {
            // Best effort: what is left is removed at the next start.
            let _ = self.io.remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ids::RecordDigest;
    use crate::sys::io::Real;

    fn place() -> (tempfile::TempDir, Layout) {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path());
        for path in [layout.temporary(), layout.catalog()] {
            std::fs::create_dir(path).unwrap();
        }
        (directory, layout)
    }

    fn head(seq: u64) -> Head {
        Head { seq, digest: RecordDigest::of(&seq.to_le_bytes()) }
    }

    #[test]
    fn a_checkpoint_keeps_its_sections_and_those_of_the_one_before() {
        let (_keep, layout) = place();
        let io: Arc<dyn Io> = Arc::new(Real);
        assert!(Checkpoint::open(io.clone(), &layout).unwrap().is_none());
        let mut writer = CheckpointWriter::create(io.clone(), layout.clone()).unwrap();
        let (one, large) = (writer.put(b"one").unwrap(), writer.put(&[5; 3 << 20]).unwrap());
        let first = writer.finish(head(7), b"first index", None).unwrap();
        let mut writer = CheckpointWriter::create(io.clone(), layout.clone()).unwrap();
        let two = writer.put(b"two").unwrap();
        let copied = writer.copy(&first, &large).unwrap();
        drop(writer.finish(head(8), b"second index", None).unwrap());
        let second = Checkpoint::open(io.clone(), &layout).unwrap().unwrap();
        assert_eq!((first.head(), second.head()), (head(7), head(8)));
        assert_eq!(second.read_index().unwrap(), b"second index");
        assert_eq!(second.read(&two).unwrap(), b"two");
        assert!(second.read(&copied).unwrap() == [5; 3 << 20]);
        // The first has no name any more, and is still there for who has it open.
        assert_eq!(first.read(&one).unwrap(), b"one");
        let writer = CheckpointWriter::create(io.clone(), layout.clone()).unwrap();
        drop(writer);
        assert!(io.list(&layout.temporary()).unwrap().is_empty(), "nothing is left behind");
    }

    #[test]
    fn what_is_no_checkpoint_is_refused() {
        let (_keep, layout) = place();
        let io: Arc<dyn Io> = Arc::new(Real);
        for bytes in [&b""[..], b"x", &[0; TRAILER_BYTES], &[0xff; 500]] {
            std::fs::write(layout.checkpoint(), bytes).unwrap();
            let opened = Checkpoint::open(io.clone(), &layout);
            assert!(matches!(opened, Err(StoreError::Checkpoint { .. })), "{bytes:?}");
        }
    }

    #[test]
    fn whatever_has_the_name_of_a_checkpoint_is_neither_waited_for_nor_kept() {
        let io: Arc<dyn Io> = Arc::new(Real);
        type Put = fn(&Path);
        let put: [(&str, Put); 4] = [
            ("a directory", |path| std::fs::create_dir_all(path.join("in/it")).unwrap()),
            ("a fifo", |path| {
                nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
            }),
            ("a socket", |path| drop(std::os::unix::net::UnixListener::bind(path).unwrap())),
            ("a link", |path| std::os::unix::fs::symlink("/dev/zero", path).unwrap()),
        ];
        for (what, put) in put {
            let (_keep, layout) = place();
            put(&layout.checkpoint());
            let (sender, opened) = std::sync::mpsc::channel();
            let (at, io_there) = (layout.clone(), io.clone());
            // By another thread: what waits for ever is to fail here.
            std::thread::spawn(move || sender.send(Checkpoint::open(io_there, &at).is_err()));
            let refused = opened.recv_timeout(std::time::Duration::from_secs(60));
            assert_eq!(refused, Ok(true), "{what}");
            let writer = CheckpointWriter::create(io.clone(), layout.clone()).unwrap();
            drop(writer.finish(head(3), b"index", None).unwrap());
            let made = Checkpoint::open(io.clone(), &layout).unwrap().unwrap();
            assert_eq!(made.read_index().unwrap(), b"index", "{what}");
        }
    }
}
