//! The work on a data set: files are read by several threads, their digests and tables put together.
//!
//! A table is read from begin to end by one thread, which hashes it as well; of any other file each piece
//! is a job of its own. Tables are summed up in the order of their files, whoever is done first, as the
//! last digits of a mean depend on it: who is too far ahead waits.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};

use super::csv::CsvParser;
use super::hash::{self, PieceDigest};
use super::json_lines::JsonLinesParser;
use super::table::{Table, TableFormat, TableParser, Tables, TablesSummary};
use super::tree::{DataTree, FileState};
use super::{DataError, Watcher, parquet};

/// Bytes of a table that are read at a time.
const STEP_BYTES: usize = 1 << 20;
/// Tables that may be done and wait for one before them.
const TABLES_WAITING_MAX: u64 = 8;

/// Something that one thread does.
#[derive(Clone, Copy)]
enum Job {
    /// A piece of a file.
    Piece { file: u32, state: FileState, piece: u64 },
    /// A whole table, and its place among the tables.
    Table { file: u32, state: FileState, format: TableFormat, place: u64 },
}

/// Deals out the jobs in the order of the files.
struct Jobs<'a> {
    files: std::vec::IntoIter<(u32, FileState, Option<TableFormat>)>,
    /// Pieces of the current file that are still to be given out.
    pieces: Option<(u32, FileState, std::ops::Range<u64>)>,
    tables: u64,
    tree: &'a DataTree,
}

impl<'a> Jobs<'a> {
    fn new(tree: &'a DataTree) -> Self {
        let format = |file: u32| {
            TableFormat::of(tree.path(file).file_name().unwrap_or_default().as_encoded_bytes())
        };
        let files: Vec<_> = tree.files().map(|(file, state)| (file, state, format(file))).collect();
        Self { files: files.into_iter(), pieces: None, tables: 0, tree }
    }
}

impl Iterator for Jobs<'_> {
    type Item = (Job, PathBuf);

    fn next(&mut self) -> Option<(Job, PathBuf)> {
        loop {
            if let Some((file, state, pieces)) = &mut self.pieces
                && let Some(piece) = pieces.next()
            {
                let job = Job::Piece { file: *file, state: *state, piece };
                return Some((job, self.tree.path(*file)));
            }
            let (file, state, format) = self.files.next()?;
            match format {
                Some(format) => {
                    let place = self.tables;
                    self.tables += 1;
                    return Some((Job::Table { file, state, format, place }, self.tree.path(file)));
                }
                None => self.pieces = Some((file, state, 0..hash::piece_count(state.bytes))),
            }
        }
    }
}

/// What is done, and what waits for something else.
#[derive(Default)]
struct Done {
    digests: Vec<(u32, [u8; 32])>,
    /// Pieces of files that are not whole yet.
    pieces: HashMap<u32, BTreeMap<u64, PieceDigest>>,
    tables: Tables,
    /// Place of the table that is summed up next, and those that came before their turn.
    turn: u64,
    waiting: BTreeMap<u64, (String, Result<Table, String>)>,
    failure: Option<DataError>,
}

struct Shared<'a> {
    /// No other lock is taken while it is held, nor while `done` is.
    jobs: Mutex<Jobs<'a>>,
    done: Mutex<Done>,
    turned: Condvar,
    stopped: AtomicBool,
    watcher: &'a dyn Watcher,
}

/// Reads all files, sets their digests, and tells what their tables are.
pub fn read_all(
    tree: &mut DataTree,
    threads: usize,
    watcher: &dyn Watcher,
) -> Result<TablesSummary, DataError> {
    let shared = Shared {
        jobs: Mutex::new(Jobs::new(tree)),
        done: Mutex::default(),
        turned: Condvar::new(),
        stopped: AtomicBool::new(false),
        watcher,
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| shared.work());
        }
        shared.work();
    });
    let done = shared.done.into_inner();
    if let Some(failure) = done.failure {
        return Err(failure);
    }
    done.digests.into_iter().for_each(|(file, digest)| tree.set_digest(file, digest));
    Ok(done.tables.summary())
}

