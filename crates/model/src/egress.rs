//! What may be reached: the rules of the label and network option `gantry.egress`.
//!
//! `allow:example.org:443,*.example.net,10.0.0.0/8,[2001:db8::1]:53`: destinations, each a name, every name below one
//! (`*.`), an address or a network, with a port, a range of ports or all of them. A port is one of TCP, UDP and SCTP;
//! other protocols (ICMP) pass where all ports do.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The label of a container and of a network, and the network's option.
pub const EGRESS: &str = "gantry.egress";
/// What the value begins with.
const ALLOW: &str = "allow:";
/// Bytes of a value.
pub const MAX_TEXT: usize = 16 << 10;
/// Destinations of a value.
pub const MAX_DESTINATIONS: usize = 256;
/// Ports of a range.
pub const MAX_PORTS: u16 = 64;
/// Bytes of a name, and of one label of it (RFC 1035, 2.3.4).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// All that may be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Egress {
    /// In the order in which they were written; at least one.
    pub destinations: Vec<Destination>,
}

/// What may be reached, and at which ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    pub to: Target,
    /// `None` = all, and protocols that have none.
    pub ports: Option<Ports>,
}

/// Whose addresses they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Those that the name has when it is asked for. Lower case, without a dot at its end.
    Name(String),
    /// The same of every name that ends in a dot and this.
    Below(String),
    /// Those of a network; a single address has the prefix length of its family.
    Net {
        address: IpAddr,
        /// Bits.
        length: u8,
    },
}

/// First and last port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    pub first: u16,
    pub last: u16,
}

impl Egress {
    /// Reads a value of [`EGRESS`].
    ///
    /// Errors: `InvalidParameter`, with the part that is malformed.
    pub fn parse(text: &str) -> Result<Egress> {
        let refuse = |why: String| Error::invalid(format!("invalid {EGRESS} value {text:?}: {why}"));
        if text.len() > MAX_TEXT {
            return Err(Error::invalid(format!("invalid {EGRESS} value: it is longer than {MAX_TEXT} bytes")));
        }
        let list = text.strip_prefix(ALLOW).ok_or_else(|| {
            refuse(format!("it has to begin with {ALLOW:?}, as in \"allow:example.org:443,10.0.0.0/8\""))
        })?;
        if list.trim().is_empty() {
            return Err(refuse("it names no destination".to_owned()));
        }
        let parts = list.split(',');
        let destinations =
            parts.map(|part| Destination::parse(part.trim()).map_err(refuse)).collect::<Result<Vec<_>>>()?;
        if destinations.len() > MAX_DESTINATIONS {
            return Err(Error::invalid(format!(
                "invalid {EGRESS} value: it has more than {MAX_DESTINATIONS} destinations"
            )));
        }
        Ok(Egress { destinations })
    }

    /// The ports at which the addresses of a name may be reached; `None` of a port: at all. Empty: the name may not be
    /// asked for. The name is in lower case, without a dot at its end.
    pub fn ports_of(&self, name: &str) -> Vec<Option<Ports>> {
        let is_meant = |destination: &&Destination| match &destination.to {
            Target::Name(meant) => name == meant,
            Target::Below(parent) => {
                name.strip_suffix(parent.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            Target::Net { .. } => false,
        };
        self.destinations.iter().filter(is_meant).map(|destination| destination.ports).collect()
    }
}

impl Destination {
    /// One of the list; an error says what is wrong with it.
    fn parse(text: &str) -> Result<Destination, String> {
        if text.is_empty() {
            return Err("a destination is empty".to_owned());
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (address, rest) = rest.split_once(']').ok_or_else(|| format!("{text:?} has no closing bracket"))?;
            let to = net(address)?.filter(|to| matches!(to, Target::Net { address: IpAddr::V6(_), .. }));
            let to = to.ok_or_else(|| format!("{address:?} is no IPv6 address"))?;
            let ports = match rest.strip_prefix(':') {
                Some(port) => Some(ports(port)?),
                None if rest.is_empty() => None,
                None => return Err(format!("{text:?} has something else than a port behind its bracket")),
            };
            return Ok(Destination { to, ports });
        }
        // Without brackets the colons of an IPv6 address are its own.
        if text.matches(':').count() > 1 {
            let to = net(text)?.ok_or_else(|| format!("{text:?} is no IPv6 address"))?;
            return Ok(Destination { to, ports: None });
        }
        let (host, ports) = match text.split_once(':') {
            Some((host, port)) => (host, Some(ports(port)?)),
            None => (text, None),
        };
        let to = match net(host)? {
            Some(to) => to,
            None => name(host)?,
        };
        Ok(Destination { to, ports })
    }
}

/// An address or a network; `None`: it looks like neither.
fn net(text: &str) -> Result<Option<Target>, String> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return match length {
            Some(_) => Err(format!("{text:?} is no network")),
            None => Ok(None),
        };
    };
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => bits,
        Some(digits) => number(digits)
            .and_then(|length| u8::try_from(length).ok())
            .filter(|length| *length <= bits)
            .ok_or_else(|| format!("{text:?} has no prefix length from 0 to {bits}"))?,
    };
    if let IpAddr::V6(mapped) = address
        && mapped.to_ipv4_mapped().is_some()
    {
        return Err(format!("{text:?} is an IPv4 address in the form of IPv6: write it as an IPv4 address"));
    }
    let first = first(address, length);
    if first != address {
        return Err(format!("{text:?} has bits set behind its prefix: the network is {first}/{length}"));
    }
    Ok(Some(Target::Net { address, length }))
}

