//! Changes of a container that runs: it joins and leaves networks, and publishes other ports.
//!
//! Published ports belong to the endpoint with the way out: when another one gets it, they move there (as in the
//! reference). Whoever has their sockets closes them before; a change that fails publishes them again.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use model::id::{ContainerId, NetworkId};
use model::{Context, Error, Result};
use sys::netlink::{Batch, Route, Socket, address, link, namespace};

use super::Networks;
use super::connect::{Candidate, Duties, Owner, Site, exit};
use crate::bound::BoundPorts;
use crate::config::Enabled;
use crate::driver::{Publish, remove_inside};
use crate::endpoint::{BoundPort, Changed, Endpoint, EndpointSpec, Joined, PublishSpec, Sockets};
use crate::family::Family;
use crate::row::NetworkRow;
use crate::sandbox::{Namespace, Sandbox};

/// The endpoints of one container with their networks.
type Standing = Vec<(Arc<NetworkRow>, Endpoint)>;

impl Networks {
    /// The name of the link that one more place of the container gets.
    pub fn link_of(&self, container: &ContainerId, spec: &EndpointSpec) -> Result<String> {
        let row = self.row(&spec.network)?;
        Ok(spec.link.clone().unwrap_or_else(|| self.next_link(container, &row)))
    }

    /// Whether one more place of the container would get the way out, and so the published ports.
    pub fn would_publish(&self, container: &ContainerId, spec: &EndpointSpec) -> Result<bool> {
        let (standing, row) = (self.standing(container), self.row(&spec.network)?);
        let mut candidates = candidates(&standing);
        candidates.push(Candidate { row: &row, priority: spec.priority });
        Ok(publisher(&candidates) == Some(candidates.len() - 1))
    }

    /// Joins a running container to one more network; `netns` is its namespace. Where the new endpoint gets the way out, the
    /// container's published ports become `ports`, at it: whoever has their sockets has closed them. `None`: they stay
    /// where they are. Undone on failure.
    pub fn plug(
        &self,
        owner: Owner<'_>,
        netns: OwnedFd,
        spec: &EndpointSpec,
        ports: Option<&[PublishSpec]>,
    ) -> Changed<Endpoint> {
        let before = self.standing(owner.container);
        match self.try_plug(owner, &netns, spec, ports) {
            Ok(Joined { endpoint, ports }) => Changed { outcome: Ok(endpoint), ports },
            Err(error) => {
                if let Err(error) = self.route_by_the_best(owner.container, &netns) {
                    tracing::warn!(%error, container = %owner.container, "the default route is lost");
                }
                let ports = if ports.is_some() { self.put_up(owner, &before) } else { Sockets::default() };
                Changed { outcome: Err(error), ports }
            }
        }
    }

    fn try_plug(
        &self,
        owner: Owner<'_>,
        netns: &OwnedFd,
        spec: &EndpointSpec,
        ports: Option<&[PublishSpec]>,
    ) -> Result<Joined> {
        let row = self.row(&spec.network)?;
        let standing = self.standing(owner.container);
        if standing.iter().any(|(other, _)| other.id == row.id) {
            let text = format!("endpoint with name {} already exists in network {}", owner.name, row.name);
            return Err(Error::forbidden(text));
        }
        let mut candidates = candidates(&standing);
        candidates.push(Candidate { row: &row, priority: spec.priority });
        let last = candidates.len() - 1;
        let exits: Vec<_> =
            Family::BOTH.into_iter().filter(|family| exit(&candidates, *family) == Some(last)).collect();
        let ports = ports.filter(|_| publisher(&candidates) == Some(last));
        if ports.is_some() {
            self.take_down(owner.container)?;
        }
        let fd = netns.try_clone().context("copying the descriptor of a network namespace")?;
        let sandbox = Sandbox::Own(Namespace::furnished(fd));
        let duties = Duties { exits: &exits, ports: ports.unwrap_or_default() };
        self.join(Site { owner, sandbox: &sandbox }, &row, spec, duties)
    }

    /// Takes all published ports of a container back.
    fn take_down(&self, container: &ContainerId) -> Result<()> {
        self.endpoints_of(container)
            .iter()
            .filter(|endpoint| !endpoint.ports.is_empty())
            .try_for_each(|endpoint| self.unpublish(container, &endpoint.network, &endpoint.ports))
    }

