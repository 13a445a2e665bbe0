//! Instructions that change what a container of the image does, and no file.

use std::sync::Arc;

use dockerfile::instruction::{Argument, Command, CommandLine, Health, Instruction, Setting};
use dockerfile::shell::Env;
use events::now;
use model::digest::Digest;
use model::id::ContainerId;
use model::time::Timestamp;
use model::{Error, Result, duration, signal};

use super::build::{Build, Failed, environment};
use super::stage::Stage;
use crate::key::Key;
use crate::record::{Kind, Record};

impl Build {
    /// One instruction. `is_given`: it is the client's, and not expanded.
    pub(super) async fn dispatch(
        &mut self,
        stage: &mut Stage,
        command: &Command,
        is_given: bool,
    ) -> Result<(), Failed> {
        let words = Words { env: self.variables(stage), build: self, is_given };
        let comment = match &command.instruction {
            Instruction::Run(run) => return self.run(stage, run).await,
            Instruction::Copy(copy) => {
                let copy = words.transfer(copy)?;
                return self.copy(stage, &copy, "COPY").await;
            }
            Instruction::Add(add) => {
                let add = words.transfer(add)?;
                return self.copy(stage, &add, "ADD").await;
            }
            Instruction::Workdir(path) => {
                let path = words.one(path)?;
                return self.workdir(stage, &path).await;
            }
            Instruction::Env(settings) => env(stage, words.settings(settings)?),
            Instruction::Label(settings) => label(stage, words.settings(settings)?),
            Instruction::Arg(arguments) => {
                let arguments = words.arguments(arguments)?;
                self.arg(arguments)
            }
            Instruction::Maintainer(name) => {
                stage.author.clone_from(name);
                format!("MAINTAINER {name}")
            }
            Instruction::Cmd(line) => {
                stage.config.cmd = command_line(stage, line)?;
                stage.config.args_escaped = false;
                stage.has_command = !line.words.is_empty();
                format!("CMD {}", quoted(&stage.config.cmd))
            }
            Instruction::Entrypoint(line) => {
                stage.config.entrypoint = command_line(stage, line)?;
                stage.config.args_escaped = false;
                if !stage.has_command {
                    stage.config.cmd.clear();
                }
                format!("ENTRYPOINT {}", quoted(&stage.config.entrypoint))
            }
            Instruction::HealthCheck(health) => self.health(stage, health).await?,
            Instruction::Expose(ports) => expose(stage, words.split(ports)?)?,
            Instruction::User(user) => {
                stage.config.user = words.one(user)?;
                format!("USER {}", stage.config.user)
            }
            Instruction::Volume(paths) => volume(stage, words.each(paths)?)?,
            Instruction::StopSignal(text) => {
                let text = words.one(text)?;
                signal::parse(&text)?;
                stage.config.stop_signal.clone_from(&text);
                format!("STOPSIGNAL {text}")
            }
            Instruction::Shell(words) => {
                stage.config.shell.clone_from(words);
                format!("SHELL [{}]", words.join(" "))
            }
            Instruction::OnBuild(text) => {
                stage.config.on_build.push(text.clone());
                format!("ONBUILD {text}")
            }
        };
        self.commit(stage, &comment).await
    }

    /// Variables that words of the stage may use: those of the image, then arguments of other names.
    fn variables(&self, stage: &Stage) -> Env {
        let own = stage.config.env.iter().filter_map(|line| line.split_once('='));
        let mut env = environment(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
        for (name, value) in self.free_arguments(stage) {
            env.set(name, value);
        }
        env
    }

    /// Arguments that the stage may use and that its environment does not hide.
    pub(super) fn free_arguments(&self, stage: &Stage) -> Vec<(String, String)> {
        let hidden = |name: &str| stage.config.env.iter().any(|line| line.split('=').next() == Some(name));
        self.arguments.of_stage().into_iter().filter(|(name, _)| !hidden(name)).collect()
    }

    /// Ends an instruction that has changed no file.
    pub(super) async fn commit(&mut self, stage: &mut Stage, comment: &str) -> Result<(), Failed> {
        let created_by = [stage.shell(), vec!["#(nop) ".into(), comment.into()]].concat().join(" ");
        if self.adopt(stage, &created_by).await? {
            return Ok(());
        }
        let key = self.next_key(stage, &created_by, None)?;
        let found = if self.options.no_cache { None } else { self.job.look_up(&key) };
        let created = match found {
            Some(_) => {
                self.say(" ---> Using cache\n".into()).await?;
                self.created(&key)
            }
            None => {
                // Nothing runs; clients read these lines all the same.
                let id = ContainerId::from_bytes(sys::random::bytes32());
                self.say(format!(" ---> Running in {}\n", id.short())).await?;
                self.running = Some(id.short().to_owned());
                let now = now();
                let outputs = stage.files.outputs.iter().map(|(index, chain)| (*index, chain.to_vec())).collect();
                let description = comment.to_owned();
                let (kind, parents) = (Kind::Internal, Vec::new());
                let record = Record { outputs, kind, description, created: now, used: now, uses: 1, size: 0, parents };
                self.job.keep(&key, Arc::new(record), None);
                self.tell_removed().await?;
                now
            }
        };
        stage.key = key;
        stage.note(created_by, created, true);
        Ok(())
    }

    /// What a stage depends on after a step; `files` is what the step's files count as.
    pub(super) fn next_key(&self, stage: &Stage, created_by: &str, files: Option<&Digest>) -> Result<Digest> {
        let mut key = Key::new("classic");
        key.part(stage.key.as_str().as_bytes()).part(created_by.as_bytes()).part(&serde_json::to_vec(&stage.config)?);
        key.part(stage.author.as_bytes());
        if let Some(files) = files {
            key.part(files.as_str().as_bytes());
        }
        Ok(key.finish())
    }

    /// When a result was made.
    pub(super) fn created(&self, key: &Digest) -> Timestamp {
        self.job.builder.records.find(key).map_or_else(now, |(_, record)| record.created)
    }

    fn arg(&mut self, arguments: Vec<(String, Option<String>)>) -> String {
        let mut told = Vec::new();
        for (name, value) in arguments {
            told.push(value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}={value}")));
            self.arguments.add(&name, value);
        }
        format!("ARG {}", told.join(" "))
    }

    async fn health(&mut self, stage: &mut Stage, health: &Health) -> Result<String> {
        let old = stage.config.healthcheck.as_ref().map(|old| old.test.clone()).unwrap_or_default();
        if old.first().is_some_and(|first| first != "NONE") {
            self.say(format!("Note: overriding previous HEALTHCHECK: [{}]\n", old.join(" "))).await?;
        }
        let Health { test, interval, timeout, start_period, start_interval, retries } = health.clone();
        let [every, within, first, often] = [interval, timeout, start_period, start_interval].map(duration::format);
        let comment = format!(
            "HEALTHCHECK &{{Test:[{}] Interval:{every} Timeout:{within} StartPeriod:{first} StartInterval:{often} Retries:{retries}}}",
            test.join(" ")
        );
        let healthcheck = api::HealthConfig { test, interval, timeout, start_period, start_interval, retries };
        stage.config.healthcheck = Some(healthcheck);
        Ok(comment)
    }
}

/// Words of an instruction, with their variables filled in.
struct Words<'b> {
    env: Env,
    build: &'b Build,
    is_given: bool,
}

