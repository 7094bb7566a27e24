//! Whether the files of a plan are still as they were found, and can be sealed, before anything is done with
//! them.
//!
//! Sizes, times and kinds only: what they hold is compared while they are read.

use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata};
use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde_json::Value;

use super::client::{self, Absent, Client};
use crate::format::names::{At, ModelName, Reference};
use crate::ops::{
    Failure, FailureKind, HotLimit, IMPORTED_CONTENT, IMPORTED_FROM, NoProgress, Plan, PlanVersion,
    Report, Request, SnapshotOptions, check_outside,
};
use crate::present::table::bytes;

/// A version that cannot be taken over.
pub struct Refused {
    /// Its place among those that were asked about.
    pub index: usize,
    /// `Busy` where its files are not as they were.
    pub kind: FailureKind,
    pub why: String,
}

/// Which versions cannot be taken over, in their order. What was taken over before is as it was then.
///
/// # Errors
/// Where the store cannot be asked what was.
pub fn refused(
    plan: &Plan,
    wanted: &[(&ModelName, &PlanVersion)],
    store: &Path,
) -> Result<Vec<Refused>, Failure> {
    let mut taken = Taken { store, models: HashMap::new() };
    let has_daemon = client::has_daemon(store)?;
    let mut refused = Vec::new();
    for (index, (model, version)) in wanted.iter().enumerate() {
        let change = change_of(&plan.root, version);
        let change = change.map(|why| (FailureKind::Busy, why));
        let unfit = || unfit(version.options(&plan.root, model), has_daemon);
        if let Some((kind, why)) = change.or_else(unfit)
            && !taken.has(plan, model, version)?
        {
            let path = match version.path.as_os_str().is_empty() {
                true => &plan.root,
                false => &version.path,
            };
            let why = format!("`{}` {why}", path.display());
            refused.push(Refused { index, kind, why });
        }
    }
    Ok(refused)
}

/// Why a version cannot be sealed as it is.
fn unfit(options: SnapshotOptions, has_daemon: bool) -> Option<(FailureKind, String)> {
    if let Err(error) = check_outside(&options) {
        let failure = Failure::from(&error);
        let reasons: Vec<String> = [failure.message].into_iter().chain(failure.because).collect();
        return Some((failure.kind, format!("cannot be taken over: {}", reasons.join(": "))));
    }
    let is_long = has_daemon && client::is_too_long(Request::Import(options));
    let why = "lists more than a daemon takes at a time: take it over without one, or in parts";
    is_long.then(|| (FailureKind::Usage, why.to_owned()))
}

/// What is other than the plan says.
fn change_of(root: &Path, version: &PlanVersion) -> Option<String> {
    let path = root.join(&version.path);
    let looked = match version.files.is_empty() {
        true => look(&path),
        false => version.files.iter().try_fold((0, None), |(sum, _), file| {
            let status = fs::metadata(root.join(&file.from))?;
            Ok((sum + status.len(), None))
        }),
    };
    let (found, modified) = match looked {
        Ok(looked) => looked,
        Err(error) => return Some(format!("cannot be read: {error}")),
    };
    if let Some(expected) = version.bytes.filter(|expected| *expected != found) {
        return Some(format!("has {}, the plan says {}", bytes(found), bytes(expected)));
    }
    let (modified, expected) = (modified?, version.modified?);
    (modified != expected).then(|| format!("was written at {modified}, the plan says {expected}"))
}

/// The bytes of a file or of all files of a directory; when a file was written.
fn look(path: &Path) -> io::Result<(u64, Option<Timestamp>)> {
    let status = fs::symlink_metadata(path)?;
    if !status.is_dir() {
        return Ok((status.len(), modified(&status)));
    }
    let mut sum = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let status = entry.metadata()?;
        if status.is_dir() {
            sum += look(&entry.path())?.0;
        } else if status.is_file() {
            sum += status.len();
        }
    }
    Ok((sum, None))
}

fn modified(status: &Metadata) -> Option<Timestamp> {
    Timestamp::try_from(status.modified().ok()?).ok()
}

/// What was taken over, asked for only where files are not as they were.
struct Taken<'a> {
    store: &'a Path,
    /// Places with what was there, by model.
    models: HashMap<ModelName, HashSet<(String, String)>>,
}

impl Taken<'_> {
    fn has(
        &mut self,
        plan: &Plan,
        model: &ModelName,
        version: &PlanVersion,
    ) -> Result<bool, Failure> {
        let labels = version.options(&plan.root, model).labels;
        let Some(key) = key_of(&|label| labels.get(label)) else { return Ok(false) };
        if !self.models.contains_key(model) {
            let of_model = self.of(model)?;
            self.models.insert(model.clone(), of_model);
        }
        Ok(self.models[model].contains(&key))
    }

    fn of(&self, model: &ModelName) -> Result<HashSet<(String, String)>, Failure> {
        let Some(list) = self.ask(Request::List { model: Some(model.clone()) })? else {
            return Ok(HashSet::new());
        };
        let Report::Versions { versions, .. } = list else {
            unreachable!("a verb answers with its report");
        };
        let mut taken = HashSet::new();
        for version in versions {
            let reference = Reference { model: model.clone(), at: At::Version(version.version) };
            let shown = self.ask(Request::Show { reference })?;
            let Some(Report::Version { metadata, .. }) = shown else { continue };
            taken.extend(key_of(&|label| metadata["labels"].get(label)));
        }
        Ok(taken)
    }

    /// An answer; `None` where there is no such thing, or no store yet.
    fn ask(&self, request: Request) -> Result<Option<Report>, Failure> {
        let asked = Client::open(self.store, Absent::Refuse, HotLimit::Untouched)
            .and_then(|client| client.run(request, &NoProgress));
        match asked {
            Err(failure) if failure.kind == FailureKind::NotFound => Ok(None),
            asked => asked.map(Some),
        }
    }
}

/// The place that a version was taken over from, and what was there.
fn key_of<'a>(label: &dyn Fn(&str) -> Option<&'a Value>) -> Option<(String, String)> {
    let text = |name: &str| Some(label(name)?.as_str()?.to_owned());
    Some((text(IMPORTED_FROM)?, text(IMPORTED_CONTENT)?))
}
