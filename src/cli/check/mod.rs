//! `modelfs check`: runs a suite on a version, and has the results recorded.
//!
//! The commands run here, as whoever called this program, and never in the daemon: it records what it is
//! told, and by whom. Without a mount that shows the version, its files are exported for the time.

mod places;
mod run;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use self::places::{Places, Version, find};
use self::run::{Outcome, Runner};
use super::args::{Check as Arguments, CheckCommand};
use super::client::StorePlace;
use super::failure::{failure_with_hint, of_config, of_io};
use super::mount::Shown;
use super::table::printable;
use super::{ask, config, print, verbs};
use crate::format::names::{AliasName, At, Label, Reference};
use crate::format::record::{Against, CheckResult, Subject};
use crate::governance::{Check, Measurement, SUITE_BYTES_MAX, Suite};
use crate::ops::{CheckOptions, Failure, FailureKind, Request};

/// What all checks of a suite came to.
#[derive(Serialize)]
struct CheckReport<'a> {
    #[serde(flatten)]
    subject: &'a Subject,
    passed: bool,
    checks: &'a [CheckResult],
}

/// Runs the command.
///
/// # Errors
/// `Refused` for a version that does not pass, and those of the way there.
pub fn run(arguments: &Arguments, store: StorePlace<'_>, shown: Shown) -> Result<(), Failure> {
    let (subject, results) = match &arguments.command {
        Some(CheckCommand::Record { reference, name, result }) => {
            let version = find(store, reference)?;
            let measurement = run::read_given(result)?;
            let result = given(&version.subject, name, measurement);
            record(store, &result)?;
            (version.subject, vec![result])
        }
        None => {
            let reference = arguments.reference.as_ref().expect("required without a subcommand");
            check_all(store, reference, &arguments.suite)?
        }
    };
    answer(&subject, &results, shown)
}

fn check_all(
    store: StorePlace<'_>,
    reference: &Reference,
    file: &Path,
) -> Result<(Subject, Vec<CheckResult>), Failure> {
    let suite = read_suite(file)?;
    let file = config::absolute(file).map_err(|error| of_config(&error))?;
    let directory = file.parent().unwrap_or(Path::new("/")).to_owned();
    let version = find(store, reference)?;
    let scratch = tempfile::Builder::new().prefix("modelfs-check-").tempdir();
    let scratch = scratch.map_err(|error| of_io("cannot make a temporary directory", &error))?;
    let mut runner = Runner::new(directory, scratch.path().to_owned())?;
    let mut places = Places::new(store, scratch.path())?;
    let mut results = Vec::new();
    for check in &suite.checks {
        let files = places.files_of(&version)?;
        let outcome = runner.run(check, &name_of(&version.subject), &files)?;
        let other = match &check.against {
            Some(alias) => compared(store, &version, alias, &mut places, &mut runner, check)?,
            None => None,
        };
        let result = judged(&version.subject, &suite, check, outcome, other);
        record(store, &result)?;
        results.push(result);
    }
    Ok((version.subject, results))
}

fn read_suite(file: &Path) -> Result<Suite, Failure> {
    let hint = "modelfs check --help";
    let text = verbs::read_text(file, SUITE_BYTES_MAX, hint);
    let text = text.map_err(|failure| match failure.kind {
        FailureKind::NotFound => {
            Failure { hint: Some("--suite FILE names another".to_owned()), ..failure }
        }
        _ => failure,
    })?;
    Suite::parse(&text).map_err(|faults| Failure {
        because: faults.iter().map(ToString::to_string).collect(),
        ..failure_with_hint(
            FailureKind::Usage,
            format!("`{}` is no suite that can be run", file.display()),
            hint,
        )
    })
}

fn name_of(subject: &Subject) -> String {
    format!("{}/{}", subject.model, subject.version)
}