    /// Publishes again what was published before.
    fn put_up(&self, owner: Owner<'_>, before: &Standing) -> Sockets {
        let mut sockets = Sockets::default();
        if let Err(error) = self.take_down(owner.container) {
            tracing::warn!(%error, container = %owner.container, "published ports cannot be taken back");
        }
        for (row, endpoint) in before.iter().filter(|(_, endpoint)| !endpoint.ports.is_empty()) {
            let specs: Vec<_> = endpoint.ports.iter().map(|port| port.again()).collect();
            match self.publish(owner, &row.id, &specs) {
                Ok(more) => sockets.append(more),
                Err(error) => tracing::warn!(%error, container = %owner.container, "ports cannot be published again"),
            }
        }
        sockets
    }

    /// Takes a running container out of a network; `netns` is its namespace. The endpoint with the way out afterwards
    /// publishes `ports`, where it does not yet: whoever has their sockets has closed them. What was the endpoint.
    pub fn unplug(
        &self,
        owner: Owner<'_>,
        network: &NetworkId,
        netns: &OwnedFd,
        ports: &[PublishSpec],
    ) -> Changed<Option<Endpoint>> {
        let standing = self.endpoints_of(owner.container);
        let Some(endpoint) = standing.iter().find(|endpoint| endpoint.network == *network) else {
            return Changed { outcome: Ok(None), ports: Sockets::default() };
        };
        if let Err(error) = self.leave(endpoint, Some(netns.as_fd())) {
            return Changed { outcome: Err(error), ports: Sockets::default() };
        }
        self.books().remove_endpoint(owner.container, network);
        self.publish_names(network);
        if let Err(error) = self.route_by_the_best(owner.container, netns) {
            tracing::warn!(%error, container = %owner.container, "the default route is lost");
        }
        let ports = self.publish_by_the_best(owner, ports).unwrap_or_else(|error| {
            tracing::warn!(%error, container = %owner.container, "published ports are lost with the endpoint that had them");
            Sockets::default()
        });
        Changed { outcome: Ok(Some(endpoint.clone())), ports }
    }

    /// Puts an endpoint back that was taken away, as it was.
    pub fn plug_again(
        &self,
        owner: Owner<'_>,
        netns: OwnedFd,
        endpoint: &Endpoint,
        ports: &[PublishSpec],
    ) -> Changed<Endpoint> {
        let spec = EndpointSpec {
            mac: endpoint.mac,
            addresses: endpoint.addresses.iter().map(|own| own.address).collect(),
            ipv6: Enabled::from(endpoint.assigned(Family::Ipv6).is_some()),
            link: Some(endpoint.link.clone()),
            priority: endpoint.priority,
            dns_names: endpoint.dns_names.clone(),
            egress: endpoint.egress.clone(),
            ..EndpointSpec::new(endpoint.network.clone())
        };
        self.plug(owner, netns, &spec, Some(ports))
    }

    /// Makes the sandbox of a container what its endpoints say, after a change that broke off: `link` was being made or
    /// taken away. The container has closed the sockets of all its ports; they are published by the endpoint with the way out.
    pub fn bring_in_line(&self, owner: Owner<'_>, netns: &OwnedFd, link: &str, ports: &[PublishSpec]) -> Changed<()> {
        let standing = self.standing(owner.container);
        if !standing.iter().any(|(_, endpoint)| endpoint.link == link) {
            remove_inside(netns.as_fd(), link);
        }
        let routed = self.route_by_the_best(owner.container, netns);
        let published = self.take_down(owner.container).and_then(|()| self.publish_by_the_best(owner, ports));
        match (routed, published) {
            (outcome, Ok(ports)) => Changed { outcome, ports },
            (_, Err(error)) => Changed { outcome: Err(error), ports: Sockets::default() },
        }
    }

    /// Publishes other ports of a container that runs: `removed` are taken back, whoever has their sockets has closed them;
    /// `added` are published by the endpoint with the way out. The others are not touched. Undone on failure.
    pub fn change_published(&self, owner: Owner<'_>, removed: &[BoundPort], added: &[PublishSpec]) -> Changed<()> {
        let before = self.standing(owner.container);
        let gone: HashSet<&BoundPort> = removed.iter().collect();
        let changed = before.iter().try_for_each(|(row, endpoint)| {
            let own = endpoint.ports.iter().filter(|port| gone.contains(port)).collect();
            self.unpublish(owner.container, &row.id, &own)
        });
        let changed = changed.and_then(|()| match added {
            [] => Ok(Sockets::default()),
            _ => self.publish_more(owner, added),
        });
        match changed {
            Ok(ports) => Changed { outcome: Ok(()), ports },
            Err(error) => {
                let again: Vec<_> = removed.iter().map(BoundPort::again).collect();
                let ports = if again.is_empty() { Ok(Sockets::default()) } else { self.publish_more(owner, &again) };
                let ports = ports.unwrap_or_else(|error| {
                    tracing::warn!(%error, container = %owner.container, "ports cannot be published again");
                    Sockets::default()
                });
                Changed { outcome: Err(error), ports }
            }
        }
    }

