//! What should stand in the kernel, as a pure function of the topology.
//!
//! One table of both families holds all rules. Published ports are elements of maps, so that a container's start adds
//! elements and no rule: `published-address` for ports of one host address, `published-any` for ports of all, and beside
//! each a map of ranges ([`crate::published`]). What a packet that is forwarded meets is found by the name of its links (maps `to-bridge` and `from-internal`), so that it
//! does not grow with the number of networks.
//!
//! What the rules do:
//! - traffic to a published port of this host is translated to the container, unless it comes from a container (or goes
//!   to a loopback or link-local address): that goes to the proxy, which sees the right addresses. With the proxy switched off it is
//!   translated too, and masqueraded so that answers come back;
//! - traffic of containers that leaves by another link is masqueraded, where the network's mode says so;
//! - traffic to containers from elsewhere, other networks included, is dropped unless it belongs to a connection, was
//!   translated, or goes to a port that a routed network publishes (with `direct_routing`, or by a link that the network
//!   trusts: to a published port);
//! - of a family for which no rules are kept nothing is dropped or translated;
//! - an internal network's traffic neither leaves its bridge nor comes to it;
//! - nothing that comes from a container, or without a proxy from anywhere, is routed to 127.0.0.0/8; with one, nothing from
//!   elsewhere to a port that is published there;
//! - traffic that is not of containers is dropped where forwarding is on only because Gantry switched it on.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;

use ipnet::IpNet;
use sys::netlink::address::{self, Address};
use sys::netlink::link::{self, LOOPBACK, Veth};
use sys::netlink::{Batch, Route};
use sys::nft::{
    Chain, Comparison, ConntrackState, Direction, Element, Family as Tables, Field, Hook, HookPoint, Policy, Prefix,
    Protocol as Packets, Rule, Set, Statement, Table,
};

use crate::config::{Enabled, Mark};
use crate::family::{self, Family};
use crate::mac::MacAddress;
use crate::published::{
    BY_ADDRESS, BY_ADDRESS_6, BY_PORT, BY_PORT_6, KEPT, KEPT_RANGES, PublishedPorts, RANGES_BY_ADDRESS,
    RANGES_BY_ADDRESS_6, RANGES_BY_PORT, RANGES_BY_PORT_6, ROUTED, ROUTED_6, ROUTED_RANGES, ROUTED_RANGES_6,
};

/// The one table that Gantry owns.
pub const TABLE: &str = "gantry";
/// What it is of.
pub const TABLE_FAMILY: Tables = Tables::Inet;
/// What the table of daemons without IPv6 was of; its name was the same.
pub const OLD_TABLE_FAMILY: Tables = Tables::Ip;
/// Names of the bridges.
const BRIDGES: &str = "bridges";
/// Bridge → chain for what goes to it.
const TO_BRIDGE: &str = "to-bridge";
/// Internal bridge → chain for what comes from it.
const FROM_INTERNAL: &str = "from-internal";

/// Everything that the rules depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    pub bridges: Vec<BridgeNetwork>,
    pub published: PublishedPorts,
    pub userland_proxy: Enabled,
    pub drop_foreign: DropForeign,
    /// Families that rules are kept for.
    pub filtered: Filtered,
    /// Published ports are reached by the containers' own addresses, too.
    pub direct_routing: Enabled,
    /// Packets with this mark are forwarded to containers in any case.
    pub accept_mark: Option<Mark>,
}

impl Topology {
    /// The order of bridges says nothing: equal topologies have equal rules.
    pub fn sort(&mut self) {
        self.bridges.sort_by(|a, b| a.device.cmp(&b.device));
    }

    /// Whether there is anything to keep rules for.
    pub fn needs_rules(&self) -> bool {
        let mut nets = self.bridges.iter().flat_map(|bridge| &bridge.subnets).map(|subnet| family::of_net(subnet.net));
        self.filtered.ipv4.yes() || self.filtered.ipv6.yes() && nets.any(|family| family == Family::Ipv6)
    }
}

