//! What an event of epoll belongs to, and sockets towards containers.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::event::epoll::EventData;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// The sockets of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Container,
}

/// What an epoll event belongs to, packed into its 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// A place, and which of its sockets.
    Port(u32, u8),
    /// A place, number of a flow.
    Flow(u32, u32),
    /// Number of a connection, and which of its sockets.
    Connection(u64, Side),
}

impl Token {
    /// As epoll keeps it.
    pub fn data(self) -> EventData {
        EventData::new_u64(match self {
            Token::Port(place, at) => (u64::from(place) << 10) | (u64::from(at) << 2),
            Token::Flow(port, flow) => (u64::from(flow) << 32) | (u64::from(port) << 2) | 1,
            Token::Connection(number, Side::Client) => (number << 2) | 2,
            Token::Connection(number, Side::Container) => (number << 2) | 3,
        })
    }

    /// From what epoll tells.
    pub fn of(data: EventData) -> Token {
        let bits = data.u64();
        let port = ((bits & 0xffff_ffff) >> 2) as u32;
        match bits & 3 {
            0 => Token::Port((bits >> 10) as u32, (bits >> 2) as u8),
            1 => Token::Flow(port, (bits >> 32) as u32),
            2 => Token::Connection(bits >> 2, Side::Client),
            _ => Token::Connection(bits >> 2, Side::Container),
        }
    }
}

/// A non-blocking socket of the family that `target` needs.
pub fn socket_for(target: SocketAddr, kind: SocketType) -> rustix::io::Result<OwnedFd> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_packing() {
        for token in [
            Token::Port(0, 0),
            Token::Port(70_000, 255),
            Token::Flow(3, u32::MAX),
            Token::Connection(1 << 40, Side::Container),
        ] {
            assert_eq!(Token::of(token.data()), token);
        }
    }
}
