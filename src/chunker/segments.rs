//! Cutting by tensors: chunks are counted from where a tensor starts, so that a longer header, or
//! another tensor before it, moves no chunk of it.

use std::ops::Range;

use crate::format::codec::Elements;

/// A tensor is cut into chunks of this many bytes; its last may be shorter.
pub const TENSOR_CHUNK_BYTES: u64 = 1 << 20;
/// Tensors smaller than this are cut together with what is around them.
pub const SMALL_BYTES: u64 = 16 << 10;
/// What lies between small tensors, before or behind them is cut with them if it has at most this
/// many bytes: padding, the header of an archive's member, the nodes of a graph.
const GAP_BYTES_MAX: u64 = 4 << 10;

/// How a segment is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// Where its content decides.
    Content,
    /// Every [`TENSOR_CHUNK_BYTES`] from its start.
    Fixed,
}

/// A part of a file that is cut by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    pub bytes: Range<u64>,
    pub cut: Cut,
    pub elements: Elements,
}

/// The segments of a file of `file_bytes` with tensors at these places; together they are the file.
///
/// `tensors` are sorted, apart from each other, and within the file. A large tensor is a segment.
/// Small ones and the short gaps around them are segments of at most [`TENSOR_CHUNK_BYTES`], of mixed
/// elements where those differ or there is a gap. All else is cut by its content.
/// Equal tables give equal segments for ever, as stored versions rely on.
pub fn segments(tensors: &[(Range<u64>, Elements)], file_bytes: u64) -> Vec<Segment> {
    let mut found = Vec::new();
    let mut end = 0;
    let mut rest = tensors.iter().filter(|(bytes, _)| !bytes.is_empty()).peekable();
    while let Some((bytes, elements)) = rest.next() {
        assert!(end <= bytes.start && bytes.end <= file_bytes, "tensors are sorted and inside");
        let mut segment = Segment { bytes: bytes.clone(), cut: Cut::Fixed, elements: *elements };
        if length(bytes) < SMALL_BYTES {
            segment.take_gap(end..bytes.start);
            while let Some((next, of)) = rest.next_if(|(next, _)| joins(&segment.bytes, next)) {
                if next.start != segment.bytes.end || *of != segment.elements {
                    segment.elements = Elements::Mixed;
                }
                segment.bytes.end = next.end;
            }
            let next = rest.peek().map_or(file_bytes, |(next, _)| next.start);
            segment.take_gap(segment.bytes.end..next);
        }
        push_content(&mut found, end..segment.bytes.start);
        end = segment.bytes.end;
        found.push(segment);
    }
    push_content(&mut found, end..file_bytes);
    found
}

impl Segment {
    /// What the bytes are `offset` bytes from its start.
    pub fn elements_at(&self, offset: u64) -> Elements {
        self.elements.at(offset)
    }

    /// Whether it is more than the numbers of one tensor.
    pub fn is_varied(&self) -> bool {
        matches!(self.elements, Elements::Unknown | Elements::Mixed)
    }

    /// Takes in what is before or behind it, if that is short and there is room.
    fn take_gap(&mut self, gap: Range<u64>) {
        let bytes = length(&gap);
        let room = TENSOR_CHUNK_BYTES - length(&self.bytes);
        if 0 < bytes && bytes <= GAP_BYTES_MAX.min(room) {
            self.elements = Elements::Mixed;
            self.bytes = self.bytes.start.min(gap.start)..self.bytes.end.max(gap.end);
        }
    }
}

/// Whether a small tensor is cut together with those before it.
fn joins(before: &Range<u64>, next: &Range<u64>) -> bool {
    length(next) < SMALL_BYTES
        && next.start - before.end <= GAP_BYTES_MAX
        && next.end - before.start <= TENSOR_CHUNK_BYTES
}

fn length(bytes: &Range<u64>) -> u64 {
    bytes.end - bytes.start
}

fn push_content(found: &mut Vec<Segment>, bytes: Range<u64>) {
    if !bytes.is_empty() {
        found.push(Segment { bytes, cut: Cut::Content, elements: Elements::Unknown });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cuts are part of the format: these never change.
    #[test]
    fn segments_are_tensors_groups_and_what_is_between() {
        let check = |tensors: &[(Range<u64>, Elements)], file_bytes, expected: &str| {
            let shown: Vec<String> = segments(tensors, file_bytes)
                .iter()
                .map(|s| format!("{}-{} {:?} {:?}", s.bytes.start, s.bytes.end, s.cut, s.elements))
                .collect();
            assert_eq!(shown.join(", "), expected);
        };
        let f32 = Elements::F32;
        check(&[], 0, "");
        check(&[], 10, "0-10 Content Unknown");
        check(&[(0..10, f32)], 10, "0-10 Fixed F32");
        let large = [(100..3_000_000, f32)];
        check(
            &large,
            3_000_001,
            "0-100 Content Unknown, 100-3000000 Fixed F32, 3000000-3000001 Content Unknown",
        );
        let small = [(8..108, f32), (108..208, f32), (208..308, f32)];
        check(&small, 308, "0-308 Fixed Mixed");
        let header = [(8192..8292, f32), (8292..8392, f32)];
        check(&header, 8392, "0-8192 Content Unknown, 8192-8392 Fixed F32");
        let mixed = [(0..100, f32), (100..200, Elements::F16)];
        check(&mixed, 200, "0-200 Fixed Mixed");
        let padded = [(0..100, f32), (128..200, f32), (200..200, f32), (4297..4400, f32)];
        check(
            &padded,
            9000,
            "0-200 Fixed Mixed, 200-4297 Content Unknown, 4297-4400 Fixed F32, 4400-9000 Content Unknown",
        );
        let beside = [(50..100, f32), (100..100_000, f32), (100_040..100_100, f32)];
        check(
            &beside,
            100_120,
            "0-100 Fixed Mixed, 100-100000 Fixed F32, 100000-100120 Fixed Mixed",
        );
        let many: Vec<_> = (0..160).map(|n| (n * 15_000..(n + 1) * 15_000, f32)).collect();
        check(
            &many,
            2_400_000,
            "0-1035000 Fixed F32, 1035000-2070000 Fixed F32, 2070000-2400000 Fixed F32",
        );
    }
}
