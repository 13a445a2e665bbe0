//! Published ports: what reaches the host's socket is carried to the container's address.
//!
//! Most traffic never comes here, since the firewall rewrites it; what does is the host's own and that of containers which
//! use the host's address. All sockets of all ports are in one epoll instance of their own, which the monitor's loop polls
//! as one descriptor: a monitor without published ports pays nothing, one with many connections does not pay per round.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, accept_with, socket_with};
use rustix::process::{Resource, getrlimit};
use sys::datagrams::Datagrams;
use sys::fdpass::Parked;

use crate::proto::{Bound, Port, Transport};

mod pipes;
mod tcp;
mod udp;

use pipes::Pipes;
use tcp::{Connection, Scratch, Step};
use udp::{Flows, Front};

/// Connections at once, over all ports.
const MAX_CONNECTIONS: usize = 4096;
/// Descriptors that the proxies leave to everything else.
const KEPT_FREE: u64 = 256;
/// Connections accepted in one round.
const ACCEPTS: usize = 64;
/// Events of one round.
const EVENTS: usize = 128;
/// Pause before a container that refused a connection is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Pause after an accept that failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// All proxies of one container.
#[derive(Debug, Default)]
pub struct Proxies {
    epoll: Option<OwnedFd>,
    /// A port's place is its number; a closed one leaves its place to the next.
    ports: Vec<Option<Listening>>,
    /// Places of ports that were closed.
    free: Vec<usize>,
    /// Queues of parked sockets, those that are only kept included.
    queues: Vec<Rc<Parked>>,
    connections: HashMap<u64, Connection>,
    pipes: Pipes,
    next: u64,
    /// Connections that were refused: when they are tried again, and their numbers; the earliest first.
    retries: VecDeque<(Instant, u64)>,
    /// Clients of all UDP ports together.
    flows: usize,
    /// Where their datagrams lie on the way.
    datagrams: Option<Box<Datagrams>>,
    /// When silent ones are looked for.
    look_at: Option<Instant>,
    /// Descriptors of sockets and queues of ports.
    held: usize,
    /// Descriptors for all of them.
    limit: usize,
    paused_until: Option<Instant>,
}

/// The sockets of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Container,
}

#[derive(Debug)]
struct Listening {
    port: Port,
    socket: Socket,
    flows: Flows,
}

/// Where a port's socket is.
#[derive(Debug)]
enum Socket {
    Held(OwnedFd),
    /// The n-th of a parked queue.
    Parked(Rc<Parked>, usize),
}

/// A port's socket, for a while.
enum Lent<'a> {
    Held(BorrowedFd<'a>),
    Copied(OwnedFd),
}

impl Socket {
    fn lend(&self) -> io::Result<Lent<'_>> {
        match self {
            Socket::Held(socket) => Ok(Lent::Held(socket.as_fd())),
            Socket::Parked(queue, at) => {
                let copies = queue.copies()?;
                copies.into_iter().nth(*at).map(Lent::Copied).ok_or_else(|| Errno::BADF.into())
            }
        }
    }
}

impl AsFd for Lent<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Lent::Held(socket) => *socket,
            Lent::Copied(socket) => socket.as_fd(),
        }
    }
}

/// What an epoll event belongs to, packed into its 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    /// Index of a port.
    Port(u32),
    /// Index of a port, number of a flow.
    Flow(u32, u32),
    /// Number of a connection, and which of its sockets.
    Connection(u64, Side),
}

impl Token {
    fn data(self) -> EventData {
        EventData::new_u64(match self {
            Token::Port(port) => u64::from(port) << 2,
            Token::Flow(port, flow) => (u64::from(flow) << 32) | (u64::from(port) << 2) | 1,
            Token::Connection(number, Side::Client) => (number << 2) | 2,
            Token::Connection(number, Side::Container) => (number << 2) | 3,
        })
    }

    fn of(data: EventData) -> Token {
        let bits = data.u64();
        let port = ((bits & 0xffff_ffff) >> 2) as u32;
        match bits & 3 {
            0 => Token::Port(port),
            1 => Token::Flow(port, (bits >> 32) as u32),
            2 => Token::Connection(bits >> 2, Side::Client),
            _ => Token::Connection(bits >> 2, Side::Container),
        }
    }
}

