//! `modelfs watch`: each new commit of a branch is trained in a clean check-out, and sealed.
//!
//! Invariant W1: a commit is done once what it made was sealed or its failure was logged, and that is on
//! disk before the next one begins. What was being trained when this program was killed is trained again;
//! what was trained is sealed again, which gives the version that is there.
//! Invariant W2: of one model, store and user one watch runs at a time, and at most one training of it:
//! what a killed one left running is ended first.
//! Invariant W3: what is sealed of a commit was written by its own training: before it is looked at, all
//! that the training left running is ended, and no other training has written into its directory.

mod attempt;
mod place;
mod stop;

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use serde::Serialize;

use self::attempt::{Attempt, Outcome};
use self::place::{Current, Place, Saved};
use self::stop::Stop;
use crate::capture::git::{Commit, CommitId, GitError, Watched};
use crate::cli::args::Watch;
use crate::cli::client::StorePlace;
use crate::cli::config;
use crate::cli::failure::{failure, failure_with_hint, of_config, of_io};
use crate::cli::mount::Shown;
use crate::cli::table::printable;
use crate::cli::{ask, print, say};
use crate::format::path;
use crate::ops::{
    self, Failure, FailureKind, OpsError, Report, Request, SnapshotOptions, SnapshotReport,
};

/// What became of a commit, for programs.
#[derive(Serialize)]
struct Event<'a> {
    commit: CommitId,
    subject: &'a str,
    #[serde(flatten)]
    result: EventResult<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum EventResult<'a> {
    Sealed(&'a SnapshotReport),
    Failed {
        why: &'a str,
        #[serde(with = "path")]
        log: &'a Path,
    },
}

/// Follows a branch until it is told to end, or with `--once` until nothing is left to do.
///
/// # Errors
/// `Busy` where the model is watched already; where a result cannot be sealed, and is kept for the next
/// start; with `--once` where a commit failed.
pub fn run(arguments: &Watch, store: StorePlace<'_>, shown: Shown) -> Result<(), Failure> {
    check(arguments)?;
    let repository = config::absolute(&arguments.repo).map_err(|error| of_config(&error))?;
    let tip = Watched::open(&repository).and_then(|watched| watched.tip(&arguments.reference));
    tip.map_err(|error| of_git(&error))?;
    let stop = Stop::listen()?;
    let state = config::state_directory().map_err(|error| of_config(&error))?;
    let place = Place::open(&state, store.directory, &arguments.model, shown)?;
    stop.set_mark(place.mark());
    place.end_started()?;
    place.remove_aside();
    let saved = place.load()?;
    Watcher { arguments, repository, store, shown, stop: &stop, place, saved, failed: 0 }.follow()
}

fn check(arguments: &Watch) -> Result<(), Failure> {
    let is_below = |path: &Path| {
        path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
    };
    match &arguments.output {
        Some(output) if !is_below(output) => {
            let message = format!("`{}` is not below the check-out", output.display());
            let hint = "name a directory relative to it, without `..`";
            Err(failure_with_hint(FailureKind::Usage, message, hint))
        }
        _ => Ok(()),
    }
}

fn of_git(error: &GitError) -> Failure {
    let message = error.to_string();
    match error {
        GitError::Missing { .. } => {
            failure_with_hint(FailureKind::NotFound, message, "name it with `--repo DIR`")
        }
        GitError::NoCommit { .. } => {
            failure_with_hint(FailureKind::NotFound, message, "name a branch with `--ref NAME`")
        }
        GitError::Sha256 { .. } => {
            failure_with_hint(FailureKind::CouldNot, message, "name another one with `--repo DIR`")
        }
        GitError::Io { source, .. } => of_io(message, source),
        GitError::Git { source, .. } => Failure {
            because: vec![source.message().to_owned()],
            ..failure_with_hint(FailureKind::CouldNot, message, "git fsck")
        },
        GitError::Content { source, .. } => Failure {
            because: vec![source.message().to_owned()],
            ..failure(FailureKind::CouldNot, message)
        },
        GitError::Large { .. } => {
            failure_with_hint(FailureKind::CouldNot, message, "give more room with `--disk-bytes`")
        }
    }
}

/// A failure as the reason for that of a commit.
fn in_one_line(failure: &Failure) -> String {
    let because = failure.because.iter().map(String::as_str);
    std::iter::once(failure.message.as_str()).chain(because).collect::<Vec<_>>().join(": ")
}

/// Why what was made can never be sealed: for what it holds.
fn unfit(options: &SnapshotOptions) -> Option<Failure> {
    match ops::check_outside(options) {
        Err(
            error @ (OpsError::Unfit { .. } | OpsError::Empty { .. } | OpsError::Option { .. }),
        ) => Some(Failure::from(&error)),
        // Anything else may be put right.
        _ => None,
    }
}

struct Watcher<'a> {
    arguments: &'a Watch,
    repository: PathBuf,
    store: StorePlace<'a>,
    shown: Shown,
    stop: &'a Stop,
    place: Place,
    saved: Saved,
    /// Commits that failed since this program was started.
    failed: u64,
}

