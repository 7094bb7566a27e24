//! Inode numbers: what a thing is decides its number.
//!
//! Invariant N1: equal files of any version have one identity, so the kernel keeps their pages once
//! and an open file never changes. Invariant N2: two paths never share the identity of a directory,
//! since a directory inode has one name in Linux and would jump between them.
//! An alias is another thing after each move, so its inode is fresh.

use crate::format::ids::{BlobDigest, ManifestId};
use crate::format::manifest::{EntryIndex, Mtime};

/// The number that FUSE gives to the root.
pub const ROOT: u64 = 1;

/// Separates the numbers of this release's scheme from all other uses of the hash.
const CONTEXT: &str = "modelfs inode v1";

/// Numbers stay positive for programs that read them as signed.
const NUMBER_MASK: u64 = i64::MAX as u64;

/// What a node is, hashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Tells all nodes that live at one time apart.
    pub key: [u8; 16],
    /// Where its number comes from: equal for things that ought to have one number.
    number: [u8; 16],
}

impl Identity {
    /// The identity made of a tag and parts; their lengths count, so no two lists are alike.
    pub fn of(tag: &str, parts: &[&[u8]]) -> Self {
        let key = hash(tag, parts);
        Self { key, number: key }
    }

    /// This identity with the number of another one, as long as no other node has that number.
    pub fn numbered_as(self, other: Self) -> Self {
        Self { key: self.key, number: other.number }
    }

    /// The number to try at `attempt`, from 0; never 0, never the root's.
    pub fn candidate(&self, attempt: u32) -> u64 {
        let digest = match attempt {
            0 => self.number,
            _ => hash("attempt", &[&self.number, &attempt.to_le_bytes()]),
        };
        let first = digest.first_chunk().expect("16 bytes have 8 in front");
        (u64::from_le_bytes(*first) & NUMBER_MASK).max(ROOT + 1)
    }
}

/// A sealed file: content, executable bit and time; not where it is (N1).
pub fn sealed_file(digest: &BlobDigest, executable: bool, mtime: Mtime) -> Identity {
    let (seconds, nanos) = (mtime.seconds.to_le_bytes(), mtime.nanos.to_le_bytes());
    Identity::of("file", &[digest.as_bytes(), &[u8::from(executable)], &seconds, &nanos])
}

/// A sealed symbolic link: target and time.
pub fn sealed_link(target: &[u8], mtime: Mtime) -> Identity {
    let (seconds, nanos) = (mtime.seconds.to_le_bytes(), mtime.nanos.to_le_bytes());
    Identity::of("link", &[target, &seconds, &nanos])
}

/// A sealed directory: the view, the version and the place within it (N2).
pub fn sealed_directory(view: &str, version: &ManifestId, entry: EntryIndex) -> Identity {
    Identity::of("directory", &[view.as_bytes(), version.as_bytes(), &entry.0.to_le_bytes()])
}

fn hash(tag: &str, parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    for part in std::iter::once(&tag.as_bytes()).chain(parts) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    *hasher.finalize().as_bytes().first_chunk().expect("a digest has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Mtime = Mtime { seconds: 7, nanos: 1 };

    #[test]
    fn a_file_has_one_number_wherever_it_is() {
        let digest = BlobDigest::of(b"weights");
        let number = sealed_file(&digest, false, TIME).candidate(0);
        assert_eq!(number, sealed_file(&digest, false, TIME).candidate(0));
        let later = Mtime { nanos: 2, ..TIME };
        for other in [
            sealed_file(&BlobDigest::of(b"other"), false, TIME),
            sealed_file(&digest, true, TIME),
            sealed_file(&digest, false, later),
        ] {
            assert_ne!(number, other.candidate(0));
        }
    }

    #[test]
    fn a_directory_has_another_number_in_each_view_version_and_place() {
        let version = ManifestId::of(b"v1");
        let mut numbers: Vec<u64> = Vec::new();
        for view in ["churn", ".live/prod", ".live/latest"] {
            for version in [version, ManifestId::of(b"v2")] {
                let place = |index| sealed_directory(view, &version, EntryIndex(index));
                numbers.extend((0..3).map(|index| place(index).candidate(0)));
            }
        }
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), count);
    }

    #[test]
    fn no_number_is_zero_or_the_roots_or_negative() {
        let identity = Identity { key: [0; 16], number: [0; 16] };
        assert_eq!(identity.candidate(0), ROOT + 1);
        let identity = Identity { key: [0xff; 16], number: [0xff; 16] };
        assert!(i64::try_from(identity.candidate(0)).is_ok());
        assert_ne!(identity.candidate(0), identity.candidate(1));
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let joined = Identity::of("x", &[b"ab", b"c"]);
        assert_ne!(joined, Identity::of("x", &[b"a", b"bc"]));
        assert_ne!(joined, Identity::of("xa", &[b"b", b"c"]));
    }
}
