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
mod fault;
mod loops;
mod measurement;
mod pattern;
mod policy;
mod powers;
mod suite;

#[cfg(test)]
mod tests;

pub use access::{Action, Caller, Permission, by_bits, may};
pub use decide::{Decision, Question, approvers, decide};
pub use facts::{ApprovalFact, CheckFact, DECLARED, FILES_MAX, Facts, FileFact, VersionFacts};
pub use fault::{Fault, Faults};
pub use measurement::{MEASUREMENT_BYTES_MAX, Measurement};
pub use policy::{EVERYONE, OWNER, POLICY_BYTES_MAX, Policy};
pub use powers::{Power, permit};
pub use suite::{Check, Limits, SUITE_BYTES_MAX, Suite, VARIABLE_PREFIX};
