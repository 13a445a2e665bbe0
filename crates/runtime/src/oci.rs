//! The OCI runtime specification's `config.json` as serde types: the fields Gantry uses, under the specification's names.
//!
//! Two encodings meet here. The monitor protocol is not self-describing, so every field is always written and nothing is
//! flattened, untagged or skipped; [`Spec::to_json`] prunes nulls and empty values afterwards, because command-line
//! runtimes tell an absent object from an empty one. Three fields are Gantry's own and never reach a `config.json`:
//! [`User::username`] and [`User::groups`] are resolved, [`Mount::subpath`] and [`Mount::namespace`] are mounted where a path can
//! name them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The version of the specification that [`crate::spec`] writes.
pub const VERSION: &str = "1.2.0";

/// A whole `config.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    pub oci_version: String,
    pub process: Process,
    pub root: Root,
    pub hostname: String,
    pub domainname: String,
    pub mounts: Vec<Mount>,
    pub annotations: BTreeMap<String, String>,
    pub linux: Linux,
}

impl Spec {
    /// `config.json` for a command-line runtime: without nulls, empty strings, lists and objects (`args` and `env` keep
    /// their empty strings).
    pub fn to_json(&self) -> Vec<u8> {
        let mut value = serde_json::to_value(self).expect("the spec has only string keys");
        prune(&mut value);
        serde_json::to_vec(&value).expect("a JSON value encodes")
    }
}

impl Process {
    /// `process.json` for `exec` of a command-line runtime, pruned like [`Spec::to_json`].
    pub fn to_json(&self) -> Vec<u8> {
        let mut value = serde_json::to_value(self).expect("the process has only string keys");
        prune(&mut value);
        serde_json::to_vec(&value).expect("a JSON value encodes")
    }
}

/// Removes what the specification means by "absent"; elements of lists stay, since their position may matter.
fn prune(value: &mut serde_json::Value) {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(prune);
            map.retain(|_, v| match v {
                Value::Null => false,
                Value::String(s) => !s.is_empty(),
                Value::Array(a) => !a.is_empty(),
                Value::Object(o) => !o.is_empty(),
                _ => true,
            });
        }
        Value::Array(list) => list.iter_mut().for_each(prune),
        _ => {}
    }
}

/// The first process, or the process of an exec.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Process {
    pub terminal: bool,
    /// Initial size of the terminal.
    pub console_size: Option<ConsoleSize>,
    pub user: User,
    pub args: Vec<String>,
    /// `NAME=value`; a missing or empty `HOME` is filled in from the container's `/etc/passwd`.
    pub env: Vec<String>,
    pub cwd: String,
    /// `None` keeps whatever the monitor has (the specification's "unset").
    pub capabilities: Option<Capabilities>,
    pub rlimits: Vec<Rlimit>,
    pub no_new_privileges: bool,
    pub apparmor_profile: Option<String>,
    pub oom_score_adj: Option<i32>,
    pub selinux_label: Option<String>,
}

/// Rows and columns of a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsoleSize {
    pub height: u16,
    pub width: u16,
}

/// Who the process runs as.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub umask: Option<u32>,
    pub additional_gids: Vec<u32>,
    /// `Some("user[:group]")` (also empty = the image's root) asks the runtime to look the numbers up in the container's
    /// own `/etc/passwd` and `/etc/group` once its root is mounted; the numeric fields are then ignored. `None`: the
    /// numeric fields count.
    pub username: Option<String>,
    /// Names or numbers of further groups, resolved together with `username`.
    pub groups: Vec<String>,
}

/// Capability names (`CAP_CHOWN`) of the five sets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    pub bounding: Vec<String>,
    pub effective: Vec<String>,
    pub inheritable: Vec<String>,
    pub permitted: Vec<String>,
    pub ambient: Vec<String>,
}

/// One resource limit, `kind` being e.g. `RLIMIT_NOFILE`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rlimit {
    #[serde(rename = "type")]
    pub kind: String,
    pub hard: u64,
    pub soft: u64,
}

/// The root file system. `path` is for command-line runtimes only; the built-in one mounts [`crate::Rootfs`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Root {
    pub path: String,
    pub readonly: bool,
}

/// One mount, in the order of mounting.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// Absolute path in the container.
    pub destination: String,
    /// File system type; `bind` (or options containing `bind`/`rbind`) for bind mounts; `cgroup` for the cgroup view.
    #[serde(rename = "type")]
    pub kind: String,
    pub source: String,
    /// What of the directory `source` is bound, when a container may have written there: no link on the way may lead out.
    /// Empty = all of it.
    pub subpath: String,
    /// The mount namespace in which `source` is a path ([`PASSED`]); `None` = one's own.
    pub namespace: Option<String>,
    /// The number of the detached mount, among those passed to the monitor ([`crate::Bundle::pass`]), that is attached here in
    /// place of a copy of `source`.
    pub tree: Option<u16>,
    /// Words as of mount(8), plus the specification's recursive ones (`rro`, …) and propagation words.
    pub options: Vec<String>,
}

/// The Linux part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Linux {
    pub uid_mappings: Vec<IdMapping>,
    pub gid_mappings: Vec<IdMapping>,
    pub sysctl: BTreeMap<String, String>,
    pub resources: Resources,
    /// Path of the container's cgroup below every hierarchy's root, e.g. `/docker/<id>`.
    pub cgroups_path: String,
    pub namespaces: Vec<Namespace>,
    pub devices: Vec<Device>,
    /// For command-line runtimes only; the built-in one loads [`crate::Bundle::seccomp`].
    pub seccomp: Option<Seccomp>,
    /// `private` (also empty), `rprivate`, `slave`, `rslave`, `shared`, `rshared`.
    pub rootfs_propagation: String,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub mount_label: String,
}

