//! What is stored about a network. Endpoints are not stored here: they lie in the container rows.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use model::id::NetworkId;
use serde::{Deserialize, Serialize};
use store::{Row, Table};

use crate::mac::MacAddress;

/// One row per network, keyed by its id.
pub const NETWORKS: Table<NetworkRow> = Table::new("networks");

/// A network's identity and settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRow {
    pub id: NetworkId,
    pub name: String,
    /// Name of the `NetworkDriver`.
    pub driver: String,
    /// Nanoseconds since 1970.
    pub created: i64,
    #[serde(default)]
    pub subnet: Option<Ipv4Net>,
    /// The bridge device's own address.
    #[serde(default)]
    pub address: Option<Ipv4Addr>,
    /// The containers' gateway; mostly `address`.
    #[serde(default)]
    pub gateway: Option<Ipv4Addr>,
    /// Containers' addresses come from this part of the subnet.
    #[serde(default)]
    pub range: Option<Ipv4Net>,
    /// The bridge device's own address, so that it stays the same when the device is made again.
    #[serde(default)]
    pub mac: Option<MacAddress>,
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

impl Row for NetworkRow {
    const VERSION: u32 = 1;
}
