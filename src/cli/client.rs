//! Asking the daemon where one runs, else opening the store under its lock.

use std::io::BufReader;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use jiff::Timestamp;

use super::config::{self, COMMAND_CACHE_BYTES, ROOT_STORE, STORE_VARIABLE};
use super::failure::{failure, failure_with_hint, of_io, of_protocol};
use super::key;
use crate::daemon::protocol::{
    self, Answer, Ask, Envelope, PROTOCOL, ProtocolError, REQUEST_BYTES_MAX,
};
use crate::daemon::{self, HOLDER};
use crate::ops::{
    Failure, FailureKind, HotLimit, OpenOptions, OpsError, Progress, Report, Request, Workspace,
};
use crate::store::{Layout, StoreError};
use crate::sys::io as store_io;
use crate::sys::{socket, users};

/// What the lock of a store says where a command holds it.
const COMMAND_HOLDER: &str = "modelfs";
/// How long another command may hold the store before we give up.
const COMMAND_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long a daemon may hold the store without answering: it is starting, ending, or stuck.
const DAEMON_WAIT_MAX: Duration = Duration::from_secs(1);
/// How long a daemon may take to say that it heard a request; what it does then may take longer.
const HEARING_TIME_MAX: Duration = Duration::from_secs(10);
/// How often both are tried.
const TRY_INTERVAL: Duration = Duration::from_millis(50);

/// What to do where there is no store yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Absent {
    Create,
    Refuse,
}

/// Where the store is, and the key that signs what is done to it without a daemon.
#[derive(Clone, Copy, Debug)]
pub struct StorePlace<'a> {
    pub directory: &'a Path,
    pub sign_key: Option<&'a Path>,
}

impl<'a> From<&'a Path> for StorePlace<'a> {
    /// For requests that change nothing.
    fn from(directory: &'a Path) -> Self {
        Self { directory, sign_key: None }
    }
}

/// A way to have requests done.
pub enum Client {
    Daemon(Talk),
    Direct(Box<Workspace>),
}

impl Client {
    /// Reaches the store at `store`.
    ///
    /// # Errors
    /// `NotFound` without a store, `Busy` while somebody else has it, `Refused` where it is not ours.
    pub fn open<'a>(
        place: impl Into<StorePlace<'a>>,
        absent: Absent,
        hot_limit: HotLimit,
    ) -> Result<Self, Failure> {
        let place = place.into();
        let (store, begun) = (place.directory, Instant::now());
        loop {
            if let Some(talk) = Talk::open(store)? {
                return Ok(Self::Daemon(talk));
            }
            let (pid, holder) = match open_workspace(place, absent, hot_limit)? {
                Opened::Ours(workspace) => return Ok(Self::Direct(workspace)),
                Opened::Locked { pid, holder } => (pid, holder),
            };
            let is_daemon = holder.starts_with(HOLDER);
            if (if is_daemon { DAEMON_WAIT_MAX } else { COMMAND_WAIT_MAX }) < begun.elapsed() {
                return Err(held(store, pid, &holder, is_daemon));
            }
            thread::sleep(TRY_INTERVAL);
        }
    }

    /// Has one request done.
    ///
    /// # Errors
    /// Those of the verb, and those of the way to the daemon.
    pub fn run(self, request: Request, progress: &dyn Progress) -> Result<Report, Failure> {
        match self {
            Self::Daemon(mut talk) => talk.run(request, progress),
            Self::Direct(workspace) => {
                let context = config::context().map_err(|e| of_io("cannot tell who we are", &e))?;
                let report = workspace.run(&context, request, progress);
                workspace.close();
                report.map_err(|error| Failure::from(&error))
            }
        }
    }
}

/// A way to have several requests done, one after the other.
pub struct Session<'a> {
    store: StorePlace<'a>,
    /// `None` where a daemon does it.
    workspace: Option<Box<Workspace>>,
}

impl<'a> Session<'a> {
    /// Reaches the store at `store`.
    ///
    /// # Errors
    /// As [`Client::open`].
    pub fn open(store: StorePlace<'a>, absent: Absent) -> Result<Self, Failure> {
        let workspace = match Client::open(store, absent, HotLimit::Untouched)? {
            Client::Daemon(_) => None,
            Client::Direct(workspace) => Some(workspace),
        };
        Ok(Self { store, workspace })
    }

