//! Transfers whose pace a client decides: exports, saves, loads, imports.
//!
//! Each has a thread of its own, apart from those that create and start containers, and [`limits::TRANSFERS`] run at a time.
//! Further ones wait for a place in the order in which they came. While one waits, the transfer whose client has neither
//! taken nor given anything for the longest time, at least [`limits::TRANSFER_STALLED`], is cut: its connection is closed, so
//! that nobody takes a part for the whole. With free places a client may pause as long as it likes.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use model::{Error, Result};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::limits;

/// All transfers of the daemon.
pub struct Transfers {
    places: Arc<Semaphore>,
    running: Arc<Mutex<Vec<Arc<Pace>>>>,
    /// How long one may stand still while others wait.
    patience: Duration,
}

impl Default for Transfers {
    fn default() -> Transfers {
        Transfers::new(limits::TRANSFERS, limits::TRANSFER_STALLED)
    }
}

impl Transfers {
    fn new(places: usize, patience: Duration) -> Transfers {
        Transfers { places: Arc::new(Semaphore::new(places)), running: Arc::default(), patience }
    }

    /// Waits for a place.
    pub async fn place(&self) -> Place {
        let free = self.places.clone().try_acquire_owned();
        let permit = match free {
            Ok(permit) => permit,
            Err(_) => self.wait().await,
        };
        let pace =
            Arc::new(Pace { begun: Instant::now(), waits_since: AtomicU64::new(0), cut: watch::Sender::new(false) });
        running(&self.running).push(pace.clone());
        Place { pace, running: self.running.clone(), _permit: permit }
    }

    async fn wait(&self) -> OwnedSemaphorePermit {
        let mut place = pin!(self.places.clone().acquire_owned());
        loop {
            tokio::select! {
                permit = &mut place => return permit.expect("the semaphore is never closed"),
                () = tokio::time::sleep(limits::TRANSFER_LOOK) => self.cut_stalled(),
            }
        }
    }

    /// Cuts the one that has stood still for the longest time, if that is too long.
    fn cut_stalled(&self) {
        let running = running(&self.running);
        let stalled = running.iter().filter(|pace| !*pace.cut.borrow());
        let longest = stalled.filter_map(|pace| Some((pace.waits_since()?, pace))).min_by_key(|(since, _)| *since);
        if let Some((since, pace)) = longest
            && since.elapsed() >= self.patience
        {
            tracing::warn!("a transfer whose client stands still is cut, since others wait");
            pace.cut.send_replace(true);
        }
    }
}

fn running(list: &Mutex<Vec<Arc<Pace>>>) -> MutexGuard<'_, Vec<Arc<Pace>>> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a transfer gets on with its client.
struct Pace {
    begun: Instant,
    /// Milliseconds after the beginning, plus one; 0 while the client is not waited for.
    waits_since: AtomicU64,
    cut: watch::Sender<bool>,
}

impl Pace {
    fn waits_since(&self) -> Option<Instant> {
        let after = self.waits_since.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.begun + Duration::from_millis(after))
    }
}

/// The right to transfer.
pub struct Place {
    pace: Arc<Pace>,
    running: Arc<Mutex<Vec<Arc<Pace>>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        running(&self.running).retain(|pace| !Arc::ptr_eq(pace, &self.pace));
    }
}

impl Place {
    /// Turns true when the transfer is cut.
    pub fn cut(&self) -> watch::Receiver<bool> {
        self.pace.cut.subscribe()
    }

    /// Runs the transfer on a thread of its own. To be called on the runtime.
    pub fn run<T: Send + 'static>(self, work: impl FnOnce(Client) -> T + Send + 'static) -> Running<T> {
        let (sender, outcome) = oneshot::channel();
        let runtime = Handle::current();
        let spawned = thread::Builder::new().name("transfer".into()).spawn(move || {
            let _entered = runtime.enter();
            let client = Client { pace: self.pace.clone(), runtime: runtime.clone() };
            let done = work(client);
            drop(self);
            drop(sender.send(done));
        });
        Running(spawned.map(|_| outcome))
    }
}

/// A transfer on its thread.
pub struct Running<T>(io::Result<oneshot::Receiver<T>>);

