//! json-file reader.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::Stream;

/// What to read.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// The last so many entries; `None` = all. Counted before any other filter.
    pub tail: Option<u64>,
    /// Unix nanoseconds, both inclusive.
    pub since: Option<i64>,
    pub until: Option<i64>,
    /// Wait for more at the end, until [`Stop`] says otherwise.
    pub follow: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub format: Format,
}

/// How [`Reader::next_batch`] writes entries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Format {
    /// Eight-byte frame headers.
    pub multiplex: bool,
    pub timestamps: bool,
    pub details: bool,
}

/// One entry of the log.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    pub stream: Stream,
    /// Unix nanoseconds.
    pub time: i64,
    /// With its newline, if it has one.
    pub line: &'a [u8],
    /// A JSON object, or empty.
    pub attrs: &'a [u8],
}

/// Tells a following reader, from another thread, that it shall end.
#[derive(Clone, Debug)]
pub struct Stop(#[allow(dead_code)] Arc<()>);

impl Stop {
    pub fn new() -> io::Result<Stop> {
        todo!()
    }
    /// The reader's client has gone: end at once.
    pub fn cancel(&self) {
        todo!()
    }
    /// The writer has finished: end after the last entry.
    pub fn ended(&self) {
        todo!()
    }
}

/// What [`Reader::next_batch`] has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// Something was appended; there may be more.
    More,
    /// Nothing more will come.
    End,
}

/// Reads a log from a blocking thread.
pub struct Reader {}

impl Reader {
    /// Opens the log at `path` and all its rotated files. A log that does not exist is empty.
    pub fn open(path: &Path, options: ReadOptions, stop: Stop) -> io::Result<Reader> {
        let _ = (path, options, stop);
        todo!()
    }
    /// Appends entries in the chosen format, about 64 KiB at a time; blocks when following.
    pub fn next_batch(&mut self, out: &mut Vec<u8>) -> io::Result<Batch> {
        let _ = out;
        todo!()
    }
}
