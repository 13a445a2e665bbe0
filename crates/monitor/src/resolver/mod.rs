//! The resolver of a sandbox: 127.0.0.11, port 53, by UDP and TCP, for everybody in the network namespace.
//!
//! It belongs to the monitor of the container that owns the sandbox, so it does not depend on the daemon: names lie in files
//! that the daemon replaces ([`dns::names`]). All its sockets are in one epoll instance, which the monitor's loop polls as one
//! descriptor, and each round deals with a bounded part of what waits: a flood of queries takes turns with the log. What is
//! remembered is bounded, too: connections, queries under way, answers kept.

mod cache;
mod forward;
mod gates;
mod inbound;
mod local;
mod place;
mod stream;
mod upstream;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use dns::message::{self, Answer, Invalid, Query, rcode};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventFlags};

use crate::proto::{Event, ResolverSpec};
use cache::Cache;
use forward::{Finished, Forwards, Ground, Ready};
use gates::Gates;
use inbound::Inbound;
use local::Local;
pub use place::Namespaces;
use place::{Client, MAX_QUERY, Token};
use stream::Streams;
use upstream::Servers;

/// Datagrams that one round takes.
const DATAGRAMS: usize = 64;
/// Events of one round.
const EVENTS: usize = 32;
/// Pause after an accept that failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The resolver of one sandbox.
#[derive(Debug)]
pub struct Resolver {
    epoll: OwnedFd,
    namespaces: Namespaces,
    inbound: Inbound,
    local: Local,
    servers: Servers,
    forwards: Forwards,
    cache: Cache,
    streams: Streams,
    gates: Gates,
    /// Connections that got an answer and may have further queries.
    resumed: Vec<u32>,
    /// Scratch space of answers.
    out: Vec<u8>,
    /// Connections are not accepted until then.
    paused_until: Option<Instant>,
}

