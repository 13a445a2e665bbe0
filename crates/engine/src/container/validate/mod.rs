//! Validation of create, in the reference's words and order. Pure: the host's abilities are an input.
//!
//! [`request`] comes first, before the image is looked for: it brings the request to its normal form and refuses what
//! no image could make right. [`check`] looks at what came out of the merge. What the kernel cannot do is discarded
//! with a warning, never silently. Errors are 400 unless the reference says otherwise.

mod config;
mod effects;
pub mod host;
pub(in crate::container) mod network;
mod resources;

use std::collections::BTreeMap;

use model::restart::Policy;
use model::{Error, Result, mount, port};

use self::host::Host;
use super::definition::mounts;
use super::definition::security::SecurityOptions;
use crate::host::Host as Machine;
use crate::settings::ContainerDefaults;

/// What the machine and the configuration in force say.
#[expect(clippy::disallowed_methods, reason = "the kernel's own files, which are in memory")]
pub fn host(host: &Machine, defaults: &ContainerDefaults) -> Host {
    let cgroup_v1 = !host.has_cgroup_v2();
    let or = |own: &str, default: &str| if own.is_empty() { default.to_string() } else { own.to_string() };
    let forwarding = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap_or_default();
    Host {
        hostname: host.hostname.clone(),
        ipc_mode: or(&defaults.isolation.ipc_mode, "private"),
        cgroupns_mode: or(&defaults.isolation.cgroupns_mode, host.default_cgroupns_mode()),
        cgroup_v1,
        default_runtime: or(&defaults.runtimes.default, "runc"),
        shm_size: if defaults.shm_size == 0 { host::DEFAULT_SHM_SIZE } else { defaults.shm_size },
        log_driver: or(&defaults.log.driver, "json-file"),
        log_opts: defaults.log.options.clone(),
        processors: host.processors,
        cpus: host.cpus.clone(),
        memory_nodes: host.memory_nodes.clone(),
        ip_forwarding: forwarding.trim() == "1",
        abilities: host.abilities,
    }
}

/// A request merged with its image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Merged {
    /// As the row keeps it.
    pub config: api::ContainerConfig,
    /// As the row keeps it.
    pub host_config: api::HostConfig,
}

/// The refusal of a bounded writable layer: no snapshot driver has quotas. Clients look for its words.
const NO_QUOTA: &str = "--storage-opt is supported only for overlay over xfs with 'pquota' mount option";

/// Brings a request to its normal form and refuses what cannot be. `exists` tells whether a path of the host is there.
pub fn request(request: &mut api::CreateRequest, host: &Host, exists: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let Some(config) = request.config.as_mut() else {
        return Err(Error::invalid("config cannot be empty in order to create a container"));
    };
    let host_config = request.host_config.get_or_insert_default();
    let networking = request.networking_config.get_or_insert_default();
    network::default_mode(host_config, networking);
    network::check_mode(config, host_config)?;
    check_for_linux(host_config, host)?;
    let mut warnings = network::fill_port_bindings(host_config);
    // 0 and below mean no limit.
    host_config.pids_limit = host_config.pids_limit.filter(|limit| *limit > 0);
    if host_config.restart_policy.name.is_empty() {
        host_config.restart_policy.name = "no".into();
    }
    config::check(config)?;
    check_host_config(host_config, exists)?;
    resources::check(host_config, host, &mut warnings)?;
    check_modes(host_config)?;
    warnings.extend(network::warnings(host_config, host));
    for target in host_config.tmpfs.keys() {
        mount::check_tmpfs_target(target)?;
    }
    check_cgroup_namespace(host_config)?;
    network::check_endpoints(networking)?;
    network::check_names(config, host_config, networking)?;
    Ok(warnings)
}

/// Looks at the outcome of the merge.
pub fn check(merged: &Merged, request: &api::CreateRequest) -> Result<Vec<String>> {
    let host_config = &merged.host_config;
    let log = &host_config.log_config;
    logs::validate(&log.kind, log.config.as_ref().unwrap_or(&BTreeMap::new()))?;
    SecurityOptions::parse(host_config.security_opt.as_deref().unwrap_or_default())?;
    check_quota(host_config)?;
    let asked = request.host_config.as_ref().and_then(|h| h.links.as_ref()).is_some_and(|links| !links.is_empty());
    let mut warnings = Vec::new();
    if asked && host_config.network_mode == "bridge" {
        warnings.push(
            "Links on the default bridge network are deprecated and will be removed in a future release. \
             Use a custom network instead."
                .into(),
        );
    }
    warnings.extend(effects::verdicts(merged, request)?);
    Ok(warnings)
}

/// Refuses at start what create refuses because it protects or limits something and nothing obeys it: an earlier version may
/// have created the container.
pub fn check_at_start(config: &api::ContainerConfig, host_config: &api::HostConfig) -> Result<()> {
    check_quota(host_config)?;
    effects::of_container(config, host_config).map(drop)
}

