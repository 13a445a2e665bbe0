//! The one error of the crate: a text for the client, and the lines of the Dockerfile that it is about.

use std::fmt;

use bollard_buildkit_proto::pb;

/// Lines of a file, counted from 1; both ends belong to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lines {
    /// The first one; 0 before anything was read.
    pub first: u32,
    /// The last one, never before the first.
    pub last: u32,
}

impl Lines {
    /// From the first to the last; an end before the start is the start.
    pub fn new(first: u32, last: u32) -> Lines {
        Lines { first, last: last.max(first) }
    }

    /// As the protocol says them: a range for each line, without columns.
    pub fn ranges(self) -> Vec<pb::Range> {
        let position = |line: u32| Some(pb::Position { line: i32::try_from(line).unwrap_or(i32::MAX), character: 0 });
        (self.first..=self.last).map(|line| pb::Range { start: position(line), end: position(line) }).collect()
    }
}

/// Why a Dockerfile is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    message: String,
    locations: Vec<Lines>,
}

/// A result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error without a place.
    pub fn new(message: impl Into<String>) -> Error {
        Error { message: message.into(), locations: Vec::new() }
    }

    /// The text for the client.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What it is about, innermost first.
    pub fn locations(&self) -> &[Lines] {
        &self.locations
    }

    /// The same, about these lines as well.
    #[must_use]
    pub fn at(mut self, lines: Lines) -> Error {
        self.locations.push(lines);
        self
    }

    /// The same, about these lines alone.
    #[must_use]
    pub fn only_at(mut self, lines: Lines) -> Error {
        self.locations = vec![lines];
        self
    }

    /// The same with this text behind it.
    #[must_use]
    pub fn suffix(mut self, text: impl AsRef<str>) -> Error {
        self.message.push_str(text.as_ref());
        self
    }

    /// The same with `<text>: ` in front.
    #[must_use]
    pub fn prefix(mut self, text: impl fmt::Display) -> Error {
        self.message = format!("{text}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<model::Error> for Error {
    fn from(error: model::Error) -> Error {
        Error::new(error.message())
    }
}
