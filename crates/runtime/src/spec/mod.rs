//! From Docker's options to an OCI specification.
//!
//! [`build`] is pure: the same container on the same host gives the same specification, byte for byte, in the order the
//! reference writes it; `tests/golden` holds one specification per option. Reading the host happens in [`host`] only.

use std::collections::{BTreeMap, HashMap};

use model::{Error, Result};

mod defaults;
pub mod host;
mod input;
pub(crate) mod limits;
mod mounts;
mod namespaces;
mod tmpfs;

pub use defaults::{MASKED_PATHS, READONLY_PATHS};
pub(crate) use host::kernel;
pub use host::{HostFeatures, source_mount};
pub use input::*;
pub use limits::resources;
pub use tmpfs::TmpfsOptions;

use crate::{oci, seccomp};

/// Where `--init` puts the init program in the container.
pub const INIT_PATH: &str = "/sbin/docker-init";

/// The container's specification.
pub fn build(container: &ContainerSpec, host: &HostFeatures) -> Result<oci::Spec> {
    // An init makes sense only where there is none yet.
    let init = container.process.init.as_deref().filter(|_| container.namespaces.pid == Share::New);
    let planned = mounts::plan(container, host, init)?;
    Ok(oci::Spec {
        oci_version: oci::VERSION.to_owned(),
        process: process(container, init)?,
        root: oci::Root { path: String::new(), readonly: container.readonly_rootfs },
        hostname: match container.namespaces.uts {
            Share::New => container.hostname.clone(),
            Share::Host | Share::Join => String::new(),
        },
        domainname: String::new(),
        mounts: planned.mounts,
        annotations: container.annotations.clone(),
        linux: oci::Linux { rootfs_propagation: planned.rootfs_propagation, ..linux(container, host)? },
    })
}

/// A process of the container: its own, behind `init` if it has one, or that of an exec session.
pub fn process(container: &ContainerSpec, init: Option<&str>) -> Result<oci::Process> {
    let (process, security) = (&container.process, &container.security);
    if process.args.is_empty() {
        return Err(Error::invalid("no command specified"));
    }
    let mut args = Vec::with_capacity(process.args.len() + 2);
    if init.is_some() {
        args.extend([INIT_PATH.to_owned(), "--".to_owned()]);
    }
    args.extend(process.args.iter().cloned());
    let granted = &security.capabilities;
    let size = process.console_size.filter(|s| process.terminal && (s.height, s.width) != (0, 0));
    Ok(oci::Process {
        terminal: process.terminal,
        console_size: size,
        user: oci::User {
            username: Some(process.user.clone()),
            groups: process.groups.clone(),
            ..oci::User::default()
        },
        args,
        env: environment(&container.hostname, process.terminal, &process.link_env, &process.env),
        cwd: if process.cwd.is_empty() { "/".to_owned() } else { process.cwd.clone() },
        capabilities: Some(oci::Capabilities {
            bounding: granted.clone(),
            effective: granted.clone(),
            permitted: granted.clone(),
            ..oci::Capabilities::default()
        }),
        rlimits: limits::rlimits(&process.ulimits),
        no_new_privileges: security.no_new_privileges,
        apparmor_profile: security.apparmor_profile.clone(),
        oom_score_adj: Some(process.oom_score_adj),
        selinux_label: Some(security.process_label.clone()).filter(|l| !l.is_empty()),
    })
}

fn linux(container: &ContainerSpec, host: &HostFeatures) -> Result<oci::Linux> {
    let security = &container.security;
    let user = container.namespaces.user.clone().unwrap_or_default();
    let (devices, device_rules) = devices(container, host)?;
    Ok(oci::Linux {
        uid_mappings: user.uids,
        gid_mappings: user.gids,
        sysctl: sysctls(container, host),
        resources: oci::Resources { devices: device_rules, ..resources(&container.resources)? },
        cgroups_path: container.cgroups_path.clone(),
        namespaces: namespaces::list(&container.namespaces, host),
        devices,
        seccomp: filter(security, host)?,
        rootfs_propagation: String::new(),
        masked_paths: protected(security, security.masked_paths.as_ref(), || masked_paths(host)),
        readonly_paths: protected(security, security.readonly_paths.as_ref(), || {
            defaults::READONLY_PATHS.map(str::to_owned).to_vec()
        }),
        mount_label: security.mount_label.clone(),
    })
}

/// Explicit paths count even for privileged containers.
fn protected(
    security: &Security,
    explicit: Option<&Vec<String>>,
    default: impl FnOnce() -> Vec<String>,
) -> Vec<String> {
    match explicit {
        Some(paths) => paths.clone(),
        None if security.privileged => Vec::new(),
        None => default(),
    }
}

fn masked_paths(host: &HostFeatures) -> Vec<String> {
    let fixed = defaults::MASKED_PATHS.iter().map(|p| (*p).to_owned());
    fixed.chain(host.thermal_throttle.iter().cloned()).collect()
}

