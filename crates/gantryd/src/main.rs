//! gantryd
#![forbid(unsafe_code)]
mod config;
fn main() {}
