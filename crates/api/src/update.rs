//! `POST /containers/{id}/update`: limits of a container, and when it is started again.

use serde::{Deserialize, Serialize};

use crate::host_config::{HostConfig, RestartPolicy, ThrottleDevice, WeightDevice};

/// What is to change. Zero, empty and absent fields leave things as they are.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename = "container.UpdateConfig", rename_all = "PascalCase", default)]
pub struct UpdateConfig {
    /// 1024 is normal.
    pub cpu_shares: i64,
    /// Bytes; -1: no limit.
    pub memory: i64,
    /// Billionths of a processor.
    pub nano_cpus: i64,
    /// 10 to 1000.
    pub blkio_weight: u16,
    /// Weights for single devices.
    pub blkio_weight_device: Option<Vec<WeightDevice>>,
    /// Bytes a second.
    pub blkio_device_read_bps: Option<Vec<ThrottleDevice>>,
    /// Bytes a second.
    pub blkio_device_write_bps: Option<Vec<ThrottleDevice>>,
    /// Operations a second.
    #[serde(rename = "BlkioDeviceReadIOps")]
    pub blkio_device_read_iops: Option<Vec<ThrottleDevice>>,
    /// Operations a second.
    #[serde(rename = "BlkioDeviceWriteIOps")]
    pub blkio_device_write_iops: Option<Vec<ThrottleDevice>>,
    /// Microseconds.
    pub cpu_period: i64,
    /// Microseconds in each period; -1: no limit.
    pub cpu_quota: i64,
    /// Microseconds.
    pub cpu_realtime_period: i64,
    /// Microseconds in each period.
    pub cpu_realtime_runtime: i64,
    /// A list such as `0-2,4`.
    pub cpuset_cpus: String,
    /// A list such as `0-2,4`.
    pub cpuset_mems: String,
    /// Bytes of the soft limit.
    pub memory_reservation: i64,
    /// Bytes of memory and swap together; -1: no limit.
    pub memory_swap: i64,
    /// Zero and below: no limit.
    pub pids_limit: Option<i64>,
    /// An empty name leaves it.
    pub restart_policy: RestartPolicy,
}

impl From<UpdateConfig> for HostConfig {
    /// A configuration that says nothing else.
    fn from(update: UpdateConfig) -> HostConfig {
        HostConfig {
            cpu_shares: update.cpu_shares,
            memory: update.memory,
            nano_cpus: update.nano_cpus,
            blkio_weight: update.blkio_weight,
            blkio_weight_device: update.blkio_weight_device,
            blkio_device_read_bps: update.blkio_device_read_bps,
            blkio_device_write_bps: update.blkio_device_write_bps,
            blkio_device_read_iops: update.blkio_device_read_iops,
            blkio_device_write_iops: update.blkio_device_write_iops,
            cpu_period: update.cpu_period,
            cpu_quota: update.cpu_quota,
            cpu_realtime_period: update.cpu_realtime_period,
            cpu_realtime_runtime: update.cpu_realtime_runtime,
            cpuset_cpus: update.cpuset_cpus,
            cpuset_mems: update.cpuset_mems,
            memory_reservation: update.memory_reservation,
            memory_swap: update.memory_swap,
            pids_limit: update.pids_limit,
            restart_policy: update.restart_policy,
            ..HostConfig::default()
        }
    }
}

/// Answer of `POST /containers/{id}/update`; `null` where there are no warnings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateResponse {
    /// What the kernel cannot do and was left out.
    pub warnings: Option<Vec<String>>,
}
