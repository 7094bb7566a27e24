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
/// Bytes of JSON of all descriptions together: past this, files are only named.
const DESCRIPTIONS_BYTES_MAX: usize = 64 << 20;

/// What a version's files say of themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InspectReport {
    pub model: ModelName,
    pub version: VersionNumber,
    /// In the order of their paths.
    pub files: Vec<InspectedFile>,
    /// Files beyond the first 10,000, of which nothing is said.
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

    /// Without its description where that is longer than what is left.
    fn within(mut self, bytes_left: &mut usize) -> Self {
        let Some(description) = &self.description else { return self };
        let text = serde_json::to_string(description).expect("a description has text keys only");
        match bytes_left.checked_sub(text.len()) {
            Some(left) => *bytes_left = left,
            None => {
                self.description = None;
                self.why = Some("the answer would be too long: inspect this file alone".to_owned());
            }
        }
        self
    }
}

/// A file of a version.
struct Stored<'a> {
    workspace: &'a Workspace,
    manifest: &'a Manifest,
    file: &'a FileEntry,
}

impl ReadAt for Stored<'_> {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        self.workspace.read_file(self.manifest, self.file, offset, out).map_err(io::Error::other)
    }

    fn bytes(&self) -> u64 {
        self.file.bytes
    }
}

impl Workspace {
    /// What the files of a version, or those at a path in it, say of themselves.
    ///
    /// # Errors
    /// `NoModel`, `NoVersion`, `Denied`; `File` where the version has no such path, or where a stored
    /// byte that is needed is missing or damaged.
    pub fn inspect(
        &self,
        context: &Context,
        options: &InspectOptions,
        progress: &dyn Progress,
    ) -> Result<InspectReport, OpsError> {
        let summary = self.resolve(context, &options.reference)?;
        let (model, version) = (options.reference.model.clone(), summary.version);
        let manifest = self.manifest(&summary.manifest)?;
        let mut entries = files_at(&manifest, options.path.as_deref())?;
        let more_files = entries.len().saturating_sub(FILES_MAX) as u64;
        entries.truncate(FILES_MAX);
        progress.begin("looking into files", 0);
        let mut files = Vec::with_capacity(entries.len());
        let mut bytes_left = DESCRIPTIONS_BYTES_MAX;
        for (path, file) in entries {
            if self.is_closing() || progress.is_cancelled() {
                return Err(OpsError::Closing);
            }
            let stored = Stored { workspace: self, manifest: &manifest, file };
            let read = InspectedFile::of(&path, &stored);
            let found = read.map_err(|error| OpsError::file("inspect", &path, error))?;
            files.push(found.within(&mut bytes_left));
        }
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