/// By family, whether rules are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filtered {
    pub ipv4: Enabled,
    pub ipv6: Enabled,
}

impl Filtered {
    /// Whether rules of a family are kept.
    pub fn has(self, family: Family) -> bool {
        match family {
            Family::Ipv4 => self.ipv4.yes(),
            Family::Ipv6 => self.ipv6.yes(),
        }
    }

    /// The families without rules.
    fn others(self) -> impl Iterator<Item = Packets> {
        Family::BOTH.into_iter().filter(move |family| !self.has(*family)).map(packets_of)
    }
}

/// What no bridge of ours sends or receives is not forwarded (see `forwarding`), by family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropForeign {
    pub ipv4: Enabled,
    pub ipv6: Enabled,
}

/// A bridge and its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeNetwork {
    pub device: String,
    /// At most one of a family.
    pub subnets: Vec<Subnet>,
    /// Its containers may talk to each other.
    pub icc: Enabled,
    /// Nothing leaves it.
    pub internal: Enabled,
    /// Links whose packets may go to published ports by the containers' own addresses.
    pub trusted: Vec<String>,
}

/// A family of a bridge network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    pub net: IpNet,
    pub egress: Egress,
    pub mode: GatewayMode,
}

/// The source address of packets that leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    /// The container's.
    Kept,
    /// The outgoing link's.
    Masqueraded,
    /// This one.
    Translated(IpAddr),
}

/// How a network is reached from outside (`com.docker.network.bridge.gateway_mode_ipv4` and `_ipv6`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayMode {
    /// Published ports are translated, nothing else comes in.
    Nat,
    /// Published ports are translated, everything comes in.
    NatUnprotected,
    /// Published ports are reached by the container's own address; nothing is translated.
    Routed,
    /// The bridge has no address.
    Isolated,
}

/// The whole table.
pub fn table(topology: &Topology) -> Table {
    Table { family: TABLE_FAMILY, name: TABLE.to_owned(), sets: sets(topology), chains: chains(topology) }
}

fn sets(topology: &Topology) -> Vec<Set> {
    let mut elements = topology.published.elements();
    let mut ports = |name: &str, data: &[Field]| Set {
        name: name.to_owned(),
        key: port_key(name),
        data: data.to_vec(),
        elements: elements.remove(name).unwrap_or_default(),
    };
    let (v4, v6) = ([Field::Ipv4, Field::Port], [Field::Ipv6, Field::Port]);
    let mut sets = vec![
        ports(BY_ADDRESS, &v4),
        ports(BY_PORT, &v4),
        ports(BY_ADDRESS_6, &v6),
        ports(BY_PORT_6, &v6),
        ports(ROUTED, &[]),
        ports(ROUTED_6, &[]),
        ports(RANGES_BY_ADDRESS, &v4[..1]),
        ports(RANGES_BY_PORT, &v4[..1]),
        ports(RANGES_BY_ADDRESS_6, &v6[..1]),
        ports(RANGES_BY_PORT_6, &v6[..1]),
        ports(ROUTED_RANGES, &[]),
        ports(ROUTED_RANGES_6, &[]),
        ports(KEPT, &[]),
        ports(KEPT_RANGES, &[]),
    ];
    let by_link = |name: &str, data: &[Field], elements: Vec<Element>| Set {
        name: name.to_owned(),
        key: vec![Field::LinkName],
        data: data.to_vec(),
        elements,
    };
    let bridges = &topology.bridges;
    let internal = bridges.iter().filter(|bridge| bridge.internal.yes());
    sets.extend([
        by_link(BRIDGES, &[], sorted(bridges.iter().map(|bridge| link_element(&bridge.device, String::new())))),
        by_link(TO_BRIDGE, &[Field::Jump], sorted(bridges.iter().map(|b| link_element(&b.device, chain_to(b))))),
        by_link(FROM_INTERNAL, &[Field::Jump], sorted(internal.map(|b| link_element(&b.device, chain_from(b))))),
    ]);
    sets
}

