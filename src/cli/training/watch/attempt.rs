//! One training of one commit, in a directory that is made for it.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::place::{Place, bytes_below};
use super::stop::Stop;
use super::{in_one_line, of_git};
use crate::capture::git::{self, Commit, GitError, SourceState, Watched};
use crate::cli::args::Watch;
use crate::cli::config::{self, DRAFT_VARIABLE, WATCH_VARIABLE};
use crate::cli::failure::of_io;
use crate::cli::table::bytes;
use crate::cli::training::{End, Recorder, Subject, captured, made_in, program_from};
use crate::ops::{Failure, SnapshotOptions, Source};
use crate::sys::at;
use crate::sys::child::{self, CommandOptions, CommandReport, Ending, Log};

/// How long a training that is to end may take to do so.
const GRACE: Duration = Duration::from_secs(10);
/// How often at most the room that it takes is looked at.
const DISK_INTERVAL: Duration = Duration::from_secs(2);
/// Times as long as a look takes it waits for the next one.
const DISK_PAUSES: u32 = 20;
/// Variables that would send the training's own `git` to another repository.
const GIT_VARIABLES: [&str; 4] = ["GIT_COMMON_DIR", "GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"];

/// What is to be trained.
pub struct Attempt<'a> {
    pub arguments: &'a Watch,
    pub place: &'a Place,
    pub stop: &'a Stop,
    pub commit: Commit,
}

/// How an attempt ended.
pub enum Outcome {
    /// It is to be sealed so.
    Made(Box<SnapshotOptions>),
    Failed {
        why: String,
    },
    /// We were told to end; nothing is known.
    Ended,
}

