//! The docker CLI with its plugin for builds by BuildKit's API.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::{Daemon, places};

/// Gives a daemon's CLI the plugin.
pub fn install(d: &Daemon) {
    let plugins = d.path("cli/cli-plugins");
    fs::create_dir_all(&plugins).expect("the CLI has a directory");
    symlink(places::buildx(), plugins.join("docker-buildx")).expect("a plugin is linked once");
}

/// The CLI with these words.
#[must_use]
pub fn client(d: &Daemon, words: &[&str]) -> Command {
    let mut command = d.cli(words);
    command.env("DOCKER_BUILDKIT", "1").env("HOME", d.path("cli"));
    command
}

/// `docker buildx build` with these words.
#[must_use]
pub fn build(d: &Daemon, words: &[&str]) -> Command {
    client(d, &[&["buildx", "build", "--progress=plain"], words].concat())
}
