//! Secrets and configs, in the shapes of a swarm's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Body of `POST /secrets/create` and of an update.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "swarm.SecretSpec", rename_all = "PascalCase", default)]
pub struct SecretSpec {
    pub name: String,
    pub labels: Option<BTreeMap<String, String>>,
    /// In base64; of a secret never shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub templating: Option<Value>,
}

/// A number that counts changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ObjectVersion {
    pub index: u64,
}

/// One as list and inspect show it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Secret {
    #[serde(rename = "ID")]
    pub id: String,
    pub version: ObjectVersion,
    /// RFC 3339 with nanoseconds.
    pub created_at: String,
    pub updated_at: String,
    pub spec: SecretSpec,
}

/// Answer of a create.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecretCreateResponse {
    #[serde(rename = "ID")]
    pub id: String,
}
