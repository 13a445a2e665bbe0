//! A reader of events: those that there were, then those that come, each once and in order.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use blocking::Blocking;
use model::time::Timestamp;
use model::{Context, Error, Result};
use tokio::sync::watch;

use crate::journal::files::Segment;
use crate::journal::line::{self, Line};
use crate::{Event, Gap, Item, Shared, now};

/// Bytes of the journal that are read at once, unless a line is longer.
const CHUNK: u64 = 32 * 1024;

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// With the next event.
    Now,
    /// With the first one at or after this time.
    Time(Timestamp),
    /// With the one behind this number.
    After(u64),
}

/// A place among the events.
pub struct Reader {
    shared: Arc<Shared>,
    told: watch::Receiver<u64>,
    /// The number of the next event.
    next: u64,
    /// The number of the last event when the reader began.
    end_of_past: u64,
    /// Events of the past before this time are passed over.
    since: Option<Timestamp>,
    /// What was read ahead.
    ahead: VecDeque<Arc<Event>>,
    /// Where the journal is read on.
    at: Option<At>,
}

/// A place in the journal.
#[derive(Clone, Copy, Debug)]
struct At {
    /// The file, by its first number.
    first: u64,
    offset: u64,
    generation: u64,
}

/// Where a reader can find its next event.
enum Found {
    Event(Arc<Event>),
    /// Not yet.
    Nothing,
    /// In the journal.
    Written(Part),
}

