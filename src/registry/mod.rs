//! The registry: models, versions and aliases, as the sum of the history's records.
//!
//! Pure: a state and a record give the next state. Nothing here reads a file or a clock.
//! Invariant G1: a state is only ever changed by `apply`, with a record that is in the history.

pub mod index;
pub mod model;
pub mod state;
pub mod vetting;
