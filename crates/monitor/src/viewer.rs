//! One attached client: its own socket, handed over by the daemon.
//!
//! The client gets a copy of the process's output, framed or raw, and may give input. Neither direction ever blocks: output
//! waits in the [`Backlog`]; input is read only while the process takes it. Ends: the process's output ends, the client
//! closes, the client's input ends where that is to end the attachment, the client detaches, or it takes nothing for so
//! long that it may no longer hold up the container.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use logs::Stream;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};

use crate::backlog::{Backlog, Room};
use crate::detach::{DetachKeys, Found};
use crate::input::Input;
use crate::proto::Attach;

/// A client with a full backlog that takes nothing for this long is dropped, so that the container can go on.
pub const STALLED: Duration = Duration::from_secs(10);
/// After the end of the output, a client may pause for this long (a pager on a terminal) before the rest is given up.
pub const PATIENCE: Duration = Duration::from_secs(600);
/// How long a client may take to close after everything has been sent.
const LINGER: Duration = Duration::from_secs(1);
/// Pieces written to one client in one round, so that no client keeps the loop busy.
const WRITES: usize = 16;

/// An attached client.
#[derive(Debug)]
pub struct Viewer {
    socket: OwnedFd,
    stdout: bool,
    stderr: bool,
    multiplex: bool,
    /// Takes nothing any more, though what it has sent before still counts.
    deaf: bool,
    detach: Option<DetachKeys>,
    input: Reading,
    backlog: Backlog,
    /// When the client last took something, or when it was last not behind.
    progress: Instant,
    phase: Phase,
}

/// What becomes of what the client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    ToProcess,
    Dropped,
    /// The client has closed its side.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// What waits is still sent, then the connection is shut down.
    Finishing,
    /// Shut down at this time; only the client's own close is awaited.
    Shut(Instant),
    Gone,
}

/// What a client's input leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputOutcome {
    Nothing,
    /// The client's input has ended, and that ends the process's input.
    EndInput,
    Detached,
}

/// How a session treats its clients' input.
#[derive(Clone, Copy, Debug)]
pub struct InputOptions {
    pub tty: bool,
    /// The end of a client's input is the end of the process's input, not of the attachment.
    pub once: bool,
}

impl Viewer {
    /// `input`: the process has an input to give to. `room`: for what the client has not taken yet.
    pub fn new(socket: OwnedFd, attach: Attach, (tty, input): (bool, bool), room: &Rc<Room>) -> Viewer {
        Viewer {
            socket,
            stdout: attach.stdout,
            stderr: attach.stderr,
            multiplex: attach.multiplex,
            deaf: false,
            detach: tty.then(|| DetachKeys::new(attach.detach_keys)),
            input: if attach.stdin && input { Reading::ToProcess } else { Reading::Dropped },
            backlog: Backlog::new(room),
            progress: Instant::now(),
            phase: Phase::Open,
        }
    }

    pub fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// The container's output has to wait.
    pub fn is_full(&self) -> bool {
        self.phase == Phase::Open && self.backlog.is_full()
    }

