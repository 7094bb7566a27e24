//! Identifiers: what names a chunk, a pack, a manifest, a record, a content.
//!
//! Each is a newtype over the 32 bytes of a BLAKE3 digest, so that one is never taken for another.
//! As text they are 64 lower-case hexadecimal digits, in JSON a string of the same; in forms that are
//! not for people, their bytes.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Length in bytes of every digest that the format uses.
pub const DIGEST_BYTES: usize = 32;

/// A text that is not an identifier.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is not an identifier: expected {expected} hexadecimal digits")]
pub struct IdError {
    text: String,
    expected: usize,
}

/// Text of a newtype over an array of bytes: lower-case hexadecimal digits.
macro_rules! hexadecimal {
    ($name:ident) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&$crate::format::ids::to_hex(&self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::format::ids::IdError;
            fn from_str(text: &str) -> Result<Self, $crate::format::ids::IdError> {
                $crate::format::ids::parse_hex(text).map(Self)
            }
        }
    };
}
pub(super) use hexadecimal;

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; DIGEST_BYTES]);

        impl $name {
            /// The digest of `bytes`.
            pub fn of(bytes: &[u8]) -> Self {
                Self(*blake3::hash(bytes).as_bytes())
            }

            /// The digest as bytes.
            pub fn as_bytes(&self) -> &[u8; DIGEST_BYTES] {
                &self.0
            }
        }

        hexadecimal!($name);

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    return serializer.collect_str(self);
                }
                serializer.serialize_bytes(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    return String::deserialize(deserializer)?.parse().map_err(D::Error::custom);
                }
                deserializer.deserialize_bytes(DigestVisitor).map(Self)
            }
        }
    };
}

identifier! {
    /// Names a chunk: BLAKE3 of its plain bytes.
    ChunkId
}
identifier! {
    /// Names a pack: BLAKE3 of the whole file.
    PackId
}
identifier! {
    /// Names a manifest: BLAKE3 of the whole file.
    ManifestId
}
identifier! {
    /// BLAKE3 of one file's content.
    BlobDigest
}
identifier! {
    /// Digest of a tensor: BLAKE3 of up to 1 MiB, of more that of its pieces (FORMAT.md, "Tensor table").
    TensorDigest
}
identifier! {
    /// Digest of a tree: names, kinds, executable bits, contents; no times (FORMAT.md, "Tree digest").
    TreeDigest
}
identifier! {
    /// BLAKE3 of a history record's line, newline left out.
    RecordDigest
}
identifier! {
    /// BLAKE3 of a section of a checkpoint, as it is stored.
    SectionDigest
}
identifier! {
    /// BLAKE3 of the text of a policy.
    PolicyDigest
}
identifier! {
    /// Digest of a file or directory of data: names and contents (FORMAT.md, "Data digest").
    DataDigest
}
identifier! {
    /// Digest of files by their places: BLAKE3, derived with context `modelfs content v1`, of each one's
    /// place after its length (u64, little endian) and its digest, sorted by place.
    ContentDigest
}

impl ContentDigest {
    /// The content of files at these places, in any order.
    pub fn of_files(files: impl IntoIterator<Item = (PathBuf, BlobDigest)>) -> Self {
        let mut sorted: Vec<_> = files.into_iter().collect();
        sorted.sort_unstable();
        let mut hasher = blake3::Hasher::new_derive_key("modelfs content v1");
        for (place, digest) in &sorted {
            let place = place.as_os_str().as_bytes();
            hasher.update(&(place.len() as u64).to_le_bytes());
            hasher.update(place);
            hasher.update(digest.as_bytes());
        }
        Self(*hasher.finalize().as_bytes())
    }
}

/// Reads a digest in a form that is not for people: its bytes.
struct DigestVisitor;

impl Visitor<'_> for DigestVisitor {
    type Value = [u8; DIGEST_BYTES];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{DIGEST_BYTES} bytes")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))
    }
}

/// Lower-case hexadecimal digits of `bytes`.
pub fn to_hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a string cannot go wrong");
    }
    text
}

/// The bytes that these hexadecimal digits stand for; `None` where they are none.
pub fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let is_digits = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let pair = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    let is_pairs = is_digits && digits.len().is_multiple_of(2);
    is_pairs.then(|| (0..digits.len()).step_by(2).map(pair).collect())?
}

/// The bytes that exactly `N * 2` lower-case hexadecimal digits stand for.
pub(super) fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], IdError> {
    let wrong = || IdError { text: text.chars().take(80).collect(), expected: N * 2 };
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return Err(wrong());
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0]).ok_or_else(wrong)? << 4 | digit(pair[1]).ok_or_else(wrong)?;
    }
    Ok(bytes)
}

/// Lower case only: one value has one text, so that a flipped bit is never another spelling.
fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_does_not_depend_on_the_order_of_its_files_but_on_their_places() {
        let of = |files: &[(&str, &str)]| {
            let file = |(place, text): &(&str, &str)| {
                (PathBuf::from(place), BlobDigest::of(text.as_bytes()))
            };
            ContentDigest::of_files(files.iter().map(file))
        };
        let plain = of(&[("a", "1"), ("b", "2")]);
        assert_eq!(of(&[("b", "2"), ("a", "1")]), plain);
        for other in [&[("a", "2"), ("b", "1")][..], &[("a", "1")], &[("a", "1"), ("c", "2")]] {
            assert_ne!(of(other), plain, "{other:?}");
        }
    }

    #[test]
    fn an_identifier_is_its_text_and_back() {
        let id = ChunkId::of(b"one");
        assert_eq!(id.to_string().parse::<ChunkId>().unwrap(), id);
        assert_eq!(id.to_string(), to_hex(id.as_bytes()));
        for wrong in ["", "ab", &"AB".repeat(32), &"zz".repeat(32), &"é".repeat(32)] {
            assert!(wrong.parse::<ChunkId>().is_err(), "{wrong}");
        }
    }
}
