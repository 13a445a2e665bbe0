//! One thing that happened, before and after it has its number.

use std::borrow::Cow;
use std::collections::BTreeMap;

use model::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Bytes that an event takes besides its texts, or an attribute besides its own.
const OVERHEAD: usize = 128;

/// What an event says, without its number and its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    /// `container`, `image`, `network`, `volume`, `daemon`, ….
    #[serde(rename = "k")]
    pub kind: Cow<'static, str>,
    /// `create`, `start`, `exec_create: sh -c …`, ….
    #[serde(rename = "a")]
    pub action: String,
    /// The full id (or reference) of the actor.
    #[serde(rename = "i")]
    pub actor: String,
    /// Attributes, sorted by key as the reference's maps are when encoded.
    #[serde(rename = "m")]
    pub attributes: BTreeMap<String, String>,
}

impl Draft {
    /// An event to be published.
    pub fn new<K: Into<String>>(
        kind: &'static str,
        action: &str,
        actor: &str,
        attributes: impl IntoIterator<Item = (K, String)>,
    ) -> Draft {
        let attributes = attributes.into_iter().map(|(key, value)| (key.into(), value)).collect();
        Draft { kind: Cow::Borrowed(kind), action: action.into(), actor: actor.into(), attributes }
    }
}

/// One thing that happened. Times are unix nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its place among all events of this data root, from 1 on.
    pub number: u64,
    /// When it was published.
    pub time: Timestamp,
    /// What happened.
    pub said: Draft,
}

impl std::ops::Deref for Event {
    type Target = Draft;

    fn deref(&self) -> &Draft {
        &self.said
    }
}

impl Event {
    /// Bytes that it takes in memory, roughly.
    pub(crate) fn weight(&self) -> usize {
        let attributes = self.attributes.iter().map(|(key, value)| key.len() + value.len() + OVERHEAD);
        self.action.len() + self.actor.len() + OVERHEAD + attributes.sum::<usize>()
    }
}

/// Events that are not there any more, or never reached the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The number of the first one that may be missing.
    pub first: u64,
    /// The number of the last one that may be missing.
    pub last: u64,
    /// When the next event that is there was published.
    pub before: Timestamp,
}

/// What a reader is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// The next event.
    Event(std::sync::Arc<Event>),
    /// Some events are missing before the next one.
    Gap(Gap),
}