impl Resolver {
    /// Begins to answer in a namespace whose loopback is up.
    pub fn open(namespace: OwnedFd, spec: ResolverSpec) -> io::Result<Resolver> {
        let namespaces = Namespaces { inside: namespace, home: sys::netlink::namespace::current()? };
        let inbound = Inbound::open(&namespaces)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, inbound.datagrams(), Token::Datagrams.data(), EventFlags::IN)?;
        epoll::add(&epoll, inbound.listener(), Token::Listener.data(), EventFlags::IN)?;
        let mut resolver = Resolver {
            epoll,
            namespaces,
            inbound,
            local: Local::default(),
            servers: Servers::default(),
            forwards: Forwards::default(),
            cache: Cache::default(),
            streams: Streams::default(),
            gates: Gates::default(),
            resumed: Vec::new(),
            out: Vec::new(),
            paused_until: None,
        };
        resolver.change(spec);
        Ok(resolver)
    }

    /// Other networks, aliases or servers from now on.
    pub fn change(&mut self, spec: ResolverSpec) {
        self.cache.clear();
        self.servers = Servers::new(&spec);
        self.gates.change(&self.epoll, spec.gates, spec.is_confined);
        self.local = Local::new(spec.zones, spec.keeps_single_labels);
    }

    /// Readable when there is something to do.
    pub fn pollable(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// When [`Resolver::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let own = [self.forwards.deadline(), self.streams.deadline(), self.paused_until, self.gates.deadline()];
        own.into_iter().flatten().min()
    }

    /// Deals with a bounded part of what is ready. `buffer` is scratch space.
    pub fn handle(&mut self, buffer: &mut [u8]) {
        let mut events = Vec::with_capacity(EVENTS);
        let none = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        if epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&none)).is_err() {
            return;
        }
        for event in events {
            let epoll::Event { flags, data } = event;
            match Token::of(data) {
                Token::Datagrams => self.read_datagrams(buffer),
                Token::Listener => self.accept(),
                Token::Stream(number) => self.advance_stream(number, flags, buffer),
                Token::Forward(number, server) => {
                    let finished = self.forwards.handle(&self.epoll, Ready { number, server }, buffer);
                    self.finish(finished);
                }
                Token::Gate(index) => self.gates.receive(&self.epoll, index, Instant::now()),
            }
        }
        self.go_on();
    }

    /// Asks further servers, gives up what nobody answers, closes idle connections.
    pub fn expire(&mut self, now: Instant) {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
            let _ = epoll::modify(&self.epoll, self.inbound.listener(), Token::Listener.data(), EventFlags::IN);
        }
        self.streams.expire(now);
        self.gates.expire(&self.epoll, now);
        if self.forwards.deadline().is_some_and(|at| at <= now) {
            self.go_on();
        }
    }

    /// What the sandbox's rules did not let pass and nobody was told of.
    pub fn take_denied(&mut self) -> Option<Event> {
        let (denied, more) = self.gates.has_denied().then(|| self.gates.take_denied())?;
        Some(Event::Denied { denied, more })
    }

    /// Sends what is due of queries under way, and takes the next queries of connections that have got their answers.
    fn go_on(&mut self) {
        let now = Instant::now();
        loop {
            if let Some(number) = self.forwards.due(now) {
                let servers = self.servers.at(now);
                let ground = Ground { epoll: &self.epoll, namespaces: &self.namespaces, now };
                let finished = self.forwards.advance(ground, number, servers);
                self.finish(finished);
            } else if let Some(number) = self.resumed.pop() {
                self.take_queries(number);
            } else {
                return;
            }
        }
    }

    fn read_datagrams(&mut self, buffer: &mut [u8]) {
        for _ in 0..DATAGRAMS {
            match self.inbound.receive(buffer) {
                Ok(Some((length, from))) => self.ask(&buffer[..length], Client::Datagram(from)),
                Ok(None) => return,
                Err(_) => {}
            }
        }
    }

    fn accept(&mut self) {
        match self.streams.accept(&self.epoll, self.inbound.listener()) {
            Ok(()) => {}
            Err(_) => {
                self.paused_until = Some(Instant::now() + ACCEPT_PAUSE);
                let none = EventFlags::empty();
                let _ = epoll::modify(&self.epoll, self.inbound.listener(), Token::Listener.data(), none);
            }
        }
    }

    fn advance_stream(&mut self, number: u32, flags: EventFlags, buffer: &mut [u8]) {
        self.streams.advance(number, flags, buffer);
        self.take_queries(number);
    }

    fn take_queries(&mut self, number: u32) {
        while let Some(query) = self.streams.next_query(number) {
            self.ask(&query, Client::Stream(number));
        }
        self.streams.update_interest(&self.epoll, number);
    }

    /// Answers at once, or asks elsewhere.
    fn ask(&mut self, bytes: &[u8], client: Client) {
        let query = match Query::parse(bytes) {
            Ok(query) if bytes.len() <= MAX_QUERY => query,
            Ok(_) => return self.refuse(bytes, rcode::FORMAT_ERROR, client),
            Err(Invalid::Code(code)) => return self.refuse(bytes, code, client),
            Err(Invalid::Silent) => return self.streams.dropped(client),
        };
        let limit = limit(&query, client);
        let now = Instant::now();
        if self.local.answer(&query, limit, &mut self.out) {
            if !self.gates.is_empty() {
                message::age(&mut self.out, message::NAME_TTL - gates::LOCAL_LASTS);
                self.gates.open(query.name().text(), &self.out, (true, now));
            }
            return self.send(client);
        }
        // To who asks, the name does not exist; a refusal would be asked for again and again.
        if !self.gates.is_empty() && !self.may_ask(&query, now) {
            return self.refuse(bytes, rcode::NO_SUCH_NAME, client);
        }
        let servers = self.servers.at(now);
        if servers.changed {
            self.cache.clear();
        }
        if self.cache.answer(&query, now, &mut self.out) {
            if self.out.len() > limit {
                let kept = std::mem::take(&mut self.out);
                message::truncate(&query, &kept, &mut self.out);
            }
            return self.send(client);
        }
        if servers.addresses.is_empty() {
            return self.refuse(bytes, rcode::SERVER_FAILURE, client);
        }
        if !self.forwards.begin(&query, client, now) {
            self.refuse(bytes, rcode::REFUSED, client);
        }
    }

    /// Whether others than the sandbox's networks may be asked.
    fn may_ask(&mut self, query: &Query<'_>, now: Instant) -> bool {
        let is_common = query.class == message::kind::INTERNET && query.name().is_plain();
        self.gates.may_ask(if is_common { query.name().text() } else { b"" }, now)
    }

    fn refuse(&mut self, query: &[u8], code: u8, client: Client) {
        match Query::parse(query) {
            Ok(query) => Answer::begin(&query, code, message::PLAIN_SIZE, &mut self.out).end(),
            Err(_) => message::refusal(query, code, &mut self.out),
        }
        self.send(client);
    }

    /// A query that was asked elsewhere is over.
    fn finish(&mut self, finished: Option<Finished>) {
        let Some(Finished { mut query, client, client_id, response }) = finished else { return };
        if let Client::Stream(number) = client {
            self.resumed.push(number);
        }
        message::set_id(&mut query, client_id);
        let Some(mut response) = response else { return self.refuse(&query, rcode::SERVER_FAILURE, client) };
        let Ok(asked) = Query::parse(&query) else { return };
        message::address_to(&asked, &mut response);
        let now = Instant::now();
        self.cache.keep(&asked, &response, now);
        if !self.gates.is_empty() {
            self.gates.open(asked.name().text(), &response, (false, now));
        }
        match response.len() > limit(&asked, client) {
            true => message::truncate(&asked, &response, &mut self.out),
            false => self.out = response,
        }
        self.send(client);
    }

    /// Sends what was written.
    fn send(&mut self, client: Client) {
        match client {
            Client::Datagram(to) => self.inbound.send(&self.out, to),
            Client::Stream(number) => self.streams.answer(number, &self.out),
        }
        // A large answer is an exception.
        if self.out.capacity() > 2 * MAX_QUERY {
            self.out = Vec::new();
        }
    }
}

/// Bytes of an answer.
fn limit(query: &Query<'_>, client: Client) -> usize {
    match client {
        Client::Datagram(_) => query.datagram_size(),
        Client::Stream(_) => message::MAX_MESSAGE,
    }
}

#[cfg(test)]
mod tests;
