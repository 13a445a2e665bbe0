//! Facts of the machine and of this daemon, read once at boot.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use model::fault::Faults;
use model::lock::Mutex;
use runtime::seccomp::Program;
use runtime::spec::{self, SeccompChoice};
use runtime::{Stage, StartError, What};
use sys::cgroup::Version;

use crate::abilities::Abilities;
use crate::apparmor::AppArmor;
use crate::quarantine::Quarantine;

/// Facts of the machine and of this daemon.
#[derive(Clone, Debug)]
pub struct Host {
    /// The engine's id, kept in the data root.
    pub engine_id: String,
    /// `uname -r`.
    pub kernel: String,
    /// The machine as Docker names it (`x86_64`, `aarch64`).
    pub machine: String,
    /// The architecture as images name it (`amd64`, `arm64`).
    pub architecture: String,
    /// The host's name.
    pub hostname: String,
    /// `PRETTY_NAME` of os-release.
    pub operating_system: String,
    /// `VERSION_ID` of os-release.
    pub os_version: String,
    /// Processors that are online.
    pub processors: usize,
    /// Bytes.
    pub memory: u64,
    /// Which processors are online, as a list (`0-3`).
    pub cpus: String,
    /// Which memory nodes are online, as a list.
    pub memory_nodes: String,
    /// Soft and hard limit of open descriptors that the daemon was started with; containers get them.
    pub descriptors: (u64, u64),
    /// Where control groups are.
    pub cgroups: sys::cgroup::Layout,
    /// What they can do.
    pub abilities: Abilities,
    /// Gantry's own executable, sealed: what monitors are started from.
    pub executable: Arc<std::os::fd::OwnedFd>,
    /// `None`: the kernel has none.
    pub apparmor: Option<AppArmor>,
    /// What the runtime's specifications depend on.
    pub runtime: runtime::spec::HostFeatures,
    /// Compiled system call filters.
    pub seccomp: Arc<Programs>,
    /// The path of the executable, for the bind mount of `--init`.
    pub executable_path: PathBuf,
    /// What a test makes fail; nothing otherwise.
    pub faults: Faults,
    /// What cannot be read of the data root.
    pub quarantine: Quarantine,
    /// `major.minor` of the newest API.
    pub api_version: &'static str,
    /// The oldest API served.
    pub min_api_version: String,
}

impl Host {
    /// Reads the facts.
    #[expect(clippy::disallowed_methods, reason = "the kernel's own files, which are in memory")]
    pub fn read(
        engine_id: String,
        min_api_version: String,
        faults: Faults,
        quarantine: Quarantine,
    ) -> model::Result<Host> {
        let uname = rustix::system::uname();
        let text = |c: &std::ffi::CStr| c.to_string_lossy().into_owned();
        let machine = text(uname.machine());
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_string();
        let release = os_release();
        let cgroups = sys::cgroup::Layout::detect()?;
        let apparmor = AppArmor::detect();
        apparmor.as_ref().map_or(Ok(()), AppArmor::ensure_default)?;
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory =
            memory.lines().find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.trim().parse().ok());
        Ok(Host {
            engine_id,
            kernel: text(uname.release()),
            architecture: architecture(&machine).to_string(),
            machine,
            hostname: text(uname.nodename()),
            operating_system: release.get("PRETTY_NAME").cloned().unwrap_or_else(|| "Linux".into()),
            os_version: release.get("VERSION_ID").cloned().unwrap_or_default(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory.unwrap_or(0u64) * 1024,
            cpus: read("/sys/devices/system/cpu/online"),
            memory_nodes: Some(read("/sys/devices/system/node/online"))
                .filter(|nodes| !nodes.is_empty())
                .unwrap_or_else(|| "0".into()),
            descriptors: sys::process::raise_descriptor_limit(),
            abilities: Abilities::of(&cgroups),
            cgroups,
            executable: Arc::new(sys::exe::sealed()?),
            executable_path: fs::read_link("/proc/self/exe")?,
            apparmor,
            runtime: runtime::spec::HostFeatures::probe(),
            seccomp: Arc::default(),
            faults,
            quarantine,
            api_version: "1.56",
            min_api_version,
        })
    }

    /// The cgroup namespace of containers when nobody says.
    pub fn default_cgroupns_mode(&self) -> &'static str {
        if self.has_cgroup_v2() { "private" } else { "host" }
    }

    /// Whether containers live in cgroup v2.
    pub fn has_cgroup_v2(&self) -> bool {
        self.cgroups.version() == Version::V2
    }
}

/// Filters given to the kernel, worked out and compiled once each: containers mostly share one.
#[derive(Debug, Default)]
pub struct Programs {
    compiled: Mutex<Vec<(Wanted, Program)>>,
}

/// What a filter depends on, this machine apart.
#[derive(Debug, PartialEq)]
struct Wanted {
    choice: SeccompChoice,
    privileged: bool,
    capabilities: Vec<String>,
}

/// Filters kept.
const PROGRAMS: usize = 32;

impl Programs {
    /// The program of a container's filter; empty: none. The filter is taken out of `security`: nobody needs to work it
    /// out once more.
    pub fn program(&self, security: &mut spec::Security, host: &spec::HostFeatures) -> model::Result<Program> {
        let mut compiled = self.compiled.lock();
        let is_it = |known: &Wanted| {
            (&known.choice, known.privileged, &known.capabilities)
                == (&security.seccomp, security.privileged, &security.capabilities)
        };
        let program = match compiled.iter().find(|(known, _)| is_it(known)) {
            Some((_, program)) => program.clone(),
            None => {
                let filter = spec::filter(security, host)?;
                let compile = |filter| runtime::seccomp::compile(&filter, runtime::seccomp::Arch::default());
                let program = filter.map(compile).transpose().map_err(refused_by_runtime)?.unwrap_or_default();
                if compiled.len() == PROGRAMS {
                    compiled.remove(0);
                }
                let (privileged, capabilities) = (security.privileged, security.capabilities.clone());
                compiled.push((Wanted { choice: security.seccomp.clone(), privileged, capabilities }, program.clone()));
                program
            }
        };
        security.seccomp = SeccompChoice::Unconfined;
        Ok(program)
    }
}

/// In the reference it is the runtime that finds out that a filter cannot be made.
fn refused_by_runtime(error: model::Error) -> model::Error {
    StartError::new(Stage::Validation, 0, error.to_string()).to_error(What::Create).0
}

fn architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "i686" | "i386" => "386",
        "armv7l" | "armv6l" => "arm",
        other => other,
    }
}

/// os-release(5) as a map.
#[expect(clippy::disallowed_methods, reason = "the kernel's own files, which are in memory")]
fn os_release() -> BTreeMap<String, String> {
    let text = fs::read_to_string("/etc/os-release").or_else(|_| fs::read_to_string("/usr/lib/os-release"));
    let pair = |line: &str| {
        let (key, value) = line.split_once('=')?;
        Some((key.trim().to_string(), value.trim().trim_matches(['"', '\'']).to_string()))
    };
    text.unwrap_or_default().lines().filter_map(pair).collect()
}
