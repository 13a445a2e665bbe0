//! `POST /containers/{id}/stop` and `restart`: the stop signal, a time to live on, then SIGKILL (B-sg-2).

use std::time::Duration;

use model::lifecycle::{Effect, Input};
use model::{Error, Kind, Result, signal};
use monitor::proto::Request;
use tokio::time::Instant;

use super::actor::{Actor, Command, Reply, Timer, answer};
use crate::container::Containers;
use crate::container::row::{ContainerRow, Definition};
use crate::settings::ContainerDefaults;

/// How long a killed container may take to end before its callers are told.
pub const KILL_WAIT: Duration = Duration::from_secs(12);

/// Seconds between a stop signal that the kernel does not have and SIGKILL at most.
const UNSENT: u64 = 2;

/// The query of a stop or restart call.
#[derive(Clone, Debug, Default)]
pub struct StopArgs {
    /// Seconds to wait; negative for ever; `None` for the container's own.
    pub timeout: Option<i64>,
    /// The signal instead of the container's own.
    pub signal: Option<String>,
}

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

/// The signal that the container asks for.
fn stop_signal(row: &Definition) -> &str {
    Some(row.config.stop_signal.as_str()).filter(|s| !s.is_empty()).unwrap_or("SIGTERM")
}

/// Whether this signal, sent by hand, is as good as a stop.
pub fn is_stop_signal(row: &Definition, number: i32) -> bool {
    number == signal::parse_any(stop_signal(row)).unwrap_or(signal::TERM)
}

/// Seconds between the stop signal and SIGKILL unless the caller says otherwise; negative: for ever.
pub fn timeout(row: &Definition, defaults: &ContainerDefaults) -> i64 {
    row.config.stop_timeout.unwrap_or(defaults.stop_timeout)
}

/// How a stop goes: which signal, how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopPlan {
    /// The signal's number.
    pub signal: i32,
    /// Seconds until SIGKILL; `None` waits for ever.
    pub seconds: Option<u64>,
}

impl StopPlan {
    /// The caller's wishes, else the container's, else the defaults.
    pub fn new(row: &Definition, args: &StopArgs, defaults: &ContainerDefaults) -> Result<StopPlan> {
        let word = args.signal.as_deref().filter(|s| !s.is_empty()).unwrap_or(stop_signal(row));
        let seconds = u64::try_from(args.timeout.unwrap_or(timeout(row, defaults))).ok();
        let signal = signal::parse_any(word)?;
        // Nothing will come of it, so that nobody waits long.
        let seconds = if signal::is_valid(signal) { seconds } else { Some(seconds.map_or(UNSENT, |s| s.min(UNSENT))) };
        Ok(StopPlan { signal, seconds })
    }
}

impl Actor {
    pub(super) async fn stop(&mut self, plan: StopPlan, reply: Reply) {
        let before = self.row.clone();
        let Some((effects, reply)) = self.step(Input::Stop, reply) else {
            return;
        };
        if let Err(error) = self.note_manual_stop(before).await {
            return answer(reply, Err(error));
        }
        if effects.contains(&Effect::CancelRestart) {
            self.timer = None;
            self.publish();
            self.event("stop", []);
            return answer(reply, Ok(()));
        }
        self.waiting.stopped = true;
        self.waiting.ends.push(reply);
        self.begin_stop(plan, &effects).await;
    }

    /// The user wants the container to stay down: on the disk before anything is done about it, so that no daemon starts
    /// it again. What cannot be recorded does not happen.
    pub(super) async fn note_manual_stop(&mut self, before: ContainerRow) -> Result<()> {
        if std::mem::replace(&mut self.row.run.manually_stopped, true)
            && self.row.state.at_rest() == before.state.at_rest()
        {
            return Ok(());
        }
        let persisted = self.persist().await;
        if persisted.is_err() {
            self.row = before;
        }
        persisted
    }

    pub(super) async fn restart(&mut self, plan: StopPlan, reply: Reply) {
        if let Err(error) = self.engine.containers.ending.refuse() {
            return answer(reply, Err(error));
        }
        if self.row.state.pid().is_none() {
            self.timer = None;
            if self.row.state.is_restarting() {
                self.happened(Input::Stop);
            }
            if let Some((effects, reply)) = self.step(Input::Start, reply) {
                self.waiting.restarts.push(reply);
                self.launch_by_hand(&effects);
            }
            return;
        }
        let effects = self.happened(Input::Stop);
        self.waiting.stopped = true;
        self.waiting.restarts.push(reply);
        self.begin_stop(plan, &effects).await;
    }

    /// The daemon ends: as a stop, but the restart policy will start it again.
    pub(super) async fn shutdown(&mut self, reply: Reply) {
        let settings = self.engine.settings();
        let seconds = u64::try_from(timeout(&self.row, &settings.containers)).ok();
        let plan = StopPlan::new(&self.row, &StopArgs::default(), &settings.containers);
        let plan = plan.unwrap_or(StopPlan { signal: signal::TERM, seconds });
        let Some((effects, reply)) = self.step(Input::Stop, reply) else {
            return;
        };
        if effects.contains(&Effect::CancelRestart) {
            self.timer = None;
            let recorded = self.record().await;
            self.publish();
            return answer(reply, recorded);
        }
        self.waiting.stopped = true;
        self.waiting.ends.push(reply);
        self.begin_stop(plan, &effects).await;
    }

    /// The daemon ends and nothing of the container is under way. What was frozen for an operation goes on.
    pub(super) async fn rest(&mut self, reply: Reply) {
        self.thaw_left_behind().await;
        if self.unrecorded.is_some() {
            drop(self.record().await);
        }
        answer(reply, Ok(()));
    }

    async fn begin_stop(&mut self, plan: StopPlan, effects: &[Effect]) {
        if signal::is_valid(plan.signal) {
            self.signal(plan.signal).await;
        } else {
            tracing::warn!(container = self.row.id.short(), signal = plan.signal, "the kernel has no such stop signal");
        }
        if effects.contains(&Effect::Thaw) {
            self.thaw().await;
        }
        // More seconds than the clock has are for ever, too.
        let deadline = plan.seconds.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
        self.timer = deadline.map(|deadline| (deadline, Timer::Deadline));
        self.publish();
    }

    pub(super) async fn thaw(&mut self) {
        if let Some(link) = self.link.as_mut()
            && let Err(error) = link.send(&Request::Freeze { frozen: false }, &[]).await
        {
            tracing::warn!(container = self.row.id.short(), %error, "not thawed");
        }
    }

    /// The time is over: SIGKILL.
    pub(super) async fn deadline(&mut self) {
        for effect in self.happened(Input::Deadline) {
            if let Effect::Signal(signal) = effect {
                self.signal(signal).await;
            }
        }
        self.expect_death();
    }

    /// From now on the container should end soon.
    pub(super) fn expect_death(&mut self) {
        self.timer = Some((Instant::now() + KILL_WAIT, Timer::Unkillable));
    }
}
