//! Packs on disk: written once under a temporary name, then only read.
//!
//! Invariant P1: a pack's name is the BLAKE3 of its bytes, so a named pack never changes.
//! Invariant P3: each chunk is decoded and compared after it was encoded, before it counts.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::error::StoreError;
use super::layout::Layout;
use crate::format::codec::{self, Bases, Encoded};
use crate::format::ids::{ChunkId, PackId};
use crate::format::pack::{self, FooterLine, PackError, RecordHead};
use crate::sys::io::{self as durable, Io, Put};

/// Bytes of a pack that are written together: the records of small chunks have a few hundred.
const WRITE_BYTES: usize = 256 << 10;

/// A pack that was finished: its name, its length, its chunks.
#[derive(Clone, Debug)]
pub struct FinishedPack {
    pub id: PackId,
    pub bytes: u64,
    pub lines: Vec<FooterLine>,
}

/// A chunk in stored form that was found to read back, but for its place.
pub struct Record {
    head: Vec<u8>,
    payload: Vec<u8>,
    line: FooterLine,
}

impl Record {
    /// The record of a chunk that was encoded from `plain`, with `base`, the plain bytes of all its
    /// bases; `scratch` is room to decode it.
    ///
    /// # Errors
    /// `Encoder` where it does not read back (P3).
    pub fn new(
        id: ChunkId,
        plain: &[u8],
        encoded: Encoded,
        bases: &Bases,
        base: &[u8],
        scratch: &mut Vec<u8>,
    ) -> Result<Self, StoreError> {
        let plain_bytes = u32::try_from(plain.len()).expect("a chunk is at most 16 MiB");
        assert!(encoded.codec.takes(bases, plain_bytes), "bases that {:?} has not", encoded.codec);
        // Decode and compare first: a fault of the compressor must not become a stored chunk (P3).
        if !codec::reads_back(&encoded, base, plain, scratch) {
            return Err(StoreError::Encoder { chunk: id });
        }
        let base_count = bases.chunks.len();
        let head = pack::encode_head(&id, plain_bytes, &encoded, bases);
        let Encoded { codec, payload, .. } = encoded;
        let record_bytes = head.len() + payload.len();
        let line = FooterLine {
            id,
            offset: 0,
            record_bytes: u32::try_from(record_bytes).expect("a record is at most some MiB"),
            plain_bytes,
            codec,
            depth: bases.depth,
            base_count: u8::try_from(base_count).expect("a chunk has at most 16 bases"),
        };
        Ok(Self { head, payload, line })
    }
}

/// A pack that is being written.
pub struct OpenPack<'a> {
    io: &'a dyn Io,
    file: File,
    path: PathBuf,
    hasher: blake3::Hasher,
    bytes: u64,
    /// The last of them, which are still to be written.
    pending: Vec<u8>,
    lines: Vec<FooterLine>,
    finished: bool,
}

impl<'a> OpenPack<'a> {
    /// Starts a pack under a temporary name.
    pub fn create(io: &'a dyn Io, layout: &Layout) -> Result<Self, StoreError> {
        let path = durable::temporary_path(&layout.temporary());
        let file = io.create(&path).map_err(|e| StoreError::io("create", &path, e))?;
        let hasher = blake3::Hasher::new();
        let (bytes, pending, lines, finished) = (0, Vec::new(), Vec::new(), false);
        let mut open = Self { io, file, path, hasher, bytes, pending, lines, finished };
        open.append(&pack::HEADER)?;
        Ok(open)
    }

    /// Bytes that it has so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends a chunk.
    pub fn put(&mut self, record: &Record) -> Result<(), StoreError> {
        let offset = u32::try_from(self.bytes).expect("a pack is closed long before 4 GiB");
        self.append(&record.head)?;
        self.append(&record.payload)?;
        self.lines.push(FooterLine { offset, ..record.line });
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.bytes += bytes.len() as u64;
        if self.pending.len() + bytes.len() < WRITE_BYTES {
            self.pending.extend_from_slice(bytes);
            return Ok(());
        }
        self.write_pending()?;
        self.write(bytes)
    }

    fn write_pending(&mut self) -> Result<(), StoreError> {
        let pending = std::mem::take(&mut self.pending);
        self.write(&pending)?;
        // With its room.
        self.pending = pending;
        self.pending.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.hasher.update(bytes);
        durable::write_all(self.io, &self.file, bytes)
            .map_err(|e| StoreError::io("write", &self.path, e))
    }

    /// Writes the footer and gives the pack its name, durably.
    pub fn finish(mut self, layout: &Layout) -> Result<FinishedPack, StoreError> {
        let footer = pack::encode_footer(&self.lines);
        self.append(&footer)?;
        self.write_pending()?;
        let id = PackId(*self.hasher.finalize().as_bytes());
        let path = layout.pack(&id);
        let parent = path.parent().expect("a pack lies in a directory");
        durable::ensure_directory(self.io, parent)
            .map_err(|e| StoreError::io("create", parent, e))?;
        durable::name_durably(self.io, &self.file, &self.path, &path, Put::Replace)
            .map_err(|e| StoreError::io("rename", &self.path, e))?;
        self.finished = true;
        Ok(FinishedPack { id, bytes: self.bytes, lines: std::mem::take(&mut self.lines) })
    }
}

impl Drop for OpenPack<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // Best effort: what is left is removed at the next start.
            let _ = self.io.remove_file(&self.path);
        }
    }
}

