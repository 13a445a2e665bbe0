//! The actor: one task per container, the only thing that changes it.
//!
//! Its loop takes a command, a fact from the monitor, the end of a job or a timer; asks `model::lifecycle::step` what
//! that means; and performs the effects. At most one job (launch, teardown or removal) is in flight; commands that cannot
//! go on without its result are deferred, everything else is answered meanwhile. Every change goes the same way:
//! persist, then publish, then answer.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use model::lifecycle::{self, Effect, Input, Outcome, State};
use model::{Error, Result};
use monitor::proto::{Event, Packet, Request};
use run::{Attached, Failed, Link, Place, Progress, Running};
use runtime::Scope;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::connect;
use super::launch::{self, LaunchUnderWay};
use super::remove::RemoveArgs;
use super::stop::StopPlan;
use crate::Engine;
use crate::container::row::{self, ContainerRow, Definition};
use crate::container::session::attach::release_left;
use crate::container::session::exec::ExecStart;
use crate::container::view::ContainerView;
use crate::container::{COMMAND_QUEUE, Handle, publish};

/// Commands that may wait for a job; more wait in their queue.
const DEFERRED: usize = 256;
/// How long a monitor may take to answer when its container does not end.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// The pause before a fact that could not be committed is tried again.
const RECORD_PAUSE: Duration = Duration::from_secs(1);

/// Where an answer goes.
pub type Reply<T = ()> = oneshot::Sender<Result<T>>;

/// What can be asked of a container.
pub enum Command {
    /// Run.
    Start { reply: Reply },
    /// End, by the plan.
    Stop { plan: StopPlan, reply: Reply },
    /// End if need be, then run.
    Restart { plan: StopPlan, reply: Reply },
    /// Send a signal.
    Kill { signal: i32, reply: Reply },
    /// Freeze; in passing: for the time of an operation that will let it go on, answered when all processes stand.
    Pause { passing: bool, reply: Reply },
    /// Go on.
    Unpause { reply: Reply },
    /// Take another name.
    Rename { new: String, reply: Reply },
    /// Notes that files are about to be copied into the container that never ran.
    NoteWritten { reply: Reply },
    /// Resize the terminal of the container or of an exec session.
    Resize { exec: Option<String>, height: u16, width: u16, reply: Reply },
    /// Go away.
    Remove { args: RemoveArgs, reply: Reply },
    /// A client will come.
    Expect(oneshot::Receiver<Attached>),
    /// Let go of clients that wait for a start and have left.
    LetGo,
    /// Connect a client.
    Attach(Attached),
    /// Start an exec session.
    Exec(Box<ExecStart>),
    /// Take note of everything the monitor has said so far.
    Hear { reply: Reply },
    /// Answered when the monitor does.
    Ping { reply: Reply },
    /// The daemon ends and takes its containers with it.
    Shutdown { reply: Reply },
    /// The daemon ends: answered when nothing of the container is under way; a run goes on.
    Rest { reply: Reply },
    /// Join a network.
    Connect { place: Box<connect::Place>, reply: Reply },
    /// Leave a network.
    Disconnect { network: String, force: connect::Force, reply: Reply },
    /// The daemon is up: consider the restart policy.
    Booted,
}

impl Command {
    /// Whether it asks for the end of the run: a start that hangs is given up for it.
    pub(super) fn ends_container(&self) -> bool {
        match self {
            Command::Stop { .. } | Command::Restart { .. } | Command::Shutdown { .. } => true,
            Command::Kill { signal, .. } => *signal == model::signal::KILL,
            Command::Remove { args, .. } => args.force,
            _ => false,
        }
    }
}

/// The end of a job.
pub enum Done {
    /// A launch.
    Launched(Box<Result<(Running, Place), Failed>>),
    /// A running container was joined to a network.
    Plugged(Box<connect::Plugged>),
    /// A running container was taken out of a network.
    Unplugged(Box<connect::Unplugged>),
    /// What a run held has been let go.
    TornDown,
    /// Files and volumes are gone, or could not be removed.
    Deleted(Result<()>),
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
    /// For the monitor's word, by request number.
    pub answers: HashMap<u32, Reply>,
    /// For the start of an exec session, by its id.
    pub execs: HashMap<String, ExecStart>,
}

