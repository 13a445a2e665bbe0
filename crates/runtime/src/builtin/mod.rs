//! The built-in runtime: one clone3 with every namespace, one init, one execve.
//!
//! `start` prepares all it can in the monitor (cgroup, limits, descriptors) and clones; a close-on-exec socket that closes
//! without a word means that the program runs ([`birth`]). The child's line of work is `init`; whatever becomes a member of a
//! PID namespace that is there already goes through `enter`; all end in `program`. Only a single-threaded process may call
//! this (clone3 refuses otherwise).

use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use model::Context;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use sys::cgroup::{Cgroup, Layout, Version};
use sys::clone::{Flags, Side, clone3};
use sys::process;
use sys::pty;

use crate::action::{Begun, Stepping};
use crate::error::{At, Stage, StartError};
use crate::pending::{self, Pending};
use crate::{Bundle, Process, Runtime, Scope, Stdio, oci};

mod birth;
mod devices;
pub mod enter;
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

pub use options::WORDS as MOUNT_OPTIONS;

use birth::Birth;
use enter::{Given, Line, Order, Place};
use init::{Init, Shared};
use report::Reporter;

/// Exit code of a child that reported an error: nobody sees it.
const EXIT_REPORTED: i32 = 1;

/// The built-in runtime.
#[derive(Debug, Default)]
pub struct Builtin {
    /// The hierarchies, if somebody has looked already.
    layout: Option<Layout>,
}

impl Builtin {
    /// `layout`: what [`Layout::detect`] says, if it was asked already.
    pub fn new(layout: Option<Layout>) -> Builtin {
        Builtin { layout }
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
    ) -> Result<Birth, StartError> {
        let namespaces = namespaces::plan(&bundle.spec.linux.namespaces, netns)?;
        // A child that is somebody else by then could not join any more.
        let late = cgroup.version() == Version::V1 && !namespaces.new.contains(Flags::NEWUSER);
        if !late {
            prepare_cgroup(bundle, cgroup)?;
        }
        let birthplace = cgroup.create_birthplace().at(|| Stage::Cgroup, "")?;
        let (listener, reporter) = report::pair()?;
        let (heard, shared) = match &namespaces.join_pid {
            Some(namespace) => {
                let (line, status, note) = Line::new()?;
                (Some((status, note)), Some(Shared::new(namespace.as_fd(), line)?))
            }
            None => (None, None),
        };
        let side = clone3(namespaces.new, birthplace.as_ref().map(AsFd::as_fd)).at(|| Stage::Clone, "clone3")?;
        let (pid, pidfd) = match side {
            Side::Child => {
                // Else the child would not notice that its parent is gone.
                drop((listener, heard));
                Init { bundle, namespaces: &namespaces, cgroup, late, shared: shared.as_ref(), io, reporter }.run()
            }
            Side::Parent { pid, pidfd } => (pid, pidfd),
        };
        drop((reporter, io, shared));
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
        let assisted = assist();
        let birth = match heard {
            Some(heard) => Birth::of_grandchild(listener, heard, pidfd, pending::START_WAIT),
            None => Birth::of_child(listener, pid, pidfd),
        };
        match assisted {
            Ok(()) => Ok(birth),
            Err(error) => {
                drop(pending::abandon(Box::new(birth)));
                Err(error)
            }
        }
    }

    /// Begins the stage of an exec, outside of the container's PID namespace.
    fn enter(
        &self,
        bundle: &Bundle,
        init: &Process,
        order: OwnedFd,
        reporter: &Reporter,
    ) -> Result<OwnedFd, StartError> {
        let cgroup = self.cgroup(bundle).at(|| Stage::Cgroup, "")?;
        let birthplace = cgroup.birthplace().map_err(|e| not_running(bundle, &e))?;
        let executable = sys::exe::own().at(|| Stage::Clone, "open /proc/self/exe")?;
        let side = clone_into(&cgroup, birthplace, init.pid);
        match side.at(|| Stage::Clone, "clone3")? {
            Side::Child => run_child(
                |error| reporter.error(error),
                || {
                    process::reset_signals().at(|| Stage::Clone, "signals")?;
                    cgroup.enter_v1().at(|| Stage::Cgroup, "enter")?;
                    enter::become_stage(executable.as_fd(), order)
                },
            ),
            Side::Parent { pidfd, .. } => Ok(pidfd),
        }
    }
}

impl Runtime for Builtin {
    fn start(&self, bundle: &Bundle, io: Stdio, netns: Option<BorrowedFd<'_>>) -> Result<Box<dyn Pending>, StartError> {
        sysctl::check(&bundle.spec.linux)?;
        let cgroup = self.cgroup(bundle).at(|| Stage::Cgroup, "")?;
        match self.launch(bundle, &cgroup, (io, netns)) {
            Ok(birth) => Ok(Box::new(birth)),
            Err(error) => {
                // The error that happened first is the one to tell.
                let _ = cgroup.remove();
                Err(error)
            }
        }
    }

