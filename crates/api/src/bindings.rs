//! The published ports of a container's configuration, as the API has them and as little memory keeps them.
//!
//! `-p 12000-28383:12000-28383` comes as a map of 16,384 lists of one binding each. Ports that follow each other, of one protocol and
//! one address of the host, are one entry here; whoever writes or compares them sees the map.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::port::{PortBinding, PortMap, normalize};

/// Ports from which on those that follow each other are one entry.
const LEAST_RANGE: usize = 16;

/// What a [`PortMap`] says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortBindings {
    /// Ports that are in no range.
    singles: PortMap,
    ranges: Vec<Range>,
}

/// Consecutive ports of a container with one binding each, to consecutive ports of the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Range {
    protocol: String,
    host_ip: String,
    first: u16,
    host_first: u16,
    /// How many, at least [`LEAST_RANGE`].
    count: usize,
}

impl Range {
    fn entries(&self) -> impl Iterator<Item = (String, Option<Vec<PortBinding>>)> {
        (0..self.count).map(|n| {
            let (port, host_port) = (usize::from(self.first) + n, usize::from(self.host_first) + n);
            let binding = PortBinding { host_ip: self.host_ip.clone(), host_port: host_port.to_string() };
            (format!("{port}/{}", self.protocol), Some(vec![binding]))
        })
    }

    fn contains(&self, port: u16, protocol: &str) -> bool {
        let beyond = usize::from(self.first) + self.count;
        self.protocol == protocol && port >= self.first && usize::from(port) < beyond
    }
}

/// A port that may be of a range: protocol, address of the host, host port − port, port.
type Candidate = (String, String, i32, u16);

/// `None`: another number of bindings, no port of the host, or numbers in another form.
fn candidate(key: &str, bindings: Option<&Vec<PortBinding>>) -> Option<Candidate> {
    let (number, protocol) = key.split_once('/')?;
    let [PortBinding { host_ip, host_port }] = &bindings?[..] else { return None };
    let (port, host) = (plain(number)?, plain(host_port)?);
    Some((protocol.to_owned(), host_ip.clone(), i32::from(host) - i32::from(port), port))
}

/// A number that is written again as it was read.
fn plain(text: &str) -> Option<u16> {
    text.parse().ok().filter(|number: &u16| *number > 0 && number.to_string() == text)
}

impl From<PortMap> for PortBindings {
    fn from(mut map: PortMap) -> PortBindings {
        let mut ranges = Vec::new();
        if map.len() >= LEAST_RANGE {
            let mut all: Vec<Candidate> =
                map.iter().filter_map(|(key, bindings)| candidate(key, bindings.as_ref())).collect();
            all.sort_unstable();
            let follows = |a: &Candidate, b: &Candidate| {
                (&a.0, &a.1, a.2) == (&b.0, &b.1, b.2) && u32::from(a.3) + 1 == u32::from(b.3)
            };
            for run in all.chunk_by(follows).filter(|run| run.len() >= LEAST_RANGE) {
                let (protocol, host_ip, shift, first) = run[0].clone();
                let host_first = (i32::from(first) + shift) as u16;
                ranges.push(Range { protocol, host_ip, first, host_first, count: run.len() });
            }
        }
        if !ranges.is_empty() {
            // What stays is copied: the nodes of a map do not shrink, and a list that was read piece by piece has room for four.
            map.retain(|key, bindings| {
                let port = candidate(key, bindings.as_ref());
                port.is_none_or(|(protocol, _, _, port)| !ranges.iter().any(|range| range.contains(port, &protocol)))
            });
            map = map.clone();
        }
        PortBindings { singles: map, ranges }
    }
}

impl PortBindings {
    /// Every port with its bindings, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (String, Option<Vec<PortBinding>>)> {
        let singles = self.singles.iter().map(|(key, bindings)| (key.clone(), bindings.clone()));
        singles.chain(self.ranges.iter().flat_map(Range::entries))
    }

    /// The map.
    pub fn to_map(&self) -> PortMap {
        self.iter().collect()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.singles.is_empty() && self.ranges.is_empty()
    }

    /// Whether a port is there, in the form of [`normalize`].
    pub fn contains(&self, key: &str) -> bool {
        let in_range = || {
            let (number, protocol) = key.split_once('/')?;
            let port = plain(number)?;
            Some(self.ranges.iter().any(|range| range.contains(port, protocol)))
        };
        self.singles.contains_key(key) || in_range().unwrap_or(false)
    }

    /// Gives ports without a binding one that names neither address nor port of the host; the ports.
    pub fn fill(&mut self) -> Vec<String> {
        let empty = self.singles.iter_mut().filter(|(_, bindings)| bindings.as_ref().is_none_or(Vec::is_empty));
        let filled = empty.map(|(port, bindings)| {
            *bindings = Some(vec![PortBinding::default()]);
            port.clone()
        });
        filled.collect()
    }

    /// How many entries are kept: ports that are in no range, and ranges.
    pub fn kept(&self) -> usize {
        self.singles.len() + self.ranges.len()
    }
}

