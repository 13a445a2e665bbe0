//! One request, one answer: connections kept between requests of one operation, bounds on time and size.
//!
//! Connections belong to the [`Http`] they were made by and end with it, so an operation leaves no socket behind.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION,
    USER_AGENT,
};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use model::lock::Mutex;
use rustls::ClientConfig;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::certs::{self, CertFiles, SystemRoots};
use crate::coding::Gunzip;
use crate::connect::{self, Pinned, Route};
use crate::failure::{Fault, Result};
use crate::proxy::{Kind, Proxy};
use crate::resolver::Resolver;
use crate::settings::Settings;
use crate::url::{Scheme, Url};

/// Idle connections kept per server.
const IDLE: usize = 8;
/// Read buffer of a connection.
const BUFFER: usize = 128 << 10;
/// Header fields of an answer.
const FIELDS: usize = 128;

/// What a request carries.
pub enum Body {
    /// Nothing.
    Empty,
    /// Known in full.
    Whole(Bytes),
    /// Chunks as they come.
    Stream(Chunks),
}

/// A body that is made while it is sent.
pub struct Chunks {
    /// The chunks.
    pub chunks: mpsc::Receiver<io::Result<Bytes>>,
    /// Bytes in all.
    pub size: u64,
    /// How many were taken: as long as this grows, the server is alive.
    pub taken: Arc<AtomicU64>,
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match std::mem::replace(&mut *self, Body::Empty) {
            Body::Empty => Poll::Ready(None),
            Body::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Body::Stream(mut stream) => {
                let polled = stream.chunks.poll_recv(cx);
                if let Poll::Ready(Some(Ok(bytes))) = &polled {
                    stream.taken.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                }
                *self = Body::Stream(stream);
                polled.map(|chunk| chunk.map(|bytes| bytes.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Body::Empty => 0,
            Body::Whole(bytes) => bytes.len() as u64,
            Body::Stream(stream) => stream.size,
        })
    }
}

/// One request.
pub struct Call {
    /// `GET`, …
    pub method: Method,
    /// To whom.
    pub url: Url,
    /// Fields besides `Host` and `User-Agent`.
    pub headers: HeaderMap,
    /// What it carries.
    pub body: Body,
    /// How an `https` server is verified.
    pub tls: Arc<ClientConfig>,
    /// The only addresses to connect to, where they were judged.
    pub pinned: Option<Pinned>,
    /// Longest wait for a connection, where it differs.
    pub dial_timeout: Option<std::time::Duration>,
}

/// Which connections may serve a request.
type Key = (Scheme, String, usize);
type Idle = Arc<Mutex<HashMap<Key, Vec<SendRequest<Body>>>>>;

/// Sends requests.
pub struct Http {
    settings: Arc<Settings>,
    roots: Arc<SystemRoots>,
    /// For proxies over TLS; made when the first is spoken to.
    proxy_tls: OnceLock<Arc<ClientConfig>>,
    idle: Idle,
}

/// The head of an answer, its body still to be read.
pub struct Answer {
    /// `200`, …
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
    /// Who answered.
    pub url: Url,
    body: Incoming,
    /// Decompresses what comes.
    gunzip: Option<Gunzip>,
    stall: std::time::Duration,
    back: Option<(Idle, Key, SendRequest<Body>)>,
    what: String,
}

impl Http {
    /// Without connections yet.
    pub fn new(settings: Arc<Settings>, roots: Arc<SystemRoots>) -> Http {
        Http { settings, roots, proxy_tls: OnceLock::new(), idle: Idle::default() }
    }

    /// How a proxy is verified: by the system's authorities, whatever is configured for a registry.
    async fn tls_of(&self, proxy: Option<&Proxy>) -> Result<Option<Arc<ClientConfig>>> {
        if proxy.is_none_or(|proxy| proxy.kind != Kind::Https) {
            return Ok(None);
        }
        if let Some(known) = self.proxy_tls.get() {
            return Ok(Some(known.clone()));
        }
        let made = certs::client_config(CertFiles::default(), &self.roots, &self.settings).await?;
        Ok(Some(self.proxy_tls.get_or_init(|| made).clone()))
    }

