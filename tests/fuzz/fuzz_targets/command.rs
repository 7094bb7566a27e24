//! `cargo fuzz run command`, or `scripts/fuzz command`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| modelfs_fuzz::fuzz_command(bytes));
