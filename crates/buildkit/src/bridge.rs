//! The service `LLBBridge`: what front ends use of a build.
//!
//! A client names the build of each call in its metadata; a front end in a container has one build.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::VertexWarning;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::{LlbBridge, LlbBridgeServer};
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    self as wire, EvaluateRequest, EvaluateResponse, ExecMessage, InputsRequest, InputsResponse, NewContainerRequest,
    NewContainerResponse, PingRequest, PongResponse, ReadDirRequest, ReadDirResponse, ReadFileRequest,
    ReadFileResponse, Ref, RefMap, ReleaseContainerRequest, ReleaseContainerResponse, ResolveImageConfigRequest,
    ResolveImageConfigResponse, ResolveSourceImageResponse, ResolveSourceMetaRequest, ResolveSourceMetaResponse,
    ReturnRequest, ReturnResponse, SolveRequest, SolveResponse, StatFileRequest, StatFileResponse, WarnRequest,
    WarnResponse, result,
};
use bollard_buildkit_proto::pb;
use build::sources::rules::Rules;
use dockerfile::{ImageAnswer, ImageQuestion};
use model::platform::Platform;
use model::{Error, Result};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::answers::Messages;
use crate::build::Build;
use crate::builds::Builds;
use crate::connection::MESSAGE;
use crate::error::{Failed, status};
use crate::outcome::{Definitions, Frontend, Outcome};
use crate::scope::{Open, Scope};
use crate::{files, processes, worker};

/// The field that names the build.
const BUILD: &str = "buildkit-controlapi-buildid";
/// How long a build is waited for that has not begun.
const ARRIVAL: Duration = Duration::from_secs(3);
/// Bytes of a file that are sent at one time.
const FILE: u64 = 16 << 20;
/// In front of references to images.
const IMAGE: &str = "docker-image://";

/// See the module.
#[derive(Clone)]
pub(crate) enum Bridge {
    /// Clients that drive their builds.
    Client(Builds),
    /// A front end in a container.
    Program(Arc<Build>, Arc<Scope>),
}

/// Whose call is being answered.
struct Caller {
    build: Arc<Build>,
    scope: Arc<Scope>,
    _open: Open,
}

impl Bridge {
    /// The service.
    pub(crate) fn server(self) -> LlbBridgeServer<Bridge> {
        LlbBridgeServer::new(self).max_decoding_message_size(MESSAGE).max_encoding_message_size(2 * MESSAGE)
    }

    async fn caller(&self, fields: &MetadataMap) -> Result<Caller, Status> {
        let (build, scope) = match self {
            Bridge::Program(build, scope) => (build.clone(), scope.clone()),
            Bridge::Client(builds) => {
                let missing = || Status::invalid_argument("no buildid found in context");
                let id = fields.get(BUILD).and_then(|value| value.to_str().ok()).ok_or_else(missing)?;
                builds.driven(id, ARRIVAL).await.map_err(|error| status(&error))?
            }
        };
        let _open = scope.call();
        Ok(Caller { build, scope, _open })
    }
}

impl Caller {
    /// The files of a result that the caller was given.
    async fn files(&self, id: &str) -> Result<build::record::Chain, Status> {
        let definition = self.scope.kept(id).map_err(|error| status(&error))?.unwrap_or_default();
        let (build, open) = (self.build.clone(), self.scope.call());
        carried(async move {
            let solved = build.job.solve_definition(&definition).await;
            let files = solved.map_err(|failure| build.failed(failure, &[&definition]))?;
            drop(open);
            Ok(files.map(|files| files.chain()).unwrap_or_default())
        })
        .await
    }

    /// What a front end makes of a request, with ids for its results.
    async fn solved(self, frontend: Frontend, evaluates: bool) -> Result<wire::Result, Status> {
        let build = &self.build;
        let outcome = build.frontend(frontend).await?;
        if evaluates {
            let definitions: Vec<&pb::Definition> = match &outcome.files {
                Definitions::One(one) => one.iter().collect(),
                Definitions::Many(many) => many.values().flatten().collect(),
            };
            let solved = build::frontend::targets(&build.job, &definitions).await;
            solved.map_err(|failure| build.failed(failure, &definitions))?;
        }
        numbered(&self.scope, outcome).map_err(|error| status(&error))
    }

    async fn image(&self, question: &ImageQuestion) -> Result<ImageAnswer, Status> {
        let found = build::sources::configuration(&self.build.job, question).await;
        found.map_err(|error| Failed::new(error.message()).into())
    }
}

/// Work of a call, in a task of its own: when its caller leaves, what runs for it is ended by the build, not forgotten.
async fn carried<T: Send + 'static>(
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    tokio::spawn(work).await.map_err(|_| Status::internal("internal error: a call failed"))?
}

