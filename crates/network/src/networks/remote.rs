//! Drivers that are plugins: looked for when they are needed first, never at the start of the daemon, which waits for none.

use std::sync::Arc;

use model::Result;
use plugin::Plugins;

use super::{Networks, addresses};
use crate::driver::NetworkDriver;
use crate::ipam::{ADDRESS_PLUGIN, Ipam, RemoteIpam};
use crate::remotes::{keep, locked};

impl Networks {
    /// With drivers that are plugins.
    pub fn with_plugins(mut self, plugins: Plugins) -> Networks {
        self.remotes.plugins = Some(plugins);
        self
    }

    /// The names of the drivers that are plugins and in use.
    pub fn remote_drivers(&self) -> Vec<String> {
        locked(&self.remotes.drivers).keys().cloned().collect()
    }

    pub(super) fn remote_driver(&self, name: &str) -> Result<Arc<dyn NetworkDriver>> {
        let known = locked(&self.remotes.drivers).get(name).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let found = Arc::new(self.remotes.find_driver(name, &self.config)?);
        let kept = keep(&mut locked(&self.remotes.drivers), name, found)?;
        finish(self, name);
        Ok(kept)
    }

    pub(super) fn remote_ipam(&self, name: &str) -> Result<Arc<dyn Ipam>> {
        let known = || locked(&self.remotes.ipams).get(name).cloned();
        if let Some(known) = known() {
            return Ok(known);
        }
        let found = Arc::new(RemoteIpam::new(self.remotes.asked(name, ADDRESS_PLUGIN)?));
        let turn = locked(&self.remotes.telling).entry(name.to_owned()).or_default().clone();
        let turn = locked(&turn);
        if let Some(known) = known() {
            return Ok(known);
        }
        if found.forgets() {
            tell(self, &*found);
        }
        let kept = keep(&mut locked(&self.remotes.ipams), name, found)?;
        drop(turn);
        finish(self, name);
        Ok(kept)
    }
}

/// Tells a plugin that forgets which pools and addresses are in use.
fn tell(networks: &Networks, ipam: &dyn Ipam) {
    let rows: Vec<_> = {
        let books = networks.books();
        books.rows.values().filter(|row| row.ipam.driver == ipam.name()).cloned().collect()
    };
    for row in rows.iter().filter(|row| !row.traits.config_only) {
        if let Err(error) = addresses::reserve_again(ipam, row) {
            tracing::warn!(%error, network = %row.name, "a plugin does not take the subnets of a network again");
        }
        let endpoints: Vec<_> = {
            let books = networks.books();
            books.endpoints.values().flatten().filter(|endpoint| endpoint.network == row.id).cloned().collect()
        };
        endpoints.iter().for_each(|endpoint| addresses::take_again(row, ipam, endpoint));
    }
}

/// Removes what was broken off with this plugin.
fn finish(networks: &Networks, name: &str) {
    for row in networks.remotes.take_unfinished(name) {
        if let Err(error) = networks.driver(&row).and_then(|driver| driver.close(&row)) {
            tracing::warn!(%error, network = %row.name, "a plugin does not remove what is left of a network");
        }
        match networks.ipam(&row) {
            Ok(ipam) => addresses::give_back(&*ipam, &row.ipam.pools),
            Err(error) => tracing::warn!(%error, network = %row.name, "the subnets of a network stay reserved"),
        }
        if let Err(error) = networks.forget(&row.id) {
            tracing::warn!(%error, network = %row.name, "the row of a network that is gone stays");
        }
    }
}