/// The first address of the network of this length that has the address.
fn first(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(v4) & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask))
        }
    }
}

/// Decimal digits alone.
fn number(digits: &str) -> Option<u16> {
    let are_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|_| are_digits)
}

/// `443` or `8000-8010`.
fn ports(text: &str) -> Result<Ports, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |digits| number(digits).filter(|port| *port != 0);
    let (Some(first), Some(last)) = (port(first), port(last)) else {
        return Err(format!("{text:?} is no port from 1 to 65535"));
    };
    if last < first {
        return Err(format!("the range of ports {text:?} ends before it begins"));
    }
    if last - first >= MAX_PORTS {
        return Err(format!("the range of ports {text:?} has more than {MAX_PORTS} ports"));
    }
    Ok(Ports { first, last })
}

fn name(text: &str) -> Result<Target, String> {
    let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let (below, plain) = match lower.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, lower.as_str()),
    };
    let is_label = |label: &str| {
        let has_letters = label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        (1..=MAX_LABEL).contains(&label.len()) && has_letters && !label.starts_with('-') && !label.ends_with('-')
    };
    if plain.contains('*') {
        return Err(format!(
            "{text:?} has an asterisk that is not the first label before others, as in \"*.example.org\""
        ));
    }
    if plain.is_empty() || plain.len() > MAX_NAME || !plain.split('.').all(is_label) {
        return Err(format!("{text:?} is neither a host name nor an address (letters, digits, \"-\" and \"_\")"));
    }
    // What programs take for an address (inet_aton(3)) is no name.
    let last = plain.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") {
        return Err(format!("{text:?} is no address"));
    }
    Ok(if below { Target::Below(plain.to_owned()) } else { Target::Name(plain.to_owned()) })
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.to, self.ports) {
            (Target::Name(name), _) => f.write_str(name)?,
            (Target::Below(name), _) => write!(f, "*.{name}")?,
            (Target::Net { address, length }, ports) => {
                let is_bracketed = address.is_ipv6() && ports.is_some();
                let is_single = usize::from(*length) == if address.is_ipv4() { 32 } else { 128 };
                f.write_str(if is_bracketed { "[" } else { "" })?;
                write!(f, "{address}")?;
                if !is_single {
                    write!(f, "/{length}")?;
                }
                f.write_str(if is_bracketed { "]" } else { "" })?;
            }
        }
        match self.ports {
            None => Ok(()),
            Some(Ports { first, last }) if first == last => write!(f, ":{first}"),
            Some(Ports { first, last }) => write!(f, ":{first}-{last}"),
        }
    }
}

impl fmt::Display for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ALLOW)?;
        for (index, destination) in self.destinations.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "," })?;
            destination.fmt(f)?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Egress {
    type Error = Error;

    fn try_from(text: String) -> Result<Egress> {
        Egress::parse(&text)
    }
}

