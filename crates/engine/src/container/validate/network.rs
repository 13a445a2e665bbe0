//! What a request says about networks: the mode and what it excludes, ports, names, name servers, endpoints.

use std::net::IpAddr;

use model::{Error, Result};

use super::host::Host;

/// `default` means the bridge; so does nothing at all.
pub(super) fn default_mode(host_config: &mut api::HostConfig, networking: &mut api::NetworkingConfig) {
    if matches!(host_config.network_mode.as_str(), "" | "default") {
        host_config.network_mode = "bridge".into();
        if let Some(endpoint) = networking.endpoints_config.remove("default") {
            networking.endpoints_config.insert("bridge".into(), endpoint);
        }
    }
}

/// A mode excludes options that the other container, or the host, decides.
pub(super) fn check_mode(config: &api::ContainerConfig, host_config: &api::HostConfig) -> Result<()> {
    let mode = host_config.network_mode.as_str();
    if mode == "container" || mode.starts_with("container:") {
        check_container_mode(config, host_config)?;
    }
    if host_config.uts_mode == "host" && !config.hostname.is_empty() {
        return Err(Error::invalid("conflicting options: hostname and the UTS mode"));
    }
    if mode == "host" && host_config.links.as_ref().is_some_and(|links| !links.is_empty()) {
        return Err(Error::invalid(
            "conflicting options: host type networking can't be used with links. \
             This would result in undefined behavior",
        ));
    }
    Ok(())
}

fn check_container_mode(config: &api::ContainerConfig, host_config: &api::HostConfig) -> Result<()> {
    if host_config.network_mode.strip_prefix("container:").is_none_or(str::is_empty) {
        return Err(Error::invalid("invalid network mode: invalid container format container:<name|id>"));
    }
    let given = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let published = host_config.publish_all_ports || host_config.port_bindings.as_ref().is_some_and(|p| !p.is_empty());
    let conflicts = [
        (!config.hostname.is_empty(), "hostname and the network mode"),
        (
            given(&host_config.links),
            "container type network can't be used with links. This would result in undefined behavior",
        ),
        (given(&host_config.dns), "dns and the network mode"),
        (given(&host_config.extra_hosts), "custom host-to-IP mapping and the network mode"),
        (published, "port publishing and the container type network mode"),
        (!config.exposed_ports.is_empty(), "port exposing and the container type network mode"),
    ];
    match conflicts.iter().find(|(conflict, _)| *conflict) {
        Some((_, what)) => Err(Error::invalid(format!("conflicting options: {what}"))),
        None => Ok(()),
    }
}

/// A port with an empty list of bindings is published on an ephemeral port.
pub(super) fn fill_port_bindings(host_config: &mut api::HostConfig) -> Vec<String> {
    let filled = host_config.port_bindings.as_mut().map(api::PortBindings::fill).unwrap_or_default();
    if filled.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "Following container port(s) have an empty list of port-bindings: {}. \
         Such bindings will be discarded in a future version.",
        filled.join(", ")
    )]
}

/// What will not work, though it is no mistake.
pub(super) fn warnings(host_config: &api::HostConfig, host: &Host) -> Vec<String> {
    let mode = host_config.network_mode.as_str();
    let mut warnings = Vec::new();
    if !host.ip_forwarding && !matches!(mode, "host" | "none") {
        warnings.push("IPv4 forwarding is disabled. Networking will not work.".into());
    }
    if mode == "host" && host_config.port_bindings.as_ref().is_some_and(|ports| !ports.is_empty()) {
        warnings.push("Published ports are discarded when using host network mode".into());
    }
    warnings
}

/// `name:address`, or `host-gateway` for an address.
pub(super) fn check_extra_hosts(entries: &[String]) -> Result<()> {
    for entry in entries {
        let (name, given) = entry.split_once(':').unwrap_or(("", ""));
        if name.is_empty() {
            return Err(Error::invalid(format!("bad format for add-host: {entry:?}")));
        }
        if given != "host-gateway" && !matches!(address(given), Ok(Some(_))) {
            return Err(Error::invalid(format!("invalid IP address in add-host: {given:?}")));
        }
    }
    Ok(())
}

/// What goes into `hostname`, `hosts` and `resolv.conf`: none of it may bring a line of its own. The reference writes it as it is.
pub(super) fn check_names(
    config: &api::ContainerConfig,
    host_config: &api::HostConfig,
    networking: &api::NetworkingConfig,
) -> Result<()> {
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let aliases = networking.endpoints_config.values().flatten().flat_map(|endpoint| list(&endpoint.aliases));
    let named = [
        ("hostname", vec![config.hostname.clone()]),
        ("domain name", vec![config.domainname.clone()]),
        ("add-host", list(&host_config.extra_hosts)),
        ("DNS server", list(&host_config.dns)),
        ("DNS search domain", list(&host_config.dns_search)),
        ("DNS option", list(&host_config.dns_options)),
        ("network alias", aliases.collect()),
    ];
    named.iter().try_for_each(|(what, values)| check_lines(what, values))
}

