//! A request as handlers see it: what was matched, what was asked, and a body that is read on demand.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use api::ApiVersion;
use api::decode::DecodeError;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_TYPE, EXPECT, HeaderMap};
use model::{Error, Result};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::budget::Share;
use crate::limits;
use crate::media_type;
use crate::peer::Peer;
use crate::query::Query;
use crate::target::Begins;
use crate::transfer::Client;

/// One request.
pub struct Request {
    /// `GET`, `POST`, …
    pub method: Method,
    /// The decoded path behind the version, for the log.
    pub path: String,
    /// The values of the pattern's variables, in order.
    pub vars: Vec<String>,
    /// The decoded query.
    pub query: Query,
    /// All header fields.
    pub headers: HeaderMap,
    /// The version that the client asked for, or the newest.
    pub version: ApiVersion,
    /// Turns true when the client closed its side for good, or the server shuts down: streams end then.
    pub gone: watch::Receiver<bool>,
    /// Who asks.
    pub peer: Arc<Peer>,
    uri: hyper::Uri,
    body: Body,
    /// What its body takes of the budget, until it is answered.
    share: Option<Share>,
}

/// A request's body. One that is dropped unread is read and thrown away, up to [`limits::REFUSED_UPLOAD`]: a client that
/// still writes when the connection is closed on it may never read why it was refused.
#[derive(Default)]
pub struct Body {
    incoming: Option<Incoming>,
    /// Nothing is sent before the first read (`Expect: 100-continue`).
    held_back: bool,
    share: Option<Share>,
    /// Told when it has come in full.
    begins: Option<Begins>,
}

impl Body {
    /// The body behind a head.
    pub fn new(head: &hyper::http::request::Parts, body: Incoming, bodies: &Arc<Semaphore>) -> Body {
        let share = Some(Share::new(bodies, limits::JSON_BODY_FREE));
        Body {
            incoming: Some(body),
            held_back: head.headers.contains_key(EXPECT),
            share,
            begins: head.extensions.get().cloned(),
        }
    }

    async fn frame(&mut self) -> Option<Result<hyper::body::Frame<Bytes>, hyper::Error>> {
        self.held_back = false;
        let frame = self.incoming.as_mut()?.frame().await;
        if let (None, Some(begins)) = (&frame, &self.begins) {
            begins.body_ended();
        }
        frame
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let unread = self.incoming.take().filter(|body| !body.is_end_stream() && !self.held_back);
        let (Some(mut body), Ok(runtime)) = (unread, tokio::runtime::Handle::try_current()) else { return };
        runtime.spawn(tokio::time::timeout(limits::JSON_BODY_TIME, async move {
            let mut left = limits::REFUSED_UPLOAD;
            while let Some(Ok(frame)) = body.frame().await {
                match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                    Some(rest) => left = rest,
                    None => return,
                }
            }
        }));
    }
}

/// See [`Request::reader`]. A body that breaks off is an error, not an end.
pub struct BodyReader {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    left: Bytes,
}

impl AsyncRead for BodyReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.left.is_empty() {
            match ready!(self.chunks.poll_recv(context)) {
                Some(chunk) => self.left = chunk?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let fits = self.left.len().min(buffer.remaining());
        buffer.put_slice(&self.left.split_to(fits));
        Poll::Ready(Ok(()))
    }
}

impl Request {
    /// A matched request.
    pub fn new(head: hyper::http::request::Parts, body: Body, gone: watch::Receiver<bool>, peer: Arc<Peer>) -> Request {
        Request {
            method: head.method,
            path: String::new(),
            vars: Vec::new(),
            query: Query::default(),
            headers: head.headers,
            version: ApiVersion::MAX,
            gone,
            peer,
            uri: head.uri,
            body,
            share: None,
        }
    }

    /// What stands behind the `?`.
    pub fn query_text(&self) -> &str {
        self.uri.query().unwrap_or_default()
    }

    /// The first variable of the path: the object's name or id.
    pub fn name(&self) -> &str {
        self.vars.first().map(String::as_str).unwrap_or_default()
    }

    /// A header field as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether the client wants the connection for itself.
    pub fn wants_upgrade(&self) -> bool {
        self.headers.contains_key(hyper::header::UPGRADE)
    }

