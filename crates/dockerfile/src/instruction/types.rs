//! What a Dockerfile consists of.

use super::command_line::CommandLine;
use super::copy::Transfer;
use super::run::Run;
use crate::lines::Lines;
use crate::lint::Place;

/// `FROM` and what follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stage {
    /// In lower case; empty if it has none.
    pub name: String,
    /// What it is built on, as written.
    pub source: String,
    /// Of `--platform`, as written.
    pub platform: String,
    /// `FROM` as written.
    pub keyword: String,
    /// The instruction as written.
    pub text: String,
    /// The comment that describes it.
    pub description: String,
    /// Where `FROM` stands.
    pub lines: Lines,
    /// Those above `FROM`.
    pub comments: Vec<String>,
    /// Its instructions.
    pub commands: Vec<Command>,
}

impl Stage {
    /// Where findings about it belong.
    pub fn place(&self) -> Place<'_> {
        Place { lines: self.lines, comments: &self.comments }
    }
}

/// An instruction of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// As written: `RUN`, `run`.
    pub keyword: String,
    /// As written, on one line: what the classic builder shows as a step.
    pub text: String,
    /// Where it stands.
    pub lines: Lines,
    /// Those above it.
    pub comments: Vec<String>,
    /// What it says.
    pub instruction: Instruction,
}

impl Command {
    /// Where findings about it belong.
    pub fn place(&self) -> Place<'_> {
        Place { lines: self.lines, comments: &self.comments }
    }
}

/// What an instruction says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// `ADD`
    Add(Transfer),
    /// `ARG`
    Arg(Vec<Argument>),
    /// `CMD`
    Cmd(CommandLine),
    /// `COPY`
    Copy(Transfer),
    /// `ENTRYPOINT`
    Entrypoint(CommandLine),
    /// `ENV`
    Env(Vec<Setting>),
    /// `EXPOSE`, sorted.
    Expose(Vec<String>),
    /// `HEALTHCHECK`
    HealthCheck(Health),
    /// `LABEL`
    Label(Vec<Setting>),
    /// `MAINTAINER`
    Maintainer(String),
    /// `ONBUILD`: the text of the instruction for later, its inline documents behind it.
    OnBuild(String),
    /// `RUN`
    Run(Box<Run>),
    /// `SHELL`
    Shell(Vec<String>),
    /// `STOPSIGNAL`
    StopSignal(String),
    /// `USER`
    User(String),
    /// `VOLUME`
    Volume(Vec<String>),
    /// `WORKDIR`
    Workdir(String),
}

/// A name and a value of `ENV` or `LABEL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Variables in it are not yet filled in.
    pub name: String,
    /// The same.
    pub value: String,
    /// Whether it is written with a blank in the place of `=`.
    pub legacy: bool,
}

/// A build argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// Its default, variables in it not yet filled in.
    pub value: Option<String>,
    /// The comment that describes it.
    pub description: String,
}

/// How the health of a container is found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// `NONE`, `CMD` with words, or `CMD-SHELL` with a text.
    pub test: Vec<String>,
    /// Nanoseconds; 0 in all of them: as the engine does.
    pub interval: i64,
    /// Nanoseconds.
    pub timeout: i64,
    /// Nanoseconds.
    pub start_period: i64,
    /// Nanoseconds.
    pub start_interval: i64,
    /// Failures in a row.
    pub retries: i64,
}
