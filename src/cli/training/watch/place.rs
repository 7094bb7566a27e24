//! Where a watch keeps what it did, what it is doing, and the logs of failures.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::capture::git::{Commit, CommitId};
use crate::cli::config::WATCH_VARIABLE;
use crate::cli::failure::{failure_with_hint, of_io};
use crate::cli::mount::Shown;
use crate::cli::say;
use crate::format::names::ModelName;
use crate::ops::{Failure, FailureKind, SnapshotOptions};
use crate::sys::io as files;
use crate::sys::lock::{self, LockError, LockGuard};
use crate::sys::process;

/// Commits that are known to be done: more than are ever walked through between two looks.
const DONE_COUNT_MAX: usize = 1_000;
/// Logs of failures that are kept: the newest.
const LOG_COUNT_MAX: usize = 50;
/// Longest file of the state, in bytes.
const STATE_BYTES_MAX: u64 = 4 << 20;
/// Logs may show what nobody else should see.
const DIRECTORY_MODE: u32 = 0o700;
/// Bytes of the store's digest that tell its watches from those of other stores.
const STORE_BYTES: usize = 8;
/// What the names of directories begin with that could not be removed in their time.
const ASIDE: &str = "left-";
/// How often a directory is tried to be removed: somebody may write into it meanwhile.
const REMOVE_COUNT_MAX: usize = 3;

/// What is kept between two starts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// The newest last.
    pub done: Vec<CommitId>,
    pub current: Option<Current>,
}

/// The commit that is not done yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Current {
    /// Nothing of it counts.
    Training { commit: CommitId },
    /// It is on disk, and waits to be sealed so.
    Trained { commit: Commit, options: Box<SnapshotOptions> },
}

impl Saved {
    /// A commit is done.
    pub fn finish(&mut self, commit: CommitId) {
        self.current = None;
        self.done.push(commit);
        let more = self.done.len().saturating_sub(DONE_COUNT_MAX);
        self.done.drain(..more);
    }
}

/// The directory of the watch of one model.
pub struct Place {
    directory: PathBuf,
    /// How it says what is wrong, and hinders nothing.
    shown: Shown,
    /// For as long as this lives no other watch has it.
    _lock: LockGuard,
}

impl Place {
    /// Takes the directory for the watches of this store's model.
    ///
    /// # Errors
    /// `Busy` where another watch has it.
    pub fn open(
        state: &Path,
        store: &Path,
        model: &ModelName,
        shown: Shown,
    ) -> Result<Self, Failure> {
        let digest = blake3::hash(store.as_os_str().as_encoded_bytes());
        let store = &digest.to_hex()[..2 * STORE_BYTES];
        let directory = state.join("watch").join(format!("{model}-{store}"));
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(DIRECTORY_MODE).create(directory.join("logs"));
        made.map_err(|error| of_io(format!("cannot make `{}`", directory.display()), &error))?;
        let holder = format!("modelfs watch --model {model}");
        match lock::acquire(&directory.join("lock"), &holder) {
            Ok(lock) => Ok(Self { directory, shown, _lock: lock }),
            Err(LockError::Held { pid, .. }) => {
                let message = format!("`{model}` is watched already, by process {pid}");
                let hint = format!("end that one first: kill {pid}");
                Err(failure_with_hint(FailureKind::Busy, message, hint))
            }
            Err(LockError::Io(error)) => {
                Err(of_io(format!("cannot lock `{}`", directory.display()), &error))
            }
        }
    }

    /// What marks everything that is started from here.
    pub fn mark(&self) -> String {
        self.directory.to_string_lossy().into_owned()
    }

    /// Where the attempts are: one at a time.
    fn attempts(&self) -> PathBuf {
        self.directory.join("current")
    }

