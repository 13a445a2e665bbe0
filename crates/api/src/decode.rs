//! Request bodies that are more than one type, and the decoder that reads all others (`gojson`).

use serde::Deserialize;
use serde::de::DeserializeOwned;

pub use gojson::{DecodeError, Document, value};

use crate::bindings::PortBindings;
use crate::container::{ContainerConfig, CreateRequest};
use crate::go_names::{COMMIT, STRUCTS};
use crate::host_config::{HostConfig, LegacyHostConfig};
use crate::network::NetworkingConfig;
use crate::port;

/// Reads one value of a type; a type error names the field and its type as the reference does.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    Document::parse(bytes)?.fit_named(STRUCTS)
}

/// Reads the body of `POST /containers/create`: the configuration's fields stand beside `HostConfig` and
/// `NetworkingConfig`, and a body that names none of them has no configuration at all.
pub fn create_request(bytes: &[u8]) -> Result<CreateRequest, DecodeError> {
    #[derive(Default, Deserialize)]
    #[serde(rename = "container.CreateRequest", rename_all = "PascalCase", default)]
    struct Outer {
        host_config: Option<HostConfig>,
        networking_config: Option<NetworkingConfig>,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Legacy {
        mac_address: String,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct LegacyHost {
        host_config: LegacyHostConfig,
    }
    let document = Document::parse(bytes)?;
    let outer: Outer = document.fit_named(STRUCTS)?;
    let names_config = document.names_a_field::<ContainerConfig>();
    let config = if names_config { Some(document.fit_named(STRUCTS)?) } else { None };
    let exposed = config.iter().flat_map(|config: &ContainerConfig| config.exposed_ports.keys());
    let published = outer.host_config.iter().flat_map(|host| &host.port_bindings).flat_map(PortBindings::iter);
    let keys: Vec<String> = exposed.cloned().chain(published.map(|(key, _)| key)).collect();
    keys.iter().try_for_each(|key| port::check(key)).map_err(DecodeError::Invalid)?;
    let legacy: Legacy = document.fit().unwrap_or_default();
    let legacy_host: LegacyHost = document.fit().unwrap_or_default();
    Ok(CreateRequest {
        config,
        host_config: outer.host_config,
        networking_config: outer.networking_config,
        legacy_mac_address: legacy.mac_address,
        legacy_host_config: legacy_host.host_config,
    })
}

/// Reads the body of `POST /commit`, a configuration: `None` when no field of it is named.
pub fn commit_request(bytes: &[u8]) -> Result<Option<ContainerConfig>, DecodeError> {
    let document = Document::parse(bytes)?;
    if document.names_a_field::<ContainerConfig>() { document.fit_named(COMMIT).map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests;
