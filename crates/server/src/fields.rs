//! The order of the header fields of an answer.
//!
//! The reference writes a handler's fields by name, then what its HTTP server adds by itself: date, length, a type that
//! no handler named, connection, encoding. Recorded answers are compared byte by byte, so Gantry keeps to that order.
//! hyper adds the last two behind everything else, which is where they belong.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use httpdate::HttpDate;
use hyper::body::Body as _;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use model::time::Timestamp;

use crate::response::{Body, Response};

/// Puts the fields of an answer to a request of `method` in order and adds date and length.
pub fn arrange(answer: &mut Response, method: &Method, now: Timestamp) {
    let (status, length) = (answer.status(), answer.body().size_hint().exact());
    let bare = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let given = std::mem::take(answer.headers_mut());
    let mut named = by_name(given);
    // A plain text is what the reference's server finds out by looking at the body.
    let found_out = named.iter().position(|(name, value)| {
        name == CONTENT_TYPE && status == StatusCode::OK && length != Some(0) && value.as_bytes().starts_with(b"text/")
    });
    let found_out = found_out.map(|at| named.remove(at));
    let fields = answer.headers_mut();
    fields.extend(named);
    fields.insert(DATE, date(now));
    let told = *method == Method::HEAD && fields.contains_key(CONTENT_LENGTH);
    if let Some(length) = length.filter(|_| !bare && !told) {
        fields.insert(CONTENT_LENGTH, length.into());
    }
    fields.extend(found_out);
    if length == Some(0) && !bare {
        // Of an answer without any body hyper tells the length last.
        *answer.body_mut() = Body::Whole(Some(Bytes::new()));
    }
}

fn by_name(fields: HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let mut last = None;
    let mut named = Vec::with_capacity(fields.len() + 2);
    for (name, value) in fields {
        // A field with several values names itself only once.
        last = name.or(last);
        if let Some(name) = &last {
            named.push((name.clone(), value));
        }
    }
    named.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
    named
}

/// `Mon, 23 Nov 2026 17:37:58 GMT` (RFC 9110, 5.6.7)
fn date(now: Timestamp) -> HeaderValue {
    let seconds = u64::try_from(now.unix_seconds()).unwrap_or_default();
    let text = HttpDate::from(UNIX_EPOCH + Duration::from_secs(seconds)).to_string();
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::response;

    fn arranged(mut answer: Response, method: Method) -> Vec<String> {
        answer.headers_mut().insert("server", HeaderValue::from_static("s"));
        answer.headers_mut().insert("api-version", HeaderValue::from_static("1.45"));
        arrange(&mut answer, &method, Timestamp::from_unix_seconds(1_795_455_478));
        answer.headers().keys().map(|name| name.as_str().to_owned()).collect()
    }

    #[test]
    fn fields_come_by_name_then_what_servers_add() {
        let json = response::json(StatusCode::OK, "x");
        assert_eq!(arranged(json, Method::GET), ["api-version", "content-type", "server", "date", "content-length"]);
        let text = response::text(StatusCode::OK, "OK");
        assert_eq!(arranged(text, Method::GET), ["api-version", "server", "date", "content-length", "content-type"]);
        let none = response::empty(StatusCode::NO_CONTENT);
        assert_eq!(arranged(none, Method::POST), ["api-version", "server", "date"]);
    }

    #[test]
    fn dates_are_those_of_http() {
        assert_eq!(date(Timestamp::from_unix_seconds(1_795_455_478)), "Mon, 23 Nov 2026 17:37:58 GMT");
        assert_eq!(date(Timestamp::from_unix_seconds(0)), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date(Timestamp::from_unix_seconds(1_709_210_096)), "Thu, 29 Feb 2024 12:34:56 GMT");
    }
}
