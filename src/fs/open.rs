//! Open files: what a handle reads and writes.

use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::answer::{Backing, Cache, Opened, Reader, Way};
use super::control::{ControlHandle, Written};
use super::handles::Handle;
use super::made::Opening;
use super::nodes::{Generated, Node, SealedPlace};
use super::{Filesystem, Found, FsError, Requester, check_name, is_read_only, read_only};
use crate::format::manifest::{FileEntry, Node as Sealed};
use crate::format::names::ModelName;
use crate::ops::{Caller, Context};
use crate::store::draft::DraftFile;
use crate::store::hot::HotFile;

/// The kernel knows where the end of a file is and writes there. It may also write back pages of a
/// mapping through any descriptor: one that appends would put them at the end.
const FLAGS_DROPPED: i32 = libc::O_APPEND;

impl Filesystem {
    /// Opens a file; `flags` as open(2) has them.
    pub fn open(&self, requester: Requester, number: u64, flags: i32) -> Result<Opening, FsError> {
        let node = self.node(number)?;
        let changes = flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0;
        if changes && is_read_only(&node) {
            return self.explained(&node, Err(read_only(&node)));
        }
        if let Node::Made(place) = &*node {
            return self.explained(&node, self.open_made(requester, place));
        }
        if changes && let Node::Draft(place) = &*node {
            self.explained(&node, self.permit_draft(requester, place))?;
        }
        let opened = match &*node {
            Node::Sealed(place) => match &place.manifest.entry(place.entry).node {
                Sealed::File(file) => Ok(self.opened_sealed(place, file)),
                Sealed::Directory { .. } => Err(FsError::Directory),
                Sealed::Symlink { .. } => Err(FsError::Operation),
            },
            Node::Generated(scope, Generated::History) => {
                let scope = scope.clone().map(|model| self.with_seq(model)).transpose()?;
                Ok(self.opened_text(Handle::History(scope)))
            }
            // That of a model is as long as it has versions; the others are short.
            Node::Generated(scope, Generated::Status) => self
                .open_text(requester.uid, self.text(scope, Generated::Status)?.into_bytes().into()),
            Node::Generated(scope, file) => {
                let text = self.text(scope, *file)?;
                Ok(self.opened_text(Handle::Text(text.into_bytes())))
            }
            Node::Control(model) => {
                let (model, seq) = self.with_seq(model.clone())?;
                let opener = self.context(requester).caller;
                let handle = Handle::Control(ControlHandle::new(model, seq, opener));
                Ok(Opened { stream: true, ..self.opened_text(handle) })
            }
            Node::Deed(model, deed, at) => {
                self.open_deed(requester, (model, *deed, at), flags).map(|handle| {
                    // A stream is read at 0 for ever: only what takes commands may be one.
                    let stream = matches!(handle, Handle::Deed { .. });
                    Opened { stream, ..self.opened_text(handle) }
                })
            }
            Node::Draft(place) => {
                let opened = place.tree.open_file(place.node, flags & !FLAGS_DROPPED);
                opened.map(|file| self.opened_draft(file)).map_err(FsError::Draft)
            }
            Node::Alias(_) | Node::Temporary(..) => Err(FsError::Operation),
            _ => Err(FsError::Directory),
        };
        self.explained(&node, opened).map(Opening::Done)
    }

    /// Creates a file in a draft and opens it; opens the one that is there without O_EXCL.
    pub fn create(
        &self,
        requester: Requester,
        parent: u64,
        name: &OsStr,
        mode: u32,
        flags: i32,
    ) -> Result<(Found, Opened), FsError> {
        check_name(name)?;
        let node = self.node(parent)?;
        let Node::Draft(place) = &*node else {
            return self.explained(&node, Err(self.refuse_entry(&node, name)));
        };
        self.explained(&node, self.permit_draft(requester, place))?;
        let creator = super::draft::creator(requester);
        let flags = flags & !FLAGS_DROPPED;
        let made = place.tree.create(place.node, name, mode & 0o7777, flags, &creator);
        let (made, status, file) = self.explained(&node, made.map_err(FsError::Draft))?;
        let found = self.found(place.sibling((made, status)))?;
        Ok((found, self.opened_draft(file)))
    }

