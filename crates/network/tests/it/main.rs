//! Networks against the real kernel, each test in a network namespace of its own thread. Needs root.
//!
//! Nothing here mounts anything, so the mount namespace is not changed. `nft` and `busybox` are second opinions and
//! clients; the code under test runs no program.

mod addresses;
mod bridge;
mod conformance;
mod crowd;
mod egress;
mod firewalls;
mod flags;
mod foreign;
mod forwarding;
#[cfg(feature = "kernel-links")]
mod kernel_links;
mod managed;
mod networks;
mod ports;
mod publish_mode;
mod reach;
mod recovery;
mod world;
