//! Where the resolver is, who reaches it, and in which namespaces its sockets are.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::EventData;
use sys::clone::Flags;

/// The address of the resolver in every sandbox.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// The port of DNS.
pub const PORT: u16 = 53;
/// Bytes of a query; more is refused.
pub const MAX_QUERY: usize = 4096;

/// Who has asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// By a datagram from this address.
    Datagram(SocketAddrV4),
    /// By the connection of this number.
    Stream(u32),
}

/// What an epoll event belongs to, packed into its 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    Datagrams,
    Listener,
    /// Number of a connection.
    Stream(u32),
    /// Number of a query under way, index of the server.
    Forward(u32, u8),
    /// Index of a gate.
    Gate(u32),
}

impl Token {
    /// As epoll keeps it.
    pub fn data(self) -> EventData {
        EventData::new_u64(match self {
            Token::Datagrams => 0,
            Token::Listener => 1,
            Token::Stream(number) => u64::from(number) << 16 | 2,
            Token::Gate(index) => u64::from(index) << 16 | 4,
            Token::Forward(number, server) => u64::from(number) << 16 | u64::from(server) << 8 | 3,
        })
    }

    /// From what epoll has kept.
    pub fn of(data: EventData) -> Token {
        let bits = data.u64();
        match bits & 7 {
            0 => Token::Datagrams,
            1 => Token::Listener,
            2 => Token::Stream((bits >> 16) as u32),
            4 => Token::Gate((bits >> 16) as u32),
            _ => Token::Forward((bits >> 16) as u32, (bits >> 8) as u8),
        }
    }
}

/// The namespaces that sockets are made in.
#[derive(Debug)]
pub struct Namespaces {
    /// The sandbox's.
    pub inside: OwnedFd,
    /// The monitor's own.
    pub home: OwnedFd,
}

impl Namespaces {
    /// Of the sandbox in which the process of a pidfd lives, whoever it shares that with.
    pub fn of_process(pidfd: BorrowedFd<'_>) -> io::Result<Namespaces> {
        let inside = sys::ns::of_process(pidfd, Flags::NEWNET)?;
        Ok(Namespaces { inside, home: sys::netlink::namespace::current()? })
    }

    /// Runs `work` in the sandbox.
    pub fn inside<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        sys::ns::in_network(self.inside.as_fd(), self.home.as_fd(), work)
    }
}
