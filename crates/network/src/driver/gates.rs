//! Gates at the host's ends of containers' links, hung before the link is up.

use std::net::IpAddr;

use ipnet::IpNet;
use model::{Context, Error, Result};
use sys::gate::{self, Own, Slot};
use sys::netlink::{Socket, link};

use super::{Join, device};
use crate::confine::{self, Confinement};

/// What a link of a container may send, as its container and its network say.
pub struct Gates<'a> {
    pub request: &'a Join<'a>,
    /// With the prefix lengths of their subnets.
    pub addresses: &'a [(IpAddr, u8)],
    /// The network's.
    pub subnets: &'a [IpNet],
    /// The host's own addresses in the network.
    pub host: &'a [(IpAddr, u8)],
}

impl Gates<'_> {
    /// Hangs those that there have to be at the link of this name, which is not up yet.
    pub fn hang(&self, socket: &mut Socket, name: &str) -> Result<()> {
        let Join { network, endpoint, .. } = self.request;
        let Confinement { egress, checks_sources } = confine::of(network)?;
        if endpoint.egress.is_none() && egress.is_none() && !checks_sources {
            return Ok(());
        }
        let found = link::find(socket, name).map_err(device::failed)?;
        let link = found.ok_or_else(|| Error::system(format!("link {name} is gone")))?.index;
        let own = Own { mac: endpoint.mac.0, addresses: self.addresses };
        let hung = (|| {
            if let Some(egress) = endpoint.egress {
                gate::check_destinations(socket, link, Slot::Container, own, &confine::nets(egress))?;
            } else if egress.is_none() {
                return gate::check_addresses(socket, link, Slot::Network, own);
            }
            let Some(egress) = &egress else { return Ok(()) };
            let nets = confine::nets_of_network(egress, self.subnets, self.host);
            gate::check_destinations(socket, link, Slot::Network, own, &nets)
        })();
        hung.context("checking what the container sends (eBPF programs at its link: cls_bpf, clsact)")
    }
}
