//! The networks of one daemon and the endpoints in them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use model::Result;
use model::id::{ContainerId, NetworkId};
use model::time::Timestamp;
use store::Store;

use crate::config::NetworkConfig;
use crate::endpoint::{Connected, Endpoint, EndpointSpec};

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
    /// Connected endpoints, by container id.
    pub endpoints: Vec<Endpoint>,
}

/// The networks of one daemon. Shared by reference; every call may block on the kernel.
pub struct Networks {}

impl Networks {
    /// Makes docker0, the nft table and forwarding as `config` says, in the calling thread's network namespace.
    /// Before the first `connect` the caller has to call `reconcile` once.
    pub fn open(config: NetworkConfig, store: &Store) -> Result<Networks> {
        let _ = (config, store);
        todo!()
    }

    /// Tells which endpoints live (from the container rows): their addresses and ports are taken again, rules are
    /// brought in line, and links, rules and addresses of no live endpoint are removed.
    pub fn reconcile(&self, live: &[Endpoint]) -> Result<()> {
        let _ = live;
        todo!()
    }

    /// All networks, sorted by name.
    pub fn list(&self) -> Vec<Network> {
        todo!()
    }

    /// By full id, name or id prefix, in this order. Errors: not found, ambiguous.
    pub fn find(&self, term: &str) -> Result<Network> {
        let _ = term;
        todo!()
    }

    /// Adds a container to a network. Everything is undone on failure.
    pub fn connect(&self, spec: &EndpointSpec) -> Result<Connected> {
        let _ = spec;
        todo!()
    }

    /// Takes a container out of its networks: rules, addresses, ports, links. Idempotent.
    pub fn release(&self, container: &ContainerId) -> Result<()> {
        let _ = container;
        todo!()
    }
}
