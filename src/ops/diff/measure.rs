//! Measuring: the numbers of tensors that changed are read, on both sides, and compared by all cores.
//!
//! Invariant D1: the figures do not depend on how many threads there are: parts of a tensor are merged
//! in the order of its elements.
//! Invariant D2: no more than the tensors' own bytes are read, once each; what is the same chunk on both
//! sides is read for both.
//! Memory: for each thread the bytes of a part of both sides, [`PART_ELEMENTS`] of at most 8 bytes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use parking_lot::Mutex;

use super::super::{OpsError, Progress};
use super::figures::{BLOCK_ELEMENTS, Distance};
use crate::format::manifest::ChunkRef;
use crate::inspect::Values;
use crate::store::{Store, StoreError, Use};

/// Elements that a thread compares at a time: whole blocks of every type of GGUF.
const PART_ELEMENTS: u64 = 1 << 18;

/// The chunks of a file, to be found by where they begin in it.
pub(super) struct FileChunks<'a> {
    chunks: &'a [ChunkRef],
    starts: Vec<u64>,
}

impl<'a> FileChunks<'a> {
    pub fn new(chunks: &'a [ChunkRef]) -> Self {
        let mut end = 0;
        let start = |chunk: &ChunkRef| {
            let start = end;
            end += u64::from(chunk.bytes);
            start
        };
        Self { chunks, starts: chunks.iter().map(start).collect() }
    }

    /// The chunks that hold `range` of the file, each with what of it that is.
    fn parts(&self, range: Range<u64>) -> Vec<(ChunkRef, Range<u32>)> {
        let first = self.starts.partition_point(|start| *start <= range.start).saturating_sub(1);
        let within = |at: u64, start: u64, chunk: &ChunkRef| {
            let at = at.saturating_sub(start).min(chunk.bytes.into());
            u32::try_from(at).expect("within a chunk")
        };
        self.chunks[first..]
            .iter()
            .zip(&self.starts[first..])
            .take_while(|(_, start)| **start < range.end)
            .map(|(chunk, start)| {
                (*chunk, within(range.start, *start, chunk)..within(range.end, *start, chunk))
            })
            .collect()
    }
}

/// A tensor of one side.
pub(super) struct Operand<'a> {
    pub file: Arc<FileChunks<'a>>,
    /// Where it begins in its file.
    pub start: u64,
    pub values: Values,
}

impl Operand<'_> {
    fn parts(&self, elements: &Range<u64>) -> Vec<(ChunkRef, Range<u32>)> {
        let at = |elements| self.start + self.values.bytes_of(elements);
        self.file.parts(at(elements.start)..at(elements.end))
    }
}

/// Two tensors of as many elements that are to be compared.
pub(super) struct Job<'a> {
    pub before: Operand<'a>,
    pub after: Operand<'a>,
    pub elements: u64,
}

impl Job<'_> {
    fn part_count(&self) -> u64 {
        self.elements.div_ceil(PART_ELEMENTS)
    }

    fn part(&self, index: u64) -> Range<u64> {
        let start = index * PART_ELEMENTS;
        start..self.elements.min(start + PART_ELEMENTS)
    }

    fn bytes(&self) -> u64 {
        self.before.values.bytes_of(self.elements) + self.after.values.bytes_of(self.elements)
    }
}

/// What was measured of each job, and how many bytes were read for all.
pub(super) struct Measured {
    pub distances: Vec<Distance>,
    pub bytes_read: u64,
}

/// Takes parts in whatever order they are done, and merges them in their own (D1).
struct Merger {
    next: u64,
    waiting: BTreeMap<u64, (usize, Distance)>,
    distances: Vec<Distance>,
}

impl Merger {
    fn put(&mut self, part: u64, job: usize, distance: Distance) {
        self.waiting.insert(part, (job, distance));
        while let Some((job, distance)) = self.waiting.remove(&self.next) {
            self.distances[job].merge(&distance);
            self.next += 1;
        }
    }
}

/// What the threads have in common.
struct Work<'a, 'j> {
    store: &'a Store,
    jobs: &'a [Job<'j>],
    /// Number of the first part of each job.
    firsts: Vec<u64>,
    part_count: u64,
    next: AtomicU64,
    bytes_read: AtomicU64,
    stopped: AtomicBool,
    /// No other lock is taken while it is held.
    merger: Mutex<Merger>,
}

