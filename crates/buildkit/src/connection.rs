//! A connection that speaks HTTP/2, with bounds for what its client may do.

use std::convert::Infallible;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::codegen::http::{Request, Response};

use crate::ahead::Ahead;

/// Bytes of a message.
pub(crate) const MESSAGE: usize = 16 << 20;
/// Calls on one connection at one time.
const CALLS: u32 = 250;
/// Calls that a client has given up before they were begun, and those that were refused: more of them end its connection.
const RESETS: usize = 20;
const REFUSED: usize = 1024;
/// Bytes of the fields of a call.
const FIELDS: u32 = 256 << 10;
/// Bytes on their way to the daemon, of one call and of all on a connection.
const CALL_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Bytes on their way to the client that wait, of one call.
const SENT: usize = 1 << 20;
/// How often a client is asked whether it is there, and how long it may take to answer.
const PING: Duration = Duration::from_secs(60);
const PONG: Duration = Duration::from_secs(30);
/// How long calls may go on when the daemon ends.
const END: Duration = Duration::from_secs(5);

/// Serves a connection until its client leaves, or `done` resolves: calls that go on are answered then, and no others taken.
///
/// `ahead`: what was read of the connection already.
pub async fn connection<F, B>(
    answer: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    (ahead, io): (Vec<u8>, impl AsyncRead + AsyncWrite + Send + Unpin + 'static),
    done: impl Future<Output = ()>,
) where
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: hyper::body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(CALLS)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(REFUSED)
        .max_header_list_size(FIELDS)
        .max_send_buf_size(SENT)
        .initial_stream_window_size(CALL_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG);
    let io = TokioIo::new(Ahead { ahead, io });
    let mut connection = std::pin::pin!(builder.serve_connection(io, service_fn(answer)));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = done => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(END, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of a build client ended");
    }
}
