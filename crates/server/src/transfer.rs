//! Transfers whose pace a client decides: exports, saves, loads, imports.
//!
//! Each has a thread of its own, apart from those that create and start containers, and [`limits::TRANSFERS`] run at a time.
//! Further ones wait for a place in the order in which they came. While one waits, the transfer whose client has neither
//! taken nor given anything for the longest time, at least [`limits::TRANSFER_STALLED`], is cut: its connection is closed, so
//! that nobody takes a part for the whole. With free places a client may pause as long as it likes.
//!
//! What a file system holds up that does not answer cannot be called back. Such a transfer gives its place up and keeps its thread, as long
//! as there are fewer than [`limits::TRANSFERS_STUCK`] of them: at once when its caller waits no longer ([`Running::within`]), else
//! when others wait and neither its client nor the transfer itself has moved for [`limits::TRANSFER_SILENT`].

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use blocking::unanswered;
use model::lock::{Mutex, MutexGuard};
use model::{Error, Result};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::limits;

/// All transfers of the daemon.
pub struct Transfers {
    places: Arc<Semaphore>,
    running: Arc<Mutex<Vec<Arc<Pace>>>>,
    /// How long one may stand still while others wait: for its client, and for anything else.
    patience: (Duration, Duration),
    /// Places of those that a file system holds up.
    stuck: Arc<Semaphore>,
}

impl Default for Transfers {
    fn default() -> Transfers {
        Transfers::new(limits::TRANSFERS, (limits::TRANSFER_STALLED, limits::TRANSFER_SILENT))
    }
}

impl Transfers {
    fn new(places: usize, patience: (Duration, Duration)) -> Transfers {
        let stuck = Arc::new(Semaphore::new(limits::TRANSFERS_STUCK));
        Transfers { places: Arc::new(Semaphore::new(places)), running: Arc::default(), patience, stuck }
    }

    /// Waits for a place.
    pub async fn place(&self) -> Place {
        let free = self.places.clone().try_acquire_owned();
        let permit = match free {
            Ok(permit) => permit,
            Err(_) => self.wait().await,
        };
        let pace = Arc::new(Pace {
            begun: Instant::now(),
            waits_since: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            cut: watch::Sender::new(false),
            permit: Mutex::new(Some(permit)),
            stuck: self.stuck.clone(),
        });
        running(&self.running).push(pace.clone());
        Place { pace, running: self.running.clone() }
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

    /// Cuts the one whose client has stood still for the longest time, if that is too long; gives up those that nothing moves.
    fn cut_stalled(&self) {
        let running = running(&self.running);
        let silent = running.iter().filter(|pace| pace.is_silent(self.patience.1));
        silent.for_each(|pace| {
            pace.give_up();
        });
        let stalled = running.iter().filter(|pace| !*pace.cut.borrow());
        let longest = stalled.filter_map(|pace| Some((pace.waits_since()?, pace))).min_by_key(|(since, _)| *since);
        if let Some((since, pace)) = longest
            && since.elapsed() >= self.patience.0
        {
            tracing::warn!("a transfer whose client stands still is cut, since others wait");
            pace.cut.send_replace(true);
        }
    }
}

fn running(list: &Mutex<Vec<Arc<Pace>>>) -> MutexGuard<'_, Vec<Arc<Pace>>> {
    list.lock()
}

/// How a transfer gets on with its client.
struct Pace {
    begun: Instant,
    /// Milliseconds after the beginning, plus one; 0 while the client is not waited for.
    waits_since: AtomicU64,
    /// Milliseconds after the beginning at which the client last gave or took something.
    moved: AtomicU64,
    cut: watch::Sender<bool>,
    /// Given back when the transfer ends; one of [`Transfers::stuck`] when it was given up.
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    stuck: Arc<Semaphore>,
}

impl Pace {
    fn waits_since(&self) -> Option<Instant> {
        let after = self.waits_since.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.begun + Duration::from_millis(after))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }

    /// Whether it has not moved for so long, for another reason than its client, and nobody has given it up.
    fn is_silent(&self, limit: Duration) -> bool {
        let moved = self.begun + Duration::from_millis(self.moved.load(Ordering::Relaxed));
        self.waits_since().is_none() && moved.elapsed() >= limit && !*self.cut.borrow()
    }

    /// Gives its place up, and cuts it. False: too many are held up like that already, it keeps its place.
    fn give_up(&self) -> bool {
        let Ok(other) = self.stuck.clone().try_acquire_owned() else { return false };
        let mut permit = self.permit.lock();
        // None: it has ended meanwhile.
        if permit.is_some() {
            *permit = Some(other);
            tracing::warn!("a transfer that a file system holds up is given up");
        }
        drop(permit);
        self.cut.send_replace(true);
        true
    }
}

/// The right to transfer.
pub struct Place {
    pace: Arc<Pace>,
    running: Arc<Mutex<Vec<Arc<Pace>>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        running(&self.running).retain(|pace| !Arc::ptr_eq(pace, &self.pace));
        drop(self.pace.permit.lock().take());
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
        let pace = self.pace.clone();
        let spawned = thread::Builder::new().name("transfer".into()).spawn(move || {
            let _entered = runtime.enter();
            let client = Client { pace: self.pace.clone(), runtime: runtime.clone() };
            let done = work(client);
            drop(self);
            drop(sender.send(done));
        });
        Running { outcome: spawned.map(|_| outcome), pace }
    }
}

/// A transfer on its thread.
pub struct Running<T> {
    outcome: io::Result<oneshot::Receiver<T>>,
    pace: Arc<Pace>,
}

impl<T> Running<T> {
    /// Lets it run; fails when there was no thread for it.
    pub fn begun(self) -> Result<()> {
        self.outcome.map(drop).map_err(no_thread)
    }

