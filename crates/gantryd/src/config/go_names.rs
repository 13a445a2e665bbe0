//! What the reference's decoder calls the options of `daemon.json`: the structs that embed them and their declared types.

/// Embedded structs with their options. What is not listed stands in the outermost one.
const EMBEDDED: &[(&str, &[&str])] = &[
    (
        "CommonConfig",
        &[
            "authorization-plugins",
            "exec-opts",
            "storage-driver",
            "storage-opts",
            "labels",
            "network-diagnostic-port",
            "pidfile",
            "data-root",
            "exec-root",
            "group",
            "live-restore",
            "max-concurrent-downloads",
            "max-concurrent-uploads",
            "max-download-attempts",
            "shutdown-timeout",
            "debug",
            "hosts",
            "tls",
            "tlsverify",
            "swarm-default-advertise-addr",
            "metrics-addr",
            "experimental",
            "node-generic-resources",
            "containerd",
            "cri-containerd",
            "features",
            "builder",
            "containerd-namespace",
            "default-runtime",
            "cdi-spec-dirs",
            "nri-opts",
            "min-api-version",
        ],
    ),
    ("CommonConfig.proxies", &["http-proxy", "https-proxy", "no-proxy"]),
    ("CommonConfig.DaemonLogConfig", &["log-level", "log-format", "raw-logs"]),
    ("CommonConfig.TLSOptions", &["tlscacert", "tlscert", "tlskey"]),
    ("CommonConfig.DNSConfig", &["dns", "dns-opts", "dns-search", "host-gateway-ips"]),
    ("CommonConfig.ContainerDefaults", &["default-stop-timeout"]),
    ("CommonConfig.LogConfig", &["log-driver", "log-opts"]),
    (
        "CommonConfig.BridgeConfig",
        &[
            "iptables",
            "ip6tables",
            "ip-forward",
            "ip-forward-no-drop",
            "ip-masq",
            "userland-proxy",
            "userland-proxy-path",
            "allow-direct-routing",
            "bridge-accept-fwmark",
        ],
    ),
    (
        "CommonConfig.BridgeConfig.DefaultBridgeConfig",
        &["ipv6", "fixed-cidr-v6", "mtu", "ip", "bip", "bip6", "default-gateway", "default-gateway-v6", "icc"],
    ),
    ("CommonConfig.BridgeConfig.DefaultBridgeConfig.commonBridgeConfig", &["bridge", "fixed-cidr"]),
    (
        "CommonConfig.NetworkConfig",
        &["default-address-pools", "network-control-plane-mtu", "default-network-opts", "firewall-backend"],
    ),
    ("CommonConfig.ServiceOptions", &["registry-mirrors", "insecure-registries"]),
];

/// Options whose declared types are not the plain ones that their values suggest.
const TYPES: &[(&str, &str)] = &[
    ("log-format", "log.OutputFormat"),
    ("builder", "config.BuilderConfig"),
    ("nri-opts", "opts.NRIOpts"),
    ("dns", "[]netip.Addr"),
    ("host-gateway-ips", "[]netip.Addr"),
    ("ip", "net.IP"),
    ("default-gateway", "net.IP"),
    ("default-gateway-v6", "net.IP"),
    ("default-network-opts", "map[string]map[string]string"),
    ("features", "map[string]bool"),
    ("cpu-rt-period", "int64"),
    ("cpu-rt-runtime", "int64"),
    ("runtimes", "map[string]system.Runtime"),
    ("default-ulimits", "map[string]*container.Ulimit"),
];

/// The name of an option with the structs that embed it: `CommonConfig.BridgeConfig.iptables`.
pub fn place(key: &str) -> String {
    let embedded = EMBEDDED.iter().find(|(_, keys)| keys.contains(&key));
    embedded.map_or_else(|| key.to_owned(), |(path, _)| format!("{path}.{key}"))
}

/// The struct that an option is a field of.
pub fn owner(key: &str) -> &'static str {
    if matches!(key, "http-proxy" | "https-proxy" | "no-proxy") { "Proxies" } else { "Config" }
}

/// The declared type of an option, or of what its list or map holds: whichever `fits`.
pub fn declared(key: &str, fits: &str) -> Option<&'static str> {
    let declared = TYPES.iter().find(|(known, _)| *known == key)?.1;
    let shape = |text: &str| (text.starts_with("[]"), text.starts_with("map["));
    if shape(declared) == shape(fits) {
        return Some(declared);
    }
    let element = declared.split_once(']')?.1.trim_start_matches('*');
    (shape(element) == shape(fits)).then_some(element)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::options;

    #[test]
    fn every_name_is_an_option() {
        let keys = EMBEDDED.iter().flat_map(|(_, keys)| keys.iter()).chain(TYPES.iter().map(|(key, _)| key));
        let unknown: Vec<_> = keys.filter(|key| options::by_key(key).is_none()).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