/// A result with ids in the place of definitions.
fn numbered(scope: &Scope, outcome: Outcome) -> Result<wire::Result> {
    let one = |definition: Option<pb::Definition>| -> Result<Ref> {
        // An empty root has no id.
        let Some(mut definition) = definition.filter(|definition| !definition.def.is_empty()) else {
            return Ok(Ref::default());
        };
        drop_empty_locations(&mut definition);
        Ok(Ref { id: scope.keep(Some(definition.clone()))?, def: Some(definition) })
    };
    let result = match outcome.files {
        Definitions::One(definition) => result::Result::Ref(one(definition)?),
        Definitions::Many(all) => {
            let refs = all.into_iter().map(|(id, definition)| Ok((id, one(definition)?)));
            result::Result::Refs(RefMap { refs: refs.collect::<Result<HashMap<_, _>>>()? })
        }
    };
    Ok(wire::Result { result: Some(result), metadata: outcome.metadata, ..wire::Result::default() })
}

/// An empty list of places, as definitions of clients have them, is nothing on the wire, and clients take nothing for a list
/// that they may read.
fn drop_empty_locations(definition: &mut pb::Definition) {
    let Some(source) = &mut definition.source else { return };
    source.locations.retain(|_, locations| !locations.locations.is_empty());
    // Decoding has bounded the depth.
    source.infos.iter_mut().filter_map(|info| info.definition.as_mut()).for_each(drop_empty_locations);
}

/// What a client returns: ids stand for definitions.
fn returned(scope: &Scope, result: wire::Result) -> Result<Outcome> {
    if !result.attestations.is_empty() {
        return Err(Error::not_implemented("attestations of front ends are not supported"));
    }
    let many = |ids: HashMap<String, String>| {
        let all = ids.into_iter().map(|(name, id)| Ok((name, scope.kept(&id)?)));
        all.collect::<Result<BTreeMap<_, _>>>().map(Definitions::Many)
    };
    let files = match result.result {
        None => Definitions::One(None),
        Some(result::Result::RefDeprecated(id)) => Definitions::One(scope.kept(&id)?),
        Some(result::Result::Ref(one)) => Definitions::One(scope.kept(&one.id)?),
        Some(result::Result::RefsDeprecated(refs)) => many(refs.refs)?,
        Some(result::Result::Refs(refs)) => many(refs.refs.into_iter().map(|(name, one)| (name, one.id)).collect())?,
    };
    Ok(Outcome { files, metadata: result.metadata })
}

fn platform(build: &Build, given: Option<&pb::Platform>) -> Platform {
    match given {
        Some(given) => Platform::new(&given.os, &given.architecture, &given.variant),
        None => build.daemon.platforms().into_iter().next().unwrap_or_else(|| Platform::new("linux", "amd64", "")),
    }
}

fn unsupported<T>(what: &str) -> Result<T, Status> {
    Err(Status::unimplemented(format!("{what} of front ends are not supported")))
}

