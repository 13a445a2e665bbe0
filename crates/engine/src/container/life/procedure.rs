//! Procedures that take longer than anybody should wait: what a run held is let go, or the container's files are removed, on a
//! file system or by a driver that does not answer. They cannot be broken off, but whoever waits for them is told.

use std::time::Duration;

use model::Error;
use tokio::time::Instant;

use super::actor::Actor;
use super::environment::Environment;
use super::timers::Timer;
use crate::container::registry::command::{Command, Reply, answer};

/// How long one may take before those who wait are told: longer than a driver of volumes has for its answer.
pub const PATIENCE: Duration = Duration::from_secs(150);

/// The same where a test wants it short: a daemon of a debug build at whose fault point `procedure.patience` there is a file.
pub const SHORT_PATIENCE: Duration = Duration::from_secs(1);

/// Where the answer to a command goes; commands that nobody waits for come back.
fn reply_of(command: Command) -> Result<Reply, Command> {
    match command {
        Command::Start { reply }
        | Command::Stop { reply, .. }
        | Command::Restart { reply, .. }
        | Command::Kill { reply, .. }
        | Command::Pause { reply, .. }
        | Command::Unpause { reply }
        | Command::Update { reply, .. }
        | Command::Rename { reply, .. }
        | Command::Unlink { reply, .. }
        | Command::NoteWritten { reply }
        | Command::Resize { reply, .. }
        | Command::Remove { reply, .. }
        | Command::Connect { reply, .. }
        | Command::Disconnect { reply, .. }
        | Command::ChangePorts { reply, .. }
        | Command::Shutdown { reply, .. }
        | Command::Rest { reply } => Ok(reply),
        Command::Exec(start) => Ok(start.reply),
        other => Err(other),
    }
}

/// What an actor has begun and cannot break off.
pub(super) struct Procedure<'a, E> {
    pub actor: &'a mut Actor<E>,
}

impl<E: Environment> Procedure<'_, E> {
    /// What is under way; its end cancels the timer.
    pub(super) fn begin(self, what: &'static str) {
        let Procedure { actor } = self;
        actor.procedure = what;
        actor.patience = actor.engine.patience();
        actor.timers.set(Timer::Procedure, Instant::now() + actor.patience);
    }

    /// It is over.
    pub(super) fn end(self) {
        let Procedure { actor } = self;
        actor.timers.cancel(Timer::Procedure);
    }

    /// It takes too long: everybody who waits for it is told, and it goes on.
    pub(super) fn expire(self) {
        let Procedure { actor } = self;
        let (container, what) = (actor.row.id.short(), actor.procedure);
        let text = format!(
            "container {container} waits for {what}, which takes longer than {} seconds",
            actor.patience.as_secs()
        );
        tracing::warn!(container, what, "it takes too long; whoever waits for it is told");
        actor.waiting.refuse_end(&text);
        for command in std::mem::take(&mut actor.deferred) {
            match reply_of(command) {
                Ok(reply) => answer(reply, Err(Error::system(text.as_str()))),
                Err(other) => actor.deferred.push_back(other),
            }
        }
        // For those who come from now on.
        actor.timers.set(Timer::Procedure, Instant::now() + actor.patience);
    }
}