    /// Its outcome. Fails when there was no thread for it, when it panicked, or when it was given up.
    pub async fn outcome(self) -> Result<T> {
        let outcome = self.outcome.map_err(no_thread)?;
        let mut cut = self.pace.cut.subscribe();
        let silent = async {
            let _ = cut.wait_for(|cut| *cut).await;
            // One that its client holds up ends by itself.
            if self.pace.waits_since().is_some() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(limits::TRANSFER_LOOK).await;
        };
        tokio::select! {
            biased;
            outcome = outcome => outcome.map_err(|_| Error::system("internal error: the transfer failed")),
            () = silent => Err(unanswered("a file system of the transfer", limits::TRANSFER_SILENT)),
        }
    }

    /// Its outcome, if it says in time that it has got so far; then it may take as long as it likes.
    ///
    /// Errors: as [`Running::within`].
    pub async fn begun_within(self, begun: oneshot::Receiver<()>, limit: Duration, what: &str) -> Result<T> {
        // One that has failed says nothing, and has an outcome.
        if tokio::time::timeout(limit, begun).await.is_err() {
            self.pace.give_up();
            return Err(unanswered(what, limit));
        }
        self.outcome().await
    }

    /// Its outcome, if it comes in time. What takes longer is left to its thread and given up.
    ///
    /// Errors: as [`Running::outcome`]; `System`: "/m/x has not answered for 10s".
    pub async fn within(self, limit: Duration, what: &str) -> Result<T> {
        let pace = self.pace.clone();
        match tokio::time::timeout(limit, self.outcome()).await {
            Ok(outcome) => outcome,
            Err(_) => {
                pace.give_up();
                Err(unanswered(what, limit))
            }
        }
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
            Ok(()) => {
                self.pace.moved.store(self.pace.now(), Ordering::Relaxed);
                return self.check();
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(io::ErrorKind::BrokenPipe.into()),
            Err(mpsc::error::TrySendError::Full(value)) => value,
        };
        self.wait(queue.send(value))?.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Takes what the client gives; `None` at the end. `TimedOut`: the transfer was cut.
    pub fn receive<T>(&self, queue: &mut mpsc::Receiver<T>) -> io::Result<Option<T>> {
        if let Ok(value) = queue.try_recv() {
            self.pace.moved.store(self.pace.now(), Ordering::Relaxed);
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
        self.pace.waits_since.store(self.pace.now() + 1, Ordering::Relaxed);
        let mut told = self.pace.cut.subscribe();
        let outcome = self.runtime.block_on(async {
            tokio::select! {
                biased;
                value = client => Ok(value),
                _ = told.wait_for(|cut| *cut) => Err(cut()),
            }
        });
        self.pace.moved.store(self.pace.now(), Ordering::Relaxed);
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
        let transfers = Transfers::new(1, (Duration::ZERO, limits::TRANSFER_SILENT));
        let (queue, _nobody_takes) = mpsc::channel(1);
        let (cut, sending) = endless(&transfers, &queue).await;
        let _place = transfers.place().await;
        assert_eq!(sending.outcome().await.unwrap().kind(), io::ErrorKind::TimedOut);
        assert!(*cut.borrow());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_that_gets_on_or_stands_still_for_a_moment_is_not_cut() {
        let transfers = Transfers::new(1, (Duration::from_secs(3600), limits::TRANSFER_SILENT));
        let (queue, taken) = mpsc::channel(1);
        let (cut, sending) = endless(&transfers, &queue).await;
        let waited = tokio::time::timeout(limits::TRANSFER_LOOK * 3, transfers.place()).await;
        assert!(waited.is_err() && !*cut.borrow());
        drop(taken);
        assert_eq!(sending.outcome().await.unwrap().kind(), io::ErrorKind::BrokenPipe);
        drop(transfers.place().await);
    }

    /// A transfer that nothing moves until the sender of the second value is dropped.
    async fn held_up(transfers: &Transfers) -> (Running<()>, std::sync::mpsc::Sender<()>) {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let running = transfers.place().await.run(move |_| {
            let _ = ended.recv();
        });
        (running, end)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_whose_caller_waits_no_longer_gives_its_place_up() {
        let transfers = Transfers::new(1, (Duration::from_secs(3600), Duration::from_secs(3600)));
        let (running, end) = held_up(&transfers).await;
        let error = running.within(Duration::from_millis(10), "/m/x").await.unwrap_err();
        assert_eq!(error.message(), "/m/x has not answered for 10ms");
        assert_eq!(transfers.stuck.available_permits(), limits::TRANSFERS_STUCK - 1);
        drop(transfers.place().await);
        drop(end);
        while transfers.stuck.available_permits() < limits::TRANSFERS_STUCK {
            tokio::task::yield_now().await;
        }
        assert_eq!(transfers.places.available_permits(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_that_nothing_moves_is_given_up_when_another_waits() {
        let transfers = Transfers::new(1, (Duration::from_secs(3600), Duration::ZERO));
        let (running, end) = held_up(&transfers).await;
        let _place = transfers.place().await;
        assert!(
            running
                .outcome()
                .await
                .unwrap_err()
                .message()
                .starts_with("a file system of the transfer has not answered")
        );
        drop(end);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn those_that_are_held_up_are_bounded() {
        let transfers = Transfers::new(1, (Duration::from_secs(3600), Duration::from_secs(3600)));
        let all = transfers.stuck.clone().acquire_many_owned(limits::TRANSFERS_STUCK as u32).await.unwrap();
        let (running, end) = held_up(&transfers).await;
        assert!(running.within(Duration::from_millis(10), "x").await.is_err());
        assert_eq!(transfers.places.available_permits(), 0);
        drop(all);
        drop(end);
        drop(transfers.place().await);
    }
}
