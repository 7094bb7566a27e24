//! The history: numbered records, one file each, made by put-if-absent. THE TRUTH.
//!
//! Invariant H3: the record with number n is acknowledged only when its file and its name are
//! durable, and no file is ever changed after that. Making it is the only commit point.

use std::path::Path;
use std::sync::Arc;

use super::catalog::Catalog;
use super::error::StoreError;
use super::layout::Layout;
use crate::format::ids::RecordDigest;
use crate::format::record::{RECORD_BYTES_MAX, Record};
use crate::sys::io::{self as durable, Io, Put};

/// Number and digest of the newest record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
    /// head. A line that the catalog holds is taken from there: a thousand times faster than a file.
    ///
    /// # Errors
    /// The first record that is damaged, missing or out of place; what was visited stays visited.
    pub fn replay(
        &self,
        catalog: Option<&Catalog>,
        mut visit: impl FnMut(&Line),
    ) -> Result<Head, StoreError> {
        let mut head = Head::empty();
        loop {
            let seq = head.seq + 1;
            // A catalog that cannot answer, or answers nonsense, is only slower.
            let cached = catalog.and_then(|catalog| catalog.record(seq).ok().flatten());
            let line = match cached.and_then(|bytes| check(head, bytes).ok()) {
                Some(line) => line,
                None => match self.read_or_end(seq)? {
                    Some(bytes) => check(head, bytes)?,
                    None => return Ok(head),
                },
            };
            head = Head { seq, digest: line.digest };
            visit(&line);
        }
    }

    /// The file of record `seq`; `None` where the history ends before it. A file further on means
    /// that records are missing: what would be made in their place would hide what follows.
    fn read_or_end(&self, seq: u64) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(bytes) = self.read(seq)? {
            return Ok(Some(bytes));
        }
        let directory = self.layout.history();
        let paths = self.io.list(&directory).map_err(|e| StoreError::io("list", &directory, e))?;
        // Sorted, and all numbers have as many digits. What is no record is not ours.
        if paths.iter().rev().find_map(|path| seq_of(path)).is_none_or(|newest| newest < seq) {
            return Ok(None);
        }
        // It may have come meanwhile.
        self.read(seq)?.map(Some).ok_or(StoreError::RecordMissing { seq })
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

/// The number in the name of a record's file.
fn seq_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_suffix(".json")?;
    digits.parse().ok()
}

/// Parses a line and checks that it follows `head`.
fn check(head: Head, bytes: Vec<u8>) -> Result<Line, StoreError> {
    let seq = head.seq + 1;
    let (record, digest) =
        Record::parse(&bytes).map_err(|source| StoreError::Record { seq, source })?;
    if record.seq != seq {
        return Err(StoreError::Chain { seq, why: "it has another number than its file" });
    }
    if record.prev != head.digest {
        return Err(StoreError::Chain { seq, why: "it names another record as the one before" });
    }
    Ok(Line { record, bytes, digest })
}
