//! Network drivers: what makes a container's place in a network.

mod announce;
mod bridge;
mod bridges;
mod device;
mod firewalld;
mod foreign;
mod gates;
mod host;
mod inside;
mod legacy;
mod lingering;
mod null;
mod on_parent;
pub mod option;
mod remote;
mod rules;
mod settings;
mod watch;
mod zone;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use model::Result;
use model::egress::Egress;
use model::id::{ContainerId, EndpointId};

use crate::bound::BoundPorts;
use crate::endpoint::{Assigned, Endpoint, Joined, PublishSpec, Sockets};
use crate::family::Family;
use crate::ipam::Surroundings;
use crate::mac::MacAddress;
use crate::row::NetworkRow;
use crate::sandbox::Sandbox;

pub use announce::check as check_announcements;
pub use bridge::{BridgeDriver, DefaultSubnet};
pub use firewalld::Known as Firewalld;
pub use host::HostDriver;
pub use inside::remove as remove_inside;
pub use null::NullDriver;
pub use on_parent::{Kind, OnParentDriver};
pub use remote::{KIND as NETWORK_PLUGIN, RemoteDriver};
pub use rules::Rules;
pub use settings::parse as bridge_settings;
pub use watch::Watch;

/// A place in a network, its addresses taken, to be made in a sandbox.
#[derive(Debug)]
pub struct Join<'a> {
    pub network: &'a NetworkRow,
    pub sandbox: &'a Sandbox,
    pub container: &'a ContainerId,
    /// The container's name; it appears in error texts.
    pub name: &'a str,
    pub endpoint: &'a Place<'a>,
    /// To be published here.
    pub ports: &'a [PublishSpec],
}

/// What is decided about an endpoint before its driver makes it.
#[derive(Debug)]
pub struct Place<'a> {
    pub id: EndpointId,
    pub mac: MacAddress,
    /// The user's.
    pub wanted_mac: Option<MacAddress>,
    pub addresses: Vec<Assigned>,
    pub link_local: &'a [IpAddr],
    /// Name of the link in the container.
    pub link: String,
    /// The user chose it.
    pub link_is_given: bool,
    /// Families whose default routes lead here.
    pub exits: &'a [Family],
    /// Gateways of the default routes that lead here.
    pub gateways: Vec<IpAddr>,
    /// The user's options of the endpoint.
    pub options: &'a BTreeMap<String, String>,
    pub priority: i64,
    pub dns_names: &'a [String],
    /// All that its container may reach; `None` = whatever the network lets it.
    pub egress: Option<&'a Egress>,
}

/// Ports to be published at an endpoint that stands.
#[derive(Debug)]
pub struct Publish<'a> {
    pub network: &'a NetworkRow,
    pub endpoint: &'a Endpoint,
    /// The container's name; it appears in error texts.
    pub name: &'a str,
    pub ports: &'a [PublishSpec],
}

impl Join<'_> {
    /// The endpoint as it is stored, without links and ports.
    pub fn bare(&self) -> Endpoint {
        let place = self.endpoint;
        Endpoint {
            id: place.id.clone(),
            network: self.network.id.clone(),
            container: self.container.clone(),
            addresses: place.addresses.clone(),
            mac: None,
            host_link: None,
            link: place.link.clone(),
            priority: place.priority,
            dns_names: place.dns_names.to_vec(),
            ports: BoundPorts::default(),
            egress: place.egress.cloned(),
        }
    }
}

/// Makes and removes containers' places in networks of one kind.
///
/// Life cycle of a network: `open` (when it is created and at every start of the daemon), once `reconcile` after all
/// networks are open at the start of the daemon, then any number of `join` and `leave`, from any thread, beside each
/// other; `close` when the network is removed. Networks come and go while others are used. Calls block.
///
/// - Addresses are the caller's: a driver never chooses one.
/// - `join` leaves nothing behind when it fails. It may be called for a sandbox that has endpoints, and while the
///   container runs.
/// - `leave` is idempotent and frees at once what others can be given: ports, rules. With the sandbox it also removes the
///   link there; without, a link that dies with its namespace may do so shortly after.
/// - An endpoint is left with what `join` returned, by this or by a later daemon.
pub trait NetworkDriver: Send + Sync {
    /// The name in a network's row.
    fn name(&self) -> &str;

    /// Refuses settings that no network of this kind can have. Pure.
    fn check(&self, network: &NetworkRow) -> Result<()>;

    /// Networks that the host reaches already: automatic subnets must not hide them.
    fn surroundings(&self) -> Result<Surroundings> {
        Ok(Surroundings::default())
    }

    /// Whether its networks are one on all hosts.
    fn is_global(&self) -> bool {
        false
    }

    /// The families in which containers of the network go through a gateway, so that an address is needed for it.
    fn needs_gateway(&self, _: &NetworkRow) -> Result<Vec<Family>> {
        Ok(Family::BOTH.to_vec())
    }

    /// Makes what the network needs on the host, where it is missing; the row's subnets are complete. Fills in the
    /// device's hardware address where the row has none; the caller stores the row.
    fn open(&self, network: &mut NetworkRow) -> Result<()>;

    /// Removes what `open` made. The network has no endpoints.
    fn close(&self, network: &NetworkRow) -> Result<()>;

    /// Takes ports and rules of the live endpoints (of all networks of this driver) again and removes what belongs to no
    /// live endpoint.
    fn reconcile(&self, live: &[Endpoint]) -> Result<()>;

    fn join(&self, request: &Join<'_>) -> Result<Joined>;

    fn leave(&self, network: &NetworkRow, endpoint: &Endpoint, sandbox: Option<BorrowedFd<'_>>) -> Result<()>;

    /// Publishes ports at an endpoint that stands, beside those that it has; all or none.
    fn publish(&self, _: &Publish<'_>) -> Result<(BoundPorts, Sockets)> {
        Ok(Default::default())
    }

    /// Takes ports of an endpoint that stands back; whoever has their sockets has closed them. Idempotent.
    fn unpublish(&self, _: &Endpoint, _: &BoundPorts) -> Result<()> {
        Ok(())
    }

    /// How many entries the books of this driver have, by what they are about.
    fn sizes(&self) -> Vec<(&'static str, usize)> {
        Vec::new()
    }

    /// What is known of a firewalld that is told of the driver's links.
    fn firewalld(&self) -> Firewalld {
        Firewalld::default()
    }

    /// Puts back what others change of what `open` and `join` made on the host, for as long as the result lives.
    fn watch(&self) -> Result<Option<Watch>> {
        Ok(None)
    }
}
