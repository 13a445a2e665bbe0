//! Ports of containers and hosts: `80/tcp`, `8000-8010/udp`, and what a container publishes where.

use std::collections::BTreeMap;
use std::fmt;

use crate::{Error, Result};

/// A port and its transport protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortProto {
    /// The number.
    pub number: u16,
    /// Lower case; `tcp` unless given.
    pub protocol: String,
}

/// Consecutive ports of one protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last, not below the first.
    pub last: u16,
    /// Lower case; `tcp` unless given.
    pub protocol: String,
}

/// An address and port of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortBinding {
    /// Empty: every address.
    pub host_ip: String,
    /// Empty: an ephemeral port; `8000-8010`: the first free one of these.
    pub host_port: String,
}

/// What is published where, by container port (`80/tcp`).
pub type PortMap = BTreeMap<String, Vec<PortBinding>>;

impl PortProto {
    /// From `80`, `80/tcp`, `80/UDP`.
    pub fn parse(text: &str) -> Result<PortProto> {
        if text.is_empty() {
            return Err(Error::invalid("invalid port: value is empty"));
        }
        let (number, protocol) = split_protocol(text);
        let number = parse_number(number).map_err(|e| e.prefix(format!("invalid port '{number}'")))?;
        Ok(PortProto { number, protocol })
    }
}

impl fmt::Display for PortProto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol)
    }
}

impl PortRange {
    /// From `80`, `80-90`, `80-90/udp`.
    pub fn parse(text: &str) -> Result<PortRange> {
        if text.is_empty() {
            return Err(Error::invalid("invalid port range: value is empty"));
        }
        let (range, protocol) = split_protocol(text);
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let start = parse_number(first).map_err(|e| e.prefix(format!("invalid start port '{first}'")))?;
        let end = parse_number(last).map_err(|e| e.prefix(format!("invalid end port '{last}'")))?;
        match start <= end {
            true => Ok(PortRange { first: start, last: end, protocol }),
            false => Err(Error::invalid(format!("invalid port range: {text}"))),
        }
    }

    /// Whether the port is one of them.
    pub fn contains(&self, port: &PortProto) -> bool {
        self.protocol == port.protocol && (self.first..=self.last).contains(&port.number)
    }
}

/// Refuses what cannot be published: container port 0, and ports that are none.
pub fn validate_bindings<'a>(bindings: impl IntoIterator<Item = (&'a str, Vec<&'a str>)>) -> Result<()> {
    let invalid = |text: &str| Error::invalid(format!("invalid port specification: {text:?}"));
    for (port, host_ports) in bindings {
        PortProto::parse(port).ok().filter(|p| p.number != 0).ok_or_else(|| invalid(port))?;
        for host_port in host_ports.into_iter().filter(|p| !p.is_empty()) {
            PortRange::parse(host_port).map_err(|_| invalid(host_port))?;
        }
    }
    Ok(())
}

fn split_protocol(text: &str) -> (&str, String) {
    match text.split_once('/') {
        Some((port, protocol)) if !protocol.is_empty() => (port, protocol.to_lowercase()),
        Some((port, _)) => (port, "tcp".to_owned()),
        None => (text, "tcp".to_owned()),
    }
}

fn parse_number(text: &str) -> Result<u16> {
    use std::num::IntErrorKind::{Empty, PosOverflow};
    // A sign is no part of a port.
    if text.starts_with('+') {
        return Err(Error::invalid("invalid syntax"));
    }
    text.parse::<u16>().map_err(|e| match e.kind() {
        Empty => Error::invalid("value is empty"),
        PosOverflow => Error::invalid("value out of range"),
        _ => Error::invalid("invalid syntax"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ports_have_a_protocol() {
        let port = |text: &str| PortProto::parse(text).unwrap().to_string();
        assert_eq!(port("80"), "80/tcp");
        assert_eq!(port("53/UDP"), "53/udp");
        assert_eq!(port("0/sctp"), "0/sctp");
        assert_eq!(port("80/"), "80/tcp");
    }

    #[test]
    fn ranges_are_ordered() {
        let range = PortRange::parse("8000-8010/udp").unwrap();
        assert_eq!((range.first, range.last, range.protocol.as_str()), (8000, 8010, "udp"));
        assert!(range.contains(&PortProto::parse("8010/udp").unwrap()));
        assert!(!range.contains(&PortProto::parse("8010").unwrap()));
        assert_eq!(PortRange::parse("7").unwrap().last, 7);
    }

    #[test]
    fn refusals_have_the_references_words() {
        let port = |text: &str| PortProto::parse(text).unwrap_err().message().to_owned();
        assert_eq!(port(""), "invalid port: value is empty");
        assert_eq!(port("x"), "invalid port 'x': invalid syntax");
        assert_eq!(port("70000"), "invalid port '70000': value out of range");
        let range = |text: &str| PortRange::parse(text).unwrap_err().message().to_owned();
        assert_eq!(range(""), "invalid port range: value is empty");
        assert_eq!(range("9-8"), "invalid port range: 9-8");
        assert_eq!(range("9-"), "invalid end port '': value is empty");
    }

    #[test]
    fn port_zero_cannot_be_published() {
        let message = |port, host| validate_bindings([(port, vec![host])]).unwrap_err().message().to_owned();
        assert_eq!(message("0/tcp", ""), "invalid port specification: \"0/tcp\"");
        assert_eq!(message("80/tcp", "x"), "invalid port specification: \"x\"");
        assert!(validate_bindings([("80/tcp", vec!["", "8000-8010", "0"])]).is_ok());
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(number in any::<u16>(), protocol in "tcp|udp|sctp") {
            let port = PortProto { number, protocol };
            prop_assert_eq!(PortProto::parse(&port.to_string()).unwrap(), port);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9/a-z+-]{0,14}") {
            let _ = (PortProto::parse(&text), PortRange::parse(&text));
        }
    }
}
