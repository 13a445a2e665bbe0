//! nf_tables: the `nft` program lists what was written exactly as the data prints.

use std::net::{IpAddr, Ipv4Addr};

use rustix::io::Errno;
use sys::netlink::Socket;
use sys::nft::{
    self, Chain, Comparison, ConntrackState, Direction, Element, Family, Field, Hook, HookPoint, Policy, Prefix,
    Protocol, Set, Statement, Table, Transaction,
};

use crate::{in_namespace, output};

fn element(port: u16, container: [u8; 4]) -> Element {
    let mut made = Element::default();
    Element::push_protocol(&mut made.key, 6);
    Element::push_port(&mut made.key, port);
    Element::push_address(&mut made.data, IpAddr::V4(Ipv4Addr::from(container)));
    Element::push_port(&mut made.data, 80);
    made
}

fn hooked(name: &str, point: HookPoint, rules: Vec<Vec<Statement>>) -> Chain {
    let hook = Some(Hook { point, policy: Policy::Accept });
    Chain { name: name.to_owned(), hook, rules: rules.into_iter().map(Into::into).collect() }
}

fn by_map(protocol: Protocol, key: Vec<Field>, map: &str) -> Statement {
    Statement::TranslateByMap { protocol, key, map: map.to_owned() }
}

/// A table of both families: what the one of IPv4 does not have.
fn inet() -> Table {
    use Comparison::{Is, IsNot};
    use Statement::*;
    let set = |name: &str, key: &[Field], data: &[Field], elements: Vec<Element>| Set {
        name: name.to_owned(),
        key: key.to_vec(),
        data: data.to_vec(),
        elements,
    };
    let by_link = |name: &str, chain: &str| {
        let mut element = Element { data: chain.as_bytes().to_vec(), ..Element::default() };
        Element::push_link(&mut element.key, name);
        element
    };
    let by_port = [Field::Protocol, Field::Ipv6, Field::Port];
    let translated = [Field::Ipv6, Field::Port];
    let subnet = Prefix { address: "fd00:1::".parse().expect("an address"), length: 61 };
    let host = Prefix { address: "fd00:2::1".parse().expect("an address"), length: 128 };
    let v4 = Prefix { address: "10.1.0.0".parse().expect("an address"), length: 20 };
    let bridge = Chain { name: "to-br0".to_owned(), hook: None, rules: vec![vec![Accept].into()] };
    Table {
        family: Family::Inet,
        name: "both".to_owned(),
        sets: vec![
            set("ports", &by_port, &translated, Vec::new()),
            set("open", &by_port, &[], Vec::new()),
            set("bridges", &[Field::LinkName], &[], vec![by_link("br0", "")]),
            set("to", &[Field::LinkName], &[Field::Jump], vec![by_link("br0", "to-br0"), by_link("br1", "to-br0")]),
        ],
        chains: vec![
            bridge,
            hooked(
                "prerouting",
                HookPoint::NatPrerouting,
                vec![
                    vec![LinkIn(Direction::Input, "bridges".to_owned()), Return],
                    vec![by_map(Protocol::Ipv6, by_port.to_vec(), "ports")],
                ],
            ),
            hooked(
                "postrouting",
                HookPoint::NatPostrouting,
                vec![
                    vec![OutputLink(IsNot, "br0".to_owned()), Source(Is, subnet), Masquerade],
                    vec![Source(Is, v4), TranslateSource("10.9.9.9".parse().expect("an address"))],
                    vec![Source(Is, subnet), TranslateSource("fd00:3::1".parse().expect("an address"))],
                ],
            ),
            hooked(
                "forward",
                HookPoint::FilterForward,
                vec![
                    vec![JumpByLink(Direction::Output, "to".to_owned())],
                    vec![In { key: by_port.to_vec(), set: "open".to_owned() }, Accept],
                    vec![Statement::Is(Protocol::Ipv6), Destination(IsNot, host), Counter, Drop],
                    vec![Statement::Is(Protocol::Ipv4), Accept],
                    vec![Icmp(Protocol::Ipv4), Accept],
                    vec![Icmp(Protocol::Ipv6), Accept],
                    vec![Mark { value: 1, mask: u32::MAX }, Accept],
                    vec![Mark { value: 2, mask: 0xff }, Accept],
                ],
            ),
        ],
    }
}

#[test]
fn a_table_of_both_families() {
    in_namespace(|_| {
        let mut socket = Socket::netfilter().unwrap();
        let wanted = inet();
        let mut change = Transaction::new();
        change.replace_table(&wanted, b"print");
        change.commit(&mut socket).unwrap();
        assert_eq!(output("nft", &["list", "table", "inet", "both"]), wanted.to_string());
        for set in &wanted.sets {
            assert_eq!(nft::elements(&mut socket, Family::Inet, "both", &set.name).unwrap(), set.elements);
        }
    });
}

