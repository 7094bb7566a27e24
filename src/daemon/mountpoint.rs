//! The directory that a daemon is to be mounted at: found, and judged before anything is changed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::sys::mount::{self, FS_TYPE, MountEntry};

/// Why a path cannot be mounted at.
#[derive(Debug, thiserror::Error)]
pub enum MountpointError {
    #[error("`{0}` is not there")]
    Missing(PathBuf),
    #[error("`{0}` is not a directory")]
    NotADirectory(PathBuf),
    #[error("`{0}` is not empty: a mount would hide what it holds")]
    NotEmpty(PathBuf),
    #[error("`{mountpoint}` has a mount of `{fs_type}` from `{from}` already")]
    Mounted { mountpoint: PathBuf, fs_type: String, from: PathBuf },
    #[error("`{mountpoint}` and the store `{store}` lie inside each other")]
    Nested { mountpoint: PathBuf, store: PathBuf },
    #[error("cannot look at `{path}`: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
}

/// The absolute path of `mountpoint` without links, for a store at `store`, which need not be there.
///
/// A dead mount at the path is no obstacle, nor is a live one of the same store: the lock of the
/// store has the better words for it.
///
/// # Errors
/// Says why nothing can be mounted there.
pub fn check(mountpoint: &Path, store: &Path) -> Result<PathBuf, MountpointError> {
    let path = resolve(mountpoint)?;
    let store = fs::canonicalize(store).unwrap_or_else(|_| store.to_owned());
    if path.starts_with(&store) || store.starts_with(&path) {
        return Err(MountpointError::Nested { mountpoint: path, store });
    }
    let unreadable = |source| MountpointError::Unreadable { path: path.clone(), source };
    if let Some(entry) = mount::find(&path).map_err(unreadable)?
        && entry.fs_type.starts_with("fuse")
    {
        if !mount::is_dead(&path) && entry.source != store {
            let MountEntry { mountpoint, fs_type, source: from, .. } = entry;
            return Err(MountpointError::Mounted { mountpoint, fs_type, from });
        }
        return Ok(path);
    }
    if !fs::metadata(&path).map_err(unreadable)?.is_dir() {
        return Err(MountpointError::NotADirectory(path));
    }
    if fs::read_dir(&path).map_err(unreadable)?.next().is_some() {
        return Err(MountpointError::NotEmpty(path));
    }
    Ok(path)
}

/// The modelfs mount at `mountpoint`, alive or dead, with its path without links; `None` where
/// something else is there.
///
/// # Errors
/// Says why the path cannot be looked at.
pub fn find(mountpoint: &Path) -> Result<Option<MountEntry>, MountpointError> {
    let look = |path: PathBuf| match mount::find(&path) {
        Ok(entry) => Ok(entry.filter(|entry| entry.fs_type == FS_TYPE)),
        Err(source) => Err(MountpointError::Unreadable { path, source }),
    };
    // First without touching the last part of the path: a stopped daemon would keep us for ever.
    if let Some(path) = below_parent(mountpoint)
        && let Some(entry) = look(path)?
    {
        return Ok(Some(entry));
    }
    look(resolve(mountpoint)?)
}

/// The path without links. The last part of it may be a dead mount.
fn resolve(path: &Path) -> Result<PathBuf, MountpointError> {
    mount::resolve(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => MountpointError::Missing(path.to_owned()),
        io::ErrorKind::NotADirectory => MountpointError::NotADirectory(path.to_owned()),
        _ => MountpointError::Unreadable { path: path.to_owned(), source },
    })
}

/// The path with its parent's links resolved, the last part as it is.
fn below_parent(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Some(fs::canonicalize(parent.unwrap_or(Path::new("."))).ok()?.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_an_empty_directory_away_from_the_store_is_taken() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path().canonicalize().unwrap();
        let store = base.join("store");
        for directory in ["empty", "full/inside", "store/packs"] {
            fs::create_dir_all(base.join(directory)).unwrap();
        }
        fs::write(base.join("file"), "x").unwrap();
        symlink("empty", base.join("link")).unwrap();
        let check = |name: &str, expected: &str| match check(&base.join(name), &store) {
            Ok(path) => assert_eq!(path, base.join(expected), "{name}"),
            Err(error) => {
                assert!(error.to_string().contains(expected), "{name}: {error}, not {expected}");
            }
        };
        check("empty", "empty");
        check("link", "empty");
        check("full", "is not empty");
        check("file", "is not a directory");
        check("file/below", "is not a directory");
        check("none", "is not there");
        check("store/packs", "inside each other");
        check(".", "inside each other");
    }

    #[test]
    fn what_is_not_a_modelfs_mount_is_not_found() {
        assert!(find(Path::new("/proc")).unwrap().is_none());
        assert!(find(Path::new("/no/such/place")).is_err());
    }
}
