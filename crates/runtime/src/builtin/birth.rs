//! The parent's side of a start or an exec: what its processes tell, put together to one [`Process`].

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sys::note::Note;
use sys::process;

use super::report::{Kept, Listener, Status, Word};
use crate::error::{At, Stage, StartError};
use crate::pending;
use crate::pending::{ENTER_WAIT, Pending, Progress, SIGKILL};
use crate::process::{Process, ended};

/// A process on its way.
#[derive(Debug)]
pub(super) struct Birth {
    /// Until it has said all.
    listener: Option<Listener>,
    /// What makes the process in another PID namespace.
    stage: Option<Maker>,
    process: Option<(i32, OwnedFd)>,
    kept: Kept,
    /// Whether the birth was told.
    told: bool,
    deadline: Instant,
}

/// A stage (see [`super::enter`]).
#[derive(Debug)]
struct Maker {
    pidfd: OwnedFd,
    /// Where it leaves the number of its child, before it ends.
    note: Note,
    /// What both say when the line is closed.
    status: Status,
}

impl Birth {
    /// Of the child itself.
    pub(super) fn of_child(listener: Listener, pid: i32, pidfd: OwnedFd) -> Birth {
        Birth { process: Some((pid, pidfd)), ..Birth::new(listener, pending::START_WAIT) }
    }

    /// Of a process that the child `stage` makes in another PID namespace.
    pub(super) fn of_grandchild(
        listener: Listener,
        (status, note): (Status, Note),
        stage: OwnedFd,
        wait: Duration,
    ) -> Birth {
        Birth { stage: Some(Maker { pidfd: stage, note, status }), ..Birth::new(listener, wait) }
    }

    fn new(listener: Listener, wait: Duration) -> Birth {
        let deadline = Instant::now() + wait;
        Birth { listener: Some(listener), stage: None, process: None, kept: Kept::default(), told: false, deadline }
    }

    /// Everything that the child says itself; false: there is more to come.
    fn listen(&mut self) -> Result<bool, StartError> {
        while let Some(listener) = &self.listener {
            match listener.receive()? {
                None => return Ok(false),
                Some(Word::Kept(Kept { console, root })) => {
                    self.kept.console = console.or(self.kept.console.take());
                    self.kept.root = root.or(self.kept.root.take());
                }
                Some(Word::Error(error)) => return Err(error),
                Some(Word::End) => self.listener = None,
            }
        }
        Ok(true)
    }

    /// The child of a stage that has ended.
    fn find(&mut self) -> Result<Progress, StartError> {
        let Some(stage) = &mut self.stage else { return Err(lost()) };
        if !ended(stage.pidfd.as_fd(), Duration::ZERO) {
            return Ok(Progress::Waiting);
        }
        let number = stage.note.read().at(|| Stage::Clone, "pread")?.cast_signed();
        let Some(pid) = Pid::from_raw(number) else {
            // It may have left an error.
            stage.status.receive()?;
            return Err(lost());
        };
        // It is a child of this process that nobody has reaped yet: the number is still its own.
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).at(|| Stage::Clone, "pidfd_open")?;
        self.process = Some((number, pidfd));
        // From now on others can reach it.
        self.deadline = self.deadline.min(Instant::now() + ENTER_WAIT);
        self.told = true;
        Ok(Progress::Born(number))
    }

    /// Its program runs, or it has ended; which of the two its exit will tell.
    fn running(&mut self) -> Result<Progress, StartError> {
        let (pid, pidfd) = self.process.take().ok_or_else(lost)?;
        let Kept { console, root } = std::mem::take(&mut self.kept);
        Ok(Progress::Running(Process { pid, pidfd, console, root }))
    }
}

/// `ESRCH`: there is no such process any more.
fn lost() -> StartError {
    let errno = rustix::io::Errno::SRCH.raw_os_error();
    StartError::new(Stage::Clone, errno, "the process ended before it had entered the container")
}

impl Pending for Birth {
    fn awaited(&self) -> BorrowedFd<'_> {
        match (&self.listener, &self.stage, &self.process) {
            (Some(listener), ..) => listener.as_fd(),
            (None, Some(stage), None) => stage.pidfd.as_fd(),
            (None, Some(stage), Some(_)) => stage.status.as_fd(),
            // Over.
            (None, None, process) => process.as_ref().map_or(rustix::stdio::stdin(), |(_, pidfd)| pidfd.as_fd()),
        }
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn advance(&mut self) -> Result<Progress, StartError> {
        if let Some((pid, _)) = self.process.as_ref().filter(|_| !self.told) {
            self.told = true;
            return Ok(Progress::Born(*pid));
        }
        if !self.listen()? {
            return Ok(Progress::Waiting);
        }
        let Some(stage) = &mut self.stage else { return self.running() };
        match &self.process {
            None => self.find(),
            Some(_) => {
                if stage.status.receive()? {
                    self.running()
                } else {
                    Ok(Progress::Waiting)
                }
            }
        }
    }

    fn kill(&mut self) {
        for pidfd in self.processes() {
            let _ = process::signal(pidfd, SIGKILL);
        }
        // The stage may have had its child just before.
        self.listener = None;
        let stage_ended = self.stage.as_ref().is_some_and(|stage| ended(stage.pidfd.as_fd(), Duration::ZERO));
        if self.process.is_none() && stage_ended && self.find().is_ok() {
            self.processes().into_iter().for_each(|pidfd| drop(process::signal(pidfd, SIGKILL)));
        }
    }

    fn processes(&self) -> Vec<BorrowedFd<'_>> {
        let process = self.process.iter().map(|(_, pidfd)| pidfd.as_fd());
        process.chain(self.stage.iter().map(|stage| stage.pidfd.as_fd())).collect()
    }

    fn leftovers(self: Box<Self>) -> Vec<OwnedFd> {
        let Birth { stage, process, .. } = *self;
        process.map(|(_, pidfd)| pidfd).into_iter().chain(stage.map(|stage| stage.pidfd)).collect()
    }
}
