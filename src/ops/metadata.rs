//! `metadata.json`: what a version says of itself, generated when it is sealed.

use std::collections::BTreeSet;
use std::path::Path;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::{Context, SnapshotOptions, said};
use crate::capture::{Found, redact};
use crate::format::hot::Stamp;
use crate::format::ids::{BlobDigest, DataDigest, TreeDigest, to_hex};
use crate::format::metadata::{ARTIFACTS, SCHEMA, SUPERSEDES};
use crate::format::names::VersionNumber;
use crate::sys::identity;
use jiff::Timestamp;
use std::os::unix::ffi::OsStrExt;

/// Data sets by which one version is found: as many as can be declared.
const DATA_COUNT_MAX: usize = 1_000;

/// A file that was read and stored.
pub(super) struct SealedFile {
    pub bytes: u64,
    pub digest: BlobDigest,
    /// The word for its format.
    pub format: &'static str,
    pub sha256: [u8; 32],
    /// What the file was while it was read, if a lease said that nobody wrote to it and it can become
    /// hot.
    pub sealed: Option<Box<Stamp>>,
    /// What it says of itself.
    pub described: Option<Box<Described>>,
}

/// What a model file says of itself.
#[derive(Debug)]
pub(super) struct Described {
    pub details: Value,
    pub interface: Option<Value>,
}

/// What a version is, apart from its files.
pub(super) struct Facts<'a> {
    pub options: &'a SnapshotOptions,
    pub context: &'a Context,
    pub at: Timestamp,
    pub version: VersionNumber,
    pub supersedes: Option<VersionNumber>,
    pub digest: TreeDigest,
    /// The draft's own `metadata.json`.
    pub user: Option<Map<String, Value>>,
    /// What its files say of how it was made.
    pub found: &'a Found,
}

/// The metadata without its list of files: what the manifest keeps.
pub(super) fn head(facts: &Facts<'_>) -> Value {
    let caller = &facts.context.caller;
    let mut head = said::members(facts.options, facts.found);
    head["message"] = json!(facts.options.message);
    head["schema"] = json!(SCHEMA);
    head["model"] = json!(facts.options.model);
    head["version"] = json!(facts.version);
    head[SUPERSEDES] = json!(facts.supersedes);
    head["digest"] = json!(facts.digest);
    head["sealed"] = json!({
        "at": facts.at,
        "by": { "user": caller.user, "uid": caller.uid },
        "door": caller.door,
        "host": identity::host_name(),
    });
    if let Some(user) = &facts.user {
        head["user"] = json!(user);
        redact::hide("user", &mut head["user"]);
    }
    head
}

/// The digests of the data that it was made from, as far as `modelfs fingerprint` made them; each once.
pub(super) fn data_digests(head: &Value) -> Vec<DataDigest> {
    let datasets = head["datasets"].as_array().into_iter().flatten();
    let digests = datasets.filter_map(|dataset| dataset["digest"].as_str()?.parse().ok());
    let digests: BTreeSet<DataDigest> = digests.take(DATA_COUNT_MAX).collect();
    digests.into_iter().collect()
}

/// One line of the list of files. A path that is not UTF-8 is shown as well as can be, and in full
/// as the hexadecimal digits of its bytes.
fn file_line(path: &Path, file: &SealedFile) -> Value {
    let bytes = path.as_os_str().as_bytes();
    let mut line = json!({
        "path": String::from_utf8_lossy(bytes),
        "size": file.bytes,
        "blake3": file.digest,
        "format": file.format,
        "sha256": to_hex(&file.sha256),
    });
    if std::str::from_utf8(bytes).is_err() {
        line["path_hex"] = json!(to_hex(bytes));
    }
    if let Some(described) = &file.described {
        line["details"] = described.details.clone();
    }
    line
}

/// `metadata.json` as it is written: the lines of its files are made one by one, as there may be a
/// million of them.
struct Whole<'a, F> {
    head: &'a Map<String, Value>,
    files: F,
}

impl<'a, F> Serialize for Whole<'a, F>
where
    F: Iterator<Item = (&'a Path, &'a SealedFile)> + Clone,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        // Canonical: sorted by name.
        for (name, member) in self.head.iter().filter(|(name, _)| *name.as_str() < *ARTIFACTS) {
            map.serialize_entry(name, member)?;
        }
        map.serialize_entry(ARTIFACTS, &Lines(self.files.clone()))?;
        for (name, member) in self.head.iter().filter(|(name, _)| *ARTIFACTS < *name.as_str()) {
            map.serialize_entry(name, member)?;
        }
        map.end()
    }
}

struct Lines<F>(F);

impl<'a, F> Serialize for Lines<F>
where
    F: Iterator<Item = (&'a Path, &'a SealedFile)> + Clone,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.clone().map(|(path, file)| file_line(path, file)))
    }
}

/// The bytes of `metadata.json`: one line of canonical JSON.
pub(super) fn encode<'a>(
    head: &'a Value,
    files: impl Iterator<Item = (&'a Path, &'a SealedFile)> + Clone,
) -> Vec<u8> {
    let head = head.as_object().expect("the head is an object");
    let whole = serde_json::to_vec(&Whole { head, files });
    let mut bytes = whole.expect("our types have text keys and finite numbers");
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::canonical;

    #[test]
    fn the_metadata_is_canonical_with_its_files_where_they_belong() {
        let file = |bytes: u64| SealedFile {
            bytes,
            digest: BlobDigest::of(&bytes.to_le_bytes()),
            format: "text",
            sha256: [7; 32],
            sealed: None,
            described: None,
        };
        let files = [(Path::new("b"), file(1)), (Path::new("a/\"x"), file(2))];
        let files = files.iter().map(|(path, file)| (*path, file));
        let mut head = json!({ "zzz": 1, "aaa": { "z": null, "a": 1.5 }, "message": "why" });
        let text = encode(&head, files.clone());
        head[ARTIFACTS] = files.map(|(path, file)| file_line(path, file)).collect();
        let line = text.strip_suffix(b"\n").expect("it ends in a newline");
        assert_eq!(canonical::parse_value(line).unwrap(), head);
    }
}
