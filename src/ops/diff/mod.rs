//! Diff: what changed from one version to another, of any two models.
//!
//! Files and tensors are told apart by what the manifests say of them; only tensors that are not the
//! same are read (`measure`), and headers, graphs and trees of files that changed (`contents`). Versions never change, so an answer holds for ever and is kept.

mod contents;
mod figures;
mod files;
mod graphs;
mod kept;
mod layers;
mod measure;
mod metadata;
mod report;
mod stored;
mod tensors;
mod trees;

use std::collections::HashMap;
use std::sync::Arc;

use super::{Context, DiffOptions, OpsError, Progress, Workspace};
use crate::format::ids::ManifestId;
use crate::format::manifest::{EntryIndex, FileTensors, Manifest};
use crate::format::names::Reference;
use crate::inspect::{Dtype, Values};
use crate::store::StoreError;

use figures::Distance;
use layers::{Fate, Layers};
use measure::{FileChunks, Job, Operand, measure};
use tensors::{Both, Located, Matched, Tabled};

pub(super) use kept::Diffs;
pub(super) use metadata::flat;
pub use report::*;

/// One of the two versions, found.
struct Found {
    id: ManifestId,
    side: DiffSide,
}

impl Workspace {
    /// What changed from one version to another.
    ///
    /// # Errors
    /// `NoModel`, `NoVersion`, `Denied`; the store's where a tensor that changed cannot be read.
    pub fn diff(
        &self,
        context: &Context,
        options: &DiffOptions,
        progress: &dyn Progress,
    ) -> Result<Arc<DiffReport>, OpsError> {
        let before = self.find_side(context, &options.before)?;
        let after = self.find_side(context, &options.after)?;
        let pair = (before.id, after.id);
        let gives_up = || self.is_closing() || progress.is_cancelled();
        self.diffs.find_or_make(&pair, gives_up, || self.compare(before, after, progress))
    }

    fn find_side(&self, context: &Context, reference: &Reference) -> Result<Found, OpsError> {
        let version = self.resolve(context, reference)?;
        let side = DiffSide {
            model: reference.model.clone(),
            version: version.version,
            digest: version.digest,
            sealed: version.sealed,
            by: version.by.user,
            message: version.message,
            files: version.files,
            bytes: version.bytes,
        };
        Ok(Found { id: version.manifest, side })
    }

    fn compare(
        &self,
        before: Found,
        after: Found,
        progress: &dyn Progress,
    ) -> Result<DiffReport, OpsError> {
        let (old, old_tables) = self.with_tables(&before.id)?;
        let (new, new_tables) = self.with_tables(&after.id)?;
        let (files, pairs) = files::compare(&old, &new);
        let old_tabled = Tabled::new(&old, &old_tables);
        let new_tabled = Tabled::new(&new, &new_tables);
        let matched = tensors::compare(&old_tabled, &new_tabled, &pairs);
        let (distances, bytes_read) = self.measure(&matched, &old_tabled, &new_tabled, progress)?;
        let contents = self.compare_contents(&old_tabled, &new_tabled, &pairs, progress)?;
        Ok(DiffReport {
            metadata: metadata::compare(&old.metadata, &new.metadata),
            before: before.side,
            after: after.side,
            files,
            tensors: changes(&matched, &distances, &old_tabled, &new_tabled),
            layers: layers(&matched, &distances),
            graphs: contents.graphs,
            ensembles: contents.ensembles,
            values: contents.values,
            malformed: contents.malformed,
            bytes_read: bytes_read + contents.bytes_read,
        })
    }

    fn with_tables(&self, id: &ManifestId) -> Result<(Arc<Manifest>, Vec<FileTensors>), OpsError> {
        let manifest = self.manifest(id)?;
        let tables = manifest
            .tensors()
            .map_err(|source| StoreError::ManifestUnreadable { manifest: *id, source })?;
        Ok((manifest, tables))
    }

    /// How far each of the changed tensors, and of the reshaped ones, is from what it was, where that can
    /// be told; and the bytes that were read for it.
    fn measure(
        &self,
        matched: &Matched<'_>,
        before: &Tabled<'_>,
        after: &Tabled<'_>,
        progress: &dyn Progress,
    ) -> Result<(Distances, u64), OpsError> {
        let (mut old, mut new) = (Chunked::new(before), Chunked::new(after));
        let mut jobs = Vec::new();
        let mut places = Vec::new();
        for both in matched.changed.iter().chain(&matched.reshaped) {
            let job = job(&mut old, &mut new, both);
            places.push(job.is_some());
            jobs.extend(job);
        }
        let measured = measure(&self.store, &jobs, progress, &|| !self.is_closing())?;
        let mut distances = measured.distances.into_iter();
        let mut all = places.into_iter().map(|is_there| is_there.then(|| distances.next())?);
        let changed = all.by_ref().take(matched.changed.len()).collect();
        Ok((Distances { changed, reshaped: all.collect() }, measured.bytes_read))
    }
}

