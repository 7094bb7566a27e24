//! `.by-data/<digest>/…`: links to the versions that were made from some data.
//!
//! All is looked up each time, for who asks: of a model that one may not enter nothing is there, nor is data
//! that only such models were made from.

use std::collections::HashSet;
use std::ffi::OsStr;

use super::answer::Kind;
use super::listing::Named;
use super::live::may;
use super::nodes::Node;
use super::{Child, Filesystem, Requester};
use crate::format::ids::DataDigest;
use crate::format::names::{ModelName, VersionNumber};
use crate::format::record::Access;
use crate::ops::Action;

/// A version that was made from some data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataLink {
    pub data: DataDigest,
    pub model: ModelName,
    pub version: VersionNumber,
}

impl DataLink {
    /// Such as `churn-v7`. A version has no dash: no two links have one name.
    fn name(&self) -> String {
        format!("{}-{}", self.model, self.version)
    }

    /// Such as `../../churn/v7`.
    pub(super) fn target(&self) -> String {
        format!("../../{}/{}", self.model, self.version)
    }

    fn parse(data: DataDigest, name: &OsStr) -> Option<Self> {
        let (model, version) = name.to_str()?.rsplit_once('-')?;
        let (model, version) = (model.parse().ok()?, version.parse().ok()?);
        Some(Self { data, model, version })
    }
}

impl Filesystem {
    /// `/.by-data/<digest>`
    pub(super) fn data_child(&self, requester: Requester, name: &OsStr) -> Option<Child> {
        let data: DataDigest = name.to_str()?.parse().ok()?;
        let accesses: Vec<Access> = {
            let state = self.workspace.state();
            let models = state.data().versions(&data).map(|(model, _)| model);
            models.filter_map(|model| Some(state.model(model)?.access)).collect()
        };
        self.may_enter_one(requester, &accesses).then(|| Child::moving(Node::Data(data)))
    }

    /// `/.by-data/<digest>/churn-v7`
    pub(super) fn data_link_child(
        &self,
        requester: Requester,
        data: &DataDigest,
        name: &OsStr,
    ) -> Option<Child> {
        let link = DataLink::parse(*data, name)?;
        let access = {
            let state = self.workspace.state();
            let is_there = state.data().has(data, &link.model, link.version);
            state.model(&link.model).filter(|_| is_there)?.access
        };
        self.may_enter_one(requester, &[access]).then(|| Child::moving(Node::DataLink(link.into())))
    }

    /// The data of the models that someone may enter.
    pub(super) fn data_names(&self, requester: Requester) -> Vec<Named> {
        let caller = self.context(requester).caller;
        let state = self.workspace.state();
        let models = state.models().filter(|model| may(&caller, model, Action::Enter));
        let seen: HashSet<&ModelName> = models.map(|model| &model.name).collect();
        let found = state.data().iter();
        let found = found.filter(|(_, models)| models.keys().any(|model| seen.contains(model)));
        found
            .map(|(data, _)| {
                (data.to_string().into(), Kind::Directory, Node::Data(*data).identity())
            })
            .collect()
    }

    /// The versions that were made from some data, of the models that someone may enter.
    pub(super) fn data_link_names(&self, requester: Requester, data: &DataDigest) -> Vec<Named> {
        let caller = self.context(requester).caller;
        let state = self.workspace.state();
        let versions = state.data().versions(data).filter(|(name, _)| {
            state.model(name).is_some_and(|model| may(&caller, model, Action::Enter))
        });
        let links = versions.flat_map(|(model, versions)| {
            versions.iter().map(|version| DataLink {
                data: *data,
                model: model.clone(),
                version: *version,
            })
        });
        links
            .map(|link| (link.name().into(), Kind::Symlink, Node::DataLink(link.into()).identity()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_links_name_says_which_version_it_is() {
        let data = DataDigest::of(b"data");
        for name in ["churn-v7", "a-v1-v2", "a.b_c-v10"] {
            assert_eq!(DataLink::parse(data, OsStr::new(name)).expect(name).name(), name);
        }
        for name in ["churn", "churn-prod", "-v7", "churn-v0", "churn-v07", "churn-", "churn/v7"] {
            assert_eq!(DataLink::parse(data, OsStr::new(name)), None, "{name}");
        }
        let link = DataLink::parse(data, OsStr::new("a-v1-v2")).expect("a link");
        assert_eq!(link.target(), "../../a-v1/v2");
    }
}
