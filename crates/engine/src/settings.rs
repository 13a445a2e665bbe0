//! What the daemon's configuration means to the engine: plain data, immutable, replaced as a whole by a reload.
//!
//! Four parts, by who reads them: [`Roots`] whatever touches the daemon's directories, [`ContainerDefaults`] create and
//! start, [`Services`] boot and the reload, which hand it to the services, [`Daemon`] `/info` and the shutdown. A
//! function takes the part that it reads.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The engine's configuration. An operation takes it once, at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where state lies.
    pub roots: Roots,
    /// What containers get that do not say otherwise.
    pub containers: ContainerDefaults,
    /// What the services are configured with.
    pub services: Services,
    /// The daemon as a whole.
    pub daemon: Daemon,
}

/// The daemon's directories.
#[derive(Clone, Debug)]
pub struct Roots {
    /// Where state lies that survives a reboot.
    pub data: PathBuf,
    /// Where state lies that a reboot clears.
    pub exec: PathBuf,
    /// Where files lie for a moment: emptied at start when it is `tmp` in the data root, otherwise somebody else's.
    pub tmp: PathBuf,
}

/// What containers get that do not say otherwise.
#[derive(Clone, Debug)]
pub struct ContainerDefaults {
    /// Logs.
    pub log: LogDefaults,
    /// Name resolution.
    pub dns: DnsDefaults,
    /// OCI runtimes.
    pub runtimes: Runtimes,
    /// Namespaces, cgroups, and what protects the host.
    pub isolation: Isolation,
    /// Bytes of /dev/shm.
    pub shm_size: i64,
    /// Ulimits, unless the container names its own.
    pub ulimits: Vec<api::Ulimit>,
    /// Seconds between the stop signal and SIGKILL; negative: no SIGKILL.
    pub stop_timeout: i64,
    /// How long a container waits at the daemon's start for those that it needs, unless its label says otherwise.
    pub start_wait: Duration,
    /// `--init`.
    pub init: bool,
}

/// Logs of containers that name no driver.
#[derive(Clone, Debug)]
pub struct LogDefaults {
    /// The log driver.
    pub driver: String,
    /// Its options.
    pub options: BTreeMap<String, String>,
}

/// Name resolution of containers that configure none.
#[derive(Clone, Debug)]
pub struct DnsDefaults {
    /// Addresses of servers.
    pub servers: Vec<String>,
    /// Options of resolv.conf(5).
    pub options: Vec<String>,
    /// Search domains.
    pub search: Vec<String>,
    /// The addresses `host-gateway` stands for.
    pub host_gateway_ips: Vec<String>,
}

/// OCI runtimes.
#[derive(Clone, Debug)]
pub struct Runtimes {
    /// Further runtimes by name.
    pub programs: BTreeMap<String, RuntimeProgram>,
    /// The runtime used when a container names none; `gantry` (also `runc` unless configured) is the built-in one.
    pub default: String,
}

/// Namespaces, cgroups, and what protects the host.
#[derive(Clone, Debug)]
pub struct Isolation {
    /// The parent of all container cgroups, as given (`/docker` if empty).
    pub cgroup_parent: String,
    /// `private` or `host`; empty for the kernel's usual (private on cgroup v2, host on v1).
    pub cgroupns_mode: String,
    /// `private` or `shareable`.
    pub ipc_mode: String,
    /// A time namespace for every container, where the kernel has them (time_namespaces(7)).
    pub time_namespaces: bool,
    /// no_new_privs for every container (prctl(2), `PR_SET_NO_NEW_PRIVS`).
    pub no_new_privileges: bool,
    /// Path of the daemon-wide seccomp profile; empty for the built-in one, `unconfined` for none.
    pub seccomp_profile: String,
}

/// What the services are configured with.
#[derive(Clone, Debug)]
pub struct Services {
    /// `overlay`, `copy` or empty for what the data root's file system can do.
    pub storage_driver: String,
    /// The default bridge and what is allowed around it.
    pub network: network::NetworkConfig,
    /// How registries are reached.
    pub registries: registry::Settings,
    /// Which images must be signed, and by whom.
    pub signature_policy: signature::Policy,
    /// Downloads and uploads at one time.
    pub transfers: image::Transfers,
    /// The rules of the garbage collector of images; `None`: it is off.
    pub image_gc: Option<image::collect::Rules>,
    /// Collection of the build cache, what builds may be granted, and how long they are remembered.
    pub builds: ::build::policy::Settings,
    /// Secrets and configs.
    pub secrets: SecretSettings,
    /// When snapshots of volumes are taken.
    pub volume_schedules: Vec<::volume::schedule::Schedule>,
    /// Sizes of volumes at which somebody is told.
    pub volume_alarms: Option<::volume::schedule::Alarms>,
}

/// Secrets and configs of this host.
#[derive(Clone, Debug, Default)]
pub struct SecretSettings {
    /// Clients of the API make and list them.
    pub local: bool,
    /// Where the key lies that they are encrypted with.
    pub key_file: PathBuf,
}

/// The daemon as a whole: what `/info` shows of it, and how it ends.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// Labels of the engine.
    pub labels: Vec<String>,
    /// Debug mode.
    pub debug: bool,
    /// Experimental mode, shown by `/_ping`, too.
    pub experimental: bool,
    /// Clients are told to build with BuildKit.
    pub buildkit: bool,
    /// Registries that may be reached without verified TLS.
    pub insecure_registries: Vec<String>,
    /// Mirrors of Docker Hub.
    pub registry_mirrors: Vec<String>,
    /// Addresses served without client-verified TLS, for the warnings of `/info`.
    pub insecure_listeners: Vec<String>,
    /// Containers keep running over a graceful shutdown.
    pub live_restore: bool,
    /// Seconds a graceful shutdown waits for containers; negative: without bound.
    pub shutdown_timeout: i64,
}

/// An OCI command-line runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeProgram {
    /// A path, or a name looked up in the daemon's PATH.
    pub path: String,
    /// Arguments before the runtime's own.
    pub args: Vec<String>,
    /// What it says it can do, a JSON object; empty if it says nothing.
    pub features: String,
}

/// Names that mean the built-in runtime unless configured otherwise.
pub const BUILT_IN_RUNTIMES: [&str; 3] = ["gantry", "runc", "io.containerd.runc.v2"];

impl Roots {
    /// The daemon's directory of one container.
    pub fn container(&self, id: &str) -> PathBuf {
        self.data.join("containers").join(id)
    }

    /// Where the names of networks lie.
    pub fn names(&self) -> PathBuf {
        self.exec.join("names")
    }

    /// The exec directory of one container.
    pub fn run(&self, id: &str) -> PathBuf {
        self.exec.join(id)
    }
}
