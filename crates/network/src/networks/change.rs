//! Making and removing networks.
//!
//! The row is written before anything is made on the host and again when the network is whole; a removal is noted before
//! anything is taken away. So a daemon that dies in between leaves a row that tells the next one what to remove.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::id::NetworkId;
use model::lock::MutexGuard;
use model::{Context, Error, Result};

use super::Networks;
use super::addresses::{self, NewPool, Site};
use crate::confine;
use crate::driver::{NetworkDriver, check_announcements};
use crate::remotes::{asks_plugins, is_built_in};
use crate::row::{IpamRow, NETWORKS, NetworkRow, Progress, Traits};

/// A network to be made.
#[derive(Clone, Debug, Default)]
pub struct NewNetwork {
    pub name: String,
    /// Empty = `bridge`.
    pub driver: String,
    /// It is asked for as one of this host alone.
    pub local: bool,
    pub traits: Traits,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
    /// Empty = the network driver's.
    pub ipam_driver: String,
    pub ipam_options: BTreeMap<String, String>,
    pub pools: Vec<NewPool>,
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
        if new.name.is_empty() {
            return Err(Error::invalid("invalid name: name is empty"));
        }
        if is_predefined(&new.name) {
            return Err(Error::forbidden(format!("operation is not permitted on predefined {} network ", new.name)));
        }
        let _name = self.claim(&new.name)?;
        let new = self.with_settings_of_another(new)?;
        let local = new.local;
        let (mut row, pools) = begin(new);
        confine::check(&row)?;
        check_announcements(&row.options)?;
        if row.traits.config_only {
            // Whatever was asked for: no engine that does not know such networks is to connect to one.
            row.driver = "null".to_owned();
            row.ipam.pools = pools.into_iter().filter_map(NewPool::unreserved).collect();
            return self.list_new(row);
        }
        let _turn = (!asks_plugins(&row.driver, &row.ipam.driver)).then(|| self.turn());
        let driver = self.driver(&row)?;
        if matches!(driver.name(), "host" | "null") {
            let text = format!("only one instance of {:?} network is allowed", driver.name());
            return Err(Error::forbidden(text));
        }
        row.traits.global = driver.is_global();
        if row.traits.global && local {
            return Err(Error::forbidden(format!("cannot downgrade network scope for {} networks", row.driver)));
        }
        let ipam = self.ipam(&row)?;
        let around = self.drivers.get("bridge").map_or_else(|| Ok(Default::default()), |host| host.surroundings())?;
        let through = driver.needs_gateway(&row)?;
        let site = Site { through: &through, around: &around };
        let reserved = addresses::reserve_all(&*ipam, &mut row, &pools, site);
        reserved.inspect_err(|_| addresses::give_back(&*ipam, &row.ipam.pools))?;
        self.make(&*driver, row).map_err(|failed| {
            let (row, error) = *failed;
            addresses::give_back(&*ipam, &row.ipam.pools);
            error
        })
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.changes.lock()
    }

    /// Keeps a name until its network is listed, or gone.
    fn claim(&self, name: &str) -> Result<Claim<'_>> {
        let mut books = self.books();
        if books.rows.values().any(|row| row.name == name) || !books.claimed.insert(name.to_owned()) {
            return Err(Error::conflict(format!("network with name {name} already exists")));
        }
        Ok(Claim { networks: self, name: name.to_owned() })
    }

    /// What comes after the subnets are reserved; the row and the error of one that was not made.
    fn make(
        &self,
        driver: &dyn NetworkDriver,
        mut row: NetworkRow,
    ) -> Result<Arc<NetworkRow>, Box<(NetworkRow, Error)>> {
        let failed = |row: &NetworkRow, error| Box::new((row.clone(), error));
        let _turn = takes_turn_late(&row.driver, &row.ipam.driver).then(|| self.turn());
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

    pub(super) fn forget(&self, id: &NetworkId) -> Result<()> {
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
                range: pool.range,
                gateway: pool.gateway,
                aux: pool.aux.clone(),
                ..NewPool::of(pool.subnet)
            })
            .collect();
        Ok(new)
    }

    /// Removes a network without endpoints; its row as it was.
    pub fn remove(&self, id: &NetworkId) -> Result<Arc<NetworkRow>> {
        let row = self.row(id)?;
        let _turn = (!asks_plugins(&row.driver, &row.ipam.driver)).then(|| self.turn());
        // Somebody else may have removed it meanwhile.
        let row = self.row(id).map(|_| row)?;
        if is_predefined(&row.name) {
            return Err(Error::forbidden(format!("{} is a pre-defined network and cannot be removed", row.name)));
        }
        self.take_off_the_list(&row).context("error while removing network")?;
        let _name = Claim { networks: self, name: row.name.clone() };
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
        if books.rows.remove(&row.id).is_none() {
            return Err(Error::not_found(format!("network {} not found", row.id)));
        }
        books.claimed.insert(row.name.clone());
        Ok(())
    }

    fn remove_whole(&self, row: &NetworkRow) -> Result<()> {
        if row.traits.config_only {
            return self.forget(&row.id);
        }
        self.put(&NetworkRow { progress: Progress::Removing, ..row.clone() })?;
        let driver = self.driver(row)?;
        let turn = takes_turn_late(&row.driver, &row.ipam.driver).then(|| self.turn());
        driver.close(row)?;
        drop(turn);
        if let Some(path) = self.names_of(row) {
            self.remove_names(path);
        }
        addresses::give_back(&*self.ipam(row)?, &row.ipam.pools);
        self.forget(&row.id)
    }
}

/// Whether a built-in driver works with the addresses of a plugin: its turn comes after the plugin's answers.
fn takes_turn_late(driver: &str, ipam: &str) -> bool {
    is_built_in(driver) && asks_plugins(driver, ipam)
}

/// A name that no other network gets.
struct Claim<'a> {
    networks: &'a Networks,
    name: String,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.networks.books().claimed.remove(&self.name);
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
