//! Reading ahead: a few threads that decode what a stream of reads will want next.
//!
//! Invariant A1: reading ahead changes when a block is decoded, never what a reader gets: what fails
//! here is dropped without a word, and the reader who needs the block meets the same by itself.
//! Invariant A2: no thread begins a job unless a core is left for it beside the readers at work, the
//! threads at work, and the program that reads: readers decode where the bytes are wanted, which is less
//! work. The kernel, which reads ahead too, asks for several pieces at a time, and where there are more
//! cores than those, the threads do the rest. So readers count as many as there were at a time lately.
//! Memory: at most [`THREADS_MAX`] threads with one buffer of stored bytes each; the blocks count in
//! the cache's limit. Nothing here knows of files.

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};

use super::ChunkReader;
use crate::format::codec::BLOCK_BYTES;
use crate::format::manifest::ChunkRef;

/// Most threads, however many cores there are.
const THREADS_MAX: usize = 16;
/// Most jobs that wait; more are dropped, and their readers decode for themselves.
const JOBS_MAX: usize = 512;
/// Blocks of one job: they are read from disk together, and decoded by one thread.
const JOB_BLOCKS: u32 = 4;
/// Reads for which the most readers at a time are remembered, once or twice as long.
pub(super) const SPAN_READS: u32 = 64;

/// How far a stream of reads has come, in bytes of its file: what lies before is not wanted any more.
#[derive(Debug, Default)]
pub struct Cursor(AtomicU64);

impl Cursor {
    /// Moves forward to `at`, or stays.
    pub fn advance(&self, at: u64) {
        self.0.fetch_max(at, Ordering::AcqRel);
    }

    fn at(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Some blocks of a chunk that will be wanted.
pub struct Job {
    pub(super) chunk: ChunkRef,
    pub(super) blocks: Range<u32>,
    /// Where the chunk begins in its file.
    start: u64,
    cursor: Arc<Cursor>,
}

impl Job {
    /// Whether nobody has come to a block yet.
    pub(super) fn is_wanted(&self, index: u32) -> bool {
        let end = (u64::from(index) + 1) * BLOCK_BYTES as u64;
        self.cursor.at() < self.start + end.min(self.chunk.bytes.into())
    }
}

/// The jobs for bytes `range` of a chunk that begins at `start` in its file.
pub fn jobs(
    chunk: &ChunkRef,
    start: u64,
    range: Range<u32>,
    cursor: &Arc<Cursor>,
) -> impl Iterator<Item = Job> {
    let block_bytes = u32::try_from(BLOCK_BYTES).expect("128 KiB");
    let last = range.end.min(chunk.bytes).div_ceil(block_bytes);
    let first = range.start / block_bytes;
    (first..last).step_by(JOB_BLOCKS as usize).map(move |from| Job {
        chunk: *chunk,
        blocks: from..(from + JOB_BLOCKS).min(last),
        start,
        cursor: Arc::clone(cursor),
    })
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Threads with a job.
    working: usize,
    /// Readers that decode, or wait for who does.
    readers: usize,
    /// Most readers at a time, in this span of reads and in the one before.
    peaks: [usize; 2],
    /// Reads in this span.
    reads: u32,
    closing: bool,
}

impl Queue {
    fn enter(&mut self) {
        if self.reads == SPAN_READS {
            (self.reads, self.peaks) = (0, [self.readers, self.peaks[0]]);
        }
        self.reads += 1;
        self.readers += 1;
        self.peaks[0] = self.peaks[0].max(self.readers);
    }

    /// Readers that cores are to be left for. Several come again at once; one alone may take its time.
    fn readers_expected(&self) -> usize {
        match self.peaks[0].max(self.peaks[1]) {
            0 | 1 => self.readers,
            several => several,
        }
    }
}

/// What readers and the threads know of each other.
pub struct Pace {
    /// No lock is taken while it is held.
    queue: Mutex<Queue>,
    changed: Condvar,
    cores: usize,
}

impl Pace {
    pub fn new() -> Self {
        Self {
            queue: Mutex::default(),
            changed: Condvar::new(),
            // With one core, the program waits while it is read ahead: better than never.
            cores: thread::available_parallelism().map_or(1, usize::from).max(2),
        }
    }

    /// Counts a reader, until the guard is dropped.
    pub fn enter(&self) -> Reading<'_> {
        self.queue.lock().enter();
        Reading(self)
    }

    /// Whether a thread may begin a job (A2).
    fn has_room(&self, queue: &Queue) -> bool {
        queue.readers_expected() + queue.working + 1 < self.cores
    }

    /// Whether readers leave no room for any job, for longer than one read takes.
    fn is_taken(&self, queue: &Queue) -> bool {
        1 < queue.readers_expected() && self.cores <= queue.readers_expected() + 1
    }
}

/// A reader at work.
pub struct Reading<'a>(&'a Pace);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        queue.readers -= 1;
        let waits = !queue.jobs.is_empty() && self.0.has_room(&queue);
        drop(queue);
        if waits {
            self.0.changed.notify_one();
        }
    }
}

