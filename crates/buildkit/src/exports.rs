//! What becomes of the result of a build: it is solved, described, exported to where its client wants it, and so is its cache.

use std::collections::BTreeMap;
use std::sync::Arc;

use bollard_buildkit_proto::pb;
use build::cache::{self, Export, Place, Selected};
use build::export::{self, Exporter, Refs, Source};
use build::{attest, frontend};
use model::lock::Mutex;
use model::{Error, Result};

use crate::build::Build;
use crate::error::Failed;
use crate::export::Receiver;
use crate::outcome::{Definitions, Frontend, Outcome};
use crate::scope::Returned;
use crate::wanted::Exports;

/// Builds and exports; the client's answer.
pub(crate) async fn run(build: &Arc<Build>, returned: Returned) -> Result<export::Response, Failed> {
    build.exports.import(build).await;
    let outcome = if build.is_driven() {
        tokio::select! {
            outcome = returned => outcome.map_err(|_| Failed::cancelled())??,
            () = build.job.cancel.cancelled() => return Err(Failed::cancelled()),
        }
    } else {
        let request = Frontend {
            name: build.account.request.frontend.clone(),
            attributes: build.account.request.frontend_attrs.clone(),
            inputs: build.account.request.frontend_inputs.clone(),
            definition: build.account.request.definition.clone(),
            depth: 0,
        };
        build.frontend(request).await?
    };
    build.exports.run(build, outcome).await
}

impl Exports {
    /// Reads the caches that the build may use; one that is not there is told of, and no more.
    async fn import(&self, build: &Arc<Build>) {
        for import in &self.imports {
            let span = build.account.progress.span(&import.name());
            let outcome = cache::import(&build.job, import).await;
            if let Err(error) = &outcome {
                tracing::debug!(%error, "a cache is not imported");
            }
            span.done(outcome.as_ref().map(|_| ()).map_err(Error::message));
        }
    }

    /// Solves what a front end has returned, and sends it where it is wanted.
    async fn run(&self, build: &Arc<Build>, outcome: Outcome) -> Result<export::Response, Failed> {
        let (ids, definitions): (Vec<String>, Vec<pb::Definition>) = match &outcome.files {
            Definitions::One(one) => (vec![String::new()], vec![one.clone().unwrap_or_default()]),
            Definitions::Many(many) => {
                many.iter().map(|(id, definition)| (id.clone(), definition.clone().unwrap_or_default())).unzip()
            }
        };
        let wanted: Vec<&pb::Definition> = definitions.iter().collect();
        let made = frontend::targets(&build.job, &wanted).await.map_err(|failure| build.failed(failure, &wanted))?;
        let mut response = export::Response::new();
        if self.exporters.is_empty() && self.caches.is_empty() {
            return Ok(response);
        }
        let chains = made.iter().map(|files| files.as_ref().map(build::result::Files::chain).unwrap_or_default());
        let refs = match &outcome.files {
            Definitions::One(_) => Refs::One(chains.into_iter().next().unwrap_or_default()),
            Definitions::Many(_) => Refs::Many(ids.iter().cloned().zip(chains).collect()),
        };
        if !self.exporters.is_empty() {
            let source = Source::read(refs, outcome.metadata.into_iter().collect(), BTreeMap::new())?;
            let source = self.source(build, source, (&ids, &definitions)).await?;
            for (index, exporter) in self.exporters.iter().enumerate() {
                response.extend(self.export(build, (index, exporter), source.clone()).await?);
            }
        }
        for wanted in self.caches.iter().filter(|wanted| wanted.place != Place::Inline) {
            let selected = self.selected(build, wanted, &definitions)?;
            let receiver = receiver(build, 0, wanted.name());
            let outcome = cache::export(&context(build, &receiver), wanted, selected).await;
            receiver.span.done(outcome.as_ref().map(|_| ()).map_err(Error::message));
            response.extend(outcome?);
        }
        Ok(response)
    }

    /// The result with all that is said of it.
    async fn source(
        &self,
        build: &Arc<Build>,
        mut source: Source,
        (ids, definitions): (&[String], &[pb::Definition]),
    ) -> Result<Arc<Source>, Failed> {
        let named = source.targets.iter().enumerate().filter_map(|(at, target)| {
            let of_id = ids.iter().position(|id| *id == target.id).or_else(|| (ids.len() == 1).then_some(0));
            Some((at, target.id.clone(), definitions.get(of_id?)?.clone()))
        });
        let named: Vec<(usize, String, pb::Definition)> = named.collect();
        if let Some(wanted) = self.caches.iter().find(|wanted| wanted.place == Place::Inline) {
            for (at, _, definition) in &named {
                let selected = cache::select(&build.job, definition, wanted.mode)?;
                let chain = source.targets[*at].chain.clone();
                source.targets[*at].cache = cache::inline(&build.job, &chain, selected).await?;
            }
        }
        let by_name = named.into_iter().map(|(_, id, definition)| (id, definition)).collect();
        let (frontend, attributes) = build.asked.get().cloned().unwrap_or_default();
        let request =
            attest::Request { frontend, attributes, reference: build.id().to_owned(), started: build.account.started };
        let added = attest::add(&build.job, &mut source, &self.attestations, (&request, &by_name)).await;
        added.map_err(|failure| build.failed(failure, &[]))?;
        Ok(Arc::new(source))
    }

    fn selected(&self, build: &Arc<Build>, wanted: &Export, definitions: &[pb::Definition]) -> Result<Vec<Selected>> {
        let mut selected = Vec::new();
        for definition in definitions {
            selected.extend(cache::select(&build.job, definition, wanted.mode)?);
        }
        Ok(selected)
    }

    async fn export(
        &self,
        build: &Arc<Build>,
        (index, exporter): (usize, &Exporter),
        source: Arc<Source>,
    ) -> Result<export::Response, Failed> {
        let name = match exporter {
            Exporter::Nothing => return Ok(export::Response::new()),
            Exporter::Image(_) => "exporting to image",
            Exporter::Archive(wanted) if matches!(wanted.variant, export::Variant::Oci) => {
                "exporting to oci image format"
            }
            Exporter::Archive(_) => "exporting to docker image format",
            Exporter::Files(wanted) if wanted.tar => "exporting to client tarball",
            Exporter::Files(_) => "exporting to client directory",
        };
        let receiver = receiver(build, index, name);
        let context = context(build, &receiver);
        let outcome = tokio::select! {
            outcome = export::run(&context, exporter, source) => outcome,
            () = build.job.cancel.cancelled() => Err(Error::system("context canceled")),
        };
        receiver.span.done(outcome.as_ref().map(|_| ()).map_err(Error::message));
        Ok(outcome?)
    }
}

fn receiver(build: &Arc<Build>, index: usize, name: &str) -> Arc<Receiver> {
    Arc::new(Receiver {
        inputs: build.inputs.clone(),
        builder: build.job.builder.clone(),
        index,
        span: build.account.progress.span(name),
        begun: Mutex::default(),
    })
}

fn context(build: &Build, receiver: &Arc<Receiver>) -> export::Context {
    export::Context {
        builder: build.job.builder.clone(),
        lease: build.job.lease.clone(),
        cancel: build.job.cancel.clone(),
        bus: build.daemon.bus(),
        transfers: build.job.transfers,
        client: receiver.clone(),
    }
}
