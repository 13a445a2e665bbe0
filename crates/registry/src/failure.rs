//! What a registry, or the way to it, answers instead of what was asked, and what that means for another attempt.
//!
//! Texts are those of the reference's clients: `manifest unknown: manifest unknown`.

use std::io;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{HeaderMap, RETRY_AFTER, WWW_AUTHENTICATE};
use model::reference::ImageRef;
use model::{Error, Kind};
use serde::Deserialize;

use crate::challenge::{self, Challenge};

/// A failed request.
#[derive(Debug)]
pub struct Fault {
    /// What to tell.
    pub error: Error,
    /// Whether trying again may help.
    pub retry: Retry,
    /// What the registry meant.
    pub reason: Reason,
}

/// Whether trying again may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It will not.
    Never,
    /// After a pause.
    Later,
    /// After so long.
    After(Duration),
}

/// Reasons that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No connection came about.
    Unreachable,
    /// The connection broke, or nothing came any more.
    Transport,
    /// Credentials are missing or wrong.
    Unauthorized,
    /// Not for these credentials.
    Denied,
    /// No such manifest.
    ManifestUnknown,
    /// No such repository.
    NameUnknown,
    /// No such blob.
    BlobUnknown,
    /// The asked range does not exist, or another one came.
    Range,
    /// Something else.
    Other,
}

/// A result of this crate's requests.
pub type Result<T> = std::result::Result<T, Fault>;

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        fault.error
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault { error, retry: Retry::Never, reason: Reason::Other }
    }
}

impl Fault {
    /// The same fault for another reason.
    pub(crate) fn because(self, reason: Reason) -> Fault {
        Fault { reason, ..self }
    }

    /// The way to the registry failed.
    pub(crate) fn transport(context: &str, error: &(dyn std::error::Error + 'static)) -> Fault {
        let error = Error::system(format!("{context}: {}", innermost(error)));
        Fault { error, retry: Retry::Later, reason: Reason::Transport }
    }

    /// No connection came about.
    pub(crate) fn unreachable(context: &str, error: &io::Error) -> Fault {
        Fault { reason: Reason::Unreachable, ..Fault::transport(context, error) }
    }

    /// An answer that makes no sense.
    pub(crate) fn nonsense(text: impl Into<String>) -> Fault {
        Error::system(text).into()
    }

    /// What a client that pulls is told (B-im-5).
    pub fn of_pull(self, reference: &ImageRef) -> Error {
        let (name, text) = (reference.familiar_name(), self.error.message().to_owned());
        let text = match self.reason {
            Reason::Denied => {
                format!(
                    "pull access denied for {name}, repository does not exist or may require 'docker login': {text}"
                )
            }
            Reason::ManifestUnknown | Reason::NameUnknown => {
                let reference = reference.canonical();
                format!("failed to resolve reference {reference:?}: {reference}: not found")
            }
            Reason::Unauthorized
            | Reason::BlobUnknown
            | Reason::Range
            | Reason::Unreachable
            | Reason::Transport
            | Reason::Other => return self.error,
        };
        Error::not_found(text)
    }
}

/// The most telling text of a chain of errors: the last.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    match last.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionAborted) => "unexpected EOF".into(),
        Some(io::ErrorKind::ConnectionReset) => "connection reset by peer".into(),
        _ => last.to_string(),
    }
}

/// The body of a refusal.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    errors: Vec<Entry>,
    /// An older form, of token servers too.
    details: String,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    code: serde_json::Value,
    message: String,
}

/// What a refusal means.
pub(crate) fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Fault {
    let parsed: Option<Body> = gojson::Document::parse_whole(body).and_then(|document| document.fit()).ok();
    let parsed = parsed.unwrap_or_default();
    let (code, message) = match parsed.errors.first() {
        // The token is good, but not for this.
        _ if lacks_scope(status, headers) => ("DENIED".into(), "requested access to the resource is denied".into()),
        Some(entry) => (known_code(entry), entry.message.clone()),
        None => implied(status, &parsed),
    };
    let text = match (code.as_str(), parsed.errors.len()) {
        ("", _) => format!("received unexpected HTTP status: {}", shown(status)),
        (code, 0 | 1) => described(code, &message),
        _ => {
            let lines = parsed.errors.iter().take(16).map(|e| format!("{}\n", described(&known_code(e), &e.message)));
            format!("errors:\n{}", lines.collect::<String>())
        }
    };
    let reason = reason(&code, status);
    Fault { error: Error::new(kind(reason, &code, status), text), retry: retry(status, &code, headers), reason }
}

fn lacks_scope(status: StatusCode, headers: &HeaderMap) -> bool {
    let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let lacks = |c: &Challenge| matches!(c, Challenge::Bearer { error, .. } if error == "insufficient_scope");
    status == StatusCode::UNAUTHORIZED && challenge::parse(values).iter().any(lacks)
}

fn known_code(entry: &Entry) -> String {
    entry.code.as_str().filter(|code| !code.is_empty()).unwrap_or("UNKNOWN").to_owned()
}

/// The code that a status means when the body has none.
fn implied(status: StatusCode, body: &Body) -> (String, String) {
    let said = if body.details.is_empty() { &body.message } else { &body.details };
    let or = |default: &str| if said.is_empty() { default.to_owned() } else { said.clone() };
    match status {
        StatusCode::UNAUTHORIZED => ("UNAUTHORIZED".into(), or("authentication required")),
        StatusCode::FORBIDDEN => ("DENIED".into(), or("requested access to the resource is denied")),
        StatusCode::TOO_MANY_REQUESTS => ("TOOMANYREQUESTS".into(), or("too many requests")),
        _ => (String::new(), String::new()),
    }
}

