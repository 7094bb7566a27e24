//! Checkpoints: what a history adds up to, so that a start need not add it up again.
//!
//! Invariant K4: a trailer has the digest of the index, which has those of all other sections: one
//! signature of the trailer covers all that a checkpoint says.
//!
//! Sections and a trailer, which says of which record it is. Nothing here knows what the sections
//! hold: the registry makes them of its own types. FORMAT.md, "Checkpoint", describes it.
//! Whatever differs from what was written is refused: then the history is read instead.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::codec::CodecError;
use super::frame::{self, Effort};
use super::ids::{DIGEST_BYTES, RecordDigest, SectionDigest};
use super::signature::{PublicKey, Purpose, SIGNATURE_BYTES, Signature, Signer};

/// What the last bytes of a checkpoint are. The last of them is the version: it is raised whenever
/// the same history makes another state, or a state other sections.
const MAGIC: [u8; 8] = *b"MFSCKPT\x03";
/// Bytes of a trailer.
pub const TRAILER_BYTES: usize = CLAIMS_BYTES + SIGNATURE_BYTES + 8 + MAGIC.len();
/// Bytes of what a trailer says of the checkpoint.
const CLAIMS_BYTES: usize = 8 + DIGEST_BYTES + 16 + DIGEST_BYTES;
/// What is in the place of a signature where there is none.
const UNSIGNED: [u8; SIGNATURE_BYTES] = [0; SIGNATURE_BYTES];
/// Largest section, in plain bytes.
pub const SECTION_BYTES_MAX: usize = 1 << 30;

/// Why bytes are no checkpoint, or no section of one.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("it has {bytes} bytes, a trailer alone {TRAILER_BYTES}")]
    Short { bytes: u64 },
    #[error("it does not end as this release writes it")]
    Magic,
    #[error("the check of its trailer does not match")]
    Trailer,
    #[error("the check of the section at {offset} does not match")]
    Check { offset: u64 },
    #[error("the section at {offset} is too large: {bytes} bytes, at most {SECTION_BYTES_MAX}")]
    Large { offset: u64, bytes: usize },
    #[error("the section at {offset} does not decode: {source}")]
    Codec { offset: u64, source: CodecError },
}

/// Where a section is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Section {
    pub offset: u64,
    pub stored_bytes: u32,
    pub plain_bytes: u32,
    /// Of the stored bytes.
    pub digest: SectionDigest,
}

impl Section {
    /// Puts a section of these bytes into stored form, for the place `offset`.
    ///
    /// # Errors
    /// `Large`.
    pub fn encode(offset: u64, plain: &[u8]) -> Result<(Self, Vec<u8>), CheckpointError> {
        let bytes = plain.len();
        let large = |_| CheckpointError::Large { offset, bytes };
        if SECTION_BYTES_MAX < bytes {
            return Err(CheckpointError::Large { offset, bytes });
        }
        let mut stored = Vec::new();
        frame::put(Effort::Fast, plain, &mut stored);
        let section = Self {
            offset,
            stored_bytes: u32::try_from(stored.len()).map_err(large)?,
            plain_bytes: u32::try_from(bytes).map_err(large)?,
            digest: SectionDigest::of(&stored),
        };
        Ok((section, stored))
    }

    /// Sees to it that stored bytes are those that were written.
    ///
    /// # Errors
    /// `Check`.
    pub fn check(&self, stored: &[u8]) -> Result<(), CheckpointError> {
        if stored.len() != self.stored_bytes as usize || SectionDigest::of(stored) != self.digest {
            return Err(CheckpointError::Check { offset: self.offset });
        }
        Ok(())
    }

    /// The plain bytes of a section.
    ///
    /// # Errors
    /// `Check`, `Large`, `Codec`.
    pub fn decode(&self, stored: &[u8]) -> Result<Vec<u8>, CheckpointError> {
        self.check(stored)?;
        let (offset, bytes) = (self.offset, self.plain_bytes as usize);
        if SECTION_BYTES_MAX < bytes {
            return Err(CheckpointError::Large { offset, bytes });
        }
        let mut plain = vec![0; bytes];
        frame::load(stored, &mut plain)
            .map_err(|source| CheckpointError::Codec { offset, source })?;
        Ok(plain)
    }
}

/// The end of a checkpoint: which record it goes up to, and where its index is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trailer {
    pub seq: u64,
    pub digest: RecordDigest,
    pub index: Section,
    /// Of all that is before it (K4).
    pub signature: Option<Signature>,
}

impl Trailer {
    /// The same, signed.
    pub fn sign(self, signer: &Signer) -> Self {
        let signature = signer.sign(Purpose::Checkpoint, &self.claims());
        Self { signature: Some(signature), ..self }
    }

