//! The daemon itself: `/info`, `/version`. `/info` never touches a container and never waits.

use std::collections::BTreeMap;
use std::fs;

use events::now;

use crate::Engine;
use crate::container::Containers;
use crate::host::Host;
use crate::settings::{BUILT_IN_RUNTIMES, Settings};

/// The engine version that clients see.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The version of the reference engine whose behaviour Gantry has; `ServerVersion` of `/info` and `/version`, because
/// clients compare it.
pub const ENGINE_VERSION: &str = "29.0.0";

/// The commit that this was built from, if the build was told.
const COMMIT: &str = match option_env!("GANTRY_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
/// Clients show it as the version of Go, of which there is none here.
const LANGUAGE: &str = "none (Rust)";

/// When this was built (RFC 3339): what the build was told (`SOURCE_DATE_EPOCH`), or the age of the executable.
#[expect(clippy::disallowed_methods, reason = "the kernel's own files, which are in memory")]
fn built() -> String {
    let told = option_env!("SOURCE_DATE_EPOCH").and_then(|text| text.parse::<u64>().ok());
    let written = || {
        let time = fs::metadata("/proc/self/exe").and_then(|file| file.modified()).ok()?;
        time.duration_since(std::time::UNIX_EPOCH).ok().map(|age| age.as_secs())
    };
    let seconds = told.or_else(written).unwrap_or_default();
    model::time::Timestamp::from_unix_seconds(seconds.cast_signed()).rfc3339_nano()
}

/// `GET /version`.
pub fn version(host: &Host, experimental: bool) -> api::Version {
    let details = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let component = |name: &str, version: &str, pairs: &[(&str, &str)]| api::system::ComponentVersion {
        name: name.into(),
        version: version.into(),
        details: details(pairs),
    };
    let built = built();
    let engine_details = [
        ("ApiVersion", host.api_version),
        ("Arch", host.architecture.as_str()),
        ("BuildTime", built.as_str()),
        ("Experimental", if experimental { "true" } else { "false" }),
        ("GitCommit", COMMIT),
        ("GoVersion", LANGUAGE),
        ("KernelVersion", host.kernel.as_str()),
        ("MinAPIVersion", host.min_api_version.as_str()),
        ("Os", "linux"),
        ("GantryVersion", VERSION),
    ];
    api::Version {
        platform: api::system::PlatformInfo { name: "Gantry".into() },
        version: ENGINE_VERSION.into(),
        api_version: host.api_version.into(),
        min_api_version: host.min_api_version.clone(),
        os: "linux".into(),
        arch: host.architecture.clone(),
        components: vec![
            component("Engine", ENGINE_VERSION, &engine_details),
            component("gantry", VERSION, &[("Runtime", "built in"), ("Init", "built in")]),
        ],
        git_commit: COMMIT.into(),
        go_version: LANGUAGE.into(),
        build_time: built,
        kernel_version: host.kernel.clone(),
        experimental,
    }
}

/// The drivers of networks that can be named, plugins that are in use included.
fn network_drivers(engine: &Engine) -> Vec<String> {
    let mut drivers = ["bridge", "host", "ipvlan", "macvlan", "null"].map(String::from).to_vec();
    drivers.extend(engine.networks.remote_drivers());
    drivers.sort();
    drivers
}

/// How layers are kept, in the words of the reference.
pub fn driver(engine: &Engine) -> &'static str {
    match engine.snapshots.roots.name() {
        "overlay" => "overlayfs",
        other => other,
    }
}

