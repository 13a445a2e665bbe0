//! The journal: every event under its number, in files of a bounded size altogether.
//!
//! Invariants:
//! - numbers grow; what is missing between two of them is a gap, and a reader is told of it;
//! - an event is written with one system call and without a sync before anybody sees it: a process that dies loses none;
//! - after a death of the machine numbers go on so far behind the last one that is there that none is given twice;
//! - files are begun, and removed, as a whole; damaged ones are copied into the quarantine and keep what is whole.

pub(crate) mod files;
pub(crate) mod line;
mod open;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use self::files::Segment;
use self::line::{Line, Record};

pub(crate) use self::open::{Opened, note_end, open, verify};

/// Bytes of one file, unless one event is longer.
const FILE_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes of all files by default.
pub const JOURNAL_BYTES: u64 = 128 * 1024 * 1024;

/// Where a journal lies.
#[derive(Clone, Debug)]
pub struct Place {
    /// The directory of its files.
    pub dir: PathBuf,
    /// A file in memory, which is there as long as the machine has not been started anew.
    pub session: PathBuf,
    /// The directory of what is damaged.
    pub quarantine: PathBuf,
    /// Bytes of all files; at least two of them stay.
    pub bytes: u64,
}

/// The end of a journal, where it is written.
pub(crate) struct Journal {
    pub place: Place,
    file: Arc<File>,
    /// All files, the one that is written last.
    pub segments: VecDeque<Segment>,
    /// The latest time of all events.
    high: i64,
    /// Files that have changed since they were synced.
    unsynced: Vec<Arc<File>>,
    /// A file was begun since the directory was synced.
    is_dir_unsynced: bool,
    /// Files that are over the bound.
    dropped: Vec<PathBuf>,
    /// The last write failed, which was logged.
    is_failing: bool,
}

/// What is to be put on the disk.
pub(crate) struct Unsynced {
    pub files: Vec<Arc<File>>,
    pub dir: Option<PathBuf>,
    pub dropped: Vec<PathBuf>,
}

impl Journal {
    /// Writes events behind the others, all or none.
    pub(crate) fn append(&mut self, records: Vec<Record>) -> io::Result<()> {
        let Some(first) = records.first().map(|record| record.n) else { return Ok(()) };
        let high = records.iter().map(|record| record.t).fold(self.high, i64::max);
        let mut bytes = Vec::with_capacity(512 * records.len());
        for record in records {
            line::encode(&Line::Event(record), &mut bytes);
        }
        let written = self.make_room(first, bytes.len() as u64).and_then(|()| self.write(&bytes));
        match &written {
            Ok(()) => (self.high, self.is_failing) = (high, false),
            Err(error) if !std::mem::replace(&mut self.is_failing, true) => {
                tracing::error!(%error, "events could not be written to the journal; readers who come late miss them");
            }
            Err(_) => {}
        }
        written
    }

    /// Writes the line of a daemon that ends.
    pub(crate) fn close(&mut self, last: u64) {
        let mut bytes = Vec::new();
        line::encode(&Line::Closed(last), &mut bytes);
        if let Err(error) = self.write(&bytes) {
            tracing::warn!(%error, "the journal of events does not tell of the daemon's end");
        }
    }

    /// What is to be put on the disk, and removed from it, by somebody who may wait.
    pub(crate) fn take_unsynced(&mut self) -> Unsynced {
        let dir = std::mem::take(&mut self.is_dir_unsynced).then(|| self.place.dir.clone());
        Unsynced { files: std::mem::take(&mut self.unsynced), dir, dropped: std::mem::take(&mut self.dropped) }
    }

    /// From now on no write succeeds.
    #[cfg(test)]
    pub(crate) fn refuse_writes(&mut self) {
        let newest = self.segments.back().expect("a journal has a file");
        self.file = Arc::new(File::open(newest.path(&self.place.dir)).unwrap());
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let newest = self.segments.back_mut().expect("a journal has a file");
        if let Err(error) = self.file.write_all_at(bytes, newest.len) {
            // A part of a line must not stay in front of the next.
            drop(self.file.set_len(newest.len));
            return Err(error);
        }
        newest.len += bytes.len() as u64;
        if !self.unsynced.last().is_some_and(|last| Arc::ptr_eq(last, &self.file)) {
            self.unsynced.push(self.file.clone());
        }
        Ok(())
    }

    /// Begins the next file when this one is full, and lets the oldest go when there are too many.
    fn make_room(&mut self, first: u64, more: u64) -> io::Result<()> {
        let newest = self.segments.back().expect("a journal has a file");
        let full = FILE_BYTES.min(self.place.bytes / 4);
        if newest.len + more <= full || newest.first >= first {
            return Ok(());
        }
        let (file, segment) = files::begin(&self.place.dir, first, self.high)?;
        self.file = Arc::new(file);
        self.segments.push_back(segment);
        self.is_dir_unsynced = true;
        let mut total: u64 = self.segments.iter().map(|segment| segment.len).sum();
        // The new one has room to become full.
        while total + full.max(more) > self.place.bytes && self.segments.len() > 2 {
            let Some(oldest) = self.segments.pop_front() else { break };
            total -= oldest.len;
            self.dropped.push(oldest.path(&self.place.dir));
        }
        Ok(())
    }
}
