//! The daemon's socket: one thread a connection, one request a connection.
//!
//! Invariant S1: the actor of a request is who the kernel says is at the other end, never what the
//! request says. Files that a request names are read and written with that user's rights.
//! Invariant S2: a client can neither keep a thread waiting for its request nor make a verb wait for
//! it to read its progress: each has a time limit, after which the verb goes on alone.

use std::io::{self, BufReader, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;

use super::Event;
use super::protocol::{self, ANSWER_BYTES_MAX, Answer, Ask, ProtocolError};
use crate::fs::Filesystem;
use crate::ops::{Caller, Context, Failure, FailureKind, Progress, Report, Request, Workspace};
use crate::sys::socket::{self, Peer};
use crate::sys::users;

/// Most connections at a time; one more is told so and closed.
const CONNECTION_COUNT_MAX: usize = 64;
/// How long a client may take to send its request.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
/// How long one write to a client may take.
const WRITE_TIME_MAX: Duration = Duration::from_secs(10);
/// Progress is told at most this often.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// Rest after an `accept` that went wrong, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the connections of a daemon have in common.
pub(super) struct Shared {
    pub workspace: Arc<Workspace>,
    pub filesystem: Arc<Filesystem>,
    /// The daemon's own user, as a caller at the command line.
    pub owner: Caller,
    pub events: SyncSender<Event>,
    stopping: AtomicBool,
    connections: AtomicUsize,
    /// Connections that wait for the end of this process.
    unmounting: AtomicUsize,
}

impl Shared {
    pub fn new(
        workspace: Arc<Workspace>,
        filesystem: Arc<Filesystem>,
        owner: Caller,
        events: SyncSender<Event>,
    ) -> Self {
        let stopping = AtomicBool::new(false);
        let (connections, unmounting) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { workspace, filesystem, owner, events, stopping, connections, unmounting }
    }

    /// Snapshots that are being made, whichever door they came through.
    pub fn sealing(&self) -> usize {
        self.workspace.sealing().len().max(self.filesystem.busy())
    }

    /// Requests under way, those left out that wait for the end.
    pub fn requests(&self) -> usize {
        let waiting = self.unmounting.load(Ordering::SeqCst);
        self.connections.load(Ordering::SeqCst).saturating_sub(waiting)
    }
}

/// A socket that is being served.
pub(super) struct Server {
    listener: Arc<UnixListener>,
    shared: Arc<Shared>,
}

impl Server {
    /// Serves `listener` on threads of its own.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub fn start(listener: UnixListener, shared: Arc<Shared>) -> io::Result<Self> {
        let listener = Arc::new(listener);
        let (accepting, answering) = (Arc::clone(&listener), Arc::clone(&shared));
        thread::Builder::new()
            .name("socket".to_owned())
            .spawn(move || accept_all(&accepting, &answering))?;
        Ok(Self { listener, shared })
    }

    /// Takes no connection any more; those that are open go on.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        if let Err(error) = socket::stop_listening(&self.listener) {
            log::warn!("cannot close the socket: {error}");
        }
    }
}

