//! A client and an engine in memory: files of contexts, images by their names.

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb;
use dockerfile::{Answer, Answers, Build, Failure, ImageAnswer, Outcome, Question, Request, answer};
use model::platform::Platform;
use prost::Message as _;

/// Rounds of questions, of which three are the most that is ever needed.
const MAX_ROUNDS: usize = 10;

/// What a build can see.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub request: Request,
    /// `dockerfile/Dockerfile`, `context/.dockerignore`: the name of the source, then the path.
    pub files: BTreeMap<String, String>,
    /// Configurations.
    pub images: BTreeMap<String, String>,
    /// Of every image; empty: not known.
    pub digest: String,
    /// What was asked for.
    pub asked: Vec<Question>,
}

/// An image with a shell, as most cases begin with it.
pub const BUSYBOX: &str = r#"{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["sh"]},
"rootfs":{"type":"layers","diff_ids":["sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]},
"history":[{"created":"2024-01-01T00:00:00Z","created_by":"BusyBox"}]}"#;

impl World {
    /// With a Dockerfile and busybox.
    pub fn new(dockerfile: &str) -> World {
        let mut world = World::default();
        world.request.platforms = vec![Platform::new("linux", "amd64", "")];
        world.request.session = "session".into();
        world.files.insert("dockerfile/Dockerfile".into(), dockerfile.into());
        world.images.insert("docker.io/library/busybox:latest".into(), BUSYBOX.into());
        world
    }

    /// With an attribute of the request.
    pub fn with(mut self, key: &str, value: &str) -> World {
        self.request.attributes.insert(key.into(), value.into());
        self
    }

    /// With a file.
    pub fn file(mut self, path: &str, content: &str) -> World {
        self.files.insert(path.into(), content.into());
        self
    }

    /// Answers questions until there are none.
    pub fn solve(&mut self) -> Result<Outcome, Failure> {
        let mut answers = Answers::default();
        for _ in 0..MAX_ROUNDS {
            match answer(&self.request, &answers)? {
                Outcome::Asks(questions) => {
                    assert!(!questions.is_empty(), "asks nothing and does nothing");
                    for question in questions {
                        let answer = self.answer(&question);
                        answers.insert(&question, answer);
                        self.asked.push(question);
                    }
                }
                outcome => return Ok(outcome),
            }
        }
        panic!("asks without end: {:?}", self.asked)
    }

    /// The build; panics if there is none.
    pub fn build(&mut self) -> Build {
        match self.solve() {
            Ok(Outcome::Build(build)) => *build,
            other => panic!("{other:?}"),
        }
    }

    /// Why there is no build.
    pub fn refused(&mut self) -> Failure {
        match self.solve() {
            Err(failure) => failure,
            other => panic!("{other:?}"),
        }
    }

    fn answer(&self, question: &Question) -> Answer {
        match question {
            Question::File { definition, path, .. } => {
                let source = ops(definition).into_iter().find_map(|op| match op.op {
                    Some(pb::op::Op::Source(source)) => Some(source.identifier),
                    _ => None,
                });
                let source = source.unwrap_or_default();
                let name = source.strip_prefix("local://").unwrap_or(&source);
                let content = self.files.get(&format!("{name}/{path}"));
                Answer::File(Ok(content.map(|content| content.clone().into_bytes())))
            }
            Question::Image(question) => Answer::Image(match self.images.get(&question.reference) {
                None => Err(format!("failed to resolve source metadata for {}: not found", question.reference)),
                Some(config) => Ok(ImageAnswer {
                    reference: question.reference.clone(),
                    digest: self.digest.clone(),
                    config: config.clone().into_bytes(),
                }),
            }),
        }
    }
}

/// The operations of a definition, decoded, the last without an operation.
pub fn ops(definition: &pb::Definition) -> Vec<pb::Op> {
    definition.def.iter().map(|bytes| pb::Op::decode(bytes.as_slice()).unwrap()).collect()
}

/// Titles of steps, in the order of the definition.
pub fn titles(definition: &pb::Definition) -> Vec<String> {
    let names = definition.def.iter().map(|bytes| dockerfile::llb::name(bytes).to_string());
    let titles = names.filter_map(|name| definition.metadata.get(&name)?.description.get("llb.customname").cloned());
    titles.collect()
}
