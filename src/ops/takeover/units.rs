//! Which files are one model: a lone file with what belongs to it, the shards of a checkpoint, or a whole
//! directory.
//!
//! Invariant U1: each file is in one unit at most, and each file that is a model in exactly one.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::kinds::{Kind, Role};
use super::names::{Name, without_end};
use super::walk::{FileIndex, FolderIndex, Found};

/// Files of which one in a directory says that all below it is one model.
const WHOLE_MARKERS: [&str; 4] = ["MLmodel", "model_index.json", "modules.json", "saved_model.pb"];
/// Ends of directories that are one model.
const WHOLE_ENDS: [&str; 2] = [".mlpackage", ".savedmodel"];
/// Files of which one says that the models beside it are one.
const CHECKPOINT_MARKERS: [&str; 4] =
    ["adapter_config.json", "config.json", "trainer_state.json", "model.safetensors.index.json"];
/// What follows the name of an ONNX file in the name of its data.
const EXTERNAL_ENDS: [&str; 3] = [".data", "_data", "_external_data"];

/// Directories beside one that are looked at for the same names.
const SIBLINGS_MAX: usize = 64;

/// How a unit lies there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// One file.
    File,
    /// Files of one directory that have a name in common.
    Group,
    /// Some files of one directory, or below it.
    Files,
    /// All that is in a directory.
    Folder,
}

/// What may become a version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Unit {
    /// The directory that its files are in.
    pub folder: FolderIndex,
    pub shape: Shape,
    /// In the order of the walk; at least one is a model.
    pub files: Vec<FileIndex>,
}

/// All units of a folder.
pub(super) fn units(found: &Found, kinds: &[Kind]) -> Vec<Unit> {
    let mut search = Search { found, kinds, has_models: HashSet::new(), units: Vec::new() };
    search.note_models(Found::ROOT);
    search.visit(Found::ROOT);
    search.units
}

struct Search<'a> {
    found: &'a Found,
    kinds: &'a [Kind],
    /// Directories with a model in them or below.
    has_models: HashSet<FolderIndex>,
    units: Vec<Unit>,
}