    /// The first of these protocols that the client offers to go on with (RFC 9110, 7.8).
    ///
    /// Errors: `InvalidParameter` when it offers none of them.
    pub fn offered_protocol(&self, known: &[&'static str]) -> Result<&'static str> {
        let fields = self.headers.get_all(hyper::header::UPGRADE);
        let offers = || fields.iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(','));
        let find = |offer: &str| known.iter().find(|name| name.eq_ignore_ascii_case(offer.trim()));
        match (offers().find_map(find), offers().next()) {
            (Some(name), _) => Ok(name),
            (None, Some(offer)) => Err(Error::invalid(format!("protocol {} not supported", offer.trim()))),
            (None, None) => Err(Error::invalid("no upgrade proto in request")),
        }
    }

    /// The announced length of the body; `None` when it is chunked.
    pub fn content_length(&self) -> Option<u64> {
        self.body.incoming.as_ref().map_or(Some(0), |body| body.size_hint().exact())
    }

    /// Reads an optional JSON body: an empty one is the zero value, anything else has to say that it is JSON.
    pub async fn json<T: DeserializeOwned + Default>(&mut self) -> Result<T> {
        match self.json_bytes().await? {
            Some(bytes) => api::decode::from_slice(&bytes).map_err(invalid_body),
            None => Ok(T::default()),
        }
    }

    /// The bytes of an optional JSON body; `None` when there is none.
    pub async fn json_bytes(&mut self) -> Result<Option<Bytes>> {
        self.check_json()?;
        if self.content_length() == Some(0) {
            return Ok(None);
        }
        self.bytes().await.map(Some)
    }

    /// Refuses a body that does not say that it is JSON.
    pub fn check_json(&self) -> Result<()> {
        let given = self.headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let given = given.unwrap_or_default();
        if given.is_empty() && self.content_length() == Some(0) {
            return Ok(());
        }
        let media_type = media_type::parse(&given)
            .map_err(|reason| Error::invalid(format!("malformed Content-Type header ({given}): {reason}")))?;
        if media_type != "application/json" {
            return Err(Error::invalid(format!(
                "unsupported Content-Type header ({given}): must be 'application/json'"
            )));
        }
        Ok(())
    }

    /// The whole body, within [`limits::JSON_BODY`] and [`limits::JSON_BODY_TIME`].
    pub async fn bytes(&mut self) -> Result<Bytes> {
        let mut body = std::mem::take(&mut self.body);
        self.share = body.share.take();
        let share = &mut self.share;
        let reading = async {
            let mut whole = Vec::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| Error::invalid(format!("invalid JSON: {error}")))?;
                let Ok(data) = frame.into_data() else { continue };
                if whole.len() + data.len() > limits::JSON_BODY {
                    return Err(Error::invalid("http: request body too large"));
                }
                if share.as_mut().is_some_and(|share| !share.grow_to(whole.len() + data.len())) {
                    return Err(Error::unavailable("too many large request bodies at once: try again"));
                }
                // Copied, since a piece of one byte keeps the whole buffer that it was read into.
                whole.extend_from_slice(&data);
            }
            Ok(Bytes::from(whole))
        };
        tokio::time::timeout(limits::JSON_BODY_TIME, reading)
            .await
            .unwrap_or_else(|_| Err(Error::invalid("invalid JSON: the request body did not arrive in time")))
    }

    /// The body as a reader, read as fast as it is taken.
    pub fn reader(&mut self) -> BodyReader {
        BodyReader { chunks: self.chunks(), left: Bytes::new() }
    }

    /// The body as a stream of chunks, read as fast as they are taken.
    pub fn upload(&mut self) -> Upload {
        Upload { chunks: self.chunks() }
    }

    /// The data of the body; an error where it breaks off.
    fn chunks(&mut self) -> mpsc::Receiver<io::Result<Bytes>> {
        let mut body = std::mem::take(&mut self.body);
        let (sender, chunks) = mpsc::channel(limits::UPLOAD_QUEUE);
        tokio::spawn(async move {
            while let Some(frame) = body.frame().await {
                let chunk = match frame.map(hyper::body::Frame::into_data) {
                    Ok(Ok(data)) => Ok(data),
                    Ok(Err(_trailers)) => continue,
                    Err(error) => Err(io::Error::other(error)),
                };
                if sender.send(chunk).await.is_err() {
                    return;
                }
            }
        });
        chunks
    }

    /// Resolves when the client is gone.
    pub async fn client_gone(mut gone: watch::Receiver<bool>) {
        // A sender that is dropped belongs to a connection that ended.
        let _ = gone.wait_for(|gone| *gone).await;
    }
}

/// The text with which a body that cannot be decoded is refused.
pub fn invalid_body(error: DecodeError) -> Error {
    Error::invalid(error.body_message())
}

/// A request body for readers that block (tar extraction).
pub struct Upload {
    chunks: mpsc::Receiver<std::io::Result<Bytes>>,
}

impl Upload {
    /// A body that comes from elsewhere than the request.
    pub fn channel() -> (mpsc::Sender<std::io::Result<Bytes>>, Upload) {
        let (sender, chunks) = mpsc::channel(limits::UPLOAD_QUEUE);
        (sender, Upload { chunks })
    }

    /// To be read on the thread of a transfer.
    pub fn from(self, client: &Client) -> UploadReader {
        UploadReader { chunks: self.chunks, client: client.clone(), rest: Bytes::new() }
    }
}

/// A request body as a transfer reads it.
pub struct UploadReader {
    chunks: mpsc::Receiver<std::io::Result<Bytes>>,
    client: Client,
    rest: Bytes,
}

impl std::io::Read for UploadReader {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while self.rest.is_empty() {
            match self.client.receive(&mut self.chunks)? {
                Some(chunk) => self.rest = chunk?,
                None => return Ok(0),
            }
        }
        let count = self.rest.len().min(out.len());
        out[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}
