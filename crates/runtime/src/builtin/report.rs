//! The channel between a child that is becoming a container's process and its parent.
//!
//! A pair of SEQPACKET sockets, close-on-exec. Child to parent: descriptors to keep, at most one error; then the execve (or death) closes it, and that is the news the parent waits for. Parent to
//! child: "go on", once the parent has done its part (id maps, cgroup). The parent's end does not block.
//!
//! A process that the container sees before its execve has no such socket, through which somebody who traces it could pass
//! descriptors: it has the end of a pipe ([`Status`]), which takes an error or is closed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use sys::fdpass;

use crate::error::{At, Stage, StartError};

const KEEP: u8 = b'K';
const ERROR: u8 = b'E';
const GO: u8 = b'G';
/// Bytes of a report; an error's texts are cut to fit.
const MAX_REPORT: usize = 16 * 1024;

/// The parent's end.
#[derive(Debug)]
pub(super) struct Listener(OwnedFd);

/// The child's end.
pub(super) struct Reporter(OwnedFd);

/// What a child leaves with its parent.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The terminal's master end.
    pub(super) console: Option<OwnedFd>,
    /// The root file system of a new container.
    pub(super) root: Option<OwnedFd>,
}

/// What a child has said.
#[derive(Debug)]
pub(super) enum Word {
    Kept(Kept),
    Error(StartError),
    /// It has executed its program, or ended, or says no more.
    End,
}

pub(super) fn pair() -> Result<(Listener, Reporter), StartError> {
    let (parent, child) = fdpass::pair().at(|| Stage::Clone, "socketpair")?;
    rustix::io::ioctl_fionbio(&parent, true).at(|| Stage::Clone, "ioctl")?;
    Ok((Listener(parent), Reporter(child)))
}

impl Listener {
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Lets a child in [`Reporter::wait_go`] continue. A child that has ended has left word why.
    pub(super) fn go(&self) {
        let _ = fdpass::send(&self.0, &[GO], &[]);
    }

    /// The child's next word; `None`: there is none yet.
    pub(super) fn receive(&self) -> Result<Option<Word>, StartError> {
        let mut buffer = vec![0; MAX_REPORT];
        let (length, mut fds) = loop {
            match fdpass::receive(&self.0, &mut buffer) {
                // The child has ended without reading its "go on"; what it has said before is still there.
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
                other => break other.at(|| Stage::Clone, "receive")?,
            }
        };
        let word = match buffer[..length].split_first() {
            None => Word::End,
            // In the order of `Reporter::keep`, the console first.
            Some((&KEEP, [console, root])) => {
                let root = if *root == 1 { fds.pop() } else { None };
                Word::Kept(Kept { console: if *console == 1 { fds.pop() } else { None }, root })
            }
            Some((_, report)) => Word::Error(error_in(report)),
        };
        Ok(Some(word))
    }
}

/// Why a helper has ended that has nothing to show.
pub(super) fn last_word(socket: &OwnedFd) -> StartError {
    let mut buffer = vec![0; MAX_REPORT];
    match fdpass::receive(socket, &mut buffer) {
        Ok((length, _)) if length > 1 => error_in(&buffer[1..length]),
        _ => StartError::new(Stage::Clone, 0, "a helper ended without an answer"),
    }
}

fn malformed() -> StartError {
    StartError::new(Stage::Clone, 0, "malformed report of the container's init")
}

fn error_in(report: &[u8]) -> StartError {
    serde_json::from_slice(report).unwrap_or_else(|_| malformed())
}

/// An error in at most [`MAX_REPORT`] bytes, behind `head`.
fn in_bytes(head: &[u8], error: &StartError) -> Option<Vec<u8>> {
    let mut error = error.clone();
    error.detail.truncate(error.detail.floor_char_boundary(MAX_REPORT / 8));
    let mut message = head.to_vec();
    // JSON may blow every byte up to six; the detail is at most an eighth.
    let written = serde_json::to_writer(&mut message, &error);
    (written.is_ok() && message.len() <= MAX_REPORT).then_some(message)
}

/// The reading end of the pipe of a process in the container.
#[derive(Debug)]
pub(super) struct Status {
    pipe: OwnedFd,
    said: Vec<u8>,
}

impl Status {
    /// Both ends; the writing one is the child's.
    pub(super) fn new() -> Result<(Status, OwnedFd), StartError> {
        let (pipe, write) = pipe_with(PipeFlags::CLOEXEC).at(|| Stage::Clone, "pipe")?;
        rustix::io::ioctl_fionbio(&pipe, true).at(|| Stage::Clone, "ioctl")?;
        Ok((Status { pipe, said: Vec::new() }, write))
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// Whether the process has executed its program (or ended); its error.
    pub(super) fn receive(&mut self) -> Result<bool, StartError> {
        let mut buffer = [0; 4096];
        loop {
            match rustix::io::read(&self.pipe, &mut buffer) {
                Ok(0) if self.said.is_empty() => return Ok(true),
                Ok(0) => return Err(error_in(&self.said)),
                Ok(_) if self.said.len() > MAX_REPORT => return Err(malformed()),
                Ok(n) => self.said.extend_from_slice(&buffer[..n]),
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e).at(|| Stage::Clone, "read"),
            }
        }
    }

    /// Leaves an error in the pipe.
    pub(super) fn write(pipe: BorrowedFd<'_>, error: &StartError) {
        if let Some(message) = in_bytes(&[], error) {
            let _ = rustix::io::write(pipe, &message);
        }
    }
}

impl Reporter {
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Waits until the parent says go on; fails if the parent is gone.
    pub(super) fn wait_go(&self) -> Result<(), StartError> {
        let (length, _) = fdpass::receive(&self.0, &mut [0]).at(|| Stage::Clone, "receive")?;
        if length == 1 { Ok(()) } else { Err(StartError::new(Stage::Clone, 0, "the monitor has gone")) }
    }

    pub(super) fn keep(&self, console: Option<BorrowedFd<'_>>, root: Option<BorrowedFd<'_>>) -> Result<(), StartError> {
        let message = [KEEP, u8::from(console.is_some()), u8::from(root.is_some())];
        let fds: Vec<BorrowedFd<'_>> = [console, root].into_iter().flatten().collect();
        fdpass::send(&self.0, &message, &fds).at(|| Stage::Console, "send")
    }

    pub(super) fn error(&self, error: &StartError) {
        if let Some(message) = in_bytes(&[ERROR], error) {
            let _ = fdpass::send(&self.0, &message, &[]);
        }
    }
}

impl From<OwnedFd> for Reporter {
    fn from(socket: OwnedFd) -> Reporter {
        Reporter(socket)
    }
}

/// Whether the parent at the other end of a socket or pipe still lives, to be asked after `die_with_parent`: a parent that
/// died before it is not noticed by the kernel.
pub(super) fn parent_lives(line: BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut fds = [PollFd::from_borrowed_fd(line, PollFlags::empty())];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok() && !fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}
