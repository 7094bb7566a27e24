//! Sealed versions: read from the manifest and the packs, changed by nobody, not even root.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use super::answer::{self, Attributes, Kind, time};
use super::model::BLOCK_BYTES;
use super::nodes::{Node, SealedPlace, SealedVersion, View};
use super::{Child, Filesystem, FsError};
use crate::format::ids::ManifestId;
use crate::format::manifest::{EntryIndex, Manifest, Node as Sealed};
use crate::format::names::{ModelName, VersionNumber};

/// What `name` is in a sealed directory.
pub(super) fn child(place: &SealedPlace, name: &OsStr) -> Result<Option<Child>, FsError> {
    if !matches!(place.manifest.entry(place.entry).node, Sealed::Directory { .. }) {
        return Err(FsError::NotDirectory);
    }
    let found = place.manifest.find(place.entry, name.as_bytes());
    Ok(found.map(|entry| Child::fixed(Node::Sealed(place.child(entry)))))
}

/// The root of a version, seen through `view`.
pub(super) fn root(view: View, id: ManifestId, manifest: Arc<Manifest>) -> Node {
    let (entry, parent) = (EntryIndex::ROOT, EntryIndex::ROOT);
    let version = Arc::new(SealedVersion { view, id, manifest });
    Node::Sealed(SealedPlace { version, entry, parent })
}

/// Why a version cannot change.
pub(super) fn read_only(model: &ModelName, version: VersionNumber) -> FsError {
    FsError::ReadOnly {
        path: format!("{model}/{version}"),
        reason: "a sealed version never changes; put new files into `draft` and write to \
            `snapshot`, or move an alias with `ln -sfn`",
    }
}

/// The kind of a sealed entry.
pub(super) fn kind(node: &Sealed) -> Kind {
    match node {
        Sealed::Directory { .. } => Kind::Directory,
        Sealed::File(_) => Kind::File,
        Sealed::Symlink { .. } => Kind::Symlink,
    }
}

impl Filesystem {
    pub(super) fn sealed_attributes(
        &self,
        place: &SealedPlace,
        number: u64,
    ) -> Result<(Attributes, Duration), FsError> {
        let entry = place.manifest.entry(place.entry);
        let (mode, bytes) = match &entry.node {
            Sealed::Directory { .. } => (0o555, 0),
            Sealed::File(file) => (if file.executable { 0o555 } else { 0o444 }, file.bytes),
            Sealed::Symlink { .. } => (0o777, place.manifest.target(place.entry).len() as u64),
        };
        let at = time(entry.mtime.seconds, entry.mtime.nanos);
        let attributes = Attributes {
            number,
            kind: kind(&entry.node),
            mode,
            links: 1,
            uid: self.settings.uid,
            gid: self.settings.gid,
            bytes,
            blocks: bytes.div_ceil(512),
            block_bytes: BLOCK_BYTES,
            device: 0,
            accessed: at,
            modified: at,
            changed: at,
        };
        if place.view == View::Model || place.entry != EntryIndex::ROOT {
            return Ok((attributes, answer::FOREVER));
        }
        // A live view leads past the model's directory, so its permissions are checked here.
        let access = self.model_facts(&place.manifest.model)?.access;
        let (uid, gid, mode) = (access.uid, access.gid, access.mode & 0o555);
        Ok((Attributes { uid, gid, mode, ..attributes }, Duration::ZERO))
    }
}
