//! A process between its birth and its program, as something to poll.
//!
//! What it does on the way may depend on a container: its files, its cgroup, signals of its processes. So nobody waits for
//! it in a call; the owner polls one descriptor, and gives up at a deadline.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sys::process::{self, Block};

use crate::error::{Stage, StartError};
use crate::process::{Process, ended};

pub(crate) const SIGKILL: i32 = 9;

/// How long a process may take that enters a running container.
pub const ENTER_WAIT: Duration = Duration::from_secs(30);
/// How long a container's first process may take: it mounts, perhaps over a network.
pub const START_WAIT: Duration = Duration::from_secs(110);
/// The longest pause between two looks for a stopped process.
pub const LOOK_AFTER: Duration = Duration::from_secs(1);
/// How long killed processes may take to end before their owner goes on and reaps them later.
pub const DEATH_WAIT: Duration = Duration::from_secs(5);
/// The pause between two looks whether they have.
pub const DEATH_LOOK: Duration = Duration::from_millis(2);

/// What has become of it.
#[derive(Debug)]
pub enum Progress {
    /// Nothing new.
    Waiting,
    /// There is a process with this number in the caller's PID namespace; its program does not run yet.
    Born(i32),
    /// Its program runs.
    Running(Process),
}

/// A start or an exec under way.
pub trait Pending {
    /// What to poll for input.
    fn awaited(&self) -> BorrowedFd<'_>;
    /// By then it must run.
    fn deadline(&self) -> Instant;
    /// Takes note of what has come; never blocks. After an error the owner [`abandon`]s it.
    fn advance(&mut self) -> Result<Progress, StartError>;
    /// Its processes so far, children of the caller.
    fn processes(&self) -> Vec<BorrowedFd<'_>>;
    /// Kills its processes; again and again until they have ended ([`is_dead`]), since one may be about to make another. Never
    /// blocks.
    fn kill(&mut self) {
        for pidfd in self.processes() {
            let _ = process::signal(pidfd, SIGKILL);
        }
    }
    /// Processes that were needed on the way and are still to be reaped.
    fn leftovers(self: Box<Self>) -> Vec<OwnedFd>;
}

/// Lets go on what somebody in the container has stopped.
pub fn look_after(pending: &dyn Pending) {
    for pidfd in pending.processes() {
        // One that has been reaped needs nothing any more.
        let _ = process::resume_stopped(pidfd);
    }
}

/// Kills a start or an exec that is given up. What does not end at once (a frozen cgroup) comes back, to be reaped when its
/// descriptor becomes readable.
#[must_use]
pub fn abandon(mut pending: Box<dyn Pending>) -> Vec<OwnedFd> {
    let deadline = Instant::now() + DEATH_WAIT;
    while !is_dead(&mut *pending) && Instant::now() < deadline {
        std::thread::sleep(DEATH_LOOK);
    }
    left_of(pending)
}

/// Kills one that is given up; whether all its processes have ended. To be asked again after [`DEATH_LOOK`], until
/// [`DEATH_WAIT`] is over.
pub fn is_dead(pending: &mut dyn Pending) -> bool {
    pending.kill();
    pending.processes().into_iter().all(|pidfd| ended(pidfd, Duration::ZERO))
}

/// What is still to be reaped of one that is given up.
pub fn left_of(pending: Box<dyn Pending>) -> Vec<OwnedFd> {
    let mut left = pending.leftovers();
    left.retain(|pidfd| !reap(pidfd));
    left
}

/// Reaps a child if it has ended; false: it lives.
pub fn reap(pidfd: &OwnedFd) -> bool {
    !matches!(process::wait(pidfd.as_fd(), Block::No), Ok(None))
}

/// Waits for the program in this call: for callers who have nothing else to do. `born` as in [`Progress::Born`]; its error
/// ends the start.
pub fn finish(
    mut pending: Box<dyn Pending>,
    born: &mut dyn FnMut(i32) -> Result<(), StartError>,
) -> Result<Process, StartError> {
    let mut step = |pending: &mut Box<dyn Pending>| match pending.advance()? {
        Progress::Born(pid) => born(pid).map(|()| None),
        Progress::Running(process) => Ok(Some(process)),
        Progress::Waiting if Instant::now() >= pending.deadline() => Err(late()),
        Progress::Waiting => {
            let pause = Timespec { tv_sec: LOOK_AFTER.as_secs().cast_signed(), tv_nsec: 0 };
            let fd = pending.awaited();
            if poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&pause)) == Ok(0) {
                look_after(&**pending);
            }
            Ok(None)
        }
    };
    let outcome = loop {
        match step(&mut pending) {
            Ok(None) => {}
            Ok(Some(process)) => break Ok(process),
            Err(error) => break Err(error),
        }
    };
    // Whoever calls this has nobody who would reap them later.
    drop(abandon_unless(outcome.is_ok(), pending));
    outcome
}

fn abandon_unless(runs: bool, pending: Box<dyn Pending>) -> Vec<OwnedFd> {
    if !runs {
        return abandon(pending);
    }
    let mut left = pending.leftovers();
    left.retain(|pidfd| !ended(pidfd.as_fd(), DEATH_WAIT) || !reap(pidfd));
    left
}

/// What is said of one that is given up.
pub fn late() -> StartError {
    StartError::new(Stage::Clone, 0, "the process did not reach its program in time")
}
