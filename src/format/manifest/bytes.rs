//! The stored form of a manifest: a header, a table of sections, the sections.
//!
//! Everything is checked on the way in: a manifest that was parsed can be walked without a check.

use serde_json::{Value, json};

use super::super::canonical::{self, CanonicalError};
use super::super::codec::CodecError;
use super::super::frame::{self, Effort};
use super::super::ids::{BlobDigest, ChunkId, DIGEST_BYTES, ManifestId};
use super::{
    ChunkRef, DEPTH_MAX, ENTRY_COUNT_MAX, ENTRY_NAME_BYTES_MAX, Entry, FileEntry, Manifest, Mtime,
    Node, PATH_BYTES_MAX, Tree, tensors,
};

const MAGIC: [u8; 8] = *b"MFSMANI\x01";
const SECTION_LINE_BYTES: usize = 24;
const ENTRY_BYTES: usize = 72;
const CHUNK_BYTES: usize = DIGEST_BYTES + 4;
/// Largest section, decoded.
const SECTION_BYTES_MAX: u64 = 1 << 30;
/// Plain bytes of one zstd frame of a section.
const FRAME_BYTES: usize = 4 << 20;

const METADATA: u32 = 1;
const ENTRIES: u32 = 2;
const NAMES: u32 = 3;
const CHUNKS: u32 = 4;
/// Absent where no file has a tensor table.
pub(super) const TENSORS: u32 = 5;
const SECTIONS: [u32; 4] = [METADATA, ENTRIES, NAMES, CHUNKS];

const DIRECTORY: u8 = 0;
const FILE: u8 = 1;
const SYMLINK: u8 = 2;
const EXECUTABLE: u8 = 1;

