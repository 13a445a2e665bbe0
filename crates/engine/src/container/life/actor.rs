//! The actor: one task per container, the only thing that changes it.
//!
//! Its loop takes a command, an event of the monitor, the end of a job or a timer; asks `model::lifecycle::step` what
//! that means; and performs the effects, at one place ([`Actor::perform`]). Nothing in it waits for another such input: what
//! has to wait is a job, a timer or a state. At most one job (launch, teardown or removal) is in flight; commands that cannot
//! go on without its result are deferred, everything else is answered meanwhile. Every change goes the same way:
//! persist, then publish, then answer. See `docs/design/0025-actor.md`.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use events::{Draft, Ride, Rows};
use model::lifecycle::{self, Effect, Input, Outcome, State};
use model::{Error, Result, signal};
use monitor::proto::{Event, Packet, Request};
use run::{Failed, Link, Progress};
use runtime::Scope;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::clients::Clients;
use super::egress;
use super::environment::{Daemon, Environment};
use super::exit::{self, End};
use super::launch::{self, LaunchUnderWay, Launched};
use super::remove;
use super::stop::{self, By};
use super::timers::{Timer, Timers};
use super::{clients, connect, execs, health, kill, procedure, publish, sandbox, start, update};
use crate::container::definition::Definition;
use crate::container::registry::arguments::{ExecStart, RemoveArgs, StopPlan};
use crate::container::registry::command::{Command, Reply, answer};
use crate::container::registry::{COMMAND_QUEUE, draft};
use crate::container::row::{self, ContainerRow};
use crate::container::view::ContainerView;
use crate::container::{Handle, publish};

/// Commands that may wait for a job; more wait in their queue.
const DEFERRED: usize = 256;
/// The pause before a fact that could not be committed is tried again.
const RECORD_PAUSE: Duration = Duration::from_secs(1);

/// The end of a job.
pub enum Done {
    /// A launch.
    Launched(Box<Result<Launched, Failed>>),
    /// A running container was joined to a network.
    Plugged(Box<connect::Plugged>),
    /// A running container was taken out of a network.
    Unplugged(Box<connect::Unplugged>),
    /// A running container publishes other ports.
    Republished(Box<publish::Republished>),
    /// Its networks are in order after a change that failed.
    Restored(Box<sandbox::Restored>),
    /// The limits of a running container were changed, or could not be.
    Updated(Box<update::Updated>),
    /// What a run held has been let go.
    TornDown,
    /// Files and volumes are gone, or could not be removed.
    Deleted(Result<Ride>),
}

/// Those who wait for something to happen.
#[derive(Default)]
pub struct Waiting {
    /// For the launch.
    pub starts: Vec<Reply>,
    /// For the end of the run.
    pub ends: Vec<Reply>,
    /// For the end of a run that a stop call asked for: a `stop` event is due.
    pub stopped: bool,
    /// For the launch after the end of the run.
    pub restarts: Vec<Reply>,
    /// For the removal.
    pub removals: Vec<Reply>,
    /// The removal that follows the end of the run.
    pub removal: Option<RemoveArgs>,
    /// For the monitor's answer, by request number.
    pub answers: HashMap<u32, Awaited>,
    /// For the start of an exec session, by its id.
    pub execs: HashMap<String, ExecStart>,
}

/// Who waits for a monitor's answer.
pub enum Awaited {
    /// A caller.
    Caller(Reply),
    /// The actor, which asked whether the monitor does its work.
    Ping,
}

impl Waiting {
    /// Whether the end of the run was asked for by somebody who is told of it.
    pub fn is_end_awaited(&self) -> bool {
        !(self.ends.is_empty() && self.removals.is_empty() && self.restarts.is_empty())
    }

    /// Tells all who wait for the end of a run, or for what follows it, that it does not end.
    pub fn refuse_end(&mut self, text: &str) {
        self.removal = None;
        let refused = self.ends.drain(..).chain(self.restarts.drain(..)).chain(self.removals.drain(..));
        refused.for_each(|reply| answer(reply, Err(Error::system(text))));
    }

