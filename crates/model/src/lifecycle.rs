//! The life of a container as one pure function: [`step`].
//!
//! A state and an input give one of four outcomes: accept (a new state and effects to perform), nothing to do (the API's
//! 304), refuse (409 and its text), or defer (a launch is under way; ask again when it is done). The flags of the API
//! (`Running`, `Paused`, …) are derived from the state. A process exists only in states that carry its pid.
//!
//! ```text
//! Created ─▶ Starting ─▶ Running ◀─▶ Paused        Exited, Created, Dead ─▶ Removing ─▶ (gone)
//!    ▲          │  ▲        │  ╲        │
//!    └──────────┘  │        ▼   ▼       ▼
//!  (failed start)  └─── Restarting ◀─ Stopping ─▶ Exited
//! ```

use serde::{Deserialize, Serialize};

use crate::{Error, Kind};

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "is")]
pub enum State {
    /// Never ran.
    Created,
    /// A launch is under way.
    Starting {
        /// It never ran before: a failed launch leads back to `Created`.
        first: bool,
    },
    /// Its program runs.
    Running {
        /// Init's pid on the host.
        pid: i32,
    },
    /// All its processes are frozen.
    Paused {
        /// Init's pid on the host.
        pid: i32,
    },
    /// It was told to end.
    Stopping {
        /// Init's pid on the host.
        pid: i32,
    },
    /// It ended and its policy will start it again.
    Restarting,
    /// It ended.
    Exited,
    /// Its removal failed half way.
    Dead,
    /// It is being removed.
    Removing,
}

/// What happens to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A client wants it to run.
    Start,
    /// A client wants it to end.
    Stop,
    /// A client sends a signal; `ends`: SIGKILL or the stop signal, which count as a manual stop (B-sg-2).
    Kill {
        /// Number.
        signal: i32,
        /// Whether it is meant to end the container.
        ends: bool,
    },
    /// A client freezes it.
    Pause,
    /// A client lets it go on.
    Unpause,
    /// A client wants it gone.
    Remove {
        /// Even if it runs.
        force: bool,
    },
    /// The launch succeeded.
    Launched {
        /// Init's pid on the host.
        pid: i32,
    },
    /// The launch failed and took everything back; `restart`: the policy wants another.
    LaunchFailed {
        /// Whether a restart is due.
        restart: bool,
    },
    /// The process ended; `restart`: the policy will start it again.
    Ended {
        /// Whether a restart is due.
        restart: bool,
    },
    /// The time before SIGKILL is over.
    Deadline,
    /// The pause before a restart is over.
    BackoffOver,
    /// The removal failed half way.
    RemovalFailed,
    /// A new daemon's start: the policy wants a run of what has ended.
    RestartDue,
}

/// What a new daemon finds of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The process of the recorded run lives.
    Alive {
        /// All its processes are frozen.
        frozen: bool,
    },
    /// A monitor of the recorded run lives and does not answer: the record counts.
    Silent,
    /// Nothing of it runs.
    Gone {
        /// There is word of the end of a run that the record does not have.
        of_unknown_run: bool,
    },
}

/// Something to do, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start the launch.
    Launch,
    /// Send the stop signal and set the deadline.
    StopSignal,
    /// Send this signal.
    Signal(i32),
    /// Freeze all processes.
    Freeze,
    /// Thaw them.
    Thaw,
    /// Forget the planned restart.
    CancelRestart,
    /// Plan a restart.
    ScheduleRestart,
    /// Remove everything.
    Delete,
}

/// What an input leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The new state, and what to do.
    Accept(State, Vec<Effect>),
    /// Already so: 304.
    Nothing,
    /// Not possible in this state.
    Refuse(Refusal),
    /// A launch is under way: ask again after it.
    Defer,
}

