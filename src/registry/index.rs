//! Where the lines of records lie in the file that they make together, `history.jsonl`.
//!
//! Four bytes a record and a little more: the length of each line, and the end of every 1,024th.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Lines whose lengths are added up to find one.
const STRIDE: usize = 1_024;

/// The lengths of lines that follow one another.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Lines {
    lengths: Vec<u32>,
    /// Where each full stride of lines ends.
    ends: Vec<u64>,
    bytes: u64,
}

impl Lines {
    pub(super) fn push(&mut self, line_bytes: u64) {
        self.lengths.push(u32::try_from(line_bytes).expect("a record has at most 256 KiB"));
        self.bytes += line_bytes;
        if self.lengths.len().is_multiple_of(STRIDE) {
            self.ends.push(self.bytes);
        }
    }

    /// Whether the ends are those of the lengths: a checkpoint may say anything.
    pub(super) fn is_sound(&self) -> bool {
        let mut made = Self::default();
        self.lengths.iter().for_each(|length| made.push(u64::from(*length)));
        made == *self
    }

    /// Number of lines.
    pub fn count(&self) -> u64 {
        self.lengths.len() as u64
    }

    /// Bytes of all lines.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The lines, counted from 0, that have some of `offset..offset + bytes`, and where the first of
    /// them starts. O(1) but for what is found.
    pub fn within(&self, offset: u64, bytes: u64) -> (Range<usize>, u64) {
        let strides = self.ends.partition_point(|end| *end <= offset);
        let (mut first, mut start) = (strides * STRIDE, 0);
        if let Some(before) = strides.checked_sub(1) {
            start = self.ends[before];
        }
        let length = |index: usize| self.lengths.get(index).map(|length| u64::from(*length));
        while let Some(length) = length(first).filter(|length| start + length <= offset) {
            start += length;
            first += 1;
        }
        let (mut last, mut end, limit) = (first, start, offset.saturating_add(bytes));
        while let Some(length) = length(last).filter(|_| end < limit) {
            end += length;
            last += 1;
        }
        (first..last, start)
    }
}

/// Which records concern a model, and how long their lines are.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RecordIndex {
    seqs: Vec<u64>,
    lines: Lines,
}

impl RecordIndex {
    pub(super) fn push(&mut self, seq: u64, line_bytes: u64) {
        self.seqs.push(seq);
        self.lines.push(line_bytes);
    }

    /// Whether there is a line for each record, and the records are in their order.
    pub(super) fn is_sound(&self) -> bool {
        self.seqs.is_sorted_by(|one, next| one < next)
            && self.seqs.len() == self.lines.lengths.len()
            && self.lines.is_sound()
    }

    /// Bytes of all lines.
    pub fn bytes(&self) -> u64 {
        self.lines.bytes()
    }

    /// The numbers of the records, oldest first.
    pub fn seqs(&self) -> &[u64] {
        &self.seqs
    }

    /// The records whose lines have some of `offset..offset + bytes`, and where the first one starts.
    pub fn within(&self, offset: u64, bytes: u64) -> (&[u64], u64) {
        let (range, start) = self.lines.within(offset, bytes);
        (&self.seqs[range], start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_index_finds_the_lines_of_a_range() {
        let mut index = RecordIndex::default();
        for (seq, bytes) in [(1, 10), (4, 5), (9, 20)] {
            index.push(seq, bytes);
        }
        let check = |offset, bytes, seqs: &[u64], start| {
            assert_eq!(index.within(offset, bytes), (seqs, start), "{offset} {bytes}");
        };
        check(0, 10, &[1], 0);
        check(0, 11, &[1, 4], 0);
        check(9, 1, &[1], 0);
        check(10, 1, &[4], 10);
        check(14, 100, &[4, 9], 10);
        check(14, u64::MAX, &[4, 9], 10);
        check(35, 1, &[], 35);
        check(99, 1, &[], 35);
        assert_eq!(index.bytes(), 35);
    }

    #[test]
    fn every_byte_of_many_lines_is_in_the_line_that_holds_it() {
        let mut lines = Lines::default();
        let count = 3 * STRIDE + 7;
        for index in 0..count {
            lines.push(index as u64 % 3 + 1);
        }
        let mut start = 0;
        for index in 0..count {
            for offset in start..start + index as u64 % 3 + 1 {
                assert_eq!(lines.within(offset, 1), (index..index + 1, start), "{offset}");
            }
            start += index as u64 % 3 + 1;
        }
        assert_eq!((lines.bytes(), lines.count()), (start, count as u64));
        assert_eq!(lines.within(0, u64::MAX), (0..count, 0));
    }
}
