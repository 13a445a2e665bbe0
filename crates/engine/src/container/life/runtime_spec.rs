//! From a container's row to what the runtime takes: Docker's options in the runtime's own terms.
//!
//! Everything was validated at create; what is looked up here is what can change between starts: device files, the
//! configuration in force.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use model::{Context, Error, Result};
use runtime::oci;
use runtime::seccomp::Profile;
use runtime::spec::{self, ContainerSpec, Share};
use snapshot::LayerStore;

use super::files;
use crate::Engine;
use crate::apparmor::AppArmor;
use crate::container::definition::modes::{IpcMode, NetworkMode, PidMode};
use crate::container::definition::security::Capabilities;
use crate::container::definition::{Definition, MountKind, MountRow, command_line};
use crate::container::validate;
use crate::held::{self, Shown};
use crate::host::Host;
use crate::settings::{ContainerDefaults, Roots, Settings};

/// The narrow input of `runtime::spec::build` for this container in the control group of that path.
pub fn container_spec(
    engine: &Engine,
    settings: &Settings,
    row: &Definition,
    cgroup: &str,
    shown: &mut Shown,
) -> Result<ContainerSpec> {
    let (config, host) = (&row.config, &row.host_config);
    validate::check_device_requests(host)?;
    Ok(ContainerSpec {
        process: process(&engine.host, &settings.containers, row),
        hostname: config.hostname.clone(),
        domainname: config.domainname.clone(),
        namespaces: namespaces(engine.host.has_cgroup_v2(), &settings.containers, row),
        readonly_rootfs: host.readonly_rootfs,
        mounts: mounts(engine, &settings.roots, row, shown)?,
        security: security(engine.host.apparmor.as_ref(), &settings.containers, row)?,
        devices: devices(row)?,
        resources: resources(host)?,
        sysctls: host.sysctls.clone(),
        cgroups_path: cgroup.to_owned(),
        annotations: host.annotations.clone(),
    })
}

/// The name of the limit of open descriptors.
const DESCRIPTORS: &str = "nofile";

fn process(engine_host: &Host, defaults: &ContainerDefaults, row: &Definition) -> spec::ProcessSpec {
    let (config, host) = (&row.config, &row.host_config);
    let [height, width] = host.console_size.map(|n| u16::try_from(n).unwrap_or(u16::MAX));
    let wants_init = host.init.unwrap_or(defaults.init);
    spec::ProcessSpec {
        args: command_line(config),
        env: config.env.clone().unwrap_or_default(),
        link_env: Vec::new(),
        cwd: config.working_dir.clone(),
        user: config.user.clone(),
        groups: host.group_add.clone().unwrap_or_default(),
        terminal: config.tty,
        console_size: (height > 0 && width > 0).then_some(oci::ConsoleSize { height, width }),
        ulimits: ulimits(engine_host, defaults, host),
        oom_score_adj: i32::try_from(host.oom_score_adj).unwrap_or(0),
        init: wants_init.then(|| engine_host.executable_path.display().to_string()),
    }
}

/// The container's own, then the daemon's defaults for names it does not set. Descriptors are always limited: the daemon
/// and its monitors have raised their own limit, which is no container's.
fn ulimits(machine: &Host, defaults: &ContainerDefaults, host: &api::HostConfig) -> Vec<spec::Ulimit> {
    let own = host.ulimits.as_deref().unwrap_or_default();
    let defaults = defaults.ulimits.iter().filter(|d| !own.iter().any(|o| o.name == d.name));
    let convert = |u: &api::Ulimit| spec::Ulimit { name: u.name.clone(), soft: u.soft, hard: u.hard };
    let mut limits: Vec<_> = own.iter().chain(defaults).map(convert).collect();
    if !limits.iter().any(|limit| limit.name.eq_ignore_ascii_case(DESCRIPTORS)) {
        let (soft, hard) = machine.descriptors;
        // What is unlimited is -1 in both.
        limits.push(spec::Ulimit { name: DESCRIPTORS.into(), soft: soft as i64, hard: hard as i64 });
    }
    limits
}

