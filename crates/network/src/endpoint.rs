//! A container's place in a network: what is asked for, what was made, and what is handed to the monitor.
//!
//! `Endpoint` is stored in the caller's container row and is all that is needed to release or restore it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;

use model::id::{ContainerId, EndpointId, NetworkId};
use serde::{Deserialize, Serialize};
use sys::fdpass::Parked;

use crate::mac::MacAddress;

/// A transport protocol that ports belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// `tcp`, `udp` or `sctp` (lower case) → the protocol.
    pub fn parse(text: &str) -> Option<Protocol> {
        match text {
            "tcp" => Some(Protocol::Tcp),
            "udp" => Some(Protocol::Udp),
            "sctp" => Some(Protocol::Sctp),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }

    /// The number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

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

/// What `Networks::connect` is asked for.
#[derive(Clone, Debug)]
pub struct EndpointSpec {
    pub container: ContainerId,
    /// The container's name without a slash; it appears in error texts.
    pub name: String,
    pub network: NetworkId,
    /// `None` = a random, locally administered address.
    pub mac: Option<MacAddress>,
    /// A fixed address; `None` = the next free one.
    pub address: Option<Ipv4Addr>,
    pub ports: Vec<PublishSpec>,
}

/// A published port as it was bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BoundPort {
    pub container_port: u16,
    pub protocol: Protocol,
    pub host_ip: IpAddr,
    pub host_port: u16,
}

/// A container's place in a network. For `host` and `none` there is no address, gateway or link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub id: EndpointId,
    pub network: NetworkId,
    pub container: ContainerId,
    pub address: Option<Ipv4Addr>,
    /// Length of the subnet's prefix; 0 without an address.
    pub prefix_len: u8,
    pub gateway: Option<Ipv4Addr>,
    pub mac: Option<MacAddress>,
    /// The host's end of the pair (`veth` + 7 hex digits).
    pub host_link: Option<String>,
    pub ports: Vec<BoundPort>,
}

/// What `Networks::connect` made. Dropping it closes the sockets and lets go of the namespace but releases nothing.
#[derive(Debug)]
pub struct Connected {
    pub endpoint: Endpoint,
    /// The container's namespace, complete with `lo` and `eth0` up. `None` for `host` (the daemon's own) and `none`
    /// (the runtime makes an empty one).
    pub netns: Option<OwnedFd>,
    /// The bound (TCP, SCTP: listening) sockets, blocking mode, for the monitor's proxy. UDP sockets deliver `IP_PKTINFO`. Empty when the userland proxy is off: then they stay with the network.
    pub sockets: Vec<(BoundPort, OwnedFd)>,
    /// Further ones of a container that publishes more ports than a process can hold sockets of.
    pub parked: Vec<(Vec<BoundPort>, Parked)>,
}
