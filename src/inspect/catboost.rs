//! CatBoost: a FlatBuffer with trees, behind four letters and a length.
//!
//! Source: `model.fbs` of CatBoost, version 1 of its format.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::description::{Draft, VALUE_BYTES_MAX, first};
use super::flatbuffer::{Buffer, Table};
use super::reader::Reader;
use super::{NAME_BYTES_MAX, Stop};

/// The first bytes.
pub(super) const MAGIC: [u8; 4] = *b"CBM1";

/// What a CatBoost file says of its trees.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CatboostDetails {
    /// Of the format.
    pub version: String,
    pub trees: u64,
    /// Of all trees. A symmetric tree asks one question on each level, which counts once.
    pub splits: u64,
    pub leaves: u64,
    /// Numbers for each row.
    pub outputs: u32,
    pub categorical_features: u64,
    pub float_features: u64,
    /// What was kept beside the trees, such as `params` as JSON.
    pub metadata: BTreeMap<String, String>,
}

impl CatboostDetails {
    pub(super) fn summary(&self) -> Map<String, Value> {
        let summary = json!({
            "version": self.version,
            "trees": self.trees,
            "splits": self.splits,
            "leaves": self.leaves,
            "outputs": self.outputs,
            "categorical_features": self.categorical_features,
            "float_features": self.float_features,
            "metadata": first(&self.metadata),
        });
        summary.as_object().cloned().unwrap_or_default()
    }
}

/// Reads what a model says of its trees.
pub(super) fn describe(
    reader: &mut Reader<'_>,
    draft: &mut Draft,
) -> Result<CatboostDetails, Stop> {
    let mut at = MAGIC.len() as u64;
    let length = u64::from(reader.u32(&mut at)?);
    let core = Reader::range(at, length, &(0..reader.bytes()))?;
    let (mut buffer, root) = Buffer::new(reader, core)?;
    let mut found = CatboostDetails {
        version: buffer.text(&root, 0, NAME_BYTES_MAX)?,
        ..CatboostDetails::default()
    };
    if let Some(trees) = buffer.inner(&root, 1)? {
        found.outputs = buffer.number(&trees, 0)?;
        found.splits = splits(&mut buffer, &trees)?;
        found.leaves = buffer.vector(&trees, 8, 8)?.count / u64::from(found.outputs.max(1));
        found.trees = buffer.vector(&trees, 2, 4)?.count;
        found.categorical_features = buffer.vector(&trees, 4, 4)?.count;
        found.float_features = buffer.vector(&trees, 5, 4)?.count;
    }
    let entries = buffer.vector(&root, 2, 4)?;
    for index in 0..entries.count {
        let entry = buffer.entry(entries, index)?;
        let key = buffer.text(&entry, 0, NAME_BYTES_MAX)?;
        let text = buffer.text(&entry, 1, VALUE_BYTES_MAX)?;
        if !draft.admit("metadata", key.len() + text.len()) {
            break;
        }
        found.metadata.insert(key, text);
    }
    Ok(found)
}

/// Splits of symmetric trees, or the nodes of others that have a child.
fn splits(buffer: &mut Buffer<'_, '_>, trees: &Table) -> Result<u64, Stop> {
    let steps = buffer.vector(trees, 10, 4)?;
    if steps.count == 0 {
        return Ok(buffer.vector(trees, 1, 4)?.count);
    }
    let mut splits = 0;
    for index in 0..steps.count {
        splits += u64::from(buffer.number_in(steps, index)? != 0);
    }
    Ok(splits)
}
