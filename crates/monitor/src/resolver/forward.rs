//! Queries that servers elsewhere are asked.
//!
//! The servers are raced: the next one is asked, too, when one has not answered for [`HEDGE`], or at once when it fails. The
//! first answer counts, but for one: that there is no such name is believed only when the servers before have had
//! [`PATIENCE`], since the first of a list may know names that the others do not. A server that was overtaken is asked last
//! for [`SLOW`]. Each question to a server has a socket of its own, connected to it, with a port and a number that nobody can
//! guess; what does not repeat both and the question is not heard.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use dns::message::{self, Query, Verdict};
use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socket_with, sockopt};

use super::place::{Client, Namespaces, Token};
use super::upstream::Current;

/// Queries under way at once; further ones are refused.
const MAX_FORWARDS: usize = 1024;
/// Bytes of all of them with what has arrived.
const MAX_HELD: usize = 512 << 10;
/// When the next server is asked, too.
const HEDGE: Duration = Duration::from_millis(50);
/// The same by TCP, which takes more round trips.
const HEDGE_TCP: Duration = Duration::from_millis(500);
/// How long the servers before have the last word on names that do not exist.
const PATIENCE: Duration = Duration::from_millis(500);
/// When datagrams are sent once more.
const REPEAT: Duration = Duration::from_secs(1);
/// When nobody will answer any more; the reference's value.
const EXPIRY: Duration = Duration::from_secs(4);
/// For how long a server that was overtaken is asked last.
const SLOW: Duration = Duration::from_secs(10);
/// Datagrams taken from one socket in one round.
const DATAGRAMS: usize = 8;

/// A query that is over.
#[derive(Debug)]
pub struct Finished {
    /// With the number that the servers were told.
    pub query: Vec<u8>,
    /// Who has asked it.
    pub client: Client,
    /// The number that the client chose.
    pub client_id: u16,
    /// `None`: nobody has answered.
    pub response: Option<Vec<u8>>,
}

/// Where sockets are made and watched, and when.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'a> {
    /// Watches them.
    pub epoll: &'a OwnedFd,
    /// Where they may be made.
    pub namespaces: &'a Namespaces,
    /// The time of the round.
    pub now: Instant,
}

/// A server's socket that is ready.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// Number of the query.
    pub number: u32,
    /// The server's place in the list.
    pub server: u8,
}

/// What a server is asked.
#[derive(Clone, Copy, Debug)]
struct Question<'a> {
    query: &'a [u8],
    by_tcp: bool,
    /// From the host's network, not the sandbox's.
    by_host: bool,
}

/// All queries under way.
#[derive(Debug, Default)]
pub struct Forwards {
    all: HashMap<u32, Forward>,
    next: u32,
    due: BTreeSet<(Instant, u32)>,
    held: usize,
    /// Until when a server, by its place in the list, is asked last.
    slow: [Option<Instant>; dns::servers::MAX_SERVERS],
}

#[derive(Debug)]
struct Forward {
    query: Vec<u8>,
    client: Client,
    client_id: u16,
    begun: Instant,
    due: Instant,
    repeat: Instant,
    by_tcp: bool,
    /// Servers that are still to be asked, the next one last; `None`: not chosen yet.
    left: Option<Vec<u8>>,
    attempts: Vec<Attempt>,
    negative: Option<Vec<u8>>,
}

/// A server that was asked.
#[derive(Debug)]
struct Attempt {
    server: u8,
    /// `None`: it has answered, or will not.
    socket: Option<OwnedFd>,
    exchange: Option<Exchange>,
}

/// A question by TCP.
#[derive(Debug, Default)]
struct Exchange {
    sent: usize,
    /// Bytes that may still be held.
    room: usize,
    input: Vec<u8>,
}

/// What a server's socket has brought.
enum Heard {
    Nothing,
    Failure,
    Answer { response: Vec<u8>, is_negative: bool },
}

impl Forward {
    fn is_pending(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.socket.is_some())
    }

    fn size(&self) -> usize {
        let inputs = self.attempts.iter().filter_map(|attempt| attempt.exchange.as_ref()).map(|e| e.input.len());
        self.query.len() + self.negative.as_ref().map_or(0, Vec::len) + inputs.sum::<usize>()
    }

    /// When there is something to do if nothing arrives.
    fn next_due(&self, now: Instant) -> Instant {
        let has_more = self.left.as_ref().is_none_or(|left| !left.is_empty()) && self.negative.is_none();
        let hedge = if self.by_tcp { HEDGE_TCP } else { HEDGE };
        let next = if has_more { now + hedge } else { self.repeat.max(now + HEDGE) };
        let patience = if self.negative.is_some() { self.begun + PATIENCE } else { next };
        next.min(patience).min(self.begun + EXPIRY).max(now + Duration::from_millis(1))
    }
}

