//! Which namespaces a container gets: new ones, others' by path, or the host's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use sys::clone::Flags;
use sys::ns;

use crate::error::{At, Stage, StartError};
use crate::oci::{Namespace, NamespaceKind};

/// The `CLONE_NEW*` flag of a kind.
pub(super) fn flag(kind: NamespaceKind) -> Flags {
    match kind {
        NamespaceKind::Pid => Flags::NEWPID,
        NamespaceKind::Network => Flags::NEWNET,
        NamespaceKind::Mount => Flags::NEWNS,
        NamespaceKind::Ipc => Flags::NEWIPC,
        NamespaceKind::Uts => Flags::NEWUTS,
        NamespaceKind::User => Flags::NEWUSER,
        NamespaceKind::Cgroup => Flags::NEWCGROUP,
        NamespaceKind::Time => Flags::NEWTIME,
    }
}

/// The plan for one container.
pub(super) struct Plan {
    /// Made by clone3.
    pub(super) new: Flags,
    /// The cgroup namespace is made by the child, once it is in its cgroup.
    pub(super) new_cgroup: bool,
    /// Joined by the child, in this order; opened while the host's `/proc` is still in sight.
    pub(super) join: Vec<(OwnedFd, Flags)>,
    /// Joined for the last of its processes only ([`super::enter`]).
    pub(super) join_pid: Option<OwnedFd>,
    /// A loopback device to bring up.
    pub(super) new_network: bool,
}

/// `netns`, if given, takes the place of the specification's network namespace.
pub(super) fn plan(wanted: &[Namespace], netns: Option<BorrowedFd<'_>>) -> Result<Plan, StartError> {
    let stage = || Stage::Namespace;
    let mut plan =
        Plan { new: Flags::default(), new_cgroup: false, join: Vec::new(), join_pid: None, new_network: false };
    // A container without a mount namespace would mount on the host.
    plan.new.insert(Flags::NEWNS);
    for namespace in wanted {
        let flag = flag(namespace.kind);
        if namespace.kind == NamespaceKind::Network && netns.is_some() {
            continue;
        }
        let Some(path) = &namespace.path else {
            match namespace.kind {
                NamespaceKind::Cgroup => plan.new_cgroup = true,
                _ => plan.new.insert(flag),
            }
            plan.new_network |= namespace.kind == NamespaceKind::Network;
            continue;
        };
        let fd = rustix::fs::openat(CWD, path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let fd = fd.at(stage, path)?;
        match namespace.kind {
            NamespaceKind::Pid => plan.join_pid = Some(fd),
            // The mount namespace is always our own.
            NamespaceKind::Mount => {
                return Err(StartError::new(stage(), 0, "joining a mount namespace is not supported"));
            }
            // Its capabilities are needed for the others.
            NamespaceKind::User => plan.join.insert(0, (fd, flag)),
            _ => plan.join.push((fd, flag)),
        }
    }
    if let Some(netns) = netns {
        let fd = netns.try_clone_to_owned().at(stage, "dup")?;
        plan.join.push((fd, Flags::NEWNET));
    }
    let own_user = plan.new.contains(Flags::NEWUSER) || plan.join.iter().any(|(_, flag)| *flag == Flags::NEWUSER);
    if plan.join_pid.is_some() && own_user {
        // Its procfs could not be mounted without showing the host's root to that namespace.
        let text = "joining a PID namespace together with a user namespace is not supported";
        return Err(StartError::new(stage(), 0, text));
    }
    Ok(plan)
}

impl Plan {
    /// The child's part.
    pub(super) fn enter(&self) -> Result<(), StartError> {
        for (fd, flag) in &self.join {
            ns::join(fd.as_fd(), *flag).at(|| Stage::Namespace, "setns")?;
        }
        if self.new_network {
            ns::loopback_up().at(|| Stage::Namespace, "loopback")?;
        }
        Ok(())
    }

    /// The child's part once it is in its cgroup.
    pub(super) fn enter_cgroup(&self) -> Result<(), StartError> {
        if self.new_cgroup {
            ns::unshare(Flags::NEWCGROUP).at(|| Stage::Namespace, "unshare")?;
        }
        Ok(())
    }
}

/// The namespaces that an exec joins: every kind that the container does not share with the host.
pub(super) fn of_container(wanted: &[Namespace]) -> Flags {
    let mut flags = Flags::NEWNS;
    wanted.iter().map(|n| flag(n.kind)).for_each(|f| flags.insert(f));
    flags.remove(Flags::NEWPID);
    flags
}
