//! `POST /containers/{id}/stop` and `restart`: the stop signal, a time to live on, then SIGKILL (B-sg-2).

use std::sync::Arc;
use std::time::Duration;

use model::lifecycle::{Effect, Input};
use model::{Error, Kind, Result, signal};
use monitor::proto::Request;
use tokio::time::Instant;

use super::actor::{Actor, Command, Reply, Timer, answer};
use super::row::ContainerRow;
use crate::Engine;

/// Seconds between the stop signal and SIGKILL unless the caller or the container says otherwise.
pub const DEFAULT_TIMEOUT: i64 = 10;
/// How long a killed container may take to end before its callers are told.
pub const KILL_WAIT: Duration = Duration::from_secs(12);

/// The query of a stop or restart call.
#[derive(Clone, Debug, Default)]
pub struct StopArgs {
    /// Seconds to wait; negative for ever; `None` for the container's own.
    pub timeout: Option<i64>,
    /// The signal instead of the container's own.
    pub signal: Option<String>,
}

/// Stops a running container; `Kind::NotModified` when it does not run.
pub async fn stop(engine: &Arc<Engine>, name: &str, args: StopArgs) -> Result<()> {
    let handle = engine.containers.find(name)?;
    let view = handle.view();
    let stopped = match StopPlan::new(&view.row, &args) {
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
pub async fn restart(engine: &Arc<Engine>, name: &str, args: StopArgs) -> Result<()> {
    let handle = engine.containers.find(name)?;
    let restarted = match StopPlan::new(&handle.view().row, &args) {
        Ok(plan) => handle.ask(|reply| Command::Restart { plan, reply }).await,
        Err(error) => Err(error),
    };
    restarted.map_err(|error| refused(error, format!("Cannot restart container {name}")))
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
    pub fn new(row: &ContainerRow, args: &StopArgs) -> Result<StopPlan> {
        let own = Some(row.config.stop_signal.as_str()).filter(|s| !s.is_empty());
        let word = args.signal.as_deref().filter(|s| !s.is_empty()).or(own).unwrap_or("SIGTERM");
        let seconds = args.timeout.or(row.config.stop_timeout).unwrap_or(DEFAULT_TIMEOUT);
        Ok(StopPlan { signal: signal::parse(word)?, seconds: u64::try_from(seconds).ok() })
    }
}

impl Actor {
    pub(super) async fn stop(&mut self, plan: StopPlan, reply: Reply) {
        let Some((effects, reply)) = self.step(Input::Stop, reply) else {
            return;
        };
        self.row.run.manually_stopped = true;
        if effects.contains(&Effect::CancelRestart) {
            self.timer = None;
            self.record().await;
            self.publish();
            self.event("stop", []);
            return answer(reply, Ok(()));
        }
        self.waiting.stopped = true;
        self.waiting.ends.push(reply);
        self.begin_stop(plan, &effects).await;
    }

    pub(super) async fn restart(&mut self, plan: StopPlan, reply: Reply) {
        if self.row.state.pid().is_none() {
            self.timer = None;
            if self.row.state.is_restarting() {
                self.happened(Input::Stop);
            }
            if let Some((effects, reply)) = self.step(Input::Start, reply) {
                self.waiting.restarts.push(reply);
                self.perform_launch(&effects);
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
        let plan = StopPlan::new(&self.row, &StopArgs::default());
        let plan = plan.unwrap_or(StopPlan { signal: 15, seconds: Some(DEFAULT_TIMEOUT as u64) });
        let Some((effects, reply)) = self.step(Input::Stop, reply) else {
            return;
        };
        if effects.contains(&Effect::CancelRestart) {
            self.timer = None;
            self.record().await;
            return answer(reply, Ok(()));
        }
        self.waiting.ends.push(reply);
        self.begin_stop(plan, &effects).await;
    }

    async fn begin_stop(&mut self, plan: StopPlan, effects: &[Effect]) {
        self.signal(plan.signal).await;
        if effects.contains(&Effect::Thaw) {
            self.thaw().await;
        }
        self.timer = plan.seconds.map(|s| (Instant::now() + Duration::from_secs(s), Timer::Deadline));
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
