//! The tensor table of a manifest: what the tensors of its files are called, and where they lie.
//!
//! It says nothing that the files do not: a reader of bytes needs none of it, and a file without a
//! table is a file like any other. It stays compressed until somebody asks.
//! Invariant M3: the tensors of one file are sorted by their bytes, apart, and within the file.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::super::ids::{ChunkId, DIGEST_BYTES, TensorDigest};
use super::bytes::{TENSORS, read_frames, write_frames};
use super::{ChunkRef, EntryIndex, FileEntry, Manifest, ManifestError, Node, Tree};

/// A tensor's digest is made of pieces of this many bytes, as long tensors are chunks of as many.
pub const PIECE_BYTES: u64 = 1 << 20;
/// Most tensors of one version; tables past it are left out.
pub const TENSOR_COUNT_MAX: usize = 1_000_000;
/// Largest table of one version, decoded; tables past it are left out.
pub const TABLE_BYTES_MAX: usize = 128 << 20;
/// Longest name of a tensor, in bytes.
const NAME_BYTES_MAX: usize = 8 << 10;
/// Longest name of a dtype or format, in bytes.
const WORD_BYTES_MAX: usize = 64;
/// Most names of dtypes and formats.
const WORD_COUNT_MAX: usize = 1_000;
/// Most dimensions.
const RANK_MAX: usize = 64;
/// Every tensor takes more than this.
const LINE_BYTES_MIN: usize = 5;

/// One tensor of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorLine {
    pub name: String,
    /// `bf16`, `f32`, `q8_0`, …: FORMAT.md, "Tensor table".
    pub dtype: Arc<str>,
    /// Outermost first.
    pub shape: Vec<u64>,
    /// Of the file.
    pub bytes: Range<u64>,
    pub digest: TensorDigest,
}

/// The tensors of one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileTensors {
    pub file: EntryIndex,
    /// `safetensors`, `gguf`, `onnx`, …
    pub format: Arc<str>,
    /// Sorted by their bytes (M3); may be empty.
    pub tensors: Vec<TensorLine>,
}

/// The table as it is stored: its frames, and what they decode to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Section {
    pub plain_bytes: usize,
    pub stored: Vec<u8>,
}

impl TensorDigest {
    /// The digest of a tensor that consists of these pieces, each [`PIECE_BYTES`] long but the last.
    ///
    /// One piece: its BLAKE3. More: BLAKE3, derived with context `modelfs tensor v1`, of theirs. A
    /// tensor that is chunked by itself is known by the ids of its chunks, and nothing is hashed
    /// twice.
    pub fn of_pieces(pieces: impl IntoIterator<Item = ChunkId>) -> Self {
        let mut pieces = pieces.into_iter();
        let (first, second) = (pieces.next(), pieces.next());
        match (first, second) {
            (None, _) => Self(*blake3::hash(b"").as_bytes()),
            (Some(only), None) => Self(only.0),
            (Some(first), Some(second)) => {
                let mut hasher = blake3::Hasher::new_derive_key("modelfs tensor v1");
                for piece in [first, second].into_iter().chain(pieces) {
                    hasher.update(piece.as_bytes());
                }
                Self(*hasher.finalize().as_bytes())
            }
        }
    }

    /// The digest of a tensor with these bytes.
    pub fn of_tensor(bytes: &[u8]) -> Self {
        let piece_bytes = usize::try_from(PIECE_BYTES).expect("1 MiB");
        Self::of_pieces(bytes.chunks(piece_bytes).map(ChunkId::of))
    }

    /// The digest of the tensor at `bytes` of a file with these chunks, where they tell: where a
    /// tensor is chunked by itself, or is empty.
    pub fn of_chunks(chunks: &mut ChunkStarts<'_>, bytes: &Range<u64>) -> Option<Self> {
        chunks.pieces(bytes).map(|pieces| Self::of_pieces(pieces.iter().map(|piece| piece.id)))
    }
}