impl Watcher<'_> {
    fn follow(mut self) -> Result<(), Failure> {
        self.resume()?;
        let mut said = String::new();
        while !self.stop.is_asked() {
            match self.next() {
                Ok(Some((watched, commit))) => self.train(&watched, commit)?,
                Ok(None) if self.arguments.once => break,
                Ok(None) => drop(self.stop.pause(self.arguments.interval)),
                Err(failure) if self.arguments.once => return Err(failure),
                // A repository may be away for a while; that is said once.
                Err(failure) => {
                    if said != failure.message {
                        say(&failure, self.shown);
                        said = failure.message;
                    }
                    self.stop.pause(self.arguments.interval);
                }
            }
        }
        if self.arguments.once && 0 < self.failed {
            let message = format!("commits that failed: {}", self.failed);
            let hint = format!("their logs are in {}", self.place.logs().display());
            return Err(failure_with_hint(FailureKind::CouldNot, message, hint));
        }
        Ok(())
    }

    /// Goes on where an earlier watch ended.
    fn resume(&mut self) -> Result<(), Failure> {
        match self.saved.current.clone() {
            Some(Current::Trained { commit, .. }) if self.arguments.give_up => {
                self.finish_failed(&commit, "what it made was given up")
            }
            Some(Current::Trained { commit, options }) => self.seal(&commit, &options),
            Some(Current::Training { commit }) if self.arguments.give_up => {
                self.finish_failed(&self.describe(commit), "its training was given up")
            }
            Some(Current::Training { .. }) | None => self.place.clear(),
        }
    }

    /// A commit that may be there no more.
    fn describe(&self, id: CommitId) -> Commit {
        let found = Watched::open(&self.repository).and_then(|it| it.tip(&id.to_string()));
        found.unwrap_or_else(|_| Commit { id, subject: String::new(), author: String::new() })
    }

    /// The oldest commit that is to be trained.
    fn next(&self) -> Result<Option<(Watched, Commit)>, Failure> {
        let watched = Watched::open(&self.repository).map_err(|error| of_git(&error))?;
        let next = self.next_of(&watched).map_err(|error| of_git(&error))?;
        Ok(next.map(|commit| (watched, commit)))
    }

    /// Of a branch that was written anew that is the last one. So it is of one that was never looked at;
    /// once begun, that one remains the first.
    fn next_of(&self, watched: &Watched) -> Result<Option<Commit>, GitError> {
        let tip = watched.tip(&self.arguments.reference)?;
        if self.saved.done.is_empty() {
            let Some(Current::Training { commit }) = &self.saved.current else {
                return Ok(Some(tip));
            };
            return match watched.tip(&commit.to_string()) {
                Err(GitError::NoCommit { .. }) => Ok(Some(tip)),
                begun => begun.map(Some),
            };
        }
        let done: HashSet<CommitId> = self.saved.done.iter().copied().collect();
        let new = watched.since(|commit| done.contains(&commit), tip.id)?;
        Ok(new.map_or(Some(tip), |new| new.into_iter().next()))
    }

    /// One commit, from its check-out to its version.
    fn train(&mut self, watched: &Watched, commit: Commit) -> Result<(), Failure> {
        self.saved.current = Some(Current::Training { commit: commit.id });
        self.place.save(&self.saved)?;
        let attempt =
            Attempt { arguments: self.arguments, place: &self.place, stop: self.stop, commit };
        let outcome = attempt.run(watched)?;
        let commit = attempt.commit;
        match outcome {
            Outcome::Ended => self.place.clear(),
            Outcome::Failed { why } => self.finish_failed(&commit, &why),
            Outcome::Made(options) => {
                // What the state speaks of is on disk before the state.
                self.place.sync_attempt()?;
                let current = Current::Trained { commit: commit.clone(), options: options.clone() };
                self.saved.current = Some(current);
                self.place.save(&self.saved)?;
                self.seal(&commit, &options)
            }
        }
    }

    /// Seals what a commit made. While others hold the store or the model it waits.
    fn seal(&mut self, commit: &Commit, options: &SnapshotOptions) -> Result<(), Failure> {
        let mut is_said = false;
        let sealed = loop {
            match ask(Request::Snapshot(options.clone()), self.store) {
                Ok(Report::Snapshot(report)) => break report,
                Ok(_) => unreachable!("the answer to `snapshot` is one"),
                Err(failure) if failure.kind == FailureKind::Busy => {
                    if !std::mem::replace(&mut is_said, true) {
                        say(&failure, self.shown);
                    }
                    if self.stop.pause(self.arguments.interval) {
                        return Ok(());
                    }
                }
                Err(failure) => {
                    if let Some(why) = unfit(options) {
                        return self.finish_failed(commit, &in_one_line(&why));
                    }
                    let hint = "start the watch again once that is put right, and it is sealed \
                                without being trained again; `--give-up` counts it as failed";
                    return Err(Failure { hint: Some(hint.to_owned()), ..failure });
                }
            }
        };
        self.finish(commit)?;
        self.place.remove_log(commit.id);
        self.tell(commit, EventResult::Sealed(&sealed))
    }

    fn finish_failed(&mut self, commit: &Commit, why: &str) -> Result<(), Failure> {
        self.failed += 1;
        let log = self.place.end_log(commit.id, why)?;
        self.finish(commit)?;
        self.tell(commit, EventResult::Failed { why, log: &log })
    }

    fn finish(&mut self, commit: &Commit) -> Result<(), Failure> {
        self.saved.finish(commit.id);
        self.place.save(&self.saved)?;
        self.place.clear()
    }

    fn tell(&self, commit: &Commit, result: EventResult<'_>) -> Result<(), Failure> {
        let event = Event { commit: commit.id, subject: &commit.subject, result };
        print(&match self.shown {
            Shown::Json => serde_json::to_string(&event).expect("it has text keys only") + "\n",
            Shown::Text => text(&event),
        })
    }
}

fn text(event: &Event<'_>) -> String {
    let Event { commit, subject, result } = event;
    let (commit, subject) = (commit.short(), printable(subject));
    match result {
        EventResult::Sealed(SnapshotReport { model, version, .. }) => {
            format!("{commit}  {model}/{version}  {subject}\n")
        }
        EventResult::Failed { why, log } => {
            let log = printable(&log.display().to_string());
            format!("{commit}  failed: {}  {subject}\n  see {log}\n", printable(why))
        }
    }
}
