//! Tests of the binary as its users meet it: through a mount, a shell, the command line.
//!
//! One program, so that it is linked once; a module per subject. `harness` gives each test a store
//! and a mount of its own, `syscalls` what std does not have.

mod harness;
mod syscalls;

mod aliases;
mod bases;
mod busy;
mod by_data;
mod cases;
mod checkpoint;
mod checks;
mod commands;
mod control;
mod daemon;
mod damage;
mod diff;
mod documents;
mod draft;
mod edited;
mod faults;
mod fingerprint;
mod forged;
mod full;
mod fuzz;
mod git;
mod golden;
mod governance;
mod hostile;
mod hot;
mod inspect;
mod kept;
mod kill;
mod live;
mod main_job;
mod meanwhile;
mod metadata;
mod page;
mod paths;
mod permissions;
mod python;
mod reading;
mod refusals;
mod secrecy;
mod semantics;
mod semantics_draft;
mod signing;
mod stats;
mod stress;
mod taken;
mod takeover;
mod tamper;
mod tensors;
mod tidy;
mod training;
mod tree;
mod watch;
