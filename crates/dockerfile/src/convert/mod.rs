//! From a Dockerfile to a definition: what is built for one platform.

mod advice;
mod arguments;
mod at;
mod capture;
mod configure;
mod copy;
mod expose;
mod job;
mod mounts;
mod origin;
mod outline;
mod plan;
mod run;
mod stage;
mod steps;
mod title;
mod triggers;

use crate::error::{Error, Result};
use crate::lint::{Linter, Settings, Warning};
use crate::parse;
use crate::question::{Answers, Inquiry, Question};

pub use job::{Conversion, Entry, Extent, Job, Outline};

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
