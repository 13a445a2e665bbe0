//! Clients that ask by TCP: messages with their length before them (RFC 1035, 4.2.2), any number on a connection.

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with};

use super::place::{Client, MAX_QUERY, Token};

/// Connections at once; the one that has been silent longest makes room.
const MAX_STREAMS: usize = 64;
/// Connections accepted in one round.
const ACCEPTS: usize = 16;
/// Queries of one connection that are under way.
const MAX_PENDING: usize = 16;
/// Bytes of answers that wait for one client before no more of its queries are taken.
const MAX_OUTPUT: usize = 64 << 10;
/// How long a connection may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// Bytes of the length before a message.
const LENGTH: usize = 2;

/// All connections.
#[derive(Debug, Default)]
pub struct Streams {
    all: HashMap<u32, Stream>,
    next: u32,
}

#[derive(Debug)]
struct Stream {
    socket: OwnedFd,
    input: Vec<u8>,
    output: Vec<u8>,
    pending: usize,
    /// The client sends no more.
    ended: bool,
    broken: bool,
    until: Instant,
    interest: EventFlags,
}

impl Stream {
    fn takes_queries(&self) -> bool {
        self.pending < MAX_PENDING && self.output.len() < MAX_OUTPUT && !self.broken
    }

    fn flush(&mut self) {
        while !self.output.is_empty() && !self.broken {
            match rustix::net::send(&self.socket, &self.output, SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    self.output.drain(..sent);
                    self.until = Instant::now() + IDLE;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.broken = true,
            }
        }
        self.output.shrink_to(MAX_QUERY);
    }

    fn read(&mut self, buffer: &mut [u8]) {
        let room = (LENGTH + MAX_QUERY).saturating_sub(self.input.len()).min(buffer.len());
        if room == 0 || self.ended {
            return;
        }
        match rustix::net::recv(&self.socket, &mut buffer[..room], RecvFlags::empty()) {
            Ok((0, _)) => self.ended = true,
            Ok((read, _)) => {
                self.input.extend_from_slice(&buffer[..read]);
                self.until = Instant::now() + IDLE;
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.broken = true,
        }
    }

    fn is_over(&self) -> bool {
        self.broken || self.ended && self.pending == 0 && self.output.is_empty()
    }
}

impl Streams {
    /// Accepts what waits; an error when that cannot be done now.
    pub fn accept(&mut self, epoll: &OwnedFd, listener: BorrowedFd<'_>) -> Result<(), Errno> {
        for _ in 0..ACCEPTS {
            let socket = match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => socket,
                Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => return Err(error),
                Err(_) => return Ok(()),
            };
            if self.all.len() >= MAX_STREAMS
                && let Some(silent) = self.all.iter().min_by_key(|(_, stream)| stream.until).map(|(number, _)| *number)
            {
                self.all.remove(&silent);
            }
            self.next = self.next.wrapping_add(1);
            epoll::add(epoll, &socket, Token::Stream(self.next).data(), EventFlags::IN)?;
            let stream = Stream {
                socket,
                input: Vec::new(),
                output: Vec::new(),
                pending: 0,
                ended: false,
                broken: false,
                until: Instant::now() + IDLE,
                interest: EventFlags::IN,
            };
            self.all.insert(self.next, stream);
        }
        Ok(())
    }

    /// Reads and writes what a connection is ready for.
    pub fn advance(&mut self, number: u32, flags: EventFlags, buffer: &mut [u8]) {
        let Some(stream) = self.all.get_mut(&number) else { return };
        if flags.contains(EventFlags::OUT) {
            stream.flush();
        }
        if flags.contains(EventFlags::IN) {
            stream.read(buffer);
        }
        stream.broken |= flags.contains(EventFlags::ERR);
    }

    /// The next complete query; who announces one that is too large is let go.
    pub fn next_query(&mut self, number: u32) -> Option<Vec<u8>> {
        let stream = self.all.get_mut(&number).filter(|stream| stream.takes_queries())?;
        let length = usize::from(u16::from_be_bytes([*stream.input.first()?, *stream.input.get(1)?]));
        if length > MAX_QUERY {
            stream.broken = true;
            return None;
        }
        let query = stream.input.get(LENGTH..LENGTH + length)?.to_vec();
        stream.input.drain(..LENGTH + length);
        stream.pending += 1;
        Some(query)
    }

    /// Sends the answer to one of the queries; nothing happens when the client is gone.
    pub fn answer(&mut self, number: u32, answer: &[u8]) {
        let Some(stream) = self.all.get_mut(&number) else { return };
        stream.pending = stream.pending.saturating_sub(1);
        let Ok(length) = u16::try_from(answer.len()) else {
            stream.broken = true;
            return;
        };
        stream.output.extend_from_slice(&length.to_be_bytes());
        stream.output.extend_from_slice(answer);
        stream.flush();
    }

    /// What was no query is not answered.
    pub fn dropped(&mut self, client: Client) {
        if let Client::Stream(number) = client
            && let Some(stream) = self.all.get_mut(&number)
        {
            stream.pending = stream.pending.saturating_sub(1);
        }
    }

    /// Watches a connection for what it needs now, or closes it.
    pub fn update_interest(&mut self, epoll: &OwnedFd, number: u32) {
        let Some(stream) = self.all.get_mut(&number) else { return };
        if stream.is_over() {
            self.all.remove(&number);
            return;
        }
        let mut interest = EventFlags::empty();
        let has_room = stream.input.len() < LENGTH + MAX_QUERY;
        interest.set(EventFlags::IN, !stream.ended && has_room && stream.takes_queries());
        interest.set(EventFlags::OUT, !stream.output.is_empty());
        if interest != stream.interest {
            stream.interest = interest;
            let watched = epoll::modify(epoll, &stream.socket, Token::Stream(number).data(), interest);
            if watched.is_err() {
                self.all.remove(&number);
            }
        }
    }

    /// When a connection has been silent for too long.
    pub fn deadline(&self) -> Option<Instant> {
        self.all.values().map(|stream| stream.until).min()
    }

    /// Closes connections that have been silent for too long.
    pub fn expire(&mut self, now: Instant) {
        self.all.retain(|_, stream| stream.until > now);
    }
}
