//! Builds of clients that do not speak gRPC but offer a session: `POST /build?version=2`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bollard_buildkit_proto::moby::buildkit::v1::{Exporter, SolveRequest};
use build::job::Incoming;
use model::{Error, Result};
use prost::Message;
use tokio::task::JoinHandle;

use crate::control::Watch;
use crate::error::Failed;
use crate::inputs::Body;
use crate::progress::Progress;
use crate::serve::Buildkit;

/// What is to be built, by the front end of Dockerfiles.
#[derive(Default)]
pub struct Wanted {
    /// What the build is called.
    pub reference: String,
    /// The session of the client.
    pub session: String,
    /// Attributes of the front end.
    pub attributes: BTreeMap<String, String>,
    /// The exporter and its attributes; `None`: nothing is exported.
    pub exporter: Option<(String, BTreeMap<String, String>)>,
    /// What it is to be granted.
    pub entitlements: Vec<String>,
    /// The context, where the client sends it: an archive, or a Dockerfile.
    pub body: Option<Incoming>,
}

/// A build that goes on; it is cancelled when this is dropped.
pub struct Going {
    progress: Arc<Progress>,
    outcome: JoinHandle<Result<build::export::Response, Failed>>,
    seen: usize,
    _watch: Watch,
}

impl Buildkit {
    /// Begins a build.
    ///
    /// Errors: what the request cannot have.
    pub fn build(&self, mut wanted: Wanted) -> Result<Going> {
        let body = wanted.body.take().map(Body::new);
        if let Some(body) = &body {
            wanted.attributes.insert("context".into(), body.address.clone());
        }
        let exporter = |(kind, attributes): (String, BTreeMap<String, String>)| Exporter {
            r#type: kind,
            attrs: attributes.into_iter().collect(),
        };
        let request = SolveRequest {
            r#ref: wanted.reference,
            session: wanted.session,
            frontend: "dockerfile.v0".into(),
            frontend_attrs: wanted.attributes.into_iter().collect(),
            exporters: wanted.exporter.map(exporter).into_iter().collect(),
            entitlements: wanted.entitlements,
            ..SolveRequest::default()
        };
        let begun = self.controller.begin(request, body).map_err(|status| Error::invalid(status.message()));
        let (build, returned, events) = begun?;
        let (progress, watch) = (build.account.progress.clone(), Watch(Some(build.job.cancel.clone())));
        let outcome = tokio::spawn(self.controller.clone().finish(build, returned, events));
        Ok(Going { progress, outcome, seen: 0, _watch: watch })
    }
}

impl Going {
    /// What the build tells next, as encoded `StatusResponse`; `None` at its end.
    pub async fn next(&mut self) -> Option<Vec<Vec<u8>>> {
        let some = self.progress.after(self.seen).await?;
        self.seen += some.len();
        Some(some.iter().map(|message| message.encode_to_vec()).collect())
    }

    /// What it ended with: what the exporter answers.
    pub async fn outcome(&mut self) -> Result<BTreeMap<String, String>> {
        let outcome = (&mut self.outcome).await;
        let outcome = outcome.map_err(|_| Error::system("internal error: a build failed"))?;
        outcome.map_err(|failed| Error::system(failed.message()))
    }
}
