//! SOCK_SEQPACKET sockets that carry messages together with descriptors.
//!
//! One message is one packet: never split, never joined. A message that does not fit the receiver's buffer, or that brings
//! more than [`MAX_FDS`] descriptors, is an error, not a truncation. Received descriptors are close-on-exec.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// Descriptors in one message: as many as the kernel takes (`SCM_MAX_FD`, unix(7)).
pub const MAX_FDS: usize = 253;
/// Descriptors that [`Parked`] takes in one place of its owner's.
pub const PARKED_FDS: usize = 64;
const BACKLOG: i32 = 16;

/// A connected pair, close-on-exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// A listening socket `name` in the directory `dir`, whose path may be longer than a socket address holds.
pub fn listen_in(dir: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let socket = socket()?;
    rustix::net::bind(&socket, &address_in(dir, name)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// A connection to the listening socket `name` in the directory `dir`.
pub fn connect_in(dir: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let socket = socket()?;
    rustix::net::connect(&socket, &address_in(dir, name)?)?;
    Ok(socket)
}

/// The next connection, close-on-exec.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::net::accept_with(listener, SocketFlags::CLOEXEC)?)
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

fn address_in(dir: BorrowedFd<'_>, name: &str) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))?)
}

/// Sends one message. `WouldBlock` on a non-blocking socket whose queue is full; never raises SIGPIPE.
pub fn send(socket: impl AsFd, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && (fds.len() > MAX_FDS || !control.push(SendAncillaryMessage::ScmRights(fds))) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    loop {
        match rustix::net::sendmsg(&socket, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL) {
            Ok(n) if n == message.len() => return Ok(()),
            Ok(_) => return Err(io::Error::from(io::ErrorKind::WriteZero)),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Receives one message into `buffer`: its length and its descriptors; length 0 = the other side has closed.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    receive_with(socket, buffer, RecvFlags::empty())
}

fn receive_with(socket: impl AsFd, buffer: &mut [u8], how: RecvFlags) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        let flags = how | RecvFlags::CMSG_CLOEXEC;
        match rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message larger than the buffer"));
    }
    Ok((got.bytes, fds))
}

/// Up to [`PARKED_FDS`] descriptors that lie in the queue of a socket: what they refer to stays open, and takes one place in the
/// process's table (`RLIMIT_NOFILE`) instead of many. An epoll instance goes on watching them.
#[derive(Debug)]
pub struct Parked {
    queue: OwnedFd,
}

impl Parked {
    /// Puts copies of `fds` into a queue of their own.
    pub fn new(fds: &[BorrowedFd<'_>]) -> io::Result<Parked> {
        let (near, queue) = pair()?;
        send(&near, &[0], fds)?;
        Ok(Parked { queue })
    }

    /// Copies of all of them, in their order; they stay parked.
    pub fn copies(&self) -> io::Result<Vec<OwnedFd>> {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        receive_with(&self.queue, &mut [0], flags).map(|(_, fds)| fds)
    }
}

impl From<OwnedFd> for Parked {
    /// From the descriptor of another's queue.
    fn from(queue: OwnedFd) -> Parked {
        Parked { queue }
    }
}

impl AsFd for Parked {
    /// The queue.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

/// Bytes written to the socket that its peer has not read or acknowledged yet (`SIOCOUTQ`).
pub fn unsent(socket: impl AsFd) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (= TIOCOUTQ) stores one int.
    let r = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if r == 0 { Ok(usize::try_from(count).unwrap_or(0)) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parked_descriptors_stay_open_and_watched() {
        let (a, b) = pair().unwrap();
        let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap();
        let parked = Parked::new(&[a.as_fd(), b.as_fd()]).unwrap();
        drop((a, b));
        let copies = parked.copies().unwrap();
        let data = rustix::event::epoll::EventData::new_u64(7);
        rustix::event::epoll::add(&epoll, &copies[1], data, rustix::event::epoll::EventFlags::IN).unwrap();
        drop(copies);
        send(&parked.copies().unwrap()[0], b"one", &[]).unwrap();
        let mut events = Vec::with_capacity(4);
        let space = rustix::buffer::spare_capacity(&mut events);
        assert_eq!(rustix::event::epoll::wait(&epoll, space, None).unwrap(), 1);
        assert_eq!(events[0].data.u64(), 7);
        let mut buffer = [0; 16];
        assert_eq!(receive(&parked.copies().unwrap()[1], &mut buffer).unwrap().0, 3);
    }

    #[test]
    fn message_and_descriptors_travel_together() {
        let (a, b) = pair().unwrap();
        let (c, d) = pair().unwrap();
        send(&a, b"one", &[c.as_fd(), d.as_fd()]).unwrap();
        send(&a, b"two", &[]).unwrap();
        let mut buffer = [0; 16];
        let (n, fds) = receive(&b, &mut buffer).unwrap();
        assert_eq!((&buffer[..n], fds.len()), (&b"one"[..], 2));
        assert!(rustix::io::fcntl_getfd(&fds[0]).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        send(&fds[0], b"x", &[]).unwrap();
        assert_eq!(receive(&fds[1], &mut buffer).unwrap().0, 1);
        assert_eq!(receive(&b, &mut buffer).unwrap().0, 3);
        drop(a);
        assert_eq!(receive(&b, &mut buffer).unwrap().0, 0);
    }

    #[test]
    fn too_large_is_an_error() {
        let (a, b) = pair().unwrap();
        send(&a, &[7; 100], &[]).unwrap();
        assert_eq!(receive(&b, &mut [0; 10]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn listening_in_a_directory() {
        let dir = std::env::temp_dir().join(format!("fdpass-{}-{}", std::process::id(), "x".repeat(100)));
        std::fs::create_dir_all(&dir).unwrap();
        let at = std::fs::File::open(&dir).unwrap();
        let listener = listen_in(at.as_fd(), "s").unwrap();
        let client = connect_in(at.as_fd(), "s").unwrap();
        let server = accept(listener.as_fd()).unwrap();
        send(&client, b"hello", &[]).unwrap();
        assert_eq!(receive(&server, &mut [0; 8]).unwrap().0, 5);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