/// Looks for the chunks at places of a file, from its start to its end.
pub struct ChunkStarts<'a> {
    rest: &'a [ChunkRef],
    /// Where the first of `rest` starts.
    start: u64,
}

impl<'a> ChunkStarts<'a> {
    /// The chunks of a file, in order.
    pub fn new(chunks: &'a [ChunkRef]) -> Self {
        Self { rest: chunks, start: 0 }
    }

    /// The chunks that are exactly `bytes`, if those are pieces of a tensor. Starts never fall.
    pub fn pieces(&mut self, bytes: &Range<u64>) -> Option<&'a [ChunkRef]> {
        while self.start < bytes.start {
            let (first, rest) = self.rest.split_first()?;
            self.start += u64::from(first.bytes);
            self.rest = rest;
        }
        let (mut end, mut count) = (bytes.start, 0);
        while end < bytes.end {
            if !(end - bytes.start).is_multiple_of(PIECE_BYTES) {
                return None;
            }
            let chunk = self.rest.get(count)?;
            if PIECE_BYTES < u64::from(chunk.bytes) {
                return None;
            }
            end += u64::from(chunk.bytes);
            count += 1;
        }
        let told = bytes.is_empty() || (self.start == bytes.start && end == bytes.end);
        told.then(|| &self.rest[..count])
    }
}

impl Manifest {
    /// Keeps the tensors of its files, which are sorted by their entries (M3). Files whose tables
    /// are past the limits are left out: they are files like any other.
    ///
    /// # Panics
    /// When an entry is no file of this manifest.
    #[must_use]
    pub fn with_tensors(mut self, files: &[FileTensors]) -> Self {
        let plain = encode(&self.tree, files);
        let mut stored = Vec::new();
        write_frames(&plain, &mut stored);
        self.tensors = Section { plain_bytes: plain.len(), stored };
        self
    }

    /// The tensors of the files that have a table, in the order of their entries. Decodes them all.
    ///
    /// # Errors
    /// Says what is not as it must be; nothing is allocated on the word of a damaged length.
    pub fn tensors(&self) -> Result<Vec<FileTensors>, ManifestError> {
        let Section { plain_bytes, stored } = &self.tensors;
        decode(&self.tree, &read_frames(TENSORS, stored, *plain_bytes)?)
    }
}

/// The parts of the table as it grows.
#[derive(Default)]
struct Encoder {
    words: Vec<Arc<str>>,
    index_of: HashMap<Arc<str>, u64>,
    lines: Vec<u8>,
    digests: Vec<u8>,
}

fn encode(tree: &Tree, files: &[FileTensors]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    let (mut file_count, mut tensor_count, mut previous) = (0, 0, 0);
    for of in files {
        let Node::File(file) = &tree.entry(of.file).node else {
            panic!("entry {} is no file", of.file.0);
        };
        assert!(previous < of.file.0, "sorted, and the root is no file");
        let before = (encoder.lines.len(), encoder.digests.len());
        let count = tensor_count + of.tensors.len();
        let fits = count <= TENSOR_COUNT_MAX
            && encoder.put_file(of, of.file.0 - previous, tree.chunks(file))
            && encoder.bytes() <= TABLE_BYTES_MAX;
        if fits {
            (file_count, tensor_count, previous) = (file_count + 1, count, of.file.0);
        } else {
            encoder.lines.truncate(before.0);
            encoder.digests.truncate(before.1);
        }
    }
    if file_count == 0 { Vec::new() } else { encoder.finish(file_count) }
}

impl Encoder {
    fn bytes(&self) -> usize {
        // With room for the counts.
        let words: usize = self.words.iter().map(|word| word.len() + 1).sum();
        self.lines.len() + self.digests.len() + words + 20
    }