fn port_key(set: &str) -> Vec<Field> {
    match set {
        BY_ADDRESS | ROUTED | KEPT => vec![Field::Protocol, Field::Ipv4, Field::Port],
        BY_ADDRESS_6 | ROUTED_6 => vec![Field::Protocol, Field::Ipv6, Field::Port],
        RANGES_BY_ADDRESS | ROUTED_RANGES | KEPT_RANGES => vec![Field::Protocol, Field::Ipv4, Field::PortRange],
        RANGES_BY_ADDRESS_6 | ROUTED_RANGES_6 => vec![Field::Protocol, Field::Ipv6, Field::PortRange],
        RANGES_BY_PORT | RANGES_BY_PORT_6 => vec![Field::Protocol, Field::PortRange],
        _ => vec![Field::Protocol, Field::Port],
    }
}

fn link_element(link: &str, data: String) -> Element {
    let mut element = Element { data: data.into_bytes(), ..Element::default() };
    Element::push_link(&mut element.key, link);
    element
}

fn sorted(elements: impl Iterator<Item = Element>) -> Vec<Element> {
    let mut elements: Vec<_> = elements.collect();
    elements.sort();
    elements
}

fn chain_to(bridge: &BridgeNetwork) -> String {
    format!("to-{}", bridge.device)
}

fn chain_from(bridge: &BridgeNetwork) -> String {
    format!("from-{}", bridge.device)
}

const ANY_LOOPBACK: Prefix = Prefix { address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), length: 8 };

const LINK_LOCAL_6: Prefix = Prefix { address: IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), length: 10 };
const LOOPBACK_6: Prefix = Prefix { address: IpAddr::V6(Ipv6Addr::LOCALHOST), length: 128 };

fn prefix(net: IpNet) -> Prefix {
    Prefix { address: net.network(), length: net.prefix_len() }
}

fn packets(net: IpNet) -> Packets {
    packets_of(family::of_net(net))
}

fn packets_of(family: Family) -> Packets {
    match family {
        Family::Ipv4 => Packets::Ipv4,
        Family::Ipv6 => Packets::Ipv6,
    }
}

fn from_bridge() -> Statement {
    Statement::LinkIn(Direction::Input, BRIDGES.to_owned())
}

fn chains(topology: &Topology) -> Vec<Chain> {
    use Statement::{Destination, DestinationIsLocal, Jump};
    let jump = || Jump("published".to_owned());
    let local = || vec![DestinationIsLocal, jump()].into();
    // A loopback address is the proxy's alone; the one of IPv6 in any case, since it cannot be routed elsewhere.
    let kept = |prefix| vec![Destination(Comparison::Is, prefix), Statement::Return].into();
    let mut output: Vec<Rule> = vec![kept(LOOPBACK_6), local()];
    let mut prerouting: Vec<Rule> = vec![local()];
    if topology.userland_proxy.yes() {
        // Who comes by a link-local address has one, to which a container cannot answer.
        prerouting.insert(0, kept(LINK_LOCAL_6));
        output.splice(0..0, [kept(ANY_LOOPBACK), kept(LINK_LOCAL_6)]);
    }
    let mut chains = vec![
        Chain { name: "published".to_owned(), hook: None, rules: published_rules(topology) },
        hooked("prerouting", HookPoint::NatPrerouting, prerouting),
        hooked("loopback", HookPoint::RawPrerouting, loopback_rules(topology)),
        hooked("output", HookPoint::NatOutput, output),
        hooked("postrouting", HookPoint::NatPostrouting, postrouting_rules(topology)),
    ];
    for bridge in &topology.bridges {
        chains.push(Chain { name: chain_to(bridge), hook: None, rules: to_bridge_rules(topology, bridge) });
        if bridge.internal.yes() {
            let leave = vec![Statement::OutputLink(Comparison::IsNot, bridge.device.clone())];
            let kept = topology.filtered.others().map(|packets| vec![Statement::Is(packets), Statement::Return].into());
            let leave = [leave, vec![Statement::Counter, Statement::Drop]].concat().into();
            let rules = kept.chain([leave]).collect();
            chains.push(Chain { name: chain_from(bridge), hook: None, rules });
        }
    }
    chains.push(hooked("forward", HookPoint::FilterForward, forward_rules(topology)));
    chains
}

