//! The configuration as plain data, grouped by subject, with the reference's defaults.
//!
//! - Nothing here parses or checks: the rows of `options` write the fields, `validate` and `tls` finish them.
//! - Gantry's own defaults differ from the reference's in two paths only: data root and exec root.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::IpNet;

/// Newest API version that the daemon speaks.
pub const MAX_API_VERSION: &str = "1.56";
/// Oldest API version that `min-api-version` may ask for.
pub const MIN_API_VERSION: &str = "1.24";
/// Default floor of the API version: the oldest, so that every client that can be served is. The reference's is 1.40.
pub const DEFAULT_MIN_API_VERSION: &str = MIN_API_VERSION;

/// The whole configuration, by subject.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where state lives.
    pub paths: Paths,
    /// Where and how the API is served.
    pub listen: Listen,
    /// The daemon's own log.
    pub daemon_log: DaemonLog,
    /// Engine-wide properties and its life cycle.
    pub engine: EngineOptions,
    /// Defaults of containers.
    pub containers: ContainerDefaults,
    /// Kernel-facing defaults of containers.
    pub isolation: Isolation,
    /// Container logs.
    pub log: ContainerLog,
    /// The default bridge.
    pub bridge: Bridge,
    /// Networking of the engine as a whole.
    pub network: NetworkOptions,
    /// Name resolution of containers.
    pub dns: Dns,
    /// Layers and their driver.
    pub storage: Storage,
    /// Registries and transfers.
    pub registry: Registry,
    /// Images that must be signed.
    pub signatures: Signatures,
    /// Options that belong to components which Gantry does not have; accepted so that existing set-ups start.
    pub foreign: Foreign,
}

/// Paths on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// `--config-file`; empty means none was looked for.
    pub config_file: PathBuf,
    /// `--data-root`: persistent state.
    pub data_root: PathBuf,
    /// `--exec-root`: runtime state, gone after a reboot.
    pub exec_root: PathBuf,
    /// `--pidfile`; empty means none is written.
    pub pidfile: PathBuf,
    /// `DOCKER_TMPDIR`, or `<data-root>/tmp`.
    pub tmp_dir: PathBuf,
}

/// One listening address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// `unix://PATH`
    Unix(PathBuf),
    /// `tcp://HOST:PORT`; `host` may be a name or an address (IPv6 without brackets), never empty.
    Tcp { host: String, port: u16 },
    /// `fd://[NAME]`: sockets inherited from the service manager; empty or `*` means all.
    Fd(String),
}

/// Where and how the API is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The addresses as given, blanks removed.
    pub host_specs: Vec<String>,
    /// The addresses, parsed, sorted, without duplicates, at least one.
    pub hosts: Vec<Host>,
    /// Owning group of the unix socket (mode 0660). A missing group only warns when it was not asked for.
    pub group: String,
    /// TLS on tcp listeners; `None` when they are plain.
    pub tls: Option<Tls>,
    /// `--tls=false` or `--tlsverify=false` was said: plain or unverified tcp is meant, no start-up delay.
    pub insecure_tcp_accepted: bool,
    /// Raw `--tls`, when given anywhere.
    pub tls_flag: Option<bool>,
    /// Raw `--tlsverify`, when given anywhere.
    pub tlsverify_flag: Option<bool>,
    /// Raw `--tlscacert`; empty when not given.
    pub tlscacert: String,
    /// Raw `--tlscert`; empty when not given.
    pub tlscert: String,
    /// Raw `--tlskey`; empty when not given.
    pub tlskey: String,
    /// Lowest API version served, `1.NN`.
    pub min_api_version: String,
}

/// Certificates of the tcp listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// CA whose client certificates are accepted.
    pub ca: PathBuf,
    /// Server certificate chain (PEM).
    pub cert: PathBuf,
    /// Server key (PEM).
    pub key: PathBuf,
    /// Clients must present a certificate signed by `ca`.
    pub verify_clients: bool,
}

/// The daemon's own log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonLog {
    /// `--debug`: debug level and debug routes.
    pub debug: bool,
    /// `trace|debug|info|warn|error|fatal|panic`, lower case.
    pub level: String,
    /// `text` or `json`.
    pub format: String,
    /// No colour, full timestamps.
    pub raw: bool,
}