    /// Tells all who wait for the monitor's answer that there will be none.
    pub fn end_requests(&mut self, row: &ContainerRow) {
        for (_, awaited) in self.answers.drain() {
            if let Awaited::Caller(reply) = awaited {
                answer(reply, Err(not_running(row)));
            }
        }
    }
}

/// What an accepted command leads to.
pub(in crate::container) struct Accepted {
    /// The container in its new state, not yet in force.
    pub row: ContainerRow,
    /// What to do.
    pub effects: Vec<Effect>,
    /// Who is to be answered.
    pub reply: Reply,
}

impl Accepted {
    /// Whether a restart that was due is called off: nothing runs.
    pub fn cancels_restart(&self) -> bool {
        self.effects.contains(&Effect::CancelRestart)
    }
}

/// One container's life.
pub struct Actor<E = Daemon> {
    pub(in crate::container) engine: E,
    pub(in crate::container) row: ContainerRow,
    pub(in crate::container) exits: u64,
    pub(in crate::container) link: Option<Link>,
    pub(in crate::container) jobs: JoinSet<Done>,
    pub(in crate::container) waiting: Waiting,
    /// Clients that wait for the container to run.
    pub(in crate::container) clients: Clients,
    pub(in crate::container) timers: Timers,
    /// The health checks of the present run.
    pub(super) health: health::Checks,
    /// What [`procedure`] has begun last.
    pub(super) procedure: &'static str,
    /// How long those who wait for it wait before they are told.
    pub(super) patience: Duration,
    /// How the stop under way goes.
    pub(super) plan: StopPlan,
    /// When the newest run began, by a clock that nobody sets.
    pub(super) began: Instant,
    /// The pause before the next restart by policy.
    pub(super) backoff: Duration,
    /// The end of the run, under way.
    pub(super) end: Option<End>,
    /// The monitor has told the exit and still removes what the run had.
    pub(super) cleaning: bool,
    /// What has happened is not in the store yet.
    pub(super) unrecorded: bool,
    /// The start under way.
    pub(super) launch: Option<LaunchUnderWay>,
    /// A start that was given up and whose thread still hangs somewhere.
    pub(super) abandoned: Option<Arc<Progress>>,
    /// The container is removed.
    pub(super) gone: bool,
    pub(super) deferred: VecDeque<Command>,
    views: watch::Sender<Arc<ContainerView>>,
}

/// Lists a new container and lets its life begin.
pub fn spawn<E: Environment>(engine: &E, row: ContainerRow) {
    let (actor, commands) = Actor::new(engine, row);
    tokio::spawn(actor.live(commands));
}

impl<E: Environment> Actor<E> {
    /// The actor and the receiving end of its commands; the container can be found from now on.
    pub(in crate::container) fn new(engine: &E, row: ContainerRow) -> (Actor<E>, mpsc::Receiver<Command>) {
        let (sender, commands) = mpsc::channel(COMMAND_QUEUE);
        let (views, receiver) = watch::channel(Arc::new(view_of(&row, 0, Vec::new())));
        engine.containers().insert(Handle::new(row.id.clone(), sender, receiver));
        let actor = Actor {
            engine: engine.clone(),
            row,
            exits: 0,
            link: None,
            jobs: JoinSet::new(),
            waiting: Waiting::default(),
            clients: Clients::default(),
            timers: Timers::default(),
            health: health::Checks::default(),
            procedure: "",
            patience: procedure::PATIENCE,
            plan: StopPlan { signal: signal::TERM, seconds: None },
            began: Instant::now(),
            backoff: Duration::ZERO,
            end: None,
            cleaning: false,
            unrecorded: false,
            launch: None,
            abandoned: None,
            gone: false,
            deferred: VecDeque::new(),
            views,
        };
        (actor, commands)
    }

