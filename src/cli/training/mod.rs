//! Trainings: commands that are run, recorded, and whose results are sealed.
//!
//! They run here, as whoever called this program, never in the daemon: it is told what was recorded.

mod data;
mod python;
pub mod run;
pub mod watch;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use self::data::DataWatch;
use super::args::Training;
use super::config;
use super::failure::of_io;
use super::fingerprint::IsWanted;
use crate::capture::git::SourceState;
use crate::capture::record::{self, RunRecord};
use crate::capture::{command, machine, redact, variables};
use crate::format::names::{AliasName, ModelName};
use crate::ops::{Failure, Provenance, SnapshotOptions, Source};
use crate::sys::child::Ending;
use crate::sys::identity;

/// A training that is about to begin.
pub struct Subject<'a> {
    pub training: &'a Training,
    pub words: &'a [OsString],
    /// Where it is started.
    pub directory: &'a Path,
    /// All variables that it has.
    pub environment: &'a [(OsString, OsString)],
    /// Of the repository that it is started in.
    pub source: Option<SourceState>,
    pub experimenter: String,
    /// Whether it is still to begin.
    pub is_wanted: IsWanted<'a>,
}

/// A training that has begun: what is known of it so far.
pub struct Recorder {
    record: RunRecord,
    data: Vec<DataWatch>,
    started: Timestamp,
}

/// How a training ended.
pub struct End {
    pub ending: Ending,
    pub duration: Duration,
    /// Signals that came meanwhile.
    pub signals: Vec<&'static str>,
}

impl Recorder {
    /// Records all that can be known before it is started.
    ///
    /// # Errors
    /// Where its data or a step's file cannot be read: no training should begin without.
    pub fn begin(subject: Subject<'_>) -> Result<Self, Failure> {
        let mut record = RunRecord::default();
        let root = subject.source.as_ref().map(|source| source.root.clone());
        let words: Vec<String> =
            subject.words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        if let Some(source) = &subject.source {
            put_source(&mut record, source, &words, subject.directory);
        }
        let data = data::record(&mut record, &subject, root.as_deref())?;
        if let Some(root) = root.filter(|root| !is_same(root, subject.directory)) {
            let directory = told_path(subject.directory, Some(&root));
            record.put("run", "directory", record::cut(directory.to_string_lossy().into_owned()));
        }
        put_environment(&mut record, &subject, &words);
        let variable = |name: &str| value_of(subject.environment, name);
        record.put("run", "command", record::words(&redact::command(&words)));
        let experiment = subject.training.experiment.clone().or_else(|| {
            let told = variables::pick(&variables::EXPERIMENTS, &variable);
            let first = variables::EXPERIMENTS.iter().find_map(|name| told.get(*name)).cloned();
            first.and_then(|name| name.as_str().map(str::to_owned))
        });
        record.put("run", "experiment", experiment.map(record::cut));
        record.put("run", "experimenter", subject.experimenter);
        record.put("run", "host", identity::host_name());
        let jobs = variables::pick(&variables::JOBS, &variable);
        if !jobs.is_empty() {
            record.put("run", "ci", jobs);
        }
        Ok(Self { record, data, started: Timestamp::now() })
    }

    /// Records how it went.
    pub fn end(mut self, end: End) -> RunRecord {
        let mut run = |part: &str, value: Value| self.record.put("run", part, value);
        run("started", self.started.to_string().into());
        run("ended", Timestamp::now().to_string().into());
        run("duration_s", (end.duration.as_millis() as f64 / 1e3).into());
        match end.ending {
            Ending::Exit(code) => run("exit_code", code.into()),
            Ending::Signal(signal) => run("signal", signal.into()),
            Ending::TimedOut | Ending::Interrupted => {}
        }
        if !end.signals.is_empty() {
            run("signals", end.signals.into());
        }
        for data in self.data {
            if let Some(sentence) = data.change() {
                self.record.note(sentence);
            }
        }
        self.record
    }
}

fn put_source(record: &mut RunRecord, source: &SourceState, words: &[String], directory: &Path) {
    let Value::Object(parts) = serde_json::json!(source) else {
        unreachable!("a structure is an object");
    };
    record.put_all("source", parts);
    record.put("source", "entrypoint", command::entrypoint(words, directory, &source.root));
    source.notes.iter().for_each(|note| record.note(note.clone()));
}

fn put_environment(record: &mut RunRecord, subject: &Subject<'_>, words: &[String]) {
    let variable = |name: &str| value_of(subject.environment, name);
    record.put_all("environment", machine::describe(Path::new("/")));
    python::record(record, subject);
    let mut seeds = variables::pick(&variables::SEEDS, &variable);
    seeds.extend(command::seeds(words));
    if !seeds.is_empty() {
        record.put("environment", "seeds", seeds);
    }
    let settings = variables::pick(&variables::SETTINGS, &variable);
    if !settings.is_empty() {
        record.put("environment", "variables", settings);
    }
}

fn value_of(environment: &[(OsString, OsString)], name: &str) -> Option<OsString> {
    environment.iter().find(|(it, _)| it == name).map(|(_, value)| value.clone())
}

/// What was made, to be sealed with what was recorded of it.
fn captured(
    model: &ModelName,
    source: Source,
    message: String,
    captured: Map<String, Value>,
    alias: Option<AliasName>,
) -> SnapshotOptions {
    SnapshotOptions {
        model: model.clone(),
        source,
        message,
        metrics: BTreeMap::new(),
        params: BTreeMap::new(),
        labels: BTreeMap::new(),
        datasets: Vec::new(),
        provenance: Box::new(Provenance::default()),
        captured,
        alias,
    }
}

/// The first thing in a directory that is not a record of ours.
fn made_in(directory: &Path) -> Result<Option<OsString>, Failure> {
    let read = |error| of_io(format!("cannot read `{}`", directory.display()), &error);
    for entry in fs::read_dir(directory).map_err(read)? {
        let name = entry.map_err(read)?.file_name();
        if name != record::NAME {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// The name of whoever runs this program.
fn own_name() -> Result<String, Failure> {
    let caller = config::caller().map_err(|error| of_io("cannot tell who we are", &error))?;
    Ok(caller.user)
}

/// A program with a slash in it, from where it is started.
fn program_from(directory: &Path, program: &OsString) -> OsString {
    match program.as_encoded_bytes().contains(&b'/') {
        true => directory.join(program).into_os_string(),
        false => program.clone(),
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    one.canonicalize().ok() == other.canonicalize().ok()
}

/// A path as it is told: relative where it is below `root`.
fn told_path(path: &Path, root: Option<&Path>) -> PathBuf {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let root = root.and_then(|root| root.canonicalize().ok());
    let below = root.and_then(|root| whole.strip_prefix(root).ok().map(Path::to_owned));
    below.filter(|below| !below.as_os_str().is_empty()).unwrap_or(whole)
}
