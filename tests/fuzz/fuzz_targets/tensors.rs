//! `cargo fuzz run tensors`, or `scripts/fuzz tensors`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| modelfs_fuzz::fuzz_tensors(bytes));
