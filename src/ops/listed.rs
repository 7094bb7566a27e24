//! The `metadata.json` of a version as it is stored. It may list a million files: it is read part by part.

use std::io::{self, BufReader, Read};
use std::ops::ControlFlow;

use sha2::{Digest, Sha256};

use super::{Context, OpsError, Workspace};
use crate::format::ids::ManifestId;
use crate::format::manifest::{EntryIndex, FileEntry, METADATA_NAME, Manifest, Node};
use crate::format::metadata::{self, ListedFile};
use crate::format::names::Reference;
use crate::store::StoreError;

/// Most bytes of a part.
const PART_BYTES_MAX: usize = 1 << 20;

impl Workspace {
    /// What `metadata.json` holds from `offset` on, as much as one answer may have; empty at its end.
    pub(super) fn metadata_part(
        &self,
        context: &Context,
        reference: &Reference,
        offset: u64,
    ) -> Result<String, OpsError> {
        let id = self.resolve(context, reference)?.manifest;
        let manifest = self.manifest(&id)?;
        let file = file_of(&manifest).ok_or_else(|| absent(&id))?;
        let mut part = vec![0; PART_BYTES_MAX];
        let count = self.read_file(&manifest, file, offset, &mut part)?;
        part.truncate(count);
        drop_cut_character(&mut part);
        String::from_utf8(part).map_err(|error| damaged(&id, &error.to_string()))
    }

    /// `metadata.json` as a file, and its SHA-256, which is nowhere kept.
    pub(super) fn digest_metadata(
        &self,
        id: &ManifestId,
    ) -> Result<(FileEntry, [u8; 32]), OpsError> {
        let manifest = self.manifest(id)?;
        let file = file_of(&manifest).ok_or_else(|| absent(id))?;
        let (mut sha256, mut part) = (Sha256::new(), vec![0; PART_BYTES_MAX]);
        let mut at = 0;
        while at < file.bytes {
            let count = self.read_file(&manifest, file, at, &mut part)?;
            sha256.update(&part[..count]);
            at += count as u64;
        }
        Ok((file.clone(), sha256.finalize().into()))
    }

    /// Calls `each` with every file that `metadata.json` lists: all but itself.
    pub(super) fn read_listed(
        &self,
        id: &ManifestId,
        each: impl FnMut(ListedFile),
    ) -> Result<(), OpsError> {
        let manifest = self.manifest(id)?;
        let mut text = StoredMetadata::of(self, &manifest).ok_or_else(|| absent(id))?;
        let read = text.read_files(each);
        match text.failed {
            Some(error) => Err(error),
            None => read.map_err(|error| damaged(id, &error.to_string())),
        }
    }
}

/// The text, as it is read.
pub(super) struct StoredMetadata<'a> {
    workspace: &'a Workspace,
    manifest: &'a Manifest,
    file: &'a FileEntry,
    at: u64,
    /// What reading gave: who parses it knows errors of the system only.
    failed: Option<OpsError>,
}

impl<'a> StoredMetadata<'a> {
    /// That of a version; `None` where it has none.
    pub fn of(workspace: &'a Workspace, manifest: &'a Manifest) -> Option<Self> {
        Some(Self { workspace, manifest, file: file_of(manifest)?, at: 0, failed: None })
    }

    /// Calls `each` with every file that is listed.
    pub fn read_files(
        &mut self,
        mut each: impl FnMut(ListedFile),
    ) -> Result<(), serde_json::Error> {
        let mut each = |file| {
            each(file);
            ControlFlow::Continue(())
        };
        metadata::read_files(BufReader::with_capacity(PART_BYTES_MAX, self), &mut each)
    }
}

impl Read for StoredMetadata<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.workspace.read_file(self.manifest, self.file, self.at, out) {
            Ok(count) => {
                self.at += count as u64;
                Ok(count)
            }
            Err(error) => {
                let text = error.to_string();
                self.failed = Some(error);
                Err(io::Error::other(text))
            }
        }
    }
}

fn file_of(manifest: &Manifest) -> Option<&FileEntry> {
    let index = manifest.find(EntryIndex::ROOT, METADATA_NAME)?;
    match &manifest.entry(index).node {
        Node::File(file) => Some(file),
        Node::Directory { .. } | Node::Symlink { .. } => None,
    }
}

fn absent(manifest: &ManifestId) -> OpsError {
    damaged(manifest, "it is not in the tree")
}

fn damaged(manifest: &ManifestId, why: &str) -> OpsError {
    let why = format!("its metadata.json cannot be read: {why}");
    StoreError::ManifestDamaged { manifest: *manifest, why }.into()
}

/// Lets the bytes of a text end with a whole character.
fn drop_cut_character(bytes: &mut Vec<u8>) {
    if let Err(error) = std::str::from_utf8(bytes)
        && error.error_len().is_none()
    {
        bytes.truncate(error.valid_up_to());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_ends_with_a_whole_character() {
        let check = |bytes: &[u8], expected: &[u8]| {
            let mut found = bytes.to_vec();
            drop_cut_character(&mut found);
            assert_eq!(found, expected);
        };
        let text = "aä模🙂".as_bytes();
        for (cut, whole) in [0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10].into_iter().enumerate() {
            check(&text[..cut], &text[..whole]);
        }
        // No text at all: that is for who takes it as one.
        check(b"a\xff\xff", b"a\xff\xff");
    }
}
