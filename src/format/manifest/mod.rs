//! Manifests: the tree of one version, and the chunks of its files.
//!
//! Entries are stored breadth first: those of one directory stand together, sorted by name, so a
//! look-up is a binary search and an entry is named by its index. Entry 0 is the root.
//! Invariant M1: a manifest's name is the BLAKE3 of its bytes.
//! Invariant M2: a manifest that was parsed is a tree: every entry but the root is in exactly one
//! directory, names within one are sorted and distinct, every chunk belongs to exactly one file.
//! Its tensor table is checked when it is asked for.

mod bytes;
mod tensors;

use std::ops::Range;

use serde_json::Value;

use super::ids::{BlobDigest, ChunkId, TreeDigest};
use super::names::{ModelName, VersionNumber};

pub use bytes::ManifestError;
pub use tensors::{ChunkStarts, FileTensors, PIECE_BYTES, TensorLine};

/// Most entries of one version: a million files, and the directories that they are in.
pub const ENTRY_COUNT_MAX: usize = 1_100_000;
/// Deepest entry; the root has depth 0.
pub const DEPTH_MAX: usize = 64;
/// Longest path below a version, in bytes.
pub const PATH_BYTES_MAX: usize = 4_096;
/// Longest name of one entry, in bytes.
pub const ENTRY_NAME_BYTES_MAX: usize = 255;
/// The generated file at the root of every version.
pub const METADATA_NAME: &[u8] = b"metadata.json";

/// Index of an entry within its manifest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct EntryIndex(pub u32);

impl EntryIndex {
    /// The root directory.
    pub const ROOT: Self = Self(0);

    fn at(self) -> usize {
        self.0 as usize
    }
}

/// When a file was last written, as the source said.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Mtime {
    /// Since 1970, may be negative.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// A chunk of a file: its id and plain length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkRef {
    pub id: ChunkId,
    pub bytes: u32,
}

/// A regular file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileEntry {
    pub executable: bool,
    pub bytes: u64,
    pub digest: BlobDigest,
    chunk_first: u32,
    chunk_count: u32,
}

/// What an entry is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Node {
    Directory { first: u32, count: u32 },
    File(FileEntry),
    Symlink { target: Range<u32> },
}

/// One file, directory or symbolic link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    name: Range<u32>,
    pub mtime: Mtime,
    pub node: Node,
}

/// The tree of one version.
#[derive(Clone, PartialEq, Debug)]
pub struct Manifest {
    pub model: ModelName,
    pub version: VersionNumber,
    /// Of the tree without `metadata.json`.
    pub digest: TreeDigest,
    /// `metadata.json` without its list of files.
    pub metadata: Value,
    tree: Tree,
    /// Of its files; empty where none has a table.
    tensors: tensors::Section,
}

/// Entries, the text of their names and link targets, and the chunks of the files.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Tree {
    entries: Vec<Entry>,
    names: Vec<u8>,
    chunks: Vec<ChunkRef>,
}

impl Tree {
    /// Adds an entry behind all others. Entries must come breadth first, each directory's sorted by
    /// name; the first is the root, whose name is empty.
    pub fn push(&mut self, name: &[u8], mtime: Mtime, node: Node) -> EntryIndex {
        let index = EntryIndex(u32::try_from(self.entries.len()).expect("entries are limited"));
        let name = self.keep(name);
        self.entries.push(Entry { name, mtime, node });
        index
    }

    /// Keeps a link's target for `Node::Symlink`.
    pub fn keep(&mut self, text: &[u8]) -> Range<u32> {
        let place = |len: usize| u32::try_from(len).expect("1,000,000 names of 4 KiB fit in 4 GiB");
        let start = place(self.names.len());
        self.names.extend_from_slice(text);
        start..place(self.names.len())
    }

    /// Says which entries a directory holds.
    pub fn set_children(&mut self, directory: EntryIndex, children: Range<u32>) {
        let (first, count) = (children.start, children.end - children.start);
        self.entries[directory.at()].node = Node::Directory { first, count };
    }

