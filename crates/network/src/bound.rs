//! The published ports of an endpoint, as they were bound.
//!
//! Consecutive ones are one entry, however many they are: an endpoint lies in rows, is copied by whoever reads a container, and
//! may have tens of thousands of ports.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Entries that a port may continue, from the last one back: a range has one for each protocol and each address of the host, and
/// they are bound in turn.
const LOOK_BACK: usize = 8;

/// A transport protocol that ports belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// `tcp`, `udp` or `sctp` (lower case) → the protocol.
    pub fn parse(text: &str) -> Option<Protocol> {
        match text {
            "tcp" => Some(Protocol::Tcp),
            "udp" => Some(Protocol::Udp),
            "sctp" => Some(Protocol::Sctp),
            _ => None,
        }
    }

    /// As [`Protocol::parse`] reads it.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }

    /// The number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A published port as it was bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BoundPort {
    pub container_port: u16,
    pub protocol: Protocol,
    pub host_ip: IpAddr,
    pub host_port: u16,
}

/// Bound ports of one endpoint, in the order in which the first of each run was bound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BoundPorts {
    runs: Vec<Run>,
}

/// Consecutive ports of a container, which lead to consecutive ports of one address of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Run {
    /// The first.
    #[serde(flatten)]
    pub first: BoundPort,
    /// How many ports, 1 or more.
    #[serde(skip_serializing_if = "is_one")]
    pub count: u16,
}

fn is_one(count: &u16) -> bool {
    *count == 1
}

/// A run as it lies in rows; those of version 1 have one port in each.
#[derive(Deserialize)]
struct Stored {
    #[serde(flatten)]
    first: BoundPort,
    #[serde(default)]
    count: Option<u16>,
}

impl TryFrom<Stored> for Run {
    type Error = &'static str;

    /// An error: no ports, or some beyond the last number.
    fn try_from(Stored { first, count }: Stored) -> Result<Run, Self::Error> {
        let count = count.unwrap_or(1);
        let last = |number: u16| count.checked_sub(1).and_then(|more| number.checked_add(more));
        match last(first.container_port).and(last(first.host_port)) {
            Some(_) => Ok(Run { first, count }),
            None => Err("a run of published ports has none, or ends beyond 65535"),
        }
    }
}

impl Run {
    /// All ports of it.
    fn ports(self) -> impl Iterator<Item = BoundPort> {
        (0..self.count).map(move |n| self.port(n))
    }

    /// What a port is to be for the run to go on with it: where the container's own address is spoken to, the host has
    /// no port (number 0).
    fn port(&self, n: u16) -> BoundPort {
        let host_port = if self.first.host_port == 0 { 0 } else { self.first.host_port.wrapping_add(n) };
        BoundPort { container_port: self.first.container_port.wrapping_add(n), host_port, ..self.first }
    }

    fn is_continued_by(&self, port: &BoundPort) -> bool {
        let follows = port.container_port > self.first.container_port
            && (port.host_port == 0 || port.host_port > self.first.host_port);
        follows && self.port(self.count) == *port
    }
}

impl BoundPorts {
    /// All ports.
    pub fn iter(&self) -> impl Iterator<Item = BoundPort> {
        self.runs.iter().flat_map(|run| run.ports())
    }

    /// The entries that they are kept as.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// How many ports.
    pub fn len(&self) -> usize {
        self.runs.iter().map(|run| usize::from(run.count)).sum()
    }

    /// One more.
    pub fn push(&mut self, port: BoundPort) {
        let mut last = self.runs.iter_mut().rev().take(LOOK_BACK);
        match last.find(|run| run.is_continued_by(&port)) {
            Some(run) => run.count += 1,
            None => self.runs.push(Run { first: port, count: 1 }),
        }
    }

    /// Drops those that `keep` denies.
    pub fn retain(&mut self, keep: impl Fn(&BoundPort) -> bool) {
        *self = self.iter().filter(keep).collect();
        self.runs.shrink_to_fit();
    }
}

impl Extend<BoundPort> for BoundPorts {
    fn extend<I: IntoIterator<Item = BoundPort>>(&mut self, ports: I) {
        ports.into_iter().for_each(|port| self.push(port));
    }
}

