//! One build, from its request to its end.
//!
//! A result is definitions with what the front end says of them; it is solved when somebody needs its files, at the end at the
//! latest. A build whose request names neither front end nor definition is driven by its client over LLBBridge, until the client
//! returns a result.

use std::sync::{Arc, OnceLock};

use bollard_buildkit_proto::moby::buildkit::v1::{SolveRequest, VertexWarning};
use bollard_buildkit_proto::pb;
use build::export::Source;
use build::frontend::{self, Answered, Refused};
use build::job::{Answer, Attributes, Entitlements, Job};
use build::policy;
use build::record::Chain;
use build::result::Failure;
use build::sources::rules::Rules;
use dockerfile::OwnSyntax;
use dockerfile::parse::Syntax;
use model::{Error, Result};

use crate::account::Account;
use crate::daemon::Daemon;
use crate::error::Failed;
use crate::inputs::ClientInputs;
use crate::outcome::{Definitions, Frontend, Outcome};
use crate::scope::{Returned, Scope};
use crate::wanted::Exports;

/// Warnings of lint have this level.
const LINT: i64 = 1;

/// Runs the front end in an image that a request names.
pub(crate) type Gateway = for<'f> fn(&'f Arc<Build>, Frontend) -> Answer<'f, Result<Outcome, Failed>>;

/// A build that goes on.
pub(crate) struct Build {
    pub(crate) account: Arc<Account>,
    pub(crate) daemon: Arc<dyn Daemon>,
    pub(crate) job: Arc<Job>,
    pub(crate) inputs: Arc<ClientInputs>,
    pub(crate) exports: Exports,
    /// What a front end was asked first: its name and attributes.
    pub(crate) asked: OnceLock<(String, Attributes)>,
    /// What the client has of it that is its front end; `None` when another one is asked.
    pub(crate) client: Option<Arc<Scope>>,
    gateway: Gateway,
}

impl Build {
    /// Puts a build together.
    ///
    /// Errors: `InvalidParameter` and `Forbidden` for what cannot be obeyed.
    pub(crate) fn new(
        request: SolveRequest,
        daemon: Arc<dyn Daemon>,
        mut job: Job,
        inputs: Arc<ClientInputs>,
        gateway: Gateway,
    ) -> Result<(Arc<Build>, Returned)> {
        refuse(&request)?;
        job.entitlements = entitlements(&request.entitlements, daemon.builder().settings().entitlements)?;
        let exports = Exports::read(&request)?;
        job.obey(Rules::read(request.source_policy.as_slice())?);
        let job = Arc::new(job);
        inputs.bind(&job);
        let (scope, returned) = Scope::new(request.frontend_inputs.clone(), 0);
        let by_client = request.frontend.is_empty() && request.definition.as_ref().is_none_or(|d| d.def.is_empty());
        let build = Build {
            account: Arc::new(Account::new(request, inputs.progress.clone())),
            daemon,
            job,
            inputs,
            exports,
            asked: OnceLock::new(),
            client: by_client.then_some(scope),
            gateway,
        };
        Ok((Arc::new(build), returned))
    }

    /// What it is called.
    pub(crate) fn id(&self) -> &str {
        self.account.id()
    }

    /// Whether the client is its front end.
    pub(crate) fn is_driven(&self) -> bool {
        self.client.is_some()
    }

    /// Asks a front end.
    pub(crate) fn frontend<'f>(self: &'f Arc<Build>, request: Frontend) -> Answer<'f, Result<Outcome, Failed>> {
        // What was asked first counts.
        drop(self.asked.set((request.name.clone(), request.attributes.clone().into_iter().collect())));
        Box::pin(async move {
            match request.name.as_str() {
                "" => Ok(Outcome { files: Definitions::One(request.definition), ..Outcome::default() }),
                "dockerfile.v0" => self.dockerfile(request).await,
                "gateway.v0" if self.stands_in(&request) => self.dockerfile(request).await,
                "gateway.v0" => (self.gateway)(self, request).await,
                other => Err(Failed::new(format!("frontend {other} not found"))),
            }
        })
    }

    /// Whether the front end that is built in answers for an image.
    fn stands_in(&self, request: &Frontend) -> bool {
        let source = request.attributes.get("source").map(String::as_str).unwrap_or_default();
        dockerfile::is_usual(source) && self.own_syntax() == OwnSyntax::Served
    }

    fn own_syntax(&self) -> OwnSyntax {
        match self.daemon.builder().settings().runs_usual_frontend {
            true => OwnSyntax::Forwarded,
            false => OwnSyntax::Served,
        }
    }

    /// Asks the front end that a Dockerfile names.
    async fn forward(self: &Arc<Build>, mut request: Frontend, syntax: &Syntax) -> Result<Outcome, Failed> {
        request.name = "gateway.v0".to_owned();
        request.attributes.insert("source".to_owned(), syntax.image.clone());
        request.attributes.insert("cmdline".to_owned(), syntax.command.clone());
        self.frontend(request).await
    }

    async fn dockerfile(self: &Arc<Build>, request: Frontend) -> Result<Outcome, Failed> {
        let wanted = dockerfile::Request {
            attributes: request.attributes.clone().into_iter().collect(),
            inputs: request.inputs.clone().into_iter().collect(),
            session: self.account.request.session.clone(),
            platforms: self.daemon.platforms(),
            syntax: self.own_syntax(),
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
                let located = |failed: Failed| match failed.has_source() {
                    true => failed,
                    false => failed.about(&file, &syntax.lines.ranges()),
                };
                return self.forward(request, &syntax).await.map_err(located);
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
    if !request.source_policy_session.is_empty() {
        return Err(Error::not_implemented("source policies of sessions are not supported"));
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
