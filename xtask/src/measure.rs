//! `cargo xtask bench`: builds everything for release and runs `gantry-bench`.

use std::process::Command;

use crate::{compose, setup, shell};

/// Passes `words` on: `images`, `life`, `net` or `volumes`, `--quick`, `--vs unix://SOCKET`.
pub fn run(words: &[String]) -> Result<(), String> {
    shell::require_root("cargo xtask bench")?;
    setup::programs()?;
    if words.first().is_some_and(|word| word == "net") {
        compose::all()?;
    }
    let mut build = shell::cargo(&["build", "--release", "-p", "gantryd", "-p", "testkit", "--bins"]);
    if let Ok(commit) = shell::output(Command::new("git").args(["rev-parse", "HEAD"]).current_dir(shell::root())) {
        // `docker version` shows it.
        build.env("GANTRY_COMMIT", commit.trim());
    }
    shell::run(&mut build)?;
    shell::run(Command::new(shell::build_dir("release").join("gantry-bench")).args(words))
}
