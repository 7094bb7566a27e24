//! SHA-256 of files, on threads of their own: it is slower than all else that is done with the bytes.
//!
//! One thread hashes the pieces of all files as they are read, and whoever reads waits for it. SHA-256 of one
//! file is serial, so that a single large file is sealed no faster than that thread hashes, on any number
//! of cores. Where others come after it, a file that holds its reader up can be left instead: a thread of its own
//! takes over and reads the rest of it again, from the page cache, while the reader goes on. Its pieces are
//! not kept meanwhile: they would take any amount of memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Weak};
use std::thread::{Scope, ScopedJoinHandle};

use sha2::{Digest, Sha256};

/// Batches that may wait to be hashed.
pub(super) const BATCHES_WAITING_MAX: usize = 8;
/// Bytes and messages that go to the thread together: small files would only wake it.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_MESSAGES: usize = 256;
/// Bytes of a file that was left that are read and hashed at a time: they stay in the core's cache.
const STEP_BYTES: usize = 256 << 10;

enum Message {
    Piece(Arc<Vec<u8>>),
    /// The last piece of a file was sent.
    End,
    /// The last piece of a file was sent that will be: somebody else goes on.
    Leave(SyncSender<Sha256>),
}

/// Hashes files, one after the other, and the rests of those that are left side by side.
pub(super) struct FileHasher<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    batches: SyncSender<Vec<Message>>,
    /// How many batches wait, and how many make the thread late.
    waiting: Arc<AtomicUsize>,
    waiting_late: usize,
    /// To be sent next, and the bytes of its pieces.
    batch: Vec<Message>,
    batch_bytes: usize,
    /// The file that is hashed, if it may be left, and the bytes of it so far.
    may_leave: Option<Weak<File>>,
    file_bytes: u64,
    /// The rest of that file, once it was left.
    rest: Option<Rest<'scope>>,
    thread: ScopedJoinHandle<'scope, Vec<[u8; 32]>>,
}

/// The rest of a file, hashed by a thread of its own for as long as somebody keeps the file.
pub(super) struct Rest<'scope>(ScopedJoinHandle<'scope, io::Result<Hashed>>);

/// What a file was that was hashed to its end.
pub(super) struct Hashed {
    pub sha256: [u8; 32],
    pub bytes: u64,
}

impl<'scope, 'env> FileHasher<'scope, 'env> {
    /// A thread that is late when `waiting_late` batches wait, at most [`BATCHES_WAITING_MAX`].
    pub fn start(scope: &'scope Scope<'scope, 'env>, waiting_late: usize) -> Self {
        let (batches, to_hash) = mpsc::sync_channel(BATCHES_WAITING_MAX);
        let waiting = Arc::new(AtomicUsize::new(0));
        let taken = Arc::clone(&waiting);
        let thread = scope.spawn(move || hash(&to_hash, &taken));
        Self {
            scope,
            batches,
            waiting,
            waiting_late,
            batch: Vec::new(),
            batch_bytes: 0,
            may_leave: None,
            file_bytes: 0,
            rest: None,
            thread,
        }
    }

    /// Lets the file that comes next be left where the thread is late.
    pub fn may_leave(&mut self, file: &Arc<File>) {
        self.may_leave = Some(Arc::downgrade(file));
    }

    /// Adds the next bytes of the file.
    pub fn update(&mut self, piece: &Arc<Vec<u8>>) {
        if self.rest.is_some() {
            return;
        }
        self.batch_bytes += piece.len();
        self.file_bytes += piece.len() as u64;
        self.add(Message::Piece(Arc::clone(piece)));
    }

    /// Ends the file; the rest of it, if it was left. Its digest among those of all files is no digest then.
    pub fn end_file(&mut self) -> Option<Rest<'scope>> {
        (self.may_leave, self.file_bytes) = (None, 0);
        let rest = self.rest.take();
        if rest.is_none() {
            self.add(Message::End);
        }
        rest
    }

    /// The digests of all files that were ended, in order.
    pub fn finish(mut self) -> Vec<[u8; 32]> {
        self.send();
        drop(self.batches);
        join(self.thread)
    }

    fn add(&mut self, message: Message) {
        self.batch.push(message);
        if BATCH_BYTES <= self.batch_bytes || BATCH_MESSAGES <= self.batch.len() {
            if self.waiting_late <= self.waiting.load(Ordering::Relaxed) {
                self.leave();
            }
            self.send();
        }
    }

    /// Leaves the file to a thread of its own, if that may be.
    fn leave(&mut self) {
        let Some(file) = self.may_leave.take() else { return };
        let (give, begun) = mpsc::sync_channel(1);
        self.batch.push(Message::Leave(give));
        let offset = self.file_bytes;
        self.rest = Some(Rest(self.scope.spawn(move || hash_rest(&begun, &file, offset))));
    }

    fn send(&mut self) {
        self.batch_bytes = 0;
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.batches.send(std::mem::take(&mut self.batch)).expect("the thread takes all");
    }
}

