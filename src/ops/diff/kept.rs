//! Answers that were given: they hold for ever, and some are kept.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::report::DiffReport;
use crate::format::ids::ManifestId;

/// Bytes of answers that are kept, as they are estimated.
const KEPT_BYTES_MAX: u64 = 64 << 20;
/// Estimate of the answers that are kept, for sizing the table.
const KEPT_TYPICAL: usize = 256;
/// Estimate of an entry of a list.
const ENTRY_BYTES: u64 = 512;

/// Two versions by their manifests, the earlier one first.
pub(super) type Pair = (ManifestId, ManifestId);

/// The answers that were given last.
pub(in super::super) struct Diffs {
    kept: Cache<Pair, Arc<DiffReport>, ReportWeight>,
    /// Held while tensors are read, for which one diff takes all cores. No lock but those of the store is
    /// taken while it is held.
    measuring: Mutex<()>,
}

#[derive(Clone)]
struct ReportWeight;

impl Weighter<Pair, Arc<DiffReport>> for ReportWeight {
    fn weight(&self, _: &Pair, report: &Arc<DiffReport>) -> u64 {
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
        let rest = (&report.metadata, &report.graphs, &report.ensembles, &report.values);
        let rest = serde_json::to_vec(&rest).map_or(0, |text| text.len());
        entries as u64 * ENTRY_BYTES + rest as u64
    }
}

impl Default for Diffs {
    fn default() -> Self {
        let kept = Cache::with_weighter(KEPT_TYPICAL, KEPT_BYTES_MAX, ReportWeight);
        Self { kept, measuring: Mutex::new(()) }
    }
}

impl Diffs {
    pub fn find(&self, pair: &Pair) -> Option<Arc<DiffReport>> {
        self.kept.get(pair)
    }

    pub fn keep(&self, pair: Pair, report: &Arc<DiffReport>) {
        self.kept.insert(pair, Arc::clone(report));
    }

    /// Waits until nobody else measures.
    pub fn begin(&self) -> MutexGuard<'_, ()> {
        self.measuring.lock()
    }
}
