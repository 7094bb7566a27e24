//! Which tensor of one version is which of another: by name within a file, by name across files, and
//! then by content. A tensor that is the same is told by its digest; nothing is read here.

use std::collections::{HashMap, VecDeque};

use super::files::{FilePair, shown};
use super::report::TensorForm;
use crate::format::ids::TensorDigest;
use crate::format::manifest::{EntryIndex, FileEntry, FileTensors, Manifest, Node, TensorLine};

/// One version with the tables of its files.
pub(super) struct Tabled<'a> {
    pub manifest: &'a Manifest,
    files: HashMap<EntryIndex, TabledFile<'a>>,
}

struct TabledFile<'a> {
    path: String,
    file: &'a FileEntry,
    tensors: &'a [TensorLine],
}

/// A tensor and the file that it is in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Located<'a> {
    pub file: EntryIndex,
    pub line: &'a TensorLine,
}

/// A tensor of both versions.
pub(super) type Both<'a> = (Located<'a>, Located<'a>);

/// What the tables say.
#[derive(Debug, Default)]
pub(super) struct Matched<'a> {
    pub same: Vec<Both<'a>>,
    /// The same but for the name.
    pub renamed: Vec<Both<'a>>,
    /// Of the same dtype and shape, and of other bytes.
    pub changed: Vec<Both<'a>>,
    /// Of another dtype or shape.
    pub reshaped: Vec<Both<'a>>,
    pub added: Vec<Located<'a>>,
    pub removed: Vec<Located<'a>>,
}

impl<'a> Tabled<'a> {
    pub fn new(manifest: &'a Manifest, tables: &'a [FileTensors]) -> Self {
        let mut left: HashMap<EntryIndex, &[TensorLine]> =
            tables.iter().map(|of| (of.file, of.tensors.as_slice())).collect();
        let mut files = HashMap::with_capacity(left.len());
        manifest.walk(|path, index, entry| {
            if let Node::File(file) = &entry.node
                && let Some(tensors) = left.remove(&index)
            {
                files.insert(index, TabledFile { path: shown(path), file, tensors });
            }
        });
        Self { manifest, files }
    }

    /// The tensors of a file, in the order of their bytes.
    pub fn tensors(&self, file: EntryIndex) -> impl Iterator<Item = Located<'a>> {
        let tensors = self.files.get(&file).map_or(&[][..], |of| of.tensors);
        tensors.iter().map(move |line| Located { file, line })
    }

    /// The file that a tensor is in.
    pub fn file(&self, tensor: &Located<'_>) -> &'a FileEntry {
        self.files[&tensor.file].file
    }

    /// A tensor as the report has it.
    pub fn form(&self, tensor: &Located<'_>) -> TensorForm {
        let TensorLine { name, dtype, shape, .. } = tensor.line;
        TensorForm {
            file: self.files[&tensor.file].path.clone(),
            name: name.clone(),
            dtype: dtype.to_string(),
            shape: shape.clone(),
            bytes: tensor.bytes(),
        }
    }
}

impl Located<'_> {
    /// Bytes of the tensor.
    pub fn bytes(&self) -> u64 {
        self.line.bytes.end - self.line.bytes.start
    }

    fn has_form_of(&self, other: &Self) -> bool {
        self.line.dtype == other.line.dtype && self.line.shape == other.line.shape
    }
}

/// Tells what became of each tensor; `files` are those that both versions have.
pub(super) fn compare<'a>(
    before: &Tabled<'a>,
    after: &Tabled<'a>,
    files: &[FilePair],
) -> Matched<'a> {
    let mut matched = Matched::default();
    let (mut removed, mut added) = (Vec::new(), Vec::new());
    for FilePair { before: old, after: new, .. } in files {
        let within = by_name(before.tensors(*old), after.tensors(*new));
        within.both.into_iter().for_each(|both| matched.put(both));
        removed.extend(within.removed);
        added.extend(within.added);
    }
    removed.extend(outside(before, files.iter().map(|pair| pair.before)));
    added.extend(outside(after, files.iter().map(|pair| pair.after)));
    let across = by_name(removed, added);
    across.both.into_iter().for_each(|both| matched.put(both));
    let (removed, added) = match_contents(across.removed, across.added, &mut matched.renamed);
    (matched.removed, matched.added) = (removed, added);
    matched
}

/// Tensors of the files of which the other version has none.
fn outside<'a>(version: &Tabled<'a>, paired: impl Iterator<Item = EntryIndex>) -> Vec<Located<'a>> {
    let paired: std::collections::HashSet<EntryIndex> = paired.collect();
    let mut files: Vec<EntryIndex> =
        version.files.keys().copied().filter(|file| !paired.contains(file)).collect();
    files.sort_unstable();
    files.into_iter().flat_map(|file| version.tensors(file)).collect()
}

impl<'a> Matched<'a> {
    fn put(&mut self, both: Both<'a>) {
        let (before, after) = both;
        let list = if !before.has_form_of(&after) {
            &mut self.reshaped
        } else if before.line.digest == after.line.digest {
            &mut self.same
        } else {
            &mut self.changed
        };
        list.push(both);
    }
}

/// Tensors of one name, and the others.
struct ByName<'a> {
    both: Vec<Both<'a>>,
    removed: Vec<Located<'a>>,
    added: Vec<Located<'a>>,
}

