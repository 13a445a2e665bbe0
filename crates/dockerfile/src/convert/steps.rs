//! Instruction after instruction.

use std::collections::{BTreeMap, BTreeSet};

use bollard_buildkit_proto::pb;
use model::platform::Platform;

use super::arguments::{SCAN_CONTEXT, SCAN_STAGE};
use super::at::{At, Result, word, word_by};
use super::job::Conversion;
use super::plan::Plan;
use super::{configure, copy, expose, outline, run, triggers};
use crate::context::json_list;
use crate::image::DEFAULT_PATH;
use crate::instruction::{Instruction, Setting, Transfer};
use crate::lint::Linter;
use crate::llb::Output;
use crate::platform::normalized;
use crate::shell::{Lexer, Quotes, Variables as _};
use crate::text::boolean;

/// Converts every stage that is needed.
pub(super) fn all(plan: &mut Plan<'_>, target: usize, linter: &mut Linter) -> Result<()> {
    let reachable = plan.reachable(target);
    for at in 0..plan.stages.len() {
        let wanted = reachable.contains(&at) && !plan.stages[at].progress.done;
        if wanted || plan.wants_all() {
            stage(plan, at, linter)?;
        }
    }
    plan.uses(target, "/");
    Ok(())
}

fn stage(plan: &mut Plan<'_>, at: usize, linter: &mut Linter) -> Result<()> {
    triggers::inherit(plan, at)?;
    let default = plan.platform.clone();
    let state = &mut plan.stages[at];
    state.progress.done = true;
    state.platform.get_or_insert(default);
    if !state.image.config.env.iter().any(|line| line.starts_with("PATH=")) {
        state.image.config.env.push(format!("PATH={DEFAULT_PATH}"));
    }
    for line in &state.image.config.env {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        state.state.env.set(name, value);
    }
    if !state.image.config.working_dir.is_empty() {
        let directory = configure::directory(&state.image.config.working_dir.clone(), "/");
        state.state.directory.clone_from(&directory);
        state.image.config.working_dir = directory;
    }
    state.state.user.clone_from(&state.image.config.user);
    for step in std::mem::take(&mut state.steps) {
        let lines = step.command.lines;
        let done = instruction(plan, &At { stage: at, step: &step }, linter);
        done.map_err(|error| error.at(lines))?;
        // What is based on it asks for its triggers; they have been asked for already.
        plan.stages[at].steps.push(step);
    }
    Ok(())
}

fn instruction(plan: &mut Plan<'_>, at: &At<'_>, linter: &mut Linter) -> Result<()> {
    plan.stages[at.stage].count.trigger = at.step.trigger;
    plan.count_variables(at.stage)?;
    match &at.step.command.instruction {
        Instruction::Add(add) => copy::add(plan, at, &transfer(plan, at, add, linter)?, linter),
        Instruction::Copy(from) => copy::copy(plan, at, &transfer(plan, at, from, linter)?, linter),
        Instruction::Run(command) => run::run(plan, at, command, linter),
        Instruction::Workdir(path) => {
            let path = word(plan, at, path, linter)?;
            configure::workdir(plan, at, &path, linter);
            Ok(())
        }
        Instruction::Env(settings) => {
            let settings = pairs(plan, at, settings, linter)?;
            configure::env(plan, at, &settings, linter);
            Ok(())
        }
        Instruction::Label(settings) => {
            let settings = pairs(plan, at, settings, linter)?;
            configure::label(plan, at, &settings, linter);
            Ok(())
        }
        Instruction::Expose(ports) => expose::expose(plan, at, ports, linter),
        Instruction::Arg(arguments) => configure::argument(plan, at, arguments, linter),
        Instruction::User(user) => {
            let user = word(plan, at, user, linter)?;
            configure::user(plan, at, &user);
            Ok(())
        }
        Instruction::Volume(volumes) => {
            let volumes: Vec<String> =
                volumes.iter().map(|volume| word(plan, at, volume, linter)).collect::<Result<_>>()?;
            configure::volume(plan, at, &volumes)
        }
        Instruction::StopSignal(signal) => {
            let signal = word(plan, at, signal, linter)?;
            configure::stop_signal(plan, at, &signal)
        }
        other => {
            configure::plain(plan, at, other, linter);
            Ok(())
        }
    }
}

fn pairs(plan: &Plan<'_>, at: &At<'_>, settings: &[Setting], linter: &mut Linter) -> Result<Vec<Setting>> {
    let mut filled = Vec::with_capacity(settings.len());
    for setting in settings {
        let name = word(plan, at, &setting.name, linter)?;
        let value = word(plan, at, &setting.value, linter)?;
        filled.push(Setting { name, value, legacy: setting.legacy });
    }
    Ok(filled)
}

