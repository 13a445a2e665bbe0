//! One build, from its request to its end.
//!
//! A result is definitions with what the front end says of them; it is solved when somebody needs its files, at the end at the
//! latest. A build whose request names neither front end nor definition is driven by its client over LLBBridge, until the client
//! returns a result.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use bollard_buildkit_proto::moby::buildkit::v1::{SolveRequest, VertexWarning};
use bollard_buildkit_proto::pb;
use build::export::{self, Source};
use build::frontend::{self, Answered, Refused};
use build::job::{Attributes, Entitlements, Job};
use build::policy;
use build::record::Chain;
use build::result::Failure;
use dockerfile::OwnSyntax;
use model::lock::Mutex;
use model::time::Timestamp;
use model::{Error, Result};
use tokio::sync::oneshot;

use crate::daemon::Daemon;
use crate::error::Failed;
use crate::inputs::ClientInputs;
use crate::progress::Progress;
use crate::wanted::Exports;

/// Results that a client may ask for in one build.
const REFS: usize = 10_000;
/// Warnings of lint have this level.
const LINT: i64 = 1;

/// What a front end has returned.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) files: Definitions,
    pub(crate) metadata: HashMap<String, Vec<u8>>,
}

/// Of what a result is; `None`: of nothing, an empty root.
#[derive(Clone, Debug)]
pub(crate) enum Definitions {
    One(Option<pb::Definition>),
    Many(BTreeMap<String, Option<pb::Definition>>),
}

impl Default for Definitions {
    fn default() -> Definitions {
        Definitions::One(None)
    }
}

/// A build that goes on.
pub(crate) struct Build {
    pub(crate) account: Arc<Account>,
    pub(crate) daemon: Arc<dyn Daemon>,
    pub(crate) job: Arc<Job>,
    pub(crate) inputs: Arc<ClientInputs>,
    pub(crate) exports: Exports,
    /// What a front end was asked first: its name and attributes.
    pub(crate) asked: OnceLock<(String, Attributes)>,
    /// Results that were made for the client, by their ids.
    refs: Mutex<HashMap<String, Option<pb::Definition>>>,
    /// Takes what the client returns; `None` when a front end here is asked.
    returned: Option<Once>,
}

/// Takes one result.
type Once = Mutex<Option<oneshot::Sender<Result<Outcome, Failed>>>>;

/// What is remembered of a build when it has ended.
pub(crate) struct Account {
    pub(crate) request: SolveRequest,
    pub(crate) progress: Arc<Progress>,
    pub(crate) started: Timestamp,
    /// When, and with what it ended.
    pub(crate) ended: OnceLock<(Timestamp, Result<export::Response, Failed>)>,
}

impl Account {
    /// What the build is called.
    pub(crate) fn id(&self) -> &str {
        &self.request.r#ref
    }
}

/// What the client returns, when it does.
pub(crate) type Returned = oneshot::Receiver<Result<Outcome, Failed>>;

impl Build {
    /// Puts a build together.
    ///
    /// Errors: `InvalidParameter` and `Forbidden` for what cannot be obeyed.
    pub(crate) fn new(
        request: SolveRequest,
        daemon: Arc<dyn Daemon>,
        mut job: Job,
        inputs: Arc<ClientInputs>,
        progress: Arc<Progress>,
    ) -> Result<(Arc<Build>, Returned)> {
        refuse(&request)?;
        job.entitlements = entitlements(&request.entitlements, daemon.builder().settings().entitlements)?;
        let exports = Exports::read(&request)?;
        let job = Arc::new(job);
        inputs.bind(&job);
        let (sender, returned) = oneshot::channel();
        let by_client = request.frontend.is_empty() && request.definition.as_ref().is_none_or(|d| d.def.is_empty());
        let returns = by_client.then(|| Mutex::new(Some(sender)));
        let build = Build {
            account: Arc::new(Account { request, progress, started: events::now(), ended: OnceLock::new() }),
            daemon,
            job,
            inputs,
            exports,
            asked: OnceLock::new(),
            refs: Mutex::default(),
            returned: returns,
        };
        Ok((Arc::new(build), returned))
    }