fn accept_all(listener: &UnixListener, shared: &Arc<Shared>) {
    loop {
        let accepted = listener.accept();
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        match accepted {
            Ok((stream, _)) => start_connection(stream, shared),
            Err(error) => {
                log::warn!("cannot accept a connection: {error}");
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

fn start_connection(stream: UnixStream, shared: &Arc<Shared>) {
    // The count is given back when the guard goes, with the thread or without one.
    let guard = CountGuard::take(shared);
    if CONNECTION_COUNT_MAX <= guard.others {
        let message = format!("the daemon answers {CONNECTION_COUNT_MAX} requests already");
        let hint = Some("try again in a moment".to_owned());
        drop(stream.set_nonblocking(true));
        write(&stream, &failure(FailureKind::Busy, message, Vec::new(), hint));
        return;
    }
    let started = thread::Builder::new().name("connection".to_owned()).spawn(move || {
        let answered = catch_unwind(AssertUnwindSafe(|| serve(&stream, &guard.shared)));
        if answered.is_err() {
            let hint = Some("see the daemon's log, and report it".to_owned());
            let message = "a mistake in modelfs stopped the request".to_owned();
            write(&stream, &failure(FailureKind::CouldNot, message, Vec::new(), hint));
        }
    });
    if let Err(error) = started {
        log::warn!("cannot start a thread for a connection: {error}");
    }
}

/// Counts a connection as long as it lives.
struct CountGuard {
    shared: Arc<Shared>,
    others: usize,
}

impl CountGuard {
    fn take(shared: &Arc<Shared>) -> Self {
        let others = shared.connections.fetch_add(1, Ordering::SeqCst);
        Self { shared: Arc::clone(shared), others }
    }
}

impl Drop for CountGuard {
    fn drop(&mut self) {
        self.shared.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

fn serve(stream: &UnixStream, shared: &Shared) {
    let asked = stream
        .set_write_timeout(Some(WRITE_TIME_MAX))
        .and_then(|()| socket::peer(stream))
        .map_err(ProtocolError::from)
        .and_then(|peer| Ok((peer, read_ask(stream)?)));
    match asked {
        Ok((_, None)) => {}
        Ok((peer, Some(Ask::Verb(request)))) => {
            write(stream, &Answer::Heard);
            let answer = run(stream, shared, &peer, *request);
            write(stream, &answer);
        }
        Ok((peer, Some(Ask::Unmount))) => unmount(stream, shared, &peer),
        Err(error) => {
            log::info!("a request that cannot be answered: {error}");
            let message = "the daemon cannot understand the request".to_owned();
            let version = shared.filesystem.daemon_status().version;
            let hint = Some(format!("use the command of modelfs {version}, as the daemon is"));
            write(stream, &failure(FailureKind::Usage, message, vec![error.to_string()], hint));
        }
    }
}

fn read_ask(stream: &UnixStream) -> Result<Option<Ask>, ProtocolError> {
    let patient = Patient { stream, end: Instant::now() + REQUEST_TIME_MAX };
    let envelope = protocol::read_envelope(&mut BufReader::new(patient))?;
    Ok(envelope.map(|envelope| envelope.ask))
}

fn run(stream: &UnixStream, shared: &Shared, peer: &Peer, request: Request) -> Answer {
    if let Some(path) = outside_path(&request)
        && !path.is_absolute()
    {
        let message = format!("`{}` is not an absolute path", path.display());
        return failure(FailureKind::Usage, message, Vec::new(), None);
    }
    let caller = Caller {
        user: users::name_of(peer.uid),
        uid: peer.uid,
        gid: peer.gid,
        groups: peer.groups.clone(),
        door: shared.owner.door,
    };
    let context = Context { caller, now: Timestamp::now(), assume: true };
    let progress = SocketProgress::new(stream);
    match shared.workspace.run(&context, request, &progress) {
        Ok(Report::Status(mut status)) => {
            status.daemon = Some(shared.filesystem.daemon_status());
            Answer::Report(Report::Status(status))
        }
        Ok(report) => Answer::Report(report),
        Err(error) => {
            log::info!("{} (uid {}): {error}", context.caller.user, peer.uid);
            Answer::Failure(Failure::from(&error))
        }
    }
}

/// The path outside the store that a request names. Ours is not the directory that the client is in.
fn outside_path(request: &Request) -> Option<&Path> {
    match request {
        Request::Snapshot(options) | Request::Import(options) => {
            options.source.outside().map(|(path, _)| path)
        }
        Request::Export(options) => Some(&options.directory),
        _ => None,
    }
}

fn unmount(stream: &UnixStream, shared: &Shared, peer: &Peer) {
    if peer.uid != 0 && peer.uid != shared.owner.uid {
        let user = users::name_of(peer.uid);
        let message = format!("user `{user}` may not unmount a mount of `{}`", shared.owner.user);
        let hint = Some(format!("ask `{}` to do it", shared.owner.user));
        write(stream, &failure(FailureKind::Refused, message, Vec::new(), hint));
        return;
    }
    shared.unmounting.fetch_add(1, Ordering::SeqCst);
    write(stream, &Answer::Ending { sealing: shared.sealing() });
    // A full channel holds an end that somebody else asked for: as good.
    drop(shared.events.try_send(Event::Unmount { user: users::name_of(peer.uid) }));
    // The client waits for the end of the connection, which the end of the process brings.
    loop {
        thread::park();
    }
}

fn failure(
    kind: FailureKind,
    message: String,
    because: Vec<String>,
    hint: Option<String>,
) -> Answer {
    Answer::Failure(Failure { kind, message, because, hint })
}

/// Writes an answer. A client that has gone away needs none.
fn write(mut stream: &UnixStream, answer: &Answer) {
    let written = protocol::write_line(&mut stream, answer, ANSWER_BYTES_MAX);
    let written = match written {
        Err(ProtocolError::Long { bytes_max }) => {
            let message = format!("the answer is longer than {} MiB", bytes_max >> 20);
            let hint = Some("read `.modelfs/history.jsonl` in the mount instead".to_owned());
            let instead = failure(FailureKind::CouldNot, message, Vec::new(), hint);
            protocol::write_line(&mut stream, &instead, ANSWER_BYTES_MAX)
        }
        written => written,
    };
    if let Err(error) = written {
        log::debug!("a client went away before its answer: {error}");
    }
}

/// Reads from a client until a moment that no amount of single bytes puts off.
struct Patient<'a> {
    stream: &'a UnixStream,
    end: Instant,
}

impl Read for Patient<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no whole request in 10 seconds");
        let rest = self.end.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Err(late());
        }
        self.stream.set_read_timeout(Some(rest))?;
        let mut stream = self.stream;
        match stream.read(out) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(late()),
            read => read,
        }
    }
}

/// Tells a client how far its request is.
struct SocketProgress<'a> {
    stream: &'a UnixStream,
    /// Guards what was not told yet; held while it is told. Nothing is locked under it.
    state: Mutex<ProgressState>,
}

struct ProgressState {
    bytes: u64,
    told: Instant,
    /// The client has not read for too long, or has gone.
    silent: bool,
}

impl<'a> SocketProgress<'a> {
    fn new(stream: &'a UnixStream) -> Self {
        let state = ProgressState { bytes: 0, told: Instant::now(), silent: false };
        Self { stream, state: Mutex::new(state) }
    }

    fn tell(&self, state: &mut ProgressState, answer: &Answer) {
        state.told = Instant::now();
        let mut stream = self.stream;
        if !state.silent && protocol::write_line(&mut stream, answer, ANSWER_BYTES_MAX).is_err() {
            state.silent = true;
        }
    }
}

impl Progress for SocketProgress<'_> {
    fn begin(&self, what: &str, bytes_total: u64) {
        let mut state = self.state.lock();
        state.bytes = 0;
        self.tell(&mut state, &Answer::Begin { what: what.to_owned(), bytes_total });
    }

    fn advance(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.bytes += bytes;
        if PROGRESS_INTERVAL <= state.told.elapsed() {
            let bytes = std::mem::take(&mut state.bytes);
            self.tell(&mut state, &Answer::Advance { bytes });
        }
    }

    fn is_cancelled(&self) -> bool {
        self.state.lock().silent
    }
}
