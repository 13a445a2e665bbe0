//! The rules that a merged configuration must keep, with the reference's texts.
//!
//! - Pure but for one look at the file system: a given proxy program must be executable.
//! - Lists from the file are checked here too; flags were checked while parsing.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use build::policy::Settings as Builds;
use image::collect::Rules;
use model::own_label;
use runtime::seccomp::Profile;
use volume::schedule::{Alarms, Schedule};

use super::{Config, MAX_API_VERSION, MIN_API_VERSION, go, parse};

/// What the reference checks of file and flags, each value by itself.
pub fn values(config: &Config) -> Result<(), String> {
    daemon_log(config)?;
    lists(config)?;
    numbers(config)?;
    exec_opts(&config.isolation.exec_opts)?;
    platform(config)?;
    Rules::parse(&config.storage.image_gc)?;
    Builds::parse(&config.foreign.builder).map_err(|why| format!("invalid builder: {why}"))?;
    Schedule::parse(&config.storage.volume_snapshots)?;
    Alarms::parse(&config.storage.volume_alarms)?;
    start_wait(&config.containers.start_wait).map(drop)
}

/// How long containers wait at the daemon's start for those that they need; `None`: the default.
pub fn start_wait(text: &str) -> Result<Option<Duration>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let nanos = own_label::parse_start_wait(text)
        .ok_or_else(|| format!("invalid start-wait: {text:?} is no duration of at most one hour, like \"30s\""))?;
    Ok(Some(Duration::from_nanos(nanos)))
}

/// What the reference finds out when its daemon starts or takes a new configuration: values that do not go together.
pub fn settings(config: &Config) -> Result<(), String> {
    config.registry.insecure.iter().try_for_each(|name| parse::index_name(name).map(drop))?;
    bridge(config)?;
    cgroup(config)?;
    runtimes(config)?;
    seccomp_profile(&config.isolation.seccomp_profile)
}

/// A profile that cannot be read, or from which nothing is understood, is no reason to go without.
fn seccomp_profile(path: &str) -> Result<(), String> {
    match path {
        "" | "builtin" | "unconfined" => Ok(()),
        path => Profile::read(path).map(drop).map_err(|e| e.to_string()),
    }
}

/// The lowest version of the API is one that is served.
pub fn api_floor(config: &Config) -> Result<(), String> {
    let version = &config.listen.min_api_version;
    if min_api_version(version).is_err() {
        return Err(format!(
            "invalid minimum API version ({version}): must be between {MIN_API_VERSION} and {MAX_API_VERSION}"
        ));
    }
    Ok(())
}

fn daemon_log(config: &Config) -> Result<(), String> {
    let levels = ["panic", "fatal", "error", "warn", "info", "debug", "trace"];
    let level = &config.daemon_log.level;
    if !level.is_empty() && !levels.contains(&level.to_lowercase().as_str()) {
        return Err(format!("invalid logging level: {level}"));
    }
    match config.daemon_log.format.as_str() {
        "" | "text" | "json" => Ok(()),
        other => Err(format!("invalid log format: {other}")),
    }
}

fn lists(config: &Config) -> Result<(), String> {
    let all = |list: &[String], check: parse::Check| list.iter().try_for_each(|item| check(item).map(drop));
    all(&config.dns.search, parse::dns_search)?;
    all(&config.dns.options, parse::dns_option)?;
    let v4 = config.dns.host_gateway_ips.iter().filter(|ip| ip.is_ipv4()).count();
    if v4 > 1 {
        return Err("only one IPv4 host gateway IP address can be specified".into());
    }
    if config.dns.host_gateway_ips.len() - v4 > 1 {
        return Err("only one IPv6 host gateway IP address can be specified".into());
    }
    all(&config.engine.labels, parse::label)?;
    all(&config.engine.node_generic_resources, parse::generic_resource)?;
    all(&config.listen.host_specs, parse::host)?;
    all(&config.registry.mirrors, parse::mirror)
}

fn numbers(config: &Config) -> Result<(), String> {
    let registry = &config.registry;
    for (name, value) in [
        ("default MTU", config.bridge.mtu),
        ("max concurrent downloads", registry.max_concurrent_downloads),
        ("max concurrent uploads", registry.max_concurrent_uploads),
        ("max download attempts", registry.max_download_attempts),
        ("default stop timeout", config.containers.stop_timeout),
    ] {
        if value < 0 {
            return Err(format!("invalid {name}: {value}"));
        }
    }
    let port = config.network.diagnostic_port;
    if !(0..=65535).contains(&port) {
        return Err(format!("invalid network-diagnostic-port ({port}): value must be between 0 and 65535"));
    }
    Ok(())
}

