//! A network and a mount namespace held open by a process of the kit, for daemons and kernel tests to run in.
//!
//! - The holder waits on a pipe from the test: when the test process dies, the holder ends and the namespaces go.
//! - `lo` is up; mounts propagate neither way.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::command::{self, Output, PATIENCE};
use crate::{places, process};

/// The namespaces. Gone when dropped, with every process that still lives in them.
pub struct Namespaces {
    holder: Child,
    /// Closing it ends the holder.
    _life: Option<ChildStdin>,
}

impl Namespaces {
    /// Makes them.
    #[must_use]
    pub fn new() -> Self {
        places::require_root();
        let mut holder = Command::new(places::find("unshare"))
            .args(["--mount", "--net", "--propagation", "private", "--", "sh", "-c"])
            .arg("ip link set lo up && echo ready && exec cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let mut ready = [0; 6];
        let mut stdout = holder.stdout.take().expect("stdout is piped");
        std::io::Read::read_exact(&mut stdout, &mut ready)
            .expect("the namespaces are made: root and unshare(1) are needed");
        let life = holder.stdin.take();
        Self { holder, _life: life }
    }

    /// The process that holds them.
    #[must_use]
    pub fn holder(&self) -> u32 {
        self.holder.id()
    }

    /// A command that will run inside; it becomes the program itself (same process id).
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(places::find("nsenter"));
        command.args(["-t", &self.holder().to_string(), "-m", "-n", "--"]).arg(program);
        command
    }

    /// Runs a program inside, to its end.
    #[track_caller]
    #[must_use]
    pub fn run(&self, words: &[&str]) -> Output {
        command::run(self.command(words[0]).args(&words[1..]), b"")
    }

    /// Processes that live in the mount or the network namespace, the holder excepted.
    #[must_use]
    pub fn processes(&self) -> Vec<process::Process> {
        let holder = self.holder();
        let own: Vec<_> = ["mnt", "net"].iter().map(|kind| (*kind, process::namespace(holder, kind))).collect();
        process::all()
            .into_iter()
            .filter(|pid| *pid != holder && process::alive(*pid))
            .filter(|pid| own.iter().any(|(kind, ns)| ns.is_some() && process::namespace(*pid, kind) == *ns))
            .filter_map(|pid| Some(process::Process { pid, command: process::command_line(pid)? }))
            .collect()
    }

    /// The mount table inside, one mount point with its type per line.
    #[must_use]
    pub fn mounts(&self) -> Vec<String> {
        mounts_of(&format!("/proc/{}/mountinfo", self.holder()))
    }
}

impl Default for Namespaces {
    fn default() -> Self {
        Self::new()
    }
}

fn mounts_of(file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        Some(format!("{} ({})", left.split(' ').nth(4)?, right.split(' ').next()?))
    };
    text.lines().filter_map(line).collect()
}

/// Removes a directory of cgroups from the leaves up, killing what runs inside. Missing ones are fine.
pub fn remove_cgroups(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|e| e.path().is_dir()) {
        remove_cgroups(&entry.path());
    }
    // A frozen process takes no signal, not even SIGKILL, on cgroup v1.
    let _ = std::fs::write(dir.join("freezer.state"), "THAWED");
    let emptied = || {
        for pid in process::in_cgroup(dir) {
            process::signal(pid, rustix::process::Signal::KILL);
        }
        std::fs::remove_dir(dir).is_ok() || !dir.exists()
    };
    command::eventually(PATIENCE, emptied);
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for leftover in self.processes() {
            process::signal(leftover.pid, rustix::process::Signal::KILL);
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_run_inside_and_see_only_lo() {
        let ns = Namespaces::new();
        let links = ns.run(&["ip", "-o", "link"]).text();
        assert_eq!(links.lines().count(), 1, "{links}");
        assert!(links.contains("LOOPBACK,UP"), "{links}");
        assert_ne!(process::namespace(ns.holder(), "mnt"), process::namespace(std::process::id(), "mnt"));
    }

    #[test]
    fn processes_inside_are_found() {
        let ns = Namespaces::new();
        let mut child = ns.command("sleep").arg("100").spawn().unwrap();
        assert!(command::eventually(PATIENCE, || ns.processes().iter().any(|p| p.command == "sleep 100")));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(ns.processes(), []);
    }
}
