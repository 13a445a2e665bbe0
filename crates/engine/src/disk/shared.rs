//! A walk over the disk that callers share: whoever comes while one is under way waits for its outcome.

use std::future::Future;
use std::sync::Arc;

use model::lock::{Mutex, MutexGuard};
use model::{Error, Kind, Result};
use tokio::sync::watch;

/// What a walk ended with; an error is told to several.
type Outcome<T> = Option<Result<Arc<T>, (Kind, String)>>;

/// One kind of walk.
pub struct Shared<T> {
    running: Mutex<Option<watch::Receiver<Outcome<T>>>>,
}

impl<T> Default for Shared<T> {
    fn default() -> Shared<T> {
        Shared { running: Mutex::default() }
    }
}

impl<T: Send + Sync + 'static> Shared<T> {
    /// The outcome of the walk that is under way, or else of `walk`. A walk goes on when its callers leave.
    pub async fn get(&self, walk: impl Future<Output = Result<T>> + Send + 'static) -> Result<Arc<T>> {
        let mut outcome = self.join(walk);
        let ended = outcome.wait_for(Option::is_some).await.map(|outcome| outcome.clone());
        let mut running = self.running();
        if running.as_ref().is_some_and(|other| other.same_channel(&outcome)) {
            *running = None;
        }
        match ended {
            Ok(Some(outcome)) => outcome.map_err(|(kind, message)| Error::new(kind, message)),
            _ => Err(Error::system("internal error: a walk over the disk failed")),
        }
    }

    fn join(&self, walk: impl Future<Output = Result<T>> + Send + 'static) -> watch::Receiver<Outcome<T>> {
        let mut running = self.running();
        if let Some(outcome) = running.as_ref().filter(|outcome| outcome.borrow().is_none()) {
            return outcome.clone();
        }
        let (tell, outcome) = watch::channel(None);
        tokio::spawn(async move {
            let ended = walk.await.map(Arc::new).map_err(|error| (error.kind(), error.message().to_owned()));
            tell.send_replace(Some(ended));
        });
        *running = Some(outcome.clone());
        outcome
    }

    fn running(&self) -> MutexGuard<'_, Option<watch::Receiver<Outcome<T>>>> {
        self.running.lock()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn callers_at_one_time_share_a_walk_and_later_ones_begin_anew() {
        let (shared, walks) = (Arc::new(Shared::default()), Arc::new(AtomicU32::new(0)));
        let walk = || {
            let walks = walks.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok(walks.fetch_add(1, Ordering::Relaxed))
            }
        };
        let (a, b) = tokio::join!(shared.get(walk()), shared.get(walk()));
        assert_eq!((*a.unwrap(), *b.unwrap()), (0, 0));
        assert_eq!(*shared.get(walk()).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_caller_that_leaves_takes_nothing_from_the_others() {
        let shared = Arc::new(Shared::default());
        let (end, ended) = tokio::sync::oneshot::channel();
        let slow = async { ended.await.map_err(|_| Error::system("left")) };
        let leaving = tokio::spawn({
            let shared = shared.clone();
            async move { shared.get(slow).await }
        });
        tokio::task::yield_now().await;
        leaving.abort();
        let (seven, _) = tokio::join!(shared.get(async { Err(Error::system("not run")) }), async { end.send(7) });
        assert_eq!(*seven.unwrap(), 7);
        let failed = shared.get(async { Err(Error::not_found("gone")) }).await.unwrap_err();
        assert_eq!((failed.kind(), failed.message()), (Kind::NotFound, "gone"));
    }
}
