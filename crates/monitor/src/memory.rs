//! Noticing, while the container runs, that the kernel kills one of its processes for want of memory, or lets it wait.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use sys::cgroup::{Cgroup, OomWatch};

/// How long after an early signal a kill may be counted, and the pause between two looks.
const LATE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// The watch over one container's memory.
#[derive(Debug, Default)]
pub struct Memory {
    /// Nobody has asked for a watch yet.
    begun: bool,
    watch: Option<OomWatch>,
    /// Kills that were told.
    told: u64,
    /// Processes have stood still for want of memory.
    starved: bool,
    /// Looks go on until then.
    look: Option<Instant>,
}

impl Memory {
    /// Begins to watch, at the first call. Without the memory controller there is nothing to see. `limited`: the time of the
    /// call if the container has a limit; it may have reached that already.
    pub fn begin(&mut self, limited: Option<Instant>, cgroup: impl FnOnce() -> model::Result<Cgroup>) {
        if !std::mem::replace(&mut self.begun, true) {
            self.watch = cgroup().ok().and_then(|cgroup| cgroup.oom_watch().ok());
            self.look = self.watch.as_ref().and(limited).map(|now| now + LATE);
        }
    }

    pub fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        self.watch.as_ref().map(|watch| (watch.fd.as_fd(), watch.events()))
    }

    /// When to look again without a signal.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        self.look.map(|_| now + PAUSE)
    }

    /// It was signalled that it is time to look.
    pub fn signalled(&mut self, now: Instant) {
        // Once its cgroup is gone it would be signalled for ever.
        self.watch = self.watch.take().filter(|watch| watch.rearm().is_ok());
        self.look = self.watch.as_ref().map(|watch| if watch.is_early() { now + LATE } else { now });
    }

    /// Whether there are kills that were not told, which they are now; or processes that stand still since the signal.
    pub fn news(&mut self, now: Instant, cgroup: impl Fn() -> model::Result<Cgroup>) -> bool {
        self.look.is_some() && {
            let starved = cgroup().is_ok_and(|cgroup| cgroup.is_starved().unwrap_or(false));
            self.starved |= starved;
            let found = self.count(cgroup) || starved;
            self.look = self.look.filter(|until| !found && now < *until);
            found
        }
    }

    /// Whether anything was told.
    pub fn has_struck(&self) -> bool {
        self.told > 0 || self.starved
    }

    /// The container has ended: whether there are kills that were not told, signalled or not, and whether there are any.
    pub fn end(&mut self, cgroup: impl FnOnce() -> model::Result<Cgroup>) -> (bool, bool) {
        (self.watch, self.look) = (None, None);
        let found = self.count(cgroup);
        (found, self.has_struck())
    }

    fn count(&mut self, cgroup: impl FnOnce() -> model::Result<Cgroup>) -> bool {
        let kills = cgroup().ok().and_then(|cgroup| cgroup.oom_kills().ok()).unwrap_or(0);
        let found = kills > self.told;
        self.told = self.told.max(kills);
        found
    }
}
