//! Capture: what can be known of how a model was made, without the help of whoever made it.
//!
//! The state of a Git working tree, the machine, packages, files that trainers leave, and fingerprints of
//! data. Everything here is read, nothing is run, and all that is read has a limit. What cannot be
//! understood becomes a sentence among the notes: no version is lost for the sake of its metadata.
//! Clock, environment and current directory are handed in: nothing here looks at them.
#![forbid(unsafe_code)]

mod cards;
pub mod command;
pub mod data;
pub mod document;
mod dvc;
mod files;
mod found;
pub mod git;
pub mod machine;
mod mlflow;
pub mod python;
pub mod record;
pub mod redact;
mod trainers;
pub mod url;
pub mod variables;

pub use files::Finder;
pub use found::Found;
