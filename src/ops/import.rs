//! Taking over: something outside becomes a version, once, and what was stored is read back.
//!
//! Invariant T1: what was taken over from a place, with the content that is there now, is not taken over
//! from there again: so an import that was cut off goes on where it was.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::{
    Context, ImportReport, OpsError, Progress, SnapshotOptions, SnapshotReport, Source, Workspace,
    permit,
};
use crate::format::ids::{BlobDigest, ManifestId};
use crate::format::manifest::{FileEntry, METADATA_NAME, Manifest, Node};
use crate::format::names::{At, ModelName, Reference, VersionNumber};
use crate::governance::Action;
use crate::store::StoreError;

/// The label with the place that a version was taken over from.
pub const IMPORTED_FROM: &str = "imported_from";
/// The label with the digest of what was there.
pub const IMPORTED_CONTENT: &str = "imported_content";

impl Workspace {
    /// Seals what is not there yet, and reads it back in any case.
    ///
    /// # Errors
    /// As [`Workspace::snapshot`]; `Store` where what is stored is not what was read.
    pub(super) fn import(
        &self,
        context: &Context,
        options: &SnapshotOptions,
        progress: &dyn Progress,
    ) -> Result<ImportReport, OpsError> {
        let mut report = match self.find_taken(context, options)? {
            Some(version) => nothing_made(options.model.clone(), version),
            None => made(self.snapshot(context, options, progress)?),
        };
        let at = At::Version(report.version);
        let reference = Reference { model: report.model.clone(), at };
        let id = self.resolve(context, &reference)?.manifest;
        (report.verified_files, report.verified_bytes) = self.read_back(id, progress)?;
        if report.existing {
            report.notes.extend(self.name_taken(context, options, report.version)?);
        }
        Ok(report)
    }

    /// The version that was taken over from the same place, if it holds what is to be taken from there (T1).
    /// What its labels say is not believed: anybody can seal a version with any labels.
    fn find_taken(
        &self,
        context: &Context,
        options: &SnapshotOptions,
    ) -> Result<Option<VersionNumber>, OpsError> {
        let Source::Taken(taken) = &options.source else { return Ok(None) };
        let from = options.labels.get(IMPORTED_FROM);
        let (Some(content), Some(from)) = (taken.content, from) else { return Ok(None) };
        if self.state().model(&options.model).is_none() {
            return Ok(None);
        }
        permit(&self.state(), context, &options.model, Action::Read)?;
        let versions = self.list_versions(context, &options.model)?;
        for version in versions.iter().rev() {
            let manifest = self.manifest(&version.manifest)?;
            let is_from_there = manifest.metadata["labels"][IMPORTED_FROM] == *from;
            if is_from_there && taken.content_of(files_of(&manifest)) == content {
                return Ok(Some(version.version));
            }
        }
        Ok(None)
    }

    /// Points the alias of a plan to a version that was there, unless somebody pointed it elsewhere since.
    fn name_taken(
        &self,
        context: &Context,
        options: &SnapshotOptions,
        version: VersionNumber,
    ) -> Result<Option<String>, OpsError> {
        let Some(alias) = &options.alias else { return Ok(None) };
        let target = {
            let state = self.state();
            let model = state.model(&options.model);
            model.and_then(|model| model.aliases.get(alias)).map(|alias| alias.version)
        };
        let Some(target) = target else {
            self.move_alias(context, options, version)?;
            return Ok(None);
        };
        let stays = || format!("`{alias}` was moved to {target} since, and stays there");
        Ok((target != version).then(stays))
    }

    /// Reads every file of a version from its packs; how many files and bytes there are.
    fn read_back(&self, id: ManifestId, progress: &dyn Progress) -> Result<(u64, u64), OpsError> {
        // From disk, whatever the caches hold.
        let manifest = self.store.load_manifest(&id)?;
        let files = manifest.entries().filter_map(|(_, entry)| match &entry.node {
            Node::File(file) => Some(file),
            Node::Directory { .. } | Node::Symlink { .. } => None,
        });
        let files: Vec<&FileEntry> = files.collect();
        let bytes = files.iter().map(|file| file.bytes).sum();
        progress.begin("reading back", bytes);
        for file in &files {
            let mut blake3 = blake3::Hasher::new();
            for chunk in manifest.chunks(file) {
                blake3.update(&self.store.read_chunk(chunk)?);
                progress.advance(u64::from(chunk.bytes));
            }
            let found = BlobDigest(*blake3.finalize().as_bytes());
            if found != file.digest {
                let why = format!("a file of {} reads as {found}", file.digest);
                return Err(StoreError::ManifestDamaged { manifest: id, why }.into());
            }
        }
        Ok((files.len() as u64, bytes))
    }
}

/// The files of a version by their names, but for what we generated.
fn files_of(manifest: &Manifest) -> Vec<(PathBuf, BlobDigest)> {
    let mut files = Vec::new();
    manifest.walk(|path, _, entry| {
        if let Node::File(file) = &entry.node
            && path != METADATA_NAME
        {
            files.push((PathBuf::from(OsStr::from_bytes(path)), file.digest));
        }
    });
    files
}

/// Of a version that the import made, before its files are compared.
fn made(report: SnapshotReport) -> ImportReport {
    let SnapshotReport { model, version, files, bytes, stored_bytes, existing, notes, .. } = report;
    let nothing = nothing_made(model, version);
    ImportReport { files, bytes, stored_bytes, existing, notes, ..nothing }
}

/// Of a version that was there.
fn nothing_made(model: ModelName, version: VersionNumber) -> ImportReport {
    ImportReport {
        model,
        version,
        files: 0,
        bytes: 0,
        stored_bytes: 0,
        existing: true,
        verified_files: 0,
        verified_bytes: 0,
        notes: Vec::new(),
    }
}
