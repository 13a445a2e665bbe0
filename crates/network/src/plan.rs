//! What should stand in the kernel, as a pure function of the topology.
//!
//! One table holds all rules. Published ports are elements of two maps, so that a container's start adds elements and
//! no rule: `published-address` for ports of one host address, `published-any` for ports of all. Rules exist per bridge.
//!
//! What the rules do:
//! - traffic to a published port of this host is translated to the container, unless it comes from a container of the
//!   same bridge (or to 127.0.0.0/8): that goes to the proxy, which sees the right addresses. With the proxy switched
//!   off it is translated too, and masqueraded so that answers come back;
//! - traffic of containers that leaves by another link is masqueraded;
//! - traffic to containers from elsewhere is dropped unless it belongs to a connection or was translated;
//! - nothing that comes from a container, or without a proxy from anywhere, is routed to 127.0.0.0/8;
//! - traffic that is not of containers is dropped where forwarding is on only because Gantry switched it on.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;

use ipnet::Ipv4Net;
use sys::netlink::address::{self, Address};
use sys::netlink::link::{self, LOOPBACK, Veth};
use sys::netlink::{Batch, Route};
use sys::nft::{
    Chain, Comparison, ConntrackState, Element, Family, Field, Hook, HookPoint, Policy, Prefix, Rule, Set, Statement,
    Table,
};

use crate::config::Enabled;
use crate::endpoint::{BoundPort, Protocol};
use crate::mac::MacAddress;

/// The one table that Gantry owns.
pub const TABLE: &str = "gantry";
/// (protocol, host address, host port) → (container address, container port).
pub const BY_ADDRESS: &str = "published-address";
/// (protocol, host port) → (container address, container port).
pub const BY_PORT: &str = "published-any";
/// The name of a container's first link.
pub const CONTAINER_LINK: &str = "eth0";

/// Everything that the rules depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    pub bridges: Vec<BridgeNetwork>,
    pub published: Vec<Published>,
    pub userland_proxy: Enabled,
    /// What no bridge of ours sends or receives is not forwarded (see `forwarding`).
    pub drop_foreign: Enabled,
}

/// A bridge and its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeNetwork {
    pub device: String,
    pub subnet: Ipv4Net,
    /// Its containers may talk to each other.
    pub icc: Enabled,
    pub masquerade: Enabled,
}

/// A published port that is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    pub protocol: Protocol,
    pub host: Ipv4Addr,
    pub host_port: u16,
    pub container: Ipv4Addr,
    pub container_port: u16,
}

impl Published {
    /// `None` for ports that only the proxy serves: IPv6 host addresses, and loopback ones while there is a proxy.
    pub fn new(port: &BoundPort, container: Ipv4Addr, userland_proxy: Enabled) -> Option<Published> {
        let IpAddr::V4(host) = port.host_ip else { return None };
        if host.is_loopback() && userland_proxy.yes() {
            return None;
        }
        let (protocol, host_port, container_port) = (port.protocol, port.host_port, port.container_port);
        Some(Published { protocol, host, host_port, container, container_port })
    }

    /// The map that the port belongs to.
    pub fn map(&self) -> &'static str {
        if self.host.is_unspecified() { BY_PORT } else { BY_ADDRESS }
    }

    /// The port as an element of its map.
    pub fn element(&self) -> Element {
        let mut element = Element::default();
        Element::push_protocol(&mut element.key, self.protocol.number());
        if !self.host.is_unspecified() {
            Element::push_address(&mut element.key, IpAddr::V4(self.host));
        }
        Element::push_port(&mut element.key, self.host_port);
        Element::push_address(&mut element.data, IpAddr::V4(self.container));
        Element::push_port(&mut element.data, self.container_port);
        element
    }
}

/// The elements of one of the maps, sorted.
pub fn elements(published: &[Published], map: &str) -> Vec<Element> {
    let mut elements: Vec<_> = published.iter().filter(|p| p.map() == map).map(Published::element).collect();
    elements.sort();
    elements
}

