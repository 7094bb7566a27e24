//! SHA-256 of files, on a thread of its own: it is slower than all else that is done with the bytes.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{Scope, ScopedJoinHandle};

use sha2::{Digest, Sha256};

/// Pieces that may wait to be hashed, of 1 MiB at most.
const PIECES_WAITING_MAX: usize = 8;

enum Message {
    Piece(Arc<Vec<u8>>),
    /// The last piece of a file was sent.
    End,
}

/// Hashes files, one after the other.
pub(super) struct FileHasher<'scope> {
    messages: SyncSender<Message>,
    thread: ScopedJoinHandle<'scope, Vec<[u8; 32]>>,
}

impl<'scope> FileHasher<'scope> {
    pub fn start<'env>(scope: &'scope Scope<'scope, 'env>) -> Self {
        let (messages, to_hash) = mpsc::sync_channel(PIECES_WAITING_MAX);
        Self { messages, thread: scope.spawn(move || hash(&to_hash)) }
    }

    /// Adds the next bytes of the file.
    pub fn update(&self, piece: &Arc<Vec<u8>>) {
        self.messages.send(Message::Piece(Arc::clone(piece))).expect("the thread takes all");
    }

    /// Ends the file.
    pub fn end_file(&self) {
        self.messages.send(Message::End).expect("the thread takes all");
    }

    /// The digests of all files that were ended, in order.
    pub fn finish(self) -> Vec<[u8; 32]> {
        drop(self.messages);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn hash(messages: &Receiver<Message>) -> Vec<[u8; 32]> {
    let (mut sha256, mut digests) = (Sha256::new(), Vec::new());
    for message in messages {
        match message {
            Message::Piece(piece) => sha256.update(&piece[..]),
            Message::End => digests.push(sha256.finalize_reset().into()),
        }
    }
    digests
}
