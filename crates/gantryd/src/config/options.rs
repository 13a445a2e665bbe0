//! The table of the daemon's options: one row each, and the only place that knows them all.
//!
//! - A row names the flag, its short form, the key in `daemon.json` and the field it writes; defaults stand in `settings`.
//! - `""` for a flag or key means there is none.
//! - The order is the order of `--help` (alphabetical by flag).

use super::Config;
use super::parse::{self, Slot};

/// One option.
pub struct Row {
    /// Long flag without dashes.
    pub flag: &'static str,
    /// Short flag.
    pub short: Option<char>,
    /// Key in `daemon.json`.
    pub key: &'static str,
    /// What it holds and which field it writes.
    pub slot: Slot,
    /// Sentence for `--help`.
    pub doc: &'static str,
    /// What SIGHUP does.
    pub reload: Reload,
    /// Whether anything reads it yet.
    pub effect: Effect,
}

/// What a reload does with an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Nothing: it needs a restart.
    No,
    /// Takes the file's value; keeps the running one when the file has none.
    Keep,
    /// Takes the file's value; back to the default when the file has none.
    Reset,
}

/// Whether an option does something in this version; if not, whether it may be ignored.
#[derive(Clone, Copy, Debug)]
pub enum Effect {
    /// It works.
    Now,
    /// Nothing reads it yet, and ignoring it is harmless for this reason: accepted with a warning.
    Harmless(&'static str),
    /// Nothing reads it yet, and it protects or limits something: refused by name while `asks` says that the configuration
    /// asks for it.
    Refused {
        /// Whether the configuration asks for what is not there.
        asks: fn(&Config) -> bool,
        /// What a daemon that ignored it would do.
        why: &'static str,
    },
    /// It belongs to a component that Gantry replaces: ignored with a warning.
    Never,
    /// Without meaning here, or what Gantry does anyway: ignored silently.
    Silent,
}

/// The row of a long flag.
#[must_use]
pub fn by_flag(flag: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| !row.flag.is_empty() && row.flag == flag)
}

/// The row of a short flag.
#[must_use]
pub fn by_short(short: char) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.short == Some(short))
}

/// The row of a key in `daemon.json`.
#[must_use]
pub fn by_key(key: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| !row.key.is_empty() && row.key == key)
}

const fn row(flag: &'static str, key: &'static str, slot: Slot, doc: &'static str) -> Row {
    Row { flag, short: None, key, slot, doc, reload: Reload::No, effect: Effect::Now }
}

impl Row {
    const fn short(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }
    const fn keep(mut self) -> Self {
        self.reload = Reload::Keep;
        self
    }
    const fn reset(mut self) -> Self {
        self.reload = Reload::Reset;
        self
    }
    const fn harmless(mut self, why: &'static str) -> Self {
        self.effect = Effect::Harmless(why);
        self
    }
    const fn refused(mut self, asks: fn(&Config) -> bool, why: &'static str) -> Self {
        self.effect = Effect::Refused { asks, why };
        self
    }
    const fn never(mut self) -> Self {
        self.effect = Effect::Never;
        self
    }
    const fn silent(mut self) -> Self {
        self.effect = Effect::Silent;
        self
    }
}

use Slot::{
    Bool, Bytes, Cidr, Command, Features, Int, Ip, IpList, Json, List, Map, MapMap, Nri, OptBool, Path, Pools,
    Runtimes, Signatures, Text, Ulimits,
};

