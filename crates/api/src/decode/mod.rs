//! Reading JSON as Go's decoder does: names in any case, `null` as the zero value, unknown fields ignored, a second
//! document refused, and errors in Go's words.
//!
//! Two steps: [`scan`] makes a `Value` of the text (or a syntax error), [`fit`] lays a type over it (or a type error).
//! Invariant: no input makes this panic, and nesting is bounded by [`scan::MAX_DEPTH`], memory by
//! [`scan::MAX_VALUES`].

mod fit;
mod scan;

use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::container::{ContainerConfig, CreateRequest};
use crate::host_config::HostConfig;
use crate::network::NetworkingConfig;
use crate::port;

/// Why a text could not be read. `Display` is the text of Go's decoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// There is nothing but blanks.
    Empty,
    /// Something follows the first value.
    Trailing,
    /// A syntax or a type error.
    Invalid(String),
}

impl DecodeError {
    /// The text with which the reference refuses a request body.
    pub fn body_message(&self) -> String {
        match self {
            DecodeError::Empty => "invalid JSON: got EOF while reading request body".to_owned(),
            DecodeError::Trailing => self.to_string(),
            DecodeError::Invalid(text) => format!("invalid JSON: {text}"),
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Empty => f.write_str("unexpected end of JSON input"),
            DecodeError::Trailing => f.write_str("unexpected content after JSON"),
            DecodeError::Invalid(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Reads one value of a type.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    fit::fit(&scan::document(bytes)?)
}

/// Lays a type over a value that was read before, by the same rules.
pub fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, DecodeError> {
    fit::fit(value)
}

/// Reads a text into a value, unknown fields and all.
pub fn value(bytes: &[u8]) -> Result<Value, DecodeError> {
    scan::document(bytes)
}

/// Reads the body of `POST /containers/create`: the configuration's fields stand beside `HostConfig` and
/// `NetworkingConfig`, and a body that names none of them has no configuration at all.
pub fn create_request(bytes: &[u8]) -> Result<CreateRequest, DecodeError> {
    #[derive(Default, Deserialize)]
    #[serde(rename = "CreateRequest", rename_all = "PascalCase", default)]
    struct Outer {
        host_config: Option<HostConfig>,
        networking_config: Option<NetworkingConfig>,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Legacy {
        mac_address: String,
    }
    let value = scan::document(bytes)?;
    let outer: Outer = fit::fit(&value)?;
    let names_config = fit::names_a_field::<ContainerConfig>(&value);
    let config = if names_config { Some(fit::fit(&value)?) } else { None };
    let exposed = config.iter().flat_map(|config: &ContainerConfig| config.exposed_ports.keys());
    let published = outer.host_config.iter().flat_map(|host| host.port_bindings.iter().flat_map(|ports| ports.keys()));
    exposed.chain(published).try_for_each(|key| port::check(key)).map_err(DecodeError::Invalid)?;
    let legacy: Legacy = fit::fit(&value).unwrap_or_default();
    Ok(CreateRequest {
        config,
        host_config: outer.host_config,
        networking_config: outer.networking_config,
        legacy_mac_address: legacy.mac_address,
    })
}

/// Reads an optional configuration (body of `POST /commit`): `None` when no field of it is named.
pub fn optional<T: DeserializeOwned>(bytes: &[u8]) -> Result<Option<T>, DecodeError> {
    let value = scan::document(bytes)?;
    if fit::names_a_field::<T>(&value) { fit::fit(&value).map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests;
