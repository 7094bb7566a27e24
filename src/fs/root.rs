//! The root of the mount: models, and the views of all of them.

use std::ffi::OsStr;

use super::answer::{Attributes, Kind};
use super::listing::Named;
use super::nodes::Node;
use super::{Child, Filesystem, FsError, Requester, show};
use crate::format::names::ModelName;
use crate::format::record::Access;
use crate::registry::model::Model;

/// The views of what aliases point to now.
pub(super) const LIVE: &str = ".live";
/// What the store says of itself.
pub(super) const INFO: &str = ".modelfs";

/// What was.
pub(super) const PAST: &str = ".at";
/// Which versions were made from which data.
pub(super) const BY_DATA: &str = ".by-data";

/// Makes new directories inherit the group of theirs.
const SET_GROUP_ID: u32 = 0o2000;

impl Filesystem {
    pub(super) fn root_child(&self, name: &OsStr) -> Option<Child> {
        match name.to_str()? {
            LIVE => Some(Child::fixed(Node::Live(None))),
            INFO => Some(Child::fixed(Node::Info(None))),
            PAST => Some(Child::fixed(Node::PastRoot)),
            BY_DATA => Some(Child::fixed(Node::DataRoot)),
            text => {
                let name: ModelName = text.parse().ok()?;
                let seq = self.workspace.state().model(&name)?.seq;
                // A model goes by rmdir only, which the kernel sees: until then its name holds.
                Some(Child::fixed(Node::Model { name, seq }))
            }
        }
    }

    /// Names of the models.
    pub(super) fn root_names(&self) -> Vec<Named> {
        let state = self.workspace.state();
        let entry = |model: &Model| {
            let node = Node::Model { name: model.name.clone(), seq: model.seq };
            (model.name.as_str().into(), Kind::Directory, node.identity())
        };
        state.models().map(entry).collect()
    }

    pub(super) fn root_attributes(&self) -> Attributes {
        let (access, time) = {
            let state = self.workspace.state();
            (state.root_access(), state.time())
        };
        super::model::Facts { access, changed: time }.directory(0o7777)
    }

    /// Makes a model that belongs to who asks for it.
    pub(super) fn create_model(
        &self,
        requester: Requester,
        name: &OsStr,
        mode: u32,
    ) -> Result<Child, FsError> {
        let model: ModelName = super::model::text(name)?.parse()?;
        let root = self.workspace.state().root_access();
        let inherits = root.mode & SET_GROUP_ID != 0;
        let access = Access {
            uid: requester.uid,
            gid: if inherits { root.gid } else { requester.gid },
            mode: mode & 0o7777 | root.mode & SET_GROUP_ID,
        };
        self.workspace.create_model(&self.context(requester), &model, access)?;
        self.root_child(name).ok_or(FsError::Missing)
    }

    /// Removes a model that never had a version and whose draft is empty.
    pub(super) fn remove_model(&self, requester: Requester, name: &OsStr) -> Result<(), FsError> {
        let text = super::model::text(name)?;
        let Ok(model) = text.parse::<ModelName>() else { return Err(refuse(name)) };
        self.workspace.remove_model(&self.context(requester), &model)?;
        self.desk.forget(&model);
        self.refusals.forget(&model);
        Ok(())
    }
}

/// Why only models can be made in the root, and why they are not renamed.
pub(super) fn refuse(name: &OsStr) -> FsError {
    if [LIVE, INFO, PAST, BY_DATA].iter().any(|view| name == *view) {
        return super::read_only(&Node::Info(None));
    }
    FsError::Refused {
        action: format!("do this to `{}`", show(name)),
        advice: "the root holds models only, which `mkdir` makes; a model keeps its name",
    }
}
