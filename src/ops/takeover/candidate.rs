//! A model that was found: what is known of it before it is part of a family.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::kept::{Keeper, Past};
use super::kinds::{Kind, Role};
use super::names::Name;
use super::scan::{Part, Reading, Scanned, parts_of};
use super::units::Shape;
use crate::capture::redact;
use crate::format::ids::BlobDigest;
use crate::format::manifest::Mtime;
use crate::format::names::AliasName;
use crate::ops::source::Root;

/// A part that is in more models than this says nothing about two of them.
const SHARERS_MAX: usize = 200;

/// What every version has that nobody put there.
pub(super) const METADATA: &str = "metadata.json";

/// What is wrong with a name that is no text.
const NOT_TEXT: &str = "its name is not UTF-8, which a plan has to be";

/// What another tool noted about a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Noted {
    /// The family that it says it is of.
    pub family: Option<String>,
    /// Its place there, where that is told.
    pub order: u64,
    pub message: String,
    pub params: BTreeMap<String, Value>,
    pub metrics: BTreeMap<String, Value>,
    pub labels: BTreeMap<String, Value>,
    pub alias: Option<AliasName>,
    /// When it was made, which counts more than when files were written.
    pub time: Option<Mtime>,
    pub keeper: Option<Keeper>,
}

impl Noted {
    /// Without what looks like a secret: a plan is shown around.
    pub fn without_secrets(mut self) -> Self {
        for values in [&mut self.params, &mut self.metrics, &mut self.labels] {
            values.iter_mut().for_each(|(name, value)| redact::hide(name, value));
        }
        self.message = redact::text(&self.message);
        self
    }
}

/// A file of a model.
#[derive(Clone, Debug)]
pub(super) struct CandidateFile {
    pub reading: Reading,
    pub scanned: Scanned,
}

/// One model with its files.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// A file or a directory, below the folder that was looked at.
    pub path: PathBuf,
    pub shape: Shape,
    /// In the order of their names.
    pub files: Vec<CandidateFile>,
    pub name: Name,
    /// When the newest of its models was written.
    pub modified: Mtime,
    pub uid: u32,
    pub noted: Noted,
    pub parts: Vec<Part>,
    /// Of all parts.
    pub part_bytes: u64,
    /// Sealing its directory would take other files than these, so they have to be listed.
    pub is_listed: bool,
    /// Why its directory cannot be sealed.
    unfit: Option<String>,
}

impl Candidate {
    /// A model of these files; `place` is the directory that they are in, below the folder.
    pub fn new(place: PathBuf, shape: Shape, files: Vec<CandidateFile>) -> Self {
        assert!(!files.is_empty(), "a model has a file");
        let contents = files.iter().filter_map(|file| file.scanned.content.as_ref());
        let parts = parts_of(contents);
        let part_bytes = parts.iter().map(|part| u64::from(part.bytes)).sum();
        let main = main_of(&files);
        let path = match shape {
            Shape::File | Shape::Group => place.join(&main.reading.name),
            Shape::Files | Shape::Folder => place,
        };
        let models = files.iter().filter(|file| file.reading.kind.role == Role::Model);
        let times = models.map(|file| file.reading.modified);
        let modified = times.max_by_key(|time| (time.seconds, time.nanos));
        let (modified, uid) = (modified.unwrap_or_default(), main.reading.uid);
        let (name, noted) = (Name::of_path(&path), Noted::default());
        let (is_listed, unfit) = (false, None);
        Self { path, shape, files, name, modified, uid, noted, parts, part_bytes, is_listed, unfit }
    }

    /// A state that a tool kept; what its files hold is `scanned`.
    pub fn of_past(past: Past, scanned: Vec<Scanned>) -> Self {
        let files = past.files.into_iter().zip(scanned);
        let files = files.map(|(reading, scanned)| CandidateFile { reading, scanned }).collect();
        let (place, shape) = match past.is_folder {
            true => (past.path, Shape::Folder),
            false => (past.path.parent().unwrap_or(Path::new("")).to_owned(), Shape::File),
        };
        Self { noted: past.noted, ..Self::new(place, shape, files) }
    }