impl Serialize for PortBindings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.ranges.is_empty() { self.singles.serialize(serializer) } else { self.to_map().serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for PortBindings {
    /// Reads the map; its keys are brought to their normal form.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PortBindings, D::Error> {
        let map = BTreeMap::<String, Option<Vec<PortBinding>>>::deserialize(deserializer)?;
        Ok(map.into_iter().map(|(key, bindings)| (normalize(&key), bindings)).collect::<PortMap>().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, bindings: &[(&str, &str)]) -> (String, Option<Vec<PortBinding>>) {
        let binding = |(ip, port): &(&str, &str)| PortBinding { host_ip: (*ip).into(), host_port: (*port).into() };
        (key.to_owned(), Some(bindings.iter().map(binding).collect()))
    }

    fn range(ports: impl Iterator<Item = u16>, protocol: &str, ip: &str, shift: u16) -> PortMap {
        ports.map(|port| entry(&format!("{port}/{protocol}"), &[(ip, &(port + shift).to_string())])).collect()
    }

    #[track_caller]
    fn kept(map: PortMap) -> usize {
        let bindings = PortBindings::from(map.clone());
        assert_eq!(bindings.to_map(), map);
        assert!(map.keys().all(|key| bindings.contains(key)));
        assert_eq!(serde_json::to_string(&bindings).unwrap(), serde_json::to_string(&map).unwrap());
        assert_eq!(serde_json::from_value::<PortBindings>(serde_json::to_value(&map).unwrap()).unwrap(), bindings);
        bindings.kept()
    }

    #[test]
    fn ports_that_follow_each_other_are_one_entry() {
        assert_eq!(kept(range(12_000..28_384, "tcp", "", 0)), 1);
        assert_eq!(kept(range(1..u16::MAX, "tcp", "127.0.0.1", 0)), 1);
        assert_eq!(kept(range(100..200, "udp", "", 8000)), 1);
        let mut both = range(100..200, "udp", "", 0);
        both.extend(range(100..200, "tcp", "", 0));
        both.extend(range(300..400, "tcp", "::1", 5));
        assert_eq!(kept(both.clone()), 3);
        both.remove("150/tcp");
        assert_eq!(kept(both.clone()), 4);
        both.extend([entry("150/tcp", &[("", "150"), ("", "151")]), ("9/tcp".into(), None)]);
        assert_eq!(kept(both), 6);
    }

    #[test]
    fn others_are_kept_as_they_came() {
        assert_eq!(kept(range(80..95, "tcp", "", 0)), 15);
        assert_eq!(kept(range((100..200).step_by(2), "tcp", "", 0)), 50);
        let odd = |key: &dyn Fn(u16) -> String, port: &dyn Fn(u16) -> String| -> PortMap {
            (100..150).map(|n| entry(&key(n), &[("", &port(n))])).collect()
        };
        let (tcp, number) = (|n: u16| format!("{n}/tcp"), |n: u16| n.to_string());
        assert_eq!(kept(odd(&tcp, &|_| String::new())), 50);
        assert_eq!(kept(odd(&tcp, &|n| format!("0{n}"))), 50);
        assert_eq!(kept(odd(&tcp, &|n| format!("{n}-{}", n + 1))), 50);
        assert_eq!(kept(odd(&tcp, &|_| "0".into())), 50);
        assert_eq!(kept(odd(&|n| n.to_string(), &number).into_iter().map(|(k, v)| (normalize(&k), v)).collect()), 1);
    }

    #[test]
    fn ports_without_a_binding_are_filled() {
        let mut map = range(100..200, "tcp", "", 0);
        map.extend([entry("81/tcp", &[]), ("80/tcp".to_owned(), None)]);
        let mut bindings = PortBindings::from(map);
        assert_eq!((bindings.fill(), bindings.fill()), (vec!["80/tcp".to_owned(), "81/tcp".to_owned()], vec![]));
        assert_eq!(bindings.to_map()["80/tcp"], Some(vec![PortBinding::default()]));
        assert_eq!((bindings.kept(), bindings.contains("80/udp"), bindings.contains("99/tcp")), (3, false, false));
        let text = r#"{"080/TCP":[{"HostPort":"80"}],"81":null}"#;
        let read: PortBindings = serde_json::from_str(text).unwrap();
        assert_eq!(read.to_map().keys().collect::<Vec<_>>(), ["80/tcp", "81/tcp"]);
    }
}
