//! Taking a connection out of HTTP/1: attach, exec start, attach over a websocket, and other protocols by their name.
//!
//! The handler answers with a [`Hijack`]; the connection task stops the protocol, writes the head by itself, waits
//! until the client has taken it (a client that reads the head through a buffer loses payload that shares a segment
//! with it), and hands over the client's own socket together with what was read ahead. Behind TLS or a websocket the
//! continuation gets one end of a socket pair and the connection task copies both ways, half-close included.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::time::Duration;

use hyper::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use crate::limits;
use crate::stream::Socket;
use crate::websocket;

/// The media type of a stream without frames, or with frames for clients that know no better.
pub const RAW_STREAM: &str = "application/vnd.docker.raw-stream";
/// The media type of a stream whose chunks carry an 8-byte head.
pub const MULTIPLEXED_STREAM: &str = "application/vnd.docker.multiplexed-stream";
/// How long the client is looked at without pause: one that waits in `read` takes the head within this time.
const EAGER_LOOK: Duration = Duration::from_micros(200);
/// How often it is looked at after that.
const TAKEN_LOOK: Duration = Duration::from_millis(1);

/// What goes on with the connection: the socket (non-blocking) and the bytes that came with the request.
pub type Continuation = Box<dyn FnOnce(OwnedFd, Vec<u8>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// A connection that is to leave HTTP.
pub struct Hijack {
    /// What the client is told first.
    pub head: Head,
    /// Who takes over.
    pub continuation: Continuation,
}

/// The head of the answer.
pub enum Head {
    /// A raw TCP stream in both directions.
    Raw {
        /// The client asked to upgrade: 101 instead of 200.
        upgraded: bool,
        /// [`RAW_STREAM`] or [`MULTIPLEXED_STREAM`].
        content_type: &'static str,
        /// The common fields, which exec start repeats (the frame fills them in) and attach leaves out.
        fields: Option<HeaderMap>,
    },
    /// A websocket.
    WebSocket(websocket::Accept),
    /// A protocol that the client offered by this name (`h2c`) and both speak from here on (RFC 9110, 7.8).
    Protocol(&'static str),
}

impl Hijack {
    /// A hijack with a continuation given as an async closure.
    pub fn new<F, Fut>(head: Head, continuation: F) -> Hijack
    where
        F: FnOnce(OwnedFd, Vec<u8>) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Hijack { head, continuation: Box::new(|socket, ahead| Box::pin(continuation(socket, ahead))) }
    }
}

impl Head {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Head::WebSocket(accept) => accept.head(),
            Head::Protocol(name) => {
                format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {name}\r\n\r\n")
                    .into_bytes()
            }
            Head::Raw { upgraded, content_type, fields } => {
                let mut head = if *upgraded {
                    format!("HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n")
                } else {
                    format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n")
                }
                .into_bytes();
                for (name, value) in fields.iter().flatten() {
                    head.extend_from_slice(title_case(name.as_str()).as_bytes());
                    head.extend_from_slice(b": ");
                    head.extend_from_slice(value.as_bytes());
                    head.extend_from_slice(b"\r\n");
                }
                head.extend_from_slice(b"\r\n");
                head
            }
        }
    }
}

/// `api-version` → `Api-Version`.
fn title_case(name: &str) -> String {
    let part = |part: &str| part[..1].to_ascii_uppercase() + &part[1..];
    name.split('-').map(|word| if word.is_empty() { String::new() } else { part(word) }).collect::<Vec<_>>().join("-")
}

/// Takes over a connection whose socket is the client's own.
pub async fn take_plain(socket: &Socket, ahead: Vec<u8>, hijack: Hijack) -> io::Result<()> {
    let head = hijack.head.bytes();
    timeout(limits::HIJACK_HEAD_TIME, socket.write_all(&head)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    wait_until_taken(socket).await;
    let descriptor = socket.duplicate()?;
    (hijack.continuation)(descriptor, ahead).await;
    Ok(())
}

/// Takes over a connection that has a layer of its own between socket and payload.
pub async fn take_layered<S>(mut stream: S, socket: &Socket, ahead: Vec<u8>, hijack: Hijack) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let head = hijack.head.bytes();
    timeout(limits::HIJACK_HEAD_TIME, async {
        stream.write_all(&head).await?;
        stream.flush().await
    })
    .await
    .map_err(|_| io::ErrorKind::TimedOut)??;
    wait_until_taken(socket).await;
    let (near, far) = std::os::unix::net::UnixStream::pair()?;
    far.set_nonblocking(true)?;
    near.set_nonblocking(true)?;
    let near = UnixStream::from_std(near)?;
    let far = OwnedFd::from(far);
    match hijack.head {
        Head::WebSocket(accept) => {
            let bridge = websocket::bridge(stream, ahead, near, accept.binary);
            tokio::join!((hijack.continuation)(far, Vec::new()), bridge);
        }
        Head::Raw { .. } | Head::Protocol(_) => {
            let copy = copy_both_ways(stream, near);
            tokio::join!((hijack.continuation)(far, ahead), copy);
        }
    }
    Ok(())
}

/// Copies until both directions have ended; an end in one direction is passed on as half-close.
async fn copy_both_ways<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, mut near: UnixStream) {
    // Errors mean that one side left; the other learns it by the close that follows.
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut near).await;
}

/// Waits (within a bound) until nothing of the head is left in the socket's queue. A TCP queue empties when the peer's
/// kernel acknowledges, which says nothing about the reader; the wait then only separates the segments.
async fn wait_until_taken(socket: &Socket) {
    let start = Instant::now();
    loop {
        match (sys::fdpass::unsent(socket.as_fd()), start.elapsed()) {
            (Ok(0) | Err(_), _) => return,
            (_, waited) if waited >= limits::HIJACK_TAKEN_TIME => return,
            (_, waited) if waited < EAGER_LOOK => tokio::task::yield_now().await,
            _ => sleep(TAKEN_LOOK).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{HeaderName, HeaderValue};

    /// `attach non-tty upgrade header` and `exec start (no upgrade)` of the recorded answers.
    #[test]
    fn heads_are_the_references() {
        let attach = Head::Raw { upgraded: true, content_type: MULTIPLEXED_STREAM, fields: None };
        assert_eq!(
            attach.bytes(),
            b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        );
        let mut fields = HeaderMap::new();
        fields.insert(HeaderName::from_static("api-version"), HeaderValue::from_static("1.45"));
        fields.insert(HeaderName::from_static("docker-experimental"), HeaderValue::from_static("false"));
        fields.insert(HeaderName::from_static("ostype"), HeaderValue::from_static("linux"));
        let exec = Head::Raw { upgraded: false, content_type: RAW_STREAM, fields: Some(fields) };
        assert_eq!(
            exec.bytes(),
            b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\nApi-Version: 1.45\r\nDocker-Experimental: false\r\nOstype: linux\r\n\r\n"
        );
    }
}
