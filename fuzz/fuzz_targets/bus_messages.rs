//! Messages of D-Bus. The property is in the crate `properties`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::bus_messages(bytes));
