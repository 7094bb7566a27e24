//! The verdict about one move of an alias.

use super::bounds;
use super::explain::{self, Explanation};
use super::facts::{ApprovalFact, Facts};
use super::policy::{EVERYONE, Gate, Policy, Rule};
use super::powers::{Power, permit};
use crate::format::names::{AliasName, Label, ModelName, VersionNumber};
use crate::format::record::{Approver, Judgement, Outcome, RuleResult, Verdict};

/// Approvals that a record names.
const APPROVERS_MAX: usize = 32;
/// The rule that every gate has: a version that is marked bad does not pass.
const NOT_BAD: &str = "not-marked-bad";
/// The rule that a gate has unless it says otherwise: of no check the last result is a failure.
const NOT_FAILING: &str = "no-failing-check";
/// What is asked of a removal.
const KEEP: &str = "alias-stays";
/// What is asked of who moves an alias with gates, where the policy says who may.
const ROLE: &str = "role-may-move";

/// What is known about a move before anybody looks at the version.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub model: &'a ModelName,
    pub alias: &'a AliasName,
    /// `None` for a removal.
    pub to: Option<VersionNumber>,
    /// The version was in the alias before, let in by the rules then, or before there were any.
    pub was_allowed: bool,
    pub is_bad: bool,
    /// The last result of some check is a failure.
    pub is_failing: bool,
    /// Why the roles of the caller do not let them move it, where they do not.
    pub forbidden: Option<&'a str>,
    /// The reason for which the caller may pass the gates now.
    pub emergency: Option<&'a str>,
}

/// What was decided, and how to say it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    pub judgement: Judgement,
    /// What stands against it, a sentence each.
    pub why: Vec<String>,
    /// Commands that would help, the first one first.
    pub next: Vec<String>,
}

impl Decision {
    pub fn is_refused(&self) -> bool {
        self.judgement.verdict == Verdict::Refused
    }
}

/// Decides about a move; `None` where the alias has no gate. `facts` are asked for only if needed.
///
/// # Errors
/// Those of `facts`.
pub fn decide<E>(
    policy: &Policy,
    question: Question<'_>,
    facts: impl FnOnce() -> Result<Facts, E>,
) -> Result<Option<Decision>, E> {
    let gates: Vec<&Gate> = policy.gates_of(question.model, question.alias).collect();
    if gates.is_empty() {
        return Ok(None);
    }
    let Some(to) = question.to else { return Ok(Some(removal(&gates, question))) };
    let is_way_back = question.forbidden.is_none()
        && question.was_allowed
        && gates.iter().all(|gate| gate.rollback_to_allowed);
    let is_failing = question.is_failing && !gates.iter().all(|gate| gate.may_fail_checks);
    if is_way_back && !question.is_bad && !is_failing {
        return Ok(Some(decision(Verdict::Rollback)));
    }
    let facts = facts()?;
    let rules = || gates.iter().flat_map(|gate| &gate.rules);
    let context = facts.context(&|name| rules().any(|rule| rule.expression.mentions(name)));
    let mut decided = decision(Verdict::Allowed);
    decided.note_role(question);
    let version = format!("{}/{to}", question.model);
    if question.is_bad {
        let (found, needs) =
            (format!("`{version}` is marked bad"), "a version that is not".to_owned());
        decided.note(NOT_BAD, false, false, Explanation { found, needs }, "");
        decided.next.push(format!("modelfs mark {version} none -m 'why it is good after all'"));
    }
    if is_failing {
        decided.note_failing(&facts, &version);
    }
    for rule in rules() {
        let (fulfilled, explanation) = match bounds::check_for(&rule.expression.tree, &facts) {
            Err(why) => (false, Explanation { found: why, needs: rule.expression.source.clone() }),
            Ok(()) if rule.expression.mentions("files") && !facts.has_all_files() => {
                let found =
                    format!("{} files, more than a rule can look at", facts.version.files_count);
                (false, Explanation { found, needs: rule.expression.source.clone() })
            }
            Ok(()) => explain::apply(&rule.expression, &context),
        };
        decided.note(rule.name.as_str(), fulfilled, rule.is_warning, explanation, &rule.message);
        if !fulfilled && !rule.is_warning {
            decided.advise(policy, rule, question.model, &version);
        }
    }
    decided.judgement.approvals = approvers(&facts.approvals);
    decided.close(question);
    if decided.is_refused() {
        decided.next.push(format!("modelfs promote --plan {version} {}", question.alias));
    }
    Ok(Some(decided))
}

