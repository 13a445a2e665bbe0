//! What the daemon's configuration says about networks, as plain data.
//!
//! Parsing and validation of flags and files happen in the daemon; here every field already has its type and default.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;

/// The device of the default bridge network when the configuration names none.
pub const DEFAULT_BRIDGE: &str = "docker0";
/// The MTU when the configuration gives none (bytes).
pub const DEFAULT_MTU: u32 = 1500;

/// A range that is cut into networks of one size (`--default-address-pool`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPool {
    pub base: Ipv4Net,
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
    pub fn yes(self) -> bool {
        self == Enabled::Yes
    }
}

impl From<bool> for Enabled {
    fn from(on: bool) -> Enabled {
        if on { Enabled::Yes } else { Enabled::No }
    }
}

/// The networking keys of the daemon's configuration (`--bridge`, `--bip`, `--mtu`, …).
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// The default network's device: `None` = `docker0` (made here), `Some("none")` = no default network, any other
    /// name = an existing bridge that the administrator made and keeps.
    pub bridge: Option<String>,
    /// Address and prefix of docker0 (`--bip`).
    pub bip: Option<Ipv4Net>,
    /// Addresses of containers on the default network come from this part of its subnet only (`--fixed-cidr`).
    pub fixed_cidr: Option<Ipv4Net>,
    pub mtu: u32,
    /// The containers' gateway when it is not docker0 itself (`--default-gateway`).
    pub default_gateway: Option<Ipv4Addr>,
    /// Containers of the default network may talk to each other (`--icc`).
    pub icc: Enabled,
    pub ip_masq: Enabled,
    pub ip_forward: Enabled,
    /// What is not of Gantry's bridges is forwarded even where Gantry switched forwarding on (`--ip-forward-no-drop`).
    pub ip_forward_no_drop: Enabled,
    /// Firewall rules are kept (`--iptables`); without them published ports work by proxy only.
    pub iptables: Enabled,
    pub userland_proxy: Enabled,
    /// Empty = the built-in pools.
    pub default_address_pools: Vec<AddressPool>,
    /// Where ports without a host address are published (`--ip`).
    pub host_binding_ip: IpAddr,
    /// TCP addresses that the daemon itself listens on; no container gets their ports.
    pub daemon_addresses: Vec<SocketAddr>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        NetworkConfig {
            bridge: None,
            bip: None,
            fixed_cidr: None,
            mtu: DEFAULT_MTU,
            default_gateway: None,
            icc: Enabled::Yes,
            ip_masq: Enabled::Yes,
            ip_forward: Enabled::Yes,
            ip_forward_no_drop: Enabled::No,
            iptables: Enabled::Yes,
            userland_proxy: Enabled::Yes,
            default_address_pools: Vec::new(),
            host_binding_ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            daemon_addresses: Vec::new(),
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

    /// The pools that new networks take their subnet from, in order.
    pub fn pools(&self) -> Vec<AddressPool> {
        if self.default_address_pools.is_empty() { default_pools() } else { self.default_address_pools.clone() }
    }
}

/// The reference's built-in pools: 172.17–172.31 by /16, then 192.168.0.0/16 by /20.
fn default_pools() -> Vec<AddressPool> {
    let pool = |a: u8, b: u8, prefix: u8, size: u8| AddressPool {
        base: Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), prefix),
        size,
    };
    vec![
        pool(172, 17, 16, 16),
        pool(172, 18, 16, 16),
        pool(172, 19, 16, 16),
        pool(172, 20, 14, 16),
        pool(172, 24, 14, 16),
        pool(172, 28, 14, 16),
        pool(192, 168, 16, 20),
    ]
}
