//! Which file of one version is which of another: by path, then by content.

use std::collections::{HashMap, VecDeque};

use super::report::{
    EntryForm, EntryKind, FileChange, FileChanges, FileLine, FileRename, LISTED_MAX,
};
use crate::format::ids::{BlobDigest, ChunkId};
use crate::format::manifest::{EntryIndex, FileEntry, METADATA_NAME, Manifest, Node};

/// Files that are to be looked into: the same path, or the same content.
pub(super) struct FilePair {
    pub before: EntryIndex,
    pub after: EntryIndex,
    /// In the later version.
    pub path: Vec<u8>,
}

/// An entry that stands for itself, by its path.
struct Found {
    path: Vec<u8>,
    entry: EntryIndex,
}

/// What became of the files, and those that both versions have.
pub(super) fn compare(before: &Manifest, after: &Manifest) -> (FileChanges, Vec<FilePair>) {
    let mut changes = FileChanges::default();
    let mut pairs = Vec::new();
    let old = entries(before);
    let mut left: HashMap<Vec<u8>, EntryIndex> =
        old.into_iter().map(|found| (found.path, found.entry)).collect();
    let mut added = Vec::new();
    for found in entries(after) {
        let Some(entry) = left.remove(&found.path) else {
            added.push(found);
            continue;
        };
        compare_entry(&mut changes, (before, entry), (after, &found));
        if let (Node::File(_), Node::File(_)) =
            (&before.entry(entry).node, &after.entry(found.entry).node)
        {
            pairs.push(FilePair { before: entry, after: found.entry, path: found.path });
        }
    }
    let mut removed: Vec<Found> =
        left.into_iter().map(|(path, entry)| Found { path, entry }).collect();
    removed.sort_by(|a, b| a.path.cmp(&b.path));
    let renamed = match_contents((before, &mut removed), (after, &mut added));
    for (old, new) in &renamed {
        let bytes = form(after, new.entry).bytes;
        let (old, new) = (shown(&old.path), shown(&new.path));
        changes.renamed.push(FileRename { before: old, after: new, bytes });
    }
    pairs.extend(renamed.into_iter().map(|(old, new)| FilePair {
        before: old.entry,
        after: new.entry,
        path: new.path,
    }));
    let line = |of: &Manifest, found: &Found| FileLine {
        path: shown(&found.path),
        form: form(of, found.entry),
    };
    changes.added = added.iter().map(|found| line(after, found)).collect();
    changes.removed = removed.iter().map(|found| line(before, found)).collect();
    (limited(changes), pairs)
}

/// The entries that stand for themselves, in the order of a walk; not the generated metadata.
fn entries(manifest: &Manifest) -> Vec<Found> {
    let mut found = Vec::new();
    manifest.walk(|path, entry, of| {
        let counts = match of.node {
            Node::Directory { count, .. } => count == 0,
            Node::File(_) => path != METADATA_NAME,
            Node::Symlink { .. } => true,
        };
        if counts {
            found.push(Found { path: path.to_vec(), entry });
        }
    });
    found
}

fn compare_entry(
    changes: &mut FileChanges,
    (before, old): (&Manifest, EntryIndex),
    (after, new): (&Manifest, &Found),
) {
    let (old_form, new_form) = (form(before, old), form(after, new.entry));
    let (old_file, new_file) = (file(before, old), file(after, new.entry));
    let digest = |file: Option<&FileEntry>| file.map(|file| file.digest);
    if old_form == new_form && digest(old_file) == digest(new_file) {
        changes.same += 1;
        changes.same_bytes += new_form.bytes;
        return;
    }
    let shared_bytes = match (old_file, new_file) {
        (Some(old), Some(new)) => shared_bytes((before, old), (after, new)),
        _ => 0,
    };
    let path = shown(&new.path);
    changes.changed.push(FileChange { path, before: old_form, after: new_form, shared_bytes });
}

fn file(manifest: &Manifest, entry: EntryIndex) -> Option<&FileEntry> {
    match &manifest.entry(entry).node {
        Node::File(file) => Some(file),
        Node::Directory { .. } | Node::Symlink { .. } => None,
    }
}

