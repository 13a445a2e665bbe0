//! A container's places in networks: what is asked for, what was made, and what is handed to the monitor.
//!
//! `Endpoint` is stored in the caller's container row and is all that is needed to release or restore it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use model::Result;
use model::egress::Egress;
use model::id::{ContainerId, EndpointId, NetworkId};
use serde::{Deserialize, Serialize};
use sys::fdpass::Parked;

use crate::bound::BoundPorts;
pub use crate::bound::{BoundPort, Protocol};
use crate::config::Enabled;
use crate::family::{self, Family};
use crate::mac::MacAddress;

/// One port to publish. `-P` is the caller's: one `PublishSpec` without host ports per exposed port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishSpec {
    pub container_port: u16,
    pub protocol: Protocol,
    /// `None` = the configured default (0.0.0.0, and [::] where the host has IPv6).
    pub host_ip: Option<IpAddr>,
    /// First and last host port; `None` = the next free ephemeral port, a range = its first free port.
    pub host_ports: Option<(u16, u16)>,
}

/// A sandbox with its places in networks, to be made.
#[derive(Clone, Debug)]
pub struct SandboxSpec {
    pub container: ContainerId,
    /// The container's name without a slash; it appears in error texts.
    pub name: String,
    /// In the order in which they are joined. The null and the host network exclude others.
    pub endpoints: Vec<EndpointSpec>,
    /// Published by the endpoint that has the way out.
    pub ports: Vec<PublishSpec>,
}

/// A place in a network, to be made.
#[derive(Clone, Debug)]
pub struct EndpointSpec {
    pub network: NetworkId,
    /// `None` = a random, locally administered address.
    pub mac: Option<MacAddress>,
    /// Fixed addresses, at most one of a family; of the others the next free ones are taken.
    pub addresses: Vec<IpAddr>,
    /// It gets an address of IPv6 where the network has that.
    pub ipv6: Enabled,
    /// Further addresses of the link that no subnet has.
    pub link_local: Vec<IpAddr>,
    /// Name of the link; `None` = the network's prefix and the next number.
    pub link: Option<String>,
    /// The endpoint with the highest one has the default routes.
    pub priority: i64,
    /// What the container is called in this network.
    pub dns_names: Vec<String>,
    /// Options for the driver.
    pub options: BTreeMap<String, String>,
    /// Settings of the link in the kernel's names (`net.ipv4.conf.IFNAME.log_martians`), with their values.
    pub sysctls: Vec<(String, String)>,
    /// All that the container may reach by it; `None` = whatever the network lets it.
    pub egress: Option<Egress>,
}

impl EndpointSpec {
    /// A place with nothing said about it.
    pub fn new(network: NetworkId) -> EndpointSpec {
        EndpointSpec {
            network,
            mac: None,
            addresses: Vec::new(),
            ipv6: Enabled::Yes,
            link_local: Vec::new(),
            link: None,
            priority: 0,
            dns_names: Vec::new(),
            options: BTreeMap::new(),
            sysctls: Vec::new(),
            egress: None,
        }
    }
}

/// An address of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assigned {
    pub address: IpAddr,
    /// Length of the subnet's prefix in bits.
    pub prefix_len: u8,
    /// The subnet's gateway, whether or not the endpoint has the default route.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
}

/// A container's place in a network. For `host` and `none` there is no address or link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Endpoint {
    pub id: EndpointId,
    pub network: NetworkId,
    pub container: ContainerId,
    /// At most one of a family.
    pub addresses: Vec<Assigned>,
    pub mac: Option<MacAddress>,
    /// The host's end of the pair (`veth` + 7 hex digits).
    pub host_link: Option<String>,
    /// Name of the link in the container.
    pub link: String,
    /// See [`EndpointSpec::priority`].
    pub priority: i64,
    pub dns_names: Vec<String>,
    pub ports: BoundPorts,
    /// See [`EndpointSpec::egress`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
}

/// An endpoint as it lies in rows, those of daemons that knew one IPv4 address included.
#[derive(Deserialize)]
struct Stored {
    id: EndpointId,
    network: NetworkId,
    container: ContainerId,
    #[serde(default)]
    addresses: Vec<Assigned>,
    #[serde(default)]
    address: Option<IpAddr>,
    #[serde(default)]
    prefix_len: u8,
    #[serde(default)]
    gateway: Option<IpAddr>,
    mac: Option<MacAddress>,
    host_link: Option<String>,
    #[serde(default)]
    link: Option<String>,
    #[serde(default)]
    priority: i64,
    #[serde(default)]
    dns_names: Vec<String>,
    ports: BoundPorts,
    #[serde(default)]
    egress: Option<Egress>,
}

