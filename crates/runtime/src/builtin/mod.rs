//! The built-in runtime: one clone3 with every namespace, one init, one execve.
//!
//! `start` prepares all it can in the monitor (cgroup, limits, descriptors), clones, and waits for a close-on-exec socket to
//! close: closed without a word means that the program runs. The child's line of work is `init`; `enter` is that of an
//! exec; both end in `program`. Only a single-threaded process may call this (clone3 refuses otherwise).

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use model::Context;
use rustix::io::Errno;
use sys::cgroup::{Cgroup, Layout, Version};
use sys::clone::{Flags, Side, clone3};
use sys::process::{self, Block};
use sys::{ns, pty};

use crate::error::{At, Stage, StartError};
use crate::{Bundle, Process, Runtime, Scope, Stdio, oci};

mod devices;
mod enter;
mod init;
mod limits;
mod mounts;
mod namespaces;
mod options;
mod program;
mod protect;
mod report;
mod rootfs;
mod sysctl;
mod tree;

use enter::Enter;
use init::Init;
use report::Reporter;

/// Exit code of a child that reported an error: nobody sees it.
const EXIT_REPORTED: i32 = 1;

/// The built-in runtime. One per monitor: starting and entering move the calling process's `pid_for_children` into the
/// container's PID namespace for good, so that an instance serves one container only.
#[derive(Debug, Default)]
pub struct Builtin {
    /// The hierarchies, if somebody has looked already.
    layout: Option<Layout>,
    /// Whether `pid_for_children` is the container's already.
    joined: std::cell::Cell<bool>,
    /// The container's root file system. Without it the init's exit would take the last reference away, and wait until
    /// all that the disk below the overlay has not written yet is written.
    root: std::cell::RefCell<Option<OwnedFd>>,
}

impl Builtin {
    /// `layout`: what [`Layout::detect`] says, if it was asked already.
    pub fn new(layout: Option<Layout>) -> Builtin {
        Builtin { layout, ..Builtin::default() }
    }

    fn cgroup(&self, bundle: &Bundle) -> std::io::Result<Cgroup> {
        let detected;
        let layout = match &self.layout {
            Some(layout) => layout,
            None => {
                detected = Layout::detect()?;
                &detected
            }
        };
        layout.at(&bundle.spec.linux.cgroups_path)
    }

    /// The start, without cleaning up after a failure. On v1, where a cgroup is ten directories, the parent makes them
    /// while the child is mounting; the child joins them before it mounts its view of them.
    fn launch(
        &self,
        bundle: &Bundle,
        cgroup: &Cgroup,
        (io, netns): (Stdio, Option<BorrowedFd<'_>>),
        born: &mut dyn FnMut(i32) -> Result<(), StartError>,
    ) -> Result<Process, StartError> {
        let namespaces = namespaces::plan(&bundle.spec.linux.namespaces, netns)?;
        // A child that is somebody else by then could not join any more.
        let late = cgroup.version() == Version::V1 && !namespaces.new.contains(Flags::NEWUSER);
        if !late {
            prepare_cgroup(bundle, cgroup)?;
        }
        let birthplace = cgroup.create_birthplace().at(|| Stage::Cgroup, "")?;
        if let Some(pid) = &namespaces.join_pid {
            ns::join(pid.as_fd(), Flags::NEWPID).at(|| Stage::Namespace, "setns")?;
            self.joined.set(true);
        }
        let (listener, reporter) = report::pair()?;
        let side = clone3(namespaces.new, birthplace.as_ref().map(AsFd::as_fd)).at(|| Stage::Clone, "clone3")?;
        let (pid, pidfd) = match side {
            Side::Child => {
                // Else the child would not notice that its parent is gone.
                drop(listener);
                Init { bundle, namespaces: &namespaces, cgroup, late, io, reporter }.run()
            }
            Side::Parent { pid, pidfd } => (pid, pidfd),
        };
        drop((reporter, io));
        let assist = || {
            if late {
                prepare_cgroup(bundle, cgroup)?;
                listener.go();
            } else if namespaces.new.contains(Flags::NEWUSER) {
                write_maps(pid, &bundle.spec.linux)?;
                listener.go();
            }
            Ok(())
        };
        assist().inspect_err(|_| abandon(&pidfd))?;
        born(pid).inspect_err(|_| abandon(&pidfd))?;
        let (process, root) = finish(listener, pid, pidfd)?;
        self.root.replace(root);
        Ok(process)
    }

    /// Makes the next children of this process members of the container's PID namespace.
    fn join_pid_namespace(&self, bundle: &Bundle, init: &Process) -> Result<(), StartError> {
        let own = bundle.spec.linux.namespaces.iter().any(|n| n.kind == oci::NamespaceKind::Pid);
        if own && !self.joined.get() {
            ns::join(init.pidfd.as_fd(), Flags::NEWPID).map_err(|e| not_running(bundle, &e))?;
            self.joined.set(true);
        }
        Ok(())
    }
}

impl Runtime for Builtin {
    fn start(
        &self,
        bundle: &Bundle,
        io: Stdio,
        netns: Option<BorrowedFd<'_>>,
        born: &mut dyn FnMut(i32) -> Result<(), StartError>,
    ) -> Result<Process, StartError> {
        sysctl::check(&bundle.spec.linux)?;
        let cgroup = self.cgroup(bundle).at(|| Stage::Cgroup, "")?;
        // The error that happened first is the one to tell.
        self.launch(bundle, &cgroup, (io, netns), born).inspect_err(|_| drop(cgroup.remove()))
    }

