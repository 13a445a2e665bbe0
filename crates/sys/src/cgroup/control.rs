//! Acting on all processes of a cgroup: kill, freeze, list.
//!
//! The unified hierarchy is preferred where it is mounted: its kill is atomic against forks, and a process frozen there
//! can still be killed. Every wait is bounded.

use std::fs;
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;

use super::{Cgroup, Dir};

/// How long processes may take to die or to freeze.
const PATIENCE: Duration = Duration::from_secs(10);
/// First pause between two looks; doubles up to [`LONGEST`].
const SHORTEST: Duration = Duration::from_micros(200);
const LONGEST: Duration = Duration::from_millis(20);
/// Rounds of listing and killing against a process that forks.
const KILL_ROUNDS: usize = 100;

impl Cgroup {
    /// Kills every process in the cgroup and below, and waits until they are gone (zombies count as gone).
    pub fn kill_all(&self) -> io::Result<()> {
        if let Some(dir) = self.unified() {
            match dir.write("cgroup.kill", "1") {
                Ok(()) => {
                    self.thaw_v1();
                    return self.wait_empty();
                }
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                Err(_) => {}
            }
        }
        self.kill_by_list()
    }

    /// Without `cgroup.kill`: frozen so that nothing can fork away, signalled, thawed so that the signal works.
    fn kill_by_list(&self) -> io::Result<()> {
        for _ in 0..KILL_ROUNDS {
            let pids = self.processes()?;
            if pids.is_empty() {
                return Ok(());
            }
            if let Some(freezer) = self.controller("freezer") {
                let _ = freezer.write("freezer.state", "FROZEN");
            }
            for pid in self.processes()?.into_iter().filter_map(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            self.thaw_v1();
            if self.wait_empty().is_ok() {
                return Ok(());
            }
        }
        Err(io::Error::from(io::ErrorKind::TimedOut))
    }

    /// A process that the older freezer has stopped does not even die.
    pub fn thaw_v1(&self) {
        if let Some(freezer) = self.controller("freezer") {
            let _ = freezer.write("freezer.state", "THAWED");
        }
    }

    fn wait_empty(&self) -> io::Result<()> {
        wait_until(|| Ok(self.processes()?.is_empty()))
    }

    /// Processes of the cgroup and of those below it, in the caller's PID namespace.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        let dir = self.controller("pids").or_else(|| self.controller("memory")).or_else(|| self.dirs.first());
        let mut pids = Vec::new();
        if let Some(dir) = dir {
            collect(&dir.path, &mut pids)?;
        }
        Ok(pids)
    }

    /// Stops all processes; returns when they stand still.
    pub fn freeze(&self) -> io::Result<()> {
        if let Some(dir) = self.freezer_v2() {
            dir.write("cgroup.freeze", "1")?;
            let done = wait_until(|| Ok(dir.read("cgroup.events")?.lines().any(|l| l == "frozen 1")));
            return done.inspect_err(|_| drop(dir.write("cgroup.freeze", "0")));
        }
        let dir = self.controller("freezer").ok_or_else(no_freezer)?;
        let done = wait_until(|| {
            // Written again each time: a fork during the walk leaves the state at FREEZING.
            dir.write("freezer.state", "FROZEN")?;
            Ok(dir.read("freezer.state")?.trim() == "FROZEN")
        });
        done.inspect_err(|_| self.thaw_v1())
    }

    /// Lets them go on, whoever has stopped them by whichever of the two freezers.
    pub fn thaw(&self) -> io::Result<()> {
        match self.freezer_v2() {
            Some(dir) => {
                self.thaw_v1();
                dir.write("cgroup.freeze", "0")
            }
            None => self.controller("freezer").ok_or_else(no_freezer)?.write("freezer.state", "THAWED"),
        }
    }

    /// Whether the cgroup is frozen, by either freezer.
    pub fn is_frozen(&self) -> bool {
        let v2 = || self.freezer_v2()?.read("cgroup.freeze").ok().map(|s| s.trim() == "1");
        let v1 = || self.controller("freezer")?.read("freezer.state").ok().map(|s| s.trim() != "THAWED");
        v2().unwrap_or(false) || v1().unwrap_or(false)
    }

    fn freezer_v2(&self) -> Option<&Dir> {
        self.unified().filter(|d| d.path.join("cgroup.freeze").exists())
    }
}

fn no_freezer() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "the freezer cgroup controller is not available")
}

fn collect(dir: &Path, pids: &mut Vec<i32>) -> io::Result<()> {
    let text = match fs::read_to_string(dir.join("cgroup.procs")) {
        Ok(text) => text,
        // Gone, or a v2 threaded cgroup (whose processes its domain lists).
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP)) => return Ok(()),
        Err(e) => return Err(e),
    };
    pids.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()));
    for child in children(dir)? {
        collect(&child, pids)?;
    }
    Ok(())
}

fn children(dir: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            out.push(entry.path());
        }
    }
    Ok(out)
}

/// Removes an empty cgroup with its children; the kernel may report `EBUSY` for a moment after the last exit.
pub(super) fn remove_tree(dir: &Path) -> io::Result<()> {
    match children(dir) {
        Ok(children) => children.iter().try_for_each(|c| remove_tree(c))?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    }
    wait_until(|| match rustix::fs::unlinkat(CWD, dir, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::BUSY) => Ok(false),
        Err(e) => Err(e.into()),
    })
}

fn wait_until(mut done: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let (deadline, mut pause) = (Instant::now() + PATIENCE, SHORTEST);
    while !done()? {
        if Instant::now() > deadline {
            return Err(io::Error::from(io::ErrorKind::TimedOut));
        }
        sleep(pause);
        pause = (pause * 2).min(LONGEST);
    }
    Ok(())
}
