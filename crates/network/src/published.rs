//! Published ports as the rules have them: runs of consecutive ports, and the elements of sets and maps that they become.
//!
//! A port of the host is an element of a hash map. Many consecutive ones that keep their numbers are one element of a
//! map of ranges, however many they are; a range whose numbers change has an element for each port, since the kernel adds
//! nothing to a port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use sys::nft::Element;

use crate::config::Enabled;
use crate::endpoint::{BoundPort, Protocol};
use crate::family::{self, Family};

/// (protocol, host address, host port) → (container address, container port).
pub const BY_ADDRESS: &str = "published-address";
/// (protocol, host port) → (container address, container port).
pub const BY_PORT: &str = "published-any";
/// The same of IPv6.
pub const BY_ADDRESS_6: &str = "published-address-6";
pub const BY_PORT_6: &str = "published-any-6";
/// (protocol, container address, container port) that a routed network publishes.
pub const ROUTED: &str = "routed";
pub const ROUTED_6: &str = "routed-6";
/// (protocol, host address, ports) → container address.
pub const RANGES_BY_ADDRESS: &str = "range-address";
/// (protocol, ports) → container address.
pub const RANGES_BY_PORT: &str = "range-any";
/// The same of IPv6.
pub const RANGES_BY_ADDRESS_6: &str = "range-address-6";
pub const RANGES_BY_PORT_6: &str = "range-any-6";
/// (protocol, container address, ports) that a routed network publishes.
pub const ROUTED_RANGES: &str = "routed-ranges";
pub const ROUTED_RANGES_6: &str = "routed-ranges-6";
/// (protocol, loopback address, port) that the proxy alone serves: nobody else is to send to it.
pub const KEPT: &str = "loopback-ports";
/// (protocol, loopback address, ports) of the same kind.
pub const KEPT_RANGES: &str = "loopback-ranges";
/// The sets and maps whose elements are published ports.
pub const PORT_SETS: [&str; 14] = [
    BY_ADDRESS,
    BY_PORT,
    BY_ADDRESS_6,
    BY_PORT_6,
    ROUTED,
    ROUTED_6,
    RANGES_BY_ADDRESS,
    RANGES_BY_PORT,
    RANGES_BY_ADDRESS_6,
    RANGES_BY_PORT_6,
    ROUTED_RANGES,
    ROUTED_RANGES_6,
    KEPT,
    KEPT_RANGES,
];

/// Consecutive ports from which on a run is one element: a lookup among ranges costs more than one in a hash map.
const LEAST_RANGE: u32 = 16;

/// What the rules do with packets to published ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// They are let in.
    Accept,
    /// Those that this host itself does not send are dropped.
    Drop,
}

/// Consecutive published ports that there are rules for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    pub protocol: Protocol,
    /// Address and first port; `None`: reached by the container's own address.
    pub host: Option<(IpAddr, u16)>,
    pub container: IpAddr,
    /// The first.
    pub container_port: u16,
    /// How many ports, 1 or more.
    pub count: u16,
    pub verdict: Verdict,
}

impl Published {
    /// `None` for ports that only the proxy serves: those of a family that the container has not, and loopback ones
    /// while there is a proxy.
    pub fn translated(port: &BoundPort, container: IpAddr, userland_proxy: Enabled) -> Option<Published> {
        let host = port.host_ip;
        if host.is_ipv4() != container.is_ipv4() || host.is_loopback() && (userland_proxy.yes() || host.is_ipv6()) {
            return None;
        }
        let (protocol, container_port) = (port.protocol, port.container_port);
        let (host, verdict) = (Some((host, port.host_port)), Verdict::Accept);
        Some(Published { protocol, host, container, container_port, count: 1, verdict })
    }

    /// A port at a loopback address of IPv4, which only the proxy serves: the kernel routes such addresses where the
    /// administrator says so (`route_localnet`). `None`: any other one.
    pub fn kept(port: &BoundPort, container: IpAddr) -> Option<Published> {
        let (protocol, container_port) = (port.protocol, port.container_port);
        let (host, verdict) = (Some((port.host_ip, port.host_port)), Verdict::Drop);
        let published = Published { protocol, host, container, container_port, count: 1, verdict };
        (port.host_ip.is_loopback() && port.host_ip.is_ipv4()).then_some(published)
    }

