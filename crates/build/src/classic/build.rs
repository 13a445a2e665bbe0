//! A classic build that goes on, and what it tells its client.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use api::ProgressMessage;
use dockerfile::shell::Lexer;
use events::Events;
use image::Transfers;
use image::pull::Lines;
use model::lock::Mutex;
use model::platform::Platform;
use model::reference::ImageRef;
use model::{Error, Result};
use registry::Credentials;
use tokio::sync::mpsc;

use super::args::Arguments;
use super::context::Context;
use super::source::Source;
use super::stage::Stage;
use crate::job::{Event, Job};
use crate::result::Unmade;

/// What a client asks for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The names that the image gets.
    pub tags: Vec<ImageRef>,
    /// The name of the Dockerfile; empty: the usual one.
    pub dockerfile: String,
    /// The stage to be built; empty: the last.
    pub target: String,
    /// Build arguments; those without a value are only told of when nobody uses them.
    pub arguments: BTreeMap<String, Option<String>>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// Images whose steps may be used.
    pub cache_from: Vec<String>,
    /// No earlier result is used.
    pub no_cache: bool,
    /// Base images are pulled though they are here.
    pub pull: bool,
    /// Nothing is told but the image's id.
    pub quiet: bool,
    /// It is told that containers of steps are removed.
    pub removes: bool,
    /// The platform of base images that say none.
    pub platform: Option<Platform>,
    /// Names and addresses for the hosts files of steps.
    pub extra_hosts: Vec<(String, String)>,
    /// What registries are shown, by their names.
    pub credentials: BTreeMap<String, Credentials>,
}

/// Who hears of a build.
pub struct Client {
    /// Lines of the answer.
    pub lines: Lines,
    /// Events of the job.
    pub events: mpsc::Receiver<Event>,
    /// Events of the engine.
    pub bus: Events,
    /// Downloads at one time.
    pub transfers: Transfers,
}

/// Why a build failed, and the code of a program that is to blame.
#[derive(Debug)]
pub struct Failed {
    /// For the client.
    pub error: Error,
    /// 1 if there is none.
    pub code: i32,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed { error, code: 0 }
    }
}

/// Bytes of text that a quiet build holds back; the oldest lines go first.
const HELD: usize = 1 << 20;

/// Lines that are held back.
#[derive(Default)]
pub(super) struct HeldLines {
    lines: VecDeque<ProgressMessage>,
    bytes: usize,
}

impl HeldLines {
    fn hold(&mut self, line: ProgressMessage) {
        self.bytes += bytes_of(&line);
        self.lines.push_back(line);
        while self.bytes > HELD {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= bytes_of(&oldest);
        }
    }
}

/// What a line takes, about.
fn bytes_of(line: &ProgressMessage) -> usize {
    line.stream.len() + size_of_val(line)
}

/// A build that goes on.
pub(super) struct Build {
    pub job: Arc<Job>,
    pub options: Options,
    pub client: Client,
    pub context: Context,
    pub lexer: Lexer,
    pub arguments: Arguments,
    /// Images whose steps may be used.
    pub sources: Vec<Source>,
    /// Those that are done, in order.
    pub stages: Vec<Stage>,
    /// Steps that were told of.
    pub step: usize,
    pub total: usize,
    /// The program that runs, as it is told of.
    pub running: Option<String>,
    /// What a quiet build has not told.
    pub held: Mutex<HeldLines>,
}

impl Build {
    /// `Step 2/4 : RUN true`
    pub async fn tell_step(&mut self, text: &str) -> Result<()> {
        self.step += 1;
        self.say(format!("Step {}/{} : {text}", self.step, self.total)).await?;
        self.say("\n".into()).await
    }

    /// Tells the client something that a person reads.
    pub async fn say(&self, text: String) -> Result<()> {
        self.line(ProgressMessage::stream(text)).await
    }

    pub async fn line(&self, line: ProgressMessage) -> Result<()> {
        if self.options.quiet {
            self.held.lock().hold(line);
            return Ok(());
        }
        self.send(line).await
    }

    /// What a quiet build has not told: its client hears of it when the build fails.
    pub async fn tell_held(&self) -> Result<()> {
        let held = std::mem::take(&mut *self.held.lock());
        for line in held.lines {
            self.send(line).await?;
        }
        Ok(())
    }

    async fn send(&self, line: ProgressMessage) -> Result<()> {
        image::pull::send(&self.client.lines, line).await.inspect_err(|_| self.job.cancel.cancel())
    }

    /// Waits for a step and passes on what its program writes meanwhile.
    pub async fn watch<T>(&mut self, work: impl Future<Output = Result<T, Unmade>>) -> Result<T, Unmade> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                Some(event) = self.client.events.recv() => self.show(event).await?,
                done = &mut work => {
                    while let Ok(event) = self.client.events.try_recv() {
                        self.show(event).await?;
                    }
                    return done;
                }
            }
        }
    }

    pub async fn show(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Running { id, .. } => {
                self.running = Some(id.short().to_owned());
                self.say(format!(" ---> Running in {}\n", id.short())).await
            }
            Event::Output { stream, bytes, .. } => {
                let text = String::from_utf8_lossy(&bytes);
                match stream {
                    2 => self.say(format!("\u{1b}[91m{text}\u{1b}[0m")).await,
                    _ => self.say(text.into_owned()).await,
                }
            }
            Event::Started { .. } | Event::Ended { .. } => Ok(()),
        }
    }

    /// The program of a step is gone.
    pub async fn tell_removed(&mut self) -> Result<()> {
        match self.running.take() {
            Some(id) if self.options.removes => self.say(format!(" ---> Removed intermediate container {id}\n")).await,
            _ => Ok(()),
        }
    }
}

/// Variables in the reader's form.
pub(super) fn environment(values: impl IntoIterator<Item = (String, String)>) -> dockerfile::shell::Env {
    let mut env = dockerfile::shell::Env::default();
    values.into_iter().for_each(|(name, value)| env.set(name, value));
    env
}

/// The refusal of what only BuildKit can do.
pub(super) fn needs_buildkit(what: &str) -> Error {
    Error::system(format!(
        "the {what} requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build images with BuildKit enabled"
    ))
}
