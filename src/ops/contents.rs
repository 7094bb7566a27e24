//! The contents of a version: each file is read once, cut, stored and hashed.
//!
//! Invariant S2: what is stored is what was read while nobody had the file open for writing, and
//! whose size and times were the same before and after.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::metadata::SealedFile;
use super::source::{SourceFile, SourceTree};
use super::tensors::External;
use super::{OpsError, Progress, Workspace};
use crate::chunker::{Cut, Pieces, Segment, TENSOR_CHUNK_BYTES};
use crate::format::codec::Elements;
use crate::format::config::Chunking;
use crate::format::ids::{BlobDigest, TreeDigest};
use crate::format::manifest::{ChunkRef, FileTensors};
use crate::format::names::ModelName;
use crate::store::ChunkWriter;
use crate::sys::at;
use crate::sys::lease::{self, Lease};

/// Largest `metadata.json` of a draft that is taken over.
const USER_METADATA_BYTES_MAX: u64 = 1 << 20;
/// How long files that were closed may still count as open: the kernel tells of the last close only
/// after the program has gone on, perhaps to ask for the snapshot.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);
/// Longest pause between two looks whether they are closed.
const CLOSE_PAUSE_MAX: Duration = Duration::from_millis(50);
/// What was read and stored, before it is a version.
pub(super) struct Stored {
    pub source: SourceTree,
    pub digest: TreeDigest,
    pub files: Vec<SealedFile>,
    /// Of the files that have a tensor table, in the order of their entries.
    pub tensors: Vec<FileTensors>,
    pub user: Option<Map<String, Value>>,
}

/// A snapshot under way, for whoever asks how far it is.
pub(super) struct Sealing {
    pub bytes_done: AtomicU64,
    /// Bytes and files of the source once it was walked. No other lock is taken while it is held.
    pub total: Mutex<(u64, u64)>,
    pub since: Timestamp,
}

/// Tells both who waits and who asks.
pub(super) struct Tracked<'a> {
    pub model: &'a ModelName,
    pub progress: &'a dyn Progress,
    pub sealing: &'a Sealing,
}

impl Tracked<'_> {
    pub fn begin(&self, what: &str, bytes_total: u64) {
        self.progress.begin(what, bytes_total);
    }

    pub fn advance(&self, bytes: u64) {
        self.sealing.bytes_done.fetch_add(bytes, Ordering::Relaxed);
        self.progress.advance(bytes);
    }
}

/// Opens a file of the source by its path.
pub(super) type OpenFile<'a> = dyn FnMut(&Path) -> io::Result<File> + 'a;

impl Workspace {
    /// Reads, cuts and stores every file.
    pub(super) fn store_files(
        &self,
        mut source: SourceTree,
        open: &mut OpenFile<'_>,
        is_draft: bool,
        writer: &mut ChunkWriter<'_>,
        progress: &Tracked<'_>,
    ) -> Result<Stored, OpsError> {
        let user = match source.has_user_metadata {
            true => Some(read_user_metadata(open)?),
            false => None,
        };
        let external = learn_external(&source.files, open)?;
        let mut files = Vec::with_capacity(source.files.len());
        let (mut chunks, mut tensors) = (Vec::new(), Vec::new());
        for file in &source.files {
            chunks.clear();
            let opened = open(&file.path).map_err(|e| OpsError::file("open", &file.path, e))?;
            let contents = Contents { file, opened: &opened, is_draft, external: &external };
            let (sealed, of) = self.store_file(&contents, writer, &mut chunks, progress)?;
            tensors.extend(of);
            source.tree.set_file(file.index, file.executable, sealed.digest, &chunks);
            files.push(sealed);
        }
        tensors.sort_by_key(|of| of.file);
        let digest = source.tree.digest();
        Ok(Stored { source, digest, files, tensors, user })
    }

