//! The contents of a version: each file is read, cut, stored and hashed; one that the version before
//! has as well is only compared.
//!
//! Invariant S2, that nobody writes to a file meanwhile, is kept by [`QuietFile`].

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Take};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::ancestor::{Ancestor, Known, Likeness};
use super::digests::{FileHasher, Rest, read_at};
use super::hot::Movable;
use super::late::{LateFiles, Settled};
use super::metadata::{Described, ListedFile};
use super::quiet::QuietFile;
use super::source::{Files, SourceFile, SourceTree};
use super::tensors::{CutTable, EXTERNAL, External, kind_of_file};
use super::told::Telling;
use super::{OpsError, Progress, Workspace};
use crate::capture::Found;
use crate::chunker::{Cut, Pieces, Segment, TENSOR_CHUNK_BYTES};
use crate::format::codec::Elements;
use crate::format::config::Chunking;
use crate::format::hot::Stamp;
use crate::format::ids::{BlobDigest, ChunkId, TreeDigest};
use crate::format::manifest::{ChunkRef, EntryIndex, FileTensors, Node, Tree};
use crate::format::names::ModelName;
use crate::store::{ChunkWriter, Like, Piece};
use crate::sys::at;

/// Largest `metadata.json` of a draft that is taken over.
const USER_METADATA_BYTES_MAX: u64 = 1 << 20;
/// Files that are open before it is their turn, and bytes of each that the kernel reads meanwhile.
const AHEAD_FILES_MAX: usize = 32;
const AHEAD_BYTES_MAX: u64 = 256 << 10;
/// Bytes that are read and hashed at a time.
const DIGEST_STEP_BYTES: usize = 1 << 20;

/// What was read and stored, before it is a version.
pub(super) struct Stored {
    /// Its tree has the files' digests, and not yet their chunks.
    pub source: SourceTree,
    pub digest: TreeDigest,
    pub user: Option<Map<String, Value>>,
    /// What the files say of how they were made.
    pub found: Found,
    /// In the order of the files, as are the others.
    files: Vec<FileRead>,
    sha256: Vec<[u8; 32]>,
    cuts: Vec<FileCut>,
}

/// How a file was cut: the chunks that it has, and what its tensors are told by. Small, as there may be
/// a million of them.
enum FileCut {
    /// By so many of the pieces that were put.
    Pieces(u32, Option<Box<CutTable>>),
    /// As it was before.
    Known(Box<(Vec<ChunkRef>, Option<FileTensors>)>),
}

impl Stored {
    /// The list of files for `metadata.json`.
    pub fn listed(&self) -> impl Iterator<Item = (ListedFile<PathBuf>, Option<&Described>)> {
        let files = self.source.files().zip(&self.files).zip(&self.sha256);
        files.map(|((file, read), sha256)| {
            let (digest, sha256, format) = (self.source.digest(&file), *sha256, read.format);
            let SourceFile { path, bytes, .. } = file;
            (ListedFile { path, bytes, digest, format, sha256 }, read.described.as_deref())
        })
    }

    /// The tree with the chunks of its files, and the tensors of those that have a table, in the
    /// order of their entries. `metadata.json` has this digest, and the pieces from `metadata_first` on.
    /// What is kept of the files by themselves goes.
    pub fn with_chunks(
        &mut self,
        written: &[ChunkRef],
        metadata: BlobDigest,
        metadata_first: usize,
    ) -> (Tree, Vec<FileTensors>) {
        (self.files, self.sha256) = Default::default();
        let mut tree = std::mem::take(&mut self.source.tree);
        let mut cuts = std::mem::take(&mut self.cuts).into_iter();
        let (mut pieces, mut tensors) = (0..0, Vec::new());
        for file in (0..tree.entry_count()).map(EntryIndex) {
            if file == self.source.metadata {
                tree.set_file(file, false, metadata, &written[metadata_first..]);
                continue;
            }
            let Node::File(_) = tree.entry(file).node else { continue };
            match cuts.next().expect("each file was cut") {
                FileCut::Pieces(count, table) => {
                    pieces = pieces.end..pieces.end + count as usize;
                    let chunks = &written[pieces.clone()];
                    tree.set_chunks(file, chunks);
                    tensors.extend(table.map(|table| table.into_tensors(file, chunks)));
                }
                FileCut::Known(known) => {
                    let (chunks, table) = *known;
                    tree.set_chunks(file, &chunks);
                    tensors.extend(table.map(|table| FileTensors { file, ..table }));
                }
            }
        }
        assert_eq!(pieces.end, metadata_first, "the metadata comes after all files");
        (tree, tensors)
    }

