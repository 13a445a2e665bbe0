//! `POST /containers/{id}/kill`, `pause` and `unpause`.

use model::lifecycle::Input;
use model::{Result, signal};
use monitor::proto::Request;

use super::actor::{Accepted, Actor, Awaited, not_running};
use super::environment::Environment;
use super::{health, stop};
use crate::container::Containers;
use crate::container::registry::command::{Command, Reply, answer};
use crate::container::registry::draft;

/// Sends a signal, by name or number; empty means SIGKILL.
pub async fn kill(containers: &Containers, name: &str, word: &str) -> Result<()> {
    let signal = signal::parse(if word.is_empty() { "SIGKILL" } else { word })?;
    containers.find(name)?.ask(|reply| Command::Kill { signal, reply }).await
}

/// Freezes all processes of the container.
pub async fn pause(containers: &Containers, name: &str) -> Result<()> {
    containers.find(name)?.ask(|reply| Command::Pause { passing: false, reply }).await
}

/// Lets them go on.
pub async fn unpause(containers: &Containers, name: &str) -> Result<()> {
    containers.find(name)?.ask(|reply| Command::Unpause { reply }).await
}

/// Sends a signal. SIGKILL is answered when the container has ended, any other signal when it was sent.
pub(super) async fn send_signal<E: Environment>(actor: &mut Actor<E>, signal: i32, reply: Reply) {
    let ends = stop::counts_as_stop(&actor.row, signal);
    let Some(accepted) = actor.step(Input::Kill { signal, ends }, reply) else { return };
    let cancels = accepted.cancels_restart();
    let Accepted { row, effects, reply } = accepted;
    if !ends && !cancels {
        actor.row = row;
    } else if let Err(error) = stop::stay_down(actor, row).await {
        return answer(reply, Err(error));
    }
    // What cannot be sent to the monitor was logged.
    drop(actor.perform(&effects).await);
    actor.publish();
    match signal {
        signal::KILL if !cancels => actor.waiting.ends.push(reply),
        _ => answer(reply, Ok(())),
    }
}

/// Freezes: recorded, then done, and taken back when the monitor cannot do it.
pub(super) async fn freeze<E: Environment>(actor: &mut Actor<E>, reply: Reply) {
    let before = actor.row.clone();
    let Some(Accepted { mut row, reply, .. }) = actor.step(Input::Pause, reply) else { return };
    row.run.frozen_in_passing = false;
    health::suspend(&mut row);
    let told = match actor.commit_telling(row, "pause").await {
        Ok(told) => told,
        Err(error) => return answer(reply, Err(error)),
    };
    // A frozen one would not die.
    (health::Prober { actor }).stop().await;
    if let Err(error) = set_frozen(actor, true).await {
        actor.row = before;
        (health::Prober { actor }).schedule();
        drop(actor.record().await);
        return answer(reply, Err(error));
    }
    actor.publish();
    told.publish();
    answer(reply, Ok(()));
}

/// Lets go on: done, then recorded; should the daemon die in between, the next one still knows why the container is frozen.
pub(super) async fn thaw<E: Environment>(actor: &mut Actor<E>, reply: Reply) {
    let Some(Accepted { row, reply, .. }) = actor.step(Input::Unpause, reply) else { return };
    let asked = match set_frozen(actor, false).await {
        Ok(asked) => asked,
        Err(error) => return answer(reply, Err(error)),
    };
    actor.row = row;
    actor.row.run.frozen_in_passing = false;
    (health::Prober { actor }).schedule();
    let told = actor.engine.events().ride(vec![draft(&actor.row, "unpause", [])]);
    let recorded = actor.record_with(told.rows()).await;
    actor.publish();
    if recorded.is_ok() {
        told.publish()
    } else {
        told.publish_unrecorded()
    }
    // Answered when its processes run: what comes next must not find them frozen.
    drop(actor.waiting.answers.insert(asked, Awaited::Caller(reply)));
}

/// Freezes for the time of an operation. Should the daemon die over it, the monitor lets the container go on, and the record,
/// which tells why before it is done, has the next daemon do so.
pub(super) async fn freeze_in_passing<E: Environment>(actor: &mut Actor<E>, reply: Reply) {
    let Some(Accepted { mut row, reply, .. }) = actor.step(Input::Pause, reply) else { return };
    row.run.frozen_in_passing = true;
    let told = match actor.commit_telling(row, "pause").await {
        Ok(told) => told,
        Err(error) => return answer(reply, Err(error)),
    };
    actor.publish();
    told.publish();
    // Answered when all processes stand.
    actor.request(&Request::Freeze { frozen: true, passing: true }, reply).await;
}

/// What a daemon that died over an operation left frozen goes on.
pub(super) async fn thaw_left_behind<E: Environment>(actor: &mut Actor<E>) {
    if !std::mem::take(&mut actor.row.run.frozen_in_passing) {
        return;
    }
    let effects = actor.happened(Input::Unpause);
    drop(actor.perform(&effects).await);
    drop(actor.record().await);
}

/// Has the monitor freeze the container's processes, or let them go on; the number under which it answers.
pub(super) async fn set_frozen<E: Environment>(actor: &mut Actor<E>, frozen: bool) -> Result<u32> {
    let sent = match actor.link.as_mut() {
        None => Err(not_running(&actor.row)),
        Some(link) => link.send(&Request::Freeze { frozen, passing: false }, &[]).await,
    };
    sent.inspect_err(|error| tracing::warn!(container = actor.row.id.short(), frozen, %error, "not frozen or thawed"))
}
