//! The container's first process, from its birth to its program: one straight line.
//!
//! Runs in the child of clone3, a copy of the monitor. It never returns: it executes the program, or reports an error and
//! ends. Until the pivot the host's tree is in sight and trusted; what the image brings is reached by descriptor only.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::Mode;
use sys::cgroup::Cgroup;
use sys::clone::Flags;
use sys::process;

use super::devices::{self, Nodes};
use super::mounts::{self, Place};
use super::namespaces::Plan;
use super::program::{self, Streams};
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
    pub(super) io: Stdio,
    pub(super) reporter: Reporter,
}

impl Init<'_> {
    /// The whole life of the child.
    pub(super) fn run(self) -> ! {
        let Init { bundle, namespaces, cgroup, late, io, reporter } = self;
        run_child(&reporter, || {
            let settle = || {
                if late {
                    reporter.wait_go()?;
                }
                cgroup.enter_v1().at(|| Stage::Cgroup, "enter")?;
                namespaces.enter_cgroup()
            };
            process::reset_signals().at(|| Stage::Clone, "signals")?;
            super::write_attributes(&bundle.spec.process)?;
            let mut place = Place::new(cgroup, namespaces.new_cgroup, &settle);
            if namespaces.new.contains(Flags::NEWUSER) {
                place.settle()?;
                reporter.wait_go()?;
                process::set_ids(0, 0, &[]).at(|| Stage::UserMap, "setresuid")?;
            }
            join(bundle, namespaces)?;
            let terminal = build(bundle, namespaces, place, &reporter)?;
            let streams = terminal.map_or(Streams::Pipes(io), Streams::Terminal);
            program::run(&bundle.spec.process, &bundle.seccomp, streams, &reporter)
        })
    }
}

/// Session, namespaces and names.
fn join(bundle: &Bundle, plan: &Plan) -> Result<(), StartError> {
    rustix::process::setsid().at(|| Stage::Clone, "setsid")?;
    let keyring = CString::new(format!("_ses.{}", bundle.id)).map_err(|_| StartError::new(Stage::Clone, 0, "id"))?;
    process::new_session_keyring(&keyring).at(|| Stage::Clone, "keyctl")?;
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
fn build(bundle: &Bundle, plan: &Plan, place: Place<'_>, reporter: &Reporter) -> Result<Option<OwnedFd>, StartError> {
    let (spec, linux) = (&bundle.spec, &bundle.spec.linux);
    let sharing = Sharing::of(&linux.rootfs_propagation);
    // Modes of nodes and mount points are meant as given.
    rustix::process::umask(Mode::empty());
    rootfs::isolate(sharing)?;
    let root = rootfs::prepare(&bundle.rootfs, sharing)?;
    let mounted = mounts::all(&root, place, &spec.mounts)?;
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
