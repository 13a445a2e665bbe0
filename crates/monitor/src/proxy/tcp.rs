//! One proxied TCP connection: bytes of both sides copied to the other, each side's end passed on as a half-close.
//!
//! A side is read only when the other has taken everything before, so a connection keeps at most one read's worth per
//! direction. Bytes go through a pipe without being copied, or, when no pipe can be had, through a buffer.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketType};

use super::pipes::{Pipe, Pipes};
use super::token::{self, Side, Token};

/// Reads in one direction in one round, so that one connection does not starve the others.
const READS: usize = 8;
/// Bytes of a read below which nothing is left to be read: a pipe holds more, and so does the buffer.
const DRAINED: usize = 32 << 10;
/// How long a client waits for a server that does not listen yet: a container's program is often reached for as soon as
/// its start is answered.
const PATIENCE: Duration = Duration::from_secs(3);

/// Both sockets and what is under way between them.
#[derive(Debug)]
pub struct Connection {
    number: u64,
    client: OwnedFd,
    container: OwnedFd,
    connecting: bool,
    target: SocketAddr,
    /// Until when a refusal is no answer.
    patience: Instant,
    inbound: Direction,
    outbound: Direction,
    /// What epoll waits for at present; `None`: that socket is closed in both directions and no longer watched.
    interest: (Option<EventFlags>, Option<EventFlags>),
}

/// What bytes go through on their way.
#[derive(Debug)]
pub struct Scratch<'a> {
    pub pipes: &'a mut Pipes,
    pub buffer: &'a mut [u8],
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The connection goes on.
    Open,
    /// The container refused; its server may be about to start. [`Connection::connect_again`] after a pause.
    Refused,
}

/// From one socket to the other.
#[derive(Debug, Default)]
struct Direction {
    /// With bytes in it that the other socket has not taken.
    pipe: Option<Pipe>,
    /// The same in memory.
    waiting: Vec<u8>,
    ended: bool,
    /// The end has been passed on.
    shut: bool,
}

