//! The start: the predefined networks as the configuration says, and those that users made.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use model::Result;
use model::id::NetworkId;
use model::lock::Mutex;
use store::Store;

use super::{Books, Networks, addresses};
use crate::config::NetworkConfig;
use crate::driver::{BridgeDriver, HostDriver, Kind, NetworkDriver, NullDriver, OnParentDriver, option};
use crate::family::{self, Family};
use crate::ipam::{AddressRequest, DefaultIpam, Ipam, NullIpam, Pool, PoolRequest, Purpose, Wanted};
use crate::remotes::{Remotes, asks_plugins};
use crate::row::{IpamRow, NETWORKS, NetworkRow, PoolRow, Progress, Traits};

impl Networks {
    /// Makes docker0, the nft table and forwarding as `config` says, in the calling thread's network namespace, and
    /// opens the networks of the store. Before the first `connect` the caller has to call `reconcile` once.
    pub fn open(config: NetworkConfig, store: &Store) -> Result<Networks> {
        let stored: Vec<NetworkRow> =
            store.read(|tx| tx.readable(&NETWORKS))?.into_iter().map(|(_, row)| row).collect();
        let default =
            config.bridge_name().map(|device| default_bridge(predefined(&stored, "bridge", "bridge"), &config, device));
        let users: Vec<_> = stored.iter().filter(|row| !super::is_predefined(&row.name)).cloned().collect();
        let (whole, broken): (Vec<_>, Vec<_>) = users.into_iter().partition(|row| row.progress == Progress::Whole);
        let bridge = {
            let of_bridge = |row: &&NetworkRow| row.driver == "bridge" && !row.traits.config_only;
            let known: Vec<_> = whole.iter().chain(&default).filter(of_bridge).cloned().collect();
            Arc::new(BridgeDriver::new(config.clone(), store, &known)?)
        };
        let networks = Networks {
            store: store.clone(),
            drivers: BTreeMap::from([
                ("bridge", bridge.clone() as Arc<dyn NetworkDriver>),
                ("host", Arc::new(HostDriver)),
                ("null", Arc::new(NullDriver)),
                ("macvlan", Arc::new(OnParentDriver::new(Kind::Macvlan)?)),
                ("ipvlan", Arc::new(OnParentDriver::new(Kind::Ipvlan)?)),
            ]),
            ipams: BTreeMap::from([
                ("default", Arc::new(DefaultIpam::new(config.pools())) as Arc<dyn Ipam>),
                ("null", Arc::new(NullIpam)),
            ]),
            remotes: Remotes::new()?,
            config,
            namespaces: Default::default(),
            books: Mutex::new(Books::default()),
            changes: Mutex::default(),
            naming: Mutex::default(),
            reconciled: Default::default(),
        };
        networks.forget_broken(&broken);
        for row in whole {
            networks.open_again(row);
        }
        networks.open_predefined(&bridge, default, &stored)?;
        Ok(networks)
    }

    /// Networks that nobody was told of, or whose removal was acknowledged or under way.
    fn forget_broken(&self, broken: &[NetworkRow]) {
        for row in broken {
            if asks_plugins(&row.driver, &row.ipam.driver) {
                self.remotes.keep_unfinished(row);
                continue;
            }
            let closed = self.driver(row).and_then(|driver| driver.close(row));
            let id = row.id.clone();
            let forgotten =
                closed.and_then(|()| self.store.write_blocking(move |tx| tx.delete(&NETWORKS, id.as_str()).map(drop)));
            if let Err(error) = forgotten {
                tracing::warn!(%error, network = %row.name, "what is left of a network cannot be removed");
            }
        }
    }

    /// A network that cannot be opened stays in the list; who connects to it is told.
    fn open_again(&self, mut row: NetworkRow) {
        let opened = match row.traits.config_only {
            true => Ok(()),
            false => self.reserve_in_books(&row).and_then(|()| match self.drivers.get(row.driver.as_str()) {
                Some(driver) => driver.open(&mut row),
                None => Ok(()),
            }),
        };
        if let Err(error) = opened {
            tracing::error!(%error, network = %row.name, "the network cannot be opened");
        }
        self.books().rows.insert(row.id.clone(), Arc::new(row));
    }

