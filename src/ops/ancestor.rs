//! What the version before holds of the same: whole files, tensors, and bytes like these.
//!
//! Only hints: a wrong one costs size or time. What is taken over as it is, a whole file, is first
//! compared by its digest.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::Workspace;
use super::listed::StoredMetadata;
use super::tensors::FilePlan;
use crate::chunker::{SMALL_BYTES, Segment};
use crate::format::ids::{BlobDigest, ChunkId};
use crate::format::manifest::{
    ChunkRef, EntryIndex, FileEntry, FileTensors, Manifest, Node, TensorLine,
};
use crate::format::metadata::ListedFile;
use crate::format::names::ModelName;
use crate::inspect::Tensor;
use crate::store::Like;

/// Versions that are looked at until one can be read.
const TRIES: usize = 4;
/// Bytes of the version before, on each side of where a piece would be, that it is compared with:
/// four times its own, within these.
const WINDOW_BYTES_MIN: u64 = 64 << 10;
const WINDOW_BYTES_MAX: u64 = 512 << 10;
/// Shorter files are put like new ones: there is one chunk of each to look for.
const KNOWN_BYTES_MIN: u64 = 64 << 10;
/// Files that one is compared with.
const CANDIDATES_MAX: usize = 8;

/// A tensor by what it is: its name, dtype and shape.
type TensorKey = (String, Arc<str>, Vec<u64>);

/// SHA-256 of files by their other digests.
type Sha256ByDigest = HashMap<BlobDigest, [u8; 32]>;

/// The version that a new one follows.
pub(super) struct Ancestor {
    manifest: Arc<Manifest>,
    /// The files with each extension, by their lengths.
    kinds: HashMap<OsString, Vec<EntryIndex>>,
    /// Where the chunks of each file start.
    starts: HashMap<EntryIndex, Vec<u64>>,
    tables: HashMap<EntryIndex, FileTensors>,
    tensors: HashMap<TensorKey, (EntryIndex, u64)>,
    sha256: OnceLock<Sha256ByDigest>,
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
    pub(super) fn ancestor(&self, name: &ModelName) -> Option<Ancestor> {
        let ids: Vec<_> = {
            let state = self.state();
            // Without its body there is a hint less.
            let body = state.model(name)?.body().ok()?;
            body.versions.iter().rev().take(TRIES).map(|version| version.manifest).collect()
        };
        let manifest = ids.iter().find_map(|id| self.manifest(id).ok())?;
        Some(Ancestor::new(manifest))
    }
}

impl Ancestor {
    /// A version with its hints at hand. O(files and tensors).
    pub fn new(manifest: Arc<Manifest>) -> Self {
        let mut kinds = HashMap::<OsString, Vec<_>>::new();
        for (index, _) in manifest.entries().filter(|(_, it)| matches!(it.node, Node::File(_))) {
            let name = Path::new(OsStr::from_bytes(manifest.name(index)));
            match name.extension().map(|kind| (kind, kinds.get_mut(kind))) {
                Some((_, Some(of_kind))) => of_kind.push(index),
                Some((kind, None)) => drop(kinds.insert(kind.to_owned(), vec![index])),
                None => {}
            }
        }
        let by_length = |index: &EntryIndex| (file_of(&manifest, *index).bytes, *index);
        kinds.values_mut().for_each(|of_kind| of_kind.sort_unstable_by_key(by_length));
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
        Self { manifest, kinds, starts, tables, tensors, sha256 }
    }

    /// The chunk of a piece at `place` of a file, as it lies to the tensor that is the same there as
    /// `tensor`, near the piece, is here.
    fn numbers(&self, tensor: &Tensor, place: Range<u64>) -> Option<ChunkRef> {
        let key = (tensor.name.clone(), tensor.dtype.to_string().into(), tensor.shape.clone());
        let (file, start) = self.tensors.get(&key)?;
        let start = (start + place.start).checked_sub(tensor.bytes.start)?;
        let index = self.starts.get(file)?.binary_search(&start).ok()?;
        let chunk = self.chunks(*file).get(index)?;
        (u64::from(chunk.bytes) == place.end - place.start).then_some(*chunk)
    }

