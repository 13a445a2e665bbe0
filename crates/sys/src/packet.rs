//! Frames of one link (packet(7)).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

/// Sends frames by one link. It receives none.
#[derive(Debug)]
pub struct LinkSocket {
    fd: OwnedFd,
}

impl LinkSocket {
    /// For the link with this index in the calling thread's namespace; needs CAP_NET_RAW there. To close it takes the kernel
    /// a grace period of RCU.
    ///
    /// # Errors
    /// `EAFNOSUPPORT`: the kernel has no such sockets; `ENODEV`: there is no such link.
    pub fn open(index: u32) -> io::Result<LinkSocket> {
        let fd = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        let mut address = empty();
        address.sll_ifindex = i32::try_from(index).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
        // SAFETY: the address is a whole sockaddr_ll, and the descriptor is a packet socket.
        let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), LENGTH) };
        if bound == 0 { Ok(LinkSocket { fd }) } else { Err(io::Error::last_os_error()) }
    }

    /// The link's present hardware address.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL`: it has none of six bytes.
    pub fn mac(&self) -> io::Result<[u8; 6]> {
        let (mut address, mut length) = (empty(), LENGTH);
        // SAFETY: the kernel writes at most `length` bytes, which the address has.
        let told = unsafe { libc::getsockname(self.fd.as_raw_fd(), (&raw mut address).cast(), &raw mut length) };
        if told != 0 {
            return Err(io::Error::last_os_error());
        }
        match address {
            libc::sockaddr_ll { sll_halen: 6, sll_addr: [a, b, c, d, e, f, ..], .. } => Ok([a, b, c, d, e, f]),
            _ => Err(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL)),
        }
    }

    /// Sends a whole frame, without waiting.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        rustix::net::send(&self.fd, frame, SendFlags::DONTWAIT)?;
        Ok(())
    }
}

const LENGTH: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;

fn empty() -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: 0,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}