/// Why bytes are not a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("not a manifest of version 1, or cut off")]
    Header,
    #[error("section {kind} is damaged: {why}")]
    Section { kind: u32, why: &'static str },
    #[error("section {kind}: {source}")]
    Codec { kind: u32, source: CodecError },
    #[error("its metadata: {0}")]
    Metadata(#[from] CanonicalError),
    #[error("entry {index}: {why}")]
    Entry { index: usize, why: &'static str },
    #[error("its tree has another digest than it says")]
    Digest,
    #[error("{found} {what}, at most {most}")]
    Limit { what: &'static str, most: usize, found: usize },
}

impl Manifest {
    /// The file's bytes, and their name.
    pub fn encode(&self) -> (Vec<u8>, ManifestId) {
        let tensors::Section { plain_bytes, stored } = &self.tensors;
        let section_count = SECTIONS.len() + usize::from(*plain_bytes != 0);
        let body_at = MAGIC.len() + section_count * SECTION_LINE_BYTES;
        let mut bytes = vec![0; body_at];
        let mut table = MAGIC.to_vec();
        let mut put = |kind, write: &mut dyn FnMut(&mut FrameWriter<'_>)| {
            let before = bytes.len();
            let mut frames = FrameWriter::new(&mut bytes);
            write(&mut frames);
            let plain_bytes = frames.finish();
            put_line(&mut table, kind, plain_bytes, bytes.len() - before);
        };
        // Line by line: a million entries have 72 MB.
        put(METADATA, &mut |frames| frames.put(&self.metadata_bytes()));
        put(ENTRIES, &mut |frames| {
            self.tree.entries.iter().for_each(|entry| frames.put(&entry_line(entry)));
        });
        put(NAMES, &mut |frames| frames.put(&self.tree.names));
        put(CHUNKS, &mut |frames| {
            self.tree.chunks.iter().for_each(|chunk| frames.put(&chunk_line(chunk)));
        });
        if *plain_bytes != 0 {
            bytes.extend_from_slice(stored);
            put_line(&mut table, TENSORS, *plain_bytes, stored.len());
        }
        bytes[..body_at].copy_from_slice(&table);
        let id = ManifestId::of(&bytes);
        (bytes, id)
    }

    fn metadata_bytes(&self) -> Vec<u8> {
        let (model, version, digest) = (&self.model, self.version, self.digest);
        let head = json!({
            "digest": digest, "metadata": self.metadata, "model": model, "version": version,
        });
        canonical::encode(&head).into_bytes()
    }

    /// Parses the file's bytes and checks that they are a whole tree (M2). The caller has compared
    /// the digest of `bytes` with the name.
    ///
    /// # Errors
    /// Says what is not as it must be; nothing is allocated on the word of a damaged length.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let ([metadata, entries, names, chunks], tensors) = read_sections(bytes)?;
        let head: Value = canonical::parse(&metadata.read()?)?;
        let field = |name: &str| head.get(name).cloned().unwrap_or(Value::Null);
        let text = |name: &str| field(name).as_str().unwrap_or_default().to_owned();
        let wrong = ManifestError::Section { kind: METADATA, why: "a name or digest is missing" };
        let (Ok(model), Ok(version), Ok(digest)) =
            (text("model").parse(), text("version").parse(), text("digest").parse())
        else {
            return Err(wrong);
        };
        let entries = decode_entries(&entries)?;
        let tree = Tree { entries, names: names.read()?, chunks: decode_chunks(&chunks)? };
        let manifest = Self { model, version, digest, metadata: field("metadata"), tree, tensors };
        manifest.check()?;
        Ok(manifest)
    }

    /// Sees to it that `bytes` would be parsed as this manifest, without making a second one of them.
    ///
    /// # Errors
    /// As [`Manifest::parse`]; `Section` where they would be parsed as another.
    pub fn check_encoded(&self, bytes: &[u8]) -> Result<(), ManifestError> {
        let ([metadata, entries, names, chunks], tensors) = read_sections(bytes)?;
        let head = metadata.read()?;
        canonical::parse_value(&head)?;
        entries.check_lines(self.tree.entries.iter().map(entry_line))?;
        chunks.check_lines(self.tree.chunks.iter().map(chunk_line))?;
        if head != self.metadata_bytes() {
            return Err(metadata.is_another());
        }
        if names.read()? != self.tree.names {
            return Err(names.is_another());
        }
        if tensors != self.tensors {
            let why = "it reads back as another";
            return Err(ManifestError::Section { kind: TENSORS, why });
        }
        self.tensors()?;
        self.check()
    }

    /// Checks what every manifest keeps to.
    fn check(&self) -> Result<(), ManifestError> {
        check_tree(&self.tree)?;
        match self.tree.digest() == self.digest {
            true => Ok(()),
            false => Err(ManifestError::Digest),
        }
    }
}

/// Writes the line of a section.
fn put_line(table: &mut Vec<u8>, kind: u32, plain_bytes: usize, stored_bytes: usize) {
    table.extend_from_slice(&kind.to_le_bytes());
    table.extend_from_slice(&[0; 4]);
    table.extend_from_slice(&(plain_bytes as u64).to_le_bytes());
    table.extend_from_slice(&(stored_bytes as u64).to_le_bytes());
}

/// Writes a section as frames.
pub(super) fn write_frames(plain: &[u8], body: &mut Vec<u8>) {
    let mut frames = FrameWriter::new(body);
    frames.put(plain);
    frames.finish();
}

/// A section that is being written.
struct FrameWriter<'a> {
    body: &'a mut Vec<u8>,
    /// The plain bytes of the next frame, and how many there were before.
    frame: Vec<u8>,
    bytes: usize,
}

impl<'a> FrameWriter<'a> {
    fn new(body: &'a mut Vec<u8>) -> Self {
        Self { body, frame: Vec::new(), bytes: 0 }
    }

    fn put(&mut self, mut plain: &[u8]) {
        while FRAME_BYTES <= self.frame.len() + plain.len() {
            let (first, rest) = plain.split_at(FRAME_BYTES - self.frame.len());
            self.frame.extend_from_slice(first);
            self.write();
            plain = rest;
        }
        self.frame.extend_from_slice(plain);
    }

    fn write(&mut self) {
        let start = self.body.len();
        self.body.extend_from_slice(&[0; 4]);
        let bytes = frame::put(Effort::General, &self.frame, self.body);
        let bytes = u32::try_from(bytes).expect("a frame is at most some MiB");
        self.body[start..start + 4].copy_from_slice(&bytes.to_le_bytes());
        self.bytes += self.frame.len();
        self.frame.clear();
    }

    /// Writes what is left; the plain bytes of the section.
    fn finish(mut self) -> usize {
        if !self.frame.is_empty() {
            self.write();
        }
        self.bytes
    }
}

/// A section as it is stored.
struct Stored<'a> {
    kind: u32,
    frames: &'a [u8],
    plain_bytes: usize,
}

