//! Clients that wait for something to happen, which may never happen: so many of each kind in the whole daemon, and no more.
//!
//! A place is taken before the client is answered and free again when it waits no more. Whoever finds none is refused.

use std::sync::Arc;

use model::{Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits;

/// What clients wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// The end of a container's run (`/wait`).
    Exit,
    /// Events.
    Events,
    /// More lines of a log.
    Log,
    /// Samples of what a container uses.
    Stats,
    /// The start of a container to whose streams they will be connected.
    Start,
}

impl For {
    fn text(self) -> &'static str {
        match self {
            For::Exit => "the end of a container",
            For::Events => "events",
            For::Log => "more of a log",
            For::Stats => "samples of a container",
            For::Start => "the start of a container",
        }
    }

    fn limit(self) -> usize {
        match self {
            For::Exit => limits::WAIT_FOR_EXIT,
            For::Events => limits::WAIT_FOR_EVENTS,
            For::Log => limits::WAIT_FOR_LOG,
            For::Stats => limits::WAIT_FOR_STATS,
            For::Start => limits::WAIT_FOR_START,
        }
    }
}

/// The place of a client that waits.
pub type Place = OwnedSemaphorePermit;

/// The free places of a daemon.
pub struct Waiting {
    exit: Arc<Semaphore>,
    events: Arc<Semaphore>,
    log: Arc<Semaphore>,
    stats: Arc<Semaphore>,
    start: Arc<Semaphore>,
}

impl Default for Waiting {
    fn default() -> Waiting {
        let places = |what: For| Arc::new(Semaphore::new(what.limit()));
        let [exit, events, log, stats, start] = [For::Exit, For::Events, For::Log, For::Stats, For::Start].map(places);
        Waiting { exit, events, log, stats, start }
    }
}

impl Waiting {
    fn places(&self, what: For) -> &Arc<Semaphore> {
        match what {
            For::Exit => &self.exit,
            For::Events => &self.events,
            For::Log => &self.log,
            For::Stats => &self.stats,
            For::Start => &self.start,
        }
    }

    /// A place. Errors: `Unavailable` when there is none.
    pub fn enter(&self, what: For) -> Result<Place> {
        self.places(what).clone().try_acquire_owned().map_err(|_| full(what))
    }

    /// As [`Waiting::enter`], but when there is none, `reclaim` looks for places of clients that have left, which get
    /// [`limits::RECLAIM_TIME`] to become free.
    pub async fn enter_after(&self, what: For, reclaim: impl Future<Output = ()>) -> Result<Place> {
        if let Ok(place) = self.enter(what) {
            return Ok(place);
        }
        reclaim.await;
        let place = tokio::time::timeout(limits::RECLAIM_TIME, self.places(what).clone().acquire_owned()).await;
        place.ok().and_then(|place| place.ok()).ok_or_else(|| full(what))
    }
}

fn full(what: For) -> Error {
    Error::unavailable(format!("too many clients wait for {}: at most {} at once", what.text(), what.limit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let waiting = Waiting::default();
        let mut places: Vec<Place> =
            (0..limits::WAIT_FOR_EVENTS).map(|_| waiting.enter(For::Events).expect("free")).collect();
        let error = waiting.enter(For::Events).expect_err("full");
        assert_eq!(error.kind(), model::Kind::Unavailable);
        assert_eq!(error.message(), "too many clients wait for events: at most 1024 at once");
        // The other kinds have their own.
        assert!(
            waiting.enter(For::Exit).is_ok() && waiting.enter(For::Log).is_ok() && waiting.enter(For::Start).is_ok()
        );
        places.pop();
        assert!(waiting.enter(For::Events).is_ok());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn places_of_clients_that_left_are_reclaimed() {
        let waiting = Waiting::default();
        let mut left: Vec<Place> =
            (0..limits::WAIT_FOR_START).map(|_| waiting.enter(For::Start).expect("free")).collect();
        let place = waiting.enter_after(For::Start, async { drop(left.pop()) }).await;
        assert!(place.is_ok());
    }
}