impl Direction {
    fn pump(&mut self, from: &OwnedFd, to: &OwnedFd, scratch: &mut Scratch<'_>) -> rustix::io::Result<()> {
        self.pass_on(to, scratch.pipes)?;
        for _ in 0..READS {
            if !self.reads() {
                break;
            }
            let read = match scratch.pipes.lend() {
                Some(pipe) => self.through_pipe(pipe, (from, to), scratch.pipes),
                None => self.through_memory(from, to, scratch.buffer),
            };
            match read {
                Ok(n) => {
                    self.ended = n == 0;
                    // All that was there: asking for more would tell so, and what comes wakes us.
                    if n < DRAINED {
                        break;
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(e) => return Err(e),
            }
        }
        if self.ended && self.is_empty() && !self.shut {
            self.shut = true;
            rustix::net::shutdown(to, Shutdown::Write)?;
        }
        Ok(())
    }

    /// What waits goes on, as far as it is taken.
    fn pass_on(&mut self, to: &OwnedFd, pipes: &mut Pipes) -> rustix::io::Result<()> {
        if let Some(mut pipe) = self.pipe.take() {
            pipe.empty(to)?;
            self.keep(pipe, pipes);
        }
        if !self.waiting.is_empty() {
            let sent = send(to, &self.waiting)?;
            self.waiting.drain(..sent);
            if self.waiting.is_empty() {
                self.waiting = Vec::new();
            }
        }
        Ok(())
    }

    /// Bytes read; 0 at the end.
    fn through_pipe(
        &mut self,
        mut pipe: Pipe,
        (from, to): (&OwnedFd, &OwnedFd),
        pipes: &mut Pipes,
    ) -> rustix::io::Result<usize> {
        let read = pipe.fill(from);
        if let Ok(1..) = read {
            pipe.empty(to)?;
        }
        self.keep(pipe, pipes);
        read
    }

    fn keep(&mut self, pipe: Pipe, pipes: &mut Pipes) {
        if pipe.is_empty() { pipes.take_back(pipe) } else { self.pipe = Some(pipe) }
    }

    /// Bytes read; 0 at the end.
    fn through_memory(&mut self, from: &OwnedFd, to: &OwnedFd, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        let n = loop {
            match rustix::net::recv(from, &mut *buffer, RecvFlags::empty()) {
                Ok((n, _)) => break n,
                Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        };
        let sent = send(to, &buffer[..n])?;
        self.waiting.extend_from_slice(&buffer[sent..n]);
        Ok(n)
    }

    /// Nothing is on its way.
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.pipe.is_none()
    }

    fn reads(&self) -> bool {
        !self.ended && self.is_empty()
    }
}

fn send(to: &OwnedFd, bytes: &[u8]) -> rustix::io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match rustix::net::send(to, &bytes[sent..], SendFlags::NOSIGNAL) {
            Ok(n) => sent += n,
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(sent)
}

/// A socket on its way to the container.
fn connect(epoll: BorrowedFd<'_>, number: u64, target: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let container = token::socket_for(target, SocketType::STREAM)?;
    match rustix::net::connect(&container, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(e) => return Err(e),
    }
    let _ = rustix::net::sockopt::set_tcp_nodelay(&container, true);
    epoll::add(epoll, &container, Token::Connection(number, Side::Container).data(), EventFlags::OUT)?;
    Ok(container)
}

impl Connection {
    /// Begins to connect to the container on behalf of `client`, a non-blocking socket.
    pub fn open(
        epoll: BorrowedFd<'_>,
        number: u64,
        client: OwnedFd,
        target: SocketAddr,
    ) -> rustix::io::Result<Connection> {
        // Small writes were small before: no further delay is added to them.
        let _ = rustix::net::sockopt::set_tcp_nodelay(&client, true);
        epoll::add(epoll, &client, Token::Connection(number, Side::Client).data(), EventFlags::empty())?;
        Ok(Connection {
            number,
            client,
            container: connect(epoll, number, target)?,
            connecting: true,
            target,
            patience: Instant::now() + PATIENCE,
            inbound: Direction::default(),
            outbound: Direction::default(),
            interest: (Some(EventFlags::empty()), Some(EventFlags::OUT)),
        })
    }

    /// Moves what can be moved after an event of one socket. An error means that the connection is over, in whatever way.
    pub fn advance(
        &mut self,
        epoll: BorrowedFd<'_>,
        (side, flags): (Side, EventFlags),
        scratch: &mut Scratch<'_>,
    ) -> rustix::io::Result<Step> {
        if self.connecting {
            if side == Side::Client {
                // Nothing was asked for: it has gone.
                return Err(Errno::CONNABORTED);
            }
            match rustix::net::sockopt::socket_error(&self.container)? {
                Ok(()) => self.connecting = false,
                Err(Errno::CONNREFUSED) if Instant::now() < self.patience => {
                    epoll::delete(epoll, &self.container)?;
                    return Ok(Step::Refused);
                }
                Err(errno) => return Err(errno),
            }
        }
        self.inbound.pump(&self.client, &self.container, scratch)?;
        self.outbound.pump(&self.container, &self.client, scratch)?;
        if self.inbound.shut && self.outbound.shut {
            return Err(Errno::SHUTDOWN);
        }
        if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            self.hung_up(epoll, side)?;
        }
        self.update(epoll).map(|()| Step::Open)
    }

    /// Asks the container once more.
    pub fn connect_again(&mut self, epoll: BorrowedFd<'_>) -> rustix::io::Result<()> {
        self.container = connect(epoll, self.number, self.target)?;
        Ok(())
    }

    /// One socket is closed in both directions; it would be reported for ever.
    fn hung_up(&mut self, epoll: BorrowedFd<'_>, side: Side) -> rustix::io::Result<()> {
        let all_read = match side {
            Side::Client => self.inbound.ended,
            Side::Container => self.outbound.ended,
        };
        if !all_read {
            return Ok(());
        }
        if self.inbound.is_empty() && self.outbound.is_empty() {
            return Err(Errno::SHUTDOWN);
        }
        let (socket, interest) = match side {
            Side::Client => (&self.client, &mut self.interest.0),
            Side::Container => (&self.container, &mut self.interest.1),
        };
        if interest.take().is_some() {
            epoll::delete(epoll, socket)?;
        }
        Ok(())
    }

    fn update(&mut self, epoll: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let flags = |reads: bool, writes: bool| {
            let mut flags = EventFlags::empty();
            flags.set(EventFlags::IN, reads);
            flags.set(EventFlags::OUT, writes);
            flags
        };
        let client = flags(self.inbound.reads(), !self.outbound.is_empty());
        let container = flags(self.outbound.reads(), !self.inbound.is_empty());
        for (socket, side, present, wanted) in [
            (&self.client, Side::Client, &mut self.interest.0, client),
            (&self.container, Side::Container, &mut self.interest.1, container),
        ] {
            if present.is_some_and(|present| present != wanted) {
                epoll::modify(epoll, socket.as_fd(), Token::Connection(self.number, side).data(), wanted)?;
                *present = Some(wanted);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::thread;
    use std::time::{Duration, Instant};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};

    use crate::proto::{Port, Transport};
    use crate::proxy::pipes::MAX_LENT;
    use crate::proxy::{Proxies, RETRY_PAUSE};

    /// Longest wait for what the proxy has to do.
    const LIMIT: Duration = Duration::from_secs(60);

    /// Runs the proxies of one TCP port to `target` until the thread's other end is dropped.
    fn proxy(target: SocketAddr) -> (SocketAddr, std::sync::mpsc::Sender<()>) {
        proxy_without(0, target)
    }

    /// The same with so many pipes lent to others.
    fn proxy_without(pipes: usize, target: SocketAddr) -> (SocketAddr, std::sync::mpsc::Sender<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        thread::spawn(move || {
            let mut proxies = Proxies::default();
            let lent: Vec<_> = (0..pipes).map_while(|_| proxies.pipes.lend()).collect();
            assert_eq!(lent.len(), pipes);
            proxies.add(Port { transport: Transport::Tcp, target }, listener.into()).unwrap();
            let mut buffer = vec![0; 65536];
            while stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
                let fd = proxies.pollable().unwrap();
                let timeout = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
                if poll(&mut [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)], Some(&timeout)).unwrap() > 0 {
                    proxies.handle(&mut buffer);
                }
                proxies.expire(Instant::now());
            }
        });
        (address, stop)
    }

    #[test]
    fn large_data_both_ways_and_half_close() {
        large_data(0);
    }

    #[test]
    fn without_a_pipe_bytes_are_copied() {
        large_data(MAX_LENT);
    }

    fn large_data(lent: usize) {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, _stop) = proxy_without(lent, server.local_addr().unwrap());
        let echo = thread::spawn(move || {
            // Everything is read before anything is answered: the client's half-close has to arrive.
            let (mut peer, _) = server.accept().unwrap();
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            peer.write_all(&all).unwrap();
        });
        let mut client = TcpStream::connect(address).unwrap();
        let data: Vec<u8> = (0..5_000_000_u32).map(|n| (n / 3) as u8).collect();
        client.write_all(&data).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert!(answer == data);
        echo.join().unwrap();
    }

