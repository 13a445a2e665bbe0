//! What goes into the three files every container gets, `hostname`, `hosts` and `resolv.conf` (B-dns-1, B-dns-5), and
//! whose files a container sees.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use blocking::Blocking;
use model::id::ContainerId;
use model::time::Timestamp;
use model::{Context, Error, Result};
use network::{Networks, files};

use run::files::{Files, HOSTS, Hosts, RESOLV_CONF};

use super::resolver::dns_config;
use crate::container::Containers;
use crate::container::definition::Definition;
use crate::container::definition::modes::NetworkMode;
use crate::container::definition::places::Places;
use crate::settings::{DnsDefaults, Settings};

/// The refusal of a container whose network mode names itself.
pub fn joins_itself() -> Error {
    Error::system("cannot join own network namespace")
}

/// The container whose files this one sees: its own, or those of the one whose network it has joined, which may have
/// joined another's in turn (B-nw-9).
pub fn owner(containers: &Containers, row: &Definition) -> Result<ContainerId> {
    let mut id = row.id.clone();
    let mut mode = row.network_mode().clone();
    let mut seen = Vec::new();
    while let NetworkMode::Container(other) = &mode {
        let donor = containers.find(other)?;
        if donor.id == row.id && seen.is_empty() {
            return Err(joins_itself());
        }
        if seen.contains(&donor.id) {
            return Err(Error::system(format!("the networks of container {} lead in a circle", row.id)));
        }
        seen.push(donor.id.clone());
        id = donor.id.clone();
        mode = donor.view().row.network_mode().clone();
    }
    Ok(id)
}

/// What goes into the container's files; `None`: it sees those of the container whose network it has joined.
pub fn of(networks: &Networks, settings: &Settings, row: &Definition) -> Result<Option<Files>> {
    if row.network_mode().container().is_some() {
        return Ok(None);
    }
    let (config, host) = (&row.config, &row.host_config);
    let is_host = *row.network_mode() == NetworkMode::Host;
    let hosts = match is_host && host.extra_hosts.iter().flatten().next().is_none() {
        true => Hosts::Host,
        false => {
            Hosts::Own { extra: extra_hosts(networks, &settings.containers.dns, host)?, ipv6: loopback_has_ipv6(row) }
        }
    };
    Ok(Some(Files {
        dir: settings.roots.container(row.id.as_str()),
        hostname: config.hostname.clone(),
        domainname: config.domainname.clone(),
        hosts,
        dns: dns_config(&settings.containers.dns, host),
        dns_mode: if is_host {
            files::DnsMode::Host
        } else if Places::of(row).has_resolver(networks) {
            files::DnsMode::Embedded
        } else {
            files::DnsMode::Bridge { ipv6: has_ipv6(networks, Places::of(row).wanted().into_keys()) }
        },
    }))
}

/// The gateways of a network, of the families that it has.
fn gateways(network: &network::row::NetworkRow) -> Vec<IpAddr> {
    let of = |family| network.pool(family)?.gateway;
    network::Family::BOTH.into_iter().filter_map(of).collect()
}

/// Whether one of its networks has IPv6.
fn has_ipv6(networks: &Networks, mut names: impl Iterator<Item = String>) -> bool {
    names.any(|name| networks.look_up(&name).is_ok_and(|network| network.traits.ipv6))
}

/// A running container's `hosts` gets the addresses of an endpoint; what users wrote there stays.
pub fn add_addresses(
    on: &Blocking,
    dir: &Path,
    config: &api::ContainerConfig,
    endpoint: &network::Endpoint,
) -> Result<()> {
    let name = files::HostName { hostname: &config.hostname, domainname: &config.domainname };
    let own: Vec<IpAddr> = endpoint.addresses.iter().map(|assigned| assigned.address).collect();
    change_hosts(on, dir, |text| {
        text.push_str(&files::own_lines(name, &own));
    })
}

/// Its lines of an endpoint's addresses go.
pub fn remove_addresses(on: &Blocking, dir: &Path, endpoint: &network::Endpoint) -> Result<()> {
    let gone: Vec<String> = endpoint.addresses.iter().map(|assigned| format!("{}\t", assigned.address)).collect();
    change_hosts(on, dir, |text| {
        let kept = text.lines().filter(|line| !gone.iter().any(|address| line.starts_with(address.as_str())));
        *text = kept.map(|line| format!("{line}\n")).collect();
    })
}