impl Search<'_> {
    fn role(&self, file: FileIndex) -> Role {
        self.kinds[file.0 as usize].role
    }

    fn name(&self, file: FileIndex) -> String {
        self.found.file(file).name.to_string_lossy().into_owned()
    }

    fn own(&self, folder: FolderIndex, role: Role) -> Vec<FileIndex> {
        let files = self.found.folder(folder).files.iter().copied();
        files.filter(|file| self.role(*file) == role).collect()
    }

    fn note_models(&mut self, folder: FolderIndex) -> bool {
        let mut has = !self.own(folder, Role::Model).is_empty();
        for below in self.found.folder(folder).folders.clone() {
            has |= self.note_models(below);
        }
        if has {
            self.has_models.insert(folder);
        }
        has
    }

    fn visit(&mut self, folder: FolderIndex) {
        if !self.has_models.contains(&folder) {
            return;
        }
        if self.is_whole(folder) {
            return self.push(folder, Shape::Folder, self.found.files_below(folder));
        }
        let models = self.own(folder, Role::Model);
        if !models.is_empty() {
            self.take(folder, &models);
        }
        for below in self.found.folder(folder).folders.clone() {
            self.visit(below);
        }
    }

    fn push(&mut self, folder: FolderIndex, shape: Shape, mut files: Vec<FileIndex>) {
        files.sort_unstable();
        let shape = if files.len() == 1 { Shape::File } else { shape };
        self.units.push(Unit { folder, shape, files });
    }

    /// Whether all that is below a directory is one model.
    fn is_whole(&self, folder: FolderIndex) -> bool {
        let name = self.found.folder(folder).name.to_string_lossy().to_ascii_lowercase();
        let marked = WHOLE_MARKERS.iter().any(|marker| self.has(folder, marker));
        folder != Found::ROOT && WHOLE_ENDS.iter().any(|end| name.ends_with(end)) || marked
    }

    fn has(&self, folder: FolderIndex, name: &str) -> bool {
        self.found.file_called(folder, name.as_ref()).is_some()
    }

    /// Makes units of the models that lie in a directory.
    fn take(&mut self, folder: FolderIndex, models: &[FileIndex]) {
        let groups = self.groups(models);
        let is_checkpoint = CHECKPOINT_MARKERS.iter().any(|marker| self.has(folder, marker));
        let is_one = groups.len() == 1 || self.are_parts(folder, &groups);
        let is_whole = is_checkpoint || is_one && folder != Found::ROOT;
        if !is_whole {
            return self.take_apart(folder, groups);
        }
        let folders = &self.found.folder(folder).folders;
        let (with, without): (Vec<_>, Vec<_>) =
            folders.iter().copied().partition(|below| self.has_models.contains(below));
        let below: Vec<_> = without.iter().flat_map(|it| self.found.files_below(*it)).collect();
        let others = self.own(folder, Role::Other);
        let is_pure = others.is_empty() && below.iter().all(|it| self.role(*it) != Role::Other);
        if is_checkpoint || is_pure {
            let shape = if with.is_empty() { Shape::Folder } else { Shape::Files };
            let files = [&self.found.folder(folder).files[..], &below].concat();
            return self.push(folder, shape, files);
        }
        // Data lies beside it: that is no part of the model.
        let beside = others.into_iter().filter(|it| self.is_external(*it, models));
        let beside: Vec<_> = beside.chain(self.own(folder, Role::Companion)).collect();
        self.push(folder, Shape::Files, [models, &beside].concat());
    }

    /// Makes a unit of each group, with what has its name.
    fn take_apart(&mut self, folder: FolderIndex, groups: BTreeMap<String, Vec<FileIndex>>) {
        let mut files = groups;
        for file in self.found.folder(folder).files.clone() {
            if self.role(file) == Role::Model {
                continue;
            }
            let name = self.name(file).to_lowercase();
            // The longest, so that `churn_v1_metrics.json` is not what belongs to `churn`.
            let stems = files.keys().filter(|stem| belongs(&name, stem));
            let Some(stem) = stems.max_by_key(|stem| stem.len()).cloned() else { continue };
            let models = files.get_mut(&stem).expect("it is one of the keys");
            if self.role(file) == Role::Companion || self.is_external(file, models) {
                models.push(file);
            }
        }
        for (_, files) in files {
            self.push(folder, Shape::Group, files);
        }
    }

    /// Models that have their name in common, but for the format or the number of a shard.
    fn groups(&self, models: &[FileIndex]) -> BTreeMap<String, Vec<FileIndex>> {
        let mut groups = BTreeMap::<String, Vec<FileIndex>>::new();
        for file in models {
            let name = self.name(*file).to_lowercase();
            groups.entry(without_shard(without_end(&name)).to_owned()).or_default().push(*file);
        }
        groups
    }

    /// Whether the groups of a directory are parts of one model rather than models.
    fn are_parts(&self, folder: FolderIndex, groups: &BTreeMap<String, Vec<FileIndex>>) -> bool {
        let key = |stem: &String, files: &Vec<FileIndex>| {
            let word = self.kinds[files[0].0 as usize].word;
            (Name::of(stem).stem_text(), word)
        };
        let keys: BTreeSet<_> = groups.iter().map(|(stem, files)| key(stem, files)).collect();
        if keys.len() < groups.len() {
            // Two that differ by what says the version.
            return false;
        }
        let Some(parent) = self.found.folder(folder).parent else { return false };
        let name = Name::of(&self.found.folder(folder).name.to_string_lossy());
        let is_year = |number: &u64| (1990..2100).contains(number);
        let is_version = name.stem.is_empty()
            && (name.state.date.as_ref().is_some_and(|date| 2 < date.len())
                || name.state.numbers.iter().any(|number| !is_year(number)));
        let own = self.names_of_models(folder);
        let siblings = &self.found.folder(parent).folders;
        let others = siblings.iter().filter(|sibling| **sibling != folder);
        let mut others = others.take(SIBLINGS_MAX);
        is_version || others.any(|sibling| self.names_of_models(*sibling) == own)
    }

    fn names_of_models(&self, folder: FolderIndex) -> Vec<String> {
        self.own(folder, Role::Model).into_iter().map(|file| self.name(file)).collect()
    }

    /// Whether a file holds the tensors of an ONNX file among `models`.
    fn is_external(&self, file: FileIndex, models: &[FileIndex]) -> bool {
        let name = self.name(file);
        models.iter().any(|model| {
            let model = self.name(*model);
            let end = name.strip_prefix(&model);
            let bare = name.strip_prefix(without_end(&model));
            model.ends_with(".onnx")
                && (end.is_some_and(|end| EXTERNAL_ENDS.contains(&end)) || bare == Some(".data"))
        })
    }
}

