//! What goes over the daemon's socket: lines of JSON.
//!
//! The client sends one [`Envelope`] and reads [`Answer`]s until one that ends the talk: `Heard` at
//! once, any number of `Begin` and `Advance`, then one of the others. A line has a limit in each direction, so that
//! neither side can fill the other's memory.

use std::io::{self, BufRead, Read, Write};

use crate::ops::{Failure, Report, Request};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Version of the protocol. A client and a daemon of different versions say so and stop.
pub const PROTOCOL: u32 = 2;
/// Longest request, in bytes, newline left out.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Longest answer, in bytes, newline left out.
pub const ANSWER_BYTES_MAX: usize = 256 << 20;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    Verb(Box<Request>),
    /// End the daemon as SIGTERM does. The connection stays open until the process has ended.
    Unmount,
}

/// The first and only line of a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    pub protocol: u32,
    pub ask: Ask,
}

/// A line of the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The request was understood and is being worked on, however long that takes.
    Heard,
    /// Work of this many bytes begins.
    Begin {
        what: String,
        bytes_total: u64,
    },
    /// So many more of them are done.
    Advance {
        bytes: u64,
    },
    Report(Report),
    /// The daemon ends once the snapshots under way are done; so many there are.
    Ending {
        sealing: usize,
    },
    Failure(Failure),
}

/// Why a line is not what it must be.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    #[error("the connection was closed in the middle of a line")]
    Cut,
    #[error("a line of more than {bytes_max} bytes")]
    Long { bytes_max: usize },
    #[error("a line that cannot be understood: {0}")]
    Json(#[from] serde_json::Error),
    #[error("protocol {found}, expected {PROTOCOL}")]
    Version { found: u32 },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads a line of at most `bytes_max` bytes, newline left out; `None` at a clean end.
///
/// # Errors
/// `Long` and `Cut` for what is no line, `Io` for what reading gives.
pub fn read_line(
    reader: &mut impl BufRead,
    bytes_max: usize,
) -> Result<Option<Vec<u8>>, ProtocolError> {
    let mut line = Vec::new();
    let limit = u64::try_from(bytes_max).expect("a usize fits") + 1;
    reader.by_ref().take(limit).read_until(b'\n', &mut line)?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) if line.len() == bytes_max => Err(ProtocolError::Long { bytes_max }),
        Some(_) => Err(ProtocolError::Cut),
    }
}

/// Reads the request of a client; `None` where it went away without one.
///
/// # Errors
/// Whatever is not an [`Envelope`] of this protocol.
pub fn read_envelope(reader: &mut impl BufRead) -> Result<Option<Envelope>, ProtocolError> {
    /// What every version of the protocol has, so that another one is told from nonsense.
    #[derive(Deserialize)]
    struct AnyEnvelope {
        protocol: u32,
    }
    let Some(line) = read_line(reader, REQUEST_BYTES_MAX)? else { return Ok(None) };
    let AnyEnvelope { protocol: found } = parse(&line)?;
    if found != PROTOCOL {
        return Err(ProtocolError::Version { found });
    }
    parse(&line).map(Some)
}

/// Reads a line of the daemon; `None` once it has closed the connection.
///
/// # Errors
/// Whatever is not an [`Answer`].
pub fn read_answer(reader: &mut impl BufRead) -> Result<Option<Answer>, ProtocolError> {
    match read_line(reader, ANSWER_BYTES_MAX)? {
        Some(line) => parse(&line).map(Some),
        None => Ok(None),
    }
}

/// Writes a value as one line of at most `bytes_max` bytes.
///
/// # Errors
/// `Long` where it would be longer, in which case nothing was written.
pub fn write_line(
    writer: &mut impl Write,
    value: &impl Serialize,
    bytes_max: usize,
) -> Result<(), ProtocolError> {
    let mut line = serde_json::to_vec(value)?;
    if bytes_max < line.len() {
        return Err(ProtocolError::Long { bytes_max });
    }
    line.push(b'\n');
    writer.write_all(&line)?;
    Ok(writer.flush()?)
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T, ProtocolError> {
    Ok(serde_json::from_slice(line)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<Option<Envelope>, ProtocolError> {
        read_envelope(&mut &text[..])
    }

    #[test]
    fn a_request_is_its_line_and_back() {
        let list = Ask::Verb(Box::new(Request::List { model: Some("churn".parse().unwrap()) }));
        for ask in [Ask::Unmount, Ask::Verb(Box::new(Request::Status)), list] {
            let envelope = Envelope { protocol: PROTOCOL, ask };
            let mut line = Vec::new();
            write_line(&mut line, &envelope, REQUEST_BYTES_MAX).unwrap();
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert_eq!(read(&line).unwrap(), Some(envelope));
        }
    }

    #[test]
    fn hostile_requests_are_errors_and_take_no_memory() {
        let check = |text: &[u8], expected: &str| {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?}, expected {expected:?}");
        };
        assert_eq!(read(b"").unwrap(), None);
        check(b"{\"protocol\":2,\"ask\":\"unmount\"}", "closed in the middle");
        check(b"\n", "cannot be understood");
        check(b"\xff\xfe\0\n", "cannot be understood");
        check(b"{}\n", "missing field `protocol`");
        check(b"{\"protocol\":1,\"ask\":{\"earlier\":[]}}\n", "protocol 1, expected 2");
        check(b"{\"protocol\":2,\"ask\":\"drop\"}\n", "unknown variant `drop`");
        check(b"{\"protocol\":2,\"ask\":{\"verb\":{\"verb\":\"list\",\"options\":{\"model\":\"../x\"}}}}\n", "cannot be the name of a model");
        let deep = format!("{{\"protocol\":2,\"ask\":{}", "[".repeat(10_000));
        check(format!("{deep}\n").as_bytes(), "cannot be understood");
        // Endless input is given up at the limit.
        let mut endless = io::BufReader::new(io::repeat(b'x'));
        let error = read_envelope(&mut endless).unwrap_err();
        assert!(matches!(error, ProtocolError::Long { bytes_max: REQUEST_BYTES_MAX }), "{error:?}");
    }

    #[test]
    fn a_line_may_be_as_long_as_its_limit() {
        assert_eq!(read_line(&mut &b"12345\n"[..], 5).unwrap().unwrap(), b"12345");
        let error = read_line(&mut &b"123456\n"[..], 5).unwrap_err();
        assert!(matches!(error, ProtocolError::Long { bytes_max: 5 }), "{error:?}");
        let error = read_line(&mut &b"12345"[..], 5).unwrap_err();
        assert!(matches!(error, ProtocolError::Cut), "{error:?}");
        let mut out = Vec::new();
        assert!(write_line(&mut out, &"1234", 5).is_err());
        assert!(out.is_empty());
    }
}
