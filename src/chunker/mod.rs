//! The chunker: where the content of a file is cut.
//!
//! Files with tensors are cut by where those lie (`segments`), everything else by its content. Equal input and limits give equal cuts for ever: stored versions rely on it (FORMAT.md,
//! "Chunking"), and golden vectors below hold the algorithm still. Nothing is stored here.

mod segments;

use std::io::{self, Read};

use fastcdc::v2020::FastCDC;

use crate::format::config::Chunking;

pub use segments::{Cut, SMALL_BYTES, Segment, TENSOR_CHUNK_BYTES, segments};

/// Cuts a stream into pieces where its content decides.
///
/// Pieces are `bytes_min` to `bytes_max` long, the last may be shorter; an empty stream has none.
/// Memory: twice `bytes_max`.
///
/// Source: FastCDC, USENIX ATC 2016, and the 2020 refinement, as the crate `fastcdc` has it.
pub struct Pieces<R> {
    source: R,
    chunking: Chunking,
    /// What was read and not yet given away starts at `start`.
    buffer: Vec<u8>,
    start: usize,
    ended: bool,
}

impl<R: Read> Pieces<R> {
    /// Starts cutting what `source` gives.
    pub fn new(source: R, chunking: Chunking) -> Self {
        Self { source, chunking, buffer: Vec::new(), start: 0, ended: false }
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// As reading the source.
    pub fn next_piece(&mut self) -> io::Result<Option<&[u8]>> {
        let bytes_max = self.chunking.bytes_max as usize;
        if self.buffer.len() - self.start < bytes_max && !self.ended {
            self.fill(2 * bytes_max)?;
        }
        let rest = &self.buffer[self.start..];
        if rest.is_empty() {
            return Ok(None);
        }
        let length = first_cut(rest, self.chunking);
        let piece = self.start..self.start + length;
        self.start = piece.end;
        Ok(Some(&self.buffer[piece]))
    }

    /// Moves what is left to the front and reads on until `bytes` are there or the source ends.
    fn fill(&mut self, bytes: usize) -> io::Result<()> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let room = (bytes - self.buffer.len()) as u64;
        let read = self.source.by_ref().take(room).read_to_end(&mut self.buffer)?;
        self.ended = (read as u64) < room;
        Ok(())
    }
}

/// Length of the first piece of `bytes`, which are not empty and hold `bytes_max` or all there is.
fn first_cut(bytes: &[u8], chunking: Chunking) -> usize {
    let Chunking { bytes_min, bytes_average, bytes_max } = chunking;
    let window = &bytes[..bytes.len().min(bytes_max as usize)];
    let (min, average, max) = (bytes_min as usize, bytes_average as usize, bytes_max as usize);
    let mut cuts = FastCDC::new(window, min, average, max);
    cuts.next().expect("bytes that are not empty have a first piece").length
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fixed stream of bytes without pattern.
    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new_derive_key("modelfs test").finalize_xof().fill(&mut bytes);
        bytes
    }

    fn lengths(bytes: &[u8], chunking: Chunking) -> Vec<usize> {
        let mut pieces = Pieces::new(bytes, chunking);
        let mut found = Vec::new();
        while let Some(piece) = pieces.next_piece().unwrap() {
            found.push(piece.len());
        }
        assert_eq!(found.iter().sum::<usize>(), bytes.len());
        found
    }

    #[test]
    fn pieces_keep_their_limits_and_add_up() {
        let chunking = Chunking::default();
        for len in [0, 1, 65_535, 65_536, 65_537, 1 << 20, (3 << 20) + 1] {
            let found = lengths(&noise(len), chunking);
            let (last, others) = match found.split_last() {
                Some((last, others)) => (*last, others),
                None => continue,
            };
            assert!((1..=1 << 20).contains(&last), "{found:?}");
            assert!(others.iter().all(|len| (65_536..=1 << 20).contains(len)), "{found:?}");
        }
        assert_eq!(lengths(&vec![0; 3 << 20], chunking), [1 << 20; 3]);
    }

    /// The cut points are part of the format: these numbers never change.
    #[test]
    fn golden_vectors_hold_the_cut_points_still() {
        let found = lengths(&noise(3 << 20), Chunking::default());
        assert_eq!(found, GOLDEN_DEFAULT);
        let small = Chunking { bytes_min: 1 << 10, bytes_average: 4 << 10, bytes_max: 16 << 10 };
        assert_eq!(lengths(&noise(40_000), small), GOLDEN_SMALL);
    }

    const GOLDEN_DEFAULT: [usize; 10] =
        [566753, 145144, 400671, 373171, 354096, 100926, 303834, 379300, 329248, 192585];
    const GOLDEN_SMALL: [usize; 12] =
        [2487, 4206, 4164, 4111, 2880, 4894, 1039, 5297, 1848, 4420, 4133, 521];

    #[test]
    fn an_insertion_moves_few_cuts() {
        let chunking = Chunking { bytes_min: 1 << 10, bytes_average: 4 << 10, bytes_max: 16 << 10 };
        let before = noise(1 << 20);
        let mut after = before.clone();
        after.splice(1000..1000, *b"seven!!");
        let digests = |bytes: &[u8]| {
            let mut pieces = Pieces::new(bytes, chunking);
            let mut found = std::collections::BTreeSet::new();
            while let Some(piece) = pieces.next_piece().unwrap() {
                found.insert(*blake3::hash(piece).as_bytes());
            }
            found
        };
        let (before, after) = (digests(&before), digests(&after));
        assert!(before.len() - before.intersection(&after).count() <= 4);
    }
}
