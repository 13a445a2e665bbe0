//! Work whose length a container decides by what it has written: measuring, comparing and packing its tree.

use std::sync::Arc;

use model::{Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Walks at a time: threads of the pool that creates and starts need as well.
const WALKS: usize = 8;

/// The turns of long walks; they come in the order in which they are asked for.
pub struct Walks(Arc<Semaphore>);

impl Default for Walks {
    fn default() -> Walks {
        Walks(Arc::new(Semaphore::new(WALKS)))
    }
}

/// The right to walk.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "kept until it is dropped")] OwnedSemaphorePermit);

impl Walks {
    /// Waits for a turn. A caller that leaves gives it up.
    pub async fn turn(&self) -> Turn {
        Turn(self.0.clone().acquire_owned().await.expect("the semaphore is never closed"))
    }

    /// Runs a walk when it is its turn.
    pub async fn run<T: Send + 'static>(&self, walk: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        self.turn().await.run(walk).await
    }
}

impl Turn {
    /// Runs the walk on a blocking thread. Once begun it goes on to its end and keeps the turn, whoever leaves.
    pub async fn run<T: Send + 'static>(self, walk: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let ended = tokio::task::spawn_blocking(move || {
            let _turn = self;
            walk()
        });
        ended.await.unwrap_or_else(|failed| Err(Error::system("internal error: a walk failed").with_source(failed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn no_more_than_so_many_walk_at_a_time() {
        let walks = Arc::new(Walks::default());
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let all: Vec<_> = (0..WALKS * 4)
            .map(|_| {
                let (walks, now, most) = (walks.clone(), now.clone(), most.clone());
                tokio::spawn(async move {
                    let walk = move || {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::sleep(std::time::Duration::from_millis(2));
                        now.fetch_sub(1, Ordering::SeqCst);
                        Ok(())
                    };
                    walks.run(walk).await
                })
            })
            .collect();
        for walk in all {
            walk.await.unwrap().unwrap();
        }
        assert!((1..=WALKS).contains(&most.load(Ordering::SeqCst)));
        assert!(walks.run(|| -> Result<()> { panic!("as it should") }).await.is_err());
    }
}
