//! Containers of steps that stay: those of programs that fail, unless `forcerm` is asked for, and all with `rm=0`.
//!
//! A step has no container while it runs. One that stays is made afterwards, on an image of the files that the program has left,
//! under the id that was told.

use std::sync::Arc;

use events::now;
use model::Result;
use model::digest::Digest;
use model::id::ContainerId;
use model::time::Timestamp;

use super::build::Build;
use super::stage::Stage;
use crate::job::Answer;
use crate::key::Key;
use crate::record::Chain;
use crate::result::Solved;

/// A container that has ended.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Under which it was told of.
    pub id: ContainerId,
    /// An image of its files, whose configuration is that of the stage.
    pub image: Digest,
    /// What has run.
    pub args: Vec<String>,
    /// With what it ended.
    pub exit_code: i32,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
}

/// Who takes containers of steps that stay.
pub trait Keeper: Send + Sync {
    /// Takes one.
    fn keep(&self, kept: Kept) -> Answer<'_, Result<()>>;
}

/// A program of a step that has ended.
pub(super) struct Ended<'e> {
    pub args: &'e [String],
    pub created_by: &'e str,
    pub started: Timestamp,
    pub exit_code: i32,
    /// What it has left.
    pub files: Chain,
}

impl Build {
    /// Leaves the container of a step behind. One that nobody was told of is none: the step was done by another build. The build
    /// goes on without one that cannot be had.
    pub(super) async fn keep(&mut self, stage: &Stage, ended: Ended<'_>) {
        let Some(id) = self.running.clone() else { return };
        if let Err(error) = self.leave(stage, ended, id).await {
            tracing::warn!(%error, "the container of a step does not stay");
        }
    }

    async fn leave(&self, stage: &Stage, ended: Ended<'_>, id: ContainerId) -> Result<()> {
        let finished = now();
        let mut left = stage.clone();
        let key = Key::new("left").finish();
        left.files = Arc::new(Solved { key, outputs: [(0, ended.files)].into(), cached: false });
        left.note(ended.created_by.to_owned(), finished, false);
        let image = self.make(&left, Vec::new()).await?;
        let (args, exit_code, started) = (ended.args.to_vec(), ended.exit_code, ended.started);
        self.client.keeper.keep(Kept { id, image, args, exit_code, started, finished }).await
    }
}
