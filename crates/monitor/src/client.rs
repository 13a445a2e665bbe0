//! The daemon's side: starting a monitor, connecting to a running one, messages to and from it.
//!
//! [`Client`] never blocks: the engine waits for its descriptor (tokio's `AsyncFd`) and retries on `WouldBlock`.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use crate::proto::{self, Event, Exec, Packet, Request, StartSpec};

/// The monitor's listening socket in the container's directory under the exec root.
pub const SOCKET: &str = "monitor.sock";
/// The exit record's usual name beside it.
pub const EXIT_RECORD: &str = "exit";

/// A control connection.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
}

/// A monitor that has just been started. It is a child of the daemon, which reaps it when `pidfd` becomes readable.
#[derive(Debug)]
pub struct Spawned {
    pub client: Client,
    pub pid: i32,
    pub pidfd: OwnedFd,
}

/// Starts a monitor for the container whose directory under the exec root is `dir` (it must exist; the socket is made
/// there). `exe` is `sys::exe::sealed()`.
pub fn spawn(exe: BorrowedFd<'_>, dir: &Path, id: &str) -> io::Result<Spawned> {
    let at = File::open(dir)?;
    remove_stale_socket(dir)?;
    let listener = sys::fdpass::listen_in(at.as_fd(), SOCKET)?;
    let (ours, theirs) = sys::fdpass::pair()?;
    let id = CString::new(id).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let argv = [c"gantry-monitor".to_owned(), id];
    let child = sys::spawn::detached(exe, &argv, &[theirs.as_fd(), listener.as_fd()])?;
    Ok(Spawned { client: Client::new(ours)?, pid: child.pid, pidfd: child.pidfd })
}

fn remove_stale_socket(dir: &Path) -> io::Result<()> {
    match std::fs::remove_file(dir.join(SOCKET)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

impl Client {
    /// Over a connected SEQPACKET socket.
    pub fn new(socket: OwnedFd) -> io::Result<Client> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Client { socket })
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

    /// Sends [`Request::Start`]: `netns` if `spec.netns`, `clients` one per `spec.attach`.
    pub fn start(
        &self,
        seq: u32,
        spec: &StartSpec,
        netns: Option<BorrowedFd<'_>>,
        clients: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let bytes = postcard::to_stdvec(spec).map_err(io::Error::other)?;
        let memory = memfd(&bytes)?;
        let mut fds = vec![memory.as_fd()];
        fds.extend(netns);
        fds.extend_from_slice(clients);
        self.send(seq, &Request::Start, &fds)
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
        let (n, _fds) = match sys::fdpass::receive(&self.socket, &mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            other => other?,
        };
        if n == 0 {
            return Ok(None);
        }
        let understood = proto::decode(&buffer[..n]);
        understood.map(Some).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "event not understood"))
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