    /// Makes the directory where a commit is checked out and trained. No two attempts have had the same
    /// one: what is left of an earlier one and still writes finds nothing there.
    ///
    /// # Errors
    /// Where what an earlier attempt left cannot be put away, or the directory not be made.
    pub fn begin_attempt(&self, commit: CommitId) -> Result<PathBuf, Failure> {
        self.clear()?;
        let attempt = self.attempts().join(format!("{}-{}", commit.short(), nanoseconds()));
        match fs::create_dir_all(&attempt) {
            Ok(()) => Ok(attempt),
            Err(error) => Err(of_io(format!("cannot make `{}`", attempt.display()), &error)),
        }
    }

    /// Ends all that was started from here and still runs, whatever group or session it is in.
    ///
    /// # Errors
    /// Where the processes cannot be listed.
    pub fn end_started(&self) -> Result<(), Failure> {
        loop {
            let killed = process::kill_marked(WATCH_VARIABLE, self.mark());
            let what = "cannot look for what a training left running";
            if killed.map_err(|error| of_io(what, &error))? == 0 {
                return Ok(());
            }
        }
    }

    pub fn logs(&self) -> PathBuf {
        self.directory.join("logs")
    }

    fn log(&self, commit: CommitId) -> PathBuf {
        self.logs().join(format!("{commit}.log"))
    }

    fn state(&self) -> PathBuf {
        self.directory.join("state.json")
    }

    /// What was kept; nothing where this is the first start.
    ///
    /// # Errors
    /// Where it cannot be read or understood.
    pub fn load(&self) -> Result<Saved, Failure> {
        let path = self.state();
        let bytes = match read_state(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Saved::default()),
            read => {
                read.map_err(|error| of_io(format!("cannot read `{}`", path.display()), &error))
            }
        }?;
        serde_json::from_slice(&bytes).map_err(|error| Failure {
            because: vec![error.to_string()],
            ..failure_with_hint(
                FailureKind::CouldNot,
                format!("`{}` is not what a watch has written", path.display()),
                "without it the last commit is trained again; move it away for that",
            )
        })
    }

    /// Keeps it, durably.
    ///
    /// # Errors
    /// Those of writing it, and where it could not be read again; what was kept before is there then.
    pub fn save(&self, saved: &Saved) -> Result<(), Failure> {
        let bytes = serde_json::to_vec(saved).expect("it has text keys only");
        let path = self.state();
        if STATE_BYTES_MAX < bytes.len() as u64 {
            let error = io::Error::from(io::ErrorKind::FileTooLarge);
            return Err(of_io(format!("cannot write `{}`", path.display()), &error));
        }
        files::write_durably(&files::Real, &self.directory, &path, &bytes, files::Put::Replace)
            .map_err(|error| of_io(format!("cannot write `{}`", path.display()), &error))
    }

    /// Has all that was written into the attempt on disk.
    ///
    /// # Errors
    /// Those of `syncfs(2)`.
    pub fn sync_attempt(&self) -> Result<(), Failure> {
        let attempts = self.attempts();
        let synced = File::open(&attempts).and_then(|it| files::sync_file_system(&it));
        synced.map_err(|error| of_io(format!("cannot sync `{}`", attempts.display()), &error))
    }

    /// Ends and removes what is left of the last attempt. What cannot be removed, as files of another user,
    /// is put aside, and that is said.
    ///
    /// # Errors
    /// Where it cannot be put aside either: nothing else may be put there.
    pub fn clear(&self) -> Result<(), Failure> {
        self.end_started()?;
        let attempts = self.attempts();
        let Err(error) = remove(&attempts) else { return Ok(()) };
        let aside = self.directory.join(format!("{ASIDE}{}", nanoseconds()));
        let failure = of_io(format!("cannot remove `{}`", attempts.display()), &error);
        if fs::rename(&attempts, &aside).is_err() {
            return Err(failure);
        }
        let hint = format!("remove `{}`, where it was moved; the watch goes on", aside.display());
        say(&Failure { hint: Some(hint), ..failure }, self.shown);
        Ok(())
    }

    /// Removes what was put aside, as far as it can be removed by now.
    pub fn remove_aside(&self) {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let is_aside = |entry: &fs::DirEntry| {
            entry.file_name().as_encoded_bytes().starts_with(ASIDE.as_bytes())
        };
        entries.filter(is_aside).for_each(|entry| drop(remove(&entry.path())));
    }

    /// Begins the log of a commit.
    ///
    /// # Errors
    /// Those of making the file.
    pub fn begin_log(&self, commit: CommitId) -> Result<File, Failure> {
        self.remove_old_logs();
        let path = self.log(commit);
        File::create(&path)
            .map_err(|error| of_io(format!("cannot make `{}`", path.display()), &error))
    }

    /// Writes at the end of a log why it failed.
    ///
    /// # Errors
    /// Those of writing it.
    pub fn end_log(&self, commit: CommitId, why: &str) -> Result<PathBuf, Failure> {
        let path = self.log(commit);
        let opened = File::options().append(true).create(true).open(&path);
        let written = opened.and_then(|mut file| writeln!(file, "\nmodelfs: {why}"));
        written.map_err(|error| of_io(format!("cannot write `{}`", path.display()), &error))?;
        Ok(path)
    }

    /// Removes the log of a commit that did not fail.
    pub fn remove_log(&self, commit: CommitId) {
        // One that stays goes with its time.
        drop(fs::remove_file(self.log(commit)));
    }

    fn remove_old_logs(&self) {
        let entries = fs::read_dir(self.logs()).into_iter().flatten().flatten();
        let time = |entry: &fs::DirEntry| entry.metadata().and_then(|it| it.modified()).ok();
        let mut logs: Vec<(Option<SystemTime>, PathBuf)> =
            entries.map(|entry| (time(&entry), entry.path())).collect();
        logs.sort();
        let more = (logs.len() + 1).saturating_sub(LOG_COUNT_MAX);
        logs.into_iter().take(more).for_each(|(_, path)| drop(fs::remove_file(path)));
    }
}

