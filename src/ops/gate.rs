//! The choke point: what a policy says to a change, whichever door it came through.
//!
//! Invariant O4: a move is decided in the same step that records it, with the policy, the approvals
//! and the checks of the history up to that record. What was refused is recorded as well.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::{Change, Context, OpsError, Workspace};
use crate::format::ids::ManifestId;
use crate::format::manifest::Manifest;
use crate::format::metadata::ListedFile;
use crate::format::names::{AliasName, At, ModelName, Reference, VersionNumber};
use crate::format::record::{Access, Mark, Move, Op, Refusal, Subject, Verdict};
use crate::governance::{
    self, ApprovalFact, Caller, CheckFact, Decision, Facts, FileFact, Policy, Power, Question,
    VersionFacts,
};
use crate::registry::model::Model;
use crate::registry::state::State;
use crate::registry::vetting::Vetting;
use crate::sys::users;

/// Permission bits of a model that a version makes.
const MODEL_MODE: u32 = 0o755;

/// A version that is about to be: its record is the one that is being decided about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newcomer {
    pub version: VersionNumber,
    pub manifest: ManifestId,
}

/// Somebody who may not do something by the policy.
pub(super) struct Forbidden {
    pub error: OpsError,
    pub refusal: Refusal,
}

impl From<Forbidden> for Change {
    fn from(Forbidden { error, refusal }: Forbidden) -> Self {
        Self::Refuse { refusal, error }
    }
}

impl Workspace {
    /// The policy in force, ready to be asked.
    ///
    /// # Errors
    /// `PolicyUnreadable` for one that a later release made: nothing is done then, rather than
    /// something that it forbids.
    pub(super) fn policy(&self, state: &State) -> Result<Option<Arc<Policy>>, OpsError> {
        let Some(in_force) = state.policy() else { return Ok(None) };
        let mut kept = self.policies.lock();
        if let Some(policy) = kept.as_ref().filter(|policy| policy.digest == in_force.digest) {
            return Ok(Some(Arc::clone(policy)));
        }
        let policy = Policy::parse(&in_force.text).map_err(|faults| {
            let why = faults.first().map(ToString::to_string).unwrap_or_default();
            OpsError::PolicyUnreadable { why }
        })?;
        let policy = Arc::new(policy);
        *kept = Some(Arc::clone(&policy));
        Ok(Some(policy))
    }

    /// Sees to it that the policy lets the caller do something to a model.
    pub(super) fn permit_power(
        &self,
        state: &State,
        context: &Context,
        model: &Model,
        power: &Power,
    ) -> Result<Result<(), Forbidden>, OpsError> {
        self.permit_power_on(state, context, (&model.name, model.access), power)
    }

    /// As [`Workspace::permit_power`], on a model that may be still to be made.
    fn permit_power_on(
        &self,
        state: &State,
        context: &Context,
        (model, access): (&ModelName, Access),
        power: &Power,
    ) -> Result<Result<(), Forbidden>, OpsError> {
        let Some(policy) = self.policy(state)? else { return Ok(Ok(())) };
        let roles = roles_of(&policy, &context.caller, access);
        let Err(able) = governance::permit(&policy, &roles, model, power) else {
            return Ok(Ok(()));
        };
        let name = power.name();
        let who = match able.as_slice() {
            [] => "no role may".to_owned(),
            able => format!("the roles that may: {}", able.join(", ")),
        };
        let why = vec![format!("`{name}` on `{model}` is not allowed to {}; {who}", words(&roles))];
        let user = context.caller.user.clone();
        let action = format!("do `{name}` on `{model}`");
        let next = vec![where_it_says(&policy, &able)];
        let error = OpsError::Gated { user, action, why: why.clone(), next };
        // A record is of models that are there.
        let model = state.model(model).map(|model| model.name.clone());
        let refusal = Refusal { action: name, model, moves: Vec::new(), why };
        Ok(Err(Forbidden { error, refusal }))
    }

    /// Whether there are rules at all.
    pub fn has_policy(&self) -> bool {
        self.state().policy().is_some()
    }

    /// Sees to it that the policy lets the caller change a model's draft.
    ///
    /// # Errors
    /// `Gated`.
    pub fn permit_write(&self, context: &Context, model: &ModelName) -> Result<(), OpsError> {
        self.permit_or_record(context, model, &Power::Write)
    }

    /// As [`Workspace::permit_power`], where nothing is recorded but the refusal. A model that is not
    /// there yet would be the caller's.
    pub(super) fn permit_or_record(
        &self,
        context: &Context,
        name: &ModelName,
        power: &Power,
    ) -> Result<(), OpsError> {
        let permitted = |state: &State| {
            let access = state.model(name).map(|model| model.access);
            let access = access.unwrap_or_else(|| new_access(context));
            self.permit_power_on(state, context, (name, access), power)
        };
        if permitted(&self.state())?.is_ok() {
            return Ok(());
        }
        // Again, in the step that records it.
        self.commit(context, |state, _| {
            Ok(permitted(state)?.err().map_or(Change::Nothing, Change::from))
        })?;
        Ok(())
    }

