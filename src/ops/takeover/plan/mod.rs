//! The plan: which files become which versions, as a text that a person edits.
//!
//! Invariant P1: a plan that was written is read back as it was.

mod read;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::format::ids::ContentDigest;
use crate::format::names::{AliasName, ModelName};
use crate::ops::import::{IMPORTED_CONTENT, IMPORTED_FROM};
use crate::ops::{PlacedFile, SnapshotOptions, Source, TakenSource};

/// Longest text of a plan, in bytes.
pub const PLAN_BYTES_MAX: usize = 256 << 20;

/// Places of copies that become labels.
const COPIES_MAX: usize = 100;

/// What is to be taken over.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What the paths are below; absolute.
    pub root: PathBuf,
    pub models: Vec<PlanModel>,
}

/// A model with its versions, the earliest first.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanModel {
    pub name: ModelName,
    pub versions: Vec<PlanVersion>,
    /// What is said above it.
    pub comments: Vec<String>,
}

/// One version.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanVersion {
    /// A file or a directory, below the root.
    pub path: PathBuf,
    /// What the file is called in the version; as it is called there without.
    pub name: Option<PathBuf>,
    /// These files instead of what is at the path.
    pub files: Vec<PlanFile>,
    pub message: String,
    pub modified: Option<Timestamp>,
    pub bytes: Option<u64>,
    pub content: Option<ContentDigest>,
    /// Points to it afterwards.
    pub alias: Option<AliasName>,
    /// Where the same lay too, below the root.
    pub copies: Vec<PathBuf>,
    pub params: BTreeMap<String, Value>,
    pub metrics: BTreeMap<String, Value>,
    pub labels: BTreeMap<String, Value>,
    /// Why it is left out.
    pub skip: Option<String>,
    /// What is said above it.
    pub comments: Vec<String>,
}

/// A file of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanFile {
    /// Below the root, or absolute.
    pub from: PathBuf,
    /// Below the version.
    pub name: PathBuf,
}

impl PlanVersion {
    /// A version of what is at a path.
    pub fn of(path: PathBuf) -> Self {
        Self {
            path,
            name: None,
            files: Vec::new(),
            message: String::new(),
            modified: None,
            bytes: None,
            content: None,
            alias: None,
            copies: Vec::new(),
            params: BTreeMap::new(),
            metrics: BTreeMap::new(),
            labels: BTreeMap::new(),
            skip: None,
            comments: Vec::new(),
        }
    }

    /// What is taken for it.
    pub fn taken(&self, root: &Path) -> TakenSource {
        // The root itself may be one: without a slash behind it.
        let path: PathBuf = root.join(&self.path).components().collect();
        let named =
            self.name.iter().map(|name| PlacedFile { from: path.clone(), name: name.clone() });
        let listed = self
            .files
            .iter()
            .map(|file| PlacedFile { from: root.join(&file.from), name: file.name.clone() });
        let files = named.chain(listed).collect();
        TakenSource { root: root.to_owned(), path, files, content: self.content }
    }

    /// The request that takes it over.
    pub fn options(&self, root: &Path, model: &ModelName) -> SnapshotOptions {
        let taken = self.taken(root);
        let path = &taken.path;
        let mut labels = self.labels.clone();
        let mut label = |key: &str, value: Value| drop(labels.insert(key.to_owned(), value));
        label(IMPORTED_FROM, json!(shown(path)));
        if let Some(name) = path.file_name() {
            label("original_name", json!(name.to_string_lossy()));
        }
        if let Some(modified) = self.modified {
            label("original_mtime", json!(modified));
        }
        if let Some(content) = self.content {
            label(IMPORTED_CONTENT, json!(content));
        }
        if !self.copies.is_empty() {
            let copies = self.copies.iter().map(|copy| shown(&root.join(copy)));
            label("imported_copies", copies.take(COPIES_MAX).collect());
            label("imported_copy_count", json!(self.copies.len()));
        }
        SnapshotOptions {
            model: model.clone(),
            source: Source::Taken(Box::new(taken)),
            message: self.message.clone(),
            metrics: self.metrics.clone(),
            params: self.params.clone(),
            labels,
            datasets: Vec::new(),
            provenance: Box::default(),
            captured: Default::default(),
            alias: self.alias.clone(),
        }
    }
}

