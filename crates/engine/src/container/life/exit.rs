//! The end of a run: what the monitor says, what is let go, what the restart policy wants.

use std::time::Duration;

use events::{Ride, now};
use model::Result;
use model::lifecycle::{self, Effect, Input, Outcome, State};
use model::restart::{self, Policy};
use model::time::Timestamp;
use monitor::proto::{Exit, Request};
use run::link;
use tokio::time::Instant;

use super::actor::{Actor, Done};
use super::drafts::{self, Ended};
use super::environment::Environment;
use super::timers::Timer;
use super::{execs, health, procedure, remove, start};
use crate::container::registry::command::answer;
use crate::container::registry::draft;
use crate::container::row::ContainerRow;
use crate::ending::LastEnd;

/// Recorded when a container was killed along with its monitor.
pub(super) const KILLED: i32 = 137;
/// What those are told who waited for an end that is not on the disk.
const NOT_RECORDED: &str = "the container has ended, which could not be recorded";
/// How long a monitor may take to remove what a run had.
const CLEANING_WAIT: Duration = Duration::from_secs(10);

/// The end of a run, under way.
pub(in crate::container) struct End {
    exit: Exit,
    /// `None`: the container's networks are being released.
    recorded: Option<Recorded>,
}

/// An end whose record was written.
struct Recorded {
    outcome: Result<()>,
    /// What the rules want next.
    effects: Vec<Effect>,
    /// What is told of it, which rides in the record.
    told: Ride,
}

impl End {
    /// Only the monitor's cleanup is waited for.
    pub(super) fn is_recorded(&self) -> bool {
        self.recorded.is_some()
    }
}

/// The container's program has ended; its network is let go before anybody hears of it.
pub(in crate::container) async fn ended<E: Environment>(actor: &mut Actor<E>, exit: Exit) {
    if actor.end.is_some() || actor.row.state.pid().is_none() {
        return;
    }
    actor.end = Some(End { exit, recorded: None });
    // Its processes have ended: whoever waits from now on waits for something else.
    for timer in [Timer::Stop, Timer::Kill, Timer::Ping] {
        actor.timers.cancel(timer);
    }
    match actor.engine.release(&actor.row) {
        None => released(actor).await,
        Some(release) => {
            (procedure::Procedure { actor }).begin("its networks and volumes to be let go");
            actor.jobs.spawn(async move {
                release.await;
                Done::TornDown
            });
        }
    }
}

/// The kernel has killed a process of the container for want of memory; the container may live on (B-oom-1).
pub(super) async fn ran_out_of_memory<E: Environment>(actor: &mut Actor<E>) {
    if std::mem::replace(&mut actor.row.run.oom_killed, true) {
        return actor.event("oom", []);
    }
    let told = actor.engine.events().ride(vec![draft(&actor.row, "oom", [])]);
    let recorded = actor.record_with(told.rows()).await;
    actor.publish();
    if recorded.is_ok() { told.publish() } else { told.publish_unrecorded() }
}

/// The monitor has removed what the run had: the end of an exit that it told before, or all at once.
pub(super) async fn cleaned<E: Environment>(actor: &mut Actor<E>, exit: Exit) {
    if !std::mem::take(&mut actor.cleaning) {
        return ended(actor, exit).await;
    }
    if let Some(end) = &mut actor.end {
        end.exit.error = exit.error;
    }
    finish(actor).await;
}

/// What the monitor does not remove in time, this does: a next run, or the removal, must not meet it.
pub(super) async fn cleanup_is_slow<E: Environment>(actor: &mut Actor<E>) {
    tracing::warn!(container = actor.row.id.short(), "the monitor is slow to clean up");
    actor.cleaning = false;
    actor.engine.clear_cgroup(&actor.row).await;
    finish(actor).await;
}

