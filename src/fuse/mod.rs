//! FUSE: mounts a tree of files and hands the kernel's requests to it.
//!
//! The only layer that names fuser. It translates and decides nothing, but for one thing that only
//! concerns the kernel: whether an open file is passed through to the disk (`passthrough`).
//! Mounting and unmounting are ours, not fuser's: what is at a path is looked at first, an unmount
//! is lazy, and a stranger's mount is never touched.

mod adapter;
mod answers;
mod convert;
mod passthrough;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::fs::Filesystem;
use crate::sys::mount::{self, Audience, Health};
use adapter::Adapter;

/// Fewest threads that serve requests, however few cores there are: some wait for the disk.
const THREADS_MIN: usize = 4;
/// Most threads; each has a buffer of 16 MiB for what the kernel may write.
const THREADS_MAX: usize = 64;
/// Most dead mounts on top of each other that a start removes.
const DEAD_MOUNTS_MAX: usize = 16;
/// What the kernel may read ahead; its own limit for FUSE is 128. It asks for it in pieces of 1 MiB, so that
/// as many threads decode where the bytes are wanted.
const READ_AHEAD_KIB: u32 = 4_096;

/// How to mount.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Let everybody in whom the permissions let in, not only the user who mounts.
    pub allow_other: bool,
    /// Threads that serve requests; 0 for one a core, at least four.
    pub threads: usize,
    /// What `mount` and `df` show as the source: the store.
    pub source: PathBuf,
}

/// Why something could not be mounted or unmounted, or how a session ended.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("`{}` is no directory: create it first", .path.display())]
    NotDirectory { path: PathBuf },
    #[error(
        "`{}` is mounted already, from `{}` ({fs_type}): unmount it, or choose another directory",
        .path.display(), .source_path.display()
    )]
    Occupied { path: PathBuf, source_path: PathBuf, fs_type: String },
    #[error(
        "what is mounted at `{}` does not answer: end its process, or choose another directory",
        .path.display()
    )]
    Silent { path: PathBuf },
    #[error("cannot {action} `{}`", .path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

/// How a session ended, once it has.
#[derive(Debug, Default)]
struct End {
    /// `Some` after the last request; with the reason where it was none of ours.
    result: Mutex<Option<Result<(), String>>>,
    changed: Condvar,
}

/// A mount that is being served.
pub struct Session {
    filesystem: Arc<Filesystem>,
    mountpoint: PathBuf,
    /// Number of our mount in the mount table; tells it from one that came later.
    mount_id: Option<u64>,
    end: Arc<End>,
}

/// Mounts `filesystem` at `mountpoint` and serves it on threads of its own.
///
/// A mount whose process is gone is removed first. When this returns, the mount answers.
///
/// # Errors
/// `Occupied` or `Silent` where another file system of this kind is there; `NotDirectory`; `Io`
/// with what the kernel or `fusermount3` said.
pub fn mount(
    filesystem: Arc<Filesystem>,
    mountpoint: &Path,
    options: &MountOptions,
) -> Result<Session, MountError> {
    let mountpoint = &mount::resolve(mountpoint).map_err(|e| failed("find", mountpoint, e))?;
    clear(mountpoint)?;
    let audience = if options.allow_other { Audience::Others } else { Audience::Owner };
    let device = mount::mount_fuse(mountpoint, options.source.as_os_str(), audience)
        .map_err(|source| failed("mount a file system at", mountpoint, source))?;
    let mut config = fuser::Config::default();
    config.n_threads = Some(thread_count(options.threads));
    // Cloned descriptors need the device, which fusermount3 opens for users who may not.
    config.clone_fd = mount::can_open_device();
    // The kernel keeps strangers out by itself unless it was told `allow_other`.
    let acl = fuser::SessionACL::All;
    let adapter = Adapter::new(Arc::clone(&filesystem));
    let session = match fuser::Session::from_fd(adapter, device, acl, config) {
        Ok(session) => session,
        Err(source) => {
            log_failure("unmount", mountpoint, mount::detach(mountpoint));
            return Err(failed("begin to serve", mountpoint, source));
        }
    };
    let entry = mount::find(mountpoint).map_err(|e| failed("find the mount at", mountpoint, e))?;
    if let Some(entry) = &entry {
        let set = mount::set_read_ahead(entry.device, READ_AHEAD_KIB);
        if let Err(error) = set {
            log::debug!("the kernel reads ahead 128 KiB only: {error}");
        }
    }
    let end = Arc::new(End::default());
    let serve = {
        let end = Arc::clone(&end);
        move || {
            let result = session.run().map_err(|error| error.to_string());
            *end.result.lock() = Some(result);
            end.changed.notify_all();
        }
    };
    let started = thread::Builder::new().name("fuse".to_owned()).spawn(serve);
    started.map_err(|source| failed("begin to serve", mountpoint, source))?;
    let mount_id = entry.map(|entry| entry.id);
    Ok(Session { filesystem, mountpoint: mountpoint.clone(), mount_id, end })
}

