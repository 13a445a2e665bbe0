//! Health checks of a container that runs (B-hc-1 to B-hc-3), and its restart when they fail.
//!
//! The actor decides when a probe is due and what a result means; the monitor makes the probe, ends one that takes too long,
//! and keeps the newest results for a daemon that was not there. One probe of a container is under way at a time; containers do
//! not wait for each other. What is on the disk: the status, and the failures in a row as long as they may change it
//! ([`model::health::Change::is_durable`]). See `docs/design/0035-health.md`.

use std::sync::Arc;
use std::time::Duration;

use model::health::{Health, NO_EXIT_CODE, Probed, Status, Target};
use model::id::ContainerId;
use model::lifecycle::{Input, State};
use model::time::Timestamp;
use model::{Error, Result, duration, restart};
use monitor::proto::{self, ProbeState, ReachSpec, Request};
use runtime::Scope;
use tokio::time::Instant;

use super::actor::{Actor, not_running};
use super::environment::Environment;
use super::timers::Timer;
use crate::container::definition::Definition;
use crate::container::definition::health::{How, how, is_checked, rules};
use crate::container::registry::exec_session::{Phase, Session};
use crate::container::row::ContainerRow;
use events::now;

/// How long a probe may take, beyond its own time, until its monitor has told a result: it may be on its way into the
/// container for half a minute, and killed ones may be slow to die.
const GRACE: Duration = Duration::from_secs(60);
/// When a container is looked at again that is frozen for a moment.
const FROZEN_PAUSE: Duration = Duration::from_millis(500);
/// Probes that were due while no daemon was there are spread over so much time.
const SPREAD: Duration = Duration::from_secs(2);
/// The exit code of a process that SIGKILL has ended.
const KILLED: i32 = 137;

/// The health checks of the present run.
pub(in crate::container) struct Checks {
    /// When the run began.
    started: Instant,
    under_way: Option<UnderWay>,
    /// The session of the last probe, which can be inspected until the next.
    last: Option<String>,
    /// Since when no probe has failed.
    healthy_since: Option<Instant>,
    /// Results of probes that an earlier daemon began still count.
    catches_up: bool,
}

/// A probe that was asked for.
struct UnderWay {
    id: String,
    begun: Instant,
    asked: Timestamp,
    /// `None`: it is no exec, or an earlier daemon has begun it.
    session: Option<Arc<Session>>,
}

impl Default for Checks {
    fn default() -> Checks {
        Checks { started: Instant::now(), under_way: None, last: None, healthy_since: None, catches_up: false }
    }
}

impl Checks {
    /// Whether this is the probe under way.
    pub(super) fn is_probe(&self, id: &str) -> bool {
        self.under_way.as_ref().is_some_and(|probe| probe.id == id)
    }
}

/// The health of a row whose run begins.
pub fn reset(row: &mut ContainerRow) {
    row.run.restart_is_due = false;
    if is_checked(row) {
        let health = row.run.health.get_or_insert_default();
        Arc::make_mut(health).begin();
    }
}

/// The health of a row that is not probed any more.
pub fn suspend(row: &mut ContainerRow) {
    if let Some(health) = &mut row.run.health {
        Arc::make_mut(health).suspend();
    }
}

/// The result of a probe that was not made.
fn not_made((_, asked): (Instant, Timestamp), why: &str) -> Probed {
    Probed { start: asked, end: now(), exit_code: NO_EXIT_CODE, output: why.to_owned() }
}

/// What is under way: its id, and its session if it is an exec.
type Begun = (String, Option<Arc<Session>>);

/// What a monitor of an earlier version says of a probe: it has kept no output and set no limit of time.
pub(super) fn ended_as_exec(id: String, exit: &proto::Exit) -> proto::Probed {
    proto::Probed { id, code: exit.code, ended_at: exit.at, ..proto::Probed::default() }
}

/// Whether the result that came then is not in the log.
fn is_news(row: &ContainerRow, end: Timestamp) -> bool {
    let last = row.run.health.as_ref().and_then(|health| health.log.last());
    end > row.run.started_at && last.is_none_or(|last| last.end < end)
}

/// What the log says of a result.
fn describe(row: &Definition, result: &proto::Probed) -> String {
    let output = String::from_utf8_lossy(&result.output);
    if !result.is_late {
        return output.into_owned();
    }
    let timeout = duration::format(i64::try_from(rules(row).timeout.as_nanos()).unwrap_or(i64::MAX));
    match output.is_empty() {
        true => format!("Health check exceeded timeout ({timeout})"),
        false => format!("Health check exceeded timeout ({timeout}): {output}"),
    }
}

