//! History records: one operation each, one line of canonical JSON, chained by digest.
//!
//! Invariant H1: `prev` is the digest of the line before, so no record can be changed, removed,
//! inserted or moved without breaking the chain.
//! Invariant H2: `check` is a digest of the rest of the line, so that damage to the newest record,
//! which nothing follows yet, is seen as well.
//! The state of a store (models, versions, aliases, access, policy, approvals, checks, marks) is the
//! sum of its records.

mod judgement;
mod op;
mod part;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::canonical::{self, CanonicalError};
use super::ids::{PolicyDigest, RecordDigest, to_hex};
use super::signature::{PublicKey, Purpose, Signature, Signer};

pub use judgement::{Approver, Judgement, Outcome, RuleResult, Verdict};
pub use op::{
    Access, Against, Approval, BreakGlass, CheckResult, Mark, Marking, Move, Op, Refusal, Seal,
    Subject,
};

/// Longest line of a record, in bytes. A longer message belongs into a file of the version.
pub const RECORD_BYTES_MAX: usize = 256 << 10;

/// Bytes of the digest that `check` shows.
const CHECK_BYTES: usize = 16;

/// Through which door an operation came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Door {
    Mount,
    Cli,
    Http,
    Daemon,
}

/// Who acted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Actor {
    /// The user's name, or the number as text where it has none.
    pub user: String,
    pub uid: u32,
    pub door: Door,
}

/// One entry of the history.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// From 1, without gaps.
    pub seq: u64,
    /// Digest of the record before; of no bytes at all for the first.
    pub prev: RecordDigest,
    pub time: Timestamp,
    pub actor: Actor,
    /// The policy that was in force, if any was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyDigest>,
    #[serde(default)]
    pub verdict: Verdict,
    pub op: Op,
    /// Of the rest of the record but `check`, where the store has a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Box<Signature>>,
}

/// Why a line is not a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
    #[error("no newline at the end: the record was cut off")]
    Unended,
    #[error("its check is `{found}`, its content asks for `{expected}`")]
    Check { expected: String, found: String },
    #[error("record of {bytes} bytes, at most {RECORD_BYTES_MAX}")]
    Long { bytes: usize },
}

impl Record {
    /// What `prev` of the first record is.
    pub fn no_record() -> RecordDigest {
        RecordDigest::of(b"")
    }

    /// Signs it as it is.
    pub fn sign(&mut self, signer: &Signer) {
        let signature = signer.sign(Purpose::Record, self.signed_text().as_bytes());
        self.signature = Some(Box::new(signature));
    }

    /// The key that it is said to be signed with.
    pub fn signed_by(&self) -> Option<PublicKey> {
        self.signature.as_ref().map(|signature| signature.key)
    }

    /// Whether a signature is of this record.
    pub fn is_signed_as(&self, signature: &Signature) -> bool {
        signature.is_of(Purpose::Record, self.signed_text().as_bytes())
    }

    /// What a signature of this record signs: its canonical form without `signature` and `check`.
    fn signed_text(&self) -> String {
        canonical::encode(&Self { signature: None, ..self.clone() })
    }

    /// The line of this record with its newline, and its digest.
    ///
    /// # Errors
    /// `Long` where the line would be longer than [`RECORD_BYTES_MAX`].
    pub fn encode(&self) -> Result<(Vec<u8>, RecordDigest), RecordError> {
        let mut value = serde_json::to_value(self).expect("a record has text keys only");
        let check = check_of(&value);
        value["check"] = Value::String(check);
        let mut line = canonical::text(&value).into_bytes();
        if RECORD_BYTES_MAX < line.len() + 1 {
            return Err(RecordError::Long { bytes: line.len() + 1 });
        }
        let digest = RecordDigest::of(&line);
        line.push(b'\n');
        Ok((line, digest))
    }

    /// Parses a line with its newline, checks it, and gives its digest.
    ///
    /// # Errors
    /// Whatever differs from what `encode` would have written.
    pub fn parse(bytes: &[u8]) -> Result<(Self, RecordDigest), RecordError> {
        if RECORD_BYTES_MAX < bytes.len() {
            return Err(RecordError::Long { bytes: bytes.len() });
        }
        let line = bytes.strip_suffix(b"\n").ok_or(RecordError::Unended)?;
        let mut value = canonical::parse_value(line)?;
        let found = match value.as_object_mut().and_then(|object| object.remove("check")) {
            Some(Value::String(check)) => check,
            _ => String::new(),
        };
        let expected = check_of(&value);
        if found != expected {
            return Err(RecordError::Check { expected, found });
        }
        let record = serde_json::from_value(value).map_err(CanonicalError::from)?;
        Ok((record, RecordDigest::of(line)))
    }
}

/// The check of a record: the first half of the BLAKE3 of its canonical form without `check`.
pub(super) fn check_of(value: &Value) -> String {
    let digest = blake3::hash(canonical::text(value).as_bytes());
    to_hex(&digest.as_bytes()[..CHECK_BYTES])
}

#[cfg(test)]
mod tests {
    use super::super::names::{ModelName, VersionNumber};
    use super::*;

    pub fn record() -> Record {
        let model: ModelName = "churn".parse().unwrap();
        let to = Some(VersionNumber::FIRST);
        let alias = "prod".parse().unwrap();
        let moves = vec![Move { model, alias, from: None, to, judgement: None }];
        Record {
            seq: 2,
            prev: Record::no_record(),
            time: "2026-01-02T03:04:05.000000006Z".parse().unwrap(),
            actor: Actor { user: "ann".into(), uid: 7, door: Door::Mount },
            policy: None,
            verdict: Verdict::Allowed,
            op: Op::Retarget { moves, message: String::new(), rollback: false },
            signature: None,
        }
    }

    #[test]
    fn a_record_is_its_line_and_back() {
        let (line, digest) = record().encode().unwrap();
        let text = std::str::from_utf8(&line).unwrap();
        assert!(text.contains(r#""alias":"prod","from":null,"model":"churn","to":"v1""#), "{text}");
        assert_eq!(Record::parse(&line).unwrap(), (record(), digest));
    }

    #[test]
    fn a_signature_is_part_of_the_line_and_of_nothing_that_it_signs() {
        let mut record = record();
        let (unsigned, _) = record.encode().unwrap();
        let signer = crate::format::signature::tests::signer();
        record.sign(&signer);
        let (line, digest) = record.encode().unwrap();
        let text = std::str::from_utf8(&line).unwrap();
        assert!(text.contains(r#""signature":{"key":""#), "{text}");
        let (parsed, found) = Record::parse(&line).unwrap();
        assert_eq!((&parsed, found), (&record, digest));
        assert!(parsed.is_signed_as(parsed.signature.as_ref().unwrap()));
        let check = |line: &[u8]| -> Value {
            serde_json::from_slice::<Value>(line).unwrap()["check"].clone()
        };
        assert_ne!(check(&unsigned), check(&line), "a flip in the signature is seen");
        record.actor.uid += 1;
        assert!(!record.is_signed_as(&parsed.signature.unwrap()));
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_found() {
        let (line, _) = record().encode().unwrap();
        for bit in 0..line.len() * 8 {
            let mut damaged = line.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::parse(&damaged).is_err(), "bit {bit}");
        }
        for len in 0..line.len() {
            assert!(Record::parse(&line[..len]).is_err(), "cut at {len}");
        }
    }
}