/// Engine-wide properties and its life cycle.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineOptions {
    /// `key=value` labels shown by `docker info`.
    pub labels: Vec<String>,
    /// Feature switches; a missing name is a third state.
    pub features: BTreeMap<String, bool>,
    /// Experimental routes and header.
    pub experimental: bool,
    /// Containers keep running when the daemon stops gracefully. False stops them, as in the reference.
    pub live_restore: bool,
    /// Seconds that a graceful shutdown waits for containers; negative means for ever.
    pub shutdown_timeout: i64,
    /// Authorisation plugins, in order.
    pub authorization_plugins: Vec<String>,
    /// `host:port` of the metrics listener; empty means off.
    pub metrics_addr: String,
    /// Swarm generic resources, `name=value`.
    pub node_generic_resources: Vec<String>,
    /// Address or interface that `swarm init` advertises.
    pub swarm_default_advertise_addr: String,
    /// Runs without root privileges.
    pub rootless: bool,
    /// Deprecated: containers are restarted at start-up.
    pub auto_restart: bool,
}

/// One entry of `runtimes`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuntimeEntry {
    /// OCI command line program: a path or a name looked up in `PATH`.
    pub path: String,
    /// Arguments put before the command (`path` form only).
    pub args: Vec<String>,
    /// Shim type (the other form); empty for the `path` form.
    pub runtime_type: String,
    /// Options of the shim.
    pub options: Option<serde_json::Value>,
}

/// Soft and hard limit by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UlimitEntry {
    /// Limit's name, such as `nofile`.
    pub name: String,
    /// Hard limit; -1 is unlimited.
    pub hard: i64,
    /// Soft limit; -1 is unlimited.
    pub soft: i64,
}

/// Defaults of containers.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerDefaults {
    /// Extra runtimes by name; `runc` (the built-in one) is reserved.
    pub runtimes: BTreeMap<String, RuntimeEntry>,
    /// Runtime of containers that name none.
    pub default_runtime: String,
    /// `HostConfig.Init` of containers that do not say.
    pub init: bool,
    /// Program bound at `/sbin/docker-init`; empty means Gantry's own.
    pub init_path: String,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: i64,
    /// Limits merged into containers that do not set them.
    pub ulimits: BTreeMap<String, UlimitEntry>,
    /// `private` or `shareable`.
    pub ipc_mode: String,
    /// `private` or `host`; empty means by the host's cgroup version.
    pub cgroupns_mode: String,
    /// Seconds between the stop signal and SIGKILL for containers that do not say.
    pub stop_timeout: i64,
    /// A duration: how long containers wait at the daemon's start for those that they need; empty means the default.
    pub start_wait: String,
    /// Directories of CDI specifications.
    pub cdi_spec_dirs: Vec<String>,
}

/// Kernel-facing defaults of containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolation {
    /// Parent cgroup; empty means the default (`/docker`).
    pub cgroup_parent: String,
    /// `native.cgroupdriver=…`
    pub exec_opts: Vec<String>,
    /// `builtin`, `unconfined` or a file.
    pub seccomp_profile: String,
    /// `no_new_privs` of containers that do not say.
    pub no_new_privileges: bool,
    /// SELinux labelling.
    pub selinux_enabled: bool,
    /// `default`, `user` or `user:group`; empty means off.
    pub userns_remap: String,
    /// Real-time period of the parent cgroup, µs.
    pub cpu_rt_period: i64,
    /// Real-time runtime of the parent cgroup, µs.
    pub cpu_rt_runtime: i64,
}

/// Container logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerLog {
    /// Default log driver.
    pub driver: String,
    /// Options of the default driver.
    pub opts: BTreeMap<String, String>,
}

/// The default bridge network (`docker0`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// An existing bridge to use, `none` for no default network, empty for `docker0`.
    pub name: String,
    /// Its IPv4 address with prefix length.
    pub bip: Option<IpNet>,
    /// Its IPv6 address with prefix length.
    pub bip6: Option<IpNet>,
    /// IPv4 range for containers.
    pub fixed_cidr: Option<IpNet>,
    /// IPv6 subnet.
    pub fixed_cidr_v6: Option<IpNet>,
    /// IPv4 gateway of containers; `None` means the bridge's address.
    pub default_gateway: Option<IpAddr>,
    /// IPv6 gateway of containers.
    pub default_gateway_v6: Option<IpAddr>,
    /// IPv6 on the default bridge.
    pub ipv6: bool,
    /// MTU.
    pub mtu: i64,
    /// Containers may talk to each other.
    pub icc: bool,
    /// Host address of published ports.
    pub ip: Option<IpAddr>,
}

