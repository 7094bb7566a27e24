//! The bytes of a pickle in their order, of a file as it is or of one that is compressed as a whole.

use std::io::{self, Read};
use std::ops::Range;

use flate2::read::MultiGzDecoder;
use flate2::read::ZlibDecoder;

use super::super::reader::Reader;
use super::super::{Stop, WORK_BYTES_MAX};

/// Bytes that are decompressed at a time.
const STEP_BYTES: usize = 16 << 10;

/// How joblib compresses a whole file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    Zlib,
    Gzip,
    Bzip2,
    Xz,
    Lzma,
    Lz4,
}

impl Compression {
    /// By the first bytes, as joblib tells them.
    pub fn of(head: &[u8]) -> Option<Self> {
        [
            (&b"\x1f\x8b"[..], Self::Gzip),
            (b"x\x01", Self::Zlib),
            (b"x\x5e", Self::Zlib),
            (b"x\x9c", Self::Zlib),
            (b"x\xda", Self::Zlib),
            (b"BZ", Self::Bzip2),
            (b"\xfd7zXZ", Self::Xz),
            (b"\x5d\x00", Self::Lzma),
            (b"\x04\x22\x4d\x18", Self::Lz4),
        ]
        .into_iter()
        .find_map(|(magic, found)| head.starts_with(magic).then_some(found))
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Lzma => "lzma",
            Self::Lz4 => "lz4",
        }
    }
}

/// Bytes in their order.
pub struct Source<'a, 'b> {
    bytes: Bytes<'a, 'b>,
    /// From the start, of what comes out.
    place: u64,
    /// A byte that was looked at and not taken.
    ahead: Option<u8>,
    /// Decompressed bytes that may still come.
    left: u64,
}

enum Bytes<'a, 'b> {
    Plain { reader: &'a mut Reader<'b>, range: Range<u64> },
    Inflated(Box<dyn Read + 'a>),
}

/// A part of a file, for a decoder.
struct Part<'a, 'b> {
    reader: &'a mut Reader<'b>,
    range: Range<u64>,
}

impl Read for Part<'_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.range.end - self.range.start).unwrap_or(usize::MAX);
        let wanted = left.min(out.len());
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.reader.some(self.range.start, &mut out[..wanted]);
        let count = read.map_err(|stop| match stop {
            Stop::Io(error) => error,
            Stop::Malformed(why) => io::Error::new(io::ErrorKind::InvalidData, why),
            Stop::Unknown => io::ErrorKind::InvalidData.into(),
        })?;
        self.range.start += count as u64;
        Ok(count)
    }
}

impl<'a, 'b: 'a> Source<'a, 'b> {
    /// All of what is not compressed.
    pub fn of(reader: &'a mut Reader<'b>) -> Self {
        let range = 0..reader.bytes();
        let bytes = Bytes::Plain { reader, range };
        Self { bytes, place: 0, ahead: None, left: WORK_BYTES_MAX }
    }

    /// `None` where the compression is not known here.
    pub fn new(
        reader: &'a mut Reader<'b>,
        range: Range<u64>,
        compression: Option<Compression>,
    ) -> Option<Self> {
        let bytes = match compression {
            None => Bytes::Plain { reader, range },
            Some(Compression::Zlib) => {
                Bytes::Inflated(Box::new(ZlibDecoder::new(Part { reader, range })))
            }
            Some(Compression::Gzip) => {
                Bytes::Inflated(Box::new(MultiGzDecoder::new(Part { reader, range })))
            }
            Some(Compression::Bzip2 | Compression::Xz | Compression::Lzma | Compression::Lz4) => {
                return None;
            }
        };
        Some(Self { bytes, place: 0, ahead: None, left: WORK_BYTES_MAX })
    }

    /// Bytes that were taken.
    pub fn place(&self) -> u64 {
        self.place
    }

    pub fn is_at_end(&mut self) -> Result<bool, Stop> {
        if self.ahead.is_some() {
            return Ok(false);
        }
        match &mut self.bytes {
            Bytes::Plain { range, .. } => Ok(range.is_empty()),
            Bytes::Inflated(_) => {
                let mut byte = [0];
                let count = self.some(&mut byte)?;
                self.place -= count as u64;
                self.ahead = (count == 1).then_some(byte[0]);
                Ok(count == 0)
            }
        }
    }

    pub fn byte(&mut self) -> Result<u8, Stop> {
        Ok(self.array::<1>()?[0])
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let mut out = [0; N];
        self.fill(&mut out)?;
        Ok(out)
    }

    /// The little-endian number of the next `count` bytes, at most 8.
    pub fn number(&mut self, count: u8) -> Result<u64, Stop> {
        let mut out = [0; 8];
        self.fill(&mut out[..count.into()])?;
        Ok(u64::from_le_bytes(out))
    }

    /// The next line without its end; one that is longer than `bytes_max` is cut there.
    pub fn line(&mut self, bytes_max: usize) -> Result<Vec<u8>, Stop> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return Ok(line),
                byte if line.len() <= bytes_max => line.push(byte),
                _ => {}
            }
        }
    }

    /// The next `length` bytes if they are at most `bytes_max`; else they are stepped over.
    pub fn bytes_up_to(&mut self, length: u64, bytes_max: usize) -> Result<Option<Vec<u8>>, Stop> {
        if (bytes_max as u64) < length {
            self.skip(length)?;
            return Ok(None);
        }
        let mut out = vec![0; usize::try_from(length).expect("at most a usize")];
        self.fill(&mut out)?;
        Ok(Some(out))
    }

    pub fn skip(&mut self, length: u64) -> Result<(), Stop> {
        if length == 0 {
            return Ok(());
        }
        if let Bytes::Plain { range, .. } = &mut self.bytes {
            let cut = Stop::Malformed("it ends early");
            range.start =
                range.start.checked_add(length).filter(|at| *at <= range.end).ok_or(cut)?;
            self.place += length;
            return Ok(());
        }
        let mut left = length;
        let mut room = vec![0; STEP_BYTES];
        while 0 < left {
            let step = usize::try_from(left).unwrap_or(usize::MAX).min(STEP_BYTES);
            self.fill(&mut room[..step])?;
            left -= step as u64;
        }
        Ok(())
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<(), Stop> {
        let mut done = 0;
        if let (Some(byte), Some(first)) = (self.ahead, out.first_mut()) {
            *first = byte;
            self.ahead = None;
            self.place += 1;
            done = 1;
        }
        while done < out.len() {
            match self.some(&mut out[done..])? {
                0 => return Err(Stop::Malformed("it ends early")),
                count => done += count,
            }
        }
        Ok(())
    }

    /// Some of the next bytes; 0 at the end.
    fn some(&mut self, out: &mut [u8]) -> Result<usize, Stop> {
        let count = match &mut self.bytes {
            Bytes::Plain { reader, range } => {
                let left = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
                let wanted = left.min(out.len());
                if wanted == 0 {
                    return Ok(0);
                }
                let count = reader.some(range.start, &mut out[..wanted])?;
                range.start += count as u64;
                count
            }
            Bytes::Inflated(decoder) => {
                let count = decoder.read(out).map_err(|error| match error.kind() {
                    io::ErrorKind::InvalidData
                    | io::ErrorKind::InvalidInput
                    | io::ErrorKind::UnexpectedEof => {
                        Stop::Malformed("what it is compressed to is damaged")
                    }
                    _ => Stop::Io(error),
                })?;
                let left = self.left.checked_sub(count as u64);
                self.left = left.ok_or(Stop::Malformed("it is too large when decompressed"))?;
                count
            }
        };
        self.place += count as u64;
        Ok(count)
    }
}
