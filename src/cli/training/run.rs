//! `modelfs run`: one training, in the foreground, as if it had been started without us.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{End, Recorder, Subject, captured, made_in, own_name};
use crate::capture::command;
use crate::capture::git::{self, GitError, SourceState};
use crate::capture::record::{self, RunRecord};
use crate::capture::redact;
use crate::cli::args::Run;
use crate::cli::client::StorePlace;
use crate::cli::config::{self, DRAFT_VARIABLE};
use crate::cli::failure::{EXIT_DONE, failure_with_hint, of_config, of_io};
use crate::cli::mount::Shown;
use crate::cli::table::printable;
use crate::cli::{ask, print, render, say, say_text};
use crate::format::names::ModelName;
use crate::format::path;
use crate::ops::{Failure, FailureKind, Report, Request, SnapshotReport, Source};
use crate::sys::child::Ending;
use crate::sys::foreground::{self, ForegroundReport, HeldSignals};
use crate::sys::lock::{self, DirectoryLock};
use crate::sys::process;

/// What a shell adds to the number of a signal that ended a command.
const SIGNAL_BASE: i32 = 128;
/// Signals that ask for an end: what comes after one is no success, whatever the exit status says.
const END_SIGNALS: [&str; 4] = ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM"];
/// Characters of a command that make a message.
const MESSAGE_CHARACTERS_MAX: usize = 200;

/// Where a training writes, and what is sealed of it.
struct Place {
    directory: PathBuf,
    source: Source,
    /// What one training writes is not mixed with what another does, or one that outlived its `run`.
    _lock: Option<DirectoryLock>,
}

/// The record of a run that is over.
enum Left {
    /// In this file.
    Record(PathBuf),
    /// Nothing was made.
    Nothing,
    /// It could not be written, which was said.
    Lost,
}

/// What came of it, for programs.
#[derive(Serialize)]
struct RunReport<'a> {
    model: &'a ModelName,
    /// As this program exits.
    exit: u8,
    sealed: Option<&'a SnapshotReport>,
    /// The file that has the record, where nothing was sealed.
    #[serde(with = "path::option")]
    record: Option<&'a Path>,
}

/// Runs the command, and gives its exit status.
///
/// # Errors
/// Where it cannot be started, or what it made is to be sealed and cannot be.
pub fn run(arguments: &Run, store: StorePlace<'_>, shown: Shown) -> Result<u8, Failure> {
    let directory = config::absolute(Path::new(".")).map_err(|error| of_config(&error))?;
    let mut notes = Vec::new();
    let source = source_of(&arguments.command, &directory).unwrap_or_else(|error| {
        notes.push(format!("the state of the Git repository is not known: {error}"));
        None
    });
    let root = source.as_ref().map_or(&directory, |source| &source.root);
    let model = arguments.model.clone().map_or_else(|| model_of(root), Ok)?;
    let place = find_place(arguments, &model, store)?;
    let mut environment = config::environment();
    environment.retain(|(name, _)| name != DRAFT_VARIABLE);
    environment.push((DRAFT_VARIABLE.into(), place.directory.clone().into()));
    let words = &arguments.command;
    let recorder = Recorder::begin(Subject {
        training: &arguments.training,
        words,
        directory: &directory,
        environment: &environment,
        source,
        experimenter: own_name()?,
        is_wanted: &|| true,
    })?;
    let (report, end) = start(words, &environment, &place, shown)?;
    let mut record = recorder.end(end);
    notes.into_iter().for_each(|note| record.note(note));
    finish(arguments, &model, &place, &report, record, store, shown)
}

/// The repository that the command is started in; that of its script, where that is in another one and not here.
fn source_of(words: &[OsString], directory: &Path) -> Result<Option<SourceState>, GitError> {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let own = git::root_of(directory)?;
    let is_here =
        own.as_ref().is_some_and(|root| command::entrypoint(&words, directory, root).is_some());
    let elsewhere = if is_here { None } else { command::tree(&words, directory) };
    git::state(elsewhere.as_deref().unwrap_or(directory))
}

