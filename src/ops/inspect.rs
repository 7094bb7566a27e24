//! Inspecting: what the files of a version say of themselves, read from their headers.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::warm::trim_slashes;
use super::{Context, InspectOptions, OpsError, Progress, Workspace};
use crate::format::manifest::{FileEntry, METADATA_NAME, Manifest, Node};
use crate::format::names::{ModelName, VersionNumber};
use crate::inspect::{Description, InspectError, ReadAt, describe, kind_of, runs_code};

/// Most files of a version that are described at a time.
pub const FILES_MAX: usize = 10_000;
/// Bytes of JSON about all files together, for who may have much.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What a version's files say of themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InspectReport {
    pub model: ModelName,
    pub version: VersionNumber,
    /// In the order of their paths.
    pub files: Vec<InspectedFile>,
    /// Files beyond the first 10,000, or beyond the bytes that there may be: nothing is said of them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_files: u64,
}

/// What one file says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InspectedFile {
    pub path: String,
    pub bytes: u64,
    /// The word for its format.
    pub format: String,
    /// Whether its library runs what the file says when it loads it as it does by default.
    pub runs_code: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
    /// Why there is no description, where its format has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde wants a reference.
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl InspectedFile {
    /// Looks into a file called `path`.
    ///
    /// # Errors
    /// Those of reading it. A file that cannot be understood is none: `why` says it.
    pub fn of(path: &Path, file: &dyn ReadAt) -> io::Result<Self> {
        let name = path.file_name().unwrap_or_default();
        let format = kind_of(file, name)?;
        let (description, why) = match describe(name, file) {
            Ok(description) => (Some(description), None),
            Err(InspectError::Unknown) => (None, None),
            Err(error @ InspectError::Malformed { .. }) => (None, Some(error.to_string())),
            Err(InspectError::Io(error)) => return Err(error),
        };
        Ok(Self {
            path: path.to_string_lossy().into_owned(),
            bytes: file.bytes(),
            format: format.to_owned(),
            runs_code: runs_code(format),
            description,
            why,
        })
    }

    /// Itself where there is room for it, else without its description, else nothing.
    fn within(mut self, room: &mut Room) -> Option<Self> {
        if room.take(&self) {
            return Some(self);
        }
        self.description.take()?;
        self.why =
            Some("the answer would be too long: `modelfs inspect` this file alone".to_owned());
        room.take(&self).then_some(self)
    }
}

/// Bytes of JSON that there may still be.
struct Room(usize);

impl Room {
    /// Whether there was room for what is said of a file, which is taken then. Nothing is written.
    fn take(&mut self, file: &InspectedFile) -> bool {
        let mut left = Self(self.0);
        let fits = serde_json::to_writer(&mut left, file).is_ok();
        if fits {
            *self = left;
        }
        fits
    }
}

impl io::Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::WriteZero)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file of a version.
struct Stored<'a> {
    workspace: &'a Workspace,
    manifest: &'a Manifest,
    file: &'a FileEntry,
    gives_up: &'a dyn Fn() -> bool,
}

impl ReadAt for Stored<'_> {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        if (self.gives_up)() {
            return Err(io::Error::other(OpsError::Closing));
        }
        self.workspace.read_file(self.manifest, self.file, offset, out).map_err(io::Error::other)
    }

    fn bytes(&self) -> u64 {
        self.file.bytes
    }
}

impl Workspace {
    /// What the files of a version, or those at a path in it, say of themselves, in about `bytes_max` bytes
    /// of JSON at most.
    ///
    /// # Errors
    /// `NoModel`, `NoVersion`, `Denied`; `File` where the version has no such path, or where a stored
    /// byte that is needed is missing or damaged.
    pub fn inspect(
        &self,
        context: &Context,
        options: &InspectOptions,
        bytes_max: usize,
        progress: &dyn Progress,
    ) -> Result<InspectReport, OpsError> {
        let summary = self.resolve(context, &options.reference)?;
        let (model, version) = (options.reference.model.clone(), summary.version);
        let manifest = self.manifest(&summary.manifest)?;
        let mut entries = files_at(&manifest, options.path.as_deref())?;
        let count = entries.len();
        entries.truncate(FILES_MAX);
        progress.begin("looking into files", 0);
        let mut files = Vec::with_capacity(entries.len());
        let mut room = Room(bytes_max);
        let gives_up = || self.is_closing() || progress.is_cancelled();
        for (path, file) in entries {
            let stored = Stored { workspace: self, manifest: &manifest, file, gives_up: &gives_up };
            let read = InspectedFile::of(&path, &stored);
            if gives_up() {
                return Err(OpsError::Closing);
            }
            let found = read.map_err(|error| OpsError::file("inspect", &path, error))?;
            let Some(found) = found.within(&mut room) else { break };
            files.push(found);
        }
        let more_files = (count - files.len()) as u64;
        Ok(InspectReport { model, version, files, more_files })
    }
}

/// The files at a path of a version, all but the generated one without a path; sorted.
fn files_at<'a>(
    manifest: &'a Manifest,
    path: Option<&Path>,
) -> Result<Vec<(PathBuf, &'a FileEntry)>, OpsError> {
    let wanted = path.map(|path| trim_slashes(path.as_os_str().as_bytes()));
    let wanted = wanted.filter(|wanted| !wanted.is_empty());
    if let (Some(wanted), Some(path)) = (wanted, path)
        && manifest.find_path(wanted).is_none()
    {
        return Err(OpsError::file("find", path, io::ErrorKind::NotFound.into()));
    }
    let mut files = Vec::new();
    manifest.walk(|path, _, entry| {
        let Node::File(file) = &entry.node else { return };
        let is_wanted = match wanted {
            Some(wanted) => is_at_or_below(path, wanted),
            None => path != METADATA_NAME,
        };
        if is_wanted {
            files.push((PathBuf::from(OsStr::from_bytes(path)), file));
        }
    });
    files.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(files)
}

/// Whether `path` is `place` or lies below it.
fn is_at_or_below(path: &[u8], place: &[u8]) -> bool {
    path.strip_prefix(place).is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
}
