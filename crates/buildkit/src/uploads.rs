//! Contexts that come with a request of their own (`buildid=upload-request:<id>`), and the builds that wait for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use build::job::Incoming;
use model::lock::{Mutex, MutexGuard};
use model::{Error, Result};
use tokio::sync::{oneshot, watch};

use crate::inputs::bytes::Holding;

/// Contexts that wait for their builds.
const WAITING: usize = 64;
/// How long either waits for the other.
const ARRIVAL: Duration = Duration::from_secs(5);

/// All that wait. Clones are the same.
#[derive(Clone, Default)]
pub struct Uploads(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<HashMap<String, Incoming>>,
    changed: watch::Sender<()>,
}

impl Uploads {
    /// Offers a context to the build of this name; returns when that has read it.
    ///
    /// Errors: `Conflict` for a second one; the reference's, when no build wants it in time.
    pub async fn offer(&self, build: &str, body: Incoming) -> Result<()> {
        let (done, read) = oneshot::channel::<()>();
        {
            let mut waiting = self.waiting();
            if waiting.contains_key(build) {
                return Err(Error::conflict(format!("a context of build {build} waits already")));
            }
            if waiting.len() >= WAITING {
                return Err(Error::unavailable(format!("more than {WAITING} contexts wait for their builds")));
            }
            // It tells when nobody reads it any more.
            waiting.insert(build.to_owned(), Box::new(Holding { read: body, _held: done }));
        }
        // Whoever offers and leaves takes it back.
        let offered = Offered { uploads: self, build };
        self.0.changed.send_replace(());
        let mut changed = self.0.changed.subscribe();
        let is_taken = async {
            while self.waiting().contains_key(build) {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(ARRIVAL, is_taken).await.map_err(|_| late())?;
        drop(offered);
        // The sender goes with the reader.
        drop(read.await);
        Ok(())
    }

    /// The context of a build, waited for.
    ///
    /// Errors: the reference's, when none comes in time.
    pub async fn take(&self, build: &str) -> Result<Incoming> {
        let mut changed = self.0.changed.subscribe();
        let taken = async {
            loop {
                changed.borrow_and_update();
                let found = self.waiting().remove(build);
                if let Some(body) = found {
                    self.0.changed.send_replace(());
                    return body;
                }
                if changed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(ARRIVAL, taken).await.map_err(|_| late())
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Incoming>> {
        self.0.waiting.lock()
    }
}

struct Offered<'o> {
    uploads: &'o Uploads,
    build: &'o str,
}

impl Drop for Offered<'_> {
    fn drop(&mut self) {
        self.uploads.waiting().remove(self.build);
    }
}

fn late() -> Error {
    Error::system("context deadline exceeded")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    fn body(text: &'static str) -> Incoming {
        Box::new(text.as_bytes())
    }

    #[tokio::test(start_paused = true)]
    async fn a_context_and_its_build_find_one_another() {
        let uploads = Uploads::default();
        for waits in [true, false] {
            let offered = tokio::spawn({
                let uploads = uploads.clone();
                async move {
                    if waits {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    uploads.offer("x", body("content")).await
                }
            });
            if !waits {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let mut taken = uploads.take("x").await.unwrap();
            let mut text = String::new();
            let _ = taken.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "content");
            assert!(!offered.is_finished());
            drop(taken);
            offered.await.unwrap().unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn neither_waits_without_end() {
        let uploads = Uploads::default();
        assert_eq!(uploads.offer("x", body("")).await.unwrap_err().message(), "context deadline exceeded");
        let Err(error) = uploads.take("x").await else { panic!("it was taken back") };
        assert_eq!(error.message(), "context deadline exceeded");
    }

    #[tokio::test]
    async fn there_is_one_context_of_a_build_and_a_bounded_number_of_all() {
        let uploads = Uploads::default();
        for count in 0..WAITING {
            uploads.waiting().insert(count.to_string(), body(""));
        }
        assert!(uploads.offer("0", body("")).await.unwrap_err().message().contains("waits already"));
        assert!(uploads.offer("x", body("")).await.unwrap_err().message().contains("more than"));
    }
}
