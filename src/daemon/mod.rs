//! The process that serves a mount: it holds the store, answers the kernel and the command line.
//!
//! Order of the start: the mount point is judged, the store opened under its lock, the socket made,
//! the file system mounted, the socket served. Order of the end: the mount is detached, the socket
//! closed, snapshots under way are waited for, the store closed, the process ends.
//! Invariant S3: whoever holds the store's lock owns the socket's name, so a stale one may be removed.
//! An end at any other moment, `kill -9` included, loses nothing that was acknowledged.

pub mod error;
pub mod log;
pub mod mountpoint;
pub mod protocol;
mod server;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use ::log::{debug, info, warn};
use jiff::Timestamp;

use self::error::DaemonError;
use self::log::DaemonLog;
use self::server::{Server, Shared};
use crate::format::signature::Signer;
use crate::fs::{Filesystem, Settings};
use crate::fuse::{MountOptions, Session};
use crate::ops::{Caller, DaemonStatus, HotLimit, OpenOptions, Workspace};
use crate::store::Layout;
use crate::sys::mount::Audience;
use crate::sys::process::EndSignals;
use crate::sys::{identity, io as store_io, process, socket, users};

/// What the lock of a store says first where a daemon holds it.
pub const HOLDER: &str = "modelfs mount";

/// How long snapshots under way may take to finish at the end.
const SEALING_TIME_MAX: Duration = Duration::from_secs(60);
/// How long other requests may take then.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(2);
/// How often is looked whether they have.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Reasons to end that may wait to be heard; the first one counts.
const EVENT_COUNT_MAX: usize = 8;
/// Exit code of a daemon that was told twice to end: it could not finish.
const EXIT_AT_ONCE: i32 = 1;
/// Masks of what this process makes: nothing for others until the socket is there; afterwards the
/// modes that callers ask for in a draft are theirs.
const UMASK_AT_START: u32 = 0o077;
const UMASK_WHEN_SERVING: u32 = 0;

/// What a daemon is to do.
pub struct ServeOptions {
    pub store: PathBuf,
    pub mountpoint: PathBuf,
    /// Who may use the mount and the socket.
    pub audience: Audience,
    pub cache_bytes: u64,
    pub hot_limit: HotLimit,
    /// Signs the records.
    pub signer: Option<Arc<Signer>>,
    /// The user who runs the daemon, as a caller at the command line.
    pub owner: Caller,
    pub version: String,
    /// For a daemon without a terminal: lines go to a file in the store as soon as it is open.
    pub log: Option<DaemonLog>,
}