/// Pairs tensors that have one name: the first of each side, then the second, and so on.
fn by_name<'a>(
    before: impl IntoIterator<Item = Located<'a>>,
    after: impl IntoIterator<Item = Located<'a>>,
) -> ByName<'a> {
    let before: Vec<Located<'a>> = before.into_iter().collect();
    let mut left: HashMap<&str, VecDeque<usize>> = HashMap::with_capacity(before.len());
    for (index, tensor) in before.iter().enumerate() {
        left.entry(&tensor.line.name).or_default().push_back(index);
    }
    let mut is_left = vec![true; before.len()];
    let (mut both, mut added) = (Vec::new(), Vec::new());
    for tensor in after {
        match left.get_mut(tensor.line.name.as_str()).and_then(VecDeque::pop_front) {
            Some(index) => {
                is_left[index] = false;
                both.push((before[index], tensor));
            }
            None => added.push(tensor),
        }
    }
    let removed = before.into_iter().zip(is_left).filter_map(|(it, left)| left.then_some(it));
    ByName { both, removed: removed.collect(), added }
}

/// Pairs tensors of one content, dtype and shape; what is left of both sides.
fn match_contents<'a>(
    removed: Vec<Located<'a>>,
    added: Vec<Located<'a>>,
    renamed: &mut Vec<Both<'a>>,
) -> (Vec<Located<'a>>, Vec<Located<'a>>) {
    let key = |tensor: &Located<'a>| -> Option<(TensorDigest, &'a str, &'a [u64])> {
        let TensorLine { digest, dtype, shape, .. } = tensor.line;
        (tensor.bytes() != 0).then_some((*digest, dtype.as_ref(), shape.as_slice()))
    };
    let mut had: HashMap<_, VecDeque<usize>> = HashMap::new();
    for (index, tensor) in removed.iter().enumerate() {
        if let Some(key) = key(tensor) {
            had.entry(key).or_default().push_back(index);
        }
    }
    let mut is_left = vec![true; removed.len()];
    let mut new = Vec::new();
    for tensor in added {
        let same = key(&tensor).and_then(|key| had.get_mut(&key)).and_then(VecDeque::pop_front);
        match same {
            Some(index) => {
                is_left[index] = false;
                renamed.push((removed[index], tensor));
            }
            None => new.push(tensor),
        }
    }
    let left = removed.into_iter().zip(is_left).filter_map(|(it, left)| left.then_some(it));
    (left.collect(), new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, dtype: &str, shape: &[u64], content: u8) -> TensorLine {
        let digest = TensorDigest::of(&[content]);
        TensorLine {
            name: name.into(),
            dtype: dtype.into(),
            shape: shape.into(),
            bytes: 0..8,
            digest,
        }
    }

    fn located(lines: &[(u32, TensorLine)]) -> Vec<Located<'_>> {
        lines.iter().map(|(file, line)| Located { file: EntryIndex(*file), line }).collect()
    }

    fn names(both: &[Both<'_>]) -> Vec<(String, String)> {
        both.iter().map(|(old, new)| (old.line.name.clone(), new.line.name.clone())).collect()
    }

    #[test]
    fn a_tensor_is_sorted_by_what_changed_of_it() {
        let before = [
            (1, line("same", "f32", &[2], 1)),
            (1, line("changed", "f32", &[2], 2)),
            (1, line("cast", "f32", &[2], 3)),
            (1, line("reshaped", "f32", &[2], 4)),
        ];
        let after = [
            (2, line("reshaped", "f32", &[2, 1], 4)),
            (2, line("cast", "bf16", &[2], 3)),
            (2, line("changed", "f32", &[2], 5)),
            (2, line("same", "f32", &[2], 1)),
        ];
        let mut matched = Matched::default();
        let found = by_name(located(&before), located(&after));
        assert!(found.added.is_empty() && found.removed.is_empty());
        found.both.into_iter().for_each(|both| matched.put(both));
        let twice = |name: &str| (name.to_owned(), name.to_owned());
        assert_eq!(names(&matched.same), [twice("same")]);
        assert_eq!(names(&matched.changed), [twice("changed")]);
        assert_eq!(names(&matched.reshaped), [twice("reshaped"), twice("cast")]);
    }

    #[test]
    fn a_name_that_occurs_often_is_paired_in_order() {
        let before = [(1, line("a", "f32", &[2], 1)), (2, line("a", "f32", &[2], 2))];
        let after = [
            (1, line("a", "f32", &[2], 1)),
            (2, line("a", "f32", &[2], 3)),
            (3, line("a", "f32", &[2], 4)),
        ];
        let found = by_name(located(&before), located(&after));
        let files: Vec<_> = found.both.iter().map(|(old, new)| (old.file.0, new.file.0)).collect();
        assert_eq!(files, [(1, 1), (2, 2)]);
        assert_eq!(found.added[0].file.0, 3);
    }

    #[test]
    fn what_has_another_name_is_found_by_its_content() {
        let before = [(1, line("old", "f32", &[2], 1)), (1, line("gone", "f32", &[2], 2))];
        let after = [
            (1, line("cast", "bf16", &[2], 1)),
            (1, line("prefix.old", "f32", &[2], 1)),
            (1, line("again", "f32", &[2], 1)),
        ];
        let mut renamed = Vec::new();
        let (removed, added) = match_contents(located(&before), located(&after), &mut renamed);
        assert_eq!(names(&renamed), [("old".to_owned(), "prefix.old".to_owned())]);
        assert_eq!(removed[0].line.name, "gone");
        let added: Vec<_> = added.iter().map(|tensor| tensor.line.name.as_str()).collect();
        assert_eq!(added, ["cast", "again"]);
    }
}
