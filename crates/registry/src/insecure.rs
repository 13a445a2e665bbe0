//! Which servers need no verified TLS: those that the configuration names, and those that are near by every address.
//!
//! - A name is near only if each of its addresses is on the loopback or in a network of the list: with one that is not,
//!   whoever answers for the name could have the connection go there.
//! - The addresses that were judged are the only ones that are connected to; a name is not looked up a second time.
//! - A name that is reached through a proxy is looked up by the proxy, so its addresses say nothing.

use std::net::IpAddr;

use ipnet::IpNet;
use model::authority::{Authority, Host};

use crate::connect::Pinned;
use crate::resolver::Resolver;
use crate::settings::Settings;
use crate::url::{Scheme, Url};

/// What was found out about a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its certificate is verified.
    Secure,
    /// The configuration names it.
    Named,
    /// It is near by every address; connections go to these.
    Near(Pinned),
}

impl Verdict {
    /// Whether it may be spoken to without verified TLS.
    pub fn is_insecure(&self) -> bool {
        *self != Verdict::Secure
    }

    /// The addresses that connections go to, where they were judged.
    pub fn pinned(&self) -> Option<Pinned> {
        match self {
            Verdict::Near(addresses) => Some(addresses.clone()),
            Verdict::Secure | Verdict::Named => None,
        }
    }
}

/// Judges a server. One that cannot be looked up now is secure; the request itself will say why.
pub async fn judge(settings: &Settings, server: &Authority, resolver: &Resolver) -> Verdict {
    if server.is_hub() {
        return Verdict::Secure;
    }
    if settings.insecure.iter().any(|entry| names(entry, server)) {
        return Verdict::Named;
    }
    let nets: Vec<IpNet> = settings.insecure.iter().filter_map(|entry| network(entry)).collect();
    let near = |address: &IpAddr| {
        let address = address.to_canonical();
        address.is_loopback() || nets.iter().any(|net| net.contains(&address))
    };
    let addresses = match &server.host {
        Host::Address(address) => vec![*address],
        Host::Name(_) if is_proxied(settings, server) => return Verdict::Secure,
        Host::Name(name) => resolver.resolve(name).await.unwrap_or_default(),
    };
    match !addresses.is_empty() && addresses.iter().all(near) {
        true => Verdict::Near(addresses.into()),
        false => Verdict::Secure,
    }
}

/// `http://` and `https://` before an entry say nothing, as with the reference.
fn without_scheme(entry: &str) -> &str {
    match entry.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") => rest,
        _ => entry,
    }
}

/// Whether an entry is this server. Without a port it means https.
fn names(entry: &str, server: &Authority) -> bool {
    let https = Scheme::Https.default_port();
    Authority::parse(without_scheme(entry))
        .is_ok_and(|entry| entry.host == server.host && entry.port_or(https) == server.port_or(https))
}

fn network(entry: &str) -> Option<IpNet> {
    without_scheme(entry).parse().ok()
}

fn is_proxied(settings: &Settings, server: &Authority) -> bool {
    let through = |scheme| {
        let url = Url { scheme, server: server.clone(), path: "/".into() };
        settings.proxies.of(&url).is_ok_and(|proxy| proxy.is_some())
    };
    through(Scheme::Https) || through(Scheme::Http)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_is_insecure_by_name_or_by_all_of_its_addresses() {
        let dir = tempfile::tempdir().unwrap();
        let hosts = "127.0.0.1 own.test\n::1 own.test\n127.0.0.1 torn.test\n8.8.8.8 torn.test\n10.1.1.1 near.test\n\
                     10.2.2.2 near.test\n127.0.0.1 edge.test\n11.0.0.1 edge.test\n2001:db8::1 six.test\n127.0.0.1 six.test\n\
                     ::ffff:127.0.0.1 mapped.test\n127.0.0.1 docker.io\n";
        std::fs::write(dir.path().join("hosts"), hosts).unwrap();
        let mut settings = Settings {
            hosts_file: dir.path().join("hosts"),
            resolv_conf: dir.path().join("none"),
            insecure: ["10.0.0.0/8", "http://Plain.test:05000", "xn--bcher-kva.test", "[0::2]:443"]
                .map(Into::into)
                .into(),
            ..Settings::default()
        };
        let resolver = Resolver::new(&settings);
        for (server, insecure, pinned) in [
            ("own.test", true, &["127.0.0.1", "::1"][..]),
            ("torn.test:5000", false, &[]),
            ("near.test", true, &["10.1.1.1", "10.2.2.2"]),
            ("edge.test", false, &[]),
            ("six.test", false, &[]),
            ("mapped.test", true, &["::ffff:127.0.0.1"]),
            ("docker.io", false, &[]),
            ("127.0.0.1:05000", true, &["127.0.0.1"]),
            ("127.1", true, &["127.0.0.1"]),
            ("[::1]:80", true, &["::1"]),
            ("[::2]", true, &[]),
            ("[::3]", false, &[]),
            ("plain.test:5000", true, &[]),
            ("PLAIN.test.:5000", true, &[]),
            ("plain.test:5001", false, &[]),
            ("plain.test", false, &[]),
            ("bücher.test:443", true, &[]),
            ("bücher.test:80", false, &[]),
        ] {
            let verdict = judge(&settings, &Authority::parse(server).unwrap(), &resolver).await;
            let addresses: Vec<_> = verdict.pinned().iter().flat_map(|p| p.iter()).map(ToString::to_string).collect();
            assert_eq!(
                (verdict.is_insecure(), addresses),
                (insecure, pinned.iter().map(ToString::to_string).collect()),
                "{server}"
            );
        }
        // What the proxy makes of a name is its own affair; an address stays what it is.
        settings.proxies.https = "http://proxy.test:3128".into();
        for (server, insecure) in [("own.test", false), ("plain.test:5000", true), ("10.9.9.9", true)] {
            let verdict = judge(&settings, &Authority::parse(server).unwrap(), &resolver).await;
            assert_eq!(verdict.is_insecure(), insecure, "{server} through a proxy");
        }
    }
}