    fn line(&self) -> Line {
        let (host, shift) = match self.host {
            None => (None, 0),
            Some((address, port)) => (Some(address), port.wrapping_sub(self.container_port)),
        };
        Line { container: self.container, protocol: self.protocol, verdict: self.verdict, host, shift }
    }

    /// First container port, and the one after the last.
    fn bounds(&self) -> (u32, u32) {
        let first = u32::from(self.container_port);
        (first, first + u32::from(self.count))
    }
}

/// What consecutive ports have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    container: IpAddr,
    protocol: Protocol,
    verdict: Verdict,
    host: Option<IpAddr>,
    /// Host port − container port, modulo 2^16.
    shift: u16,
}

/// Container port → by how much more ports cover it than the one before it. Several ports of the host may lead to one port that
/// is reached by the container's own address.
type Steps = BTreeMap<u32, i32>;

/// All published ports that rules let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishedPorts {
    lines: BTreeMap<Line, Steps>,
}

/// Set → its elements, sorted.
pub type Elements = BTreeMap<&'static str, Vec<Element>>;

impl From<Vec<Published>> for PublishedPorts {
    fn from(ports: Vec<Published>) -> PublishedPorts {
        let mut all = PublishedPorts::default();
        all.add(&ports);
        all
    }
}

impl PublishedPorts {
    pub fn add(&mut self, ports: &[Published]) {
        for port in ports {
            cover(self.lines.entry(port.line()).or_default(), port.bounds());
        }
        self.lines.retain(|_, steps| !steps.is_empty());
    }

    /// Takes ports away, parts of runs included; those that are not there are ignored.
    pub fn remove(&mut self, ports: &[Published]) {
        let mut gone: BTreeMap<Line, Steps> = BTreeMap::new();
        for port in ports {
            cover(gone.entry(port.line()).or_default(), port.bounds());
        }
        for (line, gone) in gone {
            let Some(steps) = self.lines.remove(&line) else { continue };
            let left = difference(&steps, &gone);
            if !left.is_empty() {
                self.lines.insert(line, left);
            }
        }
    }

    /// How many ports.
    pub fn count(&self) -> usize {
        let lengths = self.lines.values().flat_map(runs).map(|(first, end)| end - first);
        lengths.sum::<u32>() as usize
    }

    /// All elements.
    pub fn elements(&self) -> Elements {
        collect(self.lines.iter())
    }

    /// The elements of some containers.
    pub fn elements_of(&self, containers: &BTreeSet<IpAddr>) -> Elements {
        let of = |container: IpAddr| {
            let least = Line { container, protocol: Protocol::Tcp, verdict: Verdict::Accept, host: None, shift: 0 };
            self.lines.range(least..).take_while(move |(line, _)| line.container == container)
        };
        collect(containers.iter().flat_map(|container| of(*container)))
    }
}

/// One more port covers all from `first` to before `end`.
fn cover(steps: &mut Steps, (first, end): (u32, u32)) {
    for (at, change) in [(first, 1), (end, -1)] {
        let step = steps.entry(at).or_default();
        *step += change;
        if *step == 0 {
            steps.remove(&at);
        }
    }
}

fn difference(steps: &Steps, gone: &Steps) -> Steps {
    let places: BTreeSet<u32> = steps.keys().chain(gone.keys()).copied().collect();
    let (mut covered, mut less, mut before) = (0, 0, 0);
    let mut left = Steps::new();
    for at in places {
        covered += steps.get(&at).unwrap_or(&0);
        less += gone.get(&at).unwrap_or(&0);
        let now = (covered - less).max(0);
        if now != before {
            left.insert(at, now - before);
        }
        before = now;
    }
    left
}

/// First ports of the runs, with the ports after their last.
fn runs(steps: &Steps) -> Vec<(u32, u32)> {
    let (mut runs, mut covered, mut begin) = (Vec::new(), 0, 0);
    for (at, change) in steps {
        if covered == 0 {
            begin = *at;
        }
        covered += change;
        if covered == 0 {
            runs.push((begin, *at));
        }
    }
    runs
}

