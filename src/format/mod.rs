//! Bytes and types: everything that is stored or sent has its one definition here.
//!
//! Pure: no file is opened, no clock is read. What comes in is checked, what goes out is canonical.
//! FORMAT.md beside this file describes every byte.
#![doc = include_str!("FORMAT.md")]

pub mod canonical;
pub mod checkpoint;
pub mod codec;
pub mod config;
pub mod duration;
mod frame;
pub mod hot;
pub mod ids;
pub mod manifest;
pub mod metadata;
pub mod names;
pub mod pack;
pub mod path;
mod planes;
pub mod record;
pub mod schema;
pub mod signature;