fn check_quota(host_config: &api::HostConfig) -> Result<()> {
    if host_config.storage_opt.is_empty() { Ok(()) } else { Err(Error::system(NO_QUOTA)) }
}

/// Limits and a restart policy that are to change; what the kernel cannot do is left out, with a warning.
pub fn update(update: &mut api::HostConfig, host: &Host) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let policy = &update.restart_policy;
    Policy::parse(&policy.name, policy.maximum_retry_count)?;
    resources::check_scheduler(update, host)?;
    resources::check_changed(update, host, &mut warnings)?;
    Ok(warnings)
}

/// What only other systems have.
fn check_for_linux(host_config: &api::HostConfig, host: &Host) -> Result<()> {
    let isolation = &host_config.isolation;
    if !matches!(isolation.to_lowercase().as_str(), "" | "default") {
        return Err(Error::invalid(format!("invalid isolation ({isolation}): linux only supports 'default'")));
    }
    let quality = "invalid option: QoS maximum";
    if host_config.io_maximum_bandwidth != 0 {
        return Err(Error::invalid(format!("{quality} bandwidth configuration is not supported on linux")));
    }
    if host_config.io_maximum_iops != 0 {
        return Err(Error::invalid(format!("{quality} IOPs configuration is not supported on linux")));
    }
    resources::check_scheduler(host_config, host)
}

fn check_host_config(host_config: &api::HostConfig, exists: impl Fn(&str) -> bool) -> Result<()> {
    let policy = &host_config.restart_policy;
    if host_config.auto_remove && !matches!(policy.name.as_str(), "" | "no") {
        return Err(Error::invalid("can't create 'AutoRemove' container with restart policy"));
    }
    for entry in &host_config.mounts {
        mount::check(&mounts::spec_of(entry), &exists)?;
    }
    network::check_extra_hosts(host_config.extra_hosts.as_deref().unwrap_or_default())?;
    network::check_dns(host_config.dns.as_deref().unwrap_or_default())?;
    for (port, hosts) in host_config.port_bindings.iter().flat_map(api::PortBindings::iter) {
        let hosts = hosts.iter().flatten().map(|host| host.host_port.as_str()).collect();
        port::validate_bindings([(port.as_str(), hosts)])?;
    }
    network::check_host_addresses(host_config)?;
    Policy::parse(&policy.name, policy.maximum_retry_count)?;
    for (names, field) in [(&host_config.cap_add, "CapAdd"), (&host_config.cap_drop, "CapDrop")] {
        model::capability::normalize(names.as_deref().unwrap_or_default())
            .map_err(|e| e.prefix(format!("invalid {field}")))?;
    }
    match host_config.annotations.contains_key("") {
        true => Err(Error::invalid("invalid Annotations: the empty string is not permitted as an annotation key")),
        false => Ok(()),
    }
}

/// Namespace modes and the other numbers of the host configuration.
fn check_modes(host_config: &api::HostConfig) -> Result<()> {
    let (ipc, pid, uts) = (&host_config.ipc_mode, &host_config.pid_mode, &host_config.uts_mode);
    if !matches!(ipc.as_str(), "" | "none" | "private" | "host" | "shareable") && !ipc.starts_with("container:") {
        return Err(Error::invalid(format!("invalid IPC mode: {ipc}")));
    }
    let of_container = pid.strip_prefix("container:").is_some_and(|name| !name.is_empty());
    if !matches!(pid.as_str(), "" | "host") && !of_container {
        return Err(Error::invalid(format!("invalid PID mode: {pid}")));
    }
    if host_config.shm_size < 0 {
        return Err(Error::invalid("SHM size can not be less than 0"));
    }
    if !matches!(uts.as_str(), "" | "host") {
        return Err(Error::invalid(format!("invalid UTS mode: {uts}")));
    }
    let score = host_config.oom_score_adj;
    match (-1000..=1000).contains(&score) {
        true => Ok(()),
        false => Err(Error::invalid(format!("Invalid value {score}, range for oom score adj is [-1000, 1000]"))),
    }
}

fn check_cgroup_namespace(host_config: &api::HostConfig) -> Result<()> {
    let mode = &host_config.cgroupns_mode;
    match matches!(mode.as_str(), "" | "private" | "host") {
        true => Ok(()),
        false => Err(Error::invalid(format!("invalid cgroup namespace mode: {mode}"))),
    }
}

/// Devices of device drivers (GPUs, CDI): Gantry has none of these drivers yet. Asked at start, as in the reference.
pub fn check_device_requests(host_config: &api::HostConfig) -> Result<()> {
    let Some(wanted) = host_config.device_requests.iter().flatten().next() else {
        return Ok(());
    };
    let alternatives: Vec<String> =
        wanted.capabilities.iter().flatten().map(|list| format!("[{}]", list.join(" "))).collect();
    Err(Error::invalid(format!(
        "could not select device driver {:?} with capabilities: [{}]",
        wanted.driver,
        alternatives.join(" ")
    )))
}

#[cfg(test)]
mod tests;