/// Why a daemon ends.
#[derive(Debug)]
enum Event {
    Signal(&'static str),
    Unmount { user: String },
    SessionEnded,
}

/// Connects to the daemon of the store at `store`.
///
/// # Errors
/// `NotFound` or `ConnectionRefused` where none runs.
pub fn connect(store: &Path) -> io::Result<UnixStream> {
    socket::connect(&Layout::new(store).socket())
}

/// Serves until a signal, an `unmount` or the end of the mount; `ready` is called once it is mounted.
///
/// # Errors
/// Says why it did not start. Once it serves, it ends well.
pub fn serve(options: &ServeOptions, ready: impl FnOnce(&DaemonStatus)) -> Result<(), DaemonError> {
    let signals = prepare_process()?;
    let (sender, events) = sync_channel(EVENT_COUNT_MAX);
    let has_begun = Arc::new(AtomicBool::new(false));
    watch_signals(signals, Arc::clone(&has_begun), &sender).map_err(setup("start a thread"))?;
    let mountpoint = mountpoint::check(&options.mountpoint, &options.store)?;
    let since = Timestamp::now();
    let open = OpenOptions {
        directory: options.store.clone(),
        create: true,
        holder: format!("{HOLDER} {}", mountpoint.display()),
        cache_bytes: options.cache_bytes,
        hot_limit: options.hot_limit,
        clock: Timestamp::now,
        signer: options.signer.clone(),
    };
    let io = Arc::new(store_io::Real);
    let workspace = Arc::new(Workspace::open(open, io, since, &options.owner)?);
    if workspace.needs_key() {
        warn!("the records of this store are signed: without `--sign-key` nothing can be changed");
    }
    let store = workspace.directory().to_owned();
    if let Some(log) = &options.log {
        log.attach(&Layout::new(&store).log()).map_err(setup("open the log"))?;
    }
    let listener = listen(&store, options.audience)?;
    process::set_umask(UMASK_WHEN_SERVING);

    let filesystem = Arc::new(Filesystem::new(
        Arc::clone(&workspace),
        Settings {
            mountpoint: mountpoint.clone(),
            pid: std::process::id(),
            since,
            version: options.version.clone(),
            now: Timestamp::now,
            name_of: users::name_of,
            groups_of: users::groups_of_process,
            uid: identity::own_uid(),
            gid: identity::own_gid(),
        },
    ));
    has_begun.store(true, Ordering::SeqCst);
    let session = mount(&filesystem, &mountpoint, &store, options.audience)?;
    watch_session(Arc::clone(&session), &sender).map_err(setup("start a thread"))?;
    work_in_background(&workspace).map_err(setup("start a thread"))?;
    let shared = Arc::new(Shared::new(workspace, filesystem, options.owner.clone(), sender));
    let server = Server::start(listener, Arc::clone(&shared)).map_err(setup("start a thread"))?;
    info!("`{}` serves the store `{}`", mountpoint.display(), store.display());
    ready(&shared.filesystem.daemon_status());
    wait_for_end(&events);
    end(&session, &server, &shared, &store);
    Ok(())
}

fn setup(what: &'static str) -> impl Fn(io::Error) -> DaemonError {
    move |source| DaemonError::Setup { what, source }
}

fn prepare_process() -> Result<EndSignals, DaemonError> {
    process::set_umask(UMASK_AT_START);
    // Before the first thread, so that all of them leave these signals to the one that waits.
    let signals = EndSignals::hold().map_err(setup("hold signals back"))?;
    match process::raise_open_files() {
        Ok(count) => debug!("at most {count} open files"),
        Err(error) => warn!("cannot raise the limit of open files: {error}"),
    }
    Ok(signals)
}

/// Makes the socket. The lock is ours, so whatever has its name was left by a daemon that is gone.
fn listen(store: &Path, audience: Audience) -> Result<UnixListener, DaemonError> {
    let path = Layout::new(store).socket();
    let (directory_mode, socket_mode) = match audience {
        Audience::Owner => (0o700, 0o600),
        Audience::Others => (0o711, 0o666),
    };
    let made = remove_socket(&path).and_then(|()| {
        let listener = socket::listen(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(socket_mode))?;
        fs::set_permissions(store, fs::Permissions::from_mode(directory_mode))?;
        Ok(listener)
    });
    made.map_err(|source| DaemonError::Socket { path, source })
}

fn remove_socket(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn mount(
    filesystem: &Arc<Filesystem>,
    mountpoint: &Path,
    store: &Path,
    audience: Audience,
) -> Result<Arc<Session>, DaemonError> {
    let options = MountOptions {
        allow_other: audience == Audience::Others,
        threads: 0,
        source: store.to_owned(),
    };
    let mounted = crate::fuse::mount(Arc::clone(filesystem), mountpoint, &options);
    mounted.map(Arc::new).map_err(|source| {
        // Nobody may wait at a socket that nobody will serve.
        drop(remove_socket(&Layout::new(store).socket()));
        DaemonError::Mount(source)
    })
}

/// Turns the first signal into an event; the second ends the process, and so does the first where
/// nothing is mounted yet. Neither loses what was acknowledged.
fn watch_signals(
    signals: EndSignals,
    has_begun: Arc<AtomicBool>,
    sender: &SyncSender<Event>,
) -> io::Result<()> {
    let events = sender.clone();
    let watch = move || {
        let mut is_again = false;
        while let Ok(name) = signals.wait() {
            if is_again || !has_begun.load(Ordering::SeqCst) {
                warn!("{name}: ending at once");
                std::process::exit(EXIT_AT_ONCE);
            }
            is_again = true;
            drop(events.try_send(Event::Signal(name)));
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(watch).map(drop)
}

fn watch_session(session: Arc<Session>, sender: &SyncSender<Event>) -> io::Result<()> {
    let events = sender.clone();
    let watch = move || {
        if let Err(error) = session.wait() {
            warn!("the mount has ended: {error}");
        }
        drop(events.try_send(Event::SessionEnded));
    };
    thread::Builder::new().name("session".to_owned()).spawn(watch).map(drop)
}

/// The threads end when the workspace closes.
fn work_in_background(workspace: &Arc<Workspace>) -> io::Result<()> {
    let start = |name: &str, work: fn(&Workspace)| {
        let workspace = Arc::clone(workspace);
        thread::Builder::new().name(name.to_owned()).spawn(move || work(&workspace)).map(drop)
    };
    start("hot", Workspace::work_on_hot_files)?;
    start("checkpoint", Workspace::keep_checkpoints)
}

fn wait_for_end(events: &Receiver<Event>) {
    match events.recv().expect("the signal thread keeps a sender") {
        Event::Signal(name) => info!("{name}: ending"),
        Event::Unmount { user } => info!("`{user}` asked to unmount: ending"),
        Event::SessionEnded => info!("the mount is gone: ending"),
    }
}

fn end(session: &Session, server: &Server, shared: &Shared, store: &Path) {
    // First: nobody waits for it, and it takes the disk from what has to be finished.
    shared.workspace.stop_hot_work();
    if let Err(error) = session.unmount() {
        warn!("cannot detach the mount: {error}");
    }
    server.stop();
    if let Err(error) = remove_socket(&Layout::new(store).socket()) {
        warn!("cannot remove the socket: {error}");
    }
    let begun = Instant::now();
    while 0 < shared.sealing() && begun.elapsed() < SEALING_TIME_MAX {
        thread::sleep(LOOK_INTERVAL);
    }
    if 0 < shared.sealing() {
        warn!("{} snapshots are given up; nothing of them is left", shared.sealing());
    }
    let begun = Instant::now();
    while 0 < shared.requests() && begun.elapsed() < REQUEST_TIME_MAX {
        thread::sleep(LOOK_INTERVAL);
    }
    shared.workspace.close();
    info!("ended");
}
