//! `cargo xtask bench`: builds everything for release and runs `gantry-bench`.

use std::process::Command;

use crate::{setup, shell};

/// Passes `words` on: `images`, `--quick`, `--vs unix://SOCKET`.
pub fn run(words: &[String]) -> Result<(), String> {
    shell::require_root("cargo xtask bench")?;
    setup::programs()?;
    shell::run(&mut shell::cargo(&["build", "--release", "-p", "gantryd", "-p", "testkit", "--bins"]))?;
    shell::run(Command::new(shell::build_dir("release").join("gantry-bench")).args(words))
}