    /// Lives until the container is removed.
    pub(in crate::container) async fn live(mut self, mut commands: mpsc::Receiver<Command>) {
        while !self.gone {
            tokio::select! {
                Some(done) = self.jobs.join_next(), if !self.jobs.is_empty() => self.on_job(done).await,
                packet = receive(self.link.as_ref()) => self.on_packet(packet).await,
                timer = self.timers.next() => self.on_timer(timer).await,
                command = commands.recv(), if self.deferred.len() < DEFERRED => match command {
                    Some(command) => self.on_command(command).await,
                    None => return,
                },
            }
            while !self.gone
                && !self.is_busy()
                && let Some(command) = self.deferred.pop_front()
            {
                self.on_command(command).await;
            }
        }
    }

    /// Whether a job or the end of a run is under way.
    pub(super) fn is_busy(&self) -> bool {
        !self.jobs.is_empty() || self.end.is_some()
    }

    /// A job has ended.
    async fn on_job(&mut self, done: Result<Done, JoinError>) {
        match done {
            Ok(Done::Launched(outcome)) => {
                match *outcome {
                    Ok(launched) => start::launched(self, launched).await,
                    Err(failed) => start::launch_failed(self, failed).await,
                }
                // Those who waited for the start hear of it first.
                tokio::task::yield_now().await;
                self.engine.replenish();
            }
            Ok(Done::TornDown) => exit::released(self).await,
            Ok(Done::Deleted(outcome)) => remove::deleted(self, outcome).await,
            Ok(done) => E::finish(self, done).await,
            Err(error) => {
                let error = Error::system("a procedure of the container broke off").with_source(error);
                tracing::error!(container = self.row.id.short(), ?error, "job failed");
                if matches!(self.row.state, State::Starting { .. }) {
                    start::launch_failed(self, Failed::from(error)).await;
                }
            }
        }
    }

    async fn on_command(&mut self, command: Command) {
        if self.has_to_wait(&command) {
            if command.ends_container() {
                launch::interrupt(self);
            }
            return self.deferred.push_back(command);
        }
        match command {
            Command::Start { reply } => start::start_by_hand(self, reply),
            Command::Stop { plan, reply } => stop::stop_run(self, plan, By::User, reply).await,
            Command::Shutdown { plan, reply } => stop::stop_run(self, plan, By::Shutdown, reply).await,
            Command::Restart { plan, reply } => stop::stop_and_start(self, plan, reply).await,
            Command::Kill { signal, reply } => kill::send_signal(self, signal, reply).await,
            Command::Pause { passing: false, reply } => kill::freeze(self, reply).await,
            Command::Pause { passing: true, reply } => kill::freeze_in_passing(self, reply).await,
            Command::Unpause { reply } => kill::thaw(self, reply).await,
            Command::NoteWritten { reply } => {
                let mut row = self.row.clone();
                row.run.was_written = true;
                let outcome = self.commit(row).await;
                answer(reply, outcome);
            }
            Command::Resize { exec, height, width, reply } => {
                self.request(&Request::Resize { exec, rows: height, columns: width }, reply).await;
            }
            Command::Remove { args, reply } => remove::begin(self, args, reply).await,
            Command::Expect(arriving) => clients::expect(self, arriving),
            Command::LetGo => self.clients.release_left(),
            Command::Attach(client) => clients::hand_over(self, client).await,
            Command::Drain { reply } => {
                while let Some(packet) = self.link.as_ref().and_then(Link::already_there) {
                    self.on_packet(Some(packet)).await;
                }
                answer(reply, Ok(()));
            }
            Command::Ping { reply } => self.request(&Request::Ping, reply).await,
            Command::Rest { reply } => {
                kill::thaw_left_behind(self).await;
                if self.unrecorded {
                    drop(self.record().await);
                }
                answer(reply, Ok(()));
            }
            Command::Booted => exit::booted(self).await,
            other @ (Command::Rename { .. }
            | Command::Update { .. }
            | Command::Unlink { .. }
            | Command::Exec(_)
            | Command::Connect { .. }
            | Command::ChangePorts { .. }
            | Command::Disconnect { .. }) => E::execute(self, other).await,
        }
    }