/// The whole table.
pub fn table(topology: &Topology) -> Table {
    Table { family: Family::Ip, name: TABLE.to_owned(), sets: maps(&topology.published), chains: chains(topology) }
}

fn maps(published: &[Published]) -> Vec<Set> {
    let map = |name: &str, key: Vec<Field>| Set {
        name: name.to_owned(),
        key,
        data: vec![Field::Ipv4, Field::Port],
        elements: elements(published, name),
    };
    vec![map(BY_ADDRESS, by_address()), map(BY_PORT, by_port())]
}

fn by_address() -> Vec<Field> {
    vec![Field::Protocol, Field::Ipv4, Field::Port]
}

fn by_port() -> Vec<Field> {
    vec![Field::Protocol, Field::Port]
}

const ANY_LOOPBACK: Prefix = Prefix { address: Ipv4Addr::new(127, 0, 0, 0), length: 8 };

fn chains(topology: &Topology) -> Vec<Chain> {
    use Comparison::IsNot;
    use Statement::{Destination, DestinationIsLocal, Jump};
    let jump = || Jump("published".to_owned());
    let proxy = topology.userland_proxy.yes();
    let mut chains = vec![
        Chain { name: "published".to_owned(), hook: None, rules: published_rules(topology) },
        hooked("prerouting", HookPoint::NatPrerouting, vec![vec![DestinationIsLocal, jump()].into()]),
    ];
    let mut output = vec![DestinationIsLocal, jump()];
    if proxy {
        output.insert(0, Destination(IsNot, ANY_LOOPBACK));
    }
    chains.push(hooked("loopback", HookPoint::RawPrerouting, loopback_rules(topology)));
    chains.push(hooked("output", HookPoint::NatOutput, vec![output.into()]));
    chains.push(hooked("postrouting", HookPoint::NatPostrouting, postrouting_rules(topology)));
    chains.push(hooked("forward", HookPoint::FilterForward, forward_rules(topology)));
    chains
}

/// Without a proxy the bridges route 127.0.0.0/8 (route_localnet): nothing from outside may use that. A bridge may
/// still have the setting from then when there is a proxy again.
fn loopback_rules(topology: &Topology) -> Vec<Rule> {
    use Statement::{Destination, Drop, InputLink};
    let martian = |link| vec![link, Destination(Comparison::Is, ANY_LOOPBACK), Drop].into();
    if topology.userland_proxy.yes() {
        let bridges = topology.bridges.iter().map(|b| InputLink(Comparison::Is, b.device.clone()));
        bridges.map(martian).collect()
    } else {
        vec![martian(InputLink(Comparison::IsNot, "lo".to_owned()))]
    }
}

fn hooked(name: &str, point: HookPoint, rules: Vec<Rule>) -> Chain {
    Chain { name: name.to_owned(), hook: Some(Hook { point, policy: Policy::Accept }), rules }
}

fn published_rules(topology: &Topology) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    if topology.userland_proxy.yes() {
        for bridge in &topology.bridges {
            rules.push(vec![Statement::InputLink(Comparison::Is, bridge.device.clone()), Statement::Return].into());
        }
    }
    rules.push(vec![Statement::TranslateByMap { key: by_address(), map: BY_ADDRESS.to_owned() }].into());
    rules.push(vec![Statement::TranslateByMap { key: by_port(), map: BY_PORT.to_owned() }].into());
    rules
}

fn postrouting_rules(topology: &Topology) -> Vec<Rule> {
    use Comparison::{Is, IsNot};
    use Statement::{DestinationTranslated, Masquerade, OutputLink, Source};
    let mut rules: Vec<Rule> = Vec::new();
    for bridge in &topology.bridges {
        let subnet = Prefix { address: bridge.subnet.network(), length: bridge.subnet.prefix_len() };
        if bridge.masquerade.yes() {
            rules.push(vec![OutputLink(IsNot, bridge.device.clone()), Source(Is, subnet), Masquerade].into());
        }
        if !topology.userland_proxy.yes() {
            let out = || OutputLink(Is, bridge.device.clone());
            rules.push(vec![out(), Source(Is, subnet), DestinationTranslated, Masquerade].into());
            rules.push(vec![out(), Source(Is, ANY_LOOPBACK), DestinationTranslated, Masquerade].into());
        }
    }
    rules
}

