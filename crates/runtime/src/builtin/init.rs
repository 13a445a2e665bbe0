//! The container's first process, from its birth to its program: one straight line.
//!
//! Runs in the child of clone3, a copy of the monitor. It never returns: it executes the program, or reports an error and
//! ends. Until the pivot the host's tree is in sight and trusted; what the image brings is reached by descriptor only.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::Mode;
use sys::cgroup::Cgroup;
use sys::clone::Flags;
use sys::process;

use super::devices::{self, Nodes};
use super::enter::{self, Given, Order};
use super::mounts::{self, Place};
use super::namespaces::Plan;
use super::program::{self, Program, Streams};
use super::report::Reporter;
use super::rootfs::{self, Sharing};
use super::{protect, run_child, sysctl};
use crate::error::{At, Stage, StartError};
use crate::{Bundle, Stdio};

/// What the parent has prepared.
pub(super) struct Init<'a> {
    pub(super) bundle: &'a Bundle,
    pub(super) namespaces: &'a Plan,
    pub(super) cgroup: &'a Cgroup,
    /// The parent is still making the cgroup.
    pub(super) late: bool,
    /// The container becomes a member of a PID namespace that is there already.
    pub(super) shared: Option<&'a Shared<'a>>,
    pub(super) io: Stdio,
    pub(super) reporter: Reporter,
}

/// What it takes to be born in a PID namespace in which others watch: this process stays outside and builds the root, and
/// its execve makes it the stage of the process proper ([`enter`]).
pub(super) struct Shared<'a> {
    pub(super) namespace: BorrowedFd<'a>,
    /// Gantry's own, which is out of sight in the end.
    pub(super) executable: OwnedFd,
    proc: OwnedFd,
    /// The line of the process proper to the monitor.
    line: enter::Line,
}

impl<'a> Shared<'a> {
    pub(super) fn new(namespace: BorrowedFd<'a>, line: enter::Line) -> Result<Shared<'a>, StartError> {
        let executable = sys::exe::own().at(|| Stage::Clone, "open /proc/self/exe")?;
        Ok(Shared { namespace, executable, proc: super::open_proc()?, line })
    }

    /// Becomes the stage; the streams are in their places.
    fn become_stage(&self, bundle: &Bundle, reporter: &Reporter) -> Result<(), StartError> {
        let order = Order {
            place: enter::Place {
                container: bundle.id.clone(),
                join: 0,
                other_pid_namespace: true,
                given: Given::Inherited,
                filter: (0, 0),
            },
            process: &bundle.spec.process,
            seccomp: &bundle.seccomp,
            reporter,
            namespace: self.namespace,
            proc: self.proc.as_fd(),
            line: &self.line,
            io: &Stdio::default(),
        };
        enter::become_stage(self.executable.as_fd(), order.send()?)
    }
}

impl Init<'_> {
    /// The whole life of the child.
    pub(super) fn run(self) -> ! {
        let Init { bundle, namespaces, cgroup, late, shared, io, reporter } = self;
        run_child(
            |error| reporter.error(error),
            || {
                let enter_cgroup = || {
                    if late {
                        reporter.wait_go()?;
                    }
                    cgroup.enter_v1().at(|| Stage::Cgroup, "enter")?;
                    namespaces.enter_cgroup()
                };
                process::reset_signals().at(|| Stage::Clone, "signals")?;
                if shared.is_none() {
                    super::write_attributes(&super::open_proc()?, &bundle.spec.process)?;
                }
                let mut place = Place::new(cgroup, namespaces.new_cgroup, &enter_cgroup);
                if namespaces.new.contains(Flags::NEWUSER) {
                    place.enter_cgroup()?;
                    reporter.wait_go()?;
                    process::set_ids(0, 0, &[]).at(|| Stage::UserMap, "setresuid")?;
                }
                join(bundle, namespaces)?;
                if shared.is_some() {
                    // Whatever enters the namespace for this container dies with its cgroup.
                    place.enter_cgroup()?;
                }
                let terminal = build(bundle, (namespaces, shared), place, &reporter)?;
                let streams = terminal.map_or(Streams::Pipes(io), Streams::Terminal);
                if let Some(shared) = shared {
                    program::connect(streams)?;
                    return shared.become_stage(bundle, &reporter);
                }
                Program::prepare(&bundle.spec.process, &bundle.seccomp, streams)?.run(reporter.as_fd())
            },
        )
    }
}

/// Session, namespaces and names.
fn join(bundle: &Bundle, plan: &Plan) -> Result<(), StartError> {
    rustix::process::setsid().at(|| Stage::Clone, "setsid")?;
    super::new_keyring(&bundle.id)?;
    plan.enter()?;
    let spec = &bundle.spec;
    if !spec.hostname.is_empty() {
        process::set_hostname(&spec.hostname).at(|| Stage::Hostname, "")?;
    }
    if !spec.domainname.is_empty() {
        process::set_domainname(&spec.domainname).at(|| Stage::Hostname, "setdomainname")?;
    }
    Ok(())
}

/// The container's view of the file system, up to the pivot. Returns the terminal's end for the process.
fn build(
    bundle: &Bundle,
    (plan, shared): (&Plan, Option<&Shared<'_>>),
    place: Place<'_>,
    reporter: &Reporter,
) -> Result<Option<OwnedFd>, StartError> {
    let (spec, linux) = (&bundle.spec, &bundle.spec.linux);
    let sharing = Sharing::of(&linux.rootfs_propagation);
    // Modes of nodes and mount points are meant as given.
    rustix::process::umask(Mode::empty());
    rootfs::isolate(sharing)?;
    let root = rootfs::prepare(&bundle.rootfs, sharing)?;
    let mounted = mounts::all(&root, place, shared, &spec.mounts)?;
    let nodes = if plan.new.contains(Flags::NEWUSER) { Nodes::Bind } else { Nodes::Make };
    devices::populate(&root, &mounted, &linux.devices, nodes)?;
    let terminal = match spec.process.terminal {
        true => Some(devices::console(&root, &mounted)?),
        false => None,
    };
    sysctl::write(&mounted, &linux.sysctl)?;
    protect::write_protect(&root, &linux.readonly_paths)?;
    protect::mask(&root, &mounted, &linux.masked_paths)?;
    let cwd = &spec.process.cwd;
    root.make_dir_all(cwd, Mode::from_raw_mode(0o755)).at(|| Stage::Cwd { path: cwd.clone() }, "mkdir")?;
    rootfs::pivot(&root, sharing, spec.root.readonly)?;
    reporter.keep(terminal.as_ref().map(|pair| pair.master.as_fd()), Some(root.as_fd()))?;
    let Some(pair) = terminal else { return Ok(None) };
    super::size_console(&pair, &spec.process)?;
    Ok(Some(pair.peer))
}