fn decision(verdict: Verdict) -> Decision {
    let (rules, approvals, reason) = (Vec::new(), Vec::new(), String::new());
    let judgement = Judgement { verdict, rules, approvals, reason };
    Decision { judgement, why: Vec::new(), next: Vec::new() }
}

/// A gated alias stays, unless each of its gates says otherwise.
fn removal(gates: &[&Gate], question: Question<'_>) -> Decision {
    let mut decided = decision(Verdict::Allowed);
    decided.note_role(question);
    if !gates.iter().all(|gate| gate.may_remove) {
        let found = format!("`{}/{}` would be gone", question.model, question.alias);
        let needs = "a version behind it".to_owned();
        decided.note(
            KEEP,
            false,
            false,
            Explanation { found, needs },
            "a gated alias is moved, not removed",
        );
        decided.next.push(format!("modelfs rollback {} {}", question.model, question.alias));
    }
    decided.close(question);
    decided
}

/// Who approved, as far as a record has room.
pub fn approvers(approvals: &[ApprovalFact]) -> Vec<Approver> {
    let newest = approvals.iter().rev().take(APPROVERS_MAX);
    let mut shown: Vec<Approver> = newest
        .map(|approval| Approver {
            user: approval.user.clone(),
            role: approval.role.clone(),
            seq: approval.seq,
        })
        .collect();
    shown.reverse();
    shown
}

impl Decision {
    fn note(&mut self, rule: &str, fulfilled: bool, warns: bool, said: Explanation, message: &str) {
        let outcome = match (fulfilled, warns) {
            (true, _) => Outcome::Passed,
            (false, true) => Outcome::Warned,
            (false, false) => Outcome::Failed,
        };
        let Explanation { found, needs } = said;
        if outcome != Outcome::Passed {
            let word = if warns { "warning, rule" } else { "rule" };
            let message = if message.is_empty() { String::new() } else { format!(" ({message})") };
            self.why.push(format!("{word} `{rule}`{message}: {found}; it needs {needs}"));
        }
        let rule: Label = rule.parse().expect("ours, or checked when the policy was parsed");
        self.judgement.rules.push(RuleResult { rule, outcome, found, needs });
    }

    fn note_role(&mut self, question: Question<'_>) {
        let Some(found) = question.forbidden else { return };
        let (found, needs) = (found.to_owned(), "a role that may".to_owned());
        self.note(ROLE, false, false, Explanation { found, needs }, "");
        self.next.push("modelfs policy show".to_owned());
    }

    fn note_failing(&mut self, facts: &Facts, version: &str) {
        let failed = || facts.checks.iter().filter(|check| !check.passed);
        let names: Vec<String> = failed().map(|check| format!("`{}`", check.name)).collect();
        let (found, needs) =
            (format!("failed: {}", names.join(", ")), "checks that pass".to_owned());
        self.note(NOT_FAILING, false, false, Explanation { found, needs }, "");
        if failed().any(|check| check.is_of_suite) {
            self.next.push(format!("modelfs check {version} --suite FILE"));
        }
        for check in failed().filter(|check| !check.is_of_suite) {
            let name = &check.name;
            self.next.push(format!("modelfs check record {version} {name} --result FILE"));
        }
    }

    /// What would make the rule pass, as far as its text tells.
    fn advise(&mut self, policy: &Policy, rule: &Rule, model: &ModelName, version: &str) {
        let texts = rule.expression.texts();
        if rule.expression.mentions("approvals") {
            let named: Vec<&str> =
                policy.role_names().filter(|role| texts.contains(*role)).collect();
            for role in &named {
                let may = permit(policy, &[role, EVERYONE], model, &Power::Approve).is_ok();
                self.next.push(if may {
                    let members = policy.members(role);
                    format!("modelfs approve {version} --as {role}    # as one of: {members}")
                } else {
                    format!("modelfs policy show    # no `[[allow]]` lets {role} approve `{model}`")
                });
            }
            if named.is_empty() {
                self.next.push(format!("modelfs approve {version}    # as somebody who may"));
            }
        }
        if rule.expression.mentions("checks") {
            self.next.push(format!("modelfs check {version} --suite FILE"));
        }
    }

    fn close(&mut self, question: Question<'_>) {
        let failed = self.judgement.rules.iter().any(|rule| rule.outcome == Outcome::Failed);
        self.judgement.verdict = match (failed, question.emergency) {
            (false, _) => Verdict::Allowed,
            (true, Some(reason)) => {
                reason.clone_into(&mut self.judgement.reason);
                Verdict::BreakGlass
            }
            (true, None) => Verdict::Refused,
        };
    }
}