    /// The files that may be moved to the hot ones, once nobody can write to them.
    pub fn movable(&self) -> Vec<Movable> {
        let files = self.source.files().zip(&self.files);
        let movable = files.filter_map(|(file, read)| {
            let (sealed, digest) = (**read.sealed.as_ref()?, self.source.digest(&file));
            Some(Movable { path: file.path, digest, sealed })
        });
        movable.collect()
    }
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
        let external = learn_external(&source, open)?;
        let ancestor = self.ancestor(progress.model);
        let (mut files, mut cuts) = (Vec::new(), Vec::new());
        let limits = self.late_limits;
        let (digests, known, late, telling) = std::thread::scope(|scope| -> Result<_, OpsError> {
            let mut reading = Reading {
                workspace: self,
                ancestor: ancestor.as_ref(),
                external: &external,
                bytes_to_come: source.bytes,
                hasher: FileHasher::start(scope, limits.batches_waiting),
                known: VecDeque::new(),
                late: LateFiles::new(limits),
                writer,
                progress,
                is_draft,
                telling: Telling::default(),
            };
            let mut ahead = Ahead::new(&source, open);
            while let Some((file, opened)) = ahead.next(&source)? {
                let entry = file.index;
                let (digest, read, cut) = reading.read(files.len(), file, opened)?;
                source.tree.set_content(entry, digest);
                files.push(read);
                cuts.push(cut);
            }
            let Reading { hasher, known, late, telling, .. } = reading;
            Ok((hasher.finish(), known, late.finish()?, telling))
        })?;
        drop((ancestor, external));
        let mut sha256 = merge(digests, known, &cuts);
        for Settled { index, sha256: digest, sealed } in late {
            (sha256[index], files[index].sealed) = (digest, sealed);
        }
        let found = telling.finish(files.iter().filter_map(|read| read.described.as_deref()));
        source.notes.extend(found.notes.iter().cloned());
        let digest = source.tree.digest();
        Ok(Stored { source, digest, user, found, files, sha256, cuts })
    }
}

/// What reading a file gave, apart from what it holds. Small, as there may be a million of them.
struct FileRead {
    /// The word for its format.
    format: &'static str,
    /// What the file was while it was read, if a lease said that nobody wrote to it and it can become
    /// hot.
    sealed: Option<Box<Stamp>>,
    /// What it says of itself.
    described: Option<Box<Described>>,
}

/// The digests of all files, of those that were hashed and those that were `known`.
fn merge(hashed: Vec<[u8; 32]>, mut known: VecDeque<[u8; 32]>, cuts: &[FileCut]) -> Vec<[u8; 32]> {
    if known.is_empty() {
        return hashed;
    }
    let mut hashed = hashed.into_iter();
    let next = |cut: &FileCut| match cut {
        FileCut::Pieces(..) => hashed.next(),
        FileCut::Known(_) => known.pop_front(),
    };
    cuts.iter().map_while(next).collect()
}

/// Opens files before it is their turn, so that the disk looks for many of them at a time.
struct Ahead<'a, 'open> {
    files: Files,
    open: &'a mut OpenFile<'open>,
    opened: VecDeque<(SourceFile, File)>,
}

impl<'a, 'open> Ahead<'a, 'open> {
    fn new(source: &SourceTree, open: &'a mut OpenFile<'open>) -> Self {
        Self { files: Files::of(source), open, opened: VecDeque::new() }
    }

    /// The next file of the same source.
    fn next(&mut self, source: &SourceTree) -> Result<Option<(SourceFile, File)>, OpsError> {
        while self.opened.len() < AHEAD_FILES_MAX {
            let Some(file) = self.files.next(source) else { break };
            let opened = (self.open)(&file.path);
            let opened = opened.map_err(|error| OpsError::file("open", &file.path, error))?;
            at::will_need(&opened, file.bytes.min(AHEAD_BYTES_MAX));
            self.opened.push_back((file, opened));
        }
        Ok(self.opened.pop_front())
    }
}

/// Files being read, one after the other.
struct Reading<'a, 'scope, 'env, 'writer> {
    workspace: &'a Workspace,
    ancestor: Option<&'a Ancestor>,
    external: &'a External,
    /// Of the files after the one that is read.
    bytes_to_come: u64,
    hasher: FileHasher<'scope, 'env>,
    /// SHA-256 of the files that are as they were before.
    known: VecDeque<[u8; 32]>,
    late: LateFiles<'scope>,
    writer: &'a mut ChunkWriter<'writer>,
    progress: &'a Tracked<'a>,
    is_draft: bool,
    telling: Telling,
}

