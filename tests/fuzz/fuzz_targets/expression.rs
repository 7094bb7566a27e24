//! `cargo fuzz run expression`, or `scripts/fuzz expression`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| modelfs_fuzz::fuzz_expression(bytes));