/// Without a proxy the bridges route 127.0.0.0/8 (route_localnet): nothing from outside may use that. A bridge may
/// still have the setting from then when there is a proxy again, and another link may have it in any case: a port at a loopback
/// address is for this host alone.
fn loopback_rules(topology: &Topology) -> Vec<Rule> {
    use Statement::{Destination, Drop, In, InputLink};
    let elsewhere = || InputLink(Comparison::IsNot, "lo".to_owned());
    let martian = |link| vec![link, Destination(Comparison::Is, ANY_LOOPBACK), Drop].into();
    if !topology.filtered.ipv4.yes() {
        return Vec::new();
    }
    if topology.userland_proxy.yes() {
        let published = [KEPT, KEPT_RANGES].map(|set| {
            let published = In { key: port_key(set), set: set.to_owned() };
            vec![elsewhere(), Destination(Comparison::Is, ANY_LOOPBACK), published, Drop].into()
        });
        [martian(from_bridge())].into_iter().chain(published).collect()
    } else {
        vec![martian(elsewhere())]
    }
}

fn hooked(name: &str, point: HookPoint, rules: Vec<Rule>) -> Chain {
    Chain { name: name.to_owned(), hook: Some(Hook { point, policy: Policy::Accept }), rules }
}

fn published_rules(topology: &Topology) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    if topology.userland_proxy.yes() {
        rules.push(vec![from_bridge(), Statement::Return].into());
    }
    let maps = [
        (Family::Ipv4, [BY_ADDRESS, RANGES_BY_ADDRESS], [BY_PORT, RANGES_BY_PORT]),
        (Family::Ipv6, [BY_ADDRESS_6, RANGES_BY_ADDRESS_6], [BY_PORT_6, RANGES_BY_PORT_6]),
    ];
    for (family, by_address, by_port) in maps.into_iter().filter(|(family, ..)| topology.filtered.has(*family)) {
        let protocol = packets_of(family);
        let translate = |map: &str| Statement::TranslateByMap { protocol, key: port_key(map), map: map.to_owned() };
        rules.extend(by_address.map(|map| vec![translate(map)].into()));
        rules.extend(by_port.map(|map| vec![Statement::Is(protocol), translate(map)].into()));
    }
    rules
}

fn postrouting_rules(topology: &Topology) -> Vec<Rule> {
    use Comparison::{Is, IsNot};
    use Statement::{DestinationTranslated, Masquerade, OutputLink, Source, TranslateSource};
    let mut rules: Vec<Rule> = Vec::new();
    for bridge in &topology.bridges {
        let out = |comparison| OutputLink(comparison, bridge.device.clone());
        for subnet in &bridge.subnets {
            let translate = match subnet.egress {
                Egress::Kept => None,
                Egress::Masqueraded => Some(Masquerade),
                Egress::Translated(address) => Some(TranslateSource(address)),
            };
            rules.extend(translate.map(|it| vec![out(IsNot), Source(Is, prefix(subnet.net)), it].into()));
            if !topology.userland_proxy.yes() {
                rules.push(vec![out(Is), Source(Is, prefix(subnet.net)), DestinationTranslated, Masquerade].into());
            }
        }
        if !topology.userland_proxy.yes() {
            rules.push(vec![out(Is), Source(Is, ANY_LOOPBACK), DestinationTranslated, Masquerade].into());
        }
    }
    rules
}

