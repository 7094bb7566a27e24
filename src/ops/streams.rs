//! Streams: which reads of a file follow one another, and what they will want next.
//!
//! Found by file and offset, not by handle: loaders read one file by several descriptors, share one
//! between processes, and skip; the kernel asks for pieces out of order. Nothing is read here, and a
//! stream that is wrongly seen or missed costs time only.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::format::ids::BlobDigest;
use crate::store::Cursor;

/// Streams that are followed at a time; the one that was read longest ago goes first.
const STREAMS_MAX: usize = 64;
/// A forward skip of at most this much is still the same stream.
const SKIP_BYTES_MAX: u64 = 16 << 20;
/// Pieces of one size that the kernel may send out of order.
const DISORDER_MAX: u64 = 4;
/// Smaller reads come in order, or they are no stream.
const PIECE_BYTES_MIN: u64 = 64 << 10;
/// Reads that must have followed one another before anything is read ahead.
const SCORE_MIN: u8 = 3;
const SCORE_MAX: u8 = 6;
/// What is read ahead of a new stream; doubled with each step.
const WINDOW_BYTES_MIN: u64 = 1 << 20;
/// Most that is read ahead of a stream.
const WINDOW_BYTES_MAX: u64 = 8 << 20;
/// Less than this is not worth a step.
const STEP_BYTES_MIN: u64 = 512 << 10;
/// A stream that none of so many reads belonged to has ended, as far as sharing the cache goes.
const IDLE_READS_MAX: u64 = 256;

struct Stream {
    file: BlobDigest,
    /// Where the furthest read ended.
    next: u64,
    /// How surely it is one: reads that followed, less those that skipped.
    score: u8,
    /// What lies before was read ahead, or was read.
    ahead: u64,
    window: u64,
    /// When it was last read, in reads of all files.
    last: u64,
    cursor: Arc<Cursor>,
}

#[derive(Default)]
struct Table {
    reads: u64,
    streams: Vec<Stream>,
}

/// What to do about a read.
#[derive(Default)]
pub struct Step {
    /// Whether the read belongs to a stream: what it leaves behind is not wanted again.
    pub is_sequential: bool,
    /// What to read ahead of it, in bytes of the file, and how far its stream is.
    pub ahead: Option<(Range<u64>, Arc<Cursor>)>,
}

/// The streams of all files.
pub struct Streams {
    /// What all may read ahead together.
    window_bytes_total: u64,
    /// No lock is taken while it is held.
    table: Mutex<Table>,
}

impl Streams {
    /// Streams that read ahead into half a cache of `cache_bytes`: each its part of it.
    pub fn new(cache_bytes: u64) -> Self {
        Self { window_bytes_total: cache_bytes / 2, table: Mutex::default() }
    }

    /// Notes a read of `count` bytes at `offset` of a file that is `file_bytes` long.
    pub fn note(&self, file: &BlobDigest, file_bytes: u64, offset: u64, count: usize) -> Step {
        let count = count as u64;
        // One read is all of it, or there is nothing to read.
        if file_bytes <= count || file_bytes <= offset {
            return Step::default();
        }
        let end = offset.saturating_add(count).min(file_bytes);
        let mut table = self.table.lock();
        table.reads += 1;
        let now = table.reads;
        let near = if count < PIECE_BYTES_MIN { 0 } else { count * DISORDER_MAX };
        let known = table.streams.iter_mut().filter(|it| it.file == *file);
        let nearest = known.min_by_key(|it| it.next.abs_diff(offset));
        let Some(stream) = nearest.filter(|it| it.follows(offset, near)) else {
            table.begin(file, offset, end, now);
            return Step::default();
        };
        stream.take(offset, end, near, now);
        if stream.score < SCORE_MIN {
            return Step::default();
        }
        let (next, cursor) = (stream.next, Arc::clone(&stream.cursor));
        cursor.advance(next);
        let recent = now.saturating_sub(IDLE_READS_MAX);
        let active = table.streams.iter().filter(|it| SCORE_MIN <= it.score && recent <= it.last);
        let share = self.window_bytes_total / active.count().max(1) as u64;
        let stream = table.streams.iter_mut().find(|it| Arc::ptr_eq(&it.cursor, &cursor));
        let stream = stream.expect("it was there under the same lock");
        let ahead = stream.step(file_bytes, share).map(|range| (range, cursor));
        Step { is_sequential: true, ahead }
    }
}