impl Stored<'_> {
    /// All of it, decoded.
    fn read(&self) -> Result<Vec<u8>, ManifestError> {
        read_frames(self.kind, self.frames, self.plain_bytes)
    }

    /// Decodes it frame by frame, and calls `take` with each of its lines.
    fn read_lines<const LINE_BYTES: usize>(
        &self,
        mut take: impl FnMut(&[u8; LINE_BYTES]) -> Result<(), ManifestError>,
    ) -> Result<(), ManifestError> {
        let Self { kind, plain_bytes, .. } = *self;
        if !plain_bytes.is_multiple_of(LINE_BYTES) {
            return Err(ManifestError::Section { kind, why: "it holds no whole lines" });
        }
        let (mut room, mut rest) = (Vec::new(), self.frames);
        let mut left = plain_bytes;
        while 0 < left {
            let start = room.len();
            room.resize(start + left.min(FRAME_BYTES), 0);
            rest = read_frame(kind, rest, &mut room[start..])?;
            left -= room.len() - start;
            let (lines, cut) = room.as_chunks::<LINE_BYTES>();
            lines.iter().try_for_each(&mut take)?;
            let cut = cut.len();
            room.drain(..room.len() - cut);
        }
        check_end(kind, rest)
    }

    /// Sees to it that it holds exactly these lines.
    fn check_lines<const LINE_BYTES: usize>(
        &self,
        mut expected: impl Iterator<Item = [u8; LINE_BYTES]>,
    ) -> Result<(), ManifestError> {
        self.read_lines(|line| match expected.next() {
            Some(expected) if expected == *line => Ok(()),
            Some(_) | None => Err(self.is_another()),
        })?;
        expected.next().map_or(Ok(()), |_| Err(self.is_another()))
    }

    fn is_another(&self) -> ManifestError {
        ManifestError::Section { kind: self.kind, why: "it reads back as another" }
    }
}

/// The four sections that are always there, and the tensor table.
fn read_sections(bytes: &[u8]) -> Result<([Stored<'_>; 4], tensors::Section), ManifestError> {
    let magic = bytes.strip_prefix(&MAGIC).ok_or(ManifestError::Header)?;
    let table_bytes = SECTION_LINE_BYTES * SECTIONS.len();
    let (table, mut body) = magic.split_at_checked(table_bytes).ok_or(ManifestError::Header)?;
    let mut sections = SECTIONS.map(|kind| Stored { kind, frames: &[], plain_bytes: 0 });
    // A frame is never so short and goes on with zstd's magic, so that it is no section's line.
    let tensors_line = match body.split_at_checked(SECTION_LINE_BYTES) {
        Some((line, rest)) if line[..8] == u64::from(TENSORS).to_le_bytes() => {
            body = rest;
            Some(line)
        }
        _ => None,
    };
    for (line, section) in table.chunks_exact(SECTION_LINE_BYTES).zip(&mut sections) {
        (section.frames, section.plain_bytes) =
            take_section(section.kind, line, SECTION_BYTES_MAX, &mut body)?;
    }
    let mut tensors = tensors::Section::default();
    if let Some(line) = tensors_line {
        let most = tensors::TABLE_BYTES_MAX as u64;
        let (stored, plain_bytes) = take_section(TENSORS, line, most, &mut body)?;
        // One manifest has one form: no table is no section.
        if plain_bytes == 0 {
            return Err(ManifestError::Section { kind: TENSORS, why: "it is empty" });
        }
        tensors = tensors::Section { plain_bytes, stored: stored.to_vec() };
    }
    if !body.is_empty() {
        return Err(ManifestError::Section { kind: CHUNKS, why: "bytes follow the last section" });
    }
    Ok((sections, tensors))
}

/// Takes the stored bytes of the section with this `line` off `body`; how long they are decoded.
fn take_section<'a>(
    kind: u32,
    line: &[u8],
    bytes_max: u64,
    body: &mut &'a [u8],
) -> Result<(&'a [u8], usize), ManifestError> {
    let wrong = |why| ManifestError::Section { kind, why };
    if line[..4] != kind.to_le_bytes() || line[4..8] != [0; 4] {
        return Err(wrong("it is not of the kind expected there"));
    }
    let (plain_bytes, stored_bytes) = (u64_at(line, 8), u64_at(line, 16));
    if bytes_max < plain_bytes {
        return Err(wrong("it says that it is larger than it may be"));
    }
    let stored_bytes = usize::try_from(stored_bytes).unwrap_or(usize::MAX);
    let (stored, rest) = body.split_at_checked(stored_bytes).ok_or(wrong("it is cut off"))?;
    *body = rest;
    Ok((stored, usize::try_from(plain_bytes).expect("checked above")))
}

