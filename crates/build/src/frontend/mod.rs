//! The front end `dockerfile.v0`, run for a build: its questions are answered beside each other until it knows what is to be
//! built, or has told what it was asked.
//!
//! Who serves BuildKit's API calls [`dockerfile`] for `Frontend=dockerfile.v0` and makes results of the definitions with
//! [`targets`], now or when they are asked for; image configurations that other front ends ask for come of
//! [`crate::sources::configuration`], files of results of [`crate::files::read`].

pub mod container;

use std::collections::BTreeMap;
use std::sync::Arc;

use bollard_buildkit_proto::pb;
use dockerfile::parse::Syntax;
use dockerfile::{Answer, Answers, Build, ImageQuestion, Outcome, Question, Request};
use model::Error;
use model::digest::{Algorithm, Digest};
use tokio::task::JoinSet;

use crate::files;
use crate::job::{Event, Job};
pub use crate::op::process::{Process, run as run_process};
use crate::result::{Failure, Files};
use crate::sources;

/// Rounds of questions of one request.
const ROUNDS: usize = 64;
/// Questions that are answered beside each other.
const BESIDE: usize = 32;

/// What became of a request.
#[derive(Debug)]
pub enum Answered {
    /// To be built: definitions, one for each platform, and configurations of images.
    Build(Box<Build>),
    /// The answer to a request that builds nothing, by name: `result.json`, `result.txt` and so on.
    Subrequest(BTreeMap<String, Vec<u8>>),
    /// Another front end is asked for. Its errors are about these lines of the file.
    Forward(Syntax, pb::SourceInfo),
}

/// Why a request failed.
#[derive(Debug)]
pub enum Refused {
    /// The front end refuses it: text, lines of the file, the file.
    Request(Box<dockerfile::Failure>),
    /// The build failed or was cancelled.
    Build(Failure),
}

/// Answers a request for the front end.
pub async fn dockerfile(job: &Arc<Job>, request: &Request) -> Result<Answered, Refused> {
    let mut answers = Answers::default();
    for _ in 0..ROUNDS {
        let outcome = dockerfile::answer(request, &answers).map_err(|failure| Refused::Request(Box::new(failure)))?;
        let questions = match outcome {
            Outcome::Asks(questions) => questions,
            Outcome::Build(build) => return Ok(Answered::Build(build)),
            Outcome::Answer(told) => return Ok(Answered::Subrequest(told)),
            Outcome::Forward(syntax, file) => return Ok(Answered::Forward(syntax, file)),
        };
        if questions.is_empty() {
            return Err(Error::system("the front end of Dockerfiles asks nothing and answers nothing").into());
        }
        answer_all(job, questions, &mut answers).await?;
    }
    Err(Error::invalid(format!("more than {ROUNDS} rounds of questions about one Dockerfile")).into())
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused::Build(error.into())
    }
}

/// Answers questions beside each other.
async fn answer_all(job: &Arc<Job>, questions: Vec<Question>, answers: &mut Answers) -> Result<(), Refused> {
    let mut open = questions.into_iter();
    let mut going = JoinSet::new();
    loop {
        while going.len() < BESIDE
            && let Some(question) = open.next()
        {
            let job = job.clone();
            going.spawn(async move {
                let answer = answer(&job, &question).await;
                (question, answer)
            });
        }
        match going.join_next().await {
            None => return Ok(()),
            Some(Ok((question, answer))) => answers.insert(&question, answer),
            Some(Err(panicked)) => {
                return Err(Error::system("internal error: a question failed").with_source(panicked).into());
            }
        }
        job.cancel.check()?;
    }
}

async fn answer(job: &Arc<Job>, question: &Question) -> Answer {
    match question {
        Question::Image(wanted) => {
            Answer::Image(configuration(job, wanted).await.map_err(|error| error.message().to_owned()))
        }
        Question::File { definition, path, limit } => Answer::File(file(job, definition, path, *limit).await),
    }
}

/// The configuration of an image; the build tells of it as of a step.
async fn configuration(job: &Arc<Job>, question: &ImageQuestion) -> model::Result<dockerfile::ImageAnswer> {
    let step = Digest::of(Algorithm::Sha256, question.title.as_bytes());
    job.tell(Event::Started { step: step.clone(), name: question.title.clone(), inputs: Vec::new() }).await;
    let outcome = sources::configuration(job, question).await;
    let error = outcome.as_ref().err().map(|error| error.message().to_owned());
    job.tell(Event::Ended { step, cached: false, error }).await;
    outcome
}

async fn file(job: &Arc<Job>, definition: &pb::Definition, path: &str, limit: u64) -> Result<Option<Vec<u8>>, String> {
    let why = |error: &Error| error.message().to_owned();
    let files = job.solve_definition(definition).await.map_err(|failure| why(&failure.error))?;
    let Some(files) = files else { return Ok(None) };
    files::read(job, &files.chain(), path, 0..limit).await.map_err(|error| why(&error))
}

/// The results of definitions, in order, made beside each other; the first that fails ends the others. `None`: an empty root.
pub async fn targets(job: &Arc<Job>, definitions: &[&pb::Definition]) -> Result<Vec<Option<Files>>, Failure> {
    let part = job.part();
    let mut going = JoinSet::new();
    for (at, definition) in definitions.iter().enumerate() {
        let (part, definition) = (part.clone(), (*definition).clone());
        going.spawn(async move { (at, part.solve_definition(&definition).await) });
    }
    let mut made: Vec<Option<Files>> = vec![None; definitions.len()];
    let mut first = None;
    while let Some(ended) = going.join_next().await {
        let failure = match ended {
            Ok((at, Ok(files))) => {
                made[at] = files;
                continue;
            }
            Ok((_, Err(failure))) => failure,
            Err(panicked) => Error::system("internal error: a build failed").with_source(panicked).into(),
        };
        part.cancel.cancel();
        first.get_or_insert(failure);
    }
    first.map_or(Ok(made), Err)
}