/// Every statement and hook once.
fn table(elements: Vec<Element>) -> Table {
    let subnet = Prefix { address: IpAddr::V4(Ipv4Addr::new(172, 17, 0, 0)), length: 16 };
    let host = Prefix { address: IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3)), length: 32 };
    let link = || "docker0".to_owned();
    use Comparison::{Is, IsNot};
    use Statement::*;
    let published = Chain {
        name: "published".to_owned(),
        hook: None,
        rules: vec![
            vec![InputLink(Is, link()), Return].into(),
            vec![by_map(Protocol::Ipv4, vec![Field::Protocol, Field::Port], "ports")].into(),
        ],
    };
    let loopback = Prefix { address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), length: 8 };
    Table {
        family: Family::Ip,
        name: "test".to_owned(),
        sets: vec![Set {
            name: "ports".to_owned(),
            key: vec![Field::Protocol, Field::Port],
            data: vec![Field::Ipv4, Field::Port],
            elements,
        }],
        chains: vec![
            published,
            hooked(
                "raw",
                HookPoint::RawPrerouting,
                vec![vec![InputLink(IsNot, "lo".to_owned()), Destination(Is, loopback), Drop]],
            ),
            hooked(
                "prerouting",
                HookPoint::NatPrerouting,
                vec![vec![DestinationIsLocal, Jump("published".to_owned())]],
            ),
            hooked(
                "output",
                HookPoint::NatOutput,
                vec![vec![Destination(IsNot, loopback), DestinationIsLocal, Jump("published".to_owned())]],
            ),
            hooked(
                "postrouting",
                HookPoint::NatPostrouting,
                vec![
                    vec![OutputLink(IsNot, link()), Source(Is, subnet), Masquerade],
                    vec![OutputLink(Is, link()), SourceIsLocal, Masquerade],
                ],
            ),
            hooked(
                "forward",
                HookPoint::FilterForward,
                vec![
                    vec![Connection(ConntrackState::EstablishedOrRelated), Accept],
                    vec![Connection(ConntrackState::Invalid), Drop],
                    vec![DestinationTranslated, Counter, Accept],
                    vec![Source(IsNot, host), Counter, Drop],
                ],
            ),
        ],
    }
}

#[test]
fn listing_is_the_text_form() {
    in_namespace(|_| {
        let mut socket = Socket::netfilter().unwrap();
        let wanted = table(vec![element(8080, [172, 17, 0, 2])]);
        let mut change = Transaction::new();
        change.replace_table(&wanted, b"print");
        change.commit(&mut socket).unwrap();
        assert_eq!(output("nft", &["list", "table", "ip", "test"]), wanted.to_string());

        let state = nft::read(&mut socket, Family::Ip, "test").unwrap().unwrap();
        assert_eq!(state.fingerprint, b"print");
        assert_eq!(state.rules.get("forward"), Some(&4));
        assert_eq!(nft::elements(&mut socket, Family::Ip, "test", "ports").unwrap(), wanted.sets[0].elements);
        assert_eq!(nft::elements(&mut socket, Family::Ip, "test", "other").unwrap(), []);
        assert_eq!(nft::read(&mut socket, Family::Ip6, "test").unwrap(), None);

        let mut change = Transaction::new();
        change.delete_table(Family::Ip, "test");
        change.commit(&mut socket).unwrap();
        assert_eq!(nft::read(&mut socket, Family::Ip, "test").unwrap(), None);
    });
}

#[test]
fn a_refused_change_undoes_the_whole_transaction() {
    in_namespace(|_| {
        let mut socket = Socket::netfilter().unwrap();
        let mut change = Transaction::new();
        change.replace_table(&table(Vec::new()), b"");
        change.commit(&mut socket).unwrap();
        let (one, two) = (element(1, [10, 0, 0, 1]), element(2, [10, 0, 0, 2]));
        let mut change = Transaction::new();
        change.add_elements(Family::Ip, "test", "ports", std::slice::from_ref(&one));
        change.delete_elements(Family::Ip, "test", "ports", &[two]);
        let error = change.commit(&mut socket).unwrap_err();
        assert_eq!((error.index, error.label, error.errno), (2, "delete elements", Errno::NOENT));
        assert_eq!(nft::elements(&mut socket, Family::Ip, "test", "ports").unwrap(), []);
        let mut change = Transaction::new();
        change.add_elements(Family::Ip, "test", "ports", std::slice::from_ref(&one));
        change.commit(&mut socket).unwrap();
        let mut change = Transaction::new();
        change.add_elements(Family::Ip, "test", "ports", &[element(1, [10, 0, 0, 9])]);
        assert_eq!(change.commit(&mut socket).unwrap_err().errno, Errno::EXIST);
        assert!(Transaction::new().is_empty());
    });
}

