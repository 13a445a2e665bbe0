//! The networks of one daemon and the endpoints in them.
//!
//! Networks are rows in the store; endpoints are known from `connect` and, after a restart, from `reconcile`. The lock
//! over the books is held for a look-up or a change of them, never across a driver's work; networks are made and removed
//! one at a time.

mod addresses;
mod change;
mod connect;
mod hot;
mod names;
mod open;
mod remote;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ipnet::IpNet;
use model::id::{ContainerId, NetworkId};
use model::lock::{Mutex, MutexGuard};
use model::{Context, Error, Result};
use store::Store;

use crate::config::{DirectRouting, Enabled, NetworkConfig};
use crate::driver::{Firewalld, NetworkDriver, Watch, bridge_settings, option};
use crate::endpoint::{self, Endpoint};
use crate::ipam::{Ipam, Usage};
use crate::plan::Filtered;
use crate::reach::{self, Circumstances, Way};
use crate::remotes::Remotes;
use crate::row::NetworkRow;
use crate::spares::Spares;

pub use crate::remotes::{asks_plugins, is_built_in};
pub use addresses::NewPool;
pub use change::{NewNetwork, is_predefined};
pub use connect::Owner;

/// A network as it is listed and inspected.
#[derive(Clone, Debug)]
pub struct Network {
    pub row: Arc<NetworkRow>,
    /// Connected endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// The networks of one daemon. Shared by reference; every call may block on the kernel.
pub struct Networks {
    config: NetworkConfig,
    store: Store,
    drivers: BTreeMap<&'static str, Arc<dyn NetworkDriver>>,
    ipams: BTreeMap<&'static str, Arc<dyn Ipam>>,
    remotes: Remotes,
    namespaces: Spares,
    books: Mutex<Books>,
    /// Held while a network of a built-in driver is made or removed, never while a plugin is asked.
    changes: Mutex<()>,
    /// Held while names are published.
    naming: Mutex<()>,
    reconciled: AtomicBool,
}

#[derive(Default)]
struct Books {
    rows: BTreeMap<NetworkId, Arc<NetworkRow>>,
    endpoints: BTreeMap<ContainerId, Vec<Endpoint>>,
    /// How many endpoints of a network are being made.
    joining: BTreeMap<NetworkId, usize>,
    /// Names of networks that are being made or removed.
    claimed: BTreeSet<String>,
}

impl Networks {
    /// Tells which endpoints live (from the container rows): their addresses and ports are taken again, rules are
    /// brought in line, and links, rules and addresses of no live endpoint are removed. Once, before any `connect`.
    pub fn reconcile(&self, live: &[Endpoint]) -> Result<()> {
        for driver in self.drivers.values() {
            let of_driver = |e: &&Endpoint| self.row(&e.network).is_ok_and(|row| row.driver == driver.name());
            driver.reconcile(&live.iter().filter(of_driver).cloned().collect::<Vec<_>>())?;
        }
        for endpoint in live {
            let Ok(row) = self.row(&endpoint.network) else {
                tracing::warn!(container = %endpoint.container, network = %endpoint.network, "a live container's network is gone");
                continue;
            };
            if let Some(ipam) = self.ipams.get(row.ipam.driver.as_str()) {
                addresses::take_again(&row, &**ipam, endpoint);
            }
            self.books().endpoints.entry(endpoint.container.clone()).or_default().push(endpoint.clone());
        }
        self.publish_all_names().context("publishing the names of networks")?;
        self.reconciled.store(true, Ordering::Release);
        Ok(())
    }

    /// Puts back what others change of the rules and the bridge devices, for as long as the result lives. After
    /// `reconcile`, in the same namespace.
    pub fn watch(&self) -> Result<Vec<Watch>> {
        self.drivers.values().filter_map(|driver| driver.watch().transpose()).collect()
    }

    /// Makes ready for the next `connect`.
    pub fn replenish(&self) -> Result<()> {
        self.namespaces.refill().context("making network namespaces ahead")
    }

    /// All networks, sorted by name.
    pub fn list(&self) -> Vec<Network> {
        let books = self.books();
        let mut networks: Vec<_> = books.rows.values().map(|row| books.describe(row)).collect();
        networks.sort_by(|a, b| a.row.name.cmp(&b.row.name));
        networks
    }

    /// By full id, name or id prefix, in this order. Errors: not found, ambiguous.
    pub fn find(&self, term: &str) -> Result<Network> {
        let books = self.books();
        books.lookup(term).map(|row| books.describe(row))
    }

    /// As [`Networks::find`], the row alone: cheap however many endpoints there are.
    pub fn look_up(&self, term: &str) -> Result<Arc<NetworkRow>> {
        self.books().lookup(term).cloned()
    }

    /// The row of a network.
    pub fn row(&self, id: &NetworkId) -> Result<Arc<NetworkRow>> {
        let row = self.books().rows.get(id).cloned();
        row.ok_or_else(|| Error::not_found(format!("network {id} not found")))
    }

