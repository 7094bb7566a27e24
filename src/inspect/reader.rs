//! The reader: small pieces of a file at any place, through a window, within a budget.
//!
//! A window opens small and doubles while it is read through in order, so that headers strewn over
//! a large file cost little, and one long header few reads.

use std::ops::Range;

use super::description::cut;
use super::{HEADER_BYTES_MAX, NAME_BYTES_MAX, ReadAt, Stop, WORK_BYTES_MAX};

/// Bytes of a window that opens at a new place.
const WINDOW_BYTES_MIN: usize = 512;
/// Bytes of the largest window.
const WINDOW_BYTES_MAX: usize = 64 << 10;

/// The headers of one file.
pub(super) struct Reader<'a> {
    file: &'a dyn ReadAt,
    bytes: u64,
    window: Vec<u8>,
    /// Place of the window's first byte in the file.
    window_start: u64,
    /// Bytes that may still be parsed.
    parse_bytes_left: u64,
    /// Bytes that may still be read.
    work_bytes_left: u64,
}

impl<'a> Reader<'a> {
    /// Starts on a file of which the headers are parsed.
    pub fn new(file: &'a dyn ReadAt) -> Self {
        Self {
            file,
            bytes: file.bytes(),
            window: Vec::new(),
            window_start: 0,
            parse_bytes_left: HEADER_BYTES_MAX,
            work_bytes_left: WORK_BYTES_MAX,
        }
    }

    /// Starts on a file that is nothing but header, and is parsed as a whole.
    pub fn of_whole(file: &'a dyn ReadAt) -> Self {
        Self { parse_bytes_left: WORK_BYTES_MAX, ..Self::new(file) }
    }

    /// Length of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The range of `length` bytes from `start`, which must lie in `within`.
    pub fn range(start: u64, length: u64, within: &Range<u64>) -> Result<Range<u64>, Stop> {
        match start.checked_add(length) {
            Some(end) if within.start <= start && end <= within.end => Ok(start..end),
            _ => Err(Stop::Malformed("a length leads past what holds it")),
        }
    }

    /// The `N` bytes at `*at`, which moves behind them.
    pub fn array<const N: usize>(&mut self, at: &mut u64) -> Result<[u8; N], Stop> {
        let mut out = [0; N];
        let end = Self::range(*at, N as u64, &(0..self.bytes))?.end;
        self.fill(*at, &mut out)?;
        *at = end;
        Ok(out)
    }

    /// The byte at `*at`, which moves behind it.
    pub fn byte(&mut self, at: &mut u64) -> Result<u8, Stop> {
        Ok(self.array::<1>(at)?[0])
    }

    /// The little-endian number at `*at`, which moves behind it.
    pub fn u16(&mut self, at: &mut u64) -> Result<u16, Stop> {
        Ok(u16::from_le_bytes(self.array(at)?))
    }

    /// The little-endian number at `*at`, which moves behind it.
    pub fn u32(&mut self, at: &mut u64) -> Result<u32, Stop> {
        Ok(u32::from_le_bytes(self.array(at)?))
    }

    /// The little-endian number at `*at`, which moves behind it.
    pub fn u64(&mut self, at: &mut u64) -> Result<u64, Stop> {
        Ok(u64::from_le_bytes(self.array(at)?))
    }

    /// The bytes of a range; its length was not checked.
    pub fn bytes_of(&mut self, range: &Range<u64>) -> Result<Vec<u8>, Stop> {
        let length = range.end.checked_sub(range.start);
        let fits = |length: &u64| *length <= self.parse_bytes_left && range.end <= self.bytes;
        let Some(length) = length.filter(fits) else {
            return Err(Stop::Malformed("a header is too long"));
        };
        // Not more than the file holds: checked above.
        let mut out = vec![0; usize::try_from(length).expect("at most the bytes of a header")];
        self.fill(range.start, &mut out)?;
        Ok(out)
    }

    /// The name or other short text of a range. What is not UTF-8 is replaced.
    pub fn text(&mut self, range: &Range<u64>) -> Result<String, Stop> {
        if (NAME_BYTES_MAX as u64) < range.end.saturating_sub(range.start) {
            return Err(Stop::Malformed("a name is too long"));
        }
        Ok(String::from_utf8_lossy(&self.bytes_of(range)?).into_owned())
    }

    /// As [`Reader::text`] of a text of any length, which is cut at `bytes_max`.
    pub fn text_up_to(&mut self, range: &Range<u64>, bytes_max: usize) -> Result<String, Stop> {
        // One byte more shows that something is left out.
        let end = range.end.min(range.start.saturating_add(bytes_max as u64 + 1));
        let mut text = String::from_utf8_lossy(&self.bytes_of(&(range.start..end))?).into_owned();
        cut(&mut text, bytes_max);
        Ok(text)
    }

    /// The line at `*at` with its end, of at most `bytes_max`; `*at` moves behind it. `None` at the end
    /// of the file.
    pub fn line(&mut self, at: &mut u64, bytes_max: usize) -> Result<Option<Vec<u8>>, Stop> {
        let mut line = Vec::new();
        while *at < self.bytes {
            let ready = self.ready(*at, 1)?;
            let end = ready.iter().position(|byte| *byte == b'\n').map(|place| place + 1);
            let count = end.unwrap_or(ready.len());
            if bytes_max - line.len() < count {
                return Err(Stop::Malformed("a line is too long"));
            }
            line.extend_from_slice(&ready[..count]);
            self.spend(count)?;
            *at += count as u64;
            if end.is_some() {
                break;
            }
        }
        Ok(if line.is_empty() { None } else { Some(line) })
    }