#[test]
fn thousands_of_elements_in_one_transaction() {
    in_namespace(|_| {
        let mut socket = Socket::netfilter().unwrap();
        let mut elements: Vec<_> = (1..=5000).map(|port| element(port, [172, 17, 0, 2])).collect();
        elements.sort();
        let mut change = Transaction::new();
        change.replace_table(&table(elements.clone()), b"many");
        change.commit(&mut socket).unwrap();
        assert_eq!(nft::elements(&mut socket, Family::Ip, "test", "ports").unwrap(), elements);
        let mut change = Transaction::new();
        change.replace_table(&table(Vec::new()), b"none");
        change.commit(&mut socket).unwrap();
        assert_eq!(nft::elements(&mut socket, Family::Ip, "test", "ports").unwrap(), []);
    });
}
/// The hash table behind a set grows in the background, while the set is read: the kernel then tells elements twice and
/// leaves others out.
#[test]
fn a_set_that_grows_is_read_whole() {
    in_namespace(|_| {
        let mut socket = Socket::netfilter().unwrap();
        for ports in (1000..6000).step_by(100) {
            let mut elements: Vec<_> = (1..=ports).map(|port| element(port, [172, 17, 0, 2])).collect();
            elements.sort();
            let mut change = Transaction::new();
            change.replace_table(&table(elements.clone()), b"grows");
            change.commit(&mut socket).unwrap();
            let standing = nft::elements(&mut socket, Family::Ip, "test", "ports").unwrap();
            assert!(standing == elements, "{} of {ports} elements", standing.len());
        }
    });
}

/// (protocol, ports) → address.
fn range(ports: (u16, u16), container: [u8; 4]) -> Element {
    let mut made = Element::default();
    Element::push_protocol(&mut made.key, 17);
    made.push_port_range(ports.0, ports.1);
    Element::push_address(&mut made.data, IpAddr::V4(Ipv4Addr::from(container)));
    made
}

#[test]
fn ranges_of_ports_are_one_element_each_and_are_cut_in_one_transaction() {
    in_namespace(|_| {
        let mut socket = Socket::netfilter().unwrap();
        let key = [Field::Protocol, Field::PortRange];
        let open = [Field::Protocol, Field::Ipv6, Field::PortRange];
        let set = |name: &str, key: &[Field], data: &[Field], elements| Set {
            name: name.to_owned(),
            key: key.to_vec(),
            data: data.to_vec(),
            elements,
        };
        let whole = vec![range((8000, 24_383), [172, 17, 0, 2]), range((65_000, 65_535), [172, 17, 0, 3])];
        let mut one = Element::default();
        Element::push_protocol(&mut one.key, 6);
        Element::push_address(&mut one.key, "fd00::2".parse().unwrap());
        one.push_port_range(1, 1000);
        let rules = vec![
            vec![by_map(Protocol::Ipv4, key.to_vec(), "ranges")],
            vec![Statement::In { key: open.to_vec(), set: "open".to_owned() }, Statement::Return],
        ];
        let wanted = Table {
            family: Family::Inet,
            name: "ranges".to_owned(),
            sets: vec![set("ranges", &key, &[Field::Ipv4], whole.clone()), set("open", &open, &[], vec![one])],
            chains: vec![hooked("prerouting", HookPoint::NatPrerouting, rules)],
        };
        let mut change = Transaction::new();
        change.replace_table(&wanted, b"ranges");
        change.commit(&mut socket).unwrap();
        assert_eq!(output("nft", &["list", "table", "inet", "ranges"]), wanted.to_string());
        let standing = |socket: &mut Socket| nft::elements(socket, Family::Inet, "ranges", "ranges").unwrap();
        assert_eq!(standing(&mut socket), whole);
        let parts = vec![range((8000, 9999), [172, 17, 0, 2]), range((10_001, 24_383), [172, 17, 0, 2])];
        let mut change = Transaction::new();
        change.delete_elements(Family::Inet, "ranges", "ranges", &whole[..1]);
        change.add_elements(Family::Inet, "ranges", "ranges", &parts);
        change.commit(&mut socket).unwrap();
        assert_eq!(standing(&mut socket), [&parts[..], &whole[1..]].concat());
        // What overlaps is refused.
        let mut change = Transaction::new();
        change.add_elements(Family::Inet, "ranges", "ranges", &[range((9000, 9500), [172, 17, 0, 4])]);
        assert_eq!(change.commit(&mut socket).unwrap_err().errno, Errno::EXIST);
    });
}