fn namespaces(has_cgroup_v2: bool, defaults: &ContainerDefaults, row: &Definition) -> spec::Namespaces {
    let (host, parsed) = (&row.host_config, row.parsed());
    let cgroup_mode = match host.cgroupns_mode.as_str() {
        "" => defaults.isolation.cgroupns_mode.as_str(),
        own => own,
    };
    let cgroup = match cgroup_mode {
        "host" => Share::Host,
        "" if !has_cgroup_v2 || host.privileged => Share::Host,
        _ => Share::New,
    };
    spec::Namespaces {
        network: match parsed.network {
            NetworkMode::Host => Share::Host,
            NetworkMode::Container(_) => Share::Join,
            NetworkMode::None | NetworkMode::Network(_) => Share::New,
        },
        ipc: match parsed.ipc {
            IpcMode::Host => Share::Host,
            IpcMode::Container(_) => Share::Join,
            IpcMode::None | IpcMode::Private | IpcMode::Shareable => Share::New,
        },
        pid: match parsed.pid {
            PidMode::Host => Share::Host,
            PidMode::Container(_) => Share::Join,
            PidMode::Own => Share::New,
        },
        uts: if parsed.has_host_uts { Share::Host } else { Share::New },
        cgroup,
        user: None,
    }
}

fn mounts(engine: &Engine, roots: &Roots, row: &Definition, shown: &mut Shown) -> Result<spec::Mounts> {
    let host = &row.host_config;
    let files_owner = roots.container(files::owner(&engine.containers, row)?.as_str());
    let file = |name: &str, target: &str| spec::FileMount {
        source: files_owner.join(name).display().to_string(),
        target: target.into(),
    };
    let shm = match row.parsed().ipc {
        IpcMode::None => spec::Shm::None,
        IpcMode::Host => spec::Shm::Bind("/dev/shm".into()),
        IpcMode::Container(_) => spec::Shm::Join,
        IpcMode::Private | IpcMode::Shareable => spec::Shm::Private { size: host.shm_size },
    };
    let mountinfo = match row.mounts.iter().any(reaches_out) {
        true => sys::file::read_made("/proc/self/mountinfo").unwrap_or_default(),
        false => Vec::new(),
    };
    let mountinfo = String::from_utf8_lossy(&mountinfo);
    let mut user = Vec::new();
    for one in row.parsed().tmpfs() {
        let (target, options) = one?;
        user.push(spec::Mount { target: target.into(), kind: spec::MountKind::Tmpfs { options: options.clone() } });
    }
    for one in row.mounts.iter().filter(|mount| !row.gives_way_to_tmpfs(mount)) {
        let kind = match one.kind {
            MountKind::Tmpfs => spec::MountKind::Tmpfs { options: row.parsed().tmpfs_mount(&one.destination)?.clone() },
            _ => spec::MountKind::Bind(tree(&*engine.snapshots.layers, one, &mountinfo, shown)?),
        };
        user.push(spec::Mount { target: one.destination.clone(), kind });
    }
    Ok(spec::Mounts {
        user,
        shm,
        files: vec![
            file(run::files::RESOLV_CONF, "/etc/resolv.conf"),
            file(run::files::HOSTNAME, "/etc/hostname"),
            file(run::files::HOSTS, "/etc/hosts"),
        ],
    })
}

/// What is mounted that lies somewhere.
fn tree(layers: &dyn LayerStore, row: &MountRow, mountinfo: &str, shown: &mut Shown) -> Result<spec::Bind> {
    match row.kind {
        MountKind::Image => shown.pass(image_tree(layers, row)?, bind(row, mountinfo)),
        MountKind::Volume => shown.volume(row.part(), bind(row, mountinfo)),
        MountKind::Bind | MountKind::Tmpfs => check_access(row).map(|()| bind(row, mountinfo)),
    }
}

/// What a mount shows of its image, detached.
pub fn image_tree(layers: &dyn LayerStore, row: &MountRow) -> Result<OwnedFd> {
    let pin = row.image.as_ref().ok_or_else(|| Error::system(format!("no image is known for {}", row.destination)))?;
    held::image_tree(&layers.directories(&snapshot::keys(&pin.layers))?, row.part())
}

/// What a bind's options say of each other, which the reference asks at start.
fn check_access(row: &MountRow) -> Result<()> {
    let entry = row.spec.as_ref().filter(|_| row.kind == MountKind::Bind);
    let Some((entry, options)) = entry.and_then(|entry| Some((entry, entry.bind_options.as_ref()?))) else {
        return Ok(());
    };
    let conflict = match (options.read_only_non_recursive, options.read_only_force_recursive) {
        (true, _) if !entry.read_only => "!ReadOnly && BindOptions.ReadOnlyNonRecursive",
        (_, true) if !entry.read_only => "!ReadOnly && BindOptions.ReadOnlyForceRecursive",
        (true, true) => "ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive",
        _ => return Ok(()),
    };
    Err(Error::system(format!("mount options conflict: {conflict}")))
}

