//! The long forms of tests.
//!
//! A long test has a short form in `cargo xtask test` and its full form in `cargo xtask soak [NAME]`, which sets
//! [`VARIABLE`]. The test body is the same; only its number of rounds differs.

/// Set by `cargo xtask soak`; any value but the empty one selects the full form.
pub const VARIABLE: &str = "GANTRY_SOAK";

/// The number of rounds that a test runs: `full` below `cargo xtask soak`, else `short`.
pub fn rounds(short: usize, full: usize) -> usize {
    if is_on() { full } else { short }
}

/// Whether the full forms run.
pub fn is_on() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|value| !value.is_empty())
}