impl<T> Running<T> {
    /// Lets it run; fails when there was no thread for it.
    pub fn begun(self) -> Result<()> {
        self.0.map(drop).map_err(no_thread)
    }

    /// Its outcome. Fails when there was no thread for it, or it panicked.
    pub async fn outcome(self) -> Result<T> {
        let outcome = self.0.map_err(no_thread)?;
        outcome.await.map_err(|_| Error::system("internal error: the transfer failed"))
    }
}

fn no_thread(error: io::Error) -> Error {
    Error::from(error).prefix("starting a transfer")
}

/// The client of a transfer, as its thread sees it.
#[derive(Clone)]
pub struct Client {
    pace: Arc<Pace>,
    runtime: Handle,
}

impl Client {
    /// Gives the client something. `BrokenPipe`: it left; `TimedOut`: the transfer was cut.
    pub fn send<T>(&self, queue: &mpsc::Sender<T>, value: T) -> io::Result<()> {
        let value = match queue.try_send(value) {
            Ok(()) => return self.check(),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(io::ErrorKind::BrokenPipe.into()),
            Err(mpsc::error::TrySendError::Full(value)) => value,
        };
        self.wait(queue.send(value))?.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Takes what the client gives; `None` at the end. `TimedOut`: the transfer was cut.
    pub fn receive<T>(&self, queue: &mut mpsc::Receiver<T>) -> io::Result<Option<T>> {
        if let Ok(value) = queue.try_recv() {
            return Ok(Some(value));
        }
        self.wait(queue.recv())
    }

    fn check(&self) -> io::Result<()> {
        if *self.pace.cut.borrow() { Err(cut()) } else { Ok(()) }
    }

    #[expect(clippy::disallowed_methods, reason = "on the thread of the transfer")]
    fn wait<T>(&self, client: impl Future<Output = T>) -> io::Result<T> {
        self.check()?;
        let since = u64::try_from(self.pace.begun.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1;
        self.pace.waits_since.store(since, Ordering::Relaxed);
        let mut told = self.pace.cut.subscribe();
        let outcome = self.runtime.block_on(async {
            tokio::select! {
                biased;
                value = client => Ok(value),
                _ = told.wait_for(|cut| *cut) => Err(cut()),
            }
        });
        self.pace.waits_since.store(0, Ordering::Relaxed);
        outcome
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the transfer stood still while others waited for a place")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_transfer_runs_apart_and_gives_its_place_back() {
        let transfers = Transfers::default();
        for n in 0..limits::TRANSFERS * 2 {
            let outcome = transfers.place().await.run(move |_| n).outcome().await;
            assert_eq!(outcome.unwrap(), n);
        }
        let failed = transfers.place().await.run(|_| panic!("as it should")).outcome().await;
        assert!(failed.is_err());
        assert!(running(&transfers.running).is_empty());
    }

    /// One that sends until it cannot.
    async fn endless(transfers: &Transfers, queue: &mpsc::Sender<u8>) -> (watch::Receiver<bool>, Running<io::Error>) {
        let (place, queue) = (transfers.place().await, queue.clone());
        let cut = place.cut();
        let sending = place.run(move |client| {
            loop {
                if let Err(error) = client.send(&queue, 0) {
                    return error;
                }
            }
        });
        (cut, sending)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_that_stands_still_is_cut_when_another_waits() {
        let transfers = Transfers::new(1, Duration::ZERO);
        let (queue, _nobody_takes) = mpsc::channel(1);
        let (cut, sending) = endless(&transfers, &queue).await;
        let _place = transfers.place().await;
        assert_eq!(sending.outcome().await.unwrap().kind(), io::ErrorKind::TimedOut);
        assert!(*cut.borrow());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_that_gets_on_or_stands_still_for_a_moment_is_not_cut() {
        let transfers = Transfers::new(1, Duration::from_secs(3600));
        let (queue, taken) = mpsc::channel(1);
        let (cut, sending) = endless(&transfers, &queue).await;
        let waited = tokio::time::timeout(limits::TRANSFER_LOOK * 3, transfers.place()).await;
        assert!(waited.is_err() && !*cut.borrow());
        drop(taken);
        assert_eq!(sending.outcome().await.unwrap().kind(), io::ErrorKind::BrokenPipe);
        drop(transfers.place().await);
    }
}