impl Proxies {
    /// How many ports are served.
    pub fn served(&self) -> usize {
        self.ports.iter().flatten().count()
    }

    /// Readable when there is something to do.
    pub fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.epoll.as_ref().filter(|_| self.paused_until.is_none()).map(AsFd::as_fd)
    }

    /// Begins to serve a port on its bound (TCP: listening) socket.
    pub fn add(&mut self, port: Port, socket: OwnedFd) -> io::Result<()> {
        let place = self.watch(socket.as_fd())?;
        self.held += 1;
        self.put(place, Listening { port, socket: Socket::Held(socket), flows: Flows::default() });
        Ok(())
    }

    /// Begins to serve the ports of a parked queue, one for each of its sockets; `None`: a socket that is only kept.
    pub fn add_parked(&mut self, ports: &[Option<Port>], queue: Parked) -> io::Result<()> {
        let queue = Rc::new(queue);
        self.held += 1;
        self.queues.push(queue.clone());
        for (at, (port, copy)) in ports.iter().zip(queue.copies()?).enumerate() {
            let Some(port) = port else { continue };
            let place = self.watch(copy.as_fd())?;
            let socket = Socket::Parked(queue.clone(), at);
            self.put(place, Listening { port: port.clone(), socket, flows: Flows::default() });
        }
        Ok(())
    }

    fn put(&mut self, place: usize, listening: Listening) {
        match self.ports.get_mut(place) {
            Some(free) => *free = Some(listening),
            None => self.ports.push(Some(listening)),
        }
    }

    /// Closes the sockets that are bound so, or all. Connections that were accepted go on.
    pub fn remove(&mut self, bound: &[Bound]) -> io::Result<()> {
        let named: HashSet<Bound> = bound.iter().copied().collect();
        if named.is_empty() {
            (self.ports, self.free, self.queues, self.held) = Default::default();
        } else {
            self.remove_held(&named)?;
            self.remove_parked(&named)?;
        }
        self.flows = self.ports.iter().flatten().map(|listening| listening.flows.len()).sum();
        Ok(())
    }

    fn remove_held(&mut self, named: &HashSet<Bound>) -> io::Result<()> {
        for (number, place) in self.ports.iter_mut().enumerate() {
            if let Some(Listening { socket: Socket::Held(socket), .. }) = place
                && named.contains(&bound_to(socket)?)
            {
                *place = None;
                self.free.push(number);
                self.held -= 1;
            }
        }
        Ok(())
    }

    /// The sockets that stay are parked anew.
    fn remove_parked(&mut self, named: &HashSet<Bound>) -> io::Result<()> {
        for queue in std::mem::take(&mut self.queues) {
            let copies = queue.copies()?;
            let stays =
                copies.iter().map(|copy| Ok(!named.contains(&bound_to(copy)?))).collect::<io::Result<Vec<_>>>()?;
            if stays.iter().all(|stays| *stays) {
                self.queues.push(queue);
                continue;
            }
            let left: Vec<_> =
                copies.iter().zip(&stays).filter(|(_, stays)| **stays).map(|(fd, _)| fd.as_fd()).collect();
            let anew = if left.is_empty() { None } else { Some(Rc::new(Parked::new(&left)?)) };
            self.held -= usize::from(anew.is_none());
            self.queues.extend(anew.clone());
            for (number, place) in self.ports.iter_mut().enumerate() {
                let Some(Listening { socket: Socket::Parked(of, at), .. }) = place else { continue };
                if !Rc::ptr_eq(of, &queue) {
                    continue;
                }
                let before = stays[..*at].iter().filter(|stays| **stays).count();
                match anew.clone().filter(|_| stays[*at]) {
                    Some(anew) => (*of, *at) = (anew, before),
                    None => {
                        *place = None;
                        self.free.push(number);
                    }
                }
            }
        }
        Ok(())
    }

    /// Watches the socket of a port that is about to be added; the port's place.
    fn watch(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        rustix::io::ioctl_fionbio(socket, true)?;
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX).saturating_sub(KEPT_FREE);
        self.limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let epoll = match self.epoll.take() {
            Some(epoll) => epoll,
            None => epoll::create(CreateFlags::CLOEXEC)?,
        };
        let place = self.free.pop().unwrap_or(self.ports.len());
        let added = epoll::add(&epoll, socket, Token::Port(place as u32).data(), EventFlags::IN);
        self.epoll = Some(epoll);
        added?;
        Ok(place)
    }

    /// Deals with everything that is ready. `buffer` is scratch space.
    pub fn handle(&mut self, buffer: &mut [u8]) {
        let Some(epoll) = self.epoll.take() else { return };
        let mut events = Vec::with_capacity(EVENTS);
        let none = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        if epoll::wait(&epoll, spare_capacity(&mut events), Some(&none)).is_ok() {
            for event in events {
                let epoll::Event { flags, data } = event;
                self.dispatch(epoll.as_fd(), Token::of(data), flags, buffer);
            }
        }
        self.epoll = Some(epoll);
    }

    fn dispatch(&mut self, epoll: BorrowedFd<'_>, token: Token, flags: EventFlags, buffer: &mut [u8]) {
        let room = self.room();
        match token {
            Token::Port(index) => {
                let Some(Some(listening)) = self.ports.get_mut(index as usize) else { return };
                match listening.port.transport {
                    Transport::Tcp => self.accept(epoll, index as usize),
                    Transport::Udp => {
                        let Ok(lent) = listening.socket.lend() else { return };
                        let (socket, target) = (lent.as_fd(), listening.port.target);
                        let before = listening.flows.len();
                        let datagrams = self.datagrams.get_or_insert_default();
                        listening.flows.read_clients(Front { epoll, port: index, socket, target, room }, datagrams);
                        self.flows = self.flows - before + listening.flows.len();
                        if self.flows > 0 && self.look_at.is_none() {
                            self.look_at = Some(Instant::now() + udp::LOOK_EVERY);
                        }
                    }
                }
            }
            Token::Flow(index, flow) => {
                if let Some(Some(listening)) = self.ports.get_mut(index as usize)
                    && let Ok(lent) = listening.socket.lend()
                {
                    let datagrams = self.datagrams.get_or_insert_default();
                    listening.flows.read_container(flow, lent.as_fd(), datagrams);
                }
            }
            Token::Connection(number, side) => {
                let Some(connection) = self.connections.get_mut(&number) else { return };
                let mut scratch = Scratch { pipes: &mut self.pipes, buffer };
                match connection.advance(epoll, (side, flags), &mut scratch) {
                    Ok(Step::Open) => (),
                    Ok(Step::Refused) => self.retries.push_back((Instant::now() + RETRY_PAUSE, number)),
                    Err(_) => drop(self.connections.remove(&number)),
                }
            }
        }
    }

    fn accept(&mut self, epoll: BorrowedFd<'_>, index: usize) {
        let Some(Some(listening)) = self.ports.get(index) else { return };
        let target = listening.port.target;
        let copied = match listening.socket.lend() {
            // Copied, so that it does not borrow from what changes meanwhile; a held socket has a copy of little cost, too.
            Ok(lent) => lent.as_fd().try_clone_to_owned(),
            Err(error) => Err(error),
        };
        let Ok(socket) = copied else {
            self.paused_until = Some(Instant::now() + ACCEPT_PAUSE);
            return;
        };
        for _ in 0..ACCEPTS {
            let client = match accept_with(&socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(client) => client,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    self.paused_until = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
                // None left, or one that was aborted in the queue.
                Err(_) => return,
            };
            if self.room() < 2 || self.connections.len() >= MAX_CONNECTIONS {
                continue;
            }
            self.next += 1;
            // A connection that cannot be made is closed, as a client of an unreachable server expects.
            if let Ok(connection) = Connection::open(epoll, self.next, client, target) {
                self.connections.insert(self.next, connection);
            }
        }
    }

    /// How many descriptors the proxies may still open: exec and attach must always be possible.
    fn room(&self) -> usize {
        self.limit.saturating_sub(self.held + 2 * self.connections.len() + self.pipes.descriptors() + self.flows)
    }

    /// When [`Proxies::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let retry = self.retries.front().map(|(at, _)| *at);
        [self.look_at, retry, self.paused_until].into_iter().flatten().min()
    }

    /// Forgets flows that have been silent for long, and asks containers again that refused connections.
    pub fn expire(&mut self, now: Instant) {
        self.paused_until = self.paused_until.filter(|&until| until > now);
        self.connect_again(now);
        if self.look_at.is_none_or(|at| at > now) {
            return;
        }
        for listening in self.ports.iter_mut().flatten().filter(|listening| listening.flows.len() > 0) {
            listening.flows.expire(now);
        }
        self.flows = self.ports.iter().flatten().map(|listening| listening.flows.len()).sum();
        self.look_at = (self.flows > 0).then(|| now + udp::LOOK_EVERY);
    }

    fn connect_again(&mut self, now: Instant) {
        let Some(epoll) = &self.epoll else { return };
        while self.retries.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, number)) = self.retries.pop_front() else { return };
            if let Some(connection) = self.connections.get_mut(&number)
                && connection.connect_again(epoll.as_fd()).is_err()
            {
                self.connections.remove(&number);
            }
        }
    }
}

