//! Proxied UDP: each client gets a socket of its own towards the container, so that answers find back.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventFlags};
use rustix::net::SocketType;
use sys::datagrams::{BATCH, Datagrams, Peer};

use super::token::{self, Token};

/// A client that is silent for this long is forgotten; the reference's value.
const EXPIRY: Duration = Duration::from_secs(90);
/// How often silence is looked for.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Clients of one place; the one that has been silent longest makes room.
const MAX_FLOWS: usize = 1024;
/// How often a full batch is taken from one socket in one round.
const ROUNDS: usize = 4;

/// The clients of the ports at one place.
#[derive(Debug, Default)]
pub struct Flows {
    by_client: HashMap<(u8, Peer), u32>,
    flows: HashMap<u32, Flow>,
    next: u32,
}

#[derive(Debug)]
struct Flow {
    /// Which of the sockets it speaks to.
    at: u8,
    client: Peer,
    container: OwnedFd,
    active: Instant,
}

/// The port that flows belong to.
#[derive(Clone, Copy, Debug)]
pub struct Front<'a> {
    pub epoll: BorrowedFd<'a>,
    /// Its place, and which of the sockets there it has.
    pub place: u32,
    pub at: u8,
    pub socket: BorrowedFd<'a>,
    pub target: SocketAddr,
    /// Sockets that may still be opened.
    pub room: usize,
}

impl Flows {
    /// Datagrams of clients have arrived on the port's socket.
    pub fn read_clients(&mut self, front: Front<'_>, datagrams: &mut Datagrams) {
        for _ in 0..ROUNDS {
            // Nothing left; or an answer could not be delivered, which is reported here.
            let Ok(count) = datagrams.receive(front.socket) else { return };
            let now = Instant::now();
            let mut first = 0;
            while first < count {
                let run = first..first + datagrams.run(first);
                first = run.end;
                let Some(client) = datagrams.peer(run.start) else { continue };
                let number = match self.by_client.get(&(front.at, client)) {
                    Some(number) => *number,
                    None => match self.open(front, client) {
                        Ok(number) => number,
                        Err(_) => continue,
                    },
                };
                if let Some(flow) = self.flows.get_mut(&number) {
                    flow.active = now;
                    send(datagrams, (flow.container.as_fd(), None), run);
                }
            }
            if count < BATCH {
                return;
            }
        }
    }

    fn open(&mut self, front: Front<'_>, client: Peer) -> rustix::io::Result<u32> {
        if (self.flows.len() >= MAX_FLOWS || front.room == 0)
            && let Some(&oldest) = self.flows.iter().min_by_key(|(_, flow)| flow.active).map(|(number, _)| number)
        {
            self.forget(oldest);
        }
        let container = token::socket_for(front.target, SocketType::DGRAM)?;
        rustix::net::connect(&container, &front.target)?;
        self.next = self.next.wrapping_add(1);
        epoll::add(front.epoll, &container, Token::Flow(front.place, self.next).data(), EventFlags::IN)?;
        self.flows.insert(self.next, Flow { at: front.at, client, container, active: Instant::now() });
        self.by_client.insert((front.at, client), self.next);
        Ok(self.next)
    }

    fn forget(&mut self, number: u32) {
        if let Some(flow) = self.flows.remove(&number) {
            self.by_client.remove(&(flow.at, flow.client));
        }
    }

    /// The container has answered one client.
    pub fn read_container(&mut self, number: u32, socket: BorrowedFd<'_>, datagrams: &mut Datagrams) {
        let Some(flow) = self.flows.get_mut(&number) else { return };
        for _ in 0..ROUNDS {
            // Nothing left; or nobody listens in the container, which the client finds out by itself.
            let Ok(count) = datagrams.receive(flow.container.as_fd()) else { return };
            flow.active = Instant::now();
            let mut first = 0;
            while first < count {
                let run = first..first + datagrams.run(first);
                first = run.end;
                send(datagrams, (socket, Some(flow.client)), run);
            }
            if count < BATCH {
                return;
            }
        }
    }

