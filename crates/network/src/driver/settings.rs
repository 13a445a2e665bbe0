//! What a bridge network's row says, parsed. Pure.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};
use model::{Error, Result};

use super::option;
use crate::config::{Enabled, NetworkConfig, PublishMode};
use crate::confine::{self, PUBLISH_MODE};
use crate::family::{self, Family};
use crate::plan::{BridgeNetwork, Egress, GatewayMode, Subnet};
use crate::row::{NetworkRow, PoolRow, parse_flag};

/// What every link has.
const LINK_LOCAL: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 64);

/// See the module.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The device's name.
    pub device: String,
    pub mtu: u32,
    pub host_binding: IpAddr,
    pub publish: PublishMode,
    /// What the rules depend on.
    pub rules: BridgeNetwork,
    /// The device's own addresses, with their prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// Parses the options and subnets of a row; errors are of the reference's words.
pub fn parse(network: &NetworkRow, config: &NetworkConfig) -> Result<Settings> {
    let options = &network.options;
    let internal = network.traits.internal;
    let masquerade = flag(network, option::MASQUERADE, true)?;
    let inhibit = flag(network, option::INHIBIT_IPV4, false)?;
    flag(network, option::ENABLE_IPV4, true)?;
    flag(network, option::ENABLE_IPV6, false)?;
    flag(network, option::DEFAULT_BRIDGE, false)?;
    if !network.traits.ipv4 && !network.traits.ipv6 {
        return Err(Error::invalid("IPv4 or IPv6 must be enabled"));
    }
    let modes = [mode(network, option::GATEWAY_MODE_4)?, mode(network, option::GATEWAY_MODE_6)?];
    if modes.contains(&GatewayMode::Isolated) && !internal {
        return Err(Error::system("gateway mode 'isolated' can only be used for an internal network"));
    }
    let translated = [
        source(option::HOST_4, address(network, option::HOST_4)?, Family::Ipv4)?,
        source(option::HOST_6, address(network, option::HOST_6)?, Family::Ipv6)?,
    ];
    let (mut subnets, mut addresses) = (Vec::new(), Vec::new());
    for (index, family) in Family::BOTH.into_iter().enumerate() {
        let Some(pool) = only_pool(network, family)? else { continue };
        check_subnet(pool)?;
        let filtered = config.filters(family);
        let mode = if filtered { modes[index] } else { GatewayMode::NatUnprotected };
        let nat = matches!(mode, GatewayMode::Nat | GatewayMode::NatUnprotected) && filtered && !internal;
        let egress = match translated[index] {
            _ if !nat || !masquerade => Egress::Kept,
            Some(address) => Egress::Translated(address),
            None => Egress::Masqueraded,
        };
        subnets.push(Subnet { net: pool.subnet, egress, mode });
        let bare = mode == GatewayMode::Isolated || family == Family::Ipv4 && inhibit;
        addresses.extend(pool.own().filter(|_| !bare).map(|own| (own, pool.subnet.prefix_len())));
    }
    let trusted = options.get(option::TRUSTED_LINKS).map_or("", String::as_str);
    let device = options.get(option::NAME).filter(|name| !name.is_empty()).cloned();
    let device = device.unwrap_or_else(|| format!("br-{}", network.id.short()));
    Ok(Settings {
        mtu: mtu(network)?.unwrap_or(config.mtu),
        host_binding: address(network, option::HOST_BINDING)?.unwrap_or(config.host_binding_ip),
        publish: publish(network, config)?,
        rules: BridgeNetwork {
            device: device.clone(),
            subnets,
            icc: flag(network, option::ICC, true)?.into(),
            internal: Enabled::from(internal),
            trusted: trusted.split(':').filter(|link| !link.is_empty()).map(str::to_owned).collect(),
        },
        device,
        addresses,
    })
}

