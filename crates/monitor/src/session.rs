//! One process with its streams and clients: the container's first process, or one of an exec.
//!
//! Output is read once and given to the log and to every client. A session ends when its process has been reaped and its
//! output has ended, or [`DRAIN`] later: a grandchild may hold the pipe open for ever. What the process itself had written
//! is read in any case.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use logs::{Sink, Stream};
use runtime::Process;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::backlog::Room;
use crate::counted::Logged;
use crate::input::Input;
use crate::probe::Probe;
use crate::proto::{Attach, Exit, Probed};
use crate::viewer::{InputOptions, InputOutcome, Viewer};

/// How long output is still awaited after the process has ended.
pub const DRAIN: Duration = Duration::from_secs(2);
/// A process that has closed its outputs usually ends at once, on a busy machine somewhat later: its clients are kept for
/// so long, to be closed after its end was told. One that goes on without outputs lets them go then.
const FAREWELL: Duration = Duration::from_secs(2);
/// A read of so many bytes is taken for a part of a flood: more is there, or about to be.
const FLOOD: usize = 16 * 1024;
/// Clients of one session.
const MAX_VIEWERS: usize = 256;
/// The code of a process whose real one nobody can tell.
const EXIT_UNKNOWN: i32 = 255;

/// A process, its streams, its clients.
#[derive(Debug)]
pub struct Session {
    /// The exec's id; `None` = the container.
    pub exec: Option<String>,
    pub process: Process,
    pub log: Option<Box<dyn Sink>>,
    /// Bytes that were given to it.
    log_bytes: u64,
    /// It is one of a health check.
    pub probe: Option<Probe>,
    options: InputOptions,
    input: Input,
    /// The container has a standard input at all.
    has_input: bool,
    outputs: Vec<Output>,
    /// The present round has read a part of a flood.
    floods: bool,
    viewers: Vec<Viewer>,
    /// Since when there is no output any more.
    silent: Option<Instant>,
    ended: Option<Ended>,
}

/// Our end of one output; a terminal's master is also the input's.
#[derive(Debug)]
struct Output {
    stream: Stream,
    from: Rc<OwnedFd>,
    /// Bytes of a process that has ended, and of others before that, which are still to be read.
    left: u64,
}

impl Output {
    fn new(stream: Stream, from: Rc<OwnedFd>) -> Output {
        Output { stream, from, left: 0 }
    }
}

#[derive(Debug)]
struct Ended {
    exit: Exit,
    /// Output that has not ended by then is given up.
    deadline: Instant,
    reported: bool,
}

/// Our ends of a process's streams.
#[derive(Debug, Default)]
pub struct Streams {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// A part of a session that is polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Process,
    Input,
    Output(Stream),
    Viewer(usize),
}

/// What is new in a session after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    Nothing,
    Detached,
}

impl Session {
    /// Around a process that has just been started. `once`: see [`InputOptions`].
    pub fn new(exec: Option<String>, mut process: Process, streams: Streams, once: bool) -> Session {
        let console = process.console.take().map(Rc::new);
        let tty = console.is_some();
        let stdin = console.clone().or(streams.stdin.map(Rc::new));
        let stdout = console.or(streams.stdout.map(Rc::new));
        let mut outputs = Vec::new();
        outputs.extend(stdout.map(|from| Output::new(Stream::Stdout, from)));
        outputs.extend(streams.stderr.map(|from| Output::new(Stream::Stderr, Rc::new(from))));
        for fd in outputs.iter().map(|output| &output.from).chain(&stdin) {
            // A failure would be a kernel without pipes.
            let _ = rustix::io::ioctl_fionbio(fd, true);
        }
        Session {
            exec,
            process,
            log: None,
            log_bytes: 0,
            probe: None,
            options: InputOptions { tty, once },
            has_input: stdin.is_some(),
            input: Input::new(stdin),
            outputs,
            floods: false,
            viewers: Vec::new(),
            silent: None,
            ended: None,
        }
    }

    /// Without an input, terminals included: what clients send is dropped.
    pub fn without_input(mut self) -> Session {
        self.has_input = false;
        self.input.close();
        self
    }

    pub fn tty(&self) -> bool {
        self.options.tty
    }

