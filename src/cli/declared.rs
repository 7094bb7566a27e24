//! `--metadata FILE`: members of a version's metadata that somebody wrote into a file.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::failure::failure_with_hint;
use super::verbs::read_text;
use crate::ops::{Failure, FailureKind, Provenance};

/// Longest file, in bytes.
const FILE_BYTES_MAX: usize = 1 << 20;
const HINT: &str = "write an object like {\"source\": {\"commit\": \"1f0c…\"}, \"parents\": [\"base/v3\"]}; \
                    `.modelfs/schema` in the mount has what each member can be";

/// What was declared.
#[derive(Debug, Default)]
pub struct Declared {
    pub metrics: BTreeMap<String, Value>,
    pub params: BTreeMap<String, Value>,
    pub labels: BTreeMap<String, Value>,
    pub datasets: Vec<Value>,
    pub provenance: Box<Provenance>,
}

/// The file as it is written. What is not here is refused by name.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Fields {
    metrics: BTreeMap<String, Value>,
    params: BTreeMap<String, Value>,
    labels: BTreeMap<String, Value>,
    datasets: Vec<Value>,
    source: Value,
    environment: Value,
    run: Value,
    interface: Value,
    parents: Vec<Value>,
}

/// Reads such a file. What the members hold is checked where it is sealed.
///
/// # Errors
/// `Usage` for what is no such object.
pub fn read(file: &Path) -> Result<Declared, Failure> {
    let text = read_text(file, FILE_BYTES_MAX, HINT)?;
    let fields: Fields = serde_json::from_str(&text).map_err(|error| {
        let what = format!("`{}` is no metadata that can be declared", file.display());
        let failed = failure_with_hint(FailureKind::Usage, what, HINT);
        Failure { because: vec![error.to_string()], ..failed }
    })?;
    let Fields { metrics, params, labels, datasets, .. } = fields;
    let Fields { source, environment, run, interface, parents, .. } = fields;
    let provenance = Box::new(Provenance { source, environment, run, interface, parents });
    Ok(Declared { metrics, params, labels, datasets, provenance })
}