    /// Takes the subnets and the addresses of a stored network again, where their books are kept here.
    fn reserve_in_books(&self, row: &NetworkRow) -> Result<()> {
        self.ipams.get(row.ipam.driver.as_str()).map_or(Ok(()), |ipam| addresses::reserve_again(&**ipam, row))
    }

    fn open_predefined(&self, bridge: &BridgeDriver, default: Option<NetworkRow>, stored: &[NetworkRow]) -> Result<()> {
        let mut wanted = vec![predefined(stored, "host", "host"), predefined(stored, "none", "null")];
        match default {
            Some(row) => wanted.push(row),
            None => bridge.remove_default_device(),
        }
        for row in &mut wanted {
            let prefix = format!("error creating default \"{}\" network", row.name);
            if row.driver == "bridge" {
                self.choose_default_pools(bridge, row).map_err(|e| e.prefix(&prefix))?;
            }
            self.driver(row).and_then(|driver| driver.open(row)).map_err(|e| e.prefix(&prefix))?;
        }
        save(&self.store, stored, &wanted)?;
        self.books().rows.extend(wanted.into_iter().map(|row| (row.id.clone(), Arc::new(row))));
        Ok(())
    }

    fn choose_default_pools(&self, bridge: &BridgeDriver, row: &mut NetworkRow) -> Result<()> {
        let ipam = self.ipam(row)?;
        let mut pools = Vec::new();
        for family in Family::BOTH.into_iter().filter(|family| row.has(*family)) {
            let settings = self.config.default_family(family).copied().unwrap_or_default();
            let chosen = bridge.default_subnet(row, family)?;
            let wanted = chosen.subnet.map_or(Wanted::Any, Wanted::Net);
            let request = PoolRequest { avoid: chosen.avoid, ..PoolRequest::new(family, wanted) };
            let Some(granted) = ipam.request_pool(&request)? else { continue };
            let subnet = granted.subnet;
            if let Some(range) = settings.range.filter(|range| !subnet.contains(range)) {
                return Err(model::Error::invalid(format!("the range {range} lies outside the subnet {subnet}")));
            }
            let own = chosen.own.filter(|own| subnet.contains(own)).or_else(|| first_host(subnet));
            for wanted in own.iter().chain(settings.gateway.iter().filter(|g| Some(**g) != own && subnet.contains(*g)))
            {
                let pool = Pool { id: None, subnet, range: None };
                ipam.request_address(&AddressRequest { pool, wanted: Some(*wanted), purpose: Purpose::Gateway })?;
            }
            let (gateway, device) = (settings.gateway.or(own), own);
            pools.push(PoolRow { range: settings.range, gateway, device, given: true, ..PoolRow::new(subnet) });
        }
        row.ipam.pools = pools;
        Ok(())
    }
}

fn first_host(subnet: ipnet::IpNet) -> Option<IpAddr> {
    let (first, last) = family::bounds(subnet);
    Some(family::of_net(subnet).address(if first == last { first } else { first + 1 }))
}

/// The stored row of a predefined network, or a new one.
fn predefined(stored: &[NetworkRow], name: &str, driver: &str) -> NetworkRow {
    let known = stored.iter().find(|row| row.name == name);
    known.cloned().unwrap_or_else(|| NetworkRow {
        id: NetworkId::from_bytes(sys::random::bytes32()),
        name: name.to_owned(),
        driver: driver.to_owned(),
        created: sys::clock::System.unix_nanos(),
        progress: Progress::Whole,
        traits: Traits { ipv4: true, ..Traits::default() },
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        ipam: IpamRow { driver: if driver == "bridge" { "default" } else { "null" }.to_owned(), ..IpamRow::default() },
        mac: None,
    })
}

/// What the configuration says about the default bridge network.
fn default_bridge(mut row: NetworkRow, config: &NetworkConfig, device: &str) -> NetworkRow {
    row.traits.ipv6 = config.ipv6.is_some();
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
fn save(store: &Store, stored: &[NetworkRow], wanted: &[NetworkRow]) -> Result<()> {
    let changed: Vec<_> = wanted.iter().filter(|row| !stored.contains(row)).cloned().collect();
    if changed.is_empty() {
        return Ok(());
    }
    store.write_blocking(move |tx| changed.iter().try_for_each(|row| tx.put(&NETWORKS, row.id.as_str(), row)))
}
