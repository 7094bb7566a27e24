//! Files that trainers write anyway: which of them are read, and in which order they count.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::document::DOCUMENT_BYTES_MAX;
use super::{Found, cards, dvc, mlflow, record, trainers};

/// Directories between the root and a file that is still looked at.
const DIRECTORY_COUNT_MAX: usize = 2;

/// A file that is known by its name. What an earlier one says counts before what a later one does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    Run,
    Metrics,
    ParamsJson,
    ParamsYaml,
    Mlflow,
    TrainerState,
    DvcLock,
    HuggingFace,
    ModelCard,
}

impl Kind {
    fn of(path: &Path) -> Option<Self> {
        Some(match path.file_name()?.to_str()? {
            record::NAME => Self::Run,
            "metrics.json" => Self::Metrics,
            "params.json" => Self::ParamsJson,
            "params.yaml" | "params.yml" => Self::ParamsYaml,
            "MLmodel" => Self::Mlflow,
            "trainer_state.json" => Self::TrainerState,
            "dvc.lock" => Self::DvcLock,
            "config.json" => Self::HuggingFace,
            "README.md" => Self::ModelCard,
            _ => return None,
        })
    }

    /// Reads one of them into what was found.
    ///
    /// # Errors
    /// Why it says nothing.
    fn read(self, bytes: &[u8], found: &mut Found) -> Result<(), String> {
        match self {
            Self::Run => record::read(bytes, found),
            Self::Metrics => trainers::metrics(bytes, found),
            Self::ParamsJson => trainers::params_json(bytes, found),
            Self::ParamsYaml => trainers::params_yaml(bytes, found),
            Self::Mlflow => mlflow::read(bytes, found),
            Self::TrainerState => trainers::trainer_state(bytes, found),
            Self::DvcLock => dvc::read(bytes, found),
            Self::HuggingFace => cards::config(bytes, found),
            Self::ModelCard => cards::model_card(bytes, found),
        }
    }
}

/// Collects the files of a version that say how it was made: of each kind the one nearest to the root.
#[derive(Debug, Default)]
pub struct Finder {
    documents: BTreeMap<Kind, (PathBuf, Vec<u8>)>,
    notes: Vec<String>,
}

impl Finder {
    /// Whether the bytes of a file are wanted. Files come in the order of their depth.
    pub fn wants(&mut self, path: &Path, bytes: u64) -> bool {
        let Some(kind) = Kind::of(path) else { return false };
        if DIRECTORY_COUNT_MAX + 1 < path.components().count() || self.documents.contains_key(&kind)
        {
            return false;
        }
        if DOCUMENT_BYTES_MAX < bytes {
            let path = path.display();
            let why = format!("it is larger than {DOCUMENT_BYTES_MAX} bytes");
            self.notes.push(format!("`{path}` was not looked into: {why}"));
            return false;
        }
        true
    }

    /// Takes the bytes of a file that is wanted.
    pub fn take(&mut self, path: &Path, bytes: Vec<u8>) {
        let kind = Kind::of(path).expect("it was wanted");
        self.documents.entry(kind).or_insert_with(|| (path.to_owned(), bytes));
    }

    /// What all of them say.
    pub fn finish(self) -> Found {
        let mut found = Found::default();
        self.notes.into_iter().for_each(|note| found.note(note));
        for (kind, (path, bytes)) in self.documents {
            if let Err(why) = kind.read(&bytes, &mut found) {
                found.note(format!("`{}` was not understood: {why}", path.display()));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(files: &[(&str, &str)]) -> Found {
        let mut finder = Finder::default();
        for (path, text) in files {
            if finder.wants(Path::new(path), text.len() as u64) {
                finder.take(Path::new(path), text.as_bytes().to_vec());
            }
        }
        finder.finish()
    }

    #[test]
    fn the_nearest_file_of_a_kind_is_read() {
        let all = found(&[
            ("metrics.json", "{\"auc\": 0.9}"),
            ("a/metrics.json", "{\"auc\": 0.1}"),
            ("a/b/params.json", "{\"lr\": 1}"),
            ("a/b/c/params.yaml", "lr: 2"),
            ("a/other.json", "{\"x\": 1}"),
        ]);
        assert_eq!(json!(all.members), json!({"metrics": {"auc": 0.9}, "params": {"lr": 1}}));
        assert_eq!(all.notes, Vec::<String>::new());
    }

    #[test]
    fn what_is_too_long_or_not_understood_is_noted() {
        let mut finder = Finder::default();
        assert!(!finder.wants(Path::new("metrics.json"), DOCUMENT_BYTES_MAX + 1));
        assert!(finder.wants(Path::new("a/metrics.json"), 3));
        finder.take(Path::new("a/metrics.json"), b"[1]".to_vec());
        finder.take(Path::new("params.yaml"), b"a: [".to_vec());
        let found = finder.finish();
        assert!(found.members.is_empty());
        assert_eq!(found.notes.len(), 3, "{:?}", found.notes);
        assert_eq!(found.notes[1], "`a/metrics.json` was not understood: it is no object");
    }

    #[test]
    fn any_bytes_may_have_any_name() {
        let all = "modelfs-run.json metrics.json params.json params.yaml MLmodel trainer_state.json dvc.lock config.json README.md";
        let texts = [
            "",
            "{}",
            "[]",
            "7",
            "null",
            "a: b",
            "---\na: b\n---\n",
            "---\n",
            "\u{feff}",
            "{\"stages\": 7}",
            "{\"stages\": {\"a\": [1]}, \"flavors\": 7, \"signature\": {\"inputs\": 3}, \"log_history\": {}}",
            "---\nmodel-index: {a: 1}\nbase_model: [1, {}]\ndatasets: 7\n---\n",
        ];
        for name in all.split(' ') {
            for text in texts {
                found(&[(name, text)]);
            }
        }
    }
}
