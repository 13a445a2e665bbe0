//! The names of networks, as the resolvers in sandboxes read them: one file for each network ([`dns::names`]), replaced
//! whenever an endpoint comes, goes or is renamed. A network whose containers have no names has no file.

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use dns::names::Member;
use model::Result;
use model::id::{ContainerId, NetworkId};

use super::{Networks, is_predefined};
use crate::endpoint::Endpoint;
use crate::row::NetworkRow;

impl Networks {
    /// Where the names of a network lie; `None`: they are not written.
    pub fn names_of(&self, network: &NetworkRow) -> Option<PathBuf> {
        let dir = self.config.names.as_ref().filter(|_| !is_predefined(&network.name))?;
        Some(dir.join(network.id.as_str()))
    }

    /// Writes the names of the networks that a container is on as they are now.
    pub fn publish_names_of(&self, container: &ContainerId) {
        for endpoint in self.endpoints_of(container) {
            self.publish_names(&endpoint.network);
        }
    }

    /// Writes the names of a network as they are now. What cannot be written is told, and comes with the next change.
    pub(super) fn publish_names(&self, network: &NetworkId) {
        // Held from the look to the replacement: of two changes the later one is written last.
        let _turn = self.naming.lock();
        let (path, members) = {
            let books = self.books();
            let Some(path) = books.rows.get(network).and_then(|row| self.names_of(row)) else { return };
            let endpoints = books.endpoints.values().flatten().filter(|endpoint| endpoint.network == *network);
            let member = |endpoint: &Endpoint| Member {
                names: endpoint.dns_names.clone(),
                addresses: endpoint.addresses.iter().map(|assigned| assigned.address).collect(),
            };
            (path, endpoints.map(member).collect::<Vec<_>>())
        };
        if let Err(error) = dns::names::replace(&path, &members) {
            tracing::warn!(%error, path = %path.display(), "the names of a network cannot be written");
        }
    }

    /// Writes the names of all networks, and removes those of networks that are gone. Once, before any `connect`.
    pub(super) fn publish_all_names(&self) -> Result<()> {
        let Some(dir) = &self.config.names else { return Ok(()) };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let networks: Vec<NetworkId> = self.books().rows.keys().cloned().collect();
        for entry in std::fs::read_dir(dir)?.flatten() {
            let name = entry.file_name();
            if !networks.iter().any(|network| name == network.as_str()) {
                self.remove_names(entry.path());
            }
        }
        networks.iter().for_each(|network| self.publish_names(network));
        Ok(())
    }

    pub(super) fn remove_names(&self, path: PathBuf) {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %path.display(), "names of a network that is gone stay");
            }
            _ => (),
        }
    }
}
