//! What a stage can be built with, while it is converted.

use std::collections::{BTreeMap, BTreeSet};

use crate::instruction::Argument;
use crate::lines::Lines;

/// An argument.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub value: String,
    pub description: String,
    /// Others that its value is made from.
    pub uses: BTreeSet<String>,
    pub lines: Lines,
}

impl Known {
    pub fn new(argument: &Argument, lines: Lines) -> Known {
        Known { description: argument.description.clone(), lines, ..Known::default() }
    }
}

/// What a stage says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Capture {
    pub all: BTreeMap<String, Known>,
    pub used: BTreeSet<String>,
    pub secrets: BTreeMap<String, (bool, Lines)>,
    pub agents: BTreeMap<String, (bool, Lines)>,
}
