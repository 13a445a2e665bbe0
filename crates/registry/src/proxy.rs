//! Which proxy a request goes through (the rules of Go's `httpproxy`). Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use model::authority::{Authority, Host};
use model::{Error, Result};

use crate::settings::Proxies;
use crate::url::{Scheme, Url};

/// How a proxy is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HTTP in clear.
    Http,
    /// HTTP over TLS, within which another TLS may be.
    Https,
    /// SOCKS 5 (RFC 1928); names are looked up by the proxy.
    Socks5,
}

impl Kind {
    fn default_port(self) -> u16 {
        match self {
            Kind::Http => 80,
            Kind::Https => 443,
            Kind::Socks5 => 1080,
        }
    }
}

/// A proxy to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// How it is spoken to.
    pub kind: Kind,
    /// Where it is, with its port.
    pub server: Authority,
    /// `user:password` of its URL, still escaped.
    pub user: Option<String>,
}

impl Proxies {
    /// The proxy for a target; `None`: it is reached directly.
    pub fn of(&self, target: &Url) -> Result<Option<Proxy>> {
        let text = match target.scheme {
            Scheme::Http => &self.http,
            Scheme::Https => &self.https,
        };
        let (host, port) = target.host_port();
        if text.is_empty() || is_local(&host) || self.excepted(&host, port) {
            return Ok(None);
        }
        parse(text).map(Some)
    }

    fn excepted(&self, host: &str, port: u16) -> bool {
        self.none_for.split(',').map(str::trim).filter(|rule| !rule.is_empty()).any(|rule| matches(rule, host, port))
    }
}

fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// `*`, a CIDR, an address, `domain` (and below), `.domain` (only below), each but the first two with a port perhaps.
fn matches(rule: &str, host: &str, port: u16) -> bool {
    if rule == "*" {
        return true;
    }
    let address: Option<IpAddr> = host.parse().ok();
    if let Ok(net) = rule.parse::<IpNet>() {
        return address.is_some_and(|address| net.contains(&address));
    }
    // `*.domain` and `.domain` are the names below it, `domain` is the domain as well.
    let dotted = rule.strip_prefix('*').unwrap_or(rule);
    let below = dotted.strip_prefix('.');
    // What is no host, or no port, excepts nothing.
    let Ok(rule) = Authority::parse(below.unwrap_or(dotted)) else { return false };
    if rule.port.is_some_and(|wanted| wanted != port) {
        return false;
    }
    match rule.host {
        Host::Address(rule) => address.is_some_and(|address| address.to_canonical() == rule),
        Host::Name(name) => (below.is_none() && host == name) || host.ends_with(&format!(".{name}")),
    }
}

/// Reads a proxy's URL; without a scheme it is `http`.
pub fn parse(text: &str) -> Result<Proxy> {
    let refuse = |why: &dyn std::fmt::Display| Error::invalid(format!("invalid proxy: {why}"));
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let kind = match scheme.to_ascii_lowercase().as_str() {
        "http" => Kind::Http,
        "https" => Kind::Https,
        "socks5" | "socks5h" => Kind::Socks5,
        other => return Err(refuse(&format!("unsupported protocol scheme {other:?}"))),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (user, host) = match rest[..end].rsplit_once('@') {
        Some((user, host)) => (Some(user.to_owned()), host),
        None => (None, &rest[..end]),
    };
    let server = Authority::parse(host).map_err(|error| refuse(&error))?;
    let port = server.port_or(kind.default_port());
    Ok(Proxy { kind, server: Authority { port: Some(port), ..server }, user })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(none_for: &str, target: &str) -> bool {
        let http = "http://u:p%40@proxy.test:3128".to_owned();
        let proxies = Proxies { https: "proxy.test:3129".into(), http, none_for: none_for.into() };
        proxies.of(&Url::parse(target).unwrap()).unwrap().is_some()
    }

    #[test]
    fn a_proxy_is_chosen_by_scheme() {
        let proxies = Proxies { http: "http://u:p%40@proxy.test:3128".into(), ..Proxies::default() };
        let proxy = proxies.of(&Url::parse("http://r.test/").unwrap()).unwrap().unwrap();
        assert_eq!((proxy.server.to_string().as_str(), proxy.user.as_deref()), ("proxy.test:3128", Some("u:p%40")));
        assert_eq!(proxies.of(&Url::parse("https://r.test/").unwrap()).unwrap(), None);
    }

    #[test]
    fn proxies_are_of_three_kinds() {
        let read = |text: &str| parse(text).map(|p| (p.kind, p.server.to_string())).map_err(|e| e.message().to_owned());
        for (text, kind, server) in [
            ("proxy.test", Kind::Http, "proxy.test:80"),
            ("HTTP://u:p@Proxy.test:03128/", Kind::Http, "proxy.test:3128"),
            ("https://proxy.test", Kind::Https, "proxy.test:443"),
            ("socks5://proxy.test", Kind::Socks5, "proxy.test:1080"),
            ("socks5h://u@[::1]:9050", Kind::Socks5, "[::1]:9050"),
        ] {
            assert_eq!(read(text), Ok((kind, server.to_owned())), "{text}");
        }
        assert_eq!(read("ftp://x").unwrap_err(), "invalid proxy: unsupported protocol scheme \"ftp\"");
        assert_eq!(read("http://x:99999").unwrap_err(), "invalid proxy: invalid port \"99999\"");
    }

    #[test]
    fn exceptions_are_kept() {
        for (none_for, target, through) in [
            ("", "https://r.test/", true),
            ("", "http://localhost:5000/", false),
            ("", "http://127.1.2.3:5000/", false),
            ("*", "https://r.test/", false),
            ("r.test", "https://r.test/", false),
            ("r.test", "https://a.r.test/", false),
            ("r.test", "https://ar.test/", true),
            (".r.test", "https://r.test/", true),
            (" x , .r.test", "https://a.R.test/", false),
            ("r.test:5000", "https://r.test/", true),
            ("r.test:5000", "https://r.test:5000/", false),
            ("10.0.0.0/8", "https://10.1.2.3/", false),
            ("10.0.0.1", "https://10.0.0.2/", true),
            ("[fd00::1]:443", "https://[fd00::1]/", false),
            ("fd00::1", "https://[fd00:0::1]/", false),
            ("R.Test:0443", "https://r.test/", false),
            ("r.test:https", "https://r.test/", true),
            ("r.test:65979", "https://r.test/", true),
            ("*.r.test", "https://r.test/", true),
            ("*.r.test", "https://a.r.test/", false),
            ("bücher.test", "https://xn--bcher-kva.test/", false),
        ] {
            assert_eq!(used(none_for, target), through, "{none_for:?} {target}");
        }
    }
}
