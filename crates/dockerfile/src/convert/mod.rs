//! From a Dockerfile to a definition: what is built for one platform.

mod advice;
mod arguments;
mod configure;
mod copy;
mod expose;
mod mounts;
mod origin;
mod outline;
mod plan;
mod run;
mod stage;
mod steps;
mod title;
mod triggers;

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb;
use model::platform::Platform;

use crate::context::{Main, Named};
use crate::error::{Error, Result};
use crate::image::Image;
use crate::lint::{Linter, Settings, Warning};
use crate::options::Options;
use crate::parse;
use crate::question::{Answers, Inquiry, Question};

pub use outline::{Entry, Outline};

/// What is converted.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The Dockerfile.
    pub text: &'a str,
    /// How it is shown to the client.
    pub file: &'a pb::SourceInfo,
    /// What the request says.
    pub options: &'a Options,
    /// Where the result is to run; `None`: where it is built, or where its base image does.
    pub target: Option<&'a Platform>,
    /// What the builder runs, its own platform first.
    pub builders: &'a [Platform],
    /// The main context.
    pub main: &'a Main,
    /// A directory of it; empty: all.
    pub directory: &'a str,
    /// Other contexts.
    pub named: &'a Named,
    /// What is looked at.
    pub extent: Extent,
}

/// What of a Dockerfile is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What the target needs.
    Target,
    /// Every stage.
    All,
}

/// What a Dockerfile became.
#[derive(Clone, Debug)]
pub struct Conversion {
    /// The files of the target.
    pub definition: pb::Definition,
    /// Its configuration; the layers of this build are not in it yet.
    pub image: Image,
    /// That of the image it is based on.
    pub origin: Option<Image>,
    /// The time that was chosen for the build, in seconds since 1970.
    pub epoch: Option<i64>,
    /// Other files whose packages are to be listed, by name: `context`, stages.
    pub extras: BTreeMap<String, pb::Definition>,
    /// Whether a stage of it does not use the cache.
    pub ignores_cache: bool,
    /// What it can be built with.
    pub outline: Outline,
}

/// How far a conversion came.
#[derive(Debug)]
pub enum Converted {
    /// This has to be known.
    Asks(Vec<Question>),
    /// To the end.
    Done(Box<Conversion>),
}

/// Converts; findings are those of this attempt, whether it came to the end or not.
pub fn convert(job: &Job<'_>, answers: &Answers) -> (Result<Converted>, Vec<Warning>) {
    let mut linter = match settings(job) {
        Ok(settings) => Linter::new(settings),
        Err(error) => return (Err(error), Vec::new()),
    };
    let mut inquiry = Inquiry::new(answers);
    let done = attempt(job, &mut linter, &mut inquiry);
    let converted = match done {
        Ok(None) => Ok(Converted::Asks(inquiry.into_open())),
        Ok(Some(conversion)) => Ok(Converted::Done(Box::new(conversion))),
        Err(error) => Err(error),
    };
    (converted, linter.into_warnings())
}

fn settings(job: &Job<'_>) -> Result<Settings> {
    match &job.options.check {
        Some(settings) => Ok(settings.clone()),
        None => {
            let text = parse::check_directive(job.text).unwrap_or_default();
            Settings::parse(&text).map_err(|error| error.prefix("failed to parse check options"))
        }
    }
}

fn attempt(job: &Job<'_>, linter: &mut Linter, inquiry: &mut Inquiry<'_>) -> Result<Option<Conversion>> {
    if job.text.is_empty() {
        return Err(Error::new("the Dockerfile cannot be empty"));
    }
    let mut plan = plan::Plan::read(job, linter)?;
    let target = plan.target()?;
    plan.connect()?;
    if !triggers::resolve(&mut plan, target, linter, inquiry)? {
        return Ok(None);
    }
    steps::all(&mut plan, target, linter)?;
    steps::finish(plan, target, linter).map(Some)
}
