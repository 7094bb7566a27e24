//! What sealing would store: the same decisions, on the files where they lie, without a store.
//!
//! Chunks that are new are encoded as sealing encodes them, against what comes before them in their
//! family. Where there are too many, a sample is, and the rest taken as its like: a part of the places of
//! tensors, the same in all versions, so that what a sampled chunk is like was sampled too.
//! Memory: some 100 bytes a chunk.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::candidate::CandidateFile;
use crate::format::codec::{self, Codec, Elements};
use crate::format::ids::{BlobDigest, ChunkId, TensorDigest};
use crate::format::manifest::{ChunkRef, FileTensors, Manifest, TensorLine};
use crate::format::names::VersionNumber;
use crate::format::pack;
use crate::inspect::Tensor;
use crate::ops::ancestor::{Ancestor, Likeness};
use crate::ops::compose::{FileFacts, tree_of};
use crate::ops::metadata::{self, Facts, ListedFile, Text};
use crate::ops::tensors::{External, FilePlan};
use crate::ops::told::Telling;
use crate::ops::{Context, OpsError, Progress, SnapshotOptions};
use crate::store::Like;
use crate::store::encode::{self, BaseSource};
use crate::sys::io::{Io, Real};

/// Plain bytes that are encoded for one estimate; of more, a sample is.
pub(super) const SAMPLE_BYTES: u64 = 1 << 30;
/// Bytes of a pack beside its records, and of each line of its footer.
const PACK_BYTES_FIXED: u64 = 40;
const PACK_BYTES_LINE: u64 = 48;
/// Bytes of the records of a model and of each version in the history, without its message.
const MODEL_RECORD_BYTES: u64 = 330;
const VERSION_RECORD_BYTES: u64 = 600;

/// A version that is to be stored, the earlier ones of its model first.
pub(super) struct Planned<'a> {
    pub options: SnapshotOptions,
    /// Its files by their names in the version.
    pub files: BTreeMap<PathBuf, &'a CandidateFile>,
}

/// What would be stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Estimate {
    /// Of packs, manifests and history.
    pub stored_bytes: u64,
    /// Not everything was encoded: part of it is taken as the like of a sample.
    pub is_sampled: bool,
}

/// What would be stored of each model, in their order.
///
/// # Errors
/// Where versions cannot be put together. A file that cannot be read again counts as it is.
pub(super) fn estimate(
    models: &[Vec<Planned<'_>>],
    context: &Context,
    sample_bytes: u64,
    progress: &dyn Progress,
) -> Result<Vec<Estimate>, OpsError> {
    let new_bytes = new_bytes(models);
    progress.begin("estimating", new_bytes);
    let mut estimator = Estimator {
        places: HashMap::new(),
        sources: Vec::new(),
        share: share_of(sample_bytes, new_bytes),
        sums: BTreeMap::new(),
        context,
        progress,
    };
    let mut fixed = Vec::new();
    for (model, versions) in models.iter().enumerate() {
        let mut ancestor = None;
        let mut bytes = if versions.is_empty() { 0 } else { MODEL_RECORD_BYTES };
        for version in versions {
            let (next, added) = estimator.version(model, version, ancestor.as_ref())?;
            ancestor = Some(next);
            bytes += added;
        }
        fixed.push(bytes);
    }
    let is_sampled = estimator.share < u64::MAX;
    let estimates = (0..).zip(fixed).map(|(model, fixed)| Estimate {
        stored_bytes: fixed + estimator.stored_of(model),
        is_sampled,
    });
    Ok(estimates.collect())
}

/// Plain bytes of all distinct chunks.
fn new_bytes(models: &[Vec<Planned<'_>>]) -> u64 {
    let mut distinct = HashMap::<ChunkId, u32>::new();
    for file in models.iter().flatten().flat_map(|version| version.files.values()) {
        let chunks = file.scanned.content.iter().flat_map(|content| &content.chunks);
        distinct.extend(chunks.map(|chunk| (chunk.id, chunk.bytes)));
    }
    distinct.values().map(|bytes| u64::from(*bytes)).sum()
}

/// The part of all tracks that is encoded, of 2^64.
fn share_of(sample_bytes: u64, new_bytes: u64) -> u64 {
    if new_bytes <= sample_bytes {
        return u64::MAX;
    }
    let share = u128::from(sample_bytes) * u128::from(u64::MAX) / u128::from(new_bytes);
    u64::try_from(share).expect("less than all")
}

/// Where a chunk would be: in the file that it was first found in.
struct Place {
    source: usize,
    offset: u64,
    depth: u8,
    /// What it would be stored as differences to.
    delta_base: Option<ChunkRef>,
}

/// Chunks that are likely stored in a similar way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Stratum {
    model: usize,
    like: u8,
    elements: u8,
}

/// What was encoded of a stratum, and what was not.
#[derive(Clone, Copy, Default, Debug)]
struct Sums {
    plain_bytes: u64,
    stored_bytes: u64,
    rest_bytes: u64,
    rest_count: u64,
}

/// A chunk that is not there yet.
struct New {
    chunk: ChunkRef,
    source: usize,
    offset: u64,
    elements: Elements,
    like: Like,
    is_sampled: bool,
}

/// What became of a chunk.
struct Encoded {
    record_bytes: u64,
    depth: u8,
    delta_base: Option<ChunkRef>,
}

struct Estimator<'a> {
    places: HashMap<ChunkId, Place>,
    sources: Vec<PathBuf>,
    share: u64,
    sums: BTreeMap<Stratum, Sums>,
    context: &'a Context,
    progress: &'a dyn Progress,
}

