//! What the daemon's configuration says about networks, as plain data.
//!
//! Parsing and validation of flags and files happen in the daemon; here every field already has its type and default.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::family::{self, Family};

/// The device of the default bridge network when the configuration names none.
pub const DEFAULT_BRIDGE: &str = "docker0";
/// The MTU when the configuration gives none (bytes).
pub const DEFAULT_MTU: u32 = 1500;

/// A range that is cut into networks of one size (`--default-address-pool`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPool {
    pub base: IpNet,
    /// Prefix length of each network cut from `base`.
    pub size: u8,
}

/// A switch of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enabled {
    Yes,
    No,
}

impl Enabled {
    /// Whether it is on.
    pub fn yes(self) -> bool {
        self == Enabled::Yes
    }
}

impl From<bool> for Enabled {
    fn from(on: bool) -> Enabled {
        if on { Enabled::Yes } else { Enabled::No }
    }
}

/// How packets come to published ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PublishMode {
    /// Their destination is translated before the host's firewall sees them, as the reference does.
    #[default]
    Translate,
    /// They go to a socket of this host, through its own INPUT rules.
    HostFirewall,
}

impl PublishMode {
    /// As configurations and options have it.
    pub fn parse(text: &str) -> Option<PublishMode> {
        match text {
            "translate" => Some(PublishMode::Translate),
            "host-firewall" => Some(PublishMode::HostFirewall),
            _ => None,
        }
    }
}

/// A packet mark under a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub value: u32,
    pub mask: u32,
}

/// Whether other machines reach published ports at the containers' own addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirectRouting {
    #[default]
    Forbidden,
    /// `--allow-direct-routing`.
    Allowed,
    /// By the environment variable [`INSECURE`], which `/info` tells of.
    Insecure,
}

/// The variable of the environment that lets other machines reach published ports at the containers' own addresses.
pub const INSECURE: &str = "DOCKER_INSECURE_NO_IPTABLES_RAW";

/// What the configuration says about one family of the default network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DefaultFamily {
    /// Address and prefix of the bridge (`--bip`, `--bip6`).
    pub bip: Option<IpNet>,
    /// Addresses of containers come from this part of the subnet only (`--fixed-cidr`, `--fixed-cidr-v6`).
    pub range: Option<IpNet>,
    /// The containers' gateway when it is not the bridge itself (`--default-gateway`, `--default-gateway-v6`).
    pub gateway: Option<IpAddr>,
}

/// The networking keys of the daemon's configuration (`--bridge`, `--bip`, `--mtu`, …).
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// The default network's device: `None` = `docker0` (made here), `Some("none")` = no default network, any other
    /// name = an existing bridge that the administrator made and keeps.
    pub bridge: Option<String>,
    /// IPv4 of the default network.
    pub ipv4: DefaultFamily,
    /// IPv6 of the default network; `None` = it has none (`--ipv6`).
    pub ipv6: Option<DefaultFamily>,
    pub mtu: u32,
    /// Containers of the default network may talk to each other (`--icc`).
    pub icc: Enabled,
    pub ip_masq: Enabled,
    pub ip_forward: Enabled,
    /// What is not of Gantry's bridges is forwarded even where Gantry switched forwarding on (`--ip-forward-no-drop`).
    pub ip_forward_no_drop: Enabled,
    /// Firewall rules are kept for IPv4 (`--iptables`); without them published ports work by proxy only.
    pub iptables: Enabled,
    pub userland_proxy: Enabled,
    /// Of networks that do not say otherwise.
    pub publish_mode: PublishMode,
    /// Firewall rules are kept for IPv6 (`--ip6tables`).
    pub ip6tables: Enabled,
    /// Other machines reach published ports at the containers' own addresses.
    pub direct_routing: DirectRouting,
    /// Pools of either family; of a family without one the built-in pools are used.
    pub default_address_pools: Vec<AddressPool>,
    /// The unique local network (RFC 4193, /48) that automatic IPv6 subnets are cut from.
    pub local_ipv6: Ipv6Net,
    /// Driver options of new networks, by driver (`--default-network-opt`).
    pub default_options: BTreeMap<String, BTreeMap<String, String>>,
    /// Packets with this mark reach containers whatever the rules say (`--bridge-accept-fwmark`).
    pub accept_mark: Option<Mark>,
    /// Where ports without a host address are published (`--ip`).
    pub host_binding_ip: IpAddr,
    /// TCP addresses that the daemon itself listens on; no container gets their ports.
    pub daemon_addresses: Vec<SocketAddr>,
    /// The directory in which the names of networks are published for resolvers; `None`: they are not.
    pub names: Option<PathBuf>,
    /// Where the system bus listens, on which a firewalld is told of the bridges; none: nobody is asked.
    pub system_bus: Vec<dbus::Address>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        NetworkConfig {
            bridge: None,
            ipv4: DefaultFamily::default(),
            ipv6: None,
            mtu: DEFAULT_MTU,
            icc: Enabled::Yes,
            ip_masq: Enabled::Yes,
            ip_forward: Enabled::Yes,
            ip_forward_no_drop: Enabled::No,
            iptables: Enabled::Yes,
            userland_proxy: Enabled::Yes,
            publish_mode: PublishMode::Translate,
            ip6tables: Enabled::Yes,
            direct_routing: DirectRouting::Forbidden,
            default_address_pools: Vec::new(),
            local_ipv6: Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 48),
            default_options: BTreeMap::new(),
            accept_mark: None,
            host_binding_ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            daemon_addresses: Vec::new(),
            names: None,
            system_bus: Vec::new(),
        }
    }
}