impl Forwards {
    /// Takes a query; false: there are too many.
    pub fn begin(&mut self, query: &Query<'_>, client: Client, now: Instant) -> bool {
        let bytes = query.bytes();
        if self.all.len() >= MAX_FORWARDS || self.held + bytes.len() > MAX_HELD {
            return false;
        }
        self.next = self.next.wrapping_add(1);
        let mut own = bytes.to_vec();
        message::set_id(&mut own, sys::random::number() as u16);
        self.held += own.len();
        let forward = Forward {
            query: own,
            client,
            client_id: message::id(bytes),
            begun: now,
            due: now,
            repeat: now + REPEAT,
            by_tcp: matches!(client, Client::Stream(_)),
            left: None,
            attempts: Vec::new(),
            negative: None,
        };
        self.all.insert(self.next, forward);
        self.due.insert((now, self.next));
        true
    }

    /// When [`Forwards::due`] has something to say.
    pub fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// A query with which something is to be done.
    pub fn due(&self, now: Instant) -> Option<u32> {
        self.due.first().filter(|(at, _)| *at <= now).map(|(_, number)| *number)
    }

    fn reschedule(&mut self, number: u32, at: Instant) {
        if let Some(forward) = self.all.get_mut(&number) {
            self.due.remove(&(forward.due, number));
            forward.due = at;
            self.due.insert((at, number));
        }
    }

    fn remove(&mut self, number: u32, response: Option<Vec<u8>>) -> Option<Finished> {
        let forward = self.all.remove(&number)?;
        self.due.remove(&(forward.due, number));
        self.held = self.held.saturating_sub(forward.size());
        let response = response.or(forward.negative);
        Some(Finished { query: forward.query, client: forward.client, client_id: forward.client_id, response })
    }

    /// Asks the next server, asks once more, or gives up.
    pub fn advance(&mut self, ground: Ground<'_>, number: u32, servers: Current<'_>) -> Option<Finished> {
        let now = ground.now;
        let order = self.order(servers.addresses.len(), now);
        let forward = self.all.get_mut(&number)?;
        let is_late = now >= forward.begun + EXPIRY;
        let is_done = forward.negative.is_some() && (!forward.is_pending() || now >= forward.begun + PATIENCE);
        if is_late || is_done {
            return self.remove(number, None);
        }
        let left = forward.left.get_or_insert(order);
        while forward.negative.is_none()
            && let Some(server) = left.pop()
        {
            let Some(address) = servers.addresses.get(usize::from(server)) else { continue };
            let question = Question { query: &forward.query, by_tcp: forward.by_tcp, by_host: servers.by_host };
            if let Ok(attempt) = ask(ground, Ready { number, server }, *address, question) {
                forward.attempts.push(attempt);
                break;
            }
        }
        if !forward.is_pending() && forward.left.as_ref().is_some_and(Vec::is_empty) {
            if !forward.by_tcp {
                return self.remove(number, None);
            }
            // Servers that serve nobody by TCP.
            (forward.by_tcp, forward.left) = (false, None);
            self.reschedule(number, now);
            return None;
        }
        if now >= forward.repeat && !forward.by_tcp {
            forward.repeat = now + REPEAT;
            for socket in forward.attempts.iter().filter_map(|attempt| attempt.socket.as_ref()) {
                // It may be lost like any other.
                let _ = rustix::net::send(socket, &forward.query, SendFlags::NOSIGNAL);
            }
        }
        let due = forward.next_due(now);
        self.reschedule(number, due);
        None
    }

    /// The servers, the one that is asked first last.
    fn order(&self, servers: usize, now: Instant) -> Vec<u8> {
        let is_slow =
            |server: &u8| self.slow.get(usize::from(*server)).is_some_and(|slow| slow.is_some_and(|until| until > now));
        let all = 0..servers.min(dns::servers::MAX_SERVERS) as u8;
        let (slow, good): (Vec<u8>, Vec<u8>) = all.rev().partition(is_slow);
        [slow, good].concat()
    }

    /// A server's socket is ready.
    pub fn handle(&mut self, epoll: &OwnedFd, ready: Ready, buffer: &mut [u8]) -> Option<Finished> {
        let Ready { number, server } = ready;
        let room = MAX_HELD.saturating_sub(self.held);
        let forward = self.all.get_mut(&number)?;
        let before = forward.size();
        let Forward { attempts, query, .. } = forward;
        let at = attempts.iter().position(|attempt| attempt.server == server && attempt.socket.is_some())?;
        let attempt = &mut attempts[at];
        if let Some(exchange) = &mut attempt.exchange {
            exchange.room = room;
        }
        let heard = match attempt.exchange.is_some() {
            false => attempt.hear(query, buffer),
            true => attempt.exchange(epoll, number, query, buffer),
        };
        let now = Instant::now();
        match heard {
            Heard::Nothing => {}
            Heard::Failure => {
                (attempt.socket, attempt.exchange) = (None, None);
                self.held = (self.held + forward.size()).saturating_sub(before);
                self.reschedule(number, now);
                return None;
            }
            Heard::Answer { response, is_negative } => {
                (attempt.socket, attempt.exchange) = (None, None);
                let is_first = attempts[..at].iter().all(|before| before.socket.is_none());
                if is_negative && !is_first && now < forward.begun + PATIENCE {
                    forward.negative.get_or_insert(response);
                    let due = forward.begun + PATIENCE;
                    self.held = (self.held + forward.size()).saturating_sub(before);
                    self.reschedule(number, due);
                    return None;
                }
                self.note_speed(number, (server, at), now);
                self.held = (self.held + self.all.get(&number)?.size()).saturating_sub(before);
                return self.remove(number, Some(response));
            }
        }
        self.held = (self.held + forward.size()).saturating_sub(before);
        None
    }

