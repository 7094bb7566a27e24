//! `cargo fuzz run trainers`, or `scripts/fuzz trainers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| modelfs_fuzz::fuzz_trainers(bytes));