    /// Whether all of it is within the limits; else what was put is to go.
    fn put_file(&mut self, of: &FileTensors, step: u32, chunks: &[ChunkRef]) -> bool {
        put_number(&mut self.lines, step.into());
        let Some(format) = self.word(&of.format) else { return false };
        put_number(&mut self.lines, format);
        put_number(&mut self.lines, of.tensors.len() as u64);
        let (mut end, mut chunks) = (0, ChunkStarts::new(chunks));
        for tensor in &of.tensors {
            let TensorLine { name, dtype, shape, bytes, digest } = tensor;
            assert!(end <= bytes.start && bytes.start <= bytes.end, "sorted and apart (M3)");
            let Some(dtype) = self.word(dtype) else { return false };
            if NAME_BYTES_MAX < name.len() || RANK_MAX < shape.len() {
                return false;
            }
            let is_told = TensorDigest::of_chunks(&mut chunks, bytes) == Some(*digest);
            put_text(&mut self.lines, name.as_bytes());
            put_number(&mut self.lines, dtype * 2 + u64::from(!is_told));
            put_number(&mut self.lines, shape.len() as u64);
            shape.iter().for_each(|length| put_number(&mut self.lines, *length));
            put_number(&mut self.lines, bytes.start - end);
            put_number(&mut self.lines, bytes.end - bytes.start);
            if !is_told {
                self.digests.extend_from_slice(digest.as_bytes());
            }
            end = bytes.end;
        }
        true
    }

    fn word(&mut self, word: &Arc<str>) -> Option<u64> {
        if let Some(index) = self.index_of.get(word) {
            return Some(*index);
        }
        let index = self.words.len();
        if WORD_BYTES_MAX < word.len() || index == WORD_COUNT_MAX {
            return None;
        }
        self.words.push(word.clone());
        self.index_of.insert(word.clone(), index as u64);
        Some(index as u64)
    }

    fn finish(self, file_count: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_number(&mut bytes, self.words.len() as u64);
        self.words.iter().for_each(|word| put_text(&mut bytes, word.as_bytes()));
        put_number(&mut bytes, file_count);
        bytes.extend_from_slice(&self.lines);
        bytes.extend_from_slice(&self.digests);
        bytes
    }
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while 0x80 <= number {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).expect("less than 128"));
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_number(out, text.len() as u64);
    out.extend_from_slice(text);
}

/// Checks M3 and every length.
fn decode(tree: &Tree, bytes: &[u8]) -> Result<Vec<FileTensors>, ManifestError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut decoder = Decoder { rest: bytes, words: Vec::new(), tensors: 0 };
    let words = decoder.count("words", WORD_COUNT_MAX, 1)?;
    for _ in 0..words {
        let word = decoder.text(WORD_BYTES_MAX)?.into();
        decoder.words.push(word);
    }
    let file_count = decoder.count("files with tensors", tree.entries.len(), 3)?;
    let mut files = Vec::with_capacity(file_count);
    // Those whose digests are not told by their chunks: they follow at the end.
    let (mut own, mut previous) = (Vec::new(), 0_u32);
    for index in 0..file_count {
        let step = u32::try_from(decoder.number()?).ok().filter(|step| *step != 0);
        let entry = step.and_then(|step| previous.checked_add(step));
        let entry = entry.ok_or(wrong("its files are not sorted"))?;
        let file = match tree.entries.get(entry as usize) {
            Some(super::Entry { node: Node::File(file), .. }) => file,
            _ => return Err(wrong("a table is of no file")),
        };
        let of = decoder.file(tree, EntryIndex(entry), file, |tensor| own.push((index, tensor)))?;
        files.push(of);
        previous = entry;
    }
    let Decoder { rest: digests, .. } = decoder;
    if digests.len() != own.len() * DIGEST_BYTES {
        return Err(wrong("its digests are not as many as it says"));
    }
    for ((file, tensor), digest) in own.into_iter().zip(digests.chunks_exact(DIGEST_BYTES)) {
        let digest = TensorDigest(digest.try_into().expect("as long as a digest"));
        files[file].tensors[tensor].digest = digest;
    }
    Ok(files)
}

fn wrong(why: &'static str) -> ManifestError {
    ManifestError::Section { kind: TENSORS, why }
}