/// `native.cgroupdriver` and nothing else.
fn exec_opts(list: &[String]) -> Result<(), String> {
    for item in list {
        let pair = item.split_once('=').map(|(k, v)| (k.trim().to_lowercase(), v.trim()));
        let why = match pair {
            Some((key, value)) if !key.is_empty() && !value.is_empty() => match key.as_str() {
                "native.cgroupdriver" => continue,
                "isolation" => format!("option '{key}' is only supported on windows"),
                _ => format!("unknown option: '{key}'"),
            },
            _ => "must be formatted 'opt=value'".into(),
        };
        return Err(format!("invalid exec-opt ({item}): {why}"));
    }
    Ok(())
}

/// The cgroup driver asked for, if any.
#[must_use]
pub fn cgroup_driver(config: &Config) -> Option<String> {
    config.isolation.exec_opts.iter().rev().find_map(|item| {
        let (key, value) = item.split_once('=')?;
        key.trim().eq_ignore_ascii_case("native.cgroupdriver").then(|| value.trim().to_string())
    })
}

fn cgroup(config: &Config) -> Result<(), String> {
    let parent = &config.isolation.cgroup_parent;
    match cgroup_driver(config).as_deref() {
        None | Some("cgroupfs") => Ok(()),
        Some("systemd") if !parent.is_empty() && (parent.len() <= 6 || !parent.ends_with(".slice")) => {
            Err(r#"cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice""#.into())
        }
        Some("systemd") => Ok(()),
        Some("none") => {
            Err("native.cgroupdriver option none is internally used and cannot be specified manually".into())
        }
        Some(other) => Err(format!("native.cgroupdriver option {other} not supported")),
    }
}

fn platform(config: &Config) -> Result<(), String> {
    proxy_program(config)?;
    ipc_mode(&config.containers.ipc_mode)?;
    if let Some(net) = config.bridge.fixed_cidr_v6
        && net.addr().is_ipv4()
    {
        return Err("invalid fixed-cidr-v6: subnet must be IPv6".into());
    }
    if !matches!(config.network.firewall_backend.as_str(), "" | "iptables" | "nftables") {
        return Err(r#"invalid firewall-backend: allowed values are "iptables" and "nftables""#.into());
    }
    fwmark(&config.network.bridge_accept_fwmark).map_err(|why| format!("invalid bridge-accept-fwmark: {why}"))?;
    publish_mode(config)?;
    match config.containers.cgroupns_mode.as_str() {
        "" | "host" | "private" => Ok(()),
        mode => Err(format!(r#"invalid default cgroup namespace ({mode}): use "host" or "private""#)),
    }
}

fn publish_mode(config: &Config) -> Result<(), String> {
    match config.network.publish_mode.as_str() {
        "" | "translate" => Ok(()),
        "host-firewall" if config.network.userland_proxy => Ok(()),
        "host-firewall" => Err("invalid publish-mode: host-firewall needs the userland proxy".into()),
        mode => Err(format!(r#"invalid publish-mode ({mode}): use "translate" or "host-firewall""#)),
    }
}

/// Gantry has its own proxy; a path that was given must still be one that the reference would take.
fn proxy_program(config: &Config) -> Result<(), String> {
    let path = &config.network.userland_proxy_path;
    if !config.network.userland_proxy || path.is_empty() {
        return Ok(());
    }
    if !path.starts_with('/') {
        return Err(format!("invalid userland-proxy-path: must be an absolute path: {path}"));
    }
    let fault = |why: &str| Err(format!("invalid userland-proxy-path: exec: {}: {why}", go::quote(path)));
    match Path::new(path).metadata() {
        Err(_) => fault(&format!("stat {path}: no such file or directory")),
        Ok(meta) if meta.is_dir() => fault("is a directory"),
        Ok(meta) if meta.permissions().mode() & 0o111 == 0 => fault("permission denied"),
        Ok(_) => Ok(()),
    }
}

fn ipc_mode(mode: &str) -> Result<(), String> {
    const HINT: &str = r#"use "shareable" or "private""#;
    match mode {
        "" | "private" | "shareable" => Ok(()),
        "host" | "none" => Err(format!(r#"IPC mode "{mode}" is not supported as default value; {HINT}"#)),
        _ if mode.starts_with("container:") => {
            Err(format!(r#"IPC mode "{mode}" is not supported as default value; {HINT}"#))
        }
        _ => Err(format!("default IPC mode setting ({mode}) is invalid; {HINT}")),
    }
}

fn fwmark(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    let (mark, mask) = text.split_once('/').map_or((text, None), |(mark, mask)| (mark, Some(mask)));
    go::parse_uint32(mark).map_err(|e| format!("invalid firewall mark {}: {e}", go::quote(text)))?;
    if let Some(mask) = mask {
        go::parse_uint32(mask).map_err(|e| format!("invalid firewall mask {}: {e}", go::quote(text)))?;
    }
    Ok(())
}

/// Runtime entries are complete and free of contradictions; the default one exists.
pub fn runtimes(config: &Config) -> Result<(), String> {
    let entries = &config.containers.runtimes;
    if entries.contains_key(parse::STOCK_RUNTIME) {
        return Err(format!("runtime name '{}' is reserved", parse::STOCK_RUNTIME));
    }
    let default = &config.containers.default_runtime;
    let stock = [parse::STOCK_RUNTIME, "io.containerd.runc.v2", ""];
    if !stock.contains(&default.as_str()) && !entries.contains_key(default) && !is_shim_name(default) {
        return Err(format!("specified default runtime '{default}' does not exist"));
    }
    for (name, entry) in entries {
        let fault = |why: &str| Err(format!("runtime {name}: {why}"));
        match (entry.path.is_empty(), entry.runtime_type.is_empty()) {
            (true, true) => return fault("either a runtimeType or a path must be configured"),
            (false, false) => return fault("cannot configure both path and runtimeType for the same runtime"),
            (false, true) if entry.options.is_some() => return fault("options cannot be used with a path runtime"),
            (true, false) if !entry.args.is_empty() => return fault("args cannot be used with a runtimeType runtime"),
            _ => {}
        }
    }
    Ok(())
}

/// `prefix.name.version`, never a path.
fn is_shim_name(name: &str) -> bool {
    !name.contains('/') && name.split_once('.').is_some_and(|(prefix, _)| !prefix.is_empty())
}

fn bridge(config: &Config) -> Result<(), String> {
    let (bridge, network) = (&config.bridge, &config.network);
    if config.foreign.containerd_namespace == config.foreign.containerd_plugins_namespace {
        return Err("containers namespace and plugins namespace cannot be the same".into());
    }
    if !bridge.name.is_empty() && bridge.bip.is_some() {
        return Err("You specified -b & --bip, mutually exclusive options. Please specify only one".into());
    }
    if !bridge.name.is_empty() && bridge.bip6.is_some() {
        return Err("You specified -b & --bip6, mutually exclusive options. Please specify only one".into());
    }
    if !bridge.icc && !network.iptables {
        return Err("You specified --iptables=false with --icc=false. ICC=false uses iptables to function. Please set --icc or --iptables to true".into());
    }
    if !bridge.icc && bridge.ipv6 && !network.ip6tables {
        return Err("You specified --ip6tables=false with --icc=false. ICC=false uses ip6tables to function. Please set --icc or --ip6tables to true".into());
    }
    Ok(())
}

/// Labels with the same key must have the same value; duplicates fall together.
pub fn conflict_free_labels(labels: &[String]) -> Result<Vec<String>, String> {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for label in labels {
        let Some((key, value)) = label.split_once('=') else { continue };
        if let Some(other) = seen.insert(key, value).filter(|other| *other != value) {
            return Err(format!("conflict labels for {key}={value} and {key}={other}"));
        }
    }
    Ok(seen.into_iter().map(|(k, v)| format!("{k}={v}")).collect())
}

/// An API version inside the supported range.
pub fn min_api_version(version: &str) -> Result<(), String> {
    if version.is_empty() {
        return Err("value is empty".into());
    }
    if version.starts_with(['v', 'V']) {
        return Err(r#"API version must be provided without "v" prefix"#.into());
    }
    let order = |v: &str| v.split('.').map(|part| part.parse::<u32>().unwrap_or(0)).collect::<Vec<_>>();
    if order(version) < order(MIN_API_VERSION) {
        return Err(format!("minimum supported API version is {MIN_API_VERSION}: {version}"));
    }
    if order(version) > order(MAX_API_VERSION) {
        return Err(format!("maximum supported API version is {MAX_API_VERSION}: {version}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RuntimeEntry;

    fn with(change: impl Fn(&mut Config)) -> Result<(), String> {
        let mut config = Config::default();
        change(&mut config);
        values(&config).and_then(|()| settings(&config))
    }

    #[test]
    fn the_default_is_valid() {
        assert_eq!(with(|_| {}), Ok(()));
    }

    #[test]
    fn each_rule_has_its_text() {
        let text = |change: fn(&mut Config)| with(change).unwrap_err();
        assert_eq!(text(|c| c.daemon_log.level = "loud".into()), "invalid logging level: loud");
        assert_eq!(text(|c| c.daemon_log.format = "xml".into()), "invalid log format: xml");
        assert_eq!(text(|c| c.bridge.mtu = -1), "invalid default MTU: -1");
        assert_eq!(text(|c| c.registry.max_concurrent_downloads = -1), "invalid max concurrent downloads: -1");
        assert_eq!(text(|c| c.containers.stop_timeout = -5), "invalid default stop timeout: -5");
        assert_eq!(text(|c| c.engine.labels = vec!["x".into()]), "bad attribute format: x");
        assert_eq!(text(|c| c.dns.search = vec!["a_b".into()]), "a_b is not a valid domain");
        assert_eq!(
            text(|c| c.isolation.exec_opts = vec!["x".into()]),
            "invalid exec-opt (x): must be formatted 'opt=value'"
        );
        assert_eq!(text(|c| c.isolation.exec_opts = vec!["a=b".into()]), "invalid exec-opt (a=b): unknown option: 'a'");
        assert_eq!(
            text(|c| c.isolation.exec_opts = vec!["native.cgroupdriver=x".into()]),
            "native.cgroupdriver option x not supported"
        );
        assert_eq!(
            text(|c| c.containers.ipc_mode = "host".into()),
            r#"IPC mode "host" is not supported as default value; use "shareable" or "private""#
        );
        assert_eq!(
            text(|c| c.containers.ipc_mode = "x".into()),
            r#"default IPC mode setting (x) is invalid; use "shareable" or "private""#
        );
        assert_eq!(
            text(|c| c.containers.cgroupns_mode = "x".into()),
            r#"invalid default cgroup namespace (x): use "host" or "private""#
        );
        assert_eq!(text(|c| c.containers.default_runtime = "x".into()), "specified default runtime 'x' does not exist");
        assert!(text(|c| c.network.firewall_backend = "pf".into()).starts_with("invalid firewall-backend"));
        assert!(text(|c| c.network.bridge_accept_fwmark = "x".into()).contains("invalid firewall mark"));
        assert!(text(|c| c.network.userland_proxy_path = "x".into()).contains("must be an absolute path: x"));
        assert!(
            text(|c| {
                c.bridge.icc = false;
                c.network.iptables = false
            })
            .contains("ICC=false uses iptables")
        );
        assert!(
            text(|c| {
                c.bridge.name = "br0".into();
                c.bridge.bip = "10.0.0.1/8".parse().ok()
            })
            .contains("-b & --bip")
        );
    }

    #[test]
    fn waits_at_the_start() {
        assert_eq!(start_wait(""), Ok(None));
        assert_eq!(start_wait("1m30s"), Ok(Some(Duration::from_secs(90))));
        assert_eq!(start_wait("0s"), Ok(Some(Duration::ZERO)));
        for wrong in ["5", "-1s", "2h", "soon"] {
            let refused = with(|c| c.containers.start_wait = wrong.into()).unwrap_err();
            assert!(refused.starts_with("invalid start-wait: "), "{refused}");
        }
    }

    #[test]
    fn runtime_entries() {
        let text = |entry: RuntimeEntry| {
            with(|c| {
                c.containers.runtimes.insert("x".into(), entry.clone());
            })
        };
        let path = RuntimeEntry { path: "/x".into(), ..RuntimeEntry::default() };
        assert_eq!(text(path.clone()), Ok(()));
        assert_eq!(
            text(RuntimeEntry::default()).unwrap_err(),
            "runtime x: either a runtimeType or a path must be configured"
        );
        let both = RuntimeEntry { runtime_type: "t".into(), ..path };
        assert_eq!(
            text(both).unwrap_err(),
            "runtime x: cannot configure both path and runtimeType for the same runtime"
        );
    }

    #[test]
    fn labels_may_repeat_but_not_contradict() {
        let labels = |list: &[&str]| conflict_free_labels(&list.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(labels(&["a=1", "a=1"]).unwrap(), ["a=1"]);
        assert_eq!(labels(&["a=1", "a=2"]).unwrap_err(), "conflict labels for a=2 and a=1");
    }

    #[test]
    fn api_versions() {
        assert_eq!(min_api_version("1.24"), Ok(()));
        assert_eq!(min_api_version("1.23").unwrap_err(), "minimum supported API version is 1.24: 1.23");
        assert_eq!(min_api_version("9.99").unwrap_err(), "maximum supported API version is 1.56: 9.99");
        assert!(min_api_version("v1.40").unwrap_err().contains("\"v\" prefix"));
    }
}
