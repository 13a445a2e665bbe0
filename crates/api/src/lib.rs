//! Wire types of the Engine API, newest shapes, and the rules by which they are read and written.
//!
//! One module per noun. Field names, their order and the choice between `null`, an empty value and an absent
//! field follow the reference: `Option<Vec<_>>`/`Option<BTreeMap<_>>` is a Go slice or map that may be nil (`null`),
//! a plain `Vec`/`BTreeMap` is always `[]`/`{}` unless it is marked as left out when empty.
//!
//! Invariants: serde only; no engine rule lives here; older versions are conversions of a finished JSON value
//! at the edge ([`version`]), never a second set of types.
#![forbid(unsafe_code)]

mod bindings;
pub mod build;
pub mod container;
pub mod decode;
pub mod encode;
pub mod event;
pub mod exec;
mod go;
mod go_names;
pub mod host_config;
pub mod image;
pub mod mount;
pub mod network;
pub mod oci;
pub mod port;
pub mod progress;
pub mod registry;
pub mod secret;
pub mod stats;
pub mod swarm;
pub mod system;
pub mod update;
pub mod version;
pub mod volume;

use serde::{Deserialize, Serialize};

pub use bindings::PortBindings;
pub use build::{BuildCachePruneReport, BuildCacheRecord};
pub use container::{
    ChangeItem, CommitResponse, ContainerConfig, ContainerInspect, ContainerPruneReport, ContainerState,
    ContainerSummary, CreateRequest, CreateResponse, Health, HealthConfig, HealthSummary, HealthcheckResult,
    NetworkSettings, NetworkSettingsSummary, PathStat, SummaryHostConfig, TopResponse, WaitExitError, WaitResponse,
};
pub use event::{Actor, EventMessage};
pub use exec::{ExecConfig, ExecInspect, ExecProcessConfig, ExecStart};
pub use go::Empty;
pub use host_config::{
    DeviceMapping, DeviceRequest, HostConfig, LegacyHostConfig, LogConfig, RestartPolicy, ThrottleDevice, Ulimit,
    WeightDevice,
};
pub use image::{
    AttestationProperties, AttestationStatement, DriverData, HistoryItem, ImageConfig, ImageDeleteItem, ImageInspect,
    ImageMetadata, ImageProperties, ImagePruneReport, ImageSummary, ManifestSize, ManifestSummary, RootFs,
    UnpackedSize,
};
pub use mount::{BindOptions, ImageOptions, Mount, MountPoint, TmpfsOptions, VolumeOptions};
pub use network::{
    ConfigReference, ConnectRequest, DisconnectRequest, EndpointIpamConfig, EndpointResource, EndpointSettings, Ipam,
    IpamConfig, Network, NetworkCreateRequest, NetworkCreateResponse, NetworkPruneReport, NetworkingConfig,
};
pub use oci::{Descriptor, Platform};
pub use port::{PortBinding, PortMap, PortSet, PortSummary, PortsChange, PortsChanged};
pub use progress::{ErrorDetail, Progress, ProgressMessage};
pub use registry::{AuthConfig, AuthResponse, DistributionInspect, IndexInfo, SearchResult, ServiceConfig};
pub use stats::StatsResponse;
pub use system::{Commit, ComponentVersion, DiskUsage, Info, PlatformInfo, PluginsInfo, RuntimeInfo, Usage, Version};
pub use update::{UpdateConfig, UpdateResponse};
pub use version::ApiVersion;
pub use volume::{
    UsageData, Volume, VolumeCloneRequest, VolumeCreateRequest, VolumeListResponse, VolumePruneReport, VolumeSnapshot,
    VolumeSnapshotList, VolumeSnapshotRequest,
};

/// An answer that carries only an identifier (`POST /commit`, exec create).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IdResponse {
    /// The full id of what was made.
    #[serde(rename = "Id")]
    pub id: String,
}

/// The body of every refused request from version 1.24 on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorResponse {
    /// The text shown to the user.
    pub message: String,
}