fn forward_rules(topology: &Topology) -> Vec<Rule> {
    use Statement::{Accept, Counter, Drop, Is};
    let jump = |direction, map: &str| vec![Statement::JumpByLink(direction, map.to_owned())].into();
    let mut rules: Vec<Rule> = vec![jump(Direction::Input, FROM_INTERNAL), jump(Direction::Output, TO_BRIDGE)];
    let dropped = topology.drop_foreign;
    if dropped.ipv4.yes() || dropped.ipv6.yes() {
        rules.push(vec![from_bridge(), Accept].into());
    }
    for (packets, dropped) in [(Packets::Ipv4, dropped.ipv4), (Packets::Ipv6, dropped.ipv6)] {
        if dropped.yes() {
            rules.push(vec![Is(packets), Counter, Drop].into());
        }
    }
    rules
}

/// What goes to a bridge; the last rule drops.
fn to_bridge_rules(topology: &Topology, bridge: &BridgeNetwork) -> Vec<Rule> {
    use Comparison::Is;
    use Statement::{Accept, Connection, Counter, DestinationTranslated, Drop, InputLink};
    let within = vec![InputLink(Is, bridge.device.clone())];
    let verdict = if bridge.icc.yes() { vec![Accept] } else { vec![Counter, Drop] };
    let last = vec![Counter, Drop].into();
    let established = vec![Connection(ConntrackState::EstablishedOrRelated), Accept].into();
    let within = [within, verdict].concat().into();
    let open = topology.filtered.others().map(|packets| vec![Statement::Is(packets), Accept].into());
    if bridge.internal.yes() {
        return [within].into_iter().chain(open).chain([last]).collect();
    }
    let mut rules: Vec<Rule> = vec![established, vec![DestinationTranslated, Accept].into(), within];
    if let Some(Mark { value, mask }) = topology.accept_mark {
        rules.push(vec![Statement::Mark { value, mask }, Accept].into());
    }
    for subnet in &bridge.subnets {
        let packets = packets(subnet.net);
        let trusted = |link: &String| reached_directly(packets, Some(link));
        rules.extend(bridge.trusted.iter().flat_map(trusted));
        match subnet.mode {
            GatewayMode::Nat if topology.direct_routing.yes() => rules.extend(reached_directly(packets, None)),
            GatewayMode::Nat | GatewayMode::Isolated => (),
            GatewayMode::NatUnprotected => rules.push(vec![Statement::Is(packets), Accept].into()),
            GatewayMode::Routed => {
                rules.push(vec![Statement::Icmp(packets), Accept].into());
                rules.extend(reached_directly(packets, None));
            }
        }
    }
    rules.push(last);
    rules
}

/// Published ports, by the containers' own addresses; `by`: for what comes by this link alone.
fn reached_directly(packets: Packets, by: Option<&String>) -> [Rule; 2] {
    let sets = if packets == Packets::Ipv4 { [ROUTED, ROUTED_RANGES] } else { [ROUTED_6, ROUTED_RANGES_6] };
    let by = by.map(|link| Statement::InputLink(Comparison::Is, link.clone()));
    sets.map(|set| {
        let published = [Statement::In { key: port_key(set), set: set.to_owned() }, Statement::Accept];
        by.iter().cloned().chain(published).collect::<Vec<_>>().into()
    })
}

/// A mark of the table's rules (not of the published ports): equal marks mean that the rules need no rewriting.
pub fn fingerprint(topology: &Topology) -> String {
    let rules = Topology { published: PublishedPorts::default(), ..topology.clone() };
    let mut hasher = DefaultHasher::new();
    table(&rules).to_string().hash(&mut hasher);
    format!("{TABLE} {:016x}", hasher.finish())
}

