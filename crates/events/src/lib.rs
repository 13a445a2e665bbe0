//! Events: what happened, in order, numbered, to whoever listens.
//!
//! Invariants:
//! - an event is published only after the row it speaks of is durable, and is in the journal before anybody sees it;
//! - events of a change of state ride in its commit ([`Events::ride`]); all others are appended without a sync, and synced
//!   within a second;
//! - publishing never waits for a reader. The newest events are in memory ([`BACKLOG`], [`BACKLOG_BYTES`]); a reader that
//!   lags behind goes on in the journal, and one that lags behind that is told how many it has missed.
//!
//! See `docs/design/0031-event-journal.md`.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods)]

mod event;
mod filter;
#[allow(clippy::disallowed_methods, reason = "on threads that may block: what opens and reads takes a `Blocking`")]
mod journal;
mod outbox;
mod read;
mod sync;

use std::collections::VecDeque;
use std::sync::Arc;

use blocking::{Blocking, Class, Work};
use model::Result;
use model::lock::{Mutex, MutexGuard};
use model::time::Timestamp;
use store::Store;
use tokio::sync::{Notify, watch};

use crate::journal::Journal;
use crate::journal::line::Record;
use crate::outbox::Rider;

/// The version of the journal's files.
pub const FORMAT: u32 = journal::files::VERSION;

pub use event::{Draft, Event, Gap, Item};
pub use filter::matches;
pub use journal::{JOURNAL_BYTES, Place};
pub use outbox::{Ride, Rows, table};
pub use read::{From, Reader};

/// Events in memory at most.
pub const BACKLOG: usize = 1024;
/// Bytes of the events in memory, except that the newest is kept in any case.
pub const BACKLOG_BYTES: usize = 8 * 1024 * 1024;
/// Rows of the store that wait for a sync of the journal, before one is asked for.
const ROWS: usize = 64;

/// Publishes to all readers, and remembers.
#[derive(Clone)]
pub struct Events(Arc<Shared>);

pub(crate) struct Shared {
    state: Mutex<State>,
    /// The last number.
    count: watch::Sender<u64>,
    /// There is something that has to be synced.
    to_sync: Notify,
    threads: Class,
}

/// Everything that changes, under one lock that is held for a write into the page cache at most.
pub(crate) struct State {
    recent: VecDeque<Arc<Event>>,
    weight: usize,
    /// The last number that was given.
    last: u64,
    journal: Option<Journal>,
    /// Counts how often files were replaced.
    generation: u64,
    /// The next token of an event that rides in a commit.
    next_token: u64,
    /// Keys of rows whose events are in the journal, which has not been synced since.
    written: Vec<u64>,
    /// Keys of rows whose events are on the disk.
    finished: Vec<u64>,
    /// What is wrong with the journal.
    warnings: Vec<String>,
}

impl State {
    /// Gives numbers, writes, remembers; whether the journal has it.
    fn push(&mut self, drafts: Vec<(Draft, Option<u64>)>) -> bool {
        let time = now();
        let mut records = Vec::with_capacity(drafts.len());
        for (said, token) in drafts {
            self.last += 1;
            records.push(Record { n: self.last, t: time.unix_nanos(), c: token, said });
        }
        let written = match &mut self.journal {
            Some(journal) => journal.append(records.clone()).is_ok(),
            None => true,
        };
        for record in records {
            let event = record.into_event();
            self.weight += event.weight();
            self.recent.push_back(Arc::new(event));
        }
        while self.recent.len() > 1 && (self.recent.len() > BACKLOG || self.weight > BACKLOG_BYTES) {
            let oldest = self.recent.pop_front();
            self.weight -= oldest.map_or(0, |event| event.weight());
        }
        written
    }
}

