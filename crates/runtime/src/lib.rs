//! From an OCI specification to a running process, and exec into it.
//!
//! Two implementations of [`Runtime`]: [`builtin`], one clone3 and a small init, and [`cli`], any OCI command-line
//! runtime. Both run in the container's monitor, a single-threaded process without an async runtime; [`spec`] and
//! [`seccomp`] are pure and run in the daemon. Nothing here knows images, networks or the API.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub mod action;
pub mod builtin;
pub mod cli;
pub mod error;
pub mod features;
mod foreign;
pub mod init;
pub mod layers;
pub mod memory_files;
pub mod oci;
mod overlay;
pub mod pending;
mod process;
pub mod seccomp;
pub mod spec;
pub mod user;
pub mod view;

pub use action::{Action, Begun};
pub use error::{Stage, StartError, What};
pub use pending::{Pending, Progress};
pub use process::{Process, Stdio};

/// Everything that a runtime needs to know of one container. Travels from the daemon to the monitor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bundle {
    /// The container's id, 64 hex digits.
    pub id: String,
    pub spec: oci::Spec,
    pub rootfs: Rootfs,
    /// The compiled seccomp program ([`seccomp::compile`]).
    pub seccomp: seccomp::Program,
    /// Directory of the container under the exec root; only command-line runtimes write there.
    pub state_dir: PathBuf,
}

impl Bundle {
    /// Puts descriptors of this process in the places of what the specification joins ([`oci::PASSED`]) and of the detached
    /// mounts that it attaches ([`oci::Mount::tree`]). They stay open until the program runs.
    pub fn pass(&mut self, passed: &[(oci::NamespaceKind, OwnedFd)], trees: &[OwnedFd]) {
        for mount in &mut self.spec.mounts {
            if let Some(tree) = mount.tree.and_then(|number| trees.get(usize::from(number))) {
                // For this process and its children.
                mount.source = format!("/proc/self/fd/{}", tree.as_raw_fd());
            }
        }
        let of = |kind| passed.iter().find(|(other, _)| *other == kind).map(|(_, fd)| fd);
        let awaited = |path: &Option<String>| path.as_deref() == Some(oci::PASSED);
        for namespace in self.spec.linux.namespaces.iter_mut().filter(|namespace| awaited(&namespace.path)) {
            if let Some(fd) = of(namespace.kind) {
                namespace.path = Some(process::path_of(fd.as_fd()));
            }
        }
        for mount in self.spec.mounts.iter_mut().filter(|mount| awaited(&mount.namespace)) {
            if let Some(fd) = of(oci::NamespaceKind::Mount) {
                // For this process and its children, wherever they are by then.
                mount.namespace = Some(format!("/proc/self/fd/{}", fd.as_raw_fd()));
            }
        }
    }
}

/// What becomes the container's `/`. Mounted by the container's init in its own mount namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rootfs {
    /// `lower` is top first.
    Overlay { lower: Vec<PathBuf>, upper: PathBuf, work: PathBuf },
    /// A complete tree.
    Dir(PathBuf),
}

/// Whom a signal reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// The one process.
    Process,
    /// Every process of the container's cgroup.
    All,
}

/// How processes are started and controlled.
///
/// Life cycle: `start` once; then any number of `exec`, `kill`, `pause`, `resume`, `update`; after the init process has
/// been reaped, `cleanup`. Calls block for milliseconds; what may take longer comes back as [`Pending`] or [`Action`]. After a `start` that
/// fails while it is pending `cleanup` is due, too; one that fails at once has cleaned up after itself.
pub trait Runtime {
    /// Begins a start. It ends when the container's program is running (after its `execve`), or tells why it does not.
    /// `netns`: the network namespace to join, in place of one named by the spec; `lo` is up in it. It stays open until the
    /// process runs.
    fn start(&self, bundle: &Bundle, io: Stdio, netns: Option<BorrowedFd<'_>>) -> Result<Box<dyn Pending>, StartError>;
    /// Begins a further process in the container whose first process is `init`.
    fn exec(
        &self,
        bundle: &Bundle,
        init: &Process,
        process: &oci::Process,
        io: Stdio,
    ) -> Result<Box<dyn Pending>, StartError>;
    /// Sends a signal; a process that has ended already is [`model::Kind::NotFound`].
    fn begin_kill(&self, bundle: &Bundle, process: &Process, signal: i32, scope: Scope) -> Begun;
    /// Stops every process of the container from running until it is resumed.
    fn begin_pause(&self, bundle: &Bundle) -> Begun;
    /// Lets every process of the container go on.
    fn begin_resume(&self, bundle: &Bundle) -> Begun;
    /// Kills what is left of the container and removes its cgroup in every hierarchy. Idempotent.
    fn begin_cleanup(&self, bundle: &Bundle) -> Begun;
    /// Applies new limits to the running container.
    fn update(&self, bundle: &Bundle, resources: &oci::Resources) -> model::Result<()>;

    /// As [`Runtime::begin_kill`], to its end.
    fn kill(&self, bundle: &Bundle, process: &Process, signal: i32, scope: Scope) -> model::Result<()> {
        action::finish(self.begin_kill(bundle, process, signal, scope))
    }
    /// As [`Runtime::begin_pause`], to its end.
    fn pause(&self, bundle: &Bundle) -> model::Result<()> {
        action::finish(self.begin_pause(bundle))
    }
    /// As [`Runtime::begin_resume`], to its end.
    fn resume(&self, bundle: &Bundle) -> model::Result<()> {
        action::finish(self.begin_resume(bundle))
    }
    /// As [`Runtime::begin_cleanup`], to its end.
    fn cleanup(&self, bundle: &Bundle) -> model::Result<()> {
        action::finish(self.begin_cleanup(bundle))
    }
}