/// A part of a file.
struct Part {
    path: PathBuf,
    at: At,
    len: u64,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, from: From) -> Result<Reader> {
        let told = shared.count.subscribe();
        let (next, since, end_of_past) = {
            let state = shared.state();
            let oldest = match &state.journal {
                Some(journal) => journal.segments.front().map_or(1, |segment| segment.first),
                None => state.last + 1 - state.recent.len() as u64,
            };
            let (next, since) = match from {
                From::Now => (state.last + 1, None),
                From::After(number) if number > state.last => {
                    let text = format!("event {number} is newer than the newest one, {}", state.last);
                    return Err(Error::invalid(text));
                }
                From::After(number) => (number + 1, None),
                From::Time(since) => {
                    let high = state.journal.as_ref().and_then(|journal| journal.segments.front()).map(|s| s.high);
                    // Those that are gone may have been of this time.
                    let are_missed = oldest > 1 && high.is_none_or(|high| high >= since.unix_nanos());
                    let first = state.journal.as_ref().map_or(oldest, |journal| {
                        // All events before a file that begins later than this are older.
                        let begins = |segment: &&Segment| segment.high < since.unix_nanos();
                        journal.segments.iter().rev().find(begins).map_or(oldest, |segment| segment.first)
                    });
                    (if are_missed { 1 } else { first }, Some(since))
                }
            };
            (next, since, state.last)
        };
        Ok(Reader { shared, told, next, end_of_past, since, ahead: VecDeque::new(), at: None })
    }

    /// What comes next.
    ///
    /// Errors: those of the disk; the reader may go on.
    pub async fn next(&mut self) -> Result<Item> {
        loop {
            if let Some(told) = self.look().await? {
                return Ok(told);
            }
            self.told.mark_unchanged();
            if let Some(told) = self.look().await? {
                return Ok(told);
            }
            if self.told.changed().await.is_err() {
                // Unreachable: what is shared holds the sender.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The same, of what there was when the reader began; `None`: that is all.
    pub async fn past(&mut self) -> Result<Option<Item>> {
        if self.next > self.end_of_past {
            return Ok(None);
        }
        if let Some(told) = self.look().await? {
            return Ok(Some(told));
        }
        let (first, last) = (std::mem::replace(&mut self.next, self.end_of_past + 1), self.end_of_past);
        // All that is left was passed over, or is not there.
        Ok((first <= last).then(|| Item::Gap(Gap { first, last, before: now() })))
    }

    /// From now on the past is what there is now.
    pub fn up_to_now(&mut self) {
        self.since = None;
        self.end_of_past = self.shared.state().last;
    }

    async fn look(&mut self) -> Result<Option<Item>> {
        loop {
            if let Some(event) = self.ahead.front() {
                let told = self.tell(event.clone());
                if matches!(told, None | Some(Item::Event(_))) {
                    self.ahead.pop_front();
                }
                match told {
                    None => continue,
                    told => return Ok(told),
                }
            }
            match self.find() {
                Found::Nothing => return Ok(None),
                Found::Event(event) => match self.tell(event) {
                    None => {}
                    told => return Ok(told),
                },
                Found::Written(part) => {
                    let (next, at) = (self.next, part.at);
                    let read = self.shared.threads.run(move |on| read_part(&part, next, on)).await?;
                    self.at = Some(At { first: read.first, offset: read.offset, ..at });
                    self.ahead = read.events;
                }
            }
        }
    }

    /// The event, or what is missing before it, or nothing for one that is not asked for.
    fn tell(&mut self, event: Arc<Event>) -> Option<Item> {
        let first = std::mem::replace(&mut self.next, event.number);
        let is_asked_for = event.number > self.end_of_past || self.since.is_none_or(|since| event.time >= since);
        if first < event.number && is_asked_for {
            return Some(Item::Gap(Gap { first, last: event.number - 1, before: event.time }));
        }
        self.next = event.number + 1;
        is_asked_for.then_some(Item::Event(event))
    }

    fn find(&mut self) -> Found {
        let state = self.shared.state();
        if self.next > state.last {
            return Found::Nothing;
        }
        let oldest = state.recent.front().map_or(u64::MAX, |event| event.number);
        if let Some(event) = state.recent.get(usize::try_from(self.next.wrapping_sub(oldest)).unwrap_or(usize::MAX)) {
            return Found::Event(event.clone());
        }
        let newest_known = || state.recent.front().map_or(Found::Nothing, |event| Found::Event(event.clone()));
        let Some(journal) = &state.journal else { return newest_known() };
        let segments = &journal.segments;
        let known = self.at.filter(|at| at.generation == state.generation);
        let by_place = known.and_then(|at| segments.iter().position(|segment| segment.first == at.first));
        let by_number = || segments.iter().rposition(|segment| segment.first <= self.next).unwrap_or(0);
        let (mut index, mut offset) = match (by_place, known) {
            (Some(index), Some(at)) => (index, at.offset),
            _ => (by_number(), 0),
        };
        if offset >= segments[index].len {
            if index + 1 == segments.len() {
                // What is in memory could not be written; or nothing of it is there.
                return newest_known();
            }
            (index, offset) = (index + 1, 0);
        }
        let segment = &segments[index];
        let at = At { first: segment.first, offset, generation: state.generation };
        Found::Written(Part { path: segment.path(&journal.place.dir), at, len: segment.len })
    }
}

/// What was read of a file.
struct Read {
    first: u64,
    /// Where the next part begins.
    offset: u64,
    events: VecDeque<Arc<Event>>,
}

/// Reads whole lines from there on; a file that is gone has none.
#[expect(clippy::disallowed_methods, reason = "on a thread that may block")]
fn read_part(part: &Part, next: u64, _on: &Blocking) -> Result<Read> {
    let Part { path, at: At { first, offset, .. }, len, .. } = part;
    let gone = Read { first: *first, offset: *len, events: VecDeque::new() };
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(gone),
        opened => opened.with_context(|| format!("opening {}", path.display()))?,
    };
    let mut size = CHUNK;
    loop {
        let size_now = size.min(len - offset);
        let mut bytes = vec![0; usize::try_from(size_now).unwrap_or(usize::MAX)];
        if file.read_exact_at(&mut bytes, *offset).is_err() {
            // It is shorter than it was: what is missing will be told of.
            return Ok(gone);
        }
        let end = match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => at + 1,
            None if size_now < len - offset => {
                size *= 2;
                continue;
            }
            None => bytes.len(),
        };
        let events = line::lines(&bytes[..end]).filter_map(|(_, line)| match line {
            Some(Line::Event(record)) if record.n >= next => Some(Arc::new(record.into_event())),
            _ => None,
        });
        return Ok(Read { first: *first, offset: offset + end as u64, events: events.collect() });
    }
}
