//! The networks of one daemon and the endpoints in them.
//!
//! Networks are rows in the store; endpoints are known from `connect` and, after a restart, from `reconcile`. The lock
//! over the endpoints is held for a look-up or an insertion, never across a driver's work.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::Ipv4Net;
use model::id::{ContainerId, NetworkId};
use model::time::Timestamp;
use model::{Context, Error, Result};
use store::Store;

use crate::config::NetworkConfig;
use crate::driver::{BridgeDriver, HostDriver, NetworkDriver, NullDriver, Watch, option};
use crate::endpoint::{Connected, Endpoint, EndpointSpec};
use crate::forwarding;
use crate::ipam::DefaultIpam;
use crate::row::{NETWORKS, NetworkRow};
use crate::spares::Spares;

/// Begins the message of every failed `connect`; clients compare it.
const SETUP_FAILED: &str = "failed to set up container networking";

/// A network as it is listed and inspected.
#[derive(Clone, Debug)]
pub struct Network {
    pub id: NetworkId,
    pub name: String,
    /// `bridge`, `host` or `null`.
    pub driver: String,
    pub created: Timestamp,
    pub subnet: Option<Ipv4Net>,
    pub gateway: Option<Ipv4Addr>,
    /// The part of the subnet that containers get addresses from, when narrowed.
    pub range: Option<Ipv4Net>,
    /// Driver options (`com.docker.network.bridge.name`, …).
    pub options: BTreeMap<String, String>,
    /// Connected endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// The networks of one daemon. Shared by reference; every call may block on the kernel.
pub struct Networks {
    rows: BTreeMap<NetworkId, NetworkRow>,
    drivers: Vec<Box<dyn NetworkDriver>>,
    namespaces: Arc<Spares>,
    endpoints: Mutex<BTreeMap<ContainerId, Vec<Endpoint>>>,
    reconciled: AtomicBool,
}

impl Networks {
    /// Makes docker0, the nft table and forwarding as `config` says, in the calling thread's network namespace.
    /// Before the first `connect` the caller has to call `reconcile` once.
    pub fn open(config: NetworkConfig, store: &Store) -> Result<Networks> {
        let ipam = Box::new(DefaultIpam::new(config.pools()));
        let forwarding = forwarding::look(&config, store)?;
        let stored = store.read(|tx| tx.scan(&NETWORKS))?;
        let mut wanted = vec![predefined(&stored, "host", "host"), predefined(&stored, "none", "null")];
        let namespaces = Arc::new(Spares::default());
        let null = NullDriver::new(namespaces.clone());
        if let Some(device) = config.bridge_name() {
            wanted.push(default_bridge(predefined(&stored, "bridge", "bridge"), &config, device));
        }
        let without_default = config.bridge_name().is_none();
        let bridge = BridgeDriver::new(config, ipam, namespaces.clone(), forwarding.drop_foreign)?;
        if without_default {
            bridge.remove_default_device();
        }
        let rules_stand = bridge.translates().into();
        let drivers: Vec<Box<dyn NetworkDriver>> = vec![Box::new(HostDriver), Box::new(null), Box::new(bridge)];
        for row in &mut wanted {
            let driver = drivers.iter().find(|d| d.name() == row.driver).expect("each has its driver");
            driver.open(row).map_err(|e| e.prefix(format!("error creating default \"{}\" network", row.name)))?;
        }
        save(store, &stored, &wanted)?;
        forwarding.carry_out(store, rules_stand)?;
        Ok(Networks {
            rows: wanted.into_iter().map(|row| (row.id.clone(), row)).collect(),
            drivers,
            namespaces,
            endpoints: Mutex::default(),
            reconciled: AtomicBool::new(false),
        })
    }