impl From<Stored> for Endpoint {
    fn from(stored: Stored) -> Endpoint {
        let (prefix_len, gateway) = (stored.prefix_len, stored.gateway);
        let old = stored.address.map(|address| Assigned { address, prefix_len, gateway });
        Endpoint {
            id: stored.id,
            network: stored.network,
            container: stored.container,
            addresses: stored.addresses.into_iter().chain(old).collect(),
            mac: stored.mac,
            host_link: stored.host_link,
            link: stored.link.unwrap_or_else(|| FIRST_LINK.to_owned()),
            priority: stored.priority,
            dns_names: stored.dns_names,
            ports: stored.ports,
            egress: stored.egress,
        }
    }
}

/// The name of a container's first link, unless the network or the user says otherwise.
pub const FIRST_LINK: &str = "eth0";

impl Endpoint {
    /// The address of a family.
    pub fn assigned(&self, family: Family) -> Option<&Assigned> {
        self.addresses.iter().find(|assigned| family::of(assigned.address) == family)
    }

    /// Where a bound port leads: to the address of the same family, else to the other one.
    pub fn target(&self, port: &BoundPort) -> Option<SocketAddr> {
        let own = self.assigned(family::of(port.host_ip)).or_else(|| self.addresses.first())?;
        Some(SocketAddr::new(own.address, port.container_port))
    }
}

impl BoundPort {
    /// What asks for just this.
    pub fn again(&self) -> PublishSpec {
        let (container_port, protocol) = (self.container_port, self.protocol);
        let host_ports = Some((self.host_port, self.host_port)).filter(|_| self.host_port != 0);
        PublishSpec { container_port, protocol, host_ip: Some(self.host_ip), host_ports }
    }
}

/// Puts a container's new name in the place of the old one, which comes first.
pub fn rename(names: &mut [String], old: &str, new: &str) {
    if let Some(first) = names.first_mut().filter(|first| *first == old) {
        new.clone_into(first);
    }
}

/// A place in a network that was just made.
#[derive(Debug)]
pub struct Joined {
    pub endpoint: Endpoint,
    pub ports: Sockets,
}

/// What became of a change of a container that runs. The sockets are the monitor's also when the change failed: what was
/// taken back is published anew.
#[derive(Debug)]
pub struct Changed<T> {
    /// Its result, or why it was taken back.
    pub outcome: Result<T>,
    /// Of ports that are published now.
    pub ports: Sockets,
}

/// What `Networks::connect` made. Dropping it closes the sockets and lets go of the namespace but releases nothing.
#[derive(Debug)]
pub struct Connected {
    /// In the order in which they were asked for.
    pub endpoints: Vec<Endpoint>,
    /// The container's namespace, complete with its links up. `None` for `host`: the daemon's own.
    pub netns: Option<OwnedFd>,
    /// For the monitor's proxy.
    pub ports: Sockets,
}

/// The bound (TCP, SCTP: listening) sockets of published ports, blocking mode. UDP sockets deliver `IP_PKTINFO`. Empty
/// when the userland proxy is off: then they stay with the network.
#[derive(Debug, Default)]
pub struct Sockets {
    /// With the address in the container that each leads to. One of all IPv6 addresses may serve those of IPv4, too.
    pub loose: Vec<(BoundPort, SocketAddr, OwnedFd)>,
    /// Further ones of a container that publishes more ports than a process can hold sockets of.
    pub parked: Vec<(Vec<(BoundPort, SocketAddr)>, Parked)>,
}

impl Sockets {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.loose.is_empty() && self.parked.is_empty()
    }

    /// Takes further ones.
    pub fn append(&mut self, more: Sockets) {
        self.loose.extend(more.loose);
        self.parked.extend(more.parked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_of_older_daemons_are_read() {
        let id = "cd".repeat(32);
        let old = serde_json::json!({
            "id": id, "network": id, "container": id, "address": "172.17.0.2", "prefix_len": 16,
            "gateway": "172.17.0.1", "mac": "02:00:00:00:00:01", "host_link": "veth0123456", "ports": [],
        });
        let endpoint: Endpoint = serde_json::from_value(old).unwrap();
        let own = endpoint.assigned(Family::Ipv4).unwrap();
        assert_eq!((own.address.to_string().as_str(), own.prefix_len), ("172.17.0.2", 16));
        assert_eq!((own.gateway, endpoint.link.as_str()), (Some("172.17.0.1".parse().unwrap()), FIRST_LINK));
        let text = serde_json::to_string(&endpoint).unwrap();
        assert_eq!(serde_json::from_str::<Endpoint>(&text).unwrap(), endpoint);
        let bare = serde_json::json!({
            "id": id, "network": id, "container": id, "address": null, "prefix_len": 0, "gateway": null, "mac": null,
            "host_link": null, "ports": [],
        });
        assert!(serde_json::from_value::<Endpoint>(bare).unwrap().addresses.is_empty());
    }
}
