//! Who can reach a container, from where it stands in its networks. Pure; the rules of `plan` make it so, and a test sends
//! packets from every side.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use crate::config::{Enabled, Mark, PublishMode};
use crate::endpoint::{BoundPort, Endpoint, Protocol};
use crate::family;
use crate::plan::{BridgeNetwork, Filtered, GatewayMode};
use crate::published::Published;

/// One way to a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Way {
    /// Who can go it.
    pub from: Source,
    /// The address that is spoken to; unspecified = every address of this host.
    pub address: IpAddr,
    /// The port that is spoken to; `None` = every port, of every protocol.
    pub port: Option<u16>,
    /// Its protocol.
    pub protocol: Option<Protocol>,
    /// The container's port, where it is another machine's address that is spoken to.
    pub container_port: Option<u16>,
    /// Why.
    pub by: By,
}

/// Who can go a way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Whoever has a route to the address.
    Anyone,
    /// Programs of this host.
    Host,
    /// Containers of this network.
    Network(String),
    /// What comes in by this link of the host.
    Link(String),
    /// Packets with this mark (`value/mask`).
    Mark(String),
}

/// What lets packets go a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// The destination is translated, for those who do not speak from this host; the host's own go through the proxy.
    Translation,
    /// The monitor's proxy alone.
    Proxy,
    /// The same, where the INPUT rules of the host's own firewall let it in.
    HostFirewall,
    /// The bridge, whose containers may speak to each other.
    Bridge,
    /// The host's address on the bridge.
    HostAddress,
    /// The gateway mode `routed`: a published port at the container's own address.
    Routed,
    /// The gateway mode `nat-unprotected`.
    Unprotected,
    /// The option `trusted_host_interfaces`.
    Trusted,
    /// The daemon's `--bridge-accept-fwmark`.
    AcceptMark,
    /// The daemon's `--allow-direct-routing`.
    DirectRouting,
}

/// What the rules depend on besides the network.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// Ports have a proxy.
    pub userland_proxy: Enabled,
    /// Families whose rules stand.
    pub filtered: Filtered,
    /// See [`crate::plan::Topology::direct_routing`].
    pub direct_routing: Enabled,
    /// Of the network.
    pub publish: PublishMode,
    /// See [`crate::plan::Topology::accept_mark`].
    pub accept_mark: Option<Mark>,
}

/// The ways to an endpoint of a bridge network of this name.
pub fn ways(name: &str, rules: &BridgeNetwork, endpoint: &Endpoint, around: Circumstances) -> Vec<Way> {
    let mut ways = Vec::new();
    for assigned in &endpoint.addresses {
        let own = assigned.address;
        let subnet = rules.subnets.iter().find(|subnet| subnet.net.contains(&own));
        let mode = subnet.map_or(GatewayMode::Nat, |subnet| subnet.mode);
        let all = |from, by| Way { from, address: own, port: None, protocol: None, container_port: None, by };
        if rules.icc.yes() {
            ways.push(all(Source::Network(name.to_owned()), By::Bridge));
        }
        if mode != GatewayMode::Isolated {
            ways.push(all(Source::Host, By::HostAddress));
        }
        let filtered = around.filtered.has(family::of(own));
        let unprotected = mode == GatewayMode::NatUnprotected || !filtered;
        if unprotected && !rules.internal.yes() {
            ways.push(all(Source::Anyone, By::Unprotected));
        }
        if filtered && !rules.internal.yes() {
            let mark = around.accept_mark.map(|mark| format!("{:#x}/{:#x}", mark.value, mark.mask));
            ways.extend(mark.map(|mark| all(Source::Mark(mark), By::AcceptMark)));
        }
    }
    ways.extend(endpoint.ports.iter().filter_map(|port| published(endpoint, &port, around)));
    if around.direct_routing.yes() && around.publish == PublishMode::Translate {
        let anyone = (Source::Anyone, By::DirectRouting);
        ways.extend(endpoint.ports.iter().filter_map(|port| directly(endpoint, &port, around, anyone.clone())));
    } else if around.publish == PublishMode::Translate && !rules.internal.yes() {
        for link in &rules.trusted {
            let trusted = (Source::Link(link.clone()), By::Trusted);
            ways.extend(endpoint.ports.iter().filter_map(|port| directly(endpoint, &port, around, trusted.clone())));
        }
    }
    ways
}

/// A port that is published on an address of the host, at the container's own.
fn directly(endpoint: &Endpoint, port: &BoundPort, around: Circumstances, (from, by): (Source, By)) -> Option<Way> {
    let family = family::of(port.host_ip);
    let own = endpoint.assigned(family)?;
    if port.host_port == 0 || port.host_ip.is_loopback() || !around.filtered.has(family) {
        return None;
    }
    let (number, protocol) = (Some(port.container_port), Some(port.protocol));
    Some(Way { from, address: own.address, port: number, protocol, container_port: None, by })
}

fn published(endpoint: &Endpoint, port: &BoundPort, around: Circumstances) -> Option<Way> {
    let family = family::of(port.host_ip);
    let BoundPort { container_port, protocol, host_ip, host_port } = *port;
    if host_port == 0 {
        let address = endpoint.assigned(family)?.address;
        let (port, protocol) = (Some(container_port), Some(protocol));
        return Some(Way { from: Source::Anyone, address, port, protocol, container_port: None, by: By::Routed });
    }
    let own = endpoint.assigned(family).map(|assigned| assigned.address);
    let translated = own.and_then(|own| Published::translated(port, own, around.userland_proxy));
    let by = if around.publish == PublishMode::HostFirewall {
        By::HostFirewall
    } else if translated.is_some() && around.filtered.has(family) {
        By::Translation
    } else {
        By::Proxy
    };
    let from = if host_ip.is_loopback() { Source::Host } else { Source::Anyone };
    let (port, protocol) = (Some(host_port), Some(protocol));
    Some(Way { from, address: host_ip, port, protocol, container_port: Some(container_port), by })
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.from {
            Source::Anyone => f.write_str("anyone with a route to it")?,
            Source::Host => f.write_str("this host")?,
            Source::Network(name) => write!(f, "containers of network {name}")?,
            Source::Link(name) => write!(f, "whoever comes by link {name}")?,
            Source::Mark(mark) => write!(f, "packets marked {mark}")?,
        }
        let address = match (self.address, self.port) {
            (IpAddr::V6(ip), Some(_)) => format!("[{ip}]"),
            (ip, _) => ip.to_string(),
        };
        match (self.port, self.protocol) {
            (Some(port), Some(protocol)) => write!(f, " -> {address}:{port}/{protocol}")?,
            _ => write!(f, " -> {address}, all ports")?,
        }
        if let Some(port) = self.container_port {
            write!(f, " -> port {port} of the container")?;
        }
        f.write_str(match self.by {
            By::Translation => " (translated; for this host and containers by the proxy)",
            By::Proxy => " (by the proxy)",
            By::HostFirewall => " (by the proxy, where the host's firewall lets it in)",
            By::Bridge => " (on the bridge)",
            By::HostAddress => " (from the host's address on the bridge)",
            By::Routed => " (gateway mode routed)",
            By::Unprotected => " (not filtered)",
            By::Trusted => " (trusted_host_interfaces)",
            By::AcceptMark => " (--bridge-accept-fwmark)",
            By::DirectRouting => " (--allow-direct-routing)",
        })
    }
}
