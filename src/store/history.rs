//! The history: numbered records, one file each, made by put-if-absent. THE TRUTH.
//!
//! Invariant H3: the record with number n is acknowledged only when its file and its name are
//! durable, and no file is ever changed after that. Making it is the only commit point.

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::layout::Layout;
use crate::format::ids::RecordDigest;
use crate::format::record::{RECORD_BYTES_MAX, Record};
use crate::sys::io::{self as durable, Io, Put};

/// Records that are read together.
const BATCH_RECORDS: u64 = 128;
/// Threads that read a long history: more than there are cores, as they wait for the disk.
const READERS: u64 = 8;

/// Number and digest of the newest record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Head {
    /// 0 for a history without records.
    pub seq: u64,
    pub digest: RecordDigest,
}

impl Head {
    /// The head of a history without records.
    pub fn empty() -> Self {
        Self { seq: 0, digest: Record::no_record() }
    }
}

/// One record as it is stored.
#[derive(Clone, Debug)]
pub struct Line {
    pub record: Record,
    /// With its newline.
    pub bytes: Vec<u8>,
    pub digest: RecordDigest,
}

/// Reads and appends records.
#[derive(Clone)]
pub struct History {
    io: Arc<dyn Io>,
    layout: Layout,
}

impl History {
    pub fn new(io: Arc<dyn Io>, layout: Layout) -> Self {
        Self { io, layout }
    }

    /// The file of record `seq` as it is; `None` where there is none.
    pub fn read(&self, seq: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.layout.record(seq);
        match durable::read_file(&*self.io, &path, RECORD_BYTES_MAX as u64) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("read", &path, error)),
        }
    }

    /// Calls `visit` with every record in order, each checked against the one before, and gives the
    /// head. Reads nothing but the records' own files.
    ///
    /// # Errors
    /// As [`History::follow`] and [`History::check_end`].
    pub fn replay(
        &self,
        visit: impl FnMut(&Line) -> Result<(), StoreError>,
    ) -> Result<Head, StoreError> {
        let head = self.follow(Head::empty(), visit)?;
        self.check_end(head)?;
        Ok(head)
    }

    /// Calls `visit` with every record after `head` in order, up to the first number without a file.
    ///
    /// # Errors
    /// The first record that is damaged or out of place, or what `visit` says of it; what was visited
    /// stays visited.
    pub fn follow(
        &self,
        mut head: Head,
        mut visit: impl FnMut(&Line) -> Result<(), StoreError>,
    ) -> Result<Head, StoreError> {
        let first = head.seq + 1;
        // By ourselves: after a checkpoint there are seldom more.
        let mut batch = self.read_batch(first);
        let mut take = |batch: Batch| {
            for line in batch.lines {
                head = follows(head, &line)?;
                visit(&line)?;
            }
            batch.end.map_or(Ok(head), Err)
        };
        if batch.is_last() {
            return take(batch);
        }
        thread::scope(|scope| {
            let readers: Vec<Receiver<Batch>> = (1..=READERS)
                .map(|reader| {
                    let (sender, batches) = mpsc::sync_channel(1);
                    let first = first + reader * BATCH_RECORDS;
                    scope.spawn(move || self.read_batches(first, &sender));
                    batches
                })
                .collect();
            for reader in readers.iter().cycle() {
                if batch.is_last() {
                    break;
                }
                take(batch)?;
                batch = reader.recv().expect("a reader goes on to its last batch");
            }
            take(batch)
        })
    }

    /// Reads every batch that is a reader's, up to the end of the history.
    fn read_batches(&self, mut first: u64, sender: &SyncSender<Batch>) {
        loop {
            let batch = self.read_batch(first);
            let is_last = batch.is_last();
            // Nobody waits any more where another reader came to the end.
            if sender.send(batch).is_err() || is_last {
                return;
            }
            first += READERS * BATCH_RECORDS;
        }
    }

    fn read_batch(&self, first: u64) -> Batch {
        let mut batch = Batch { lines: Vec::new(), end: None };
        for seq in first..first + BATCH_RECORDS {
            match self.read(seq).and_then(|bytes| bytes.map(|it| parse(seq, it)).transpose()) {
                Ok(Some(line)) => batch.lines.push(line),
                Ok(None) => break,
                Err(error) => {
                    batch.end = Some(error);
                    break;
                }
            }
        }
        batch
    }

    /// Sees to it that no record lies beyond `head`, after which there is none: what would be made in
    /// the place of missing ones would hide what follows. O(n): lists the directory.
    ///
    /// # Errors
    /// `RecordMissing`.
    pub fn check_end(&self, head: Head) -> Result<(), StoreError> {
        let directory = self.layout.history();
        let mut newest = 0;
        // What is no record is not ours.
        let mut look = |name: &OsStr| newest = newest.max(seq_of(name).unwrap_or(0));
        self.io
            .visit_names(&directory, &mut look)
            .map_err(|e| StoreError::io("list", &directory, e))?;
        let seq = head.seq + 1;
        // It may have come meanwhile.
        if newest < seq || self.read(seq)?.is_some() {
            return Ok(());
        }
        Err(StoreError::RecordMissing { seq })
    }

    /// Makes `record` durable as the next one after `head`, or leaves no trace of it.
    ///
    /// # Errors
    /// `Conflict` where that number is taken.
    pub fn append(&self, head: Head, record: Record) -> Result<Line, StoreError> {
        assert_eq!((record.seq, record.prev), (head.seq + 1, head.digest));
        let (bytes, digest) =
            record.encode().map_err(|source| StoreError::Unwritable { source })?;
        let path = self.layout.record(record.seq);
        let temporary = self.layout.temporary();
        match durable::write_durably(&*self.io, &temporary, &path, &bytes, Put::IfAbsent) {
            Ok(()) => Ok(Line { record, bytes, digest }),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(StoreError::Conflict { seq: record.seq })
            }
            Err(error) => Err(StoreError::io("write", &path, error)),
        }
    }
}