    fn exec(&self, bundle: &Bundle, init: &Process, p: &oci::Process, io: Stdio) -> Result<Process, StartError> {
        let keyring =
            CString::new(format!("_ses.{}", bundle.id)).map_err(|_| StartError::new(Stage::Clone, 0, "id"))?;
        let cgroup = self.cgroup(bundle).at(|| Stage::Cgroup, "")?;
        let birthplace = cgroup.birthplace().map_err(|e| not_running(bundle, &e))?;
        self.join_pid_namespace(bundle, init)?;
        let (listener, reporter) = report::pair()?;
        let namespaces = namespaces::of_container(&bundle.spec.linux.namespaces);
        let side = clone_into(&cgroup, birthplace, init.pid);
        // The PID namespace of a dead init takes no new process.
        let side = side.map_err(|e| match e.kind() {
            std::io::ErrorKind::OutOfMemory => not_running(bundle, &e),
            _ => StartError::new(Stage::Clone, e.raw_os_error().unwrap_or(0), "clone3"),
        })?;
        let (pid, pidfd) = match side {
            Side::Child => {
                drop(listener);
                Enter {
                    process: p,
                    seccomp: &bundle.seccomp,
                    init: init.pidfd.as_fd(),
                    namespaces,
                    cgroup: &cgroup,
                    keyring: &keyring,
                    io,
                    reporter,
                }
                .run()
            }
            Side::Parent { pid, pidfd } => (pid, pidfd),
        };
        drop((reporter, io));
        Ok(finish(listener, pid, pidfd)?.0)
    }

    fn kill(&self, bundle: &Bundle, process: &Process, signal: i32, scope: Scope) -> model::Result<()> {
        match scope {
            Scope::Process => process::signal(&process.pidfd, signal).map_err(|e| match e.raw_os_error() {
                Some(errno) if errno == rustix::io::Errno::SRCH.raw_os_error() => {
                    model::Error::not_found("process already finished").with_source(e)
                }
                _ => model::Error::from(e),
            }),
            Scope::All => {
                for pid in cgroup(bundle)?.processes()?.into_iter().filter_map(rustix::process::Pid::from_raw) {
                    let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
                    let _ = fd.map_err(std::io::Error::from).and_then(|fd| process::signal(&fd, signal));
                }
                Ok(())
            }
        }
    }

    fn pause(&self, bundle: &Bundle) -> model::Result<()> {
        cgroup(bundle)?.freeze().context("unable to freeze")
    }

    fn resume(&self, bundle: &Bundle) -> model::Result<()> {
        cgroup(bundle)?.thaw().context("unable to thaw")
    }

    fn update(&self, bundle: &Bundle, resources: &oci::Resources) -> model::Result<()> {
        Ok(cgroup(bundle)?.apply(&limits::convert(resources))?)
    }

