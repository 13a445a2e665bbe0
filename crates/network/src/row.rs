//! What is stored about a network. Endpoints are not stored here: they lie in the container rows.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use model::id::NetworkId;
use model::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Row, Table};

use crate::family::{self, Family};
use crate::ipam::Pool;
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
    /// Whether it is being made or removed.
    #[serde(default)]
    pub progress: Progress,
    #[serde(default)]
    pub traits: Traits,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Driver options (`com.docker.network.bridge.name`, …).
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    #[serde(default)]
    pub ipam: IpamRow,
    /// The bridge device's own address, so that it stays the same when the device is made again.
    #[serde(default)]
    pub mac: Option<MacAddress>,
}

/// Whether a network is whole. One that is not has no endpoints, and the next start of the daemon removes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Progress {
    Making,
    #[default]
    Whole,
    Removing,
}

/// The switches of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Traits {
    pub ipv4: bool,
    pub ipv6: bool,
    /// No way out.
    pub internal: bool,
    pub attachable: bool,
    /// It holds settings for other networks and nothing else.
    pub config_only: bool,
    /// Name of the network that the settings are from; empty = its own.
    pub config_from: String,
    /// Its driver says that it is one network on all hosts.
    pub global: bool,
}

/// Address management of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamRow {
    /// Name of the `Ipam`.
    pub driver: String,
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    #[serde(default)]
    pub pools: Vec<PoolRow>,
}

/// A subnet of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRow {
    /// What a plugin calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub subnet: IpNet,
    /// Containers' addresses come from this part of the subnet.
    #[serde(default)]
    pub range: Option<IpNet>,
    /// The containers' gateway.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// The bridge device's own address, where that is not the gateway.
    #[serde(default)]
    pub device: Option<IpAddr>,
    /// Addresses that no container gets, by name.
    #[serde(default)]
    pub aux: BTreeMap<String, IpAddr>,
    /// The user gave the subnet.
    #[serde(default)]
    pub given: bool,
}

impl PoolRow {
    /// A subnet with nothing said about it.
    pub fn new(subnet: IpNet) -> PoolRow {
        PoolRow { id: None, subnet, range: None, gateway: None, device: None, aux: BTreeMap::new(), given: false }
    }

    /// The subnet's.
    pub fn family(&self) -> Family {
        family::of_net(self.subnet)
    }

    /// As its driver knows it.
    pub fn reserved(&self) -> Pool<'_> {
        Pool { id: self.id.as_deref(), subnet: self.subnet, range: self.range }
    }

    /// The bridge device's own address.
    pub fn own(&self) -> Option<IpAddr> {
        self.device.or(self.gateway)
    }
}

impl Traits {
    /// Whether the network has this family.
    pub fn has(&self, family: Family) -> bool {
        match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        }
    }
}

impl NetworkRow {
    /// Whether it makes no links, so that published ports are its concern alone: `host` and `none`.
    pub fn is_bare(&self) -> bool {
        matches!(self.driver.as_str(), "host" | "null")
    }

    /// Whether the network has this family.
    pub fn has(&self, family: Family) -> bool {
        self.traits.has(family)
    }

    /// The network has a subnet of each of its families.
    ///
    /// # Errors
    /// InvalidParameter names the family without one.
    pub fn check_pools(&self) -> Result<()> {
        let empty = |family: &Family| self.has(*family) && self.pool(*family).is_none();
        match Family::BOTH.into_iter().find(empty) {
            Some(family) => Err(Error::invalid(format!("{} pool is empty", family.word().to_lowercase()))),
            None => Ok(()),
        }
    }

    /// The first subnet of a family that the network has.
    pub fn pool(&self, family: Family) -> Option<&PoolRow> {
        self.ipam.pools.iter().find(|pool| pool.family() == family && self.has(family))
    }

    /// The subnets of a family that the network has.
    pub fn pools(&self, family: Family) -> impl Iterator<Item = &PoolRow> {
        self.ipam.pools.iter().filter(move |pool| pool.family() == family && self.has(family))
    }

    /// The pool that an address is of.
    pub fn pool_of(&self, address: IpAddr) -> Option<&PoolRow> {
        self.ipam.pools.iter().find(|pool| pool.subnet.contains(&address))
    }

    /// Whether a driver option is set to a true value; without the option, `default`.
    pub fn flag(&self, option: &str, default: bool) -> bool {
        self.options.get(option).map_or(default, |value| parse_flag(value).unwrap_or(default))
    }
}

/// A truth value as the reference parses it (Go's `strconv.ParseBool`).
pub fn parse_flag(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

impl Row for NetworkRow {
    const VERSION: u32 = 2;

    /// Version 1 had one IPv4 subnet in fields of the row.
    fn migrate(from: u32, mut row: Value) -> Result<Value> {
        if from != 1 {
            return Err(Error::data_loss(format!("a network's row has no version {from}")));
        }
        let fields = row.as_object_mut().ok_or_else(|| Error::data_loss("a network's row is no object"))?;
        let mut take = |name: &str| fields.remove(name).unwrap_or(Value::Null);
        let (subnet, address, gateway, range) = (take("subnet"), take("address"), take("gateway"), take("range"));
        let own = if gateway.is_null() { address.clone() } else { gateway };
        let pools = match subnet {
            Value::Null => json!([]),
            subnet => {
                json!([{ "subnet": subnet, "range": range, "gateway": own, "device": address }])
            }
        };
        let driver = if fields.get("driver").is_some_and(|driver| driver == "bridge") { "default" } else { "null" };
        fields.insert("ipam".into(), json!({ "driver": driver, "pools": pools }));
        fields.insert("traits".into(), json!({ "ipv4": true }));
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_version_1_are_read() {
        let id = "ab".repeat(32);
        let old = json!({
            "id": id, "name": "bridge", "driver": "bridge", "created": 5, "subnet": "172.17.0.0/16",
            "address": "172.17.0.1", "gateway": null, "range": "172.17.8.0/24", "mac": "02:00:00:00:00:01",
            "options": { "com.docker.network.bridge.name": "docker0" },
        });
        let row: NetworkRow = serde_json::from_value(NetworkRow::migrate(1, old).unwrap()).unwrap();
        let pool = row.pool(Family::Ipv4).unwrap();
        assert_eq!(
            (pool.subnet.to_string().as_str(), pool.range.unwrap().to_string().as_str()),
            ("172.17.0.0/16", "172.17.8.0/24")
        );
        assert_eq!(
            (pool.gateway, pool.own()),
            (Some("172.17.0.1".parse().unwrap()), Some("172.17.0.1".parse().unwrap()))
        );
        assert!(
            row.traits.ipv4 && row.mac.is_some() && row.progress == Progress::Whole && row.ipam.driver == "default"
        );
        let host = json!({ "id": id, "name": "host", "driver": "host", "created": 5 });
        let row: NetworkRow = serde_json::from_value(NetworkRow::migrate(1, host).unwrap()).unwrap();
        assert!(row.ipam.pools.is_empty() && row.pool(Family::Ipv4).is_none());
        assert!(NetworkRow::migrate(0, json!({})).is_err());
    }

    #[test]
    fn flags_as_the_reference_reads_them() {
        assert_eq!(
            ["1", "T", "true", "yes", "0", "False", ""].map(parse_flag).to_vec(),
            [Some(true), Some(true), Some(true), None, Some(false), Some(false), None]
        );
    }
}
