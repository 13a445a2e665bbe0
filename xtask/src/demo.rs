//! `cargo xtask demo`: from nothing to a container's output on the screen.
//!
//! Everything runs in a daemon of its own with private namespaces and roots, and is gone afterwards.

use std::process::Command;

use crate::{setup, shell};

/// Installs, builds and runs the demonstration.
pub fn run() -> Result<(), String> {
    shell::require_root("cargo xtask demo")?;
    setup::programs_of_demo()?;
    shell::run(&mut shell::cargo(&["build", "-p", "gantryd", "-p", "testkit", "--bins"]))?;
    shell::run(&mut Command::new(shell::build_dir("debug").join("gantry-demo")))
}
