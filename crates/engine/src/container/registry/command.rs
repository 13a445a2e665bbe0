//! What can be asked of the actor of a container.

use model::Result;
use run::Attached;
use tokio::sync::oneshot;

use super::arguments::{ExecStart, Force, Place, RemoveArgs, StopPlan};

/// Where an answer goes.
pub type Reply<T = ()> = oneshot::Sender<Result<T>>;

/// What can be asked of a container.
pub enum Command {
    /// Run.
    Start { reply: Reply },
    /// End, by the plan.
    Stop { plan: StopPlan, reply: Reply },
    /// End if need be, then run.
    Restart { plan: StopPlan, reply: Reply },
    /// Send a signal.
    Kill { signal: i32, reply: Reply },
    /// Freeze; in passing: for the time of an operation that will let it go on, answered when all processes stand.
    Pause { passing: bool, reply: Reply },
    /// Go on.
    Unpause { reply: Reply },
    /// Take other limits, another restart policy.
    Update { change: Box<api::HostConfig>, reply: Reply },
    /// Take another name.
    Rename { new: String, reply: Reply },
    /// Lose the link of this alias.
    Unlink { alias: String, reply: Reply },
    /// Notes that files are about to be copied into the container that never ran.
    NoteWritten { reply: Reply },
    /// Resize the terminal of the container or of an exec session.
    Resize { exec: Option<String>, height: u16, width: u16, reply: Reply },
    /// Go away.
    Remove { args: RemoveArgs, reply: Reply },
    /// A client will come.
    Expect(oneshot::Receiver<Attached>),
    /// Let go of clients that wait for a start and have left.
    LetGo,
    /// Connect a client.
    Attach(Attached),
    /// Start an exec session.
    Exec(Box<ExecStart>),
    /// Handle every event of the monitor that has arrived so far.
    Drain { reply: Reply },
    /// Answered when the monitor does.
    Ping { reply: Reply },
    /// The daemon ends and takes its containers with it.
    Shutdown { plan: StopPlan, reply: Reply },
    /// The daemon ends: answered when nothing of the container is under way; a run goes on.
    Rest { reply: Reply },
    /// Join a network.
    Connect { place: Box<Place>, reply: Reply },
    /// Leave a network.
    Disconnect { network: String, force: Force, reply: Reply },
    /// Publish other ports.
    ChangePorts { change: api::PortsChange, reply: Reply },
    /// The daemon is up: consider the restart policy.
    Booted,
}

impl Command {
    /// Whether it asks for the end of the run: a start that hangs is given up for it.
    pub(in crate::container) fn ends_container(&self) -> bool {
        match self {
            Command::Stop { .. } | Command::Restart { .. } | Command::Shutdown { .. } => true,
            Command::Kill { signal, .. } => *signal == model::signal::KILL,
            Command::Remove { args, .. } => args.force,
            _ => false,
        }
    }
}

/// Answers; a caller that does not wait any more is no concern.
pub fn answer<T>(reply: Reply<T>, outcome: Result<T>) {
    drop(reply.send(outcome));
}