/// The packs that are there by name, with their lengths, sorted. Files with other names are passed
/// over: `verify` names them.
pub fn list(io: &dyn Io, layout: &Layout) -> Result<Vec<(PackId, u64)>, StoreError> {
    let mut found = Vec::new();
    for path in list_named(io, &layout.packs())? {
        if let Some(id) = name_of(&path).and_then(|name| name.parse().ok()) {
            let bytes = io.file_bytes(&path).map_err(|e| StoreError::io("stat", &path, e))?;
            found.push((id, bytes));
        }
    }
    found.sort();
    Ok(found)
}

/// Makes the names of all packs durable.
pub fn sync_names(io: &dyn Io, layout: &Layout) -> Result<(), StoreError> {
    let directory = layout.packs();
    for path in io.list(&directory).map_err(|e| StoreError::io("list", &directory, e))? {
        if path.is_dir() {
            durable::sync_directory(io, &path);
        }
    }
    Ok(())
}

/// Paths of the files two levels below `directory`.
pub fn list_named(io: &dyn Io, directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut found = Vec::new();
    for path in io.list(directory).map_err(|e| StoreError::io("list", directory, e))? {
        if path.is_dir() {
            found.extend(io.list(&path).map_err(|e| StoreError::io("list", &path, e))?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

/// The last component of a path that we made, as text.
pub fn name_of(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

/// The lines of a pack's footer, without reading its records.
///
/// # Errors
/// `Pack` where header, footer or trailer are damaged.
pub fn read_footer(io: &dyn Io, path: &Path) -> Result<Vec<FooterLine>, StoreError> {
    let failed = |e| StoreError::io("read", path, e);
    let damaged = |source| StoreError::Pack { path: path.to_owned(), source };
    let file = io.open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let mut header = [0; pack::HEADER.len()];
    if bytes < (pack::HEADER.len() + pack::TRAILER_BYTES) as u64 || pack::PACK_BYTES_MAX < bytes {
        return Err(damaged(PackError::Trailer));
    }
    durable::read_exact_at(io, &file, &mut header, 0).map_err(failed)?;
    pack::check_header(&header).map_err(damaged)?;
    let mut trailer = [0; pack::TRAILER_BYTES];
    let trailer_at = bytes - pack::TRAILER_BYTES as u64;
    durable::read_exact_at(io, &file, &mut trailer, trailer_at).map_err(failed)?;
    let footer_bytes = pack::parse_trailer(&trailer, bytes).map_err(damaged)?;
    let mut footer = vec![0; footer_bytes + pack::TRAILER_BYTES];
    let footer_at = bytes - footer.len() as u64;
    durable::read_exact_at(io, &file, &mut footer, footer_at).map_err(failed)?;
    pack::parse_footer(&footer, bytes).map_err(damaged)
}

/// The heads of those records of a pack that `lines` name.
///
/// # Errors
/// `Pack` where one is damaged.
pub fn read_heads<'a>(
    io: &dyn Io,
    path: &Path,
    lines: impl Iterator<Item = &'a FooterLine>,
) -> Result<Vec<RecordHead>, StoreError> {
    let failed = |e| StoreError::io("read", path, e);
    let mut lines = lines.peekable();
    if lines.peek().is_none() {
        return Ok(Vec::new());
    }
    let file = io.open(path).map_err(failed)?;
    let read = |line: &FooterLine| {
        let offset = u64::from(line.offset);
        let bytes = pack::head_bytes(line.plain_bytes as usize, usize::from(line.base_count));
        let mut head = vec![0; bytes];
        durable::read_exact_at(io, &file, &mut head, offset).map_err(failed)?;
        pack::parse_head(&head, offset)
            .map_err(|source| StoreError::Pack { path: path.to_owned(), source })
    };
    lines.map(read).collect()
}

/// The records of a pack in their order, found by their own heads: for a pack whose footer is
/// damaged. Ends at the first thing that is no record.
pub fn scan(io: &dyn Io, path: &Path) -> Result<Vec<FooterLine>, StoreError> {
    let failed = |e| StoreError::io("read", path, e);
    let file = io.open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len().min(pack::PACK_BYTES_MAX);
    let mut lines = Vec::new();
    let mut offset = pack::HEADER.len() as u64;
    while let Some(head) = read_head(io, &file, offset, bytes).map_err(failed)? {
        let end = offset + head.record_bytes();
        if bytes < end {
            break;
        }
        lines.push(FooterLine {
            id: head.id,
            offset: u32::try_from(offset).expect("a pack is below 4 GiB"),
            record_bytes: u32::try_from(head.record_bytes()).expect("within a pack"),
            plain_bytes: head.plain_bytes,
            codec: head.codec,
            depth: head.bases.depth,
            base_count: u8::try_from(head.bases.chunks.len()).expect("parsed from one byte"),
        });
        offset = end;
    }
    Ok(lines)
}

/// The head of the record at `offset`; `None` where there is none.
fn read_head(
    io: &dyn Io,
    file: &File,
    offset: u64,
    pack_bytes: u64,
) -> std::io::Result<Option<RecordHead>> {
    // The longest head of all, or what is left of the pack.
    let most = pack::HEAD_BYTES_MAX as u64;
    let room = pack_bytes.saturating_sub(offset).min(most);
    let mut head = vec![0; usize::try_from(room).expect("at most a head")];
    durable::read_exact_at(io, file, &mut head, offset)?;
    Ok(pack::parse_head(&head, offset).ok())
}
