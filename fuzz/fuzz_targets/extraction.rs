//! Unpacking an archive into a container's directory. The property is in the crate `properties`; seeds: `layer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::extraction(bytes));