/// Whether what is mounted below it later goes on to others: only then it counts what its source lies on.
fn reaches_out(row: &MountRow) -> bool {
    use spec::Propagation::{Private, RPrivate};
    !matches!(spec::Propagation::parse(&row.propagation), None | Some(Private | RPrivate))
}

fn bind(row: &MountRow, mountinfo: &str) -> spec::Bind {
    let options = row.spec.as_ref().and_then(|m| m.bind_options.as_ref());
    let access = match (row.writable, options) {
        (true, _) => spec::Access::ReadWrite,
        (false, Some(o)) if o.read_only_force_recursive => spec::Access::ReadOnlyForced,
        (false, Some(o)) if o.read_only_non_recursive => spec::Access::ReadOnlyTop,
        (false, _) => spec::Access::ReadOnly,
    };
    let named = options.is_some_and(|options| !options.propagation.is_empty())
        || row.mode.split(',').any(|word| word == row.propagation);
    spec::Bind {
        source_mount: reaches_out(row).then(|| spec::source_mount(mountinfo, &row.source)).flatten(),
        source: row.source.clone(),
        subpath: row.subpath().into(),
        namespace: None,
        tree: None,
        access,
        recursion: match options {
            Some(o) if o.non_recursive => spec::Recursion::Top,
            _ => spec::Recursion::Tree,
        },
        propagation: spec::Propagation::parse(&row.propagation),
        // Nobody named the one that binds of the data root have: where the host shares nothing, they go without.
        propagation_optional: !named,
    }
}

fn security(apparmor: Option<&AppArmor>, defaults: &ContainerDefaults, row: &Definition) -> Result<spec::Security> {
    let host = &row.host_config;
    let options = row.parsed().security()?;
    Ok(spec::Security {
        privileged: host.privileged,
        capabilities: granted(row.parsed().capabilities()?)?,
        no_new_privileges: options.no_new_privileges.unwrap_or(defaults.isolation.no_new_privileges),
        seccomp: seccomp_choice(defaults, options.seccomp.as_deref())?,
        apparmor_profile: apparmor.map(|it| it.profile(host.privileged, options.apparmor.clone())).transpose()?,
        process_label: String::new(),
        mount_label: String::new(),
        masked_paths: host.masked_paths.clone(),
        readonly_paths: host.readonly_paths.clone(),
        writable_cgroups: options.writable_cgroups,
    })
}

/// The granted capabilities. "All" means all that the daemon itself may give (B-oci-13).
fn granted(asked: Capabilities) -> Result<Vec<String>> {
    if !asked.wants_all {
        return Ok(asked.names().map(str::to_owned).collect());
    }
    let own = sys::capability::get().context("reading the daemon's capabilities")?.permitted;
    let given: Vec<&str> = own.names().collect();
    Ok(asked.names().filter(|name| given.contains(name)).map(str::to_owned).collect())
}

/// The container's profile (JSON text), else the daemon's (a file), else the built-in one.
fn seccomp_choice(defaults: &ContainerDefaults, own: Option<&str>) -> Result<spec::SeccompChoice> {
    let chosen = |profile| spec::SeccompChoice::Profile(Box::new(profile));
    match (own.filter(|own| !own.is_empty()), defaults.isolation.seccomp_profile.as_str()) {
        (Some("unconfined"), _) => Ok(spec::SeccompChoice::Unconfined),
        (Some("builtin"), _) => Ok(spec::SeccompChoice::Default),
        (Some(text), _) => Profile::parse(text.as_bytes()).map(chosen),
        (None, "" | "builtin") => Ok(spec::SeccompChoice::Default),
        (None, "unconfined") => Ok(spec::SeccompChoice::Unconfined),
        (None, path) => Profile::read(path).map(chosen),
    }
}

fn devices(row: &Definition) -> Result<spec::Devices> {
    let host = &row.host_config;
    let mut nodes = Vec::new();
    for device in host.devices.iter().flatten() {
        let inside = if device.path_in_container.is_empty() { &device.path_on_host } else { &device.path_in_container };
        // A privileged container has all devices of the host anyway, by their names there.
        if host.privileged && *inside == device.path_on_host {
            continue;
        }
        let access = if device.cgroup_permissions.is_empty() { "rwm" } else { &device.cgroup_permissions };
        nodes.extend(spec::host::devices_from_path(&device.path_on_host, inside, access)?);
    }
    Ok(spec::Devices { nodes, cgroup_rules: host.device_cgroup_rules.clone().unwrap_or_default() })
}

/// The limits of a container in the words of control groups.
pub(super) fn limits(host: &api::HostConfig) -> Result<sys::cgroup::Resources> {
    runtime::builtin::limits(&resources(host)?)
}

