//! What the machine's control groups can do, looked at once.

use std::fs;

use sys::cgroup::{Layout, Version};

/// What the machine's control groups can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// Limit memory.
    pub memory: bool,
    /// Limit memory and swap together.
    pub swap: bool,
    /// Never kill for memory (cgroup v1).
    pub oom_kill_disable: bool,
    /// Swappiness of a single container (cgroup v1).
    pub swappiness: bool,
    /// Share processors by weight.
    pub cpu_shares: bool,
    /// Limit processor time.
    pub cpu_cfs: bool,
    /// Real-time scheduling budgets (cgroup v1).
    pub cpu_realtime: bool,
    /// Bind to processors and memory nodes.
    pub cpuset: bool,
    /// Limit the number of processes.
    pub pids: bool,
    /// Weigh block devices.
    pub blkio_weight: bool,
    /// Limit block devices.
    pub blkio: bool,
}

impl Abilities {
    /// Looks at the hierarchies.
    #[expect(clippy::disallowed_methods, reason = "the kernel's own files, which are in memory")]
    pub fn of(layout: &Layout) -> Abilities {
        let controllers = layout.controllers();
        let has = |name: &str| controllers.iter().any(|c| c == name);
        let v1 = layout.version() == Version::V1;
        let file = |path: &str| fs::exists(format!("/sys/fs/cgroup/{path}")).unwrap_or(false);
        Abilities {
            memory: has("memory"),
            // A kernel that cannot swap has neither the file in a cgroup below the root nor this one.
            swap: if v1 { file("memory/memory.memsw.limit_in_bytes") } else { has("memory") && can_swap() },
            oom_kill_disable: v1 && has("memory"),
            swappiness: v1 && has("memory"),
            cpu_shares: has("cpu"),
            cpu_cfs: if v1 { file("cpu/cpu.cfs_quota_us") } else { has("cpu") },
            cpu_realtime: v1 && file("cpu/cpu.rt_runtime_us"),
            cpuset: has("cpuset"),
            pids: has("pids"),
            blkio_weight: if v1 { file("blkio/blkio.weight") || file("blkio/blkio.bfq.weight") } else { has("io") },
            blkio: has("blkio") || has("io"),
        }
    }
}

/// Whether the kernel was built with swapping, proc(5).
#[expect(clippy::disallowed_methods, reason = "the kernel's own files, which are in memory")]
fn can_swap() -> bool {
    fs::exists("/proc/swaps").unwrap_or(false)
}