impl Session {
    /// Blocks until the session has ended: by `unmount`, `umount`, or an abort of the kernel.
    ///
    /// After a lazy unmount that is when the last file in it was closed.
    pub fn wait(&self) -> Result<(), MountError> {
        let mut result = self.end.result.lock();
        while result.is_none() {
            self.end.changed.wait(&mut result);
        }
        match &*result {
            Some(Err(reason)) => {
                Err(failed("go on serving", &self.mountpoint, io::Error::other(reason.clone())))
            }
            _ => Ok(()),
        }
    }

    /// Blocks until the session has ended, at most for `limit`; whether it has.
    pub fn wait_timeout(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut result = self.end.result.lock();
        while result.is_none() {
            if self.end.changed.wait_until(&mut result, until).timed_out() {
                break;
            }
        }
        result.is_some()
    }

    /// Takes the mount out of the tree, at once, unless it is gone already or another one came.
    pub fn unmount(&self) -> Result<(), MountError> {
        let entry = mount::find(&self.mountpoint);
        let entry = entry.map_err(|e| failed("find the mount at", &self.mountpoint, e))?;
        if entry.is_none_or(|entry| Some(entry.id) != self.mount_id) {
            return Ok(());
        }
        mount::detach(&self.mountpoint).map_err(|e| failed("unmount", &self.mountpoint, e))
    }

    /// Whether the kernel reads and writes draft files by itself.
    pub fn passthrough(&self) -> bool {
        self.filesystem.daemon_status().passthrough
    }

    /// Where it is mounted, without links.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }
}

/// Removes dead mounts from `path` and sees that nothing living of our kind is there.
fn clear(path: &Path) -> Result<(), MountError> {
    for _ in 0..DEAD_MOUNTS_MAX {
        match mount::health(path) {
            Health::Alive => break,
            Health::Silent => return Err(MountError::Silent { path: path.to_owned() }),
            Health::Dead => {
                log::info!("removing what an ended process left mounted at `{}`", path.display());
                mount::detach(path).map_err(|e| failed("unmount what is dead at", path, e))?;
            }
        }
    }
    let entry = mount::find(path).map_err(|e| failed("find the mount at", path, e))?;
    if let Some(entry) = entry.filter(|entry| entry.fs_type.starts_with("fuse")) {
        return Err(MountError::Occupied {
            path: path.to_owned(),
            source_path: entry.source,
            fs_type: entry.fs_type,
        });
    }
    match path.metadata() {
        Ok(status) if status.is_dir() => Ok(()),
        Ok(_) => Err(MountError::NotDirectory { path: path.to_owned() }),
        Err(error) => Err(failed("look at", path, error)),
    }
}

fn thread_count(wanted: usize) -> usize {
    match wanted {
        0 => thread::available_parallelism()
            .map_or(THREADS_MIN, |cores| cores.get().max(THREADS_MIN)),
        wanted => wanted,
    }
    .min(THREADS_MAX)
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> MountError {
    MountError::Io { action, path: path.to_owned(), source }
}

fn log_failure(action: &str, path: &Path, result: io::Result<()>) {
    if let Err(error) = result {
        log::warn!("cannot {action} `{}`: {error}", path.display());
    }
}
