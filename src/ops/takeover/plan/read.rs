//! A plan from its text, checked, with the place of every mistake.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use toml::Spanned;
use toml::value::Datetime;

use super::{PLAN_BYTES_MAX, Plan, PlanFile, PlanModel, PlanVersion};
use crate::format::names::ModelName;
use crate::governance::{Fault, Faults};
use crate::ops::compose::{FileFacts, check_name, tree_of};
use crate::ops::said;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    root: Spanned<PathBuf>,
    #[serde(default)]
    model: Vec<ModelText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelText {
    name: Spanned<String>,
    #[serde(default)]
    version: Vec<VersionText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VersionText {
    path: Spanned<PathBuf>,
    #[serde(rename = "as")]
    name: Option<Spanned<PathBuf>>,
    files: Option<Spanned<Vec<FileText>>>,
    #[serde(default)]
    message: String,
    modified: Option<Spanned<Datetime>>,
    bytes: Option<u64>,
    content: Option<Spanned<String>>,
    alias: Option<Spanned<String>>,
    #[serde(default)]
    copies: Vec<PathBuf>,
    #[serde(default)]
    params: BTreeMap<String, Value>,
    #[serde(default)]
    metrics: BTreeMap<String, Value>,
    #[serde(default)]
    labels: BTreeMap<String, Value>,
    skip: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    from: Spanned<PathBuf>,
    #[serde(rename = "as")]
    name: Spanned<PathBuf>,
}

impl Plan {
    /// Parses and checks a plan. Whether its files are there is not looked at.
    ///
    /// # Errors
    /// The mistakes in it, in the order of the text.
    pub fn parse(text: &str) -> Result<Self, Vec<Fault>> {
        if PLAN_BYTES_MAX < text.len() {
            let why = format!("a plan of {} bytes, at most {PLAN_BYTES_MAX}", text.len());
            return Err(vec![Fault::of_whole(why)]);
        }
        let parsed: Text = toml::from_str(text).map_err(|e| vec![Fault::of_toml(text, &e)])?;
        let mut reader = Reader { faults: Faults::of(text), paths: HashSet::new() };
        let root = parsed.root.get_ref();
        if !root.is_absolute() {
            let why = "the root has to be an absolute path".to_owned();
            reader.faults.add(&parsed.root.span(), why);
        }
        let mut names = HashSet::new();
        let mut models = Vec::new();
        for ModelText { name, version } in parsed.model {
            let versions: Vec<_> = version.into_iter().map(|text| reader.version(text)).collect();
            let Some(parsed) = reader.parsed(&name) else { continue };
            if !names.insert(name.get_ref().clone()) {
                reader.faults.add(&name.span(), format!("there are two models called `{parsed}`"));
            }
            versions.iter().for_each(|version| reader.said(root, &parsed, version));
            let versions = versions.into_iter().map(|(version, _)| version).collect();
            models.push(PlanModel { name: parsed, versions, comments: Vec::new() });
        }
        reader.faults.unless_any(Self { root: root.clone(), models })
    }
}

struct Reader<'a> {
    faults: Faults<'a>,
    /// What is taken so far.
    paths: HashSet<PathBuf>,
}

impl Reader<'_> {
    /// A version, and where it stands.
    fn version(&mut self, text: VersionText) -> (PlanVersion, Range<usize>) {
        self.path(&text.path);
        let span = text.path.span();
        if text.files.is_none() && text.skip.is_none() {
            self.once(&text.path);
        }
        if let (Some(name), Some(_)) = (&text.name, &text.files) {
            let why = "a version has either `as`, for one file, or `files`".to_owned();
            self.faults.add(&name.span(), why);
        }
        if let Some(files) = text.files.as_ref().filter(|files| files.get_ref().is_empty()) {
            self.faults.add(&files.span(), "a version needs a file".to_owned());
        }
        text.name.iter().for_each(|name| self.name(name));
        let modified = text.modified.and_then(|modified| self.moment(&modified));
        let content = text.content.and_then(|content| self.parsed(&content));
        let alias = text.alias.and_then(|alias| self.parsed(&alias));
        let (files_span, files) = match text.files {
            Some(files) => (files.span(), files.into_inner()),
            None => (span.clone(), Vec::new()),
        };
        let mut names = HashSet::new();
        let mut listed = Vec::new();
        for FileText { from, name } in files {
            self.name(&name);
            if !names.insert(name.get_ref().clone()) {
                let why = format!("two files are called `{}`", name.get_ref().display());
                self.faults.add(&name.span(), why);
            }
            listed.push(PlanFile { from: from.into_inner(), name: name.into_inner() });
        }
        let plain = listed.iter().filter(|file| check_name(&file.name).is_ok());
        let facts = plain.map(|file| (file.name.clone(), FileFacts::default()));
        if let Err(error) = tree_of(&facts.collect()) {
            self.faults.add(&files_span, error.to_string());
        }
        let version = PlanVersion {
            path: text.path.into_inner(),
            name: text.name.map(Spanned::into_inner),
            files: listed,
            message: text.message,
            modified,
            bytes: text.bytes,
            content,
            alias,
            copies: text.copies,
            params: text.params,
            metrics: text.metrics,
            labels: text.labels,
            skip: text.skip,
            comments: Vec::new(),
        };
        (version, span)
    }

    /// What is said of a version that is to be taken over has its limits.
    fn said(
        &mut self,
        root: &Path,
        model: &ModelName,
        (version, span): &(PlanVersion, Range<usize>),
    ) {
        let checked = said::check(&version.options(root, model));
        if let Some(error) = checked.err().filter(|_| version.skip.is_none()) {
            self.faults.add(span, error.to_string());
        }
    }

    /// A place below the root.
    fn path(&mut self, path: &Spanned<PathBuf>) {
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if !path.get_ref().components().all(plain) {
            let why = "expected a path below the root".to_owned();
            self.faults.add(&path.span(), why);
        }
    }

    /// The same files as two versions are a mistake more likely than a wish.
    fn once(&mut self, path: &Spanned<PathBuf>) {
        let same = path.get_ref().components().filter(|part| *part != Component::CurDir);
        if !self.paths.insert(same.collect()) {
            let why = format!("`{}` is taken twice", path.get_ref().display());
            self.faults.add(&path.span(), why);
        }
    }

    /// What a file is to be called.
    fn name(&mut self, name: &Spanned<PathBuf>) {
        let checked = check_name(name.get_ref());
        if let Err(error) = checked {
            self.faults.add(&name.span(), error.to_string());
        } else if name.get_ref().starts_with("metadata.json") {
            let why = "`metadata.json` is made by modelfs: give it another name".to_owned();
            self.faults.add(&name.span(), why);
        }
    }

    fn parsed<T: std::str::FromStr<Err: ToString>>(&mut self, text: &Spanned<String>) -> Option<T> {
        let parsed = text.get_ref().parse();
        parsed.map_err(|error: T::Err| self.faults.add(&text.span(), error.to_string())).ok()
    }

    fn moment(&mut self, moment: &Spanned<Datetime>) -> Option<Timestamp> {
        let parsed = moment.get_ref().to_string().parse();
        let why = "expected a moment, such as 2026-06-01T12:00:00Z".to_owned();
        parsed.map_err(|_not_one: jiff::Error| self.faults.add(&moment.span(), why)).ok()
    }
}
