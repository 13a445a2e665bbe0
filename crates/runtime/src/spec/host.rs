//! The facts of the host that a specification depends on, and the one place of `spec` that reads them.

use std::io;

use super::input::{DeviceNode, SourceMount};
use crate::oci;
use crate::seccomp::Arch;

/// What the host is and can do. Read once at start ([`HostFacts::probe`]); `devices` again per privileged container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostFacts {
    pub arch: Arch,
    /// Version and major revision, `(6, 1)`.
    pub kernel: (u32, u32),
    pub time_namespaces: bool,
    /// Recursive read-only mounts (`mount_setattr`, kernel ≥ 5.12).
    pub recursive_readonly: bool,
    /// Default masks that exist only on some machines: `/sys/devices/system/cpu/cpu<n>/thermal_throttle`.
    pub thermal_throttle: Vec<String>,
    /// `net.ipv4.ping_group_range` and `net.ipv4.ip_unprivileged_port_start` exist.
    pub ping_group_range: bool,
    pub unprivileged_port_start: bool,
    /// Gantry itself runs in a user namespace.
    pub in_user_namespace: bool,
    /// All device nodes under `/dev`, for privileged containers ([`host_devices`]).
    pub devices: Vec<oci::Device>,
}

impl HostFacts {
    /// Reads everything but `devices`.
    pub fn probe() -> HostFacts {
        todo!()
    }
}

/// The device nodes under `/dev` that a privileged container gets.
pub fn host_devices() -> io::Result<Vec<oci::Device>> {
    todo!()
}

/// The node at `host_path` (symlinks followed) or all nodes below it, renamed to `container_path`, with `access` for each.
pub fn devices_from_path(host_path: &str, container_path: &str, access: &str) -> model::Result<Vec<DeviceNode>> {
    let _ = (host_path, container_path, access);
    todo!()
}

/// Major and minor number of the device file at `path`, for block I/O limits.
pub fn device_number(path: &str) -> io::Result<(i64, i64)> {
    let _ = path;
    todo!()
}

/// The mount of `/proc/self/mountinfo` (its text) that the resolved `path` lies on.
pub fn source_mount(mountinfo: &str, path: &str) -> Option<SourceMount> {
    let _ = (mountinfo, path);
    todo!()
}
