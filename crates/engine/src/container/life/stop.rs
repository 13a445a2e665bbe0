//! `POST /containers/{id}/stop` and `restart`: the stop signal, a time to live on, then SIGKILL (B-sg-2).

use std::time::Duration;

use model::lifecycle::Input;
use model::{Error, Kind, Result, signal};
use monitor::proto::Request;
use tokio::time::Instant;

use super::actor::{Accepted, Actor, Awaited};
use super::environment::Environment;
use super::start;
use super::timers::Timer;
use crate::container::Containers;
use crate::container::definition::Definition;
use crate::container::registry::arguments::{StopArgs, StopPlan, stop_signal};
use crate::container::registry::command::{Command, Reply, answer};
use crate::container::row::ContainerRow;
use crate::settings::ContainerDefaults;

/// How long a killed container may take to end before its callers are told.
pub const KILL_WAIT: Duration = Duration::from_secs(12);

/// How long a monitor may take to answer when its container does not end.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Stops a running container; `Kind::NotModified` when it does not run.
pub async fn stop(containers: &Containers, defaults: &ContainerDefaults, name: &str, args: StopArgs) -> Result<()> {
    let handle = containers.find(name)?;
    let view = handle.view();
    let stopped = match StopPlan::new(&view.row, &args, defaults) {
        Ok(plan) => handle.ask(|reply| Command::Stop { plan, reply }).await,
        // One that does not run needs no signal, not even a good one.
        Err(_) if !view.row.state.is_running() => Err(Error::not_modified()),
        Err(error) => Err(error),
    };
    stopped.map_err(|error| refused(error, format!("cannot stop container: {name}")))
}

/// Whatever else than "nothing to do" goes wrong in the middle is a fault of the system to the caller.
fn refused(error: Error, what: String) -> Error {
    if error.kind() == Kind::NotModified { error } else { error.with_kind(Kind::System).prefix(what) }
}

/// Stops if it runs, then starts.
pub async fn restart(containers: &Containers, defaults: &ContainerDefaults, name: &str, args: StopArgs) -> Result<()> {
    let handle = containers.find(name)?;
    let restarted = match StopPlan::new(&handle.view().row, &args, defaults) {
        Ok(plan) => handle.ask(|reply| Command::Restart { plan, reply }).await,
        Err(error) => Err(error),
    };
    restarted.map_err(|error| refused(error, format!("Cannot restart container {name}")))
}

/// Whether this signal, sent by hand, counts as a stop: SIGKILL and the stop signal do; of a container that names none, every signal.
pub fn counts_as_stop(row: &Definition, number: i32) -> bool {
    row.config.stop_signal.is_empty()
        || number == signal::KILL
        || number == signal::parse_any(stop_signal(row)).unwrap_or(signal::TERM)
}

/// Who ends a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The container stays down until somebody starts it.
    User,
    /// The daemon ends: the restart policy will start it again.
    Shutdown,
}

/// Ends the run by the plan; answered when it has ended.
pub(super) async fn stop_run<E: Environment>(actor: &mut Actor<E>, plan: StopPlan, by: By, reply: Reply) {
    let Some(accepted) = actor.step(Input::Stop, reply) else { return };
    let cancels = accepted.cancels_restart();
    let Accepted { row, effects, reply } = accepted;
    let recorded = match by {
        By::User => stay_down(actor, row).await,
        By::Shutdown => {
            actor.row = row;
            if cancels { actor.record().await } else { Ok(()) }
        }
    };
    if by == By::User
        && let Err(error) = recorded
    {
        return answer(reply, Err(error));
    }
    actor.plan = plan;
    // What cannot be sent to the monitor was logged; SIGKILL follows in time.
    drop(actor.perform(&effects).await);
    actor.publish();
    if cancels {
        if by == By::User {
            actor.event("stop", []);
        }
        return answer(reply, recorded);
    }
    actor.waiting.stopped = true;
    actor.waiting.ends.push(reply);
}

/// The user wants the container to stay down: on the disk before anything is done about it, so that no daemon starts
/// it again. What cannot be recorded does not happen.
pub(super) async fn stay_down<E: Environment>(actor: &mut Actor<E>, mut row: ContainerRow) -> Result<()> {
    row.run.manually_stopped = true;
    if actor.row.run.manually_stopped && actor.row.state.at_rest() == row.state.at_rest() {
        actor.row = row;
        return Ok(());
    }
    actor.commit(row).await
}

/// Ends the run, if there is one, then starts the next.
pub(super) async fn stop_and_start<E: Environment>(actor: &mut Actor<E>, plan: StopPlan, reply: Reply) {
    if let Err(error) = actor.engine.containers().refuse_new() {
        return answer(reply, Err(error));
    }
    if actor.row.state.pid().is_none() {
        if actor.row.state.is_restarting() {
            let effects = actor.happened(Input::Stop);
            drop(actor.perform(&effects).await);
        }
        if let Some(Accepted { row, effects, reply }) = actor.step(Input::Start, reply) {
            actor.row = row;
            actor.waiting.restarts.push(reply);
            start::launch_by_hand(actor, &effects);
        }
        return;
    }
    actor.waiting.stopped = true;
    actor.waiting.restarts.push(reply);
    actor.plan = plan;
    let effects = actor.happened(Input::Stop);
    drop(actor.perform(&effects).await);
    actor.publish();
}

/// Sends the signal of the plan and sets the time of SIGKILL.
pub(super) async fn send_stop_signal<E: Environment>(actor: &mut Actor<E>) {
    let StopPlan { signal, seconds } = actor.plan;
    if signal::is_valid(signal) {
        actor.signal(signal).await;
    } else {
        tracing::warn!(container = actor.row.id.short(), signal, "the kernel has no such stop signal");
    }
    // More seconds than the clock has are for ever, too.
    match seconds.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds))) {
        Some(at) => actor.timers.set(Timer::Stop, at),
        None => actor.timers.cancel(Timer::Stop),
    }
}

/// SIGKILL did not help. A monitor that stands still is killed, which ends the container; with one that answers, the
/// container itself cannot be killed.
pub(super) async fn ask_monitor<E: Environment>(actor: &mut Actor<E>) {
    let Some(link) = actor.link.as_mut() else { return };
    match link.send(&Request::Ping, &[]).await {
        Ok(seq) => {
            actor.waiting.answers.insert(seq, Awaited::Ping);
            actor.timers.set(Timer::Ping, Instant::now() + ANSWER_WAIT);
        }
        Err(_) => kill_monitor(actor),
    }
}

/// Kills a monitor that does not answer; the end of its line is an event like any other.
pub(super) fn kill_monitor<E: Environment>(actor: &mut Actor<E>) {
    tracing::warn!(container = actor.row.id.short(), "killing the container's monitor, which does not answer");
    run::link::kill_monitor(actor.row.id.as_str());
}

/// The monitor answers, and the container still lives: everybody who waits for its end is told.
pub(super) async fn cannot_be_killed<E: Environment>(actor: &mut Actor<E>) {
    actor.timers.cancel(Timer::Ping);
    if actor.row.state.pid().is_some() && actor.end.is_none() {
        let mut text = format!("could not kill container: container {} did not end", actor.row.id.short());
        let why = actor.engine.why_alive(&actor.row).await;
        if !why.is_empty() {
            tracing::warn!(container = actor.row.id.short(), why, "killed, and still alive");
            text.push_str(": ");
            text.push_str(&why);
        }
        actor.waiting.refuse_end(&text);
    }
}
