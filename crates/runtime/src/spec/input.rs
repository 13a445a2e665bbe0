//! What the engine tells [`super::build`] about one container: Docker's options in the terms of this crate.
//!
//! Everything is already validated and merged (image, request, daemon defaults), names of other containers are already
//! paths of namespaces, volumes are already directories or passed mounts. Nothing here refers to the wire types of the API.

use std::collections::BTreeMap;

use super::tmpfs::TmpfsOptions;
use crate::oci;
use crate::seccomp::Profile;

/// One container to be started.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerSpec {
    pub process: ProcessSpec,
    pub hostname: String,
    /// NIS domain name; empty = none.
    pub domainname: String,
    pub namespaces: Namespaces,
    /// The root file system is mounted read only.
    pub readonly_rootfs: bool,
    pub mounts: Mounts,
    pub security: Security,
    pub devices: Devices,
    pub resources: Resources,
    /// The user's sysctls; they win over the defaults.
    pub sysctls: BTreeMap<String, String>,
    /// Path below every hierarchy's root (`/docker/<id>`), or `parent.slice:docker:<id>` for systemd.
    pub cgroups_path: String,
    pub annotations: BTreeMap<String, String>,
}

/// The container's first process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessSpec {
    /// Entrypoint and command, joined; never empty.
    pub args: Vec<String>,
    /// Image and user variables (`NAME=value`; a bare `NAME` removes the default of that name), see [`super::environment`].
    pub env: Vec<String>,
    /// Variables of legacy links; they come before `env` and lose against it.
    pub link_env: Vec<String>,
    /// Empty = `/`.
    pub cwd: String,
    /// `user[:group]`, looked up in the container's own databases; empty = root.
    pub user: String,
    /// Additional groups, names or numbers (`--group-add`).
    pub groups: Vec<String>,
    pub terminal: bool,
    /// Initial size; used with a terminal only, absent or 0×0 = the kernel's.
    pub console_size: Option<oci::ConsoleSize>,
    /// User and daemon ulimits, merged.
    pub ulimits: Vec<Ulimit>,
    /// -1000..=1000.
    pub oom_score_adj: i32,
    /// Host path of a static program that becomes PID 1 (`--init`). Ignored unless the PID namespace is new.
    pub init: Option<String>,
}

/// One resource limit; `name` as in `ulimit` options (`nofile`), -1 = unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ulimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

/// Where a namespace comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Share {
    /// The container's own.
    #[default]
    New,
    /// The host's.
    Host,
    /// Another container's, passed as a descriptor ([`crate::oci::PASSED`]).
    Join,
}

/// The container's namespaces. Mount and (if the kernel has it) time are always new.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Namespaces {
    /// With `New`, the caller of the runtime may hand over a prepared namespace.
    pub network: Share,
    pub ipc: Share,
    pub pid: Share,
    pub uts: Share,
    /// Private on cgroup v2, host on v1 by default; decided by the caller.
    pub cgroup: Share,
    /// Remapped ids; `None` = the host's user namespace.
    pub user: Option<UserMap>,
}

/// The id maps of a new user namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserMap {
    pub uids: Vec<oci::IdMapping>,
    pub gids: Vec<oci::IdMapping>,
}

/// What is mounted besides the defaults.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mounts {
    /// The user's mounts, one per target; [`super::build`] sorts them by depth.
    pub user: Vec<Mount>,
    /// `/dev/shm`, unless the user mounts there.
    pub shm: Shm,
    /// Gantry's own files (`/etc/hostname`, `/etc/hosts`, `/etc/resolv.conf`), unless the user mounts there.
    pub files: Vec<FileMount>,
}

/// A mount asked for by the user.
#[derive(Clone, Debug, PartialEq)]
pub struct Mount {
    /// Absolute, clean path in the container.
    pub target: String,
    pub kind: MountKind,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq)]
pub enum MountKind {
    Bind(Bind),
    Tmpfs { options: TmpfsOptions },
}

/// A host directory or file: bind mounts, and volumes of every driver.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bind {
    /// Absolute host path.
    pub source: String,
    /// What of `source` is shown; no link on the way may lead out of it. Empty = all of it.
    pub subpath: String,
    /// See [`crate::oci::Mount::namespace`].
    pub namespace: Option<String>,
    /// See [`crate::oci::Mount::tree`].
    pub tree: Option<u16>,
    pub access: Access,
    pub recursion: Recursion,
    /// `None` = the runtime's default (volumes).
    pub propagation: Option<Propagation>,
    /// The mount that `source` lies on ([`super::source_mount`]); only needed for shared and slave propagation.
    pub source_mount: Option<SourceMount>,
    /// The propagation was not asked for by the user but added since `source` reaches into the data root: where the host's
    /// mount does not allow it, it is dropped instead of refused.
    pub propagation_optional: bool,
}

/// Whether a bind may be written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    #[default]
    ReadWrite,
    /// Recursively where the kernel can, else only the top mount.
    ReadOnly,
    /// Only the top mount (`ReadOnlyNonRecursive`).
    ReadOnlyTop,
    /// Recursively, or an error (`ReadOnlyForceRecursive`).
    ReadOnlyForced,
}

