//! Ports as the API writes them: `80/tcp` keys, bindings and the short form of the container list.
//!
//! Keys read from a client are brought to `<number>/<protocol>` with a lower-case protocol, `tcp` by default; whether
//! number and protocol are meaningful is decided by the engine.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::go::{Empty, is_zero};

/// Exposed ports: `{"80/tcp": {}}`.
pub type PortSet = BTreeMap<String, Empty>;

/// Ports and where they are published; `null` for a port that is exposed only.
pub type PortMap = BTreeMap<String, Option<Vec<PortBinding>>>;

/// One address and port of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortBinding {
    /// Empty: every address.
    pub host_ip: String,
    /// Empty: an ephemeral port; `8000-8010`: the first free one.
    pub host_port: String,
}

/// A port in the container list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortSummary {
    /// Host address; left out for a port that is exposed only.
    #[serde(rename = "IP", skip_serializing_if = "String::is_empty")]
    pub ip: String,
    pub private_port: u16,
    #[serde(skip_serializing_if = "is_zero")]
    pub public_port: u16,
    #[serde(rename = "Type")]
    pub kind: String,
}

/// `80` and `80/TCP` are both `80/tcp`.
pub fn normalize(key: &str) -> String {
    match key.split_once('/') {
        Some((number, protocol)) if !protocol.is_empty() => format!("{number}/{}", protocol.to_ascii_lowercase()),
        Some((number, _)) => format!("{number}/tcp"),
        None => format!("{key}/tcp"),
    }
}

/// Reads a map with ports as keys, in their normal form.
pub(crate) fn keys<'de, D, V>(deserializer: D) -> Result<Option<BTreeMap<String, V>>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    let map = Option::<BTreeMap<String, V>>::deserialize(deserializer)?;
    Ok(map.map(|map| map.into_iter().map(|(key, value)| (normalize(&key), value)).collect()))
}

/// As [`keys`], for a field where null and empty are the same.
pub(crate) fn keys_or_empty<'de, D, V>(deserializer: D) -> Result<BTreeMap<String, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    keys(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_keys_are_normalized() {
        assert_eq!(normalize("80"), "80/tcp");
        assert_eq!(normalize("80/"), "80/tcp");
        assert_eq!(normalize("53/UDP"), "53/udp");
    }
}