    /// What it is called.
    pub(crate) fn id(&self) -> &str {
        self.account.id()
    }

    /// Whether the client is its front end.
    pub(crate) fn is_driven(&self) -> bool {
        self.returned.is_some()
    }

    /// Takes what the client returns.
    pub(crate) fn give(&self, outcome: Result<Outcome, Failed>) -> Result<()> {
        let refused = || Error::invalid(format!("build {} takes no result", self.id()));
        let slot = self.returned.as_ref().ok_or_else(refused)?;
        let sender = slot.lock().take().ok_or_else(refused)?;
        sender.send(outcome).map_err(|_| refused())
    }

    /// Asks a front end.
    pub(crate) async fn frontend(self: &Arc<Build>, request: Frontend) -> Result<Outcome, Failed> {
        // What was asked first counts.
        drop(self.asked.set((request.name.clone(), request.attributes.clone().into_iter().collect())));
        match request.name.as_str() {
            "" => Ok(Outcome { files: Definitions::One(request.definition), ..Outcome::default() }),
            "dockerfile.v0" => self.dockerfile(request).await,
            "gateway.v0" => {
                let source = request.attributes.get("source").cloned().unwrap_or_default();
                Err(Failed::new(format!("front ends in images are not supported: {source}")))
            }
            other => Err(Failed::new(format!("frontend {other} not found"))),
        }
    }

    async fn dockerfile(self: &Arc<Build>, request: Frontend) -> Result<Outcome, Failed> {
        let wanted = dockerfile::Request {
            attributes: request.attributes.into_iter().collect(),
            inputs: request.inputs.into_iter().collect(),
            session: self.account.request.session.clone(),
            platforms: self.daemon.platforms(),
            syntax: OwnSyntax::Served,
        };
        let answered = match frontend::dockerfile(&self.job, &wanted).await {
            Ok(answered) => answered,
            Err(Refused::Request(failure)) => return Err(refused(&failure)),
            Err(Refused::Build(failure)) => return Err(self.failed(failure, &[])),
        };
        let build = match answered {
            Answered::Build(build) => build,
            Answered::Subrequest(told) => {
                return Ok(Outcome { metadata: told.into_iter().collect(), ..Outcome::default() });
            }
            Answered::Forward(syntax, file) => {
                let text = format!("front ends in images are not supported: {}", syntax.image);
                return Err(Failed::new(text).about(&file, &syntax.lines.ranges()));
            }
        };
        for warning in &build.warnings {
            self.account.progress.warn(VertexWarning {
                vertex: build.loaded_by.clone(),
                level: LINT,
                short: warning.short().into_bytes(),
                detail: vec![warning.rule.description.as_bytes().to_vec()],
                url: warning.rule.url(),
                info: Some(build.file.clone()),
                ranges: warning.lines.ranges(),
            });
        }
        let nothing = vec![Chain::default(); build.results.len()];
        let metadata = Source::of_dockerfile(&build, &nothing)?.metadata.into_iter().collect();
        let multiple = build.multiple;
        let mut all = build.results.into_iter().map(|target| (target.id, Some(target.conversion.definition)));
        let files = match multiple {
            true => Definitions::Many(all.collect()),
            false => Definitions::One(all.next().and_then(|(_, definition)| definition)),
        };
        Ok(Outcome { files, metadata })
    }

    /// A failure, with the lines of the vertex that failed.
    pub(crate) fn failed(&self, failure: Failure, definitions: &[&pb::Definition]) -> Failed {
        let mut failed = Failed::from(failure.error);
        if let Some(code) = failure.exit_code {
            failed = failed.exited(code);
        }
        if let Some(vertex) = &failure.vertex {
            failed = failed.at(vertex);
            let has = |definition: &&&pb::Definition| {
                definition.source.as_ref().is_some_and(|source| source.locations.contains_key(vertex.as_str()))
            };
            if let Some(definition) = definitions.iter().find(has) {
                failed = failed.located(vertex, definition);
            }
        }
        failed
    }

