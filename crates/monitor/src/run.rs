//! The monitor's loop: wait, deal with what has happened, write the log, let go of what is over.
//!
//! Parts are polled anew in each round; removals happen only between rounds, so that an event never meets another part than
//! the one that it was meant for.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use runtime::pending::{self, DEATH_LOOK, LOOK_AFTER, look_after};
use runtime::{Runtime, Stage, StartError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::births::{Abandoned, Asked, Dying, Entering, Given, Starting};
use crate::container::{self, Asks, Container, Passing};
use crate::link::{self, Incoming, Link};
use crate::proto::{
    Event, Exec, Exit, MAX_PACKET, Packet, Port, ProbeState, ReachSpec, Reason, Refusal, Request, ResolverSpec,
    RuntimeChoice, StartSpec, State, VERSION,
};
use crate::proxy::Proxies;
use crate::reach::{self, Reach};
use crate::resolver::{Namespaces, Resolver};
use crate::session::{self, News, Session};

/// How long the daemon may take to record the exit.
const RELEASE: Duration = Duration::from_secs(10);
/// How long clients are kept for it.
const FAREWELL: Duration = Duration::from_secs(2);

/// Requests that a daemon may have left behind when it died.
const MAX_LEFT: usize = 4096;

const SIGKILL: i32 = 9;

/// Execs that enter the container at once; further ones wait for their turn, so many of them.
const MAX_ENTERING: usize = 64;
const MAX_QUEUED: usize = 1024;

/// How long to wait for more of a flood before what can wait is done: writing a piece of a block of the log, compressing.
const REST: Duration = Duration::from_millis(1);

/// Makes the runtime that the start specification asks for.
pub type MakeRuntime = Box<dyn Fn(&RuntimeChoice) -> Box<dyn Runtime>>;

/// A monitor before, during and after its container's life.
pub struct Monitor {
    link: Link,
    /// Where the container's id is shown.
    pub name: Option<sys::argument::Argument>,
    make_runtime: MakeRuntime,
    container: Option<Container>,
    starting: Option<Starting>,
    /// A start that failed, as long as it is being taken back.
    abandoned: Option<Abandoned>,
    entering: Vec<Entering>,
    /// Execs that were given up, until their processes have ended.
    dying: Vec<Dying>,
    /// Execs that wait for their turn to enter.
    queue: VecDeque<(Asked, Exec, Vec<OwnedFd>)>,
    /// When processes on their way were last looked after.
    looked: Instant,
    /// Children that are to be reaped.
    remains: Vec<OwnedFd>,
    proxies: Proxies,
    resolver: Option<Resolver>,
    /// A probe that connects.
    reach: Option<(Reach, Namespaces)>,
    /// Scratch space of every read.
    buffer: Vec<u8>,
    /// Since when the exit is known to the daemon, and whether it has recorded it.
    ended: Option<Instant>,
    released: bool,
    /// The last round found nothing to do.
    quiet: bool,
    /// The container could not be started: there is nothing to live for.
    failed: bool,
}

#[derive(Clone, Copy)]
enum Part {
    Link(link::Part),
    Proxies,
    Resolver,
    Reach,
    Memory,
    Starting,
    /// The index of an exec on its way.
    Entering(usize),
    /// A child to be reaped.
    Remains,
    /// Something that is done to the container.
    Action,
    Init(session::Part),
    Exec(usize, session::Part),
}

impl Monitor {
    pub fn new(control: OwnedFd, make_runtime: MakeRuntime) -> Monitor {
        Monitor {
            link: Link::new(control),
            name: None,
            make_runtime,
            container: None,
            starting: None,
            abandoned: None,
            entering: Vec::new(),
            dying: Vec::new(),
            queue: VecDeque::new(),
            looked: Instant::now(),
            remains: Vec::new(),
            proxies: Proxies::default(),
            resolver: None,
            reach: None,
            buffer: vec![0; MAX_PACKET],
            ended: None,
            released: false,
            quiet: false,
            failed: false,
        }
    }

    /// Returns when the container is over and told of.
    pub fn run(&mut self) {
        let mut ready = Vec::new();
        while !self.is_done() {
            self.wait(&mut ready);
            self.quiet = ready.is_empty() && !self.is_behind();
            if self.quiet {
                self.idle();
            }
            for (part, events) in ready.drain(..) {
                self.handle(part, events);
            }
            self.finish_round();
        }
    }

    fn is_done(&self) -> bool {
        let Some(container) = &self.container else {
            let begun = self.starting.is_some() || self.abandoned.is_some();
            return !begun && (self.link.is_alone() || self.failed && self.link.is_flushed());
        };
        let Some(ended) = self.ended else { return false };
        let told = self.released || self.link.is_alone() || ended.elapsed() >= RELEASE;
        told && container.init.is_over() && container.execs.is_empty()
    }

    /// Collects what is ready; nothing after a timeout.
    fn wait(&self, ready: &mut Vec<(Part, PollFlags)>) {
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(16);
        let mut parts = Vec::with_capacity(16);
        self.link.interests(|part, fd, flags| {
            parts.push(Part::Link(part));
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        });
        if let Some(fd) = self.proxies.pollable() {
            parts.push(Part::Proxies);
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
        if let Some(resolver) = &self.resolver {
            parts.push(Part::Resolver);
            fds.push(PollFd::from_borrowed_fd(resolver.pollable(), PollFlags::IN));
        }
        if let Some((fd, events)) = self.reach.as_ref().and_then(|(reach, _)| reach.interest()) {
            parts.push(Part::Reach);
            fds.push(PollFd::from_borrowed_fd(fd, events));
        }
        if let Some((fd, events)) = self.container.as_ref().and_then(|container| container.memory.interest()) {
            parts.push(Part::Memory);
            fds.push(PollFd::from_borrowed_fd(fd, events));
        }
        self.births(|part, fd| {
            parts.push(part);
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        });
        for (index, session) in self.sessions() {
            session.interests(|part, fd, flags| {
                parts.push(index.map_or(Part::Init(part), |index| Part::Exec(index, part)));
                fds.push(PollFd::from_borrowed_fd(fd, flags));
            });
        }
        match poll(&mut fds, self.timeout().as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            // Out of kernel memory, at worst: better slow than dead.
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
        let found = parts.into_iter().zip(fds.iter().map(PollFd::revents));
        ready.extend(found.filter(|(_, events)| !events.is_empty()));
    }

    /// What is on its way, and what is left of that.
    fn births<'a>(&'a self, mut add: impl FnMut(Part, BorrowedFd<'a>)) {
        if let Some(starting) = &self.starting {
            add(Part::Starting, starting.pending.awaited());
        }
        for (index, entering) in self.entering.iter().enumerate() {
            add(Part::Entering(index), entering.pending.awaited());
        }
        self.remains.iter().for_each(|pidfd| add(Part::Remains, pidfd.as_fd()));
        let acts = self.container.iter().flat_map(Container::awaited);
        let acts = acts.chain(self.abandoned.iter().filter_map(Abandoned::awaited));
        acts.for_each(|fd| add(Part::Action, fd));
    }

    /// When something on its way is late, or has to be looked after.
    fn births_deadline(&self) -> Option<Instant> {
        let late = self.entering.iter().map(|entering| entering.deadline);
        let late = late.chain(self.starting.iter().map(|starting| starting.pending.deadline())).min();
        let late = late.map(|late| late.min(self.looked + LOOK_AFTER));
        let dying = self.dying.first().map(|_| Instant::now() + DEATH_LOOK);
        let acts = self.container.as_ref().and_then(Container::deadline);
        late.into_iter().chain(dying).chain(acts).chain(self.abandoned.as_ref().map(Abandoned::deadline)).min()
    }

    /// The container's session, and those of execs with their index.
    fn sessions(&self) -> impl Iterator<Item = (Option<usize>, &Session)> {
        self.container.iter().flat_map(|container| {
            let execs = container.execs.iter().enumerate().map(|(index, exec)| (Some(index), exec));
            std::iter::once((None, &container.init)).chain(execs)
        })
    }

    fn log(&self) -> Option<&dyn logs::Sink> {
        self.container.as_ref()?.init.log.as_deref()
    }

    /// The log has something to write.
    fn is_behind(&self) -> bool {
        self.log().is_some_and(logs::Sink::is_behind)
    }

    /// Until the next deadline, or until there is time for the log.
    fn timeout(&self) -> Option<Timespec> {
        let now = Instant::now();
        let deadlines = self.sessions().filter_map(|(_, session)| session.deadline());
        let bounds = self.ended.map(|ended| [ended + FAREWELL, ended + RELEASE]);
        let release = bounds.into_iter().flatten().find(|&at| at > now);
        let memory = self.container.as_ref().and_then(|container| container.memory.deadline(now));
        let next = deadlines.chain(release).chain(self.proxies.deadline()).chain(memory).chain(self.births_deadline());
        let next = next.chain(self.resolver.as_ref().and_then(Resolver::deadline));
        let next = next.chain(self.container.as_ref().and_then(Container::count_deadline));
        let passing = self.container.as_ref().and_then(|container| container.frozen_for);
        let next = next.chain(passing.map(|passing| passing.ends()));
        let next = next.chain(self.reach.as_ref().map(|(reach, _)| reach.deadline())).min();
        let next = next.map(|at| at.saturating_duration_since(now));
        let log = self.log().filter(|log| log.is_behind() || log.has_idle_work());
        let log = log.map(|_| if self.quiet { Duration::ZERO } else { REST });
        let left = next.into_iter().chain(log).min();
        // Rounded up: waking too early would mean waking twice.
        left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) })
    }

    /// Nothing was ready: time for what can wait.
    fn idle(&mut self) {
        if let Some(log) = self.container.as_mut().and_then(|container| container.init.log.as_mut()) {
            log.idle();
        }
    }

    fn handle(&mut self, part: Part, events: PollFlags) {
        match part {
            Part::Link(link::Part::Listener) => self.accept(),
            Part::Link(link::Part::Connection(id)) => {
                if let Some(incoming) = self.link.handle(id, events, &mut self.buffer) {
                    self.receive(id, incoming);
                }
            }
            Part::Proxies => self.proxies.handle(&mut self.buffer),
            Part::Resolver => {
                if let Some(resolver) = &mut self.resolver {
                    resolver.handle(&mut self.buffer);
                }
            }
            Part::Reach => {
                if let Some((reach, namespaces)) = &mut self.reach {
                    reach.advance(|family| namespaces.inside(|| reach::socket(family)));
                }
            }
            Part::Memory => {
                if let Some(container) = &mut self.container {
                    container.memory.signalled(Instant::now());
                }
            }
            Part::Starting => self.advance_start(),
            Part::Entering(index) => self.entering[index].advance(),
            // Dealt with at the end of the round, with the others.
            Part::Remains | Part::Action => {}
            Part::Init(part) => self.handle_session(None, part, events),
            Part::Exec(index, part) => self.handle_session(Some(index), part, events),
        }
    }

    fn handle_session(&mut self, index: Option<usize>, part: session::Part, events: PollFlags) {
        let Some(container) = &mut self.container else { return };
        let session = match index {
            None => Some(&mut container.init),
            Some(index) => container.execs.get_mut(index),
        };
        let Some(session) = session else { return };
        if session.handle(part, events, &mut self.buffer) == News::Detached {
            self.link.tell(Event::Detached { exec: session.exec.clone() });
        }
    }

    /// A daemon has connected: it learns everything. What an earlier one has asked for is done before, and is told.
    fn accept(&mut self) {
        for older in self.link.ids() {
            for _ in 0..MAX_LEFT {
                let Some(incoming) = self.link.handle(older, PollFlags::IN, &mut self.buffer) else { break };
                self.receive(older, incoming);
            }
        }
        if let Some(id) = self.link.accept() {
            let none = State { version: VERSION, ..State::default() };
            let mut state = self.container.as_ref().map_or(none, Container::state);
            state.ports = self.proxies.served() as u32;
            if let Some((reach, _)) = &self.reach {
                state.probe = Some(ProbeState { id: reach.id().to_owned(), started_at: reach.started_at() });
            }
            let init = self.container.as_ref().map(|container| container.init.process.pidfd.as_fd());
            self.link.answer_with((id, 0), Event::Hello(state), init);
            for result in self.container.iter().flat_map(|container| container.probed.all()) {
                self.link.answer(id, 0, Event::Probed(result.clone()));
            }
        }
    }

    fn receive(&mut self, from: u32, incoming: Incoming) {
        let (Packet { seq, body }, fds) = match incoming {
            Incoming::Request(packet, fds) => (packet, fds),
            Incoming::NotUnderstood(unknown) => {
                let refusal =
                    Refusal::new(Reason::NotUnderstood, "the container's monitor does not understand the request");
                self.link.answer(from, unknown.seq, Event::Done { refused: Some(refusal) });
                return;
            }
        };
        if let Some(container) = &mut self.container {
            container.hear(from, Instant::now());
        }
        let answer = match body {
            Request::Start => return self.start((from, seq), fds),
            Request::Exec(exec) => return self.queue_exec((from, seq), exec, fds),
            Request::Reach(spec) => {
                let id = Some(spec.id.clone());
                match self.begin_reach(spec) {
                    Ok(()) => Event::Started { exec: id, pid: 0, at: crate::now() },
                    Err(error) => Event::Failed { exec: id, error },
                }
            }
            Request::Release => {
                self.released = true;
                self.link.stop_listening();
                return;
            }
            Request::Ping => Event::Done { refused: None },
            Request::Signal { exec: None, signal: SIGKILL, .. } if self.starting.is_some() => {
                let text = "the container was killed before its program ran";
                self.give_up_start(StartError::new(Stage::Runtime, 0, text));
                Event::Done { refused: None }
            }
            other => match self.simple(other, fds, (from, seq)) {
                Ok(Asks::Later) => return,
                Ok(Asks::Done) => Event::Done { refused: None },
                Err(refusal) => Event::Done { refused: Some(refusal) },
            },
        };
        self.link.answer(from, seq, answer);
    }

    fn start(&mut self, asked: Asked, fds: Vec<OwnedFd>) {
        if self.container.is_some() || self.starting.is_some() || self.abandoned.is_some() {
            let refusal = Refusal::new(Reason::NotUnderstood, "the container has been started already");
            return self.link.answer(asked.0, asked.1, Event::Done { refused: Some(refusal) });
        }
        match self.try_start(asked, fds) {
            Ok(starting) => {
                self.starting = Some(starting);
                self.looked = Instant::now();
                self.advance_start();
            }
            Err(error) => self.start_failed(asked, error),
        }
    }

    fn start_failed(&mut self, asked: Asked, mut error: StartError) {
        crate::proto::cut(&mut error.detail);
        self.failed = true;
        self.link.answer(asked.0, asked.1, Event::Failed { exec: None, error });
    }

    /// Takes note of what is new of the start.
    fn advance_start(&mut self) {
        let Some(starting) = &mut self.starting else { return };
        let (link, asked) = (&mut self.link, starting.asked);
        let outcome = starting.advance(|pid, at| link.answer(asked.0, asked.1, Event::Born { pid, at }));
        match outcome {
            Ok(None) => {}
            Ok(Some(process)) => {
                let Some(starting) = self.starting.take() else { return };
                let (container, left) = Container::started(starting, process);
                let (pid, at) = (container.init.process.pid, container.started_at());
                let started = Event::Started { exec: None, pid, at };
                self.link.answer_with(asked, started, Some(container.init.process.pidfd.as_fd()));
                self.container = Some(container);
                self.remains.extend(left);
            }
            Err(error) => self.give_up_start(error),
        }
    }

    fn give_up_start(&mut self, error: StartError) {
        self.abandoned = self.starting.take().map(|starting| starting.abandon(error));
    }

    /// After each round: a start that was given up is answered when it is taken back.
    fn finish_abandoned(&mut self) {
        let Some(mut abandoned) = self.abandoned.take() else { return };
        if !abandoned.take_back(&mut self.remains) {
            self.abandoned = Some(abandoned);
            return;
        }
        let Abandoned { spec, asked, was_born, error, .. } = abandoned;
        if was_born {
            // The daemon may have recorded the birth, and be gone by now: whoever comes finds how it went on.
            let (error, code) = error.to_error(runtime::What::Create);
            let exit = Exit { code, at: crate::now(), error: error.message().into(), ..Exit::default() };
            let _ = container::write_record(&spec.exit_path, &exit);
        }
        self.start_failed(asked, error);
    }

    fn try_start(&mut self, asked: Asked, fds: Vec<OwnedFd>) -> Result<Starting, StartError> {
        let invalid =
            |e: &dyn std::fmt::Display| StartError::new(Stage::Runtime, 0, format!("start specification: {e}"));
        let mut fds = fds.into_iter();
        let bytes = container::read_memory(fds.next()).map_err(|e| invalid(&e))?;
        let spec: StartSpec = postcard::from_bytes(&bytes).map_err(|e| invalid(&e))?;
        drop(bytes);
        // Until now it was a part of the daemon, in the same session and with the same claim to the processor.
        let _ = rustix::process::setsid();
        self.link.listen(fds.next().ok_or_else(|| invalid(&"the listening socket is missing"))?);
        // Before there is anything that a daemon might have to end: it finds the monitor by this.
        if let Some(Err(error)) = self.name.take().map(|name| name.set(&spec.bundle.id)) {
            crate::tell(format_args!("the monitor of {} cannot show this id: {error}", spec.bundle.id));
        }
        let netns = if spec.netns { fds.next() } else { None };
        let joined: Vec<_> = spec.joined.iter().copied().zip(&mut fds).collect();
        let trees: Vec<OwnedFd> = fds.by_ref().take(spec.trees.into()).collect();
        let sockets: Vec<OwnedFd> = fds.collect();
        let are_all = trees.len() == usize::from(spec.trees) && joined.len() == spec.joined.len();
        if sockets.len() != spec.attach.len() || netns.is_some() != spec.netns || !are_all {
            return Err(invalid(&"descriptors are missing"));
        }
        if let (Some(resolver), Some(netns)) = (&spec.resolver, &netns) {
            self.open_resolver(netns.try_clone(), resolver.clone(), &spec.bundle.id);
        }
        let runtime = (self.make_runtime)(&spec.runtime);
        Starting::begin(spec, runtime, Given { netns, joined, trees, sockets }, asked)
    }

    /// Without a resolver the container runs all the same, as with the reference.
    fn open_resolver(&mut self, namespace: std::io::Result<OwnedFd>, spec: ResolverSpec, id: &str) {
        match namespace.and_then(|namespace| Resolver::open(namespace, spec)) {
            Ok(resolver) => self.resolver = Some(resolver),
            Err(error) => crate::tell(format_args!("monitor of {id}: there is no resolver: {error}")),
        }
    }

    /// Connects from inside the namespace of the container's first process, whoever it shares that with.
    fn begin_reach(&mut self, spec: ReachSpec) -> Result<(), StartError> {
        let refused = |text: String| StartError::new(Stage::Runtime, 0, text);
        let container = self.container.as_ref().filter(|container| container.init.exit().is_none());
        let Some(container) = container else {
            return Err(StartError::new(Stage::NotRunning, 0, "the container is not running"));
        };
        if self.reach.is_some() {
            return Err(refused("the last probe of the health check has not ended".into()));
        }
        let namespaces = Namespaces::of_process(container.init.process.pidfd.as_fd());
        let namespaces = namespaces.map_err(|error| refused(format!("the container's network: {error}")))?;
        let reach = Reach::begin(spec, |family| namespaces.inside(|| reach::socket(family)));
        self.reach = Some((reach, namespaces));
        Ok(())
    }

    /// After each round: a probe that is over is told.
    fn finish_reach(&mut self, now: Instant) {
        let Some((reach, _)) = &mut self.reach else { return };
        if let Some(result) = reach.result(now) {
            self.reach = None;
            if let Some(container) = &mut self.container {
                container.probed.push(result.clone());
            }
            self.link.tell(Event::Probed(result));
        }
    }

    fn queue_exec(&mut self, asked: Asked, exec: Exec, fds: Vec<OwnedFd>) {
        if self.queue.len() >= MAX_QUEUED {
            let error = StartError::new(Stage::Runtime, 0, "too many execs wait for their start");
            return self.exec_failed(asked, exec.id, error);
        }
        self.queue.push_back((asked, exec, fds));
        self.begin_execs();
    }

    /// Begins execs whose turn it is.
    fn begin_execs(&mut self) {
        while self.entering.len() < MAX_ENTERING
            && let Some((asked, exec, fds)) = self.queue.pop_front()
        {
            let id = exec.id.clone();
            let mut fds = fds.into_iter();
            let begun = match &self.container {
                None => Err(StartError::new(Stage::NotRunning, 0, "the container is not running")),
                Some(container) => container.enter(exec, (fds.next(), fds.next()), asked),
            };
            match begun {
                Ok(mut entering) => {
                    if self.entering.is_empty() {
                        self.looked = Instant::now();
                    }
                    entering.advance();
                    self.entering.push(entering);
                }
                Err(error) => self.exec_failed(asked, id, error),
            }
        }
    }

    fn exec_failed(&mut self, asked: Asked, id: String, mut error: StartError) {
        if error.stage == Stage::Clone && error.errno == Errno::SRCH.raw_os_error() {
            // Nothing was refused: it was killed on its way in, as everything is when the container ends.
            let text = format!("the container is not running: {}", error.detail);
            error = StartError::new(Stage::NotRunning, 0, text);
        }
        crate::proto::cut(&mut error.detail);
        self.link.answer(asked.0, asked.1, Event::Failed { exec: Some(id), error });
    }

    /// After each round: what is late is given up, what has come to its program is a session from now on.
    fn advance_births(&mut self, now: Instant) {
        if now >= self.looked + LOOK_AFTER {
            self.looked = now;
            let execs = self.entering.iter().map(|entering| &entering.pending);
            self.starting.iter().map(|starting| &starting.pending).chain(execs).for_each(|p| look_after(&**p));
        }
        for over in self.dying.extract_if(.., Dying::is_over).collect::<Vec<_>>() {
            self.remains.extend(over.left());
        }
        self.remains.retain(|pidfd| !pending::reap(pidfd));
        if self.starting.as_ref().is_some_and(|starting| now >= starting.pending.deadline()) {
            self.advance_start();
        }
        let Some(container) = &mut self.container else { return };
        self.entering.iter_mut().for_each(|entering| entering.check(now, container));
        for mut entered in self.entering.extract_if(.., |entering| entering.outcome.is_some()).collect::<Vec<_>>() {
            let (asked, id) = (entered.asked, entered.exec.id.clone());
            let event = match entered.outcome.take() {
                Some(Ok(process)) => {
                    let (pid, left) = container.entered(entered, process);
                    self.remains.extend(left);
                    Event::Started { exec: Some(id), pid, at: crate::now() }
                }
                Some(Err(error)) => {
                    let mut error = container.explain(error);
                    crate::proto::cut(&mut error.detail);
                    self.dying.push(Dying::new(entered.pending));
                    Event::Failed { exec: Some(id), error }
                }
                None => continue,
            };
            self.link.answer(asked.0, asked.1, event);
        }
        self.begin_execs();
    }

    /// Requests that are answered by `Done`.
    fn simple(&mut self, request: Request, fds: Vec<OwnedFd>, asked: Asked) -> Result<Asks, Refusal> {
        let Some(container) = &mut self.container else {
            return Err(Refusal::new(Reason::NotRunning, "the container is not running"));
        };
        match request {
            Request::Signal { exec, signal, scope } => {
                return container.signal(exec.as_deref(), (signal, scope), asked);
            }
            Request::Freeze { frozen, passing } => {
                container.frozen_for =
                    (frozen && passing).then(|| Passing { connection: asked.0, heard: Instant::now() });
                return container.freeze(frozen, asked);
            }
            Request::Ports(ports) => self.ports(ports, fds)?,
            Request::Unpublish(bound) => {
                let removed = self.proxies.remove(&bound);
                removed.map_err(|e| Refusal::new(Reason::Failed, e.to_string()))?;
            }
            Request::ParkedPorts(ports) => {
                let queue = fds.into_iter().next().ok_or_else(missing)?;
                let added = self.proxies.add_parked(&ports, queue.into());
                added.map_err(|e| Refusal::new(Reason::Failed, e.to_string()))?;
            }
            Request::Attach(attach) => {
                let socket = fds.into_iter().next().ok_or_else(missing)?;
                let room = container.room.clone();
                let news = container.session(None)?.attach(socket, attach, &room);
                let news = news.ok_or_else(|| Refusal::new(Reason::Failed, "too many clients are attached"))?;
                if news == News::Detached {
                    self.link.tell(Event::Detached { exec: None });
                }
            }
            Request::Resize { exec, rows, columns } => container.resize(exec.as_deref(), rows, columns)?,
            Request::Resolver(spec) => match &mut self.resolver {
                Some(resolver) => resolver.change(spec),
                None => {
                    let namespace = fds.into_iter().next().ok_or_else(missing)?;
                    let opened = Resolver::open(namespace, spec);
                    self.resolver = Some(opened.map_err(|e| Refusal::new(Reason::Failed, e.to_string()))?);
                }
            },
            Request::Start | Request::Exec(_) | Request::Reach(_) | Request::Release | Request::Ping => {}
        }
        Ok(Asks::Done)
    }

    fn ports(&mut self, ports: Vec<Port>, fds: Vec<OwnedFd>) -> Result<(), Refusal> {
        if ports.len() != fds.len() {
            return Err(missing());
        }
        ports.into_iter().zip(fds).try_for_each(|(port, socket)| {
            self.proxies.add(port, socket).map_err(|e| Refusal::new(Reason::Failed, e.to_string()))
        })
    }

    /// After each round: the log is written, and what has ended is told and let go of.
    fn finish_round(&mut self) {
        let now = Instant::now();
        self.proxies.expire(now);
        if let Some(resolver) = &mut self.resolver {
            resolver.expire(now);
            // It waits for a daemon.
            if let Some(denied) = (!self.link.is_alone()).then(|| resolver.take_denied()).flatten() {
                self.link.tell(denied);
            }
        }
        self.advance_births(now);
        self.finish_abandoned();
        self.finish_reach(now);
        if let Some(container) = &mut self.container {
            container.thaw_if_abandoned(|id| self.link.has(id), now);
            for ((id, seq), outcome) in container.finish_actions() {
                self.link.answer(id, seq, Event::Done { refused: outcome.err() });
            }
            if self.entering.is_empty() && self.dying.is_empty() {
                // What a runtime program still has to do it is waited for itself.
                container.reap_adopted();
            }
            reap_execs(container, &mut self.link, now);
            container.init.flush();
            container.count(now);
            report(container);
            if let Some(exit) = container.init.check_end(now) {
                (self.proxies, self.resolver, self.reach) = (Proxies::default(), None, None);
                let (exit, out_of_memory) = container.ended(exit);
                if out_of_memory {
                    self.link.tell(Event::OutOfMemory);
                }
                self.link.tell(Event::Died { exit: exit.clone() });
                container.clean_up(exit);
            }
            if let Some(exit) = container.cleaned() {
                self.link.tell(Event::Exited { exec: None, exit });
                self.ended = Some(now);
            } else if self.ended.is_none() && !container.is_cleaning() && container.memory_has_run_out(now) {
                self.link.tell(Event::OutOfMemory);
            }
        }
        self.link.finish_round();
        self.close_clients(now);
    }

    /// After the container's end: its clients are let go once the daemon has recorded it, so that who sees the end of a stream
    /// and then asks for the exit code gets it.
    fn close_clients(&mut self, now: Instant) {
        let (Some(ended), Some(container)) = (self.ended, &mut self.container) else { return };
        if self.released || self.link.is_alone() || now >= ended + FAREWELL {
            container.init.finish();
        }
    }
}

