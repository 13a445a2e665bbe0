//! What is done to a running container and takes as long as the container, or a program that serves it, makes it take.
//!
//! Nobody waits for it in a call: the owner polls its descriptor, or looks at it from time to time, beside all else.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sys::cgroup::Step;

/// A kill, a pause, a resume or a cleanup under way.
pub trait Action {
    /// What becomes readable when it goes on, if anything does.
    fn awaited(&self) -> Option<BorrowedFd<'_>>;
    /// When to look at it, whatever has become readable.
    fn next(&self) -> Instant;
    /// The outcome, once there is one; never blocks.
    fn look(&mut self) -> Option<model::Result<()>>;
}

/// An action that has begun; `None`: it is over already.
pub type Begun = model::Result<Option<Box<dyn Action>>>;

/// Waits for the outcome in this call: for callers who have nothing else to do.
pub fn finish(begun: Begun) -> model::Result<()> {
    let Some(mut action) = begun? else { return Ok(()) };
    loop {
        if let Some(outcome) = action.look() {
            return outcome;
        }
        let left = action.next().saturating_duration_since(Instant::now());
        match action.awaited() {
            None => std::thread::sleep(left),
            Some(fd) => wait(fd, left),
        }
    }
}

fn wait(fd: BorrowedFd<'_>, left: Duration) {
    let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) };
    // Whatever the kernel says: the next look tells.
    let _ = poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&left));
}

/// A step of a control group.
#[derive(Debug)]
pub(crate) struct Stepping {
    step: Step,
    next: Instant,
    /// What did not work, should it not.
    what: &'static str,
}

impl Stepping {
    /// Looks at it for the first time.
    pub(crate) fn begin(step: Step, what: &'static str) -> Begun {
        let mut stepping = Stepping { step, next: Instant::now(), what };
        match stepping.look() {
            Some(outcome) => outcome.map(|()| None),
            None => Ok(Some(Box::new(stepping))),
        }
    }
}

impl Action for Stepping {
    fn awaited(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn next(&self) -> Instant {
        self.next
    }

    fn look(&mut self) -> Option<model::Result<()>> {
        match self.step.look() {
            Ok(false) => {
                self.next = Instant::now() + self.step.pause();
                None
            }
            Ok(true) => Some(Ok(())),
            Err(error) => Some(Err(model::Error::from(error).prefix(self.what))),
        }
    }
}
