//! The registry: models, versions and aliases, as the sum of the history's records.
//!
//! Pure: a state and a record give the next state. Nothing here reads a clock, or a file but for the
//! checkpoint, through the store.
//! Invariant G1: a state is only ever changed by `apply`, with a record that is in the history.
//! Invariant G2: a state that was read from a checkpoint equals the one that the history makes.

pub mod data;
pub mod difference;
pub mod index;
pub mod model;
pub mod shelf;
pub mod state;
#[cfg(test)]
mod tests;
pub mod vetting;
