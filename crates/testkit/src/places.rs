//! Where things lie: the built programs, the docker CLI, the cache of made images.
//!
//! - Programs are looked for beside the running test (`target/<triple>/<profile>`), so a test always runs what was built with it.
//! - `GANTRYD` and `GANTRY_DOCKER` override the daemon and the CLI.

use std::path::{Path, PathBuf};

/// Directory of the built programs, derived from the running executable.
#[must_use]
pub fn build_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("the running executable has a path");
    let dir = exe.parent().expect("an executable lies in a directory");
    if dir.ends_with("deps") || dir.ends_with("examples") { dir.parent().unwrap_or(dir) } else { dir }.to_path_buf()
}

/// A program built by this workspace.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let path = build_dir().join(name);
    assert!(path.exists(), "{} is missing: run `cargo build -p gantryd -p testkit` first", path.display());
    path
}

/// The daemon under test.
#[must_use]
pub fn gantryd() -> PathBuf {
    std::env::var_os("GANTRYD").map_or_else(|| program("gantryd"), PathBuf::from)
}

/// The workspace's `target` directory.
#[must_use]
pub fn target_dir() -> PathBuf {
    let build = build_dir();
    let found = build
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").exists() && dir.file_name().is_some_and(|n| n == "target"));
    found.map_or_else(|| build.clone(), Path::to_path_buf)
}

/// The docker CLI: `GANTRY_DOCKER`, the one that `cargo xtask test` unpacked, or the one on `PATH`.
#[must_use]
pub fn docker() -> PathBuf {
    if let Some(path) = std::env::var_os("GANTRY_DOCKER") {
        return path.into();
    }
    let unpacked = target_dir().join("tools/docker/usr/bin/docker");
    if unpacked.exists() { unpacked } else { find("docker") }
}

/// The Python that has the client libraries, made by `cargo xtask test`.
#[must_use]
pub fn python() -> PathBuf {
    tool("python/bin/python")
}

/// The directory of the client libraries for node, made by `cargo xtask test`.
#[must_use]
pub fn node_packages() -> PathBuf {
    tool("node/node_modules")
}

/// A Compose client, made by `cargo xtask test`: `compose-2` is the plugin (2.26), `compose-1` the Python program (1.29).
#[must_use]
pub fn compose(name: &str) -> PathBuf {
    tool(name).join("docker-compose")
}

/// The plugin of the docker CLI for builds by BuildKit's API, made by `cargo xtask test`.
#[must_use]
pub fn buildx() -> PathBuf {
    tool("buildx").join("docker-buildx")
}

fn tool(name: &str) -> PathBuf {
    let path = target_dir().join("tools").join(name);
    assert!(path.exists(), "{} is missing: `cargo xtask test` makes it", path.display());
    path
}

/// A program on `PATH` or in the directories that `PATH` of plain users lacks.
#[must_use]
pub fn find(name: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"])
        .map(|dir| Path::new(dir).join(name))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("the program {name} is missing: `cargo xtask test` installs what tests need"))
}

/// Fails unless the test runs as root.
pub fn require_root() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
}
