//! `modelfs inventory` and `modelfs import`: what lies in a folder, and how it gets into a store.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args;
use super::client::{Absent, Session, StorePlace};
use super::failure::{failure_with_hint, of_io};
use super::mount::Shown;
use super::progress::Bar;
use super::sources::{self, Refused};
use super::{config, print};
use crate::format::names::ModelName;
use crate::format::path;
use crate::ops::{
    self, Failure, FailureKind, ImportReport, InventoryReport, PLAN_BYTES_MAX, Plan, PlanVersion,
    Progress, Report, Request,
};
use crate::present::table::{bytes, count, printable};
use crate::present::{self, ROWS_SHOWN};

/// Mistakes and changed files that are told at a time.
const TOLD_MAX: usize = 20;

/// Looks through a directory, and says what is there.
///
/// # Errors
/// Where it cannot be listed, or the plan not be written.
pub fn inventory(inventory: &args::Inventory, shown: Shown) -> Result<(), Failure> {
    let what = || format!("cannot look through `{}`", inventory.directory.display());
    let root = inventory.directory.canonicalize().map_err(|error| of_io(what(), &error))?;
    // Before all the work, so that it is not for nothing.
    if inventory.plan.is_some() && root.to_str().is_none() {
        let message = format!("a plan cannot name `{}`: it is not UTF-8", root.display());
        let hint = "rename the directory, or bind it to another place";
        return Err(failure_with_hint(FailureKind::Usage, message, hint));
    }
    inventory.plan.as_deref().map(create_plan).transpose()?;
    let report = look_through(&root, inventory.plan.as_deref());
    if let (Err(_), Some(plan)) = (&report, &inventory.plan) {
        drop(fs::remove_file(plan));
    }
    let report = report?;
    let text = match shown {
        Shown::Json => serde_json::to_string(&report).expect("a report has text keys only") + "\n",
        Shown::Text if inventory.csv => present::inventory_csv(&report),
        Shown::Text => {
            let text = present::text(&present::inventory(&report, ROWS_SHOWN));
            let next = inventory.plan.as_ref().map(|path| {
                let path = printable(&path.display().to_string());
                format!("\n{path}: look through it, then: modelfs import --plan {path}\n")
            });
            text + &next.unwrap_or_default()
        }
    };
    print(&text)
}

/// What is there; the plan goes into the file.
fn look_through(root: &Path, file: Option<&Path>) -> Result<InventoryReport, Failure> {
    let context = config::context().map_err(|error| of_io("cannot tell who we are", &error))?;
    let bar = Bar::default();
    let found = ops::inventory(root, &context, &bar);
    drop(bar);
    let (report, plan) = found.map_err(|error| Failure::from(&error))?;
    if let Some(file) = file {
        let written = write_plan(file, &present::plan_text(plan, &report));
        written.map_err(|error| of_io(format!("cannot write `{}`", file.display()), &error))?;
    }
    Ok(report)
}

/// Takes the place of the plan: an empty file, which may be left of an inventory that was cut off.
fn create_plan(path: &Path) -> Result<(), Failure> {
    match File::create_new(path) {
        Ok(_empty) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let is_empty = |it: fs::Metadata| it.is_file() && it.len() == 0;
            if fs::symlink_metadata(path).is_ok_and(is_empty) {
                return Ok(());
            }
            let message = format!("`{}` exists already", path.display());
            let hint = "name a file that does not exist yet";
            Err(failure_with_hint(FailureKind::Usage, message, hint))
        }
        Err(error) => Err(of_io(format!("cannot write `{}`", path.display()), &error)),
    }
}

/// Writes the plan beside its place first: what is there is whole.
fn write_plan(path: &Path, text: &str) -> io::Result<()> {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".partial");
    let partial = path.with_file_name(name);
    drop(fs::remove_file(&partial));
    let mut file = File::create_new(&partial)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        drop(fs::remove_file(&partial));
    }
    written
}

/// What became of a plan.
#[derive(Default, Serialize)]
struct Imported {
    /// Nothing was done: it was only checked.
    dry_run: bool,
    versions: Vec<ImportReport>,
    /// Versions that would be taken over.
    planned: Vec<Left>,
    /// Versions that were left out, and why.
    skipped: Vec<Left>,
}

#[derive(Serialize)]
struct Left {
    model: ModelName,
    #[serde(with = "path")]
    path: PathBuf,
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
}

/// Takes over what a plan says.
///
/// # Errors
/// `Usage` for a plan with mistakes, `Busy` for files that changed, and those of versions that cannot be
/// sealed, before anything is done; else those of the version at which it stopped.
pub fn import(import: &args::Import, store: StorePlace<'_>, shown: Shown) -> Result<(), Failure> {
    let plan = read_plan(&import.plan)?;
    let mut wanted = Vec::new();
    let mut imported = Imported { dry_run: import.dry_run, ..Imported::default() };
    for model in &plan.models {
        for version in &model.versions {
            match &version.skip {
                None => wanted.push((&model.name, version)),
                Some(why) => imported.skipped.push(left(&model.name, version, why)),
            }
        }
    }
    let refused = sources::refused(&plan, &wanted, store.directory)?;
    if !refused.is_empty() && !import.skip_changed {
        return Err(refuse(&refused));
    }
    for Refused { index, why, .. } in refused.iter().rev() {
        let (model, version) = wanted.remove(*index);
        imported.skipped.push(left(model, version, why));
    }
    match import.dry_run {
        true => imported.planned = wanted.iter().map(|(model, it)| left(model, it, "")).collect(),
        false => imported.versions = take(&plan, &wanted, store)?,
    }
    print(&match shown {
        Shown::Json => serde_json::to_string(&imported).expect("it has text keys only") + "\n",
        Shown::Text => text(&imported),
    })
}

