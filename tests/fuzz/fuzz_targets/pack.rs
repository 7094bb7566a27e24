//! `cargo fuzz run pack`, or `scripts/fuzz pack`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| modelfs_fuzz::fuzz_pack(bytes));