    /// The key that it is signed with; none for a signature of something else.
    pub fn signed_by(&self) -> Option<PublicKey> {
        let is_good = |it: &Signature| it.is_of(Purpose::Checkpoint, &self.claims());
        self.signature.filter(is_good).map(|signature| signature.key)
    }

    fn claims(&self) -> Vec<u8> {
        let Self { seq, digest, index, .. } = self;
        let parts: [&[u8]; 6] = [
            &seq.to_le_bytes(),
            digest.as_bytes(),
            &index.offset.to_le_bytes(),
            &index.stored_bytes.to_le_bytes(),
            &index.plain_bytes.to_le_bytes(),
            index.digest.as_bytes(),
        ];
        parts.concat()
    }

    /// The bytes that a checkpoint ends with.
    pub fn encode(&self) -> [u8; TRAILER_BYTES] {
        let mut bytes = self.claims();
        bytes.extend(self.signature.map_or(UNSIGNED, Signature::to_bytes));
        bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes());
        bytes.extend_from_slice(&MAGIC);
        bytes.try_into().expect("the parts of a trailer have fixed lengths")
    }

    /// The trailer that a checkpoint ends with.
    ///
    /// # Errors
    /// `Magic` also for another version, `Trailer`.
    pub fn parse(bytes: &[u8; TRAILER_BYTES]) -> Result<Self, CheckpointError> {
        let body = bytes.strip_suffix(&MAGIC).ok_or(CheckpointError::Magic)?;
        let (body, check) = body.split_at(body.len() - 8);
        if xxh3_64(body).to_le_bytes() != check {
            return Err(CheckpointError::Trailer);
        }
        let array = |at: usize| <[u8; 8]>::try_from(&body[at..at + 8]).expect("eight bytes");
        let half = |at: usize| <[u8; 4]>::try_from(&body[at..at + 4]).expect("four bytes");
        let digest = |at: usize| body[at..at + DIGEST_BYTES].try_into().expect("a digest's bytes");
        let signature = body[CLAIMS_BYTES..].try_into().expect("a signature's bytes");
        let index = 8 + DIGEST_BYTES;
        Ok(Self {
            seq: u64::from_le_bytes(array(0)),
            digest: RecordDigest(digest(8)),
            signature: Some(signature)
                .filter(|it| *it != UNSIGNED)
                .map(|it| Signature::from_bytes(&it)),
            index: Section {
                offset: u64::from_le_bytes(array(index)),
                stored_bytes: u32::from_le_bytes(half(index + 8)),
                plain_bytes: u32::from_le_bytes(half(index + 12)),
                digest: SectionDigest(digest(index + 16)),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::signature;

    #[test]
    fn a_signature_covers_all_that_a_trailer_says() {
        let (index, _) = Section::encode(9, b"some bytes").unwrap();
        let trailer =
            Trailer { seq: 3, digest: RecordDigest::of(b"a line"), index, signature: None };
        assert_eq!(trailer.signed_by(), None);
        let signer = signature::tests::signer();
        let signed = trailer.sign(&signer);
        assert_eq!(signed.signed_by(), Some(signer.public()));
        let other = Section { digest: SectionDigest::of(b"other"), ..index };
        for changed in [
            Trailer { seq: 4, ..signed },
            Trailer { digest: RecordDigest::of(b"other"), ..signed },
            Trailer { index: other, ..signed },
            Trailer { index: Section { plain_bytes: 5, ..index }, ..signed },
        ] {
            assert_eq!(changed.signed_by(), None, "{changed:?}");
        }
    }

    #[test]
    fn a_section_is_its_bytes_and_back() {
        for plain in [&b""[..], b"x", &[7; 300_000], &(0..=255).collect::<Vec<u8>>()] {
            let (section, stored) = Section::encode(5, plain).unwrap();
            assert_eq!(section.decode(&stored).unwrap(), plain);
            assert!(section.decode(&stored[..stored.len() - 1]).is_err());
        }
    }

    #[test]
    fn every_flipped_bit_of_a_section_and_a_trailer_is_found() {
        let (index, stored) = Section::encode(9, b"some bytes, some bytes, some bytes").unwrap();
        let trailer =
            Trailer { seq: 3, digest: RecordDigest::of(b"a line"), index, signature: None };
        assert_eq!(Trailer::parse(&trailer.encode()).unwrap(), trailer);
        let signed = trailer.sign(&signature::tests::signer());
        let whole = signed.encode();
        assert_eq!(Trailer::parse(&whole).unwrap(), signed);
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Trailer::parse(&damaged).is_err(), "bit {bit} of the trailer");
        }
        for bit in 0..stored.len() * 8 {
            let mut damaged = stored.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(index.decode(&damaged).is_err(), "bit {bit} of the section");
        }
    }
}
