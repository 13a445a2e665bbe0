//! What a conversion has to know of the world. It is asked for all at once, as far as it is known what to ask, and the
//! conversion is made anew with the answers.

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb;
use model::platform::Platform;

use crate::llb;

/// Questions of one conversion, over all rounds.
const MAX_QUESTIONS: usize = 10_000;

/// A question.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// The content of a file of what a definition makes.
    File {
        /// What makes it.
        definition: Box<pb::Definition>,
        /// Where it is.
        path: String,
        /// How much of it, in bytes, from its start.
        limit: u64,
    },
    /// The configuration of an image.
    Image(ImageQuestion),
}

/// A question for the configuration of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageQuestion {
    /// Its full name.
    pub reference: String,
    /// On what it is to run.
    pub platform: Platform,
    /// `pull`, `local` or empty, as in [`crate::Options`].
    pub resolve: String,
    /// What users see meanwhile.
    pub title: String,
    /// Session and store of a layout; empty: it is in a registry.
    pub layout: Option<[String; 2]>,
}

/// An answer; an error's text is the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Question::File`]; `None`: there is none.
    File(Result<Option<Vec<u8>>, String>),
    /// To [`Question::Image`].
    Image(Result<ImageAnswer, String>),
}

/// The configuration of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageAnswer {
    /// Its full name, another than the one asked for where a policy says so.
    pub reference: String,
    /// Of its manifest or index; empty: it is not known, as of one that is here.
    pub digest: String,
    /// JSON.
    pub config: Vec<u8>,
}

impl Question {
    /// The same for questions with one answer.
    fn key(&self) -> String {
        match self {
            Question::File { definition, path, limit } => {
                let head = definition.def.last().map(|op| llb::name(op).to_string()).unwrap_or_default();
                format!("file {head} {limit} {path}")
            }
            Question::Image(ImageQuestion { reference, platform, resolve, layout, .. }) => {
                let layout = layout.as_ref().map(|parts| parts.join("/")).unwrap_or_default();
                format!("image {platform} {resolve} {layout} {reference}")
            }
        }
    }
}

/// What is known.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    known: BTreeMap<String, Answer>,
}

impl Answers {
    /// Notes an answer.
    pub fn insert(&mut self, question: &Question, answer: Answer) {
        self.known.insert(question.key(), answer);
    }
}

/// The questions of one round.
#[derive(Debug)]
pub struct Inquiry<'a> {
    answers: &'a Answers,
    open: Vec<Question>,
}

impl<'a> Inquiry<'a> {
    /// With what is known.
    pub fn new(answers: &'a Answers) -> Inquiry<'a> {
        Inquiry { answers, open: Vec::new() }
    }

    fn ask(&mut self, question: Question) -> Option<&'a Answer> {
        let key = question.key();
        let answer = self.answers.known.get(&key);
        let asked = self.open.iter().any(|open| open.key() == key);
        if answer.is_none() && !asked && self.answers.known.len() + self.open.len() < MAX_QUESTIONS {
            self.open.push(question);
        }
        answer
    }

    /// A file; `None`: not yet known.
    pub fn file(
        &mut self,
        definition: pb::Definition,
        path: &str,
        limit: u64,
    ) -> Option<Result<Option<&'a [u8]>, String>> {
        let definition = Box::new(definition);
        match self.ask(Question::File { definition, path: path.to_owned(), limit })? {
            Answer::File(Ok(content)) => Some(Ok(content.as_deref())),
            Answer::File(Err(why)) => Some(Err(why.clone())),
            Answer::Image(_) => Some(Err("the answer is none to the question".into())),
        }
    }

    /// An image; `None`: not yet known.
    pub fn image(&mut self, question: ImageQuestion) -> Option<Result<&'a ImageAnswer, String>> {
        match self.ask(Question::Image(question))? {
            Answer::Image(Ok(image)) => Some(Ok(image)),
            Answer::Image(Err(why)) => Some(Err(why.clone())),
            Answer::File(_) => Some(Err("the answer is none to the question".into())),
        }
    }

    /// Whether nothing has to be asked.
    pub fn is_answered(&self) -> bool {
        self.open.is_empty()
    }

    /// What has to be asked.
    pub fn into_open(self) -> Vec<Question> {
        self.open
    }
}
