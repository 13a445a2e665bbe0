//! The one error of the engine: a kind that decides the status, a text for the client, the cause.
//!
//! The message is exactly what clients see, with every context already in front of it; the source is for the
//! daemon's own log. A context never changes the kind.

use std::error::Error as StdError;
use std::fmt;

/// What went wrong, seen from the client; each kind is one status of the API (B-api-8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// 404: the thing asked for is not there.
    NotFound,
    /// 400: the request makes no sense.
    InvalidParameter,
    /// 409: the request does not fit the present state.
    Conflict,
    /// 304: the wish is fulfilled already; the message is not sent.
    NotModified,
    /// 401: the credentials are missing or wrong.
    Unauthorized,
    /// 403: not allowed to anybody, or not to this client.
    Forbidden,
    /// 501: this engine cannot do it.
    NotImplemented,
    /// 503: not now.
    Unavailable,
    /// The client went away.
    Cancelled,
    /// 500: stored data is damaged.
    DataLoss,
    /// 500: everything else.
    System,
}

/// An error on its way to a client.
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// A result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident;)*) => {
        $($(#[$doc])*
        pub fn $name(message: impl Into<String>) -> Error {
            Error::new(Kind::$kind, message)
        })*
    };
}

impl Error {
    /// An error without a cause.
    pub fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error { kind, message: worded(message.into()), source: None }
    }

    constructors! {
        /// [`Kind::NotFound`]
        not_found => NotFound;
        /// [`Kind::InvalidParameter`]
        invalid => InvalidParameter;
        /// [`Kind::Conflict`]
        conflict => Conflict;
        /// [`Kind::Unauthorized`]
        unauthorized => Unauthorized;
        /// [`Kind::Forbidden`]
        forbidden => Forbidden;
        /// [`Kind::NotImplemented`]
        not_implemented => NotImplemented;
        /// [`Kind::Unavailable`]
        unavailable => Unavailable;
        /// [`Kind::Cancelled`]
        cancelled => Cancelled;
        /// [`Kind::DataLoss`]
        data_loss => DataLoss;
        /// [`Kind::System`]
        system => System;
    }

    /// [`Kind::NotModified`]; it has no text, since the answer has no body.
    pub fn not_modified() -> Error {
        Error::new(Kind::NotModified, "")
    }

    /// What went wrong.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The text clients see.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Remembers the cause for the daemon's log; the message stays as it is.
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Error {
        self.source = Some(Box::new(source));
        self
    }

    /// `text: message`.
    pub fn prefix(mut self, text: impl fmt::Display) -> Error {
        self.message = worded(format!("{text}: {}", self.message));
        self
    }

    /// Kind and message once more, for another who waits for the same thing; the source stays here.
    #[must_use]
    pub fn copy(&self) -> Error {
        Error::new(self.kind, self.message.clone())
    }

    /// The same error as another kind.
    pub fn with_kind(mut self, kind: Kind) -> Error {
        self.kind = kind;
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {:?}", self.kind, self.message)?;
        match &self.source {
            Some(source) => write!(f, " ({source:?})"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|s| s as &(dyn StdError + 'static))
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Error {
        Error::system(io_text(&error)).with_source(error)
    }
}

/// An I/O error in the words that clients know from the reference: `no space left on device`, without a number.
pub fn io_text(error: &std::io::Error) -> String {
    worded(error.to_string())
}

/// What Rust puts behind the words of an errno, before its number.
const NUMBER: &str = " (os error ";

/// A text in which every errno is told as Go tells it: `open x: No such file or directory (os error 2)` is
/// `open x: no such file or directory`. The words begin after the last colon before the number.
pub fn worded(mut text: String) -> String {
    let mut from = 0;
    while let Some(at) = text[from..].find(NUMBER).map(|at| from + at) {
        let digits = text[at + NUMBER.len()..].bytes().take_while(u8::is_ascii_digit).count();
        let end = at + NUMBER.len() + digits;
        from = at + NUMBER.len();
        if digits > 0 && text[end..].starts_with(')') {
            text.replace_range(at..=end, "");
            from = at;
            let start = text[..at].rfind(": ").map_or(0, |colon| colon + 2);
            if let Some(first) = text[start..at].chars().next() {
                text.replace_range(start..start + first.len_utf8(), &first.to_lowercase().to_string());
                from = start;
            }
        }
    }
    text
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Error {
        Error::system(error.to_string()).with_source(error)
    }
}

/// Says what was being done when an error came up.
pub trait Context<T> {
    /// `message: cause`. The kind of an [`Error`] is kept, any other error becomes [`Kind::System`].
    fn context(self, message: impl Into<String>) -> Result<T>;
    /// As [`Context::context`], the text made only when it is needed.
    fn with_context(self, message: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: StdError + Send + Sync + 'static> Context<T> for std::result::Result<T, E> {
    fn context(self, message: impl Into<String>) -> Result<T> {
        self.with_context(|| message.into())
    }

    fn with_context(self, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let boxed: Box<dyn StdError + Send + Sync> = Box::new(error);
            match boxed.downcast::<Error>() {
                Ok(own) => own.prefix(message()),
                Err(other) => {
                    let text = other.downcast_ref().map_or_else(|| other.to_string(), io_text);
                    Error { kind: Kind::System, message: worded(format!("{}: {text}", message())), source: Some(other) }
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_keeps_the_kind_and_names_the_work() {
        let error = Err::<(), _>(Error::not_found("No such image: x")).context("creating").unwrap_err();
        assert_eq!((error.kind(), error.message()), (Kind::NotFound, "creating: No such image: x"));
    }

    /// However deep an errno is wrapped, no client sees its number.
    #[test]
    fn no_text_has_the_number_of_an_errno() {
        let cause = std::io::Error::from_raw_os_error(2);
        let wrapped = std::io::Error::new(cause.kind(), format!("open /x: {cause}; again: {cause}"));
        let words = "open /x: no such file or directory; again: no such file or directory";
        assert_eq!(io_text(&wrapped), words);
        assert_eq!(Error::from(std::io::Error::other(wrapped.to_string())).message(), words);
        assert_eq!(Error::system(format!("{cause}")).message(), "no such file or directory");
        assert_eq!(Error::system("x").prefix(&cause).message(), "no such file or directory: x");
        assert_eq!(Err::<(), _>(wrapped).context("A").unwrap_err().message(), format!("A: {words}"));
        for same in ["a (os error x)", "a (os error 2", " (os error )", "É: É", ""] {
            assert_eq!(worded(same.into()), same);
        }
        assert_eq!(worded("a: É (os error 12): b".into()), "a: é: b");
    }

    #[test]
    fn a_foreign_error_becomes_system_and_stays_as_source() {
        let error = Err::<(), _>(std::io::Error::from_raw_os_error(2)).context("opening x").unwrap_err();
        assert_eq!(error.kind(), Kind::System);
        assert_eq!(error.message(), "opening x: no such file or directory");
        assert!(error.source().is_some_and(|s| s.is::<std::io::Error>()));
    }
}
