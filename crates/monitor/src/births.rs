//! The start of the container and execs under way. A container has a hand in how long they take: they are polled like
//! everything else, and given up at their deadline.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use logs::Sink;
use runtime::pending::{self, DEATH_LOOK, DEATH_WAIT, ENTER_WAIT, Pending, Progress};
use runtime::{Action, Process, Runtime, StartError, oci};

use crate::container::{Container, open_log, pipes};
use crate::proto::{Exec, StartSpec};
use crate::session::Streams;

/// Whose request it was: the connection and the request's number.
pub type Asked = (u32, u32);

/// The container on its way.
pub struct Starting {
    pub spec: StartSpec,
    pub runtime: Box<dyn Runtime>,
    pub asked: Asked,
    pub pending: Box<dyn Pending>,
    pub streams: Streams,
    /// One per `spec.attach`.
    pub sockets: Vec<OwnedFd>,
    /// When its first process was made, in unix nanoseconds; 0 = not yet.
    pub started_at: i64,
    pub log: Option<Box<dyn Sink>>,
    /// Namespaces, which may be joined by paths, `/proc/<monitor>/fd/<n>`, and mounts.
    _passed: (Option<OwnedFd>, Vec<(oci::NamespaceKind, OwnedFd)>, Vec<OwnedFd>),
}

/// The descriptors of a start.
pub struct Given {
    pub netns: Option<OwnedFd>,
    /// What the specification joins.
    pub joined: Vec<(oci::NamespaceKind, OwnedFd)>,
    /// Detached mounts that it attaches.
    pub trees: Vec<OwnedFd>,
    /// One per `spec.attach`.
    pub sockets: Vec<OwnedFd>,
}

impl Starting {
    pub fn begin(
        mut spec: StartSpec,
        runtime: Box<dyn Runtime>,
        given: Given,
        asked: Asked,
    ) -> Result<Starting, StartError> {
        let Given { netns, joined, trees, sockets } = given;
        spec.bundle.pass(&joined, &trees);
        let tty = spec.bundle.spec.process.terminal;
        let (stdio, streams) = pipes(!tty && spec.open_stdin, !tty, !tty)?;
        let pending = runtime.start(&spec.bundle, stdio, netns.as_ref().map(AsFd::as_fd))?;
        let _passed = (netns, joined, trees);
        Ok(Starting { spec, runtime, asked, pending, streams, sockets, started_at: 0, log: None, _passed })
    }

    /// What is new. `born` hears the number of its first process and when it was made, before its program runs.
    pub fn advance(&mut self, mut born: impl FnMut(i32, i64)) -> Result<Option<Process>, StartError> {
        loop {
            match self.pending.advance()? {
                Progress::Waiting if Instant::now() >= self.pending.deadline() => return Err(pending::late()),
                Progress::Waiting => return Ok(None),
                Progress::Born(pid) => {
                    self.started_at = crate::now();
                    born(pid, self.started_at);
                    // While the container makes its root: nothing is written before its program runs.
                    self.log = open_log(&self.spec.log)?;
                }
                Progress::Running(process) => return Ok(Some(process)),
            }
        }
    }

    /// Takes everything back, which takes its time.
    pub fn abandon(self, error: StartError) -> Abandoned {
        let Starting { spec, runtime, pending, asked, started_at, .. } = self;
        let dying = Some(Dying::new(pending));
        Abandoned { spec, runtime, asked, was_born: started_at != 0, error, dying, cleanup: None }
    }
}

/// Processes of a start or an exec that was given up.
pub struct Dying {
    pending: Box<dyn Pending>,
    until: Instant,
}

impl Dying {
    pub fn new(pending: Box<dyn Pending>) -> Dying {
        Dying { pending, until: Instant::now() + DEATH_WAIT }
    }

    /// Kills them; whether they have ended, or have had the time for it.
    pub fn is_over(&mut self) -> bool {
        pending::is_dead(&mut *self.pending) || Instant::now() >= self.until
    }

    /// What is still to be reaped.
    pub fn left(self) -> Vec<OwnedFd> {
        pending::left_of(self.pending)
    }
}

/// A start that has failed and is being taken back.
pub struct Abandoned {
    pub spec: StartSpec,
    runtime: Box<dyn Runtime>,
    pub asked: Asked,
    /// Its birth was told.
    pub was_born: bool,
    /// Why it failed.
    pub error: StartError,
    dying: Option<Dying>,
    cleanup: Option<Box<dyn Action>>,
}

impl Abandoned {
    /// When to look at it again.
    pub fn deadline(&self) -> Instant {
        self.cleanup.as_ref().map_or_else(|| Instant::now() + DEATH_LOOK, |cleanup| cleanup.next())
    }

    /// What to poll for input.
    pub fn awaited(&self) -> Option<BorrowedFd<'_>> {
        self.cleanup.as_ref().and_then(|cleanup| cleanup.awaited())
    }

    /// Goes on; whether everything is taken back. What is still to be reaped comes in `remains`.
    pub fn take_back(&mut self, remains: &mut Vec<OwnedFd>) -> bool {
        if let Some(mut dying) = self.dying.take() {
            if !dying.is_over() {
                self.dying = Some(dying);
                return false;
            }
            remains.extend(dying.left());
            match self.runtime.begin_cleanup(&self.spec.bundle) {
                Ok(cleanup) => self.cleanup = cleanup,
                Err(error) => self.report(&error),
            }
        }
        let Some(cleanup) = &mut self.cleanup else { return true };
        match cleanup.look() {
            None => return false,
            Some(Err(error)) => self.report(&error),
            Some(Ok(())) => {}
        }
        true
    }

    fn report(&self, error: &model::Error) {
        crate::tell(format_args!("monitor of {}: cleaning up after a failed start: {error}", self.spec.bundle.id));
    }
}

/// A further process on its way.
pub struct Entering {
    pub exec: Exec,
    pub asked: Asked,
    pub pending: Box<dyn Pending>,
    pub streams: Streams,
    pub client: Option<OwnedFd>,
    /// Then it is given up.
    pub deadline: Instant,
    /// What has become of it, for the end of the round.
    pub outcome: Option<Result<Process, StartError>>,
}

impl Entering {
    /// What is new.
    pub fn advance(&mut self) {
        while self.outcome.is_none() {
            match self.pending.advance() {
                Ok(Progress::Waiting) => return,
                Ok(Progress::Born(_)) => {}
                Ok(Progress::Running(process)) => self.outcome = Some(Ok(process)),
                Err(error) => self.outcome = Some(Err(error)),
            }
        }
    }

    /// The time that it has. While the container is paused by its daemon it needs none.
    pub fn check(&mut self, now: Instant, container: &Container) {
        if container.is_paused() {
            self.deadline = now + ENTER_WAIT;
        } else if self.outcome.is_none() && now >= self.deadline {
            self.outcome = Some(Err(pending::late()));
        }
        if self.outcome.is_none() && container.init.exit().is_some() {
            self.outcome = Some(Err(container.not_running()));
        }
    }
}
