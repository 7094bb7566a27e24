//! What the gates of an alias said to a move, as it is kept.

use serde::{Deserialize, Serialize};

use crate::format::names::Label;

/// What was decided, the mildest first.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing spoke against it.
    #[default]
    Allowed,
    /// Back to what was allowed there before, which the gate permits without its rules.
    Rollback,
    /// Past the rules, in an emergency that somebody declared.
    BreakGlass,
    Refused,
}

/// What became of a rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Passed,
    /// Not fulfilled, and only warned of.
    Warned,
    Failed,
}

/// One rule, applied.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RuleResult {
    pub rule: Label,
    pub outcome: Outcome,
    /// The value that was looked at, or why there is none.
    pub found: String,
    /// What the rule asks for.
    pub needs: String,
}

/// An approval that the version had.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Approver {
    pub user: String,
    pub role: Option<Label>,
    /// The record of the approval.
    pub seq: u64,
}

/// Everything that decided about one move.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Judgement {
    pub verdict: Verdict,
    pub rules: Vec<RuleResult>,
    /// At most as many as a record has room for, the newest.
    pub approvals: Vec<Approver>,
    /// The reason that was given for breaking the glass.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}