/// The `resolv.conf` of a container that runs since `started` names the resolver of its sandbox from now on, unless somebody
/// has written it meanwhile.
#[expect(clippy::disallowed_methods, reason = "on a thread of the background")]
pub fn embed(_on: &Blocking, files: &Files, started: Timestamp) -> Result<()> {
    let path = files.dir.join(RESOLV_CONF);
    let found = std::fs::metadata(&path).context("looking at the resolv.conf of the container")?;
    let written = i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec());
    if written > i128::from(started.unix_nanos()) {
        return Ok(());
    }
    std::fs::write(&path, files.resolv_conf()).context("writing the resolv.conf of the container")
}

/// The lines of these aliases get other addresses, each of its family.
pub fn readdress(on: &Blocking, dir: &Path, aliases: &[String], addresses: &[IpAddr]) -> Result<()> {
    change_hosts(on, dir, |text| {
        let line = |line: &str| {
            let Some((address, names)) = line.split_once('\t') else { return line.to_owned() };
            let is_meant = names.split(' ').next().is_some_and(|first| aliases.iter().any(|alias| alias == first));
            let old = address.parse::<IpAddr>().ok().filter(|_| is_meant);
            let new = old.and_then(|old| addresses.iter().find(|new| new.is_ipv4() == old.is_ipv4()));
            new.map_or_else(|| line.to_owned(), |new| format!("{new}\t{names}"))
        };
        *text = text.lines().map(|old| line(old) + "\n").collect();
    })
}

/// The file is mounted in the container: it is written in place.
#[expect(clippy::disallowed_methods, reason = "the disk of the data root")]
fn change_hosts(_on: &Blocking, dir: &Path, change: impl FnOnce(&mut String)) -> Result<()> {
    let path = dir.join(HOSTS);
    // Its own container and those that it has links to may change it at the same time.
    let file = std::fs::File::open(&path).context("opening the hosts file of the container")?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).context("locking the hosts file")?;
    let mut text = std::fs::read_to_string(&path).context("reading the hosts file of the container")?;
    change(&mut text);
    std::fs::write(&path, text).context("writing the hosts file of the container")
}

/// Whether the container's loopback has IPv6 addresses: the kernel has IPv6, and no setting of the container turns it off
/// on every link or on this one.
fn loopback_has_ipv6(row: &Definition) -> bool {
    sys::netlink::listen::has_ipv6() && !row.turns_ipv6_off("all") && !row.turns_ipv6_off("lo")
}

/// `name:address` or `name=address`; `host-gateway` is the configured or the bridge's own address.
pub fn extra_hosts(networks: &Networks, dns: &DnsDefaults, host: &api::HostConfig) -> Result<Vec<(String, IpAddr)>> {
    let mut hosts = Vec::new();
    for entry in host.extra_hosts.iter().flatten() {
        let (name, address) = entry
            .split_once(['=', ':'])
            .ok_or_else(|| Error::invalid(format!("bad format for add-host: {entry:?}")))?;
        let address = address.trim_start_matches('[').trim_end_matches(']');
        if address != "host-gateway" {
            let address =
                address.parse().map_err(|_| Error::invalid(format!("invalid IP address in add-host: {address:?}")))?;
            hosts.push((name.to_string(), address));
            continue;
        }
        let configured: Vec<IpAddr> = dns.host_gateway_ips.iter().filter_map(|ip| ip.parse().ok()).collect();
        let gateways = || networks.look_up("bridge").ok().map(|bridge| gateways(&bridge)).unwrap_or_default();
        let addresses = if configured.is_empty() { gateways() } else { configured };
        if addresses.is_empty() {
            let text = "unable to derive the IP value for host-gateway";
            return Err(Error::invalid(text));
        }
        hosts.extend(addresses.into_iter().map(|address| (name.to_string(), address)));
    }
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_links_are_readdressed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(run::files::HOSTS);
        let before = "127.0.0.1\tlocalhost\n172.17.0.2\tdb dbhost\nfd00::2\tdb dbhost\n172.17.0.3\tdb2\n# db\n";
        std::fs::write(&path, before).unwrap();
        readdress(&Blocking::alone(), dir.path(), &["db".to_owned()], &["172.17.0.9".parse().unwrap()]).unwrap();
        let after = std::fs::read_to_string(&path).unwrap();
        assert_eq!(after, before.replace("172.17.0.2", "172.17.0.9"));
    }
}