impl<'scope> Reading<'_, 'scope, '_, '_> {
    /// Reads the file with this place among all, which nobody writes to meanwhile (S2).
    fn read(
        &mut self,
        index: usize,
        file: SourceFile,
        opened: File,
    ) -> Result<(BlobDigest, FileRead, FileCut), OpsError> {
        self.late.settle_done()?;
        self.bytes_to_come -= file.bytes;
        let file = QuietFile::hold(file, opened, self.progress.model, self.is_draft)?;
        let (digest, cut, rest) = match self.find_known(&file).map_err(|e| file.failed(e))? {
            Some((digest, cut)) => (digest, cut, None),
            None => self.cut(&file)?,
        };
        let (path, bytes) = (&file.source.path, file.source.bytes);
        let format = kind_of_file(path, &file.opened, bytes).map_err(|e| file.failed(e))?;
        let described = self.telling.ask(path, &file.opened, bytes, format);
        let described = described.map_err(|e| file.failed(e))?;
        let sealed = match rest {
            None => file.release()?,
            Some(rest) => {
                self.late.push(index, file, rest);
                None
            }
        };
        Ok((digest, FileRead { format, sealed, described }, cut))
    }

    /// The file as the version before has it, if it is the same and all of it is stored and whole.
    fn find_known(&mut self, file: &QuietFile) -> io::Result<Option<(BlobDigest, FileCut)>> {
        let QuietFile { source: file, opened, .. } = file;
        // Another file may tell another story of the tensors in this one than it did.
        let Some(ancestor) = self.ancestor.filter(|_| !self.external.tells_of(&file.path)) else {
            return Ok(None);
        };
        let mut beginning = Beginning::new(opened);
        for known in ancestor.candidates(self.workspace, &file.path, file.bytes) {
            let Known { file: before, chunks, table, sha256 } = known;
            let is_external = table.is_some_and(|it| &*it.format == EXTERNAL);
            if is_external || !chunks.first().map_or(Ok(false), |first| beginning.is(first))? {
                continue;
            }
            let digest = digest_of(opened)?;
            // What begins alike and goes on otherwise was read whole, and is so once only.
            if digest != before.digest || !self.workspace.store.holds_all(chunks) {
                return Ok(None);
            }
            self.progress.advance(file.bytes);
            self.known.push_back(sha256);
            let known = Box::new((chunks.to_vec(), table.cloned()));
            return Ok(Some((digest, FileCut::Known(known))));
        }
        Ok(None)
    }

    /// Reads a file to its end, and puts its pieces; with its digest what is still to be hashed.
    fn cut(
        &mut self,
        file: &QuietFile,
    ) -> Result<(BlobDigest, FileCut, Option<Rest<'scope>>), OpsError> {
        let SourceFile { path, bytes: file_bytes, .. } = &file.source;
        let plan = self.external.plan_of(path, &file.opened, *file_bytes);
        let plan = plan.map_err(|e| file.failed(e))?;
        let chunking = self.workspace.store.config().chunking;
        let mut likeness = Likeness::new(self.ancestor, path, *file_bytes);
        let mut reader = Interruptible(&file.opened);
        let (mut blake3, mut own) = (blake3::Hasher::new(), Vec::new());
        let (mut bytes, mut piece_count) = (0_u64, 0);
        if self.late.may_take(file, self.bytes_to_come) {
            self.hasher.may_leave(&file.opened);
        }
        for segment in &plan.segments {
            likeness.enter(&plan, segment);
            let mut pieces_of = PiecesOf::new(&mut reader, segment, chunking);
            let mut next = |room| pieces_of.next(room).map_err(|e| file.failed(e));
            while let Some(plain) = next(self.writer.room())? {
                blake3.update(&plain);
                own.extend(plan.digests_within(bytes, &plain));
                let place = bytes..bytes + plain.len() as u64;
                let like = likeness.next(place.clone(), || ChunkId::of(&plain));
                let elements = segment.elements_at(place.start - segment.bytes.start);
                bytes += plain.len() as u64;
                self.progress.advance(plain.len() as u64);
                let plain = Arc::new(plain);
                self.hasher.update(&plain);
                self.writer.put(Piece { plain, elements, like })?;
                piece_count += 1;
            }
        }
        if bytes != *file_bytes {
            return Err(file.changed());
        }
        let digest = BlobDigest(*blake3.finalize().as_bytes());
        let cut = FileCut::Pieces(piece_count, plan.into_table(own));
        Ok((digest, cut, self.hasher.end_file()))
    }
}

