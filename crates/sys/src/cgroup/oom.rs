//! Noticing that the kernel has killed a process of a cgroup for want of memory.
//!
//! The count is exact on either version. What can be polled only says that it is time to look: version 1 signals before
//! the kill is counted, and to every cgroup below the one whose limit was reached; version 2 signals other events as well.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFlags, eventfd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::Cgroup;

/// A descriptor that tells of out-of-memory kills.
#[derive(Debug)]
pub struct OomWatch {
    pub fd: OwnedFd,
    /// v1: an eventfd ("Memory thresholds" and "OOM Control" in the kernel's cgroup-v1/memory); v2: `memory.events`.
    eventfd: bool,
}

impl OomWatch {
    /// What to poll the descriptor for.
    pub fn events(&self) -> PollFlags {
        if self.eventfd { PollFlags::IN } else { PollFlags::PRI }
    }

    /// Whether it signals before the kill is counted (v1).
    pub fn is_early(&self) -> bool {
        self.eventfd
    }

    /// Takes what was signalled, so that polling waits for the next. Fails (`ENODEV`) on v2 when the cgroup is gone.
    pub fn rearm(&self) -> io::Result<()> {
        let mut buffer = [0; 512];
        let taken = match self.eventfd {
            true => rustix::io::read(&self.fd, &mut buffer[..8]),
            false => rustix::io::pread(&self.fd, &mut buffer, 0),
        };
        match taken {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

impl Cgroup {
    /// How many processes the kernel has killed here for want of memory.
    pub fn oom_kills(&self) -> io::Result<u64> {
        let text = match self.controller("memory") {
            Some(dir) => dir.read("memory.oom_control")?,
            None => self.unified().ok_or_else(no_memory)?.read("memory.events")?,
        };
        let count = text.lines().find_map(|l| l.strip_prefix("oom_kill "));
        Ok(count.and_then(|n| n.trim().parse().ok()).unwrap_or(0))
    }

    /// Whether processes stand still for want of memory, none being killed for it (v1 with the killer disabled).
    pub fn is_starved(&self) -> io::Result<bool> {
        let Some(dir) = self.controller("memory") else { return Ok(false) };
        let text = dir.read("memory.oom_control")?;
        let is_set = |name: &str| text.lines().any(|line| line.strip_prefix(name).is_some_and(|n| n.trim() == "1"));
        Ok(is_set("oom_kill_disable ") && is_set("under_oom "))
    }

    /// Something to poll for out-of-memory events.
    pub fn oom_watch(&self) -> io::Result<OomWatch> {
        let read = OFlags::RDONLY | OFlags::CLOEXEC;
        let Some(dir) = self.controller("memory") else {
            let path = self.unified().ok_or_else(no_memory)?.path.join("memory.events");
            let watch = OomWatch { fd: rustix::fs::openat(CWD, path, read, Mode::empty())?, eventfd: false };
            // Until it is read for the first time it counts as changed.
            watch.rearm()?;
            return Ok(watch);
        };
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let control = rustix::fs::openat(CWD, dir.path.join("memory.oom_control"), read, Mode::empty())?;
        dir.write("cgroup.event_control", &format!("{} {}", fd.as_raw_fd(), control.as_raw_fd()))?;
        Ok(OomWatch { fd, eventfd: true })
    }
}

fn no_memory() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "the memory cgroup controller is not available")
}