/// The same for one whose end a new daemon has found.
pub fn is_restart_due(row: &ContainerRow) -> bool {
    row.run.restart_is_due && !row.run.manually_stopped
}

/// The health checks of an actor.
pub(super) struct Prober<'a, E> {
    pub actor: &'a mut Actor<E>,
}

impl<E: Environment> Prober<'_, E> {
    /// A run has begun.
    pub(super) fn begin(self) {
        let Prober { actor } = self;
        actor.health = Checks::default();
        (Prober { actor }).schedule();
    }

    /// A run of an earlier daemon goes on. What it has begun and what has ended since is told by the monitor.
    pub(super) fn take_up(self) {
        let Prober { actor } = self;
        if actor.row.state.pid().is_none() || !is_checked(&actor.row) {
            return;
        }
        // One that an earlier version has started.
        let health = actor.row.run.health.get_or_insert_default();
        let (status, last_end) = (health.status, health.log.last().map(|last| last.end));
        let lasted = actor.row.run.started_at.after(now());
        let now = Instant::now();
        let started = now.checked_sub(lasted).unwrap_or(now);
        let last_end = last_end.unwrap_or(actor.row.run.started_at);
        actor.health = Checks { started, catches_up: true, ..Checks::default() };
        if actor.row.state.is_paused() {
            return;
        }
        let pause = rules(&actor.row).pause(status, lasted);
        let waited = last_end.after(events::now());
        // Not all at once.
        let share = u32::from_str_radix(actor.row.id.as_str().get(..6).unwrap_or("0"), 16).unwrap_or(0);
        let spread = SPREAD.min(pause).mul_f64(f64::from(share) / f64::from(0x00ff_ffff));
        actor.timers.set(Timer::Health, now + pause.saturating_sub(waited).max(spread));
    }

    /// The monitor tells of a probe that an earlier daemon has begun.
    pub(super) fn found(self, probe: Option<ProbeState>) {
        let Prober { actor } = self;
        let Some(ProbeState { id, started_at }) = probe.filter(|_| actor.health.under_way.is_none()) else { return };
        let asked = Timestamp::from_unix_nanos(started_at);
        actor.timers.cancel(Timer::Health);
        (Prober { actor }).await_result(UnderWay { id, begun: Instant::now(), asked, session: None });
    }

    /// Sets the time of the next probe.
    pub(super) fn schedule(self) {
        let Prober { actor } = self;
        let Some(health) = &actor.row.run.health else { return };
        if actor.health.under_way.is_some() || !is_checked(&actor.row) {
            return;
        }
        let pause = rules(&actor.row).pause(health.status, actor.health.started.elapsed());
        actor.timers.set(Timer::Health, Instant::now() + pause);
    }

    fn await_result(self, probe: UnderWay) {
        let Prober { actor } = self;
        actor.timers.set(Timer::Probe, Instant::now() + rules(&actor.row).timeout.saturating_add(GRACE));
        actor.health.under_way = Some(probe);
    }

    /// A probe is due.
    pub(super) async fn due(self) {
        let Prober { actor } = self;
        match actor.row.state {
            State::Running { .. } | State::Stopping { .. } => {}
            State::Paused { .. } if actor.row.run.frozen_in_passing => {
                return actor.timers.set(Timer::Health, Instant::now() + FROZEN_PAUSE);
            }
            _ => return,
        }
        let Some(how) = how(&actor.row).filter(|_| actor.health.under_way.is_none()) else { return };
        actor.health.catches_up = false;
        let (begun, asked) = (Instant::now(), now());
        actor.engine.containers().probes.begin();
        let sent = match how {
            How::Command(words) => (Prober { actor }).run(words).await,
            How::Reach(target) => (Prober { actor }).reach(target).await,
        };
        match sent {
            Ok((id, session)) => (Prober { actor }).await_result(UnderWay { id, begun, asked, session }),
            Err(error) => (Prober { actor }).note(not_made((begun, asked), error.message()), begun).await,
        }
    }

    /// Has the command run, as an exec that events tell of and clients can inspect.
    async fn run(self, words: Vec<String>) -> Result<Begun> {
        let Prober { actor } = self;
        if words.is_empty() {
            return Err(Error::system(format!("healthcheck for container {} has no command", actor.row.id.as_str())));
        }
        let config =
            api::ExecConfig { cmd: Some(words), attach_stdout: true, attach_stderr: true, ..Default::default() };
        let process = actor.engine.probe_process(&actor.row, &config)?;
        let execs = &actor.engine.containers().execs;
        if let Some(last) = actor.health.last.take() {
            execs.forget(&last);
        }
        let session = execs.make((actor.row.id.clone(), actor.exits), config);
        actor.health.last = Some(session.id.clone());
        session.set(Phase::Starting);
        let line = session.command_line();
        actor.event(&format!("exec_create: {line}"), [("execID", session.id.clone())]);
        actor.event(&format!("exec_start: {line}"), [("execID", session.id.clone())]);
        let milliseconds = rules(&actor.row).timeout.as_millis().max(1);
        let probe = u32::try_from(milliseconds).unwrap_or(u32::MAX);
        let exec = proto::Exec { id: session.id.clone(), probe, ..proto::Exec::default() };
        let sent = match actor.link.as_mut() {
            Some(link) => link.exec(&exec, &process, None).await.map(drop),
            None => Err(not_running(&actor.row)),
        };
        if let Err(error) = sent {
            session.set(Phase::Ended(KILLED, 0, std::time::Instant::now()));
            return Err(error);
        }
        Ok((session.id.clone(), Some(session)))
    }

    async fn reach(self, target: Target) -> Result<Begun> {
        let Prober { actor } = self;
        let Target { address, port, path } = target;
        let milliseconds = rules(&actor.row).timeout.as_millis().max(1);
        let timeout = u32::try_from(milliseconds).unwrap_or(u32::MAX);
        let id = ContainerId::from_bytes(sys::random::bytes32()).as_str().to_owned();
        let spec = ReachSpec { id: id.clone(), address, port, path, timeout };
        let link = actor.link.as_mut().ok_or_else(|| not_running(&actor.row))?;
        link.send(&Request::Reach(spec), &[]).await?;
        Ok((id, None))
    }

    /// The probe's process runs.
    pub(super) fn started(self, pid: i32) {
        let Prober { actor } = self;
        let Some(probe) = &actor.health.under_way else { return };
        actor.engine.containers().probes.start(probe.begun.elapsed());
        if let Some(session) = &probe.session {
            session.set(Phase::Running(pid));
            actor.publish();
        }
    }

    /// The probe could not be started.
    pub(super) async fn failed(self, error: &runtime::StartError) {
        let Prober { actor } = self;
        let Some(UnderWay { begun, asked, session, .. }) = (Prober { actor }).take() else { return };
        let (error, code) = error.to_error(runtime::What::Exec);
        if let Some(session) = session {
            session.set(Phase::Ended(code, 0, std::time::Instant::now()));
        }
        (Prober { actor }).note(not_made((begun, asked), error.message()), begun).await;
    }

    fn take(self) -> Option<UnderWay> {
        let Prober { actor } = self;
        actor.timers.cancel(Timer::Probe);
        actor.health.under_way.take()
    }

    /// A probe has ended: the one under way, or one that an earlier daemon began and did not hear of. Others were given up.
    pub(super) async fn probed(self, result: proto::Probed) {
        let Prober { actor } = self;
        let probe = if actor.health.is_probe(&result.id) { (Prober { actor }).take() } else { None };
        if let Some(session) = probe.as_ref().and_then(|probe| probe.session.as_ref()) {
            (Prober { actor }).die(session, if result.is_late { KILLED } else { result.code });
        }
        if actor.row.state.pid().is_none() || actor.end.is_some() {
            return;
        }
        let end = Timestamp::from_unix_nanos(result.ended_at);
        let (asked, begun) = match probe {
            Some(UnderWay { asked, begun, .. }) => (asked, begun),
            None if actor.health.catches_up && is_news(&actor.row, end) => {
                let asked = Timestamp::from_unix_nanos(result.started_at);
                let ago = asked.after(now());
                (asked, Instant::now().checked_sub(ago).unwrap_or_else(Instant::now))
            }
            None => return,
        };
        let output = describe(&actor.row, &result);
        (Prober { actor }).note(Probed { start: asked, end, exit_code: result.code, output }, begun).await;
    }

    /// The session of a probe is over.
    fn die(self, session: &Session, code: i32) {
        let Prober { actor } = self;
        let pid = if let Phase::Running(pid) = session.phase() { pid } else { 0 };
        session.set(Phase::Ended(code, pid, std::time::Instant::now()));
        actor.event("exec_die", [("execID", session.id.clone()), ("exitCode", code.to_string())]);
    }

    /// The monitor has not told a result in all the time that it had.
    pub(super) async fn expire(self) {
        let Prober { actor } = self;
        let Some(probe) = actor.health.under_way.take() else { return };
        (Prober { actor }).give_up(&probe).await;
        let text = format!("timed out starting health check for container {}", actor.row.id.as_str());
        (Prober { actor }).note(not_made((probe.begun, probe.asked), &text), probe.begun).await;
    }

    /// Kills a probe whose result nobody wants.
    async fn give_up(self, probe: &UnderWay) {
        let Prober { actor } = self;
        if let Some(link) = actor.link.as_mut() {
            let signal = model::signal::KILL;
            let kill = Request::Signal { exec: Some(probe.id.clone()), signal, scope: Scope::Process };
            // It may have ended.
            drop(link.send(&kill, &[]).await);
        }
        if let Some(session) = &probe.session {
            (Prober { actor }).die(session, KILLED);
        }
    }

    /// No probes for now: the container is about to be frozen.
    pub(super) async fn stop(self) {
        let Prober { actor } = self;
        actor.timers.cancel(Timer::Health);
        actor.health.healthy_since = None;
        if let Some(probe) = (Prober { actor }).take() {
            (Prober { actor }).give_up(&probe).await;
        }
    }

    /// The run is over.
    pub(super) fn ended(self) {
        let Prober { actor } = self;
        actor.timers.cancel(Timer::Health);
        let code = actor.row.run.exit_code;
        if let Some(session) = (Prober { actor }).take().and_then(|probe| probe.session) {
            (Prober { actor }).die(&session, code);
        }
        suspend(&mut actor.row);
    }

    /// Takes note of a result: record what has to be, show, tell; then the restart of a container that has failed, or the next
    /// probe.
    async fn note(self, result: Probed, begun: Instant) {
        let Prober { actor } = self;
        let since_start = begun.saturating_duration_since(actor.health.started);
        if result.exit_code != 0 {
            actor.engine.containers().probes.fail();
        }
        let rules = rules(&actor.row);
        let health: &mut Health = Arc::make_mut(actor.row.run.health.get_or_insert_default());
        let change = health.note(result, &rules, since_start);
        let status = health.status;
        let is_forgiven = (Prober { actor }).has_recovered(status);
        if is_forgiven {
            actor.row.run.unhealthy_restarts = 0;
        }
        let restarts = change.has_failed && (Prober { actor }).may_restart();
        actor.row.run.restart_is_due |= restarts;
        let action = format!("health_status: {}", status.word());
        let told = actor.ride(Some(action).filter(|_| change.status));
        // What cannot be recorded now is tried again.
        let recorded = match change.is_durable || is_forgiven {
            true => actor.record_with(told.rows()).await,
            false => Ok(()),
        };
        actor.publish();
        match recorded {
            Ok(()) => told.publish(),
            Err(_) => told.publish_unrecorded(),
        }
        if restarts {
            (Prober { actor }).restart_unhealthy().await;
        }
        (Prober { actor }).schedule();
    }

    /// Whether restarts are not in a row any more: the container is healthy for as long as a good run takes.
    fn has_recovered(self, status: Status) -> bool {
        let Prober { actor } = self;
        let last_failed = actor.row.run.health.as_ref().is_some_and(|health| health.failing_streak > 0);
        if status != Status::Healthy || last_failed {
            actor.health.healthy_since = None;
            return false;
        }
        let since = *actor.health.healthy_since.get_or_insert_with(Instant::now);
        actor.row.run.unhealthy_restarts > 0 && since.elapsed() >= restart::GOOD_RUN
    }

    /// Whether a container that has become unhealthy is to be restarted.
    fn may_restart(self) -> bool {
        let Prober { actor } = self;
        let Some(policy) = actor.row.own_labels.restart else { return false };
        let (run, container) = (&actor.row.run, actor.row.id.short());
        if !matches!(actor.row.state, State::Running { .. }) || actor.engine.containers().ending.has_begun() {
            return false;
        }
        if policy.limit.is_some_and(|limit| run.unhealthy_restarts >= limit) {
            tracing::warn!(container, restarts = run.unhealthy_restarts, "unhealthy, and not restarted again");
            return false;
        }
        true
    }

    /// Ends the run as a stop does; its end begins the next ([`count_restart`]).
    async fn restart_unhealthy(self) {
        let Prober { actor } = self;
        tracing::warn!(container = actor.row.id.short(), "unhealthy: the container is restarted");
        actor.plan = actor.engine.stop_plan(&actor.row);
        let effects = actor.happened(Input::Stop);
        // What cannot be sent to the monitor was logged; SIGKILL follows in time.
        drop(actor.perform(&effects).await);
        actor.publish();
    }

    /// Whether a run that has ended is followed by another because the container was unhealthy; if it is, that is counted.
    pub(super) fn count_restart(self) -> bool {
        let Prober { actor } = self;
        let run = &mut actor.row.run;
        if !run.restart_is_due || run.manually_stopped || actor.engine.containers().ending.has_begun() {
            return false;
        }
        actor.backoff = restart::backoff_after(run.unhealthy_restarts);
        run.unhealthy_restarts = run.unhealthy_restarts.saturating_add(1);
        run.restart_count = run.restart_count.saturating_add(1);
        true
    }
}