/// Every option.
#[rustfmt::skip]
pub static TABLE: &[Row] = &[
    row("add-runtime", "runtimes", Runtimes(|c| &mut c.containers.runtimes), "Register an additional OCI compatible runtime").keep(),
    row("allow-direct-routing", "allow-direct-routing", Bool(|c| &mut c.network.allow_direct_routing), "Allow remote access to published ports on container IP addresses"),
    row("authorization-plugin", "authorization-plugins", List(|c| &mut c.engine.authorization_plugins, parse::any), "Authorization plugins to load").keep().refused(|c| !c.engine.authorization_plugins.is_empty(), "requests that the plugin forbids would be served"),
    row("bip", "bip", Cidr(|c| &mut c.bridge.bip), "IPv4 address for the default bridge"),
    row("bip6", "bip6", Cidr(|c| &mut c.bridge.bip6), "IPv6 address for the default bridge"),
    row("bridge", "bridge", Text(|c| &mut c.bridge.name), "Attach containers to a network bridge").short('b'),
    row("bridge-accept-fwmark", "bridge-accept-fwmark", Text(|c| &mut c.network.bridge_accept_fwmark), "In bridge networks, accept packets with this firewall mark/mask"),
    row("cdi-spec-dir", "cdi-spec-dirs", List(|c| &mut c.containers.cdi_spec_dirs, parse::any), "CDI specification directories to use").harmless("devices of CDI are refused"),
    row("cgroup-parent", "cgroup-parent", Text(|c| &mut c.isolation.cgroup_parent), "Set parent cgroup for all containers"),
    row("config-file", "", Command, "Daemon configuration file"),
    row("containerd", "containerd", Text(|c| &mut c.foreign.containerd), "containerd grpc address").never(),
    row("containerd-namespace", "containerd-namespace", Text(|c| &mut c.foreign.containerd_namespace), "Containerd namespace to use").never(),
    row("containerd-plugins-namespace", "containerd-plugins-namespace", Text(|c| &mut c.foreign.containerd_plugins_namespace), "Containerd namespace to use for plugins").never(),
    row("cpu-rt-period", "cpu-rt-period", Int(|c| &mut c.isolation.cpu_rt_period), "Limit the CPU real-time period in microseconds for the parent cgroup for all containers (not supported with cgroups v2)").refused(|c| c.isolation.cpu_rt_period != 0, "the real-time limit of all containers would not hold"),
    row("cpu-rt-runtime", "cpu-rt-runtime", Int(|c| &mut c.isolation.cpu_rt_runtime), "Limit the CPU real-time runtime in microseconds for the parent cgroup for all containers (not supported with cgroups v2)").refused(|c| c.isolation.cpu_rt_runtime != 0, "the real-time limit of all containers would not hold"),
    row("cri-containerd", "cri-containerd", Bool(|c| &mut c.foreign.cri_containerd), "start containerd with cri").never(),
    row("data-root", "data-root", Path(|c| &mut c.paths.data_root), "Root directory of persistent Docker state"),
    row("debug", "debug", Bool(|c| &mut c.daemon_log.debug), "Enable debug mode").short('D').keep(),
    row("default-address-pool", "default-address-pools", Pools(|c| &mut c.network.default_address_pools), "Default address pools for node specific local networks"),
    row("default-cgroupns-mode", "default-cgroupns-mode", Text(|c| &mut c.containers.cgroupns_mode), "Default mode for containers cgroup namespace (\"host\" | \"private\")").keep(),
    row("default-gateway", "default-gateway", Ip(|c| &mut c.bridge.default_gateway), "Default gateway IPv4 address for the default bridge network"),
    row("default-gateway-v6", "default-gateway-v6", Ip(|c| &mut c.bridge.default_gateway_v6), "Default gateway IPv6 address for the default bridge network"),
    row("default-ipc-mode", "default-ipc-mode", Text(|c| &mut c.containers.ipc_mode), "Default mode for containers ipc (\"shareable\" | \"private\")").keep(),
    row("default-network-opt", "default-network-opts", MapMap(|c| &mut c.network.default_network_opts), "Default network options"),
    row("default-runtime", "default-runtime", Text(|c| &mut c.containers.default_runtime), "Default OCI runtime for containers").keep(),
    row("default-shm-size", "default-shm-size", Bytes(|c| &mut c.containers.shm_size), "Default shm size for containers").keep(),
    row("default-stop-timeout", "default-stop-timeout", Int(|c| &mut c.containers.stop_timeout), "Set the default container stop timeout in seconds (0 to terminate immediately)").keep(),
    row("default-ulimit", "default-ulimits", Ulimits(|c| &mut c.containers.ulimits), "Default ulimits for containers"),
    row("dns", "dns", IpList(|c| &mut c.dns.servers), "DNS server to use"),
    row("dns-opt", "dns-opts", List(|c| &mut c.dns.options, parse::dns_option), "DNS options to use"),
    row("dns-search", "dns-search", List(|c| &mut c.dns.search, parse::dns_search), "DNS search domains to use"),
    row("exec-opt", "exec-opts", List(|c| &mut c.isolation.exec_opts, parse::any), "Runtime execution options"),
    row("exec-root", "exec-root", Path(|c| &mut c.paths.exec_root), "Root directory for execution state files"),
    row("experimental", "experimental", Bool(|c| &mut c.engine.experimental), "Enable experimental features"),
    row("feature", "features", Features(|c| &mut c.engine.features), "Enable feature in the daemon").reset(),
    row("firewall-backend", "firewall-backend", Text(|c| &mut c.network.firewall_backend), "Firewall backend to use, iptables or nftables"),
    row("fixed-cidr", "fixed-cidr", Cidr(|c| &mut c.bridge.fixed_cidr), "IPv4 subnet for the default bridge network"),
    row("fixed-cidr-v6", "fixed-cidr-v6", Cidr(|c| &mut c.bridge.fixed_cidr_v6), "IPv6 subnet for the default bridge network"),
    row("group", "group", Text(|c| &mut c.listen.group), "Group for the unix socket").short('G'),
    row("help", "", Command, "Print usage").short('h'),
    row("host", "hosts", List(|c| &mut c.listen.host_specs, parse::host), "Daemon socket(s) to connect to").short('H'),
    row("host-gateway-ip", "host-gateway-ips", IpList(|c| &mut c.dns.host_gateway_ips), "IP addresses that the special 'host-gateway' string in --add-host resolves to. Defaults to the IP addresses of the default bridge"),
    row("http-proxy", "http-proxy", Text(|c| &mut c.registry.http_proxy), "HTTP proxy URL to use for outgoing traffic"),
    row("https-proxy", "https-proxy", Text(|c| &mut c.registry.https_proxy), "HTTPS proxy URL to use for outgoing traffic"),
    row("icc", "icc", Bool(|c| &mut c.bridge.icc), "Enable inter-container communication for the default bridge network"),
    row("init", "init", Bool(|c| &mut c.containers.init), "Run an init in the container to forward signals and reap processes"),
    row("init-path", "init-path", Text(|c| &mut c.containers.init_path), "Path to the docker-init binary").never(),
    row("insecure-registry", "insecure-registries", List(|c| &mut c.registry.insecure, parse::index_name), "Enable insecure registry communication").keep(),
    row("ip", "ip", Ip(|c| &mut c.bridge.ip), "Host IP for port publishing from the default bridge network"),
    row("ip-forward", "ip-forward", Bool(|c| &mut c.network.ip_forward), "Enable IP forwarding in system configuration"),
    row("ip-forward-no-drop", "ip-forward-no-drop", Bool(|c| &mut c.network.ip_forward_no_drop), "Do not set the filter-FORWARD policy to DROP when enabling IP forwarding"),
    row("ip-masq", "ip-masq", Bool(|c| &mut c.network.ip_masq), "Enable IP masquerading for the default bridge network"),
    row("ip6tables", "ip6tables", Bool(|c| &mut c.network.ip6tables), "Enable addition of ip6tables rules"),
    row("iptables", "iptables", Bool(|c| &mut c.network.iptables), "Enable addition of iptables rules"),
    row("ipv6", "ipv6", Bool(|c| &mut c.bridge.ipv6), "Enable IPv6 networking for the default bridge network"),
    row("label", "labels", List(|c| &mut c.engine.labels, parse::label), "Set key=value labels to the daemon").keep(),
    row("live-restore", "live-restore", Bool(|c| &mut c.engine.live_restore), "Enable live restore of docker when containers are still running").keep(),
    row("log-driver", "log-driver", Text(|c| &mut c.log.driver), "Default driver for container logs"),
    row("log-format", "log-format", Text(|c| &mut c.daemon_log.format), "Set the logging format (\"text\"|\"json\")"),
    row("log-level", "log-level", Text(|c| &mut c.daemon_log.level), "Set the logging level (\"debug\"|\"info\"|\"warn\"|\"error\"|\"fatal\")").short('l'),
    row("log-opt", "log-opts", Map(|c| &mut c.log.opts), "Default log driver options for containers"),
    row("max-concurrent-downloads", "max-concurrent-downloads", Int(|c| &mut c.registry.max_concurrent_downloads), "Set the max concurrent downloads").reset(),
    row("max-concurrent-uploads", "max-concurrent-uploads", Int(|c| &mut c.registry.max_concurrent_uploads), "Set the max concurrent uploads").reset(),
    row("max-download-attempts", "max-download-attempts", Int(|c| &mut c.registry.max_download_attempts), "Set the max download attempts for each pull").reset(),
    row("metrics-addr", "metrics-addr", Text(|c| &mut c.engine.metrics_addr), "Set default address and port to serve the metrics api on"),
    row("mtu", "mtu", Int(|c| &mut c.bridge.mtu), "Set the MTU for the default \"bridge\" network"),
    row("network-control-plane-mtu", "network-control-plane-mtu", Int(|c| &mut c.network.control_plane_mtu), "Network Control plane MTU").harmless("there is no swarm"),
    row("network-diagnostic-port", "network-diagnostic-port", Int(|c| &mut c.network.diagnostic_port), "").harmless("no diagnostic server is started"),
    row("no-new-privileges", "no-new-privileges", Bool(|c| &mut c.isolation.no_new_privileges), "Set no-new-privileges by default for new containers"),
    row("no-proxy", "no-proxy", Text(|c| &mut c.registry.no_proxy), "Comma-separated list of hosts or IP addresses for which the proxy is skipped"),
    row("node-generic-resource", "node-generic-resources", List(|c| &mut c.engine.node_generic_resources, parse::generic_resource), "Advertise user-defined resource").harmless("there is no swarm"),
    row("nri-opts", "nri-opts", Nri(|c| &mut c.foreign.nri), "Node Resource Interface configuration").reset().refused(asks_for_nri, "containers would run without what the plugins impose"),
    row("pidfile", "pidfile", Path(|c| &mut c.paths.pidfile), "Path to use for daemon PID file").short('p'),
    row("raw-logs", "raw-logs", Bool(|c| &mut c.daemon_log.raw), "Full timestamps without ANSI coloring").silent(),
    row("registry-mirror", "registry-mirrors", List(|c| &mut c.registry.mirrors, parse::mirror), "Preferred Docker registry mirror").keep(),
    row("restart", "", Bool(|c| &mut c.engine.auto_restart), "").short('r').silent(),
    row("rootless", "rootless", Bool(|c| &mut c.engine.rootless), "Enable rootless mode; typically used with RootlessKit").refused(|c| c.engine.rootless, "the daemon and its containers would have the rights of root"),
    row("seccomp-profile", "seccomp-profile", Text(|c| &mut c.isolation.seccomp_profile), "Path to seccomp profile. Set to \"unconfined\" to disable the default seccomp profile"),
    row("selinux-enabled", "selinux-enabled", Bool(|c| &mut c.isolation.selinux_enabled), "Enable selinux support").refused(|c| c.isolation.selinux_enabled, "containers would run without labels"),
    row("shutdown-timeout", "shutdown-timeout", Int(|c| &mut c.engine.shutdown_timeout), "Set the default shutdown timeout").keep(),
    row("storage-driver", "storage-driver", Text(|c| &mut c.storage.driver), "Storage driver to use").short('s'),
    row("storage-opt", "storage-opts", List(|c| &mut c.storage.opts, parse::any), "Storage driver options").refused(asks_for_storage_options, "limits of the storage driver would not hold"),
    row("swarm-default-advertise-addr", "swarm-default-advertise-addr", Text(|c| &mut c.engine.swarm_default_advertise_addr), "Set default address or interface for swarm advertised address").harmless("there is no swarm"),
    row("tls", "tls", OptBool(|c| &mut c.listen.tls_flag), "Use TLS; implied by --tlsverify"),
    row("tlscacert", "tlscacert", Text(|c| &mut c.listen.tlscacert), "Trust certs signed only by this CA"),
    row("tlscert", "tlscert", Text(|c| &mut c.listen.tlscert), "Path to TLS certificate file"),
    row("tlskey", "tlskey", Text(|c| &mut c.listen.tlskey), "Path to TLS key file"),
    row("tlsverify", "tlsverify", OptBool(|c| &mut c.listen.tlsverify_flag), "Use TLS and verify the remote"),
    row("userland-proxy", "userland-proxy", Bool(|c| &mut c.network.userland_proxy), "Use userland proxy for loopback traffic"),
    row("userland-proxy-path", "userland-proxy-path", Text(|c| &mut c.network.userland_proxy_path), "Path to the userland proxy binary").never(),
    row("userns-remap", "userns-remap", Text(|c| &mut c.isolation.userns_remap), "User/Group setting for user namespaces").refused(|c| !c.isolation.userns_remap.is_empty(), "root in a container would be the host's root"),
    row("validate", "", Command, "Validate daemon configuration and exit"),
    row("version", "", Command, "Print version information and quit").short('v'),
    // Keys of the file without a flag.
    row("", "image-gc", Json(|c| &mut c.storage.image_gc), "Rules of the garbage collector of images").reset(),
    row("", "local-secrets", Bool(|c| &mut c.storage.local_secrets), "Serve secrets and configs of this host by the API").reset(),
    row("", "secrets-key-file", Text(|c| &mut c.storage.secrets_key_file), "Key that secrets and configs are encrypted with").reset(),
    row("", "start-wait", Text(|c| &mut c.containers.start_wait), "How long a container waits at the daemon's start for those that it needs"),
    row("", "volume-alarms", Json(|c| &mut c.storage.volume_alarms), "Sizes of volumes at which an event tells of them").reset(),
    row("", "volume-snapshots", Json(|c| &mut c.storage.volume_snapshots), "Schedules of snapshots of volumes").reset(),
    row("", "min-api-version", Text(|c| &mut c.listen.min_api_version), "Lowest API version served"),
    row("", "publish-mode", Text(|c| &mut c.network.publish_mode), "How packets come to published ports, translate or host-firewall"),
    row("", "signature-policy", Signatures(|c| &mut c.signatures), "Keys that images of a registry must be signed with").reset(),
    row("", "builder", Json(|c| &mut c.foreign.builder), "Settings of the builder").reset(),
    row("", "allow-nondistributable-artifacts", Command, "Deprecated").silent(),
    row("", "deprecated-key-path", Command, "Deprecated").silent(),
];