/// What the same check gives on the version in an alias; `None` where there is none, or it is the same one.
fn compared(
    store: StorePlace<'_>,
    version: &Version,
    alias: &AliasName,
    places: &mut Places<'_>,
    runner: &mut Runner,
    check: &Check,
) -> Result<Option<(Against, Outcome)>, Failure> {
    let at = At::Alias(alias.clone());
    let other = match find(store, &Reference { model: version.subject.model.clone(), at }) {
        Ok(other) => other,
        // Nothing was there before the first.
        Err(failure) if failure.kind == FailureKind::NotFound => return Ok(None),
        Err(failure) => return Err(failure),
    };
    if other.subject.manifest == version.subject.manifest {
        return Ok(None);
    }
    let files = places.files_of(&other)?;
    let outcome = runner.run(check, &name_of(&other.subject), &files)?;
    let metrics = compared_metrics(check, &outcome.measurement);
    let against = Against { alias: alias.clone(), version: other.subject.version, metrics };
    Ok(Some((against, outcome)))
}

/// Those that the check compares.
fn compared_metrics(check: &Check, measurement: &Measurement) -> BTreeMap<String, Value> {
    let compares = |name: &String| {
        let limits = check.limits.get(name);
        limits.is_some_and(|it| it.max_drop.is_some() || it.max_rise.is_some())
    };
    let metrics = measurement.metrics.iter().filter(|(name, _)| compares(name));
    metrics.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn judged(
    subject: &Subject,
    suite: &Suite,
    check: &Check,
    outcome: Outcome,
    other: Option<(Against, Outcome)>,
) -> CheckResult {
    let Outcome { measurement, mut failures, exit, duration, output } = outcome;
    let called = |of: &Against| format!("{}/{} ({})", subject.model, of.alias, of.version);
    let mut beside = None;
    if let Some((of, other)) = &other {
        match other.failures.first().filter(|_| other.measurement == Measurement::default()) {
            Some(why) => failures.push(format!("cannot compare with {}: {why}", called(of))),
            None => beside = Some((&other.measurement, called(of))),
        }
    }
    // One reason is enough where there is no result to judge.
    if failures.is_empty() || measurement != Measurement::default() {
        let beside = beside.as_ref().map(|(measurement, called)| (*measurement, called.as_str()));
        failures.extend(measurement.failures(&check.limits, beside));
    }
    CheckResult {
        subject: subject.clone(),
        name: check.name.clone(),
        passed: failures.is_empty(),
        metrics: measurement.metrics,
        failures,
        against: other.map(|(against, _)| against),
        suite: Some(suite.digest),
        exit,
        duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        output,
    }
}

fn given(subject: &Subject, name: &Label, measurement: Measurement) -> CheckResult {
    CheckResult {
        subject: subject.clone(),
        name: name.clone(),
        passed: measurement.passed == Some(true),
        failures: measurement.failures(&BTreeMap::new(), None),
        metrics: measurement.metrics,
        against: None,
        suite: None,
        exit: None,
        duration_ms: 0,
        output: String::new(),
    }
}

fn record(store: StorePlace<'_>, result: &CheckResult) -> Result<(), Failure> {
    let result = Box::new(result.clone());
    ask(Request::Check(CheckOptions { result }), store).map(drop)
}

fn answer(subject: &Subject, checks: &[CheckResult], shown: Shown) -> Result<(), Failure> {
    let failed: Vec<&CheckResult> = checks.iter().filter(|check| !check.passed).collect();
    print(&match shown {
        Shown::Text => checks.iter().map(text_of).collect(),
        Shown::Json => {
            let report = CheckReport { subject, passed: failed.is_empty(), checks };
            serde_json::to_string(&report).expect("a report has text keys only") + "\n"
        }
    })?;
    if failed.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = failed.iter().map(|check| check.name.as_str()).collect();
    let message = format!("{} does not pass: {}", name_of(subject), names.join(", "));
    let hint = format!("modelfs approvals {}", name_of(subject));
    Err(failure_with_hint(FailureKind::Refused, message, hint))
}

fn text_of(check: &CheckResult) -> String {
    let word = if check.passed { "passed" } else { "FAILED" };
    let mut text = format!("{}  {word}", check.name);
    for (name, value) in &check.metrics {
        text += &format!("  {}={}", printable(name), printable(&value.to_string()));
    }
    if check.suite.is_some() {
        text += &format!("  {:.1} s", check.duration_ms as f64 / 1e3);
    }
    text.push('\n');
    check.failures.iter().for_each(|line| text += &format!("  {}\n", printable(line)));
    if !check.passed {
        check.output.lines().for_each(|line| text += &format!("  | {}\n", printable(line)));
    }
    text
}
