//! The instruction that is being converted, and words of it.

use super::advice;
use super::plan::Plan;
use super::stage::Step;
use crate::lint::Linter;
use crate::shell::Lexer;

pub(super) use crate::error::{Error, Result};

/// An instruction that is being converted.
pub(super) struct At<'a> {
    /// Its stage.
    pub stage: usize,
    /// Itself.
    pub step: &'a Step,
}

/// Fills in the variables of a word.
pub(super) fn word(plan: &Plan<'_>, at: &At<'_>, text: &str, linter: &mut Linter) -> Result<String> {
    word_by(&plan.lexer, plan, at, text, linter)
}

/// The same, read in another way.
pub(super) fn word_by(lexer: &Lexer, plan: &Plan<'_>, at: &At<'_>, text: &str, linter: &mut Linter) -> Result<String> {
    let state = &plan.stages[at.stage];
    let found = lexer.expand(text, &state.state.env)?;
    plan.spend(found.text.len())?;
    advice::undefined(state, &found.missing, at.step.command.place(), linter);
    Ok(found.text)
}

/// An error of the instruction alone.
pub(super) fn refuse<T>(why: impl Into<String>) -> Result<T> {
    Err(Error::new(why))
}
