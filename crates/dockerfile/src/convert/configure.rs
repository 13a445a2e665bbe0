//! Instructions that change how containers of the image run.

use std::borrow::Cow;

use bollard_buildkit_proto::pb;
use model::mount::clean;
use model::time::Timestamp;
use serde_json::Map;

use super::arguments::NOT_IN_ENV;
use super::at::{At, Result, refuse};
use super::capture::Known;
use super::plan::Plan;
use super::stage::StageState;
use super::{advice, title};
use crate::image::{HealthCheck, Image, Layer};
use crate::instruction::{Argument, CommandLine, Health, Instruction, Setting};
use crate::lint::{Linter, rule};
use crate::llb::{About, Action, MakeDirectory, Owner, Vertex};
use crate::shell::Variables as _;
use crate::text::{plain_list, quote, quoted_list};

const NANOS: i64 = 1_000_000_000;

/// The time of the build as rows of the history have it.
fn time(plan: &Plan<'_>) -> Option<String> {
    plan.epoch.map(|seconds| Timestamp::from_unix_seconds(seconds).rfc3339())
}

/// Adds a row to the history of a stage.
pub(super) fn note(plan: &mut Plan<'_>, at: &At<'_>, text: String, layer: Layer) {
    let time = time(plan);
    plan.stages[at.stage].image.note(text, layer, time.as_deref());
}

/// A directory: an absolute one as it was written, another below the last one.
pub(super) fn directory(path: &str, last: &str) -> String {
    match path {
        "" => last.to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        path => clean(&format!("/{last}/{path}")),
    }
}

/// `WORKDIR`
pub(super) fn workdir(plan: &mut Plan<'_>, at: &At<'_>, path: &str, linter: &mut Linter) {
    let command = &at.step.command;
    let state = &mut plan.stages[at.stage];
    if !state.directory_set && !path.starts_with('/') {
        let message = format!("Relative workdir {} can have unexpected results if the base image changes", quote(path));
        linter.report(&rule::WORKDIR_RELATIVE_PATH, command.place(), message);
    }
    state.directory_set = true;
    let path = directory(path, &state.image.config.working_dir);
    state.image.config.working_dir.clone_from(&path);
    state.state.directory.clone_from(&path);
    if path != "/" {
        let text = title::of_command(&command.text, &plan.lexer, &state.state.env);
        let about = step_about(plan, at, &text);
        let form = pb::FileActionMkDir {
            path: clean(&path),
            mode: 0o755,
            make_parents: true,
            owner: None,
            timestamp: plan.epoch.map_or(-1, |seconds| seconds.saturating_mul(NANOS)),
        };
        let state = &mut plan.stages[at.stage];
        let owner = Owner::parse(&state.image.config.user);
        let action = Action::Directory(MakeDirectory { form, owner });
        let output = plan.graph.add(Vertex::File(state.state.output, vec![action]), about);
        state.state = state.state.with(output);
    }
    let layer = if path == "/" { Layer::Unchanged } else { Layer::Changed };
    note(plan, at, format!("WORKDIR {path}"), layer);
}

/// What is said of the step of a file operation: its title and where it stands.
pub(super) fn step_about(plan: &mut Plan<'_>, at: &At<'_>, text: &str) -> About {
    let title = next_title(plan, at, text);
    let mut about = About::named(title);
    about.lines = vec![at.step.command.lines];
    about.needs("file.base");
    about
}

/// The title of the next step on the platform of its stage.
pub(super) fn next_title(plan: &mut Plan<'_>, at: &At<'_>, text: &str) -> String {
    let multiple = plan.job.options.multiple;
    let state = &mut plan.stages[at.stage];
    let (platform, env) = (state.platform.clone(), state.state.env.clone());
    title::next(state, text, &title::Shown { multiple, platform: platform.as_ref(), variables: &env })
}

/// `ENV`
pub(super) fn env(plan: &mut Plan<'_>, at: &At<'_>, settings: &[Setting], linter: &mut Linter) {
    let mut text = String::from("ENV");
    for setting in settings {
        legacy(at, setting, linter);
        advice::secret_name("ENV", &setting.name, at.step.command.place(), linter);
        text += &format!(" {}={}", setting.name, setting.value);
        let state = &mut plan.stages[at.stage];
        state.state.env.set(&setting.name, &setting.value);
        state.image.set_env(&setting.name, &setting.value);
    }
    note(plan, at, text, Layer::Unchanged);
}

/// `LABEL`
pub(super) fn label(plan: &mut Plan<'_>, at: &At<'_>, settings: &[Setting], linter: &mut Linter) {
    let mut text = String::from("LABEL");
    for setting in settings {
        legacy(at, setting, linter);
        text += &format!(" {}={}", setting.name, setting.value);
        plan.stages[at.stage].image.config.labels.insert(setting.name.clone(), setting.value.clone());
    }
    note(plan, at, text, Layer::Unchanged);
}

fn legacy(at: &At<'_>, setting: &Setting, linter: &mut Linter) {
    if setting.legacy {
        let keyword = &at.step.command.keyword;
        let message =
            format!("\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format");
        linter.report(&rule::LEGACY_KEY_VALUE_FORMAT, at.step.command.place(), message);
    }
}