impl From<Egress> for String {
    fn from(egress: Egress) -> String {
        egress.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rules_are_read_and_written() {
        for text in [
            "allow:example.org:443,10.0.0.0/8",
            "allow:*.example.org",
            "allow:db:5432,redis",
            "allow:[2001:db8::]:53,2001:db8::/32,::1,[fd00::/8]:80-90",
            "allow:192.0.2.1:8000-8063,0.0.0.0/0:53,::/0",
            "allow:_srv._tcp.example.org,a-b.example",
        ] {
            assert_eq!(Egress::parse(text).unwrap().to_string(), text);
        }
        let spelled = Egress::parse("allow: Example.ORG.:443 , 10.0.0.1/32").unwrap();
        assert_eq!(spelled.to_string(), "allow:example.org:443,10.0.0.1");
        let json = serde_json::to_string(&spelled).unwrap();
        assert_eq!(json, r#""allow:example.org:443,10.0.0.1""#);
        assert_eq!(serde_json::from_str::<Egress>(&json).unwrap(), spelled);
    }

    #[test]
    fn malformed_rules_are_refused_with_their_fault() {
        for (text, why) in [
            ("", "has to begin with \"allow:\""),
            ("all", "has to begin with \"allow:\""),
            ("deny:example.org", "has to begin with \"allow:\""),
            ("Allow:example.org", "has to begin with \"allow:\""),
            ("allow:", "names no destination"),
            ("allow: ", "names no destination"),
            ("allow:a,,b", "a destination is empty"),
            ("allow:a,", "a destination is empty"),
            ("allow:example.org:", "\"\" is no port"),
            ("allow:example.org:0", "\"0\" is no port"),
            ("allow:example.org:65536", "\"65536\" is no port"),
            ("allow:example.org:https", "\"https\" is no port"),
            ("allow:example.org:+443", "\"+443\" is no port"),
            ("allow:example.org:443/tcp", "\"443/tcp\" is no port"),
            ("allow:example.org:90-80", "ends before it begins"),
            ("allow:example.org:1-65", "more than 64 ports"),
            ("allow:10.0.0.0/33", "no prefix length from 0 to 32"),
            ("allow:10.0.0.0/", "no prefix length"),
            ("allow:10.0.0.0/+8", "no prefix length"),
            ("allow:10.0.0.1/8", "the network is 10.0.0.0/8"),
            ("allow:2001:db8::1/32", "the network is 2001:db8::/32"),
            ("allow:10.0.0", "\"10.0.0\" is no address"),
            ("allow:10.0.0.256", "is no address"),
            ("allow:0x7f.1", "is no address"),
            ("allow:127.0x1", "is no address"),
            ("allow:::ffff:10.0.0.1", "write it as an IPv4 address"),
            ("allow:[::1", "no closing bracket"),
            ("allow:[::1]443", "something else than a port"),
            ("allow:[10.0.0.1]:80", "is no IPv6 address"),
            ("allow:fe80::1%eth0", "is no IPv6 address"),
            ("allow:example.org/24", "is no network"),
            ("allow:*", "has an asterisk"),
            ("allow:a.*.example.org", "has an asterisk"),
            ("allow:*example.org", "has an asterisk"),
            ("allow:exa mple.org", "neither a host name"),
            ("allow:-a.example.org", "neither a host name"),
            ("allow:a..b", "neither a host name"),
            ("allow:.", "neither a host name"),
            ("allow:bücher.example", "neither a host name"),
            ("allow:https://example.org", "is no port"),
        ] {
            let error = Egress::parse(text).expect_err(text);
            assert_eq!(error.kind(), crate::Kind::InvalidParameter);
            assert!(error.message().starts_with("invalid gantry.egress value "), "{text}: {error}");
            assert!(error.message().contains(why), "{text}: {error}");
        }
        let many = format!("allow:{}", vec!["a"; MAX_DESTINATIONS + 1].join(","));
        assert!(Egress::parse(&many).unwrap_err().message().contains("more than 256 destinations"));
        let long = format!("allow:{}", "a".repeat(MAX_TEXT));
        assert!(Egress::parse(&long).unwrap_err().message().contains("longer than"));
    }

    #[test]
    fn names_are_matched_by_labels() {
        let egress = Egress::parse("allow:example.org:443,*.example.org:80-81,example.org,10.0.0.0/8").unwrap();
        let one = |first, last| Some(Ports { first, last });
        assert_eq!(egress.ports_of("example.org"), [one(443, 443), None]);
        assert_eq!(egress.ports_of("a.example.org"), [one(80, 81)]);
        assert_eq!(egress.ports_of("b.a.example.org"), [one(80, 81)]);
        for other in ["badexample.org", "example.org.evil", "org", "", ".example.org", "10.0.0.1"] {
            assert_eq!(egress.ports_of(other), [], "{other}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(text in "allow:[a-z0-9.:/\\[\\]*,_-]{0,40}") {
            if let Ok(egress) = Egress::parse(&text) {
                prop_assert_eq!(&Egress::parse(&egress.to_string()).unwrap(), &egress);
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let _ = Egress::parse(&text);
            let _ = Egress::parse(&format!("allow:{text}"));
        }
    }
}