/// Records that follow one another.
struct Batch {
    lines: Vec<Line>,
    /// Why there are no more than these, where it is not that the history ends.
    end: Option<StoreError>,
}

impl Batch {
    fn is_last(&self) -> bool {
        (self.lines.len() as u64) < BATCH_RECORDS
    }
}

/// The number in the name of a record's file.
fn seq_of(name: &OsStr) -> Option<u64> {
    name.to_str()?.strip_suffix(".json")?.parse().ok()
}

fn parse(seq: u64, bytes: Vec<u8>) -> Result<Line, StoreError> {
    let (record, digest) =
        Record::parse(&bytes).map_err(|source| StoreError::Record { seq, source })?;
    Ok(Line { record, bytes, digest })
}

/// Checks that a line follows `head`, and gives the head that it makes.
fn follows(head: Head, line: &Line) -> Result<Head, StoreError> {
    let seq = head.seq + 1;
    if line.record.seq != seq {
        return Err(StoreError::Chain { seq, why: "it has another number than its file" });
    }
    if line.record.prev != head.digest {
        return Err(StoreError::Chain { seq, why: "it names another record as the one before" });
    }
    Ok(Head { seq, digest: line.digest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::record::{Access, Actor, Door, Op, Verdict};
    use crate::sys::io::Real;

    /// Enough for every reader to have several batches.
    const COUNT: u64 = BATCH_RECORDS * (READERS * 2 + 3) + 5;

    fn long_history() -> (tempfile::TempDir, History, Vec<Head>) {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path());
        std::fs::create_dir(layout.history()).unwrap();
        let mut heads = vec![Head::empty()];
        for seq in 1..=COUNT {
            let record = Record {
                seq,
                prev: heads.last().unwrap().digest,
                time: jiff::Timestamp::UNIX_EPOCH,
                actor: Actor { user: "ann".into(), uid: 7, door: Door::Cli },
                policy: None,
                verdict: Verdict::Allowed,
                op: Op::SetAccess { model: None, access: Access { uid: 7, gid: 7, mode: 0o755 } },
                signature: None,
            };
            let (bytes, digest) = record.encode().unwrap();
            std::fs::write(layout.record(seq), bytes).unwrap();
            heads.push(Head { seq, digest });
        }
        (directory, History::new(Arc::new(Real), layout), heads)
    }

    /// How many records were visited, and what it came to.
    fn follow(history: &History, from: Head) -> (u64, Result<Head, StoreError>) {
        let mut next = from.seq + 1;
        let head = history.follow(from, |line| {
            assert_eq!(line.record.seq, next, "in order");
            next += 1;
            Ok(())
        });
        (next - 1 - from.seq, head)
    }

    #[test]
    fn a_long_history_is_read_in_order_from_wherever() {
        let (_keep, history, heads) = long_history();
        for from in [0, 1, BATCH_RECORDS, 1000, COUNT - BATCH_RECORDS, COUNT - 1, COUNT] {
            let (count, head) = follow(&history, heads[from as usize]);
            assert_eq!((count, head.unwrap()), (COUNT - from, *heads.last().unwrap()), "{from}");
        }
        history.check_end(*heads.last().unwrap()).unwrap();
        let stopped = history.follow(Head::empty(), |line| match line.record.seq {
            900 => Err(StoreError::RecordMissing { seq: 900 }),
            _ => Ok(()),
        });
        assert!(matches!(stopped, Err(StoreError::RecordMissing { seq: 900 })), "{stopped:?}");
    }

    #[test]
    fn what_is_wrong_with_a_long_history_is_found_where_it_is() {
        let (_keep, history, heads) = long_history();
        let path = |seq: u64| history.layout.record(seq);
        for seq in [1, 2, BATCH_RECORDS, BATCH_RECORDS + 1, 1000, COUNT - 1] {
            let before = heads[seq as usize - 1];
            let whole = std::fs::read(path(seq)).unwrap();
            std::fs::remove_file(path(seq)).unwrap();
            let (count, head) = follow(&history, Head::empty());
            assert_eq!((count, head.unwrap()), (seq - 1, before));
            let end = history.check_end(before);
            assert!(
                matches!(end, Err(StoreError::RecordMissing { seq: it }) if it == seq),
                "{end:?}"
            );
            std::fs::copy(path(COUNT), path(seq)).unwrap();
            let (count, end) = follow(&history, Head::empty());
            assert_eq!(count, seq - 1);
            assert!(matches!(end, Err(StoreError::Chain { seq: it, .. }) if it == seq), "{end:?}");
            std::fs::write(path(seq), &whole[1..]).unwrap();
            let (count, end) = follow(&history, Head::empty());
            assert_eq!(count, seq - 1);
            assert!(matches!(end, Err(StoreError::Record { seq: it, .. }) if it == seq), "{end:?}");
            std::fs::write(path(seq), &whole).unwrap();
        }
    }
}
