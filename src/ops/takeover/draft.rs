//! From families to a plan and a report: what each version is called, where it comes from, what is said
//! of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::candidate::{Candidate, CandidateFile, METADATA};
use super::estimate::{Estimate, Planned, SAMPLE_BYTES, estimate};
use super::families::{Families, Family};
use super::names::without_end;
use super::plan::{Plan, PlanFile, PlanModel, PlanVersion};
use super::report::{FoundModel, FoundVersion, InventoryReport, Nearest, UnreadablePlace};
use super::units::Shape;
use super::walk::Found;
use crate::format::manifest::Mtime;
use crate::format::names::AliasName;
use crate::inspect::runs_code;
use crate::ops::{Context, MESSAGE_BYTES_MAX, OpsError, Progress, Source};
use crate::sys::users;

/// Names of links that people give to what is in use.
const ALIASES: [&str; 13] = [
    "best",
    "canary",
    "challenger",
    "champion",
    "current",
    "default",
    "live",
    "prod",
    "production",
    "release",
    "serving",
    "stable",
    "staging",
];

/// What was found, on its way to a plan.
pub(super) struct Draft<'a> {
    pub found: &'a Found,
    pub candidates: &'a [Candidate],
    pub families: &'a Families,
}

impl<'a> Draft<'a> {
    /// The plan, without comments.
    pub fn plan(&self) -> Plan {
        let copies = self.copies();
        let models = self.families.families.iter().map(|family| {
            let names = self.common_name(family);
            let version = |place: &usize| {
                let copies = copies.get(place).map_or(&[][..], Vec::as_slice);
                self.version(*place, names.as_deref(), copies)
            };
            let versions = family.members.iter().map(version).collect();
            PlanModel { name: family.name.clone(), versions, comments: Vec::new() }
        });
        let models: Vec<PlanModel> = models.collect();
        let mut plan = Plan { root: self.found.root.clone(), models };
        self.add_aliases(&mut plan);
        plan
    }

    /// The copies of each candidate.
    fn copies(&self) -> HashMap<usize, Vec<PathBuf>> {
        let mut copies = HashMap::<usize, Vec<PathBuf>>::new();
        for (copy, original) in &self.families.copies {
            copies.entry(*original).or_default().push(self.candidates[*copy].path.clone());
        }
        copies
    }

    /// What lone files are called in all versions of a family, without what says the format; `None` where
    /// they are called the same already.
    fn common_name(&self, family: &Family) -> Option<String> {
        let lone = family.members.iter().map(|place| &self.candidates[*place]);
        let lone = lone.filter(|it| matches!(it.shape, Shape::File | Shape::Group));
        let names: BTreeSet<_> = lone.map(|it| it.path.file_name().map(stem_of)).collect();
        (1 < names.len()).then(|| family.name.to_string())
    }

    fn version(&self, place: usize, common: Option<&str>, copies: &[PathBuf]) -> PlanVersion {
        let candidate = &self.candidates[place];
        let files = self.placed(candidate, common);
        let names: Vec<PathBuf> = files.iter().map(|file| file.name.clone()).collect();
        let (name, files) = match (candidate.shape, &files[..]) {
            // Their bytes may be elsewhere, and their times say nothing.
            _ if candidate.keeper().is_some() || candidate.is_listed => (None, files),
            (Shape::Folder, _) => (None, Vec::new()),
            (Shape::File, [PlanFile { name, .. }]) => {
                let own = candidate.path.file_name().map(Path::new);
                (Some(name.clone()).filter(|name| own != Some(name.as_path())), Vec::new())
            }
            _ => (None, files),
        };
        let noted = candidate.noted.clone().without_secrets();
        let message = match noted.message {
            text if !text.is_empty() => text,
            _ if candidate.path == Path::new("") => self.found.root.display().to_string(),
            _ => candidate.path.display().to_string(),
        };
        let skip = candidate.faults().into_iter().next();
        let mut version = PlanVersion {
            name,
            files,
            message: shortened(message),
            modified: timestamp(candidate.time()),
            bytes: Some(candidate.bytes()),
            copies: copies.to_vec(),
            params: noted.params,
            metrics: noted.metrics,
            labels: noted.labels,
            alias: noted.alias,
            skip,
            ..PlanVersion::of(candidate.path.clone())
        };
        let contents =
            candidate.files.iter().map(|file| Some(file.scanned.content.as_ref()?.digest));
        let digests: Option<Vec<_>> = contents.collect();
        let taken = version.taken(&self.found.root);
        version.content = digests.map(|digests| taken.content_of(names.into_iter().zip(digests)));
        version
    }