impl Estimator<'_> {
    /// Adds a version; what the next one of its model is encoded against, and the bytes that it takes
    /// beside those of its files' chunks.
    fn version(
        &mut self,
        model: usize,
        version: &Planned<'_>,
        ancestor: Option<&Ancestor>,
    ) -> Result<(Ancestor, u64), OpsError> {
        let external = learn(version);
        let (mut new, mut tables) = (Vec::new(), BTreeMap::new());
        for (name, file) in &version.files {
            if file.scanned.content.is_none() {
                continue;
            }
            let opened = Real.open(&file.reading.source);
            let plan =
                opened.and_then(|opened| external.plan_of(name, &opened, file.reading.bytes));
            let Ok(plan) = plan else { continue };
            new.extend(self.collect(model, name, file, &plan, ancestor));
            tables.extend(table_of(&plan).map(|table| (name.clone(), table)));
        }
        let encoded = self.encode_all(&new);
        let mut new_count = 0;
        for (new, encoded) in new.iter().zip(encoded) {
            new_count += 1;
            self.count(model, new, encoded);
        }
        let (manifest, text_bytes) = self.manifest(version, tables)?;
        let text = codec::encode(&text_bytes, Elements::Unknown);
        let text_stored = pack::head_bytes(text_bytes.len(), 0) + text.payload.len();
        let (manifest_bytes, _) = manifest.encode();
        let packs = PACK_BYTES_FIXED + PACK_BYTES_LINE * (new_count + 1);
        let record = VERSION_RECORD_BYTES + version.options.message.len() as u64;
        let fixed = text_stored as u64 + manifest_bytes.len() as u64 + packs + record;
        Ok((Ancestor::new(Arc::new(manifest)), fixed))
    }

    /// The chunks of a file that are not there yet.
    fn collect(
        &mut self,
        model: usize,
        name: &Path,
        file: &CandidateFile,
        plan: &FilePlan,
        ancestor: Option<&Ancestor>,
    ) -> Vec<New> {
        let mut new = Vec::new();
        let source = self.sources.len();
        self.sources.push(file.reading.source.clone());
        let mut likeness = Likeness::new(ancestor, name, file.reading.bytes);
        let mut chunks = file.scanned.content.iter().flat_map(|content| &content.chunks);
        let mut offset = 0;
        for segment in &plan.segments {
            likeness.enter(plan, segment);
            let tensor = plan.first_tensor(segment);
            while offset < segment.bytes.end
                && let Some(chunk) = chunks.next()
            {
                let place = offset..offset + u64::from(chunk.bytes);
                let like = likeness.next(place, || chunk.id);
                if !self.places.contains_key(&chunk.id) {
                    let elements = segment.elements_at(offset - segment.bytes.start);
                    let track = match tensor {
                        Some(tensor) => format!("{model}/{}", tensor.name),
                        None => format!("{model}//{}", name.display()),
                    };
                    let track =
                        xxh3_64(format!("{track}/{}", offset - segment.bytes.start).as_bytes());
                    let is_sampled = track <= self.share;
                    let place = Place { source, offset, depth: 0, delta_base: None };
                    self.places.insert(chunk.id, place);
                    let chunk = *chunk;
                    new.push(New { chunk, source, offset, elements, like, is_sampled });
                }
                offset += u64::from(chunk.bytes);
            }
        }
        new
    }

    /// Encodes those that are sampled, on all cores.
    fn encode_all(&self, new: &[New]) -> Vec<Option<Encoded>> {
        let done: Mutex<Vec<_>> = Mutex::new((0..new.len()).map(|_| None).collect());
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            let threads = thread::available_parallelism().map_or(1, usize::from);
            for _ in 0..threads.min(new.len()) {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(one) = new.get(index) else { return };
                        self.progress.advance(u64::from(one.chunk.bytes));
                        let encoded = if one.is_sampled { self.encode(one) } else { None };
                        done.lock()[index] = encoded;
                    }
                });
            }
        });
        done.into_inner()
    }

    fn encode(&self, new: &New) -> Option<Encoded> {
        let plain = self.read_place(new.source, new.offset, new.chunk.bytes as usize).ok()?;
        let form = encode::smallest(self, &plain, new.elements, &new.like);
        let head_bytes = pack::head_bytes(plain.len(), form.bases.chunks.len());
        let delta_base = match form.encoded.codec {
            Codec::Delta => form.bases.chunks.first().copied(),
            Codec::Raw | Codec::Zstd | Codec::Planes | Codec::Patch => None,
        };
        let record_bytes = (head_bytes + form.encoded.payload.len()) as u64;
        Some(Encoded { record_bytes, depth: form.bases.depth, delta_base })
    }

    fn count(&mut self, model: usize, new: &New, encoded: Option<Encoded>) {
        let like = match new.like {
            Like::Nothing => 0,
            Like::Numbers(_) => 1,
            Like::Bytes(_) => 2,
        };
        let elements = match new.elements {
            Elements::Unknown => 0,
            Elements::Mixed => 1,
            Elements::Bytes | Elements::I8 | Elements::F8 => 2,
            Elements::Structs(_) => 3,
            Elements::F16 | Elements::I16 => 4,
            Elements::Bf16 => 5,
            Elements::F32 | Elements::I32 => 6,
            Elements::F64 | Elements::I64 => 7,
        };
        let sums = self.sums.entry(Stratum { model, like, elements }).or_default();
        let plain_bytes = u64::from(new.chunk.bytes);
        let Some(encoded) = encoded else {
            sums.rest_bytes += plain_bytes;
            sums.rest_count += 1;
            return;
        };
        sums.plain_bytes += plain_bytes;
        sums.stored_bytes += encoded.record_bytes;
        let place = self.places.get_mut(&new.chunk.id).expect("it was put there");
        (place.depth, place.delta_base) = (encoded.depth, encoded.delta_base);
    }

    /// Stored bytes of a model's chunks; what was not encoded as its like in this model, in all, or raw.
    fn stored_of(&self, model: usize) -> u64 {
        let own = self.sums.iter().filter(|(stratum, _)| stratum.model == model);
        let stored = own.map(|(stratum, sums)| {
            let like =
                |other: &Stratum| (other.like, other.elements) == (stratum.like, stratum.elements);
            let others = self.sums.iter().filter(|(other, _)| like(other)).map(|(_, sums)| sums);
            let (plain, stored) = others.fold((0, 0), |(plain, stored), sums| {
                (plain + sums.plain_bytes, stored + sums.stored_bytes)
            });
            let (plain, stored) = match sums.plain_bytes {
                0 => (plain, stored),
                own => (own, sums.stored_bytes),
            };
            let rest = u128::from(sums.rest_bytes) * u128::from(stored) / u128::from(plain.max(1));
            let rest = if plain == 0 { u128::from(sums.rest_bytes) } else { rest };
            sums.stored_bytes + u64::try_from(rest).unwrap_or(u64::MAX)
        });
        stored.sum()
    }

    /// The manifest that the version would have, and the text of its metadata.
    fn manifest(
        &self,
        version: &Planned<'_>,
        mut tables: BTreeMap<PathBuf, TableOfFile>,
    ) -> Result<(Manifest, Vec<u8>), OpsError> {
        let facts = version.files.iter().map(|(name, file)| {
            let (bytes, executable) = (file.reading.bytes, false);
            (name.clone(), FileFacts { bytes, modified: Default::default(), executable })
        });
        let mut source = tree_of(&facts.collect())?;
        let files: Vec<_> = source.files().collect();
        let mut tree = std::mem::take(&mut source.tree);
        let (mut listed, mut tensors) = (Vec::new(), Vec::new());
        let mut telling = Telling::default();
        for file in &files {
            let candidate = version.files[&file.path];
            let Some(content) = &candidate.scanned.content else { continue };
            tree.set_file(file.index, false, content.digest, &content.chunks);
            if let Some(TableOfFile { format, lines }) = tables.remove(&file.path) {
                tensors.push(FileTensors { file: file.index, format, tensors: lines });
            }
            let (bytes, digest) = (file.bytes, content.digest);
            // Not the digest that it will have, but one that is no shorter when compressed.
            let sha256 = *ChunkId::of(digest.as_bytes()).as_bytes();
            let format = candidate.reading.kind.word;
            let described = Real
                .open(&candidate.reading.source)
                .and_then(|opened| telling.ask(&file.path, &opened, bytes, format))
                .unwrap_or_default();
            listed
                .push((ListedFile { path: &*file.path, bytes, digest, format, sha256 }, described));
        }
        let found = telling.finish(listed.iter().filter_map(|(_, described)| described.as_deref()));
        let digest = tree.digest();
        let (options, context) = (&version.options, self.context);
        let at = context.now;
        let (version, supersedes) = (VersionNumber::FIRST, None);
        let (user, found) = (None, &found);
        let facts = Facts { options, context, at, version, supersedes, digest, user, found };
        let head = metadata::head(&facts);
        let mut text = Vec::new();
        let listed = listed.iter().map(|(file, described)| (*file, described.as_deref()));
        let read = Text::new(&head, listed).read_to_end(&mut text);
        read.expect("it is made in memory");
        let chunk = ChunkRef {
            id: ChunkId::of(&text),
            bytes: u32::try_from(text.len()).unwrap_or(u32::MAX),
        };
        tree.set_file(source.metadata, false, BlobDigest::of(&text), &[chunk]);
        let manifest = Manifest::new(options.model.clone(), VersionNumber::FIRST, head, tree);
        Ok((manifest.with_tensors(&tensors), text))
    }

    fn read_place(&self, source: usize, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let mut plain = vec![0; bytes];
        Real.open(&self.sources[source])?.read_exact_at(&mut plain, offset)?;
        Ok(plain)
    }
}