/// Why an input is refused. The texts are the reference's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Start of a frozen container.
    StartPaused,
    /// Start of a container on its way out.
    StartRemoving,
    /// A verb that needs a running container.
    NotRunning,
    /// Kill of a container that does not run.
    KillNotRunning,
    /// Pause of a frozen one.
    AlreadyPaused,
    /// Pause while its restart is due.
    PauseRestarting,
    /// Unpause of one that is not frozen.
    NotPaused,
    /// Remove without force of a running one.
    RemoveRunning,
    /// Remove without force of a frozen one.
    RemovePaused,
    /// Remove without force while its restart is due.
    RemoveRestarting,
    /// Remove while it is being removed.
    AlreadyRemoving,
}

impl Refusal {
    /// The error for the client; `name` without its slash, `id` whole.
    pub fn to_error(self, name: &str, id: &str) -> Error {
        let text = match self {
            Refusal::StartPaused => "cannot start a paused container, try unpause instead".to_string(),
            Refusal::StartRemoving => "container is marked for removal and cannot be started".to_string(),
            Refusal::NotRunning => format!("container {id} is not running"),
            Refusal::KillNotRunning => format!("cannot kill container: {name}: container {id} is not running"),
            Refusal::AlreadyPaused => format!("container {id} is already paused"),
            Refusal::PauseRestarting => format!("Container {id} is restarting, wait until the container is running"),
            Refusal::NotPaused => format!("Container {id} is not paused"),
            Refusal::RemoveRunning => {
                format!(
                    "cannot remove container \"/{name}\": container is running: stop the container before removing or force remove"
                )
            }
            Refusal::RemovePaused => {
                format!("cannot remove container \"/{name}\": container is paused and must be unpaused first")
            }
            Refusal::RemoveRestarting => {
                format!(
                    "cannot remove container \"/{name}\": container is restarting: stop the container before removing or force remove"
                )
            }
            Refusal::AlreadyRemoving => format!("removal of container {name} is already in progress"),
        };
        let kind = if self == Refusal::NotPaused { Kind::System } else { Kind::Conflict };
        Error::new(kind, text)
    }
}

impl State {
    /// The API's `Running` flag: true also while paused, stopping, or waiting for a restart (B-rs-3).
    pub fn is_running(self) -> bool {
        matches!(self, State::Running { .. } | State::Paused { .. } | State::Stopping { .. } | State::Restarting)
    }

    /// The API's `Paused` flag.
    pub fn is_paused(self) -> bool {
        matches!(self, State::Paused { .. })
    }

    /// The API's `Restarting` flag.
    pub fn is_restarting(self) -> bool {
        self == State::Restarting
    }

    /// The API's `Dead` flag.
    pub fn is_dead(self) -> bool {
        self == State::Dead
    }

    /// Whether it is being removed.
    pub fn is_removing(self) -> bool {
        self == State::Removing
    }

    /// Init's pid on the host, in states that have a process.
    pub fn pid(self) -> Option<i32> {
        match self {
            State::Running { pid } | State::Paused { pid } | State::Stopping { pid } => Some(pid),
            _ => None,
        }
    }

    /// The API's status word.
    pub fn word(self) -> &'static str {
        match self {
            State::Created | State::Starting { first: true } => "created",
            State::Running { .. } | State::Stopping { .. } => "running",
            State::Paused { .. } => "paused",
            State::Restarting => "restarting",
            State::Exited | State::Starting { first: false } => "exited",
            State::Dead => "dead",
            State::Removing => "removing",
        }
    }

    /// What is written to disk: states that only this daemon's life gives meaning are stored as what they came from.
    pub fn at_rest(self) -> State {
        match self {
            State::Starting { first: true } => State::Created,
            State::Starting { first: false } | State::Removing => State::Exited,
            State::Stopping { pid } => State::Running { pid },
            other => other,
        }
    }
}

/// What a container's recorded state becomes when a new daemon has looked for its run: the only way into a state but
/// [`step`]. A process is taken up only by a record that has it.
pub fn recover(recorded: State, found: Found) -> State {
    match (recorded.at_rest(), found) {
        (State::Running { pid } | State::Paused { pid }, Found::Alive { frozen: true }) => State::Paused { pid },
        (State::Running { pid } | State::Paused { pid }, Found::Alive { frozen: false }) => State::Running { pid },
        (State::Running { .. } | State::Paused { .. }, Found::Gone { .. })
        // A restart that was due was made, and nobody could record it: this was its end.
        | (State::Restarting, Found::Gone { of_unknown_run: true }) => State::Exited,
        (state, _) => state,
    }
}

