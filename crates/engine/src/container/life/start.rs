//! `POST /containers/{id}/start`, and what a launch's end means: also for restarts by policy and at the daemon's start.

use std::time::Duration;

use model::Result;
use model::lifecycle::{Effect, Input};
use run::{Failed, Link, Running, link};
use tokio::time::Instant;

use super::actor::{Accepted, Actor};
use super::clients::Clients;
use super::environment::Environment;
use super::launch::Launched;
use super::timers::Timer;
use super::{clients, exit, health, launch};
use crate::container::registry::command::{Command, Reply, answer};
use crate::container::{Containers, publish};

/// Starts a container; `Kind::NotModified` when it runs already.
pub async fn start(containers: &Containers, name: &str) -> Result<()> {
    containers.find(name)?.ask(|reply| Command::Start { reply }).await
}

/// Starts a container that a client wants to run.
pub(super) fn start_by_hand<E: Environment>(actor: &mut Actor<E>, reply: Reply) {
    if let Err(error) = actor.engine.containers().refuse_new() {
        return answer(reply, Err(error));
    }
    let Some(Accepted { row, effects, reply }) = actor.step(Input::Start, reply) else { return };
    actor.row = row;
    actor.waiting.starts.push(reply);
    launch_by_hand(actor, &effects);
}

/// A start by hand begins the policy's counting anew (B-rs-1).
pub(super) fn launch_by_hand<E: Environment>(actor: &mut Actor<E>, effects: &[Effect]) {
    actor.row.run.restart_count = 0;
    actor.row.run.unhealthy_restarts = 0;
    actor.backoff = Duration::ZERO;
    if effects.contains(&Effect::Launch) {
        launch::begin(actor);
    }
}

/// The program runs, and its record says so: show, tell, answer.
pub(super) async fn launched<E: Environment>(actor: &mut Actor<E>, (running, place, told): Launched) {
    let Running { client, monitor, process } = running;
    launch::end(actor);
    link::reap(monitor);
    match Link::new(client) {
        Ok(link) => actor.link = Some(link),
        Err(error) => tracing::error!(container = actor.row.id.short(), %error, "no line to the monitor"),
    }
    launch::note_run(&mut actor.row, &process, place);
    actor.began = Instant::now();
    actor.unrecorded = false;
    actor.timers.cancel(Timer::Record);
    (health::Prober { actor }).begin();
    actor.publish();
    told.publish();
    answer_starts(actor, || Ok(()));
    let Clients { here, expected } = std::mem::take(&mut actor.clients);
    for client in here {
        clients::hand_over(actor, client).await;
    }
    for arriving in expected {
        clients::let_in(actor, arriving);
    }
}

/// The launch took everything back; what is left is to say so (B-st-1). A run that the policy began and nobody could
/// record has ended like any other: the policy goes on, while a client that asked for it is told.
pub(super) async fn launch_failed<E: Environment>(actor: &mut Actor<E>, failed: Failed) {
    let Failed { error, exit_code, ran } = failed;
    launch::end(actor);
    let by_policy = actor.waiting.starts.is_empty() && actor.waiting.restarts.is_empty();
    let restart = ran && by_policy && exit::count_restart(actor, exit::KILLED, Duration::ZERO);
    let effects = actor.happened(Input::LaunchFailed { restart });
    actor.row.run.exit_code = exit_code;
    actor.row.run.error = error.message().to_string();
    actor.row.run.start_failed = true;
    drop(actor.record().await);
    actor.publish();
    answer_starts(actor, || Err(error.copy()));
    exit::go_on(actor, &effects).await;
}

fn answer_starts<E: Environment>(actor: &mut Actor<E>, outcome: impl Fn() -> Result<()>) {
    for reply in actor.waiting.starts.drain(..) {
        answer(reply, outcome());
    }
    for reply in actor.waiting.restarts.drain(..) {
        if outcome().is_ok() {
            publish(actor.engine.events(), &actor.row, "restart", []);
        }
        answer(reply, outcome());
    }
}
