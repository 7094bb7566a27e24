//! What a model was at some moment: the sum of its records up to then.

use std::sync::Arc;

use jiff::Timestamp;

use super::{OpsError, Workspace};
use crate::format::names::ModelName;
use crate::format::record::Record;
use crate::registry::model::Model;
use crate::store::StoreError;

impl Workspace {
    /// A model as it was at `at`; `None` where there was none, or there is none any more.
    ///
    /// Reads the model's records up to then, once: O(n) in them, then from memory.
    ///
    /// # Errors
    /// As reading records.
    pub fn model_at(
        &self,
        name: &ModelName,
        at: Timestamp,
    ) -> Result<Option<Arc<Model>>, OpsError> {
        let seqs: Vec<u64> = match self.state().model(name) {
            Some(model) if model.created <= at => model.body()?.records.seqs().to_vec(),
            _ => return Ok(None),
        };
        // Times never go back along the history.
        let (mut first, mut end) = (0, seqs.len());
        while first < end {
            let middle = first + (end - first) / 2;
            if self.record(seqs[middle])?.time <= at { first = middle + 1 } else { end = middle }
        }
        let Some(last) = seqs[..end].last() else { return Ok(None) };
        let key = (name.clone(), *last);
        if let Some(model) = self.past.get(&key) {
            return Ok(Some(model));
        }
        let records: Result<Vec<Record>, OpsError> =
            seqs[..end].iter().map(|seq| self.record(*seq)).collect();
        let model = Model::replay(records?).map(Arc::new);
        model.iter().for_each(|model| self.past.insert(key.clone(), Arc::clone(model)));
        Ok(model)
    }

    /// One record of the history.
    pub(super) fn record(&self, seq: u64) -> Result<Record, OpsError> {
        let line = self.store.record_line(seq)?;
        let parsed = Record::parse(&line);
        let (record, _) = parsed.map_err(|source| StoreError::Record { seq, source })?;
        Ok(record)
    }
}