    /// Notes a result for the client; the id by which it asks for it.
    pub(crate) fn keep(&self, definition: Option<pb::Definition>) -> Result<String> {
        let mut refs = self.refs.lock();
        if refs.len() >= REFS {
            return Err(Error::invalid(format!("more than {REFS} results of one build")));
        }
        let id = model::id::ContainerId::from_bytes(sys::random::bytes32()).to_string();
        refs.insert(id.clone(), definition);
        Ok(id)
    }

    /// The result of an id; an empty id is that of an empty root.
    pub(crate) fn kept(&self, id: &str) -> Result<Option<pb::Definition>> {
        if id.is_empty() {
            return Ok(None);
        }
        let refs = self.refs.lock();
        refs.get(id).cloned().ok_or_else(|| Error::not_found(format!("no such ref: {id}")))
    }
}

/// A request for a front end.
pub(crate) struct Frontend {
    pub(crate) name: String,
    pub(crate) attributes: HashMap<String, String>,
    pub(crate) inputs: HashMap<String, pb::Definition>,
    pub(crate) definition: Option<pb::Definition>,
}

/// What the front end of Dockerfiles refuses, with lines of the file.
fn refused(failure: &dockerfile::Failure) -> Failed {
    let mut failed = Failed::new(failure.error.message());
    if let Some(file) = &failure.file {
        for lines in failure.error.locations() {
            failed = failed.about(file, &lines.ranges());
        }
    }
    failed
}

/// What builds cannot do, by name.
fn refuse(request: &SolveRequest) -> Result<()> {
    if request.r#ref.is_empty() {
        return Err(Error::invalid("a build without a ref"));
    }
    if request.source_policy.as_ref().is_some_and(|policy| !policy.rules.is_empty())
        || !request.source_policy_session.is_empty()
    {
        return Err(Error::not_implemented("source policies are not supported"));
    }
    Ok(())
}

/// What was asked for, if the configuration grants it.
fn entitlements(asked: &[String], granted: policy::Entitlements) -> Result<Entitlements> {
    let mut given = Entitlements::default();
    for one in asked {
        let (name, value) = one.split_once('=').unwrap_or((one, ""));
        let is_granted = match name {
            "network.host" => {
                given.network_host = true;
                granted.network_host
            }
            "security.insecure" => {
                given.insecure = true;
                granted.insecure
            }
            "device" => {
                given.devices.push(if value.is_empty() { "*" } else { value }.to_owned());
                granted.device
            }
            _ => return Err(Error::invalid(format!("unknown entitlement {one}"))),
        };
        if !is_granted {
            return Err(Error::forbidden(format!(
                "granting entitlement {name} is not allowed by build daemon configuration"
            )));
        }
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_configuration_grants_is_given() {
        let usual = policy::Settings::default().entitlements;
        let asked = |names: &[&str], granted| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            entitlements(&names, granted).map_err(|error| error.message().to_owned())
        };
        let given = asked(&["network.host", "device=vendor.com/device=one"], usual).unwrap();
        assert!(given.network_host && !given.insecure);
        assert_eq!(given.devices, ["vendor.com/device=one"]);
        assert_eq!(
            asked(&["security.insecure"], usual).unwrap_err(),
            "granting entitlement security.insecure is not allowed by build daemon configuration"
        );
        assert!(asked(&["security.insecure"], policy::Entitlements { insecure: true, ..usual }).unwrap().insecure);
        assert!(asked(&["network.host"], policy::Entitlements { network_host: false, ..usual }).is_err());
        assert_eq!(asked(&["x"], usual).unwrap_err(), "unknown entitlement x");
    }
}
