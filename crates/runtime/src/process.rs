//! A process of a container as its owner holds it: by descriptor, so that no other process can take its place.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The child's ends of its standard streams; `None` = `/dev/null`. Ignored when `spec.process.terminal` is set.
#[derive(Debug, Default)]
pub struct Stdio {
    /// The reading end of its input.
    pub stdin: Option<OwnedFd>,
    /// The writing end of its output.
    pub stdout: Option<OwnedFd>,
    /// The writing end of its errors.
    pub stderr: Option<OwnedFd>,
}

/// A process that has reached its `execve`. It is a child of the caller, who waits for it by `pidfd`.
#[derive(Debug)]
pub struct Process {
    /// In the caller's PID namespace.
    pub pid: i32,
    /// pidfd_open(2): readable when it has ended.
    pub pidfd: OwnedFd,
    /// The terminal's master end, if the process has one.
    pub console: Option<OwnedFd>,
    /// The root file system of a container's first process. Without it the exit of that process would take the last
    /// reference away, and wait until all that the disk below an overlay has not written yet is written.
    pub root: Option<OwnedFd>,
}

impl Process {
    /// A process without a root to keep.
    pub fn new(pid: i32, pidfd: OwnedFd, console: Option<OwnedFd>) -> Process {
        Process { pid, pidfd, console, root: None }
    }

    /// Whether it has ended, reaped or not.
    pub fn has_ended(&self) -> bool {
        ended(self.pidfd.as_fd(), Duration::ZERO)
    }
}

/// Sends a signal to one process; one that has ended already is [`model::Kind::NotFound`].
pub(crate) fn signal(process: &Process, signal: i32) -> model::Result<()> {
    sys::process::signal(&process.pidfd, signal).map_err(|e| match e.raw_os_error() {
        Some(errno) if errno == rustix::io::Errno::SRCH.raw_os_error() => {
            model::Error::not_found("process already finished").with_source(e)
        }
        _ => model::Error::from(e),
    })
}

/// Whether a process has ended, or does so within `wait` (pidfd_open(2): its descriptor is readable then).
pub(crate) fn ended(pidfd: BorrowedFd<'_>, wait: Duration) -> bool {
    let wait = Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: i64::from(wait.subsec_nanos()) };
    let mut fds = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    poll(&mut fds, Some(&wait)).is_ok_and(|ready| ready > 0)
}

/// The path by which another process reaches a descriptor of this one.
pub(crate) fn path_of(fd: BorrowedFd<'_>) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd())
}
