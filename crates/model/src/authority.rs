//! Servers by `host[:port]`: read once into a canonical host and a number, so that rules never compare spellings.
//!
//! The host is read as the URL Standard reads one, which is what a connection is made to: letter case, percent-encoding,
//! international names and the forms of IPv4 and IPv6 addresses make no difference; neither does the dot at a name's end.

use std::fmt;
use std::net::IpAddr;

use url::Host as UrlHost;

use crate::{Error, Result};

/// The domain of Docker Hub in references.
pub const HUB: &str = "docker.io";
/// The host behind it.
pub const HUB_HOST: &str = "registry-1.docker.io";
/// All names that lead to the content of Docker Hub.
const HUB_NAMES: [&str; 4] = [HUB, "index.docker.io", HUB_HOST, "registry.hub.docker.com"];
/// Longest text that is read: a name of 253 characters, all percent-encoded, and a port.
const TEXT: usize = 800;

/// A host in its canonical form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// In ASCII and lower case, without a dot at its end.
    Name(String),
    /// An IPv4 address that was written as IPv6 is IPv4.
    Address(IpAddr),
}

/// A server: a host, and a port where one is named.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Authority {
    /// Where it is.
    pub host: Host,
    /// Which of its ports; `None`: that of the scheme.
    pub port: Option<u16>,
}

impl Host {
    /// Reads a name or an address; IPv6 with brackets or without. `InvalidParameter` for anything else, zones included.
    pub fn parse(text: &str) -> Result<Host> {
        let refuse = || Error::invalid(format!("invalid host {text:?}"));
        let bare: Option<IpAddr> = text.parse().ok();
        if let Some(address) = bare {
            return Ok(Host::Address(address.to_canonical()));
        }
        if text.len() > TEXT {
            return Err(refuse());
        }
        match UrlHost::parse(text).map_err(|_| refuse())? {
            UrlHost::Ipv4(address) => Ok(Host::Address(address.into())),
            UrlHost::Ipv6(address) => Ok(Host::Address(IpAddr::from(address).to_canonical())),
            UrlHost::Domain(name) => {
                let name = name.strip_suffix('.').unwrap_or(&name);
                match name.is_empty() || name.split('.').any(str::is_empty) {
                    true => Err(refuse()),
                    false => Ok(Host::Name(name.to_owned())),
                }
            }
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Address(IpAddr::V4(address)) => address.fmt(f),
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl Authority {
    /// Reads `host[:port]`. `InvalidParameter`: `invalid host "…"`, `invalid port "…"` for what is no number from 1 to
    /// 65535. An empty port is none.
    pub fn parse(text: &str) -> Result<Authority> {
        let is_bare_v6 = text.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6());
        let (host, port) = match (text.rfind(':'), text.rfind(']')) {
            (Some(colon), bracket) if !is_bare_v6 && bracket.is_none_or(|b| b < colon) => {
                (&text[..colon], &text[colon + 1..])
            }
            _ => (text, ""),
        };
        Ok(Authority { host: Host::parse(host)?, port: port_number(port)? })
    }

    /// The port that is meant with a scheme whose own is `default`.
    pub fn port_or(&self, default: u16) -> u16 {
        self.port.unwrap_or(default)
    }

    /// The registry behind it, as rules compare registries: the names of Docker Hub are one, and so are the standard
    /// ports.
    #[must_use]
    pub fn registry(&self) -> Authority {
        let port = self.port.filter(|port| !matches!(port, 80 | 443));
        match &self.host {
            Host::Name(name) if port.is_none() && HUB_NAMES.contains(&name.as_str()) => {
                Authority { host: Host::Name(HUB.to_owned()), port: None }
            }
            host => Authority { host: host.clone(), port },
        }
    }

    /// Whether it is Docker Hub.
    pub fn is_hub(&self) -> bool {
        self.registry().host == Host::Name(HUB.to_owned())
    }
}

/// A port in decimal digits, zeros in front of it allowed.
fn port_number(text: &str) -> Result<Option<u16>> {
    if text.is_empty() {
        return Ok(None);
    }
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|port| digits && *port > 0);
    number.map(Some).ok_or_else(|| Error::invalid(format!("invalid port {text:?}")))
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => self.host.fmt(f),
            Some(port) => write!(f, "{}:{port}", self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> String {
        Authority::parse(text).map_or_else(|e| e.message().to_owned(), |authority| authority.to_string())
    }

    #[test]
    fn spellings_of_one_server_are_one() {
        for (canonical, spellings) in [
            ("127.0.0.1:5001", &["127.0.0.1:05001", "127.0.0.1:0000005001", "127.1:5001", "0x7f.0.0.1:5001"][..]),
            ("127.0.0.1:5001", &["2130706433:5001", "[::ffff:127.0.0.1]:5001", "[::ffff:7f00:1]:5001"]),
            ("127.0.0.1:5001", &["127.000.0.01:5001", "%31%32%37.0.0.1:5001", "127.0.0.1.:5001"]),
            ("r.test", &["R.Test", "r.test.", "r.test:", "%72.test", "r%2Etest"]),
            ("r.test:443", &["r.test:443", "R.TEST.:0443"]),
            ("[::1]:5000", &["[::1]:5000", "[0:0:0:0:0:0:0:1]:05000", "[::0001]:5000", "[::0.0.0.1]:5000"]),
            ("[::1]", &["::1", "[::1]", "0:0:0:0:0:0:0:1"]),
            (
                "xn--bcher-kva.test:80",
                &["bücher.test:80", "BÜCHER.test:80", "b%C3%BCcher.test:80", "XN--BCHER-KVA.test:80"],
            ),
        ] {
            for spelling in spellings {
                assert_eq!(shown(spelling), canonical, "{spelling}");
            }
        }
    }

    #[test]
    fn what_is_no_port_and_no_host_is_refused() {
        for port in ["65536", "99999", "0", "00", "-1", "+80", "http", "80 ", "8_0", "18446744073709551617", "٨٠"] {
            assert_eq!(shown(&format!("r.test:{port}")), format!("invalid port {port:?}"));
        }
        for host in ["", ".", "..", "a..b", ".a", "a b", "a/b", "u@h", "[fe80::1%25eth0]", "[fe80::1%eth0]"] {
            assert_eq!(shown(host), format!("invalid host {host:?}"), "{host}");
        }
        assert!(Authority::parse("[::1").is_err() && Authority::parse("::1]").is_err());
        assert!(Authority::parse(&"a".repeat(10_000)).is_err());
        assert!(Authority::parse("256.0.0.1").is_err() && Authority::parse("1.2.3.4.5").is_err());
    }

    #[test]
    fn a_registry_has_one_name() {
        let registry = |text: &str| Authority::parse(text).unwrap().registry().to_string();
        for hub in ["docker.io", "Index.docker.io", "registry-1.docker.io:443", "docker.io:80", "docker.io."] {
            assert_eq!(registry(hub), "docker.io");
        }
        assert_eq!((registry("r.test:443"), registry("r.test:80")), ("r.test".into(), "r.test".into()));
        assert_eq!(
            (registry("r.test:5000"), registry("docker.io:5000")),
            ("r.test:5000".into(), "docker.io:5000".into())
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_what_is_shown_is_read_alike(text in "[a-zA-Z0-9.:%\\[\\]-]{0,24}|\\PC{0,24}") {
            if let Ok(authority) = Authority::parse(&text) {
                prop_assert_eq!(Authority::parse(&authority.to_string()).unwrap(), authority);
            }
        }
    }
}
