//! Published ports: what reaches the host's socket is carried to the container's address.
//!
//! Most traffic never comes here, since the firewall rewrites it; what does is the host's own and that of containers which
//! use the host's address. All sockets of all ports are in one epoll instance of their own, which the monitor's loop polls
//! as one descriptor: a monitor without published ports pays nothing, one with many connections does not pay per round.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventFlags};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use rustix::process::{Resource, getrlimit};
use sys::datagrams::Datagrams;
use sys::fdpass::Parked;

use crate::proto::{Bound, Port, Transport};

mod pipes;
mod sockets;
mod tcp;
mod token;
mod udp;

use pipes::Pipes;
use sockets::Listening;
use tcp::{Connection, Scratch, Step};
use token::Token;
use udp::Front;

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
    /// The place of a port or of a queue of them is its number; a closed one leaves its place to the next.
    ports: Vec<Option<Listening>>,
    /// Places that are free again.
    free: Vec<usize>,
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

impl Proxies {
    /// How many ports are served.
    pub fn served(&self) -> usize {
        self.ports.iter().flatten().map(Listening::served).sum()
    }

    /// Readable when there is something to do.
    pub fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.epoll.as_ref().filter(|_| self.paused_until.is_none()).map(AsFd::as_fd)
    }

    /// Begins to serve a port on its bound (TCP: listening) socket.
    pub fn add(&mut self, port: Port, socket: OwnedFd) -> io::Result<()> {
        let place = self.place();
        self.watch(socket.as_fd(), Token::Port(place as u32, 0))?;
        self.put(place, Listening::held(port, socket));
        Ok(())
    }

    /// Begins to serve the ports of a parked queue, one for each of its sockets; `None`: a socket that is only kept.
    pub fn add_parked(&mut self, ports: &[Option<Port>], queue: Parked) -> io::Result<()> {
        let place = self.place();
        for (at, (port, copy)) in ports.iter().zip(queue.copies()?).enumerate() {
            if port.is_some() {
                self.watch(copy.as_fd(), Token::Port(place as u32, at as u8))?;
            }
        }
        self.put(place, Listening::parked(ports, queue));
        Ok(())
    }

    /// The next free place.
    fn place(&self) -> usize {
        self.free.last().copied().unwrap_or(self.ports.len())
    }

    /// Takes the next free place.
    fn put(&mut self, place: usize, listening: Listening) {
        self.held += 1;
        match self.ports.get_mut(place) {
            Some(free) => *free = Some(listening),
            None => self.ports.push(Some(listening)),
        }
        self.free.pop();
    }

    /// Closes the sockets that are bound so, or all. Connections that were accepted go on.
    pub fn remove(&mut self, bound: &[Bound]) -> io::Result<()> {
        let named: HashSet<Bound> = bound.iter().copied().collect();
        if named.is_empty() {
            (self.ports, self.free, self.held) = Default::default();
        }
        let mut removed = Ok(());
        for (number, place) in self.ports.iter_mut().enumerate().filter(|_| !named.is_empty()) {
            let Some(listening) = place else { continue };
            match listening.close(&named) {
                Ok(0) => {
                    *place = None;
                    self.free.push(number);
                    self.held -= 1;
                }
                Ok(_) => (),
                Err(error) => removed = Err(error),
            }
        }
        self.flows = self.ports.iter().flatten().map(|listening| listening.flows.len()).sum();
        removed
    }

    /// Watches the socket of a port that is about to be added.
    fn watch(&mut self, socket: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        rustix::io::ioctl_fionbio(socket, true)?;
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX).saturating_sub(KEPT_FREE);
        self.limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let epoll = match self.epoll.take() {
            Some(epoll) => epoll,
            None => epoll::create(CreateFlags::CLOEXEC)?,
        };
        let added = epoll::add(&epoll, socket, token.data(), EventFlags::IN);
        self.epoll = Some(epoll);
        Ok(added?)
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
            Token::Port(place, at) => {
                let Some(Some(listening)) = self.ports.get_mut(place as usize) else { return };
                let Some(port) = listening.port(at) else { return };
                match port.transport {
                    Transport::Tcp => self.accept(epoll, (place as usize, at), port.target),
                    Transport::Udp => {
                        let Listening { sockets, flows, .. } = listening;
                        let Ok(lent) = sockets.lend(at) else { return };
                        let (socket, target) = (lent.as_fd(), port.target);
                        let before = flows.len();
                        let datagrams = self.datagrams.get_or_insert_default();
                        flows.read_clients(Front { epoll, place, at, socket, target, room }, datagrams);
                        self.flows = self.flows - before + flows.len();
                        if self.flows > 0 && self.look_at.is_none() {
                            self.look_at = Some(Instant::now() + udp::LOOK_EVERY);
                        }
                    }
                }
            }
            Token::Flow(index, flow) => {
                let Some(Some(Listening { sockets, flows, .. })) = self.ports.get_mut(index as usize) else { return };
                if let Some(Ok(lent)) = flows.socket_of(flow).map(|at| sockets.lend(at)) {
                    let datagrams = self.datagrams.get_or_insert_default();
                    flows.read_container(flow, lent.as_fd(), datagrams);
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

    fn accept(&mut self, epoll: BorrowedFd<'_>, (place, at): (usize, u8), target: SocketAddr) {
        let Some(Some(listening)) = self.ports.get(place) else { return };
        let copied = match listening.sockets.lend(at) {
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

#[cfg(test)]
mod tests {
    use super::sockets::bound_to;
    use super::*;

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
        assert_eq!((proxies.ports.len(), proxies.free.len(), proxies.held, proxies.served()), (3, 0, 3, 3));
        proxies.remove(&[bound[4]]).unwrap();
        assert_eq!(bound.iter().map(is_bound).collect::<Vec<_>>(), [false, true, false, true, false]);
        proxies.remove(&[]).unwrap();
        assert!(!is_bound(&again) && !bound.iter().any(is_bound));
    }
}
