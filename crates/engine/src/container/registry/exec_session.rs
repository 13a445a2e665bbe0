//! One exec session: what was asked for, and where it is in its life.

use std::time::Instant;

use model::id::ContainerId;
use tokio::sync::watch;

/// One exec session.
pub struct Session {
    /// 64 hex digits.
    pub id: String,
    /// The container it belongs to.
    pub container: ContainerId,
    /// As given at create.
    pub config: api::ExecConfig,
    /// Later ones have greater numbers.
    pub number: u64,
    /// The run it was made in: how many runs of the container had ended before, see `ContainerView::exits`.
    pub run: u64,
    pub(in crate::container) phase: watch::Sender<Phase>,
}

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Made, not started.
    Created,
    /// On its way.
    Starting,
    /// Running; the pid on the host.
    Running(i32),
    /// Over: exit code, the pid it had (0 if it never ran), when.
    Ended(i32, i32, Instant),
}

impl Session {
    /// One that has not been started.
    pub fn new(id: String, (container, run): (ContainerId, u64), config: api::ExecConfig, number: u64) -> Session {
        Session { id, container, config, number, run, phase: watch::Sender::new(Phase::Created) }
    }

    /// Its phase now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Moves on.
    pub fn set(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// The command line as events show it: program, blank, arguments.
    pub fn command_line(&self) -> String {
        let words = self.config.cmd.as_deref().unwrap_or_default();
        words.split_first().map(|(program, arguments)| format!("{program} {}", arguments.join(" "))).unwrap_or_default()
    }

    /// Whether the run it was made in is over and it has not been part of it to its end: nothing leads to it any more.
    pub(in crate::container) fn is_gone(&self, exits: u64) -> bool {
        self.run != exits && !matches!(self.phase(), Phase::Ended(..))
    }

    /// Claims the start; false when it was started before.
    pub(in crate::container) fn claim(&self) -> bool {
        self.phase.send_if_modified(|phase| {
            let free = *phase == Phase::Created;
            if free {
                *phase = Phase::Starting;
            }
            free
        })
    }
}