/// Whether mounts below the source come along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recursion {
    #[default]
    Tree,
    Top,
}

/// How mount events spread (mount_namespaces(7)); `R` means all mounts below as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Private,
    RPrivate,
    Shared,
    RShared,
    Slave,
    RSlave,
}

impl Propagation {
    /// Docker's and mount(8)'s word.
    pub fn as_str(self) -> &'static str {
        match self {
            Propagation::Private => "private",
            Propagation::RPrivate => "rprivate",
            Propagation::Shared => "shared",
            Propagation::RShared => "rshared",
            Propagation::Slave => "slave",
            Propagation::RSlave => "rslave",
        }
    }

    /// From the word of the API and of the OCI specification; `None`: there is no such word.
    pub fn parse(word: &str) -> Option<Propagation> {
        use Propagation::{Private, RPrivate, RShared, RSlave, Shared, Slave};
        [Private, RPrivate, Shared, RShared, Slave, RSlave].into_iter().find(|p| p.as_str() == word)
    }
}

/// A mount of the host's table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceMount {
    pub point: String,
    pub shared: bool,
    pub slave: bool,
}

/// `/dev/shm`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shm {
    /// None at all (IPC mode `none`).
    None,
    /// A tmpfs of its own, bytes (private, shareable).
    Private { size: i64 },
    /// A bind of this directory of the host.
    Bind(String),
    /// Another container's, from its mount namespace, which is passed as a descriptor.
    Join,
}

impl Default for Shm {
    /// 64 MiB of its own.
    fn default() -> Shm {
        Shm::Private { size: 64 << 20 }
    }
}

/// One of Gantry's files in the container; writable unless the root is read only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMount {
    pub source: String,
    pub target: String,
}

/// Confinement.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Security {
    /// All host devices, writable /sys and cgroups, no masks, no default seccomp. The capabilities are the caller's.
    pub privileged: bool,
    /// Granted capabilities (`CAP_…`): bounding, permitted and effective sets.
    pub capabilities: Vec<String>,
    pub no_new_privileges: bool,
    pub seccomp: SeccompChoice,
    /// `None` = AppArmor is not in use.
    pub apparmor_profile: Option<String>,
    /// SELinux labels; empty = none.
    pub process_label: String,
    pub mount_label: String,
    /// `None` = the defaults (none if privileged).
    pub masked_paths: Option<Vec<String>>,
    pub readonly_paths: Option<Vec<String>>,
    /// `--security-opt writable-cgroups`; `None` = only if privileged or remapped.
    pub writable_cgroups: Option<bool>,
}

/// Which system calls are allowed.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum SeccompChoice {
    /// The built-in profile; privileged containers get none.
    #[default]
    Default,
    Unconfined,
    /// The user's or the daemon's profile, also for privileged containers.
    Profile(Box<Profile>),
}

/// `--device` and `--device-cgroup-rule`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Devices {
    /// Device nodes to make, directories already expanded ([`super::host::devices_from_path`]).
    pub nodes: Vec<DeviceNode>,
    /// `c 1:3 rwm`; `*` = every number.
    pub cgroup_rules: Vec<String>,
}

/// A device node of the host to be made in the container.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceNode {
    /// `path` is the path in the container.
    pub device: oci::Device,
    /// Path on the host.
    pub host_path: String,
    /// Letters of `rwm`.
    pub access: String,
}

/// Limits, as the API has them: 0 = not set where the type is not an `Option`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// Bytes.
    pub memory: i64,
    pub memory_reservation: i64,
    /// Memory plus swap, bytes; -1 = unlimited.
    pub memory_swap: i64,
    /// 0..=100; -1 = not set.
    pub memory_swappiness: Option<i64>,
    pub oom_kill_disable: Option<bool>,
    pub cpu: CpuLimits,
    /// `None` = not set, 0 and negative = unlimited.
    pub pids_limit: Option<i64>,
    pub block_io: BlockIo,
    /// cgroup v2 files written verbatim.
    pub unified: BTreeMap<String, String>,
}

/// CPU limits; times in microseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CpuLimits {
    pub shares: i64,
    /// Billionths of a CPU; exclusive with `period` and `quota`.
    pub nano_cpus: i64,
    pub period: i64,
    pub quota: i64,
    pub realtime_period: i64,
    pub realtime_runtime: i64,
    /// CPU list; empty = all.
    pub cpus: String,
    /// NUMA node list; empty = all.
    pub mems: String,
}

/// Block device limits by device number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockIo {
    pub weight: u16,
    pub weight_device: Vec<oci::WeightDevice>,
    pub read_bps: Vec<oci::ThrottleDevice>,
    pub write_bps: Vec<oci::ThrottleDevice>,
    pub read_iops: Vec<oci::ThrottleDevice>,
    pub write_iops: Vec<oci::ThrottleDevice>,
}