fn read_state(path: &Path) -> io::Result<Vec<u8>> {
    // A fifo would have us wait for ever.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if STATE_BYTES_MAX < found.len() {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = Vec::new();
    file.take(STATE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Since 1970: no two that are asked for are the same.
fn nanoseconds() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}

/// Removes a directory, if it is there, with what nobody may write to in it.
fn remove(directory: &Path) -> io::Result<()> {
    let mut removed = Ok(());
    for _ in 0..REMOVE_COUNT_MAX {
        removed = fs::remove_dir_all(directory);
        match &removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) => open_up(directory),
            Ok(()) => break,
        }
    }
    removed
}

/// Gives us all rights in a directory, and in those below.
fn open_up(directory: &Path) {
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let Ok(found) = directory.symlink_metadata() else { continue };
        if !found.is_dir() {
            continue;
        }
        let rights = fs::Permissions::from_mode(found.permissions().mode() | DIRECTORY_MODE);
        // Where that is not for us to do, removing it fails and says why.
        drop(fs::set_permissions(&directory, rights));
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        let below = entries.filter(|entry| entry.file_type().is_ok_and(|it| it.is_dir()));
        directories.extend(below.map(|entry| entry.path()));
    }
}

/// Bytes on disk of all that is below a directory; it stops to count past `bytes_max`.
pub fn bytes_below(directory: &Path, bytes_max: u64) -> u64 {
    /// What a block of `stat(2)` is, in bytes.
    const BLOCK_BYTES: u64 = 512;
    let (mut directories, mut bytes) = (vec![directory.to_owned()], 0_u64);
    while let Some(directory) = directories.pop() {
        // It changes while it is looked at: what has gone counts nothing.
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            bytes = bytes.saturating_add(found.blocks().saturating_mul(BLOCK_BYTES));
            if bytes_max < bytes {
                return bytes;
            }
            if found.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    bytes
}
