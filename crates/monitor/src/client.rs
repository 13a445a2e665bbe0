//! The daemon's side: starting a monitor, connecting to a running one, messages to and from it.
//!
//! [`Client`] never blocks: the engine waits for its descriptor (tokio's `AsyncFd`) and retries on `WouldBlock`.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use crate::proto::{self, Event, Exec, Packet, Request, StartSpec};

/// How long a monitor may take to end that has no container.
const END_WAIT: Duration = Duration::from_secs(10);
/// The monitor's listening socket in the container's directory under the exec root.
pub const SOCKET: &str = "monitor.sock";
/// The exit record's usual name beside it.
pub const EXIT_RECORD: &str = "exit";

/// What a monitor's argument is as long as it has no container: a container's id takes its place.
pub const NO_ID: &CStr = c"----------------------------------------------------------------";

/// A control connection.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    /// The container's first process, once its monitor has passed it.
    init: OnceLock<Arc<OwnedFd>>,
}

/// The descriptors of a start.
#[derive(Debug)]
pub struct StartFds<'a> {
    /// From [`listen`].
    pub listener: BorrowedFd<'a>,
    /// The network namespace, if `spec.netns`.
    pub netns: Option<BorrowedFd<'a>>,
    /// One per `spec.joined`.
    pub joined: Vec<BorrowedFd<'a>>,
    /// As many as `spec.trees`.
    pub trees: Vec<BorrowedFd<'a>>,
    /// One per `spec.attach`.
    pub clients: Vec<BorrowedFd<'a>>,
}

/// A monitor without a container. It is a child of the daemon, which reaps it when `pidfd` becomes readable; it ends
/// when `client` is dropped.
#[derive(Debug)]
pub struct Spawned {
    pub client: Client,
    pub pid: i32,
    pub pidfd: OwnedFd,
}

/// Starts a monitor, which then waits for [`Client::start`]. `exe` is `sys::exe::sealed()`.
pub fn spawn(exe: BorrowedFd<'_>) -> io::Result<Spawned> {
    let (ours, theirs) = sys::fdpass::pair()?;
    let argv = [c"gantry-monitor".to_owned(), NO_ID.to_owned()];
    let child = sys::spawn::detached(exe, &argv, &[theirs.as_fd()])?;
    Ok(Spawned { client: Client::new(ours)?, pid: child.pid, pidfd: child.pidfd })
}

/// Ends a monitor that has no container, or could not start it, and reaps it.
pub fn end(spawned: Spawned) {
    // It ends by itself when its line closes.
    drop(spawned.client);
    let timeout = rustix::event::Timespec { tv_sec: END_WAIT.as_secs() as i64, tv_nsec: 0 };
    let mut fds = [PollFd::new(&spawned.pidfd, PollFlags::IN)];
    if poll(&mut fds, Some(&timeout)).unwrap_or(0) == 0 {
        // It may have ended in between: as wished.
        let _ = rustix::process::pidfd_send_signal(&spawned.pidfd, rustix::process::Signal::KILL);
    }
    let id = rustix::process::WaitId::PidFd(spawned.pidfd.as_fd());
    // One that cannot be waited for is not this process's child.
    let _ = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED);
}

/// Kills a container that is not wanted any more and waits, for a bounded time, until its monitor has put away what it
/// had; the monitor may end then.
pub fn end_container(client: &Client) {
    let kill = Request::Signal { exec: None, signal: 9, scope: runtime::Scope::All };
    if client.send(1, &kill, &[]).is_err() {
        return;
    }
    let deadline = std::time::Instant::now() + END_WAIT;
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let timeout = rustix::event::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut fds = [PollFd::new(client, PollFlags::IN)];
        if left.is_zero() || matches!(poll(&mut fds, Some(&timeout)), Ok(0)) {
            return;
        }
        match client.receive() {
            Ok(Some(packet)) if matches!(packet.body, Event::Exited { exec: None, .. }) => break,
            Ok(Some(_)) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Ok(None) | Err(_) => return,
        }
    }
    // It then ends with its line at the latest.
    let _ = client.send(2, &Request::Release, &[]);
}