    /// Files that may be the same as that at `path`, of as many `bytes`: the one of the same path, then those
    /// of the same kind, as the parts of a large model have one length.
    /// `workspace` is where the version is stored.
    pub fn candidates<'a>(
        &'a self,
        workspace: &Workspace,
        path: &Path,
        bytes: u64,
    ) -> impl Iterator<Item = Known<'a>> {
        let same = self.find(path).filter(|index| self.length(*index) == bytes);
        let others =
            path.extension().and_then(|kind| self.kinds.get(kind)).map_or(&[][..], |all| {
                let start = all.partition_point(|index| self.length(*index) < bytes);
                let end = all.partition_point(|index| self.length(*index) <= bytes);
                &all[start..end]
            });
        let most = if bytes < KNOWN_BYTES_MIN { 0 } else { CANDIDATES_MAX };
        same.into_iter().chain(others.iter().copied()).take(most).filter_map(move |index| {
            let file = file_of(&self.manifest, index);
            let sha256 = *self.sha256(workspace).get(&file.digest)?;
            let (chunks, table) = (self.manifest.chunks(file), self.tables.get(&index));
            Some(Known { file, chunks, table, sha256 })
        })
    }

    /// The chunks of the file that is likely an earlier form of that at `path`, of as many `bytes`,
    /// without those of its large tensors.
    fn trail(&self, path: &Path, bytes: u64) -> Option<Trail> {
        let index = self.find(path).or_else(|| self.nearest_of_kind(path, bytes))?;
        let tensors = self.tables.get(&index).map_or(&[][..], |table| &table.tensors);
        let is_large = |tensor: &TensorLine| SMALL_BYTES <= tensor.bytes.end - tensor.bytes.start;
        let is_content = |start: u64| {
            let next = tensors.partition_point(|tensor| tensor.bytes.end <= start);
            tensors.get(next).is_none_or(|it| start < it.bytes.start || !is_large(it))
        };
        let places = starts_of(&self.manifest, index).into_iter().zip(self.chunks(index));
        let places: Vec<_> = places
            .filter(|(start, _)| is_content(*start))
            .map(|(start, chunk)| (start..start + u64::from(chunk.bytes), *chunk))
            .collect();
        let by_id = (0..).zip(&places).map(|(index, (_, chunk))| (chunk.id, index)).collect();
        Some(Trail { places, by_id, at: 0 })
    }

    /// The file at `path`.
    fn find(&self, path: &Path) -> Option<EntryIndex> {
        let found = self.manifest.find_path(path.as_os_str().as_bytes())?;
        matches!(self.manifest.entry(found).node, Node::File(_)).then_some(found)
    }

    /// The file of the same kind whose length is the nearest. O(log n).
    fn nearest_of_kind(&self, path: &Path, bytes: u64) -> Option<EntryIndex> {
        let of_kind = self.kinds.get(path.extension()?)?;
        let above = of_kind.partition_point(|index| self.length(*index) < bytes);
        let near = [above.checked_sub(1), Some(above)].into_iter().flatten();
        // The lower index between equals, so that equal input has equal chunks.
        near.filter_map(|place| of_kind.get(place).copied())
            .min_by_key(|index| (self.length(*index).abs_diff(bytes), *index))
    }

    fn length(&self, index: EntryIndex) -> u64 {
        file_of(&self.manifest, index).bytes
    }

    fn chunks(&self, index: EntryIndex) -> &[ChunkRef] {
        self.manifest.chunks(file_of(&self.manifest, index))
    }

    fn sha256(&self, workspace: &Workspace) -> &Sha256ByDigest {
        self.sha256.get_or_init(|| self.read_sha256(workspace).unwrap_or_default())
    }

    /// The digests that the version's `metadata.json` has.
    fn read_sha256(&self, workspace: &Workspace) -> Option<Sha256ByDigest> {
        let digests = |file: &ListedFile| {
            let sha256: ChunkId = file.sha256.parse().ok()?;
            Some((file.blake3.parse().ok()?, *sha256.as_bytes()))
        };
        let mut found = HashMap::new();
        let mut text = StoredMetadata::of(workspace, &self.manifest)?;
        let read = text.read_files(|file| {
            if file.size.is_some_and(|bytes| KNOWN_BYTES_MIN <= bytes) {
                found.extend(digests(&file));
            }
        });
        read.is_ok().then_some(found)
    }
}

/// A file by an index that was found to be one.
fn file_of(manifest: &Manifest, index: EntryIndex) -> &FileEntry {
    match &manifest.entry(index).node {
        Node::File(file) => file,
        Node::Directory { .. } | Node::Symlink { .. } => unreachable!("only files are kept"),
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

/// What the pieces of one file are like, asked in their order.
pub(super) struct Likeness<'a> {
    ancestor: Option<&'a Ancestor>,
    trail: Option<Trail>,
    tensor: Option<&'a Tensor>,
    is_varied: bool,
}

impl<'a> Likeness<'a> {
    /// For the file at `path`, of as many `bytes`.
    pub fn new(ancestor: Option<&'a Ancestor>, path: &Path, bytes: u64) -> Self {
        let trail = ancestor.and_then(|ancestor| ancestor.trail(path, bytes));
        Self { ancestor, trail, tensor: None, is_varied: false }
    }

    /// The next pieces are those of a segment.
    pub fn enter(&mut self, plan: &'a FilePlan, segment: &Segment) {
        if let Some(trail) = self.trail.as_mut().filter(|_| plan.has_tensors()) {
            trail.seek(segment.bytes.start);
        }
        (self.tensor, self.is_varied) = (plan.first_tensor(segment), segment.is_varied());
    }

    /// What the next piece is like, at `place` of the file and with the identifier that `id` gives.
    pub fn next(&mut self, place: Range<u64>, id: impl FnOnce() -> ChunkId) -> Like {
        let (bytes, known) = (place.end - place.start, self.ancestor.zip(self.tensor));
        match known.and_then(|(ancestor, tensor)| ancestor.numbers(tensor, place)) {
            Some(chunk) => Like::Numbers(chunk),
            None => match &mut self.trail {
                Some(trail) if self.is_varied => trail.next(bytes, id()),
                _ => Like::Nothing,
            },
        }
    }
}

/// Goes along the chunks of an earlier form of a file, to where the next piece has its like.
struct Trail {
    /// In order, and where in the file they are.
    places: Vec<(Range<u64>, ChunkRef)>,
    by_id: HashMap<ChunkId, usize>,
    /// Where the next piece would be if nothing was added or removed since the last that is there.
    at: u64,
}

impl Trail {
    /// Goes to where the file has `offset`.
    fn seek(&mut self, offset: u64) {
        self.at = offset;
    }

    /// What a piece of as many `bytes` is like, pieces coming in order.
    fn next(&mut self, bytes: u64, id: ChunkId) -> Like {
        if let Some(index) = self.by_id.get(&id) {
            self.at = self.places[*index].0.end;
            return Like::Nothing;
        }
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