struct Decoder<'a> {
    rest: &'a [u8],
    words: Vec<Arc<str>>,
    tensors: usize,
}

impl Decoder<'_> {
    fn number(&mut self) -> Result<u64, ManifestError> {
        let mut number = 0;
        for place in 0..10 {
            let (byte, rest) = self.rest.split_first().ok_or(wrong("it is cut off"))?;
            self.rest = rest;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has one bit of the 64.
            if place == 9 && 1 < *byte {
                break;
            }
            number |= bits << (7 * place);
            if *byte < 0x80 {
                return match (place, *byte) {
                    (1.., 0) => Err(wrong("a number is longer than it need be")),
                    _ => Ok(number),
                };
            }
        }
        Err(wrong("a number is larger than 64 bits"))
    }

    /// A number of things that take `bytes_min` each at least, so that it may be believed.
    fn count(
        &mut self,
        what: &'static str,
        most: usize,
        bytes_min: usize,
    ) -> Result<usize, ManifestError> {
        let found = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        if most < found {
            return Err(ManifestError::Limit { what, most, found });
        }
        if self.rest.len() / bytes_min < found {
            return Err(wrong("it is cut off"));
        }
        Ok(found)
    }

    fn text(&mut self, most: usize) -> Result<&str, ManifestError> {
        let len = self.count("bytes of a name", most, 1)?;
        let (text, rest) = self.rest.split_at(len);
        self.rest = rest;
        std::str::from_utf8(text).map_err(|_: std::str::Utf8Error| wrong("a name is no text"))
    }

    fn word(&self, index: u64) -> Result<Arc<str>, ManifestError> {
        let word = usize::try_from(index).ok().and_then(|index| self.words.get(index));
        word.cloned().ok_or(wrong("a dtype or format has no name"))
    }

    /// The table of one file; `has_own` is told of each tensor whose digest is to come.
    fn file(
        &mut self,
        tree: &Tree,
        index: EntryIndex,
        file: &FileEntry,
        mut has_own: impl FnMut(usize),
    ) -> Result<FileTensors, ManifestError> {
        let format = self.number()?;
        let format = self.word(format)?;
        let most = TENSOR_COUNT_MAX - self.tensors;
        let count = self.count("tensors", most, LINE_BYTES_MIN)?;
        self.tensors += count;
        let mut tensors = Vec::with_capacity(count);
        let (mut end, mut chunks) = (0_u64, ChunkStarts::new(tree.chunks(file)));
        for place in 0..count {
            let name = self.text(NAME_BYTES_MAX)?.to_owned();
            let kind = self.number()?;
            let dtype = self.word(kind / 2)?;
            let rank = self.count("dimensions", RANK_MAX, 1)?;
            let shape = (0..rank).map(|_| self.number()).collect::<Result<Vec<_>, _>>()?;
            let start = end.checked_add(self.number()?);
            let length = self.number()?;
            let bytes = start.and_then(|start| Some(start..start.checked_add(length)?));
            let bytes = bytes.filter(|bytes| bytes.end <= file.bytes);
            let bytes = bytes.ok_or(wrong("a tensor leads past the end of its file"))?;
            end = bytes.end;
            let digest = match kind % 2 {
                0 => TensorDigest::of_chunks(&mut chunks, &bytes)
                    .ok_or(wrong("a tensor without a digest is not chunked by itself"))?,
                _ => {
                    has_own(place);
                    TensorDigest([0; DIGEST_BYTES])
                }
            };
            tensors.push(TensorLine { name, dtype, shape, bytes, digest });
        }
        Ok(FileTensors { file: index, format, tensors })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::super::ids::BlobDigest;
    use super::super::super::names::VersionNumber;
    use super::super::Mtime;
    use super::*;

    const MIB: u64 = PIECE_BYTES;

    /// A version of two files: the first has a header, a long tensor, a group of two small ones, an
    /// empty tensor, and one of a whole chunk; the second has a table without tensors.
    fn sample() -> (Manifest, Vec<FileTensors>) {
        let mut tree = Tree::default();
        let time = Mtime::default();
        let root = tree.push(b"", time, Node::Directory { first: 0, count: 0 });
        let first = tree.push(b"a", time, Tree::file_to_come());
        let second = tree.push(b"b", time, Tree::file_to_come());
        tree.set_children(root, 1..3);
        let lengths = [100, MIB, MIB, 700, 300, 500_000];
        let chunk = |(seed, bytes): (u8, u64)| ChunkRef {
            id: ChunkId::of(&[seed]),
            bytes: u32::try_from(bytes).unwrap(),
        };
        let chunks: Vec<_> = (0..).zip(lengths).map(chunk).collect();
        tree.set_file(second, false, BlobDigest::of(b"2"), &[chunk((9, 50))]);
        tree.set_file(first, false, BlobDigest::of(b"1"), &chunks);
        let id = |index: usize| chunks[index].id;
        let digest = |text: &str| TensorDigest::of_tensor(text.as_bytes());
        let line = |name: &str, shape: &[u64], bytes, digest| TensorLine {
            name: name.into(),
            dtype: if name == "long" { "bf16" } else { "q8_0" }.into(),
            shape: shape.into(),
            bytes,
            digest,
        };
        let long = 100..100 + 2 * MIB + 700;
        let (a, b, c, d) = (long.end, long.end + 100, long.end + 300, long.end + 500_300);
        let tensors = vec![
            line("long", &[1 << 20, 1], long, TensorDigest::of_pieces([id(1), id(2), id(3)])),
            line("small", &[u64::MAX, 0], a..b, digest("small")),
            line("é", &[], b..b + 100, digest("other")),
            line("", &[0], c..c, digest("")),
            line("whole", &[1], c..d, TensorDigest(id(5).0)),
        ];
        let table = vec![
            FileTensors { file: first, format: "safetensors".into(), tensors },
            FileTensors { file: second, format: "onnx".into(), tensors: Vec::new() },
        ];
        let model = "churn".parse().unwrap();
        (Manifest::new(model, VersionNumber::FIRST, json!({}), tree), table)
    }

    #[test]
    fn a_table_is_its_bytes_and_back() {
        let (manifest, table) = sample();
        let manifest = manifest.with_tensors(&table);
        let (bytes, _) = manifest.encode();
        let back = Manifest::parse(&bytes).unwrap();
        assert_eq!(back, manifest);
        assert_eq!(back.tensors().unwrap(), table);
    }

    #[test]
    fn digests_that_the_chunks_tell_are_not_stored() {
        let (manifest, table) = sample();
        let mut encoder = Encoder::default();
        let Node::File(file) = &manifest.entry(table[0].file).node else { panic!("a file") };
        assert!(encoder.put_file(&table[0], 1, manifest.chunks(file)));
        // Of the two that share a chunk.
        assert_eq!(encoder.digests.len(), 2 * DIGEST_BYTES);
        let mut other = table.clone();
        other[0].tensors[0].digest = TensorDigest([7; 32]);
        other[0].tensors[4].digest = TensorDigest([8; 32]);
        assert_eq!(manifest.with_tensors(&other).tensors().unwrap(), other);
    }

    #[test]
    fn no_table_is_no_section() {
        let (manifest, _) = sample();
        let (bytes, _) = manifest.encode();
        let manifest = manifest.with_tensors(&[]);
        assert_eq!(manifest.encode().0, bytes);
        assert_eq!(Manifest::parse(&bytes).unwrap().tensors().unwrap(), []);
    }

    #[test]
    fn tables_past_the_limits_are_left_out() {
        let (manifest, mut table) = sample();
        table[0].tensors[0].name = "n".repeat(NAME_BYTES_MAX + 1);
        let kept = manifest.with_tensors(&table).tensors().unwrap();
        assert_eq!(kept, table[1..]);
    }

    #[test]
    fn the_digest_of_a_tensor_is_that_of_its_pieces() {
        let bytes = vec![7; 2 * (1 << 20) + 5];
        let piece = |range: Range<usize>| ChunkId::of(&bytes[range]);
        let mib = 1 << 20;
        let check = |bytes: &[u8], pieces: &[ChunkId]| {
            let digest = TensorDigest::of_tensor(bytes);
            assert_eq!(digest, TensorDigest::of_pieces(pieces.iter().copied()));
            digest
        };
        let pieces = [piece(0..mib), piece(mib..2 * mib), piece(2 * mib..2 * mib + 5)];
        check(&bytes, &pieces);
        let of_one = check(&bytes[..mib], &pieces[..1]);
        assert_eq!(of_one.as_bytes(), blake3::hash(&bytes[..mib]).as_bytes());
        assert_eq!(check(b"", &[]).as_bytes(), blake3::hash(b"").as_bytes());
        // Frozen: stored tables rely on it.
        let of_two = check(&bytes[..mib + 1], &[pieces[0], piece(mib..mib + 1)]);
        let mut hasher = blake3::Hasher::new_derive_key("modelfs tensor v1");
        hasher.update(pieces[0].as_bytes()).update(piece(0..1).as_bytes());
        assert_eq!(of_two.as_bytes(), hasher.finalize().as_bytes());
    }

    #[test]
    fn a_table_that_is_cut_or_lies_is_an_error() {
        let (manifest, table) = sample();
        let plain = encode(&manifest.tree, &table);
        assert_eq!(decode(&manifest.tree, &plain).unwrap(), table);
        for len in 1..plain.len() {
            assert!(decode(&manifest.tree, &plain[..len]).is_err(), "cut at {len}");
        }
        let check = |what: &str, plain: &[u8], why: &str| {
            let error = decode(&manifest.tree, plain).unwrap_err().to_string();
            assert!(error.contains(why), "{what}: {error}");
        };
        // One word, `x`, then files: step, format, tensors of name, dtype, rank, gap, length.
        check("words", &[0xff, 0xff, 3], "words");
        check("long number", &[0x81, 0], "longer than it need be");
        check("huge number", &[0xff; 11], "64 bits");
        check("the root", &[1, 1, b'x', 1, 0, 0, 0], "not sorted");
        check("no file", &[1, 1, b'x', 1, 3, 0, 0], "of no file");
        check("no word", &[1, 1, b'x', 1, 1, 1, 0], "has no name");
        check("no text", &[1, 1, 0xff, 1, 1, 0, 0], "no text");
        check("many", &[1, 1, b'x', 1, 1, 0, 9, 0, 0, 0, 0, 0], "cut off");
        check("past", &[1, 1, b'x', 1, 2, 0, 1, 0, 0, 0, 0, 51], "past the end");
        check("no chunk", &[1, 1, b'x', 1, 2, 0, 1, 0, 0, 0, 0, 49], "not chunked by itself");
        check("rest", &[1, 1, b'x', 1, 2, 0, 1, 0, 0, 0, 0, 50, 1], "digests");
        decode(&manifest.tree, &[1, 1, b'x', 1, 2, 0, 1, 0, 0, 0, 0, 50]).unwrap();
    }

    proptest! {
        #[test]
        fn random_damage_never_panics(at: prop::sample::Index, byte: u8, rest: Vec<u8>) {
            let (manifest, table) = sample();
            let mut plain = encode(&manifest.tree, &table);
            let at = at.index(plain.len());
            plain[at] ^= byte;
            let _ = decode(&manifest.tree, &plain);
            plain.splice(at.., rest);
            let _ = decode(&manifest.tree, &plain);
        }

        #[test]
        fn a_number_is_its_bytes_and_back(number: u64) {
            let mut bytes = Vec::new();
            put_number(&mut bytes, number);
            let mut decoder = Decoder { rest: &bytes, words: Vec::new(), tensors: 0 };
            prop_assert_eq!(decoder.number().unwrap(), number);
            prop_assert!(decoder.rest.is_empty());
        }
    }
}
