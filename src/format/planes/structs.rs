//! Blocks of quantised weights: a few bytes of scales, then the weights, again and again.
//!
//! Each byte of the scales has a plane of its own, the weights share one: scales have another
//! distribution, and among the weights they would cost more than they hold.

/// Most bytes of a struct: the largest of GGUF has 292.
const BYTES_MAX: u16 = 1_024;
/// Most bytes before the weights.
pub(super) const SCALES_MAX: usize = 16;

/// What repeats, and where in it the first byte is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Structs {
    bytes: u16,
    scales: u8,
    phase: u16,
}

impl Structs {
    /// Structs of `bytes` that begin with `scales` bytes of scales; `None` past the limits.
    pub fn new(bytes: u16, scales: u8) -> Option<Self> {
        Self::parse(bytes, scales, 0)
    }

    pub(super) fn parse(bytes: u16, scales: u8, phase: u16) -> Option<Self> {
        let sound = u16::from(scales) < bytes
            && phase < bytes
            && bytes <= BYTES_MAX
            && usize::from(scales) <= SCALES_MAX;
        sound.then_some(Self { bytes, scales, phase })
    }

    /// The same structs, `offset` bytes further on.
    pub fn at(self, offset: u64) -> Self {
        let bytes = u64::from(self.bytes);
        let phase = (u64::from(self.phase) + offset % bytes) % bytes;
        Self { phase: u16::try_from(phase).expect("below the bytes of a struct"), ..self }
    }

    /// Bytes of one struct.
    pub fn bytes(self) -> usize {
        self.bytes.into()
    }

    pub(super) fn encode(self) -> [u8; 5] {
        let ([a, b], [c, d]) = (self.bytes.to_le_bytes(), self.phase.to_le_bytes());
        [a, b, self.scales, c, d]
    }

    pub(super) fn decode([a, b, scales, c, d]: [u8; 5]) -> Option<Self> {
        Self::parse(u16::from_le_bytes([a, b]), scales, u16::from_le_bytes([c, d]))
    }

    /// Number of planes.
    pub(super) fn plane_count(self) -> usize {
        usize::from(self.scales) + 1
    }

    /// Bytes of one plane of `plain_bytes`.
    pub(super) fn plane_bytes(self, plane: usize, plain_bytes: usize) -> usize {
        let (bytes, phase) = (usize::from(self.bytes), usize::from(self.phase));
        // Places from the start of the struct in which the first byte is.
        let (start, end) = (phase, phase + plain_bytes);
        let before = |end: usize, place: usize| (end + bytes - 1 - place) / bytes;
        let of_scale = |place| before(end, place) - before(start, place);
        match usize::from(self.scales) {
            scales if plane < scales => of_scale(plane),
            scales => plain_bytes - (0..scales).map(of_scale).sum::<usize>(),
        }
    }

    /// Splits `plain` into planes one after the other.
    pub(super) fn split(self, plain: &[u8], planes: &mut [u8]) {
        assert_eq!(plain.len(), planes.len());
        let mut ends = self.plane_starts(plain.len());
        self.walk(plain.len(), |plane, range| {
            let at = ends[plane];
            planes[at..at + range.len()].copy_from_slice(&plain[range.clone()]);
            ends[plane] += range.len();
        });
    }

    /// Joins planes of the right lengths.
    pub(super) fn join(self, planes: &[&[u8]], plain: &mut [u8]) {
        let mut done = [0; SCALES_MAX + 1];
        self.walk(plain.len(), |plane, range| {
            let at = done[plane];
            let count = range.len();
            plain[range].copy_from_slice(&planes[plane][at..at + count]);
            done[plane] += count;
        });
    }

    fn plane_starts(self, plain_bytes: usize) -> [usize; SCALES_MAX + 1] {
        let mut starts = [0; SCALES_MAX + 1];
        for plane in 1..self.plane_count() {
            starts[plane] = starts[plane - 1] + self.plane_bytes(plane - 1, plain_bytes);
        }
        starts
    }

    /// Calls `visit` with each run of bytes that lie together in one plane.
    fn walk(self, plain_bytes: usize, mut visit: impl FnMut(usize, std::ops::Range<usize>)) {
        let (bytes, scales) = (usize::from(self.bytes), usize::from(self.scales));
        let (mut place, mut at) = (usize::from(self.phase), 0);
        while at < plain_bytes {
            let (plane, count) = if place < scales { (place, 1) } else { (scales, bytes - place) };
            let end = (at + count).min(plain_bytes);
            visit(plane, at..end);
            place = (place + end - at) % bytes;
            at = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structs_come_back_from_any_phase_and_length() {
        let plain: Vec<u8> = (0..500_u32).map(|n| (n * 7 % 251) as u8).collect();
        for (bytes, scales) in [(34, 2), (18, 2), (144, 16), (3, 1), (2, 0), (17, 16)] {
            let whole = Structs::new(bytes, scales).unwrap();
            for len in (0..80).chain([499, 500]) {
                for offset in [0, 1, 2, 33, 34, 100] {
                    let structs = whole.at(offset);
                    assert_eq!(Structs::decode(structs.encode()), Some(structs));
                    let mut split = vec![0; len];
                    structs.split(&plain[..len], &mut split);
                    let mut rest = &split[..];
                    let mut planes = Vec::new();
                    for plane in 0..structs.plane_count() {
                        let (here, after) = rest.split_at(structs.plane_bytes(plane, len));
                        planes.push(here);
                        rest = after;
                    }
                    assert!(rest.is_empty());
                    let mut back = vec![0; len];
                    structs.join(&planes, &mut back);
                    assert!(back == plain[..len], "{structs:?} {len}");
                }
            }
        }
    }

    #[test]
    fn scales_lie_together() {
        let structs = Structs::new(3, 1).unwrap();
        let mut planes = [0; 8];
        structs.at(2).split(&[9, 1, 8, 8, 2, 7, 7, 3], &mut planes);
        assert_eq!(planes, [1, 2, 3, 9, 8, 8, 7, 7]);
        assert_eq!(Structs::new(2, 2), None);
        assert_eq!(Structs::new(2_000, 2), None);
    }
}
