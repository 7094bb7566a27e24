//! `cargo fuzz run suite`, or `scripts/fuzz suite`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| modelfs_fuzz::fuzz_suite(bytes));
