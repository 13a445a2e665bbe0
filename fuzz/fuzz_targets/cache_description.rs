//! Descriptions of build caches. The property is in the crate `properties`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::cache_description(bytes));
