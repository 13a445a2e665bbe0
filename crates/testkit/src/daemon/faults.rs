//! System calls of the daemon that fail, for as long as a guard lives.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use super::Daemon;
use crate::command::{PATIENCE, eventually};
use crate::{places, process};

/// One kind of system call fails on one file. Dropping it ends that.
pub struct Fault {
    strace: Child,
    daemon: u32,
}

impl Daemon {
    /// From now on `call` (`pwrite64`, `fdatasync`, …) on the open file at `path` fails with `errno` (`ENOSPC`, `EIO`, …), in every
    /// thread of the daemon and in processes that it starts.
    #[track_caller]
    #[must_use]
    pub fn fail(&self, call: &str, path: &Path, errno: &str) -> Fault {
        let daemon = self.pid();
        let mut strace = Command::new(places::find("strace"));
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
        strace.args(["-e", &format!("inject={call}:error={errno}"), "-P"]).arg(path);
        strace.args(["-p", &daemon.to_string()]).stdin(Stdio::null()).stderr(Stdio::null());
        let fault = Fault { strace: strace.spawn().expect("strace starts"), daemon };
        assert!(eventually(PATIENCE, || is_traced(daemon).iter().all(|traced| *traced)), "strace does not attach");
        fault
    }
}

impl Drop for Fault {
    /// Returns when nothing fails any more.
    fn drop(&mut self) {
        process::signal(self.strace.id(), Signal::INT);
        let _ = self.strace.wait();
        let is_free = eventually(PATIENCE, || !is_traced(self.daemon).contains(&true));
        assert!(is_free || std::thread::panicking(), "strace has not let go");
    }
}

/// Of each thread whether a debugger has it. Empty: the process is gone.
fn is_traced(pid: u32) -> Vec<bool> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let status = threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
    status.map(|status| !status.lines().any(|line| line == "TracerPid:\t0")).collect()
}