#[tonic::async_trait]
impl LlbBridge for Bridge {
    async fn resolve_image_config(
        &self,
        request: Request<ResolveImageConfigRequest>,
    ) -> Result<Response<ResolveImageConfigResponse>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let request = request.into_inner();
        let layout = (request.resolver_type == 1).then(|| [request.session_id.clone(), request.store_id.clone()]);
        let question = ImageQuestion {
            platform: platform(&caller.build, request.platform.as_ref()),
            reference: request.r#ref.clone(),
            resolve: request.resolve_mode,
            title: request.log_name,
            layout,
        };
        let ImageAnswer { reference, digest, config } = caller.image(&question).await?;
        let reference = if reference.is_empty() { request.r#ref } else { reference };
        Ok(Response::new(ResolveImageConfigResponse { digest, config, r#ref: reference }))
    }

    async fn resolve_source_meta(
        &self,
        request: Request<ResolveSourceMetaRequest>,
    ) -> Result<Response<ResolveSourceMetaResponse>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let request = request.into_inner();
        let source = request.source.unwrap_or_default();
        let Some(reference) = source.identifier.strip_prefix(IMAGE) else {
            return unsupported("metadata of sources that are no images, on behalf");
        };
        let question = ImageQuestion {
            platform: platform(&caller.build, request.platform.as_ref()),
            reference: reference.to_owned(),
            resolve: request.resolve_mode,
            title: request.log_name,
            layout: None,
        };
        let ImageAnswer { digest, config, .. } = caller.image(&question).await?;
        let image = ResolveSourceImageResponse { digest, config, attestation_chain: None };
        let answer = ResolveSourceMetaResponse { source: Some(source), image: Some(image), ..Default::default() };
        Ok(Response::new(answer))
    }

    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let request = request.into_inner();
        // They hold for the rest of the build.
        let rules = Rules::read(&request.source_policies).map_err(|error| status(&error))?;
        caller.build.job.obey(rules);
        let evaluates = request.evaluate;
        let frontend = Frontend {
            name: request.frontend,
            attributes: request.frontend_opt,
            inputs: request.frontend_inputs,
            definition: request.definition,
            depth: caller.scope.depth,
        };
        let result = carried(caller.solved(frontend, evaluates)).await?;
        Ok(Response::new(SolveResponse { result: Some(result), ..SolveResponse::default() }))
    }

    async fn read_file(&self, request: Request<ReadFileRequest>) -> Result<Response<ReadFileResponse>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let request = request.into_inner();
        let chain = caller.files(&request.r#ref).await?;
        let range = match request.range {
            Some(range) => {
                let start = u64::try_from(range.offset).unwrap_or(0);
                start..start.saturating_add(u64::try_from(range.length).unwrap_or(0).min(FILE))
            }
            None => 0..FILE,
        };
        let read = build::files::read(&caller.build.job, &chain, &request.file_path, range).await;
        let missing = || Status::not_found(format!("open {}: no such file or directory", request.file_path));
        let data = read.map_err(|error| status(&error))?.ok_or_else(missing)?;
        Ok(Response::new(ReadFileResponse { data }))
    }

    async fn read_dir(&self, request: Request<ReadDirRequest>) -> Result<Response<ReadDirResponse>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let request = request.into_inner();
        let chain = caller.files(&request.r#ref).await?;
        let entries = files::list(&caller.build.job, &chain, (&request.dir_path, &request.include_pattern)).await;
        Ok(Response::new(ReadDirResponse { entries: entries.map_err(|error| status(&error))? }))
    }

    async fn stat_file(&self, request: Request<StatFileRequest>) -> Result<Response<StatFileResponse>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let request = request.into_inner();
        let chain = caller.files(&request.r#ref).await?;
        let stat = files::stat(&caller.build.job, &chain, &request.path).await.map_err(|error| status(&error))?;
        Ok(Response::new(StatFileResponse { stat: Some(stat) }))
    }

    async fn evaluate(&self, request: Request<EvaluateRequest>) -> Result<Response<EvaluateResponse>, Status> {
        let caller = self.caller(request.metadata()).await?;
        caller.files(&request.into_inner().r#ref).await?;
        Ok(Response::new(EvaluateResponse {}))
    }

    async fn ping(&self, request: Request<PingRequest>) -> Result<Response<PongResponse>, Status> {
        let caller = self.caller(request.metadata()).await?;
        Ok(Response::new(PongResponse {
            frontend_api_caps: worker::of_front_ends(),
            llb_caps: worker::of_definitions(),
            workers: vec![worker::record(&*caller.build.daemon)],
        }))
    }

    async fn r#return(&self, request: Request<ReturnRequest>) -> Result<Response<ReturnResponse>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let request = request.into_inner();
        let outcome = match (request.error, request.result) {
            (Some(told), _) if told.code != 0 => Err(Failed::from_status(told)),
            (_, result) => Ok(returned(&caller.scope, result.unwrap_or_default()).map_err(|error| status(&error))?),
        };
        caller.scope.give(outcome).map_err(|error| status(&error))?;
        Ok(Response::new(ReturnResponse {}))
    }

    async fn inputs(&self, request: Request<InputsRequest>) -> Result<Response<InputsResponse>, Status> {
        let caller = self.caller(request.metadata()).await?;
        Ok(Response::new(InputsResponse { definitions: caller.scope.inputs.clone() }))
    }

    async fn new_container(
        &self,
        request: Request<NewContainerRequest>,
    ) -> Result<Response<NewContainerResponse>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let request = request.into_inner();
        let mut files = Vec::with_capacity(request.mounts.len());
        for mount in &request.mounts {
            files.push(caller.files(&mount.result_id).await?);
        }
        let cancel = caller.build.job.cancel.part();
        caller.scope.containers.add(request, files, cancel).map_err(|error| status(&error))?;
        Ok(Response::new(NewContainerResponse {}))
    }

    async fn release_container(
        &self,
        request: Request<ReleaseContainerRequest>,
    ) -> Result<Response<ReleaseContainerResponse>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let id = request.into_inner().container_id;
        caller.scope.containers.release(&id).map_err(|error| status(&error))?;
        Ok(Response::new(ReleaseContainerResponse {}))
    }

    type ExecProcessStream = Messages<ExecMessage>;

    async fn exec_process(
        &self,
        request: Request<Streaming<ExecMessage>>,
    ) -> Result<Response<Self::ExecProcessStream>, Status> {
        let Caller { build, scope, _open: open } = self.caller(request.metadata()).await?;
        let call = processes::Call { job: build.job.clone(), scope, open };
        Ok(Response::new(call.begin(request.into_inner())))
    }

    async fn read_file_container(&self, _: Request<ReadFileRequest>) -> Result<Response<ReadFileResponse>, Status> {
        unsupported("files of containers")
    }

    async fn read_dir_container(&self, _: Request<ReadDirRequest>) -> Result<Response<ReadDirResponse>, Status> {
        unsupported("files of containers")
    }

    async fn stat_file_container(&self, _: Request<StatFileRequest>) -> Result<Response<StatFileResponse>, Status> {
        unsupported("files of containers")
    }

    async fn warn(&self, request: Request<WarnRequest>) -> Result<Response<WarnResponse>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let WarnRequest { digest, level, short, detail, url, info, ranges } = request.into_inner();
        caller.build.account.progress.warn(VertexWarning { vertex: digest, level, short, detail, url, info, ranges });
        Ok(Response::new(WarnResponse {}))
    }
}
