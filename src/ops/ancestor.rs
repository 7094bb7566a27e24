//! What the version before holds of the same: whole files, tensors, and bytes like these.
//!
//! Only hints: a wrong one costs size or time. What is taken over as it is, a whole file, is first
//! compared by its digest.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::Workspace;
use crate::chunker::SMALL_BYTES;
use crate::format::ids::ChunkId;
use crate::format::manifest::{
    ChunkRef, EntryIndex, FileEntry, FileTensors, METADATA_NAME, Manifest, Node, TensorLine,
};
use crate::format::names::ModelName;
use crate::inspect::Tensor;
use crate::store::Like;

/// Versions that are looked at until one can be read.
const TRIES: usize = 4;
/// Bytes of the version before, on each side of where a piece would be, that it is compared with:
/// four times its own, within these.
const WINDOW_BYTES_MIN: u64 = 64 << 10;
const WINDOW_BYTES_MAX: u64 = 512 << 10;
/// Largest `metadata.json` that is read for the digests of its files.
const METADATA_BYTES_MAX: u64 = 64 << 20;

/// A tensor by what it is: its name, dtype and shape.
type TensorKey = (String, Arc<str>, Vec<u64>);

/// SHA-256 of files by their paths.
type Sha256ByPath = HashMap<Vec<u8>, [u8; 32]>;

/// The version that a new one follows.
pub(super) struct Ancestor<'a> {
    workspace: &'a Workspace,
    manifest: Arc<Manifest>,
    paths: HashMap<Vec<u8>, EntryIndex>,
    /// Where the chunks of each file start.
    starts: HashMap<EntryIndex, Vec<u64>>,
    tables: HashMap<EntryIndex, FileTensors>,
    tensors: HashMap<TensorKey, (EntryIndex, u64)>,
    sha256: OnceLock<Sha256ByPath>,
}

/// A file that is whole in the version before.
pub(super) struct Known<'a> {
    pub file: &'a FileEntry,
    pub chunks: &'a [ChunkRef],
    pub table: Option<&'a FileTensors>,
    pub sha256: [u8; 32],
}

impl Workspace {
    /// The newest version of a model that can be read.
    pub(super) fn ancestor(&self, name: &ModelName) -> Option<Ancestor<'_>> {
        let ids: Vec<_> = {
            let state = self.state();
            let versions = state.model(name)?.versions.values().rev().take(TRIES);
            versions.map(|version| version.manifest).collect()
        };
        let manifest = ids.iter().find_map(|id| self.manifest(id).ok())?;
        Some(Ancestor::new(self, manifest))
    }
}

impl<'a> Ancestor<'a> {
    fn new(workspace: &'a Workspace, manifest: Arc<Manifest>) -> Self {
        let mut paths = HashMap::new();
        manifest.walk(|path, index, entry| {
            if let Node::File(_) = entry.node {
                paths.insert(path.to_vec(), index);
            }
        });
        // A table that cannot be read is a hint less.
        let tables = manifest.tensors().unwrap_or_default();
        let (mut starts, mut tensors) = (HashMap::new(), HashMap::new());
        for FileTensors { file, tensors: of, .. } in &tables {
            starts.insert(*file, starts_of(&manifest, *file));
            for tensor in of {
                let key = (tensor.name.clone(), tensor.dtype.clone(), tensor.shape.clone());
                tensors.entry(key).or_insert((*file, tensor.bytes.start));
            }
        }
        let tables = tables.into_iter().map(|table| (table.file, table)).collect();
        let sha256 = OnceLock::new();
        Self { workspace, manifest, paths, starts, tables, tensors, sha256 }
    }

    /// The chunk of a piece at `place` of a file, as it lies to the tensor that is the same there as
    /// `tensor`, near the piece, is here.
    pub fn numbers(&self, tensor: &Tensor, place: Range<u64>) -> Option<ChunkRef> {
        let key = (tensor.name.clone(), tensor.dtype.to_string().into(), tensor.shape.clone());
        let (file, start) = self.tensors.get(&key)?;
        let start = (start + place.start).checked_sub(tensor.bytes.start)?;
        let index = self.starts.get(file)?.binary_search(&start).ok()?;
        let chunk = self.chunks(*file)?.get(index)?;
        (u64::from(chunk.bytes) == place.end - place.start).then_some(*chunk)
    }

