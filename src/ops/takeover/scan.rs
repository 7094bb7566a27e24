//! Reads the files of units, cutting them as sealing would: digests, chunks, tensors, and what is wrong
//! with them.
//!
//! Files are read once, in parallel; memory is that of the lists of chunks, some 100 bytes a MiB.

use std::collections::HashMap;
use std::fs::File;
use std::hash::Hasher;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use super::faults;
use super::kept::Keeper;
use super::kinds::Kind;
use super::units::Unit;
use super::walk::{FileIndex, Found};
use crate::chunker::{Cut, Pieces};
use crate::format::config::Chunking;
use crate::format::ids::{BlobDigest, ChunkId};
use crate::format::manifest::{ChunkRef, Mtime};
use crate::inspect::Tensor;
use crate::ops::Progress;
use crate::ops::contents::{Interruptible, PiecesOf};
use crate::ops::tensors::{External, FilePlan};
use crate::sys::io::{Io, Real};

/// Smaller parts say nothing: many models have the same zeros in them.
const PART_BYTES_MIN: u32 = 256;
/// Tensors that make an architecture; fewer are the same in models that have nothing in common.
const ARCHITECTURE_TENSORS_MIN: usize = 4;

/// How what has no tensors is cut to be compared, and the largest file for which it is.
const FINE: Chunking = Chunking { bytes_min: 512, bytes_average: 2 << 10, bytes_max: 8 << 10 };
const FINE_BYTES_MAX: u64 = 32 << 20;

/// Bytes that may be in several models: a tensor, a piece of a large one, or of what has none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Part {
    /// The first bytes of its digest.
    pub id: u64,
    pub bytes: u32,
}

/// What a file holds.
#[derive(Clone, Debug)]
pub(super) struct Content {
    pub digest: BlobDigest,
    pub chunks: Vec<ChunkRef>,
    /// Sorted, each once.
    pub parts: Vec<Part>,
    /// Equal for files with the same tensors by name, dtype and shape, whatever their numbers.
    pub architecture: Option<u64>,
}

/// What reading a file gave.
#[derive(Clone, Debug)]
pub(super) struct Scanned {
    /// `None` where it could not be read, or changed while it was.
    pub content: Option<Content>,
    /// Why it is no model, or not whole.
    pub fault: Option<String>,
    /// What loading it would call that no model needs.
    pub calls: Vec<String>,
}

/// Where the bytes of a file are that a unit has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Reading {
    /// Where it is read; absolute.
    pub source: PathBuf,
    /// What it is called in its unit.
    pub name: PathBuf,
    pub bytes: u64,
    pub modified: Mtime,
    pub uid: u32,
    pub kind: Kind,
    pub keeper: Option<Keeper>,
}

/// What the files of all units hold. Files of several units are read for each.
pub(super) fn scan(
    found: &Found,
    kinds: &[Kind],
    units: &[Unit],
    progress: &dyn Progress,
) -> HashMap<FileIndex, Scanned> {
    let bytes = |unit: &Unit| unit.files.iter().map(|file| found.file(*file).bytes).sum::<u64>();
    progress.begin("reading models", units.iter().map(bytes).sum());
    let readings = |unit: &Unit| -> Vec<Reading> {
        unit.files.iter().map(|file| reading_of(found, kinds, unit, *file)).collect()
    };
    let (next, all) = (AtomicUsize::new(0), Mutex::new(HashMap::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let scanned = scan_unit(&readings(unit), progress);
                    all.lock().extend(unit.files.iter().copied().zip(scanned));
                }
            });
        }
    });
    all.into_inner()
}

/// Where a file of a unit is read.
pub(super) fn reading_of(found: &Found, kinds: &[Kind], unit: &Unit, file: FileIndex) -> Reading {
    Reading {
        source: found.source_of(file),
        name: found.path_below(unit.folder, file),
        bytes: found.file(file).bytes,
        modified: found.file(file).modified,
        uid: found.file(file).uid,
        kind: kinds[file.0 as usize],
        keeper: found.file(file).keeper,
    }
}

/// What the files of one unit hold, in their order.
pub(super) fn scan_unit(readings: &[Reading], progress: &dyn Progress) -> Vec<Scanned> {
    let external = learn(readings);
    let scanned = readings.iter().map(|reading| match scan_file(reading, &external, progress) {
        Ok(scanned) => scanned,
        Err(error) => {
            let fault = match reading.keeper {
                Some(keeper) if error.kind() == io::ErrorKind::NotFound => keeper.absent(),
                _ => format!("it cannot be read: {error}"),
            };
            Scanned { content: None, fault: Some(fault), calls: Vec::new() }
        }
    });
    scanned.collect()
}

