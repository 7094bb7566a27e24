//! `cargo fuzz run policy`, or `scripts/fuzz policy`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| modelfs_fuzz::fuzz_policy(bytes));
