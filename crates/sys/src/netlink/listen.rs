//! Sockets that hold a host port: bound, listening where the protocol listens, and deaf until released.
//!
//! A listening socket would accept connections before the rules that forward them stand, so each starts with a filter
//! that drops every packet (TCP clients send their SYN again); `hear` removes it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, ipproto, sockopt};

/// Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 65535;

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

/// A deaf socket on `address`. IPv6 sockets take IPv6 only.
pub fn bind(kind: Kind, address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (socket_type, protocol) = kind.socket();
    let fd = rustix::net::socket_with(family, socket_type, SocketFlags::CLOEXEC, Some(protocol))?;
    if kind == Kind::Tcp {
        sockopt::set_socket_reuseaddr(&fd, true)?;
    }
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, true)?;
    }
    if kind == Kind::Udp {
        let (level, option) = if address.is_ipv4() {
            (libc::IPPROTO_IP, libc::IP_PKTINFO)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
        };
        set_option(&fd, level, option, &1i32)?;
    }
    deafen(&fd)?;
    rustix::net::bind(&fd, &address)?;
    if kind != Kind::Udp {
        rustix::net::listen(&fd, BACKLOG)?;
    }
    Ok(fd)
}

/// Removes the filter.
pub fn hear(fd: &OwnedFd) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &0i32)
}

/// Whether this namespace can bind IPv6 sockets.
pub fn has_ipv6() -> bool {
    let any = SocketAddr::from(([0u16; 8], 0));
    bind(Kind::Udp, any).is_ok()
}

fn deafen(fd: &OwnedFd) -> io::Result<()> {
    // One instruction: return 0, the number of bytes to keep.
    let mut drop_all = libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut drop_all };
    set_option(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
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
