//! Source policies of clients. The property is in the crate `properties`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::source_policy(bytes));
