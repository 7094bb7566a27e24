//! Live views: what an alias points to now, as directories that can be bind-mounted.
//!
//! `.live/prod` never changes its inode; its entries are looked up each time. So whoever opens a
//! version's directory once stays in that version, and whoever walks there anew sees the next one.

use std::collections::BTreeSet;
use std::ffi::OsStr;

use super::answer::Kind;
use super::listing::Named;
use super::nodes::{Node, View};
use super::{Child, Filesystem, FsError, Requester, version};
use crate::format::ids::ManifestId;
use crate::format::manifest::EntryIndex;
use crate::format::names::{At, LATEST, ModelName};
use crate::format::record::{Access, Door};
use crate::ops::{Action, Caller, OpsError, Permission, by_bits};
use crate::registry::model::Model;

/// `/.live/<name>`: there for every name that an alias can have.
pub(super) fn alias_child(name: &OsStr) -> Option<Child> {
    parse_alias(name).map(|at| Child::fixed(Node::LiveAlias(at)))
}

/// A name that can be an alias; `latest` is one here.
fn parse_alias(name: &OsStr) -> Option<At> {
    match name.to_str()?.parse().ok()? {
        At::Version(_) => None,
        at @ (At::Latest | At::Alias(_)) => Some(at),
    }
}

/// What the bits of a model's directory say: the kernel does not ask it, as the way leads past it.
pub(super) fn may(caller: &Caller, model: &Model, action: Action) -> bool {
    by_bits(caller, model.access, action) == Permission::Allowed
}

/// Somebody of whom only user and group are known.
fn bare(Requester { uid, gid, .. }: Requester) -> Caller {
    let (user, groups, door) = (String::new(), Vec::new(), Door::Mount);
    Caller { user, uid, gid, groups, door }
}

impl Filesystem {
    /// `/.live/prod/<name>`: the version of that model. Whether it has one, only who may enter it learns.
    pub(super) fn live_child(
        &self,
        requester: Requester,
        at: &At,
        name: &OsStr,
    ) -> Result<Option<Child>, FsError> {
        let Some(Ok(model)) = name.to_str().map(str::parse::<ModelName>) else { return Ok(None) };
        let access = self.workspace.state().model(&model).map(|model| model.access);
        let Some(access) = access else { return Ok(None) };
        if !self.may_enter_one(requester, &[access]) {
            let caller = self.context(requester).caller;
            if let Permission::Refused { needs } = by_bits(&caller, access, Action::Enter) {
                let (user, what) = (caller.user, model.to_string());
                return Err(OpsError::Denied { user, action: "enter", what, needs }.into());
            }
        }
        let Some(id) = self.live_manifest(&model, at) else { return Ok(None) };
        let manifest = self.workspace.manifest(&id)?;
        Ok(Some(Child::moving(version::root(View::Live(at.clone()), id, manifest))))
    }

    /// Whether someone may enter one of the models with these bits.
    pub(super) fn may_enter_one(&self, requester: Requester, accesses: &[Access]) -> bool {
        let may = |caller: &Caller| {
            let mut accesses = accesses.iter();
            accesses.any(|it| by_bits(caller, *it, Action::Enter) == Permission::Allowed)
        };
        // What groups a requester has is seldom needed, and a file to read.
        may(&bare(requester)) || !accesses.is_empty() && may(&self.context(requester).caller)
    }

    /// `/churn/.live/<name>`: the version, or an empty directory until there is one.
    pub(super) fn model_live_child(
        &self,
        model: &ModelName,
        name: &OsStr,
    ) -> Result<Option<Child>, FsError> {
        let Some(at) = parse_alias(name) else { return Ok(None) };
        let Some(id) = self.live_manifest(model, &at) else {
            return Ok(Some(Child::moving(Node::LiveEmpty(model.clone(), at.into()))));
        };
        let manifest = self.workspace.manifest(&id)?;
        Ok(Some(Child::moving(version::root(View::ModelLive(at), id, manifest))))
    }

    fn live_manifest(&self, model: &ModelName, at: &At) -> Option<ManifestId> {
        let state = self.workspace.state();
        Some(state.model(model)?.goal(at)?.1)
    }

    /// Every alias of the models that someone may list.
    pub(super) fn live_names(&self, requester: Requester) -> Vec<Named> {
        let caller = self.context(requester).caller;
        let state = self.workspace.state();
        let mut names = BTreeSet::new();
        for model in state.models().filter(|model| may(&caller, model, Action::Read)) {
            names.extend(model.aliases.keys().map(|alias| alias.as_str().to_owned()));
            names.extend(model.latest().map(|_| LATEST.to_owned()));
        }
        let entry = |name: String| {
            let at: At = name.parse().expect("it came from a name that was parsed");
            (name.into(), Kind::Directory, Node::LiveAlias(at).identity())
        };
        names.into_iter().map(entry).collect()
    }

    /// The models that have this alias, of those that someone may enter.
    pub(super) fn live_models(&self, requester: Requester, at: &At) -> Vec<Named> {
        let view = View::Live(at.clone());
        let caller = self.context(requester).caller;
        let state = self.workspace.state();
        let models = state.models().filter(|model| may(&caller, model, Action::Enter));
        let found = models.filter_map(|model| {
            let (_, manifest) = model.goal(at)?;
            let identity = view.identity(&manifest, EntryIndex::ROOT);
            Some((model.name.as_str().into(), Kind::Directory, identity))
        });
        found.collect()
    }

    /// The aliases that this model has.
    pub(super) fn model_live_names(&self, model: &ModelName) -> Vec<Named> {
        let state = self.workspace.state();
        let Some(model) = state.model(model) else { return Vec::new() };
        let aliases = model.aliases.keys().cloned().map(At::Alias);
        let found = std::iter::once(At::Latest).chain(aliases).filter_map(|at| {
            let (_, id) = model.goal(&at)?;
            let name = at.to_string().into();
            let identity = View::ModelLive(at).identity(&id, EntryIndex::ROOT);
            Some((name, Kind::Directory, identity))
        });
        found.collect()
    }
}
