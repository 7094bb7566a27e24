//! Durable file I/O, behind one trait so that a test can count, fail and crash every call.
//!
//! Invariant D1: a name is given to bytes only after the bytes are synced, and the name itself is
//! synced before anybody is told of it.
//! Invariant D2: a failed fsync ends the process. The page cache may show bytes that the disk does
//! not have, and no second fsync would say so; the next start reads what is really there.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

/// Mode of the store's own files.
pub const FILE_MODE: u32 = 0o600;
/// Mode of the store's own directories.
pub const DIRECTORY_MODE: u32 = 0o700;

/// The calls that a store's durability rests on. [`Real`] is the operating system.
pub trait Io: Send + Sync {
    /// Makes a file that must not exist, for writing.
    fn create(&self, path: &Path) -> io::Result<File>;
    /// Opens a regular file for reading; never follows a link in its last place, and never waits.
    fn open(&self, path: &Path) -> io::Result<File>;
    /// Reads at `offset`; may be short.
    fn read_at(&self, file: &File, out: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at the file's place; may be short.
    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<usize>;
    /// Makes a file's bytes durable.
    fn sync_file(&self, file: &File) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
    /// Renames over whatever has the name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Renames unless the name is taken: EEXIST then. The put-if-absent of a local disk.
    fn rename_if_absent(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Makes one directory; EEXIST where it is there.
    fn create_directory(&self, path: &Path) -> io::Result<()>;
    /// Removes a tree; fine where there is none.
    fn remove_tree(&self, path: &Path) -> io::Result<()>;
    /// Paths in a directory, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// Calls `visit` with each name in a directory, in any order; for one of millions of names.
    fn visit_names(&self, path: &Path, visit: &mut dyn FnMut(&OsStr)) -> io::Result<()>;
    /// Length of a file in bytes.
    fn file_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// The operating system's calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Real;

impl Io for Real {
    fn create(&self, path: &Path) -> io::Result<File> {
        fs::OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        // A fifo in a file's place would be waited for, under the lock of the store.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        Ok(file)
    }

    fn read_at(&self, file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(out, offset)
    }

    fn write(&self, mut file: &File, bytes: &[u8]) -> io::Result<usize> {
        file.write(bytes)
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn rename_if_absent(&self, from: &Path, to: &Path) -> io::Result<()> {
        match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
            // Some file systems know no flags: a hard link is put-if-absent as well.
            Err(nix::errno::Errno::EINVAL) => {
                fs::hard_link(from, to)?;
                // The name is there: what is left of the other one is removed at the next start.
                let _ = fs::remove_file(from);
                Ok(())
            }
            done => Ok(done?),
        }
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path)
    }

    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => fs::remove_file(path),
            done => done,
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(path)? {
            found.push(entry?.path());
        }
        found.sort();
        Ok(found)
    }

    fn visit_names(&self, path: &Path, visit: &mut dyn FnMut(&OsStr)) -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            visit(&entry?.file_name());
        }
        Ok(())
    }

    fn file_bytes(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::symlink_metadata(path)?.len())
    }
}

/// Writes all of `bytes`, however short each write is.
///
/// # Errors
/// As `write(2)`; what was written before stays in the file.
pub fn write_all(io: &dyn Io, file: &File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match io.write(file, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills `out` from `offset`.
///
/// # Errors
/// `UnexpectedEof` where the file ends before; else as `pread(2)`.
pub fn read_exact_at(io: &dyn Io, file: &File, out: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < out.len() {
        match io.read_at(file, &mut out[done..], offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads a whole file of at most `bytes_max`.
///
/// # Errors
/// `FileTooLarge` above that; else as `open(2)` and `pread(2)`.
pub fn read_file(io: &dyn Io, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = io.open(path)?;
    let bytes = file.metadata()?.len();
    if bytes_max < bytes {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut out = vec![0; usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?];
    read_exact_at(io, &file, &mut out, 0)?;
    Ok(out)
}

/// Makes a file's bytes durable, or ends the process (D2).
pub fn sync_file(io: &dyn Io, file: &File, path: &Path) {
    if let Err(error) = io.sync_file(file) {
        end_after_failed_sync(path, &error);
    }
}

/// Makes a directory's names durable, or ends the process (D2).
pub fn sync_directory(io: &dyn Io, path: &Path) {
    if let Err(error) = io.sync_directory(path) {
        end_after_failed_sync(path, &error);
    }
}

fn end_after_failed_sync(path: &Path, error: &io::Error) -> ! {
    log::error!(
        "cannot make `{}` durable: {error}; ending, since nothing read from now on could be \
         trusted; check the disk, then start again: what was acknowledged is safe",
        path.display()
    );
    std::process::abort();
}

static NEXT_TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// Has all on disk that was written to the file system of `file`, by whomever.
///
/// # Errors
/// As `syncfs(2)`.
pub fn sync_file_system(file: &File) -> io::Result<()> {
    Ok(nix::unistd::syncfs(file)?)
}

/// A name in `directory` that this process has not used.
pub fn temporary_path(directory: &Path) -> PathBuf {
    let number = NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed);
    directory.join(format!("{}-{number}", std::process::id()))
}

/// How a file gets its final name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Put {
    /// Over whatever is there.
    Replace,
    /// EEXIST where something is.
    IfAbsent,
}

/// Writes `bytes` to `path` by way of `temporary_directory`, durably and all or nothing (D1).
///
/// # Errors
/// As the calls; nothing has the name then, and the temporary file is gone if it could be removed.
pub fn write_durably(
    io: &dyn Io,
    temporary_directory: &Path,
    path: &Path,
    bytes: &[u8],
    put: Put,
) -> io::Result<()> {
    let temporary = temporary_path(temporary_directory);
    let written = io.create(&temporary).and_then(|file| {
        write_all(io, &file, bytes)?;
        Ok(file)
    });
    let done = written.and_then(|file| name_durably(io, &file, &temporary, path, put));
    if done.is_err() {
        // Best effort: what is left is removed at the next start.
        let _ = io.remove_file(&temporary);
    }
    done
}

/// Syncs the temporary file, gives it its name, syncs the name (D1).
///
/// # Errors
/// As `rename(2)`; the file keeps its temporary name then.
pub fn name_durably(
    io: &dyn Io,
    file: &File,
    temporary: &Path,
    path: &Path,
    put: Put,
) -> io::Result<()> {
    // Sync before rename: a crash must not leave a name for bytes that never arrived.
    sync_file(io, file, temporary);
    match put {
        Put::Replace => io.rename(temporary, path)?,
        Put::IfAbsent => io.rename_if_absent(temporary, path)?,
    }
    let parent = path.parent().expect("a path in the store has a parent");
    sync_directory(io, parent);
    Ok(())
}

/// Makes a directory and its name durable; fine where it is there.
///
/// # Errors
/// As `mkdir(2)`.
pub fn ensure_directory(io: &dyn Io, path: &Path) -> io::Result<()> {
    match io.create_directory(path) {
        Ok(()) => {
            sync_directory(io, path.parent().expect("a path in the store has a parent"));
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// `count` random bytes of the kernel.
///
/// # Errors
/// As reading `/dev/urandom`.
pub fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
