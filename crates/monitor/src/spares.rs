//! Monitors that are started ahead: the execve, the start of the process and all that a monitor can find out before it
//! has a container are over when a container is to be started.
//!
//! A spare monitor sleeps and costs what any monitor costs. It ends with the connection that its daemon holds.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use model::lock::RwLock;

use crate::client::{self, Spawned};

/// The monitors of one daemon that have no container yet.
pub struct Spares {
    executable: Arc<OwnedFd>,
    waiting: model::spares::Spares<Spawned>,
    /// Held for reading while a monitor is born, which has copies of all our descriptors at first.
    births: RwLock<()>,
}

impl Spares {
    /// None yet. `executable` is `sys::exe::sealed()`.
    pub fn new(executable: Arc<OwnedFd>) -> Spares {
        Spares { executable, waiting: Default::default(), births: RwLock::default() }
    }

    /// A monitor: one that waits, or a new one. One that was killed meanwhile is passed over.
    pub fn take(&self) -> io::Result<Spawned> {
        while let Some(spare) = self.waiting.take() {
            // It was started in the background; from now on somebody waits.
            if lives(&spare) && sys::sched::same_as_ours(spare.pid).is_ok() {
                return Ok(spare);
            }
            client::end(spare);
        }
        self.spawn()
    }

    /// Waits for the births under way; false: there were none. What this process has closed before the call, no monitor has
    /// open after it.
    pub fn await_births(&self) -> bool {
        if self.births.try_write().is_some() {
            return false;
        }
        drop(self.births.write());
        true
    }

    fn spawn(&self) -> io::Result<Spawned> {
        let _birth = self.births.read();
        client::spawn(self.executable.as_fd())
    }

    /// Reaps those that were killed and starts what is missing. Blocks for about a millisecond each. They have the priority of the
    /// caller.
    pub fn refill(&self) -> io::Result<()> {
        self.waiting.take_useless(|spare| !lives(spare)).into_iter().for_each(client::end);
        self.waiting.refill(|| self.spawn())
    }
}

/// It says nothing as long as it waits.
fn lives(spare: &Spawned) -> bool {
    matches!(spare.client.receive(), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}
