//! One client: HTTP/1.1 over its connection until it ends, is hijacked, or the daemon shuts down. A client that begins with
//! HTTP/2 is given to [`http2`].
//!
//! hyper half-closes with the client (`half_close`), so it does not notice a client that vanished while a handler
//! works: the task watches the socket itself. When nobody is there any more, it drops everything of the request, but not
//! before a change that was asked for in full has been heard: what a client sent before it left counts.

use std::io;
use std::sync::Arc;

use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use model::Error;
use model::clock::Clock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::error;
use crate::fields;
use crate::frame::Frame;
use crate::hijack::{self, Hijack};
use crate::http2::{self, Spoken};
use crate::limits;
use crate::peer::Peer;
use crate::phase::Phase;
use crate::response::{Cut, Response};
use crate::routes::Outcome;
use crate::stream::{Io, PeerClosed, Socket};
use crate::target::{Begins, Targets};

/// What a client is told whose head found the budget used up.
const TOO_MANY_LONG_HEADS: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Connection: close\r\n\r\n503 Service Unavailable: too many long request heads at once\n";

/// Serves one connection to its end.
pub async fn serve<S: Send + Sync + 'static>(
    frame: Arc<Frame<S>>,
    socket: Socket,
    peer: Peer,
    tls: Option<TlsAcceptor>,
    phase: watch::Receiver<Phase>,
) {
    let socket = Arc::new(socket);
    let served = match tls {
        None => plain(&frame, &socket, peer, phase).await,
        Some(acceptor) => encrypted(&frame, &socket, peer, acceptor, phase).await,
    };
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended");
    }
}

async fn plain<S: Send + Sync + 'static>(
    frame: &Arc<Frame<S>>,
    socket: &Arc<Socket>,
    peer: Peer,
    phase: watch::Receiver<Phase>,
) -> io::Result<()> {
    let served = http(frame, socket, Arc::new(peer), Io(socket.clone()), phase).await;
    if served.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::OutOfMemory) {
        drop(timeout(limits::HIJACK_HEAD_TIME, socket.write_all(TOO_MANY_LONG_HEADS)).await);
    }
    match served? {
        None => Ok(()),
        Some((stream, ahead, hijack)) if matches!(hijack.head, hijack::Head::WebSocket(_)) => {
            hijack::take_layered(stream, socket, ahead, hijack).await
        }
        Some((stream, ahead, hijack)) => {
            drop(stream);
            hijack::take_plain(socket, ahead, hijack).await
        }
    }
}

async fn encrypted<S: Send + Sync + 'static>(
    frame: &Arc<Frame<S>>,
    socket: &Arc<Socket>,
    peer: Peer,
    acceptor: TlsAcceptor,
    phase: watch::Receiver<Phase>,
) -> io::Result<()> {
    let handshake = acceptor.accept(Io(socket.clone()));
    let stream = timeout(limits::TLS_HANDSHAKE_TIME, handshake).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let peer = peer.with_certificates(stream.get_ref().1.peer_certificates());
    match http(frame, socket, Arc::new(peer), stream, phase).await? {
        None => Ok(()),
        Some((stream, ahead, hijack)) => hijack::take_layered(stream, socket, ahead, hijack).await,
    }
}

/// A connection that left HTTP: its stream, what was read ahead, and who takes it.
type Taken<T> = Option<(T, Vec<u8>, Hijack)>;

/// Serves what a client speaks.
async fn http<S, T>(
    frame: &Arc<Frame<S>>,
    socket: &Arc<Socket>,
    peer: Arc<Peer>,
    mut stream: T,
    phase: watch::Receiver<Phase>,
) -> io::Result<Taken<T>>
where
    S: Send + Sync + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut first = Vec::new();
    if let Some(calls) = frame.calls() {
        match http2::spoken(&mut stream, &phase).await? {
            Spoken::Http1(ahead) => first = ahead,
            Spoken::Http2(ahead) => {
                http2::Server { frame: frame.clone(), calls, peer }.serve((ahead, stream), phase).await;
                return Ok(None);
            }
        }
    }
    let stream = Targets::new((first, stream), &frame.budgets.heads);
    http1(frame, socket, peer, stream, phase).await
}

