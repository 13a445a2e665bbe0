//! The line to a monitor, and the probe that finds out what became of a container.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::{Context, Error, Result};
use monitor::client::{self, Client};
use monitor::proto::{Event, Exit, Packet, Request, State};
use runtime::Scope;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How long a monitor may take to say hello to a new daemon.
const HELLO_WAIT: Duration = Duration::from_secs(5);
/// How long a container may take to end that nobody wants.
const END_WAIT: Duration = Duration::from_secs(15);
/// How long a request may wait for a full socket.
const SEND_WAIT: Duration = Duration::from_secs(5);

/// Bytes of a record of an end at most.
const EXIT_RECORD_BYTES: u64 = 64 << 10;

/// A control connection, driven by the async runtime.
pub struct Link {
    client: AsyncFd<Client>,
    next: u32,
}

/// What became of a container since the last daemon.
pub enum Probe {
    /// Its monitor lives and told its state.
    Connected(Link, Box<State>),
    /// Its monitor lives and has not told its state in time: it waits for a disk, or is stopped.
    Silent(Link),
    /// It ended and left its record.
    Ended(Exit),
    /// Its monitor was killed.
    Killed,
    /// There is not even a run directory: it did not run, or the machine was booted anew.
    Gone,
}

impl Link {
    /// Registers the connection with the async runtime.
    pub fn new(client: Client) -> io::Result<Link> {
        Ok(Link { client: register(client, Interest::READABLE | Interest::WRITABLE)?, next: 1 })
    }