    /// Tells which endpoints live (from the container rows): their addresses and ports are taken again, rules are
    /// brought in line, and links, rules and addresses of no live endpoint are removed. Once, before any `connect`.
    pub fn reconcile(&self, live: &[Endpoint]) -> Result<()> {
        for driver in &self.drivers {
            let of_driver = |e: &&Endpoint| self.rows.get(&e.network).is_some_and(|row| row.driver == driver.name());
            driver.reconcile(&live.iter().filter(of_driver).cloned().collect::<Vec<_>>())?;
        }
        let mut endpoints = self.endpoints();
        for endpoint in live {
            if !self.rows.contains_key(&endpoint.network) {
                tracing::warn!(container = %endpoint.container, network = %endpoint.network, "a live container's network is gone");
                continue;
            }
            endpoints.entry(endpoint.container.clone()).or_default().push(endpoint.clone());
        }
        self.reconciled.store(true, Ordering::Release);
        Ok(())
    }

    /// Puts back what others change of the rules and the bridge devices, for as long as the result lives. After
    /// `reconcile`, in the same namespace.
    pub fn watch(&self) -> Result<Vec<Watch>> {
        self.drivers.iter().filter_map(|driver| driver.watch().transpose()).collect()
    }

    /// Makes ready for the next `connect`.
    pub fn replenish(&self) -> Result<()> {
        self.namespaces.refill().context("making network namespaces ahead")
    }

    /// All networks, sorted by name.
    pub fn list(&self) -> Vec<Network> {
        let mut networks: Vec<_> = self.rows.values().map(|row| self.describe(row)).collect();
        networks.sort_by(|a, b| a.name.cmp(&b.name));
        networks
    }

    /// By full id, name or id prefix, in this order. Errors: not found, ambiguous.
    pub fn find(&self, term: &str) -> Result<Network> {
        self.lookup(term).map(|row| self.describe(row))
    }

    /// As [`Networks::find`], the id alone: cheap however many endpoints there are.
    pub fn id_of(&self, term: &str) -> Result<NetworkId> {
        self.lookup(term).map(|row| row.id.clone())
    }

    /// Whether there is a default bridge network.
    pub fn has_default(&self) -> bool {
        self.rows.values().any(|row| row.options.contains_key(option::DEFAULT_BRIDGE))
    }

    /// Name and driver of a network, as cheap.
    pub fn name_and_driver(&self, id: &NetworkId) -> Result<(String, String)> {
        self.row(id).map(|row| (row.name.clone(), row.driver.clone()))
    }

    fn lookup(&self, term: &str) -> Result<&NetworkRow> {
        let exact = self.rows.values().find(|r| r.id.as_str() == term);
        if let Some(row) = exact.or_else(|| self.rows.values().find(|r| r.name == term)) {
            return Ok(row);
        }
        let mut by_prefix = self.rows.values().filter(|r| !term.is_empty() && r.id.as_str().starts_with(term));
        match (by_prefix.next(), by_prefix.next()) {
            (Some(row), None) => Ok(row),
            (None, _) => Err(Error::not_found(format!("network {term} not found"))),
            (Some(_), Some(_)) => {
                Err(Error::invalid(format!("network {term} is ambiguous (2 matches found based on ID prefix)")))
            }
        }
    }

    /// Adds a container to a network. Everything is undone on failure.
    pub fn connect(&self, spec: &EndpointSpec) -> Result<Connected> {
        self.try_connect(spec).map_err(|error| error.prefix(SETUP_FAILED))
    }

    fn try_connect(&self, spec: &EndpointSpec) -> Result<Connected> {
        if !self.reconciled.load(Ordering::Acquire) {
            return Err(Error::unavailable("the networks are not reconciled yet"));
        }
        let row = self.row(&spec.network)?;
        let connected = self.driver(row).connect(row, spec)?;
        self.endpoints().entry(spec.container.clone()).or_default().push(connected.endpoint.clone());
        Ok(connected)
    }

