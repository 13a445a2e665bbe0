//! Ending a reader that waits for more.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::event::{EventfdFlags, eventfd};

const RUNNING: u8 = 0;
const ENDED: u8 = 1;
const CANCELLED: u8 = 2;

/// Tells a following reader, from another thread, that it shall end. Clones are the same signal.
#[derive(Clone, Debug)]
pub struct Stop(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: AtomicU8,
    wake: OwnedFd,
}

impl Stop {
    pub fn new() -> io::Result<Stop> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Stop(Arc::new(Shared { state: AtomicU8::new(RUNNING), wake })))
    }

    /// The reader's client has gone: end at once.
    pub fn cancel(&self) {
        self.set(CANCELLED);
    }

    /// The writer has finished: end after the last entry.
    pub fn ended(&self) {
        self.set(ENDED);
    }

    fn set(&self, state: u8) {
        self.0.state.fetch_max(state, Ordering::AcqRel);
        // Cannot fail: the counter is far from its maximum.
        let _ = rustix::io::write(&self.0.wake, &1_u64.to_ne_bytes());
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.0.state.load(Ordering::Acquire) >= ENDED
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == CANCELLED
    }
}

impl AsFd for Stop {
    /// Readable once the reader shall end.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.wake.as_fd()
    }
}
