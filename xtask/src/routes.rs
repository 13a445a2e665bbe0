//! `cargo xtask coverage`: the routing table against the inventory of the API, printed by the test that compares them.

use crate::shell;

/// Runs the server's coverage test with its table on the screen.
pub fn run() -> Result<(), String> {
    let args = ["test", "--quiet", "-p", "server", "--", "--nocapture", "coverage"];
    shell::run(&mut shell::cargo(&args))
}
