//! Looking into files that changed: graphs, trees, what else the headers of models say, and short JSON.
//!
//! Only files that both versions have are looked into, and only where something other than the bytes of
//! tensors changed. Of a file that does not parse it is said why.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use serde_json::Value;

use super::super::{OpsError, Progress, Workspace};
use super::files::FilePair;
use super::metadata::{Named, changes_of, flat};
use super::report::{EnsembleChange, FileValues, GraphChange, MalformedFile};
use super::stored::Stored;
use super::tensors::Tabled;
use super::{graphs, trees};
use crate::format::ids::ChunkId;
use crate::format::manifest::{EntryIndex, Manifest, Node};
use crate::inspect::{Description, Details, Ensemble, InspectError, ReadAt, describe, ensemble};

/// Most files that are looked into.
const FILES_MAX: usize = 1_000;
/// Longest JSON that is compared member by member: settings, not data.
const JSON_BYTES_MAX: u64 = 64 << 10;

/// What was found in files that changed.
#[derive(Default)]
pub(super) struct Contents {
    pub graphs: Vec<GraphChange>,
    pub ensembles: Vec<EnsembleChange>,
    pub values: Vec<FileValues>,
    pub malformed: Vec<MalformedFile>,
    pub bytes_read: u64,
}

/// A file as far as it was understood.
#[derive(Default)]
struct Understood {
    ensemble: Option<Ensemble>,
    description: Option<Description>,
    /// Members of a JSON object.
    json: Option<Named>,
    /// Why there is no description of a file of a known format.
    why: Option<String>,
}

impl Workspace {
    /// Looks into the files that changed.
    pub(super) fn compare_contents(
        &self,
        before: &Tabled<'_>,
        after: &Tabled<'_>,
        pairs: &[FilePair],
        progress: &dyn Progress,
    ) -> Result<Contents, OpsError> {
        let mut found = Contents::default();
        let changed = pairs.iter().filter(|pair| has_changed(before, after, pair));
        for FilePair { before: old, after: new, path } in changed.take(FILES_MAX) {
            if self.is_closing() || progress.is_cancelled() {
                return Err(OpsError::Closing);
            }
            let name = OsStr::from_bytes(path.rsplit(|byte| *byte == b'/').next().unwrap_or(path));
            let path = super::files::shown(path);
            let old = self.understand(before.manifest, *old, name, &mut found.bytes_read)?;
            let new = self.understand(after.manifest, *new, name, &mut found.bytes_read)?;
            found.put(path, &old, &new);
        }
        Ok(found)
    }

    fn understand(
        &self,
        manifest: &Manifest,
        entry: EntryIndex,
        name: &OsStr,
        bytes_read: &mut u64,
    ) -> Result<Understood, OpsError> {
        let Node::File(file) = &manifest.entry(entry).node else {
            return Ok(Understood::default());
        };
        let stored = Stored::new(self, manifest, file);
        let ensemble = known(ensemble(name, &stored));
        let (description, why) = match ensemble {
            Some(_) => (None, None),
            None => match describe(name, &stored) {
                Err(error @ InspectError::Malformed { .. }) => (None, Some(error.to_string())),
                described => (known(described), None),
            },
        };
        let json = match (&ensemble, &description) {
            (None, None) => json(name, &stored),
            _ => None,
        };
        *bytes_read += stored.finish()?;
        Ok(Understood { ensemble, description, json, why })
    }
}

/// The members of a short file of JSON.
fn json(name: &OsStr, file: &Stored<'_>) -> Option<Named> {
    if !name.as_bytes().ends_with(b".json") || JSON_BYTES_MAX < file.bytes() {
        return None;
    }
    let mut text = vec![0; usize::try_from(file.bytes()).expect("it is short")];
    file.read_at(0, &mut text).ok()?;
    let value: Value = serde_json::from_slice(&text).ok()?;
    value.is_object().then(|| flat(&value))
}

/// What could be read; why not is no matter here, as failed reads are kept by [`Stored`].
fn known<T>(found: Result<T, InspectError>) -> Option<T> {
    found.ok()
}