fn resources(host: &api::HostConfig) -> Result<spec::Resources> {
    Ok(spec::Resources {
        memory: host.memory,
        memory_reservation: host.memory_reservation,
        memory_swap: host.memory_swap,
        memory_swappiness: host.memory_swappiness,
        oom_kill_disable: host.oom_kill_disable,
        cpu: spec::CpuLimits {
            shares: host.cpu_shares,
            nano_cpus: host.nano_cpus,
            period: host.cpu_period,
            quota: host.cpu_quota,
            realtime_period: host.cpu_realtime_period,
            realtime_runtime: host.cpu_realtime_runtime,
            cpus: host.cpuset_cpus.clone(),
            mems: host.cpuset_mems.clone(),
        },
        pids_limit: host.pids_limit,
        block_io: block_io(host)?,
        unified: Default::default(),
    })
}

fn block_io(host: &api::HostConfig) -> Result<spec::BlockIo> {
    Ok(spec::BlockIo {
        weight: host.blkio_weight,
        weight_device: weights(host.blkio_weight_device.as_deref())?,
        read_bps: throttles(host.blkio_device_read_bps.as_deref())?,
        write_bps: throttles(host.blkio_device_write_bps.as_deref())?,
        read_iops: throttles(host.blkio_device_read_iops.as_deref())?,
        write_iops: throttles(host.blkio_device_write_iops.as_deref())?,
    })
}

fn device_number(path: &str) -> Result<(i64, i64)> {
    spec::host::device_number(path).with_context(|| format!("stat {path}"))
}

fn weights(list: Option<&[api::WeightDevice]>) -> Result<Vec<oci::WeightDevice>> {
    let convert = |d: &api::WeightDevice| {
        let (major, minor) = device_number(&d.path)?;
        Ok(oci::WeightDevice { major, minor, weight: Some(d.weight) })
    };
    list.unwrap_or_default().iter().map(convert).collect()
}

fn throttles(list: Option<&[api::ThrottleDevice]>) -> Result<Vec<oci::ThrottleDevice>> {
    let convert = |d: &api::ThrottleDevice| {
        let (major, minor) = device_number(&d.path)?;
        Ok(oci::ThrottleDevice { major, minor, rate: d.rate })
    };
    list.unwrap_or_default().iter().map(convert).collect()
}

/// Refuses what no environment can have, in the words of runc; one without a `=` is not passed on.
fn check_variable(variable: &str) -> Result<()> {
    let Some((name, value)) = variable.split_once('=') else { return Ok(()) };
    let quoted = || format!("{name:?}").replace("\\0", "\\x00");
    let what = if name.is_empty() {
        ": name cannot be empty".to_owned()
    } else if name.contains('\0') {
        format!(" {}: name contains nul byte (\\x00)", quoted())
    } else if value.contains('\0') {
        format!(" {}: value contains nul byte (\\x00)", quoted())
    } else {
        return Ok(());
    };
    let before =
        "OCI runtime exec failed: exec failed: unable to start container process: invalid environment variable";
    Err(Error::system(format!("{before}{what}: unknown")))
}

/// The process of an exec session in this container (B-io-9): the container's own with what the session changes.
pub fn exec_process(
    engine: &Arc<Engine>,
    row: &Definition,
    session: &api::ExecConfig,
    size: Option<[u16; 2]>,
) -> Result<oci::Process> {
    let settings = engine.settings();
    // Whom the container has joined, and its devices, may be gone by now.
    let mut own = ContainerSpec {
        process: process(&engine.host, &settings.containers, row),
        hostname: row.config.hostname.clone(),
        security: security(engine.host.apparmor.as_ref(), &settings.containers, row)?,
        ..ContainerSpec::default()
    };
    own.process.args = session.cmd.clone().unwrap_or_default();
    own.process.terminal = session.tty;
    let env = session.env.as_deref().unwrap_or_default();
    env.iter().try_for_each(|variable| check_variable(variable))?;
    own.process.env.extend(env.iter().cloned());
    own.process.console_size = size.map(|[height, width]| oci::ConsoleSize { height, width });
    if !session.user.is_empty() {
        own.process.user.clone_from(&session.user);
    }
    if !session.working_dir.is_empty() {
        if !session.working_dir.starts_with('/') {
            return Err(Error::system("OCI runtime exec failed: exec failed: Cwd must be an absolute path: unknown"));
        }
        own.process.cwd.clone_from(&session.working_dir);
    }
    if session.privileged {
        own.security.capabilities = granted(Capabilities::all())?;
    }
    spec::process(&own, None)
}
