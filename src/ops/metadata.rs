//! `metadata.json`: what a version says of itself, generated when it is sealed.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{Context, SnapshotOptions, said};
use crate::capture::{Found, redact};
use crate::format::canonical;
use crate::format::ids::{BlobDigest, DataDigest, TreeDigest, to_hex};
use crate::format::metadata::{ARTIFACTS, SCHEMA, SUPERSEDES};
use crate::format::names::VersionNumber;
use crate::sys::identity;

/// Data sets by which one version is found: as many as can be declared.
const DATA_COUNT_MAX: usize = 1_000;

/// A file of the list of files.
#[derive(Clone, Copy)]
pub(super) struct ListedFile<P> {
    /// Below the version.
    pub path: P,
    pub bytes: u64,
    pub digest: BlobDigest,
    /// The word for its format.
    pub format: &'static str,
    pub sha256: [u8; 32],
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
fn file_line(file: &ListedFile<impl AsRef<Path>>, described: Option<&Described>) -> Value {
    let bytes = file.path.as_ref().as_os_str().as_bytes();
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
    if let Some(described) = described {
        line["details"] = described.details.clone();
    }
    line
}

/// The bytes of `metadata.json`, one line of canonical JSON, as they are read: the lines of its files
/// are made one by one, as there may be a million of them.
pub(super) struct Text<F> {
    /// What comes next, from `at` on.
    part: Vec<u8>,
    at: usize,
    files: F,
    /// What comes after the files; taken with the last of them.
    end: Vec<u8>,
    is_first: bool,
}

impl<'a, P: AsRef<Path>, F> Text<F>
where
    F: Iterator<Item = (ListedFile<P>, Option<&'a Described>)>,
{
    /// Of a version with these files, and what they say of themselves.
    pub fn new(head: &Value, files: F) -> Self {
        let head = head.as_object().expect("the head is an object");
        // Canonical: sorted by name.
        let before = members(head.iter().filter(|(name, _)| *name.as_str() < *ARTIFACTS));
        let after = members(head.iter().filter(|(name, _)| *ARTIFACTS < *name.as_str()));
        let comma = |members: &str| if members.is_empty() { "" } else { "," };
        let part = format!("{{{before}{}\"{ARTIFACTS}\":[", comma(&before)).into_bytes();
        let end = format!("]{}{after}}}\n", comma(&after)).into_bytes();
        Self { part, at: 0, files, end, is_first: true }
    }

    fn next_part(&mut self) {
        self.at = 0;
        let Some((file, described)) = self.files.next() else {
            self.part = std::mem::take(&mut self.end);
            return;
        };
        self.part.clear();
        if !std::mem::take(&mut self.is_first) {
            self.part.push(b',');
        }
        self.part.extend_from_slice(canonical::text(&file_line(&file, described)).as_bytes());
    }
}

/// The members of an object without its braces.
fn members<'a>(of: impl Iterator<Item = (&'a String, &'a Value)>) -> String {
    let member = |(name, value): (&String, &Value)| {
        format!("{}:{}", canonical::text(&json!(name)), canonical::text(value))
    };
    of.map(member).collect::<Vec<_>>().join(",")
}

impl<'a, P: AsRef<Path>, F> Read for Text<F>
where
    F: Iterator<Item = (ListedFile<P>, Option<&'a Described>)>,
{
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.part.len() {
            self.next_part();
        }
        let rest = &self.part[self.at..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metadata_is_canonical_with_its_files_where_they_belong() {
        let file = |path: &'static str, bytes: u64| ListedFile {
            path,
            bytes,
            digest: BlobDigest::of(&bytes.to_le_bytes()),
            format: "text",
            sha256: [7; 32],
        };
        let files = [file("b", 1), file("a/\"x", 2)];
        let whole = json!({ "zzz": 1, "aaa": { "z": null, "a": 1.5 }, "message": "why" });
        for (count, head) in [(2, whole.clone()), (0, whole), (1, json!({})), (2, json!({"b": 1}))]
        {
            let files = files.into_iter().take(count).map(|file| (file, None));
            let (mut text, mut expected) = (Vec::new(), head.clone());
            Text::new(&head, files.clone()).read_to_end(&mut text).unwrap();
            expected[ARTIFACTS] = files.map(|(file, told)| file_line(&file, told)).collect();
            let line = text.strip_suffix(b"\n").expect("it ends in a newline");
            assert_eq!(canonical::parse_value(line).unwrap(), expected);
        }
    }
}
