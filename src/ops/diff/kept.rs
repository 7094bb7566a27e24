//! Answers that were given: they hold for ever, and some are kept. Two who ask the same are one piece of
//! work; different questions do not wait for each other.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::GuardResult;

use super::super::{OpsError, WeighedCache, weighed_cache};
use super::report::DiffReport;
use crate::format::ids::ManifestId;

/// Bytes of answers that are kept, as they are estimated.
const KEPT_BYTES_MAX: u64 = 64 << 20;
/// Estimate of the answers that are kept, for sizing the table.
const KEPT_TYPICAL: usize = 256;
/// How long who waits for the work of another goes without asking whether anybody waits for it.
const PATIENCE: Duration = Duration::from_millis(100);
/// Estimate of an entry of a list.
const ENTRY_BYTES: u64 = 512;

/// Two versions by their manifests, the earlier one first.
pub(super) type Pair = (ManifestId, ManifestId);

/// The answers that were given last.
pub(in super::super) struct Diffs(WeighedCache<Pair, Arc<DiffReport>>);

impl Default for Diffs {
    fn default() -> Self {
        Self(weighed_cache(KEPT_TYPICAL, KEPT_BYTES_MAX, bytes_of))
    }
}

impl Diffs {
    /// The answer for a pair: one that was kept, one that another makes now, or what `make` gives.
    ///
    /// # Errors
    /// Those of `make`, after which the next who waits makes it; `Closing` once `gives_up`.
    pub fn find_or_make(
        &self,
        pair: &Pair,
        gives_up: impl Fn() -> bool,
        make: impl FnOnce() -> Result<DiffReport, OpsError>,
    ) -> Result<Arc<DiffReport>, OpsError> {
        loop {
            match self.0.get_value_or_guard(pair, Some(PATIENCE)) {
                GuardResult::Value(report) => return Ok(report),
                GuardResult::Guard(place) => {
                    let report = Arc::new(make()?);
                    // Refused where the cache was emptied meanwhile: it is an answer all the same.
                    drop(place.insert(Arc::clone(&report)));
                    return Ok(report);
                }
                GuardResult::Timeout if gives_up() => return Err(OpsError::Closing),
                GuardResult::Timeout => {}
            }
        }
    }
}

/// What a report takes in memory, about.
fn bytes_of(_: &Pair, report: &Arc<DiffReport>) -> u64 {
    let DiffReport { files, tensors, layers, .. } = &**report;
    let entries = files.added.len()
        + files.removed.len()
        + files.renamed.len()
        + files.changed.len()
        + tensors.added.len()
        + tensors.removed.len()
        + 2 * (tensors.renamed.len() + tensors.changed.len() + tensors.reshaped.len())
        + layers.len();
    // What else there is has as many names and values as who sealed it wrote.
    let DiffReport { metadata, graphs, ensembles, values, malformed, .. } = &**report;
    let rest = (metadata, graphs, ensembles, values, malformed);
    let rest = serde_json::to_vec(&rest).map_or(0, |text| text.len());
    entries as u64 * ENTRY_BYTES + rest as u64
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    fn pair(number: u8) -> Pair {
        (ManifestId::of(b"before"), ManifestId::of(&[number]))
    }

    #[test]
    fn a_diff_waits_for_the_same_one_only_and_no_longer_than_its_reader() {
        let diffs = Diffs::default();
        let failed = |pair: &Pair| {
            let error = diffs.find_or_make(pair, || true, || Err(OpsError::HotOff)).unwrap_err();
            matches!(error, OpsError::HotOff)
        };
        let ((begun, begins), (go, goes)) = (channel(), channel::<()>());
        thread::scope(|scope| {
            let diffs = &diffs;
            scope.spawn(move || {
                let make = || {
                    begun.send(()).unwrap();
                    goes.recv().unwrap();
                    Err(OpsError::HotOff)
                };
                diffs.find_or_make(&pair(1), || false, make).unwrap_err();
            });
            begins.recv().unwrap();
            assert!(failed(&pair(2)), "another pair is no reason to wait");
            assert!(!failed(&pair(1)), "nobody waits for it any more");
            go.send(()).unwrap();
        });
        assert!(failed(&pair(1)), "one that failed is tried again");
    }
}