impl Contents {
    fn put(&mut self, path: String, before: &Understood, after: &Understood) {
        if before.why.is_some() || after.why.is_some() {
            let (before, after) = (before.why.clone(), after.why.clone());
            self.malformed.push(MalformedFile { path: path.clone(), before, after });
        }
        if let (Some(before), Some(after)) = (&before.ensemble, &after.ensemble) {
            self.ensembles.push(trees::compare(path, before, after));
            return;
        }
        let details = |of: &Understood| of.description.as_ref().and_then(|it| it.details.clone());
        match (details(before), details(after)) {
            (Some(Details::Onnx(before)), Some(Details::Onnx(after))) => {
                self.graphs.extend(graphs::compare(path, &before, &after));
            }
            (Some(before), Some(after)) => {
                let flat = |of: &Details| -> Named {
                    flat(&serde_json::to_value(of).expect("details have text keys only"))
                };
                self.put_values(path, flat(&before), flat(&after));
            }
            _ => {
                if let (Some(before), Some(after)) = (&before.json, &after.json) {
                    self.put_values(path, before.clone(), after.clone());
                }
            }
        }
    }

    fn put_values(&mut self, path: String, before: Named, after: Named) {
        let values = changes_of(before, after);
        if !values.is_empty() {
            self.values.push(FileValues { path, values });
        }
    }
}

/// Whether something outside the tensors of a file is not the same, or may not be.
fn has_changed(before: &Tabled<'_>, after: &Tabled<'_>, pair: &FilePair) -> bool {
    let (old, new) = (rest(before, pair.before), rest(after, pair.after));
    old.zip(new).is_none_or(|(old, new)| old != new)
}

/// The chunks of a file that hold anything but bytes of its tensors; `None` of what is no file.
fn rest(version: &Tabled<'_>, entry: EntryIndex) -> Option<Vec<ChunkId>> {
    let Node::File(file) = &version.manifest.entry(entry).node else { return None };
    let mut tensors = version.tensors(entry).map(|tensor| tensor.line.bytes.clone()).peekable();
    let (mut found, mut start) = (Vec::new(), 0);
    for chunk in version.manifest.chunks(file) {
        let end = start + u64::from(chunk.bytes);
        while tensors.next_if(|bytes| bytes.end <= start).is_some() {}
        // A chunk of tensors only: they cover it from its start on, one after the other.
        let mut covered = start;
        while let Some(bytes) = tensors.peek() {
            if covered < bytes.start || end <= covered {
                break;
            }
            covered = bytes.end;
            if covered < end {
                tensors.next();
            }
        }
        if covered < end {
            found.push(chunk.id);
        }
        start = end;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::format::ids::{BlobDigest, TensorDigest};
    use crate::format::manifest::{ChunkRef, FileTensors, Mtime, TensorLine, Tree};

    #[test]
    fn the_rest_of_a_file_is_all_that_is_not_within_its_tensors() {
        // Chunks of ten bytes; tensors at these places.
        let check = |chunks: u8, tensors: &[(u64, u64)], expected: &[u8]| {
            let mut tree = Tree::default();
            let root = tree.push(b"", Mtime::default(), Node::Directory { first: 0, count: 0 });
            let file = tree.push(b"x", Mtime::default(), Tree::file_to_come());
            tree.set_children(root, 1..2);
            let id = |seed: u8| ChunkId::of(&[seed]);
            let refs: Vec<ChunkRef> =
                (0..chunks).map(|seed| ChunkRef { id: id(seed), bytes: 10 }).collect();
            tree.set_file(file, false, BlobDigest::of(b""), &refs);
            let manifest =
                Manifest::new("m".parse().unwrap(), "v1".parse().unwrap(), json!({}), tree);
            let line = |(start, end): &(u64, u64)| TensorLine {
                name: "t".into(),
                dtype: "u8".into(),
                shape: vec![end - start],
                bytes: *start..*end,
                digest: TensorDigest::of(b""),
            };
            let tensors = tensors.iter().map(line).collect();
            let tables = [FileTensors { file, format: "safetensors".into(), tensors }];
            let version = Tabled::new(&manifest, &tables);
            let expected: Vec<ChunkId> = expected.iter().map(|seed| id(*seed)).collect();
            assert_eq!(rest(&version, file), Some(expected));
        };
        check(3, &[], &[0, 1, 2]);
        check(3, &[(0, 30)], &[]);
        check(3, &[(10, 30)], &[0]);
        check(3, &[(5, 30)], &[0]);
        check(3, &[(0, 4), (4, 20), (20, 30)], &[]);
        check(3, &[(0, 4), (5, 20), (20, 30)], &[0]);
        check(4, &[(10, 20), (20, 20), (25, 30)], &[0, 2, 3]);
        check(3, &[(0, 10), (10, 19), (20, 30)], &[1]);
    }
}
