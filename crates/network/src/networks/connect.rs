//! Joining sandboxes to networks at a container's start, and leaving.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use model::id::{ContainerId, EndpointId, NetworkId};
use model::{Context, Error, Result};

use super::addresses::{self, Ask};
use super::{Books, Networks};
use crate::confine;
use crate::driver::{Join, Place, option};
use crate::endpoint::{Assigned, Connected, Endpoint, EndpointSpec, Joined, PublishSpec, SandboxSpec, Sockets};
use crate::family::{self, Family};
use crate::mac::MacAddress;
use crate::remotes::{asks_plugins, is_built_in};
use crate::row::NetworkRow;
use crate::sandbox::{Namespace, Sandbox};
use crate::sysctl;

/// Begins the message of every failed `connect`; clients compare it.
const SETUP_FAILED: &str = "failed to set up container networking";
/// What links of containers are called when nobody says, before their number.
const LINK_PREFIX: &str = "eth";

/// A container that is joined to networks.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    pub container: &'a ContainerId,
    /// Its name; it appears in error texts.
    pub name: &'a str,
}

/// Where endpoints are made.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    pub owner: Owner<'a>,
    pub sandbox: &'a Sandbox,
}

/// What an endpoint does for its sandbox.
#[derive(Clone, Copy)]
pub(super) struct Duties<'a> {
    /// It has the default routes of these.
    pub exits: &'a [Family],
    /// It publishes these.
    pub ports: &'a [PublishSpec],
}

/// What may have the default routes of a sandbox.
pub(super) struct Candidate<'a> {
    pub row: &'a NetworkRow,
    pub priority: i64,
}

impl Networks {
    /// Makes a sandbox and joins it to its networks. Everything is undone on failure.
    pub fn connect(&self, spec: &SandboxSpec) -> Result<Connected> {
        self.try_connect(spec).map_err(|error| error.prefix(SETUP_FAILED))
    }

    fn try_connect(&self, spec: &SandboxSpec) -> Result<Connected> {
        if !self.reconciled.load(Ordering::Acquire) {
            return Err(Error::unavailable("the networks are not reconciled yet"));
        }
        let rows = spec.endpoints.iter().map(|endpoint| self.row(&endpoint.network)).collect::<Result<Vec<_>>>()?;
        let sandbox = match rows.iter().any(|row| row.driver == "host") {
            true => Sandbox::Host,
            false => Sandbox::Own(Namespace::empty(self.namespaces.take().context("creating a network namespace")?)),
        };
        let candidates: Vec<_> =
            rows.iter().zip(&spec.endpoints).map(|(row, e)| Candidate { row, priority: e.priority }).collect();
        let exits = Family::BOTH.map(|family| exit(&candidates, family));
        let publisher = exits[0].or(exits[1]);
        let owner = Owner { container: &spec.container, name: &spec.name };
        let mut connected = Connected { endpoints: Vec::new(), netns: None, ports: Sockets::default() };
        for (index, (row, endpoint)) in rows.iter().zip(&spec.endpoints).enumerate() {
            let ports: &[PublishSpec] = if publisher == Some(index) || row.is_bare() { &spec.ports } else { &[] };
            let families = Family::BOTH.into_iter().zip(exits).filter(|(_, exit)| *exit == Some(index));
            let families: Vec<_> = families.map(|(family, _)| family).collect();
            let joined =
                self.join(Site { owner, sandbox: &sandbox }, row, endpoint, Duties { exits: &families, ports });
            let joined = joined.inspect_err(|_| self.take_back(&spec.container))?;
            connected.endpoints.push(joined.endpoint);
            connected.ports.append(joined.ports);
        }
        connected.netns = sandbox.into_fd();
        Ok(connected)
    }

    fn take_back(&self, container: &ContainerId) {
        if let Err(error) = self.release(container) {
            tracing::warn!(%error, %container, "taking back what was joined");
        }
    }

    /// Takes addresses, then lets the driver make the endpoint.
    pub(super) fn join(
        &self,
        site: Site<'_>,
        row: &Arc<NetworkRow>,
        spec: &EndpointSpec,
        duties: Duties<'_>,
    ) -> Result<Joined> {
        if row.traits.config_only {
            return Err(Error::forbidden("cannot create endpoint on configuration-only network"));
        }
        if spec.egress.is_some() && row.driver != "bridge" {
            return Err(confine::unsupported(&row.driver));
        }
        self.begin_join(&row.id)?;
        let mac = spec.mac.unwrap_or_else(MacAddress::random);
        let addresses = self.take_addresses(row, spec, mac);
        let joined = addresses.and_then(|addresses| {
            let led = |own: &&Assigned| duties.exits.contains(&family::of(own.address));
            let place = Place {
                id: EndpointId::from_bytes(sys::random::bytes32()),
                mac,
                wanted_mac: spec.mac,
                link_is_given: spec.link.is_some(),
                exits: duties.exits,
                options: &spec.options,
                link: spec.link.clone().unwrap_or_else(|| self.next_link(site.owner.container, row)),
                gateways: addresses.iter().filter(led).filter_map(|own| own.gateway).collect(),
                addresses: addresses.clone(),
                link_local: &spec.link_local,
                priority: spec.priority,
                dns_names: &spec.dns_names,
                egress: spec.egress.as_ref(),
            };
            let Site { owner: Owner { container, name }, sandbox } = site;
            let request = Join { network: row, sandbox, container, name, endpoint: &place, ports: duties.ports };
            let joined = self.driver(row).and_then(|driver| {
                let joined = driver.join(&request)?;
                let set = sandbox
                    .namespace()
                    .map_or(Ok(()), |own| sysctl::set(own.fd(), &joined.endpoint.link, &spec.sysctls));
                match set {
                    Ok(()) => Ok(joined),
                    Err(error) => {
                        driver.leave(row, &joined.endpoint, sandbox.namespace().map(Namespace::fd))?;
                        Err(error)
                    }
                }
            });
            joined.inspect_err(|_| self.give_addresses_back(row, &addresses))
        });
        self.end_join(&row.id, joined.as_ref().ok().map(|joined| &joined.endpoint));
        joined
    }

