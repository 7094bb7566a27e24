//! `cargo fuzz run inspect`, or `scripts/fuzz inspect`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| modelfs_fuzz::fuzz_inspect(bytes));
