//! A connection that speaks HTTP/2: calls of gRPC on it, each to the service that it names.

use std::convert::Infallible;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::health::health_server::{Health, HealthServer};
use bollard_buildkit_proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse, health_check_response,
};
use bollard_buildkit_proto::moby::buildkit::v1::control_server::ControlServer;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridgeServer;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::{Code, Status};

use crate::ahead::Ahead;
use crate::answers::answers;
use crate::bridge::Bridge;
use crate::builds::Builds;
use crate::control::Controller;
use crate::daemon::Daemon;
use crate::session::Sessions;

/// Bytes of a message.
const MESSAGE: usize = 16 << 20;
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
/// Where clients send what they have measured.
const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/";

/// BuildKit's API around a daemon.
#[derive(Clone)]
pub struct Buildkit {
    /// What its clients offer.
    pub sessions: Sessions,
    pub(crate) controller: Controller,
    control: ControlServer<Controller>,
    bridge: LlbBridgeServer<Bridge>,
    health: HealthServer<Alive>,
}

impl Buildkit {
    /// Around a daemon.
    pub fn new(daemon: Arc<dyn Daemon>) -> Buildkit {
        let (sessions, builds) = (Sessions::default(), Builds::default());
        let controller = Controller { daemon, sessions: sessions.clone(), builds: builds.clone() };
        Buildkit {
            sessions,
            controller: controller.clone(),
            control: ControlServer::new(controller)
                .max_decoding_message_size(MESSAGE)
                .max_encoding_message_size(MESSAGE),
            bridge: LlbBridgeServer::new(Bridge { builds })
                .max_decoding_message_size(MESSAGE)
                .max_encoding_message_size(2 * MESSAGE),
            health: HealthServer::new(Alive),
        }
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let Buildkit { mut control, mut bridge, mut health, .. } = self;
        let path = request.uri().path();
        let service = path.strip_prefix('/').and_then(|path| path.split('/').next()).unwrap_or_default();
        match service {
            "moby.buildkit.v1.Control" => control.call(request).await,
            "moby.buildkit.v1.frontend.LLBBridge" => bridge.call(request).await,
            "grpc.health.v1.Health" => health.call(request).await,
            _ if path.starts_with(TRACES) => Ok(Status::unavailable("trace collector not configured").into_http()),
            _ => Ok(Status::new(Code::Unimplemented, format!("unknown service {service}")).into_http()),
        }
    }
}

/// Serves a connection until its client leaves, or `done` resolves: calls that go on are answered then, and no others taken.
///
/// `ahead`: what was read of the connection already.
pub async fn serve(
    api: Buildkit,
    (ahead, io): (Vec<u8>, impl AsyncRead + AsyncWrite + Send + Unpin + 'static),
    done: impl Future<Output = ()>,
) {
    let service = service_fn(move |request| api.clone().answer(request));
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
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(Ahead { ahead, io }), service));
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

/// A daemon that answers is well.
struct Alive;

fn serving() -> HealthCheckResponse {
    HealthCheckResponse { status: health_check_response::ServingStatus::Serving.into() }
}

#[tonic::async_trait]
impl Health for Alive {
    async fn check(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        Ok(tonic::Response::new(serving()))
    }

    async fn list(&self, _: tonic::Request<HealthListRequest>) -> Result<tonic::Response<HealthListResponse>, Status> {
        let statuses = [(String::new(), serving())].into();
        Ok(tonic::Response::new(HealthListResponse { statuses }))
    }

    type WatchStream =
        Pin<Box<dyn tonic::codegen::tokio_stream::Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, _: tonic::Request<HealthCheckRequest>) -> Result<tonic::Response<Self::WatchStream>, Status> {
        let (sender, stream) = answers();
        tokio::spawn(async move {
            // It stays so until the daemon is gone.
            if sender.send(Ok(serving())).await.is_ok() {
                sender.closed().await;
            }
        });
        Ok(tonic::Response::new(stream))
    }
}
