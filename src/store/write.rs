//! Writing chunks and manifests: everything is durable before anybody refers to it.
//!
//! Chunks go through a pipeline: whoever has the bytes puts them, a worker a core looks each up and
//! encodes it, one thread appends them to packs in the order in which they were put, so that equal input
//! makes equal packs, and one makes the packs durable. Memory: some MiB a core, however much is put.
//! Invariant P2: a manifest is written only after every pack it needs is durable.
//! Invariant P4: a chunk that is there already counts only after its record, and those of its bases,
//! were read back and found as they were written: the source may be removed on the word of it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, Scope, ScopedJoinHandle};

use parking_lot::Mutex;

use super::encode::{self, BaseSource, Like};
use super::error::StoreError;
use super::packs::{OpenPack, Record};
use super::{Store, Use};
use crate::format::codec::{self, Elements};
use crate::format::ids::{ChunkId, ManifestId};
use crate::format::manifest::{ChunkRef, Manifest};
use crate::format::pack::PACK_BYTES;
use crate::sys::io::{self as durable, Put};

/// Pieces that go to a worker together: many small ones would only wake it.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_PIECES: usize = 128;
/// Chunks that are not worth another thread to check them.
const CHECK_SHARE_MIN: usize = 8;
/// Batches in flight for each worker.
const BATCHES_PER_WORKER: usize = 3;
/// Packs that are full and wait while another is made durable.
const PACKS_WAITING_MAX: usize = 1;

/// A chunk to store: 1 byte to 16 MiB.
pub struct Piece {
    pub plain: Arc<Vec<u8>>,
    /// Only help to make it small.
    pub elements: Elements,
    pub like: Like,
}

/// What was written.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// The chunks in the order in which they were put.
    pub chunks: Vec<ChunkRef>,
    /// That the new ones took in packs.
    pub stored_bytes: u64,
}

/// A worker's answer to one piece.
struct Done {
    chunk: ChunkRef,
    /// `None` for what is there, or comes earlier in this same row.
    record: Option<Record>,
}

type Answer = Result<Vec<Done>, StoreError>;

/// Some pieces, and where their chunks are awaited.
struct Batch {
    pieces: Vec<Piece>,
    answer: SyncSender<Answer>,
}

/// Chunks of one snapshot on their way into packs. Dropped before `finish`: the pack that was open
/// goes; packs that were finished stay, known to the catalog, so that a second try need not write
/// them again.
pub struct ChunkWriter<'scope> {
    batches: SyncSender<Batch>,
    /// `None` ends the row.
    answers: SyncSender<Option<Receiver<Answer>>>,
    /// `None` after it was found to have stopped.
    appender: Option<ScopedJoinHandle<'scope, Result<Written, StoreError>>>,
    pieces: Vec<Piece>,
    pieces_bytes: usize,
    put_count: usize,
    used: Receiver<Arc<Vec<u8>>>,
}

impl Store {
    /// Calls `body` with a writer of chunks, whose threads end before this returns.
    pub fn with_chunk_writer<T>(&self, body: impl FnOnce(ChunkWriter<'_>) -> T) -> T {
        thread::scope(|scope| body(ChunkWriter::start(self, scope)))
    }

    /// Whether all these chunks are stored and whole (P4).
    pub fn holds_all(&self, chunks: &[ChunkRef]) -> bool {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            let share = chunks.len().div_ceil(threads).max(CHECK_SHARE_MIN);
            let check = |share: &[ChunkRef]| share.iter().all(|chunk| self.holds(chunk).is_ok());
            let shares: Vec<_> =
                chunks.chunks(share).map(|share| scope.spawn(move || check(share))).collect();
            shares.into_iter().all(join)
        })
    }

    /// Whether a chunk is stored and whole (P4).
    ///
    /// # Errors
    /// Says whether something of that name is there, for what comes instead.
    fn holds(&self, chunk: &ChunkRef) -> Result<(), Found> {
        let place = match self.catalog.read().place(&chunk.id) {
            Ok(Some(place)) if self.read.is_suspect(&place.pack) => return Err(Found::Damaged),
            Ok(Some(place)) => place,
            // Unknown is a legal answer: a chunk may be stored twice.
            Ok(None) => return Err(Found::Nothing),
            Err(_) => return Err(Found::Damaged),
        };
        self.check_stored(chunk, place).map_err(|error| {
            log::error!("{error}; it is stored anew");
            self.read.suspect(place.pack);
            Found::Damaged
        })
    }

    /// A chunk in the form that takes the least, as far as that is known.
    fn encode(
        &self,
        chunk: &ChunkRef,
        piece: &Piece,
        found: &Found,
        scratch: &mut Vec<u8>,
    ) -> Result<Record, StoreError> {
        let plain = &piece.plain[..];
        let form = match found {
            Found::Nothing => encode::smallest(self, plain, piece.elements, &piece.like),
            // What is stored anew stands alone: a base might need the very chunk that is damaged (C2).
            Found::Damaged => encode::alone(plain, piece.elements),
        };
        Record::new(chunk.id, plain, form.encoded, &form.bases, &form.base_plain, scratch)
    }

    /// Makes a manifest durable under its name.
    pub fn put_manifest(&self, manifest: &Manifest) -> Result<ManifestId, StoreError> {
        let (bytes, id) = manifest.encode();
        // Read back before it counts, as chunks are (P3).
        let unreadable = |source| StoreError::ManifestUnreadable { manifest: id, source };
        manifest.check_encoded(&bytes).map_err(unreadable)?;
        let path = self.layout.manifest(&id);
        let parent = path.parent().expect("a manifest lies in a directory");
        durable::ensure_directory(&*self.io, parent)
            .map_err(|e| StoreError::io("create", parent, e))?;
        let temporary = self.layout.temporary();
        durable::write_durably(&*self.io, &temporary, &path, &bytes, Put::Replace)
            .map_err(|e| StoreError::io("write", &path, e))?;
        Ok(id)
    }
}