    /// The servers that were asked before the one that has answered, and have not, are slow.
    fn note_speed(&mut self, number: u32, (winner, at): (u8, usize), now: Instant) {
        let Some(forward) = self.all.get(&number) else { return };
        for attempt in forward.attempts[..at].iter().filter(|attempt| attempt.socket.is_some()) {
            if let Some(slow) = self.slow.get_mut(usize::from(attempt.server)) {
                *slow = Some(now + SLOW);
            }
        }
        if let Some(slow) = self.slow.get_mut(usize::from(winner)) {
            *slow = None;
        }
    }
}

/// Sends a question to a server.
fn ask(ground: Ground<'_>, ready: Ready, server: SocketAddr, question: Question<'_>) -> io::Result<Attempt> {
    let Question { query, by_tcp, by_host } = question;
    let kind = if by_tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let make = || Ok(socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?);
    let socket = if by_host { make() } else { ground.namespaces.inside(make) }?;
    match rustix::net::connect(&socket, &server) {
        Err(Errno::INPROGRESS) if by_tcp => {}
        other => other?,
    }
    let interest = if by_tcp { EventFlags::OUT } else { EventFlags::IN };
    epoll::add(ground.epoll, &socket, Token::Forward(ready.number, ready.server).data(), interest)?;
    if !by_tcp {
        rustix::net::send(&socket, query, SendFlags::NOSIGNAL)?;
    }
    Ok(Attempt { server: ready.server, socket: Some(socket), exchange: by_tcp.then(Exchange::default) })
}

impl Attempt {
    fn hear(&mut self, query: &[u8], buffer: &mut [u8]) -> Heard {
        let Some(socket) = &self.socket else { return Heard::Nothing };
        for _ in 0..DATAGRAMS {
            match rustix::net::recv(socket, &mut *buffer, RecvFlags::empty()) {
                Ok((length, _)) => match judge(query, &buffer[..length]) {
                    Heard::Nothing => {}
                    heard => return heard,
                },
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Heard::Nothing,
                // Nobody listens there, or there is no way.
                Err(_) => return Heard::Failure,
            }
        }
        Heard::Nothing
    }

    /// Sends or reads a part.
    fn exchange(&mut self, epoll: &OwnedFd, number: u32, query: &[u8], buffer: &mut [u8]) -> Heard {
        let token = Token::Forward(number, self.server);
        let (Some(socket), Some(exchange)) = (&self.socket, &mut self.exchange) else { return Heard::Nothing };
        if exchange.sent < query.len() + 2 {
            if !matches!(sockopt::socket_error(socket), Ok(Ok(()))) {
                return Heard::Failure;
            }
            let message = [&(query.len() as u16).to_be_bytes()[..], query].concat();
            match rustix::net::send(socket, &message[exchange.sent..], SendFlags::NOSIGNAL) {
                Ok(sent) => exchange.sent += sent,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return Heard::Failure,
            }
            if exchange.sent == message.len() && epoll::modify(epoll, socket, token.data(), EventFlags::IN).is_err() {
                return Heard::Failure;
            }
            return Heard::Nothing;
        }
        match rustix::net::recv(socket, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) => Heard::Failure,
            Ok((read, _)) if read > exchange.room => Heard::Failure,
            Ok((read, _)) => {
                exchange.input.extend_from_slice(&buffer[..read]);
                exchange.complete(query)
            }
            Err(Errno::AGAIN | Errno::INTR) => Heard::Nothing,
            Err(_) => Heard::Failure,
        }
    }
}

impl Exchange {
    /// One question was asked, so there is one answer: whatever else comes is a failure.
    fn complete(&self, query: &[u8]) -> Heard {
        let Some(length) = self.input.first_chunk::<2>().map(|length| usize::from(u16::from_be_bytes(*length))) else {
            return Heard::Nothing;
        };
        match self.input.get(2..2 + length) {
            None => Heard::Nothing,
            Some(response) => match judge(query, response) {
                Heard::Nothing => Heard::Failure,
                heard => heard,
            },
        }
    }
}

fn judge(query: &[u8], response: &[u8]) -> Heard {
    match message::judge(query, response) {
        Verdict::Foreign => Heard::Nothing,
        Verdict::Failed => Heard::Failure,
        Verdict::Answered { is_negative } => Heard::Answer { response: response.to_vec(), is_negative },
    }
}