/// The monitor is gone without a word. Whatever still runs of the container is killed, its end is recorded.
pub(super) async fn monitor_lost<E: Environment>(actor: &mut Actor<E>) {
    actor.link = None;
    actor.timers.cancel(Timer::Ping);
    actor.waiting.end_requests(&actor.row);
    if std::mem::take(&mut actor.cleaning) {
        actor.engine.clear_cgroup(&actor.row).await;
        return finish(actor).await;
    }
    if actor.row.state.pid().is_none() || actor.end.is_some() {
        return;
    }
    let exit = link::exit_record(&actor.engine.run_dir(&actor.row)).unwrap_or_else(killed_with_monitor);
    actor.engine.clear_cgroup(&actor.row).await;
    ended(actor, exit).await;
}

/// The networks are released: the end is recorded while the monitor cleans up, and shown when it has.
pub(super) async fn released<E: Environment>(actor: &mut Actor<E>) {
    (procedure::Procedure { actor }).end();
    let Some(End { exit, .. }) = actor.end.take() else { return };
    let untold_oom = exit.oom && !actor.row.run.oom_killed;
    let restart = note_exit(actor, &exit);
    let effects = actor.happened(Input::Ended { restart });
    let endpoints = std::mem::take(&mut actor.row.endpoints);
    actor.row.unsettled_link = None;
    (health::Prober { actor }).ended();
    execs::end_all(actor, exit.code);
    let unreported = [untold_oom.then_some("oom"), std::mem::take(&mut actor.waiting.stopped).then_some("stop")];
    let unreported = unreported.into_iter().flatten().collect();
    let ended = Ended { endpoints: &endpoints, unreported, lasted: actor.began.elapsed().as_secs(), code: exit.code };
    let told = actor.engine.events().ride(drafts::ended(&actor.engine, &actor.row, ended));
    let outcome = actor.record_with(told.rows()).await;
    actor.end = Some(End { exit, recorded: Some(Recorded { outcome, effects, told }) });
    if actor.cleaning {
        actor.timers.set(Timer::Cleanup, Instant::now() + CLEANING_WAIT);
    } else {
        finish(actor).await;
    }
}

/// Nothing of the run is left: show, tell, answer; then what the policy wants. Nothing happens before the end is recorded.
async fn finish<E: Environment>(actor: &mut Actor<E>) {
    let Some(End { exit, recorded: Some(recorded) }) = actor.end.take_if(|end| end.is_recorded()) else { return };
    let Recorded { mut outcome, effects, told } = recorded;
    let is_told = outcome.is_ok();
    actor.timers.cancel(Timer::Cleanup);
    if actor.row.run.error != exit.error {
        actor.row.run.error.clone_from(&exit.error);
        outcome = actor.record().await;
    }
    if !actor.unrecorded {
        // At the first try or at a later one.
        outcome = Ok(());
    }
    actor.exits += 1;
    actor.publish();
    if is_told {
        told.publish()
    } else {
        told.publish_unrecorded()
    }
    if actor.waiting.is_end_awaited() {
        actor.engine.containers().logs.followers.ended(&actor.row.id).await;
    }
    for reply in actor.waiting.ends.drain(..) {
        answer(reply, outcome.as_ref().map_or_else(|error| Err(error.copy().prefix(NOT_RECORDED)), |()| Ok(())));
    }
    // Those who waited for the end hear of it before what is left of the run is put away.
    tokio::task::yield_now().await;
    actor.waiting.end_requests(&actor.row);
    // The monitor ends, now that the exit is recorded.
    if let Some(mut link) = actor.link.take() {
        drop(link.send(&Request::Release, &[]).await);
    }
    if !actor.unrecorded {
        actor.forget_run();
    }
    go_on(actor, &effects).await;
}

/// Writes the exit into the row; whether the policy wants another run.
fn note_exit<E: Environment>(actor: &mut Actor<E>, exit: &Exit) -> bool {
    let run = &mut actor.row.run;
    run.finished_at = Timestamp::from_unix_nanos(exit.at);
    run.exit_code = exit.code;
    run.oom_killed |= exit.oom;
    run.error.clone_from(&exit.error);
    let called_off = !actor.waiting.restarts.is_empty() || actor.waiting.removal.is_some();
    !called_off
        && ((health::Prober { actor }).count_restart() || count_restart(actor, exit.code, actor.began.elapsed()))
}

