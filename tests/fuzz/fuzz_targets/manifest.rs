//! `cargo fuzz run manifest`, or `scripts/fuzz manifest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| modelfs_fuzz::fuzz_manifest(bytes));
