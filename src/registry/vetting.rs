//! What people and checks said of a version, and who may pass an alias's gates for a while.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::format::ids::{ManifestId, PolicyDigest};
use crate::format::names::{AliasName, Label, VersionNumber};
use crate::format::record::{
    Actor, Approval, BreakGlass, CheckResult, Mark, Marking, Move, Record, Verdict,
};

/// The rules that are in force.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PolicyInForce {
    pub digest: PolicyDigest,
    pub text: String,
    pub since: Timestamp,
    pub by: Actor,
    pub seq: u64,
}

/// An approval that was not taken back; it may have expired.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Approved {
    pub by: Actor,
    pub role: Option<Label>,
    pub message: String,
    pub at: Timestamp,
    pub expires: Option<Timestamp>,
    pub seq: u64,
}

/// The last result of a check.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Checked {
    pub passed: bool,
    pub by: Actor,
    pub at: Timestamp,
    pub metrics: BTreeMap<String, Value>,
    pub failures: Vec<String>,
    pub suite: Option<crate::format::ids::BlobDigest>,
    pub seq: u64,
}

/// What a version is marked as.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Marked {
    pub mark: Mark,
    pub by: Actor,
    pub at: Timestamp,
    pub message: String,
}

/// All that was said of one version.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Vetting {
    /// One a user, oldest first: a later one of the same user takes the place of the earlier.
    pub approvals: Vec<Approved>,
    pub checks: BTreeMap<Label, Checked>,
    pub mark: Option<Marked>,
}

impl Vetting {
    /// The checks whose last result is a failure.
    pub fn failing(&self) -> impl Iterator<Item = &Label> {
        self.checks.iter().filter(|(_, check)| !check.passed).map(|(name, _)| name)
    }

    /// Whether the version is marked bad.
    pub fn is_bad(&self) -> bool {
        self.mark.as_ref().is_some_and(|marked| marked.mark == Mark::Bad)
    }
}

/// Leave to move an alias past its gates.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Window {
    pub user: String,
    pub reason: String,
    pub until: Timestamp,
    pub seq: u64,
}

/// The vetting of a model's versions and aliases.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Vettings {
    /// By what a version is made of, not by its number.
    of_version: BTreeMap<ManifestId, Vetting>,
    /// Versions that were let into an alias, by the rules of its gates or for want of a gate.
    allowed: BTreeMap<AliasName, BTreeSet<VersionNumber>>,
    /// By alias and user; the newest of each.
    windows: BTreeMap<(AliasName, u32), Window>,
}

impl Vettings {
    /// What was said of a version.
    pub fn of(&self, manifest: &ManifestId) -> Option<&Vetting> {
        self.of_version.get(manifest)
    }

    /// Whether this version was let into `alias` at some time, without an emergency.
    pub fn was_allowed(&self, alias: &AliasName, version: VersionNumber) -> bool {
        self.allowed.get(alias).is_some_and(|versions| versions.contains(&version))
    }

    /// The window that a user opened last; it may have closed.
    pub fn window(&self, alias: &AliasName, uid: u32) -> Option<&Window> {
        self.windows.get(&(alias.clone(), uid))
    }

    pub(super) fn approve(&mut self, approval: &Approval, record: &Record) {
        let vetting = self.of_version.entry(approval.subject.manifest).or_default();
        vetting.approvals.retain(|earlier| earlier.by.uid != record.actor.uid);
        vetting.approvals.push(Approved {
            by: record.actor.clone(),
            role: approval.role.clone(),
            message: approval.message.clone(),
            at: record.time,
            expires: approval.expires,
            seq: record.seq,
        });
    }

    pub(super) fn revoke(&mut self, manifest: &ManifestId, uid: u32) {
        if let Some(vetting) = self.of_version.get_mut(manifest) {
            vetting.approvals.retain(|approval| approval.by.uid != uid);
        }
    }

    pub(super) fn check(&mut self, check: &CheckResult, record: &Record) {
        let vetting = self.of_version.entry(check.subject.manifest).or_default();
        let checked = Checked {
            passed: check.passed,
            by: record.actor.clone(),
            at: record.time,
            metrics: check.metrics.clone(),
            failures: check.failures.clone(),
            suite: check.suite,
            seq: record.seq,
        };
        vetting.checks.insert(check.name.clone(), checked);
    }

    pub(super) fn mark(&mut self, marking: &Marking, record: &Record) {
        let vetting = self.of_version.entry(marking.subject.manifest).or_default();
        vetting.mark = marking.mark.map(|mark| Marked {
            mark,
            by: record.actor.clone(),
            at: record.time,
            message: marking.message.clone(),
        });
    }

    pub(super) fn open_window(&mut self, window: &BreakGlass, record: &Record) {
        let key = (window.alias.clone(), record.actor.uid);
        let (user, reason) = (record.actor.user.clone(), window.reason.clone());
        self.windows.insert(key, Window { user, reason, until: window.until, seq: record.seq });
    }

    /// Remembers what the gates let in by their rules, or came there before there was a gate; an emergency
    /// is no precedent.
    pub(super) fn note_move(&mut self, step: &Move) {
        let Some(to) = step.to else { return };
        if step.judgement.as_ref().is_none_or(|judged| judged.verdict == Verdict::Allowed) {
            self.allowed.entry(step.alias.clone()).or_default().insert(to);
        }
    }
}
