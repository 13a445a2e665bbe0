//! The one error of the crate: a text for the client, and the lines of the Dockerfile that it is about.

use std::fmt;

use crate::lines::Lines;

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
