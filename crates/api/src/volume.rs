//! Volumes: create, inspect, list, prune.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A volume as list and inspect show it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Volume {
    /// RFC3339 without fraction.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created_at: String,
    pub driver: String,
    pub labels: Option<BTreeMap<String, String>>,
    pub mountpoint: String,
    pub name: String,
    pub options: Option<BTreeMap<String, String>>,
    /// `local` or `global`.
    pub scope: String,
    /// Free data of the driver.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub status: BTreeMap<String, Value>,
    /// Disk usage only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_data: Option<UsageData>,
}

/// Use of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UsageData {
    /// -1: not known.
    pub ref_count: i64,
    /// Bytes; -1: not known.
    pub size: i64,
}

/// Body of `POST /volumes/create`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "volume.CreateRequest", rename_all = "PascalCase", default)]
pub struct VolumeCreateRequest {
    /// Set for a cluster volume, which needs swarm mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_volume_spec: Option<Value>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_opts: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// Answer of `GET /volumes`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeListResponse {
    pub volumes: Vec<Volume>,
    pub warnings: Option<Vec<String>>,
}

/// Answer of `POST /volumes/prune`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumePruneReport {
    pub volumes_deleted: Vec<String>,
    pub space_reclaimed: u64,
}

/// A snapshot of a volume, a thing of Gantry's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeSnapshot {
    /// RFC 3339 with nanoseconds.
    pub created_at: String,
    pub labels: BTreeMap<String, String>,
    /// Unique over all volumes.
    pub name: String,
    /// Of `daemon.json`; empty: somebody has taken it.
    pub schedule: String,
    /// Bytes of its content; -1: not measured.
    pub size: i64,
    /// Which it was taken of; it may be gone.
    pub volume: String,
}

/// Body of `POST /volumes/{name}/snapshots`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "volume.SnapshotRequest", rename_all = "PascalCase", default)]
pub struct VolumeSnapshotRequest {
    /// The containers that use the volume stand still for the moment.
    pub freeze: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    pub name: String,
}

/// Body of `POST /volume-snapshots/{name}/clone`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "volume.CloneRequest", rename_all = "PascalCase", default)]
pub struct VolumeCloneRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Of the volume to come.
    pub name: String,
}

/// Answer of `GET /volume-snapshots`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeSnapshotList {
    pub snapshots: Vec<VolumeSnapshot>,
}
