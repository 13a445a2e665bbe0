//! Real client libraries: a driver script each, run in the daemon's own network against its socket.

use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::{Daemon, command, places};

use crate::with_busybox;

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("wire/clients").join(name)
}

/// Runs a driver; each of its checks prints a line that ends with `ok`.
#[track_caller]
fn drive(d: &Daemon, interpreter: &Path, name: &str) {
    let mut driver = d.namespaces().command(interpreter);
    driver.arg(script(name)).env("DOCKER_HOST", format!("unix://{}", d.socket().display())).env("HOME", d.path("cli"));
    for other in ["DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONTEXT", "DOCKER_API_VERSION"] {
        driver.env_remove(other);
    }
    // The containers of testcontainers are removed by their driver and not by a container with a name of its own.
    driver.env("TESTCONTAINERS_RYUK_DISABLED", "true").env("PYTHONDONTWRITEBYTECODE", "1");
    driver.env("NODE_PATH", places::node_packages());
    let output = run(&mut driver);
    assert!(output.stdout.lines().count() > 1 && output.stdout.lines().all(|line| line.ends_with(" ok")), "{output:?}");
}

#[track_caller]
fn run(driver: &mut Command) -> testkit::Output {
    command::run(driver, b"").ok()
}

#[test]
fn docker_py() {
    let d = with_busybox();
    drive(&d, &places::python(), "docker_py.py");
    d.finish();
}

#[test]
fn testcontainers() {
    let d = with_busybox();
    drive(&d, &places::python(), "containers_in_tests.py");
    d.finish();
}

#[test]
fn dockerode() {
    let d = with_busybox();
    drive(&d, &places::find("node"), "dockerode.js");
    d.finish();
}
