//! A client's connection: a unix or TCP socket that hyper reads and writes while the connection task watches it.
//!
//! Invariants: reading and writing go through `&self`, so that one task can wait for the end of the client while
//! hyper drives the protocol; the file descriptor is handed on by duplication and never closed behind tokio's back.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::limits;

/// The socket itself.
pub enum Socket {
    /// A unix stream socket.
    Unix(UnixStream),
    /// A TCP connection.
    Tcp(TcpStream),
}

macro_rules! either {
    ($socket:expr, $stream:ident => $body:expr) => {
        match $socket {
            Socket::Unix($stream) => $body,
            Socket::Tcp($stream) => $body,
        }
    };
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        either!(self, stream => stream.as_fd())
    }
}

impl Socket {
    /// The descriptor once more, non-blocking, for whoever takes the connection over.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.as_fd().try_clone_to_owned()
    }

    /// A connection that was handed over, non-blocking.
    pub fn adopt(socket: OwnedFd) -> io::Result<Socket> {
        if rustix::net::sockopt::socket_domain(&socket)? == rustix::net::AddressFamily::UNIX {
            return UnixStream::from_std(socket.into()).map(Socket::Unix);
        }
        TcpStream::from_std(socket.into()).map(Socket::Tcp)
    }

    /// Resolves when the client closed its sending side: for good, or (unix sockets tell) only that side.
    pub async fn peer_closed(&self) -> PeerClosed {
        // PRIORITY waits for nothing but the end of the readable side.
        let waited = either!(self, stream => stream.ready(Interest::PRIORITY).await);
        match self {
            _ if waited.is_err() => PeerClosed::Fully,
            Socket::Tcp(_) => PeerClosed::MaybeHalf,
            Socket::Unix(_) if self.hung_up() => PeerClosed::Fully,
            Socket::Unix(_) => PeerClosed::Half,
        }
    }

    /// Resolves when both sides of a unix connection are closed.
    pub async fn peer_gone(&self) {
        while !self.hung_up() {
            tokio::time::sleep(limits::HANG_UP_POLL).await;
        }
    }

    fn hung_up(&self) -> bool {
        let mut fds = [PollFd::new(self, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let polled = rustix::event::poll(&mut fds, Some(&now));
        polled.is_err() || fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    }

    /// Writes all bytes.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            either!(self, stream => stream.writable().await)?;
            match either!(self, stream => stream.try_write(bytes)) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// How much of the connection the client has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerClosed {
    /// Nobody reads any more.
    Fully,
    /// It sends no more but reads on.
    Half,
    /// TCP: one cannot tell until something is written.
    MaybeHalf,
}

/// The socket as hyper and rustls drive it.
pub struct Io(pub Arc<Socket>);

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(either!(&*self.0, stream => stream.poll_read_ready(context)))?;
            match either!(&*self.0, stream => stream.try_read_buf(buffer)) {
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(either!(&*self.0, stream => stream.poll_write_ready(context)))?;
            match either!(&*self.0, stream => stream.try_write(bytes)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(either!(&*self.0, stream => stream.poll_write_ready(context)))?;
            match either!(&*self.0, stream => stream.try_write_vectored(slices)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match rustix::net::shutdown(&*self.0, rustix::net::Shutdown::Write) {
            Ok(()) | Err(rustix::io::Errno::NOTCONN) => Poll::Ready(Ok(())),
            Err(errno) => Poll::Ready(Err(errno.into())),
        }
    }
}