async fn http1<S, T>(
    frame: &Arc<Frame<S>>,
    socket: &Arc<Socket>,
    peer: Arc<Peer>,
    stream: Targets<T>,
    mut phase: watch::Receiver<Phase>,
) -> io::Result<Taken<T>>
where
    S: Send + Sync + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (hijacks, mut hijacked) = mpsc::channel::<Hijack>(1);
    let (tell_gone, gone) = watch::channel(false);
    let (tell_turn, mut turn) = watch::channel(Turn::Client);
    let (tell_cut, mut cuts) = mpsc::channel::<Cut>(1);
    let mut cut = None;
    let begins = stream.begins();
    let refused = begins.clone();
    let service = service_fn({
        let frame = frame.clone();
        let (tell_turn, phase) = (Arc::new(tell_turn), phase.clone());
        move |request| {
            let begun_at = *phase.borrow();
            let client =
                Client { peer: peer.clone(), gone: gone.clone(), turn: tell_turn.clone(), begins: begins.clone() };
            let (frame, hijacks, tell_cut) = (frame.clone(), hijacks.clone(), tell_cut.clone());
            async move {
                let answer = admitted(begun_at, respond(frame, request, hijacks, client)).await?;
                // There is room: the one of an earlier answer has been taken.
                drop(answer.extensions().get::<Cut>().map(|cut| tell_cut.try_send(cut.clone())));
                Ok::<_, std::convert::Infallible>(answer)
            }
        }
    });
    let mut connection = builder().serve_connection(TokioIo::new(stream), service);
    let vanished = vanished(socket, &tell_gone);
    tokio::pin!(vanished);
    let (mut next, mut alone) = (Some(Phase::Closing), false);
    loop {
        tokio::select! {
            biased;
            // First, so that everything that the client sent before it left is read before its leaving is noticed.
            ended = &mut connection => {
                if refused.is_refused() {
                    return Err(io::ErrorKind::OutOfMemory.into());
                }
                return ended.map(|()| None).map_err(io::Error::other);
            }
            Some(hijack) = hijacked.recv() => {
                let parts = connection.into_parts();
                let (stream, left) = parts.io.into_inner().into_parts();
                return Ok(Some((stream, [&parts.read_buf[..], &left[..]].concat(), hijack)));
            }
            Some(Cut(told)) = cuts.recv() => cut = Some(told),
            () = is_true(&mut cut) => return Ok(None),
            () = &mut vanished, if !alone => {
                tell_gone.send_replace(true);
                alone = true;
                // What came between the last read and the leaving.
                tokio::task::yield_now().await;
            }
            // Nothing is being changed: what is left is an answer that nobody reads.
            () = is(&mut turn, Turn::Answer), if alone => return Ok(None),
            () = reaches(&mut phase, next), if next.is_some() => {
                std::pin::Pin::new(&mut connection).graceful_shutdown();
                next = enter(next, &tell_gone);
            }
        }
    }
}

/// Resolves when what is told turns true, if anything is.
async fn is_true(told: &mut Option<watch::Receiver<bool>>) {
    match told {
        Some(told) => is(told, true).await,
        None => std::future::pending().await,
    }
}

/// Resolves when the value is this, and never when its owner forgot it.
async fn is<T: PartialEq>(value: &mut watch::Receiver<T>, wanted: T) {
    if value.wait_for(|value| *value == wanted).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Resolves when the phase is this one or a later one.
async fn reaches(phase: &mut watch::Receiver<Phase>, wanted: Option<Phase>) {
    if phase.wait_for(|phase| Some(*phase) >= wanted).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Enters a phase of the end; the one after it. Streams end with the last: they would outlast any shutdown.
fn enter(phase: Option<Phase>, tell_gone: &watch::Sender<bool>) -> Option<Phase> {
    if phase == Some(Phase::Closing) {
        return Some(Phase::Draining);
    }
    tell_gone.send_replace(true);
    None
}

/// The answer to a request, unless it began when none was taken any more.
async fn admitted<E>(begun_at: Phase, answer: impl Future<Output = Result<Response, E>>) -> Result<Response, E> {
    match begun_at {
        Phase::Serving => answer.await,
        Phase::Closing | Phase::Draining => Ok(closing()),
    }
}

/// The answer to a request that comes when none is taken any more: its client was connected before.
fn closing() -> Response {
    let mut response = error::answer(&Error::unavailable("the daemon is shutting down"), None);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .half_close(true)
        .keep_alive(true)
        .title_case_headers(true)
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEAD_TIME)
        .max_buf_size(limits::HEAD)
        .max_headers(limits::HEADER_FIELDS);
    builder
}

/// Whose turn it is on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// A request is awaited.
    Client,
    /// A request that may change something is being heard and obeyed.
    Change,
    /// All that is left of a request is its answer.
    Answer,
}

/// What a request knows of the connection that it came by.
struct Client {
    peer: Arc<Peer>,
    /// Turns true when nobody waits for the answer any more.
    gone: watch::Receiver<bool>,
    turn: Arc<watch::Sender<Turn>>,
    begins: Begins,
}

/// Answers one request; a hijack is put down for the connection task, and this future then never ends.
async fn respond<S: Send + Sync + 'static>(
    frame: Arc<Frame<S>>,
    request: hyper::Request<Incoming>,
    hijacks: mpsc::Sender<Hijack>,
    client: Client,
) -> Result<Response, std::convert::Infallible> {
    let Client { peer, gone, turn, begins } = client;
    let (mut head, body) = request.into_parts();
    let bare = body.is_end_stream();
    begins.head_ended(bare);
    head.extensions.insert(begins.clone());
    let method = head.method.clone();
    turn.send_replace(if method.is_safe() { Turn::Answer } else { Turn::Change });
    match frame.answer(head, body, gone, peer).await {
        Outcome::Response(mut response) => {
            turn.send_replace(Turn::Answer);
            let large = begins.answered(bare);
            fields::arrange(&mut response, &method, sys::clock::System.now());
            if large {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        }
        Outcome::Hijack(hijack) => {
            // The connection task is waiting for exactly this; it drops the future that we are in.
            let _ = hijacks.send(hijack).await;
            std::future::pending().await
        }
    }
}

/// Resolves when there is nobody to answer any more. A client that only may have gone is told of to streams, which then
/// end; what is nearly finished is still delivered.
async fn vanished(socket: &Socket, tell_gone: &watch::Sender<bool>) {
    match socket.peer_closed().await {
        PeerClosed::Fully => {}
        PeerClosed::Half => socket.peer_gone().await,
        PeerClosed::MaybeHalf => {
            tell_gone.send_replace(true);
            std::future::pending::<()>().await;
        }
    }
}