    /// Reads from a handle into `out`; fewer bytes than it holds at the end only.
    pub fn read(
        &self,
        handle: u64,
        offset: u64,
        reader: Reader,
        out: &mut [u8],
    ) -> Result<usize, FsError> {
        match &*self.handles.get(handle)? {
            Handle::Sealed(place, hot, decoded) => {
                self.read_sealed(place, (hot.as_ref(), decoded), offset, out)
            }
            Handle::Draft(file) => file.read_at(out, offset).map_err(FsError::Draft),
            Handle::Text(text) => Ok(copy_from(text, offset, out)),
            Handle::Shared(text) => Ok(copy_from(text.as_bytes(), offset, out)),
            Handle::History(None) => Ok(self.workspace.read_history(None, offset, out)?),
            Handle::History(Some((model, seq))) => {
                if self.with_seq(model.clone())?.1 != *seq {
                    return Err(FsError::Stale);
                }
                Ok(self.workspace.read_history(Some(model), offset, out)?)
            }
            Handle::Control(control) => self.desk.read(control, reader, out),
            Handle::Deed { .. } => Err(FsError::Operation),
            Handle::Directory(_) => Err(FsError::Directory),
        }
    }

    /// Writes through a handle; to the control file, a command.
    pub fn write(
        &self,
        requester: Requester,
        handle: u64,
        offset: u64,
        bytes: &[u8],
    ) -> Result<Written, FsError> {
        match &*self.handles.get(handle)? {
            Handle::Draft(file) => {
                file.write_at(bytes, offset).map(Written::Done).map_err(FsError::Draft)
            }
            Handle::Control(control) => {
                let context = self.opener_context(&control.opener, requester);
                let written = context.and_then(|it| self.desk.submit(control, it, bytes));
                let node = Node::Control(control.model.clone());
                self.explained(&node, written)
            }
            Handle::Deed { model, seq, deed, at, opener } => {
                if self.with_seq(model.clone())?.1 != *seq {
                    return Err(FsError::Stale);
                }
                let context = self.opener_context(opener, requester);
                let done = context.and_then(|it| self.do_deed(&it, model, (*deed, at), bytes));
                let node = Node::Deeds(model.clone(), *deed);
                self.explained(&node, done).map(Written::Done)
            }
            _ => Err(FsError::Handle),
        }
    }

    /// Who acts by writing a command: who opened the file, with the groups of then.
    ///
    /// # Errors
    /// `Refused` where somebody else writes: a setuid program that complains into a file that it was
    /// given is not meant by its user's rights, nor is its user by the words.
    fn opener_context(&self, opener: &Caller, writer: Requester) -> Result<Context, FsError> {
        if opener.uid != writer.uid {
            let action = "write a command through a file that another user opened".to_owned();
            return Err(FsError::Refused { action, advice: "open it as who is to act" });
        }
        Ok(Context { caller: opener.clone(), ..self.context(writer) })
    }