    fn exec(
        &self,
        bundle: &Bundle,
        init: &Process,
        p: &oci::Process,
        io: Stdio,
    ) -> Result<Box<dyn Pending>, StartError> {
        let (listener, reporter) = report::pair()?;
        let (line, status, note) = Line::new()?;
        let namespaces = &bundle.spec.linux.namespaces;
        let given = if p.terminal {
            Given::Terminal
        } else {
            Given::Pipes([&io.stdin, &io.stdout, &io.stderr].map(Option::is_some))
        };
        let place = Place {
            container: bundle.id.clone(),
            join: namespaces::of_container(namespaces).bits(),
            other_pid_namespace: namespaces.iter().any(|n| n.kind == oci::NamespaceKind::Pid),
            given,
            filter: (0, 0),
        };
        let proc = open_proc()?;
        let order = Order {
            place,
            process: p,
            seccomp: &bundle.seccomp,
            reporter: &reporter,
            namespace: init.pidfd.as_fd(),
            proc: proc.as_fd(),
            line: &line,
            io: if p.terminal { &Stdio::default() } else { &io },
        };
        let stage = self.enter(bundle, init, order.send()?, &reporter)?;
        Ok(Box::new(Birth::of_grandchild(listener, (status, note), stage, pending::ENTER_WAIT)))
    }

    fn begin_kill(&self, bundle: &Bundle, process: &Process, signal: i32, scope: Scope) -> Begun {
        match scope {
            Scope::Process => crate::process::signal(process, signal)?,
            Scope::All => cgroup(bundle)?.signal_all(signal)?,
        }
        Ok(None)
    }

    fn begin_pause(&self, bundle: &Bundle) -> Begun {
        let what = "unable to freeze";
        Stepping::begin(cgroup(bundle)?.begin_freeze().context(what)?, what)
    }

    fn begin_resume(&self, bundle: &Bundle) -> Begun {
        cgroup(bundle)?.thaw().context("unable to thaw")?;
        Ok(None)
    }

    fn begin_cleanup(&self, bundle: &Bundle) -> Begun {
        let what = "failed to remove the container's cgroup";
        match self.cgroup(bundle).and_then(|cgroup| cgroup.begin_removal()).context(what)? {
            None => Ok(None),
            Some(step) => Stepping::begin(step, what),
        }
    }

    fn update(&self, bundle: &Bundle, resources: &oci::Resources) -> model::Result<()> {
        Ok(cgroup(bundle)?.apply(&limits::convert(resources))?)
    }
}

/// A container's limits in the words of control groups.
pub fn limits(limits: &crate::spec::Resources) -> model::Result<sys::cgroup::Resources> {
    Ok(limits::convert(&crate::spec::limits::resources(limits)?))
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

/// The host's `/proc`, for what a process sets of itself there when it does not see it any more.
fn open_proc() -> Result<OwnedFd, StartError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, "/proc", flags, Mode::empty()).at(|| Stage::Clone, "open /proc")
}

/// The child's frame: nothing ever leaves it, neither by return nor by panic. An error is told by `tell`.
fn run_child(tell: impl FnOnce(&StartError), body: impl FnOnce() -> Result<(), StartError>) -> ! {
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
        tell(&error);
    }
    process::exit_now(EXIT_REPORTED)
}

/// The end of a child that has done its work.
fn leave() -> ! {
    process::exit_now(0)
}

/// A session keyring of the container's own.
fn new_keyring(id: &str) -> Result<(), StartError> {
    let name = CString::new(format!("_ses.{id}")).map_err(|_| StartError::new(Stage::Clone, 0, "id"))?;
    process::new_session_keyring(&name).at(|| Stage::Clone, "keyctl")
}

/// What is set through `/proc/self`: the host's (`proc`), never one that the container has mounted, so that no write can be
/// redirected (CVE-2025-52881). The labels take effect at the next execve.
fn write_attributes(proc: &OwnedFd, p: &oci::Process) -> Result<(), StartError> {
    let write = |file: &str, text: &str| -> std::io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(proc, format!("self/{file}"), flags, Mode::empty())?;
        std::fs::File::from(file).write_all(text.as_bytes())
    };
    if let Some(score) = p.oom_score_adj {
        write("oom_score_adj", &score.to_string()).at(|| Stage::Rlimit, "oom_score_adj")?;
    }
    if let Some(profile) = p.apparmor_profile.as_deref().filter(|p| !p.is_empty()) {
        let text = format!("exec {profile}");
        // The old place is shared with other security modules.
        write("attr/apparmor/exec", &text)
            .or_else(|_| write("attr/exec", &text))
            .at(|| Stage::Seccomp, &format!("unable to apply apparmor profile {profile:?}"))?;
    }
    if let Some(label) = p.selinux_label.as_deref().filter(|l| !l.is_empty()) {
        write("attr/exec", label).at(|| Stage::Seccomp, "unable to set the SELinux label")?;
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
