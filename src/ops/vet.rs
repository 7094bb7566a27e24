//! What people say of a version: approvals, marks.
//!
//! Each is bound to what the version is made of, so that it counts for nothing else.

use jiff::Timestamp;

use super::gate::roles_of;
use super::{
    ApproveOptions, Change, Context, MarkOptions, OpsError, RevokeOptions, VettingReport,
    Workspace, permit,
};
use crate::format::names::{Label, Reference};
use crate::format::record::{Approval, Marking, Op, Subject};
use crate::governance::{self, Action, Power};
use crate::ops::report::{ApprovalSummary, CheckSummary, MarkSummary};
use crate::registry::model::Model;
use crate::registry::state::State;
use crate::registry::vetting::Vetting;

/// Longest message of an approval or a mark, in bytes.
const WORDS_BYTES_MAX: usize = 4 << 10;

impl Workspace {
    /// Approves a version, as the one who asks; an earlier approval of the same user is replaced.
    ///
    /// # Errors
    /// `NoRole` and `ManyRoles` for a role that cannot be told, `Gated` where the policy says no.
    pub(super) fn approve(
        &self,
        context: &Context,
        options: &ApproveOptions,
    ) -> Result<VettingReport, OpsError> {
        let ApproveOptions { reference, role, message, expires_s } = options;
        check_words("the message", message)?;
        let line = self.commit(context, |state, now| {
            let subject = self.subject_for(state, context, reference)?;
            let model = state.model(&subject.model).expect("it has the version");
            if let Err(forbidden) = self.permit_power(state, context, model, &Power::Approve)? {
                return Ok(forbidden.into());
            }
            let role = self.role_of(state, context, &subject, role.as_ref())?;
            let message = message.clone();
            let expires = expires_s.map(|seconds| later(now, seconds)).transpose()?;
            let approval = Approval { subject, role, message, expires };
            Ok(Change::Record(Op::Approve(Box::new(approval))))
        })?;
        let Op::Approve(approval) = line.expect("an approval is always new").record.op else {
            unreachable!("the record just made");
        };
        self.vetting_of(&self.state(), approval.subject)
    }

    /// Takes an approval back: one's own, or, for who administers the store, that of a user.
    pub(super) fn revoke(
        &self,
        context: &Context,
        options: &RevokeOptions,
    ) -> Result<VettingReport, OpsError> {
        let RevokeOptions { reference, user, message } = options;
        check_words("the message", message)?;
        let line = self.commit(context, |state, _| {
            let subject = self.subject_for(state, context, reference)?;
            let model = state.model(&subject.model).expect("it has the version");
            let wanted = user.as_deref().unwrap_or(&context.caller.user);
            let body = model.body()?;
            let approvals = body.vettings.of(&subject.manifest).map(|it| it.approvals.as_slice());
            let found = approvals
                .unwrap_or_default()
                .iter()
                .find(|it| it.by.user == wanted || it.by.uid.to_string() == wanted);
            let Some(found) = found else {
                let Subject { model, version, .. } = subject;
                return Err(OpsError::NoApproval { model, version, user: wanted.to_owned() });
            };
            if found.by.uid != context.caller.uid {
                self.permit_administration_of(state, context)?;
            }
            let (uid, user, message) = (found.by.uid, found.by.user.clone(), message.clone());
            Ok(Change::Record(Op::Revoke { subject, uid, user, message }))
        })?;
        let Op::Revoke { subject, .. } = line.expect("it was found").record.op else {
            unreachable!("the record just made");
        };
        self.vetting_of(&self.state(), subject)
    }

    /// Marks a version bad or golden, or takes its mark away.
    pub(super) fn mark(
        &self,
        context: &Context,
        options: &MarkOptions,
    ) -> Result<VettingReport, OpsError> {
        let MarkOptions { reference, mark, message } = options;
        check_words("the message", message)?;
        self.commit(context, |state, _| {
            let subject = self.subject_for(state, context, reference)?;
            permit(state, context, &subject.model, Action::Write)?;
            let model = state.model(&subject.model).expect("it has the version");
            if let Err(forbidden) = self.permit_power(state, context, model, &Power::Mark)? {
                return Ok(forbidden.into());
            }
            let body = model.body()?;
            let marked = body.vettings.of(&subject.manifest).and_then(|it| it.mark.as_ref());
            let same = marked.map(|marked| (marked.mark, marked.message.as_str()));
            if same == mark.map(|mark| (mark, message.as_str())) {
                return Ok(Change::Nothing);
            }
            let (mark, message) = (*mark, message.clone());
            Ok(Change::Record(Op::Mark(Box::new(Marking { subject, mark, message }))))
        })?;
        self.vetting(context, reference)
    }