    /// Whether a command changes what a job is changing, or comes to a run whose end is recorded and not yet shown.
    fn has_to_wait(&self, command: &Command) -> bool {
        match command {
            Command::Drain { .. } | Command::Ping { .. } => false,
            Command::Attach(_) | Command::Expect(_) | Command::LetGo => self.end.as_ref().is_some_and(End::is_recorded),
            _ => self.is_busy(),
        }
    }

    /// Asks the rules; a refusal is answered at once. `None`: there is nothing more to do for this reply.
    pub(super) fn step(&mut self, input: Input, reply: Reply) -> Option<Accepted> {
        match lifecycle::step(self.row.state, input) {
            Outcome::Accept(state, effects) => {
                return Some(Accepted { row: ContainerRow { state, ..self.row.clone() }, effects, reply });
            }
            Outcome::Nothing => answer(reply, Err(Error::not_modified())),
            Outcome::Refuse(refusal) => {
                answer(reply, Err(refusal.to_error(&self.row.name, self.row.id.as_str())));
            }
            // Deferred commands wait for the job; a launch is always one.
            Outcome::Defer => answer(reply, Err(Error::unavailable("the container is being started"))),
        }
        None
    }

    /// A fact changes the state without anybody asking.
    pub(super) fn happened(&mut self, fact: Input) -> Vec<Effect> {
        match lifecycle::step(self.row.state, fact) {
            Outcome::Accept(next, effects) => {
                self.row.state = next;
                effects
            }
            _ => Vec::new(),
        }
    }

    /// The interpreter of effects. An error tells what could not be sent to the monitor, which is logged as well.
    pub(super) async fn perform(&mut self, effects: &[Effect]) -> Result<()> {
        for effect in effects {
            match *effect {
                Effect::Launch => launch::begin(self),
                Effect::StopSignal => stop::send_stop_signal(self).await,
                Effect::Signal(number) => {
                    self.signal(number).await;
                    if number == signal::KILL {
                        self.timers.cancel(Timer::Stop);
                        self.timers.set(Timer::Kill, Instant::now() + stop::KILL_WAIT);
                    }
                }
                Effect::Freeze => drop(kill::set_frozen(self, true).await?),
                Effect::Thaw => drop(kill::set_frozen(self, false).await?),
                Effect::CancelRestart => self.timers.cancel(Timer::BackOff),
                Effect::ScheduleRestart => self.timers.set(Timer::BackOff, Instant::now() + self.backoff),
                Effect::Delete => remove::begin_removal(self),
            }
        }
        Ok(())
    }

    /// Puts a changed container in force once it is on the disk; an error leaves everything as it was.
    pub(in crate::container) async fn commit(&mut self, row: ContainerRow) -> Result<()> {
        self.commit_with(row, Rows::default()).await
    }

    /// The same, with an event of the container, which is to be published when the change has been shown.
    pub(super) async fn commit_telling(&mut self, row: ContainerRow, action: &str) -> Result<Ride> {
        let ride = self.engine.events().ride(vec![draft(&row, action, [])]);
        self.commit_with(row, ride.rows()).await?;
        Ok(ride)
    }

    /// An event of this container that rides in the next commit; `None`: nothing is to be told.
    pub(super) fn ride(&self, action: Option<String>) -> Ride {
        self.engine.events().ride(action.map(|action| draft(&self.row, &action, [])).into_iter().collect())
    }

    async fn commit_with(&mut self, row: ContainerRow, told: Rows) -> Result<()> {
        self.engine.commit(row.clone(), told).await?;
        self.row = row;
        self.timers.cancel(Timer::Record);
        if std::mem::take(&mut self.unrecorded) && self.row.state.pid().is_none() && self.jobs.is_empty() {
            self.forget_run();
        }
        Ok(())
    }

    /// Commits where the change has already happened and cannot be refused any more. A failure is logged and tried again
    /// until it succeeds; until then the run's exit record stays, so that a next daemon learns of the end.
    pub(super) async fn record(&mut self) -> Result<()> {
        self.record_with(Rows::default()).await
    }

