//! Long JSON texts, read a piece at a time: no text or number in them is longer than a limit.
//!
//! The parser above keeps a text until its end. Here is counted how long that gets, so that a file
//! of one endless text costs no more memory than any other.

use std::io;
use std::ops::Range;

use super::Stop;
use super::description::VALUE_BYTES_MAX;
use super::reader::Reader;

/// Bytes of one text, with escapes as they stand, or number.
const TOKEN_BYTES_MAX: usize = VALUE_BYTES_MAX;

/// The bytes of a file from a place on.
pub(super) struct Stream<'a, 'b> {
    reader: &'a mut Reader<'b>,
    at: u64,
    end: u64,
    token: Token,
    /// Why reading ended early: more than an [`io::Error`] can say.
    stopped: Option<Stop>,
}

/// Where in the text the last byte stands.
#[derive(Default)]
struct Token {
    bytes: usize,
    is_quoted: bool,
    is_escaped: bool,
}

impl<'a, 'b> Stream<'a, 'b> {
    /// The bytes of a range.
    pub fn new(reader: &'a mut Reader<'b>, range: Range<u64>) -> Self {
        Self { reader, at: range.start, end: range.end, token: Token::default(), stopped: None }
    }

    /// Why a parser could not go on: what stopped the stream or, if nothing did, `why`.
    pub fn reason(self, why: &'static str) -> Stop {
        self.stopped.unwrap_or(Stop::Malformed(why))
    }
}

impl io::Read for Stream<'_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let wanted = left.min(out.len());
        let read = self.reader.some(self.at, &mut out[..wanted]).and_then(|count| {
            self.token.follow(&out[..count])?;
            Ok(count)
        });
        match read {
            Ok(count) => {
                self.at += count as u64;
                Ok(count)
            }
            Err(stop) => {
                self.stopped = Some(stop);
                Err(io::Error::other("stopped"))
            }
        }
    }
}

impl Token {
    fn follow(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        for byte in bytes {
            self.bytes += 1;
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.is_quoted => self.is_escaped = true,
                b'"' => {
                    self.is_quoted = !self.is_quoted;
                    self.bytes = 0;
                }
                b',' | b':' | b'[' | b']' | b'{' | b'}' | b' ' | b'\n' if !self.is_quoted => {
                    self.bytes = 0;
                }
                _ => {}
            }
            if TOKEN_BYTES_MAX < self.bytes {
                return Err(Stop::Malformed("a text or number in it is too long"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_text_without_an_end_is_stopped() {
        let read = |text: &str| {
            let bytes = text.as_bytes();
            let mut reader = Reader::new(&bytes);
            let mut stream = Stream::new(&mut reader, 0..bytes.len() as u64);
            let whole = stream.read_to_end(&mut Vec::new());
            whole.is_ok_and(|count| count == bytes.len())
        };
        let long = "x".repeat(TOKEN_BYTES_MAX);
        assert!(read(&format!(r#"["{long}","{long}"]"#)));
        assert!(!read(&format!(r#"["{long}x"]"#)));
        assert!(!read(&format!(r#"["\",{long}"]"#)));
        assert!(read(&"1,".repeat(TOKEN_BYTES_MAX)));
        assert!(!read(&"1".repeat(TOKEN_BYTES_MAX + 1)));
    }
}