/// A path as text.
fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(path: &str) -> PlanVersion {
        PlanVersion::of(path.into())
    }

    fn plan() -> Plan {
        let mut first = version("churn/final \"v2\".onnx");
        first.name = Some("churn.onnx".into());
        first.message = "line one\nline \\ two \u{7f}".to_owned();
        first.modified = Some("2024-03-01T10:00:00.25Z".parse().unwrap());
        first.bytes = Some(7);
        first.content = Some(ContentDigest::of_files([]));
        first.alias = Some("prod".parse().unwrap());
        first.copies = vec!["old/churn (1).onnx".into()];
        first.params =
            BTreeMap::from([("lr".to_owned(), json!(0.5)), ("o d d".to_owned(), json!("x"))]);
        first.comments = vec!["97 % of churn.onnx\nand more".to_owned()];
        let mut second = version("churn/v3");
        second.files = vec![PlanFile { from: "a/b".into(), name: "b".into() }];
        second.skip = Some("it is empty".to_owned());
        let name = "churn".parse().unwrap();
        let comments = vec!["2 versions".to_owned()];
        let models = vec![PlanModel { name, versions: vec![first, second], comments }];
        Plan { root: "/srv/models".into(), models }
    }

    /// A plan as it is read: comments are not.
    fn without_comments(mut plan: Plan) -> Plan {
        for model in &mut plan.models {
            model.comments.clear();
            model.versions.iter_mut().for_each(|version| version.comments.clear());
        }
        plan
    }

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        let text = plan().to_text(&["a plan".to_owned()]);
        assert_eq!(Plan::parse(&text), Ok(without_comments(plan())), "{text}");
    }

    #[test]
    fn mistakes_are_told_with_their_places() {
        let check = |text: &str, expected: &str| {
            let faults = Plan::parse(text).expect_err(text);
            let told: Vec<_> = faults.iter().map(ToString::to_string).collect();
            assert!(told.join("\n").contains(expected), "{expected}: {told:?}");
        };
        check("root = 1", "line 1, column 8: ");
        check("root = \"x\"\nmodels = []", "line 2, column 1: unknown field `models`");
        check("root = \"x\"", "line 1, column 8: the root has to be an absolute path");
        let with = |rest: &str| {
            format!("root = \"/x\"\n[[model]]\nname = \"m\"\n[[model.version]]\n{rest}")
        };
        check(&with(""), "missing field `path`");
        check(&with("path = \"../y\""), "line 5, column 8: ");
        check(&with("path = \"a\"\nas = \"/b\""), "line 6, column 6: ");
        check(&with("path = \"a\"\ncontent = \"00\""), "line 6, column 11: ");
        check(&with("path = \"a\"\nalias = \"latest\""), "line 6, column 9: ");
        check(&with("path = \"a\"\nmodified = 2024-03-01"), "line 6, column 12: ");
        check(&with("path = \"a\"\nas = \"b\"\nfiles = [{ from = \"c\", as = \"d\" }]"), "either");
        check(
            &with("path = \"a\"\n[[model.version]]\npath = \"a\""),
            "line 7, column 8: `a` is taken twice",
        );
        check(&with("path = \"a/b\"\n[[model.version]]\npath = \"./a//b/.\""), "is taken twice");
        check("root = \"/x\"\n[[model]]\nname = \"m/n\"", "line 3, column 8: ");
        let twice = "root = \"/x\"\n[[model]]\nname = \"m\"\n[[model]]\nname = \"m\"";
        check(twice, "line 5, column 8: ");
        check("root = \"/x", "line 1");
    }
}
