//! The file of the key that signs records.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::failure::{failure_with_hint, of_io};
use crate::format::signature::{KEY_BYTES_MAX, Signer};
use crate::ops::{Failure, FailureKind};
use crate::sys::identity;

/// Permission bits of everybody but the owner.
const OTHERS: u32 = 0o077;

/// The key in `file`, where one is named.
///
/// # Errors
/// `Refused` for a file that others can read, `Usage` for what is no key.
pub fn read_signer(file: Option<&Path>) -> Result<Option<Arc<Signer>>, Failure> {
    let Some(path) = file else { return Ok(None) };
    let what = || format!("cannot use the key `{}`", path.display());
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
    let (found, file) = opened.map_err(|error| of_io(what(), &error))?;
    let wrong = |kind, why: String, hint: &str| {
        Err(Failure { because: vec![why], ..failure_with_hint(kind, what(), hint) })
    };
    let mode = found.mode() & 0o7777;
    if mode & OTHERS != 0 {
        let why = format!("others may read or change it: its mode is {mode:04o}");
        return wrong(FailureKind::Refused, why, &format!("chmod 600 {}", path.display()));
    }
    if ![0, identity::own_uid()].contains(&found.uid()) {
        let why = format!("it belongs to another user, uid {}", found.uid());
        return wrong(FailureKind::Refused, why, "use a key of your own");
    }
    let mut text = String::new();
    let read = file.take(KEY_BYTES_MAX as u64 + 1).read_to_string(&mut text);
    read.map_err(|error| of_io(what(), &error))?;
    let hint = "openssl genpkey -algorithm ed25519 -out FILE";
    if KEY_BYTES_MAX < text.len() {
        return wrong(FailureKind::Usage, format!("it has more than {KEY_BYTES_MAX} bytes"), hint);
    }
    match Signer::parse(&text) {
        Ok(signer) => Ok(Some(Arc::new(signer))),
        Err(error) => wrong(FailureKind::Usage, error.to_string(), hint),
    }
}
