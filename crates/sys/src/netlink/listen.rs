//! Sockets that hold a host port: bound, listening where the protocol listens, and deaf until released.
//!
//! A listening socket would accept connections before the rules that forward them stand. One of TCP is bound first and
//! listens when they do; others start with a filter that drops every packet, and `start` removes it. All sockets share one
//! program: a program for each costs more than the socket.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, ipproto, sockopt};

use crate::bpf::{self, insn};

/// Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 65535;

/// `enum bpf_prog_type`; of `enum bpf_attach_type` such a program has none.
const PROG_TYPE_SOCKET_FILTER: u32 = 1;
const NOT_IN_A_CGROUP: u32 = 0;

/// What kind of socket holds a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Listens; `SO_REUSEADDR`, so that connections in TIME_WAIT do not block the port.
    Tcp,
    /// Delivers the destination address of each datagram (`IP_PKTINFO`).
    Udp,
    /// Listens.
    Sctp,
}

impl Kind {
    fn socket(self) -> (SocketType, Protocol) {
        match self {
            Kind::Tcp => (SocketType::STREAM, ipproto::TCP),
            Kind::Udp => (SocketType::DGRAM, ipproto::UDP),
            Kind::Sctp => (SocketType::STREAM, ipproto::SCTP),
        }
    }
}

/// The filter that drops every packet.
#[derive(Debug)]
pub struct Filter {
    /// `None`: this kernel takes no such program, each socket gets one of the older form.
    program: Option<OwnedFd>,
}

impl Filter {
    /// Loads it.
    pub fn load() -> Filter {
        // Return 0, the number of bytes to keep.
        let drop_all = [insn(bpf::MOVE, 0, 0, 0), insn(bpf::EXIT, 0, 0, 0)];
        Filter { program: bpf::load(PROG_TYPE_SOCKET_FILTER, NOT_IN_A_CGROUP, &drop_all).ok() }
    }

    fn attach(&self, fd: &OwnedFd) -> io::Result<()> {
        if let Some(program) = &self.program {
            return set_option(fd, libc::SOL_SOCKET, libc::SO_ATTACH_BPF, &program.as_raw_fd());
        }
        let mut drop_all = libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 };
        let program = libc::sock_fprog { len: 1, filter: &raw mut drop_all };
        set_option(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
    }
}

/// Which families a socket is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Its address's.
    Own,
    /// An IPv6 socket takes IPv4 as well: it is bound to the port of all addresses of both.
    Both,
}

/// What becomes of a deaf socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// It listens later ([`start`]). One of TCP does not listen until then: whoever connects is refused.
    Later,
    /// It only keeps others from the port.
    Never,
}

/// A deaf socket on `address`.
pub fn bind(
    kind: Kind,
    (address, reach): (SocketAddr, Reach),
    (opening, filter): (Opening, &Filter),
) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (socket_type, protocol) = kind.socket();
    let fd = rustix::net::socket_with(family, socket_type, SocketFlags::CLOEXEC, Some(protocol))?;
    if kind == Kind::Tcp {
        sockopt::set_socket_reuseaddr(&fd, true)?;
    }
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, reach == Reach::Own)?;
    }
    if kind == Kind::Udp {
        let (level, option) = if address.is_ipv4() {
            (libc::IPPROTO_IP, libc::IP_PKTINFO)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
        };
        set_option(&fd, level, option, &1i32)?;
    }
    let listens_later = kind == Kind::Tcp && opening == Opening::Later;
    if !listens_later {
        filter.attach(&fd)?;
    }
    rustix::net::bind(&fd, &address)?;
    if kind != Kind::Udp && !listens_later {
        rustix::net::listen(&fd, BACKLOG)?;
    }
    Ok(fd)
}

/// Lets a socket of [`Opening::Later`] listen. `ADDRINUSE`: another process listens at the port meanwhile.
pub fn start(kind: Kind, fd: &OwnedFd) -> io::Result<()> {
    match kind {
        Kind::Tcp => Ok(rustix::net::listen(fd, BACKLOG)?),
        Kind::Udp | Kind::Sctp => set_option(fd, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &0i32),
    }
}

/// Whether this namespace can bind IPv6 sockets.
pub fn has_ipv6() -> bool {
    std::net::UdpSocket::bind(SocketAddr::from(([0u16; 8], 0))).is_ok()
}

fn set_option<T>(fd: &OwnedFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is a live T and `size` is its size; what a filter program points to outlives the call.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (value as *const T).cast(), size) };
    if result == 0 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL).into())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
    use std::time::Duration;

    use super::*;

    fn at(ip: [u8; 4]) -> (SocketAddr, Reach) {
        (SocketAddr::from((ip, 0)), Reach::Own)
    }

    #[test]
    fn a_port_is_held_before_it_is_listened_at() {
        let any = (SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)), Reach::Both);
        let socket = bind(Kind::Tcp, any, (Opening::Later, &Filter::load())).unwrap();
        let held = TcpListener::from(socket.try_clone().unwrap());
        let port = held.local_addr().unwrap().port();
        let families = [SocketAddr::from(([127, 0, 0, 1], port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))];
        for address in families {
            assert_eq!(TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        }
        start(Kind::Tcp, &socket).unwrap();
        for address in families {
            assert!(TcpStream::connect(address).is_ok());
            assert_eq!(TcpListener::bind(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[test]
    fn sockets_are_deaf_until_they_hear_by_either_form() {
        for filter in [Filter::load(), Filter { program: None }] {
            let socket = bind(Kind::Udp, at([127, 0, 0, 1]), (Opening::Later, &filter)).unwrap();
            let hearer = UdpSocket::from(socket.try_clone().unwrap());
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            // What is dropped is dropped at once, on the sender's thread.
            sender.send_to(b"early", hearer.local_addr().unwrap()).unwrap();
            start(Kind::Udp, &socket).unwrap();
            sender.send_to(b"late", hearer.local_addr().unwrap()).unwrap();
            hearer.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let mut buffer = [0; 8];
            let n = hearer.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..n], b"late", "{filter:?}");
        }
    }
}