    #[test]
    fn a_container_that_resets_after_its_end_closes_the_client() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, _stop) = proxy(server.local_addr().unwrap());
        let mut client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        let (peer, _) = server.accept().unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
        // Unread data makes the close a reset, of which the client must hear although it has been told of the end.
        client.write_all(b"unread").unwrap();
        thread::sleep(Duration::from_millis(100));
        drop(peer);
        let dropped = Instant::now();
        while client.write_all(b"x").is_ok() {
            assert!(dropped.elapsed() < LIMIT, "the client is not closed");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// A server that is about to start: its address is taken, nobody listens.
    fn late() -> (std::os::fd::OwnedFd, SocketAddr) {
        let server = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&server, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = getsockname(&server).unwrap().try_into().unwrap();
        (server, address)
    }

    #[test]
    fn a_server_that_listens_late_is_reached() {
        let (server, target) = late();
        let (address, _stop) = proxy(target);
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"asked before").unwrap();
        thread::sleep(RETRY_PAUSE * 3);
        rustix::net::listen(&server, 8).unwrap();
        let (mut peer, _) = TcpListener::from(server).accept().unwrap();
        let mut asked = [0; 12];
        peer.read_exact(&mut asked).unwrap();
        assert_eq!(&asked, b"asked before");
        peer.write_all(b"answer").unwrap();
        drop(peer);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer");
    }

    #[test]
    fn clients_that_break_off_are_forgotten() {
        let (_server, target) = late();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut proxies = Proxies::default();
        proxies.add(Port { transport: Transport::Tcp, target }, listener.into()).unwrap();
        let client = TcpStream::connect(address).unwrap();
        let mut buffer = vec![0; 65536];
        let mut pump = |proxies: &mut Proxies| {
            let fd = proxies.pollable().unwrap();
            let timeout = Timespec { tv_sec: 60, tv_nsec: 0 };
            assert!(poll(&mut [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)], Some(&timeout)).unwrap() > 0);
            proxies.handle(&mut buffer);
        };
        while proxies.deadline().is_none() {
            pump(&mut proxies);
        }
        // A reset: an end alone may be that of a request.
        rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
        drop(client);
        pump(&mut proxies);
        proxies.expire(Instant::now() + RETRY_PAUSE);
        assert!(proxies.deadline().is_none() && proxies.connections.is_empty());
    }

    #[test]
    fn a_refused_connection_closes_the_client() {
        let (_nobody, target) = late();
        let (address, _stop) = proxy(target);
        let mut client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        let closed = client.read(&mut [0; 8]);
        let reset = |e: &std::io::Error| e.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(matches!(&closed, Ok(0)) || closed.as_ref().is_err_and(reset), "{closed:?}");
    }
}
