//! A stage while it is converted.

use std::collections::BTreeSet;

use model::platform::Platform;

use super::capture::Capture;
use crate::context::Found;
use crate::image::Image;
use crate::instruction::{Command, Stage};
use crate::lines::Lines;
use crate::llb::{Output, State};

/// An instruction with the stages that it takes files from.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub command: Command,
    pub sources: Vec<usize>,
    /// Whether it waited for this stage (`ONBUILD`).
    pub trigger: bool,
}

/// How far a stage is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    pub resolved: bool,
    pub triggered: bool,
    pub done: bool,
}

/// How steps are counted for their titles.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    pub done: usize,
    pub total: usize,
    pub trigger: bool,
}

/// Where instructions stand of which only the last counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Last {
    pub cmd: Option<Lines>,
    pub entrypoint: Option<Lines>,
    pub health: Option<Lines>,
}

/// A stage, or an image that an instruction names.
#[derive(Clone, Debug, Default)]
pub(super) struct StageState {
    pub stage: Stage,
    /// In titles; empty if it is the only one.
    pub name: String,
    /// The stage that it is based on.
    pub on: Option<usize>,
    /// The context that takes its place.
    pub context: Option<Found>,
    /// Of a context of which only some paths are needed.
    pub partial: Option<Output>,
    pub platform: Option<Platform>,
    pub state: State,
    pub image: Image,
    pub origin: Option<Image>,
    /// Stages that it takes files from, and where.
    pub needs: Vec<(usize, Lines)>,
    pub steps: Vec<Step>,
    /// `ARG` with the values they have.
    pub arguments: Vec<(String, Option<String>)>,
    /// Paths of the main context that it uses.
    pub context_paths: BTreeSet<String>,
    /// Paths of it that others use, or that it uses itself.
    pub paths: BTreeSet<String>,
    /// No stage of the file but an image or context.
    pub unnamed: bool,
    pub progress: Progress,
    pub count: Count,
    pub ignore_cache: bool,
    /// Whether the file said what its directory is.
    pub directory_set: bool,
    pub last: Last,
    pub outline: Capture,
}

impl StageState {
    /// Where findings about its `FROM` belong, and errors.
    pub fn lines(&self) -> Lines {
        self.stage.lines
    }
}
