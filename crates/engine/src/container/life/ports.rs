//! Which published ports a container has after a change of them (`POST /containers/{id}/ports`). Pure.

use std::collections::HashMap;

use model::{Error, Result};
use network::{BoundPort, Protocol, PublishSpec};

/// What a container publishes from now on, and what changes for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Published {
    /// As it lies in the definition.
    pub bindings: api::PortMap,
    /// As the definition has what goes.
    pub removed: api::PortMap,
    /// As the definition gets what comes.
    pub added: api::PortMap,
}

/// What a change makes of the ports that a definition names.
pub fn change(bindings: &api::PortMap, change: &api::PortsChange) -> Result<Published> {
    let mut after = Published { bindings: bindings.clone(), ..Published::default() };
    for (port, wanted) in &change.remove {
        let key = key(port);
        let standing = after.bindings.remove(&key).flatten().unwrap_or_default();
        let (gone, kept) = split(standing, wanted.as_deref().unwrap_or_default());
        if gone.is_empty() {
            return Err(Error::not_found(format!("port {key} is not published so")));
        }
        if !kept.is_empty() {
            after.bindings.insert(key.clone(), Some(kept));
        }
        after.removed.entry(key).or_default().get_or_insert_default().extend(gone);
    }
    for (port, wanted) in &change.add {
        let mut wanted = wanted.clone().unwrap_or_default();
        if wanted.is_empty() {
            wanted.push(api::PortBinding::default());
        }
        let standing = after.bindings.entry(key(port)).or_default().get_or_insert_default();
        standing.extend(wanted.iter().cloned());
        after.added.entry(key(port)).or_default().get_or_insert_default().extend(wanted);
    }
    Ok(after)
}

/// `80` is `80/tcp`.
fn key(port: &str) -> String {
    if port.contains('/') { port.to_lowercase() } else { format!("{port}/tcp") }
}

/// The bindings that are meant, and the others.
fn split(
    standing: Vec<api::PortBinding>,
    meant: &[api::PortBinding],
) -> (Vec<api::PortBinding>, Vec<api::PortBinding>) {
    let any_or = |wanted: &str, own: &str| wanted.is_empty() || wanted == own;
    let is_meant = |own: &api::PortBinding| {
        let mut meant_ones = meant.iter();
        meant.is_empty()
            || meant_ones.any(|it| any_or(&it.host_ip, &own.host_ip) && any_or(&it.host_port, &own.host_port))
    };
    standing.into_iter().partition(is_meant)
}

/// The bound ports that are of `removed` and of none that stays.
pub fn bound(ports: &[BoundPort], removed: &[PublishSpec], kept: &[PublishSpec]) -> Vec<BoundPort> {
    let (removed, kept) = (by_port(removed), by_port(kept));
    let of = |specs: &ByPort<'_>, port: &BoundPort| {
        let specs = specs.get(&(port.container_port, port.protocol));
        specs.is_some_and(|specs| specs.iter().any(|spec| is_of(port, spec)))
    };
    ports.iter().filter(|port| of(&removed, port) && !of(&kept, port)).copied().collect()
}

/// What is asked for by the container's port: of thousands of ports each is looked at once.
type ByPort<'a> = HashMap<(u16, Protocol), Vec<&'a PublishSpec>>;

fn by_port(specs: &[PublishSpec]) -> ByPort<'_> {
    let mut all = ByPort::new();
    for spec in specs {
        all.entry((spec.container_port, spec.protocol)).or_default().push(spec);
    }
    all
}

fn is_of(port: &BoundPort, spec: &PublishSpec) -> bool {
    let range = spec.host_ports.filter(|range| *range != (0, 0));
    (port.container_port, port.protocol) == (spec.container_port, spec.protocol)
        && spec.host_ip.is_none_or(|ip| ip == port.host_ip)
        && (port.host_port == 0 || range.is_none_or(|(first, last)| (first..=last).contains(&port.host_port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &[(&str, &str)])]) -> api::PortMap {
        let binding = |(ip, port): &(&str, &str)| api::PortBinding { host_ip: (*ip).into(), host_port: (*port).into() };
        entries.iter().map(|(key, hosts)| ((*key).to_owned(), Some(hosts.iter().map(binding).collect()))).collect()
    }

    #[test]
    fn bindings_come_and_go() {
        let standing = map(&[("80/tcp", &[("", "8080"), ("127.0.0.1", "81")]), ("53/udp", &[("", "53")])]);
        let remove = map(&[("80", &[("", "8080")]), ("53/UDP", &[])]);
        let asked = api::PortsChange { add: map(&[("90", &[])]), remove };
        let after = change(&standing, &asked).unwrap();
        assert_eq!(after.bindings, map(&[("80/tcp", &[("127.0.0.1", "81")]), ("90/tcp", &[("", "")])]));
        assert_eq!(after.removed, map(&[("80/tcp", &[("", "8080")]), ("53/udp", &[("", "53")])]));
        let unknown = api::PortsChange { remove: map(&[("80", &[("", "9")])]), ..Default::default() };
        assert_eq!(change(&standing, &unknown).unwrap_err().message(), "port 80/tcp is not published so");
    }

    #[test]
    fn what_another_binding_needs_stays_bound() {
        let port = |host_ip: &str, host_port| BoundPort {
            container_port: 80,
            protocol: network::Protocol::Tcp,
            host_ip: host_ip.parse().unwrap(),
            host_port,
        };
        let spec = |host_ip: Option<&str>, host_ports| PublishSpec {
            container_port: 80,
            protocol: network::Protocol::Tcp,
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_ports,
        };
        let ports = [port("0.0.0.0", 8080), port("::", 8080), port("127.0.0.1", 81)];
        assert_eq!(bound(&ports, &[spec(None, Some((8080, 8080)))], &[spec(Some("127.0.0.1"), None)]), ports[..2]);
        assert_eq!(bound(&ports, &[spec(Some("127.0.0.1"), Some((81, 81)))], &[]), ports[2..]);
        assert_eq!(bound(&ports, &[spec(None, None)], &[spec(Some("::"), Some((8080, 8080)))]), [ports[0], ports[2]]);
    }
}
