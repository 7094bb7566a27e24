//! `cargo fuzz run blocks`, or `scripts/fuzz blocks`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| modelfs_fuzz::fuzz_blocks(bytes));