fn form(manifest: &Manifest, entry: EntryIndex) -> EntryForm {
    let plain = |kind, bytes| EntryForm { kind, bytes, target: None };
    match &manifest.entry(entry).node {
        Node::Directory { .. } => plain(EntryKind::Directory, 0),
        Node::File(file) if file.executable => plain(EntryKind::Executable, file.bytes),
        Node::File(file) => plain(EntryKind::File, file.bytes),
        Node::Symlink { .. } => {
            let target = manifest.target(entry);
            let bytes = target.len() as u64;
            EntryForm { kind: EntryKind::Symlink, bytes, target: Some(shown(target)) }
        }
    }
}

/// Bytes of the chunks of a file that another has as well.
fn shared_bytes(
    (before, old): (&Manifest, &FileEntry),
    (after, new): (&Manifest, &FileEntry),
) -> u64 {
    let mut had: HashMap<ChunkId, u64> = HashMap::new();
    for chunk in before.chunks(old) {
        *had.entry(chunk.id).or_default() += 1;
    }
    let mut bytes = 0;
    for chunk in after.chunks(new) {
        if let Some(count) = had.get_mut(&chunk.id).filter(|count| 0 < **count) {
            *count -= 1;
            bytes += u64::from(chunk.bytes);
        }
    }
    bytes
}

/// Takes the files out of both lists that have the same content; of several those first that have the
/// same name in another directory.
fn match_contents(
    (before, removed): (&Manifest, &mut Vec<Found>),
    (after, added): (&Manifest, &mut Vec<Found>),
) -> Vec<(Found, Found)> {
    let key = |manifest: &Manifest, found: &Found| -> Option<(BlobDigest, bool)> {
        let file = file(manifest, found.entry)?;
        (file.bytes != 0).then_some((file.digest, file.executable))
    };
    let mut had: HashMap<_, VecDeque<Found>> = HashMap::new();
    let mut others = Vec::new();
    for found in removed.drain(..) {
        match key(before, &found) {
            Some(key) => had.entry(key).or_default().push_back(found),
            None => others.push(found),
        }
    }
    let (mut renamed, mut new) = (Vec::new(), Vec::new());
    for found in added.drain(..) {
        let same = key(after, &found).and_then(|key| had.get_mut(&key));
        let Some(same) = same.filter(|same| !same.is_empty()) else {
            new.push(found);
            continue;
        };
        let alike = same.iter().position(|old| name(&old.path) == name(&found.path)).unwrap_or(0);
        let old = same.remove(alike).expect("it is not empty");
        renamed.push((old, found));
    }
    others.extend(had.into_values().flatten());
    others.sort_by(|a, b| a.path.cmp(&b.path));
    (*removed, *added) = (others, new);
    renamed
}