    fn cleanup(&self, bundle: &Bundle) -> model::Result<()> {
        self.cgroup(bundle).and_then(|cgroup| cgroup.remove()).context("failed to remove the container's cgroup")
    }
}

/// The container's cgroup, for reading statistics or acting on all its processes.
pub fn cgroup(bundle: &Bundle) -> model::Result<Cgroup> {
    Ok(Layout::detect()?.at(&bundle.spec.linux.cgroups_path)?)
}

/// A child in the container's cgroup or, if that takes no processes any more because the container divides it (a systemd, a
/// container engine), in the one of the container's init.
fn clone_into(cgroup: &Cgroup, birthplace: Option<OwnedFd>, init: i32) -> std::io::Result<Side> {
    let clone = |place: Option<OwnedFd>| clone3(Flags::default(), place.as_ref().map(AsFd::as_fd));
    match clone(birthplace) {
        Err(e) if e.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => clone(cgroup.birthplace_of(init)?),
        other => other,
    }
}

/// Makes the cgroup and sets its limits.
fn prepare_cgroup(bundle: &Bundle, cgroup: &Cgroup) -> Result<(), StartError> {
    let resources = &bundle.spec.linux.resources;
    cgroup.create().at(|| Stage::Cgroup, "")?;
    cgroup.apply(&limits::convert(resources)).at(|| Stage::Cgroup, "")?;
    cgroup.set_devices(&limits::device_rules(&resources.devices)).at(|| Stage::Cgroup, "")
}

fn not_running(bundle: &Bundle, cause: &std::io::Error) -> StartError {
    let text = format!("container {} is not running", bundle.id);
    StartError::new(Stage::NotRunning, cause.raw_os_error().unwrap_or(0), text)
}

/// Waits for the child's execve: the process and the root file system.
fn finish(listener: report::Listener, pid: i32, pidfd: OwnedFd) -> Result<(Process, Option<OwnedFd>), StartError> {
    match listener.listen() {
        Ok(kept) => Ok((Process { pid, pidfd, console: kept.console }, kept.root)),
        Err(error) => {
            abandon(&pidfd);
            Err(error)
        }
    }
}

/// Ends and reaps a child that will not become a container's process.
fn abandon(pidfd: &OwnedFd) {
    const SIGKILL: i32 = 9;
    let _ = process::signal(pidfd, SIGKILL);
    let _ = process::wait(pidfd.as_fd(), Block::Yes);
}

/// The child's frame: nothing ever leaves it, neither by return nor by panic.
fn run_child(reporter: &Reporter, body: impl FnOnce() -> Result<(), StartError>) -> ! {
    // A monitor that dies in the middle of a start leaves nothing behind. (Changed credentials end this; it is set anew
    // before the execve.)
    let _ = process::die_with_parent();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    let error = match result {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error),
        Err(_) => Some(StartError::new(Stage::Clone, 0, "panic in the container's init")),
    };
    if let Some(error) = error {
        reporter.error(&error);
    }
    process::exit_now(EXIT_REPORTED)
}

/// What is set through `/proc/self`: the host's, before anything of the container is mounted or joined, so that no write
/// can be redirected (CVE-2025-52881). The labels take effect at the next execve.
fn write_attributes(p: &oci::Process) -> Result<(), StartError> {
    if let Some(score) = p.oom_score_adj {
        std::fs::write("/proc/self/oom_score_adj", score.to_string()).at(|| Stage::Rlimit, "oom_score_adj")?;
    }
    if let Some(profile) = p.apparmor_profile.as_deref().filter(|p| !p.is_empty()) {
        let text = format!("exec {profile}");
        // The old place is shared with other security modules.
        std::fs::write("/proc/self/attr/apparmor/exec", &text)
            .or_else(|_| std::fs::write("/proc/self/attr/exec", &text))
            .at(|| Stage::Seccomp, &format!("unable to apply apparmor profile {profile:?}"))?;
    }
    if let Some(label) = p.selinux_label.as_deref().filter(|l| !l.is_empty()) {
        std::fs::write("/proc/self/attr/exec", label).at(|| Stage::Seccomp, "unable to set the SELinux label")?;
    }
    Ok(())
}

/// Gives the terminal its size.
fn size_console(pair: &pty::Pair, p: &oci::Process) -> Result<(), StartError> {
    let Some(size) = p.console_size else { return Ok(()) };
    pty::resize(&pair.master, size.height, size.width).at(|| Stage::Console, "TIOCSWINSZ")
}

/// The id maps of a child in a new user namespace.
fn write_maps(pid: i32, linux: &oci::Linux) -> Result<(), StartError> {
    for (file, maps) in [("uid_map", &linux.uid_mappings), ("gid_map", &linux.gid_mappings)] {
        let lines: String = maps.iter().map(|m| format!("{} {} {}\n", m.container_id, m.host_id, m.size)).collect();
        std::fs::write(format!("/proc/{pid}/{file}"), lines).at(|| Stage::UserMap, file)?;
    }
    Ok(())
}