/// A range of ids of a user namespace, `linux.uidMappings` and `gidMappings`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IdMapping {
    #[serde(rename = "containerID")]
    pub container_id: u32,
    #[serde(rename = "hostID")]
    pub host_id: u32,
    pub size: u32,
}

/// The kinds of namespace of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceKind {
    Pid,
    Network,
    Mount,
    Ipc,
    Uts,
    User,
    Cgroup,
    Time,
}

/// In place of a path: what is joined is passed to the monitor as a descriptor ([`crate::Bundle::pass`]). A number of a
/// process could be another's by the time that it is used.
pub const PASSED: &str = "passed";

/// A namespace of the container: a new one, or the one at `path` ([`PASSED`]). A kind that is not listed is shared with the
/// host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Namespace {
    #[serde(rename = "type")]
    pub kind: NamespaceKind,
    #[serde(default)]
    pub path: Option<String>,
}

/// A device node to make under `/dev`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Device {
    pub path: String,
    /// `c`, `b`, `u` (= c) or `p`.
    #[serde(rename = "type")]
    pub kind: String,
    pub major: i64,
    pub minor: i64,
    /// Permission bits; 0666 if absent.
    pub file_mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// Limits of the container's cgroup. `None` and empty leave the kernel's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Resources {
    pub devices: Vec<DeviceRule>,
    pub memory: Option<Memory>,
    pub cpu: Option<Cpu>,
    pub pids: Option<Pids>,
    #[serde(rename = "blockIO")]
    pub block_io: Option<BlockIo>,
    pub hugepage_limits: Vec<HugepageLimit>,
    /// cgroup v2 files written verbatim.
    pub unified: BTreeMap<String, String>,
}

/// One rule of the device list, applied in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceRule {
    pub allow: bool,
    /// `a`, `c` or `b`; absent = `a`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Absent or negative = every number.
    pub major: Option<i64>,
    pub minor: Option<i64>,
    /// Letters of `rwm`; empty = all.
    pub access: String,
}

/// Bytes; -1 = unlimited.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Memory {
    pub limit: Option<i64>,
    pub reservation: Option<i64>,
    /// Memory plus swap.
    pub swap: Option<i64>,
    pub kernel: Option<i64>,
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: Option<i64>,
    pub swappiness: Option<u64>,
    #[serde(rename = "disableOOMKiller")]
    pub disable_oom_killer: Option<bool>,
}

/// Shares are relative; quota, period, burst and the realtime pair in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Cpu {
    pub shares: Option<u64>,
    pub quota: Option<i64>,
    pub period: Option<u64>,
    pub burst: Option<u64>,
    pub realtime_runtime: Option<i64>,
    pub realtime_period: Option<u64>,
    pub cpus: String,
    pub mems: String,
    pub idle: Option<i64>,
}

/// `limit <= 0` = unlimited.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pids {
    pub limit: i64,
}

/// `linux.resources.blockIO`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BlockIo {
    pub weight: Option<u16>,
    pub weight_device: Vec<WeightDevice>,
    pub throttle_read_bps_device: Vec<ThrottleDevice>,
    pub throttle_write_bps_device: Vec<ThrottleDevice>,
    #[serde(rename = "throttleReadIOPSDevice")]
    pub throttle_read_iops_device: Vec<ThrottleDevice>,
    #[serde(rename = "throttleWriteIOPSDevice")]
    pub throttle_write_iops_device: Vec<ThrottleDevice>,
}

/// An entry of `blockIO.weightDevice`: a device by its numbers, and its weight (10 to 1000).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WeightDevice {
    pub major: i64,
    pub minor: i64,
    pub weight: Option<u16>,
}

/// Bytes or operations per second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThrottleDevice {
    pub major: i64,
    pub minor: i64,
    pub rate: u64,
}

/// `page_size` as `2MB`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HugepageLimit {
    pub page_size: String,
    pub limit: u64,
}

/// The resolved seccomp section.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Seccomp {
    /// `SCMP_ACT_…`
    pub default_action: String,
    pub default_errno_ret: Option<u32>,
    /// `SCMP_ARCH_…`
    pub architectures: Vec<String>,
    /// `SECCOMP_FILTER_FLAG_…`
    pub flags: Vec<String>,
    pub listener_path: String,
    pub listener_metadata: String,
    pub syscalls: Vec<SeccompSyscall>,
}

/// An entry of `linux.seccomp.syscalls`: which calls, what they must be called with, and what happens then.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SeccompSyscall {
    pub names: Vec<String>,
    pub action: String,
    pub errno_ret: Option<u32>,
    pub args: Vec<SeccompArg>,
}

/// An entry of `args`: one argument, by its index from 0, compared with a value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SeccompArg {
    pub index: u32,
    pub value: u64,
    pub value_two: u64,
    /// `SCMP_CMP_…`
    pub op: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_names_and_pruning() {
        let spec = Spec {
            oci_version: VERSION.into(),
            process: Process { args: vec!["sh".into(), String::new()], cwd: "/".into(), ..Default::default() },
            linux: Linux {
                namespaces: vec![Namespace { kind: NamespaceKind::Pid, path: None }],
                resources: Resources { block_io: Some(BlockIo::default()), ..Default::default() },
                ..Default::default()
            },
            ..Default::default()
        };
        let text = String::from_utf8(spec.to_json()).unwrap();
        assert_eq!(
            text,
            r#"{"ociVersion":"1.2.0","process":{"terminal":false,"user":{"uid":0,"gid":0},"args":["sh",""],"cwd":"/","noNewPrivileges":false},"root":{"readonly":false},"linux":{"namespaces":[{"type":"pid"}]}}"#
        );
    }
}
