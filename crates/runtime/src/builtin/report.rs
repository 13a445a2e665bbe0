//! The channel between a child that is becoming a container's process and its parent.
//!
//! A pair of SEQPACKET sockets, close-on-exec. Child to parent: at most one set of descriptors, at most one error; then
//! the execve (or death) closes it, and that is the news the parent waits for. Parent to child: "go on", once the parent has
//! done its part (id maps, cgroup).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use sys::fdpass;

use crate::error::{At, Stage, StartError};

const KEEP: u8 = b'K';
const ERROR: u8 = b'E';
const GO: u8 = b'G';
/// Bytes of a report; an error's texts are cut to fit.
const MAX_REPORT: usize = 16 * 1024;

/// The parent's end.
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

pub(super) fn pair() -> Result<(Listener, Reporter), StartError> {
    let (parent, child) = fdpass::pair().at(|| Stage::Clone, "socketpair")?;
    Ok((Listener(parent), Reporter(child)))
}

impl Listener {
    /// Lets a child in [`Reporter::wait_go`] continue. A child that has ended has left word why.
    pub(super) fn go(&self) {
        let _ = fdpass::send(&self.0, &[GO], &[]);
    }

    /// Waits for the child's execve: what it has sent, or its error.
    pub(super) fn listen(self) -> Result<Kept, StartError> {
        let mut kept = Kept::default();
        let mut buffer = vec![0; MAX_REPORT];
        loop {
            let received = match fdpass::receive(&self.0, &mut buffer) {
                // The child has ended without reading its "go on"; what it has said before is still there.
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => continue,
                other => other,
            };
            let (length, mut fds) = received.at(|| Stage::Clone, "receive")?;
            match buffer[..length].split_first() {
                None => return Ok(kept),
                // In the order of `Reporter::keep`, the console first.
                Some((&KEEP, [console, root])) => {
                    kept.root = if *root == 1 { fds.pop() } else { None };
                    kept.console = if *console == 1 { fds.pop() } else { None };
                }
                Some((_, report)) => {
                    let lost = || StartError::new(Stage::Clone, 0, "malformed report of the container's init");
                    return Err(serde_json::from_slice(report).unwrap_or_else(|_| lost()));
                }
            }
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