    /// Whether there is a default bridge network.
    pub fn has_default(&self) -> bool {
        self.books().rows.values().any(|row| row.flag(option::DEFAULT_BRIDGE, false))
    }

    /// How far each subnet of a network is used.
    pub fn usage(&self, row: &NetworkRow) -> Vec<(IpNet, Usage)> {
        let Some(ipam) = self.ipams.get(row.ipam.driver.as_str()) else { return Vec::new() };
        let of_pool = |pool: &crate::row::PoolRow| Some((pool.subnet, ipam.usage(&pool.reserved())?));
        row.ipam.pools.iter().filter_map(of_pool).collect()
    }

    /// A container's endpoints.
    pub fn endpoints_of(&self, container: &ContainerId) -> Vec<Endpoint> {
        self.books().endpoints.get(container).cloned().unwrap_or_default()
    }

    /// A container is called otherwise: so are its endpoints.
    pub fn rename(&self, container: &ContainerId, old: &str, new: &str) {
        for endpoint in self.books().endpoints.get_mut(container).into_iter().flatten() {
            endpoint::rename(&mut endpoint.dns_names, old, new);
        }
    }

    /// Who can reach a container by its places in bridge networks.
    pub fn reach(&self, container: &ContainerId) -> Vec<Way> {
        let around = Circumstances {
            userland_proxy: self.config.userland_proxy,
            filtered: Filtered { ipv4: self.config.iptables, ipv6: self.config.ip6tables },
            direct_routing: Enabled::from(self.config.direct_routing != DirectRouting::Forbidden),
            publish: self.config.publish_mode,
            accept_mark: self.config.accept_mark,
        };
        let mut ways = Vec::new();
        for endpoint in self.endpoints_of(container) {
            let Ok(row) = self.row(&endpoint.network) else { continue };
            if row.driver != "bridge" {
                continue;
            }
            if let Ok(settings) = bridge_settings(&row, &self.config) {
                let around = Circumstances { publish: settings.publish, ..around };
                ways.extend(reach::ways(&row.name, &settings.rules, &endpoint, around));
            }
        }
        ways
    }

    /// How many entries the books have: endpoints of containers here, and what the drivers keep for them.
    pub fn sizes(&self) -> BTreeMap<&'static str, usize> {
        let books = self.books();
        let endpoints = books.endpoints.values().map(Vec::len).sum();
        let mut sizes = BTreeMap::from([("endpoints", endpoints), ("joining", books.joining.len())]);
        drop(books);
        sizes.insert("addresses", self.ipams.values().map(|ipam| ipam.taken()).sum());
        for (name, size) in self.drivers.values().flat_map(|driver| driver.sizes()) {
            *sizes.entry(name).or_default() += size;
        }
        sizes
    }

    /// The driver of a network. Waits for a plugin that was not needed before.
    fn driver(&self, row: &NetworkRow) -> Result<Arc<dyn NetworkDriver>> {
        let built_in = self.drivers.get(row.driver.as_str()).cloned();
        built_in.map_or_else(|| self.remote_driver(&row.driver), Ok)
    }

    /// The driver of a network's addresses. Likewise.
    fn ipam(&self, row: &NetworkRow) -> Result<Arc<dyn Ipam>> {
        let built_in = self.ipams.get(row.ipam.driver.as_str()).cloned();
        built_in.map_or_else(|| self.remote_ipam(&row.ipam.driver), Ok)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Every change is a single insertion or removal: a panic elsewhere leaves the maps right.
        self.books.lock()
    }
}

/// What is known of a firewalld on this host, without asking it.
pub fn firewalld(networks: &Networks) -> Firewalld {
    networks.drivers.get("bridge").map(|driver| driver.firewalld()).unwrap_or_default()
}

impl Books {
    fn describe(&self, row: &Arc<NetworkRow>) -> Network {
        let endpoints = self.endpoints.values().flatten().filter(|e| e.network == row.id).cloned().collect();
        Network { row: row.clone(), endpoints }
    }

    fn lookup(&self, term: &str) -> Result<&Arc<NetworkRow>> {
        let exact = self.rows.values().find(|r| r.id.as_str() == term);
        if let Some(row) = exact.or_else(|| self.rows.values().find(|r| r.name == term)) {
            return Ok(row);
        }
        let with_prefix: Vec<_> =
            self.rows.values().filter(|r| !term.is_empty() && r.id.as_str().starts_with(term)).collect();
        match with_prefix[..] {
            [row] => Ok(row),
            [] => Err(Error::not_found(format!("network {term} not found"))),
            _ => {
                let count = with_prefix.len();
                Err(Error::invalid(format!("network {term} is ambiguous ({count} matches found based on ID prefix)")))
            }
        }
    }
}