/// `ARG`
pub(super) fn argument(plan: &mut Plan<'_>, at: &At<'_>, arguments: &[Argument], linter: &mut Linter) -> Result<()> {
    let mut words = Vec::new();
    let command = &at.step.command;
    for argument in arguments {
        let name = &argument.name;
        advice::secret_name("ARG", name, command.place(), linter);
        let given = plan.given.get(name).cloned();
        let of_file = plan.global.value(name).filter(|_| given.is_none() && argument.value.is_none());
        let inherited = of_file.is_some();
        let value = match (given, of_file.map(str::to_owned), &argument.value) {
            (Some(value), ..) | (None, Some(value), _) => Some(value),
            (None, None, Some(default)) => {
                let state = &plan.stages[at.stage];
                let found = plan.lexer.expand(default, &state.state.env);
                let missing = found.as_ref().map(|found| found.missing.clone()).unwrap_or_default();
                advice::undefined(state, &missing, command.place(), linter);
                let value = found?.text;
                plan.spend(value.len())?;
                Some(value)
            }
            (None, None, None) => None,
        };
        let state = &mut plan.stages[at.stage];
        let mut known = Known::new(argument, command.lines);
        if let Some(value) = &value {
            if !NOT_IN_ENV.contains(&name.as_str()) {
                state.state.env.set(name, value);
            }
            known.value.clone_from(value);
        }
        if !inherited {
            state.outline.all.insert(name.clone(), known);
        }
        state.outline.used.insert(name.clone());
        words.push(value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}={value}")));
        state.arguments.push((name.clone(), value));
    }
    note(plan, at, format!("ARG {}", words.join(" ")), Layer::Unchanged);
    Ok(())
}

/// `USER`
pub(super) fn user(plan: &mut Plan<'_>, at: &At<'_>, user: &str) {
    let state = &mut plan.stages[at.stage];
    user.clone_into(&mut state.state.user);
    user.clone_into(&mut state.image.config.user);
    note(plan, at, format!("USER {user}"), Layer::Unchanged);
}

/// `VOLUME`
pub(super) fn volume(plan: &mut Plan<'_>, at: &At<'_>, volumes: &[String]) -> Result<()> {
    if volumes.iter().any(String::is_empty) {
        return refuse("VOLUME specified can not be an empty string");
    }
    let config = &mut plan.stages[at.stage].image.config;
    config.volumes.extend(volumes.iter().map(|volume| (volume.clone(), Map::new())));
    note(plan, at, format!("VOLUME {}", plain_list(volumes)), Layer::Unchanged);
    Ok(())
}

/// `STOPSIGNAL`
pub(super) fn stop_signal(plan: &mut Plan<'_>, at: &At<'_>, signal: &str) -> Result<()> {
    model::signal::parse_any(signal)?;
    signal.clone_into(&mut plan.stages[at.stage].image.config.stop_signal);
    note(plan, at, format!("STOPSIGNAL {signal}"), Layer::Unchanged);
    Ok(())
}

/// Instructions whose words are taken as they are.
pub(super) fn plain(plan: &mut Plan<'_>, at: &At<'_>, instruction: &Instruction, linter: &mut Linter) {
    let lines = at.step.command.lines;
    let state = &mut plan.stages[at.stage];
    let text = match instruction {
        Instruction::Cmd(line) => {
            advice::once(&at.step.command, &mut state.last.cmd, linter);
            let words = command(state, line, at, linter);
            let text = format!("CMD {}", quoted_list(&words));
            state.image.config.cmd = words;
            state.image.config.args_escaped = true;
            text
        }
        Instruction::Entrypoint(line) => {
            advice::once(&at.step.command, &mut state.last.entrypoint, linter);
            let words = command(state, line, at, linter);
            let text = format!("ENTRYPOINT {}", quoted_list(&words));
            state.image.config.entrypoint = words;
            // The command of the image below is none for another entry point.
            if state.last.cmd.is_none() {
                state.image.config.cmd = Vec::new();
            }
            text
        }
        Instruction::HealthCheck(health) => {
            advice::once(&at.step.command, &mut state.last.health, linter);
            state.image.config.healthcheck = Some(HealthCheck::from(health));
            format!("HEALTHCHECK {}", shown(health))
        }
        Instruction::Shell(words) => {
            state.image.config.shell.clone_from(words);
            format!("SHELL {}", plain_list(words))
        }
        Instruction::Maintainer(text) => {
            state.image.author.clone_from(text);
            format!("MAINTAINER {text}")
        }
        Instruction::OnBuild(text) => {
            state.image.config.on_build.push(text.clone());
            return;
        }
        _ => unreachable!("line {}: taken elsewhere", lines.first),
    };
    note(plan, at, text, Layer::Unchanged);
}

fn command(state: &StageState, line: &CommandLine, at: &At<'_>, linter: &mut Linter) -> Vec<String> {
    if !line.shell {
        return line.words.clone();
    }
    if state.image.config.shell.is_empty() {
        let keyword = &at.step.command.keyword;
        let message =
            format!("JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals");
        linter.report(&rule::JSON_ARGS_RECOMMENDED, at.step.command.place(), message);
    }
    in_shell(&state.image, &line.words)
}

/// Words for the shell of an image.
pub(super) fn in_shell(image: &Image, words: &[String]) -> Vec<String> {
    let shell: Cow<'_, [String]> = match image.config.shell.as_slice() {
        [] => Cow::Owned(vec!["/bin/sh".to_owned(), "-c".to_owned()]),
        shell => Cow::Borrowed(shell),
    };
    shell.iter().cloned().chain([words.join(" ")]).collect()
}

/// As Go shows the structure, fields with their names.
fn shown(health: &Health) -> String {
    let duration = model::duration::format;
    format!(
        "{{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        plain_list(&health.test),
        duration(health.interval),
        duration(health.timeout),
        duration(health.start_period),
        duration(health.start_interval),
        health.retries
    )
}