impl FromIterator<BoundPort> for BoundPorts {
    fn from_iter<I: IntoIterator<Item = BoundPort>>(ports: I) -> BoundPorts {
        let mut all = BoundPorts::default();
        all.extend(ports);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(protocol: Protocol, host_ip: &str, (container_port, host_port): (u16, u16)) -> BoundPort {
        BoundPort { container_port, protocol, host_ip: host_ip.parse().unwrap(), host_port }
    }

    fn both(numbers: impl Iterator<Item = u16>) -> Vec<BoundPort> {
        let of = |number| ["0.0.0.0", "::"].map(|ip| port(Protocol::Tcp, ip, (number, number)));
        numbers.flat_map(of).collect()
    }

    fn sorted(ports: impl IntoIterator<Item = BoundPort>) -> Vec<BoundPort> {
        let mut all: Vec<_> = ports.into_iter().collect();
        all.sort();
        all
    }

    #[test]
    fn a_range_is_one_entry_for_each_address() {
        let ports = both(12_000..28_384);
        let mut all: BoundPorts = ports.iter().copied().collect();
        assert_eq!((all.len(), all.runs().len()), (32_768, 2));
        assert_eq!(sorted(all.iter()), sorted(ports));
        all.retain(|port| port.host_port != 20_000 || port.host_ip.is_ipv6());
        assert_eq!((all.len(), all.runs().len()), (32_767, 3));
        all.push(port(Protocol::Tcp, "0.0.0.0", (20_000, 20_000)));
        assert_eq!(sorted(all.iter()), sorted(both(12_000..28_384)));
        all.retain(|_| false);
        assert!(all.is_empty());
        assert_eq!(all.len(), 0);
    }

    #[test]
    fn what_does_not_follow_is_an_entry_of_its_own() {
        let local = "127.0.0.1";
        let apart = [
            port(Protocol::Tcp, local, (80, 8080)),
            port(Protocol::Tcp, local, (81, 8082)),
            port(Protocol::Udp, local, (82, 8083)),
            port(Protocol::Tcp, "::1", (82, 8083)),
            port(Protocol::Tcp, local, (79, 8079)),
            port(Protocol::Tcp, local, (79, 8079)),
        ];
        let all: BoundPorts = apart.into_iter().collect();
        assert_eq!((all.runs().len(), all.iter().collect::<Vec<_>>()), (6, apart.to_vec()));
        // The last numbers have no next ones.
        let last = [port(Protocol::Tcp, local, (65_535, 65_535)), port(Protocol::Tcp, local, (0, 0))];
        assert_eq!(last.into_iter().collect::<BoundPorts>().runs().len(), 2);
    }

    #[test]
    fn ports_without_one_of_the_host_follow_each_other() {
        let routed: BoundPorts = (80..90).map(|number| port(Protocol::Tcp, "0.0.0.0", (number, 0))).collect();
        assert_eq!(routed.runs().len(), 1);
        assert!(routed.iter().all(|port| port.host_port == 0) && routed.iter().map(|p| p.container_port).eq(80..90));
    }

    #[test]
    fn rows_have_runs_and_those_of_before_are_read() {
        let all: BoundPorts = both(8000..8100).into_iter().chain([port(Protocol::Udp, "::1", (53, 53))]).collect();
        let text = serde_json::to_string(&all).unwrap();
        assert!(text.len() < 300, "{text}");
        assert_eq!(serde_json::from_str::<BoundPorts>(&text).unwrap(), all);
        let before = serde_json::to_string(&both(8000..8100)).unwrap();
        let read: BoundPorts = serde_json::from_str(&before).unwrap();
        assert_eq!(sorted(read.iter()), sorted(both(8000..8100)));
        for count in ["0", "65000"] {
            let damaged = format!(
                r#"[{{"container_port":8000,"protocol":"tcp","host_ip":"{}","host_port":1,"count":{count}}}]"#,
                IpAddr::from([0, 0, 0, 0])
            );
            assert!(serde_json::from_str::<BoundPorts>(&damaged).is_err(), "{count}");
        }
    }
}
