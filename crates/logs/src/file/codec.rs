//! How entries lie in the files of a log. Everything else about these files (rotation, compression, loss, following) is the
//! same for all drivers that write files.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;

use crate::Stream;
use crate::split::Piece;

/// Longer entries are not ours: the longest has 16 KiB of text, six times that when escaped, and its attributes.
pub const MAX_ENTRY: usize = 4 * 1024 * 1024;

/// An entry as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// `None`: neither output; such an entry is passed over.
    pub stream: Option<Stream>,
    pub text: Text<'a>,
    /// A JSON object of strings, or empty.
    pub attrs: &'a [u8],
    /// RFC 3339.
    pub time: &'a [u8],
}

/// The text of an entry, its newline included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text<'a> {
    /// A JSON string without its quotes.
    Escaped(&'a [u8]),
    Plain(&'a str),
    /// As the program wrote it; whether a newline follows.
    Bytes(&'a [u8], bool),
}

/// What a buffer begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// An entry: where its body lies, and where the next one begins.
    Entry { body: Range<usize>, next: usize },
    /// The beginning of one.
    Incomplete,
    /// What cannot be one. The rest of the file is not read.
    Damage,
}

/// A form of entries. The writer has one for each open log.
pub trait Codec: Debug + Send + Sized + 'static {
    /// Whether a file may be written in pieces that end within an entry.
    const WRITES_PARTS: bool;

    /// `attrs`: a JSON object of strings that every entry carries; empty = none.
    fn new(attrs: &str) -> Self;

    /// Appends an entry. `time`: unix nanoseconds.
    fn encode(&mut self, stream: Stream, piece: Piece<'_>, time: i64, out: &mut Vec<u8>);

    /// The first entry in `text`.
    fn find(text: &[u8]) -> Found;

    /// Gives `take` the entry whose body this is; `None`: it is none.
    fn decode<R>(body: &[u8], take: impl FnOnce(Entry<'_>) -> R) -> Option<R>;

    /// Where the last whole entry in `text` ends, and how many end in it. `text` begins with an entry, or within one if parts
    /// are written.
    fn ends(text: &[u8]) -> (Option<usize>, u64);

    /// How many lines of the program end in `text`.
    fn lines(text: &[u8]) -> u64;

    /// The same of the first `length` bytes of a file.
    fn lines_of(file: &File, length: u64) -> io::Result<u64>;

    /// Ends what a writer that was killed has left at the end of a file of `size` bytes: cuts the file, or appends to `buffer`
    /// what is to be written first. Gives the size of the file.
    fn mend(file: &File, size: u64, buffer: &mut Vec<u8>) -> io::Result<u64>;

    /// Where the last `entries` whole entries before `end` begin, and how many there are.
    fn start_of_last(file: &File, end: u64, entries: u64) -> io::Result<(u64, u64)>;

    /// The number of whole entries that a reader gives.
    fn count(reader: &mut dyn Read) -> io::Result<u64>;

    /// The time of the last entry as RFC 3339; empty if it cannot be told.
    fn last_time(file: &File) -> io::Result<String>;
}
