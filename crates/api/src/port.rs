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
#[serde(rename = "network.PortBinding", rename_all = "PascalCase", default)]
pub struct PortBinding {
    /// Empty: every address.
    pub host_ip: String,
    /// Empty: an ephemeral port; `8000-8010`: the first free one.
    pub host_port: String,
}

/// What `POST /containers/{id}/ports` asks for, a route of Gantry's own: published ports of a container, by `port/protocol`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortsChange {
    /// To be published beside those that are.
    pub add: PortMap,
    /// To be published no longer. Without bindings: all of that port; a binding without an address or a port of the host
    /// stands for any.
    pub remove: PortMap,
}

/// Its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortsChanged {
    /// As inspect shows them, of a container that runs.
    pub ports: PortMap,
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

/// `80`, `080` and `80/TCP` are all `80/tcp`. What is no number stays as it is.
pub fn normalize(key: &str) -> String {
    let (number, protocol) = key.split_once('/').unwrap_or((key, ""));
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_ascii_lowercase() };
    let number = parse_number(number).map_or_else(|_| number.to_owned(), |number| number.to_string());
    format!("{number}/{protocol}")
}

/// Refuses a key that is no port, in the words of the reference's decoder.
pub(crate) fn check(key: &str) -> Result<(), String> {
    let number = key.split('/').next().unwrap_or_default();
    parse_number(number).map(drop).map_err(|why| format!("invalid port '{number}': {why}"))
}

/// As Go's `strconv.ParseUint(text, 10, 16)`.
fn parse_number(text: &str) -> Result<u16, &'static str> {
    if text.is_empty() {
        return Err("value is empty");
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("invalid syntax");
    }
    text.parse().map_err(|_| "value out of range")
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
        assert_eq!(normalize("080/tcp"), "80/tcp");
        assert_eq!(normalize("x;1/TCP"), "x;1/tcp");
    }

    #[test]
    fn keys_that_are_no_ports_are_named() {
        for (key, text) in [
            ("19039;1230/tcp", "invalid port '19039;1230': invalid syntax"),
            ("65536/tcp", "invalid port '65536': value out of range"),
            ("-1/tcp", "invalid port '-1': invalid syntax"),
            ("+80/tcp", "invalid port '+80': invalid syntax"),
            ("/tcp", "invalid port '': value is empty"),
            ("80-81/tcp", "invalid port '80-81': invalid syntax"),
        ] {
            assert_eq!(check(key), Err(text.to_owned()));
        }
        assert_eq!(check("0/foo"), Ok(()));
    }
}
