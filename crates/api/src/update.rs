//! `POST /containers/{id}/update`: limits of a container, and when it is started again.

use serde::{Deserialize, Serialize};

use crate::host_config::{HostConfig, RestartPolicy, ThrottleDevice, WeightDevice};

/// Makes the type of a change, and its fields those of a host configuration, from one list.
macro_rules! change {
    ($($(#[$attribute:meta])* $field:ident: $type:ty,)*) => {
        /// What is to change. Zero, empty and absent fields leave things as they are.
        #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
        #[serde(rename = "container.UpdateConfig", rename_all = "PascalCase", default)]
        pub struct UpdateConfig {
            $($(#[$attribute])* pub $field: $type,)*
        }

        impl From<UpdateConfig> for HostConfig {
            /// A configuration that says nothing else.
            fn from(update: UpdateConfig) -> HostConfig {
                HostConfig { $($field: update.$field,)* ..HostConfig::default() }
            }
        }
    };
}

change! {
    /// 1024 is normal.
    cpu_shares: i64,
    /// Bytes; -1: no limit.
    memory: i64,
    /// Billionths of a processor.
    nano_cpus: i64,
    /// 10 to 1000.
    blkio_weight: u16,
    /// Weights for single devices.
    blkio_weight_device: Option<Vec<WeightDevice>>,
    /// Bytes a second.
    blkio_device_read_bps: Option<Vec<ThrottleDevice>>,
    /// Bytes a second.
    blkio_device_write_bps: Option<Vec<ThrottleDevice>>,
    /// Operations a second.
    #[serde(rename = "BlkioDeviceReadIOps")]
    blkio_device_read_iops: Option<Vec<ThrottleDevice>>,
    /// Operations a second.
    #[serde(rename = "BlkioDeviceWriteIOps")]
    blkio_device_write_iops: Option<Vec<ThrottleDevice>>,
    /// Microseconds.
    cpu_period: i64,
    /// Microseconds in each period; -1: no limit.
    cpu_quota: i64,
    /// Microseconds.
    cpu_realtime_period: i64,
    /// Microseconds in each period.
    cpu_realtime_runtime: i64,
    /// A list such as `0-2,4`.
    cpuset_cpus: String,
    /// A list such as `0-2,4`.
    cpuset_mems: String,
    /// Bytes of the soft limit.
    memory_reservation: i64,
    /// Bytes of memory and swap together; -1: no limit.
    memory_swap: i64,
    /// Zero and below: no limit.
    pids_limit: Option<i64>,
    /// An empty name leaves it.
    restart_policy: RestartPolicy,
}

/// Answer of `POST /containers/{id}/update`; `null` where there are no warnings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateResponse {
    /// What the kernel cannot do and was left out.
    pub warnings: Option<Vec<String>>,
}