/// `GET /info`.
#[expect(clippy::disallowed_methods, reason = "the kernel's own files, which are in memory")]
pub fn info(engine: &Engine) -> api::Info {
    let (host, settings) = (&engine.host, engine.settings());
    let cgroups = host.abilities;
    let counts = Counts::of(&engine.containers);
    api::Info {
        id: host.engine_id.clone(),
        containers: counts.all,
        containers_running: counts.running,
        containers_paused: counts.paused,
        containers_stopped: counts.all - counts.running - counts.paused,
        images: engine.images.count() as i64,
        driver: driver(engine).into(),
        driver_status: vec![["driver-type".into(), "io.containerd.snapshotter.v1".into()]],
        plugins: api::system::PluginsInfo {
            volume: engine.volumes.driver_names(),
            network: network_drivers(engine),
            authorization: None,
            log: logs::names().map(String::from).collect(),
        },
        memory_limit: cgroups.memory,
        swap_limit: cgroups.swap,
        cpu_cfs_period: cgroups.cpu_cfs,
        cpu_cfs_quota: cgroups.cpu_cfs,
        cpu_shares: cgroups.cpu_shares,
        cpu_set: cgroups.cpuset,
        pids_limit: cgroups.pids,
        oom_kill_disable: cgroups.oom_kill_disable,
        ipv4_forwarding: sysctl_is_on("net/ipv4/ip_forward"),
        debug: settings.daemon.debug,
        n_fd: fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as i64,
        n_goroutines: tasks(),
        system_time: now().rfc3339_nano(),
        logging_driver: settings.containers.log.driver.clone(),
        cgroup_driver: "cgroupfs".into(),
        cgroup_version: if host.has_cgroup_v2() { "2" } else { "1" }.into(),
        n_events_listener: engine.events.listeners() as i64,
        kernel_version: host.kernel.clone(),
        operating_system: host.operating_system.clone(),
        os_version: host.os_version.clone(),
        os_type: "linux".into(),
        architecture: host.machine.clone(),
        index_server_address: "https://index.docker.io/v1/".into(),
        registry_config: Some(registry_config(&settings)),
        ncpu: host.processors as i64,
        mem_total: host.memory as i64,
        http_proxy: masked(&settings.services.registries.proxies.http),
        https_proxy: masked(&settings.services.registries.proxies.https),
        no_proxy: settings.services.registries.proxies.none_for.clone(),
        docker_root_dir: settings.roots.data.display().to_string(),
        name: host.hostname.clone(),
        labels: settings.daemon.labels.clone(),
        experimental_build: settings.daemon.experimental,
        server_version: ENGINE_VERSION.into(),
        runtimes: runtimes(&settings),
        default_runtime: settings.containers.runtimes.default.clone(),
        live_restore_enabled: settings.daemon.live_restore,
        init_binary: "gantry-init".into(),
        security_options: security_options(&settings, host),
        firewall_backend: Some(firewall(::network::networks::firewalld(&engine.networks))),
        default_address_pools: settings.services.network.default_address_pools.iter().map(address_pool).collect(),
        cdi_spec_dirs: Some(Vec::new()),
        warnings: Some([warnings(&settings, host), unreadable(engine)].concat()),
        ..api::Info::default()
    }
}

/// Tasks of the runtime that have not ended: what goroutines are to the reference. Who looks for leaks compares two of them.
fn tasks() -> i64 {
    tokio::runtime::Handle::try_current().map_or(1, |runtime| runtime.metrics().num_alive_tasks() as i64)
}

/// The network crate speaks to nftables, and where there is a firewalld, to that.
fn firewall(firewalld: ::network::Firewalld) -> api::system::FirewallInfo {
    let at = firewalld.reloaded_at.filter(|_| firewalld.runs).map(model::time::Timestamp::from_unix_nanos);
    let driver = if firewalld.runs { "nftables+firewalld" } else { "nftables" }.into();
    api::system::FirewallInfo { driver, info: at.iter().map(|at| ["ReloadedAt".into(), at.rfc3339()]).collect() }
}

fn address_pool(pool: &::network::AddressPool) -> api::system::AddressPool {
    api::system::AddressPool { base: pool.base.to_string(), size: i64::from(pool.size) }
}

/// How many containers are in which state.
#[derive(Default)]
struct Counts {
    all: i64,
    running: i64,
    paused: i64,
}

impl Counts {
    fn of(containers: &Containers) -> Counts {
        let mut counts = Counts::default();
        for handle in containers.all() {
            let view = handle.view();
            counts.all += 1;
            match (view.row.state.is_paused(), view.row.state.is_running()) {
                (true, _) => counts.paused += 1,
                (false, true) => counts.running += 1,
                (false, false) => {}
            }
        }
        counts
    }
}

/// The key of a runtime's features in its status.
const FEATURES: &str = "org.opencontainers.runtime-spec.features";

fn runtimes(settings: &Settings) -> BTreeMap<String, api::system::RuntimeInfo> {
    let status = |features: &str| -> BTreeMap<String, String> {
        let known = Some(features).filter(|text| !text.is_empty());
        known.map(|text| (FEATURES.to_owned(), text.to_owned())).into_iter().collect()
    };
    let features = serde_json::to_string(&runtime::features::built_in()).unwrap_or_default();
    let built_in = |name: &str| {
        let status = status(&features);
        (name.to_owned(), api::system::RuntimeInfo { path: "gantry".into(), status, ..Default::default() })
    };
    let mut all: BTreeMap<_, _> = BUILT_IN_RUNTIMES.iter().map(|name| built_in(name)).collect();
    for (name, program) in &settings.containers.runtimes.programs {
        let (path, args) = (program.path.clone(), program.args.clone());
        let status = status(&program.features);
        all.insert(name.clone(), api::system::RuntimeInfo { path, args, status, ..Default::default() });
    }
    all
}