    /// Has one request done.
    ///
    /// # Errors
    /// Those of the verb, and those of the way to the daemon.
    pub fn run(&self, request: Request, progress: &dyn Progress) -> Result<Report, Failure> {
        let Some(workspace) = &self.workspace else {
            // Each request is a talk of its own.
            return Client::open(self.store, Absent::Refuse, HotLimit::Untouched)?
                .run(request, progress);
        };
        let context = config::context().map_err(|e| of_io("cannot tell who we are", &e))?;
        workspace.run(&context, request, progress).map_err(|error| Failure::from(&error))
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if let Some(workspace) = &self.workspace {
            workspace.close();
        }
    }
}

/// Whether a daemon runs for the store.
///
/// # Errors
/// As [`Talk::open`].
pub fn has_daemon(store: &Path) -> Result<bool, Failure> {
    Ok(Talk::open(store)?.is_some())
}

/// Whether a request is longer than a daemon takes.
pub fn is_too_long(request: Request) -> bool {
    let envelope = Envelope { protocol: PROTOCOL, ask: Ask::Verb(Box::new(request)) };
    let written = protocol::write_line(&mut io::sink(), &envelope, REQUEST_BYTES_MAX);
    matches!(written, Err(ProtocolError::Long { .. }))
}

enum Opened {
    Ours(Box<Workspace>),
    Locked { pid: u32, holder: String },
}

fn open_workspace(
    StorePlace { directory: store, sign_key }: StorePlace<'_>,
    absent: Absent,
    hot_limit: HotLimit,
) -> Result<Opened, Failure> {
    let is_there = match Layout::new(store).config().try_exists() {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => false,
        looked => looked.map_err(|error| unreachable(store, &error))?,
    };
    if !is_there && absent == Absent::Refuse {
        return Err(no_store(store));
    }
    let options = OpenOptions {
        directory: store.to_owned(),
        create: absent == Absent::Create,
        holder: COMMAND_HOLDER.to_owned(),
        cache_bytes: COMMAND_CACHE_BYTES,
        hot_limit,
        clock: Timestamp::now,
        signer: key::read_signer(sign_key)?,
    };
    let caller = config::caller().map_err(|error| of_io("cannot tell who we are", &error))?;
    match Workspace::open(options, Arc::new(store_io::Real), Timestamp::now(), &caller) {
        Ok(workspace) => Ok(Opened::Ours(Box::new(workspace))),
        Err(OpsError::Store(StoreError::Locked { pid, holder, .. })) => {
            Ok(Opened::Locked { pid, holder })
        }
        Err(error) => Err(Failure::from(&error)),
    }
}

/// There is no store at the path.
pub fn no_store(store: &Path) -> Failure {
    let of_root = Path::new(ROOT_STORE);
    let served = (store != of_root && matches!(has_daemon(of_root), Ok(true))).then_some(of_root);
    let message = format!("there is no store at `{}`", store.display());
    failure_with_hint(FailureKind::NotFound, message, other_store(served))
}

/// Where to look for a store instead: most users have none of their own and mean the one for all.
fn other_store(served: Option<&Path>) -> String {
    match served {
        Some(of_root) => {
            let of_root = of_root.display();
            format!("export {STORE_VARIABLE}={of_root}    # a daemon serves that one to all users")
        }
        None => format!(
            "`modelfs mount MOUNTPOINT` makes one; name another with `--store DIR` or `{STORE_VARIABLE}`"
        ),
    }
}

fn held(store: &Path, pid: u32, holder: &str, is_daemon: bool) -> Failure {
    let hint = if is_daemon {
        format!("wait until it answers, or end it with `kill {pid}`")
    } else {
        "try again when it has ended".to_owned()
    };
    Failure {
        because: vec![format!("process {pid} (`{holder}`) holds it")],
        ..failure_with_hint(
            FailureKind::Busy,
            format!("cannot open the store `{}`", store.display()),
            hint,
        )
    }
}

/// The store, or its daemon, is there but not for us.
fn unreachable(store: &Path, error: &io::Error) -> Failure {
    let failed = of_io(format!("cannot reach the store `{}`", store.display()), error);
    if error.kind() != io::ErrorKind::PermissionDenied {
        return failed;
    }
    let owner = fs::metadata(store).map(|found| format!("as `{}`", users::name_of(found.uid())));
    let owner = owner.unwrap_or_else(|_| "as its owner".to_owned());
    let hint = format!("run this {owner}, or have it mounted with `--allow-other`");
    Failure { hint: Some(hint), ..failed }
}