/// Whether a file of this name belongs to the models with this stem.
fn belongs(name: &str, stem: &str) -> bool {
    let rest = name.strip_prefix(stem);
    rest.is_some_and(|rest| rest.starts_with(['.', '_', '-']))
}

/// The name without `-00001-of-00003`.
fn without_shard(stem: &str) -> &str {
    let is_count = |text: &str| 2 <= text.len() && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some((rest, of)) = stem.rsplit_once("-of-").filter(|(_, of)| is_count(of)) else {
        return stem;
    };
    match rest.rsplit_once('-') {
        Some((bare, number)) if number.len() == of.len() && is_count(number) => bare,
        _ => stem,
    }
}

#[cfg(test)]
mod tests {
    use super::super::kinds::kinds;
    use super::*;
    use crate::ops::NoProgress;

    /// Makes these files, empty ones, and says what the units are: names in the order of the walk.
    fn found(paths: &[&str]) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        for path in paths {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let found = Found::walk(directory.path(), &NoProgress).unwrap();
        let units = units(&found, &kinds(&found));
        let shown = units.iter().map(|unit| {
            let names = unit.files.iter().map(|it| found.path_below(unit.folder, *it));
            let names: Vec<_> = names.map(|path| path.display().to_string()).collect();
            format!("{}:{:?} {}", found.path(unit.folder).display(), unit.shape, names.join(" "))
        });
        shown.collect()
    }

    #[test]
    fn lone_files_are_units_with_what_has_their_name() {
        let paths =
            ["churn.pkl", "churn_v1.pkl", "churn_v1_metrics.json", "churn_v2.pkl", "notes.txt"];
        let expected =
            [":File churn.pkl", ":Group churn_v1.pkl churn_v1_metrics.json", ":File churn_v2.pkl"];
        assert_eq!(found(&paths), expected);
        assert_eq!(found(&["a/m.onnx", "a/m.onnx.data", "a/m2.onnx"]).len(), 2);
    }

    #[test]
    fn a_directory_with_one_model_is_that_model() {
        let paths = ["v1/weights.onnx", "v1/metrics.json", "v1/conf/p.yaml", "v2/weights.onnx"];
        let expected = ["v1:Folder metrics.json weights.onnx conf/p.yaml", "v2:File weights.onnx"];
        assert_eq!(found(&paths), expected);
        // Data is none of it.
        assert_eq!(found(&["p/m.pkl", "p/train.csv", "p/m.json"]), ["p:Files m.json m.pkl"]);
    }

    #[test]
    fn shards_and_checkpoints_are_one() {
        let shards = ["m/model-00001-of-00002.safetensors", "m/model-00002-of-00002.safetensors"];
        assert_eq!(found(&shards).len(), 1);
        let trainer = [
            "t/config.json",
            "t/model.safetensors",
            "t/checkpoint-5/config.json",
            "t/checkpoint-5/optimizer.pt",
            "t/checkpoint-5/model.safetensors",
        ];
        let expected = [
            "t:Files config.json model.safetensors",
            "t/checkpoint-5:Folder config.json model.safetensors optimizer.pt",
        ];
        assert_eq!(found(&trainer), expected);
        let pipeline = [
            "p/model_index.json",
            "p/unet/config.json",
            "p/unet/m.safetensors",
            "p/vae/m.safetensors",
        ];
        assert_eq!(found(&pipeline).len(), 1);
    }

    #[test]
    fn parts_in_directories_of_versions_are_one() {
        let parts = ["ocr/v1/det.onnx", "ocr/v1/rec.onnx", "ocr/v2/det.onnx", "ocr/v2/rec.onnx"];
        assert_eq!(
            found(&parts),
            ["ocr/v1:Folder det.onnx rec.onnx", "ocr/v2:Folder det.onnx rec.onnx"]
        );
        // Versions of one model, and models of one year, are not.
        assert_eq!(found(&["x/m_v1.onnx", "x/m_v2.onnx"]).len(), 2);
        assert_eq!(found(&["2023/churn.onnx", "2023/fraud.onnx"]).len(), 2);
    }
}
