//! Making and removing networks.
//!
//! The row is written before anything is made on the host and again when the network is whole; a removal is noted before
//! anything is taken away. So a daemon that dies in between leaves a row that tells the next one what to remove.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};

use ipnet::IpNet;
use model::id::NetworkId;
use model::{Context, Error, Kind, Result};

use super::Networks;
use crate::confine;
use crate::driver::NetworkDriver;
use crate::family::Family;
use crate::ipam::{AddressRequest, Ipam, PoolRequest};
use crate::row::{IpamRow, NETWORKS, NetworkRow, PoolRow, Progress, Traits};

/// A network to be made.
#[derive(Clone, Debug, Default)]
pub struct NewNetwork {
    pub name: String,
    /// Empty = `bridge`.
    pub driver: String,
    pub traits: Traits,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
    /// Empty = the network driver's.
    pub ipam_driver: String,
    pub ipam_options: BTreeMap<String, String>,
    pub pools: Vec<NewPool>,
}

/// A subnet to be reserved.
#[derive(Clone, Debug)]
pub struct NewPool {
    pub family: Family,
    /// `None` = a predefined one.
    pub subnet: Option<IpNet>,
    pub range: Option<IpNet>,
    /// `None` = the first free address.
    pub gateway: Option<IpAddr>,
    pub aux: BTreeMap<String, IpAddr>,
}

impl NewPool {
    fn any(family: Family) -> NewPool {
        NewPool { family, subnet: None, range: None, gateway: None, aux: BTreeMap::new() }
    }

    /// As a network that only holds settings keeps it.
    fn unreserved(self) -> Option<PoolRow> {
        let NewPool { family: _, subnet, range, gateway, aux } = self;
        Some(PoolRow { range, gateway, aux, given: true, ..PoolRow::new(subnet?) })
    }
}

/// Networks that the daemon makes itself; users neither make nor remove them.
pub fn is_predefined(name: &str) -> bool {
    matches!(name, "bridge" | "host" | "none" | "default")
}

const CONFIG_ONLY: &str = "configuration network can only contain network specific fields. Network operator fields like \
                           [ ingress | internal | attachable | scope ] are not supported.";
const FROM_CONFIG: &str =
    "user-specified configurations are not supported if the network depends on a configuration network";
const FROM_OPTIONS: &str = "network driver options are not supported if the network depends on a configuration network";

impl Networks {
    /// Makes a network; everything is undone on failure.
    pub fn create(&self, new: NewNetwork) -> Result<Arc<NetworkRow>> {
        let _turn = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if new.name.is_empty() {
            return Err(Error::invalid("invalid name: name is empty"));
        }
        if is_predefined(&new.name) {
            return Err(Error::forbidden(format!("operation is not permitted on predefined {} network ", new.name)));
        }
        if self.books().rows.values().any(|row| row.name == new.name) {
            return Err(Error::conflict(format!("network with name {} already exists", new.name)));
        }
        let new = self.with_settings_of_another(new)?;
        let (mut row, pools) = begin(new);
        confine::check(&row)?;
        if row.traits.config_only {
            // Whatever was asked for: no engine that does not know such networks is to connect to one.
            row.driver = "null".to_owned();
            row.ipam.pools = pools.into_iter().filter_map(NewPool::unreserved).collect();
            return self.list_new(row);
        }
        let (driver, ipam) = (self.driver(&row)?.clone(), self.ipam(&row)?.clone());
        if matches!(driver.name(), "host" | "null") {
            let text = format!("only one instance of {:?} network is allowed", driver.name());
            return Err(Error::forbidden(text));
        }
        let families: Vec<_> = Family::BOTH.into_iter().filter(|family| row.has(*family)).collect();
        for family in families {
            let mut given: Vec<_> = pools.iter().filter(|pool| pool.family == family).cloned().collect();
            if given.is_empty() {
                given.push(NewPool::any(family));
            }
            for pool in given {
                let reserved = reserve(&*ipam, &*driver, &row, pool).inspect_err(|_| give_back(&*ipam, &row))?;
                row.ipam.pools.extend(reserved);
            }
        }
        self.make(&*driver, row).map_err(|failed| {
            let (row, error) = *failed;
            give_back(&*ipam, &row);
            error
        })
    }

