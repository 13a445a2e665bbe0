//! From the daemon's configuration to what the engine and the server take.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use api::ApiVersion;
use blocking::Blocking;
use engine::settings::{
    ContainerDefaults, Daemon, DnsDefaults, Isolation, LogDefaults, Roots, RuntimeProgram, Runtimes, SecretSettings,
    Services, Settings,
};
use image::Transfers;
use image::collect::Rules;
use model::{Error, Result};
use network::config::{DirectRouting, Mark};
use network::{AddressPool, DefaultFamily, NetworkConfig, PublishMode};
use server::{Frame, State};
use volume::schedule::{Alarms, Schedule};

use crate::config::validate::start_wait;
use crate::config::{Config, Host, MAX_API_VERSION};

/// The engine's settings.
pub fn settings(on: &Blocking, config: &Config) -> Settings {
    Settings {
        roots: Roots {
            data: config.paths.data_root.clone(),
            exec: config.paths.exec_root.clone(),
            tmp: config.paths.tmp_dir.clone(),
        },
        containers: container_defaults(on, config),
        services: Services {
            storage_driver: config.storage.driver.clone(),
            network: network(config),
            registries: registries(config),
            signature_policy: config.signatures.policy.clone(),
            transfers: Transfers {
                downloads: usize::try_from(config.registry.max_concurrent_downloads).unwrap_or(0),
                uploads: usize::try_from(config.registry.max_concurrent_uploads).unwrap_or(0),
            },
            // Wrong rules are refused before they come here.
            image_gc: Rules::parse(&config.storage.image_gc).unwrap_or_default(),
            builds: build::policy::Settings::parse(&config.foreign.builder).unwrap_or_default(),
            secrets: SecretSettings {
                local: config.storage.local_secrets,
                key_file: match config.storage.secrets_key_file.as_str() {
                    "" => config.paths.data_root.join("secrets.key"),
                    path => path.into(),
                },
            },
            volume_schedules: Schedule::parse(&config.storage.volume_snapshots).unwrap_or_default(),
            volume_alarms: Alarms::parse(&config.storage.volume_alarms).unwrap_or_default(),
        },
        daemon: Daemon {
            labels: config.engine.labels.clone(),
            debug: config.daemon_log.debug,
            experimental: config.engine.experimental,
            buildkit: config.engine.features.get("buildkit").copied().unwrap_or(true),
            insecure_registries: config.registry.insecure.clone(),
            registry_mirrors: config.registry.mirrors.clone(),
            insecure_listeners: insecure_listeners(config),
            live_restore: config.engine.live_restore,
            shutdown_timeout: config.engine.shutdown_timeout,
        },
    }
}

fn container_defaults(on: &Blocking, config: &Config) -> ContainerDefaults {
    let text = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect();
    let (containers, isolation) = (&config.containers, &config.isolation);
    ContainerDefaults {
        log: LogDefaults { driver: config.log.driver.clone(), options: config.log.opts.clone() },
        dns: DnsDefaults {
            servers: text(&config.dns.servers),
            options: config.dns.options.clone(),
            search: config.dns.search.clone(),
            host_gateway_ips: text(&config.dns.host_gateway_ips),
        },
        runtimes: Runtimes { programs: runtimes(on, config), default: containers.default_runtime.clone() },
        isolation: Isolation {
            cgroup_parent: isolation.cgroup_parent.clone(),
            cgroupns_mode: containers.cgroupns_mode.clone(),
            ipc_mode: containers.ipc_mode.clone(),
            time_namespaces: config.engine.features.get("time-namespaces").copied().unwrap_or(true),
            no_new_privileges: isolation.no_new_privileges,
            seccomp_profile: isolation.seccomp_profile.clone(),
        },
        shm_size: containers.shm_size,
        ulimits: ulimits(config),
        stop_timeout: containers.stop_timeout,
        // A wrong one is refused before it comes here.
        start_wait: start_wait(&containers.start_wait).ok().flatten().unwrap_or(engine::START_WAIT),
        init: containers.init,
    }
}

