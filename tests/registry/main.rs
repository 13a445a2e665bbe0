//! Images to and from registries: the docker CLI against a real registry, and against one that misbehaves.
//!
//! Every test has a daemon and its registries in private namespaces and ends with the leak census.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

mod auth;
mod builds;
mod digests;
mod faults;
mod hostile;
mod mirrors;
mod platforms;
mod proxies;
mod pull;
mod push;
mod resume;
mod server;
mod signed;

use std::time::Duration;

use testkit::{Daemon, command};

/// Longest wait for what has to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until this holds; `false` when it does not in time.
fn eventually(condition: impl FnMut() -> bool) -> bool {
    command::eventually(PATIENCE, condition)
}

/// What lies in the content store and among the snapshots: blobs, parts, layers.
fn kept(d: &Daemon) -> (usize, usize, usize) {
    let count = |path: &str| std::fs::read_dir(d.data_root().join(path)).map_or(0, |entries| entries.flatten().count());
    let layers = std::fs::read_dir(d.data_root().join("snapshots")).into_iter().flatten().flatten();
    let layers = layers.map(|driver| {
        let entries = std::fs::read_dir(driver.path()).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().len() == 64).count()
    });
    (count("content/blobs/sha256"), count("content/parts"), layers.sum())
}

/// Asserts that nothing of a failed pull is left, parts excepted when they are expected.
#[track_caller]
fn assert_nothing(d: &Daemon) {
    assert_eq!(d.docker(&["images", "-aq"]).text(), "");
    let (blobs, _, layers) = kept(d);
    assert_eq!((blobs, layers), (0, 0), "blobs and layers of an image that nobody has");
}