    /// The files of a candidate with their names in the version.
    fn placed(&self, candidate: &Candidate, common: Option<&str>) -> Vec<PlanFile> {
        let main = &candidate.main().reading.name;
        let stem = main.file_name().map(stem_of).unwrap_or_default();
        let file = |file: &CandidateFile| {
            let source = &file.reading.source;
            let from = source.strip_prefix(&self.found.root).unwrap_or(source).to_owned();
            let is_named = matches!(candidate.shape, Shape::File | Shape::Group);
            let name = match (common, file.reading.name.to_str()) {
                (Some(common), Some(own)) if is_named => renamed(own, &stem, common).into(),
                _ => file.reading.name.clone(),
            };
            PlanFile { from, name }
        };
        let mut files: Vec<PlanFile> = candidate.files.iter().map(file).collect();
        let names: BTreeSet<&Path> = files.iter().map(|file| &*file.name).collect();
        if names.len() < files.len() {
            // Without what their names differ in they would be the same.
            for (file, candidate) in files.iter_mut().zip(&candidate.files) {
                file.name.clone_from(&candidate.reading.name);
            }
        }
        let free = free_name(&files);
        for file in &mut files {
            if let Ok(rest) = file.name.strip_prefix(METADATA) {
                file.name = free.components().chain(rest.components()).collect();
            }
        }
        files
    }

    /// Links that people made to what is in use become aliases.
    fn add_aliases(&self, plan: &mut Plan) {
        for (folder, name, target) in &self.found.links {
            let name = name.to_string_lossy();
            let alias = without_end(&name).to_lowercase();
            if !ALIASES.contains(&alias.as_str()) {
                continue;
            }
            let Ok(alias) = alias.parse::<AliasName>() else { continue };
            let place = self.found.root.join(self.found.path(*folder)).join(target);
            let Ok(place) = place.canonicalize() else { continue };
            for model in &mut plan.models {
                let has = |version: &PlanVersion| version.alias.as_ref() == Some(&alias);
                if model.versions.iter().any(has) {
                    continue;
                }
                let is_it = |version: &&mut PlanVersion| {
                    version.alias.is_none() && plan.root.join(&version.path) == place
                };
                if let Some(version) = model.versions.iter_mut().find(is_it) {
                    version.alias = Some(alias.clone());
                }
            }
        }
    }

    /// What a store would take for each model of the plan.
    pub fn estimate(
        &self,
        plan: &Plan,
        context: &Context,
        progress: &dyn Progress,
    ) -> Result<Vec<Estimate>, OpsError> {
        let by_source: HashMap<&Path, &CandidateFile> = self
            .candidates
            .iter()
            .flat_map(|it| &it.files)
            .map(|file| (file.reading.source.as_path(), file))
            .collect();
        let mut models = Vec::new();
        for (model, family) in plan.models.iter().zip(&self.families.families) {
            let mut versions = Vec::new();
            for (version, place) in model.versions.iter().zip(&family.members) {
                if version.skip.is_some() {
                    continue;
                }
                let options = version.options(&plan.root, &model.name);
                let files = match &options.source {
                    Source::Taken(taken) if !taken.files.is_empty() => {
                        let file = |file: &crate::ops::PlacedFile| {
                            Some((file.name.clone(), *by_source.get(file.from.as_path())?))
                        };
                        taken.files.iter().filter_map(file).collect()
                    }
                    _ => named(&self.candidates[*place]),
                };
                versions.push(Planned { options, files });
            }
            models.push(versions);
        }
        estimate(&models, context, SAMPLE_BYTES, progress)
    }

