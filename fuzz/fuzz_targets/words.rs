//! Words with variables. The property is in the crate `properties`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::words(bytes));