/// A pool that user networks are cut from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPool {
    /// The pool.
    pub base: IpNet,
    /// Prefix length of each network.
    pub size: i64,
}

/// Networking of the engine as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkOptions {
    /// Manage the IPv4 firewall.
    pub iptables: bool,
    /// Manage the IPv6 firewall.
    pub ip6tables: bool,
    /// Turn on forwarding.
    pub ip_forward: bool,
    /// Do not set the forward policy to drop when turning forwarding on.
    pub ip_forward_no_drop: bool,
    /// Masquerade the default bridge.
    pub ip_masq: bool,
    /// `iptables`, `nftables` or empty.
    pub firewall_backend: String,
    /// Serve published ports on loopback by a proxy.
    pub userland_proxy: bool,
    /// `translate`, `host-firewall` or empty, which is the former; Gantry's own key `publish-mode`.
    pub publish_mode: String,
    /// Path of a proxy program; checked, then ignored: the monitor is the proxy.
    pub userland_proxy_path: String,
    /// Remote hosts may reach container addresses directly.
    pub allow_direct_routing: bool,
    /// `mark[/mask]` of packets that bridges accept.
    pub bridge_accept_fwmark: String,
    /// Pools of user networks; empty means the built-in ones.
    pub default_address_pools: Vec<AddressPool>,
    /// Driver options of new networks, by driver.
    pub default_network_opts: BTreeMap<String, BTreeMap<String, String>>,
    /// MTU of the swarm control plane.
    pub control_plane_mtu: i64,
    /// TCP port of the network diagnostic server; 0 is off.
    pub diagnostic_port: i64,
}

/// Name resolution of containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Servers.
    pub servers: Vec<IpAddr>,
    /// `options` of resolv.conf.
    pub options: Vec<String>,
    /// Search domains; `.` for none.
    pub search: Vec<String>,
    /// What `host-gateway` means: at most one per family; empty means the bridge's addresses.
    pub host_gateway_ips: Vec<IpAddr>,
}

/// Layers and their driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Driver's name; empty means automatic. `DOCKER_DRIVER` overrides.
    pub driver: String,
    /// Driver options.
    pub opts: Vec<String>,
    /// Rules of the garbage collector of images, as given; null: it is off.
    pub image_gc: serde_json::Value,
    /// Clients of the API make and list secrets and configs.
    pub local_secrets: bool,
    /// Where the key of secrets lies; empty: in the data root.
    pub secrets_key_file: String,
    /// Schedules of snapshots of volumes, as given; null: there are none.
    pub volume_snapshots: serde_json::Value,
    /// Sizes of volumes at which somebody is told, as given; null: nobody is.
    pub volume_alarms: serde_json::Value,
}

/// Registries and transfers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// Mirrors of Docker Hub, each ending in `/`.
    pub mirrors: Vec<String>,
    /// Registries without verified TLS.
    pub insecure: Vec<String>,
    /// Parallel downloads.
    pub max_concurrent_downloads: i64,
    /// Parallel uploads.
    pub max_concurrent_uploads: i64,
    /// Attempts of one download.
    pub max_download_attempts: i64,
    /// Proxy for http; from the file, a flag or `HTTP_PROXY`.
    pub http_proxy: String,
    /// Proxy for https; from the file, a flag or `HTTPS_PROXY`.
    pub https_proxy: String,
    /// Hosts without a proxy; from the file, a flag or `NO_PROXY`.
    pub no_proxy: String,
}

/// Images that must be signed: Gantry's own key `signature-policy`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signatures {
    /// By registry, or by a repository's name or the beginning of it: the files of the keys that may sign.
    pub rules: BTreeMap<String, Vec<PathBuf>>,
    /// The same with the keys read.
    pub policy: signature::Policy,
}