    /// Makes what was written durable.
    pub fn sync(&self, handle: u64, scope: SyncScope) -> Result<(), FsError> {
        match &*self.handles.get(handle)? {
            Handle::Draft(file) => file.sync(scope == SyncScope::Data).map_err(FsError::Draft),
            Handle::Directory(directory) => match &*directory.node {
                Node::Draft(place) => place.tree.sync_directory(place.node).map_err(FsError::Draft),
                // What the store shows was durable before it could be seen.
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Allocates or frees space in a draft file: fallocate(2).
    pub fn allocate(&self, handle: u64, mode: i32, offset: u64, bytes: u64) -> Result<(), FsError> {
        match &*self.handles.get(handle)? {
            Handle::Draft(file) => file.allocate(mode, offset, bytes).map_err(FsError::Draft),
            _ => Err(FsError::Operation),
        }
    }

    /// Copies between two draft files without passing the bytes through the caller.
    ///
    /// # Errors
    /// EOPNOTSUPP for all other files: the kernel then reads and writes.
    pub fn copy_range(
        &self,
        from: (u64, u64),
        to: (u64, u64),
        bytes: u64,
    ) -> Result<usize, FsError> {
        let (source, goal) = (self.handles.get(from.0)?, self.handles.get(to.0)?);
        let (Handle::Draft(source), Handle::Draft(goal)) = (&*source, &*goal) else {
            return Err(FsError::Operation);
        };
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(COPY_BYTES_MAX);
        source.copy_range(from.1, goal, to.1, bytes).map_err(FsError::Draft)
    }

    /// Finds data or a hole: lseek(2) with SEEK_DATA or SEEK_HOLE. A sealed file has no holes.
    pub fn seek(&self, handle: u64, offset: u64, whence: i32) -> Result<u64, FsError> {
        let found = match (&*self.handles.get(handle)?, whence) {
            (Handle::Draft(file), libc::SEEK_DATA) => file.seek_data(offset),
            (Handle::Draft(file), libc::SEEK_HOLE) => file.seek_hole(offset),
            (Handle::Sealed(place, ..), libc::SEEK_DATA | libc::SEEK_HOLE) => {
                match &place.manifest.entry(place.entry).node {
                    Sealed::File(file) if file.bytes <= offset => {
                        Err(io::Error::from_raw_os_error(libc::ENXIO))
                    }
                    Sealed::File(file) if whence == libc::SEEK_HOLE => Ok(file.bytes),
                    _ => Ok(offset),
                }
            }
            _ => return Err(FsError::Operation),
        };
        found.map_err(FsError::Draft)
    }

    /// Ends a handle.
    pub fn release(&self, handle: u64) {
        // Dropped here, after the table's lock: the last close of a file may take long.
        drop(self.handles.remove(handle));
    }

    /// A model with the record that made it.
    fn with_seq(&self, model: ModelName) -> Result<(ModelName, u64), FsError> {
        let seq = self.workspace.state().model(&model).ok_or(FsError::Missing)?.seq;
        Ok((model, seq))
    }

    fn opened_sealed(&self, place: &SealedPlace, file: &FileEntry) -> Opened {
        let hot = self.workspace.open_hot(&place.id, file);
        let is_hot = hot.is_some();
        let (handle, kept) =
            self.handles.add(Handle::Sealed(place.clone(), hot, AtomicU64::new(0)));
        let backing = is_hot.then_some(Backing(kept));
        Opened { handle, cache: Cache::Keep, stream: false, no_flush: true, backing }
    }

    /// Counts how a sealed file was opened; other files are not counted.
    pub fn count_open(&self, handle: u64, way: Way) {
        let Ok(handle) = self.handles.get(handle) else { return };
        if matches!(&*handle, Handle::Sealed(..)) {
            let count = match way {
                Way::Passthrough => &self.counts.passed,
                Way::Cached => &self.counts.cached,
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn opened_text(&self, handle: Handle) -> Opened {
        let (handle, _) = self.handles.add(handle);
        Opened { handle, cache: Cache::Direct, stream: false, no_flush: true, backing: None }
    }

    fn opened_draft(&self, file: DraftFile) -> Opened {
        let (handle, kept) = self.handles.add(Handle::Draft(file));
        let backing = Some(Backing(Arc::clone(&kept)));
        Opened { handle, cache: Cache::Plain, stream: false, no_flush: false, backing }
    }

    fn read_sealed(
        &self,
        place: &SealedPlace,
        (hot, decoded): (Option<&HotFile>, &AtomicU64),
        offset: u64,
        out: &mut [u8],
    ) -> Result<usize, FsError> {
        let entry = place.manifest.entry(place.entry);
        let Sealed::File(file) = &entry.node else { return Err(FsError::Operation) };
        // Without passthrough a hot file still saves the decoding.
        if let Some(count) = hot.and_then(|hot| self.workspace.read_hot(hot, offset, out)) {
            self.counts.hot_reads.fetch_add(1, Ordering::Relaxed);
            return Ok(count);
        }
        let count = self.workspace.read_file(&place.manifest, file, offset, out)?;
        let before = decoded.fetch_add(count as u64, Ordering::Relaxed);
        self.workspace.note_decoded(file, before..before + count as u64);
        Ok(count)
    }
}

/// What of a file is to be made durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncScope {
    All,
    Data,
}

/// One request copies at most this much, so that it ends in time.
const COPY_BYTES_MAX: usize = 64 << 20;

fn copy_from(text: &[u8], offset: u64, out: &mut [u8]) -> usize {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
    let count = (text.len() - start).min(out.len());
    out[..count].copy_from_slice(&text[start..start + count]);
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_past_the_end_of_a_text_is_empty() {
        let mut out = [0; 4];
        assert_eq!(copy_from(b"abcdef", 0, &mut out), 4);
        assert_eq!(copy_from(b"abcdef", 4, &mut out), 2);
        assert_eq!(&out[..2], b"ef");
        assert_eq!(copy_from(b"abcdef", 6, &mut out), 0);
        assert_eq!(copy_from(b"abcdef", u64::MAX, &mut out), 0);
    }
}
