//! The index of the hot files: what each of them was when its bytes were found right.
//!
//! One line a file, appended; each line has its own check, so a torn one is left out and the rest
//! still counts. FORMAT.md, "Hot files", describes it.

use std::fmt::Write as _;

use super::ids::{BlobDigest, to_hex};

/// Fields of a line: digest, device, inode, bytes, seconds and nanoseconds of the change, check.
const FIELDS: usize = 7;
/// Bytes of the check: the first of the BLAKE3 digest of what is before it in the line.
const CHECK_BYTES: usize = 8;

/// What identifies a file's content as long as nobody changes it: a change moves the last field.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Stamp {
    pub device: u64,
    pub inode: u64,
    pub bytes: u64,
    /// Since 1970: whole seconds, and nanoseconds from 0 to 999,999,999.
    pub changed: (i64, u32),
}

/// The line that says: a file with this stamp was durable and had this digest.
pub fn encode_line(digest: &BlobDigest, stamp: &Stamp) -> String {
    let Stamp { device, inode, bytes, changed: (seconds, nanos) } = stamp;
    let mut line = format!("{digest} {device} {inode} {bytes} {seconds} {nanos}");
    let check = check_of(&line);
    write!(line, " {check}").expect("writing to a string cannot go wrong");
    line.push('\n');
    line
}

/// Reads a line, newline left out; `None` where it is not whole.
pub fn parse_line(line: &str) -> Option<(BlobDigest, Stamp)> {
    let (text, check) = line.rsplit_once(' ')?;
    let fields: Vec<&str> = line.split(' ').collect();
    if check_of(text) != check || fields.len() != FIELDS {
        return None;
    }
    let number = |index: usize| fields[index].parse::<u64>().ok();
    let nanos = fields[5].parse().ok().filter(|nanos| *nanos < 1_000_000_000)?;
    let changed = (fields[4].parse().ok()?, nanos);
    let stamp = Stamp { device: number(1)?, inode: number(2)?, bytes: number(3)?, changed };
    Some((fields[0].parse().ok()?, stamp))
}

fn check_of(text: &str) -> String {
    to_hex(&blake3::hash(text.as_bytes()).as_bytes()[..CHECK_BYTES])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (BlobDigest, Stamp) {
        let changed = (-3, 999_999_999);
        (BlobDigest::of(b"x"), Stamp { device: 66, inode: u64::MAX, bytes: 7, changed })
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let (digest, stamp) = example();
        let line = encode_line(&digest, &stamp);
        assert_eq!(parse_line(line.trim_end()), Some((digest, stamp)));
    }

    #[test]
    fn a_line_that_is_cut_or_changed_is_no_line() {
        let (digest, stamp) = example();
        let line = encode_line(&digest, &stamp);
        let line = line.trim_end();
        for end in 0..line.len() {
            assert_eq!(parse_line(&line[..end]), None, "{end}");
            let mut changed = line.as_bytes().to_vec();
            changed[end] ^= 1;
            let changed = String::from_utf8_lossy(&changed).into_owned();
            assert_eq!(parse_line(&changed), None, "{changed}");
        }
        assert_eq!(parse_line(&format!("{line} ")), None);
        let more = format!("{} 1 2 3 4 5 6", "0".repeat(64));
        assert_eq!(parse_line(&format!("{more} {}", check_of(&more))), None);
    }
}
