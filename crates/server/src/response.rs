//! Answers: status, fields, and a body that is whole or streamed.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::response::Builder;
use hyper::{Response as HttpResponse, StatusCode};
use serde::Serialize;
use tokio::sync::mpsc;

/// What a handler answers with.
pub type Response = HttpResponse<Body>;

/// The body of an answer.
pub enum Body {
    /// Known in full.
    Whole(Option<Bytes>),
    /// Chunks as they come; ends when the sender is dropped.
    Stream(mpsc::Receiver<Bytes>),
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Body::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Body::Stream(chunks) => chunks.poll_recv(context).map(|chunk| chunk.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Body::Stream(_) => SizeHint::default(),
        }
    }
}

/// `application/json`.
pub const JSON: &str = "application/json";
/// `application/x-tar`.
pub const TAR: &str = "application/x-tar";

fn with_type(status: StatusCode, content_type: &'static str, body: Body) -> Response {
    let mut response = HttpResponse::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn whole(bytes: Vec<u8>) -> Body {
    Body::Whole(Some(bytes.into()).filter(|bytes: &Bytes| !bytes.is_empty()))
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Response {
    let mut response = HttpResponse::new(Body::Whole(None));
    *response.status_mut() = status;
    response
}

/// A JSON value and its newline.
pub fn json<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Response {
    with_type(status, JSON, whole(api::encode::to_vec(value)))
}

/// Plain text.
pub fn text(status: StatusCode, text: impl Into<String>) -> Response {
    with_type(status, "text/plain; charset=utf-8", whole(text.into().into_bytes()))
}

/// A streamed 200; the head leaves at once, before the first chunk.
pub fn stream(content_type: &'static str, chunks: mpsc::Receiver<Bytes>) -> Response {
    with_type(StatusCode::OK, content_type, Body::Stream(chunks))
}

/// Adds a field.
pub fn with_header(mut response: Response, name: &'static str, value: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
    response
}

/// The answer to a request whose head makes no sense, before any route is known.
pub fn bad_request(message: &str) -> Response {
    Builder::new()
        .status(StatusCode::BAD_REQUEST)
        .header(CONTENT_TYPE, "text/plain; charset=utf-8")
        .body(whole(format!("400 Bad Request: {message}").into_bytes()))
        .expect("constant fields are valid")
}
