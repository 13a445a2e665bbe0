//! Front ends that are images: one runs as a container that speaks BuildKit's LLBBridge over its standard input and output
//! (HTTP/2, the daemon being the server).

use std::collections::BTreeMap;
use std::sync::Arc;

use bollard_buildkit_proto::pb;
use dockerfile::{Image, ImageQuestion};
use model::digest::{Algorithm, Digest};
use model::platform::Platform;
use model::reference::ImageRef;
use model::{Error, Result};

use crate::cancel::Cancel;
use crate::job::{Attributes, Connection, Event, Job, Limits, Network, Output, Step};
use crate::record::keys;
use crate::result::Failure;
use crate::root::Work;

/// What runs in an image that says nothing.
const PROGRAM: &str = "/run";
/// The label of an image that needs no network.
const NO_NETWORK: &str = "moby.buildkit.frontend.network.none";
/// The label with what a front end is able to do.
const CAPABILITIES: &str = "moby.buildkit.frontend.caps";
/// Attributes that a front end is given.
const ATTRIBUTES: usize = 10_000;
/// Bytes of them.
const BYTES: usize = 1 << 20;

/// A front end that is to run.
pub struct Program<'p> {
    /// The image, as the request or the file names it.
    pub image: &'p str,
    /// Attributes of the request.
    pub attributes: &'p Attributes,
    /// The client's session.
    pub session: &'p str,
    /// The workers, as JSON (`[{"ID":…,"Labels":…,"Platforms":…}]`).
    pub workers: &'p str,
    /// What it runs on.
    pub platform: Platform,
}

/// A front end whose image is here and whose root is prepared.
pub struct Ready {
    name: String,
    image: Image,
    environment: Vec<String>,
    work: Work,
}

/// Gets the image of a front end, and makes its root.
///
/// Errors: as of an image that is not there.
pub async fn prepare(job: &Arc<Job>, program: &Program<'_>) -> Result<Ready, Failure> {
    let reference = ImageRef::parse_normalized(program.image)?.with_default_tag().canonical();
    let question = ImageQuestion {
        reference: reference.clone(),
        platform: program.platform.clone(),
        resolve: String::new(),
        title: format!("resolve image config for docker-image://{reference}"),
        layout: None,
    };
    let known = super::configuration(job, &question).await?;
    let image = Image::read(&known.config).map_err(|error| Error::invalid(error.message()))?;
    let name = match known.digest.as_str() {
        "" => reference,
        digest => format!("{}@{digest}", known.reference),
    };
    let environment = environment(&image, program)?;
    let definition = definition(&name, &program.platform);
    let files = job.solve_definition(&definition).await?.ok_or_else(|| Error::invalid("an image without files"))?;
    let (roots, layers) = (job.builder.roots.clone(), keys(&files.chain()));
    let work = job.builder.threads.run(move |_| Work::prepare(&roots, &layers)).await?;
    Ok(Ready { name, image, environment, work })
}

impl Ready {
    /// The image, by its digest where it has one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A capability of those that are asked for, which the front end does not say that it has.
    pub fn lacks<'c>(&self, mut asked: impl Iterator<Item = &'c str>) -> Option<&'c str> {
        let told = self.image.config.labels.get(CAPABILITIES).map(String::as_str).unwrap_or_default();
        asked.find(|one| !capabilities(told).any(|name| name == *one))
    }

    /// Runs it until it ends; it speaks with whoever holds the other end of `dialogue`.
    ///
    /// Errors: the exit code of a program that fails; `context canceled`.
    pub async fn run(self, job: &Arc<Job>, dialogue: Box<dyn Connection>, cancel: Cancel) -> Result<(), Failure> {
        let Ready { name, image, environment, work } = self;
        let step = step(&work, &image, environment);
        let vertex = Digest::of(Algorithm::Sha256, work.id.as_str().as_bytes());
        job.tell(Event::Started { step: vertex.clone(), name: format!("front end {name}"), inputs: Vec::new() }).await;
        let output = Output { events: job.events.clone(), step: vertex.clone() };
        let ended = job.runner.converse(step, output, dialogue, cancel).await;
        let removed = move |_: &_| {
            drop(work);
            Ok(())
        };
        job.builder.threads.run(removed).await?;
        let outcome = match ended {
            Ok(0) => Ok(()),
            Ok(code) => {
                let error = Error::system(format!("frontend {name} did not complete successfully: exit code: {code}"));
                Err(Failure { vertex: Some(vertex.clone()), error, exit_code: Some(code) })
            }
            Err(error) => Err(Failure { vertex: Some(vertex.clone()), ..error.into() }),
        };
        let error = outcome.as_ref().err().map(|failure| failure.error.message().to_owned());
        job.tell(Event::Ended { step: vertex, cached: false, error }).await;
        outcome
    }
}

/// Names of capabilities in a list with commas; what follows a `+` says more of one.
pub fn capabilities(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').filter_map(|one| one.split('+').next()).filter(|name| !name.is_empty())
}

fn definition(reference: &str, on: &Platform) -> pb::Definition {
    let about = dockerfile::llb::About::named(format!("docker-image://{reference}"));
    let (vertex, about) = dockerfile::llb::image(reference, "", on, about);
    let mut graph = dockerfile::llb::Graph::default();
    let output = graph.add(vertex, about);
    graph.definition(Some(output), None)
}

/// The variables by which a front end learns what is wanted.
fn environment(image: &Image, program: &Program<'_>) -> Result<Vec<String>> {
    let size: usize = program.attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
    if program.attributes.len() > ATTRIBUTES || size > BYTES {
        return Err(Error::invalid("the attributes of the request are too many for a front end"));
    }
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    for line in &image.config.env {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        env.insert(name.to_owned(), value.to_owned());
    }
    for (at, (key, value)) in program.attributes.iter().enumerate() {
        env.insert(format!("BUILDKIT_FRONTEND_OPT_{at}"), format!("{key}={value}"));
    }
    env.insert("BUILDKIT_SESSION_ID".into(), program.session.to_owned());
    env.insert("BUILDKIT_WORKERS".into(), program.workers.to_owned());
    env.insert("BUILDKIT_EXPORTEDPRODUCT".into(), "gantry".into());
    Ok(env.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
}

fn step(work: &Work, image: &Image, env: Vec<String>) -> Step {
    let config = &image.config;
    let args = config.entrypoint.clone();
    let is_true = |value: &String| matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True");
    let labelled = config.labels.get(NO_NETWORK).is_some_and(is_true);
    Step {
        id: work.id.clone(),
        layers: work.layers.clone(),
        args: if args.is_empty() { vec![PROGRAM.to_owned()] } else { args },
        env,
        cwd: config.working_dir.clone(),
        // The reference does not ask the image for it.
        user: String::new(),
        hostname: String::new(),
        network: if labelled { Network::None } else { Network::Default },
        insecure: false,
        readonly_root: false,
        extra_hosts: Vec::new(),
        mounts: Vec::new(),
        limits: Limits::default(),
    }
}