/// The beginning of a file, as long as the first chunk of another.
struct Beginning<'a> {
    of: &'a File,
    bytes: Vec<u8>,
    chunk: Option<ChunkRef>,
}

impl<'a> Beginning<'a> {
    fn new(of: &'a File) -> Self {
        Self { of, bytes: Vec::new(), chunk: None }
    }

    /// Whether it is this chunk.
    fn is(&mut self, other: &ChunkRef) -> io::Result<bool> {
        if self.chunk.is_none_or(|chunk| chunk.bytes != other.bytes) {
            self.bytes.resize(other.bytes as usize, 0);
            match self.of.read_exact_at(&mut self.bytes, 0) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                done => done?,
            }
            self.chunk = Some(ChunkRef { id: ChunkId::of(&self.bytes), bytes: other.bytes });
        }
        Ok(self.chunk == Some(*other))
    }
}

/// The digest of a whole file.
fn digest_of(opened: &File) -> io::Result<BlobDigest> {
    let mut room = vec![0; DIGEST_STEP_BYTES];
    let (mut blake3, mut offset) = (blake3::Hasher::new(), 0);
    loop {
        match read_at(opened, &mut room, offset)? {
            0 => return Ok(BlobDigest(*blake3.finalize().as_bytes())),
            count => {
                blake3.update(&room[..count]);
                offset += count as u64;
            }
        }
    }
}

/// Looks into the files that speak of tensors in others, before those are cut.
fn learn_external(source: &SourceTree, open: &mut OpenFile<'_>) -> Result<External, OpsError> {
    let mut external = External::default();
    for file in source.files().filter(|file| External::is_spoken_of_by(&file.path)) {
        let learnt =
            open(&file.path).and_then(|opened| external.learn(&file.path, &opened, file.bytes));
        learnt.map_err(|e| OpsError::file("read", &file.path, e))?;
    }
    Ok(external)
}

/// The pieces of a segment. A source that ends before it is found out by its length.
pub(super) enum PiecesOf<R: Read> {
    Content(Pieces<Take<R>>),
    Fixed(Take<R>),
}

impl<R: Read> PiecesOf<R> {
    pub fn new(reader: R, segment: &Segment, chunking: Chunking) -> Self {
        let limited = reader.take(segment.bytes.end - segment.bytes.start);
        match segment.cut {
            Cut::Content => Self::Content(Pieces::new(limited, chunking)),
            Cut::Fixed => Self::Fixed(limited),
        }
    }

    /// The next piece, in `room`, whatever that holds; `None` at the end.
    pub fn next(&mut self, mut room: Vec<u8>) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::Content(pieces) => {
                let Some(piece) = pieces.next_piece()? else { return Ok(None) };
                room.clear();
                room.extend_from_slice(piece);
            }
            Self::Fixed(limited) => {
                let wanted = limited.limit().min(TENSOR_CHUNK_BYTES);
                // Only what it grows by is made zero.
                room.resize(usize::try_from(wanted).expect("at most 1 MiB"), 0);
                let read = read_up_to(limited, &mut room)?;
                room.truncate(read);
            }
        }
        Ok((!room.is_empty()).then_some(room))
    }
}

/// Reads until `out` is full or the source ends; the bytes read.
fn read_up_to(source: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < out.len() {
        match source.read(&mut out[done..])? {
            0 => break,
            count => done += count,
        }
    }
    Ok(done)
}

/// Reads on after a signal.
pub(super) struct Interruptible<'a>(pub &'a File);

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
pub(super) fn read_user_metadata(open: &mut OpenFile<'_>) -> Result<Map<String, Value>, OpsError> {
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

/// Puts the text of `metadata.json`; its digest, and the first of the pieces that it became, the last that
/// are put.
pub(super) fn put_metadata(
    writer: &mut ChunkWriter<'_>,
    text: impl Read,
    chunking: Chunking,
) -> Result<(BlobDigest, usize), OpsError> {
    let mut pieces = Pieces::new(text, chunking);
    let (mut blake3, mut first) = (blake3::Hasher::new(), None);
    let failed = |e| OpsError::file("cut", "metadata.json", e);
    while let Some(piece) = pieces.next_piece().map_err(failed)? {
        blake3.update(piece);
        let plain = Arc::new(piece.to_vec());
        let (elements, like) = (Elements::Unknown, Like::Nothing);
        let index = writer.put(Piece { plain, elements, like })?;
        first.get_or_insert(index);
    }
    let first = first.expect("metadata is never empty");
    Ok((BlobDigest(*blake3.finalize().as_bytes()), first))
}
