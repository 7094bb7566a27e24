//! SHA-256 of files, on a thread of its own: it is slower than all else that is done with the bytes.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{Scope, ScopedJoinHandle};

use sha2::{Digest, Sha256};

/// Batches that may wait to be hashed.
const BATCHES_WAITING_MAX: usize = 8;
/// Bytes and messages that go to the thread together: small files would only wake it.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_MESSAGES: usize = 256;

enum Message {
    Piece(Arc<Vec<u8>>),
    /// The last piece of a file was sent.
    End,
}

/// Hashes files, one after the other.
pub(super) struct FileHasher<'scope> {
    batches: SyncSender<Vec<Message>>,
    /// To be sent next, and the bytes of its pieces.
    batch: Vec<Message>,
    batch_bytes: usize,
    thread: ScopedJoinHandle<'scope, Vec<[u8; 32]>>,
}

impl<'scope> FileHasher<'scope> {
    pub fn start<'env>(scope: &'scope Scope<'scope, 'env>) -> Self {
        let (batches, to_hash) = mpsc::sync_channel(BATCHES_WAITING_MAX);
        let thread = scope.spawn(move || hash(&to_hash));
        Self { batches, batch: Vec::new(), batch_bytes: 0, thread }
    }

    /// Adds the next bytes of the file.
    pub fn update(&mut self, piece: &Arc<Vec<u8>>) {
        self.batch_bytes += piece.len();
        self.add(Message::Piece(Arc::clone(piece)));
    }

    /// Ends the file.
    pub fn end_file(&mut self) {
        self.add(Message::End);
    }

    /// The digests of all files that were ended, in order.
    pub fn finish(mut self) -> Vec<[u8; 32]> {
        self.send();
        drop(self.batches);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn add(&mut self, message: Message) {
        self.batch.push(message);
        if BATCH_BYTES <= self.batch_bytes || BATCH_MESSAGES <= self.batch.len() {
            self.send();
        }
    }

    fn send(&mut self) {
        self.batch_bytes = 0;
        self.batches.send(std::mem::take(&mut self.batch)).expect("the thread takes all");
    }
}

fn hash(batches: &Receiver<Vec<Message>>) -> Vec<[u8; 32]> {
    let (mut sha256, mut digests) = (Sha256::new(), Vec::new());
    for message in batches.iter().flatten() {
        match message {
            Message::Piece(piece) => sha256.update(&piece[..]),
            Message::End => digests.push(sha256.finalize_reset().into()),
        }
    }
    digests
}