    fn store_file(
        &self,
        contents: &Contents<'_>,
        writer: &mut ChunkWriter<'_>,
        chunks: &mut Vec<ChunkRef>,
        progress: &Tracked<'_>,
    ) -> Result<(SealedFile, Option<FileTensors>), OpsError> {
        let Contents { file, opened, is_draft, external } = *contents;
        let failed = |e| OpsError::file("read", &file.path, e);
        let changed = || OpsError::Changed { path: file.path.clone() };
        let before = at::status(opened).map_err(failed)?;
        if before.kind() != at::EntryKind::File || before.size != file.bytes {
            return Err(changed());
        }
        let taken = once_closed(|| lease::take(opened), |taken| matches!(taken, Ok(Lease::Busy)));
        let lease = match taken.map_err(failed)? {
            Lease::Held(guard) => Some(guard),
            Lease::Unsupported => None,
            Lease::Busy => {
                let (model, paths) = (progress.model.clone(), vec![file.path.clone()]);
                return Err(OpsError::DraftBusy { model, paths });
            }
        };
        let (mut blake3, mut sha256) = (blake3::Hasher::new(), Sha256::new());
        let (mut bytes, mut digests) = (0, Vec::new());
        let plan = external.plan_of(&file.path, opened, file.bytes).map_err(failed)?;
        let mut reader = Interruptible(opened);
        for segment in &plan.segments {
            cut(&mut reader, segment, self.store.config().chunking, |piece| {
                blake3.update(piece);
                sha256.update(piece);
                digests.extend(plan.digests_within(bytes, piece));
                bytes += piece.len() as u64;
                chunks.push(writer.put(piece, segment.elements)?);
                progress.advance(piece.len() as u64);
                Ok(())
            })
            .map_err(|error| error.of_file(&file.path))?;
        }
        let after = at::status(opened).map_err(failed)?;
        // In the draft, removing another name of the file moves its ctime, and changes nothing.
        let same_time = is_draft || before.ctime == after.ctime;
        let held = match &lease {
            Some(lease) => lease.holds().map_err(failed)?,
            None => true,
        };
        if bytes != before.size || after.size != bytes || before.mtime != after.mtime {
            return Err(changed());
        }
        if !same_time || !held {
            return Err(changed());
        }
        let digest = BlobDigest(*blake3.finalize().as_bytes());
        let tensors = plan.into_tensors(file.index, chunks, digests);
        Ok((SealedFile { bytes, digest, sha256: sha256.finalize().into() }, tensors))
    }
}

/// One file and how it is to be read.
struct Contents<'a> {
    file: &'a SourceFile,
    opened: &'a File,
    is_draft: bool,
    external: &'a External,
}

/// Looks into the files that speak of tensors in others, before those are cut.
fn learn_external(files: &[SourceFile], open: &mut OpenFile<'_>) -> Result<External, OpsError> {
    let mut external = External::default();
    for file in files.iter().filter(|file| External::is_spoken_of_by(&file.path)) {
        let learnt =
            open(&file.path).and_then(|opened| external.learn(&file.path, &opened, file.bytes));
        learnt.map_err(|e| OpsError::file("read", &file.path, e))?;
    }
    Ok(external)
}

/// Why a segment was not cut to its end.
enum CutError {
    Read(io::Error),
    Store(OpsError),
}

impl CutError {
    fn of_file(self, path: &Path) -> OpsError {
        match self {
            Self::Read(error) => OpsError::file("read", path, error),
            Self::Store(error) => error,
        }
    }
}

/// Reads a segment and hands its pieces to `put`. A source that ends before it is found out by its
/// length.
fn cut(
    reader: &mut impl Read,
    segment: &Segment,
    chunking: Chunking,
    mut put: impl FnMut(&[u8]) -> Result<(), OpsError>,
) -> Result<(), CutError> {
    let mut limited = reader.take(segment.bytes.end - segment.bytes.start);
    match segment.cut {
        Cut::Content => {
            let mut pieces = Pieces::new(limited, chunking);
            while let Some(piece) = pieces.next_piece().map_err(CutError::Read)? {
                put(piece).map_err(CutError::Store)?;
            }
        }
        Cut::Fixed => {
            let mut piece = Vec::new();
            loop {
                piece.clear();
                let mut next = limited.by_ref().take(TENSOR_CHUNK_BYTES);
                if next.read_to_end(&mut piece).map_err(CutError::Read)? == 0 {
                    break;
                }
                put(&piece).map_err(CutError::Store)?;
            }
        }
    }
    Ok(())
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

/// Reads on after a signal.
struct Interruptible<'a>(&'a File);

impl Read for Interruptible<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(out) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}

/// The draft's own `metadata.json`, which must be a JSON object.
fn read_user_metadata(open: &mut OpenFile<'_>) -> Result<Map<String, Value>, OpsError> {
    let path = Path::new("metadata.json");
    let unfit = |why: String| OpsError::Unfit { path: path.to_owned(), why };
    let failed = |e| OpsError::file("read", path, e);
    let file = open(path).map_err(failed)?;
    let mut text = Vec::new();
    let limited = Interruptible(&file).take(USER_METADATA_BYTES_MAX + 1).read_to_end(&mut text);
    if USER_METADATA_BYTES_MAX < limited.map_err(failed)? as u64 {
        return Err(unfit(format!("larger than {USER_METADATA_BYTES_MAX} bytes")));
    }
    match serde_json::from_slice(&text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(unfit("it must be a JSON object, like {\"team\": \"risk\"}".to_owned())),
        Err(error) => Err(unfit(format!("it is not JSON: {error}"))),
    }
}

/// Stores bytes that are in memory.
pub(super) fn put_whole(
    writer: &mut ChunkWriter<'_>,
    bytes: &[u8],
    chunking: Chunking,
) -> Result<Vec<ChunkRef>, OpsError> {
    let mut pieces = Pieces::new(bytes, chunking);
    let mut chunks = Vec::new();
    let failed = |e| OpsError::file("cut", "metadata.json", e);
    while let Some(piece) = pieces.next_piece().map_err(failed)? {
        chunks.push(writer.put(piece, Elements::Unknown)?);
    }
    Ok(chunks)
}