/// How registries are reached. `certs.d` lies beside the configuration file, and where Docker has it.
fn registries(config: &Config) -> registry::Settings {
    let defaults = registry::Settings::default();
    let beside = config.paths.config_file.parent().filter(|dir| !dir.as_os_str().is_empty());
    let mut certs_dirs: Vec<_> = beside.map(|dir| dir.join("certs.d")).into_iter().collect();
    certs_dirs.extend(defaults.certs_dirs.iter().filter(|dir| !certs_dirs.contains(dir)).cloned().collect::<Vec<_>>());
    let given = &config.registry;
    registry::Settings {
        mirrors: given.mirrors.clone(),
        insecure: given.insecure.clone(),
        certs_dirs,
        proxies: registry::Proxies {
            http: given.http_proxy.clone(),
            https: given.https_proxy.clone(),
            none_for: given.no_proxy.clone(),
        },
        user_agent: format!("docker/{} gantry/{}", engine::system::ENGINE_VERSION, engine::system::VERSION),
        ca_bundle: environment("SSL_CERT_FILE").map(Into::into),
        ca_dirs: certificate_dirs(),
        timeouts: registry::Timeouts {
            attempts: u32::try_from(given.max_download_attempts).unwrap_or(1).max(1),
            ..defaults.timeouts
        },
        ..registry::Settings::default()
    }
}

