//! What a description says of boosted trees, without the trees.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::super::description::{Draft, SUMMARY_COUNT_MAX, first, short};
use super::Ensemble;

/// Boosted trees in numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TreesDetails {
    pub library: String,
    pub version: String,
    pub booster: String,
    pub objective: String,
    pub trees: u64,
    /// Trees of one round: one a class.
    pub groups: u64,
    pub splits: u64,
    pub leaves: u64,
    /// Splits on the longest way through any tree.
    pub depth: u64,
    /// Names, in the order of their indices.
    pub features: Vec<String>,
    /// Splits that ask for each feature, by name; those that none asks for are left out.
    pub feature_splits: BTreeMap<String, u64>,
    pub parameters: BTreeMap<String, String>,
    /// See [`Ensemble::monotone`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub monotone: Vec<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interactions: Vec<Vec<u32>>,
}

impl TreesDetails {
    /// Counts an ensemble.
    pub(in super::super) fn of(ensemble: &Ensemble, draft: &mut Draft) -> Self {
        let mut found = Self {
            library: ensemble.library.clone(),
            version: ensemble.version.clone(),
            booster: ensemble.booster.clone(),
            objective: ensemble.objective.clone(),
            trees: ensemble.trees.len() as u64,
            groups: ensemble.group_count,
            monotone: ensemble.monotone.clone(),
            interactions: ensemble.interactions.clone(),
            ..Self::default()
        };
        for feature in &ensemble.features {
            if !draft.admit("features", feature.name.len()) {
                break;
            }
            found.features.push(feature.name.clone());
        }
        for (name, value) in &ensemble.parameters {
            if draft.admit("parameters", name.len() + value.len()) {
                found.parameters.insert(name.clone(), value.clone());
            }
        }
        let mut by_feature = vec![0_u64; found.features.len()];
        for tree in &ensemble.trees {
            let splits = tree.nodes.iter().filter_map(|node| node.split.as_ref());
            for split in splits {
                found.splits += 1;
                if let Some(count) = by_feature.get_mut(split.feature as usize) {
                    *count += 1;
                }
            }
            found.depth = found.depth.max(tree.depth());
        }
        let nodes: usize = ensemble.trees.iter().map(|tree| tree.nodes.len()).sum();
        found.leaves = nodes as u64 - found.splits;
        let counted = found.features.iter().zip(by_feature).filter(|(_, count)| *count != 0);
        found.feature_splits = counted.map(|(name, count)| (name.clone(), count)).collect();
        found
    }

    pub(in super::super) fn summary(&self) -> Map<String, Value> {
        let features: Vec<_> =
            self.features.iter().take(SUMMARY_COUNT_MAX).map(|name| short(name)).collect();
        let summary = json!({
            "library": self.library,
            "version": short(&self.version),
            "booster": short(&self.booster),
            "objective": short(&self.objective),
            "trees": self.trees,
            "groups": self.groups,
            "splits": self.splits,
            "leaves": self.leaves,
            "depth": self.depth,
            "features": self.features.len(),
            "first_features": features,
            "parameters": first(&self.parameters),
        });
        summary.as_object().cloned().unwrap_or_default()
    }
}
