//! Clients of gRPC over any stream: the daemon's socket, or the standard streams of a front end.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tonic::codegen::{Service, http};

/// Where calls go. Clones are the same connection.
#[derive(Clone)]
pub struct Channel(SendRequest<Body>);

impl Channel {
    /// Greets the server at the other end; calls need the runtime that this runs in.
    ///
    /// # Panics
    /// When it does not answer as a server of HTTP/2.
    pub async fn over(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let (sender, connection) =
            Builder::new(TokioExecutor::new()).handshake(TokioIo::new(io)).await.expect("a server of HTTP/2");
        tokio::spawn(connection);
        Self(sender)
    }

    /// The same over a unix socket.
    ///
    /// # Panics
    /// When nobody listens there.
    pub async fn unix(path: &std::path::Path) -> Self {
        Self::over(tokio::net::UnixStream::connect(path).await.expect("the daemon listens")).await
    }

    /// What HTTP/2 wants of an address.
    #[must_use]
    pub fn origin() -> http::Uri {
        http::Uri::from_static("http://localhost")
    }
}

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