    /// Sends one request and waits for the head of its answer.
    pub async fn send(&self, call: Call) -> Result<Answer> {
        let what = describe(&call.method, &call.url);
        let key = (call.url.scheme, call.url.authority(), Arc::as_ptr(&call.tls) as usize);
        let proxy = self.settings.proxies.of(&call.url)?;
        let headers = self.headers(&call, proxy.as_ref())?;
        // A proxy wants to know the server.
        let target = match (&proxy, call.url.scheme) {
            (Some(proxy), Scheme::Http) if proxy.kind != Kind::Socks5 => call.url.to_string(),
            _ => call.url.path.clone(),
        };
        let request = |body| {
            let mut request = Request::new(body);
            *request.method_mut() = call.method.clone();
            *request.uri_mut() = target.parse().map_err(|_| Fault::nonsense(format!("{what}: invalid path")))?;
            *request.headers_mut() = headers.clone();
            Ok::<_, Fault>(request)
        };
        let again = match &call.body {
            Body::Empty => Some(Body::Empty),
            Body::Whole(bytes) => Some(Body::Whole(bytes.clone())),
            // What was sent of a stream is gone, so it gets a connection that is certainly alive.
            Body::Stream(_) => None,
        };
        let taken = match &call.body {
            Body::Stream(stream) => stream.taken.clone(),
            Body::Empty | Body::Whole(_) => Arc::default(),
        };
        if let Some(body) = again
            && let Some(mut sender) = self.take(&key)
        {
            match timeout(self.settings.timeouts.head, sender.send_request(request(body)?)).await {
                Ok(Ok(answer)) => return Ok(self.answer(answer, call.url, (key, sender), what)),
                Ok(Err(error)) => tracing::debug!(%error, %what, "an idle connection was gone"),
                Err(_) => return Err(self.too_slow(&what)),
            }
        }
        let route = Route {
            resolver: Resolver::new(&self.settings),
            proxy_tls: self.tls_of(proxy.as_ref()).await?,
            proxy,
            pinned: call.pinned.clone(),
            connect: call.dial_timeout.unwrap_or(self.settings.timeouts.connect),
            handshake: self.settings.timeouts.handshake,
        };
        let stream = connect::connect(&call.url, &call.tls, &route).await.map_err(|e| Fault::unreachable(&what, &e))?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(BUFFER)
            .max_headers(FIELDS)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| Fault::transport(&what, &e))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a registry ended");
            }
        });
        let mut sending = std::pin::pin!(sender.send_request(request(call.body)?));
        loop {
            let before = taken.load(Ordering::Relaxed);
            return match timeout(self.settings.timeouts.head, &mut sending).await {
                Ok(Ok(answer)) => Ok(self.answer(answer, call.url, (key, sender), what)),
                Ok(Err(error)) => Err(Fault::transport(&what, &error)),
                Err(_) if taken.load(Ordering::Relaxed) > before => continue,
                Err(_) => Err(self.too_slow(&what)),
            };
        }
    }

    fn too_slow(&self, what: &str) -> Fault {
        Fault::transport(what, &io::Error::new(io::ErrorKind::TimedOut, "net/http: timeout awaiting response headers"))
    }

    fn headers(&self, call: &Call, proxy: Option<&crate::proxy::Proxy>) -> Result<HeaderMap> {
        let mut headers = call.headers.clone();
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| Fault::nonsense("invalid header value"));
        headers.insert(HOST, value(&call.url.authority())?);
        if !headers.contains_key(USER_AGENT) {
            headers.insert(USER_AGENT, value(&self.settings.user_agent)?);
        }
        if !headers.contains_key(ACCEPT_ENCODING) {
            // Digests are of the bytes as they are kept.
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        if call.url.scheme == Scheme::Http
            && let Some(proxy) = proxy.filter(|proxy| proxy.kind != Kind::Socks5)
            && let Some(authorization) = connect::proxy_authorization(proxy)
        {
            headers.insert(PROXY_AUTHORIZATION, value(&authorization)?);
        }
        Ok(headers)
    }

    fn take(&self, key: &Key) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.lock();
        let of_server = idle.get_mut(key)?;
        while let Some(sender) = of_server.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn answer(
        &self,
        answer: hyper::Response<Incoming>,
        url: Url,
        (key, sender): (Key, SendRequest<Body>),
        what: String,
    ) -> Answer {
        let (mut head, body) = answer.into_parts();
        let coding = head.headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let gunzip = matches!(coding.trim().to_ascii_lowercase().as_str(), "gzip" | "x-gzip").then(Gunzip::new);
        if gunzip.is_some() {
            // It is that of the compressed bytes.
            head.headers.remove(CONTENT_LENGTH);
        }
        Answer {
            gunzip,
            status: head.status,
            headers: head.headers,
            url,
            body,
            stall: self.settings.timeouts.stall,
            back: Some((self.idle.clone(), key, sender)),
            what,
        }
    }
}