/// `COPY` or `ADD` with its variables filled in. In inline documents a backslash escapes, whatever the file says, and
/// quotes are characters like others.
fn transfer(plan: &Plan<'_>, at: &At<'_>, written: &Transfer, linter: &mut Linter) -> Result<Transfer> {
    let mut filled = written.clone();
    for field in [&mut filled.chown, &mut filled.chmod, &mut filled.checksum] {
        *field = word(plan, at, field, linter)?;
    }
    for field in filled.sources.iter_mut().chain([&mut filled.destination]) {
        *field = word(plan, at, field, linter)?;
    }
    let lexer = Lexer { quotes: Quotes::Ordinary, ..Lexer::new('\\') };
    for document in filled.documents.iter_mut().filter(|document| document.expand) {
        document.content = word_by(&lexer, plan, at, &document.content, linter)?;
    }
    Ok(filled)
}

/// Puts the result together.
pub(super) fn finish(mut plan: Plan<'_>, target: usize, linter: &Linter) -> Result<Conversion> {
    let labels = plan.job.options.labels.clone();
    plan.stages[target].image.config.labels.extend(labels);
    linter.verdict()?;
    let reachable = plan.reachable(target);
    let done: BTreeSet<usize> = match plan.wants_all() {
        true => (0..plan.stages.len()).collect(),
        false => reachable.clone(),
    };
    name_paths(&mut plan, &done);
    let file = Some(plan.job.file);
    let outline = outline::of(&plan, target);
    let extras = extras(&plan, target, &reachable);
    let definitions = |output: Option<Output>| plan.graph.definition(output, file);
    let ignores_cache = plan.stages[target].ignore_cache
        || extras.keys().any(|name| plan.stages.iter().any(|state| state.ignore_cache && state.name == *name));
    let extras: BTreeMap<String, pb::Definition> =
        extras.into_iter().map(|(name, output)| (name, definitions(output))).collect();
    let state = &plan.stages[target];
    let definition = definitions(state.state.output);
    let mut image = state.image.clone();
    set_platform(&mut image, plan.job.target);
    let (origin, epoch) = (state.origin.clone(), plan.epoch);
    Ok(Conversion { definition, image, origin, epoch, extras, ignores_cache, outline })
}

fn set_platform(image: &mut crate::image::Image, wanted: Option<&Platform>) {
    let mut platform = image.platform();
    if let Some(wanted) = wanted {
        let same = wanted.os == platform.os && wanted.architecture == platform.architecture;
        let variant = if !wanted.variant.is_empty() || !same { &wanted.variant } else { &platform.variant };
        platform = Platform { variant: variant.clone(), ..wanted.clone() };
    }
    image.set_platform(&normalized(&platform));
}

/// Says which paths of a directory of the client are needed, where it is not all of it.
fn name_paths(plan: &mut Plan<'_>, done: &BTreeSet<usize>) {
    const KEY: &str = "local.followpaths";
    let mut of_context = BTreeSet::new();
    for at in done {
        of_context.extend(plan.stages[*at].context_paths.clone());
    }
    if let Some(output) = plan.context.filter(|_| plan.job.main.is_local()) {
        set(plan, output, &of_context, KEY);
    }
    for at in 0..plan.stages.len() {
        if let Some(output) = plan.stages[at].partial {
            let paths = plan.stages[at].paths.clone();
            set(plan, output, &paths, KEY);
        }
    }
}

fn set(plan: &mut Plan<'_>, output: Output, paths: &BTreeSet<String>, key: &str) {
    if paths.contains("/") || paths.is_empty() {
        return;
    }
    let mut paths: Vec<String> = paths.iter().map(|path| path.trim_start_matches('/').to_owned()).collect();
    paths.sort();
    plan.graph.set_attribute(output, key, json_list(&paths));
}

/// Files whose packages are to be listed beside those of the target.
fn extras(plan: &Plan<'_>, target: usize, reachable: &BTreeSet<usize>) -> BTreeMap<String, Option<Output>> {
    let wants = |at: usize, key: &str| {
        let state = &plan.stages[at];
        let own = state.arguments.iter().filter(|(name, _)| name == key).filter_map(|(_, value)| value.as_deref());
        let value = plan.global.value(key).into_iter().chain(own).next_back();
        value.is_some_and(|value| match boolean(value) {
            Some(wanted) => wanted,
            None => value.split(',').any(|name| name == state.name),
        })
    };
    let mut extras = BTreeMap::new();
    if wants(target, SCAN_CONTEXT) {
        extras.insert("context".to_owned(), plan.context);
    }
    for at in reachable.iter().filter(|at| **at != target && !plan.stages[**at].unnamed) {
        if wants(*at, SCAN_STAGE) {
            extras.insert(plan.stages[*at].name.clone(), plan.stages[*at].state.output);
        }
    }
    extras
}
