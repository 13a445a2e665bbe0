//! What the daemon's configuration means to the engine: plain data, immutable, replaced as a whole by a reload.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The engine's configuration. An operation takes it once, at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where state lies that survives a reboot.
    pub data_root: PathBuf,
    /// Where state lies that a reboot clears.
    pub exec_root: PathBuf,
    /// Where files lie for a moment: emptied at start when it is `tmp` in the data root, otherwise somebody else's.
    pub tmp_dir: PathBuf,
    /// `overlay`, `copy` or empty for what the data root's file system can do.
    pub storage_driver: String,
    /// The default log driver and its options.
    pub log_driver: String,
    /// Options of the default log driver.
    pub log_opts: BTreeMap<String, String>,
    /// Further runtimes by name: program path and its leading arguments.
    pub runtimes: BTreeMap<String, RuntimeProgram>,
    /// The runtime used when a container names none; `gantry` (also `runc` unless configured) is the built-in one.
    pub default_runtime: String,
    /// The parent of all container cgroups, as given (`/docker` if empty).
    pub cgroup_parent: String,
    /// `private` or `host`; empty for the kernel's usual (private on cgroup v2, host on v1).
    pub default_cgroupns_mode: String,
    /// `private` or `shareable`.
    pub default_ipc_mode: String,
    /// Bytes of /dev/shm when a container names none.
    pub default_shm_size: i64,
    /// Ulimits given to every container unless it names its own.
    pub default_ulimits: Vec<api::Ulimit>,
    /// Seconds between the stop signal and SIGKILL of containers that do not say.
    pub default_stop_timeout: i64,
    /// `--init` for every container that does not say otherwise.
    pub init: bool,
    /// no_new_privs for every container.
    pub no_new_privileges: bool,
    /// Clients are told to build with BuildKit.
    pub buildkit: bool,
    /// A time namespace for every container, where the kernel has them.
    pub time_namespaces: bool,
    /// Path of the daemon-wide seccomp profile; empty for the built-in one, `unconfined` for none.
    pub seccomp_profile: String,
    /// Seconds a graceful shutdown waits for containers.
    pub shutdown_timeout: i64,
    /// Containers keep running over a graceful shutdown.
    pub live_restore: bool,
    /// Engine labels, shown by `/info`.
    pub labels: Vec<String>,
    /// Debug mode, shown by `/info`.
    pub debug: bool,
    /// Experimental mode, shown by `/info` and `/_ping`.
    pub experimental: bool,
    /// DNS servers, options and search domains of containers that name none.
    pub dns: Vec<String>,
    /// See [`Settings::dns`].
    pub dns_opts: Vec<String>,
    /// See [`Settings::dns`].
    pub dns_search: Vec<String>,
    /// The addresses `host-gateway` stands for.
    pub host_gateway_ips: Vec<String>,
    /// The default bridge and what is allowed around it.
    pub network: network::NetworkConfig,
    /// Registries that may be spoken to without verified TLS, shown by `/info`.
    pub insecure_registries: Vec<String>,
    /// Mirrors of Docker Hub, shown by `/info`.
    pub registry_mirrors: Vec<String>,
    /// How registries are reached.
    pub registries: registry::Settings,
    /// Which images must be signed, and by whom.
    pub signature_policy: signature::Policy,
    /// Downloads and uploads at one time.
    pub transfers: image::Transfers,
    /// The rules of the garbage collector of images; `None`: it is off.
    pub image_gc: Option<image::collect::Rules>,
    /// Addresses served without client-verified TLS, for the warnings of `/info`.
    pub insecure_listeners: Vec<String>,
}

/// An OCI command-line runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeProgram {
    /// A path, or a name looked up in the daemon's PATH.
    pub path: String,
    /// Arguments before the runtime's own.
    pub args: Vec<String>,
}

/// Names that mean the built-in runtime unless configured otherwise.
pub const BUILT_IN_RUNTIMES: [&str; 3] = ["gantry", "runc", "io.containerd.runc.v2"];

impl Settings {
    /// The daemon's directory of one container.
    pub fn container_dir(&self, id: &str) -> PathBuf {
        self.data_root.join("containers").join(id)
    }

    /// The exec directory of one container.
    pub fn run_dir(&self, id: &str) -> PathBuf {
        self.exec_root.join(id)
    }
}