/// Options of components that Gantry does not have (containerd, BuildKit's settings, NRI).
#[derive(Clone, Debug, PartialEq)]
pub struct Foreign {
    /// `--containerd`
    pub containerd: String,
    /// `--containerd-namespace`
    pub containerd_namespace: String,
    /// `--containerd-plugins-namespace`
    pub containerd_plugins_namespace: String,
    /// `--cri-containerd`
    pub cri_containerd: bool,
    /// `builder` object of the file.
    pub builder: serde_json::Value,
    /// `nri-opts`
    pub nri: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            paths: Paths::default(),
            listen: Listen::default(),
            daemon_log: DaemonLog { debug: false, level: "info".into(), format: "text".into(), raw: false },
            engine: EngineOptions::default(),
            containers: ContainerDefaults::default(),
            isolation: Isolation::default(),
            log: ContainerLog { driver: "json-file".into(), opts: BTreeMap::new() },
            bridge: Bridge::default(),
            network: NetworkOptions::default(),
            dns: Dns { servers: vec![], options: vec![], search: vec![], host_gateway_ips: vec![] },
            storage: Storage {
                driver: String::new(),
                opts: vec![],
                image_gc: serde_json::Value::Null,
                local_secrets: false,
                secrets_key_file: String::new(),
                volume_snapshots: serde_json::Value::Null,
                volume_alarms: serde_json::Value::Null,
            },
            registry: Registry::default(),
            signatures: Signatures::default(),
            foreign: Foreign::default(),
        }
    }
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            config_file: "/etc/docker/daemon.json".into(),
            data_root: "/var/lib/gantry".into(),
            exec_root: "/run/gantry".into(),
            pidfile: "/var/run/docker.pid".into(),
            tmp_dir: PathBuf::new(),
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            host_specs: vec![],
            hosts: vec![],
            group: "docker".into(),
            tls: None,
            insecure_tcp_accepted: false,
            tls_flag: None,
            tlsverify_flag: None,
            tlscacert: String::new(),
            tlscert: String::new(),
            tlskey: String::new(),
            min_api_version: DEFAULT_MIN_API_VERSION.into(),
        }
    }
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            labels: vec![],
            features: BTreeMap::new(),
            experimental: false,
            live_restore: false,
            shutdown_timeout: 15,
            authorization_plugins: vec![],
            metrics_addr: String::new(),
            node_generic_resources: vec![],
            swarm_default_advertise_addr: String::new(),
            rootless: false,
            auto_restart: true,
        }
    }
}

impl Default for ContainerDefaults {
    fn default() -> Self {
        Self {
            runtimes: BTreeMap::new(),
            default_runtime: "runc".into(),
            init: false,
            init_path: String::new(),
            shm_size: 64 << 20,
            ulimits: BTreeMap::new(),
            ipc_mode: "private".into(),
            cgroupns_mode: String::new(),
            stop_timeout: 10,
            start_wait: String::new(),
            cdi_spec_dirs: vec![],
        }
    }
}

impl Default for Isolation {
    fn default() -> Self {
        Self {
            cgroup_parent: String::new(),
            exec_opts: vec![],
            seccomp_profile: "builtin".into(),
            no_new_privileges: false,
            selinux_enabled: false,
            userns_remap: String::new(),
            cpu_rt_period: 0,
            cpu_rt_runtime: 0,
        }
    }
}

impl Default for Bridge {
    fn default() -> Self {
        Self {
            name: String::new(),
            bip: None,
            bip6: None,
            fixed_cidr: None,
            fixed_cidr_v6: None,
            default_gateway: None,
            default_gateway_v6: None,
            ipv6: false,
            mtu: 1500,
            icc: true,
            ip: Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        }
    }
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self {
            iptables: true,
            ip6tables: true,
            ip_forward: true,
            ip_forward_no_drop: false,
            ip_masq: true,
            firewall_backend: String::new(),
            userland_proxy: true,
            publish_mode: String::new(),
            userland_proxy_path: String::new(),
            allow_direct_routing: false,
            bridge_accept_fwmark: String::new(),
            default_address_pools: vec![],
            default_network_opts: BTreeMap::new(),
            control_plane_mtu: 1500,
            diagnostic_port: 0,
        }
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            mirrors: vec![],
            insecure: vec![],
            max_concurrent_downloads: 3,
            max_concurrent_uploads: 5,
            max_download_attempts: 5,
            http_proxy: String::new(),
            https_proxy: String::new(),
            no_proxy: String::new(),
        }
    }
}

impl Default for Foreign {
    fn default() -> Self {
        Self {
            containerd: String::new(),
            containerd_namespace: "moby".into(),
            containerd_plugins_namespace: "plugins.moby".into(),
            cri_containerd: false,
            builder: serde_json::Value::Null,
            nri: BTreeMap::new(),
        }
    }
}