impl Rest<'_> {
    /// Whether [`Self::finish`] has not to wait.
    pub fn is_done(&self) -> bool {
        self.0.is_finished()
    }

    /// The whole file's digest.
    ///
    /// # Errors
    /// As reading it.
    pub fn finish(self) -> io::Result<Hashed> {
        join(self.0)
    }
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn hash(batches: &Receiver<Vec<Message>>, waiting: &AtomicUsize) -> Vec<[u8; 32]> {
    let (mut sha256, mut digests) = (Sha256::new(), Vec::new());
    for batch in batches {
        waiting.fetch_sub(1, Ordering::Relaxed);
        for message in batch {
            match message {
                Message::Piece(piece) => sha256.update(&piece[..]),
                Message::End => digests.push(sha256.finalize_reset().into()),
                Message::Leave(give) => {
                    digests.push([0; 32]);
                    // Nobody takes it where the reader gave up.
                    let _ = give.send(std::mem::take(&mut sha256));
                }
            }
        }
    }
    digests
}

/// Hashes a file from `offset` to its end, after what was `begun`.
fn hash_rest(begun: &Receiver<Sha256>, file: &Weak<File>, mut offset: u64) -> io::Result<Hashed> {
    let given_up = || io::Error::other("nobody waits for its hash");
    let mut sha256 = begun.recv().map_err(io::Error::other)?;
    let mut room = vec![0; STEP_BYTES];
    loop {
        let file = file.upgrade().ok_or_else(given_up)?;
        match read_at(&file, &mut room, offset)? {
            0 => return Ok(Hashed { sha256: sha256.finalize().into(), bytes: offset }),
            count => {
                sha256.update(&room[..count]);
                offset += count as u64;
            }
        }
    }
}

/// Reads on after a signal.
pub(super) fn read_at(file: &File, room: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(room, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn bytes_of(seed: usize, len: usize) -> Vec<u8> {
        (0..len).map(|at| ((at * 31 + seed) ^ (at >> 8)) as u8).collect()
    }

    #[test]
    fn files_have_their_digests_whichever_are_left() {
        let directory = tempfile::tempdir().unwrap();
        let sizes = [0, 1, 5, 0, STEP_BYTES, 3 * STEP_BYTES + 7, 100, 1 << 20, BATCH_BYTES - 1, 9];
        for waiting_late in [0, 1, BATCHES_WAITING_MAX] {
            thread::scope(|scope| {
                let mut hasher = FileHasher::start(scope, waiting_late);
                let (mut kept, mut expected) = (Vec::new(), Vec::new());
                for (index, len) in sizes.into_iter().chain(sizes).enumerate() {
                    let bytes = bytes_of(index, len);
                    let path = directory.path().join(index.to_string());
                    std::fs::write(&path, &bytes).unwrap();
                    let file = Arc::new(File::open(&path).unwrap());
                    if index % 3 != 0 {
                        hasher.may_leave(&file);
                    }
                    for piece in bytes.chunks(70_001) {
                        hasher.update(&Arc::new(piece.to_vec()));
                    }
                    let rest = hasher.end_file();
                    let (may, is_left) = (index % 3 != 0, rest.is_some());
                    assert!(may || !is_left, "{index}: {len} bytes");
                    let must = may && waiting_late == 0 && BATCH_BYTES <= len;
                    assert!(is_left || !must, "{index}: {len} bytes");
                    expected.push(<[u8; 32]>::from(Sha256::digest(&bytes)));
                    kept.push((len, file, rest));
                }
                let mut digests = hasher.finish();
                for (index, (len, _file, rest)) in kept.into_iter().enumerate() {
                    let Some(rest) = rest else { continue };
                    let hashed = rest.finish().unwrap();
                    assert_eq!(hashed.bytes, len as u64);
                    digests[index] = hashed.sha256;
                }
                assert_eq!(digests, expected, "late at {waiting_late}");
            });
        }
    }

    #[test]
    fn a_file_that_nobody_keeps_is_not_hashed_to_its_end() {
        // Would take hours.
        let endless = tempfile::tempfile().unwrap();
        endless.set_len(1 << 43).unwrap();
        let file = Arc::new(endless);
        let ended = thread::scope(|scope| {
            let mut hasher = FileHasher::start(scope, 0);
            hasher.may_leave(&file);
            hasher.update(&Arc::new(vec![0; BATCH_BYTES]));
            let rest = hasher.end_file().expect("it is left at once");
            assert!(!rest.is_done());
            drop(file);
            rest.finish()
        });
        assert!(ended.is_err());
    }
}