impl BaseSource for Estimator<'_> {
    fn base_below(&self, base: &ChunkRef, depth: u8) -> Option<(ChunkRef, u8)> {
        let mut base = *base;
        loop {
            let place = self.places.get(&base.id)?;
            if place.depth < depth {
                return Some((base, place.depth));
            }
            base = place.delta_base?;
        }
    }

    fn read_at(&self, base: &ChunkRef, offset: u32, out: &mut [u8]) -> Option<()> {
        let place = self.places.get(&base.id)?;
        let file = Real.open(&self.sources[place.source]).ok()?;
        file.read_exact_at(out, place.offset + u64::from(offset)).ok()
    }

    fn read(&self, base: &ChunkRef) -> Option<Vec<u8>> {
        let place = self.places.get(&base.id)?;
        self.read_place(place.source, place.offset, base.bytes as usize).ok()
    }
}

/// The tensors of one file as its manifest lists them.
struct TableOfFile {
    format: Arc<str>,
    lines: Vec<TensorLine>,
}

/// As sealing would list them, but for their digests, which nobody asks here.
fn table_of(plan: &FilePlan) -> Option<TableOfFile> {
    let digest = TensorDigest([0; 32]);
    let line = |tensor: &Tensor| TensorLine {
        name: tensor.name.clone(),
        dtype: tensor.dtype.to_string().into(),
        shape: tensor.shape.clone(),
        bytes: tensor.bytes.clone(),
        digest,
    };
    let lines = plan.tensors().iter().map(line).collect();
    Some(TableOfFile { format: plan.format()?.to_string().into(), lines })
}

/// What the files of a version say of tensors in others; one that cannot be read says nothing.
fn learn(version: &Planned<'_>) -> External {
    let mut external = External::default();
    for (name, file) in version.files.iter().filter(|(name, _)| External::is_spoken_of_by(name)) {
        let learnt = Real
            .open(&file.reading.source)
            .and_then(|opened| external.learn(name, &opened, file.reading.bytes));
        drop(learnt);
    }
    external
}