/// The Node Resource Interface is off unless it is switched on.
fn asks_for_nri(config: &Config) -> bool {
    config.foreign.nri.get("enable").is_some_and(|on| super::go::parse_bool(on).unwrap_or(true))
}

/// Options of storage drivers that bound nothing: old set-ups switch a check of the kernel's version off.
const HARMLESS_STORAGE_OPTIONS: [&str; 2] = ["overlay2.override_kernel_check", "overlay.override_kernel_check"];

fn asks_for_storage_options(config: &Config) -> bool {
    let name = |option: &str| option.split('=').next().unwrap_or_default().trim().to_ascii_lowercase();
    config.storage.opts.iter().any(|option| !HARMLESS_STORAGE_OPTIONS.contains(&name(option).as_str()))
}

/// Prints an option's value in `config` as the reference prints the flag's value.
#[must_use]
pub fn printed(row: &Row, config: &Config) -> String {
    parse::print(&row.slot, &mut config.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique() {
        for names in [
            TABLE.iter().map(|r| r.flag.to_string()).collect::<Vec<_>>(),
            TABLE.iter().map(|r| r.key.to_string()).collect(),
            TABLE.iter().filter_map(|r| r.short).map(String::from).collect(),
        ] {
            let mut seen = HashSet::new();
            for name in names.iter().filter(|n| !n.is_empty()) {
                assert!(seen.insert(name), "{name} twice");
            }
        }
    }

    /// A row that says `Now` names a field that something reads which acts on it.
    #[test]
    fn what_has_an_effect_is_read() {
        // The one value that has an effect is what is done anyway; of the others each has its own verdict.
        const BY_VALUE: [&str; 1] = ["isolation.exec_opts"];
        let src = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let readers = ["wiring.rs", "daemon.rs", "listen.rs", "control.rs", "config/load.rs", "config/tls.rs"];
        let text: String =
            readers.iter().map(|file| std::fs::read_to_string(src.join(file)).expect("own source")).collect();
        let rows = std::fs::read_to_string(src.join("config/options.rs")).expect("own source");
        let rows = rows.lines().filter(|line| line.starts_with("    row("));
        let mut read = 0;
        for (line, row) in rows.zip(TABLE) {
            assert!(line.contains(&format!("row({:?}, {:?},", row.flag, row.key)), "{line}");
            let field = line.split_once("&mut c.").map(|(_, rest)| rest.split([')', ',']).next().unwrap_or_default());
            let (Effect::Now, Some(field)) = (row.effect, field) else { continue };
            let name = field.rsplit('.').next().unwrap_or_default();
            let is_word =
                |at: usize| !text[at + name.len() + 1..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
            let found = text.match_indices(&format!(".{name}")).any(|(at, _)| is_word(at));
            assert!(found || BY_VALUE.contains(&field), "{} is said to have an effect", row.flag);
            read += 1;
        }
        assert!(read > 50, "{read}");
    }

    #[test]
    fn flags_stand_in_alphabetical_order() {
        let flags: Vec<_> = TABLE.iter().map(|r| r.flag).filter(|f| !f.is_empty()).collect();
        assert!(flags.is_sorted(), "{flags:?}");
    }
}