/// What the files say of tensors in others; one that cannot be read says nothing.
fn learn(readings: &[Reading]) -> External {
    let mut external = External::default();
    for reading in readings.iter().filter(|reading| External::is_spoken_of_by(&reading.name)) {
        let learnt = Real
            .open(&reading.source)
            .and_then(|file| external.learn(&reading.name, &file, reading.bytes));
        drop(learnt);
    }
    external
}

fn scan_file(
    reading: &Reading,
    external: &External,
    progress: &dyn Progress,
) -> io::Result<Scanned> {
    let Reading { source, name, bytes, kind, .. } = reading;
    let file = Real.open(source)?;
    let plan = external.plan_of(name, &file, *bytes)?;
    let content = read(&file, &plan, progress)?;
    let (content, changed) = match content {
        (content, read_bytes) if read_bytes == *bytes => (Some(content), None),
        _ => (None, Some("it changed while it was read".to_owned())),
    };
    let fault = match changed {
        None => faults::fault_of(name, &file, *bytes, *kind)?,
        changed => changed,
    };
    let calls = faults::calls_of(name, &file, *bytes, *kind);
    Ok(Scanned { content, fault, calls })
}

/// Cuts a file; what it holds, and how many bytes it had.
fn read(file: &File, plan: &FilePlan, progress: &dyn Progress) -> io::Result<(Content, u64)> {
    let (mut blake3, mut bytes) = (blake3::Hasher::new(), 0_u64);
    let (mut chunks, mut parts, mut room) = (Vec::new(), Vec::new(), Vec::new());
    let mut reader = Interruptible(file);
    let is_small = plan.segments.last().is_none_or(|last| last.bytes.end <= FINE_BYTES_MAX);
    for segment in &plan.segments {
        let mut pieces = PiecesOf::new(&mut reader, segment, Chunking::default());
        while let Some(piece) = pieces.next(std::mem::take(&mut room))? {
            blake3.update(&piece);
            let id = ChunkId::of(&piece);
            let length = u32::try_from(piece.len()).expect("a chunk is at most 16 MiB");
            chunks.push(ChunkRef { id, bytes: length });
            let before = parts.len();
            for (tensor, digest) in plan.digests_within(bytes, &piece) {
                let place = &plan.tensors()[tensor].bytes;
                let length = place.end - place.start;
                parts.push(part(digest.as_bytes(), u32::try_from(length).unwrap_or(u32::MAX)));
            }
            if parts.len() == before && segment.cut == Cut::Content && is_small {
                push_fine_parts(&piece, &mut parts);
            } else if parts.len() == before {
                parts.push(part(id.as_bytes(), length));
            }
            bytes += piece.len() as u64;
            progress.advance(u64::from(length));
            room = piece;
            room.clear();
        }
    }
    parts.retain(|part| PART_BYTES_MIN <= part.bytes);
    parts.sort_unstable();
    parts.dedup();
    let digest = BlobDigest(*blake3.finalize().as_bytes());
    Ok((Content { digest, chunks, parts, architecture: architecture(plan) }, bytes))
}

/// Cuts what has no tensors more finely than it is stored: models of a few KiB are compared too.
fn push_fine_parts(piece: &[u8], parts: &mut Vec<Part>) {
    let mut pieces = Pieces::new(piece, FINE);
    while let Ok(Some(fine)) = pieces.next_piece() {
        let bytes = u32::try_from(fine.len()).expect("at most a piece");
        parts.push(Part { id: xxh3_64(fine), bytes });
    }
}

fn part(digest: &[u8; 32], bytes: u32) -> Part {
    let first = digest.first_chunk().expect("a digest has 32 bytes");
    Part { id: u64::from_le_bytes(*first), bytes }
}

/// Names, dtypes and shapes of all tensors as one number.
fn architecture<'a>(plan: &'a FilePlan) -> Option<u64> {
    let tensors = plan.tensors();
    if tensors.len() < ARCHITECTURE_TENSORS_MIN {
        return None;
    }
    let parts = |tensor: &'a Tensor| (&tensor.name, tensor.dtype.to_string(), &tensor.shape);
    let mut each: Vec<_> = tensors.iter().map(parts).collect();
    each.sort_unstable();
    let mut hasher = Xxh3Default::new();
    for (name, dtype, shape) in each {
        hasher.update(name.as_bytes());
        hasher.update(&[0]);
        hasher.update(dtype.as_bytes());
        shape.iter().for_each(|size| hasher.update(&size.to_le_bytes()));
    }
    Some(hasher.finish())
}

/// The parts of several files, sorted, each once.
pub(super) fn parts_of<'a>(contents: impl Iterator<Item = &'a Content>) -> Vec<Part> {
    let mut parts: Vec<Part> = contents.flat_map(|content| content.parts.iter().copied()).collect();
    parts.sort_unstable();
    parts.dedup();
    parts
}
