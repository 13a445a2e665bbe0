//! Who mounts the writable layer of a container: its run, or `docker cp` into one that does not run. Two overlay mounts of
//! one writable layer beside each other are undefined behaviour (Documentation/filesystems/overlayfs.rst), so that a launch
//! and a copy wait for each other, up to a limit, and without a thread.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use model::id::ContainerId;
use model::lock::{Mutex, MutexGuard};
use model::{Error, Result};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// How long one waits for another.
const WAIT: Duration = Duration::from_secs(30);

/// The writable layers that are claimed.
#[derive(Debug, Default)]
pub struct Claims(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    held: Mutex<HashSet<ContainerId>>,
    freed: Notify,
}

/// The right to mount a writable layer; given back when dropped.
#[derive(Debug)]
pub struct Claim {
    claims: Arc<Shared>,
    id: ContainerId,
}

impl Claims {
    /// Claims the writable layer of a container.
    ///
    /// Errors: `Conflict` when another holds it for longer than 30 seconds.
    pub async fn claim(&self, id: &ContainerId) -> Result<Claim> {
        let deadline = Instant::now() + WAIT;
        loop {
            let mut freed = pin!(self.0.freed.notified());
            // Before the look, so that nothing is missed between it and the wait.
            freed.as_mut().enable();
            if self.0.held().insert(id.clone()) {
                return Ok(Claim { claims: self.0.clone(), id: id.clone() });
            }
            if timeout_at(deadline, freed).await.is_err() {
                let text = format!("files are being copied into container {}, or it is being started", id.as_str());
                return Err(Error::conflict(text));
            }
        }
    }
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, HashSet<ContainerId>> {
        self.held.lock()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.held().remove(&self.id);
        self.claims.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_for_each_container() {
        let claims = Arc::new(Claims::default());
        let [one, two] = [1, 2].map(|n| ContainerId::from_bytes([n; 32]));
        let first = claims.claim(&one).await.unwrap();
        let _other = claims.claim(&two).await.unwrap();
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let (claims, one) = (claims.clone(), one.clone());
                tokio::spawn(async move { claims.claim(&one).await.map(drop) })
            })
            .collect();
        tokio::time::sleep(WAIT / 2).await;
        assert!(waiting.iter().all(|waits| !waits.is_finished()), "the first one is still held");
        drop(first);
        for waits in waiting {
            waits.await.unwrap().unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let (claims, id) = (Claims::default(), ContainerId::from_bytes([1; 32]));
        let _held = claims.claim(&id).await.unwrap();
        assert_eq!(claims.claim(&id).await.unwrap_err().kind(), model::Kind::Conflict);
    }
}
