//! Real clients against the built daemon: the docker CLI, and raw HTTP where the CLI hides what matters.
//!
//! Every test has a daemon of its own in private namespaces and ends with the leak census (`finish`, or dropping the
//! daemon). Texts are the reference's: `wire_facts` of a real engine decided them.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place")]

mod archives;
mod attach;
mod blocked;
mod build;
mod build_cases;
mod build_context;
mod build_sources;
mod buildx;
mod buildx_caches;
mod buildx_results;
mod cgroups;
mod check;
mod collector;
mod commit;
mod compose;
mod control;
mod copy;
mod cycles;
mod disk;
mod egress;
mod escape;
mod events;
mod exec;
mod frontends;
mod grpc;
mod grpc_attacks;
mod health;
mod images;
mod input;
mod inspect;
mod intruder;
mod isolation;
mod journal;
mod kernel_volumes;
mod layers;
mod lifecycle;
mod list;
mod logs;
mod lost_store;
mod metrics;
mod mounts;
mod moved_root;
mod network;
mod network_flags;
mod network_plugins;
mod networks;
mod order;
mod own_labels;
mod platforms;
mod plugin_program;
mod ports;
mod quarantine;
mod resolver;
mod restart;
mod run;
mod runtimes;
mod secrets;
mod sessions;
mod shutdown;
mod startup;
mod stats;
mod storage;
mod update;
mod upgrade;
mod upgrade_live;
mod volume_copies;
mod volume_plugins;
mod volumes;
mod waiting;

use std::time::Duration;

use testkit::{Daemon, command};

/// Longest wait for what has to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until this holds; `false` when it does not in time.
fn eventually(condition: impl FnMut() -> bool) -> bool {
    command::eventually(PATIENCE, condition)
}

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
