//! HTTP/2 by prior knowledge (RFC 9113, 3.3) on the API's listeners: calls of gRPC, each asked about as any request is.
//!
//! What a connection speaks is told by its first bytes. Requests of the API itself are answered over HTTP/1.1 only: an attach
//! takes its connection over, and a download that stands still is cut with its connection.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::calls::Calls;
use crate::frame::Frame;
use crate::limits;
use crate::peer::Peer;
use crate::phase::Phase;
use crate::policy::{self, Asked};
use crate::response::{self, Response};
use crate::routes::Outcome;

/// How a client of HTTP/2 begins (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The media type of a call, before what says how its messages are encoded.
const GRPC: &[u8] = b"application/grpc";
/// What policies are told as the route of every call; the path names the call.
const ROUTE: &str = "/grpc";
/// What a request is told that is no call.
const ONLY_CALLS: &str = "over HTTP/2 only calls of gRPC are served: send requests of the API over HTTP/1.1";

/// What a client speaks, with the bytes by which it is known.
#[derive(Debug, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/1, or nothing.
    Http1(Vec<u8>),
    /// HTTP/2.
    Http2(Vec<u8>),
}

/// Finds out what a client speaks: its first byte tells nearly always. One that says nothing while no request is taken any more
/// is taken for one of HTTP/1.
///
/// Errors: the connection's, and `TimedOut` for one that says nothing for as long as it may between two requests.
pub async fn spoken<T: AsyncRead + Unpin>(stream: &mut T, phase: &watch::Receiver<Phase>) -> io::Result<Spoken> {
    let mut phase = phase.clone();
    let mut ahead = Vec::with_capacity(PREFACE.len());
    loop {
        let mut left = [0; PREFACE.len()];
        let room = PREFACE.len() - ahead.len();
        let read = tokio::select! {
            read = timeout(limits::HEAD_TIME, stream.read(&mut left[..room])) => read.map_err(|_| io::ErrorKind::TimedOut)??,
            closing = phase.wait_for(|phase| *phase >= Phase::Closing) => {
                drop(closing);
                0
            }
        };
        ahead.extend_from_slice(&left[..read]);
        if read == 0 || !PREFACE.starts_with(&ahead) {
            return Ok(Spoken::Http1(ahead));
        }
        if ahead.len() == PREFACE.len() {
            return Ok(Spoken::Http2(ahead));
        }
    }
}

/// Serves a client.
pub struct Server<S: 'static> {
    /// What all connections share.
    pub frame: Arc<Frame<S>>,
    /// Who answers.
    pub calls: Arc<dyn Calls>,
    /// Who asks.
    pub peer: Arc<Peer>,
}

impl<S: Send + Sync + 'static> Server<S> {
    /// Serves its connection, of which `ahead` was read, until it leaves or no request is taken any more.
    pub async fn serve(
        self,
        (ahead, stream): (Vec<u8>, impl AsyncRead + AsyncWrite + Send + Unpin + 'static),
        mut phase: watch::Receiver<Phase>,
    ) {
        let Server { frame, calls, peer } = self;
        let answer = move |request: Request<Incoming>| {
            let (frame, calls, peer) = (frame.clone(), calls.clone(), peer.clone());
            async move { Ok::<_, Infallible>(answer(&frame, &*calls, (peer, request)).await) }
        };
        let closing = async move { drop(phase.wait_for(|phase| *phase >= Phase::Closing).await) };
        buildkit::connection(answer, (ahead, stream), closing).await;
    }
}

/// Answers one request between the policies. A client that leaves ends its call.
async fn answer<S: Send + Sync + 'static>(
    frame: &Frame<S>,
    calls: &dyn Calls,
    (peer, request): (Arc<Peer>, Request<Incoming>),
) -> Response {
    let is_call = request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(GRPC));
    if !is_call || request.method() != Method::POST {
        let message = ONLY_CALLS.to_owned();
        return response::json(StatusCode::HTTP_VERSION_NOT_SUPPORTED, &api::ErrorResponse { message });
    }
    let asked = Asked {
        peer,
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        route: ROUTE,
        version: frame.newest(),
        begun: Instant::now(),
    };
    // A call that is refused is not even begun.
    let running = async { Ok(Outcome::Response(calls.answer(request).await)) };
    match policy::enforce(frame.policies(), asked, running).await {
        Ok(Outcome::Response(answer)) => answer,
        Ok(Outcome::Hijack(_)) => response::empty(StatusCode::INTERNAL_SERVER_ERROR),
        Err(error) => calls.refused(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(pieces: &[&[u8]]) -> Spoken {
        let mut stream = stream_of(pieces);
        let (_phase, seen) = watch::channel(Phase::Serving);
        spoken(&mut stream, &seen).await.expect("a stream without errors")
    }

    /// A stream that gives its pieces one by one.
    fn stream_of(pieces: &[&[u8]]) -> impl AsyncRead + Unpin + use<> {
        let (mut near, far) = tokio::io::duplex(1);
        let all = pieces.concat();
        tokio::spawn(async move { tokio::io::AsyncWriteExt::write_all(&mut near, &all).await });
        far
    }

    #[tokio::test]
    async fn the_preface_tells_http2() {
        assert_eq!(told(&[PREFACE, b"more"]).await, Spoken::Http2(PREFACE.to_vec()));
        assert_eq!(told(&[b"GET / HTTP/1.1\r\n"]).await, Spoken::Http1(b"G".to_vec()));
        assert_eq!(told(&[b"PRI * HTTP/1.1\r\n"]).await, Spoken::Http1(b"PRI * HTTP/1".to_vec()));
        assert_eq!(told(&[b"PR"]).await, Spoken::Http1(b"PR".to_vec()));
        assert_eq!(told(&[]).await, Spoken::Http1(Vec::new()));
    }

    #[tokio::test]
    async fn one_that_says_nothing_is_let_go_at_the_end() {
        let (_silent, mut stream) = tokio::io::duplex(1);
        let (_phase, seen) = watch::channel(Phase::Closing);
        assert_eq!(spoken(&mut stream, &seen).await.expect("no error"), Spoken::Http1(Vec::new()));
    }
}