impl NetworkConfig {
    /// The device of the default network; `None` when it is switched off (`--bridge=none`).
    pub fn bridge_name(&self) -> Option<&str> {
        match self.bridge.as_deref() {
            None | Some("") => Some(DEFAULT_BRIDGE),
            Some("none") => None,
            Some(name) => Some(name),
        }
    }

    /// Whether the device belongs to the administrator: then it is used as found, never made or changed.
    pub fn bridge_is_given(&self) -> bool {
        !matches!(self.bridge.as_deref(), None | Some("") | Some("none") | Some(DEFAULT_BRIDGE))
    }

    /// The default network's settings of a family; `None` = it has not that family.
    pub fn default_family(&self, family: Family) -> Option<&DefaultFamily> {
        match family {
            Family::Ipv4 => Some(&self.ipv4),
            Family::Ipv6 => self.ipv6.as_ref(),
        }
    }

    /// Whether firewall rules are kept for a family.
    pub fn filters(&self, family: Family) -> bool {
        match family {
            Family::Ipv4 => self.iptables.yes(),
            Family::Ipv6 => self.ip6tables.yes(),
        }
    }

    /// The pools that new networks take their subnet from, in order.
    pub fn pools(&self) -> Vec<AddressPool> {
        let mut pools = apart(self.default_address_pools.clone());
        let has = |family| pools.iter().any(|pool: &AddressPool| family::of_net(pool.base) == family);
        let (has_ipv4, has_ipv6) = (has(Family::Ipv4), has(Family::Ipv6));
        if !has_ipv4 {
            pools.extend(built_in_pools());
        }
        if !has_ipv6 {
            pools.push(AddressPool { base: IpNet::V6(self.local_ipv6), size: 64 });
        }
        pools
    }
}

/// Configured pools by their addresses, as the reference takes them; of two that overlap the wider one.
fn apart(mut pools: Vec<AddressPool>) -> Vec<AddressPool> {
    pools.sort_by_key(|pool| (family::bounds(pool.base).0, pool.base.prefix_len()));
    let mut kept: Vec<AddressPool> = Vec::new();
    for pool in pools {
        let covered = |other: &AddressPool| family::overlap(other.base, pool.base);
        if !kept.iter().any(covered) {
            kept.push(pool);
        }
    }
    kept
}

/// The reference's built-in pools of IPv4: 172.17–172.31 by /16, then 192.168.0.0/16 by /20; but the second half of the
/// latter is cut smaller and smaller, and gaps that the host leaves in all of them are used, so that they do not run out:
/// a host that uses none of them has room for more than a thousand networks.
fn built_in_pools() -> Vec<AddressPool> {
    let pool = |a: u8, b: u8, c: u8, (prefix, size): (u8, u8)| AddressPool {
        base: IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), prefix)),
        size,
    };
    let mut pools: Vec<_> = (17..=31).map(|b| pool(172, b, 0, (16, 16))).collect();
    pools.extend([pool(192, 168, 0, (17, 20)), pool(192, 168, 128, (18, 24)), pool(192, 168, 192, (18, 28))]);
    for size in [24, 28] {
        pools.extend((17..=31).map(|b| pool(172, b, 0, (16, size))));
        pools.push(pool(192, 168, 0, (16, size)));
    }
    pools
}
