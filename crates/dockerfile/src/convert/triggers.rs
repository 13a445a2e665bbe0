//! The images that stages begin with, and the instructions that waited for them (`ONBUILD`).

use super::at::{Error, Result};
use super::origin;
use super::plan::Plan;
use super::stage::Step;
use crate::instruction::{self, Instruction};
use crate::lint::Linter;
use crate::question::Inquiry;

/// Triggers of one image.
const MAX_TRIGGERS: usize = 1000;
/// Bytes of a row of the history, but its text.
const ROW: usize = 128;

/// Finds out what every stage begins with; `false`: something has to be asked first.
pub(super) fn resolve(
    plan: &mut Plan<'_>,
    target: usize,
    linter: &mut Linter,
    inquiry: &mut Inquiry<'_>,
) -> Result<bool> {
    loop {
        let reachable = plan.reachable(target);
        for at in 0..plan.stages.len() {
            let state = &mut plan.stages[at];
            if state.on.is_some() || state.progress.done || state.progress.resolved {
                continue;
            }
            let needed = reachable.contains(&at) || plan.wants_all();
            plan.stages[at].progress.resolved = needed;
            origin::resolve(plan, at, needed, linter, inquiry)?;
        }
        if !inquiry.is_answered() {
            return Ok(false);
        }
        let mut more = false;
        for at in reachable {
            inherit(plan, at)?;
            more |= triggers(plan, at)?;
        }
        if !more {
            return Ok(true);
        }
    }
}

/// A stage begins as the one that it is based on ended.
pub(super) fn inherit(plan: &mut Plan<'_>, at: usize) -> Result<()> {
    let Some(on) = plan.stages[at].on else { return Ok(()) };
    let from = &plan.stages[on];
    let rows = from.image.history.iter().map(|row| ROW + row.created_by.len());
    plan.spend(from.state.env.size() + rows.sum::<usize>())?;
    let (state, platform, mut image) = (from.state.clone(), from.platform.clone(), from.image.clone());
    let (origin, directory_set, arguments) = (from.origin.clone(), from.directory_set, from.arguments.clone());
    // Its own triggers have to be of this stage.
    image.config.on_build = Vec::new();
    let stage = &mut plan.stages[at];
    (stage.state, stage.platform, stage.image) = (state, platform, image);
    (stage.origin, stage.directory_set, stage.arguments) = (origin, directory_set, arguments);
    Ok(())
}

/// Puts what waited for a stage in front of its own instructions; whether it needs stages that nobody needed before.
fn triggers(plan: &mut Plan<'_>, at: usize) -> Result<bool> {
    let mut texts = std::mem::take(&mut plan.stages[at].image.config.on_build);
    if let Some(on) = plan.stages[at].on.filter(|_| !plan.stages[at].progress.triggered) {
        let waiting = plan.stages[on].steps.iter().filter_map(|step| match &step.command.instruction {
            Instruction::OnBuild(text) => Some(text.clone()),
            _ => None,
        });
        texts.extend(waiting);
        plan.stages[at].progress.triggered = true;
    }
    let lines = plan.stages[at].lines();
    if texts.len() > MAX_TRIGGERS {
        return Err(Error::new(format!("more than {MAX_TRIGGERS} onbuild triggers")).at(lines));
    }
    let mut steps: Vec<Step> = Vec::new();
    for text in texts {
        let command = instruction::trigger(&text, lines).map_err(|error| error.only_at(lines))?;
        let step = plan.step(command, at).map_err(|error| error.only_at(lines))?;
        steps.push(Step { trigger: true, ..step });
    }
    let more = steps.iter().any(|step| !step.sources.is_empty());
    let state = &mut plan.stages[at];
    state.count.total += steps.len();
    steps.append(&mut state.steps);
    state.steps = steps;
    Ok(more)
}
