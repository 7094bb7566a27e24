//! `cargo fuzz run tables`, or `scripts/fuzz tables`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| modelfs_fuzz::fuzz_tables(bytes));
