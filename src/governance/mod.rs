//! Governance: who may do what, and which version may go where. Pure decisions: facts and rules in,
//! a verdict out.
//!
//! Nothing here reads a file, a clock or the user database; what rules look at is in [`Facts`].
//! Invariant V1: bad rules are refused when a policy is set, with line and column; rules that were
//! accepted give a verdict and a reason for any facts, in bounded time and memory.

mod access;
mod bounds;
mod decide;
mod explain;
mod expression;
mod facts;
mod pattern;
mod policy;
mod powers;

#[cfg(test)]
mod tests;

pub use access::{Action, Caller, Permission, may};
pub use decide::{Decision, Question, decide};
pub use facts::{ApprovalFact, CheckFact, FILES_MAX, Facts, FileFact, VersionFacts};
pub use policy::{EVERYONE, OWNER, POLICY_BYTES_MAX, Policy, PolicyFault};
pub use powers::{Power, permit};
