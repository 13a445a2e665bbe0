//! The monitor's side of its control connections.
//!
//! The newest connection is the daemon's; an older one is that of a daemon which is gone or going. Nothing here blocks: what
//! a connection does not take waits, and one that takes nothing for too long is closed: a daemon that connects again is
//! told the whole state.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;

use crate::proto::{self, Event, NotUnderstood, Packet, Request};

/// Packets that wait for one connection.
const MAX_WAITING: usize = 1024;
/// Pause after an accept that has failed.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(5);
/// Connections at once.
const MAX_CONNECTIONS: usize = 16;

/// Listening socket and connections.
#[derive(Debug)]
pub struct Link {
    listener: Option<OwnedFd>,
    /// Oldest first.
    connections: Vec<Connection>,
    next_id: u32,
}

#[derive(Debug)]
struct Connection {
    id: u32,
    socket: OwnedFd,
    /// Packets, some with a descriptor.
    waiting: VecDeque<(Vec<u8>, Option<OwnedFd>)>,
    /// The other side takes nothing any more; what it had asked for before may still be there to be read.
    deaf: bool,
    broken: bool,
}

/// A part of the link that is polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Listener,
    /// The id of a connection.
    Connection(u32),
}

/// A message that has arrived.
#[derive(Debug)]
pub enum Incoming {
    Request(Packet<Request>, Vec<OwnedFd>),
    NotUnderstood(NotUnderstood),
}

impl Link {
    pub fn new(control: OwnedFd) -> Link {
        let mut link = Link { listener: None, connections: Vec::new(), next_id: 0 };
        link.add(control);
        link
    }

    /// Further daemons may connect here.
    pub fn listen(&mut self, listener: OwnedFd) {
        self.listener = rustix::io::ioctl_fionbio(&listener, true).is_ok().then_some(listener);
    }

    fn add(&mut self, socket: OwnedFd) -> Option<u32> {
        if self.connections.len() >= MAX_CONNECTIONS || rustix::io::ioctl_fionbio(&socket, true).is_err() {
            return None;
        }
        self.next_id += 1;
        self.connections.push(Connection {
            id: self.next_id,
            socket,
            waiting: VecDeque::new(),
            deaf: false,
            broken: false,
        });
        Some(self.next_id)
    }

    /// No daemon is there.
    pub fn is_alone(&self) -> bool {
        self.connections.is_empty()
    }

    /// All connections, the oldest first.
    pub fn ids(&self) -> Vec<u32> {
        self.connections.iter().map(|connection| connection.id).collect()
    }

    /// Whether this connection stands.
    pub fn has(&self, id: u32) -> bool {
        self.connections.iter().any(|connection| connection.id == id && !connection.broken && !connection.deaf)
    }

    /// Nothing waits to be sent.
    pub fn is_flushed(&self) -> bool {
        self.connections.iter().all(|connection| connection.waiting.is_empty())
    }

    /// No further daemon may connect.
    pub fn stop_listening(&mut self) {
        self.listener = None;
    }

    pub fn interests<'a>(&'a self, mut add: impl FnMut(Part, BorrowedFd<'a>, PollFlags)) {
        if let Some(listener) = &self.listener {
            add(Part::Listener, listener.as_fd(), PollFlags::IN);
        }
        for connection in &self.connections {
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, !connection.waiting.is_empty());
            add(Part::Connection(connection.id), connection.socket.as_fd(), flags);
        }
    }

    /// Accepts a connection; its id.
    pub fn accept(&mut self) -> Option<u32> {
        match sys::fdpass::accept(self.listener.as_ref()?.as_fd()) {
            Ok(socket) => self.add(socket),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => None,
            Err(_) => {
                // No descriptors left, at worst: the connection stays in the queue, which must not keep the loop busy.
                std::thread::sleep(ACCEPT_PAUSE);
                None
            }
        }
    }

    /// Sends what waits and reads one message. `buffer` is scratch space.
    pub fn handle(&mut self, id: u32, events: PollFlags, buffer: &mut [u8]) -> Option<Incoming> {
        let connection = self.connections.iter_mut().find(|connection| connection.id == id)?;
        if events.contains(PollFlags::OUT) {
            connection.flush();
        }
        if !events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return None;
        }
        match sys::fdpass::receive(&connection.socket, buffer) {
            Ok((n, fds)) if n > 0 => Some(match proto::decode(&buffer[..n]) {
                Ok(packet) => Incoming::Request(packet, fds),
                Err(unknown) => Incoming::NotUnderstood(unknown),
            }),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => None,
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                Some(Incoming::NotUnderstood(NotUnderstood { seq: 0 }))
            }
            _ => {
                connection.broken = true;
                None
            }
        }
    }

    /// Sends to the newest connection.
    pub fn tell(&mut self, event: Event) {
        if let Some(connection) = self.connections.last_mut() {
            connection.send(proto::encode(0, event), None);
        }
    }

    /// Sends to one connection.
    pub fn answer(&mut self, id: u32, seq: u32, event: Event) {
        self.answer_with((id, seq), event, None);
    }

    /// As [`Link::answer`], with a copy of a descriptor. Without it, should there be none left, the other side has to do.
    pub fn answer_with(&mut self, (id, seq): (u32, u32), event: Event, fd: Option<BorrowedFd<'_>>) {
        if let Some(connection) = self.connections.iter_mut().find(|connection| connection.id == id) {
            let fd = fd.and_then(|fd| fd.try_clone_to_owned().ok());
            connection.send(proto::encode(seq, event), fd);
        }
    }

    /// Lets go of connections that are closed.
    pub fn finish_round(&mut self) {
        self.connections.retain(|connection| !connection.broken);
    }
}

impl Connection {
    fn send(&mut self, packet: Vec<u8>, fd: Option<OwnedFd>) {
        if self.deaf {
            return;
        }
        self.waiting.push_back((packet, fd));
        self.flush();
        self.broken |= self.waiting.len() > MAX_WAITING;
    }

    fn flush(&mut self) {
        while let Some((packet, fd)) = self.waiting.front() {
            match sys::fdpass::send(&self.socket, packet, fd.as_ref().map(AsFd::as_fd).as_slice()) {
                Ok(()) => drop(self.waiting.pop_front()),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.deaf = true;
                    self.waiting.clear();
                    break;
                }
            }
        }
    }
}
