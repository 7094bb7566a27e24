//! Warming: plain copies of a version's files, made before somebody reads them.

use std::io;
use std::os::unix::ffi::OsStrExt;

use super::hot::{Warmed, files_to_warm};
use super::{Context, OpsError, Progress, WarmOptions, WarmReport, WarmSkip, Workspace, permit};
use crate::governance::Action;
use crate::store::hot::Claim;

/// Most files that are named as skipped.
const SKIPPED_SHOWN_MAX: usize = 1_000;

impl Workspace {
    /// Makes hot files of a version, or of what is at a path in it.
    ///
    /// Who may change the model may let files of other aliased versions go for it.
    ///
    /// # Errors
    /// `HotOff`, `NoVersion`, `Denied`, `File` where the version has no such path, or the store's.
    pub(super) fn warm(
        &self,
        context: &Context,
        options: &WarmOptions,
        progress: &dyn Progress,
    ) -> Result<WarmReport, OpsError> {
        let summary = self.resolve(context, &options.reference)?;
        let model = &options.reference.model;
        if !self.store.hot().is_on() {
            return Err(OpsError::HotOff);
        }
        let manifest = self.manifest(&summary.manifest)?;
        let path = options.path.as_ref().map(|path| path.as_os_str().as_bytes());
        let path = path.map(trim_slashes).filter(|path| !path.is_empty());
        if let (Some(inside), Some(named)) = (path, &options.path)
            && manifest.find_path(inside).is_none()
        {
            return Err(OpsError::file("find", named, io::ErrorKind::NotFound.into()));
        }
        let files = files_to_warm(&manifest, path);
        progress.begin("warming", files.iter().map(|(_, file)| file.bytes).sum());
        let mut report = WarmReport {
            model: model.clone(),
            version: summary.version,
            files: 0,
            bytes: 0,
            made_files: 0,
            made_bytes: 0,
            skipped: Vec::new(),
        };
        let strong = permit(&self.state(), context, model, Action::Write).is_ok();
        for (path, file) in files {
            let claim = Claim { version: summary.manifest, strong, aliased: self.aliased() };
            let mut done = 0;
            let mut advance = |bytes: u64| {
                done += bytes;
                progress.advance(bytes);
                self.may_work() && !progress.is_cancelled()
            };
            let warmed = self.warm_file(&claim, &manifest, file, &mut advance)?;
            progress.advance(file.bytes.saturating_sub(done));
            match warmed {
                Warmed::Made | Warmed::Present => {
                    report.files += 1;
                    report.bytes += file.bytes;
                    if matches!(warmed, Warmed::Made) {
                        report.made_files += 1;
                        report.made_bytes += file.bytes;
                    }
                }
                Warmed::Refused(why) if report.skipped.len() < SKIPPED_SHOWN_MAX => {
                    let (bytes, why) = (file.bytes, why.to_owned());
                    report.skipped.push(WarmSkip { path, bytes, why });
                }
                Warmed::Refused(_) => {}
                Warmed::Stopped => return Err(OpsError::Closing),
            }
        }
        Ok(report)
    }
}

/// The path as a tree has it: without a slash at either end.
pub(super) fn trim_slashes(mut path: &[u8]) -> &[u8] {
    while let Some(rest) = path.strip_prefix(b"/") {
        path = rest;
    }
    while let Some(rest) = path.strip_suffix(b"/") {
        path = rest;
    }
    path
}