/// `Get "https://r.example/v2/"`
pub fn describe(method: &Method, url: &Url) -> String {
    let name = method.as_str();
    format!("{}{} {:?}", &name[..1], name[1..].to_lowercase(), url.shown())
}

impl Answer {
    /// A field as text.
    pub fn header(&self, name: impl hyper::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether its bytes were compressed on the way.
    pub fn is_coded(&self) -> bool {
        self.gunzip.is_some()
    }

    /// The next bytes; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let Some(mut gunzip) = self.gunzip.take() else { return self.next_raw().await };
        let next = self.next_decoded(&mut gunzip).await;
        self.gunzip = Some(gunzip);
        next
    }

    async fn next_decoded(&mut self, gunzip: &mut Gunzip) -> Result<Option<Bytes>> {
        loop {
            if let Some(bytes) = gunzip.pull().map_err(|error| Fault::transport(&self.what, &error))? {
                return Ok(Some(bytes));
            }
            match self.next_raw().await? {
                Some(bytes) => gunzip.push(bytes),
                None if gunzip.has_ended() => return Ok(None),
                None => {
                    let cut = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Err(Fault::transport(&self.what, &cut));
                }
            }
        }
    }

    async fn next_raw(&mut self) -> Result<Option<Bytes>> {
        loop {
            let frame = match timeout(self.stall, self.body.frame()).await {
                Ok(frame) => frame,
                Err(_) => {
                    let stalled = io::Error::new(io::ErrorKind::TimedOut, "the registry sends nothing any more");
                    return Err(Fault::transport(&self.what, &stalled));
                }
            };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                None => {
                    self.give_back();
                    return Ok(None);
                }
                Some(Ok(Ok(bytes))) => return Ok(Some(bytes)),
                Some(Ok(Err(_trailers))) => {}
                Some(Err(error)) => return Err(Fault::transport(&self.what, &error)),
            }
        }
    }

    /// The whole body; one of more than `max` bytes is refused.
    pub async fn bytes(mut self, max: usize) -> Result<Bytes> {
        let announced = self.body.size_hint().lower();
        let refuse = |what: &str| Fault::nonsense(format!("{what}: the answer is larger than {max} bytes"));
        if announced > max as u64 {
            return Err(refuse(&self.what));
        }
        let mut all = Vec::with_capacity(announced as usize);
        while let Some(bytes) = self.next().await? {
            if all.len() + bytes.len() > max {
                return Err(refuse(&self.what));
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all.into())
    }

    /// Reads and forgets a short rest, so that the connection can serve again.
    pub async fn discard(self) {
        const REST: usize = 64 << 10;
        drop(self.bytes(REST).await);
    }

    /// `Get "https://…"`
    pub fn what(&self) -> &str {
        &self.what
    }

    fn give_back(&mut self) {
        if let Some((idle, key, sender)) = self.back.take() {
            let mut idle = idle.lock();
            let of_server = idle.entry(key).or_default();
            if of_server.len() < IDLE && !sender.is_closed() {
                of_server.push(sender);
            }
        }
    }
}

/// Adds a field; one that cannot be written is left out.
pub fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
