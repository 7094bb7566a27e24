//! `modelfs umount`: end the daemon of a mount, or remove what a dead one left.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::args::Umount;
use super::client::Talk;
use super::failure::{failure, failure_with_hint, of_io};
use super::mount::Shown;
use super::print;
use super::table::{count, printable};
use crate::daemon::mountpoint;
use crate::daemon::protocol::{Answer, Ask};
use crate::format::path;
use crate::ops::{DaemonStatus, Failure, FailureKind, NoProgress, Report, Request};
use crate::sys::mount;

/// How long it may take to end; it waits for snapshots under way.
const ENDING_TIME_MAX: Duration = Duration::from_secs(90);
/// Most dead mounts at one path that are removed at once.
const DEAD_COUNT_MAX: usize = 16;

/// What was done.
#[derive(Serialize)]
struct UmountReport {
    #[serde(with = "path")]
    mountpoint: PathBuf,
    #[serde(with = "path")]
    store: PathBuf,
    /// The daemon that has ended; `None` where none was running.
    ended: Option<u32>,
    /// Snapshots that it finished first.
    finished: usize,
    /// Mounts that were detached here, as no daemon was there to do it.
    detached: usize,
}

/// Ends the daemon of the mount, and waits until it has ended.
///
/// # Errors
/// `NotFound` where no modelfs is mounted.
pub fn run(arguments: &Umount, shown: Shown) -> Result<(), Failure> {
    let named = printable(&arguments.mountpoint.display().to_string());
    let found = mountpoint::find(&arguments.mountpoint);
    let found = found.map_err(|error| failure(FailureKind::NotFound, error.to_string()))?;
    let Some(entry) = found else {
        let message = format!("`{named}` is not a modelfs mount");
        let hint = "`findmnt -t fuse.modelfs` lists those that are there";
        return Err(failure_with_hint(FailureKind::NotFound, message, hint));
    };
    let (mut ended, mut finished) = (None, 0);
    if let Some(daemon) = daemon_of(&entry.source, &entry.mountpoint)? {
        finished = end(&entry.source)?;
        ended = Some(daemon.pid);
    }
    let detached = detach(&entry.mountpoint, ended)?;
    let report = UmountReport {
        mountpoint: entry.mountpoint,
        store: entry.source,
        ended,
        finished,
        detached,
    };
    print(&match shown {
        Shown::Json => serde_json::to_string(&report).expect("text keys only") + "\n",
        Shown::Text => text(&report),
    })
}

fn text(report: &UmountReport) -> String {
    let mountpoint = printable(&report.mountpoint.display().to_string());
    let mut text = match report.ended {
        Some(pid) => format!("{mountpoint} is unmounted, its daemon (process {pid}) has ended\n"),
        None => format!("{mountpoint} is unmounted; no daemon was there to end\n"),
    };
    if 0 < report.finished {
        let finished = u64::try_from(report.finished).expect("a usize fits");
        text += &format!("finished first: {}\n", count(finished, "snapshot"));
    }
    text
}

/// The daemon of the store, if it serves this mount point: another one may have taken over the store
/// since this mount's own died.
fn daemon_of(store: &Path, mountpoint: &Path) -> Result<Option<DaemonStatus>, Failure> {
    let Some(mut talk) = Talk::open(store)? else { return Ok(None) };
    match talk.run(Request::Status, &NoProgress)? {
        Report::Status(status) => {
            Ok(status.daemon.filter(|daemon| daemon.mountpoint == mountpoint))
        }
        other => unreachable!("the status was asked for, not {other:?}"),
    }
}

/// Asks the daemon to end and waits for it; how many snapshots it had to finish.
fn end(store: &Path) -> Result<usize, Failure> {
    let Some(mut talk) = Talk::open(store)? else { return Ok(0) };
    let sealing = match talk.ask(Ask::Unmount)? {
        Answer::Ending { sealing } => sealing,
        Answer::Failure(failure) => return Err(failure),
        other => {
            return Err(failure(
                FailureKind::CouldNot,
                format!("an answer not asked for: {other:?}"),
            ));
        }
    };
    talk.set_patience(Some(ENDING_TIME_MAX))?;
    let begun = Instant::now();
    // It says nothing more: the connection ends when the process does.
    while talk.next().is_ok() {}
    if ENDING_TIME_MAX <= begun.elapsed() {
        let message = "the mount is detached, but its daemon has not ended";
        let hint = "see its log, and end it with a second SIGTERM";
        return Err(failure_with_hint(FailureKind::CouldNot, message, hint));
    }
    Ok(sealing)
}

/// Detaches the mount where no daemon did, and dead ones below it; how many there were.
fn detach(mountpoint: &Path, ended: Option<u32>) -> Result<usize, Failure> {
    let what = || format!("cannot unmount `{}`", printable(&mountpoint.display().to_string()));
    for round in 0..DEAD_COUNT_MAX {
        let entry = mount::find(mountpoint).map_err(|error| of_io(what(), &error))?;
        let is_ours = entry.is_some_and(|entry| entry.fs_type == mount::FS_TYPE);
        let is_first = round == 0 && ended.is_none();
        if !is_ours || (!is_first && !mount::is_dead(mountpoint)) {
            return Ok(round);
        }
        mount::detach(mountpoint).map_err(|error| of_io(what(), &error))?;
    }
    Ok(DEAD_COUNT_MAX)
}
