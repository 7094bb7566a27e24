//! Where the files of a version can be read by a command that knows nothing of us.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::BufReader;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::cli::ask;
use crate::cli::client::StorePlace;
use crate::cli::failure::failure;
use crate::format::manifest::METADATA_NAME;
use crate::format::names::{At, Reference};
use crate::format::record::Subject;
use crate::ops::{ExportOptions, Failure, FailureKind, Report, Request};

/// A version, and how it is told from others.
pub struct Version {
    pub subject: Subject,
    pub told: Told,
}

/// What the metadata of no two versions have in common.
#[derive(Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Told {
    model: Value,
    version: Value,
    digest: Value,
    sealed: Value,
}

/// The version that a reference means now.
///
/// # Errors
/// As `show`.
pub fn find(store: StorePlace<'_>, reference: &Reference) -> Result<Version, Failure> {
    let answer = ask(Request::Show { reference: reference.clone() }, store)?;
    let Report::Version { summary, metadata } = answer else {
        unreachable!("the answer to `show` is a version");
    };
    let subject = Subject {
        model: reference.model.clone(),
        version: summary.version,
        manifest: summary.manifest,
        digest: summary.digest,
    };
    let told = serde_json::from_value(metadata).map_err(|error| {
        let message = format!("cannot understand the metadata of `{reference}`");
        Failure { because: vec![error.to_string()], ..failure(FailureKind::Damaged, message) }
    })?;
    Ok(Version { subject, told })
}

/// Where the files of versions can be read: in the mount, or in copies that go with the scratch directory.
pub struct Places<'a> {
    store: StorePlace<'a>,
    scratch: &'a Path,
    mountpoint: Option<PathBuf>,
    copies: BTreeMap<String, PathBuf>,
}

impl<'a> Places<'a> {
    /// Asks where the store is mounted.
    ///
    /// # Errors
    /// Those of the way to the store.
    pub fn new(store: StorePlace<'a>, scratch: &'a Path) -> Result<Self, Failure> {
        let Report::Status(status) = ask(Request::Status, store)? else {
            unreachable!("the answer to `status` is one");
        };
        let mountpoint = status.daemon.map(|daemon| daemon.mountpoint);
        Ok(Self { store, scratch, mountpoint, copies: BTreeMap::new() })
    }

    /// The directory that holds the files of a version.
    ///
    /// # Errors
    /// Those of exporting it.
    pub fn files_of(&mut self, version: &Version) -> Result<PathBuf, Failure> {
        let Subject { model, version: number, .. } = &version.subject;
        let below = format!("{model}/{number}");
        if let Some(point) = &self.mountpoint {
            let directory = point.join(&below);
            // Another file system may be there, where this process lives apart from the daemon.
            let found = File::open(directory.join(OsStr::from_bytes(METADATA_NAME))).ok();
            let found = found.and_then(|file| serde_json::from_reader(BufReader::new(file)).ok());
            if found.is_some_and(|found: Told| found == version.told) {
                return Ok(directory);
            }
        }
        if let Some(copy) = self.copies.get(&below) {
            return Ok(copy.clone());
        }
        let directory = self.scratch.join(format!("files-{number}"));
        let reference = Reference { model: model.clone(), at: At::Version(*number) };
        let options = ExportOptions::files(reference, directory.clone());
        ask(Request::Export(options), self.store)?;
        self.copies.insert(below, directory.clone());
        Ok(directory)
    }
}
