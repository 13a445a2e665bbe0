//! BuildKit's API: each call goes to the service that it names.

use std::convert::Infallible;
use std::sync::Arc;

use bollard_buildkit_proto::health::health_server::HealthServer;
use bollard_buildkit_proto::moby::buildkit::v1::control_server::ControlServer;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridgeServer;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::{Code, Status};

use crate::bridge::Bridge;
use crate::builds::Builds;
use crate::connection::{MESSAGE, connection};
use crate::content::service::{self as content, Content};
use crate::control::Controller;
use crate::daemon::Daemon;
use crate::health::Alive;
use crate::session::Sessions;
use crate::traces;
use crate::uploads::Uploads;

/// BuildKit's API around a daemon.
#[derive(Clone)]
pub struct Buildkit {
    /// What its clients offer.
    pub sessions: Sessions,
    /// Contexts that come with requests of their own.
    pub uploads: Uploads,
    pub(crate) controller: Controller,
    control: ControlServer<Controller>,
    bridge: LlbBridgeServer<Bridge>,
    health: HealthServer<Alive>,
}

impl Buildkit {
    /// Around a daemon.
    pub fn new(daemon: Arc<dyn Daemon>) -> Buildkit {
        let (sessions, builds) = (Sessions::default(), Builds::of_past(&daemon.builder().history));
        let controller = Controller { daemon, sessions: sessions.clone(), builds: builds.clone() };
        Buildkit {
            sessions,
            uploads: Uploads::default(),
            controller: controller.clone(),
            control: ControlServer::new(controller)
                .max_decoding_message_size(MESSAGE)
                .max_encoding_message_size(MESSAGE),
            bridge: Bridge::Client(builds).server(),
            health: HealthServer::new(Alive),
        }
    }

    /// Answers one call.
    pub async fn answer(self, request: Request<Incoming>) -> Response<Body> {
        let Buildkit { mut control, mut bridge, mut health, controller, .. } = self;
        let path = request.uri().path().trim_start_matches('/').to_owned();
        let (service, method) = path.split_once('/').unwrap_or((&path, ""));
        let answer: Result<_, Infallible> = match service {
            "moby.buildkit.v1.Control" => control.call(request).await,
            "moby.buildkit.v1.frontend.LLBBridge" => bridge.call(request).await,
            "grpc.health.v1.Health" => health.call(request).await,
            traces::SERVICE => Ok(traces::call(method, request).await),
            content::SERVICE => Ok(Content(controller.daemon.builder().clone()).call(method, request).await),
            _ => Ok(Status::new(Code::Unimplemented, format!("unknown service {service}")).into_http()),
        };
        answer.unwrap_or_else(|never| match never {})
    }
}

/// The answer to a call that is not begun.
pub fn refused(error: &model::Error) -> Response<Body> {
    crate::error::status(error).into_http()
}

/// Serves a [`connection`] with the API.
pub async fn serve(
    api: Buildkit,
    connection_of: (Vec<u8>, impl AsyncRead + AsyncWrite + Send + Unpin + 'static),
    done: impl Future<Output = ()>,
) {
    let answer = move |request| {
        let api = api.clone();
        async move { Ok::<_, Infallible>(api.answer(request).await) }
    };
    connection(answer, connection_of, done).await;
}
