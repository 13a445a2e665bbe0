//! Sockets of published ports, as they came: one by one, or parked in a queue that takes one descriptor.
//!
//! What thousands of ports lead to is kept as runs of consecutive ones.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use sys::fdpass::Parked;

use super::udp::Flows;
use crate::proto::{Bound, Port};

/// The ports at one place.
#[derive(Debug)]
pub struct Listening {
    runs: Vec<Run>,
    pub sockets: Sockets,
    pub flows: Flows,
}

/// Consecutive sockets that lead to consecutive ports of one address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    /// The first socket.
    first: u8,
    /// One more than the last.
    end: u8,
    /// Where the first one leads.
    port: Port,
}

/// Where the sockets are.
#[derive(Debug)]
pub enum Sockets {
    Held(OwnedFd),
    Parked(Parked),
}

/// A port's socket, for a while.
pub enum Lent<'a> {
    Held(BorrowedFd<'a>),
    Copied(OwnedFd),
}

impl Listening {
    /// A single port.
    pub fn held(port: Port, socket: OwnedFd) -> Listening {
        Listening {
            runs: vec![Run { first: 0, end: 1, port }],
            sockets: Sockets::Held(socket),
            flows: Flows::default(),
        }
    }

    /// A port for each socket of a queue; `None`: one that is only kept.
    pub fn parked(ports: &[Option<Port>], queue: Parked) -> Listening {
        Listening { runs: runs(ports), sockets: Sockets::Parked(queue), flows: Flows::default() }
    }

    /// How many ports are served.
    pub fn served(&self) -> usize {
        self.runs.iter().map(|run| usize::from(run.end - run.first)).sum()
    }

    /// Where a socket leads.
    pub fn port(&self, at: u8) -> Option<Port> {
        self.runs.iter().find(|run| (run.first..run.end).contains(&at)).map(|run| run.port(at))
    }

    /// Closes the sockets that are bound so; those that stay keep their numbers. How many sockets there are then.
    pub fn close(&mut self, named: &HashSet<Bound>) -> io::Result<usize> {
        let copies = match &self.sockets {
            Sockets::Held(socket) => return Ok(usize::from(!named.contains(&bound_to(socket)?))),
            Sockets::Parked(queue) => queue.copies()?,
        };
        let closed = copies.iter().map(|copy| Ok(named.contains(&bound_to(copy)?))).collect::<io::Result<Vec<_>>>()?;
        let left = closed.iter().filter(|closed| !**closed).count();
        if left == 0 || left == closed.len() {
            return Ok(left);
        }
        // A number stays with its socket, since epoll tells it: what is closed is held by a copy of one that stays.
        let Some(stays) = closed.iter().position(|closed| !closed) else { return Ok(0) };
        let anew: Vec<_> = copies
            .iter()
            .zip(&closed)
            .map(|(copy, closed)| if *closed { &copies[stays] } else { copy }.as_fd())
            .collect();
        self.sockets = Sockets::Parked(Parked::new(&anew)?);
        let ports: Vec<_> = (0..).zip(&closed).map(|(at, closed)| self.port(at).filter(|_| !closed)).collect();
        self.runs = runs(&ports);
        self.flows.retain(|at| self.runs.iter().any(|run| (run.first..run.end).contains(&at)));
        Ok(left)
    }
}

impl Run {
    fn port(&self, at: u8) -> Port {
        let Port { transport, target } = &self.port;
        let number = target.port().wrapping_add(u16::from(at - self.first));
        Port { transport: *transport, target: SocketAddr::new(target.ip(), number) }
    }
}

/// Where a socket is bound, and of which protocol it is.
pub fn bound_to(socket: &OwnedFd) -> io::Result<Bound> {
    let protocol = rustix::net::sockopt::socket_protocol(socket)?;
    let protocol = protocol.map_or(0, |protocol| protocol.as_raw().get()) as u8;
    let address = rustix::net::getsockname(socket)?.try_into().map_err(|_| io::Error::from(Errno::AFNOSUPPORT))?;
    Ok(Bound { protocol, address })
}

/// At most 255 ports, as runs.
fn runs(ports: &[Option<Port>]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (at, port) in (0..u8::MAX).zip(ports) {
        let Some(port) = port else { continue };
        match runs.last_mut() {
            Some(run) if run.end == at && run.port(at) == *port => run.end += 1,
            _ => runs.push(Run { first: at, end: at + 1, port: port.clone() }),
        }
    }
    runs
}

impl Sockets {
    /// One of them.
    pub fn lend(&self, at: u8) -> io::Result<Lent<'_>> {
        match self {
            Sockets::Held(socket) => Ok(Lent::Held(socket.as_fd())),
            Sockets::Parked(queue) => {
                let copies = queue.copies()?;
                copies.into_iter().nth(usize::from(at)).map(Lent::Copied).ok_or_else(|| Errno::BADF.into())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Transport;

    #[test]
    fn runs_are_what_they_were_made_of() {
        let port = |transport, target: &str| Some(Port { transport, target: target.parse().unwrap() });
        let tcp = |target| port(Transport::Tcp, target);
        let ports = [
            tcp("10.0.0.1:80"),
            tcp("10.0.0.1:81"),
            None,
            tcp("10.0.0.1:83"),
            port(Transport::Udp, "10.0.0.1:84"),
            tcp("[fd00::1]:85"),
            tcp("[fd00::1]:86"),
            tcp("10.0.0.1:65535"),
            tcp("10.0.0.1:1"),
        ];
        let made = runs(&ports);
        assert_eq!(made.len(), 6);
        let (queue, _) = sys::fdpass::pair().unwrap();
        let listening = Listening::parked(&ports, Parked::from(queue));
        assert_eq!(listening.served(), 8);
        for (at, port) in (0..).zip(&ports) {
            assert_eq!(listening.port(at), *port);
        }
        assert_eq!(listening.port(200), None);
    }
}