    /// Decides about moves that are otherwise in order; `op` makes of them what is recorded.
    pub(super) fn judged(
        &self,
        state: &State,
        context: &Context,
        now: Timestamp,
        mut moves: Vec<Move>,
        newcomer: Option<Newcomer>,
        op: impl FnOnce(Vec<Move>) -> Op,
    ) -> Result<Change, OpsError> {
        let mut decisions = Vec::new();
        for step in &mut moves {
            let model = state.model(&step.model).expect("the moves are of models that are there");
            let power = Power::Move(step.alias.clone());
            let forbidden = self.permit_power(state, context, model, &power)?.err();
            let reason = forbidden.as_ref().map(|it| it.refusal.why.join("; "));
            let decided = self.decide(state, context, now, step, newcomer, reason.as_deref())?;
            // Who broke the glass passes what the policy asks of roles as well.
            let passes = decided.as_ref().is_some_and(|decision| !decision.is_refused());
            if let Some(Forbidden { error, mut refusal }) = forbidden.filter(|_| !passes) {
                refusal.model = None;
                refusal.moves = vec![step.clone()];
                return Ok(Change::Refuse { refusal, error });
            }
            step.judgement = decided.as_ref().map(|it| Box::new(it.judgement.clone()));
            decisions.extend(decided.map(|decision| (words_of(step), decision)));
        }
        if !decisions.iter().any(|(_, decision)| decision.is_refused()) {
            return Ok(Change::Record(op(moves)));
        }
        let refused = || decisions.iter().filter(|(_, decision)| decision.is_refused());
        let action = refused().map(|(words, _)| words.clone()).collect::<Vec<_>>().join(", ");
        let why: Vec<String> = refused().flat_map(|(_, decision)| decision.why.clone()).collect();
        let next = match newcomer {
            None => refused().flat_map(|(_, decision)| decision.next.clone()).collect(),
            // What helps a version takes one that is there.
            Some(_) => vec![format!(
                "modelfs snapshot {}    # without the alias; then have it approved, and promote it",
                moves[0].model
            )],
        };
        let user = context.caller.user.clone();
        let error = OpsError::Gated { user, action, why: why.clone(), next };
        let refusal = Refusal { action: "move".to_owned(), model: None, moves, why };
        Ok(Change::Refuse { refusal, error })
    }

    /// What the gates say to one move; `None` where there are none. `forbidden` is why the roles of the
    /// caller do not let them, where they do not.
    pub(super) fn decide(
        &self,
        state: &State,
        context: &Context,
        now: Timestamp,
        step: &Move,
        newcomer: Option<Newcomer>,
        forbidden: Option<&str>,
    ) -> Result<Option<Decision>, OpsError> {
        let Some(policy) = self.policy(state)? else { return Ok(None) };
        let model = state.model(&step.model).expect("the moves are of models that are there");
        let body = model.body()?;
        let manifest = |number: VersionNumber| match newcomer {
            Some(newcomer) if newcomer.version == number => Some(newcomer.manifest),
            _ => body.versions.get(number).map(|version| version.manifest),
        };
        let target = step.to.and_then(manifest);
        let none = Vetting::default();
        let vetting = target.and_then(|id| body.vettings.of(&id)).unwrap_or(&none);
        let roles = roles_of(&policy, &context.caller, model.access);
        // What the policy of then gave lasts no longer than the policy.
        let window = body.vettings.window(&step.alias, context.caller.uid).filter(|it| {
            now < it.until && policy.break_glass(&roles, &step.model, &step.alias).is_ok()
        });
        let question = Question {
            model: &step.model,
            alias: &step.alias,
            to: step.to,
            was_allowed: step.to.is_some_and(|to| body.vettings.was_allowed(&step.alias, to)),
            is_bad: vetting.is_bad(),
            is_failing: vetting.failing().next().is_some(),
            forbidden,
            emergency: window.map(|it| it.reason.as_str()),
        };
        let mut decided = governance::decide::<OpsError>(&policy, question, || {
            let target = target.expect("facts are asked for a version that is there");
            Ok(Facts {
                now,
                model: step.model.clone(),
                alias: step.alias.clone(),
                actor: context.caller.user.clone(),
                roles: roles.iter().map(|role| (*role).to_owned()).collect(),
                version: self.version_facts(&target)?,
                current: match step.from.and_then(manifest) {
                    Some(current) => Some(self.version_facts(&current)?),
                    None => None,
                },
                approvals: approvals_of(vetting, now),
                checks: checks_of(vetting),
                mark: vetting.mark.as_ref().map_or("", |marked| match marked.mark {
                    Mark::Bad => "bad",
                    Mark::Golden => "golden",
                }),
            })
        })?;
        // No rule asked for them on the way back; who reads the record does.
        if let Some(back) = decided.as_mut().filter(|it| it.judgement.verdict == Verdict::Rollback)
        {
            back.judgement.approvals = governance::approvers(&approvals_of(vetting, now));
        }
        Ok(decided)
    }

