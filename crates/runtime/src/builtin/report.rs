//! The channel between a child that is becoming a container's process and its parent.
//!
//! A pair of SEQPACKET sockets, close-on-exec. Child to parent: at most one console, at most one error; then the execve
//! (or death) closes it, and that is the news the parent waits for. Parent to child: at most one "go on", used only when
//! the child must wait for its id maps.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use sys::fdpass;

use crate::error::{At, Stage, StartError};

const CONSOLE: u8 = b'C';
const ERROR: u8 = b'E';
const GO: u8 = b'G';
/// Bytes of a report; an error's texts are cut to fit.
const MAX_REPORT: usize = 16 * 1024;

/// The parent's end.
pub(super) struct Listener(OwnedFd);

/// The child's end.
pub(super) struct Reporter(OwnedFd);

pub(super) fn pair() -> Result<(Listener, Reporter), StartError> {
    let (parent, child) = fdpass::pair().at(|| Stage::Clone, "socketpair")?;
    Ok((Listener(parent), Reporter(child)))
}

impl Listener {
    /// Lets a child in [`Reporter::wait_go`] continue.
    pub(super) fn go(&self) -> Result<(), StartError> {
        fdpass::send(&self.0, &[GO], &[]).at(|| Stage::Clone, "send")
    }

    /// Waits for the child's execve: the console's master end, if it has sent one, or its error.
    pub(super) fn listen(self) -> Result<Option<OwnedFd>, StartError> {
        let mut console = None;
        let mut buffer = vec![0; MAX_REPORT];
        loop {
            let (length, mut fds) = fdpass::receive(&self.0, &mut buffer).at(|| Stage::Clone, "receive")?;
            match buffer[..length].split_first() {
                None => return Ok(console),
                Some((&CONSOLE, _)) => console = fds.pop(),
                Some((_, report)) => {
                    let lost = || StartError::new(Stage::Clone, 0, "malformed report of the container's init");
                    return Err(serde_json::from_slice(report).unwrap_or_else(|_| lost()));
                }
            }
        }
    }
}

impl Reporter {
    /// Waits until the parent says go on; fails if the parent is gone.
    pub(super) fn wait_go(&self) -> Result<(), StartError> {
        let (length, _) = fdpass::receive(&self.0, &mut [0]).at(|| Stage::UserMap, "receive")?;
        if length == 1 { Ok(()) } else { Err(StartError::new(Stage::UserMap, 0, "the monitor has gone")) }
    }

    pub(super) fn console(&self, master: BorrowedFd<'_>) -> Result<(), StartError> {
        fdpass::send(&self.0, &[CONSOLE], &[master]).at(|| Stage::Console, "send")
    }

    pub(super) fn error(&self, error: &StartError) {
        let mut error = error.clone();
        error.detail.truncate(error.detail.floor_char_boundary(MAX_REPORT / 8));
        let mut message = vec![ERROR];
        // JSON may blow every byte up to six; the detail is at most an eighth.
        if serde_json::to_writer(&mut message, &error).is_ok() && message.len() <= MAX_REPORT {
            let _ = fdpass::send(&self.0, &message, &[]);
        }
    }

    /// Whether the parent still lives, to be asked after `die_with_parent`: a parent that died before it is not noticed
    /// by the kernel.
    pub(super) fn parent_lives(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut fds = [PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::empty())];
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&now)).is_ok() && !fds[0].revents().contains(PollFlags::HUP)
    }
}
