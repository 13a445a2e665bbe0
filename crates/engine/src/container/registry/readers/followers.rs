//! Who follows which log, so that the end of a container is answered when its followers have ended, too.
//!
//! Only for those is waited that take what they are given: a client that reads nothing costs nobody else any time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::id::ContainerId;
use model::lock::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Longest wait for followers that still read.
const READING: Duration = Duration::from_millis(500);
/// Longest time that a client may have to take a chunk before nobody waits for it any more.
const TAKING: Duration = Duration::from_millis(50);

/// All followers.
#[derive(Default)]
pub struct Followers(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Since when the client has a chunk to take; `None`: the follower reads, or has nothing to read.
    present: Mutex<BTreeMap<(ContainerId, u64), Option<Instant>>>,
    next: AtomicU64,
    left: Notify,
}

impl Followers {
    /// One more follower of this container's log.
    pub fn enter(&self, container: &ContainerId) -> Follower {
        let key = (container.clone(), self.0.next.fetch_add(1, Ordering::Relaxed));
        self.0.present().insert(key.clone(), None);
        Follower { shared: self.0.clone(), key }
    }

    /// Resolves when no follower is left that takes what it is given, within a bound.
    pub async fn ended(&self, container: &ContainerId) {
        self.wait(container, READING, TAKING).await;
    }

    async fn wait(&self, container: &ContainerId, reading: Duration, taking: Duration) {
        let deadline = Instant::now() + reading;
        loop {
            let left = self.0.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            let Some(look_at) = self.0.awaited(container, taking) else { return };
            if Instant::now() >= deadline {
                return;
            }
            let look_at = look_at.map_or(deadline, |at| at.min(deadline));
            drop(tokio::time::timeout_at(look_at, left).await);
        }
    }
}

impl Shared {
    fn present(&self) -> MutexGuard<'_, BTreeMap<(ContainerId, u64), Option<Instant>>> {
        self.present.lock()
    }

    /// `None`: nobody is waited for. Else the time at which the next one is given up, if there is one.
    fn awaited(&self, container: &ContainerId, taking: Duration) -> Option<Option<Instant>> {
        let now = Instant::now();
        let present = self.present();
        let own = present.range((container.clone(), 0)..=(container.clone(), u64::MAX)).map(|(_, since)| *since);
        let awaited: Vec<_> =
            own.map(|since| since.map(|at| at + taking)).filter(|at| at.is_none_or(|at| at > now)).collect();
        if awaited.is_empty() { None } else { Some(awaited.into_iter().flatten().min()) }
    }
}

/// One follower, from its first look to the end of its client's stream.
pub struct Follower {
    shared: Arc<Shared>,
    key: (ContainerId, u64),
}

impl Follower {
    /// The client has, or no longer has, something to take.
    pub fn is_given(&self, chunk: bool) {
        if let Some(since) = self.shared.present().get_mut(&self.key) {
            *since = chunk.then(Instant::now);
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.shared.present().remove(&self.key);
        self.shared.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(n: u8) -> ContainerId {
        ContainerId::from_bytes([n; 32])
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn the_end_waits_for_those_who_read() {
        let followers = Arc::new(Followers::default());
        let (own, other) = (followers.enter(&container(1)), followers.enter(&container(2)));
        let waiting = tokio::spawn({
            let followers = followers.clone();
            async move { followers.wait(&container(1), LONG, LONG).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waiting.is_finished());
        drop(own);
        waiting.await.unwrap();
        followers.wait(&container(2), Duration::ZERO, LONG).await;
        drop(other);
        followers.wait(&container(2), LONG, LONG).await;
    }

    #[tokio::test]
    async fn nobody_waits_for_a_client_that_takes_nothing() {
        let followers = Followers::default();
        let stalled = followers.enter(&container(1));
        stalled.is_given(true);
        followers.wait(&container(1), LONG, Duration::from_millis(20)).await;
        followers.wait(&container(1), LONG, Duration::ZERO).await;
    }
}