/// The threads; none before the first job.
pub struct Ahead {
    pace: Arc<Pace>,
    /// Started once. The queue's lock is not taken while it is held.
    threads: Mutex<Option<Vec<JoinHandle<()>>>>,
}

impl Ahead {
    pub fn new(pace: Arc<Pace>) -> Self {
        Self { pace, threads: Mutex::new(None) }
    }

    /// Leaves jobs to the threads; what finds no room in the queue, or would find no core, is dropped.
    pub fn submit(&self, reader: &Arc<ChunkReader>, jobs: impl Iterator<Item = Job>) {
        let is_taken = self.pace.is_taken(&self.pace.queue.lock());
        if is_taken {
            return;
        }
        self.start(reader);
        let mut queue = self.pace.queue.lock();
        let room = JOBS_MAX.saturating_sub(queue.jobs.len());
        let before = queue.jobs.len();
        queue.jobs.extend(jobs.take(room));
        let added = queue.jobs.len() - before;
        drop(queue);
        for _ in 0..added {
            self.pace.changed.notify_one();
        }
    }

    fn start(&self, reader: &Arc<ChunkReader>) {
        let mut threads = self.threads.lock();
        if threads.is_some() {
            return;
        }
        let count = (self.pace.cores - 1).min(THREADS_MAX);
        let spawn = |_| {
            let (reader, pace) = (Arc::clone(reader), Arc::clone(&self.pace));
            let work = move || work(&reader, &pace);
            thread::Builder::new().name("ahead".to_owned()).spawn(work)
        };
        let started: Result<Vec<_>, _> = (0..count).map(spawn).collect();
        *threads = Some(started.unwrap_or_else(|error| {
            log::warn!("cannot start a thread to read ahead: {error}; reads will be slower");
            Vec::new()
        }));
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        let mut queue = self.pace.queue.lock();
        queue.closing = true;
        queue.jobs.clear();
        drop(queue);
        self.pace.changed.notify_all();
        for thread in self.threads.lock().take().into_iter().flatten() {
            // A panic in it was caught and is no business of ours now.
            let _ = thread.join();
        }
    }
}

fn work(reader: &ChunkReader, pace: &Pace) {
    loop {
        let job = {
            let mut queue = pace.queue.lock();
            loop {
                if queue.closing {
                    return;
                }
                let job = if pace.has_room(&queue) { queue.jobs.pop_front() } else { None };
                match job {
                    Some(job) => {
                        queue.working += 1;
                        // A reader who is done wakes one of us only.
                        if !queue.jobs.is_empty() {
                            pace.changed.notify_one();
                        }
                        break job;
                    }
                    None => pace.changed.wait(&mut queue),
                }
            }
        };
        // A panic ends its claims, and its readers meet it themselves (A1).
        let _ = catch_unwind(AssertUnwindSafe(|| reader.read_ahead(&job)));
        pace.queue.lock().working -= 1;
    }
}