/// What the input leads to in this state.
pub fn step(state: State, input: Input) -> Outcome {
    match input {
        Input::Start => start(state),
        Input::Stop => stop(state),
        Input::Kill { signal, ends } => kill(state, signal, ends),
        Input::Pause => pause(state),
        Input::Unpause => match state {
            State::Paused { pid } => Outcome::Accept(State::Running { pid }, vec![Effect::Thaw]),
            State::Starting { .. } => Outcome::Defer,
            _ => Outcome::Refuse(Refusal::NotPaused),
        },
        Input::Remove { force } => remove(state, force),
        fact => happened(state, fact),
    }
}

fn start(state: State) -> Outcome {
    match state {
        State::Created => Outcome::Accept(State::Starting { first: true }, vec![Effect::Launch]),
        State::Exited => Outcome::Accept(State::Starting { first: false }, vec![Effect::Launch]),
        State::Running { .. } | State::Stopping { .. } | State::Restarting => Outcome::Nothing,
        State::Paused { .. } => Outcome::Refuse(Refusal::StartPaused),
        State::Dead | State::Removing => Outcome::Refuse(Refusal::StartRemoving),
        State::Starting { .. } => Outcome::Defer,
    }
}

fn stop(state: State) -> Outcome {
    match state {
        State::Running { pid } | State::Stopping { pid } => {
            Outcome::Accept(State::Stopping { pid }, vec![Effect::StopSignal])
        }
        State::Paused { pid } => Outcome::Accept(State::Stopping { pid }, vec![Effect::StopSignal, Effect::Thaw]),
        State::Restarting => Outcome::Accept(State::Exited, vec![Effect::CancelRestart]),
        State::Starting { .. } => Outcome::Defer,
        State::Created | State::Exited | State::Dead | State::Removing => Outcome::Nothing,
    }
}

fn kill(state: State, signal: i32, ends: bool) -> Outcome {
    match state {
        State::Running { .. } | State::Stopping { .. } => Outcome::Accept(state, vec![Effect::Signal(signal)]),
        State::Paused { pid } if ends => {
            Outcome::Accept(State::Running { pid }, vec![Effect::Signal(signal), Effect::Thaw])
        }
        State::Paused { .. } => Outcome::Accept(state, vec![Effect::Signal(signal)]),
        State::Restarting => Outcome::Accept(State::Exited, vec![Effect::CancelRestart]),
        State::Starting { .. } => Outcome::Defer,
        _ => Outcome::Refuse(Refusal::KillNotRunning),
    }
}

fn pause(state: State) -> Outcome {
    match state {
        State::Running { pid } => Outcome::Accept(State::Paused { pid }, vec![Effect::Freeze]),
        State::Paused { .. } => Outcome::Refuse(Refusal::AlreadyPaused),
        State::Restarting => Outcome::Refuse(Refusal::PauseRestarting),
        State::Starting { .. } => Outcome::Defer,
        _ => Outcome::Refuse(Refusal::NotRunning),
    }
}

fn remove(state: State, force: bool) -> Outcome {
    const SIGKILL: i32 = 9;
    match state {
        State::Created | State::Exited | State::Dead => Outcome::Accept(State::Removing, vec![Effect::Delete]),
        State::Removing => Outcome::Refuse(Refusal::AlreadyRemoving),
        State::Starting { .. } => Outcome::Defer,
        State::Restarting if force => Outcome::Accept(State::Removing, vec![Effect::CancelRestart, Effect::Delete]),
        State::Running { pid } | State::Stopping { pid } if force => {
            Outcome::Accept(State::Stopping { pid }, vec![Effect::Signal(SIGKILL)])
        }
        State::Paused { pid } if force => {
            Outcome::Accept(State::Stopping { pid }, vec![Effect::Signal(SIGKILL), Effect::Thaw])
        }
        State::Running { .. } | State::Stopping { .. } => Outcome::Refuse(Refusal::RemoveRunning),
        State::Paused { .. } => Outcome::Refuse(Refusal::RemovePaused),
        State::Restarting => Outcome::Refuse(Refusal::RemoveRestarting),
    }
}

