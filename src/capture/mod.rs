//! Capture: where a version came from, found out without the help of who trained it.
//!
//! Fingerprints of the data, so that versions that were trained on the same can be found.
//! Clock, environment and current directory are handed in: nothing here looks at them.
#![forbid(unsafe_code)]

pub mod data;
