//! gantryd
fn main() {}
