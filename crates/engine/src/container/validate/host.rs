//! What merging and validation need to know of the machine.

use std::collections::BTreeMap;

use crate::abilities::Abilities;

/// Bytes of /dev/shm when nobody says.
pub const DEFAULT_SHM_SIZE: i64 = 64 << 20;

/// What merging and validation need to know of the host and the daemon's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// The machine's name.
    pub hostname: String,
    /// Default IPC mode, `private` or `shareable`.
    pub ipc_mode: String,
    /// Default cgroup namespace mode, `private` or `host`.
    pub cgroupns_mode: String,
    /// The controllers are those of cgroup v1.
    pub cgroup_v1: bool,
    /// The runtime of containers that name none.
    pub default_runtime: String,
    /// Default bytes of /dev/shm.
    pub shm_size: i64,
    /// The daemon's log driver.
    pub log_driver: String,
    /// The daemon's log options.
    pub log_opts: BTreeMap<String, String>,
    /// How many processors are online.
    pub processors: usize,
    /// Which processors are online, as a list (`0-3`).
    pub cpus: String,
    /// Which memory nodes are online, as a list.
    pub memory_nodes: String,
    /// The kernel forwards IPv4 packets.
    pub ip_forwarding: bool,
    /// What the control groups can do.
    pub abilities: Abilities,
}