    /// The same, with the events that ride along.
    pub(super) async fn record_with(&mut self, told: Rows) -> Result<()> {
        let outcome = self.commit_with(self.row.clone(), told).await;
        if let Err(error) = &outcome {
            tracing::error!(container = self.row.id.short(), %error, "the container's state could not be recorded");
            self.unrecorded = true;
            self.timers.set(Timer::Record, Instant::now() + RECORD_PAUSE);
        }
        outcome
    }

    /// Nothing needs to tell a later daemon of the newest run any more: the record does.
    pub(super) fn forget_run(&self) {
        if let Err(error) = run::place::remove_dir(&self.engine.run_dir(&self.row)) {
            tracing::warn!(container = self.row.id.short(), %error, "of a run that is over");
        }
    }

    /// Shows the container as it is now.
    pub(in crate::container) fn publish(&self) {
        let execs = self.engine.containers().execs.live_of(&self.row.id);
        let mut view = view_of(&self.row, self.exits, execs);
        view.init = self.link.as_ref().and_then(Link::init);
        self.views.send_replace(Arc::new(view));
    }

    /// Shows the container as gone, or as impossible to remove.
    pub(super) fn publish_removal(&self, error: Option<String>) {
        let mut view = view_of(&self.row, self.exits, Vec::new());
        view.removed = error.is_none();
        view.removal_error = error;
        self.views.send_replace(Arc::new(view));
    }

    /// Publishes an event of this container.
    pub(in crate::container) fn event<const N: usize>(&self, action: &str, more: [(&str, String); N]) {
        publish(self.engine.events(), &self.row, action, more);
    }

    /// Asks the monitor for something; its answer is the caller's.
    pub(in crate::container) async fn request(&mut self, request: &Request, reply: Reply) {
        let Some(link) = self.link.as_mut() else { return answer(reply, Err(not_running(&self.row))) };
        match link.send(request, &[]).await {
            Ok(seq) => drop(self.waiting.answers.insert(seq, Awaited::Caller(reply))),
            Err(error) => answer(reply, Err(error)),
        }
    }

    /// Sends a signal to the container's init and tells of it.
    pub(super) async fn signal(&mut self, signal: i32) {
        if let Some(link) = self.link.as_mut() {
            let request = Request::Signal { exec: None, signal, scope: Scope::Process };
            if let Err(error) = link.send(&request, &[]).await {
                tracing::warn!(container = self.row.id.short(), signal, %error, "signal not sent");
            }
        }
        self.event("kill", [("signal", signal.to_string())]);
    }

    /// An event of the monitor; `None`: it is gone.
    pub(super) async fn on_packet(&mut self, packet: Option<Packet<Event>>) {
        let Some(Packet { seq, body }) = packet else {
            return exit::monitor_lost(self).await;
        };
        match body {
            Event::Died { exit } => {
                self.cleaning = true;
                exit::ended(self, exit).await;
            }
            Event::OutOfMemory => exit::ran_out_of_memory(self).await,
            Event::Denied { denied, more } => {
                egress::denied(denied).into_iter().for_each(|attributes| self.event("egress_denied", attributes));
                if more > 0 {
                    tracing::warn!(container = self.row.id.short(), more, "further destinations were denied");
                }
            }
            Event::Exited { exec: None, exit } => exit::cleaned(self, exit).await,
            // A monitor of an earlier version tells of a probe what it tells of any exec.
            Event::Exited { exec: Some(id), exit } if self.health.is_probe(&id) => {
                (health::Prober { actor: self }).probed(health::ended_as_exec(id, &exit)).await;
            }
            Event::Started { exec: Some(id), pid, .. } if self.health.is_probe(&id) => {
                (health::Prober { actor: self }).started(pid)
            }
            Event::Failed { exec: Some(id), error } if self.health.is_probe(&id) => {
                (health::Prober { actor: self }).failed(&error).await;
            }
            Event::Probed(result) => (health::Prober { actor: self }).probed(result).await,
            Event::Exited { exec: Some(id), exit } => execs::ended(self, &id, exit.code),
            Event::Started { exec: Some(id), pid, .. } => execs::started(self, &id, pid).await,
            Event::Failed { exec: Some(id), error } => execs::failed(self, &id, &error),
            Event::Detached { exec: None } => self.event("detach", []),
            Event::Detached { exec: Some(id) } => self.event("exec_detach", [("execID", id)]),
            Event::Done { refused } => {
                let outcome = refused.map_or(Ok(()), |refusal| Err(refusal.to_error()));
                match (self.waiting.answers.remove(&seq), outcome) {
                    (Some(Awaited::Caller(reply)), outcome) => answer(reply, outcome),
                    (Some(Awaited::Ping), _) => stop::cannot_be_killed(self).await,
                    (None, Ok(())) => {}
                    (None, Err(error)) => {
                        tracing::debug!(container = self.row.id.short(), %error, "refused by the monitor");
                    }
                }
            }
            // The launch of a start receives them.
            Event::Born { .. } | Event::Started { exec: None, .. } | Event::Failed { exec: None, .. } => {}
            // Late, of a monitor that was slow when this daemon came.
            Event::Hello(state) => {
                (health::Prober { actor: self }).found(state.probe);
                execs::take_up(self, state.execs);
                if let Some(exit) = state.exit {
                    exit::cleaned(self, exit).await;
                }
            }
        }
    }