    /// Looks at what sealing its directory would take; `root` is the folder that is looked through.
    pub fn look(&mut self, root: &Path) {
        if self.shape != Shape::Folder {
            return;
        }
        let own: BTreeSet<&Path> = self.files.iter().map(|file| &*file.reading.name).collect();
        if own.iter().any(|name| name.starts_with(METADATA)) {
            self.is_listed = true;
            return;
        }
        match Root::open(&root.join(&self.path)).and_then(|folder| folder.walk()) {
            Ok(walked) => {
                let walked: Vec<PathBuf> = walked.files().map(|file| file.path).collect();
                self.is_listed = walked.iter().map(|path| &**path).collect::<BTreeSet<_>>() != own;
            }
            Err(error) => self.unfit = Some(error.to_string()),
        }
    }

    /// When it was made, as far as is known.
    pub fn time(&self) -> Mtime {
        self.noted.time.unwrap_or(self.modified)
    }

    /// The tool that kept it.
    pub fn keeper(&self) -> Option<Keeper> {
        let of_files = self.files.iter().find_map(|file| file.reading.keeper);
        self.noted.keeper.or(of_files)
    }

    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.reading.bytes).sum()
    }

    fn models(&self) -> impl Iterator<Item = &CandidateFile> {
        self.files.iter().filter(|file| file.reading.kind.role == Role::Model)
    }

    /// Its largest model.
    pub fn main(&self) -> &CandidateFile {
        main_of(&self.files)
    }

    pub fn kind(&self) -> Kind {
        self.main().reading.kind
    }

    /// All formats of its models, each once, in the order of their words.
    pub fn formats(&self) -> Vec<&'static str> {
        let mut words: Vec<_> = self.models().map(|file| file.reading.kind.word).collect();
        words.sort_unstable();
        words.dedup();
        words
    }

    /// Names and shapes of the tensors of its largest model.
    pub fn architecture(&self) -> Option<u64> {
        self.main().scanned.content.as_ref()?.architecture
    }

    /// Digests of all files, sorted; `None` where one could not be read.
    pub fn digests(&self) -> Option<Vec<BlobDigest>> {
        let digest = |file: &CandidateFile| Some(file.scanned.content.as_ref()?.digest);
        let mut digests: Vec<_> = self.files.iter().map(digest).collect::<Option<_>>()?;
        digests.sort_unstable();
        Some(digests)
    }

    /// Whether all that it holds is in another.
    pub fn is_part_of(&self, other: &Self) -> bool {
        let (Some(own), Some(all)) = (self.digests(), other.digests()) else { return false };
        is_part(&own, &all)
    }

    /// Why it cannot be taken over, a sentence each: what is wrong with its files.
    pub fn faults(&self) -> Vec<String> {
        let told = self.files.iter().filter_map(|file| {
            let why = file.scanned.fault.as_deref()?;
            Some(match self.shape {
                Shape::File => why.to_owned(),
                _ => format!("{}: {why}", file.reading.name.display()),
            })
        });
        let nameless = self.path.to_str().is_none().then(|| NOT_TEXT.to_owned());
        told.chain(nameless).chain(self.unfit.clone()).collect()
    }

    /// What loading it would call that no model needs.
    pub fn calls(&self) -> Vec<String> {
        let mut calls: Vec<_> = self.files.iter().flat_map(|it| it.scanned.calls.clone()).collect();
        calls.sort_unstable();
        calls.dedup();
        calls
    }
}

/// Whether a sorted list is part of another, each element as often.
pub(super) fn is_part(part: &[BlobDigest], whole: &[BlobDigest]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|digest| rest.any(|other| other == digest))
}

/// The largest model, or the largest file where none is called one.
fn main_of(files: &[CandidateFile]) -> &CandidateFile {
    let key = |file: &&CandidateFile| (file.reading.kind.role == Role::Model, file.reading.bytes);
    files.iter().max_by_key(key).expect("a model has a file")
}

/// How many bytes each two of these models have in common, the one with the lower place first; those that
/// have none are not there.
pub(super) fn overlaps(
    candidates: &[Candidate],
    places: impl Iterator<Item = usize>,
) -> HashMap<(usize, usize), u64> {
    let mut sharers = HashMap::<Part, Vec<usize>>::new();
    for place in places {
        for part in &candidates[place].parts {
            let sharers = sharers.entry(*part).or_default();
            if sharers.len() <= SHARERS_MAX {
                sharers.push(place);
            }
        }
    }
    let mut common = HashMap::new();
    for (part, sharers) in sharers {
        if SHARERS_MAX < sharers.len() {
            continue;
        }
        for (index, first) in sharers.iter().enumerate() {
            for second in &sharers[index + 1..] {
                *common.entry((*first, *second)).or_default() += u64::from(part.bytes);
            }
        }
    }
    common
}