impl Attempt<'_> {
    /// Checks the commit out, and has it trained.
    ///
    /// # Errors
    /// For what is not the commit's fault: it is tried again.
    pub fn run(&self, watched: &Watched) -> Result<Outcome, Failure> {
        let attempt = self.place.begin_attempt(self.commit.id)?;
        let (checkout, draft) = (attempt.join("checkout"), attempt.join("draft"));
        fs::create_dir(&draft)
            .map_err(|error| of_io(format!("cannot make `{}`", draft.display()), &error))?;
        let log = Arc::new(self.place.begin_log(self.commit.id)?);
        let source = match self.check_out(watched, &checkout) {
            Ok(source) => source,
            Err(error @ (GitError::Large { .. } | GitError::Content { .. })) => {
                return Ok(Outcome::Failed { why: in_one_line(&of_git(&error)) });
            }
            Err(error) => return Err(of_git(&error)),
        };
        let made = self.arguments.output.as_ref().map_or(draft, |output| checkout.join(output));
        let environment = self.environment(&made);
        let subject = Subject {
            training: &self.arguments.training,
            words: &self.arguments.command,
            directory: &checkout,
            environment: &environment,
            source: Some(source),
            experimenter: self.commit.author.clone(),
            is_wanted: &|| !self.stop.is_asked(),
        };
        let recorder = match Recorder::begin(subject) {
            Ok(recorder) => recorder,
            Err(_) if self.stop.is_asked() => return Ok(Outcome::Ended),
            Err(failure) => return Ok(Outcome::Failed { why: in_one_line(&failure) }),
        };
        let log = Log { file: log, bytes_max: self.arguments.log_bytes };
        let options = self.options(&checkout, environment.clone(), log);
        let (report, is_full) = match self.train(&options, &attempt) {
            Ok(ran) => ran,
            Err(error) => {
                let why = format!("cannot start `{}`: {error}", options.program.display());
                return Ok(Outcome::Failed { why });
            }
        };
        // What left the group of the command by itself would write on.
        self.place.end_started()?;
        if let Some(outcome) = self.failure(&report, is_full, &attempt, &made) {
            return Ok(outcome);
        }
        let end = End { ending: report.ending, duration: report.duration, signals: Vec::new() };
        let members = recorder.end(end).finish();
        let (model, source) = (&self.arguments.model, Source::Path(made));
        let message = self.commit.subject.clone();
        let alias = self.arguments.alias.clone();
        Ok(Outcome::Made(Box::new(captured(model, source, message, members, alias))))
    }

    /// Why it is no success, if it is none.
    fn failure(
        &self,
        report: &CommandReport,
        is_full: bool,
        attempt: &Path,
        made: &Path,
    ) -> Option<Outcome> {
        let limit = self.arguments.disk_bytes;
        let why = match report.ending {
            _ if is_full || limit < bytes_below(attempt, limit) => {
                format!("it took more than {} of disk (`--disk-bytes`)", bytes(limit))
            }
            Ending::Interrupted => return Some(Outcome::Ended),
            Ending::TimedOut => {
                let seconds = self.arguments.timeout.as_secs_f64();
                format!("it took longer than {seconds} s (`--timeout`), and was ended")
            }
            Ending::Signal(signal) => format!("signal {signal} ended it"),
            Ending::Exit(0) => {
                return nothing_made(attempt, made).map(|why| Outcome::Failed { why });
            }
            Ending::Exit(status) => format!("it exited with {status}"),
        };
        Some(Outcome::Failed { why })
    }

    /// Checks the commit out. It is told as on the branch and from the remote of the repository that is
    /// watched.
    fn check_out(&self, watched: &Watched, checkout: &Path) -> Result<SourceState, GitError> {
        let commit = self.commit.id;
        watched.check_out(commit, checkout, self.arguments.disk_bytes)?;
        let found = git::state(checkout).map_err(|error| match error {
            GitError::Git { source, .. } => GitError::Content { commit, source },
            other => other,
        })?;
        let found = found.expect("it was just made");
        let (remote, name) = (watched.remote(), self.arguments.reference.clone());
        Ok(SourceState { remote, branch: Some(name).filter(|name| name != "HEAD"), ..found })
    }

    fn environment(&self, made: &Path) -> Vec<(OsString, OsString)> {
        let own = [(DRAFT_VARIABLE, made.into()), (WATCH_VARIABLE, self.place.mark().into())];
        let mut environment = config::environment();
        environment.retain(|(name, _)| {
            !own.iter().any(|(own, _)| name == own) && !GIT_VARIABLES.iter().any(|git| name == git)
        });
        environment.extend(own.map(|(name, value): (&str, OsString)| (name.into(), value)));
        environment
    }

    fn options(
        &self,
        checkout: &Path,
        environment: Vec<(OsString, OsString)>,
        log: Log,
    ) -> CommandOptions {
        let (program, arguments) =
            self.arguments.command.split_first().expect("the arguments ask for one");
        CommandOptions {
            program: program_from(checkout, program),
            arguments: arguments.to_vec(),
            directory: checkout.to_owned(),
            environment,
            time_max: self.arguments.timeout,
            grace: GRACE,
            output_bytes_max: 0,
            log: Some(log),
        }
    }

    /// Runs the command; whether it was ended for the room that it took.
    fn train(
        &self,
        options: &CommandOptions,
        attempt: &Path,
    ) -> std::io::Result<(CommandReport, bool)> {
        let limit = self.arguments.disk_bytes;
        let is_full = AtomicBool::new(false);
        let (finished, until) = mpsc::channel::<()>();
        let report = thread::scope(|scope| {
            let ran = child::run(options, |interrupt| {
                self.stop.set_running(Some(interrupt.clone()));
                let is_full = &is_full;
                scope.spawn(move || {
                    is_full.store(outgrows(attempt, limit, &until), Ordering::Relaxed);
                    if is_full.load(Ordering::Relaxed) {
                        interrupt.interrupt();
                    }
                });
            });
            self.stop.set_running(None);
            drop(finished);
            ran
        })?;
        Ok((report, is_full.into_inner()))
    }
}

/// Why there is nothing to seal in a directory of an attempt, if there is nothing. A link that a commit has
/// on the way to it leads to what the training did not make.
fn nothing_made(attempt: &Path, made: &Path) -> Option<String> {
    let below = made.strip_prefix(attempt).expect("it is part of the attempt");
    let opened = at::open_directory(attempt)
        .and_then(|attempt| at::open_beneath(attempt, below, libc::O_PATH | libc::O_DIRECTORY));
    match (opened, made_in(made)) {
        (Err(error), _) if error.raw_os_error() == Some(libc::ELOOP) || made.is_symlink() => {
            Some(format!("`{}` is, or is behind, a symbolic link", made.display()))
        }
        (Ok(_), Ok(Some(_))) => None,
        (Ok(_), Err(failure)) => Some(in_one_line(&failure)),
        (Err(_), _) | (Ok(_), Ok(None)) => {
            Some(format!("it exited with 0, and wrote nothing into `{}`", made.display()))
        }
    }
}

/// Looks again and again at what a directory takes; whether that was more than `limit` before `until`.
fn outgrows(directory: &Path, limit: u64, until: &mpsc::Receiver<()>) -> bool {
    let mut pause = DISK_INTERVAL;
    while until.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        let begun = Instant::now();
        if limit < bytes_below(directory, limit) {
            return true;
        }
        pause = DISK_INTERVAL.max(begun.elapsed() * DISK_PAUSES);
    }
    false
}