/// The links of one endpoint: a pair between its namespace and a bridge.
#[derive(Clone, Debug)]
pub struct EndpointLinks<'a> {
    pub host_link: &'a str,
    /// The container end's name.
    pub name: &'a str,
    pub mac: MacAddress,
    /// The container end's index in its namespace.
    pub index: u32,
    pub mtu: u32,
    /// The container end's own, of both families, those without a subnet included.
    pub addresses: &'a [(IpAddr, u8)],
    /// Gateways of the default routes that lead here.
    pub gateways: &'a [IpAddr],
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
            name: self.name,
            mac: self.mac.0,
            index: self.index,
            mtu: self.mtu,
            far_name: self.host_link,
            far_namespace: host,
        };
        link::create_veth(&mut batch, &pair);
        for (address, prefix_len) in self.addresses.iter().copied() {
            address::add(&mut batch, &Address { link: self.index, address, prefix_len });
        }
        for gateway in self.gateways {
            // In a container that has joined another network before, the route is there already.
            address::replace_route(&mut batch, &Route::default_by(*gateway, self.index));
        }
        batch
    }

    /// Requests for a socket in the host's namespace, after `inside`.
    pub fn outside(&self) -> Batch {
        let mut batch = Batch::new();
        self.port.attach(&mut batch, self.host_link, self.bridge);
        // The host may still know the address's last owner.
        for (address, _) in self.addresses {
            address::set_neighbour(&mut batch, self.bridge, *address, self.mac.0);
        }
        // A first packet that is dropped comes again after a second.
        link::await_carrier_named(&mut batch, self.host_link);
        link::await_carrier(&mut batch, self.bridge);
        batch
    }

    /// Requests for a socket inside the container's namespace, after `outside`.
    pub fn await_carrier(&self) -> Batch {
        let mut batch = Batch::new();
        link::await_carrier(&mut batch, self.index);
        // A link that announces its addresses does so now.
        link::set_mac(&mut batch, self.index, self.mac.0);
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::{BoundPort, Protocol};
    use crate::published::{Published, Verdict};

    fn subnet(net: &str) -> Subnet {
        Subnet { net: net.parse().unwrap(), egress: Egress::Masqueraded, mode: GatewayMode::Nat }
    }

    fn bridge(device: &str, subnets: Vec<Subnet>) -> BridgeNetwork {
        let (icc, internal, trusted) = (Enabled::Yes, Enabled::No, Vec::new());
        BridgeNetwork { device: device.to_owned(), subnets, icc, internal, trusted }
    }

    fn docker0() -> BridgeNetwork {
        bridge("docker0", vec![subnet("172.17.0.0/16")])
    }

    fn published(host: &str, host_port: u16, container: &str, container_port: u16) -> Published {
        let host = Some((host.parse().unwrap(), host_port));
        Published {
            protocol: Protocol::Tcp,
            host,
            container: container.parse().unwrap(),
            container_port,
            count: 1,
            verdict: Verdict::Accept,
        }
    }

    fn plain() -> Topology {
        Topology {
            bridges: vec![docker0()],
            published: PublishedPorts::default(),
            userland_proxy: Enabled::Yes,
            drop_foreign: DropForeign { ipv4: Enabled::No, ipv6: Enabled::No },
            filtered: Filtered { ipv4: Enabled::Yes, ipv6: Enabled::Yes },
            direct_routing: Enabled::No,
            accept_mark: None,
        }
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
            published("0.0.0.0", 8081, "172.17.0.2", 80),
            published("10.0.0.1", 53, "172.17.0.2", 5353),
            Published { protocol: Protocol::Udp, ..published("0.0.0.0", 8081, "172.17.0.2", 80) },
            Published { count: 100, ..published("0.0.0.0", 9000, "172.17.0.2", 9000) },
            Published { count: 100, ..published("10.0.0.1", 9000, "172.17.0.3", 9000) },
            Published { verdict: Verdict::Drop, ..published("127.0.0.1", 8082, "172.17.0.2", 80) },
            Published { count: 3, ..published("0.0.0.0", 7000, "172.17.0.2", 7100) },
        ];
        golden("ports", &Topology { published: ports.into(), ..plain.clone() });
        golden("no-proxy", &Topology { userland_proxy: Enabled::No, ..plain.clone() });
        let mut closed = BridgeNetwork { icc: Enabled::No, ..docker0() };
        closed.subnets[0].egress = Egress::Kept;
        golden("closed", &Topology { bridges: vec![closed], ..plain.clone() });
        let drop_foreign = DropForeign { ipv4: Enabled::Yes, ipv6: Enabled::No };
        golden("drop-foreign", &Topology { drop_foreign, ..plain.clone() });
        golden("no-bridge", &Topology { bridges: Vec::new(), ..plain });
    }

    #[test]
    fn tables_of_several_networks() {
        let plain = plain();
        let both = bridge("br-app", vec![subnet("172.18.0.0/16"), subnet("fd00:1::/64")]);
        let internal = BridgeNetwork {
            internal: Enabled::Yes,
            ..bridge("br-in", vec![Subnet { egress: Egress::Kept, ..subnet("172.19.0.0/16") }])
        };
        let ports = vec![
            published("::", 8081, "fd00:1::2", 80),
            published("fd00:9::1", 53, "fd00:1::2", 5353),
            published("0.0.0.0", 8081, "172.18.0.2", 80),
        ];
        golden(
            "networks",
            &Topology { bridges: vec![docker0(), both, internal], published: ports.into(), ..plain.clone() },
        );
        let with = |mode, egress, net: &str| Subnet { mode, egress, ..subnet(net) };
        let modes = vec![
            bridge("br-r", vec![with(GatewayMode::Routed, Egress::Kept, "10.1.0.0/24"), subnet("fd00:1::/64")]),
            bridge("br-u", vec![with(GatewayMode::NatUnprotected, Egress::Masqueraded, "10.2.0.0/24")]),
            bridge(
                "br-6",
                vec![
                    with(GatewayMode::Nat, Egress::Translated("10.9.9.9".parse().unwrap()), "10.3.0.0/24"),
                    with(GatewayMode::Routed, Egress::Kept, "fd00:2::/64"),
                ],
            ),
            BridgeNetwork { trusted: vec!["wg0".to_owned()], ..bridge("br-t", vec![subnet("10.4.0.0/24")]) },
        ];
        let routed = |container: &str| Published { host: None, ..published("::", 0, container, 80) };
        let range = Published { count: 200, ..routed("10.1.0.3") };
        let published = vec![routed("10.1.0.2"), routed("fd00:2::2"), range].into();
        let accept_mark = Some(Mark { value: 1, mask: u32::MAX });
        let drop_foreign = DropForeign { ipv4: Enabled::Yes, ipv6: Enabled::Yes };
        golden("modes", &Topology { bridges: modes, published, accept_mark, drop_foreign, ..plain.clone() });
        let nat_unprotected = with(GatewayMode::NatUnprotected, Egress::Kept, "172.18.0.0/16");
        let six = bridge("br-6", vec![nat_unprotected, subnet("fd00:1::/64")]);
        let inner = BridgeNetwork { internal: Enabled::Yes, ..bridge("br-in", vec![subnet("fd00:3::/64")]) };
        let filtered = Filtered { ipv4: Enabled::No, ipv6: Enabled::Yes };
        golden("ipv6-alone", &Topology { bridges: vec![six, inner], filtered, direct_routing: Enabled::Yes, ..plain });
    }

    #[test]
    fn the_fingerprint_is_of_the_rules_only() {
        let plain = plain();
        let with_port = Topology { published: vec![published("0.0.0.0", 1, "172.17.0.2", 1)].into(), ..plain.clone() };
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
        let translated =
            |ip: &str, to: &str, proxy| Published::translated(&port(ip), to.parse().unwrap(), proxy).is_some();
        let v4 = |ip, proxy| translated(ip, "172.17.0.2", proxy);
        assert!(v4("0.0.0.0", Enabled::Yes) && v4("10.0.0.1", Enabled::Yes));
        assert!(!v4("::", Enabled::Yes) && !v4("::", Enabled::No));
        assert!(!v4("127.0.0.1", Enabled::Yes) && v4("127.0.0.1", Enabled::No));
        let v6 = |ip, proxy| translated(ip, "fd00::2", proxy);
        assert!(v6("::", Enabled::Yes) && v6("fd00:9::1", Enabled::No));
        assert!(!v6("0.0.0.0", Enabled::Yes) && !v6("::1", Enabled::No));
    }
}
