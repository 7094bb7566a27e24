//! `modelfs mount`: the daemon in the foreground, or started as a process of its own.
//!
//! With `--background` this program starts itself again with `--detached`. The new process tells on
//! its standard output, in one line, that it has mounted or why not; then it leaves the terminal.

use std::env;
use std::io::{BufReader, Write, stdout};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::args::Mount;
use super::client::StorePlace;
use super::config::{self, DAEMON_CACHE_BYTES, VERSION};
use super::failure::{failure, failure_with_hint, of_config, of_daemon, of_io};
use super::table::printable;
use super::{key, print, spill};
use crate::daemon::log::DaemonLog;
use crate::daemon::protocol;
use crate::daemon::{self, ServeOptions};
use crate::ops::{DaemonStatus, Failure, FailureKind, HotLimit};
use crate::sys::mount::Audience;
use crate::sys::process;

/// How long a daemon may take to mount. A catalog that is built anew takes its time.
const START_TIME_MAX: Duration = Duration::from_secs(600);

/// What a detached daemon tells the process that started it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Started {
    Ready(DaemonStatus),
    Failed(Failure),
}

/// How a daemon says that it is ready.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    Text,
    Json,
}

/// Runs the command until the daemon ends, or, with `--background`, until it is mounted.
///
/// # Errors
/// Says why it is not mounted.
pub fn run(
    arguments: &Mount,
    store: &Path,
    sign_key: Option<&Path>,
    shown: Shown,
    log: DaemonLog,
) -> Result<(), Failure> {
    // Before the current directory is another.
    let sign_key = sign_key.map(config::absolute).transpose().map_err(|error| of_config(&error))?;
    let place = StorePlace { directory: store, sign_key: sign_key.as_deref() };
    let mountpoint = config::absolute(&arguments.mountpoint).map_err(|error| of_config(&error))?;
    if arguments.background {
        let status = start(arguments, place, &mountpoint)?;
        return announce(&status, store, shown);
    }
    if arguments.detached {
        let done = serve_detached(arguments, place, mountpoint, log.clone());
        if let Err(failure) = &done {
            spill(&log);
            tell(&Started::Failed(failure.clone()));
        }
        return done;
    }
    let options = options(arguments, place, mountpoint, None)?;
    let mut said = Ok(());
    daemon::serve(&options, |status| said = announce(status, store, shown))
        .map_err(|error| of_daemon(&error))?;
    said
}

fn options(
    arguments: &Mount,
    place: StorePlace<'_>,
    mountpoint: PathBuf,
    log: Option<DaemonLog>,
) -> Result<ServeOptions, Failure> {
    Ok(ServeOptions {
        store: place.directory.to_owned(),
        mountpoint,
        audience: if arguments.allow_other { Audience::Others } else { Audience::Owner },
        cache_bytes: arguments.cache_bytes.unwrap_or(DAEMON_CACHE_BYTES),
        hot_limit: arguments.hot_bytes.map_or(HotLimit::OfDisk, HotLimit::Bytes),
        signer: key::read_signer(place.sign_key)?,
        owner: config::caller().map_err(|error| of_io("cannot tell who we are", &error))?,
        version: VERSION.to_owned(),
        log,
    })
}

fn announce(status: &DaemonStatus, store: &Path, shown: Shown) -> Result<(), Failure> {
    let mountpoint = printable(&status.mountpoint.display().to_string());
    let text = match shown {
        Shown::Json => serde_json::to_string(status).expect("a status has text keys only"),
        Shown::Text => format!(
            "{mountpoint} serves the store {} (process {}); `modelfs umount {mountpoint}` ends it",
            printable(&store.display().to_string()),
            status.pid,
        ),
    };
    print(&format!("{text}\n"))
}

fn serve_detached(
    arguments: &Mount,
    place: StorePlace<'_>,
    mountpoint: PathBuf,
    log: DaemonLog,
) -> Result<(), Failure> {
    process::start_session().map_err(|error| of_io("cannot leave the terminal", &error))?;
    env::set_current_dir("/").map_err(|error| of_io("cannot change to `/`", &error))?;
    let options = options(arguments, place, mountpoint, Some(log))?;
    let served = daemon::serve(&options, |status| {
        tell(&Started::Ready(status.clone()));
        if let Err(error) = process::close_standard_streams() {
            log::warn!("cannot leave the terminal's streams: {error}");
        }
    });
    served.map_err(|error| of_daemon(&error))
}

/// Where nobody listens any more, the daemon goes on all the same.
fn tell(started: &Started) {
    let line = serde_json::to_string(started).expect("a status and a failure have text keys only");
    let mut stdout = stdout().lock();
    if let Err(error) = writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        log::warn!("cannot tell that the daemon has started: {error}");
    }
}

/// Starts the daemon as a process of its own and waits until it is mounted.
fn start(
    arguments: &Mount,
    place: StorePlace<'_>,
    mountpoint: &Path,
) -> Result<DaemonStatus, Failure> {
    let program = env::current_exe().map_err(|error| of_io("cannot find this program", &error))?;
    let mut command = Command::new(&program);
    command.arg("mount").arg("--detached").arg("--store").arg(place.directory);
    if let Some(key) = place.sign_key {
        command.arg("--sign-key").arg(key);
    }
    if arguments.allow_other {
        command.arg("--allow-other");
    }
    if let Some(bytes) = arguments.hot_bytes {
        command.arg("--hot-bytes").arg(bytes.to_string());
    }
    if let Some(bytes) = arguments.cache_bytes {
        command.arg("--cache-bytes").arg(bytes.to_string());
    }
    command.arg("--").arg(mountpoint).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|error| of_io(format!("cannot start `{}`", program.display()), &error))?;
    let told = child.stdout.take().expect("it was piped");
    let (sender, receiver) = mpsc::channel();
    // A thread of its own, so that the waiting has an end. It goes with this process.
    thread::spawn(move || {
        let mut told = BufReader::new(told);
        drop(sender.send(protocol::read_line(&mut told, protocol::REQUEST_BYTES_MAX)));
    });
    let line = match receiver.recv_timeout(START_TIME_MAX) {
        Ok(line) => line.ok().flatten(),
        Err(RecvTimeoutError::Disconnected) => None,
        Err(RecvTimeoutError::Timeout) => {
            let message =
                format!("the daemon has not mounted after {} s", START_TIME_MAX.as_secs());
            let hint = format!("wait for it, or end it with `kill {}`", child.id());
            return Err(failure_with_hint(FailureKind::CouldNot, message, hint));
        }
    };
    match line.and_then(|line| serde_json::from_slice(&line).ok()) {
        Some(Started::Ready(status)) => Ok(status),
        Some(Started::Failed(failure)) => Err(failure),
        None => Err(ended(&mut child)),
    }
}

fn ended(child: &mut Child) -> Failure {
    let how = child.wait().as_ref().map_or_else(ToString::to_string, ExitStatus::to_string);
    failure(FailureKind::CouldNot, format!("the daemon ended before it had mounted: {how}"))
}
