//! Payloads of signatures, and public keys. The property is in the crate `properties`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::signatures(bytes));