/// Facts never are refused: one that does not fit the state came too late and changes nothing.
fn happened(state: State, fact: Input) -> Outcome {
    const SIGKILL: i32 = 9;
    match (state, fact) {
        (State::Starting { .. }, Input::Launched { pid }) => Outcome::Accept(State::Running { pid }, vec![]),
        (State::Starting { .. }, Input::LaunchFailed { restart: true }) => {
            Outcome::Accept(State::Restarting, vec![Effect::ScheduleRestart])
        }
        (State::Starting { first: true }, Input::LaunchFailed { .. }) => Outcome::Accept(State::Created, vec![]),
        (State::Starting { first: false }, Input::LaunchFailed { .. }) => Outcome::Accept(State::Exited, vec![]),
        (State::Running { .. } | State::Paused { .. } | State::Stopping { .. }, Input::Ended { restart: true }) => {
            Outcome::Accept(State::Restarting, vec![Effect::ScheduleRestart])
        }
        (State::Running { .. } | State::Paused { .. } | State::Stopping { .. }, Input::Ended { restart: false }) => {
            Outcome::Accept(State::Exited, vec![])
        }
        (State::Stopping { .. }, Input::Deadline) => Outcome::Accept(state, vec![Effect::Signal(SIGKILL)]),
        (State::Restarting, Input::BackoffOver) => {
            Outcome::Accept(State::Starting { first: false }, vec![Effect::Launch])
        }
        (State::Exited, Input::RestartDue) => Outcome::Accept(State::Restarting, vec![]),
        (State::Removing, Input::RemovalFailed) => Outcome::Accept(State::Dead, vec![]),
        _ => Outcome::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 10] = [
        State::Created,
        State::Starting { first: true },
        State::Starting { first: false },
        State::Running { pid: 7 },
        State::Paused { pid: 7 },
        State::Stopping { pid: 7 },
        State::Restarting,
        State::Exited,
        State::Dead,
        State::Removing,
    ];

    const INPUTS: [Input; 19] = [
        Input::RestartDue,
        Input::Start,
        Input::Stop,
        Input::Kill { signal: 9, ends: true },
        Input::Kill { signal: 1, ends: false },
        Input::Pause,
        Input::Unpause,
        Input::Remove { force: true },
        Input::Remove { force: false },
        Input::Launched { pid: 8 },
        Input::LaunchFailed { restart: true },
        Input::LaunchFailed { restart: false },
        Input::Ended { restart: true },
        Input::Ended { restart: false },
        Input::Deadline,
        Input::BackoffOver,
        Input::RemovalFailed,
        Input::Kill { signal: 15, ends: true },
        Input::Kill { signal: 10, ends: false },
    ];

    /// Over all states and inputs: a process is never lost or invented, a launch only starts from rest, frozen processes
    /// are thawed whenever they are to end, and nothing but a launch's own end is accepted while it is under way.
    #[test]
    fn every_step_keeps_the_invariants() {
        for state in STATES {
            for input in INPUTS {
                let outcome = step(state, input);
                if let (State::Starting { .. }, Outcome::Accept(..)) = (state, &outcome) {
                    assert!(
                        matches!(input, Input::Launched { .. } | Input::LaunchFailed { .. }),
                        "{state:?} {input:?}"
                    );
                }
                let Outcome::Accept(next, effects) = outcome else { continue };
                if let (Some(before), Some(after)) = (state.pid(), next.pid()) {
                    assert_eq!(before, after, "{state:?} {input:?}");
                }
                if state.pid().is_some() && next.pid().is_none() {
                    assert!(matches!(input, Input::Ended { .. }), "{state:?} {input:?} loses a process");
                }
                if state.pid().is_none() && next.pid().is_some() {
                    assert!(matches!(input, Input::Launched { .. }), "{state:?} {input:?} invents a process");
                }
                let launches = effects.contains(&Effect::Launch);
                assert_eq!(launches, matches!(next, State::Starting { .. }), "{state:?} {input:?}");
                if state.is_paused() && next.pid().is_some() && !next.is_paused() {
                    assert!(effects.contains(&Effect::Thaw), "{state:?} {input:?} leaves it frozen");
                }
                assert_eq!(effects.contains(&Effect::Delete), next == State::Removing, "{state:?} {input:?}");
            }
        }
    }

    /// Over all recorded states and all that can be found: a new daemon begins in a state at rest, which has a process if,
    /// and only if, the record had it and nobody says that it is gone; the pid is the record's.
    #[test]
    fn every_recovery_begins_at_rest_with_the_recorded_process() {
        let gone = [true, false].map(|of_unknown_run| Found::Gone { of_unknown_run });
        let alive = [true, false].map(|frozen| Found::Alive { frozen });
        for state in STATES {
            for found in gone.into_iter().chain(alive).chain([Found::Silent]) {
                let next = recover(state, found);
                assert_eq!(next, next.at_rest(), "{state:?} {found:?}");
                let pid = if matches!(found, Found::Gone { .. }) { None } else { state.pid() };
                assert_eq!(next.pid(), pid, "{state:?} {found:?}");
                assert!(
                    next == State::Exited || next.pid().is_some() || next == state.at_rest(),
                    "{state:?} {found:?}"
                );
            }
        }
        let unknown = Found::Gone { of_unknown_run: true };
        assert_eq!(recover(State::Restarting, unknown), State::Exited);
        assert_eq!(recover(State::Created, unknown), State::Created);
    }

    /// The table of behaviours.md, section 3: verbs against states.
    #[test]
    fn verbs_answer_as_the_reference() {
        let refused = |state, input| match step(state, input) {
            Outcome::Refuse(refusal) => refusal,
            other => panic!("{state:?} {input:?}: {other:?}"),
        };
        let running = State::Running { pid: 7 };
        assert_eq!(step(running, Input::Start), Outcome::Nothing);
        assert_eq!(step(State::Restarting, Input::Start), Outcome::Nothing);
        assert_eq!(refused(State::Paused { pid: 7 }, Input::Start), Refusal::StartPaused);
        assert_eq!(step(State::Exited, Input::Stop), Outcome::Nothing);
        assert_eq!(refused(State::Exited, Input::Kill { signal: 9, ends: true }), Refusal::KillNotRunning);
        assert_eq!(refused(running, Input::Unpause), Refusal::NotPaused);
        assert_eq!(refused(running, Input::Remove { force: false }), Refusal::RemoveRunning);
        assert_eq!(refused(State::Removing, Input::Remove { force: true }), Refusal::AlreadyRemoving);
        for input in [Input::Stop, Input::Kill { signal: 9, ends: true }, Input::Kill { signal: 1, ends: false }] {
            let cancelled = Outcome::Accept(State::Exited, vec![Effect::CancelRestart]);
            assert_eq!(step(State::Restarting, input), cancelled, "{input:?}");
        }
    }

    /// The texts clients compare, and the one refusal that is a 500.
    #[test]
    fn refusals_have_the_reference_texts() {
        let error = Refusal::RemoveRunning.to_error("wf1", "e3");
        assert_eq!(
            error.message(),
            "cannot remove container \"/wf1\": container is running: stop the container before removing or force remove"
        );
        assert_eq!(error.kind(), Kind::Conflict);
        let error = Refusal::KillNotRunning.to_error("wf1", "e3");
        assert_eq!(error.message(), "cannot kill container: wf1: container e3 is not running");
        assert_eq!(Refusal::NotPaused.to_error("wf1", "e3").kind(), Kind::System);
    }

    /// B-st-2 and B-rs-3: words and flags.
    #[test]
    fn flags_are_derived() {
        assert_eq!(State::Stopping { pid: 1 }.word(), "running");
        assert!(State::Restarting.is_running() && State::Restarting.is_restarting());
        assert!(State::Paused { pid: 1 }.is_running());
        assert_eq!(State::Starting { first: false }.at_rest(), State::Exited);
        assert_eq!(State::Starting { first: true }.word(), "created");
    }
}