/// A variable of the environment that is not empty.
fn environment(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Directories with certificate authorities, as Go's programs look for them: those of `SSL_CERT_DIR`, separated by colons.
/// Without it the system's, if `SSL_CERT_FILE` stands in for the system's file.
#[expect(clippy::disallowed_methods, reason = "on the main thread")]
fn certificate_dirs() -> Vec<std::path::PathBuf> {
    match environment("SSL_CERT_DIR") {
        Some(dirs) => std::env::split_paths(&dirs).filter(|dir| !dir.as_os_str().is_empty()).collect(),
        None if environment("SSL_CERT_FILE").is_some() => {
            let usual = ["/etc/ssl/certs", "/etc/pki/tls/certs"].map(std::path::PathBuf::from);
            usual.into_iter().filter(|dir| dir.is_dir()).collect()
        }
        None => Vec::new(),
    }
}

fn runtimes(on: &Blocking, config: &Config) -> std::collections::BTreeMap<String, RuntimeProgram> {
    let by_path = config.containers.runtimes.iter().filter(|(_, entry)| !entry.path.is_empty());
    let program = |entry: &crate::config::RuntimeEntry| RuntimeProgram {
        path: entry.path.clone(),
        args: entry.args.clone(),
        features: runtime::features::of_program(on, &entry.path, &entry.args).unwrap_or_default(),
    };
    by_path.map(|(name, entry)| (name.clone(), program(entry))).collect()
}

fn ulimits(config: &Config) -> Vec<api::Ulimit> {
    let limits = config.containers.ulimits.values();
    limits.map(|u| api::Ulimit { name: u.name.clone(), hard: u.hard, soft: u.soft }).collect()
}

fn network(config: &Config) -> NetworkConfig {
    let (bridge, options) = (&config.bridge, &config.network);
    let pools = options.default_address_pools.iter();
    let pools = pools.filter_map(|pool| Some(AddressPool { base: pool.base, size: u8::try_from(pool.size).ok()? }));
    let ipv4 = DefaultFamily { bip: bridge.bip, range: bridge.fixed_cidr, gateway: bridge.default_gateway };
    let ipv6 = DefaultFamily { bip: bridge.bip6, range: bridge.fixed_cidr_v6, gateway: bridge.default_gateway_v6 };
    let defaults = NetworkConfig::default();
    NetworkConfig {
        bridge: Some(bridge.name.clone()).filter(|name| !name.is_empty()),
        ipv4,
        ipv6: bridge.ipv6.then_some(ipv6),
        mtu: u32::try_from(bridge.mtu).ok().filter(|mtu| *mtu > 0).unwrap_or(defaults.mtu),
        icc: bridge.icc.into(),
        ip_masq: options.ip_masq.into(),
        ip_forward: options.ip_forward.into(),
        ip_forward_no_drop: options.ip_forward_no_drop.into(),
        iptables: options.iptables.into(),
        userland_proxy: options.userland_proxy.into(),
        publish_mode: PublishMode::parse(&options.publish_mode).unwrap_or_default(),
        ip6tables: options.ip6tables.into(),
        direct_routing: match environment(network::config::INSECURE).is_some_and(|value| value == "1") {
            true => DirectRouting::Insecure,
            false if options.allow_direct_routing => DirectRouting::Allowed,
            false => DirectRouting::Forbidden,
        },
        default_address_pools: pools.collect(),
        // The engine's id decides.
        local_ipv6: defaults.local_ipv6,
        default_options: options.default_network_opts.clone(),
        accept_mark: mark(&options.bridge_accept_fwmark),
        host_binding_ip: bridge.ip.unwrap_or(defaults.host_binding_ip),
        daemon_addresses: daemon_addresses(config),
        // The exec root decides.
        names: None,
        system_bus: system_bus(),
    }
}

/// Where a firewalld would be found.
fn system_bus() -> Vec<dbus::Address> {
    let told = environment("DBUS_SYSTEM_BUS_ADDRESS");
    told.map_or_else(|| dbus::parse(dbus::DEFAULT), |told| dbus::parse(&told.to_string_lossy()))
}

/// `0x1` or `0x1/0xff`; it was validated with the configuration.
fn mark(text: &str) -> Option<Mark> {
    let number = |text: &str| match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
    let (value, mask) = (number(value)?, number(mask)?);
    Some(Mark { value: value & mask, mask })
}

/// TCP addresses of the daemon's own sockets; a name means all of its addresses.
fn daemon_addresses(config: &Config) -> Vec<SocketAddr> {
    let tcp = config.listen.hosts.iter().filter_map(|host| match host {
        Host::Tcp { host, port } => Some((host.as_str(), *port)),
        _ => None,
    });
    // A name that cannot be looked up is refused where the socket is bound.
    tcp.flat_map(|address| address.to_socket_addrs().into_iter().flatten()).collect()
}

/// Addresses where whoever connects is root.
fn insecure_listeners(config: &Config) -> Vec<String> {
    let verified = config.listen.tls.as_ref().is_some_and(|tls| tls.verify_clients);
    let tcp = config.listen.hosts.iter().filter_map(|host| match host {
        Host::Tcp { host, port } => Some(format!("http://{host}:{port}")),
        _ => None,
    });
    tcp.filter(|_| !verified).collect()
}

/// The API around the engine.
pub fn frame(config: &Config, state: Arc<State>) -> Result<Arc<Frame<State>>> {
    Ok(server::frame(served(config)?, state))
}

/// What the control socket serves around the engine.
pub fn control_frame(config: &Config, state: Arc<State>) -> Result<Arc<Frame<State>>> {
    Ok(server::control_frame(served(config)?, state))
}

/// What the listener for metrics serves.
pub fn metrics_frame(config: &Config, state: Arc<State>) -> Result<Arc<Frame<State>>> {
    Ok(server::metrics_frame(served(config)?, state))
}

fn served(config: &Config) -> Result<server::frame::Config> {
    let version =
        |text: &str| ApiVersion::parse(text).ok_or_else(|| Error::invalid(format!("invalid API version: {text}")));
    Ok(server::frame::Config {
        version: engine::system::ENGINE_VERSION.into(),
        max_api: version(MAX_API_VERSION)?,
        min_api: version(&config.listen.min_api_version)?,
        experimental: config.engine.experimental,
        debug: config.daemon_log.debug,
    })
}
