//! Which proxy a request goes through (the rules of Go's `httpproxy`). Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use model::authority::{Authority, Host};
use model::{Error, Result};

use crate::settings::Proxies;
use crate::url::{Scheme, Url};

/// A proxy to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Where it is.
    pub url: Url,
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

fn parse(text: &str) -> Result<Proxy> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (Some(user.to_owned()), rest),
        None => (None, rest),
    };
    let url = Url::parse(&format!("{scheme}://{rest}")).map_err(|e| e.prefix("invalid proxy"))?;
    match url.scheme {
        Scheme::Http => Ok(Proxy { url, user }),
        // A proxy that is itself spoken to over TLS would need TLS within TLS.
        Scheme::Https => Err(Error::invalid("invalid proxy: https proxies are not supported")),
    }
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
        assert_eq!((proxy.url.authority().as_str(), proxy.user.as_deref()), ("proxy.test:3128", Some("u:p%40")));
        assert_eq!(proxies.of(&Url::parse("https://r.test/").unwrap()).unwrap(), None);
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
