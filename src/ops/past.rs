//! What a model was at some moment: the sum of its records up to then.
//!
//! Adding them up takes as long as the model has records: once for all who ask at a time, and for one moment
//! of each user at a time.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::{OpsError, WeighedCache, Workspace, weighed_cache};
use crate::format::names::ModelName;
use crate::format::record::Record;
use crate::registry::model::Model;
use crate::store::StoreError;

/// Bytes of the records of all models that are kept as they were.
const KEPT_BYTES_MAX: u64 = 64 << 20;
/// Estimate of the models that are kept as they were, for sizing the table.
const KEPT_TYPICAL: usize = 64;

/// A model as it was; nothing where its records do not begin with its making.
#[derive(Clone)]
struct Was {
    model: Option<Arc<Model>>,
    /// Of its records.
    bytes: u64,
}

/// Models as they were, by the last of their records that counts.
pub(super) struct Past {
    kept: WeighedCache<(ModelName, u64), Was>,
    /// Held by each user while they have records added up; no other lock is taken while the table is held.
    turns: Mutex<HashMap<u32, Arc<Mutex<()>>>>,
}

impl Default for Past {
    fn default() -> Self {
        let kept = weighed_cache(KEPT_TYPICAL, KEPT_BYTES_MAX, |_, was: &Was| was.bytes);
        Self { kept, turns: Mutex::default() }
    }
}

impl Past {
    pub fn clear(&self) {
        self.kept.clear();
    }

    /// What is kept, or what another makes now, or what `make` gives.
    fn find_or_make(
        &self,
        uid: u32,
        key: &(ModelName, u64),
        make: impl FnOnce() -> Result<Was, OpsError>,
    ) -> Result<Option<Arc<Model>>, OpsError> {
        if let Some(was) = self.kept.get(key) {
            return Ok(was.model);
        }
        let turn = Arc::clone(self.turns.lock().entry(uid).or_default());
        let _turn = turn.lock();
        Ok(self.kept.get_or_insert_with(key, make)?.model)
    }
}

impl Workspace {
    /// A model as it was at `at`, for a user; `None` where there was none, or there is none any more.
    ///
    /// Reads the model's records up to then, once: O(n) in them, then from memory.
    ///
    /// # Errors
    /// As reading records.
    pub fn model_at(
        &self,
        uid: u32,
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
        self.past.find_or_make(uid, &(name.clone(), *last), || self.replay(&seqs[..end]))
    }

    fn replay(&self, seqs: &[u64]) -> Result<Was, OpsError> {
        let mut bytes = 0;
        let records = seqs.iter().map(|seq| {
            let line = self.store.record_line(*seq)?;
            bytes += line.len() as u64;
            parse(*seq, &line)
        });
        let records: Vec<Record> = records.collect::<Result<_, OpsError>>()?;
        Ok(Was { model: Model::replay(records).map(Arc::new), bytes })
    }

    /// One record of the history.
    pub(super) fn record(&self, seq: u64) -> Result<Record, OpsError> {
        parse(seq, &self.store.record_line(seq)?)
    }
}

fn parse(seq: u64, line: &[u8]) -> Result<Record, OpsError> {
    let (record, _) = Record::parse(line).map_err(|source| StoreError::Record { seq, source })?;
    Ok(record)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_moment_is_added_up_once_and_one_at_a_time_for_each_user() {
        let past = Past::default();
        let (made, running, most) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let look = |uid, seq| {
            let make = || {
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                made.fetch_add(1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(5));
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(Was { model: None, bytes: 1 << 20 })
            };
            past.find_or_make(uid, &("churn".parse().unwrap(), seq), make).unwrap();
        };
        let look = &look;
        thread::scope(|scope| {
            (0..8).for_each(|uid| drop(scope.spawn(move || look(uid, 1))));
        });
        assert_eq!(made.load(Ordering::SeqCst), 1, "once for all");
        thread::scope(|scope| {
            (2..10).for_each(|seq| drop(scope.spawn(move || look(1, seq))));
        });
        assert_eq!(made.load(Ordering::SeqCst), 9);
        assert_eq!(most.load(Ordering::SeqCst), 1, "one user has one made at a time");
        (10..200).for_each(|seq| look(1, seq));
        assert!(past.kept.weight() <= KEPT_BYTES_MAX, "{}", past.kept.weight());
    }
}