    fn take_addresses(&self, row: &NetworkRow, spec: &EndpointSpec, mac: MacAddress) -> Result<Vec<Assigned>> {
        if row.ipam.driver == "null" {
            return Ok(Vec::new());
        }
        let in_use: Vec<_> = {
            let books = self.books();
            let of_network = books.endpoints.values().flatten().filter(|endpoint| endpoint.network == row.id);
            // Of the built-in driver, which never gives one twice, nobody needs to know.
            let of_plugin = of_network.filter(|_| asks_plugins("bridge", &row.ipam.driver));
            of_plugin.flat_map(|endpoint| endpoint.addresses.iter().map(|own| own.address)).collect()
        };
        addresses::take(&*self.ipam(row)?, row, Ask { wanted: &spec.addresses, ipv6: spec.ipv6, mac, in_use: &in_use })
    }

    fn give_addresses_back(&self, row: &NetworkRow, given: &[Assigned]) {
        match self.ipam(row) {
            Ok(ipam) => addresses::give_addresses_back(&*ipam, row, given),
            Err(error) => tracing::warn!(%error, network = %row.name, "addresses cannot be given back"),
        }
    }

    /// Keeps a network from being removed while somebody joins it.
    fn begin_join(&self, network: &NetworkId) -> Result<()> {
        let mut books = self.books();
        if !books.rows.contains_key(network) {
            return Err(Error::not_found(format!("network {network} not found")));
        }
        *books.joining.entry(network.clone()).or_default() += 1;
        Ok(())
    }

    fn end_join(&self, network: &NetworkId, endpoint: Option<&Endpoint>) {
        let mut books = self.books();
        if let Some(count) = books.joining.get_mut(network) {
            *count -= 1;
            if *count == 0 {
                books.joining.remove(network);
            }
        }
        if let Some(endpoint) = endpoint {
            books.endpoints.entry(endpoint.container.clone()).or_default().push(endpoint.clone());
            drop(books);
            self.publish_names(network);
        }
    }

    /// The network's prefix and the first number that none of the container's links has.
    pub(super) fn next_link(&self, container: &ContainerId, row: &NetworkRow) -> String {
        let prefix = row.options.get(option::LINK_PREFIX).filter(|prefix| !prefix.is_empty());
        let prefix = prefix.map_or(LINK_PREFIX, String::as_str);
        let books = self.books();
        let standing: Vec<_> = books.endpoints.get(container).into_iter().flatten().map(|e| e.link.as_str()).collect();
        let mut names = (0..=standing.len()).map(|number| format!("{prefix}{number}"));
        names.find(|name| !standing.contains(&name.as_str())).unwrap_or_else(|| format!("{prefix}0"))
    }

    /// Takes a container out of its networks: rules, addresses, ports, links. Idempotent; goes on after an error and
    /// returns the first.
    pub fn release(&self, container: &ContainerId) -> Result<()> {
        let endpoints = self.books().endpoints.remove(container).unwrap_or_default();
        let mut result = Ok(());
        // Nobody is led to an address that another container may have at once.
        endpoints.iter().for_each(|endpoint| self.publish_names(&endpoint.network));
        for endpoint in &endpoints {
            result = result.and(self.leave(endpoint, None));
        }
        result
    }

    pub(super) fn leave(&self, endpoint: &Endpoint, netns: Option<BorrowedFd<'_>>) -> Result<()> {
        let row = self.row(&endpoint.network)?;
        let left = self.driver(&row)?.leave(&row, endpoint, netns);
        self.give_addresses_back(&row, &endpoint.addresses);
        left
    }
}

impl Books {
    pub(super) fn remove_endpoint(&mut self, container: &ContainerId, network: &NetworkId) {
        if let Some(endpoints) = self.endpoints.get_mut(container) {
            endpoints.retain(|endpoint| endpoint.network != *network);
            if endpoints.is_empty() {
                self.endpoints.remove(container);
            }
        }
    }
}

/// Which candidate has the default route of a family: the highest priority, then the most families, then the first name
/// (B-nw-5). Internal networks have no way out.
pub(super) fn exit(candidates: &[Candidate<'_>], family: Family) -> Option<usize> {
    let leads_out = |Candidate { row, .. }: &Candidate<'_>| {
        let by_pools = row.pools(family).any(|pool| pool.gateway.is_some());
        // A plugin may tell its gateway when it is joined.
        !row.traits.internal && (by_pools || row.has(family) && !is_built_in(&row.driver))
    };
    let families = |row: &NetworkRow| Family::BOTH.into_iter().filter(|family| row.pool(*family).is_some()).count();
    let all = candidates.iter().enumerate().filter(|(_, candidate)| leads_out(candidate));
    let best = all.min_by(|(_, a), (_, b)| {
        let order = b.priority.cmp(&a.priority).then_with(|| families(b.row).cmp(&families(a.row)));
        order.then_with(|| a.row.name.cmp(&b.row.name))
    });
    best.map(|(index, _)| index)
}
