//! Making, removing and handing over models.

use super::{Change, Context, OpsError, Workspace, permit, permit_access};
use crate::format::names::ModelName;
use crate::format::record::{Access, Op};
use crate::governance::{Action, Power};

/// Permission bits that a directory can have.
const MODE_BITS: u32 = 0o7777;

impl Workspace {
    /// Makes a model with an empty draft.
    ///
    /// # Errors
    /// `ModelExists`; `Denied` for who may not write the root.
    pub fn create_model(
        &self,
        context: &Context,
        name: &ModelName,
        access: Access,
    ) -> Result<(), OpsError> {
        let access = Access { mode: access.mode & MODE_BITS, ..access };
        self.commit(context, |state, _| {
            permit_access(context, state.root_access(), Action::Write, "the store")?;
            if state.model(name).is_some() {
                return Err(OpsError::ModelExists { model: name.clone() });
            }
            Ok(Change::Record(Op::CreateModel { model: name.clone(), access }))
        })?;
        self.adopt_draft(name, access)
    }

    /// Removes a model that never had a version and whose draft is empty.
    ///
    /// # Errors
    /// `ModelInUse`, `NoModel`, `Denied`.
    pub fn remove_model(&self, context: &Context, name: &ModelName) -> Result<(), OpsError> {
        let in_use = |why| OpsError::ModelInUse { model: name.clone(), why };
        if self.state().model(name).is_none() {
            return Err(OpsError::NoModel { model: name.clone() });
        }
        let draft = self.draft(name)?;
        // Frozen, so that nothing is put into it between the look and the record.
        let frozen = draft
            .freeze(std::path::Path::new(""))
            .map_err(|_| in_use("files in its draft are in use"))?;
        let empty = draft.is_empty().map_err(|e| OpsError::file("list", draft.directory(), e))?;
        self.commit(context, |state, _| {
            permit_access(context, state.root_access(), Action::Write, "the store")?;
            let model = state.model(name);
            let model = model.ok_or_else(|| OpsError::NoModel { model: name.clone() })?;
            if model.had_versions() {
                return Err(in_use("it has versions, and those are kept"));
            }
            if !empty {
                return Err(in_use("its draft is not empty"));
            }
            Ok(Change::Record(Op::RemoveModel { model: name.clone() }))
        })?;
        self.forget_draft(name);
        // Only now: who is still in the removed draft must not put anything into it.
        drop(frozen);
        Ok(())
    }

    /// Sets owner, group and mode of a model and its draft, or of the root.
    ///
    /// # Errors
    /// `NoModel`, `Denied`.
    pub fn set_access(
        &self,
        context: &Context,
        name: Option<&ModelName>,
        access: Access,
    ) -> Result<(), OpsError> {
        let access = Access { mode: access.mode & MODE_BITS, ..access };
        self.commit(context, |state, _| {
            let before = match name {
                None => {
                    permit_access(context, state.root_access(), Action::Own, "the store")?;
                    state.root_access()
                }
                Some(name) => {
                    permit(state, context, name, Action::Own)?;
                    let model = state.model(name).expect("permitted, so it is there");
                    if let Err(forbidden) =
                        self.permit_power(state, context, model, &Power::Access)?
                    {
                        return Ok(forbidden.into());
                    }
                    model.access
                }
            };
            let op = Op::SetAccess { model: name.cloned(), access };
            Ok((before != access).then_some(op).into())
        })?;
        match name {
            None => Ok(()),
            Some(name) => self.adopt_draft(name, access),
        }
    }
}
