//! A further process in a running container.
//!
//! The child makes itself undumpable before it enters, so that nothing in the container can look into it through `/proc`
//! (its memory, its descriptors, the program it still runs).

use std::os::fd::{AsFd, BorrowedFd};

use sys::cgroup::Cgroup;
use sys::clone::Flags;
use sys::ns;
use sys::process::{self, Dumpable};
use sys::rooted::Rooted;

use super::program::{self, Streams};
use super::report::Reporter;
use super::{devices, run_child};
use crate::error::{At, Stage};
use crate::seccomp::Program;
use crate::{Stdio, oci};

/// What the parent has prepared.
pub(super) struct Enter<'a> {
    pub(super) process: &'a oci::Process,
    pub(super) seccomp: &'a Program,
    pub(super) init: BorrowedFd<'a>,
    pub(super) namespaces: Flags,
    pub(super) cgroup: &'a Cgroup,
    pub(super) keyring: &'a std::ffi::CStr,
    pub(super) io: Stdio,
    pub(super) reporter: Reporter,
}

impl Enter<'_> {
    /// The whole life of the child.
    pub(super) fn run(self) -> ! {
        let Enter { process, seccomp, init, namespaces, cgroup, keyring, io, reporter } = self;
        run_child(&reporter, || {
            process::set_dumpable(Dumpable::No).at(|| Stage::Clone, "prctl")?;
            process::reset_signals().at(|| Stage::Clone, "signals")?;
            cgroup.enter_v1().at(|| Stage::Cgroup, "enter")?;
            super::write_attributes(process)?;
            rustix::process::setsid().at(|| Stage::Clone, "setsid")?;
            process::new_session_keyring(keyring).at(|| Stage::Clone, "keyctl")?;
            ns::join(init, namespaces).at(|| Stage::Namespace, "setns")?;
            let streams = match process.terminal {
                false => Streams::Pipes(io),
                true => {
                    let root = Rooted::open_dir("/").at(|| Stage::Console, "open /")?;
                    let pair = devices::terminal_in(&root)?;
                    super::size_console(&pair, process)?;
                    reporter.keep(Some(pair.master.as_fd()), None)?;
                    Streams::Terminal(pair.peer)
                }
            };
            program::run(process, seccomp, streams, &reporter)
        })
    }
}