    /// Publishes ports beside those that stand, at the endpoint of the container that has the way out; all or none.
    fn publish_more(&self, owner: Owner<'_>, ports: &[PublishSpec]) -> Result<Sockets> {
        let standing = self.standing(owner.container);
        match publisher(&candidates(&standing)) {
            Some(index) => self.publish(owner, &standing[index].0.id, ports),
            None => Ok(Sockets::default()),
        }
    }

    /// Publishes ports at the endpoint with the way out, unless some endpoint has ports.
    fn publish_by_the_best(&self, owner: Owner<'_>, ports: &[PublishSpec]) -> Result<Sockets> {
        let published = self.endpoints_of(owner.container).iter().any(|endpoint| !endpoint.ports.is_empty());
        if published || ports.is_empty() { Ok(Sockets::default()) } else { self.publish_more(owner, ports) }
    }

    fn publish(&self, owner: Owner<'_>, network: &NetworkId, ports: &[PublishSpec]) -> Result<Sockets> {
        let standing = self.endpoints_of(owner.container);
        let endpoint = standing.iter().find(|endpoint| endpoint.network == *network);
        let Some(endpoint) = endpoint else { return Ok(Sockets::default()) };
        let row = self.row(network)?;
        let request = Publish { network: &row, endpoint, name: owner.name, ports };
        let (bound, sockets) = self.driver(&row)?.publish(&request)?;
        self.change_ports(owner.container, network, |ports| ports.extend(bound.iter()));
        Ok(sockets)
    }

    /// Takes published ports of a container back; whoever has their sockets has closed them.
    pub fn unpublish(&self, container: &ContainerId, network: &NetworkId, ports: &BoundPorts) -> Result<()> {
        let standing = self.endpoints_of(container);
        let Some(endpoint) = standing.iter().find(|endpoint| endpoint.network == *network) else { return Ok(()) };
        let row = self.row(network)?;
        self.driver(&row)?.unpublish(endpoint, ports)?;
        let gone: HashSet<BoundPort> = ports.iter().collect();
        self.change_ports(container, network, |standing| standing.retain(|port| !gone.contains(port)));
        Ok(())
    }

    fn change_ports(&self, container: &ContainerId, network: &NetworkId, change: impl FnOnce(&mut BoundPorts)) {
        let mut books = self.books();
        let endpoints = books.endpoints.get_mut(container).into_iter().flatten();
        if let Some(endpoint) = endpoints.into_iter().find(|endpoint| endpoint.network == *network) {
            change(&mut endpoint.ports);
        }
    }

    fn standing(&self, container: &ContainerId) -> Standing {
        let endpoints = self.endpoints_of(container).into_iter();
        endpoints.filter_map(|endpoint| Some((self.row(&endpoint.network).ok()?, endpoint))).collect()
    }

    /// Gives the sandbox's default routes to the endpoints that should have them now.
    fn route_by_the_best(&self, container: &ContainerId, netns: &OwnedFd) -> Result<()> {
        let standing = self.standing(container);
        let candidates = candidates(&standing);
        let mut routes = Vec::new();
        for family in Family::BOTH {
            let Some((_, endpoint)) = exit(&candidates, family).map(|index| &standing[index]) else { continue };
            let gateway = endpoint.assigned(family).and_then(|assigned| assigned.gateway);
            routes.extend(gateway.map(|gateway| (endpoint.link.as_str(), gateway)));
        }
        if routes.is_empty() {
            return Ok(());
        }
        let replaced = namespace::enter(netns.as_fd(), || {
            let mut socket = Socket::route()?;
            let mut batch = Batch::new();
            for (name, gateway) in &routes {
                if let Some(link) = link::find(&mut socket, name)? {
                    address::replace_route(&mut batch, &Route::default_by(*gateway, link.index));
                }
            }
            Ok(socket.request(&mut batch)?)
        });
        replaced.context("changing the default route")
    }
}

fn candidates(standing: &Standing) -> Vec<Candidate<'_>> {
    standing.iter().map(|(row, endpoint)| Candidate { row, priority: endpoint.priority }).collect()
}

/// Which candidate publishes ports.
fn publisher(candidates: &[Candidate<'_>]) -> Option<usize> {
    exit(candidates, Family::Ipv4).or_else(|| exit(candidates, Family::Ipv6))
}