/// Decodes the frames of a section to exactly `bytes`.
pub(super) fn read_frames(
    kind: u32,
    mut stored: &[u8],
    bytes: usize,
) -> Result<Vec<u8>, ManifestError> {
    let mut plain = Vec::new();
    while plain.len() < bytes {
        let start = plain.len();
        plain.resize(bytes.min(start + FRAME_BYTES), 0);
        stored = read_frame(kind, stored, &mut plain[start..])?;
    }
    check_end(kind, stored)?;
    Ok(plain)
}

/// Decodes the first frame of what is left of a section to exactly `plain`; what is left then.
fn read_frame<'a>(
    kind: u32,
    stored: &'a [u8],
    plain: &mut [u8],
) -> Result<&'a [u8], ManifestError> {
    let cut = ManifestError::Section { kind, why: "a frame is cut off" };
    let Some((length, rest)) = stored.split_first_chunk::<4>() else { return Err(cut) };
    let length = u32::from_le_bytes(*length) as usize;
    let Some((frame, rest)) = rest.split_at_checked(length) else { return Err(cut) };
    frame::load(frame, plain).map_err(|source| ManifestError::Codec { kind, source })?;
    Ok(rest)
}

fn check_end(kind: u32, rest: &[u8]) -> Result<(), ManifestError> {
    match rest {
        [] => Ok(()),
        _ => Err(ManifestError::Section { kind, why: "bytes follow its last frame" }),
    }
}

fn entry_line(entry: &Entry) -> [u8; ENTRY_BYTES] {
    let (kind, flags, place, size, digest) = match &entry.node {
        Node::Directory { first, count } => (DIRECTORY, 0, (*first, *count), 0, [0; 32]),
        Node::Symlink { target } => (SYMLINK, 0, (target.start, target.end), 0, [0; 32]),
        Node::File(file) => {
            let flags = if file.executable { EXECUTABLE } else { 0 };
            (FILE, flags, (file.chunk_first, file.chunk_count), file.bytes, file.digest.0)
        }
    };
    let mut line = [0; ENTRY_BYTES];
    line[..2].copy_from_slice(&[kind, flags]);
    let numbers = [entry.name.start, entry.name.end, place.0, place.1, entry.mtime.nanos];
    for (out, number) in line[4..24].chunks_exact_mut(4).zip(numbers) {
        out.copy_from_slice(&number.to_le_bytes());
    }
    line[24..32].copy_from_slice(&entry.mtime.seconds.to_le_bytes());
    line[32..40].copy_from_slice(&size.to_le_bytes());
    line[40..].copy_from_slice(&digest);
    line
}

fn parse_entry(line: &[u8; ENTRY_BYTES]) -> Option<Entry> {
    let (first, second) = (u32_at(line, 12), u32_at(line, 16));
    let digest = line[40..].try_into().expect("the rest of an entry is a digest");
    let (bytes, digest) = (u64_at(line, 32), BlobDigest(digest));
    let node = match line[..4] {
        [DIRECTORY, 0, 0, 0] => Node::Directory { first, count: second },
        [SYMLINK, 0, 0, 0] => Node::Symlink { target: first..second },
        [FILE, flags @ (0 | EXECUTABLE), 0, 0] => Node::File(FileEntry {
            executable: flags == EXECUTABLE,
            bytes,
            digest,
            chunk_first: first,
            chunk_count: second,
        }),
        _ => return None,
    };
    let mtime = Mtime { nanos: u32_at(line, 20), seconds: u64_at(line, 24).cast_signed() };
    Some(Entry { name: u32_at(line, 4)..u32_at(line, 8), mtime, node })
}

fn decode_entries(stored: &Stored<'_>) -> Result<Vec<Entry>, ManifestError> {
    let count = stored.plain_bytes / ENTRY_BYTES;
    if count == 0 {
        return Err(ManifestError::Section { kind: ENTRIES, why: "it holds no whole lines" });
    }
    if ENTRY_COUNT_MAX < count {
        return Err(ManifestError::Limit { what: "entries", most: ENTRY_COUNT_MAX, found: count });
    }
    let mut entries = Vec::new();
    stored.read_lines(|line| {
        let unknown = ManifestError::Entry { index: entries.len(), why: "of an unknown kind" };
        entries.push(parse_entry(line).ok_or(unknown)?);
        Ok(())
    })?;
    Ok(entries)
}

