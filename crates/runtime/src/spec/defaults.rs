//! What every container gets before any option counts: the reference's default environment as data.

use crate::oci;

/// Target, type, source, options; in the order of mounting.
const MOUNTS: [(&str, &str, &str, &str); 7] = [
    ("/proc", "proc", "proc", "nosuid noexec nodev"),
    ("/dev", "tmpfs", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
    ("/dev/pts", "devpts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
    ("/sys", "sysfs", "sysfs", "nosuid noexec nodev ro"),
    ("/sys/fs/cgroup", "cgroup", "cgroup", "ro nosuid noexec nodev"),
    ("/dev/mqueue", "mqueue", "mqueue", "nosuid noexec nodev"),
    (SHM, "tmpfs", "shm", "nosuid noexec nodev mode=1777"),
];

pub(super) const SHM: &str = "/dev/shm";

/// Hidden from an unprivileged container (B-oci-3); the machine's own additions are in [`super::HostFeatures::thermal_throttle`].
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What an unprivileged container cannot write to (B-oci-3).
pub const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Stay writable in a container with a read-only root.
pub(super) const WRITABLE_MOUNTS: [&str; 5] = ["/proc", "/dev/pts", SHM, "/dev/mqueue", "/dev"];

pub(super) const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
pub(super) const TERM: &str = "TERM=xterm";

/// All permissions on a device.
pub(super) const ANY_ACCESS: &str = "rwm";

/// Everything is denied but zero, null, urandom, random, tty, console; fuse is denied by name. The runtime itself adds
/// full, the pseudo-terminals and making nodes.
const DEVICE_RULES: [(bool, i64, i64); 7] =
    [(true, 1, 5), (true, 1, 3), (true, 1, 9), (true, 1, 8), (true, 5, 0), (true, 5, 1), (false, 10, 229)];

pub(super) fn mounts() -> Vec<oci::Mount> {
    MOUNTS
        .iter()
        .map(|(target, kind, source, options)| oci::Mount {
            destination: (*target).to_owned(),
            kind: (*kind).to_owned(),
            source: (*source).to_owned(),
            options: options.split(' ').map(str::to_owned).collect(),
            ..oci::Mount::default()
        })
        .collect()
}

pub(super) fn device_rules() -> Vec<oci::DeviceRule> {
    let access = || ANY_ACCESS.to_owned();
    let mut rules = vec![oci::DeviceRule { allow: false, access: access(), ..Default::default() }];
    rules.extend(DEVICE_RULES.iter().map(|(allow, major, minor)| oci::DeviceRule {
        allow: *allow,
        kind: Some("c".to_owned()),
        major: Some(*major),
        minor: Some(*minor),
        access: access(),
    }));
    rules
}