/// A connection to a daemon.
pub struct Talk {
    stream: BufReader<UnixStream>,
}

impl Talk {
    /// Connects; `None` where no daemon runs.
    ///
    /// # Errors
    /// `Refused` where the socket is not for us.
    pub fn open(store: &Path) -> Result<Option<Self>, Failure> {
        match daemon::connect(store) {
            Ok(stream) => Ok(Some(Self { stream: BufReader::new(stream) })),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::ConnectionRefused => Ok(None),
                _ => Err(unreachable(store, &error)),
            },
        }
    }

    /// Waits at most so long for each answer from now on; without a limit where there is none.
    ///
    /// # Errors
    /// Those of `setsockopt`.
    pub fn set_patience(&self, patience: Option<Duration>) -> Result<(), Failure> {
        let stream = self.stream.get_ref();
        let set =
            stream.set_read_timeout(patience).and_then(|()| stream.set_write_timeout(patience));
        set.map_err(|error| of_io("cannot wait for the daemon", &error))
    }

    /// Sends a request and gives the first answer.
    ///
    /// # Errors
    /// `Usage` for a request that cannot be sent, `Busy` where the daemon does not hear it, else what
    /// the connection gives.
    pub fn ask(&mut self, ask: Ask) -> Result<Answer, Failure> {
        self.set_patience(Some(HEARING_TIME_MAX))?;
        let envelope = Envelope { protocol: PROTOCOL, ask };
        let sent = protocol::write_line(self.stream.get_mut(), &envelope, REQUEST_BYTES_MAX);
        match sent {
            // A daemon that takes no request has said why before it closed the connection.
            Ok(()) | Err(ProtocolError::Io(_)) => self.next(),
            Err(ProtocolError::Json(error)) => Err(Failure {
                because: vec![error.to_string()],
                ..failure(FailureKind::Usage, "cannot send the request to the daemon")
            }),
            Err(ProtocolError::Long { bytes_max }) => Err(failure(
                FailureKind::Usage,
                format!("the request is longer than {bytes_max} bytes"),
            )),
            Err(error) => Err(of_protocol(&error)),
        }
    }

    /// The next answer.
    ///
    /// # Errors
    /// `CouldNot` where the daemon has gone.
    pub fn next(&mut self) -> Result<Answer, Failure> {
        let answer = protocol::read_answer(&mut self.stream).map_err(|error| match error {
            ProtocolError::Io(error) if error.kind() == io::ErrorKind::WouldBlock => self.silent(),
            error => of_protocol(&error),
        })?;
        answer.ok_or_else(|| of_protocol(&ProtocolError::Cut))
    }

    fn silent(&self) -> Failure {
        let peer = socket::peer(self.stream.get_ref());
        let pid = peer.map_or("PID".to_owned(), |peer| peer.pid.to_string());
        let message = format!("the daemon (process {pid}) does not answer");
        let hint = format!("see its log; `kill -9 {pid}` loses nothing that was acknowledged");
        failure_with_hint(FailureKind::Busy, message, hint)
    }

    /// Has one request done, however long that takes once it was heard.
    ///
    /// # Errors
    /// Those of the verb, and those of the way to the daemon.
    pub fn run(&mut self, request: Request, progress: &dyn Progress) -> Result<Report, Failure> {
        let mut answer = self.ask(Ask::Verb(Box::new(request)))?;
        loop {
            match answer {
                Answer::Heard => self.set_patience(None)?,
                Answer::Begin { what, bytes_total } => progress.begin(&what, bytes_total),
                Answer::Advance { bytes } => progress.advance(bytes),
                Answer::Report(report) => return Ok(report),
                Answer::Failure(failure) => return Err(failure),
                Answer::Ending { .. } => return Err(of_protocol(&ProtocolError::Cut)),
            }
            answer = self.next()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_store_is_told_of_the_one_for_all() {
        let told = other_store(Some(Path::new(ROOT_STORE)));
        assert!(told.starts_with("export MODELFS_STORE=/var/lib/modelfs "), "{told}");
        let told = other_store(None);
        assert!(told.contains("modelfs mount") && told.contains("MODELFS_STORE"), "{told}");
    }
}
