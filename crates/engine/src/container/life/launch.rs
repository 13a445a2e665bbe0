//! The launch: a container's row is planned, its run is started and recorded.
//!
//! Runs on a blocking thread and touches nothing of the actor: it gets what it needs and gives back what it made, or an
//! error after taking everything back.

use std::sync::Arc;
use std::time::Duration;

use blocking::{Blocking, Turn};
use events::Ride;
use model::lifecycle::{self, Input, Outcome};
use model::time::Timestamp;
use model::{Context, Error, Result, signal};
use run::progress::{Cancelled, Cause};
use run::start::Process;
use run::{Attached, Failed, Place, Progress, Running, Services, Step};

use tokio::time::Instant;

use super::actor::{Actor, Done};
use super::durable::{self, Durable};
use super::environment::Environment;
use super::timers::Timer;
use super::{drafts, files, health, links, plan, sources};
use crate::Engine;
use crate::container::definition::MountRow;
use crate::container::life::clients::Clients;
use crate::container::registry::claims::Claim;
use crate::container::registry::command::{Command, answer};
use crate::container::row::{self, ContainerRow};
use crate::container::validate;
use crate::held::{self, Held};

/// How long a start goes on after a client has asked for the container's end: one that does not hang is over by then, and
/// the container ends as it would have.
const INTERRUPT_WAIT: Duration = Duration::from_secs(2);
/// How long a monitor may take to take a start back before it is killed.
const CANCEL_WAIT: Duration = Duration::from_secs(15);
/// How long the thread of a start that is given up may take to come back when no monitor holds it up.
const RETURN_WAIT: Duration = Duration::from_secs(2);

/// A start, as its actor sees it.
pub struct LaunchUnderWay {
    progress: Arc<Progress>,
    /// When it is given up because a client has asked for the container's end.
    interrupt: Option<Instant>,
}

/// A program that runs and is recorded; where; and the events of its start.
pub type Launched = (Running, Place, Ride);

/// Makes ready for the next launches: what needs no container is done before there is one. Nothing while descriptors are short.
pub async fn replenish(engine: &Arc<Engine>) {
    if sys::descriptors::are_short(sys::descriptors::KEPT_FROM_STARTS) {
        return;
    }
    let background = &engine.containers.threads.background;
    let engine = engine.clone();
    let made = background.run(move |_| {
        sys::sched::in_the_background(|| {
            engine.networks.replenish()?;
            engine.snapshots.roots.make_ahead(&run::files::make_ahead)?;
            engine.containers.monitors.refill().context("starting monitors ahead")
        })
    });
    if let Err(error) = made.await {
        // The next launch will try, and tell its client.
        tracing::warn!(%error, "nothing is ready for the next start");
    }
}

/// The row of a container that runs.
pub fn note_run(row: &mut ContainerRow, process: &Process, place: Place) {
    if let Outcome::Accept(running, _) = lifecycle::step(row.state, Input::Launched { pid: process.pid }) {
        row.state = running;
    }
    row.endpoints.clone_from(&process.endpoints);
    let run = &mut row.run;
    run.place = Some(place);
    run.started_at = Timestamp::from_unix_nanos(process.started_at);
    (run.exit_code, run.oom_killed, run.was_started, run.manually_stopped) = (0, false, true, false);
    (run.start_failed, run.error) = (false, String::new());
    health::reset(row);
}

