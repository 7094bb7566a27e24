//! modelfs: versions of machine-learning models as ordinary directories, over a deduplicated,
//! compressed, content-addressed store.
//!
//! Each module is a layer; imports go down only (README, "Architecture").

pub mod capture;
pub mod chunker;
pub mod cli;
pub mod daemon;
pub mod format;
pub mod fs;
pub mod fuse;
pub mod governance;
pub mod inspect;
pub mod ops;
pub mod present;
pub mod registry;
pub mod store;
pub mod sys;