impl Table {
    fn begin(&mut self, file: &BlobDigest, offset: u64, end: u64, now: u64) {
        if self.streams.len() == STREAMS_MAX {
            let oldest = (0..STREAMS_MAX).min_by_key(|place| self.streams[*place].last);
            let gone = self.streams.swap_remove(oldest.expect("there are some"));
            // What was to be read ahead of it is not wanted any more.
            gone.cursor.advance(u64::MAX);
        }
        self.streams.push(Stream {
            file: *file,
            next: end,
            // Who begins at the start mostly goes on.
            score: u8::from(offset == 0),
            ahead: end,
            window: WINDOW_BYTES_MIN / 2,
            last: now,
            cursor: Arc::default(),
        });
    }
}

impl Stream {
    /// Whether a read at `offset` may belong to it. A skip counts only once reads have followed:
    /// reads at random in a small file are near each other too.
    fn follows(&self, offset: u64, near: u64) -> bool {
        let skip = if self.score < SCORE_MIN { near } else { SKIP_BYTES_MAX.max(near) };
        self.next <= offset.saturating_add(near) && offset <= self.next.saturating_add(skip)
    }

    fn take(&mut self, offset: u64, end: u64, near: u64, now: u64) {
        self.last = now;
        if self.next.saturating_add(near) < offset {
            self.score -= 1;
            self.window = WINDOW_BYTES_MIN;
        } else if self.next < end {
            self.score = (self.score + 1).min(SCORE_MAX);
        }
        self.next = self.next.max(end);
    }