impl Waiting {
    /// Whether the end of the run was asked for by somebody who is told of it.
    pub fn is_end_awaited(&self) -> bool {
        !(self.ends.is_empty() && self.removals.is_empty() && self.restarts.is_empty())
    }
}

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// SIGKILL is due.
    Deadline,
    /// SIGKILL was sent and the container still lives.
    Unkillable,
    /// A restart by policy is due.
    Backoff,
    /// A start may be over the limit of its step, or is to be given up.
    Launch,
}

/// One container's life.
pub struct Actor {
    pub(in crate::container) engine: Arc<Engine>,
    pub(in crate::container) row: ContainerRow,
    pub(in crate::container) exits: u64,
    pub(in crate::container) link: Option<Link>,
    pub(in crate::container) jobs: JoinSet<Done>,
    pub(in crate::container) waiting: Waiting,
    /// Clients that wait for the container to run.
    pub(in crate::container) clients: Vec<Attached>,
    /// Clients on their way while it does not run.
    pub(in crate::container) expected: Vec<oneshot::Receiver<Attached>>,
    pub(in crate::container) timer: Option<(Instant, Timer)>,
    /// The pause before the next restart by policy.
    pub(in crate::container) backoff: Duration,
    /// The exit whose teardown is under way.
    pub(in crate::container) exit: Option<monitor::proto::Exit>,
    /// The monitor has told the exit and still removes what the run had.
    pub(in crate::container) cleaning: bool,
    /// What has happened is not in the store yet; when that is tried again.
    pub(in crate::container) unrecorded: Option<Instant>,
    /// The start under way.
    pub(super) launch: Option<LaunchUnderWay>,
    /// A start that was given up and whose thread still hangs somewhere.
    pub(super) abandoned: Option<Arc<Progress>>,
    pub(super) deferred: VecDeque<Command>,
    views: watch::Sender<Arc<ContainerView>>,
}

/// Lists a new container and lets its life begin.
pub fn spawn(engine: &Arc<Engine>, row: ContainerRow) {
    let (actor, commands) = Actor::new(engine, row);
    tokio::spawn(actor.live(commands));
}

impl Actor {
    /// The actor and the receiving end of its commands; the container can be found from now on.
    pub(in crate::container) fn new(engine: &Arc<Engine>, row: ContainerRow) -> (Actor, mpsc::Receiver<Command>) {
        let (sender, commands) = mpsc::channel(COMMAND_QUEUE);
        let (views, receiver) = watch::channel(Arc::new(view_of(&row, 0, Vec::new())));
        engine.containers.insert(Handle { id: row.id.clone(), commands: sender, views: receiver });
        let actor = Actor {
            engine: engine.clone(),
            row,
            exits: 0,
            link: None,
            jobs: JoinSet::new(),
            waiting: Waiting::default(),
            clients: Vec::new(),
            expected: Vec::new(),
            timer: None,
            backoff: Duration::ZERO,
            exit: None,
            cleaning: false,
            unrecorded: None,
            launch: None,
            abandoned: None,
            deferred: VecDeque::new(),
            views,
        };
        (actor, commands)
    }

