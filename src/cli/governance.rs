//! Reports about approvals, gates and policies as text for people.

use super::render::move_line;
use super::table::{pairs, printable, time};
use crate::format::record::{Outcome, Verdict};
use crate::ops::{BreakGlassReport, PlanReport, PlannedMove, PolicyReport, VettingReport};

/// What would happen, rule by rule.
pub fn plan(report: &PlanReport) -> String {
    if report.moves.is_empty() {
        return "nothing to change: it is so already\n".to_owned();
    }
    let mut text = String::new();
    for planned in &report.moves {
        text += &planned_move(planned);
    }
    match report.policy {
        Some(policy) => text + &format!("policy {policy}\nnothing was moved\n"),
        None => text + "no policy is set\nnothing was moved\n",
    }
}

fn planned_move(planned: &PlannedMove) -> String {
    let PlannedMove { step, verdict, why, next } = planned;
    let word = match (verdict, &step.judgement) {
        (Verdict::Refused, _) => "refused",
        (Verdict::Allowed, None) => "allowed: no gate",
        (Verdict::Allowed, Some(_)) => "allowed",
        (Verdict::Rollback, _) => "allowed: it was let in before",
        (Verdict::BreakGlass, _) => "allowed: the glass is broken",
    };
    let mut text = format!("{}: {word}\n", move_line(step));
    for rule in step.judgement.iter().flat_map(|judgement| &judgement.rules) {
        let outcome = match rule.outcome {
            Outcome::Passed => "pass",
            Outcome::Warned => "warn",
            Outcome::Failed => "FAIL",
        };
        let (found, needs) = (printable(&rule.found), printable(&rule.needs));
        text += &format!("  {outcome}  {}: {found}; needs {needs}\n", rule.rule);
    }
    if step.judgement.is_none() {
        why.iter().for_each(|line| text += &format!("  {}\n", printable(line)));
    }
    let judged = step.judgement.as_ref();
    for approver in judged.iter().flat_map(|judgement| &judgement.approvals) {
        let role = approver.role.as_ref().map(|role| format!(" as {role}")).unwrap_or_default();
        text += &format!("  approved by {}{role}\n", printable(&approver.user));
    }
    next.iter().for_each(|command| text += &format!("  try: {}\n", printable(command)));
    text
}

/// Approvals, checks, mark.
pub fn vetting(report: &VettingReport) -> String {
    let mut text =
        format!("{}/{}  {}\n", report.subject.model, report.subject.version, report.subject.digest);
    if let Some(marked) = &report.mark {
        let (word, user) =
            (format!("{:?}", marked.mark).to_lowercase(), printable(&marked.by.user));
        text +=
            &format!("marked {word} by {user} on {}{}\n", time(marked.at), said(&marked.message));
    }
    for approval in &report.approvals {
        let role = approval.role.as_ref().map(|role| format!(" as {role}")).unwrap_or_default();
        let until = match (approval.expires, approval.expired) {
            (Some(end), true) => format!(", EXPIRED on {}", time(end)),
            (Some(end), false) => format!(", until {}", time(end)),
            (None, _) => String::new(),
        };
        let (user, at) = (printable(&approval.by.user), time(approval.at));
        text += &format!("approved by {user}{role} on {at}{until}{}\n", said(&approval.message));
    }
    for check in &report.checks {
        let (word, user) =
            (if check.passed { "passed" } else { "FAILED" }, printable(&check.by.user));
        let metrics = check.metrics.iter().map(|(name, value)| format!("{name}={value}"));
        let metrics = printable(&metrics.collect::<Vec<_>>().join(" "));
        text += &format!(
            "check {} {word} on {}, run by {user}  {metrics}\n",
            check.name,
            time(check.at)
        );
        check.failures.iter().for_each(|line| text += &format!("  {}\n", printable(line)));
    }
    if report.approvals.is_empty() && report.checks.is_empty() && report.mark.is_none() {
        text += "no approvals, no checks, no mark\n";
    }
    text
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!("  \"{}\"", printable(message)) }
}

/// The policy itself, or who set which one.
pub fn policy(report: &PolicyReport) -> String {
    let (Some(digest), Some(by), Some(since)) = (report.digest, &report.by, report.since) else {
        return "no policy is set: permission bits alone decide\n".to_owned();
    };
    let head = format!("# policy {digest}\n# set by {} on {}\n", by.user, time(since));
    let end = if report.text.ends_with('\n') { "" } else { "\n" };
    // As it is: it was checked, and has to be TOML again.
    head + &report.text + end
}

/// Until when gates can be passed.
pub fn break_glass(report: &BreakGlassReport) -> String {
    let BreakGlassReport { model, alias, reason, until, seq } = report;
    pairs(&[
        ("alias", format!("{model}/{alias}: you may move it past its gates")),
        ("until", time(*until)),
        ("reason", printable(reason)),
        ("record", seq.to_string()),
    ])
}
