//! What other tools keep: files whose bytes lie elsewhere, older states of them in Git, and what was noted
//! about runs.
//!
//! Read as those tools leave it on disk; none of them is run, and nothing of theirs is changed.

mod dvc;
mod lfs;
mod mlflow;
mod past;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::kinds::POINTER;
use super::walk::{DVC, FileIndex, Found, FoundFile, GIT};
use crate::format::manifest::Mtime;
use crate::ops::OpsError;
use crate::sys::io::{Io, Real};

pub(super) use mlflow::note_runs;
pub(super) use past::{Past, past};

/// Longest file that says what stands elsewhere, in bytes.
const SAYING_BYTES_MAX: u64 = 4 << 20;

/// A tool that keeps models.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Keeper {
    GitLfs,
    Dvc,
    Mlflow,
}

impl Keeper {
    /// The word for it in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::GitLfs => "git-lfs",
            Self::Dvc => "dvc",
            Self::Mlflow => "mlflow",
        }
    }

    /// Why a file of its is not there, and what brings it.
    pub fn absent(self) -> String {
        let (name, command) = match self {
            Self::GitLfs => ("Git LFS", "git lfs fetch --all"),
            Self::Dvc => ("DVC", "dvc fetch"),
            Self::Mlflow => ("MLflow", "mlflow artifacts download"),
        };
        format!("{name} keeps it, and not here: `{command}` may bring it")
    }
}

/// A file whose bytes a tool keeps.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Kept {
    /// Where it belongs.
    path: PathBuf,
    /// Where its bytes are, if they are there.
    object: PathBuf,
}

/// A file or a directory that a small file stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Said {
    keeper: Keeper,
    /// Where it belongs.
    path: PathBuf,
    /// The file itself, or all files of the directory; none where these cannot be told.
    files: Vec<Kept>,
}

/// Where tools keep what belongs to which directories.
pub(super) struct Stores {
    /// Objects of Git LFS, by the working tree.
    lfs: HashMap<PathBuf, PathBuf>,
    /// Caches of DVC, by the directory that it works in.
    dvc: HashMap<PathBuf, PathBuf>,
    /// Working trees of Git, sorted.
    trees: Vec<PathBuf>,
}

impl Stores {
    /// What is kept for directories of a walk, or for one that the whole of it is in.
    pub fn of(found: &Found) -> Self {
        let above = |name| found.root.ancestors().skip(1).map(move |top| top.join(name));
        let mut places = found.kept.clone();
        for name in [GIT, DVC] {
            places.extend(above(name).find(|place| place.exists()));
        }
        let mut stores = Self { lfs: HashMap::new(), dvc: HashMap::new(), trees: Vec::new() };
        for place in places {
            let Some(top) = place.parent().map(Path::to_owned) else { continue };
            if place.ends_with(GIT) {
                stores.lfs.extend(lfs::objects(&place).map(|objects| (top.clone(), objects)));
                stores.trees.push(top);
            } else {
                stores.dvc.insert(top, dvc::cache(&place));
            }
        }
        stores.trees.sort_unstable();
        stores
    }

    /// Whether nothing is kept anywhere.
    pub fn is_empty(&self) -> bool {
        self.lfs.is_empty() && self.dvc.is_empty()
    }

    /// Whether a file of this name and size may say that something stands elsewhere.
    fn may_say(&self, path: &Path, bytes: u64) -> bool {
        let is_pointer = (POINTER.len() as u64..lfs::POINTER_BYTES_MAX).contains(&bytes);
        is_pointer && nearest(&self.lfs, path).is_some()
            || dvc::is_one(path) && bytes <= SAYING_BYTES_MAX && nearest(&self.dvc, path).is_some()
    }

    /// What a file at an absolute path says, now or in the past.
    fn said(&self, path: &Path, bytes: &[u8]) -> Vec<Said> {
        if dvc::is_one(path) {
            return nearest(&self.dvc, path)
                .map(|it| dvc::said(path, bytes, it))
                .unwrap_or_default();
        }
        let said = nearest(&self.lfs, path).and_then(|objects| lfs::said(path, bytes, objects));
        said.into_iter().collect()
    }
}

/// What belongs to the innermost of the directories that a path is in.
fn nearest<'a>(places: &'a HashMap<PathBuf, PathBuf>, path: &Path) -> Option<&'a PathBuf> {
    path.ancestors().skip(1).find_map(|above| places.get(above))
}

/// Fills in what small files stand for: where their bytes are, or that these are not there.
///
/// # Errors
/// Where there are more files than can be kept in mind.
pub(super) fn fill_in(found: &mut Found, stores: &Stores) -> Result<(), OpsError> {
    if stores.is_empty() {
        return Ok(());
    }
    for index in 0..found.files.len() {
        let index = FileIndex(u32::try_from(index).expect("the walk has a limit"));
        let path = found.source_of(index);
        if !stores.may_say(&path, found.file(index).bytes) {
            continue;
        }
        let bytes = match read_short(&path, SAYING_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) => {
                found.cannot(path, error.to_string());
                continue;
            }
        };
        for said in stores.said(&path, &bytes) {
            if said.files.is_empty() && !said.path.exists() {
                found.cannot(said.path, said.keeper.absent());
                continue;
            }
            for kept in said.files {
                place(found, said.keeper, kept)?;
            }
        }
    }
    Ok(())
}

/// Notes where the bytes of a file are. One that lies at its own place stays what it is.
fn place(found: &mut Found, keeper: Keeper, kept: Kept) -> Result<(), OpsError> {
    let Ok(path) = kept.path.strip_prefix(&found.root).map(Path::to_owned) else { return Ok(()) };
    let Some(name) = path.file_name().map(OsStr::to_owned) else { return Ok(()) };
    let object = look(&kept.object);
    if let Some(index) = found.find(&path) {
        let file = found.file_mut(index);
        file.keeper = Some(keeper);
        if let (Keeper::GitLfs, Ok((bytes, modified))) = (keeper, object) {
            (file.bytes, file.modified, file.elsewhere) = (bytes, modified, Some(kept.object));
        }
        return Ok(());
    }
    let uid = fs::metadata(kept.path.parent().unwrap_or(&found.root)).map_or(0, |it| it.uid());
    let (bytes, modified) = object.unwrap_or_default();
    found.insert(&path, |folder| {
        let (elsewhere, keeper) = (Some(kept.object), Some(keeper));
        FoundFile { name, folder, bytes, modified, uid, elsewhere, keeper }
    })
}

/// The bytes of a regular file that has at most so many.
fn read_short(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    Real.open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes_max < bytes.len() as u64 {
        let why = format!("it is longer than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(bytes)
}

/// The text of a short regular file.
fn read_text(path: &Path) -> io::Result<String> {
    let text = String::from_utf8(read_short(path, SAYING_BYTES_MAX)?);
    text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Size and time of a regular file.
fn look(object: &Path) -> io::Result<(u64, Mtime)> {
    let status = fs::symlink_metadata(object)?;
    if !status.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let nanos = u32::try_from(status.mtime_nsec()).unwrap_or(0);
    Ok((status.len(), Mtime { seconds: status.mtime(), nanos }))
}
