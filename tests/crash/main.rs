//! Crashes and faults: whatever dies, fills up, floods or vanishes, what was acknowledged stands, what runs is not
//! disturbed, nothing hangs and nothing is left behind.
//!
//! Requests are raw HTTP, because the docker CLI retries and hides. Every test ends with the leak census.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

mod boots;
mod budgets;
mod builds_killed;
mod calls;
mod collector;
mod commits;
mod copies_killed;
mod crowds;
mod daemon_killed;
mod descriptors;
mod disk_full;
mod execs;
mod faults;
mod hostile;
mod images_killed;
mod journal;
mod ledger;
mod model;
mod monitor_killed;
mod moved;
mod orphans;
mod ports_killed;
mod power;
mod promises;
mod races;
mod requests;
mod run_count;
mod signals;
mod slow_clients;
mod start_errors;
mod vanished;
mod volumes_killed;

use testkit::Daemon;

/// A daemon with the image `busybox`.
#[track_caller]
fn with_busybox() -> Daemon {
    let daemon = Daemon::start();
    daemon.busybox();
    daemon
}

/// A daemon with the images `busybox` and `probe`.
#[track_caller]
fn with_images() -> Daemon {
    let daemon = with_busybox();
    daemon.probe();
    daemon
}
