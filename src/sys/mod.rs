//! The operating system: files that are written durably, locks, descriptors, identities, mounts.
//!
//! Every `unsafe` and every fsync of the project is below this module; nothing here knows of models.

pub mod at;
pub mod child;
pub mod foreground;
pub mod identity;
pub mod io;
pub mod keeper;
pub mod lease;
pub mod lock;
pub mod mount;
pub mod process;
pub mod socket;
pub mod users;