/// Measures all jobs; `may_work` is asked before each part.
pub(super) fn measure(
    store: &Store,
    jobs: &[Job<'_>],
    progress: &dyn Progress,
    may_work: &(dyn Fn() -> bool + Sync),
) -> Result<Measured, OpsError> {
    progress.begin("comparing tensors", jobs.iter().map(Job::bytes).sum());
    let mut part_count = 0;
    let first_of = |job: &Job<'_>| {
        let first = part_count;
        part_count += job.part_count();
        first
    };
    let firsts = jobs.iter().map(first_of).collect();
    let distances = vec![Distance::default(); jobs.len()];
    let work = Work {
        store,
        jobs,
        firsts,
        part_count,
        next: AtomicU64::new(0),
        bytes_read: AtomicU64::new(0),
        stopped: AtomicBool::new(false),
        merger: Mutex::new(Merger { next: 0, waiting: BTreeMap::new(), distances }),
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = usize::try_from(part_count).unwrap_or(usize::MAX).min(cores);
    let may_work = || may_work() && !progress.is_cancelled();
    let results: Vec<Result<(), OpsError>> = thread::scope(|scope| {
        let thread = || work.run(progress, &may_work);
        let started: Vec<_> = (0..threads).map(|_| scope.spawn(thread)).collect();
        let join = |it: thread::ScopedJoinHandle<'_, _>| {
            it.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        started.into_iter().map(join).collect()
    });
    results.into_iter().collect::<Result<(), _>>()?;
    let Work { bytes_read, merger, .. } = work;
    let distances = merger.into_inner().distances;
    Ok(Measured { distances, bytes_read: bytes_read.into_inner() })
}

impl Work<'_, '_> {
    fn run(&self, progress: &dyn Progress, may_work: &dyn Fn() -> bool) -> Result<(), OpsError> {
        let mut buffers = Buffers::default();
        loop {
            let part = self.next.fetch_add(1, Ordering::Relaxed);
            if self.part_count <= part || self.stopped.load(Ordering::Relaxed) {
                return Ok(());
            }
            let index = self.firsts.partition_point(|first| *first <= part) - 1;
            let job = &self.jobs[index];
            let measured = if may_work() {
                let elements = job.part(part - self.firsts[index]);
                self.measure_part(job, elements, &mut buffers, progress).map_err(OpsError::from)
            } else {
                Err(OpsError::Closing)
            };
            match measured {
                Ok(distance) => self.merger.lock().put(part, index, distance),
                Err(error) => {
                    self.stopped.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
    }

    fn measure_part(
        &self,
        job: &Job<'_>,
        elements: Range<u64>,
        buffers: &mut Buffers,
        progress: &dyn Progress,
    ) -> Result<Distance, StoreError> {
        let (before, after) = (job.before.parts(&elements), job.after.parts(&elements));
        let mut distance = Distance::default();
        // The later version first: where it is stored as differences, the earlier one is decoded with
        // it, and is there when its turn comes.
        self.read(&after, &mut buffers.after, progress)?;
        if before == after && job.before.values == job.after.values {
            progress.advance(buffers.after.len() as u64);
            for block in blocks(&buffers.after, job.after.values) {
                decode(job.after.values, block, &mut buffers.new);
                distance.add_same(&buffers.new);
            }
            return Ok(distance);
        }
        self.read(&before, &mut buffers.before, progress)?;
        let sides = blocks(&buffers.before, job.before.values)
            .zip(blocks(&buffers.after, job.after.values));
        for (old, new) in sides {
            decode(job.before.values, old, &mut buffers.old);
            decode(job.after.values, new, &mut buffers.new);
            distance.add(&buffers.old, &buffers.new);
        }
        Ok(distance)
    }

    /// Reads parts of chunks, one after the other, and counts them.
    fn read(
        &self,
        parts: &[(ChunkRef, Range<u32>)],
        out: &mut Vec<u8>,
        progress: &dyn Progress,
    ) -> Result<(), StoreError> {
        out.clear();
        for (chunk, range) in parts {
            let start = out.len();
            out.resize(start + range.len(), 0);
            let read =
                self.store.read_chunk_at(chunk, range.start, &mut out[start..], Use::Once)?;
            assert_eq!(read, range.len(), "the range is within the chunk");
        }
        self.bytes_read.fetch_add(out.len() as u64, Ordering::Relaxed);
        progress.advance(out.len() as u64);
        Ok(())
    }
}

/// What a thread works with: bytes of a part, and numbers of a block, of both sides.
#[derive(Default)]
struct Buffers {
    before: Vec<u8>,
    after: Vec<u8>,
    old: Vec<f64>,
    new: Vec<f64>,
}

/// The bytes of a part, block by block.
fn blocks(bytes: &[u8], values: Values) -> std::slice::Chunks<'_, u8> {
    let block_bytes = values.bytes_of(BLOCK_ELEMENTS as u64);
    bytes.chunks(usize::try_from(block_bytes).expect("a block is small"))
}

fn decode(values: Values, bytes: &[u8], out: &mut Vec<f64>) {
    out.clear();
    values.decode(bytes, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ids::ChunkId;

    #[test]
    fn the_parts_of_a_range_are_where_its_bytes_are() {
        let chunk = |seed, bytes| ChunkRef { id: ChunkId::of(&[seed]), bytes };
        let chunks = [chunk(1, 10), chunk(2, 5), chunk(3, 20)];
        let file = FileChunks::new(&chunks);
        let check = |range: Range<u64>, expected: &[(usize, Range<u32>)]| {
            let expected: Vec<_> =
                expected.iter().map(|(index, range)| (chunks[*index], range.clone())).collect();
            assert_eq!(file.parts(range.clone()), expected, "{range:?}");
        };
        check(0..35, &[(0, 0..10), (1, 0..5), (2, 0..20)]);
        check(3..4, &[(0, 3..4)]);
        check(9..11, &[(0, 9..10), (1, 0..1)]);
        check(10..15, &[(1, 0..5)]);
        check(12..20, &[(1, 2..5), (2, 0..5)]);
    }

    #[test]
    fn parts_are_merged_in_their_order() {
        let one = |value: f64| {
            let mut distance = Distance::default();
            distance.add(&[value], &[0.0]);
            distance
        };
        let parts = [1e16, 1.0, -1e16, 3.0];
        let merged = |order: [usize; 4]| {
            let waiting = BTreeMap::new();
            let mut merger = Merger { next: 0, waiting, distances: vec![Distance::default()] };
            for part in order {
                merger.put(part as u64, 0, one(parts[part]));
            }
            assert!(merger.waiting.is_empty());
            merger.distances[0]
        };
        assert_eq!(merged([0, 1, 2, 3]), merged([3, 1, 0, 2]));
    }
}
