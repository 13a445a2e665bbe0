//! The end of a run: what the monitor says, what is let go, what the restart policy wants.

use std::sync::Arc;
use std::time::Duration;

use model::Error;
use model::lifecycle::{Effect, Input, State};
use model::restart::{self, Policy};
use model::time::Timestamp;
use monitor::proto::{Exit, Request};
use run::link;
use tokio::time::{Instant, sleep_until};

use super::actor::{Actor, Done, Timer, answer, hear};
use super::place;
use super::remove::RemoveArgs;
use crate::Engine;
use crate::container::row::ContainerRow;
use crate::ending::LastEnd;
use crate::events::now;

/// Recorded when a container was killed along with its monitor.
pub(super) const KILLED: i32 = 137;
/// What those are told who waited for an end that is not on the disk.
const NOT_RECORDED: &str = "the container has ended, which could not be recorded";
/// How long a monitor may take to remove what a run had.
const CLEANING_WAIT: Duration = Duration::from_secs(10);

impl Actor {
    /// The container's program has ended; its network is let go before anybody hears of it.
    pub(super) async fn ended(&mut self, exit: Exit) {
        if self.exit.is_some() || self.row.state.pid().is_none() {
            return;
        }
        self.exit = Some(exit);
        let volumes = self.row.volumes().map(|mount| mount.name.as_str());
        let volumes = self.engine.volumes.let_go(self.row.id.as_str(), volumes);
        if volumes.is_empty() && self.row.endpoints.iter().all(|e| e.host_link.is_none() && e.addresses.is_empty()) {
            // Entries in the networks' books; nothing asks the kernel, so no thread is needed.
            if let Err(error) = self.engine.networks.release(&self.row.id) {
                tracing::warn!(%error, "releasing a network");
            }
            return Box::pin(self.torn_down()).await;
        }
        let (engine, id, user) = (self.engine.clone(), self.row.id.clone(), self.row.id.clone());
        self.jobs.spawn(async move {
            let networks = engine.networks.clone();
            if let Err(error) = engine.containers.threads.ends.run(move |_| networks.release(&id)).await {
                tracing::warn!(%error, "releasing a network");
            }
            crate::held::release(&engine.volumes, volumes, user.as_str()).await;
            Done::TornDown
        });
    }

    /// The kernel has killed a process of the container for want of memory; the container may live on (B-oom-1).
    pub(super) async fn ran_out_of_memory(&mut self) {
        if !std::mem::replace(&mut self.row.run.oom_killed, true) {
            drop(self.record().await);
            self.publish();
        }
        self.event("oom", []);
    }

    /// The monitor has removed what the run had: the end of an exit that it told before, or all at once.
    pub(super) async fn cleaned(&mut self, exit: Exit) {
        if !std::mem::take(&mut self.cleaning) {
            return self.ended(exit).await;
        }
        match &mut self.exit {
            Some(told) => told.error = exit.error,
            None => self.row.run.error = exit.error,
        }
    }

    /// Waits until nothing of the run is left: a next run, or the removal, must not meet it. What the monitor does not
    /// remove in time, this does.
    async fn await_cleaning(&mut self) {
        let deadline = Instant::now() + CLEANING_WAIT;
        while self.cleaning {
            tokio::select! {
                packet = hear(self.link.as_ref()) => self.heard(packet).await,
                () = sleep_until(deadline) => {
                    tracing::warn!(container = self.row.id.short(), "the monitor is slow to clean up");
                    self.cleaning = false;
                    return clear_cgroup(&self.engine, &self.row).await;
                }
            }
        }
    }

    /// The monitor is gone without a word. Whatever still runs of the container is killed, its end is recorded.
    pub(super) async fn monitor_lost(&mut self) {
        self.link = None;
        if std::mem::take(&mut self.cleaning) {
            clear_cgroup(&self.engine, &self.row).await;
        }
        self.end_requests();
        if self.row.state.pid().is_none() || self.exit.is_some() {
            return;
        }
        let run_dir = place::run_dir(&self.engine.settings().roots, &self.row);
        let exit = link::exit_record(&run_dir).unwrap_or_else(killed_with_monitor);
        clear_cgroup(&self.engine, &self.row).await;
        self.ended(exit).await;
    }

    /// Everything the run held is free: commit, show, tell, answer; then what the policy wants.
    pub(super) async fn torn_down(&mut self) {
        let Some(exit) = self.exit.take() else {
            return;
        };
        let untold_oom = exit.oom && !self.row.run.oom_killed;
        let wants_restart = self.note_exit(&exit);
        let effects = self.happened(Input::Ended { restart: wants_restart });
        let endpoints = std::mem::take(&mut self.row.endpoints);
        self.row.unsettled_link = None;
        self.timer = None;
        self.end_execs(exit.code);
        let mut recorded = self.record().await;
        self.await_cleaning().await;
        if self.row.run.error != exit.error {
            recorded = self.record().await;
        }
        self.exits += 1;
        self.publish();
        if untold_oom {
            self.event("oom", []);
        }
        endpoints.iter().for_each(|endpoint| super::start::network_event(self, "disconnect", endpoint));
        self.unmount_events();
        if std::mem::take(&mut self.waiting.stopped) {
            self.event("stop", []);
        }
        let lasted = lasted(&self.row).as_secs();
        let figures = [("execDuration", lasted.to_string()), ("exitCode", exit.code.to_string())];
        self.event("die", figures);
        if self.waiting.is_end_awaited() {
            self.engine.containers.logs.followers.ended(&self.row.id).await;
        }
        for reply in self.waiting.ends.drain(..) {
            answer(reply, recorded.as_ref().map_or_else(|error| Err(error.copy().prefix(NOT_RECORDED)), |()| Ok(())));
        }
        // Those who waited for the end hear of it before what is left of the run is put away.
        tokio::task::yield_now().await;
        self.release_monitor().await;
        self.go_on(&effects).await;
    }