/// Whether the policy wants another run after one that ended so; if it does, that is counted from now on.
pub(super) fn count_restart<E: Environment>(actor: &mut Actor<E>, exit_code: i32, lasted: Duration) -> bool {
    let run = &actor.row.run;
    // A manual stop calls off every policy for now, and so does the daemon's end; `always` remembers at the daemon's
    // next start.
    if run.manually_stopped
        || actor.engine.containers().ending.has_begun()
        || !policy(&actor.row).restarts(exit_code, run.manually_stopped, run.restart_count)
    {
        return false;
    }
    actor.backoff = restart::backoff(actor.backoff, lasted);
    actor.row.run.restart_count += 1;
    true
}

/// After the end: the removal or start that was waiting for it, the removal of `--rm`, or the policy's restart.
pub(super) async fn go_on<E: Environment>(actor: &mut Actor<E>, effects: &[Effect]) {
    if effects.contains(&Effect::ScheduleRestart) {
        drop(actor.perform(effects).await);
    } else if !actor.waiting.removals.is_empty() {
        remove::remove_now(actor);
    } else if !actor.waiting.restarts.is_empty() {
        if let Err(error) = actor.engine.containers().refuse_new() {
            return actor.waiting.restarts.drain(..).for_each(|reply| answer(reply, Err(error.copy())));
        }
        let effects = actor.happened(Input::Start);
        start::launch_by_hand(actor, &effects);
    } else if actor.row.auto_remove() {
        remove::remove_itself(actor);
    }
}

/// A restart is due. While the daemon ends it stays due: the next one makes it. While descriptors are short it waits.
pub(super) async fn backoff_over<E: Environment>(actor: &mut Actor<E>) {
    if actor.engine.containers().ending.has_begun() {
        return;
    }
    if actor.engine.containers().refuse_new().is_err() {
        return actor.timers.set(Timer::BackOff, Instant::now() + sys::descriptors::RETRY_PAUSE);
    }
    let effects = actor.happened(Input::BackoffOver);
    drop(actor.perform(&effects).await);
}

/// The daemon is up: leftovers of `--rm` go, and what the policy wants is started (B-rs-4).
pub(super) async fn booted<E: Environment>(actor: &mut Actor<E>) {
    if actor.timers.has(Timer::BackOff) {
        return;
    }
    if matches!(actor.row.state, State::Exited | State::Dead) && actor.row.auto_remove() {
        return remove::remove_itself(actor);
    }
    // One that ended while its monitor was being found.
    if consider(&mut actor.row, LastEnd::Killed) {
        drop(actor.record().await);
        actor.publish();
    }
    backoff_over(actor).await;
}

fn policy(row: &ContainerRow) -> Policy {
    let policy = &row.host_config.restart_policy;
    Policy::parse(&policy.name, policy.maximum_retry_count).unwrap_or(Policy::No)
}

/// What a new daemon's start means for a container that does not run: whether its policy wants a run, which is then due and
/// counted. The count goes on over daemons that were killed.
pub(super) fn consider(row: &mut ContainerRow, last: LastEnd) -> bool {
    let (policy, run) = (policy(row), &row.run);
    let wanted = run.was_started
        && !row.host_config.auto_remove
        && policy.restarts_at_boot(run.exit_code, run.manually_stopped, run.restart_count);
    let was_unhealthy = run.was_started && health::is_restart_due(row);
    if !wanted && !was_unhealthy {
        return false;
    }
    let Outcome::Accept(due, _) = lifecycle::step(row.state, Input::RestartDue) else { return false };
    row.state = due;
    let run = &mut row.run;
    match last {
        LastEnd::Clean => run.restart_count = 0,
        LastEnd::Killed if policy.counts() => run.restart_count += 1,
        LastEnd::Killed => {}
    }
    if was_unhealthy {
        run.unhealthy_restarts = run.unhealthy_restarts.saturating_add(1);
    }
    true
}

/// The end of a container whose monitor was killed: it cannot live without.
pub(super) fn killed_with_monitor() -> Exit {
    Exit {
        code: KILLED,
        signal: Some(9),
        at: now().unix_nanos(),
        error: "the container's monitor was killed".into(),
        ..Exit::default()
    }
}