    /// What comes after the subnets are reserved; the row and the error of one that was not made.
    fn make(
        &self,
        driver: &dyn NetworkDriver,
        mut row: NetworkRow,
    ) -> Result<Arc<NetworkRow>, Box<(NetworkRow, Error)>> {
        let failed = |row: &NetworkRow, error| Box::new((row.clone(), error));
        driver.check(&row).map_err(|error| failed(&row, error))?;
        self.put(&row).map_err(|error| failed(&row, error))?;
        let opened = driver.open(&mut row).and_then(|()| {
            row.progress = Progress::Whole;
            self.list_new(row.clone()).inspect_err(|_| drop(driver.close(&row)))
        });
        opened.map_err(|error| {
            if let Err(error) = self.forget(&row.id) {
                tracing::warn!(%error, network = %row.name, "the row of a network that was not made stays");
            }
            failed(&row, error)
        })
    }

    fn list_new(&self, mut row: NetworkRow) -> Result<Arc<NetworkRow>> {
        row.progress = Progress::Whole;
        self.put(&row)?;
        let row = Arc::new(row);
        self.books().rows.insert(row.id.clone(), row.clone());
        Ok(row)
    }

    fn put(&self, row: &NetworkRow) -> Result<()> {
        let row = row.clone();
        self.store.write_blocking(move |tx| tx.put(&NETWORKS, row.id.as_str(), &row))
    }

    fn forget(&self, id: &NetworkId) -> Result<()> {
        let id = id.clone();
        self.store.write_blocking(move |tx| tx.delete(&NETWORKS, id.as_str()).map(drop))
    }

    /// Fills in what a configuration network says.
    fn with_settings_of_another(&self, mut new: NewNetwork) -> Result<NewNetwork> {
        let traits = &new.traits;
        if traits.config_only && (traits.internal || traits.attachable) {
            return Err(Error::forbidden(CONFIG_ONLY));
        }
        if traits.config_from.is_empty() {
            return Ok(new);
        }
        if traits.config_only {
            return Err(Error::forbidden("a configuration network cannot depend on another configuration network"));
        }
        let own = !matches!(new.ipam_driver.as_str(), "" | "default") || !traits.ipv4 || traits.ipv6;
        if own || !new.labels.is_empty() || !new.ipam_options.is_empty() || !new.pools.is_empty() {
            return Err(Error::forbidden(FROM_CONFIG));
        }
        if !new.options.is_empty() {
            return Err(Error::forbidden(FROM_OPTIONS));
        }
        let name = &new.traits.config_from;
        let found = self.books().rows.values().find(|row| row.name == *name && row.traits.config_only).cloned();
        let found = found.ok_or_else(|| Error::not_found(format!("configuration network {name:?} does not exist")))?;
        new.traits =
            Traits { ipv4: found.traits.ipv4, ipv6: found.traits.ipv6, config_from: found.name.clone(), ..new.traits };
        (new.labels, new.options) = (found.labels.clone(), found.options.clone());
        (new.ipam_driver, new.ipam_options) = (found.ipam.driver.clone(), found.ipam.options.clone());
        new.pools = found
            .ipam
            .pools
            .iter()
            .map(|pool| NewPool {
                family: pool.family(),
                subnet: Some(pool.subnet),
                range: pool.range,
                gateway: pool.gateway,
                aux: pool.aux.clone(),
            })
            .collect();
        Ok(new)
    }

    /// Removes a network without endpoints; its row as it was.
    pub fn remove(&self, id: &NetworkId) -> Result<Arc<NetworkRow>> {
        let _turn = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let row = self.row(id)?;
        if is_predefined(&row.name) {
            return Err(Error::forbidden(format!("{} is a pre-defined network and cannot be removed", row.name)));
        }
        self.take_off_the_list(&row).context("error while removing network")?;
        let removed = self.remove_whole(&row);
        if removed.is_err() {
            // It is as it was: whoever asks again may succeed.
            if let Err(error) = self.put(&row) {
                tracing::warn!(network = row.name, %error, "a network whose removal failed is not recorded as whole");
            }
            self.books().rows.insert(row.id.clone(), row.clone());
        }
        removed.map(|()| row).context("error while removing network")
    }

