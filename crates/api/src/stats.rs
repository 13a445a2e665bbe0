//! What a container uses: the samples of `GET /containers/{id}/stats`.
//!
//! Times are nanoseconds, sizes bytes. The fields of Windows are there only where the reference sends them empty.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::go::{Empty, is_zero};

/// One sample, with the processor figures of the one before.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StatsResponse {
    /// The container.
    pub id: String,
    /// With the leading slash.
    pub name: String,
    /// `linux`; from 1.52 on.
    pub os_type: String,
    /// RFC 3339; Go's zero time when the container does not run.
    pub read: String,
    /// Of this sample.
    pub cpu_stats: CpuStats,
    /// Of this sample.
    pub memory_stats: MemoryStats,
    /// By the link's name in the container.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<String, NetworkStats>,
    /// Of this sample.
    pub pids_stats: PidsStats,
    /// Of this sample.
    pub blkio_stats: BlkioStats,
    /// Of Windows: 0.
    pub num_procs: u32,
    /// Of Windows.
    pub storage_stats: Empty,
    /// The same of the sample before; zero when there is none.
    pub preread: String,
    /// Of the sample before.
    pub precpu_stats: CpuStats,
}

/// Processor time of a container and of its machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CpuStats {
    /// The container's.
    pub cpu_usage: CpuUsage,
    /// Nanoseconds that all processors together have been up.
    #[serde(skip_serializing_if = "is_zero")]
    pub system_cpu_usage: u64,
    /// Processors.
    #[serde(skip_serializing_if = "is_zero")]
    pub online_cpus: u32,
    /// Of its CPU quota.
    pub throttling_data: ThrottlingData,
}

/// Since the container's cgroup was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CpuUsage {
    /// User and kernel.
    pub total_usage: u64,
    /// For each processor; version 1 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_usage: Vec<u64>,
    /// In the kernel.
    pub usage_in_kernelmode: u64,
    /// Outside of it.
    pub usage_in_usermode: u64,
}

/// How often and for how long the container was held back by its CPU quota.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ThrottlingData {
    /// Periods that have passed.
    pub periods: u64,
    /// Those of them in which it was held back.
    pub throttled_periods: u64,
    /// Nanoseconds.
    pub throttled_time: u64,
}

/// Memory of a container. `limit` is the machine's where the container has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryStats {
    /// In use, page cache included.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// The most that was in use; version 1 only.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_usage: u64,
    /// Figures of `memory.stat`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub stats: BTreeMap<&'static str, u64>,
    /// How often the limit was met.
    #[serde(skip_serializing_if = "is_zero")]
    pub failcnt: u64,
    /// The container's, or the machine's.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Counters of a link, seen from the container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NetworkStats {
    /// Received.
    pub rx_bytes: u64,
    /// Received.
    pub rx_packets: u64,
    /// Received and bad.
    pub rx_errors: u64,
    /// Received and dropped.
    pub rx_dropped: u64,
    /// Sent.
    pub tx_bytes: u64,
    /// Sent.
    pub tx_packets: u64,
    /// Could not be sent.
    pub tx_errors: u64,
    /// Dropped instead of sent.
    pub tx_dropped: u64,
}

/// Tasks; a limit of 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PidsStats {
    /// Tasks there are.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// The container's, or the machine's.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Block devices. A list that the version of cgroups does not have is `null`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BlkioStats {
    /// Bytes.
    pub io_service_bytes_recursive: Option<Vec<BlkioStatEntry>>,
    /// Operations; version 1 only.
    pub io_serviced_recursive: Option<Vec<BlkioStatEntry>>,
    pub io_queue_recursive: Option<Vec<BlkioStatEntry>>,
    pub io_service_time_recursive: Option<Vec<BlkioStatEntry>>,
    pub io_wait_time_recursive: Option<Vec<BlkioStatEntry>>,
    pub io_merged_recursive: Option<Vec<BlkioStatEntry>>,
    pub io_time_recursive: Option<Vec<BlkioStatEntry>>,
    pub sectors_recursive: Option<Vec<BlkioStatEntry>>,
}

/// One device and one operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BlkioStatEntry {
    /// Of the device.
    pub major: u64,
    /// Of the device.
    pub minor: u64,
    /// `Read`, `Write`, …; on version 2 `read` and `write`.
    pub op: String,
    /// The count.
    pub value: u64,
}