    /// What to read ahead now: up to a window that grows as the stream goes on.
    fn step(&mut self, file_bytes: u64, share: u64) -> Option<Range<u64>> {
        let window = self.window.saturating_mul(2).min(WINDOW_BYTES_MAX).min(share);
        let goal = self.next.saturating_add(window).min(file_bytes);
        let start = self.ahead.max(self.next);
        // The last step of a file may be short.
        if goal < start.saturating_add(STEP_BYTES_MIN.min(window)) && goal < file_bytes
            || goal <= start
        {
            return None;
        }
        (self.window, self.ahead) = (window.max(WINDOW_BYTES_MIN), goal);
        Some(start..goal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const FILE_BYTES: u64 = 256 * MIB;

    fn file(name: &str) -> BlobDigest {
        BlobDigest::of(name.as_bytes())
    }

    /// What is read ahead for reads of `count` bytes at these offsets.
    fn ahead_of(streams: &Streams, reads: impl IntoIterator<Item = (u64, u64)>) -> Vec<Range<u64>> {
        let note = |(offset, count): (u64, u64)| {
            streams.note(&file("a"), FILE_BYTES, offset, usize::try_from(count).unwrap())
        };
        reads.into_iter().filter_map(|read| note(read).ahead.map(|(range, _)| range)).collect()
    }

    fn total(ranges: &[Range<u64>]) -> u64 {
        ranges.iter().map(|range| range.end - range.start).sum()
    }

    #[test]
    fn a_stream_is_read_ahead_once_up_to_the_end_of_its_file() {
        for count in [4 << 10, 100_000, 128 << 10, MIB] {
            let streams = Streams::new(128 * MIB);
            let reads = (0..FILE_BYTES.div_ceil(count)).map(|read| (read * count, count));
            let ahead = ahead_of(&streams, reads);
            assert!(ahead[0].start <= 3 * count, "it begins with the third read: {:?}", ahead[0]);
            assert!(ahead.windows(2).all(|two| two[0].end <= two[1].start), "nothing comes twice");
            assert!(FILE_BYTES - 8 * MIB < total(&ahead), "{count}: {}", total(&ahead));
            assert_eq!(ahead.last().unwrap().end, FILE_BYTES);
            assert!(total(&ahead) <= FILE_BYTES);
        }
    }

    #[test]
    fn reads_at_random_are_not_read_ahead() {
        for within in [2 * MIB, 32 * MIB, FILE_BYTES] {
            let streams = Streams::new(128 * MIB);
            // A generator of all residues: far from and near to each other.
            let at = |step: u64| (step * 40_503 * 4_096 + step * step * 4_096) % within;
            let ahead =
                ahead_of(&streams, (0..5_000).map(|step| (at(step) / 4_096 * 4_096, 4_096)));
            assert!(total(&ahead) < 16 * MIB, "{within}: {}", total(&ahead));
        }
    }

    #[test]
    fn several_streams_in_one_file_are_followed_each() {
        let streams = Streams::new(128 * MIB);
        let starts = [0, 60 * MIB, 120 * MIB, 180 * MIB];
        let reads = (0..40).flat_map(|step| starts.map(|start| (start + step * MIB, MIB)));
        let ahead = ahead_of(&streams, reads);
        for start in starts {
            let of = |range: &&Range<u64>| (start..start + 60 * MIB).contains(&range.start);
            let own: Vec<_> = ahead.iter().filter(of).cloned().collect();
            assert!(30 * MIB < total(&own), "{start}: {own:?}");
        }
    }

    #[test]
    fn pieces_out_of_order_are_one_stream() {
        let streams = Streams::new(128 * MIB);
        let reads = (0..64).map(|step| ((step ^ 1) * MIB, MIB));
        let ahead = ahead_of(&streams, reads);
        assert!(48 * MIB < total(&ahead), "{ahead:?}");
        assert_eq!(streams.table.lock().streams.len(), 1);
    }

    #[test]
    fn a_forward_skip_is_the_same_stream_and_a_longer_one_another() {
        for (skip, streams_expected) in [(15 * MIB, 1), (17 * MIB, 2)] {
            let streams = Streams::new(128 * MIB);
            let before = (0..8).map(|step| (step * MIB, MIB));
            let after = (0..8).map(|step| (8 * MIB + skip + step * MIB, MIB));
            let ahead = ahead_of(&streams, before.chain(after));
            assert_eq!(streams.table.lock().streams.len(), streams_expected, "{skip}");
            let last = ahead.last().unwrap();
            assert!(16 * MIB + skip < last.end, "{skip}: it goes on behind the skip: {last:?}");
        }
    }

    #[test]
    fn streams_share_half_of_the_cache() {
        let streams = Streams::new(16 * MIB);
        let names: Vec<_> = (0..8).map(|name: u32| file(&name.to_string())).collect();
        let mut ends = vec![0; names.len()];
        for step in 0..32 {
            for (name, end) in names.iter().zip(&mut ends) {
                let note = streams.note(name, FILE_BYTES, step * MIB, 1 << 20);
                if let Some((range, _)) = note.ahead {
                    *end = range.end;
                }
                if 16 < step {
                    assert!(*end <= (step + 1) * MIB + MIB, "{step}: {end}");
                }
            }
        }
        assert!(ends.iter().all(|end| 0 < *end));
    }

    #[test]
    fn streams_that_come_and_go_take_no_more_room() {
        let streams = Streams::new(128 * MIB);
        for name in 0..1_000 {
            let name = file(&name.to_string());
            (0..4).for_each(|step| drop(streams.note(&name, FILE_BYTES, step * MIB, 1 << 20)));
        }
        assert_eq!(streams.table.lock().streams.len(), STREAMS_MAX);
    }
}
