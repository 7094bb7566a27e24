//! `cargo fuzz run describe`, or `scripts/fuzz describe`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| modelfs_fuzz::fuzz_describe(bytes));