/// The filter that the container's profile means here; `None`: none.
pub fn filter(security: &Security, host: &HostFeatures) -> Result<Option<oci::Seccomp>> {
    let default;
    let profile = match &security.seccomp {
        SeccompChoice::Unconfined => return Ok(None),
        SeccompChoice::Default if security.privileged => return Ok(None),
        SeccompChoice::Default => {
            default = seccomp::default_profile();
            &default
        }
        SeccompChoice::Profile(profile) => profile,
    };
    seccomp::resolve(profile, &security.capabilities, host.arch, host.kernel).map(Some)
}

fn sysctls(container: &ContainerSpec, host: &HostFeatures) -> BTreeMap<String, String> {
    let mut sysctls = BTreeMap::new();
    let mut set = |name: &str, value: &str| sysctls.insert(name.to_owned(), value.to_owned());
    if !container.domainname.is_empty() {
        // The specification's own field is newer than many runtimes; this one has the same effect.
        set("kernel.domainname", &container.domainname);
    }
    if container.namespaces.network == Share::New {
        let user_namespace = host.in_user_namespace || container.namespaces.user.is_some();
        if host.ping_group_range && !user_namespace {
            set("net.ipv4.ping_group_range", "0 2147483647");
        }
        if host.unprivileged_port_start {
            set("net.ipv4.ip_unprivileged_port_start", "0");
        }
    }
    sysctls.extend(container.sysctls.clone());
    sysctls
}

/// Nodes to make, and the rules of the device cgroup.
fn devices(container: &ContainerSpec, host: &HostFeatures) -> Result<(Vec<oci::Device>, Vec<oci::DeviceRule>)> {
    let asked = &container.devices;
    let mut rules = defaults::device_rules();
    if container.security.privileged {
        let access = defaults::ANY_ACCESS.to_owned();
        rules.push(oci::DeviceRule { allow: true, access, ..oci::DeviceRule::default() });
        let renamed = asked.nodes.iter().filter(|n| n.host_path != n.device.path).map(|n| n.device.clone());
        return Ok((host.devices.iter().cloned().chain(renamed).collect(), rules));
    }
    rules.extend(asked.nodes.iter().map(|node| oci::DeviceRule {
        allow: true,
        kind: Some(node.device.kind.clone()),
        major: Some(node.device.major),
        minor: Some(node.device.minor),
        access: node.access.clone(),
    }));
    for rule in &asked.cgroup_rules {
        rules.push(limits::device_rule(rule)?);
    }
    Ok((asked.nodes.iter().map(|n| n.device.clone()).collect(), rules))
}

/// The variables of a container's process: defaults (`PATH`, `HOSTNAME`, `TERM` with a terminal), then those of links,
/// replaced or extended by `env`. A bare name in `env` removes the variable.
pub fn environment(hostname: &str, terminal: bool, link_env: &[String], env: &[String]) -> Vec<String> {
    let mut all = vec![defaults::PATH.to_owned(), format!("HOSTNAME={hostname}")];
    all.extend(terminal.then(|| defaults::TERM.to_owned()));
    all.extend(link_env.iter().cloned());
    replace_or_append(all, env)
}

/// `overrides` replace variables of the same name in their place, or come behind; a bare name removes.
pub fn replace_or_append(mut env: Vec<String>, overrides: &[String]) -> Vec<String> {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    // Of equal names the last counts. (An environment may have thousands of variables.)
    let mut places: HashMap<String, usize> = env.iter().enumerate().map(|(at, v)| (name(v), at)).collect();
    for variable in overrides {
        let wanted = name(variable);
        match (places.get(&wanted).copied(), variable.contains('=')) {
            (Some(at), true) => env[at].clone_from(variable),
            (Some(at), false) => {
                env[at].clear();
                places.remove(&wanted);
            }
            (None, true) => {
                places.insert(wanted, env.len());
                env.push(variable.clone());
            }
            (None, false) => {}
        }
    }
    env.retain(|v| !v.is_empty());
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn environment_rules() {
        assert_eq!(environment("h", false, &[], &[]), [defaults::PATH, "HOSTNAME=h"]);
        let env = strings(&["A=1", "PATH=/x", "TERM", "NOT_THERE", "A=2", "B="]);
        let links = strings(&["A=0", "DB_NAME=/x/db"]);
        assert_eq!(environment("h", true, &links, &env), ["PATH=/x", "HOSTNAME=h", "A=2", "DB_NAME=/x/db", "B="]);
    }

    #[test]
    fn no_command() {
        let error = build(&ContainerSpec::default(), &HostFeatures::default()).unwrap_err();
        assert_eq!((error.kind(), error.message()), (model::Kind::InvalidParameter, "no command specified"));
    }
}
