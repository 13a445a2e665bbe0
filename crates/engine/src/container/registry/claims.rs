//! Who mounts the writable layer of a container: its run, or `docker cp` into one that does not run. Two overlay mounts of
//! one writable layer beside each other are undefined behaviour (Documentation/filesystems/overlayfs.rst), so that a launch
//! and a copy wait for each other, up to a limit.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::id::ContainerId;
use model::{Error, Result};

/// How long one waits for another.
const WAIT: Duration = Duration::from_secs(30);

/// The writable layers that are claimed.
#[derive(Debug, Default)]
pub struct Claims {
    held: Mutex<HashSet<ContainerId>>,
    freed: Condvar,
}

/// The right to mount a writable layer; given back when dropped.
#[derive(Debug)]
pub struct Claim<'c> {
    claims: &'c Claims,
    id: ContainerId,
}

impl Claims {
    /// Claims the writable layer of a container. Blocks.
    ///
    /// Errors: `Conflict` when another holds it for longer than 30 seconds.
    pub fn claim(&self, id: &ContainerId) -> Result<Claim<'_>> {
        let waited = self.freed.wait_timeout_while(self.lock(), WAIT, |held| held.contains(id));
        let (mut held, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            let text = format!("files are being copied into container {}, or it is being started", id.as_str());
            return Err(Error::conflict(text));
        }
        held.insert(id.clone());
        Ok(Claim { claims: self, id: id.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<ContainerId>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.lock().remove(&self.id);
        self.claims.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn one_at_a_time_for_each_container() {
        let claims = Claims::default();
        let [one, two] = [1, 2].map(|n| ContainerId::from_bytes([n; 32]));
        let first = claims.claim(&one).unwrap();
        let _other = claims.claim(&two).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _second = claims.claim(&one).unwrap();
                assert!(done.load(Ordering::SeqCst), "the first one was still held");
            });
            done.store(true, Ordering::SeqCst);
            drop(first);
        });
    }
}