impl BaseSource for Store {
    fn base_below(&self, base: &ChunkRef, depth: u8) -> Option<(ChunkRef, u8)> {
        Store::base_below(self, base, depth)
    }

    fn read_at(&self, base: &ChunkRef, offset: u32, out: &mut [u8]) -> Option<()> {
        self.read_chunk_at(base, offset, out, Use::Again).ok().map(drop)
    }

    fn read(&self, base: &ChunkRef) -> Option<Vec<u8>> {
        self.read_chunk(base).ok()
    }
}

/// What was found under the name of a chunk that has to be stored.
enum Found {
    Nothing,
    Damaged,
}

impl<'scope> ChunkWriter<'scope> {
    fn start<'env>(store: &'env Store, scope: &'scope Scope<'scope, 'env>) -> Self {
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let (batches, batches_put) = mpsc::sync_channel(BATCHES_PER_WORKER * workers);
        let (answers, answers_to_come) = mpsc::sync_channel(BATCHES_PER_WORKER * workers);
        let (use_again, used) = mpsc::sync_channel(BATCHES_PER_WORKER * workers);
        let shared = Arc::new(Shared {
            batches: Mutex::new(batches_put),
            taken: Mutex::new(HashSet::new()),
            use_again,
        });
        for _ in 0..workers {
            let shared = Arc::clone(&shared);
            scope.spawn(move || work(store, &shared));
        }
        let appender = scope.spawn(move || append(store, &answers_to_come));
        let (appender, pieces) = (Some(appender), Vec::new());
        Self { batches, answers, appender, pieces, pieces_bytes: 0, put_count: 0, used }
    }

    /// Room for a piece, with whatever is in it.
    pub fn room(&self) -> Vec<u8> {
        // Somebody else may still look at what comes back: then it is left to them.
        let used = self.used.try_recv().ok().and_then(|used| Arc::try_unwrap(used).ok());
        used.unwrap_or_default()
    }

    /// Stores a chunk unless it is there; its index in [`Written::chunks`].
    ///
    /// # Errors
    /// As writing this one or one before it; nothing that was put so far is lost to others, and
    /// nothing refers to it yet.
    pub fn put(&mut self, piece: Piece) -> Result<usize, StoreError> {
        assert!((1..=codec::CHUNK_BYTES_MAX).contains(&piece.plain.len()), "size of a chunk");
        self.pieces_bytes += piece.plain.len();
        self.pieces.push(piece);
        self.put_count += 1;
        if BATCH_BYTES <= self.pieces_bytes || BATCH_PIECES <= self.pieces.len() {
            self.send()?;
        }
        Ok(self.put_count - 1)
    }

    /// Makes all that was put durable.
    pub fn finish(mut self) -> Result<Written, StoreError> {
        self.send()?;
        let Self { batches, answers, appender, put_count, .. } = self;
        // Where it has stopped, it says why below.
        let _ = answers.send(None);
        drop((batches, answers));
        let written = join(appender.expect("nothing is finished after an error"))?;
        assert_eq!(written.chunks.len(), put_count, "each piece has its chunk");
        Ok(written)
    }

    fn send(&mut self) -> Result<(), StoreError> {
        if self.pieces.is_empty() {
            return Ok(());
        }
        let (answer, to_come) = mpsc::sync_channel(1);
        let pieces = std::mem::take(&mut self.pieces);
        self.pieces_bytes = 0;
        // Fails only where the appender has stopped, and so does the other then.
        let sent = self.answers.send(Some(to_come)).is_ok()
            && self.batches.send(Batch { pieces, answer }).is_ok();
        if sent {
            return Ok(());
        }
        let appender = self.appender.take().expect("nothing is put after an error");
        Err(join(appender).expect_err("it ends early only with an error"))
    }
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// What the workers of one writer share.
struct Shared {
    /// Held while waiting for the next batch.
    batches: Mutex<Receiver<Batch>>,
    /// Chunks that some worker has taken on. No other lock is taken while it is held.
    taken: Mutex<HashSet<ChunkId>>,
    use_again: SyncSender<Arc<Vec<u8>>>,
}