/// Starts the container: clients that have announced themselves come, the sources of its mounts are looked up, then the
/// rest on a thread that may block.
pub(super) async fn launch(
    engine: Arc<Engine>,
    row: ContainerRow,
    clients: Clients,
    progress: Arc<Progress>,
) -> Result<Launched, Failed> {
    let clients = clients.gather().await;
    // On the threads of the paths, so that a dead one takes none of a start's.
    progress.enter(Step::Specification)?;
    sources::prepare(&engine.disk.paths, &row).await?;
    let claim = engine.containers.claims.claim(&row.id).await?;
    progress.enter(Step::Volumes)?;
    let held = held::hold(&engine.volumes, row.volumes().map(MountRow::part), row.id.as_str()).await?;
    let turn = engine.containers.threads.starts.turn().await;
    let gathered = Gathered { clients, held, claim, syncs: engine.containers.threads.syncs.turn().await };
    let (shared, own) = (engine.clone(), row.clone());
    match turn.begin(move |on| start(on, (&shared, &own), gathered, &progress)).await {
        Ok(outcome) => {
            if outcome.is_err() {
                held::release_all(&engine.volumes, row.volumes().map(MountRow::part), row.id.as_str()).await;
            }
            outcome
        }
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// What a launch has before it blocks.
struct Gathered {
    clients: Vec<Attached>,
    /// The container's volumes, mounted.
    held: Held,
    /// Nobody else mounts its writable layer.
    claim: Claim,
    /// For what has to be on the disk.
    syncs: Turn,
}

/// Blocks until the program runs and is recorded, or could not be started.
fn start(
    on: &Blocking,
    (engine, row): (&Arc<Engine>, &ContainerRow),
    gathered: Gathered,
    progress: &Progress,
) -> Result<Launched, Failed> {
    validate::check_at_start(&row.config, &row.host_config)?;
    let Gathered { clients, held, claim: _claim, syncs } = gathered;
    let mut durable = Durable::begin(engine, row, syncs);
    let spec = plan::plan(engine, row, clients, held)?;
    let place = spec.place.clone();
    let mut ride = Ride::default();
    // While the container prepares its program. A start that fails after this is recorded behind it; one whose daemon dies
    // is found by the next as what became of it.
    let mut record = |process: &Process| {
        let mut row = row.clone();
        note_run(&mut row, process, place.clone());
        durable.wait()?;
        ride = engine.events.ride(drafts::started(engine, &row));
        let told = ride.rows();
        engine.store.write_blocking(move |tx| {
            durable::note_use(tx, &row)?;
            row::put_run(tx, &row)?;
            told.put(tx)
        })
    };
    let services =
        Services { networks: &engine.networks, monitors: &engine.containers.monitors, cgroups: &engine.host.cgroups };
    let running = run::start(&services, spec, progress, &mut record)?;
    tell_others(on, engine, row.id.as_str(), running.process.endpoints.first());
    Ok((running, place, ride))
}

/// The container runs, perhaps at other addresses: the hosts files of those that run and have a link to it say so.
fn tell_others(on: &Blocking, engine: &Engine, id: &str, endpoint: Option<&network::Endpoint>) {
    let addresses = links::addresses(endpoint);
    for other in engine.containers.all() {
        let view = other.view();
        let aliases = links::aliases(&view.row.host_config, id);
        if view.pid == 0 || aliases.is_empty() {
            continue;
        }
        let dir = engine.settings().roots.container(other.id.as_str());
        if let Err(error) = files::readdress(on, &dir, &aliases, &addresses) {
            tracing::warn!(container = other.id.short(), %error, "a linked container does not know the new address");
        }
    }
}

/// The refusal of a start while the thread of an earlier one, which was given up, hangs: it holds the other reference.
fn earlier_start(abandoned: &Option<Arc<Progress>>) -> Option<Error> {
    let hanging = abandoned.as_ref().filter(|progress| Arc::strong_count(progress) > 1)?;
    Some(Error::unavailable(format!("an earlier start of the container still waits for {}", hanging.waits_for())))
}

impl LaunchUnderWay {
    /// What is to be done about it now.
    fn look(&self, now: Instant) -> Verdict {
        let LaunchUnderWay { progress, interrupt } = self;
        let deadline = progress.deadline();
        let is_wanted = interrupt.is_none_or(|at| at > now);
        if progress.cancelled().is_some() {
            // The thread takes back what it has made when it comes back.
            let hangs = !progress.kill_monitor() && progress.may_be_abandoned();
            return if hangs { Verdict::Abandon } else { Verdict::Wait(now + RETURN_WAIT) };
        }
        if deadline > now && is_wanted {
            return Verdict::Wait(interrupt.map_or(deadline, |at| at.min(deadline)));
        }
        match progress.cancel(if is_wanted { Cause::Deadline } else { Cause::Request }) {
            Cancelled::ByMonitor => Verdict::Wait(now + CANCEL_WAIT),
            Cancelled::BeforeMonitor => Verdict::Wait(now + RETURN_WAIT),
        }
    }
}

/// What is to be done about a launch.
enum Verdict {
    /// To look again then.
    Wait(Instant),
    /// To go on without its thread, which hangs.
    Abandon,
}

/// Starts the launch; its end comes as a [`Done`].
pub(super) fn begin<E: Environment>(actor: &mut Actor<E>) {
    if let Some(error) = earlier_start(&actor.abandoned) {
        actor.jobs.spawn(async { Done::Launched(Box::new(Err(error.into()))) });
        return;
    }
    let progress = Arc::new(Progress::begin(actor.engine.faults().clone()));
    actor.timers.set(Timer::Launch, progress.deadline());
    actor.launch = Some(LaunchUnderWay { progress: progress.clone(), interrupt: None });
    let launch = actor.engine.launch(actor.row.clone(), std::mem::take(&mut actor.clients), progress);
    actor.jobs.spawn(async move { Done::Launched(Box::new(launch.await)) });
}

/// A client wants the container to end: a start that hangs is not waited for.
pub(super) fn interrupt<E: Environment>(actor: &mut Actor<E>) {
    if let Some(launch) = &mut actor.launch {
        let at = *launch.interrupt.get_or_insert_with(|| Instant::now() + INTERRUPT_WAIT);
        actor.timers.hasten(Timer::Launch, at);
    }
}

/// Gives a start up that is over the limit of its step or hangs while a client asks for its end; then, when its thread
/// does not come back either, goes on without it.
pub(super) async fn is_slow<E: Environment>(actor: &mut Actor<E>) {
    let Some(launch) = &actor.launch else { return };
    match launch.look(Instant::now()) {
        Verdict::Wait(until) => actor.timers.set(Timer::Launch, until),
        Verdict::Abandon => {
            let progress = launch.progress.clone();
            let error = progress.cancelled().unwrap_or_else(|| Error::system("the start was given up"));
            tracing::warn!(container = actor.row.id.short(), %error, "a thread still hangs");
            actor.abandoned = Some(progress);
            actor.jobs.detach_all();
            super::start::launch_failed(actor, error.into()).await;
        }
    }
}

/// The start is over. One that was given up because somebody asked for the container's end has not happened: that is
/// answered.
pub(super) fn end<E: Environment>(actor: &mut Actor<E>) {
    actor.timers.cancel(Timer::Launch);
    let Some(LaunchUnderWay { progress, interrupt: Some(_) }) = actor.launch.take() else { return };
    if progress.cancelled().is_none() {
        return;
    }
    actor.row.run.manually_stopped = true;
    for command in std::mem::take(&mut actor.deferred) {
        match command {
            Command::Kill { signal: signal::KILL, reply } | Command::Stop { reply, .. } => answer(reply, Ok(())),
            other => actor.deferred.push_back(other),
        }
    }
}