    /// Writes the exit into the row; whether the policy wants another run.
    fn note_exit(&mut self, exit: &Exit) -> bool {
        let run = &mut self.row.run;
        run.finished_at = Timestamp::from_unix_nanos(exit.at);
        run.exit_code = exit.code;
        run.oom_killed |= exit.oom;
        run.error.clone_from(&exit.error);
        let called_off = !self.waiting.restarts.is_empty() || self.waiting.removal.is_some();
        !called_off && self.count_restart(exit.code, lasted(&self.row))
    }

    /// Whether the policy wants another run after one that ended so; if it does, that is counted from now on.
    pub(super) fn count_restart(&mut self, exit_code: i32, lasted: Duration) -> bool {
        let run = &self.row.run;
        // A manual stop calls off every policy for now, and so does the daemon's end; `always` remembers at the daemon's
        // next start.
        if run.manually_stopped
            || self.engine.containers.ending.has_begun()
            || !policy(&self.row).restarts(exit_code, run.manually_stopped, run.restart_count)
        {
            return false;
        }
        self.backoff = restart::backoff(self.backoff, lasted);
        self.row.run.restart_count += 1;
        true
    }

    /// After the end: the removal or start that was waiting for it, the removal of `--rm`, or the policy's restart.
    pub(super) async fn go_on(&mut self, effects: &[Effect]) {
        if effects.contains(&Effect::ScheduleRestart) {
            self.timer = Some((Instant::now() + self.backoff, Timer::Backoff));
        } else if !self.waiting.removals.is_empty() {
            self.begin_removal();
        } else if !self.waiting.restarts.is_empty() {
            if let Err(error) = self.engine.containers.ending.refuse() {
                return self.waiting.restarts.drain(..).for_each(|reply| answer(reply, Err(error.copy())));
            }
            let effects = self.happened(Input::Start);
            self.launch_by_hand(&effects);
        } else if self.row.auto_remove() {
            self.remove_itself().await;
        }
    }

    /// A restart is due. While the daemon ends it stays due: the next one makes it.
    pub(super) async fn backoff_over(&mut self) {
        if self.engine.containers.ending.has_begun() {
            return;
        }
        let effects = self.happened(Input::BackoffOver);
        self.perform_launch(&effects);
    }

    /// The container goes with its anonymous volumes (B-ar-1).
    pub(super) async fn remove_itself(&mut self) {
        self.waiting.removal = Some(RemoveArgs { volumes: true, ..RemoveArgs::default() });
        self.begin_removal();
    }

    /// Nothing more comes of what the monitor was asked for.
    fn end_requests(&mut self) {
        for (_, reply) in self.waiting.answers.drain() {
            answer(reply, Err(Error::conflict(format!("container {} is not running", self.row.id.as_str()))));
        }
    }

    /// Lets the monitor end, now that the exit is recorded.
    async fn release_monitor(&mut self) {
        self.end_requests();
        if let Some(mut link) = self.link.take() {
            drop(link.send(&Request::Release, &[]).await);
        }
        if self.unrecorded.is_none() {
            self.forget_run();
        }
    }

    /// Nothing needs to tell a later daemon of the newest run any more: the row does.
    pub(super) fn forget_run(&self) {
        if let Err(error) = run::place::remove_dir(&place::run_dir(&self.engine.settings().roots, &self.row)) {
            tracing::warn!(container = self.row.id.short(), %error, "of a run that is over");
        }
    }

    /// The daemon is up: leftovers of `--rm` go, and what the policy wants is started (B-rs-4).
    pub(super) async fn booted(&mut self) {
        if !self.jobs.is_empty() || self.timer.is_some() {
            return;
        }
        if matches!(self.row.state, State::Exited | State::Dead) && self.row.auto_remove() {
            return self.remove_itself().await;
        }
        // One that ended while its monitor was being found.
        if consider(&mut self.row, LastEnd::Killed) {
            drop(self.record().await);
            self.publish();
        }
        self.backoff_over().await;
    }
}

fn policy(row: &ContainerRow) -> Policy {
    let policy = &row.host_config.restart_policy;
    Policy::parse(&policy.name, policy.maximum_retry_count).unwrap_or(Policy::No)
}

/// What a new daemon's start means for a container that does not run: whether its policy wants a run, which is then due and
/// counted. The count goes on over daemons that were killed.
pub(super) fn consider(row: &mut ContainerRow, last: LastEnd) -> bool {
    let (policy, run) = (policy(row), &row.run);
    let wanted = row.state == State::Exited
        && run.was_started
        && !row.host_config.auto_remove
        && policy.restarts_at_boot(run.exit_code, run.manually_stopped, run.restart_count);
    if !wanted {
        return false;
    }
    row.state = State::Restarting;
    let run = &mut row.run;
    match last {
        LastEnd::Clean => run.restart_count = 0,
        LastEnd::Killed if policy.counts() => run.restart_count += 1,
        LastEnd::Killed => {}
    }
    true
}

/// How long the newest run was.
fn lasted(row: &ContainerRow) -> Duration {
    row.run.finished_at.after(row.run.started_at)
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

/// Kills what is left in the container's cgroup and removes it.
pub(super) async fn clear_cgroup(engine: &Arc<Engine>, row: &ContainerRow) {
    let ends = &engine.containers.threads.ends;
    let (engine, row) = (engine.clone(), row.clone());
    let cleared = ends.run(move |_| Ok(run::place::clear(&place::cgroup_of(&engine.host, &engine.settings(), &row)?)?));
    if let Err(error) = cleared.await {
        tracing::warn!(%error, "clearing a cgroup");
    }
}
