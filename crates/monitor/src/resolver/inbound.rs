//! The sockets that clients reach: bound to a port that the kernel chooses, while port 53 is steered to them
//! ([`sys::steer`]), so that a server of the container's may take port 53 on all its addresses. Where the kernel or the
//! privileges do not allow that, port 53 of the one address is bound.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, socket_with};

use super::place::{ADDRESS, MAX_QUERY, Namespaces, PORT};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;
/// Bytes of the heads of IPv4 and UDP.
const HEADS: usize = 20 + 8;
/// The lifetime in the head of IPv4.
const HOPS: u8 = 64;
const UDP: u8 = 17;

/// Sockets in the sandbox.
#[derive(Debug)]
pub struct Inbound {
    udp: OwnedFd,
    tcp: OwnedFd,
    answers: Answers,
}

/// How datagrams are answered.
#[derive(Debug)]
enum Answers {
    /// From the socket, which has the port.
    Bound,
    /// With the port written into the datagram's head, for as long as the steering is open.
    Written { raw: OwnedFd, buffer: Vec<u8>, _steering: OwnedFd },
}

impl Inbound {
    /// Makes the sockets.
    pub fn open(namespaces: &Namespaces) -> io::Result<Inbound> {
        match Inbound::steered(namespaces) {
            Ok(inbound) => Ok(inbound),
            Err(error) => {
                let (udp, tcp) = namespaces.inside(|| sockets(PORT)).map_err(|bound| {
                    io::Error::new(
                        bound.kind(),
                        format!("port 53 can neither be steered ({error}) nor bound ({bound})"),
                    )
                })?;
                Ok(Inbound { udp, tcp, answers: Answers::Bound })
            }
        }
    }

    fn steered(namespaces: &Namespaces) -> io::Result<Inbound> {
        let (udp, tcp, raw) = namespaces.inside(|| {
            let (udp, tcp) = sockets(0)?;
            Ok((udp, tcp, socket(SocketType::RAW, Some(rustix::net::ipproto::RAW))?))
        })?;
        let targets = sys::steer::Targets { udp: udp.as_fd(), tcp: tcp.as_fd() };
        let _steering = sys::steer::steer(namespaces.inside.as_fd(), (ADDRESS, PORT), targets)?;
        Ok(Inbound { udp, tcp, answers: Answers::Written { raw, buffer: Vec::new(), _steering } })
    }

    /// Readable when datagrams wait.
    pub fn datagrams(&self) -> BorrowedFd<'_> {
        self.udp.as_fd()
    }

    /// Readable when connections wait.
    pub fn listener(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }

    /// The next datagram; `None`: there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, SocketAddrV4)>> {
        match rustix::net::recvfrom(&self.udp, buffer, RecvFlags::empty()) {
            Ok((length, _, from)) => match from.map(SocketAddr::try_from) {
                Some(Ok(SocketAddr::V4(from))) => Ok(Some((length, from))),
                _ => Err(io::ErrorKind::InvalidData.into()),
            },
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sends a datagram; one that cannot be sent is lost, as datagrams may be.
    pub fn send(&mut self, answer: &[u8], to: SocketAddrV4) {
        match &mut self.answers {
            Answers::Bound => {
                let _ = rustix::net::sendto(&self.udp, answer, SendFlags::NOSIGNAL, &to);
            }
            Answers::Written { raw, buffer, .. } => {
                buffer.clear();
                write_heads(buffer, answer.len(), to);
                buffer.extend_from_slice(answer);
                let _ = rustix::net::sendto(&*raw, buffer, SendFlags::NOSIGNAL, &to);
                buffer.shrink_to(2 * MAX_QUERY);
            }
        }
    }
}

/// The heads of a datagram from the resolver (RFC 791, RFC 768). The kernel writes length, number and checksum of the first;
/// a checksum of 0 in the second is none, and the loopback needs none.
fn write_heads(out: &mut Vec<u8>, length: usize, to: SocketAddrV4) {
    let (whole, datagram) = ((HEADS + length) as u16, (8 + length) as u16);
    out.extend_from_slice(&[0x45, 0]);
    out.extend_from_slice(&whole.to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, 0, HOPS, UDP, 0, 0]);
    out.extend_from_slice(&ADDRESS.octets());
    out.extend_from_slice(&to.ip().octets());
    out.extend_from_slice(&PORT.to_be_bytes());
    out.extend_from_slice(&to.port().to_be_bytes());
    out.extend_from_slice(&datagram.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
}

fn socket(kind: SocketType, protocol: Option<Protocol>) -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, protocol)?)
}

/// For datagrams, and listening.
fn sockets(port: u16) -> io::Result<(OwnedFd, OwnedFd)> {
    let (udp, tcp) = (socket(SocketType::DGRAM, None)?, socket(SocketType::STREAM, None)?);
    let address = SocketAddrV4::new(ADDRESS, port);
    rustix::net::bind(&udp, &address)?;
    rustix::net::bind(&tcp, &address)?;
    rustix::net::listen(&tcp, BACKLOG)?;
    Ok((udp, tcp))
}
