//! Data that a training reads: its fingerprint before, and whether it changed meanwhile.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Subject, told_path};
use crate::capture::data::{self, Fingerprint, Stamp};
use crate::capture::record::{self, RunRecord};
use crate::cli::args::{DataPath, Step};
use crate::cli::fingerprint;
use crate::cli::progress::Bar;
use crate::ops::Failure;

/// Data, and what it looked like before.
pub struct DataWatch {
    path: PathBuf,
    stamp: Stamp,
}

impl DataWatch {
    /// What to say of it now, where it is not as it was.
    pub fn change(self) -> Option<String> {
        let path = self.path.display();
        match data::stamp(&self.path) {
            Ok(stamp) if stamp == self.stamp => None,
            Ok(_) => Some(format!("`{path}` changed while the command ran")),
            Err(error) => Some(format!("`{path}` cannot be looked at any more: {error}")),
        }
    }
}

/// Records all data of a training.
pub fn record(
    record: &mut RunRecord,
    subject: &Subject<'_>,
    root: Option<&Path>,
) -> Result<Vec<DataWatch>, Failure> {
    let mut steps = Vec::new();
    for step in &subject.training.step {
        steps.push(told_step(step, subject)?);
    }
    let bar = Bar::default();
    let mut watched = Vec::new();
    for data in &subject.training.data {
        let path = subject.directory.join(&data.path);
        let (found, stamp) = fingerprint::take(&path, &bar, subject.is_wanted)?;
        record.push_dataset(told(data, &told_path(&path, root), &found, &steps));
        watched.push(DataWatch { path, stamp });
    }
    Ok(watched)
}

/// A step as it was given, with the digest of its file.
fn told_step(step: &Step, subject: &Subject<'_>) -> Result<Value, Failure> {
    let mut told = json!({ "name": step.name });
    if let Some(file) = &step.file {
        let (found, _) =
            fingerprint::take(&subject.directory.join(file), &Bar::default(), subject.is_wanted)?;
        told["file"] = json!(file.to_string_lossy());
        told["digest"] = json!(found.digest);
    }
    Ok(told)
}

fn told(data: &DataPath, path: &Path, found: &Fingerprint, steps: &[Value]) -> Value {
    let mut told = json!(found);
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    told["name"] = json!(record::cut(name.into_owned()));
    told["uri"] = json!(record::cut(path.to_string_lossy().into_owned()));
    if let Some(role) = &data.role {
        told["role"] = json!(role);
    }
    if !steps.is_empty() {
        told["preprocessing"] = json!(steps);
    }
    told
}