    /// Says what a file holds, before its chunks are known: `set_chunks` follows.
    ///
    /// # Panics
    /// When the entry is no file.
    pub fn set_content(&mut self, file: EntryIndex, digest: BlobDigest) {
        self.file_mut(file).digest = digest;
    }

    /// Says what chunks a file of a known content has. Files may be set in any order, each once.
    ///
    /// # Panics
    /// When the entry is no file, or one of another length.
    pub fn set_chunks(&mut self, file: EntryIndex, chunks: &[ChunkRef]) {
        let FileEntry { executable, digest, bytes, .. } = *self.file_mut(file);
        self.set_file(file, executable, digest, chunks);
        assert_eq!(self.file_mut(file).bytes, bytes, "its chunks are all of a file");
    }

    fn file_mut(&mut self, index: EntryIndex) -> &mut FileEntry {
        match &mut self.entries[index.at()].node {
            Node::File(file) => file,
            Node::Directory { .. } | Node::Symlink { .. } => panic!("entry {} is no file", index.0),
        }
    }

    /// Says what a file holds. Files may be set in any order, each once.
    pub fn set_file(
        &mut self,
        file: EntryIndex,
        executable: bool,
        digest: BlobDigest,
        chunks: &[ChunkRef],
    ) {
        let chunk_first = u32::try_from(self.chunks.len()).expect("chunks are limited");
        let chunk_count = u32::try_from(chunks.len()).expect("chunks are limited");
        let bytes = chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
        self.chunks.extend_from_slice(chunks);
        let entry = FileEntry { executable, bytes, digest, chunk_first, chunk_count };
        self.entries[file.at()].node = Node::File(entry);
    }

    /// Says when an entry was last written.
    pub fn set_mtime(&mut self, entry: EntryIndex, mtime: Mtime) {
        self.entries[entry.at()].mtime = mtime;
    }

    /// A file of which nothing is known yet; `set_file` follows.
    pub fn file_to_come() -> Node {
        Self::file_to_read(false, 0)
    }

    /// A file of which no more is known yet; `set_content` or `set_file` follows.
    pub fn file_to_read(executable: bool, bytes: u64) -> Node {
        let digest = BlobDigest([0; 32]);
        let (chunk_first, chunk_count) = (0, 0);
        Node::File(FileEntry { executable, bytes, digest, chunk_first, chunk_count })
    }

    /// Number of entries, the root among them.
    pub fn entry_count(&self) -> u32 {
        u32::try_from(self.entries.len()).expect("entries are limited")
    }

    /// The entry at `index`.
    ///
    /// # Panics
    /// When the index is of another manifest.
    pub fn entry(&self, index: EntryIndex) -> &Entry {
        &self.entries[index.at()]
    }

    /// All entries in their order.
    pub fn entries(&self) -> impl Iterator<Item = (EntryIndex, &Entry)> {
        (0..).map(EntryIndex).zip(&self.entries)
    }

    /// An entry's own name; empty for the root.
    pub fn name(&self, index: EntryIndex) -> &[u8] {
        self.text(&self.entry(index).name)
    }

    fn text(&self, range: &Range<u32>) -> &[u8] {
        &self.names[range.start as usize..range.end as usize]
    }

    /// Indices of a directory's entries, sorted by name; empty for what is not a directory.
    pub fn children(&self, directory: EntryIndex) -> Range<u32> {
        match self.entry(directory).node {
            Node::Directory { first, count } => first..first + count,
            Node::File(_) | Node::Symlink { .. } => 0..0,
        }
    }

    /// The entry called `name` in `directory`. O(log n).
    pub fn find(&self, directory: EntryIndex, name: &[u8]) -> Option<EntryIndex> {
        let children = self.children(directory);
        let slice = &self.entries[children.start as usize..children.end as usize];
        let place = slice.binary_search_by(|entry| self.text(&entry.name).cmp(name)).ok()?;
        Some(EntryIndex(children.start + u32::try_from(place).expect("within a u32 range")))
    }

