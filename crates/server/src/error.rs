//! From an error to an answer: one exhaustive match from kind to status.

use api::{ApiVersion, ErrorResponse};
use hyper::StatusCode;
use model::{Error, Kind};

use crate::response::{self, Response};

/// Versions below this get plain texts: nobody serves them, and their clients print the body as it is.
const FIRST_WITH_JSON_ERRORS: u32 = 24;

/// The status of a kind (B-api-8).
pub fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::InvalidParameter => StatusCode::BAD_REQUEST,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::NotModified => StatusCode::NOT_MODIFIED,
        Kind::Unauthorized => StatusCode::UNAUTHORIZED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Cancelled | Kind::DataLoss | Kind::System => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The answer to a refused request of a client that asked for `version`.
pub fn answer(error: &Error, version: Option<ApiVersion>) -> Response {
    let status = status(error.kind());
    if status == StatusCode::NOT_MODIFIED {
        return response::empty(status);
    }
    if version.is_some_and(|version| version.before(FIRST_WITH_JSON_ERRORS)) {
        let text = response::text(status, format!("{}\n", error.message()));
        return response::with_header(text, "x-content-type-options", "nosniff");
    }
    response::json(status, &ErrorResponse { message: error.message().to_owned() })
}

/// A request that ended in a fault of the daemon is worth a line in its log.
pub fn log(error: &Error, method: &str, path: &str) {
    if status(error.kind()).is_server_error() {
        tracing::error!(method, path, %error, source = ?std::error::Error::source(error), "request failed");
    } else {
        tracing::debug!(method, path, %error, "request refused");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_status() {
        let all = [
            (Kind::NotFound, 404),
            (Kind::InvalidParameter, 400),
            (Kind::Conflict, 409),
            (Kind::NotModified, 304),
            (Kind::Unauthorized, 401),
            (Kind::Forbidden, 403),
            (Kind::NotImplemented, 501),
            (Kind::Unavailable, 503),
            (Kind::Cancelled, 500),
            (Kind::DataLoss, 500),
            (Kind::System, 500),
        ];
        for (kind, expected) in all {
            assert_eq!(status(kind).as_u16(), expected, "{kind:?}");
        }
    }
}