    /// Takes a container out of its networks: rules, addresses, ports, links. Idempotent; goes on after an error and
    /// returns the first.
    pub fn release(&self, container: &ContainerId) -> Result<()> {
        let endpoints = self.endpoints().remove(container).unwrap_or_default();
        let mut result = Ok(());
        for endpoint in &endpoints {
            let released = self.row(&endpoint.network).and_then(|row| self.driver(row).release(row, endpoint));
            result = result.and(released);
        }
        result
    }

    /// A container's endpoints.
    pub fn endpoints_of(&self, container: &ContainerId) -> Vec<Endpoint> {
        self.endpoints().get(container).cloned().unwrap_or_default()
    }

    /// How many entries the books have: endpoints of containers here, and what the drivers keep for them.
    pub fn sizes(&self) -> BTreeMap<&'static str, usize> {
        let mut sizes = BTreeMap::from([("endpoints", self.endpoints().values().map(Vec::len).sum())]);
        self.drivers.iter().for_each(|driver| sizes.extend(driver.sizes()));
        sizes
    }

    fn row(&self, id: &NetworkId) -> Result<&NetworkRow> {
        self.rows.get(id).ok_or_else(|| Error::not_found(format!("network {id} not found")))
    }

    fn driver(&self, row: &NetworkRow) -> &dyn NetworkDriver {
        let driver = self.drivers.iter().find(|d| d.name() == row.driver);
        driver.expect("a row is opened by its driver before it is listed").as_ref()
    }

    fn describe(&self, row: &NetworkRow) -> Network {
        let endpoints = self.endpoints();
        Network {
            id: row.id.clone(),
            name: row.name.clone(),
            driver: row.driver.clone(),
            created: Timestamp::from_unix_nanos(row.created),
            subnet: row.subnet,
            gateway: row.gateway,
            range: row.range,
            options: row.options.clone(),
            endpoints: endpoints.values().flatten().filter(|e| e.network == row.id).cloned().collect(),
        }
    }

    fn endpoints(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Vec<Endpoint>>> {
        // Every change is a single insertion or removal: a panic elsewhere leaves the map right.
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stored row of a predefined network, or a new one.
fn predefined(stored: &[(String, NetworkRow)], name: &str, driver: &str) -> NetworkRow {
    let known = stored.iter().map(|(_, row)| row).find(|row| row.name == name);
    known.cloned().unwrap_or_else(|| NetworkRow {
        id: NetworkId::from_bytes(sys::random::bytes32()),
        name: name.to_owned(),
        driver: driver.to_owned(),
        created: sys::clock::System.unix_nanos(),
        subnet: None,
        address: None,
        gateway: None,
        range: None,
        mac: None,
        options: BTreeMap::new(),
    })
}

/// What the configuration says about the default bridge network.
fn default_bridge(mut row: NetworkRow, config: &NetworkConfig, device: &str) -> NetworkRow {
    if let Some(bip) = config.bip {
        row.subnet = Some(bip.trunc());
        row.address = Some(bip.addr());
    }
    row.range = config.fixed_cidr;
    row.gateway = config.default_gateway;
    row.options = BTreeMap::from([
        (option::NAME.to_owned(), device.to_owned()),
        (option::DEFAULT_BRIDGE.to_owned(), "true".to_owned()),
        (option::MTU.to_owned(), config.mtu.to_string()),
        (option::MASQUERADE.to_owned(), config.ip_masq.yes().to_string()),
        (option::ICC.to_owned(), config.icc.yes().to_string()),
        (option::HOST_BINDING.to_owned(), config.host_binding_ip.to_string()),
    ]);
    row
}

/// Writes the rows that changed, in one commit.
fn save(store: &Store, stored: &[(String, NetworkRow)], wanted: &[NetworkRow]) -> Result<()> {
    let changed: Vec<_> = wanted.iter().filter(|row| !stored.iter().any(|(_, old)| old == *row)).cloned().collect();
    if changed.is_empty() {
        return Ok(());
    }
    store.write_blocking(move |tx| changed.iter().try_for_each(|row| tx.put(&NETWORKS, row.id.as_str(), row)))
}