fn forward_rules(topology: &Topology) -> Vec<Rule> {
    let mut rules: Vec<Rule> = topology.bridges.iter().flat_map(to_bridge_rules).collect();
    if topology.drop_foreign.yes() {
        let from = |b: &BridgeNetwork| Statement::InputLink(Comparison::Is, b.device.clone());
        rules.extend(topology.bridges.iter().map(|b| vec![from(b), Statement::Accept].into()));
        rules.push(vec![Statement::Counter, Statement::Drop].into());
    }
    rules
}

fn to_bridge_rules(bridge: &BridgeNetwork) -> Vec<Rule> {
    use Comparison::Is;
    use Statement::{Accept, Connection, Counter, DestinationTranslated, Drop, InputLink, OutputLink};
    let out = || OutputLink(Is, bridge.device.clone());
    let within = vec![InputLink(Is, bridge.device.clone()), out()];
    let verdict = if bridge.icc.yes() { vec![Accept] } else { vec![Counter, Drop] };
    vec![
        vec![out(), Connection(ConntrackState::EstablishedOrRelated), Accept].into(),
        vec![out(), DestinationTranslated, Accept].into(),
        [within, verdict].concat().into(),
        vec![out(), Counter, Drop].into(),
    ]
}

/// A mark of the table's rules (not of the maps' elements): equal marks mean that the rules need no rewriting.
pub fn fingerprint(topology: &Topology) -> String {
    let rules = Topology { published: Vec::new(), ..topology.clone() };
    let mut hasher = DefaultHasher::new();
    table(&rules).to_string().hash(&mut hasher);
    format!("{TABLE} {:016x}", hasher.finish())
}

/// The links of one container: a pair between its namespace and a bridge.
#[derive(Clone, Debug)]
pub struct EndpointLinks<'a> {
    pub host_link: &'a str,
    pub mac: MacAddress,
    /// The container end's index in its namespace.
    pub index: u32,
    pub mtu: u32,
    pub address: Ipv4Addr,
    pub prefix_len: u8,
    pub gateway: Ipv4Addr,
    /// The bridge's index.
    pub bridge: u32,
    pub port: BridgePort,
}

/// How a bridge treats frames of one of its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BridgePort {
    Normal,
    /// Frames may leave where they came in: for translation without a proxy.
    Hairpin,
    /// No frames to other isolated ports: containers that may not talk to each other.
    Isolated,
}

impl BridgePort {
    /// Makes a link such a port of the bridge.
    pub fn attach(self, batch: &mut Batch, link: &str, bridge: u32) {
        link::attach(batch, link, bridge);
        match self {
            BridgePort::Normal => (),
            BridgePort::Hairpin => link::set_hairpin(batch, link),
            BridgePort::Isolated => link::set_isolated(batch, link),
        }
    }
}

