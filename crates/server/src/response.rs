//! Answers: status, fields, and a body that is whole or streamed.

use std::any::Any;
use std::future::Future;
use std::io::{self, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::response::Builder;
use hyper::{Response as HttpResponse, StatusCode};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

use crate::limits;
use crate::transfer::{Client, Transfers};

/// What a handler answers with.
pub type Response = HttpResponse<Body>;

/// The body of an answer.
pub enum Body {
    /// Known in full.
    Whole(Option<Bytes>),
    /// Chunks as they come; ends when the sender is dropped.
    Stream(mpsc::Receiver<Bytes>, Keep),
    /// The same, of something that may break in the middle: unless its producer says that it is whole, the connection is
    /// cut at the end, so that nobody takes the part for the whole.
    Download(mpsc::Receiver<Bytes>, oneshot::Receiver<Whole>),
    /// Messages of a call of gRPC, and its status behind them.
    Call(buildkit::Body),
}

/// What is dropped when the client has been sent the end.
pub type Keep = Option<Box<dyn Any + Send>>;

/// The word of a download's producer that nothing is missing.
pub struct Whole;

/// In the extensions of an answer: turns true when the connection is to be closed on it.
#[derive(Clone)]
pub struct Cut(pub watch::Receiver<bool>);

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Body::Call(body) => Pin::new(body).poll_frame(context).map_err(io::Error::other),
            Body::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Body::Stream(chunks, _) => chunks.poll_recv(context).map(|chunk| chunk.map(|bytes| Ok(Frame::data(bytes)))),
            Body::Download(chunks, whole) => match ready!(chunks.poll_recv(context)) {
                Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                None => match ready!(Pin::new(whole).poll(context)) {
                    Ok(Whole) => Poll::Ready(None),
                    Err(_) => Poll::Ready(Some(Err(io::Error::other("the download broke off")))),
                },
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Whole(bytes) => bytes.is_none(),
            Body::Call(body) => body.is_end_stream(),
            Body::Stream(..) | Body::Download(..) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Body::Call(body) => body.size_hint(),
            Body::Stream(..) | Body::Download(..) => SizeHint::default(),
        }
    }
}

/// `application/json`.
pub const JSON: &str = "application/json";
/// `application/octet-stream`.
pub const BYTES: &str = "application/octet-stream";
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

/// A 200 with a text of a media type.
pub fn text_of(content_type: &'static str, text: String) -> Response {
    with_type(StatusCode::OK, content_type, whole(text.into_bytes()))
}

/// A streamed 200; the head leaves at once, before the first chunk.
pub fn stream(content_type: &'static str, chunks: mpsc::Receiver<Bytes>) -> Response {
    with_type(StatusCode::OK, content_type, Body::Stream(chunks, None))
}

/// The same; `keep` is dropped when the client has been sent the end, or has left.
pub fn stream_keeping(content_type: &'static str, chunks: mpsc::Receiver<Bytes>, keep: impl Any + Send) -> Response {
    with_type(StatusCode::OK, content_type, Body::Stream(chunks, Some(Box::new(keep))))
}

/// Answers with what a blocking producer writes on a thread of its own. An error before the first byte is the answer's
/// status; the producer learns by a failing write that the client left.
pub async fn download<F>(transfers: &Transfers, content_type: &'static str, produce: F) -> model::Result<Response>
where
    F: FnOnce(&mut Sink) -> model::Result<()> + Send + 'static,
{
    let place = transfers.place().await;
    let (sender, chunks) = mpsc::channel(limits::DOWNLOAD_QUEUE);
    let (begun, first) = oneshot::channel();
    let (tell_whole, whole) = oneshot::channel();
    let cut = Cut(place.cut());
    let running = place.run(move |client| {
        let mut sink = Sink { sender, client, begun: Some(begun), buffer: Vec::new() };
        let produced = produce(&mut sink).and_then(|()| Ok(sink.flush()?));
        match (produced, sink.begun.take()) {
            (Ok(()), begun) => {
                drop(tell_whole.send(Whole));
                drop(begun.map(|begun| begun.send(Ok(()))));
            }
            (produced, Some(begun)) => drop(begun.send(produced)),
            (Err(error), None) => tracing::debug!(%error, "a download broke off"),
        }
    });
    match first.await {
        Ok(begun) => begun?,
        // Its producer never came so far.
        Err(_) => running.outcome().await?,
    }
    let mut response = with_type(StatusCode::OK, content_type, Body::Download(chunks, whole));
    response.extensions_mut().insert(cut);
    Ok(response)
}

/// Where a blocking producer writes to.
pub struct Sink {
    sender: mpsc::Sender<Bytes>,
    client: Client,
    /// Told when the first chunk is on its way; after that errors cut the connection.
    begun: Option<oneshot::Sender<model::Result<()>>>,
    buffer: Vec<u8>,
}

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= limits::DOWNLOAD_CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        if let Some(begun) = self.begun.take() {
            drop(begun.send(Ok(())));
        }
        // What fills a chunk once will do so again; small archives stay small.
        let next = if self.buffer.len() < limits::DOWNLOAD_CHUNK { 0 } else { self.buffer.len() };
        let chunk = Bytes::from(std::mem::replace(&mut self.buffer, Vec::with_capacity(next)));
        self.client.send(&self.sender, chunk)
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn a_download_fails_early_by_status_and_late_by_cutting() {
        let transfers = Transfers::default();
        let early = download(&transfers, TAR, |_| Err(model::Error::not_found("nothing"))).await;
        assert_eq!(early.err().expect("refused").message(), "nothing");
        let whole = download(&transfers, TAR, |sink| Ok(sink.write_all(b"abc")?)).await.expect("begun");
        assert_eq!(whole.into_body().collect().await.expect("whole").to_bytes(), "abc");
        let cut = download(&transfers, TAR, |sink| {
            sink.write_all(&vec![0; limits::DOWNLOAD_CHUNK])?;
            Err(model::Error::system("broken"))
        });
        assert!(cut.await.expect("begun").into_body().collect().await.is_err());
        let panicked = download(&transfers, TAR, |sink| {
            sink.write_all(&vec![0; limits::DOWNLOAD_CHUNK])?;
            panic!("as it should")
        });
        assert!(panicked.await.expect("begun").into_body().collect().await.is_err());
        assert!(download(&transfers, TAR, |_| panic!("as it should")).await.is_err());
    }

    #[tokio::test]
    async fn an_empty_download_is_an_answer() {
        let empty = download(&Transfers::default(), TAR, |_| Ok(())).await.expect("begun");
        assert!(empty.into_body().collect().await.expect("whole").to_bytes().is_empty());
    }
}