/// Where a socket is bound, and of which protocol it is.
fn bound_to(socket: &OwnedFd) -> io::Result<Bound> {
    let protocol = rustix::net::sockopt::socket_protocol(socket)?;
    let protocol = protocol.map_or(0, |protocol| protocol.as_raw().get()) as u8;
    let address = rustix::net::getsockname(socket)?.try_into().map_err(|_| io::Error::from(Errno::AFNOSUPPORT))?;
    Ok(Bound { protocol, address })
}

/// A non-blocking socket of the family that `target` needs.
fn socket_for(target: std::net::SocketAddr, kind: SocketType) -> rustix::io::Result<OwnedFd> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_packing() {
        for token in
            [Token::Port(0), Token::Port(70_000), Token::Flow(3, u32::MAX), Token::Connection(1 << 40, Side::Container)]
        {
            assert_eq!(Token::of(token.data()), token);
        }
    }

    fn listener() -> (OwnedFd, Bound) {
        let socket = OwnedFd::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let bound = bound_to(&socket).unwrap();
        (socket, bound)
    }

    fn is_bound(bound: &Bound) -> bool {
        std::net::TcpListener::bind(bound.address).is_err()
    }

    fn port() -> Port {
        Port { transport: Transport::Tcp, target: "127.0.0.1:1".parse().unwrap() }
    }

    #[test]
    fn sockets_are_closed_by_their_address_held_or_parked() {
        let mut proxies = Proxies::default();
        let made: Vec<_> = (0..5).map(|_| listener()).collect();
        let bound: Vec<_> = made.iter().map(|(_, bound)| *bound).collect();
        let mut sockets = made.into_iter().map(|(socket, _)| socket);
        for socket in sockets.by_ref().take(2) {
            proxies.add(port(), socket).unwrap();
        }
        let rest: Vec<_> = sockets.collect();
        let parked = Parked::new(&rest.iter().map(AsFd::as_fd).collect::<Vec<_>>()).unwrap();
        drop(rest);
        proxies.add_parked(&[Some(port()), None, Some(port())], parked).unwrap();
        proxies.remove(&[bound[0], bound[2]]).unwrap();
        assert_eq!(bound.iter().map(is_bound).collect::<Vec<_>>(), [false, true, false, true, true]);
        // The place of a closed one is used again, and what was parked behind another is found.
        let (socket, again) = listener();
        proxies.add(port(), socket).unwrap();
        assert_eq!((proxies.ports.len(), proxies.free.len(), proxies.held), (4, 1, 3));
        proxies.remove(&[bound[4]]).unwrap();
        assert_eq!(bound.iter().map(is_bound).collect::<Vec<_>>(), [false, true, false, true, false]);
        proxies.remove(&[]).unwrap();
        assert!(!is_bound(&again) && !bound.iter().any(is_bound));
    }
}