    /// Reads what rules look at, so that it is at hand when the decision is made.
    pub(super) fn prepare_facts(&self, model: &ModelName, alias: &AliasName, to: &At) {
        let ids: Vec<ManifestId> = {
            let state = self.state();
            if !matches!(self.policy(&state), Ok(Some(policy)) if policy.is_gated(model, alias)) {
                return;
            }
            let Some(model) = state.model(model) else { return };
            let current = model.goal(&At::Alias(alias.clone())).map(|(_, manifest)| manifest);
            let to = model.version(to).ok().flatten().map(|version| version.manifest);
            to.into_iter().chain(current).collect()
        };
        // What cannot be read is told by the decision.
        ids.iter().for_each(|id| drop(self.version_facts(id)));
    }

    /// What a version says of itself, from memory or from its `metadata.json`.
    pub(super) fn version_facts(&self, id: &ManifestId) -> Result<Arc<VersionFacts>, OpsError> {
        self.facts.get_or_insert_with(id, || {
            let mut facts = facts_from(&*self.manifest(id)?);
            self.read_listed(id, |file| add_file(&mut facts, file))?;
            Ok(Arc::new(facts))
        })
    }

    /// The version that a reference means, as approvals, checks and marks name it.
    pub(super) fn subject(
        &self,
        state: &State,
        reference: &Reference,
    ) -> Result<Subject, OpsError> {
        let Reference { model: name, at } = reference;
        let model = state.model(name).ok_or_else(|| OpsError::NoModel { model: name.clone() })?;
        let version = model.version(at)?;
        let version =
            version.ok_or_else(|| OpsError::NoVersion { model: name.clone(), at: at.clone() })?;
        let (number, manifest, digest) = (version.number, version.manifest, version.digest);
        Ok(Subject { model: name.clone(), version: number, manifest, digest })
    }
}

/// The access that a model gets which a version makes.
pub(super) fn new_access(context: &Context) -> Access {
    Access { uid: context.caller.uid, gid: context.caller.gid, mode: MODEL_MODE }
}

/// The roles that a caller has for a model.
pub(super) fn roles_of<'a>(policy: &'a Policy, caller: &Caller, access: Access) -> Vec<&'a str> {
    policy.roles_of(caller, access, &users::group_called)
}

/// What shows who may do it, and who has the roles that may.
pub(super) fn where_it_says(policy: &Policy, able: &[String]) -> String {
    let members = able.iter().map(|role| format!("{role}: {}", policy.members(role)));
    let members = members.collect::<Vec<_>>().join("; ");
    let comment = if members.is_empty() { members } else { format!("    # {members}") };
    format!("modelfs policy show{comment}")
}

fn words(roles: &[&str]) -> String {
    let own: Vec<&str> =
        roles.iter().copied().filter(|role| *role != governance::EVERYONE).collect();
    if own.is_empty() {
        "somebody without a role".to_owned()
    } else {
        format!("the role {}", own.join(", "))
    }
}

fn words_of(step: &Move) -> String {
    let Move { model, alias, to, .. } = step;
    match to {
        Some(to) => format!("move `{model}/{alias}` to {to}"),
        None => format!("remove `{model}/{alias}`"),
    }
}

fn approvals_of(vetting: &Vetting, now: Timestamp) -> Vec<ApprovalFact> {
    let holds = vetting.approvals.iter().filter(|it| it.expires.is_none_or(|end| now < end));
    let fact = holds.map(|approval| ApprovalFact {
        user: approval.by.user.clone(),
        uid: approval.by.uid,
        role: approval.role.clone(),
        message: approval.message.clone(),
        at: approval.at,
        seq: approval.seq,
    });
    fact.collect()
}

fn checks_of(vetting: &Vetting) -> Vec<CheckFact> {
    let fact = vetting.checks.iter().map(|(name, check)| CheckFact {
        name: name.clone(),
        passed: check.passed,
        is_of_suite: check.suite.is_some(),
        at: check.at,
        by: check.by.user.clone(),
        metrics: check.metrics.clone(),
    });
    fact.collect()
}

/// What is not as we write it, as in a version of an earlier release, is left out; the files are to be added.
fn facts_from(manifest: &Manifest) -> VersionFacts {
    let metadata = &manifest.metadata;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let sealed = &metadata["sealed"];
    let declared = governance::DECLARED
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), metadata.get(name)?.clone())));
    VersionFacts {
        version: manifest.version,
        digest: manifest.digest,
        sealed_at: sealed["at"].as_str().and_then(|at| at.parse().ok()).unwrap_or_default(),
        sealed_by: text(&sealed["by"]["user"]),
        message: text(&metadata["message"]),
        declared: declared.collect(),
        files: Vec::new(),
        files_count: 0,
    }
}

/// Adds a file; all are left out where there is one too many.
fn add_file(facts: &mut VersionFacts, file: ListedFile) {
    facts.files_count += 1;
    if (governance::FILES_MAX as u64) < facts.files_count {
        facts.files = Vec::new();
        return;
    }
    let ListedFile { path, size, format, sha256, .. } = file;
    facts.files.push(FileFact { path, size: size.unwrap_or(0), format, sha256 });
}
