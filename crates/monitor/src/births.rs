//! The start of the container and execs under way. A container has a hand in how long they take: they are polled like
//! everything else, and given up at their deadline.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use logs::JsonFile;
use runtime::pending::{self, ENTER_WAIT, Pending, Progress};
use runtime::{Process, Runtime, StartError, oci};

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
    pub log: Option<JsonFile>,
    /// Namespaces: they may be joined by paths, `/proc/<monitor>/fd/<n>`.
    _namespaces: (Option<OwnedFd>, Vec<(oci::NamespaceKind, OwnedFd)>),
}

/// The descriptors of a start.
pub struct Given {
    pub netns: Option<OwnedFd>,
    /// What the specification joins.
    pub joined: Vec<(oci::NamespaceKind, OwnedFd)>,
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
        let Given { netns, joined, sockets } = given;
        spec.bundle.pass(&joined);
        let tty = spec.bundle.spec.process.terminal;
        let (stdio, streams) = pipes(!tty && spec.open_stdin, !tty, !tty)?;
        let pending = runtime.start(&spec.bundle, stdio, netns.as_ref().map(AsFd::as_fd))?;
        let _namespaces = (netns, joined);
        Ok(Starting { spec, runtime, asked, pending, streams, sockets, started_at: 0, log: None, _namespaces })
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

    /// Takes everything back; what is still to be reaped.
    pub fn abandon(self) -> Vec<OwnedFd> {
        let Starting { spec, runtime, pending, .. } = self;
        let left = pending::abandon(pending);
        if let Err(error) = runtime.cleanup(&spec.bundle) {
            crate::tell(format_args!("monitor of {}: cleaning up after a failed start: {error}", spec.bundle.id));
        }
        left
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
