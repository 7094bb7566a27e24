//! `metadata.json`: what a version says of itself, generated when it is sealed.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Context, SnapshotOptions, said};
use crate::capture::Found;
use crate::format::canonical;
use crate::format::hot::Stamp;
use crate::format::ids::{BlobDigest, TreeDigest, to_hex};
use crate::format::metadata::{ARTIFACTS, SCHEMA, SUPERSEDES};
use crate::format::names::VersionNumber;
use crate::sys::identity;
use jiff::Timestamp;
use std::os::unix::ffi::OsStrExt;

/// A file that was read and stored.
pub(super) struct SealedFile {
    pub bytes: u64,
    pub digest: BlobDigest,
    /// The word for its format.
    pub format: &'static str,
    pub sha256: [u8; 32],
    /// What the file was while it was read, if a lease said that nobody wrote to it.
    pub sealed: Option<Stamp>,
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
    }
    head
}

/// One line of the list of files. A path that is not UTF-8 is shown as well as can be, and in full
/// as the hexadecimal digits of its bytes.
pub(super) fn file_line(path: &Path, file: &SealedFile) -> Value {
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

/// The bytes of `metadata.json`: one line.
pub(super) fn encode(head: &Value, files: Vec<Value>) -> Vec<u8> {
    let mut whole = head.clone();
    whole[ARTIFACTS] = Value::Array(files);
    let mut bytes = canonical::encode(&whole).into_bytes();
    bytes.push(b'\n');
    bytes
}