/// A worker: encodes batches until there are no more.
fn work(store: &Store, shared: &Shared) {
    let mut scratch = Vec::new();
    loop {
        let next = shared.batches.lock().recv();
        let Ok(Batch { pieces, answer }) = next else { return };
        let mut store_piece = |piece: Piece| {
            let id = ChunkId::of(&piece.plain);
            let bytes = u32::try_from(piece.plain.len()).expect("a chunk is at most 16 MiB");
            let chunk = ChunkRef { id, bytes };
            let is_first = shared.taken.lock().insert(id);
            let record = match is_first.then(|| store.holds(&chunk)) {
                None | Some(Ok(())) => None,
                Some(Err(found)) => Some(store.encode(&chunk, &piece, &found, &mut scratch)?),
            };
            // Whoever reads the source takes it, unless there is enough.
            let _ = shared.use_again.try_send(piece.plain);
            Ok(Done { chunk, record })
        };
        // Nobody waits any more where the appender has stopped.
        let _ = answer.send(pieces.into_iter().map(&mut store_piece).collect());
    }
}

/// The appender: puts what the workers made into packs, in order. A pack that is full is closed beside
/// it: the disk must not make the workers wait.
fn append(
    store: &Store,
    answers: &Receiver<Option<Receiver<Answer>>>,
) -> Result<Written, StoreError> {
    thread::scope(|scope| {
        let (full, to_close) = mpsc::sync_channel(PACKS_WAITING_MAX);
        let closer = scope.spawn(move || close_all(store, &to_close));
        let appended = append_to_packs(store, answers, &full);
        drop(full);
        // Where packs could not be closed, that is why no more were taken.
        let stored_bytes = join(closer)?;
        Ok(Written { stored_bytes, chunks: appended? })
    })
}

/// The chunks in the order in which they came; early and with some only, where somebody gave up.
fn append_to_packs<'a>(
    store: &'a Store,
    answers: &Receiver<Option<Receiver<Answer>>>,
    full: &SyncSender<OpenPack<'a>>,
) -> Result<Vec<ChunkRef>, StoreError> {
    let mut chunks = Vec::new();
    let mut open: Option<OpenPack<'_>> = None;
    loop {
        // Whoever puts gave up, or a worker panicked: the pack that is open goes.
        let Ok(next) = answers.recv() else { return Ok(chunks) };
        let Some(answer) = next else { break };
        let Ok(done) = answer.recv() else { return Ok(chunks) };
        for Done { chunk, record } in done? {
            chunks.push(chunk);
            let Some(record) = record else { continue };
            let pack = match &mut open {
                Some(pack) => pack,
                none => none.insert(OpenPack::create(&*store.io, &store.layout)?),
            };
            pack.put(&record)?;
            if let Some(pack) = open.take_if(|pack| PACK_BYTES <= pack.bytes())
                && full.send(pack).is_err()
            {
                return Ok(chunks);
            }
        }
    }
    if let Some(pack) = open {
        // Fails only where the closer has stopped, and it says why.
        let _ = full.send(pack);
    }
    Ok(chunks)
}

/// The closer: makes packs durable and known, in order; the bytes that they have.
fn close_all(store: &Store, full: &Receiver<OpenPack<'_>>) -> Result<u64, StoreError> {
    let mut stored_bytes = 0;
    for open in full {
        let pack = open.finish(&store.layout)?;
        stored_bytes += pack.bytes;
        store.index_pack(&pack);
    }
    Ok(stored_bytes)
}