/// `MANIFEST_UNKNOWN`, `x` → `manifest unknown: x`
fn described(code: &str, message: &str) -> String {
    format!("{}: {message}", code.replace('_', " ").to_lowercase())
}

/// `404 Not Found`
pub(crate) fn shown(status: StatusCode) -> String {
    format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or_default()).trim_end().to_owned()
}

fn reason(code: &str, status: StatusCode) -> Reason {
    match (code, status) {
        ("DENIED", _) => Reason::Denied,
        ("UNAUTHORIZED", _) | (_, StatusCode::UNAUTHORIZED) => Reason::Unauthorized,
        ("MANIFEST_UNKNOWN", _) => Reason::ManifestUnknown,
        ("NAME_UNKNOWN", _) => Reason::NameUnknown,
        ("BLOB_UNKNOWN", _) => Reason::BlobUnknown,
        (_, StatusCode::RANGE_NOT_SATISFIABLE) => Reason::Range,
        // Not every registry has a code for it, and not every front end a body.
        (_, StatusCode::NOT_FOUND) => Reason::ManifestUnknown,
        _ => Reason::Other,
    }
}

fn kind(reason: Reason, code: &str, status: StatusCode) -> Kind {
    match (reason, code) {
        (Reason::Unauthorized, _) => Kind::Unauthorized,
        (Reason::Denied, _) => Kind::Forbidden,
        (Reason::ManifestUnknown | Reason::NameUnknown | Reason::BlobUnknown, _) => Kind::NotFound,
        (_, "UNSUPPORTED") => Kind::NotImplemented,
        _ if status == StatusCode::SERVICE_UNAVAILABLE => Kind::Unavailable,
        _ => Kind::System,
    }
}

fn retry(status: StatusCode, code: &str, headers: &HeaderMap) -> Retry {
    let again = status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
        || (status.is_server_error() && code != "UNSUPPORTED" && status != StatusCode::NOT_IMPLEMENTED);
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    match (again, seconds) {
        (false, _) => Retry::Never,
        (true, Some(seconds)) => Retry::After(Duration::from_secs(seconds)),
        (true, None) => Retry::Later,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(status: u16, body: &str) -> Fault {
        refusal(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes())
    }

    /// B-im-5 and `pull missing` of the recorded answers.
    #[test]
    fn pulls_are_refused_in_the_references_words() {
        let reference = ImageRef::parse_normalized("nosuch:1").unwrap();
        for (status, body, kind, text) in [
            (
                404,
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"1"}}]}"#,
                Kind::NotFound,
                r#"failed to resolve reference "docker.io/library/nosuch:1": docker.io/library/nosuch:1: not found"#,
            ),
            (
                403,
                r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#,
                Kind::NotFound,
                "pull access denied for nosuch, repository does not exist or may require 'docker login': denied: \
                 requested access to the resource is denied",
            ),
            (
                404,
                "<html>",
                Kind::NotFound,
                r#"failed to resolve reference "docker.io/library/nosuch:1": docker.io/library/nosuch:1: not found"#,
            ),
            (401, "<html>", Kind::Unauthorized, "unauthorized: authentication required"),
            (401, r#"{"details":"incorrect password"}"#, Kind::Unauthorized, "unauthorized: incorrect password"),
            (500, "<html>", Kind::System, "received unexpected HTTP status: 500 Internal Server Error"),
            (
                404,
                r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}"#,
                Kind::NotFound,
                r#"failed to resolve reference "docker.io/library/nosuch:1": docker.io/library/nosuch:1: not found"#,
            ),
            (
                429,
                r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#,
                Kind::System,
                "toomanyrequests: You have reached your pull rate limit.",
            ),
        ] {
            let error = fault(status, body).of_pull(&reference);
            assert_eq!((error.kind(), error.message()), (kind, text));
        }
    }

    #[test]
    fn bodies_are_read_as_go_reads_them() {
        for (status, body, text) in [
            (404, r#"{"Errors":[{"CODE":"MANIFEST_UNKNOWN","Message":"m"}]}"#, "manifest unknown: m"),
            (401, r#"{"DETAILS":"incorrect password"}"#, "unauthorized: incorrect password"),
            (403, r#"{"errors":null,"message":"no"}"#, "denied: no"),
            (400, r#"{"errors":[{"code":7,"message":"m","detail":{"a":[1]}}]}"#, "unknown: m"),
            (400, r#"{"errors":[{"code":null,"message":null}]}"#, "unknown: "),
            (
                500,
                r#"{"errors":[{"code":"A","message":"x"},null,{"code":"B_C","message":"y"}]}"#,
                "errors:\na: x\nunknown: \nb c: y\n",
            ),
            (500, r#"{"errors":[{"code":"A"}]} {}"#, "received unexpected HTTP status: 500 Internal Server Error"),
            (500, r#"{"errors":{"code":"A"}}"#, "received unexpected HTTP status: 500 Internal Server Error"),
        ] {
            assert_eq!(fault(status, body).error.message(), text, "{body}");
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, hyper::header::HeaderValue::from_static("7"));
        let after = refusal(StatusCode::TOO_MANY_REQUESTS, &headers, b"");
        assert_eq!(after.retry, Retry::After(Duration::from_secs(7)));
        assert_eq!((fault(500, "").retry, fault(503, "").retry), (Retry::Later, Retry::Later));
        assert_eq!(
            (fault(404, "").retry, fault(401, "").retry, fault(501, "").retry),
            (Retry::Never, Retry::Never, Retry::Never)
        );
    }
}
