//! The log of a model: its versions with the metrics that each says of itself.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::diff::flat;
use super::show::version_summary;
use super::{Context, LogOptions, LogReport, LogVersion, OpsError, Workspace, permit};
use crate::governance::Action;

/// Versions that are told of at most, the newest ones: each manifest is read.
pub const LOG_VERSIONS_MAX: usize = 10_000;
/// Metrics of one version that are told.
const METRICS_MAX: usize = 1_000;

impl Workspace {
    /// The newest versions of a model, oldest first.
    ///
    /// # Errors
    /// `NoModel`, `Denied`, `NoMetric` for one that none of them has; the store's.
    pub(super) fn log(
        &self,
        context: &Context,
        options: &LogOptions,
    ) -> Result<LogReport, OpsError> {
        let (summaries, total) = {
            let state = self.state();
            permit(&state, context, &options.model, Action::Read)?;
            let model = state.model(&options.model).expect("permitted, so it is there");
            let body = model.body()?;
            let versions = body.versions.iter();
            let (total, most) = (versions.len(), options.last.unwrap_or(usize::MAX));
            let skipped = total.saturating_sub(most.min(LOG_VERSIONS_MAX));
            let summaries: Vec<_> =
                versions.skip(skipped).map(|version| version_summary(model, version)).collect();
            (summaries, total)
        };
        let mut known = BTreeSet::new();
        let mut versions = Vec::with_capacity(summaries.len());
        for summary in summaries {
            let mut metrics = flat(&self.manifest(&summary.manifest)?.metadata["metrics"]);
            known.extend(metrics.keys().cloned());
            if !options.metrics.is_empty() {
                metrics.retain(|name, _| options.metrics.contains(name));
            }
            let metrics: BTreeMap<String, Value> = metrics.into_iter().take(METRICS_MAX).collect();
            versions.push(LogVersion { summary, metrics });
        }
        if let Some(metric) = options.metrics.iter().find(|metric| !known.contains(*metric)) {
            let (model, metric) = (options.model.clone(), metric.clone());
            return Err(OpsError::NoMetric { model, metric, known: known.into_iter().collect() });
        }
        let left_out = (total - versions.len()) as u64;
        Ok(LogReport { model: options.model.clone(), versions, left_out })
    }
}