    /// Its terminal, to be resized.
    pub fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.outputs.first().filter(|_| self.options.tty).map(|output| output.from.as_fd())
    }

    /// How it ended, once it has.
    pub fn exit(&self) -> Option<&Exit> {
        self.ended.as_ref().map(|ended| &ended.exit)
    }

    /// Connects a client. `None`: there are too many. `room`: where its backlog goes.
    pub fn attach(&mut self, socket: OwnedFd, mut attach: Attach, room: &Rc<Room>) -> Option<News> {
        if self.viewers.len() >= MAX_VIEWERS {
            return None;
        }
        let prefix = std::mem::take(&mut attach.prefix);
        let mut viewer = Viewer::new(socket, attach, (self.options.tty, self.has_input), room);
        let outcome = viewer.give(&prefix, &mut self.input);
        if self.ended.as_ref().is_some_and(|ended| ended.reported) {
            viewer.finish();
        }
        self.viewers.push(viewer);
        Some(self.after_input(outcome))
    }

    fn after_input(&mut self, outcome: InputOutcome) -> News {
        match outcome {
            InputOutcome::Nothing => News::Nothing,
            InputOutcome::Detached => News::Detached,
            InputOutcome::EndInput => {
                self.input.end();
                News::Nothing
            }
        }
    }

    /// Everything of it that is to be polled now.
    pub fn interests<'a>(&'a self, mut add: impl FnMut(Part, BorrowedFd<'a>, PollFlags)) {
        if self.ended.is_none() {
            add(Part::Process, self.process.pidfd.as_fd(), PollFlags::IN);
        }
        if let Some(fd) = self.input.pollable() {
            add(Part::Input, fd, PollFlags::OUT);
        }
        // What a dead process has left in its pipes is little and is taken in any case.
        if self.ended.is_some() || !self.viewers.iter().any(Viewer::is_full) {
            for output in &self.outputs {
                add(Part::Output(output.stream), output.from.as_fd(), PollFlags::IN);
            }
        }
        for (index, viewer) in self.viewers.iter().enumerate() {
            if let Some(flags) = viewer.interest(self.input.is_blocked()) {
                add(Part::Viewer(index), viewer.as_fd(), flags);
            }
        }
    }

    /// Deals with what poll found.
    pub fn handle(&mut self, part: Part, events: PollFlags, buffer: &mut [u8]) -> News {
        match part {
            Part::Process => self.reap(),
            Part::Input => self.input.flush(),
            Part::Output(stream) => self.read_output(stream, buffer),
            Part::Viewer(index) => return self.handle_viewer(index, events, buffer),
        }
        News::Nothing
    }

    fn handle_viewer(&mut self, index: usize, events: PollFlags, buffer: &mut [u8]) -> News {
        let viewer = &mut self.viewers[index];
        if events.contains(PollFlags::OUT) {
            viewer.writable();
        }
        if events.contains(PollFlags::IN) {
            let outcome = viewer.readable(self.options, &mut self.input, buffer);
            return self.after_input(outcome);
        }
        if events.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            viewer.hung_up();
        }
        News::Nothing
    }

    /// One read, so that one busy stream does not starve the rest.
    fn read_output(&mut self, stream: Stream, buffer: &mut [u8]) {
        let Some(output) = self.outputs.iter_mut().find(|output| output.stream == stream) else { return };
        match rustix::io::read(&output.from, &mut *buffer) {
            Ok(n) if n > 0 => {
                output.left = output.left.saturating_sub(n as u64);
                self.floods |= n >= FLOOD;
                let bytes = &buffer[..n];
                if let Some(log) = &mut self.log {
                    log.write(stream, bytes);
                    self.log_bytes += n as u64;
                }
                if let Some(probe) = &mut self.probe {
                    probe.take(bytes);
                }
                for viewer in &mut self.viewers {
                    viewer.send(stream, bytes);
                }
            }
            Err(Errno::INTR) => {}
            // A terminal may count what it has dropped since.
            Err(Errno::AGAIN) => output.left = 0,
            // End of file; of a terminal that is EIO.
            _ => self.close_output(stream),
        }
    }

    fn close_output(&mut self, stream: Stream) {
        self.outputs.retain(|output| output.stream != stream);
        if let Some(log) = &mut self.log {
            log.finish(stream);
        }
        if self.outputs.is_empty() {
            self.silent.get_or_insert_with(Instant::now);
        }
    }

    /// Sends the clients what waits for them, then closes. For a session that ends this comes after its end was told: a
    /// client that sees the end of its stream can ask for the exit code at once.
    pub fn finish(&mut self) {
        self.viewers.iter_mut().for_each(Viewer::finish);
    }

    /// Collects the process's exit status.
    fn reap(&mut self) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = match waitid(WaitId::PidFd(self.process.pidfd.as_fd()), options) {
            Ok(None) | Err(Errno::INTR) => return,
            Ok(Some(status)) => Some(status),
            Err(_) => None,
        };
        let code = status.as_ref().and_then(|s| s.exit_status());
        let signal = status.as_ref().and_then(|s| s.terminating_signal());
        self.has_ended(code, signal);
    }

    /// The process has been reaped: its exit code, or the signal that killed it.
    pub fn has_ended(&mut self, code: Option<i32>, signal: Option<i32>) {
        const SIGNALLED: i32 = 128;
        let known = code.or(signal.map(|n| SIGNALLED + n));
        let exit = Exit {
            code: known.unwrap_or(EXIT_UNKNOWN),
            signal,
            at: crate::now(),
            error: if known.is_none() { "the exit status was lost".into() } else { String::new() },
            oom: false,
        };
        for output in &mut self.outputs {
            output.left = rustix::io::ioctl_fionread(&output.from).unwrap_or(0);
        }
        self.ended = Some(Ended { exit, deadline: Instant::now() + DRAIN, reported: false });
        self.input.close();
    }

    /// Figures of the log.
    pub fn logged(&self) -> Logged {
        Logged { bytes: self.log_bytes, dropped: self.log.as_ref().map_or(0, |log| log.dropped()) }
    }

    /// Writes the log; to be called after each round. In a flood the log writes by itself what fills a block; the rest is left
    /// for the next round, which comes soon.
    pub fn flush(&mut self) {
        let floods = std::mem::take(&mut self.floods);
        if let Some(log) = self.log.as_mut().filter(|_| !floods) {
            log.flush();
        }
    }

    /// Lets go of clients that are done or out of time; gives up output that takes too long. Returns the exit, once, when
    /// the process has ended and all its output has been dealt with.
    pub fn check_end(&mut self, now: Instant) -> Option<Exit> {
        for viewer in &mut self.viewers {
            viewer.check(now);
        }
        self.viewers.retain(|viewer| !viewer.is_gone());
        if self.ended.is_none() && self.silent.is_some_and(|since| since + FAREWELL <= now) {
            self.finish();
        }
        let ended = self.ended.as_ref().filter(|ended| !ended.reported)?;
        let is_read = self.outputs.iter().all(|output| output.left == 0);
        if self.outputs.is_empty() || ended.deadline <= now && is_read {
            return self.end();
        }
        None
    }

    /// Kills a probe that is late; the result of one that does not die.
    pub fn check_probe(&mut self, now: Instant) -> Option<Probed> {
        if self.ended.is_some() {
            return None;
        }
        self.probe.as_mut()?.check(self.exec.as_deref()?, &self.process, now)
    }

    /// Kills a probe whose result nobody wants; `false`: it is none.
    pub fn give_up_probe(&mut self) -> bool {
        if let Some(probe) = &mut self.probe {
            probe.give_up(&self.process);
        }
        self.probe.is_some()
    }

    fn end(&mut self) -> Option<Exit> {
        while let Some(output) = self.outputs.first() {
            self.close_output(output.stream);
        }
        self.floods = false;
        self.flush();
        let ended = self.ended.as_mut()?;
        ended.reported = true;
        Some(ended.exit.clone())
    }

    /// The process has ended, that has been told, and no client is left.
    pub fn is_over(&self) -> bool {
        self.viewers.is_empty() && self.ended.as_ref().is_some_and(|ended| ended.reported)
    }

    /// When [`Session::check_end`] has something to decide.
    pub fn deadline(&self) -> Option<Instant> {
        let drain = self.ended.as_ref().filter(|ended| !ended.reported).map(|ended| ended.deadline);
        let farewell = self.silent.filter(|_| self.ended.is_none() && self.viewers.iter().any(Viewer::is_open));
        let farewell = farewell.map(|since| since + FAREWELL);
        let probe = self.probe.as_ref().filter(|_| self.ended.is_none()).and_then(Probe::deadline);
        self.viewers.iter().filter_map(Viewer::deadline).chain(drain).chain(farewell).chain(probe).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A monitor that gets no processor for a while meets the deadline before it has read anything.
    #[test]
    fn what_a_dead_process_has_written_is_read_however_late() {
        let (output, held_by_a_grandchild) = std::io::pipe().expect("pipe");
        let mut echo = std::process::Command::new("echo");
        let written_to = held_by_a_grandchild.try_clone().expect("a descriptor");
        let mut child = echo.arg("all").stdout(written_to).spawn().expect("echo");
        let pid = child.id() as i32;
        let pidfd = rustix::process::Pid::from_raw(pid).expect("a pid");
        let pidfd = rustix::process::pidfd_open(pidfd, rustix::process::PidfdFlags::empty()).expect("pidfd");
        let process = Process::new(pid, pidfd, None);
        let streams = Streams { stdout: Some(output.into()), ..Streams::default() };
        let mut session = Session::new(None, process, streams, false);
        child.wait().expect("the end");
        session.has_ended(Some(0), None);
        let late = Instant::now() + 2 * DRAIN;
        assert_eq!(session.check_end(late), None);
        session.handle(Part::Output(Stream::Stdout), PollFlags::IN, &mut [0; 3]);
        assert_eq!(session.check_end(late), None, "one byte is left");
        session.handle(Part::Output(Stream::Stdout), PollFlags::IN, &mut [0; 3]);
        assert_eq!(session.check_end(late).map(|exit| exit.code), Some(0));
        drop(held_by_a_grandchild);
    }
}