/// The socket on which the monitor of the container whose directory under the exec root is `dir` (it must exist) will
/// listen for the daemons to come.
pub fn listen(dir: &Path) -> io::Result<OwnedFd> {
    let at = File::open(dir)?;
    match std::fs::remove_file(dir.join(SOCKET)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    sys::fdpass::listen_in(at.as_fd(), SOCKET)
}

impl Client {
    /// Over a connected SEQPACKET socket.
    pub fn new(socket: OwnedFd) -> io::Result<Client> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Client { socket, init: OnceLock::new() })
    }

    /// To the running monitor of the container whose directory is `dir`. `ConnectionRefused` or `NotFound`: there is none.
    /// The first event is `Hello`.
    pub fn connect(dir: &Path) -> io::Result<Client> {
        let at = File::open(dir)?;
        Client::new(sys::fdpass::connect_in(at.as_fd(), SOCKET)?)
    }

    /// Sends one request with its descriptors; `WouldBlock` when the monitor does not keep up.
    pub fn send(&self, seq: u32, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let packet = proto::encode(seq, request);
        if packet.len() > proto::MAX_PACKET {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "request larger than a packet"));
        }
        sys::fdpass::send(&self.socket, &packet, fds)
    }

    /// As [`Client::send`], but waits until `deadline` for a monitor that does not keep up; `TimedOut` after it.
    pub fn send_by(&self, deadline: Instant, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        loop {
            match self.send(0, request, fds) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
                other => return other,
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let timeout = rustix::event::Timespec::try_from(left).ok();
            let mut fds = [PollFd::new(&self.socket, PollFlags::OUT)];
            match rustix::event::poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => (),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Sends [`Request::Start`].
    pub fn start(&self, seq: u32, spec: &StartSpec, fds: &StartFds<'_>) -> io::Result<()> {
        let bytes = postcard::to_stdvec(spec).map_err(io::Error::other)?;
        let memory = memfd(&bytes)?;
        let mut all = vec![memory.as_fd(), fds.listener];
        all.extend(fds.netns);
        all.extend_from_slice(&fds.joined);
        all.extend_from_slice(&fds.trees);
        all.extend_from_slice(&fds.clients);
        self.send(seq, &Request::Start, &all)
    }

    /// Sends [`Request::Exec`]; `client` if `exec.attach`.
    pub fn exec(
        &self,
        seq: u32,
        exec: Exec,
        process: &runtime::oci::Process,
        client: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let memory = memfd(&serde_json::to_vec(process)?)?;
        let mut fds = vec![memory.as_fd()];
        fds.extend(client);
        self.send(seq, &Request::Exec(exec), &fds)
    }

    /// The next event; `None` when the monitor has ended or closed the connection, `WouldBlock` when there is none yet.
    pub fn receive(&self) -> io::Result<Option<Packet<Event>>> {
        let mut buffer = vec![0; proto::MAX_PACKET];
        let (n, fds) = match sys::fdpass::receive(&self.socket, &mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            other => other?,
        };
        if n == 0 {
            return Ok(None);
        }
        let understood = proto::decode(&buffer[..n]);
        let packet = understood.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "event not understood"))?;
        if let (Event::Hello(_) | Event::Started { exec: None, .. }, Some(init)) =
            (&packet.body, fds.into_iter().next())
        {
            let _ = self.init.set(Arc::new(init));
        }
        Ok(Some(packet))
    }

    /// The pidfd of the container's first process, from its parent; `None`: it does not run yet, or its monitor is one of an
    /// earlier version.
    pub fn init(&self) -> Option<Arc<OwnedFd>> {
        self.init.get().cloned()
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Client {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn memfd(bytes: &[u8]) -> io::Result<OwnedFd> {
    if bytes.len() > proto::MAX_SPEC {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "start specification too large"));
    }
    let fd = rustix::fs::memfd_create("gantry-spec", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(fd);
    io::Write::write_all(&mut file, bytes)?;
    Ok(file.into())
}