/// A proxy's URL without its credentials.
fn masked(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let host = &rest[..rest.find('/').unwrap_or(rest.len())];
    let separator = if scheme.is_empty() { "" } else { "://" };
    match host.rfind('@') {
        Some(at) => format!("{scheme}{separator}xxxxx:xxxxx{}", &rest[at..]),
        None => url.to_owned(),
    }
}

fn registry_config(settings: &Settings) -> api::ServiceConfig {
    let (addresses, hosts): (Vec<_>, Vec<_>) =
        settings.daemon.insecure_registries.iter().cloned().partition(|r| r.contains('/'));
    let index =
        |name: String, secure, official, mirrors| (name.clone(), api::IndexInfo { name, mirrors, secure, official });
    let mut index_configs: BTreeMap<_, _> =
        hosts.into_iter().map(|host| index(host, false, false, Vec::new())).collect();
    index_configs.extend([index("docker.io".into(), true, true, settings.daemon.registry_mirrors.clone())]);
    let mut insecure_registry_cidrs = vec!["::1/128".to_string(), "127.0.0.0/8".to_string()];
    insecure_registry_cidrs.extend(addresses);
    api::ServiceConfig {
        insecure_registry_cidrs,
        index_configs,
        mirrors: Some(settings.daemon.registry_mirrors.clone()),
    }
}

fn security_options(settings: &Settings, host: &Host) -> Vec<String> {
    let mut options = Vec::new();
    if host.apparmor.is_some() {
        options.push("name=apparmor".into());
    }
    let profile = match settings.containers.isolation.seccomp_profile.as_str() {
        "" => "builtin",
        path => path,
    };
    options.push(format!("name=seccomp,profile={profile}"));
    if host.has_cgroup_v2() {
        options.push("name=cgroupns".into());
    }
    if settings.containers.isolation.no_new_privileges {
        options.push("name=no-new-privileges".into());
    }
    options
}

/// What cannot be read of the data root, and what is wrong with the journal of events.
fn unreadable(engine: &Engine) -> Vec<String> {
    let all = engine.host.quarantine.warnings().into_iter().chain(engine.events.warnings());
    all.map(|warning| format!("WARNING: {warning}")).collect()
}

/// What an administrator should know (B-dm-4).
fn warnings(settings: &Settings, host: &Host) -> Vec<String> {
    let abilities = host.abilities;
    let missing = [
        (abilities.memory, "WARNING: No memory limit support"),
        (abilities.swap, "WARNING: No swap limit support"),
        (abilities.cpu_cfs, "WARNING: No cpu cfs quota support"),
        (abilities.cpu_shares, "WARNING: No cpu shares support"),
        (abilities.cpuset, "WARNING: No cpuset support"),
        (abilities.pids, "WARNING: No pids limit support"),
        (sysctl_is_on("net/ipv4/ip_forward"), "WARNING: IPv4 forwarding is disabled"),
    ];
    let mut all: Vec<String> = missing.iter().filter(|(there, _)| !there).map(|(_, text)| text.to_string()).collect();
    if !host.has_cgroup_v2() {
        all.push("WARNING: Support for cgroup v1 is deprecated and planned to be removed by no later than May 2029 (https://github.com/moby/moby/issues/51111)".into());
    }
    if !matches!(settings.containers.isolation.seccomp_profile.as_str(), "" | "builtin") {
        all.push("WARNING: daemon is not using the default seccomp profile".into());
    }
    if settings.services.network.direct_routing == network::config::DirectRouting::Insecure {
        all.push(format!("WARNING: {} is set", network::config::INSECURE));
    }
    all.extend(settings.daemon.insecure_listeners.iter().map(|address| {
        format!(
            "[DEPRECATION NOTICE]: API is accessible on {address} without encryption.\n         \
             Access to the remote API is equivalent to root access on the host. Refer\n         \
             to the 'Docker daemon attack surface' section in the documentation for\n         \
             more information: https://docs.docker.com/go/attack-surface/"
        )
    }));
    all
}

#[expect(clippy::disallowed_methods, reason = "the kernel's own files, which are in memory")]
fn sysctl_is_on(name: &str) -> bool {
    fs::read_to_string(format!("/proc/sys/{name}")).is_ok_and(|text| text.trim() == "1")
}