    /// Reads into the start of `out` what lies at `at`; 0 only if `out` is empty.
    pub fn some(&mut self, at: u64, out: &mut [u8]) -> Result<usize, Stop> {
        if out.is_empty() {
            return Ok(0);
        }
        let ready = self.ready(at, out.len())?;
        let count = ready.len().min(out.len());
        out[..count].copy_from_slice(&ready[..count]);
        self.spend(count)?;
        Ok(count)
    }

    /// Fills `out` with what lies at `at`, all of which is in the file.
    fn fill(&mut self, at: u64, out: &mut [u8]) -> Result<(), Stop> {
        self.spend(out.len())?;
        let mut done = 0;
        while done < out.len() {
            let ready = self.ready(at + done as u64, out.len() - done)?;
            let count = ready.len().min(out.len() - done);
            out[done..done + count].copy_from_slice(&ready[..count]);
            done += count;
        }
        Ok(())
    }

    /// Counts bytes that are parsed.
    fn spend(&mut self, bytes: usize) -> Result<(), Stop> {
        let left = self.parse_bytes_left.checked_sub(bytes as u64);
        self.parse_bytes_left = left.ok_or(Stop::Malformed("its headers are too long"))?;
        Ok(())
    }

    /// What the window has at `place`, at least a byte, for a reader that wants `wanted` bytes there.
    fn ready(&mut self, place: u64, wanted: usize) -> Result<&[u8], Stop> {
        let offset = place.checked_sub(self.window_start).map(usize::try_from);
        let offset = match offset {
            Some(Ok(offset)) if offset < self.window.len() => offset,
            _ => {
                self.open_window(place, wanted)?;
                0
            }
        };
        Ok(&self.window[offset..])
    }

    /// Reads a window that starts at `place`, for a reader that wants `wanted` bytes there.
    fn open_window(&mut self, place: u64, wanted: usize) -> Result<(), Stop> {
        let follows = !self.window.is_empty()
            && self.window_start.checked_add(self.window.len() as u64) == Some(place);
        let grown = if follows { 2 * self.window.len() } else { 0 };
        let size = grown.max(wanted).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        let rest = usize::try_from(self.bytes.saturating_sub(place)).unwrap_or(usize::MAX);
        let size = size.min(rest);
        let left = self.work_bytes_left.checked_sub(size as u64);
        self.work_bytes_left = left.ok_or(Stop::Malformed("its headers are too far apart"))?;
        self.window.resize(size, 0);
        self.window_start = place;
        let count = match self.file.read_at(place, &mut self.window) {
            Ok(count) => count.min(size),
            Err(error) => {
                self.window.clear();
                return Err(error.into());
            }
        };
        self.window.truncate(count);
        if count == 0 {
            return Err(Stop::Malformed("it became shorter while it was read"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::io;

    /// A file that counts what is read of it and gives it in short pieces.
    struct Counted<'a> {
        content: &'a [u8],
        read: Cell<u64>,
    }

    impl ReadAt for Counted<'_> {
        fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
            let short = out.len().min(100);
            let count = self.content.read_at(offset, &mut out[..short])?;
            self.read.set(self.read.get() + count as u64);
            Ok(count)
        }
        fn bytes(&self) -> u64 {
            self.content.len() as u64
        }
    }

    #[test]
    fn a_reader_gives_the_bytes_of_the_file_wherever_it_is_asked() {
        let content: Vec<u8> = (0..40_000_u32).flat_map(u32::to_le_bytes).collect();
        let file = Counted { content: &content, read: Cell::new(0) };
        let mut reader = Reader::new(&file);
        for index in (0..40_000).chain([7, 39_999, 0, 20_000, 19_999]) {
            let mut at = u64::from(index) * 4;
            assert_eq!(reader.u32(&mut at).unwrap(), index);
            assert_eq!(at, u64::from(index) * 4 + 4);
        }
        assert!(file.read.get() < 170_000, "{}", file.read.get());
        let all = reader.bytes_of(&(0..160_000)).unwrap();
        assert!(all == content);
        let past = reader.u32(&mut 159_997);
        assert!(matches!(past, Err(Stop::Malformed(_))), "{past:?}");
    }

    /// A file of zeros without end, so that a budget is what stops its reader.
    struct Endless;

    impl ReadAt for Endless {
        fn read_at(&self, _: u64, out: &mut [u8]) -> io::Result<usize> {
            out.fill(0);
            Ok(out.len())
        }
        fn bytes(&self) -> u64 {
            u64::MAX
        }
    }

    #[test]
    fn a_reader_stops_when_its_budget_is_spent() {
        let mut reader = Reader::new(&Endless);
        let place = |index: u64| index << 20;
        let stopped = (0..).find(|index| reader.byte(&mut place(*index)).is_err());
        assert_eq!(stopped, Some(WORK_BYTES_MAX / WINDOW_BYTES_MIN as u64));
        let too_long = Reader::new(&Endless).bytes_of(&(5..HEADER_BYTES_MAX + 6));
        assert!(matches!(too_long, Err(Stop::Malformed(_))), "{too_long:?}");
    }
}
