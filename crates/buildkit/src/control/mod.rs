//! The service `Control`: builds, what they tell, the cache, sessions, and the builds of the past.

mod filter;
mod history;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::control_server::Control;
use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryEvent, BuildHistoryRequest, BytesMessage, DiskUsageRequest, DiskUsageResponse, InfoRequest,
    InfoResponse, ListWorkersRequest, ListWorkersResponse, PruneRequest, SolveRequest, SolveResponse, StatusRequest,
    StatusResponse, UpdateBuildHistoryRequest, UpdateBuildHistoryResponse, UsageRecord,
};
use build::cancel::Cancel;
use build::{export, job};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::answers::{Messages, answers};
use crate::build::Build;
use crate::builds::Builds;
use crate::daemon::Daemon;
use crate::error::{Failed, status};
use crate::inputs::bytes::{self, Queue};
use crate::inputs::{Body, ClientInputs};
use crate::progress::Progress;
use crate::scope::Returned;
use crate::session::{Offer, Sessions};
use crate::{exports, gateway, worker};

/// How long a build is waited for whose progress is asked before it has begun.
const ARRIVAL: Duration = Duration::from_secs(6);

/// See the module.
#[derive(Clone)]
pub(crate) struct Controller {
    pub(crate) daemon: Arc<dyn Daemon>,
    pub(crate) sessions: Sessions,
    pub(crate) builds: Builds,
}

/// Ends a build whose client has left.
pub(crate) struct Watch(pub(crate) Option<Cancel>);

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(cancel) = &self.0 {
            cancel.cancel();
        }
    }
}

/// A build, what its client will return, and what it tells.
type Begun = (Arc<Build>, Returned, mpsc::Receiver<job::Event>);

impl Controller {
    /// Begins a build; it is found from now on. `body`: a context that came with its request.
    pub(crate) fn begin(&self, request: SolveRequest, body: Option<Body>) -> Result<Begun, Status> {
        let progress = Arc::new(Progress::default());
        let inputs = Arc::new(ClientInputs::new(&self.sessions, &request.session, &progress).with_body(body));
        let (events, received) = mpsc::channel(job::EVENTS);
        let job = self.daemon.job(inputs.clone(), events);
        let begun = Build::new(request, self.daemon.clone(), job, inputs, gateway::run);
        // What a request cannot have BuildKit tells without a kind.
        let (build, returned) = begun.map_err(|error| match error.kind() {
            model::Kind::NotFound | model::Kind::InvalidParameter | model::Kind::Forbidden => {
                Status::unknown(error.message())
            }
            _ => status(&error),
        })?;
        self.builds.enter(&build).map_err(|error| match error.kind() {
            // The kind that BuildKit gives it.
            model::Kind::Conflict => Status::unknown(error.message()),
            _ => status(&error),
        })?;
        Ok((build, returned, received))
    }

    /// Goes on with a build to its end.
    pub(crate) async fn finish(
        self,
        build: Arc<Build>,
        returned: Returned,
        mut events: mpsc::Receiver<job::Event>,
    ) -> Result<export::Response, Failed> {
        let noted = self.daemon.builder().going.note(build.id(), &build.job.cancel);
        let outcome = {
            let mut work = std::pin::pin!(exports::run(&build, returned));
            loop {
                tokio::select! {
                    outcome = &mut work => break outcome,
                    Some(event) = events.recv() => build.account.progress.event(event),
                }
            }
        };
        // What runs besides has nobody any more.
        build.job.cancel.cancel();
        while let Ok(event) = events.try_recv() {
            build.account.progress.event(event);
        }
        build.account.progress.end();
        events.close();
        // It is set once, here.
        drop(build.account.ended.set((events::now(), outcome.clone())));
        let forgotten = self.builds.leave(&build);
        for id in forgotten.iter().map(String::as_str).chain([build.id()]) {
            self.builds.settle(self.daemon.builder(), id).await;
        }
        let job = build.job.clone();
        // What it holds goes with the job.
        drop(build);
        self.daemon.end(job).await;
        drop(noted);
        outcome
    }
}

#[tonic::async_trait]
impl Control for Controller {
    async fn disk_usage(&self, request: Request<DiskUsageRequest>) -> Result<Response<DiskUsageResponse>, Status> {
        let record = usage::list(self.daemon.builder(), &request.into_inner()).map_err(|error| status(&error))?;
        Ok(Response::new(DiskUsageResponse { record }))
    }