    /// The file of the same path, if it has as many `bytes`.
    pub fn candidate(&self, path: &Path, bytes: u64) -> Option<Known<'_>> {
        let path = path.as_os_str().as_bytes();
        let index = *self.paths.get(path)?;
        let Node::File(file) = &self.manifest.entry(index).node else { return None };
        if file.bytes != bytes || bytes == 0 {
            return None;
        }
        let sha256 = *self.sha256().get(path)?;
        let (chunks, table) = (self.manifest.chunks(file), self.tables.get(&index));
        Some(Known { file, chunks, table, sha256 })
    }

    /// The chunks of the file that is likely an earlier form of that at `path`, of as many `bytes`,
    /// without those of its large tensors.
    pub fn trail(&self, path: &Path, bytes: u64) -> Option<Trail> {
        let same = self.paths.get(path.as_os_str().as_bytes()).copied();
        let index = same.or_else(|| self.nearest_of_kind(path.extension()?, bytes))?;
        let tensors = self.tables.get(&index).map_or(&[][..], |table| &table.tensors);
        let is_large = |tensor: &TensorLine| SMALL_BYTES <= tensor.bytes.end - tensor.bytes.start;
        let is_content = |start: u64| {
            let next = tensors.partition_point(|tensor| tensor.bytes.end <= start);
            tensors.get(next).is_none_or(|it| start < it.bytes.start || !is_large(it))
        };
        let places = starts_of(&self.manifest, index).into_iter().zip(self.chunks(index)?);
        let places: Vec<_> = places
            .filter(|(start, _)| is_content(*start))
            .map(|(start, chunk)| (start..start + u64::from(chunk.bytes), *chunk))
            .collect();
        let by_id = (0..).zip(&places).map(|(index, (_, chunk))| (chunk.id, index)).collect();
        Some(Trail { places, by_id, at: 0 })
    }

    /// The file with this extension whose length is the nearest.
    fn nearest_of_kind(&self, extension: &OsStr, bytes: u64) -> Option<EntryIndex> {
        let is_same =
            |path: &[u8]| Path::new(OsStr::from_bytes(path)).extension() == Some(extension);
        let of_kind = self.paths.iter().filter(|(path, _)| is_same(path));
        let length = |index: EntryIndex| match &self.manifest.entry(index).node {
            Node::File(file) => file.bytes,
            Node::Directory { .. } | Node::Symlink { .. } => 0,
        };
        // The path decides between equals, so that equal input has equal chunks.
        of_kind
            .min_by_key(|(path, index)| (length(**index).abs_diff(bytes), *path))
            .map(|(_, index)| *index)
    }

    fn chunks(&self, index: EntryIndex) -> Option<&[ChunkRef]> {
        match &self.manifest.entry(index).node {
            Node::File(file) => Some(self.manifest.chunks(file)),
            Node::Directory { .. } | Node::Symlink { .. } => None,
        }
    }

    fn sha256(&self) -> &Sha256ByPath {
        self.sha256.get_or_init(|| self.read_sha256().unwrap_or_default())
    }

    /// The digests that the version's `metadata.json` has.
    fn read_sha256(&self) -> Option<Sha256ByPath> {
        let index = *self.paths.get(METADATA_NAME)?;
        let Node::File(file) = &self.manifest.entry(index).node else { return None };
        if METADATA_BYTES_MAX < file.bytes {
            return None;
        }
        let mut text = vec![0; usize::try_from(file.bytes).ok()?];
        self.workspace.read_file(&self.manifest, file, 0, &mut text).ok()?;
        let whole: Value = serde_json::from_slice(&text).ok()?;
        let line = |line: &Value| {
            let path = line["path"].as_str().filter(|_| line["path_hex"].is_null())?;
            let digest: ChunkId = line["sha256"].as_str()?.parse().ok()?;
            Some((path.as_bytes().to_vec(), *digest.as_bytes()))
        };
        Some(whole["files"].as_array()?.iter().filter_map(line).collect())
    }
}

/// Where the chunks of a file start.
fn starts_of(manifest: &Manifest, index: EntryIndex) -> Vec<u64> {
    let Node::File(file) = &manifest.entry(index).node else { return Vec::new() };
    let mut start = 0;
    let step = |chunk: &ChunkRef| {
        let here = start;
        start += u64::from(chunk.bytes);
        here
    };
    manifest.chunks(file).iter().map(step).collect()
}

/// Goes along the chunks of an earlier form of a file, to where the next piece has its like.
pub(super) struct Trail {
    /// In order, and where in the file they are.
    places: Vec<(Range<u64>, ChunkRef)>,
    by_id: HashMap<ChunkId, usize>,
    /// Where the next piece would be if nothing was added or removed since the last that is there.
    at: u64,
}

impl Trail {
    /// Goes to where the file has `offset`.
    pub fn seek(&mut self, offset: u64) {
        self.at = offset;
    }

    /// What a piece is like, pieces coming in order.
    pub fn next(&mut self, piece: &[u8]) -> Like {
        if let Some(index) = self.by_id.get(&ChunkId::of(piece)) {
            self.at = self.places[*index].0.end;
            return Like::Nothing;
        }
        let bytes = piece.len() as u64;
        let around = (4 * bytes).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        let (from, to) = (self.at.saturating_sub(around), self.at + bytes + around);
        let first = self.places.partition_point(|(place, _)| place.end <= from);
        let last = self.places.partition_point(|(place, _)| place.start < to);
        self.at += bytes;
        match &self.places[first..last] {
            [] => Like::Nothing,
            bases => Like::Bytes(bases.iter().map(|(_, chunk)| *chunk).collect()),
        }
    }
}