/// What was measured, in the order of the lists of [`Matched`].
struct Distances {
    changed: Vec<Option<Distance>>,
    reshaped: Vec<Option<Distance>>,
}

/// The files of a version with tensors that are read.
struct Chunked<'a, 'm> {
    version: &'m Tabled<'a>,
    files: HashMap<EntryIndex, Arc<FileChunks<'a>>>,
}

impl<'a, 'm> Chunked<'a, 'm> {
    fn new(version: &'m Tabled<'a>) -> Self {
        Self { version, files: HashMap::new() }
    }

    /// Where a tensor of so many elements is; `None` where its numbers cannot be told from its bytes.
    fn operand(&mut self, tensor: &Located<'a>, elements: u64) -> Option<Operand<'a>> {
        let dtype: Dtype = tensor.line.dtype.parse().ok()?;
        let values = Values::of(dtype)?;
        if dtype.bytes(&tensor.line.shape) != Some(tensor.bytes())
            || values.bytes_of(elements) != tensor.bytes()
        {
            return None;
        }
        let manifest = self.version.manifest;
        let file = self.files.entry(tensor.file).or_insert_with(|| {
            Arc::new(FileChunks::new(manifest.chunks(self.version.file(tensor))))
        });
        Some(Operand { file: Arc::clone(file), start: tensor.line.bytes.start, values })
    }
}

/// What there is to read of a tensor that changed; `None` where the shapes differ.
fn job<'a>(
    before: &mut Chunked<'a, '_>,
    after: &mut Chunked<'a, '_>,
    (old, new): &Both<'a>,
) -> Option<Job<'a>> {
    if old.line.shape != new.line.shape {
        return None;
    }
    let elements = new.line.shape.iter().try_fold(1_u64, |count, size| count.checked_mul(*size))?;
    let (before, after) = (before.operand(old, elements)?, after.operand(new, elements)?);
    Some(Job { before, after, elements })
}

fn layers(matched: &Matched<'_>, distances: &Distances) -> Vec<LayerChange> {
    let mut layers = Layers::default();
    let mut put = |tensor: &Located<'_>, fate: &Fate| {
        layers.put(&tensor.line.name, tensor.bytes(), fate);
    };
    let changed = matched.changed.iter().zip(&distances.changed);
    for ((_, after), distance) in changed.chain(matched.reshaped.iter().zip(&distances.reshaped)) {
        put(after, &Fate::Changed(*distance));
    }
    for (_, after) in matched.same.iter().chain(&matched.renamed) {
        put(after, &Fate::Same);
    }
    matched.added.iter().for_each(|tensor| put(tensor, &Fate::Added));
    matched.removed.iter().for_each(|tensor| put(tensor, &Fate::Removed));
    layers.finish()
}

fn changes(
    matched: &Matched<'_>,
    distances: &Distances,
    before: &Tabled<'_>,
    after: &Tabled<'_>,
) -> TensorChanges {
    let bytes = |both: &[Both<'_>]| both.iter().map(|(_, after)| after.bytes()).sum();
    let change = |both: &[Both<'_>], distances: &[Option<Distance>]| {
        let changes = both.iter().zip(distances).map(|((old, new), distance)| TensorChange {
            before: before.form(old),
            after: after.form(new),
            figures: distance.as_ref().map(Distance::report),
        });
        changes.take(LISTED_MAX).collect::<Vec<_>>()
    };
    let rename =
        |(old, new): &Both<'_>| TensorRename { before: before.form(old), after: after.form(new) };
    let Matched { same, renamed, changed, reshaped, added, removed } = matched;
    TensorChanges {
        same: same.len() as u64,
        same_bytes: bytes(same),
        added_total: added.len() as u64,
        added: added.iter().take(LISTED_MAX).map(|tensor| after.form(tensor)).collect(),
        removed_total: removed.len() as u64,
        removed: removed.iter().take(LISTED_MAX).map(|tensor| before.form(tensor)).collect(),
        renamed_total: renamed.len() as u64,
        renamed: renamed.iter().take(LISTED_MAX).map(rename).collect(),
        reshaped_total: reshaped.len() as u64,
        reshaped: change(reshaped, &distances.reshaped),
        changed_total: changed.len() as u64,
        changed_bytes: bytes(changed),
        changed: change(changed, &distances.changed),
    }
}