    type PruneStream = Messages<UsageRecord>;

    async fn prune(&self, request: Request<PruneRequest>) -> Result<Response<Self::PruneStream>, Status> {
        let gone = usage::prune(self.daemon.builder(), request.into_inner()).await.map_err(|error| status(&error))?;
        let (sender, stream) = answers();
        tokio::spawn(async move {
            for record in gone {
                if sender.send(Ok(record)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(stream))
    }

    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        let (build, returned, events) = self.begin(request.into_inner(), None)?;
        let mut watch = Watch(Some(build.job.cancel.clone()));
        let going = tokio::spawn(self.clone().finish(build, returned, events));
        let outcome = going.await.map_err(|_| Status::internal("internal error: a build failed"))?;
        watch.0 = None;
        Ok(Response::new(SolveResponse { exporter_response: outcome?.into_iter().collect() }))
    }

    type StatusStream = Messages<StatusResponse>;

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<Self::StatusStream>, Status> {
        let id = request.into_inner().r#ref;
        let build = self.builds.any(&id, ARRIVAL).await.map_err(|error| status(&error))?;
        let (sender, stream) = answers();
        let progress = build.progress.clone();
        tokio::spawn(async move {
            let mut seen = 0;
            loop {
                let some = tokio::select! {
                    some = progress.after(seen) => some,
                    () = sender.closed() => return,
                };
                let Some(some) = some else { return };
                seen += some.len();
                for message in some {
                    if sender.send(Ok(StatusResponse::clone(&message))).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(timed(Response::new(stream)))
    }

    type SessionStream = Messages<BytesMessage>;

    async fn session(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let offer = offer(request.metadata());
        self.sessions.check(&offer).map_err(|error| Status::unknown(error.message()))?;
        let incoming = bytes::incoming(request.into_inner(), |message| message.data);
        let (outgoing, Queue(mut pieces)) = bytes::outgoing(|data| BytesMessage { data });
        let (sender, stream) = answers();
        tokio::spawn(async move {
            while let Some(piece) = pieces.recv().await {
                if sender.send(Ok(piece)).await.is_err() {
                    return;
                }
            }
        });
        let io: Box<dyn Both> = Box::new(tokio::io::join(incoming, outgoing));
        let sessions = self.sessions.clone();
        tokio::spawn(async move {
            if let Err(error) = sessions.serve(offer, (Vec::new(), io)).await {
                tracing::debug!(%error, "a session ended");
            }
        });
        Ok(Response::new(stream))
    }

    async fn list_workers(&self, _: Request<ListWorkersRequest>) -> Result<Response<ListWorkersResponse>, Status> {
        Ok(Response::new(ListWorkersResponse { record: vec![worker::record(&*self.daemon)] }))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse { buildkit_version: Some(worker::version()) }))
    }

    type ListenBuildHistoryStream = Messages<BuildHistoryEvent>;

    async fn listen_build_history(
        &self,
        request: Request<BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        let stream = history::listen(&self.builds, request.into_inner()).map_err(|error| status(&error))?;
        Ok(timed(Response::new(stream)))
    }

    async fn update_build_history(
        &self,
        request: Request<UpdateBuildHistoryRequest>,
    ) -> Result<Response<UpdateBuildHistoryResponse>, Status> {
        let updated = history::update(&self.builds, self.daemon.builder(), &request.into_inner()).await;
        updated.map_err(|error| status(&error))?;
        Ok(Response::new(UpdateBuildHistoryResponse {}))
    }
}

/// Both directions of a session.
trait Both: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Both for T {}

/// The daemon's time, by which clients show how long steps take.
fn timed<T>(mut response: Response<T>) -> Response<T> {
    if let Ok(now) = events::now().rfc3339_nano().parse() {
        response.metadata_mut().insert("buildkit-current-timestamp", now);
    }
    response
}

/// What a client says of its session, in the names of the upgrade of HTTP in lower case.
fn offer(fields: &MetadataMap) -> Offer {
    let text = |name: &str| fields.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let methods = fields.get_all("x-docker-expose-session-grpc-method");
    Offer {
        id: text("x-docker-expose-session-uuid"),
        name: text("x-docker-expose-session-name"),
        shared_key: text("x-docker-expose-session-sharedkey"),
        methods: methods.iter().filter_map(|value| Some(value.to_str().ok()?.to_owned())).collect(),
    }
}