    /// What to poll for; `None` = not at all now. `input_blocked`: the process does not take input.
    pub fn interest(&self, input_blocked: bool) -> Option<PollFlags> {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::OUT, !self.backlog.is_empty());
        let reads = match self.input {
            Reading::ToProcess => !input_blocked,
            Reading::Dropped => true,
            Reading::Ended => false,
        };
        flags.set(PollFlags::IN, reads);
        // A client that has gone while its input waits would be reported again and again.
        if flags.is_empty() && input_blocked && self.input == Reading::ToProcess { None } else { Some(flags) }
    }

    /// Gives the client a piece of output.
    pub fn send(&mut self, stream: Stream, bytes: &[u8]) {
        let wanted = match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        };
        if !wanted || self.deaf || self.phase != Phase::Open {
            return;
        }
        let length = u32::try_from(bytes.len()).expect("a read is not longer than its buffer");
        let header = logs::frame_header(stream, length);
        let header: &[u8] = if self.multiplex { &header } else { &[] };
        let mut sent = 0;
        if self.backlog.is_empty() {
            self.progress = Instant::now();
            sent = self.sent(transmit(&self.socket, &[IoSlice::new(header), IoSlice::new(bytes)]));
        }
        if !self.deaf {
            let skip = sent.min(header.len());
            if skip < header.len() {
                self.backlog.push(&header[skip..]);
            }
            if sent - skip < bytes.len() {
                self.backlog.push(&bytes[sent - skip..]);
            }
        }
    }

    /// The socket takes bytes again.
    pub fn writable(&mut self) {
        for _ in 0..WRITES {
            let sent = transmit(&self.socket, &[IoSlice::new(self.backlog.front())]);
            let sent = self.sent(sent);
            if !self.deaf {
                self.backlog.consume(sent);
            }
            if sent > 0 {
                self.progress = Instant::now();
            }
            if sent == 0 || self.backlog.is_empty() {
                break;
            }
        }
        if self.backlog.is_empty() && self.phase == Phase::Finishing {
            self.shut();
        }
    }

    /// How many bytes the client has taken; after an error it takes none any more.
    fn sent(&mut self, outcome: Result<usize, Errno>) -> usize {
        match outcome {
            Ok(count) => count,
            Err(Errno::AGAIN) => 0,
            Err(_) => {
                self.deaf = true;
                self.backlog.clear();
                if self.input != Reading::ToProcess {
                    self.phase = Phase::Gone;
                }
                0
            }
        }
    }

    /// The socket has something, or an end, to read. `buffer` is scratch space.
    pub fn readable(&mut self, options: InputOptions, input: &mut Input, buffer: &mut [u8]) -> InputOutcome {
        let n = match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((n, _)) => n,
            Err(Errno::AGAIN | Errno::INTR) => return InputOutcome::Nothing,
            Err(_) => 0,
        };
        if n == 0 {
            return self.input_ended(options);
        }
        if self.input == Reading::ToProcess { self.give(&buffer[..n], input) } else { InputOutcome::Nothing }
    }

    /// Input of the client, also what it had sent before it was handed over.
    pub fn give(&mut self, bytes: &[u8], input: &mut Input) -> InputOutcome {
        if self.input != Reading::ToProcess {
            return InputOutcome::Nothing;
        }
        let Some(detach) = &mut self.detach else {
            input.push(bytes);
            return InputOutcome::Nothing;
        };
        let mut kept = Vec::with_capacity(bytes.len());
        let found = detach.filter(bytes, &mut kept);
        input.push(&kept);
        if found == Found::Detach {
            self.finish();
            return InputOutcome::Detached;
        }
        InputOutcome::Nothing
    }

    fn input_ended(&mut self, options: InputOptions) -> InputOutcome {
        let was = std::mem::replace(&mut self.input, Reading::Ended);
        if self.phase != Phase::Open {
            // Everything has been sent or given up: this was the client's close.
            self.phase = if self.backlog.is_empty() { Phase::Gone } else { self.phase };
        } else if was == Reading::ToProcess {
            if options.once && !options.tty {
                return InputOutcome::EndInput;
            }
            self.finish();
        }
        InputOutcome::Nothing
    }

    /// The other side is closed in both directions: nothing can be sent, and everything has been read.
    pub fn hung_up(&mut self) {
        self.phase = Phase::Gone;
    }

    /// Whether output still comes its way.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// No more output comes: sends what waits, then closes.
    pub fn finish(&mut self) {
        if self.phase != Phase::Open {
            return;
        }
        self.phase = Phase::Finishing;
        self.input = if self.input == Reading::Ended { Reading::Ended } else { Reading::Dropped };
        if self.backlog.is_empty() {
            self.shut();
        }
    }

    /// Ends our side only: closing a socket with unread input would reset the connection and could cost the client the
    /// last of the output.
    fn shut(&mut self) {
        let done = rustix::net::shutdown(&self.socket, Shutdown::Write);
        self.phase = match self.input {
            Reading::Ended => Phase::Gone,
            _ if done.is_err() => Phase::Gone,
            _ => Phase::Shut(Instant::now()),
        };
    }

    /// When [`Viewer::check`] has something to decide.
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Open if self.backlog.is_full() => Some(self.progress + STALLED),
            Phase::Open | Phase::Gone => None,
            Phase::Finishing => Some(self.progress + PATIENCE),
            Phase::Shut(since) => Some(since + LINGER),
        }
    }

    /// Drops the client if its time is over.
    pub fn check(&mut self, now: Instant) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.phase = Phase::Gone;
        }
    }
}

fn transmit(socket: &OwnedFd, pieces: &[IoSlice<'_>]) -> Result<usize, Errno> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    loop {
        match rustix::net::sendmsg(socket, pieces, &mut SendAncillaryBuffer::default(), flags) {
            Err(Errno::INTR) => {}
            outcome => return outcome,
        }
    }
}

impl AsFd for Viewer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