/// Has the command run to its end. What an earlier one left as a record does not tell of this one.
fn start(
    words: &[OsString],
    environment: &[(OsString, OsString)],
    place: &Place,
    shown: Shown,
) -> Result<(ForegroundReport, End), Failure> {
    let (program, rest) = words.split_first().expect("the arguments ask for one");
    let mut command = Command::new(program);
    command.args(rest).env_clear().envs(environment.iter().cloned());
    if shown == Shown::Json {
        command.stdout(io::stderr());
    }
    let held = HeldSignals::hold();
    let held = held.map_err(|error| of_io("cannot hold signals back", &error))?;
    let begun = Instant::now();
    let ran = foreground::run(&mut command, &held, || forget(&place.directory, shown));
    let report = ran.map_err(|error| {
        let what = format!("cannot start `{}`", program.display());
        Failure { hint: Some("nothing was recorded".to_owned()), ..of_io(what, &error) }
    })?;
    held.release().map_err(|error| of_io("cannot let signals act again", &error))?;
    let signals = report.signals.clone();
    let end = End { ending: report.ending, duration: begun.elapsed(), signals };
    Ok((report, end))
}

/// Seals what was made, or leaves the record beside it.
fn finish(
    arguments: &Run,
    model: &ModelName,
    place: &Place,
    report: &ForegroundReport,
    record: RunRecord,
    store: StorePlace<'_>,
    shown: Shown,
) -> Result<u8, Failure> {
    let members = record.finish();
    let exit = exit_of(report.ending);
    let was_ended = report.signals.iter().any(|signal| END_SIGNALS.contains(signal));
    // First of all: whatever happens from now on, it is there.
    let left = leave(&place.directory, &members).unwrap_or_else(|failure| {
        say(&failure, shown);
        Left::Lost
    });
    let mut report = RunReport { model, exit, sealed: None, record: None };
    if arguments.seal_on_success && exit == EXIT_DONE && !was_ended {
        let sealed = seal(arguments, model, place, &members, store)?;
        // With a draft it went; another directory is left as the command made it.
        if matches!(place.source, Source::Path(_)) {
            forget(&place.directory, shown);
        }
        return answer(&RunReport { sealed: Some(&sealed), ..report }, &left, shown);
    }
    if let Left::Record(file) = &left {
        report.record = Some(file);
    }
    answer(&report, &left, shown)
}

fn answer(report: &RunReport<'_>, left: &Left, shown: Shown) -> Result<u8, Failure> {
    match (shown, report.sealed, left) {
        (Shown::Json, ..) => {
            print(&(serde_json::to_string(report).expect("a report has text keys only") + "\n"))?;
        }
        (Shown::Text, Some(sealed), _) => {
            say_text(&render::text(&Report::Snapshot(sealed.clone())))
        }
        (Shown::Text, None, Left::Record(file)) => {
            let (model, file) = (report.model, printable(&file.display().to_string()));
            say_text(&format!("not sealed: how `{model}` was made is in {file}\n"));
        }
        (Shown::Text, None, Left::Nothing) => {
            say_text("nothing was made, nothing is recorded\n");
        }
        (Shown::Text, None, Left::Lost) => {}
    }
    Ok(report.exit)
}

