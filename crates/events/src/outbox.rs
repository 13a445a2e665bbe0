//! Events that ride in a commit: a row of the store holds them until the journal is known to be on the disk.
//!
//! A change of state and the events that tell of it are one transaction. The journal is written behind the commit and
//! without a sync; what a power cut takes of it the next daemon finds here. A row goes with a later commit, when the
//! journal has been synced.

use std::sync::Arc;

use model::Result;
use serde::{Deserialize, Serialize};
use store::{AnyTable, Row, Store, Table, WriteTx};

use crate::{Draft, Shared, now};

/// Beside the row of the store itself, which every commit writes: its leaf is written in any case.
const OUTBOX: Table<Riders> = Table::new("meta-events");

/// The table of events that are to be in the journal.
pub fn table() -> &'static dyn AnyTable {
    &OUTBOX
}

/// Events of one commit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Riders {
    events: Vec<Rider>,
}

impl Row for Riders {
    const VERSION: u32 = 1;
}

/// An event of a commit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Rider {
    /// By which the journal's record is known.
    pub token: u64,
    /// When it was about to be published, in unix nanoseconds.
    pub time: i64,
    /// What it says.
    #[serde(flatten)]
    pub said: Draft,
}

/// Events that ride in a commit and are published when it is durable. Dropped without that, they have not happened.
#[derive(Default)]
pub struct Ride {
    shared: Option<Arc<Shared>>,
    riders: Vec<Rider>,
    /// Keys of rows that go with this commit.
    finished: Vec<u64>,
}

/// A ride's part of a transaction.
#[derive(Clone, Default)]
pub struct Rows {
    put: Option<Riders>,
    delete: Vec<u64>,
}

impl Ride {
    pub(crate) fn new(shared: Arc<Shared>, drafts: Vec<Draft>) -> Ride {
        let mut state = shared.state();
        let (first, time) = (state.next_token, now().unix_nanos());
        state.next_token += drafts.len() as u64;
        let finished = if drafts.is_empty() { Vec::new() } else { std::mem::take(&mut state.finished) };
        drop(state);
        let riders = (first..).zip(drafts).map(|(token, said)| Rider { token, time, said });
        Ride { riders: riders.collect(), finished, shared: Some(shared) }
    }

    /// Without events: takes rows of rides along that were taken back, and of those that are in the journal.
    pub(crate) fn clearing(shared: Arc<Shared>) -> Ride {
        let finished = std::mem::take(&mut shared.state().finished);
        Ride { riders: Vec::new(), finished, shared: Some(shared) }
    }

    /// What the transaction has to take along.
    pub fn rows(&self) -> Rows {
        let is_kept = !self.riders.is_empty() && self.shared.as_ref().is_some_and(|shared| shared.has_journal());
        Rows { put: is_kept.then(|| Riders { events: self.riders.clone() }), delete: self.finished.clone() }
    }

    /// The commit is durable.
    pub fn publish(mut self) {
        let Some(shared) = self.shared.take() else { return };
        shared.publish_riders(std::mem::take(&mut self.riders));
    }

    /// What the events tell of has happened and could not be recorded.
    pub fn publish_unrecorded(mut self) {
        let Some(shared) = self.shared.clone() else { return };
        let riders = std::mem::take(&mut self.riders);
        shared.publish(riders.into_iter().map(|rider| rider.said).collect());
    }
}

impl Drop for Ride {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            let mut state = shared.state();
            // Should there have been a commit, its row goes as well: what it tells of was taken back.
            state.finished.extend(self.riders.first().map(|rider| rider.token));
            state.finished.append(&mut self.finished);
        }
    }
}

impl Rows {
    /// Keys of rows that go.
    #[cfg(test)]
    pub(crate) fn delete(&self) -> &[u64] {
        &self.delete
    }

    /// Writes them.
    pub fn put(&self, tx: &mut WriteTx<'_, '_>) -> Result<()> {
        for token in &self.delete {
            tx.delete(&OUTBOX, &key(*token))?;
        }
        match &self.put {
            Some(riders) => tx.put(&OUTBOX, &key(riders.events[0].token), riders),
            None => Ok(()),
        }
    }
}

/// All that the store holds, in order; and what cannot be read.
pub(crate) fn load(store: &Store) -> Result<Kept> {
    let found = store.read(|tx| tx.survey(&OUTBOX))?;
    let keys = found.rows.iter().filter_map(|(_, row)| Some(row.events.first()?.token)).collect();
    let riders = found.rows.into_iter().flat_map(|(_, row)| row.events).collect();
    Ok(Kept { keys, riders, damaged: found.damaged.into_iter().map(|damaged| damaged.why).collect() })
}

/// What the store holds of events.
#[derive(Default)]
pub(crate) struct Kept {
    /// Keys of the rows.
    pub keys: Vec<u64>,
    /// The events of all rows, in order.
    pub riders: Vec<Rider>,
    /// What is wrong with rows that cannot be read.
    pub damaged: Vec<String>,
}

/// The key of a row, which is the token of its first event.
fn key(token: u64) -> String {
    format!("{token:020}")
}