    /// Which of the sockets at its place a flow speaks to.
    pub fn socket_of(&self, number: u32) -> Option<u8> {
        self.flows.get(&number).map(|flow| flow.at)
    }

    /// Forgets the clients of other sockets.
    pub fn retain(&mut self, stays: impl Fn(u8) -> bool) {
        self.flows.retain(|_, flow| stays(flow.at));
        self.by_client.retain(|(at, _), _| stays(*at));
    }

    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Forgets the clients that are silent for long.
    pub fn expire(&mut self, now: Instant) {
        self.flows.retain(|_, flow| now.duration_since(flow.active) < EXPIRY);
        let flows = &self.flows;
        self.by_client.retain(|_, number| flows.contains_key(number));
    }
}

/// Sends some of the datagrams, as one packet where that can be; they may be lost.
fn send(datagrams: &Datagrams, (socket, to): (BorrowedFd<'_>, Option<Peer>), run: Range<usize>) {
    if run.len() > 1 && datagrams.send_run(socket, to, run.clone()).is_ok() {
        return;
    }
    for at in run {
        let sent = datagrams.send_run(socket, to, at..at + 1);
        // The address that was spoken to may be none that answers come from, as a broadcast.
        if let (Err(_), Some(Peer { address, local: Some(_) })) = (sent, to) {
            let _ = datagrams.send_run(socket, Some(Peer { address, local: None }), at..at + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::{Duration, Instant};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::EXPIRY;
    use crate::proto::{Port, Transport};
    use crate::proxy::Proxies;

    fn pump(proxies: &mut Proxies) {
        let fd = proxies.pollable().unwrap();
        let timeout = Timespec { tv_sec: 60, tv_nsec: 0 };
        assert!(poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&timeout)).unwrap() > 0);
        proxies.handle(&mut vec![0; 65536]);
    }

    #[test]
    fn answers_find_back_to_their_clients() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let front = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = front.local_addr().unwrap();
        let mut proxies = Proxies::default();
        let port = Port { transport: Transport::Udp, target: server.local_addr().unwrap() };
        proxies.add(port, front.into()).unwrap();
        let clients = [UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap()];
        for (client, text) in clients.iter().zip([&b"one"[..], b"two"]) {
            client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            client.send_to(text, address).unwrap();
            pump(&mut proxies);
            let mut buffer = [0; 16];
            let (n, from) = server.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..n], text);
            server.send_to(&[&buffer[..n], b"!"].concat(), from).unwrap();
            pump(&mut proxies);
            let (n, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..n], from), (&[text, b"!"].concat()[..], address));
        }
        // A burst, whose datagrams go together where they may.
        let sizes = [300, 300, 300, 20, 1400, 0, 1400];
        for (number, size) in sizes.iter().enumerate() {
            clients[number % 2].send_to(&vec![number as u8; *size], address).unwrap();
        }
        for _ in 0..sizes.len() {
            let mut buffer = [0; 2000];
            server.set_nonblocking(true).unwrap();
            let (n, from) = loop {
                match server.recv_from(&mut buffer) {
                    Ok(received) => break received,
                    Err(_) => pump(&mut proxies),
                }
            };
            assert!(buffer[..n].iter().all(|byte| sizes[usize::from(*byte)] == n));
            server.send_to(&buffer[..n], from).unwrap();
        }
        pump(&mut proxies);
        for number in 0..sizes.len() {
            let mut buffer = [0; 2000];
            clients[number % 2].set_nonblocking(true).unwrap();
            let n = loop {
                match clients[number % 2].recv(&mut buffer) {
                    Ok(n) => break n,
                    Err(_) => pump(&mut proxies),
                }
            };
            assert_eq!(n, sizes[number]);
            assert!(buffer[..n].iter().all(|byte| usize::from(*byte) == number));
        }
        assert!(proxies.deadline().is_some());
        proxies.expire(Instant::now() + EXPIRY + Duration::from_secs(1));
        assert!(proxies.deadline().is_none());
    }
}
