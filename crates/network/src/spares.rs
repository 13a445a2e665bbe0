//! Network namespaces made ahead: making one takes the kernel a good part of the time that a container's start may take.
//!
//! `lo` is up in them; nothing else is there. They are held by their descriptors only.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sys::netlink::namespace;

/// How many wait: one for the next start, and one for a start at the same time.
const SPARES: usize = 2;

/// See the module.
#[derive(Debug, Default)]
pub struct Spares {
    waiting: Mutex<Vec<OwnedFd>>,
}

impl Spares {
    /// A namespace that nobody else has: one that waits, or a new one.
    pub fn take(&self) -> io::Result<OwnedFd> {
        let waiting = self.waiting().pop();
        waiting.map_or_else(make, Ok)
    }

    /// Makes what is missing. Blocks.
    pub fn refill(&self) -> io::Result<()> {
        while self.waiting().len() < SPARES {
            let made = make()?;
            let mut waiting = self.waiting();
            // Others may have been at it, too.
            if waiting.len() < SPARES {
                waiting.push(made);
            }
        }
        Ok(())
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make() -> io::Result<OwnedFd> {
    namespace::create_with(|_| sys::ns::loopback_up()).map(|made| made.0)
}