    /// The entry at `path` below the root, components separated by `/`.
    pub fn find_path(&self, path: &[u8]) -> Option<EntryIndex> {
        let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        let mut at = EntryIndex::ROOT;
        for name in names {
            at = self.find(at, name)?;
        }
        Some(at)
    }

    /// A symbolic link's target; empty for what is none.
    pub fn target(&self, index: EntryIndex) -> &[u8] {
        match &self.entry(index).node {
            Node::Symlink { target } => self.text(target),
            Node::Directory { .. } | Node::File(_) => &[],
        }
    }

    /// The chunks of a file of this tree, in order.
    pub fn chunks(&self, file: &FileEntry) -> &[ChunkRef] {
        &self.chunks[file.chunk_first as usize..][..file.chunk_count as usize]
    }

    /// All chunks of all files.
    pub fn all_chunks(&self) -> &[ChunkRef] {
        &self.chunks
    }

    /// Calls `visit` with every entry and its path, parents first, names in order; not the root.
    pub fn walk<'a>(&'a self, mut visit: impl FnMut(&[u8], EntryIndex, &'a Entry)) {
        let mut path = Vec::new();
        // Depth is limited, so a stack of ranges does for recursion.
        let mut open = vec![(self.children(EntryIndex::ROOT), 0)];
        while let Some((children, path_len)) = open.last_mut() {
            let Some(next) = children.next() else {
                open.pop();
                continue;
            };
            path.truncate(*path_len);
            if !path.is_empty() {
                path.push(b'/');
            }
            let index = EntryIndex(next);
            path.extend_from_slice(self.name(index));
            let entry = self.entry(index);
            visit(&path, index, entry);
            if matches!(entry.node, Node::Directory { .. }) {
                open.push((self.children(index), path.len()));
            }
        }
    }

    /// Puts the chunks in the order of their files (M2).
    fn order_chunks(&mut self) {
        let mut next = 0;
        let is_next = |entry: &Entry| match &entry.node {
            Node::File(file) => {
                let first = std::mem::replace(&mut next, file.chunk_first + file.chunk_count);
                file.chunk_first == first
            }
            Node::Directory { .. } | Node::Symlink { .. } => true,
        };
        if self.entries.iter().all(is_next) && next as usize == self.chunks.len() {
            return;
        }
        let mut ordered = Vec::with_capacity(self.chunks.len());
        for entry in &mut self.entries {
            let Node::File(file) = &mut entry.node else { continue };
            let place = file.chunk_first as usize..(file.chunk_first + file.chunk_count) as usize;
            file.chunk_first = u32::try_from(ordered.len()).expect("chunks are limited");
            ordered.extend_from_slice(&self.chunks[place]);
        }
        self.chunks = ordered;
    }

    /// The digest of names, kinds, executable bits and contents; times and the generated
    /// `metadata.json` are left out. FORMAT.md, "Tree digest".
    pub fn digest(&self) -> TreeDigest {
        let mut hasher = blake3::Hasher::new_derive_key("modelfs tree v1");
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        self.walk(|path, _, entry| {
            if path == METADATA_NAME {
                return;
            }
            match &entry.node {
                Node::Directory { .. } => {
                    part(b"directory");
                    part(path);
                }
                Node::File(file) => {
                    part(if file.executable { b"executable" } else { b"file" });
                    part(path);
                    part(&file.bytes.to_le_bytes());
                    part(file.digest.as_bytes());
                }
                Node::Symlink { target } => {
                    part(b"symlink");
                    part(path);
                    part(self.text(target));
                }
            }
        });
        TreeDigest(*hasher.finalize().as_bytes())
    }
}

impl Manifest {
    /// A manifest of `tree`, which is complete.
    pub fn new(model: ModelName, version: VersionNumber, metadata: Value, mut tree: Tree) -> Self {
        tree.order_chunks();
        let digest = tree.digest();
        Self { model, version, digest, metadata, tree, tensors: tensors::Section::default() }
    }
}

/// A manifest is its tree, and some.
impl std::ops::Deref for Manifest {
    type Target = Tree;
    fn deref(&self) -> &Tree {
        &self.tree
    }
}

#[cfg(test)]
mod tests;
