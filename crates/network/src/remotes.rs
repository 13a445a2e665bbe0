//! What is known of drivers that are plugins.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::lock::{Mutex, MutexGuard};
use model::{Context, Error, Result};
use plugin::{Patience, Plugins};
use sys::netlink::namespace;

use crate::config::NetworkConfig;
use crate::driver::{NETWORK_PLUGIN, RemoteDriver};
use crate::ipam::RemoteIpam;
use crate::plugins::Asked;
use crate::row::NetworkRow;

/// Drivers of each kind.
const MAX_REMOTE: usize = 16;
/// The directory of the links to network namespaces, beside that of the names of networks.
const SANDBOXES: &str = "netns";
const EXEC_ROOT: &str = "/var/run/docker";

/// See the module. Looked for when they are needed first, never at the start of the daemon, which waits for none.
pub struct Remotes {
    /// `None`: there are none.
    pub plugins: Option<Plugins>,
    /// The daemon's namespace.
    host: Arc<OwnedFd>,
    /// By name.
    pub drivers: Mutex<BTreeMap<String, Arc<RemoteDriver>>>,
    /// By name.
    pub ipams: Mutex<BTreeMap<String, Arc<RemoteIpam>>>,
    /// Held by name while a plugin is told what is in use.
    pub telling: Mutex<BTreeMap<String, Arc<Mutex<()>>>>,
    /// Networks whose making or removal was broken off, until their plugins are asked again.
    pub unfinished: Mutex<Vec<NetworkRow>>,
}

impl Remotes {
    /// Without plugins; works in the calling thread's namespace.
    pub fn new() -> Result<Remotes> {
        Ok(Remotes {
            plugins: None,
            host: Arc::new(namespace::current().context("opening the network namespace")?),
            drivers: Mutex::default(),
            ipams: Mutex::default(),
            telling: Mutex::default(),
            unfinished: Mutex::default(),
        })
    }

    /// A plugin of this kind; looks for it.
    pub fn asked(&self, name: &str, kind: &'static str) -> Result<Asked> {
        let plugins = self.plugins.as_ref().ok_or_else(|| no_plugin(name))?;
        Ok(Asked::new(plugins.get(name, kind, Patience::None).map_err(Error::from)?, kind))
    }

    /// A driver of networks; asks its plugin what it can.
    pub fn find_driver(&self, name: &str, config: &NetworkConfig) -> Result<RemoteDriver> {
        RemoteDriver::new(self.asked(name, NETWORK_PLUGIN)?, self.host.clone(), sandboxes(config))
    }

    /// Keeps a network whose making or removal was broken off until its plugins are there.
    pub fn keep_unfinished(&self, row: &NetworkRow) {
        locked(&self.unfinished).push(row.clone());
    }

    /// The networks that were broken off with this plugin; they are not kept any more.
    pub fn take_unfinished(&self, name: &str) -> Vec<NetworkRow> {
        let mut unfinished = locked(&self.unfinished);
        let is_mine = |row: &mut NetworkRow| row.driver == name || row.ipam.driver == name;
        unfinished.extract_if(.., is_mine).collect()
    }
}

/// Drivers that are not built in are plugins.
fn no_plugin(name: &str) -> Error {
    Error::not_found(format!("plugin \"{name}\" not found"))
}

pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is a single insertion or removal: a panic elsewhere leaves the contents right.
    mutex.lock()
}

/// Whether a driver of networks is built in.
pub fn is_built_in(driver: &str) -> bool {
    matches!(driver, "bridge" | "host" | "null" | "macvlan" | "ipvlan" | "overlay")
}

/// Whether a driver of addresses is built in.
fn keeps_addresses_here(driver: &str) -> bool {
    matches!(driver, "" | "default" | "null")
}

/// Whether making or removing a network asks a plugin.
pub fn asks_plugins(driver: &str, ipam: &str) -> bool {
    !is_built_in(driver) || !keeps_addresses_here(ipam)
}

/// Enters a plugin, unless somebody else has done so meanwhile.
pub fn keep<T>(known: &mut BTreeMap<String, Arc<T>>, name: &str, found: Arc<T>) -> Result<Arc<T>> {
    if known.len() >= MAX_REMOTE && !known.contains_key(name) {
        return Err(Error::system(format!("more than {MAX_REMOTE} plugins of one kind")));
    }
    Ok(known.entry(name.to_owned()).or_insert(found).clone())
}

/// Where plugins are told that namespaces of containers are.
fn sandboxes(config: &NetworkConfig) -> PathBuf {
    let root = config.names.as_deref().and_then(Path::parent);
    root.unwrap_or(Path::new(EXEC_ROOT)).join(SANDBOXES)
}