fn left(model: &ModelName, version: &PlanVersion, why: &str) -> Left {
    Left { model: model.clone(), path: version.path.clone(), why: why.to_owned() }
}

fn read_plan(path: &Path) -> Result<Plan, Failure> {
    let what = || format!("cannot read `{}`", path.display());
    let file = File::open(path).map_err(|error| of_io(what(), &error))?;
    let mut text = String::new();
    let limit = PLAN_BYTES_MAX as u64 + 1;
    file.take(limit).read_to_string(&mut text).map_err(|error| of_io(what(), &error))?;
    Plan::parse(&text).map_err(|faults| {
        let count = count(faults.len() as u64, "mistake");
        Failure {
            because: faults.iter().map(ToString::to_string).collect(),
            ..failure_with_hint(
                FailureKind::Usage,
                format!("`{}` has {count}: nothing was done", path.display()),
                "modelfs import --plan FILE --dry-run, until it finds none",
            )
        }
    })
}

fn refuse(refused: &[Refused]) -> Failure {
    let told = refused.iter().take(TOLD_MAX).map(|it| it.why.clone());
    let more = refused.len().saturating_sub(TOLD_MAX);
    let more = (0 < more).then(|| format!("and {more} more"));
    let count = count(refused.len() as u64, "version");
    let unfit = refused.iter().find(|it| it.kind != FailureKind::Busy);
    let (kind, what, hint) = match unfit {
        None => (
            FailureKind::Busy,
            "changed since the plan was made",
            "make the plan anew, or leave them out with --skip-changed",
        ),
        Some(unfit) => (
            unfit.kind,
            "cannot be taken over as they are",
            "say `skip` in the plan, or leave them out with --skip-changed",
        ),
    };
    let message = format!("{count} {what}: nothing was done");
    Failure { because: told.chain(more).collect(), ..failure_with_hint(kind, message, hint) }
}

/// Takes versions over, one after the other.
fn take(
    plan: &Plan,
    wanted: &[(&ModelName, &PlanVersion)],
    store: StorePlace<'_>,
) -> Result<Vec<ImportReport>, Failure> {
    let session = Session::open(store, Absent::Create)?;
    let bar = Bar::default();
    let mut taken = Vec::new();
    for (number, (model, version)) in (1..).zip(wanted) {
        let request = Request::Import(version.options(&plan.root, model));
        let progress = Numbered { bar: &bar, of: format!("{number} of {}: {model}", wanted.len()) };
        match session.run(request, &progress) {
            Ok(Report::Import(report)) => taken.push(report),
            Ok(_) => unreachable!("a verb answers with its report"),
            Err(failure) => return Err(stopped(failure, version, taken.len())),
        }
    }
    Ok(taken)
}

/// The failure of one version, and that the others are safe.
fn stopped(failure: Failure, version: &PlanVersion, taken: usize) -> Failure {
    let mut because = vec![failure.message];
    because.extend(failure.because);
    because.push(format!("{} before it were taken over", count(taken as u64, "version")));
    let again = "run the same again to go on";
    let hint = failure.hint.map_or_else(|| again.to_owned(), |hint| format!("{hint}; {again}"));
    let message = format!("cannot take over `{}`", version.path.display());
    Failure { kind: failure.kind, message, because, hint: Some(hint) }
}

/// Says which of how many it is.
struct Numbered<'a> {
    bar: &'a Bar,
    of: String,
}

impl Progress for Numbered<'_> {
    fn begin(&self, what: &str, bytes_total: u64) {
        self.bar.begin(&format!("{}, {what}", self.of), bytes_total);
    }

    fn advance(&self, bytes: u64) {
        self.bar.advance(bytes);
    }
}

fn text(imported: &Imported) -> String {
    let mut text: String = imported.versions.iter().map(version).collect();
    for Left { model, path, .. } in &imported.planned {
        text += &format!("{model}: would take over {}\n", printable(&path.display().to_string()));
    }
    for Left { model, path, why } in &imported.skipped {
        let path = printable(&path.display().to_string());
        text += &format!("{model}: left out {path}: {}\n", printable(why));
    }
    if imported.dry_run {
        let versions = count(imported.planned.len() as u64, "version");
        return text + &format!("{versions} would be taken over; nothing was done\n");
    }
    let new = imported.versions.iter().filter(|it| !it.existing);
    let sum = |of: fn(&ImportReport) -> u64| imported.versions.iter().map(of).sum::<u64>();
    text + &format!(
        "{} taken over, {}, {} of it new; {} read back\n",
        count(new.count() as u64, "version"),
        bytes(sum(|it| it.bytes)),
        bytes(sum(|it| it.stored_bytes)),
        count(sum(|it| it.verified_files), "file"),
    )
}

/// One version that was taken over.
pub fn version(report: &ImportReport) -> String {
    let ImportReport { model, version, .. } = report;
    let (files, size, stored) =
        (count(report.files, "file"), bytes(report.bytes), bytes(report.stored_bytes));
    let mut text = match report.existing {
        true => format!("{model}/{version}: was taken over before, read back\n"),
        false => format!("{model}/{version}: {files}, {size}, {stored} of it new, read back\n"),
    };
    for note in &report.notes {
        text += &format!("note: {}\n", printable(note));
    }
    text
}