impl EndpointLinks<'_> {
    /// Requests for a socket inside the container's namespace; message 1 creates the pair.
    pub fn inside(&self, host: BorrowedFd<'_>) -> Batch {
        let mut batch = Batch::new();
        link::set_up(&mut batch, LOOPBACK);
        let pair = Veth {
            name: CONTAINER_LINK,
            mac: self.mac.0,
            index: self.index,
            mtu: self.mtu,
            far_name: self.host_link,
            far_namespace: host,
        };
        link::create_veth(&mut batch, &pair);
        address::add(&mut batch, &Address { link: self.index, address: self.address, prefix_len: self.prefix_len });
        let (destination, gateway) = (Ipv4Addr::UNSPECIFIED, Some(self.gateway));
        address::add_route(&mut batch, &Route { destination, prefix_len: 0, gateway, link: self.index });
        batch
    }

    /// Requests for a socket in the host's namespace, after `inside`.
    pub fn outside(&self) -> Batch {
        let mut batch = Batch::new();
        self.port.attach(&mut batch, self.host_link, self.bridge);
        // The host may still know the address's last owner.
        address::set_neighbour(&mut batch, self.bridge, self.address, self.mac.0);
        // A first packet that is dropped comes again after a second.
        link::settle_named(&mut batch, self.host_link);
        link::settle(&mut batch, self.bridge);
        batch
    }

    /// Requests for a socket inside the container's namespace, after `outside`.
    pub fn settle(&self) -> Batch {
        let mut batch = Batch::new();
        link::settle(&mut batch, self.index);
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn docker0() -> BridgeNetwork {
        BridgeNetwork {
            device: "docker0".to_owned(),
            subnet: "172.17.0.0/16".parse().unwrap(),
            icc: Enabled::Yes,
            masquerade: Enabled::Yes,
        }
    }

    fn published(host: [u8; 4], host_port: u16, container_port: u16) -> Published {
        let container = Ipv4Addr::new(172, 17, 0, 2);
        Published { protocol: Protocol::Tcp, host: host.into(), host_port, container, container_port }
    }

    fn plain() -> Topology {
        let (published, userland_proxy, drop_foreign) = (Vec::new(), Enabled::Yes, Enabled::No);
        Topology { bridges: vec![docker0()], published, userland_proxy, drop_foreign }
    }

    /// Set `GANTRY_BLESS=1` to write the golden files anew.
    fn golden(name: &str, topology: &Topology) {
        let path = format!("{}/tests/golden/{name}.nft", env!("CARGO_MANIFEST_DIR"));
        let text = table(topology).to_string();
        if std::env::var_os("GANTRY_BLESS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(&path).unwrap_or_default(), "{path}");
    }

    #[test]
    fn tables() {
        let plain = plain();
        golden("default", &plain);
        let ports = vec![
            published([0, 0, 0, 0], 8081, 80),
            published([10, 0, 0, 1], 53, 5353),
            Published { protocol: Protocol::Udp, ..published([0, 0, 0, 0], 8081, 80) },
        ];
        golden("ports", &Topology { published: ports, ..plain.clone() });
        golden("no-proxy", &Topology { userland_proxy: Enabled::No, ..plain.clone() });
        let closed = BridgeNetwork { icc: Enabled::No, masquerade: Enabled::No, ..docker0() };
        golden("closed", &Topology { bridges: vec![closed], ..plain.clone() });
        golden("drop-foreign", &Topology { drop_foreign: Enabled::Yes, ..plain.clone() });
        golden("no-bridge", &Topology { bridges: Vec::new(), ..plain });
    }

    #[test]
    fn the_fingerprint_is_of_the_rules_only() {
        let plain = plain();
        let with_port = Topology { published: vec![published([0, 0, 0, 0], 1, 1)], ..plain.clone() };
        assert_eq!(fingerprint(&plain), fingerprint(&with_port));
        assert_ne!(fingerprint(&plain), fingerprint(&Topology { userland_proxy: Enabled::No, ..plain }));
    }

    #[test]
    fn what_the_proxy_serves_alone_is_not_translated() {
        let port = |ip: &str| BoundPort {
            container_port: 80,
            protocol: Protocol::Tcp,
            host_ip: ip.parse().unwrap(),
            host_port: 8080,
        };
        let to = Ipv4Addr::new(172, 17, 0, 2);
        let translated = |ip: &str, proxy| Published::new(&port(ip), to, proxy).is_some();
        assert!(translated("0.0.0.0", Enabled::Yes) && translated("10.0.0.1", Enabled::Yes));
        assert!(!translated("::", Enabled::Yes) && !translated("::", Enabled::No));
        assert!(!translated("127.0.0.1", Enabled::Yes) && translated("127.0.0.1", Enabled::No));
    }
}