    /// Lives until the container is removed.
    pub(in crate::container) async fn live(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            let timer = self.timer;
            tokio::select! {
                Some(done) = self.jobs.join_next(), if !self.jobs.is_empty() => {
                    if self.finished(done).await {
                        return;
                    }
                }
                packet = hear(self.link.as_ref()) => self.heard(packet).await,
                kind = ring(timer) => self.rang(kind).await,
                () = arrive(self.unrecorded) => drop(self.record().await),
                command = commands.recv(), if self.deferred.len() < DEFERRED => match command {
                    Some(command) => self.obey(command).await,
                    None => return,
                },
            }
        }
    }

    /// Whether the job's end was the end of the container.
    async fn finished(&mut self, done: Result<Done, tokio::task::JoinError>) -> bool {
        match done {
            Ok(Done::Launched(outcome)) => {
                match *outcome {
                    Ok((running, place)) => self.launched(running, place).await,
                    Err(failed) => self.launch_failed(failed).await,
                }
                // Those who waited for the start hear of it first.
                tokio::task::yield_now().await;
                let engine = self.engine.clone();
                tokio::spawn(async move { launch::replenish(&engine).await });
            }
            Ok(Done::TornDown) => self.torn_down().await,
            Ok(Done::Plugged(plugged)) => connect::plugged(self, *plugged).await,
            Ok(Done::Unplugged(unplugged)) => connect::unplugged(self, *unplugged).await,
            Ok(Done::Deleted(outcome)) => {
                if self.deleted(outcome).await {
                    return true;
                }
            }
            Err(error) => {
                let error = Error::system("a procedure of the container broke off").with_source(error);
                tracing::error!(container = self.row.id.short(), ?error, "job failed");
                if matches!(self.row.state, State::Starting { .. }) {
                    self.launch_failed(Failed::from(error)).await;
                }
            }
        }
        self.catch_up().await;
        false
    }

    /// Obeys what had to wait for the job.
    pub(super) async fn catch_up(&mut self) {
        while self.jobs.is_empty() {
            let Some(command) = self.deferred.pop_front() else {
                return;
            };
            Box::pin(self.obey(command)).await;
        }
    }

    async fn obey(&mut self, command: Command) {
        if !self.jobs.is_empty() && needs_rest(&command) {
            if command.ends_container() {
                self.interrupt_launch();
            }
            self.deferred.push_back(command);
            return;
        }
        match command {
            Command::Start { reply } => self.start(reply).await,
            Command::Stop { plan, reply } => self.stop(plan, reply).await,
            Command::Restart { plan, reply } => self.restart(plan, reply).await,
            Command::Kill { signal, reply } => self.kill(signal, reply).await,
            Command::Pause { passing: false, reply } => self.freeze(Input::Pause, reply).await,
            Command::Pause { passing: true, reply } => self.freeze_in_passing(reply).await,
            Command::Unpause { reply } => self.freeze(Input::Unpause, reply).await,
            Command::Rename { new, reply } => self.rename(new, reply).await,
            Command::NoteWritten { reply } => {
                self.row.run.was_written = true;
                answer(reply, self.persist().await);
            }
            Command::Resize { exec, height, width, reply } => {
                self.request(&Request::Resize { exec, rows: height, columns: width }, reply).await;
            }
            Command::Remove { args, reply } => self.remove(args, reply).await,
            Command::Expect(arriving) => self.expect(arriving),
            Command::LetGo => release_left(&mut self.clients, &mut self.expected),
            Command::Attach(client) => self.attach(client).await,
            Command::Exec(start) => self.exec(*start).await,
            Command::Hear { reply } => {
                while let Some(packet) = self.link.as_ref().and_then(Link::already_there) {
                    self.heard(Some(packet)).await;
                }
                answer(reply, Ok(()));
            }
            Command::Ping { reply } => self.request(&Request::Ping, reply).await,
            Command::Shutdown { reply } => self.shutdown(reply).await,
            Command::Rest { reply } => self.rest(reply).await,
            Command::Connect { place, reply } => connect::connect(self, *place, reply).await,
            Command::Disconnect { network, force, reply } => connect::disconnect(self, network, force, reply).await,
            Command::Booted => self.booted().await,
        }
    }

    /// Asks the rules; a refusal is answered at once. `None`: there is nothing more to do for this reply.
    pub(in crate::container) fn step(&mut self, input: Input, reply: Reply) -> Option<(Vec<Effect>, Reply)> {
        match lifecycle::step(self.row.state, input) {
            Outcome::Accept(next, effects) => {
                self.row.state = next;
                return Some((effects, reply));
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
    pub(in crate::container) fn happened(&mut self, fact: Input) -> Vec<Effect> {
        match lifecycle::step(self.row.state, fact) {
            Outcome::Accept(next, effects) => {
                self.row.state = next;
                effects
            }
            _ => Vec::new(),
        }
    }

    /// Commits how the container lives; an error leaves the old record on disk and is told.
    pub(in crate::container) async fn persist(&mut self) -> Result<()> {
        let row = self.row.clone();
        // A removal that failed may have taken the definition already.
        let write = if row.state.is_dead() { row::put } else { row::put_run };
        self.engine.store.write(move |tx| write(tx, &row)).await?;
        if self.unrecorded.take().is_some() && self.row.state.pid().is_none() && self.jobs.is_empty() {
            self.forget_run();
        }
        Ok(())
    }

    /// Commits where the change has already happened and cannot be refused any more. A failure is logged and tried again
    /// until it succeeds; until then the run's exit record stays, so that a next daemon learns of the end.
    pub(in crate::container) async fn record(&mut self) -> Result<()> {
        let outcome = self.persist().await;
        if let Err(error) = &outcome {
            tracing::error!(container = self.row.id.short(), %error, "the container's state could not be recorded");
            self.unrecorded = Some(Instant::now() + RECORD_PAUSE);
        }
        outcome
    }

    /// Shows the container as it is now.
    pub(in crate::container) fn publish(&self) {
        let execs = self.engine.containers.execs.live_of(&self.row.id);
        let mut view = view_of(&self.row, self.exits, execs);
        view.init = self.link.as_ref().and_then(Link::init);
        self.views.send_replace(Arc::new(view));
    }

    /// Shows the container as gone, or as impossible to remove.
    pub(in crate::container) fn publish_removal(&self, error: Option<String>) {
        let mut view = view_of(&self.row, self.exits, Vec::new());
        view.removed = error.is_none();
        view.removal_error = error;
        self.views.send_replace(Arc::new(view));
    }

    /// Publishes an event of this container.
    pub(in crate::container) fn event<const N: usize>(&self, action: &str, more: [(&str, String); N]) {
        publish(&self.engine.events, &self.row, action, more);
    }

    /// Asks the monitor for something; its word is the answer.
    pub(in crate::container) async fn request(&mut self, request: &Request, reply: Reply) {
        let Some(link) = self.link.as_mut() else {
            let text = format!("container {} is not running", self.row.id.as_str());
            return answer(reply, Err(Error::conflict(text)));
        };
        match link.send(request, &[]).await {
            Ok(seq) => drop(self.waiting.answers.insert(seq, reply)),
            Err(error) => answer(reply, Err(error)),
        }
    }

    /// Sends a signal to the container's init and tells of it.
    pub(in crate::container) async fn signal(&mut self, signal: i32) {
        if let Some(link) = self.link.as_mut() {
            let request = Request::Signal { exec: None, signal, scope: Scope::Process };
            if let Err(error) = link.send(&request, &[]).await {
                tracing::warn!(container = self.row.id.short(), signal, %error, "signal not sent");
            }
        }
        self.event("kill", [("signal", signal.to_string())]);
    }

    /// A word from the monitor; `None`: it is gone.
    pub(in crate::container) async fn heard(&mut self, packet: Option<Packet<Event>>) {
        let Some(Packet { seq, body }) = packet else {
            return self.monitor_lost().await;
        };
        match body {
            Event::Died { exit } => {
                self.cleaning = true;
                self.ended(exit).await;
            }
            Event::OutOfMemory => self.ran_out_of_memory().await,
            Event::Exited { exec: None, exit } => self.cleaned(exit).await,
            Event::Exited { exec: Some(id), exit } => self.exec_ended(&id, exit.code),
            Event::Started { exec: Some(id), pid, .. } => self.exec_started(&id, pid).await,
            Event::Failed { exec: Some(id), error } => self.exec_failed(&id, &error),
            Event::Detached { exec: None } => self.event("detach", []),
            Event::Detached { exec: Some(id) } => self.event("exec_detach", [("execID", id)]),
            Event::Done { refused } => {
                let outcome = refused.map_or(Ok(()), |refusal| Err(refusal.to_error()));
                match (self.waiting.answers.remove(&seq), outcome) {
                    (Some(reply), outcome) => answer(reply, outcome),
                    (None, Ok(())) => {}
                    (None, Err(error)) => {
                        tracing::debug!(container = self.row.id.short(), %error, "refused by the monitor");
                    }
                }
            }
            // A start is heard out by its launch.
            Event::Born { .. } | Event::Started { exec: None, .. } | Event::Failed { exec: None, .. } => {}
            // Late, of a monitor that was slow when this daemon came.
            Event::Hello(state) => {
                if let Some(exit) = state.exit {
                    self.cleaned(exit).await;
                }
            }
        }
    }

    async fn rang(&mut self, timer: Timer) {
        self.timer = None;
        match timer {
            Timer::Deadline => self.deadline().await,
            Timer::Unkillable => self.unkillable().await,
            Timer::Backoff => self.backoff_over().await,
            Timer::Launch => self.launch_is_slow().await,
        }
    }

    /// SIGKILL did not help. A monitor that stands still is killed, which ends the container; with one that is well the
    /// container itself cannot be killed, and everybody who waits for that is told.
    async fn unkillable(&mut self) {
        if self.ask_monitor(&Request::Ping, ANSWER_WAIT).await.is_none() {
            tracing::warn!(container = self.row.id.short(), "killing the container's monitor, which does not answer");
            return run::link::kill_monitor(self.row.id.as_str());
        }
        if self.row.state.pid().is_none() {
            return;
        }
        let waiting = &mut self.waiting;
        waiting.removal = None;
        let refused = waiting.ends.drain(..).chain(waiting.restarts.drain(..)).chain(waiting.removals.drain(..));
        for reply in refused {
            let text = format!("could not kill container: container {} did not end", self.row.id.short());
            answer(reply, Err(Error::system(text)));
        }
    }

    /// The monitor's word about a request; `None`: it says nothing for this long.
    pub(super) async fn ask_monitor(&mut self, request: &Request, patience: Duration) -> Option<Result<()>> {
        let (reply, mut answered) = oneshot::channel();
        self.request(request, reply).await;
        let deadline = Instant::now() + patience;
        loop {
            tokio::select! {
                answer = &mut answered => return answer.ok(),
                packet = hear(self.link.as_ref()) => self.heard(packet).await,
                () = sleep_until(deadline) => return None,
            }
        }
    }
}

/// Commits another definition, and how the container lives; an error leaves it the definition that it has.
pub(super) async fn redefine(actor: &mut Actor, change: impl FnOnce(&mut Definition)) -> Result<()> {
    let mut definition = (*actor.row.definition).clone();
    change(&mut definition);
    let row = ContainerRow { definition: Arc::new(definition), ..actor.row.clone() };
    let definition = row.definition.clone();
    actor.engine.store.write(move |tx| row::put(tx, &row)).await?;
    actor.row.definition = definition;
    Ok(())
}

/// Commands that change what a job is changing wait for its end.
fn needs_rest(command: &Command) -> bool {
    !matches!(
        command,
        Command::Attach(_) | Command::Expect(_) | Command::LetGo | Command::Hear { .. } | Command::Ping { .. }
    )
}

fn view_of(row: &ContainerRow, exits: u64, exec_ids: Vec<String>) -> ContainerView {
    let pid = row.state.pid().unwrap_or(0);
    ContainerView { row: row.clone(), pid, init: None, exec_ids, exits, removed: false, removal_error: None }
}

pub(in crate::container) async fn hear(link: Option<&Link>) -> Option<Packet<Event>> {
    match link {
        Some(link) => link.receive().await,
        None => pending().await,
    }
}

async fn ring(timer: Option<(Instant, Timer)>) -> Timer {
    match timer {
        Some((at, kind)) => {
            sleep_until(at).await;
            kind
        }
        None => pending().await,
    }
}

async fn arrive(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

/// Answers; a caller that does not wait any more is no concern.
pub fn answer<T>(reply: Reply<T>, outcome: Result<T>) {
    drop(reply.send(outcome));
}