    /// The report.
    pub fn report(&self, plan: &Plan, estimates: &[Estimate]) -> InventoryReport {
        let copies = self.copies();
        let mut models = Vec::new();
        for ((model, family), estimate) in
            plan.models.iter().zip(&self.families.families).zip(estimates)
        {
            let version = |place: &usize| {
                let copies = copies.get(place).cloned().unwrap_or_default();
                self.found_version(*place, copies)
            };
            let versions: Vec<FoundVersion> = family.members.iter().map(version).collect();
            let bytes = versions.iter().map(|version| version.bytes).sum();
            let stored_bytes = estimate.stored_bytes;
            models.push(FoundModel { name: model.name.clone(), versions, bytes, stored_bytes });
        }
        let model_bytes = self.candidates.iter().map(Candidate::bytes).sum::<u64>();
        let copies = self.families.copies.keys();
        let copy_bytes = copies.map(|place| self.candidates[*place].bytes()).sum();
        let stored_bytes = estimates.iter().map(|it| it.stored_bytes).sum::<u64>();
        let broken = self.candidates.iter().filter(|it| !it.faults().is_empty());
        let broken_bytes = broken.map(Candidate::bytes).sum::<u64>();
        let unreadable = self.found.unreadable.iter();
        let unreadable = unreadable
            .map(|(path, why)| UnreadablePlace { path: path.clone(), why: why.clone() })
            .collect();
        InventoryReport {
            root: self.found.root.clone(),
            files: self.found.files.len() as u64,
            bytes: self.found.files.iter().map(|file| file.bytes).sum(),
            models,
            model_bytes,
            copy_bytes,
            stored_bytes,
            broken_bytes,
            saved_bytes: (model_bytes - broken_bytes).cast_signed() - stored_bytes.cast_signed(),
            is_sampled: estimates.iter().any(|it| it.is_sampled),
            unreadable,
            unreadable_count: self.found.unreadable_count,
        }
    }

    fn found_version(&self, place: usize, copies: Vec<PathBuf>) -> FoundVersion {
        let candidate = &self.candidates[place];
        let nearest = self.families.nearest.get(&place).map(|(before, percent)| Nearest {
            path: self.candidates[*before].path.clone(),
            percent: *percent,
        });
        let formats = candidate.formats();
        FoundVersion {
            path: candidate.path.clone(),
            runs_code: formats.iter().any(|format| runs_code(format)),
            formats: formats.into_iter().map(str::to_owned).collect(),
            files: candidate.files.len() as u64,
            bytes: candidate.bytes(),
            owner: users::name_of(candidate.uid),
            modified: timestamp(candidate.time()),
            nearest,
            copies,
            calls: candidate.calls(),
            faults: candidate.faults(),
            kept_by: candidate.keeper().map(|it| it.word().to_owned()),
        }
    }
}

/// What a `metadata.json` of somebody is called in a version, which has one of its own.
fn free_name(files: &[PlanFile]) -> PathBuf {
    let mut name = PathBuf::from(format!("original_{METADATA}"));
    while files.iter().any(|file| file.name.starts_with(&name)) {
        name = PathBuf::from(format!("original_{}", name.display()));
    }
    name
}

/// The files of a candidate under their own names.
fn named(candidate: &Candidate) -> BTreeMap<PathBuf, &CandidateFile> {
    candidate.files.iter().map(|file| (file.reading.name.clone(), file)).collect()
}

/// A file's name without what says its format.
fn stem_of(name: &std::ffi::OsStr) -> String {
    without_end(&name.to_string_lossy()).to_owned()
}

/// The name of a file in the version: the model itself is called as all are, what has its name beside it
/// loses that.
fn renamed(own: &str, stem: &str, common: &str) -> String {
    let Some(rest) = own.strip_prefix(stem) else { return own.to_owned() };
    match rest.strip_prefix(['_', '-']) {
        Some(rest) if !rest.starts_with(|c: char| c.is_ascii_digit()) && !rest.is_empty() => {
            rest.to_owned()
        }
        _ => format!("{common}{rest}"),
    }
}

/// As much of a message as a version takes.
fn shortened(mut message: String) -> String {
    let mut end = message.len().min(MESSAGE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.truncate(end);
    message
}

/// A file's time for people.
fn timestamp(time: Mtime) -> Option<Timestamp> {
    let nanos = i32::try_from(time.nanos).ok()?;
    Timestamp::new(time.seconds, nanos).ok()
}