fn exit_of(ending: Ending) -> u8 {
    let code = match ending {
        Ending::Exit(code) => code,
        Ending::Signal(signal) => SIGNAL_BASE + signal,
        Ending::TimedOut | Ending::Interrupted => {
            unreachable!("in the foreground nothing is ended")
        }
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// The model that is meant where none is named.
fn model_of(root: &Path) -> Result<ModelName, Failure> {
    let name = root.file_name().unwrap_or_default().to_string_lossy();
    name.parse().map_err(|error| {
        let message = format!("`{}` gives no name of a model: {error}", root.display());
        failure_with_hint(FailureKind::Usage, message, "name it with `--model NAME`")
    })
}

/// The draft in the mount, or the directory that was named.
fn find_place(arguments: &Run, model: &ModelName, store: StorePlace<'_>) -> Result<Place, Failure> {
    let (directory, source) = match &arguments.output {
        Some(directory) => output(directory)?,
        None => draft(model, store)?,
    };
    let place = Place { _lock: take(&directory)?, directory, source };
    let is_draft = arguments.output.is_none() && !arguments.add;
    if is_draft && let Some(name) = made_in(&place.directory)? {
        let message = format!("the draft of `{model}` is not empty: it holds `{}`", name.display());
        let hint = format!("`--add` seals that too; else: rm -r {}/*", place.directory.display());
        return Err(failure_with_hint(FailureKind::Busy, message, hint));
    }
    Ok(place)
}

/// Takes a directory until the command has ended, and all that it started. Some file systems know no locks.
fn take(directory: &Path) -> Result<Option<DirectoryLock>, Failure> {
    match lock::take_directory(directory) {
        Ok(None) => {}
        Ok(taken) => return Ok(taken),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(None),
        Err(error) => {
            return Err(of_io(format!("cannot lock `{}`", directory.display()), &error));
        }
    }
    let message = format!("another run writes to `{}`", directory.display());
    let writers = process::find_marked(DRAFT_VARIABLE, directory).unwrap_or_default();
    let writers: Vec<String> = writers.iter().map(u32::to_string).collect();
    let hint = match writers.is_empty() {
        true => "wait for its end".to_owned(),
        false => format!("wait for its end, or end it: kill {}", writers.join(" ")),
    };
    Err(failure_with_hint(FailureKind::Busy, message, hint))
}

fn output(directory: &Path) -> Result<(PathBuf, Source), Failure> {
    let directory = config::absolute(directory).map_err(|error| of_config(&error))?;
    let made = fs::create_dir_all(&directory);
    made.map_err(|error| of_io(format!("cannot make `{}`", directory.display()), &error))?;
    Ok((directory.clone(), Source::Path(directory)))
}

fn draft(model: &ModelName, store: StorePlace<'_>) -> Result<(PathBuf, Source), Failure> {
    let Report::Status(status) = ask(Request::Status, store)? else {
        unreachable!("the answer to `status` is one");
    };
    let Some(daemon) = status.daemon else {
        let message =
            format!("there is no draft to write to: `{}` is not mounted", status.store.display());
        let hint = "mount it, or name with `--output DIR` where the command writes";
        return Err(failure_with_hint(FailureKind::NotFound, message, hint));
    };
    let directory = daemon.mountpoint.join(model.as_str()).join("draft");
    match fs::metadata(&directory) {
        Ok(_) => Ok((directory, Source::Draft { sub: None })),
        Err(error) => {
            let hint = format!("mkdir {}", daemon.mountpoint.join(model.as_str()).display());
            let failed = of_io(format!("cannot reach the draft of `{model}`"), &error);
            Err(Failure { hint: Some(hint), ..failed })
        }
    }
}

fn seal(
    arguments: &Run,
    model: &ModelName,
    place: &Place,
    members: &Map<String, Value>,
    store: StorePlace<'_>,
) -> Result<SnapshotReport, Failure> {
    let message = arguments.message.clone().unwrap_or_else(|| {
        let words = arguments.command.iter().map(|word| word.to_string_lossy().into_owned());
        let shown = redact::command(&words.collect::<Vec<_>>()).join(" ");
        shown.chars().take(MESSAGE_CHARACTERS_MAX).collect()
    });
    let (source, alias) = (place.source.clone(), arguments.alias.clone());
    let options = captured(model, source, message, members.clone(), alias);
    match ask(Request::Snapshot(options), store)? {
        Report::Snapshot(report) => Ok(report),
        _ => unreachable!("the answer to `snapshot` is one"),
    }
}

/// Leaves the record beside what was made, whole or not at all.
fn leave(directory: &Path, members: &Map<String, Value>) -> Result<Left, Failure> {
    if made_in(directory)?.is_none() {
        return Ok(Left::Nothing);
    }
    let file = directory.join(record::NAME);
    let temporary = directory.join(format!(".{}~{}", record::NAME, std::process::id()));
    let written = fs::write(&temporary, record::encode(members))
        .and_then(|()| File::open(&temporary)?.sync_all())
        .and_then(|()| fs::rename(&temporary, &file));
    match written {
        Ok(()) => Ok(Left::Record(file)),
        Err(error) => {
            let _ = fs::remove_file(&temporary);
            Err(of_io(format!("cannot write `{}`", file.display()), &error))
        }
    }
}

/// Removes a record, if there is one; where that cannot be done it is said.
fn forget(directory: &Path, shown: Shown) {
    let file = directory.join(record::NAME);
    match fs::remove_file(&file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            say(&of_io(format!("cannot remove `{}`", file.display()), &error), shown);
        }
        _ => {}
    }
}