fn name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// A path as text; what is not UTF-8 is replaced.
pub(super) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// Counts the lists, then cuts them to what is listed.
fn limited(mut changes: FileChanges) -> FileChanges {
    fn cut<T>(list: &mut Vec<T>) -> u64 {
        let total = list.len() as u64;
        list.truncate(LISTED_MAX);
        total
    }
    changes.added_total = cut(&mut changes.added);
    changes.removed_total = cut(&mut changes.removed);
    changes.renamed_total = cut(&mut changes.renamed);
    changes.changed_total = cut(&mut changes.changed);
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::manifest::{ChunkRef, Mtime, Tree};
    use serde_json::json;

    /// A version of these files at its root, each of chunks of ten bytes; one that ends in `/` is an
    /// empty directory, one with `->` a link.
    fn version(files: &[(&str, &[u8])]) -> Manifest {
        let mut tree = Tree::default();
        let root = tree.push(b"", Mtime::default(), Node::Directory { first: 0, count: 0 });
        let mut sorted = files.to_vec();
        sorted.sort_unstable();
        for (name, chunks) in &sorted {
            let push = |tree: &mut Tree, name: &str, node| {
                tree.push(name.as_bytes(), Mtime::default(), node)
            };
            if let Some(name) = name.strip_suffix('/') {
                push(&mut tree, name, Node::Directory { first: 0, count: 0 });
            } else if let Some((name, target)) = name.split_once("->") {
                let target = tree.keep(target.as_bytes());
                push(&mut tree, name, Node::Symlink { target });
            } else {
                let (name, executable) = match name.strip_suffix('*') {
                    Some(name) => (name, true),
                    None => (*name, false),
                };
                let file = push(&mut tree, name, Tree::file_to_come());
                let refs: Vec<ChunkRef> =
                    chunks.iter().map(|c| ChunkRef { id: ChunkId::of(&[*c]), bytes: 10 }).collect();
                tree.set_file(file, executable, BlobDigest::of(chunks), &refs);
            }
        }
        let count = u32::try_from(sorted.len()).unwrap();
        tree.set_children(root, 1..1 + count);
        Manifest::new("m".parse().unwrap(), "v1".parse().unwrap(), json!({}), tree)
    }

    #[test]
    fn files_are_found_by_path_and_then_by_content() {
        let before = version(&[
            ("a", &[1, 2, 3]),
            ("gone", &[9]),
            ("metadata.json", &[7]),
            ("moved", &[4, 5]),
            ("same", &[6]),
        ]);
        let after = version(&[
            ("a", &[1, 8, 3, 3]),
            ("metadata.json", &[8]),
            ("moved-here", &[4, 5]),
            ("new", &[1, 2]),
            ("same", &[6]),
        ]);
        let (changes, pairs) = compare(&before, &after);
        assert_eq!((changes.same, changes.same_bytes), (1, 10));
        let changed = &changes.changed[0];
        assert_eq!((changed.path.as_str(), changed.shared_bytes), ("a", 20));
        assert_eq!((changed.before.bytes, changed.after.bytes), (30, 40));
        let renamed = &changes.renamed[0];
        assert_eq!((renamed.before.as_str(), renamed.after.as_str()), ("moved", "moved-here"));
        assert_eq!(changes.added[0].path, "new");
        assert_eq!(changes.removed[0].path, "gone");
        assert_eq!(pairs.len(), 3, "a, same, moved");
        let totals = (changes.added_total, changes.removed_total, changes.changed_total);
        assert_eq!(totals, (1, 1, 1));
    }

    #[test]
    fn what_is_no_file_is_compared_too() {
        let before = version(&[("empty/", &[]), ("link->a", &[]), ("run", &[1]), ("turns/", &[])]);
        let after = version(&[("link->b", &[]), ("run*", &[1]), ("turns", &[2])]);
        let (changes, pairs) = compare(&before, &after);
        let kinds: Vec<_> = changes
            .changed
            .iter()
            .map(|change| (change.path.as_str(), change.before.kind, change.after.kind))
            .collect();
        let (file, executable) = (EntryKind::File, EntryKind::Executable);
        assert_eq!(
            kinds,
            [
                ("link", EntryKind::Symlink, EntryKind::Symlink),
                ("run", file, executable),
                ("turns", EntryKind::Directory, file),
            ]
        );
        assert_eq!(changes.changed[0].after.target.as_deref(), Some("b"));
        assert_eq!(changes.removed[0].form.kind, EntryKind::Directory);
        assert_eq!(pairs.len(), 1);
        assert_eq!(compare(&before, &before).0.same, 4);
    }

    #[test]
    fn of_several_with_one_content_the_one_with_the_name_is_meant() {
        let before = version(&[("x", &[1]), ("y", &[1]), ("z", &[])]);
        let after = version(&[("p", &[1]), ("q", &[1]), ("r", &[1]), ("s", &[])]);
        let (changes, _) = compare(&before, &after);
        let renamed: Vec<_> =
            changes.renamed.iter().map(|it| (it.before.as_str(), it.after.as_str())).collect();
        assert_eq!(renamed, [("x", "p"), ("y", "q")]);
        let added: Vec<_> = changes.added.iter().map(|line| line.path.as_str()).collect();
        assert_eq!(added, ["r", "s"], "empty files are not the same file");
    }
}