    /// Sends a request; the number of its answer.
    pub async fn send(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<u32> {
        let seq = self.number();
        let send = self.client.async_io(Interest::WRITABLE, |client| client.send(seq, request, fds));
        delivered(tokio::time::timeout(SEND_WAIT, send).await)?;
        Ok(seq)
    }

    /// Sends an exec with its process; the number of its answer.
    pub async fn exec(
        &mut self,
        exec: &monitor::proto::Exec,
        process: &runtime::oci::Process,
        socket: Option<&OwnedFd>,
    ) -> Result<u32> {
        let seq = self.number();
        let socket = socket.map(AsFd::as_fd);
        let send = self.client.async_io(Interest::WRITABLE, |client| client.exec(seq, exec.clone(), process, socket));
        delivered(tokio::time::timeout(SEND_WAIT, send).await)?;
        Ok(seq)
    }

    /// The next event; `None` when the monitor is gone. Cancel-safe.
    pub async fn receive(&self) -> Option<Packet<Event>> {
        loop {
            match self.client.async_io(Interest::READABLE, Client::receive).await {
                Ok(packet) => return packet,
                // A message of a newer monitor that this daemon does not know.
                Err(e) if e.kind() == io::ErrorKind::InvalidData => continue,
                Err(_) => return None,
            }
        }
    }

    /// The pidfd of the container's first process, if its monitor has passed it.
    pub fn init(&self) -> Option<Arc<OwnedFd>> {
        self.client.get_ref().init()
    }

    /// An event that has arrived already, without waiting for one.
    pub fn already_there(&self) -> Option<Packet<Event>> {
        self.client.get_ref().receive().ok().flatten()
    }

    /// Numbers are never 0: that stands for events that answer nothing.
    fn number(&mut self) -> u32 {
        let seq = self.next;
        self.next = self.next.checked_add(1).unwrap_or(1);
        seq
    }
}

/// Registers a descriptor that its wrapper owns.
#[expect(deprecated, reason = "the successor is unsafe for wrappers that change their descriptor; these own theirs")]
pub fn register<T: AsRawFd>(owner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(owner, interest)
}

fn delivered(outcome: Result<io::Result<()>, tokio::time::error::Elapsed>) -> Result<()> {
    match outcome {
        Ok(sent) => sent.context("speaking to the container's monitor"),
        Err(_) => Err(Error::unavailable("the container's monitor does not answer")),
    }
}

/// Finds out what became of the container whose directory under the exec root is `dir`.
#[expect(clippy::disallowed_methods, reason = "the exec root and /proc, which are in memory")]
pub async fn probe(dir: &Path) -> Probe {
    if let Ok(link) = Client::connect(dir).and_then(Link::new) {
        match tokio::time::timeout(HELLO_WAIT, link.receive()).await {
            Ok(Some(Packet { body: Event::Hello(state), .. })) => return Probe::Connected(link, Box::new(state)),
            // It ended meanwhile.
            Ok(_) => {}
            Err(_) => return Probe::Silent(link),
        }
    }
    match exit_record(dir) {
        Some(exit) => Probe::Ended(exit),
        None if dir.exists() => Probe::Killed,
        None => Probe::Gone,
    }
}

/// Ends the container of a monitor, and with it the monitor; `false` when that did not work in time.
///
/// What the last daemon has asked for is done before what this one asks for: a start that was under way has happened, or
/// never will, when the monitor answers.
pub async fn end(mut link: Link) -> bool {
    let kill = Request::Signal { exec: None, signal: 9, scope: Scope::All };
    let ending = async {
        drop(link.send(&Request::Freeze { frozen: false, passing: false }, &[]).await);
        let killed = link.send(&kill, &[]).await?;
        loop {
            match link.receive().await {
                Some(Packet { body: Event::Exited { exec: None, .. }, .. }) | None => break,
                // There is no container (any more).
                Some(Packet { seq, body: Event::Done { refused: Some(_) } }) if seq == killed => break,
                Some(_) => {}
            }
        }
        link.send(&Request::Release, &[]).await
    };
    tokio::time::timeout(END_WAIT, ending).await.is_ok()
}

/// Kills the monitor of this container if one is left. It is known by its arguments, and by living where this daemon
/// does: a program in a container can call itself what it likes.
#[expect(clippy::disallowed_methods, reason = "the exec root and /proc, which are in memory")]
pub fn kill_monitor(id: &str) {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for pid in numbers.filter(|pid| is_monitor(*pid, id)) {
        signal_monitor(pid, id, Signal::KILL);
    }
}

/// Whether a process is the monitor of this container.
fn is_monitor(pid: i32, id: &str) -> bool {
    let wanted = format!("gantry-monitor\0{id}\0");
    let own = std::fs::read_link("/proc/self/ns/pid").ok();
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == wanted.as_bytes())
        && std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok() == own
}

/// Sends a signal to a monitor; false: this process is none of this container.
pub fn signal_monitor(pid: i32, id: &str, signal: Signal) -> bool {
    let handle = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    // The number may have gone to another process before it was held.
    handle.is_some_and(|handle| is_monitor(pid, id) && pidfd_send_signal(&handle, signal).is_ok())
}

/// The record a monitor left at its container's end. One that cannot be read is told of: the end is known, its code is not.
pub fn exit_record(dir: &Path) -> Option<Exit> {
    let told = |error: &io::Error| tracing::warn!(dir = %dir.display(), %error, "reading how a container ended");
    read_exit_record(dir).inspect_err(told).ok().flatten()
}

/// The same; `None`: there is none.
pub fn read_exit_record(dir: &Path) -> io::Result<Option<Exit>> {
    match sys::file::read_small(&dir.join(client::EXIT_RECORD), EXIT_RECORD_BYTES) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        other => Ok(Some(serde_json::from_slice(&other?)?)),
    }
}

/// Reaps a monitor when it ends. Monitors of an earlier daemon belong to the system's init.
pub fn reap(pidfd: OwnedFd) {
    let Ok(pidfd) = register(pidfd, Interest::READABLE) else {
        return;
    };
    tokio::spawn(async move {
        // Readable once, at the end; there is nothing to do about an error.
        drop(pidfd.readable().await);
        let id = rustix::process::WaitId::PidFd(pidfd.as_fd());
        let _ = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED);
    });
}
