//! The fetches that are going on: one per blob, however many clients want it.
//!
//! A fetch lives as long as somebody follows it: the last one to leave ends it, and what it got stays as a part.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use model::digest::Digest;
use model::lock::{Mutex, MutexGuard};
use model::{Error, Result};
use registry::Repository;
use store::{Lease, Pins};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::fetch::{FetchState, Fetching, Job, Places, Slot, Turns};

/// Unpackings at one time, whatever the number of processors.
const UNPACKS: std::ops::RangeInclusive<usize> = 2..=8;

/// Fetches at one time, those that await their turn included.
const FETCHES: usize = 4096;

/// How long a fetch that was given up may take to let go.
const RELEASE_PAUSE: Duration = Duration::from_millis(10);
const RELEASE_TRIES: usize = 3000;

/// By the blob's digest, and the layer's when it is unpacked.
type Running = HashMap<(Digest, Option<Digest>), Weak<Fetch>>;

/// See the module.
pub struct Fetches {
    running: Mutex<Running>,
    turns: Mutex<(usize, Turns)>,
    /// What fetches that were given up may still hold.
    held: Mutex<Vec<Weak<Lease>>>,
}

/// A fetch that is followed.
pub struct Fetch {
    /// How far it is.
    pub state: watch::Receiver<FetchState>,
    /// Bytes of the blob.
    size: u64,
    slot: Slot,
    task: JoinHandle<()>,
}

impl Fetch {
    /// Makes what was fetched a blob, unless another who followed has done so. Blocks.
    pub fn publish(&self, lease: &Lease) -> Result<()> {
        let whole = self.slot.lock().take();
        whole.map_or(Ok(()), |whole| whole.publish(lease))
    }

    #[cfg(test)]
    pub fn detached(state: watch::Receiver<FetchState>) -> Fetch {
        Fetch { state, size: 0, slot: Slot::default(), task: tokio::spawn(async {}) }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Default for Fetches {
    fn default() -> Fetches {
        let turns = Turns { downloads: Arc::new(Semaphore::new(3)), unpacks: Arc::new(Semaphore::new(unpacks(3))) };
        Fetches { running: Mutex::default(), turns: Mutex::new((3, turns)), held: Mutex::default() }
    }
}

/// As many as there are processors, and not fewer than there are downloads to keep up with.
fn unpacks(downloads: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    processors.max(downloads).clamp(*UNPACKS.start(), *UNPACKS.end())
}

impl Fetches {
    /// Sets how many downloads go on at one time (0: no bound), for fetches that begin from now on.
    pub fn limit(&self, downloads: usize) {
        let mut turns = self.turns.lock();
        if turns.0 != downloads {
            let permits = if downloads == 0 { Semaphore::MAX_PERMITS } else { downloads };
            let unpacks = Arc::new(Semaphore::new(unpacks(downloads)));
            *turns = (downloads, Turns { downloads: Arc::new(Semaphore::new(permits)), unpacks });
        }
    }

    /// Joins the fetch of a blob, or begins it; `true` when it was begun.
    ///
    /// Errors: `Unavailable` when there are [`FETCHES`] others.
    pub fn join(
        &self,
        repository: &Arc<Repository>,
        places: &Places,
        pins: &Pins,
        job: Job,
    ) -> Result<(Arc<Fetch>, bool)> {
        let key = (job.blob.digest.clone(), job.diff_id.clone());
        let mut running = self.running();
        running.retain(|_, fetch| fetch.strong_count() > 0);
        // One that has failed is nobody's any more: its reasons may be another client's.
        let usable = |fetch: &Arc<Fetch>| !matches!(fetch.state.borrow().ended, Some(Err(_)));
        if let Some(fetch) = running.get(&key).and_then(Weak::upgrade).filter(usable) {
            return Ok((fetch, false));
        }
        admit(&running)?;
        let (sender, state) = watch::channel(FetchState::default());
        let slot = Slot::default();
        let turns = self.turns.lock().1.clone();
        let lease = Arc::new(pins.lease());
        {
            let mut held = self.held();
            held.retain(|lease| lease.strong_count() > 0);
            held.push(Arc::downgrade(&lease));
        }
        let (repository, places, progress) = (repository.clone(), places.clone(), Arc::new(sender));
        let size = job.blob.size;
        let fetching = Fetching { repository, places, job, turns, lease, progress };
        let task = tokio::spawn(fetching.run(slot.clone()));
        let fetch = Arc::new(Fetch { state, size, slot, task });
        running.insert(key, Arc::downgrade(&fetch));
        Ok((fetch, true))
    }

    /// Bytes that are still to come, as far as manifests say: blobs, not what they unpack to.
    pub fn awaited(&self) -> u64 {
        let left = |fetch: Arc<Fetch>| {
            let state = fetch.state.borrow();
            if state.ended.is_some() { 0 } else { fetch.size.saturating_sub(state.downloaded) }
        };
        self.running().values().filter_map(Weak::upgrade).map(left).fold(0, u64::saturating_add)
    }

    /// Waits until the fetches that nobody follows have let go of everything, for a bounded time.
    pub async fn wait_until_released(&self) {
        for _ in 0..RELEASE_TRIES {
            let followed = self.running().values().filter(|fetch| fetch.strong_count() > 0).count();
            let held = {
                let mut held = self.held();
                held.retain(|lease| lease.strong_count() > 0);
                held.len()
            };
            if held <= followed {
                return;
            }
            tokio::time::sleep(RELEASE_PAUSE).await;
        }
    }

    fn held(&self) -> MutexGuard<'_, Vec<Weak<Lease>>> {
        self.held.lock()
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock()
    }
}

/// Refuses one more when there are too many.
fn admit(running: &Running) -> Result<()> {
    if running.len() < FETCHES {
        return Ok(());
    }
    Err(Error::unavailable(format!("too many layers are being fetched: at most {FETCHES} at once")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fetches_are_bounded() {
        let fetch = |number: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&number.to_ne_bytes());
            ((Digest::from_sha256(&bytes), None), Weak::new())
        };
        let mut running: Running = (1..FETCHES).map(fetch).collect();
        assert!(admit(&running).is_ok());
        running.extend([fetch(0)]);
        let error = admit(&running).expect_err("full");
        assert_eq!(error.message(), "too many layers are being fetched: at most 4096 at once");
        assert_eq!(error.kind(), model::Kind::Unavailable);
    }
}