fn check_lines(what: &str, values: &[String]) -> Result<()> {
    match values.iter().find(|value| value.contains(char::is_control)) {
        Some(value) => Err(Error::invalid(format!("invalid {what} {value:?}: it contains a control character"))),
        None => Ok(()),
    }
}

/// What a request to connect a container says of its place in a network.
pub fn check_endpoint(network: &str, endpoint: &api::EndpointSettings) -> Result<()> {
    check_lines("network alias", endpoint.aliases.as_deref().unwrap_or_default())?;
    let wrongs = endpoint_wrongs(network, endpoint)?;
    match wrongs.is_empty() {
        true => Ok(()),
        false => Err(Error::invalid(format!("invalid endpoint settings:\n{}", joined(&wrongs)))),
    }
}

/// The reference's decoder refuses what is no address.
fn address(text: &str) -> Result<Option<IpAddr>> {
    if text.is_empty() {
        return Ok(None);
    }
    // Go takes a zone behind an IPv6 address.
    let with_zone = text.split_once('%').filter(|(_, zone)| !zone.is_empty());
    let zoned = with_zone.and_then(|(bare, _)| bare.parse::<IpAddr>().ok()).filter(IpAddr::is_ipv6);
    let parsed = zoned.map_or_else(|| gojson::netip::parse_addr(text), Ok);
    parsed.map(Some).map_err(|why| Error::invalid(format!("invalid JSON: {why}")))
}

pub(super) fn check_dns(servers: &[String]) -> Result<()> {
    servers.iter().try_for_each(|server| address(server).map(drop))
}

pub(super) fn check_host_addresses(host_config: &api::HostConfig) -> Result<()> {
    let ports = host_config.port_bindings.iter().flat_map(api::PortBindings::iter);
    let mut bindings = ports.flat_map(|(_, hosts)| hosts).flatten();
    bindings.try_for_each(|binding| address(&binding.host_ip).map(drop))
}

/// Static addresses and aliases need a network of the user's; addresses must be of their family.
pub(super) fn check_endpoints(networking: &api::NetworkingConfig) -> Result<()> {
    let mut wrongs = Vec::new();
    for (name, endpoint) in &networking.endpoints_config {
        let Some(endpoint) = endpoint else {
            wrongs.push(format!("invalid config for network {name}: EndpointsConfig is nil"));
            continue;
        };
        let of_endpoint = endpoint_wrongs(name, endpoint)?;
        if !of_endpoint.is_empty() {
            let list = joined(&of_endpoint);
            wrongs.push(format!("invalid config for network {name}: invalid endpoint settings:\n{list}"));
        }
    }
    match wrongs.is_empty() {
        true => Ok(()),
        false => Err(Error::invalid(joined(&wrongs))),
    }
}

/// One wrong speaks for itself, several are listed.
fn joined(wrongs: &[String]) -> String {
    match wrongs {
        [one] => one.clone(),
        several => several.iter().map(|wrong| format!("* {wrong}")).collect::<Vec<_>>().join("\n"),
    }
}

fn endpoint_wrongs(name: &str, endpoint: &api::EndpointSettings) -> Result<Vec<String>> {
    let mut wrongs = Vec::new();
    let mac = &endpoint.mac_address;
    if !mac.is_empty() && network::MacAddress::parse(mac).is_none() {
        return Err(Error::invalid(format!("invalid JSON: address {mac}: invalid MAC address")));
    }
    let addresses = endpoint.ipam_config.clone().unwrap_or_default();
    let (v4, v6) = (address(&addresses.ipv4_address)?, address(&addresses.ipv6_address)?);
    if matches!(name, "bridge" | "host" | "none" | "default") {
        if v4.is_some() || v6.is_some() {
            wrongs.push("user-specified IP address is supported on user-defined networks only".into());
        }
        if endpoint.aliases.as_ref().is_some_and(|aliases| !aliases.is_empty()) {
            wrongs.push("network-scoped aliases are only supported for user-defined networks".into());
        }
    }
    if let Some(wrong) = v4.filter(|a| !a.to_canonical().is_ipv4() || a.is_unspecified()) {
        wrongs.push(format!("invalid IPv4 address: {wrong}"));
    }
    if let Some(wrong) = v6.filter(|a| !a.to_canonical().is_ipv6() || a.is_unspecified()) {
        wrongs.push(format!("invalid IPv6 address: {wrong}"));
    }
    for text in &addresses.link_local_ips {
        if address(text)?.is_none_or(|a| a.is_unspecified()) {
            wrongs.push(format!("invalid link-local IP address: {text}"));
        }
    }
    let sysctls = endpoint.driver_opts.as_ref().and_then(|o| o.get("com.docker.network.endpoint.sysctls"));
    for sysctl in sysctls.into_iter().flat_map(|list| list.split(',')) {
        let parts: Vec<&str> = sysctl.splitn(5, '.').collect();
        if !matches!(parts[..], [_, "ipv4" | "ipv6" | "mpls", _, "IFNAME" | "ifname", _]) {
            wrongs.push(format!(
                "unrecognised network interface sysctl '{sysctl}'; represent 'net.X.Y.ethN.Z=V' as \
                 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
            ));
        }
    }
    Ok(wrongs)
}