fn reap_execs(container: &mut Container, link: &mut Link, now: Instant) {
    let mut ended = Vec::new();
    for session in &mut container.execs {
        if let Some(result) = session.check_probe(now) {
            container.probed.push(result.clone());
            link.tell(Event::Probed(result));
        }
        if let Some(exit) = session.check_end(now) {
            ended.push((session.exec.clone().unwrap_or_default(), session.process.pid, exit));
        }
    }
    for (id, pid, exit) in ended {
        let index = container.execs.iter().position(|session| session.exec.as_deref() == Some(&id));
        let Some(index) = index else { continue };
        match container.execs[index].probe.as_mut().map(|probe| probe.result(&id, &exit)) {
            None => {
                container.exec_ended(&id, pid, &exit);
                link.tell(Event::Exited { exec: Some(id), exit });
            }
            Some(result) => {
                if let Some(result) = result {
                    container.probed.push(result.clone());
                    link.tell(Event::Probed(result));
                }
            }
        }
        container.execs[index].finish();
    }
    container.execs.retain(|session| !session.is_over());
}

/// Trouble with the log is told to the daemon's log.
fn report(container: &mut Container) {
    if let Some(text) = container.init.log.as_mut().and_then(|log| log.take_report()) {
        crate::tell(format_args!("monitor of {}: {text}", container.id()));
    }
}

fn missing() -> Refusal {
    Refusal::new(Reason::NotUnderstood, "a descriptor is missing")
}

#[cfg(test)]
mod tests;