fn chunk_line(chunk: &ChunkRef) -> [u8; CHUNK_BYTES] {
    let mut line = [0; CHUNK_BYTES];
    line[..DIGEST_BYTES].copy_from_slice(chunk.id.as_bytes());
    line[DIGEST_BYTES..].copy_from_slice(&chunk.bytes.to_le_bytes());
    line
}

fn decode_chunks(stored: &Stored<'_>) -> Result<Vec<ChunkRef>, ManifestError> {
    let mut chunks = Vec::new();
    stored.read_lines(|line: &[u8; CHUNK_BYTES]| {
        let id = ChunkId(line[..DIGEST_BYTES].try_into().expect("a line starts with a digest"));
        chunks.push(ChunkRef { id, bytes: u32_at(line, DIGEST_BYTES) });
        Ok(())
    })?;
    Ok(chunks)
}

/// Checks M2 and every range, in one pass over the entries.
fn check_tree(tree: &Tree) -> Result<(), ManifestError> {
    // Depth and length of the path above each entry.
    let mut above = vec![(0_u8, 0_u16); tree.entries.len()];
    let (mut next_entry, mut next_chunk) = (1, 0);
    for (index, entry) in tree.entries.iter().enumerate() {
        let wrong = |why| ManifestError::Entry { index, why };
        check_text(&entry.name, tree).map_err(wrong)?;
        if 999_999_999 < entry.mtime.nanos {
            return Err(wrong("its time has more than 999,999,999 nanoseconds"));
        }
        let (depth, path_bytes) = above[index];
        let path_bytes = usize::from(path_bytes) + entry.name.len() + 1;
        if DEPTH_MAX < usize::from(depth) || PATH_BYTES_MAX < path_bytes {
            return Err(wrong("its path is too deep or too long"));
        }
        let below = (depth + 1, u16::try_from(path_bytes).expect("at most 4 KiB"));
        match &entry.node {
            Node::Directory { first, count } => {
                let end = first.checked_add(*count).ok_or(wrong("its entries do not exist"))?;
                let children = *first as usize..end as usize;
                if children.start != next_entry || above.len() < children.end {
                    return Err(wrong("its entries are not those that come next"));
                }
                above[children.clone()].fill(below);
                check_names(tree, children).map_err(wrong)?;
                next_entry = end as usize;
            }
            Node::File(file) => {
                let end = file.chunk_first.checked_add(file.chunk_count);
                let chunks = tree.chunks.get(file.chunk_first as usize..end.unwrap_or(0) as usize);
                let chunks = chunks.ok_or(wrong("its chunks do not exist"))?;
                let sum: u64 = chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
                if file.chunk_first as usize != next_chunk || sum != file.bytes {
                    return Err(wrong("its chunks do not add up"));
                }
                next_chunk += chunks.len();
            }
            Node::Symlink { target } => check_text(target, tree).map_err(wrong)?,
        }
    }
    let root = ManifestError::Entry { index: 0, why: "the root is not an unnamed directory" };
    match tree.entries[0] {
        Entry { ref name, node: Node::Directory { .. }, .. } if name.is_empty() => {}
        _ => return Err(root),
    }
    if next_entry != tree.entries.len() || next_chunk != tree.chunks.len() {
        return Err(ManifestError::Entry { index: next_entry, why: "in no directory" });
    }
    Ok(())
}

fn check_text(range: &std::ops::Range<u32>, tree: &Tree) -> Result<(), &'static str> {
    let fits = range.start <= range.end && range.end as usize <= tree.names.len();
    if fits { Ok(()) } else { Err("its name or target is out of range") }
}

fn check_names(tree: &Tree, children: std::ops::Range<usize>) -> Result<(), &'static str> {
    let mut before: &[u8] = &[];
    for entry in &tree.entries[children] {
        check_text(&entry.name, tree)?;
        let name = tree.text(&entry.name);
        let plain = !name.contains(&b'/') && !name.contains(&0) && name != b"." && name != b"..";
        if !plain || ENTRY_NAME_BYTES_MAX < name.len() {
            return Err("an entry has a name that no file can have");
        }
        // The empty name is caught here as well: nothing is less than it.
        if name <= before {
            return Err("its entries are not sorted, or two have one name");
        }
        before = name;
    }
    Ok(())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
