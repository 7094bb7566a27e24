//! Setting and showing the policy, and passing it in an emergency.

use super::vet::check_words;
use super::{
    BreakGlassOptions, BreakGlassReport, Change, Context, OpsError, PolicyReport, Workspace, permit,
};
use crate::format::record::{BreakGlass, Op, Refusal};
use crate::governance::{Action, Policy};
use crate::registry::state::State;

use super::gate::{roles_of, where_it_says};

impl Workspace {
    /// Puts a policy in force, after it was found to be one.
    ///
    /// # Errors
    /// `BadPolicy` with the place of each mistake: the one in force stays.
    pub(super) fn set_policy(
        &self,
        context: &Context,
        text: &str,
    ) -> Result<PolicyReport, OpsError> {
        let policy = check_policy(text)?;
        self.commit(context, |state, _| {
            self.permit_administration_of(state, context)?;
            let same = match state.policy() {
                None => text.is_empty(),
                Some(in_force) => in_force.digest == policy.digest,
            };
            let op = Op::SetPolicy { digest: policy.digest, text: text.to_owned() };
            Ok((!same).then_some(op).into())
        })?;
        Ok(self.policy_report())
    }

    /// The policy in force, for whoever may see the store.
    pub(super) fn show_policy(&self, context: &Context) -> Result<PolicyReport, OpsError> {
        let access = self.state().root_access();
        super::permit_access(context, access, Action::Read, "the store")?;
        Ok(self.policy_report())
    }

    fn policy_report(&self) -> PolicyReport {
        let state = self.state();
        let in_force = state.policy();
        PolicyReport {
            text: in_force.map(|policy| policy.text.clone()).unwrap_or_default(),
            digest: in_force.map(|policy| policy.digest),
            since: in_force.map(|policy| policy.since),
            by: in_force.map(|policy| policy.by.clone()),
            seq: in_force.map(|policy| policy.seq),
        }
    }

    /// The text of the policy in force; empty without one.
    pub fn policy_text(&self) -> String {
        self.state().policy().map(|policy| policy.text.clone()).unwrap_or_default()
    }

    /// Lets the caller move an alias past its gates for a while, for a reason that everybody can read.
    pub(super) fn break_glass(
        &self,
        context: &Context,
        options: &BreakGlassOptions,
    ) -> Result<BreakGlassReport, OpsError> {
        let BreakGlassOptions { model: name, alias, reason } = options;
        check_words("the reason", reason)?;
        if reason.trim().is_empty() {
            let why = "it is empty: say what the emergency is".to_owned();
            return Err(OpsError::Option { what: "the reason", why });
        }
        let line = self.commit(context, |state, now| {
            permit(state, context, name, Action::Write)?;
            let model = state.model(name).expect("permitted, so it is there");
            let Some(policy) = self.policy(state)?.filter(|it| it.is_gated(name, alias)) else {
                let why = format!("`{name}/{alias}` has no gate: it can be moved as it is");
                return Err(OpsError::Option { what: "the alias", why });
            };
            let roles = roles_of(&policy, &context.caller, model.access);
            let until = match policy.break_glass(&roles, name, alias) {
                Ok(duration) => now.checked_add(duration).map_err(|error| OpsError::Option {
                    what: "the time in the policy",
                    why: error.to_string(),
                })?,
                Err(able) => return Ok(forbidden(context, options, &policy, &able)),
            };
            let (model, alias, reason) = (name.clone(), alias.clone(), reason.clone());
            Ok(Change::Record(Op::BreakGlass(Box::new(BreakGlass { model, alias, reason, until }))))
        })?;
        let line = line.expect("a window is always new").record;
        let Op::BreakGlass(window) = line.op else { unreachable!("the record just made") };
        let BreakGlass { model, alias, reason, until } = *window;
        Ok(BreakGlassReport { model, alias, reason, until, seq: line.seq })
    }

    /// What concerns the store as a whole, in a step that changes it.
    pub(super) fn permit_administration_of(
        &self,
        state: &State,
        context: &Context,
    ) -> Result<(), OpsError> {
        super::permit_access(context, state.root_access(), Action::Administer, "the store")
    }
}

fn forbidden(
    context: &Context,
    options: &BreakGlassOptions,
    policy: &Policy,
    able: &[String],
) -> Change {
    let BreakGlassOptions { model, alias, .. } = options;
    let who = match able {
        [] => "the gates of this alias have no `break_glass`".to_owned(),
        able => format!("the roles that may: {}", able.join(", ")),
    };
    let why = vec![who];
    let (user, action) =
        (context.caller.user.clone(), format!("break the glass of `{model}/{alias}`"));
    let next = vec![where_it_says(policy, able)];
    let error = OpsError::Gated { user, action, why: why.clone(), next };
    let action = format!("break-glass:{alias}");
    let refusal = Refusal { action, model: Some(model.clone()), moves: Vec::new(), why };
    Change::Refuse { refusal, error }
}

/// Parses and checks the text of a policy.
///
/// # Errors
/// `BadPolicy` with line, column and reason of each mistake.
pub fn check_policy(text: &str) -> Result<Policy, OpsError> {
    Policy::parse(text).map_err(|faults| OpsError::BadPolicy {
        faults: faults.iter().map(ToString::to_string).collect(),
    })
}
