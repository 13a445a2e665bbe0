//! Front ends in images (`gateway.v0`): one runs as a container and calls LLBBridge over its standard streams.
//!
//! It has results of its own build only ([`Scope`]); what it asks for is solved as its client's would be. It ends with the build,
//! and when it has not called for long while it waits for nothing.

use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::health::health_server::HealthServer;
use build::frontend::container::{self, Program, Ready};
use build::job::{Answer, Attributes};
use build::result::Failure;
use hyper::body::Incoming;
use model::platform::Platform;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tonic::codegen::Service;
use tonic::codegen::http::Request;
use tonic::{Code, Status};

use crate::bridge::Bridge;
use crate::build::Build;
use crate::connection::connection;
use crate::error::Failed;
use crate::health::Alive;
use crate::outcome::{Frontend, Outcome};
use crate::scope::{Returned, Scope};
use crate::worker;

/// Front ends that ask for one another.
const DEPTH: usize = 8;
/// How long one may do without a call.
const SILENCE: Duration = Duration::from_secs(300);
/// How long one may go on that has returned its result, or that does not speak any more.
const LEAVE: Duration = Duration::from_secs(30);
/// Bytes between it and the daemon, in each direction.
const BUFFER: usize = 256 << 10;
/// What it is to be able to do when it is given definitions.
const INPUTS: &str = "moby.buildkit.frontend.inputs";

/// Runs the front end that the attribute `source` names; what it has returned.
pub(crate) fn run(build: &Arc<Build>, request: Frontend) -> Answer<'_, Result<Outcome, Failed>> {
    Box::pin(begin(build, request))
}

async fn begin(build: &Arc<Build>, request: Frontend) -> Result<Outcome, Failed> {
    let attributes: Attributes = request.attributes.into_iter().collect();
    if attributes.contains_key("gateway-devel") {
        return Err(Failed::new("development gateway is no longer supported"));
    }
    let image = attributes.get("source").ok_or_else(|| Failed::new("no source specified for gateway"))?;
    if request.depth >= DEPTH {
        return Err(Failed::new(format!(
            "more than {DEPTH} front ends that ask for one another, the last one {image}"
        )));
    }
    let platform = build.daemon.platforms().into_iter().next().unwrap_or_else(|| Platform::new("linux", "amd64", ""));
    let workers = worker::json(&*build.daemon);
    let session = build.account.request.session.as_str();
    let program = Program { image, attributes: &attributes, session, workers: &workers, platform };
    let ready = container::prepare(&build.job, &program).await.map_err(|failure| build.failed(failure, &[]))?;
    let asked = attributes.get("frontend.caps").map(String::as_str).unwrap_or_default();
    let inputs = (!request.inputs.is_empty()).then_some(INPUTS);
    if let Some(missing) = ready.lacks(container::capabilities(asked).chain(inputs)) {
        return Err(Failed::unsupported(format!("unsupported frontend capability {missing}")));
    }
    let (scope, returned) = Scope::new(request.inputs, request.depth + 1);
    Talk { build, scope, returned }.run(ready).await
}

/// One front end that runs.
struct Talk<'t> {
    build: &'t Arc<Build>,
    scope: Arc<Scope>,
    returned: Returned,
}

/// Why a front end was ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// It was not.
    Not,
    /// It has not called for long.
    Silent,
    /// It has returned a result, or closed its streams, and went on.
    Late,
}

impl Talk<'_> {
    async fn run(mut self, ready: Ready) -> Result<Outcome, Failed> {
        let name = ready.name().to_owned();
        let (near, far) = tokio::io::duplex(BUFFER);
        let (job, cancel) = (&self.build.job, self.build.job.cancel.part());
        let (tell_done, done) = tokio::sync::oneshot::channel::<()>();
        let bridge = Bridge::Program(self.build.clone(), self.scope.clone());
        let mut serving = tokio::spawn(front_end(bridge, far, async { drop(done.await) }));
        let mut running = std::pin::pin!(ready.run(job, Box::new(near), cancel.clone()));
        let (mut outcome, mut why, mut last, mut is_served) = (None, Ended::Not, None, true);
        let ended = loop {
            let late = async {
                match last {
                    Some(at) if why == Ended::Not => tokio::time::sleep_until(at).await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = &mut running => break ended,
                told = &mut self.returned, if outcome.is_none() => {
                    outcome = told.ok();
                    last = Some(Instant::now() + LEAVE);
                }
                _ = &mut serving, if is_served => {
                    is_served = false;
                    last.get_or_insert(Instant::now() + LEAVE);
                }
                () = late => {
                    why = Ended::Late;
                    cancel.cancel();
                }
                () = self.scope.silent(SILENCE), if outcome.is_none() && why == Ended::Not => {
                    why = Ended::Silent;
                    cancel.cancel();
                }
            }
        };
        drop(tell_done);
        self.scope.containers.release_all();
        if is_served {
            // A task that fails has answered nothing.
            drop(serving.await);
        }
        let outcome = outcome.or_else(|| self.returned.try_recv().ok());
        let judged = self.judge((name, why), outcome, ended);
        if judged.is_err() && self.scope.is_open() {
            // Nobody waits any more for what it has asked for.
            self.build.job.cancel.cancel();
        }
        self.scope.answered().await;
        judged
    }

    /// What the front end ends with: its own error comes before that of its end, and this before its result.
    fn judge(
        &self,
        (name, why): (String, Ended),
        outcome: Option<Result<Outcome, Failed>>,
        ended: Result<(), Failure>,
    ) -> Result<Outcome, Failed> {
        if self.build.job.cancel.is_cancelled() {
            return Err(Failed::cancelled());
        }
        match (outcome, why, ended) {
            (Some(Err(failed)), ..) => Err(failed),
            (Some(Ok(outcome)), Ended::Late, _) | (Some(Ok(outcome)), _, Ok(())) => Ok(outcome),
            (None, Ended::Silent, _) => {
                Err(Failed::new(format!("frontend {name} has called nothing for {} seconds", SILENCE.as_secs())))
            }
            (None, Ended::Late, _) => Err(Failed::new("frontend grpc server closed unexpectedly")),
            (_, _, Err(failure)) => Err(self.build.failed(failure, &[])),
            (None, _, Ok(())) => Err(Failed::new("no result for incomplete build")),
        }
    }
}

/// Serves the calls of a front end in a container until it leaves or `done` resolves: it has its build, and nothing else.
async fn front_end(
    of: Bridge,
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    done: impl Future<Output = ()>,
) {
    let (bridge, health) = (of.server(), HealthServer::new(Alive));
    let answer = move |request: Request<Incoming>| {
        let (mut bridge, mut health) = (bridge.clone(), health.clone());
        async move {
            let path = request.uri().path();
            match path.strip_prefix('/').and_then(|path| path.split('/').next()).unwrap_or_default() {
                "grpc.health.v1.Health" => health.call(request).await,
                "moby.buildkit.v1.frontend.LLBBridge" => bridge.call(request).await,
                other => Ok(Status::new(Code::Unimplemented, format!("unknown service {other}")).into_http()),
            }
        }
    };
    connection(answer, (Vec::new(), io), done).await;
}