impl Shared {
    fn new(state: State) -> Shared {
        let count = watch::Sender::new(state.last);
        Shared { state: Mutex::new(state), count, to_sync: Notify::new(), threads: Class::new(Work::Events) }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(crate) fn has_journal(&self) -> bool {
        self.state().journal.is_some()
    }

    /// Events that nothing else tells of: on the disk within a second.
    pub(crate) fn publish(&self, drafts: Vec<Draft>) {
        if drafts.is_empty() {
            return;
        }
        let mut state = self.state();
        state.push(drafts.into_iter().map(|said| (said, None)).collect());
        self.count.send_replace(state.last);
        drop(state);
        self.to_sync.notify_one();
    }

    /// Events that the store holds until the journal is synced.
    pub(crate) fn publish_riders(&self, riders: Vec<Rider>) {
        let Some(key) = riders.first().map(|rider| rider.token) else { return };
        let mut state = self.state();
        let is_written = state.push(riders.into_iter().map(|rider| (rider.said, Some(rider.token))).collect());
        if is_written && state.journal.is_some() {
            state.written.push(key);
        }
        self.count.send_replace(state.last);
        if state.written.len() >= ROWS {
            self.to_sync.notify_one();
        }
    }
}

impl Default for State {
    fn default() -> State {
        State {
            recent: VecDeque::new(),
            weight: 0,
            last: 0,
            journal: None,
            generation: 0,
            next_token: 1,
            written: Vec::new(),
            finished: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

impl Default for Events {
    /// Without a journal: the newest events, in memory.
    fn default() -> Events {
        Events(Arc::new(Shared::new(State::default())))
    }
}

impl Events {
    /// Opens the journal; events that only the store knows of are written into it. To be called before anybody is served.
    ///
    /// Errors: `DataLoss` when a newer version wrote the journal; those of the disk.
    pub fn open(place: &Place, store: &Store, on: &Blocking) -> Result<Events> {
        let journal::Opened { journal, last, tokens, mut warnings } = journal::open(place, on)?;
        let outbox::Kept { keys, riders, damaged } = outbox::load(store)?;
        warnings.extend(damaged);
        let newest = tokens.iter().copied().chain(riders.iter().map(|rider| rider.token)).max().unwrap_or(0);
        let mut state = State { last, journal: Some(journal), next_token: newest + 1, warnings, ..State::default() };
        let untold: Vec<_> = riders.into_iter().filter(|rider| !tokens.contains(&rider.token)).collect();
        if !untold.is_empty() {
            tracing::info!(events = untold.len(), "events that the journal had lost are written again");
        }
        if state.push(untold.into_iter().map(|rider| (rider.said, Some(rider.token))).collect()) {
            state.written = keys;
        }
        state.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(Events(Arc::new(Shared::new(state))))
    }

    /// Publishes an event of now.
    pub fn publish<K: Into<String>>(
        &self,
        kind: &'static str,
        action: &str,
        actor: &str,
        attributes: impl IntoIterator<Item = (K, String)>,
    ) {
        self.0.publish(vec![Draft::new(kind, action, actor, attributes)]);
    }

    /// Publishes events of now, in this order and with nothing between them.
    pub fn publish_all(&self, drafts: Vec<Draft>) {
        self.0.publish(drafts);
    }

    /// Events that ride in a commit and are published behind it.
    pub fn ride(&self, drafts: Vec<Draft>) -> Ride {
        Ride::new(self.0.clone(), drafts)
    }

    /// A ride without events, for the commit that takes back what another one has said: the rows of that one go with it.
    pub fn take_back(&self) -> Ride {
        Ride::clearing(self.0.clone())
    }

    /// Reads from there on.
    ///
    /// Errors: `InvalidParameter` for a number that was not given yet.
    pub fn read(&self, from: From) -> Result<Reader> {
        Reader::new(self.0.clone(), from)
    }

    /// The newest events, the oldest first.
    pub fn recent(&self) -> Vec<Arc<Event>> {
        self.0.state().recent.iter().cloned().collect()
    }

    /// How many clients listen now (`NEventsListener` of `/info`).
    pub fn listeners(&self) -> usize {
        self.0.count.receiver_count()
    }

    /// The number of the newest event.
    pub fn newest(&self) -> u64 {
        self.0.state().last
    }

    /// What is wrong with the journal.
    pub fn warnings(&self) -> Vec<String> {
        self.0.state().warnings.clone()
    }
}

/// The system's time.
pub fn now() -> Timestamp {
    Timestamp::from_unix_nanos(sys::clock::System.unix_nanos())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests")]
mod tests;