    /// From now on nobody finds it; refused when it is used.
    fn take_off_the_list(&self, row: &NetworkRow) -> Result<()> {
        let mut books = self.books();
        let uses = |other: &&Arc<NetworkRow>| row.traits.config_only && other.traits.config_from == row.name;
        if books.rows.values().any(|other| uses(&other)) {
            return Err(Error::forbidden(format!("configuration network {:?} is in use", row.name)));
        }
        let of_network = books.endpoints.values().flatten().filter(|endpoint| endpoint.network == row.id);
        let name = |endpoint: &crate::endpoint::Endpoint| {
            let name = endpoint.dns_names.first().map_or_else(|| endpoint.container.short(), String::as_str);
            format!("name:{name:?} id:{:?}", endpoint.id.short())
        };
        let active: Vec<String> = of_network.map(name).collect();
        if !active.is_empty() || books.joining.contains_key(&row.id) {
            let text = format!("network {} has active endpoints ({})", row.name, active.join(", "));
            return Err(Error::forbidden(text));
        }
        books.rows.remove(&row.id);
        Ok(())
    }

    fn remove_whole(&self, row: &NetworkRow) -> Result<()> {
        if row.traits.config_only {
            return self.forget(&row.id);
        }
        self.put(&NetworkRow { progress: Progress::Removing, ..row.clone() })?;
        self.driver(row)?.close(row)?;
        if let Some(path) = self.names_of(row) {
            self.remove_names(path);
        }
        give_back(&**self.ipam(row)?, row);
        self.forget(&row.id)
    }
}

/// The row of a network to be made, and its subnets.
fn begin(new: NewNetwork) -> (NetworkRow, Vec<NewPool>) {
    let or = |own: String, default: &str| if own.is_empty() { default.to_owned() } else { own };
    let driver = or(new.driver, "bridge");
    let ipam = IpamRow { driver: or(new.ipam_driver, "default"), options: new.ipam_options, pools: Vec::new() };
    let row = NetworkRow {
        id: NetworkId::from_bytes(sys::random::bytes32()),
        name: new.name,
        driver,
        created: sys::clock::System.unix_nanos(),
        progress: Progress::Making,
        traits: new.traits,
        labels: new.labels,
        options: new.options,
        ipam,
        mac: None,
    };
    (row, new.pools)
}

/// Reserves a subnet with its gateway and auxiliary addresses; nothing stays reserved on failure.
fn reserve(ipam: &dyn Ipam, driver: &dyn NetworkDriver, row: &NetworkRow, new: NewPool) -> Result<Option<PoolRow>> {
    let avoid = if new.subnet.is_none() { driver.reached()? } else { Vec::new() };
    let request = PoolRequest { family: new.family, subnet: new.subnet, avoid };
    let subnet = ipam.request_pool(&request).map_err(|error| match error.kind() {
        Kind::Forbidden => error.prefix("invalid pool request"),
        _ => error,
    })?;
    let Some(subnet) = subnet else { return Ok(None) };
    let made = fill(ipam, driver, row, subnet, &new);
    if made.is_err() {
        release(ipam, subnet);
    }
    made.map(Some)
}

fn fill(
    ipam: &dyn Ipam,
    driver: &dyn NetworkDriver,
    row: &NetworkRow,
    subnet: IpNet,
    new: &NewPool,
) -> Result<PoolRow> {
    let take = |wanted| ipam.request_address(&AddressRequest { subnet, range: new.range, wanted });
    let wants = driver.wants_gateway(row, new.family);
    let gateway = match new.gateway {
        None if !wants => None,
        wanted => Some(take(wanted).map_err(|error| {
            let wanted = wanted.map(|address| address.to_string()).unwrap_or_default();
            error.prefix(format!("failed to allocate gateway ({wanted})")).with_kind(Kind::System)
        })?),
    };
    for (name, address) in &new.aux {
        if !subnet.contains(address) {
            let text = format!("auxiliary address: ({name}:{address}) must belong to the master pool: {subnet}");
            return Err(Error::forbidden(text));
        }
        take(Some(*address)).map_err(|error| {
            error.prefix(format!("failed to allocate secondary ip address ({name}:{address})")).with_kind(Kind::System)
        })?;
    }
    let (range, aux, given) = (new.range, new.aux.clone(), new.subnet.is_some());
    Ok(PoolRow { range, gateway, aux, given, ..PoolRow::new(subnet) })
}

fn give_back(ipam: &dyn Ipam, row: &NetworkRow) {
    row.ipam.pools.iter().for_each(|pool| release(ipam, pool.subnet));
}

/// What cannot be given back stays reserved until the daemon's next start.
fn release(ipam: &dyn Ipam, subnet: IpNet) {
    if let Err(error) = ipam.release_pool(subnet) {
        tracing::warn!(%error, %subnet, "a subnet cannot be given back");
    }
}
