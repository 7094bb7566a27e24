//! The form in which a chunk takes the least: alone, as differences to the same numbers, or after
//! bytes that are like it.
//!
//! Nothing is stored here, and where the bases come from is left to the caller: the store seals with
//! this, and an estimate of what sealing would store asks it the same.

use crate::format::codec::{self, BASE_BYTES_MAX, BASE_COUNT_MAX, Bases, Codec, Elements, Encoded};
use crate::format::manifest::ChunkRef;

/// Longest chain of bases that is written. Measured on histories of 6 to 8 versions: 1 takes 8 to 13 %
/// more bytes than 4, 2 up to 5 %, 8 at most 0.5 % less; to read a version at the end of a chain of 4 takes
/// 1.1 to 1.7 times the processor's time of one of 1.
const DEPTH_MAX: u8 = 4;
/// Where a chunk with others before it takes less than this part of 100 of what it takes alone, it
/// is stored so.
const PATCH_PERCENT: usize = 95;
/// A chunk that shrinks so many times with others before it is not tried alone.
const CLEAR_FACTOR: usize = 8;

/// What is stored already and may be much like a chunk. A wrong guess costs time, never content.
#[derive(Clone, Debug, Default)]
pub enum Like {
    #[default]
    Nothing,
    /// The same numbers, somewhat earlier; as long.
    Numbers(ChunkRef),
    /// Bytes of which many may be the same, at any place.
    Bytes(Vec<ChunkRef>),
}

/// Chunks that others may be encoded against.
pub trait BaseSource {
    /// The nearest chunk in the chain of `base`, itself first, that is less deep than `depth`; with
    /// its depth. `None` where there is none, or it cannot be looked at: it is no base then.
    fn base_below(&self, base: &ChunkRef, depth: u8) -> Option<(ChunkRef, u8)>;
    /// Fills `out` with the plain bytes of a chunk from `offset`; `None` where that cannot be.
    fn read_at(&self, base: &ChunkRef, offset: u32, out: &mut [u8]) -> Option<()>;
    /// The plain bytes of a chunk; `None` where they cannot be read.
    fn read(&self, base: &ChunkRef) -> Option<Vec<u8>>;
}

/// A chunk as it is to be stored.
pub struct Form {
    pub encoded: Encoded,
    pub bases: Bases,
    /// The plain bytes of all its bases, one after the other.
    pub base_plain: Vec<u8>,
}

/// A chunk that needs no other.
pub fn alone(plain: &[u8], elements: Elements) -> Form {
    let encoded = codec::encode(plain, elements);
    Form { encoded, bases: Bases::default(), base_plain: Vec::new() }
}

/// A chunk in the form that takes the least, as far as samples tell.
pub fn smallest(source: &dyn BaseSource, plain: &[u8], elements: Elements, like: &Like) -> Form {
    let against = match like {
        Like::Numbers(base) => as_delta(source, plain, elements, base),
        Like::Bytes(bases) => as_patch(source, plain, elements, bases),
        Like::Nothing => None,
    };
    against.unwrap_or_else(|| alone(plain, elements))
}

/// The chunk as differences to `base`, where a sample says that this pays.
fn as_delta(
    source: &dyn BaseSource,
    plain: &[u8],
    elements: Elements,
    base: &ChunkRef,
) -> Option<Form> {
    if base.bytes as usize != plain.len() {
        return None;
    }
    let (base, depth) = source.base_below(base, DEPTH_MAX)?;
    let (mut sample, mut base_sample) = (Vec::new(), Vec::new());
    for place in codec::sample_places(plain.len(), elements) {
        let offset = u32::try_from(place.start).expect("a chunk is at most 16 MiB");
        let start = base_sample.len();
        base_sample.resize(start + place.len(), 0);
        source.read_at(&base, offset, &mut base_sample[start..])?;
        sample.extend_from_slice(&plain[place]);
    }
    if !codec::sample_prefers_delta(&sample, elements, &base_sample) {
        return None;
    }
    let base_plain = source.read(&base)?;
    let encoded = codec::encode_delta(plain, elements, &base_plain);
    let bases = Bases { depth: depth + 1, chunks: vec![base] };
    (encoded.codec == Codec::Delta).then_some(Form { encoded, bases, base_plain })
}

/// The chunk with `bases` before it, where that takes enough less than the chunk alone.
fn as_patch(
    source: &dyn BaseSource,
    plain: &[u8],
    elements: Elements,
    bases: &[ChunkRef],
) -> Option<Form> {
    let (mut depth, mut chunks, mut prefix) = (0, Vec::new(), Vec::new());
    for base in bases.iter().take(BASE_COUNT_MAX) {
        let Some((base, of_base)) = source.base_below(base, DEPTH_MAX) else { continue };
        if BASE_BYTES_MAX < prefix.len() + base.bytes as usize {
            break;
        }
        prefix.extend_from_slice(&source.read(&base)?);
        depth = depth.max(of_base + 1);
        chunks.push(base);
    }
    if chunks.is_empty() {
        return None;
    }
    let encoded = codec::encode_patch(plain, &prefix);
    let bases = Bases { depth, chunks };
    let bytes = encoded.payload.len() + bases.bytes();
    if plain.len() < CLEAR_FACTOR * bytes {
        let alone = alone(plain, elements);
        if alone.encoded.payload.len() * PATCH_PERCENT < bytes * 100 {
            return Some(alone);
        }
    }
    Some(Form { encoded, bases, base_plain: prefix })
}
