//! The build cache as disk usage and prune show it.

use serde::{Deserialize, Serialize};

use crate::go;

/// One record of the build cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BuildCacheRecord {
    #[serde(rename = "ID")]
    pub id: String,
    /// The blank in the name is the reference's.
    #[serde(rename = " Parents", skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<String>,
    #[serde(rename = "Type")]
    pub kind: String,
    pub description: String,
    pub in_use: bool,
    pub shared: bool,
    /// Bytes.
    pub size: i64,
    #[serde(serialize_with = "go::time")]
    pub created_at: String,
    pub last_used_at: Option<String>,
    pub usage_count: i64,
}

/// Answer of `POST /build/prune`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BuildCachePruneReport {
    pub caches_deleted: Option<Vec<String>>,
    pub space_reclaimed: u64,
}
