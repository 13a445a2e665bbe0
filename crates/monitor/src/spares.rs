//! Monitors that are started ahead: the execve, the start of the process and all that a monitor can find out before it
//! has a container are over when a container is to be started.
//!
//! A spare monitor sleeps and costs what any monitor costs. It ends with the connection that its daemon holds.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::client::{self, Spawned};

/// How many wait: one for the next start, and one for a start at the same time.
const SPARES: usize = 2;

/// The monitors of one daemon that have no container yet.
pub struct Spares {
    executable: Arc<OwnedFd>,
    waiting: Mutex<Vec<Spawned>>,
}

impl Spares {
    /// None yet. `executable` is `sys::exe::sealed()`.
    pub fn new(executable: Arc<OwnedFd>) -> Spares {
        Spares { executable, waiting: Mutex::default() }
    }

    /// A monitor: one that waits, or a new one. One that was killed meanwhile is passed over.
    pub fn take(&self) -> io::Result<Spawned> {
        while let Some(spare) = { self.waiting().pop() } {
            let lives = matches!(spare.client.receive(), Err(e) if e.kind() == io::ErrorKind::WouldBlock);
            // It was started in the background; from now on somebody waits.
            if lives && sys::sched::same_as_ours(spare.pid).is_ok() {
                return Ok(spare);
            }
            client::end(spare);
        }
        client::spawn(self.executable.as_fd())
    }

    /// Starts what is missing. Blocks for about a millisecond each. They have the priority of the caller.
    pub fn refill(&self) -> io::Result<()> {
        while self.waiting().len() < SPARES {
            let spare = client::spawn(self.executable.as_fd())?;
            let mut waiting = self.waiting();
            if waiting.len() < SPARES {
                waiting.push(spare);
            } else {
                drop(waiting);
                client::end(spare);
            }
        }
        Ok(())
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Spawned>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