    async fn on_timer(&mut self, timer: Timer) {
        match timer {
            Timer::Stop => {
                let effects = self.happened(Input::Deadline);
                drop(self.perform(&effects).await);
            }
            Timer::Kill => stop::ask_monitor(self).await,
            Timer::Ping => stop::kill_monitor(self),
            Timer::BackOff => exit::backoff_over(self).await,
            Timer::Launch => launch::is_slow(self).await,
            Timer::Cleanup => exit::cleanup_is_slow(self).await,
            // A launch or a removal that is under way writes the record itself: what is older must not be written over it.
            Timer::Record if !self.jobs.is_empty() => self.timers.set(Timer::Record, Instant::now() + RECORD_PAUSE),
            Timer::Record => drop(self.record().await),
            Timer::Health => (health::Prober { actor: self }).due().await,
            Timer::Probe => (health::Prober { actor: self }).expire().await,
            Timer::Procedure => (procedure::Procedure { actor: self }).expire(),
        }
    }
}

/// Commits another definition, and how the container lives; an error leaves it the definition that it has.
pub(super) async fn redefine(actor: &mut Actor, change: impl FnOnce(&mut Definition)) -> Result<()> {
    actor.redefine_telling(change, |_| Vec::new()).await.map(drop)
}

impl Actor {
    /// As [`redefine`], with events about the definition as it is then.
    pub(super) async fn redefine_telling(
        &mut self,
        change: impl FnOnce(&mut Definition),
        drafts: impl FnOnce(&Definition) -> Vec<Draft>,
    ) -> Result<Ride> {
        let definition = self.row.definition.changed(change);
        let row = ContainerRow { definition: Arc::new(definition), ..self.row.clone() };
        let definition = row.definition.clone();
        let ride = self.engine.events.ride(drafts(&definition));
        let told = ride.rows();
        self.engine.store.write(move |tx| row::put(tx, &row).and_then(|()| told.put(tx))).await?;
        self.row.definition = definition;
        Ok(ride)
    }
}

/// The refusal of what needs a container that runs.
pub(in crate::container) fn not_running(row: &Definition) -> Error {
    Error::conflict(format!("container {} is not running", row.id.as_str()))
}

fn view_of(row: &ContainerRow, exits: u64, exec_ids: Vec<String>) -> ContainerView {
    let pid = row.state.pid().unwrap_or(0);
    ContainerView { row: row.clone(), pid, init: None, exec_ids, exits, removed: false, removal_error: None }
}

async fn receive(link: Option<&Link>) -> Option<Packet<Event>> {
    match link {
        Some(link) => link.receive().await,
        None => pending().await,
    }
}