impl Shared<'_> {
    fn work(&self) {
        while !self.stopped.load(Ordering::Relaxed) {
            // The lock is not held while the job is done.
            let job = self.jobs.lock().next();
            let Some((job, path)) = job else { return };
            if let Err(error) = self.carry_out(job, &path) {
                self.stopped.store(true, Ordering::Relaxed);
                self.done.lock().failure.get_or_insert(error);
                self.turned.notify_all();
                return;
            }
        }
    }

    fn carry_out(&self, job: Job, path: &Path) -> Result<(), DataError> {
        match job {
            Job::Piece { file, state, piece } => {
                let opened = open(path, state)?;
                let mut advance = |bytes| self.advance(bytes);
                let digest = hash::hash_piece(&opened, state.bytes, piece, &mut advance);
                let digest = digest.map_err(|error| self.failure(path, error))?;
                check(path, &opened, state)?;
                self.end_piece(file, state, piece, digest);
            }
            Job::Table { file, state, format, place } => {
                let opened = open(path, state)?;
                let (digest, table) = match format {
                    TableFormat::Parquet => self.read_parquet(path, &opened, state)?,
                    TableFormat::Csv => {
                        self.read_table(path, &opened, Box::<CsvParser>::default())?
                    }
                    TableFormat::JsonLines => {
                        self.read_table(path, &opened, Box::<JsonLinesParser>::default())?
                    }
                };
                check(path, &opened, state)?;
                self.end_table((file, digest), path, table, place);
            }
        }
        Ok(())
    }

    fn advance(&self, bytes: u64) -> bool {
        !self.stopped.load(Ordering::Relaxed) && self.watcher.advance(bytes)
    }

    fn failure(&self, path: &Path, error: io::Error) -> DataError {
        match error.kind() {
            io::ErrorKind::Interrupted => DataError::Stopped,
            io::ErrorKind::UnexpectedEof => DataError::Changed { path: path.to_owned() },
            _ => DataError::io("read", path)(error),
        }
    }

    fn end_piece(&self, file: u32, state: FileState, piece: u64, digest: PieceDigest) {
        let mut done = self.done.lock();
        let pieces = done.pieces.entry(file).or_default();
        pieces.insert(piece, digest);
        if pieces.len() as u64 == hash::piece_count(state.bytes) {
            let pieces: Vec<_> = pieces.values().copied().collect();
            done.pieces.remove(&file);
            done.digests.push((file, hash::merge(&pieces)));
        }
    }

    fn end_table(
        &self,
        (file, digest): (u32, [u8; 32]),
        path: &Path,
        table: Result<Table, String>,
        place: u64,
    ) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut done = self.done.lock();
        done.digests.push((file, digest));
        while done.turn + TABLES_WAITING_MAX < place && !self.stopped.load(Ordering::Relaxed) {
            self.turned.wait(&mut done);
        }
        done.waiting.insert(place, (name, table));
        loop {
            let turn = done.turn;
            let Some((name, table)) = done.waiting.remove(&turn) else { break };
            done.tables.add(&name, table);
            done.turn += 1;
        }
        self.turned.notify_all();
    }

    /// Reads a table to its end, hashing it on the way.
    fn read_table(
        &self,
        path: &Path,
        opened: &File,
        mut parser: Box<dyn TableParser>,
    ) -> Result<([u8; 32], Result<Table, String>), DataError> {
        let mut hasher = blake3::Hasher::new();
        let mut room = vec![0; STEP_BYTES];
        let mut reader = opened;
        loop {
            let count = match reader.read(&mut room) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(DataError::io("read", path)(error)),
            };
            hasher.update(&room[..count]);
            parser.feed(&room[..count]);
            if !self.advance(count as u64) {
                return Err(DataError::Stopped);
            }
        }
        Ok((*hasher.finalize().as_bytes(), parser.finish()))
    }

    fn read_parquet(
        &self,
        path: &Path,
        opened: &File,
        state: FileState,
    ) -> Result<([u8; 32], Result<Table, String>), DataError> {
        let mut advance = |bytes| self.advance(bytes);
        let pieces = (0..hash::piece_count(state.bytes))
            .map(|piece| hash::hash_piece(opened, state.bytes, piece, &mut advance))
            .collect::<io::Result<Vec<_>>>();
        let pieces = pieces.map_err(|error| self.failure(path, error))?;
        Ok((hash::merge(&pieces), parquet::read(opened, state.bytes)))
    }
}

/// Sums up a table that is in memory.
pub fn parse(format: TableFormat, parts: &[&[u8]]) -> Result<Table, String> {
    let mut parser: Box<dyn TableParser> = match format {
        TableFormat::Csv => Box::<CsvParser>::default(),
        TableFormat::JsonLines => Box::<JsonLinesParser>::default(),
        TableFormat::Parquet => return parquet::parse_footer(&parts.concat()),
    };
    parts.iter().for_each(|part| parser.feed(part));
    parser.finish()
}

/// Opens a file that is as it was when it was listed. A fifo in its place does not make it hang.
fn open(path: &Path, state: FileState) -> Result<File, DataError> {
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let opened = opened.map_err(DataError::io("open", path))?;
    check(path, &opened, state)?;
    Ok(opened)
}

/// Sees to it that a file is what it was when it was listed (D2).
fn check(path: &Path, opened: &File, state: FileState) -> Result<(), DataError> {
    let found = opened.metadata().map_err(DataError::io("find", path))?;
    if !found.is_file() || FileState::of(&found) != state {
        return Err(DataError::Changed { path: path.to_owned() });
    }
    Ok(())
}