impl Words<'_> {
    fn one(&self, text: &str) -> Result<String> {
        if self.is_given {
            return Ok(text.to_owned());
        }
        self.build.lexer.word(text, &self.env).map_err(|error| Error::invalid(error.message()))
    }

    fn each(&self, texts: &[String]) -> Result<Vec<String>> {
        texts.iter().map(|text| self.one(text)).collect()
    }

    /// Words that may become several.
    fn split(&self, texts: &[String]) -> Result<Vec<String>> {
        let expand = |text: &String| self.build.lexer.expand(text, &self.env).map(|expansion| expansion.words);
        let words: Result<Vec<_>, _> = texts.iter().map(expand).collect();
        Ok(words.map_err(|error| Error::invalid(error.message()))?.concat())
    }

    fn settings(&self, settings: &[Setting]) -> Result<Vec<(String, String)>> {
        settings.iter().map(|setting| Ok((self.one(&setting.name)?, self.one(&setting.value)?))).collect()
    }

    fn arguments(&self, arguments: &[Argument]) -> Result<Vec<(String, Option<String>)>> {
        let read = |argument: &Argument| {
            let value = argument.value.as_ref().map(|value| self.one(value)).transpose()?;
            Ok((self.one(&argument.name)?, value))
        };
        arguments.iter().map(read).collect()
    }

    fn transfer(&self, transfer: &dockerfile::instruction::Transfer) -> Result<dockerfile::instruction::Transfer> {
        Ok(dockerfile::instruction::Transfer {
            sources: self.each(&transfer.sources)?,
            destination: self.one(&transfer.destination)?,
            chown: self.one(&transfer.chown)?,
            ..transfer.clone()
        })
    }
}

fn env(stage: &mut Stage, settings: Vec<(String, String)>) -> String {
    let mut told = String::from("ENV");
    for (name, value) in settings {
        let line = format!("{name}={value}");
        told = format!("{told} {line}");
        match stage.config.env.iter_mut().find(|known| known.split('=').next() == Some(name.as_str())) {
            Some(place) => *place = line,
            None => stage.config.env.push(line),
        }
    }
    told
}

fn label(stage: &mut Stage, settings: Vec<(String, String)>) -> String {
    let mut told = String::from("LABEL");
    for (name, value) in settings {
        told = format!("{told} {name}={value}");
        stage.config.labels.insert(name, value);
    }
    told
}

fn expose(stage: &mut Stage, ports: Vec<String>) -> Result<String> {
    let comment = format!("EXPOSE {}", ports.join(" "));
    stage.config = image::apply_changes(std::mem::take(&mut stage.config), std::slice::from_ref(&comment))?;
    Ok(comment)
}

fn volume(stage: &mut Stage, paths: Vec<String>) -> Result<String> {
    for path in &paths {
        let path = path.trim();
        if path.is_empty() {
            return Err(Error::invalid("VOLUME specified can not be an empty string"));
        }
        stage.config.volumes.insert(path.to_owned(), Default::default());
    }
    Ok(format!("VOLUME [{}]", paths.join(" ")))
}

/// The words of a program: a shell's before a text that a shell reads.
pub(super) fn command_line(stage: &Stage, line: &CommandLine) -> Result<Vec<String>> {
    if !line.documents.is_empty() {
        return Err(super::build::needs_buildkit("use of inline documents"));
    }
    Ok(if line.shell { [stage.shell(), line.words.clone()].concat() } else { line.words.clone() })
}

/// A list of words as Go shows it with `%q`.
fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| serde_json::Value::from(word.as_str()).to_string()).collect();
    format!("[{}]", words.join(" "))
}
