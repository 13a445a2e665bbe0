//! What a request says of networks: the mode, the endpoints, the published ports.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::{Error, Result};

/// Whether the name is one of the default bridge.
pub fn is_default(network: &str) -> bool {
    matches!(network, "" | "default" | "bridge")
}

/// What is to be published: bindings, and with `-P` every exposed port (B-pt-9).
pub fn publish_specs(
    config: &api::ContainerConfig,
    host_config: &api::HostConfig,
) -> Result<Vec<network::PublishSpec>> {
    let bindings = host_config.port_bindings.as_ref();
    let mut specs = Vec::new();
    for (port, hosts) in bindings.into_iter().flat_map(api::PortBindings::iter) {
        let (container_port, protocol) = parse_port(&port)?;
        for binding in hosts.iter().flatten() {
            specs.push(network::PublishSpec {
                container_port,
                protocol,
                host_ip: parse_host_ip(&binding.host_ip)?,
                host_ports: parse_host_ports(&binding.host_port)?,
            });
        }
    }
    if host_config.publish_all_ports {
        for port in config.exposed_ports.keys().filter(|port| !bindings.is_some_and(|own| own.contains(port))) {
            let (container_port, protocol) = parse_port(port)?;
            specs.push(network::PublishSpec { container_port, protocol, host_ip: None, host_ports: None });
        }
    }
    Ok(specs)
}

fn parse_port(text: &str) -> Result<(u16, network::Protocol)> {
    let invalid = || Error::invalid(format!("invalid port specification: {text:?}"));
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    Ok((number.parse().map_err(|_| invalid())?, network::Protocol::parse(protocol).ok_or_else(invalid)?))
}

/// A zone means nothing to a port of the host; an IPv4 address in IPv6 form is that IPv4 address.
fn parse_host_ip(text: &str) -> Result<Option<IpAddr>> {
    let address = text.split('%').next().unwrap_or_default();
    if address.is_empty() {
        return Ok(None);
    }
    let address: IpAddr = address.parse().map_err(|_| Error::invalid(format!("invalid IP address: {text}")))?;
    Ok(Some(address.to_canonical()))
}

fn parse_host_ports(text: &str) -> Result<Option<(u16, u16)>> {
    if text.is_empty() {
        return Ok(None);
    }
    let range = model::port::PortRange::parse(text);
    let range = range.map_err(|error| Error::system(format!("error parsing HostPort value({text}):{error}")))?;
    Ok(Some((range.first, range.last)).filter(|range| *range != (0, 0)))
}

/// The endpoints asked for, by network name or id.
pub fn requested(config: Option<api::NetworkingConfig>) -> BTreeMap<String, api::EndpointSettings> {
    let endpoints = config.map(|c| c.endpoints_config).unwrap_or_default();
    endpoints.into_iter().map(|(name, endpoint)| (name, endpoint.unwrap_or_default())).collect()
}
