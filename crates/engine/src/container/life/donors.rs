//! The containers whose namespaces another one joins (`container:<id>`).
//!
//! Who they are is looked up by name; their namespaces are opened by the pidfd of their first process, which comes from its
//! parent, the monitor. A number alone could be another process's by then, of the host perhaps.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use model::{Error, Kind, Result};
use runtime::oci::NamespaceKind;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sys::clone::Flags;

use super::files;
use crate::container::Containers;
use crate::container::definition::Definition;
use crate::container::definition::modes::{IpcMode, PidMode};
use crate::container::view::ContainerView;

/// What is joined of other containers, as they were when they were looked up.
#[derive(Default)]
pub struct Donors {
    /// The network namespace's.
    pub network: Option<Arc<ContainerView>>,
    /// The IPC namespace's, and `/dev/shm`'s.
    pub ipc: Option<Arc<ContainerView>>,
    /// The PID namespace's.
    pub pid: Option<Arc<ContainerView>>,
}

impl Donors {
    /// Those of this container; an error tells which of them does not run or does not share.
    pub fn find(containers: &Containers, row: &Definition) -> Result<Donors> {
        let parsed = row.parsed();
        Ok(Donors {
            network: parsed.network.container().map(|other| network(containers, row, other)).transpose()?,
            ipc: match &parsed.ipc {
                IpcMode::Container(other) => Some(ipc(containers, other)?),
                _ => None,
            },
            pid: match &parsed.pid {
                PidMode::Container(other) => Some(pid(containers, other)?),
                _ => None,
            },
        })
    }

    /// Descriptors of all that the specification joins.
    pub fn open(&self) -> Result<Vec<(NamespaceKind, OwnedFd)>> {
        let wanted = [
            (&self.network, NamespaceKind::Network, Flags::NEWNET),
            (&self.ipc, NamespaceKind::Ipc, Flags::NEWIPC),
            (&self.ipc, NamespaceKind::Mount, Flags::NEWNS),
            (&self.pid, NamespaceKind::Pid, Flags::NEWPID),
        ];
        let wanted = wanted.into_iter().filter_map(|(donor, kind, flag)| Some((donor.as_ref()?, kind, flag)));
        wanted.map(|(donor, kind, flag)| Ok((kind, namespace(donor, flag)?))).collect()
    }
}

/// One namespace of a container that runs.
fn namespace(donor: &ContainerView, kind: Flags) -> Result<OwnedFd> {
    let open = || match &donor.init {
        Some(init) => sys::ns::of_process(init.as_fd(), kind),
        None => sys::ns::of_process(of_earlier_version(donor)?.as_fd(), kind),
    };
    open().map_err(|error| match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::SRCH | Errno::NOENT) => not_running(donor.row.id.as_str()),
        _ => Error::from(error).prefix(format!("joining a namespace of container {}", donor.row.id.as_str())),
    })
}

/// The first process of a container that runs.
pub(in crate::container) fn first_process(view: &ContainerView) -> Result<OwnedFd> {
    let opened = match &view.init {
        Some(init) => init.try_clone(),
        None => of_earlier_version(view),
    };
    Ok(opened?)
}

/// The first process of a container whose monitor does not pass it: by its number, if that is still a process of the
/// container's control group.
fn of_earlier_version(donor: &ContainerView) -> std::io::Result<OwnedFd> {
    let gone = || std::io::Error::from(Errno::SRCH);
    let number = Pid::from_raw(donor.pid).ok_or_else(gone)?;
    let pidfd = pidfd_open(number, PidfdFlags::empty())?;
    let place = donor.row.run.place.as_ref().ok_or_else(gone)?;
    if is_member(pidfd.as_fd(), &place.cgroup)? { Ok(pidfd) } else { Err(gone()) }
}

/// Whether a process is in the control group of this path or below it.
#[expect(clippy::disallowed_methods, reason = "cgroup files, which are in memory")]
fn is_member(pidfd: BorrowedFd<'_>, cgroup: &str) -> std::io::Result<bool> {
    let text = std::fs::read_to_string(format!("/proc/{}/cgroup", sys::process::number(pidfd)?))?;
    // It has not been another process's meanwhile.
    sys::process::signal(pidfd, 0)?;
    Ok(names(&text, cgroup))
}

/// Whether `/proc/<pid>/cgroup` (cgroups(7)) names a control group of the container whose path, or whose systemd form
/// `slice:prefix:id`, is `cgroup`.
fn names(text: &str, cgroup: &str) -> bool {
    let id = cgroup.rsplit(['/', ':']).next().filter(|id| !id.is_empty());
    id.is_some_and(|id| text.split(['/', '-', '.', '\n']).any(|part| part == id))
}

/// That it is not there is the daemon's fault by now.
fn network(containers: &Containers, row: &Definition, container: &str) -> Result<Arc<ContainerView>> {
    let absent = |e: Error| if e.kind() == Kind::NotFound { e.with_kind(Kind::System) } else { e };
    let joining = |e: Error| absent(e).prefix("joining network namespace of container");
    let view = containers.find(container).map_err(joining)?.view();
    if view.row.id == row.id {
        return Err(joining(files::joins_itself()));
    }
    if view.row.state.is_restarting() {
        return Err(restarting(container).prefix("cannot join network namespace of container"));
    }
    let (name, state) = (&view.row.name, view.row.state.word());
    match view.pid {
        0 => Err(Error::conflict(format!(
            "cannot join network namespace of a non running container: container {name} is {state}"
        ))),
        _ => Ok(view),
    }
}

/// If it shares it.
fn ipc(containers: &Containers, container: &str) -> Result<Arc<ContainerView>> {
    let joined = || {
        let view = running(containers, container)?;
        match view.row.parsed().ipc.is_shared() {
            true => Ok(view),
            false => Err(Error::invalid(format!(
                "container {container}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
            ))),
        }
    };
    joined().map_err(|e: Error| e.prefix("failed to join IPC namespace"))
}

fn pid(containers: &Containers, container: &str) -> Result<Arc<ContainerView>> {
    running(containers, container).map_err(|e| e.prefix("failed to join PID namespace").with_kind(Kind::System))
}

fn running(containers: &Containers, container: &str) -> Result<Arc<ContainerView>> {
    let view = containers.find(container).map_err(|e| e.with_kind(Kind::InvalidParameter))?.view();
    match view.pid {
        _ if view.row.state.is_restarting() => Err(restarting(container)),
        0 => Err(not_running(container)),
        _ => Ok(view),
    }
}

fn not_running(container: &str) -> Error {
    Error::conflict(format!("container {container} is not running"))
}

/// What is said of one that waits for its restart.
pub fn restarting(container: &str) -> Error {
    Error::conflict(format!("Container {container} is restarting, wait until the container is running"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_control_group_is_named() {
        let plain = "4:memory:/docker/abc\n0::/docker/abc/below\n";
        let scope = "0::/system.slice/docker-abc.scope\n";
        assert!(names(plain, "/docker/abc") && names(scope, "system.slice:docker:abc"));
        for other in ["/docker/ab", "/docker/abcd", "", "/"] {
            assert!(!names(plain, other) && !names(scope, other), "{other}");
        }
        let own = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).unwrap();
        assert!(!is_member(own.as_fd(), "/docker/0123456789abcdef").unwrap());
    }
}