/// How packets come to published ports.
fn publish(network: &NetworkRow, config: &NetworkConfig) -> Result<PublishMode> {
    let Some(value) = confine::value(network, PUBLISH_MODE)? else { return Ok(config.publish_mode) };
    let mode = PublishMode::parse(value)
        .ok_or_else(|| failed(PUBLISH_MODE, value, "it is \"translate\" or \"host-firewall\""))?;
    let needs_proxy = mode == PublishMode::HostFirewall;
    if needs_proxy && !config.userland_proxy.yes() {
        return Err(failed(PUBLISH_MODE, value, "it needs the userland proxy, which is switched off"));
    }
    let routed = [option::GATEWAY_MODE_4, option::GATEWAY_MODE_6].map(|option| network.options.get(option));
    if needs_proxy && routed.iter().flatten().any(|mode| *mode == "routed") {
        return Err(failed(PUBLISH_MODE, value, "gateway mode routed publishes no port of this host"));
    }
    Ok(mode)
}

/// A bridge has one subnet of a family.
fn only_pool(network: &NetworkRow, family: Family) -> Result<Option<&PoolRow>> {
    let mut pools = network.ipam.pools.iter().filter(|pool| pool.family() == family && network.has(family));
    match (pools.next(), pools.next()) {
        (_, Some(_)) => Err(Error::forbidden("bridge driver doesn't support multiple subnets")),
        (first, None) => Ok(first),
    }
}

/// The subnets of IPv6 that no bridge can have, and gateways that lie elsewhere.
fn check_subnet(pool: &PoolRow) -> Result<()> {
    let subnet = pool.subnet;
    if let IpNet::V6(net) = subnet {
        let own = pool.own().map_or_else(|| subnet.to_string(), |own| format!("{own}/{}", subnet.prefix_len()));
        if net.network().is_multicast() {
            return Err(Error::invalid(format!("multicast subnet '{own}' is not allowed")));
        }
        let link_local: IpNet = IpNet::V6(LINK_LOCAL);
        if subnet != link_local && family::overlap(subnet, link_local) {
            return Err(Error::invalid(format!("'{own}' clashes with the Link-Local prefix 'fe80::/64'")));
        }
    }
    Ok(())
}

fn failed(option: &str, value: &str, why: &str) -> Error {
    Error::invalid(format!("failed to parse {option} value: {value} ({why})"))
}

fn flag(network: &NetworkRow, option: &str, default: bool) -> Result<bool> {
    let Some(value) = network.options.get(option) else { return Ok(default) };
    parse_flag(value)
        .ok_or_else(|| failed(option, value, &format!("strconv.ParseBool: parsing {value:?}: invalid syntax")))
}

/// Bytes; `None` = the default.
pub fn mtu(network: &NetworkRow) -> Result<Option<u32>> {
    let option = option::MTU;
    let Some(value) = network.options.get(option) else { return Ok(None) };
    let number: i64 = value
        .parse()
        .map_err(|_| failed(option, value, &format!("strconv.Atoi: parsing {value:?}: invalid syntax")))?;
    match u32::try_from(number) {
        Ok(0) => Ok(None),
        Ok(mtu) => Ok(Some(mtu)),
        Err(_) => Err(Error::invalid(format!("invalid MTU number: {number}"))),
    }
}

fn address(network: &NetworkRow, option: &str) -> Result<Option<IpAddr>> {
    let Some(value) = network.options.get(option) else { return Ok(None) };
    value.parse().map(Some).map_err(|_| failed(option, value, "nil ip"))
}

/// The source address of what leaves, which is of the packets' family.
fn source(option: &str, address: Option<IpAddr>, family: Family) -> Result<Option<IpAddr>> {
    match address.filter(|address| family::of(*address) != family) {
        Some(other) => Err(failed(option, &other.to_string(), &format!("it is no {} address", family.word()))),
        None => Ok(address),
    }
}

fn mode(network: &NetworkRow, option: &str) -> Result<GatewayMode> {
    match network.options.get(option).map(String::as_str) {
        None | Some("nat") => Ok(GatewayMode::Nat),
        Some("nat-unprotected") => Ok(GatewayMode::NatUnprotected),
        Some("routed") => Ok(GatewayMode::Routed),
        Some("isolated") => Ok(GatewayMode::Isolated),
        Some(value) => Err(failed(option, value, &format!("unknown gateway mode {value}"))),
    }
}
