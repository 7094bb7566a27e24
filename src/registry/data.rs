//! Which versions were made from which data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::format::ids::DataDigest;
use crate::format::names::{ModelName, VersionNumber};
use crate::format::record::Seal;

/// Versions of each model, sorted, by the data that their seals name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DataIndex(BTreeMap<DataDigest, BTreeMap<ModelName, Vec<VersionNumber>>>);

impl DataIndex {
    /// All data, sorted, with the versions of each.
    pub fn iter(
        &self,
    ) -> impl Iterator<Item = (&DataDigest, &BTreeMap<ModelName, Vec<VersionNumber>>)> {
        self.0.iter()
    }

    /// The versions that were made from some data, by their models.
    pub fn versions(
        &self,
        data: &DataDigest,
    ) -> impl Iterator<Item = (&ModelName, &Vec<VersionNumber>)> {
        self.0.get(data).into_iter().flatten()
    }

    /// Whether a version was made from some data.
    pub fn has(&self, data: &DataDigest, model: &ModelName, version: VersionNumber) -> bool {
        let versions = self.0.get(data).and_then(|models| models.get(model));
        versions.is_some_and(|versions| versions.binary_search(&version).is_ok())
    }

    /// Takes in a version.
    pub(super) fn add(&mut self, seal: &Seal) {
        for data in &seal.data {
            let models = self.0.entry(*data).or_default();
            let versions = models.entry(seal.model.clone()).or_default();
            if let Err(place) = versions.binary_search(&seal.version) {
                versions.insert(place, seal.version);
            }
        }
    }

    /// Forgets all versions of a model. O(n).
    pub(super) fn remove(&mut self, model: &ModelName) {
        self.0.retain(|_, models| {
            models.remove(model);
            !models.is_empty()
        });
    }
}
