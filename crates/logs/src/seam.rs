//! What a log is to those who write and read it, whatever its driver.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Stream;

/// `--log-opt`.
pub type Options = BTreeMap<String, String>;

/// Where the log of a container belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The container's own directory.
    pub dir: PathBuf,
    /// The container's id.
    pub id: String,
}

/// The log of a container, as the daemon describes it to the process that writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub driver: String,
    /// Checked by [`Driver::check`].
    pub options: Options,
    /// A JSON object of strings that every entry carries ([`crate::Attributes::json`]); empty = none.
    pub attrs: String,
    pub place: Place,
}

/// What to read.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// The last so many entries; `None` = all. Counted before any other filter.
    pub tail: Option<u64>,
    /// Unix nanoseconds, both inclusive.
    pub since: Option<i64>,
    pub until: Option<i64>,
    /// There may be more at the end, until [`Source::finish`] says otherwise.
    pub follow: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub format: Format,
}

/// How [`Source::next_batch`] writes entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Format {
    pub shape: Shape,
    /// The entry's time with nine digits, and a space; JSON always has the time.
    pub timestamps: bool,
    /// The entry's attributes: as `k=v,k=v` and a space, or as members of JSON.
    pub details: bool,
}

/// How entries are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// They are not.
    #[default]
    Raw,
    /// Eight-byte frame headers.
    Frames,
    /// A JSON object a line.
    Json,
    /// The same, with a record separator in front of each.
    JsonSequence,
}

/// What [`Source::next_batch`] has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// Perhaps something was appended, and there may be more.
    More,
    /// Nothing was appended: there is nothing more now. To be called again when the log may have grown ([`crate::Watches`]),
    /// has ended, or the time of [`ReadOptions::until`] has come. Only when following.
    Waiting,
    /// Perhaps something was appended; nothing more will come.
    End,
}

/// Where output goes to. Nothing that a sink does waits for anything but the disk.
pub trait Sink: Debug + Send {
    /// Takes output of the container as one read gave it.
    fn write(&mut self, stream: Stream, bytes: &[u8]);

    /// A stream has ended: what it left without a newline becomes an entry without one.
    fn finish(&mut self, stream: Stream);

    /// Writes everything that has been taken.
    fn flush(&mut self);

    /// Whether [`Sink::flush`] has anything to do.
    fn is_behind(&self) -> bool;

    /// Whether [`Sink::idle`] has anything to do.
    fn has_idle_work(&self) -> bool;

    /// Does a little of what can wait, below a millisecond; for times when nothing else is to be done.
    fn idle(&mut self);

    /// Lines that could not be written since the log was opened.
    fn dropped(&self) -> u64;

    /// The last trouble, once, for the daemon's log.
    fn take_report(&mut self) -> Option<String>;
}

/// A log being read, in steps each of which blocks for the disk only and is short.
pub trait Source: Send {
    /// Appends entries in the chosen format, about 64 KiB at a time. Never waits for more of the log.
    ///
    /// # Errors
    /// Those of reading files; there is nothing more after one.
    fn next_batch(&mut self, out: &mut Vec<u8>) -> io::Result<Batch>;

    /// The writer has finished: a follower ends after the last entry.
    fn finish(&mut self);
}

/// A kind of log. Texts of errors are the reference's.
pub trait Driver: Sync {
    /// As in `--log-driver`.
    fn name(&self) -> &'static str;

    /// Checks the names of options, as a create does; those of every driver are checked before.
    ///
    /// # Errors
    /// `unknown log opt …`.
    fn validate(&self, options: &Options) -> model::Result<()>;

    /// Checks the values of options, as a start does.
    ///
    /// # Errors
    /// What is wrong with the first bad one.
    fn check(&self, options: &Options) -> model::Result<()>;

    /// Opens the log for writing and goes on behind what is there; `None`: nothing is kept.
    ///
    /// # Errors
    /// Those of opening files and of [`Driver::check`].
    fn open(&self, spec: &Spec) -> io::Result<Option<Box<dyn Sink>>>;

    /// Opens the log for reading; one that does not exist is empty. `None`: such logs cannot be read.
    fn read(&self, place: &Place, options: ReadOptions) -> Option<io::Result<Box<dyn Source>>>;

    /// The file that is written; rotated ones lie beside it. `None`: there is none.
    fn path(&self, place: &Place) -> Option<PathBuf>;

    /// The file, if its format is one that clients may rely on (`LogPath`).
    fn public_path(&self, place: &Place) -> Option<PathBuf>;
}