    /// What was said of a version.
    pub(super) fn vetting(
        &self,
        context: &Context,
        reference: &Reference,
    ) -> Result<VettingReport, OpsError> {
        let state = self.state();
        let subject = self.subject_for(&state, context, reference)?;
        self.vetting_of(&state, subject)
    }

    /// The version that is meant, for somebody who may read its model.
    fn subject_for(
        &self,
        state: &State,
        context: &Context,
        reference: &Reference,
    ) -> Result<Subject, OpsError> {
        permit(state, context, &reference.model, Action::Read)?;
        self.subject(state, reference)
    }

    fn vetting_of(&self, state: &State, subject: Subject) -> Result<VettingReport, OpsError> {
        let none = Vetting::default();
        let body = state.model(&subject.model).map(Model::body).transpose()?;
        let vetting = body.as_ref().and_then(|body| body.vettings.of(&subject.manifest));
        let Vetting { approvals, checks, mark } = vetting.unwrap_or(&none);
        let now = (self.clock)();
        let approvals = approvals.iter().map(|approval| ApprovalSummary {
            by: approval.by.clone(),
            role: approval.role.clone(),
            message: approval.message.clone(),
            at: approval.at,
            expires: approval.expires,
            expired: approval.expires.is_some_and(|end| end <= now),
            seq: approval.seq,
        });
        let checks = checks.iter().map(|(name, check)| CheckSummary {
            name: name.clone(),
            passed: check.passed,
            by: check.by.clone(),
            at: check.at,
            metrics: check.metrics.clone(),
            failures: check.failures.clone(),
            suite: check.suite,
            seq: check.seq,
        });
        let mark = mark.as_ref().map(|marked| MarkSummary {
            mark: marked.mark,
            by: marked.by.clone(),
            at: marked.at,
            message: marked.message.clone(),
        });
        let (approvals, checks) = (approvals.collect(), checks.collect());
        Ok(VettingReport { subject, approvals, checks, mark })
    }

    /// In which role somebody approves: the one that they name, or the only one that they have.
    fn role_of(
        &self,
        state: &State,
        context: &Context,
        subject: &Subject,
        named: Option<&Label>,
    ) -> Result<Option<Label>, OpsError> {
        let user = context.caller.user.clone();
        let policy = self.policy(state)?;
        let model = state.model(&subject.model).expect("it has the version");
        let roles = policy.as_ref().map(|it| roles_of(it, &context.caller, model.access));
        let roles = roles.unwrap_or_default();
        if let Some(named) = named {
            if roles.contains(&named.as_str()) {
                return Ok(Some(named.clone()));
            }
            let role = named.to_string();
            let members =
                policy.map_or_else(|| "no policy is set".to_owned(), |it| it.members(&role));
            return Err(OpsError::NoRole { user, role, members });
        }
        let given: Vec<&str> = roles
            .into_iter()
            .filter(|role| ![governance::OWNER, governance::EVERYONE].contains(role))
            .collect();
        match given[..] {
            [] => Ok(None),
            [only] => Ok(only.parse().ok()),
            _ => {
                let roles = given.into_iter().map(str::to_owned).collect();
                Err(OpsError::ManyRoles { user, roles })
            }
        }
    }
}

fn later(now: Timestamp, seconds: i64) -> Result<Timestamp, OpsError> {
    now.checked_add(jiff::SignedDuration::from_secs(seconds))
        .map_err(|error| OpsError::Option { what: "--expires", why: error.to_string() })
}

/// Refuses words that are too long for the history.
pub(super) fn check_words(what: &'static str, words: &str) -> Result<(), OpsError> {
    if WORDS_BYTES_MAX < words.len() {
        let why = format!("{} bytes, at most {WORDS_BYTES_MAX}", words.len());
        return Err(OpsError::Option { what, why });
    }
    Ok(())
}
