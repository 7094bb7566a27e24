//! Looking: lists, one version, how the store is doing.

use serde_json::Value;

use super::{
    AliasSummary, CatalogReport, Context, ModelSummary, OpsError, RepairReport, StatusReport,
    VersionSummary, Workspace, permit,
};
use crate::format::names::{LATEST, ModelName, Reference};
use crate::format::record::{Access, Actor};
use crate::governance::{self, Action, Permission};
use crate::registry::model::{Model, Version};
use crate::store;

impl Workspace {
    /// The models that the caller may read.
    pub(super) fn list_models(&self, context: &Context) -> Result<Vec<ModelSummary>, OpsError> {
        let state = self.state();
        super::permit_access(context, state.root_access(), Action::Read, "the store")?;
        Ok(state.models().filter(|model| may_read(context, model.access)).map(summary_of).collect())
    }

    /// The versions of a model, oldest first.
    pub(super) fn list_versions(
        &self,
        context: &Context,
        name: &ModelName,
    ) -> Result<Vec<VersionSummary>, OpsError> {
        let state = self.state();
        permit(&state, context, name, Action::Read)?;
        let model = state.model(name).expect("permitted, so it is there");
        let body = model.body()?;
        Ok(body.versions.iter().map(|version| version_summary(model, version)).collect())
    }

    /// The aliases of a model.
    pub(super) fn list_aliases(
        &self,
        context: &Context,
        name: &ModelName,
    ) -> Result<Vec<AliasSummary>, OpsError> {
        let state = self.state();
        permit(&state, context, name, Action::Read)?;
        Ok(aliases_of(state.model(name).expect("permitted, so it is there")))
    }

    /// One version with its metadata, without the list of files.
    pub(super) fn show(
        &self,
        context: &Context,
        reference: &Reference,
    ) -> Result<(VersionSummary, Value), OpsError> {
        let summary = self.resolve(context, reference)?;
        let metadata = self.manifest(&summary.manifest)?.metadata.clone();
        Ok((summary, metadata))
    }

    /// The version that a reference means now, if the caller may read its model.
    pub(super) fn resolve(
        &self,
        context: &Context,
        reference: &Reference,
    ) -> Result<VersionSummary, OpsError> {
        let state = self.state();
        permit(&state, context, &reference.model, Action::Read)?;
        let model = state.model(&reference.model).expect("permitted, so it is there");
        match model.version(&reference.at)? {
            Some(version) => Ok(version_summary(model, &version)),
            None => {
                let Reference { model, at } = reference.clone();
                Err(OpsError::NoVersion { model, at })
            }
        }
    }

    /// How the store is doing, as far as it concerns models that the caller may read; the daemon adds
    /// itself.
    ///
    /// # Errors
    /// When the caller may not list the models, or the file system does not say how much space it has.
    pub fn status(&self, context: &Context) -> Result<StatusReport, OpsError> {
        let space = self
            .space()
            .map_err(|e| OpsError::file("ask for the space of", self.directory(), e))?;
        let (mut sealing, mut hot) = (self.sealing(), self.hot_status());
        let state = self.state();
        super::permit_access(context, state.root_access(), Action::Read, "the store")?;
        sealing.retain(|of| {
            // One that is still to be made is as open as the root.
            let access = state.model(&of.model).map_or(state.root_access(), |model| model.access);
            may_read(context, access)
        });
        let is_seen = |warming: &super::WarmStatus| {
            state.model(&warming.model).is_some_and(|model| may_read(context, model.access))
        };
        hot.warming = hot.warming.filter(is_seen);
        let head = state.head();
        let seen = || state.models().filter(|model| may_read(context, model.access));
        Ok(StatusReport {
            store: self.directory().to_owned(),
            store_id: self.store.config().store.clone(),
            format: self.store.config().format,
            seq: head.seq,
            head: head.digest,
            models: seen().count() as u64,
            versions: seen().map(Model::version_count).sum(),
            free_bytes: space.blocks_available * space.block_bytes,
            sealing,
            hot,
            daemon: None,
        })
    }

    /// Makes the catalog anew.
    pub(super) fn repair(&self, context: &Context) -> Result<RepairReport, OpsError> {
        self.permit_administration(context)?;
        let rebuilt = self.store.rebuild_catalog()?;
        self.recover_state()?;
        let damage = rebuilt.damaged.into_iter().map(|(place, what)| super::Damage {
            place,
            what,
            hits: Vec::new(),
        });
        Ok(RepairReport {
            packs: rebuilt.packs,
            chunks: rebuilt.chunks,
            records: self.state().head().seq,
            damage: damage.collect(),
        })
    }

    pub(super) fn catalog(&self, context: &Context) -> Result<CatalogReport, OpsError> {
        self.permit_administration(context)?;
        let store::CatalogCounts { packs, chunks, bytes } = self.store.catalog_counts()?;
        let records = self.checkpoints.saved();
        Ok(CatalogReport { packs, chunks, records, bytes })
    }

    /// What concerns the store as a whole is for who owns the root of the mount.
    pub(super) fn permit_administration(&self, context: &Context) -> Result<(), OpsError> {
        let access = self.state().root_access();
        super::permit_access(context, access, Action::Administer, "the store")
    }
}

pub(super) fn may_read(context: &Context, access: Access) -> bool {
    governance::may(&context.caller, access, Action::Read) == Permission::Allowed
}

fn summary_of(model: &Model) -> ModelSummary {
    ModelSummary {
        model: model.name.clone(),
        access: model.access,
        versions: model.version_count(),
        latest: model.latest().map(|version| version.number),
        aliases: aliases_of(model),
        bytes: model.bytes(),
        changed: model.changed,
    }
}

fn aliases_of(model: &Model) -> Vec<AliasSummary> {
    let summary = |(name, alias): (_, &crate::registry::model::Alias)| AliasSummary {
        alias: Clone::clone(name),
        version: alias.version,
        since: alias.since,
        by: alias.by.clone(),
    };
    model.aliases.iter().map(summary).collect()
}

pub(super) fn version_summary(model: &Model, version: &Version) -> VersionSummary {
    let pointing = model.aliases.iter().filter(|(_, alias)| alias.version == version.number);
    let mut aliases: Vec<String> = pointing.map(|(name, _)| name.to_string()).collect();
    if model.latest().is_some_and(|latest| latest.number == version.number) {
        aliases.push(LATEST.to_owned());
    }
    VersionSummary {
        version: version.number,
        sealed: version.sealed,
        by: Actor::clone(&version.by),
        message: version.message.to_string(),
        files: version.files,
        bytes: version.bytes,
        stored_bytes: version.stored_bytes,
        digest: version.digest,
        manifest: version.manifest,
        follows: version.follows,
        aliases,
    }
}