fn collect<'a>(lines: impl Iterator<Item = (&'a Line, &'a Steps)>) -> Elements {
    let mut all = Elements::new();
    for (line, steps) in lines {
        for (first, end) in runs(steps) {
            if line.shift == 0 && end - first >= LEAST_RANGE {
                all.entry(line.set(Form::Ranges)).or_default().push(line.range(first, end - 1));
            } else {
                all.entry(line.set(Form::Singles)).or_default().extend((first..end).map(|port| line.single(port)));
            }
        }
    }
    all.values_mut().for_each(|elements| elements.sort());
    all
}

/// What elements are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Singles,
    Ranges,
}

impl Line {
    /// The set that its ports or its ranges belong to.
    fn set(&self, form: Form) -> &'static str {
        if self.verdict == Verdict::Drop {
            return if form == Form::Ranges { KEPT_RANGES } else { KEPT };
        }
        let [any, by_address, routed] = match (family::of(self.container), form) {
            (Family::Ipv4, Form::Singles) => [BY_PORT, BY_ADDRESS, ROUTED],
            (Family::Ipv6, Form::Singles) => [BY_PORT_6, BY_ADDRESS_6, ROUTED_6],
            (Family::Ipv4, Form::Ranges) => [RANGES_BY_PORT, RANGES_BY_ADDRESS, ROUTED_RANGES],
            (Family::Ipv6, Form::Ranges) => [RANGES_BY_PORT_6, RANGES_BY_ADDRESS_6, ROUTED_RANGES_6],
        };
        match self.host {
            None => routed,
            Some(host) if host.is_unspecified() => any,
            Some(_) => by_address,
        }
    }

    fn is_translated(&self) -> bool {
        self.host.is_some() && self.verdict == Verdict::Accept
    }

    /// The key of its elements without the port.
    fn head(&self) -> Element {
        let mut element = Element::default();
        Element::push_protocol(&mut element.key, self.protocol.number());
        match self.host {
            None => Element::push_address(&mut element.key, self.container),
            Some(host) if host.is_unspecified() => (),
            Some(host) => Element::push_address(&mut element.key, host),
        }
        element
    }

    fn single(&self, container_port: u32) -> Element {
        let container_port = container_port as u16;
        let mut element = self.head();
        Element::push_port(&mut element.key, container_port.wrapping_add(self.shift));
        if self.is_translated() {
            Element::push_address(&mut element.data, self.container);
            Element::push_port(&mut element.data, container_port);
        }
        element
    }

    /// Of ports whose numbers are the same at both sides.
    fn range(&self, first: u32, last: u32) -> Element {
        let mut element = self.head();
        element.push_port_range(first as u16, last as u16);
        if self.is_translated() {
            Element::push_address(&mut element.data, self.container);
        }
        element
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(host: Option<(&str, u16)>, container_port: u16, count: u16) -> Published {
        let host = host.map(|(ip, port)| (ip.parse().unwrap(), port));
        let container = "172.17.0.2".parse().unwrap();
        Published { protocol: Protocol::Tcp, host, container, container_port, count, verdict: Verdict::Accept }
    }

    /// Set → how many elements.
    fn sizes(ports: &PublishedPorts) -> Vec<(&'static str, usize)> {
        ports.elements().into_iter().map(|(set, elements)| (set, elements.len())).collect()
    }

    #[test]
    fn ports_that_come_one_by_one_are_one_element() {
        let singles: Vec<_> = (0..16_384).map(|n| run(Some(("0.0.0.0", 8000 + n)), 8000 + n, 1)).collect();
        let mut ports = PublishedPorts::from(singles.clone());
        assert_eq!((sizes(&ports), ports.count()), (vec![(RANGES_BY_PORT, 1)], 16_384));
        assert_eq!(ports, PublishedPorts::from(vec![run(Some(("0.0.0.0", 8000)), 8000, 16_384)]));
        // One in the middle goes, and comes back.
        ports.remove(&singles[100..101]);
        assert_eq!((sizes(&ports), ports.count()), (vec![(RANGES_BY_PORT, 2)], 16_383));
        ports.remove(&singles[100..101]);
        assert_eq!(ports.count(), 16_383, "what is not there is ignored");
        ports.add(&singles[100..101]);
        assert_eq!(sizes(&ports), [(RANGES_BY_PORT, 1)]);
        // The beginning, up to few that are left.
        ports.remove(&singles[..16_380]);
        assert_eq!(sizes(&ports), [(BY_PORT, 4)]);
        ports.remove(&[run(Some(("0.0.0.0", 1)), 1, 65_535)]);
        assert_eq!(ports, PublishedPorts::default());
    }

    #[test]
    fn ports_that_change_their_numbers_have_an_element_each() {
        let ports = PublishedPorts::from(vec![run(Some(("0.0.0.0", 9000)), 8000, 100)]);
        assert_eq!(sizes(&ports), [(BY_PORT, 100)]);
        let wraps = PublishedPorts::from(vec![run(Some(("10.0.0.1", 1)), 65_500, 36)]);
        let elements = wraps.elements();
        assert_eq!(elements[BY_ADDRESS].len(), 36);
        assert_eq!(elements[BY_ADDRESS][35].key[8..10], 36u16.to_be_bytes());
    }

    #[test]
    fn the_last_port_is_in_a_range() {
        let ports = PublishedPorts::from(vec![run(Some(("10.0.0.1", 1)), 1, 65_535)]);
        let element = &ports.elements()[RANGES_BY_ADDRESS][0];
        assert_eq!((&element.key[8..10], &element.end[8..10]), (&[0, 1][..], &[0xff, 0xff][..]));
        assert_eq!(ports.count(), 65_535);
    }

    #[test]
    fn several_ports_of_the_host_may_lead_to_one_of_a_routed_network() {
        let mut ports = PublishedPorts::from(vec![run(None, 80, 1), run(None, 80, 1), run(None, 80, 40)]);
        assert_eq!(sizes(&ports), [(ROUTED_RANGES, 1)]);
        ports.remove(&[run(None, 80, 40)]);
        assert_eq!(sizes(&ports), [(ROUTED, 1)]);
        ports.remove(&[run(None, 80, 1)]);
        assert_eq!(sizes(&ports), [(ROUTED, 1)], "the other one stands");
        ports.remove(&[run(None, 80, 1)]);
        assert_eq!(ports, PublishedPorts::default());
    }

    #[test]
    fn ports_at_loopback_addresses_are_kept_from_others() {
        let port = |ip: &str, port| BoundPort {
            container_port: port,
            protocol: Protocol::Tcp,
            host_ip: ip.parse().unwrap(),
            host_port: port,
        };
        let container = "172.17.0.2".parse().unwrap();
        let kept = |ip: &str, n| Published::kept(&port(ip, n), container);
        assert_eq!((kept("10.0.0.1", 80), kept("0.0.0.0", 80), kept("::1", 80)), (None, None, None));
        let all = (9000..9100).filter_map(|n| kept("127.0.0.5", n)).chain(kept("127.0.0.1", 80)).collect::<Vec<_>>();
        let ports = PublishedPorts::from(all);
        assert_eq!(sizes(&ports), [(KEPT, 1), (KEPT_RANGES, 1)]);
        assert!(ports.elements().values().flatten().all(|element| element.data.is_empty()));
    }

    /// Whatever is added and removed, the ports are those of a plain count.
    #[test]
    fn runs_agree_with_counting() {
        let mut seed = 7u64;
        let mut next = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..200 {
            let (mut ports, mut counts) = (PublishedPorts::default(), [0i32; 80]);
            for _ in 0..30 {
                let (first, count, adds) = (next(60) as u16, 1 + next(19) as u16, next(3) > 0);
                let part = run(None, first, count);
                for at in first..first + count {
                    let number = &mut counts[usize::from(at)];
                    *number = if adds { *number + 1 } else { (*number - 1).max(0) };
                }
                if adds {
                    ports.add(&[part])
                } else {
                    ports.remove(&[part])
                }
                assert_eq!(ports.count(), counts.iter().filter(|n| **n > 0).count());
            }
            let container = BTreeSet::from(["172.17.0.2".parse().unwrap()]);
            assert_eq!(ports.elements_of(&container), ports.elements());
            assert!(ports.elements_of(&BTreeSet::from(["172.17.0.3".parse().unwrap()])).is_empty());
        }
    }
}
