//! Many datagrams in one call: recvmmsg(2), and `UDP_SEGMENT` (udp(7)), by which datagrams of one size to one address go
//! through the kernel as one packet that is cut where it ends.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Datagrams of one call.
pub const BATCH: usize = 16;
/// Bytes of the largest datagram.
const LARGEST: usize = 65_536;
/// Bytes of datagrams that go as one packet.
const MAX_SEGMENTED: usize = 60_000;
/// Bytes of control messages: the size of segments, and the address at this side (`CMSG_SPACE`, cmsg(3)).
const SEGMENT_SPACE: usize = 24;
const ADDRESS_SPACE: usize = 40;
const CONTROL: usize = SEGMENT_SPACE + ADDRESS_SPACE;

/// Datagrams that were received.
#[derive(Debug)]
pub struct Datagrams {
    /// A place of [`LARGEST`] bytes for each; what is not used takes no memory.
    memory: Vec<u8>,
    lengths: [usize; BATCH],
    senders: [Option<SocketAddr>; BATCH],
    /// Addresses of this host that they were sent to.
    locals: [Option<IpAddr>; BATCH],
    count: usize,
}

/// To whom a socket without a peer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    pub address: SocketAddr,
    /// The address that it spoke to, and that answers come from; `None`: the kernel chooses.
    pub local: Option<IpAddr>,
}

impl Default for Datagrams {
    fn default() -> Datagrams {
        let memory = vec![0; BATCH * LARGEST];
        Datagrams { memory, lengths: [0; BATCH], senders: [None; BATCH], locals: [None; BATCH], count: 0 }
    }
}

impl Datagrams {
    /// Receives what waits, at most [`BATCH`]; how many. Does not wait: `WouldBlock`.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.count = 0;
        // SAFETY: zero is a value of each of these; pointers are filled in below.
        let (mut headers, mut names): ([libc::mmsghdr; BATCH], [libc::sockaddr_storage; BATCH]) =
            unsafe { (MaybeUninit::zeroed().assume_init(), MaybeUninit::zeroed().assume_init()) };
        let places = self.memory.chunks_exact_mut(LARGEST);
        let mut parts: Vec<libc::iovec> =
            places.map(|place| libc::iovec { iov_base: place.as_mut_ptr().cast(), iov_len: place.len() }).collect();
        let mut control = [[0u64; CONTROL / 8]; BATCH];
        for (((header, name), part), control) in headers.iter_mut().zip(&mut names).zip(&mut parts).zip(&mut control) {
            (header.msg_hdr.msg_control, header.msg_hdr.msg_controllen) = (control.as_mut_ptr().cast(), CONTROL);
            header.msg_hdr.msg_name = (&raw mut *name).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            (header.msg_hdr.msg_iov, header.msg_hdr.msg_iovlen) = (part, 1);
        }
        let (count, flags) = (BATCH as libc::c_uint, libc::MSG_DONTWAIT);
        // SAFETY: the headers point to names and places that outlive the call; it writes within their lengths.
        let n = unsafe {
            libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, flags as _, std::ptr::null_mut())
        };
        let received = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
        for (at, (header, name)) in headers.iter().zip(&names).take(received).enumerate() {
            self.lengths[at] = (header.msg_len as usize).min(LARGEST);
            self.senders[at] = address(name);
            self.locals[at] = local(&header.msg_hdr);
        }
        self.count = received;
        Ok(received)
    }

    /// One of those that were received.
    pub fn get(&self, at: usize) -> &[u8] {
        &self.memory[at * LARGEST..][..self.lengths[at]]
    }

    /// Who has sent it, and to which address, where the socket delivers that; `None` of families other than IP.
    pub fn peer(&self, at: usize) -> Option<Peer> {
        self.senders[at].map(|address| Peer { address, local: self.locals[at] })
    }

    /// How many of those from `first` on may be sent as one packet: of one sender to one address, each as long as the first, the last one
    /// not longer.
    pub fn run(&self, first: usize) -> usize {
        let (size, peer) = (self.lengths[first], self.peer(first));
        let mut total = size;
        for at in first + 1..self.count {
            total += self.lengths[at];
            let fits = size > 0 && self.lengths[at] > 0 && self.lengths[at] <= size && total <= MAX_SEGMENTED;
            if self.peer(at) != peer || !fits {
                return at - first;
            }
            if self.lengths[at] < size {
                return at - first + 1;
            }
        }
        self.count - first
    }

    /// Sends a [`Datagrams::run`] of them as one packet, to the socket's peer or to another one. An error: none was sent, as when the
    /// kernel or the path takes no such packets.
    pub fn send_run(&self, socket: BorrowedFd<'_>, to: Option<Peer>, run: std::ops::Range<usize>) -> io::Result<()> {
        let segment = (run.len() > 1).then(|| self.lengths[run.start] as u16);
        let mut parts: Vec<libc::iovec> = run
            .map(|at| {
                let bytes = self.get(at);
                libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
            })
            .collect();
        let mut control = Control::default();
        if let Some(segment) = segment {
            control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
        }
        if let Some(Peer { address, local: Some(local) }) = to {
            control.push_source(address, local);
        }
        let mut name = to.map(|peer| storage(peer.address));
        // SAFETY: zero is a value of it.
        let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        if let Some((name, length)) = &mut name {
            (header.msg_name, header.msg_namelen) = ((&raw mut *name).cast(), *length);
        }
        (header.msg_iov, header.msg_iovlen) = (parts.as_mut_ptr(), parts.len());
        if control.used > 0 {
            (header.msg_control, header.msg_controllen) = (control.memory.as_mut_ptr().cast(), control.used);
        }
        // SAFETY: the header points to parts, name and control that outlive the call.
        let sent =
            unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) };
        if sent >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Control messages to be sent, as cmsg(3) lays them out: a head of 16 bytes each, padded to 8.
#[derive(Default)]
struct Control {
    memory: [u64; CONTROL / 8],
    /// Bytes.
    used: usize,
}

impl Control {
    /// At most [`CONTROL`] bytes in all.
    fn push(&mut self, level: i32, kind: i32, value: &[u8]) {
        let at = self.used / 8;
        let length = size_of::<libc::cmsghdr>() + value.len();
        self.memory[at] = length as u64;
        self.memory[at + 1] = u64::from_ne_bytes(joined(level.to_ne_bytes(), kind.to_ne_bytes()));
        for (word, part) in self.memory[at + 2..].iter_mut().zip(value.chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..part.len()].copy_from_slice(part);
            *word = u64::from_ne_bytes(bytes);
        }
        self.used += length.next_multiple_of(8);
    }

    /// The source address of what goes to a peer (`IP_PKTINFO`, ip(7); `IPV6_PKTINFO`, ipv6(7)): an IPv6 socket takes its own form,
    /// also for IPv4.
    fn push_source(&mut self, to: SocketAddr, local: IpAddr) {
        match (to, local) {
            (SocketAddr::V4(_), IpAddr::V4(local)) => {
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&local.octets());
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            (SocketAddr::V6(_), IpAddr::V6(local)) => {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&local.octets());
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            _ => (),
        }
    }
}

fn joined(first: [u8; 4], second: [u8; 4]) -> [u8; 8] {
    let mut all = [0; 8];
    all[..4].copy_from_slice(&first);
    all[4..].copy_from_slice(&second);
    all
}

/// The address of this host in the control messages of what was received.
fn local(header: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: the kernel has written the messages that the header points to, and how long they are.
    let message = unsafe { libc::CMSG_FIRSTHDR(header).as_ref() }?;
    match (message.cmsg_level, message.cmsg_type) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            // SAFETY: a message of this type holds that.
            let info: libc::in_pktinfo =
                unsafe { libc::CMSG_DATA(message).cast::<libc::in_pktinfo>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)).into())
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            // SAFETY: a message of this type holds that.
            let info = unsafe { libc::CMSG_DATA(message).cast::<libc::in6_pktinfo>().read_unaligned() };
            let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
            (!address.is_multicast()).then_some(address.into())
        }
        _ => None,
    }
}

/// From what the kernel has written.
fn address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says what it is; a storage is large and aligned enough for each.
            let v4 = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(v4.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddr::V6(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), v6.sin6_flowinfo, v6.sin6_scope_id)))
        }
        _ => None,
    }
}

/// As the kernel reads it, and its length.
fn storage(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: zero is a value of it.
    let mut name: libc::sockaddr_storage = unsafe { MaybeUninit::zeroed().assume_init() };
    match address {
        SocketAddr::V4(v4) => {
            // SAFETY: a storage is large and aligned enough for each family.
            let out = unsafe { &mut *(&raw mut name).cast::<libc::sockaddr_in>() };
            (out.sin_family, out.sin_port) = (libc::AF_INET as libc::sa_family_t, v4.port().to_be());
            out.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
            (name, size_of::<libc::sockaddr_in>() as libc::socklen_t)
        }
        SocketAddr::V6(v6) => {
            // SAFETY: as above.
            let out = unsafe { &mut *(&raw mut name).cast::<libc::sockaddr_in6>() };
            (out.sin6_family, out.sin6_port) = (libc::AF_INET6 as libc::sa_family_t, v6.port().to_be());
            (out.sin6_addr.s6_addr, out.sin6_scope_id) = (v6.ip().octets(), v6.scope_id());
            (name, size_of::<libc::sockaddr_in6>() as libc::socklen_t)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;

    fn socket(address: &str) -> UdpSocket {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        socket
    }

    /// Bounds, order and senders stay whatever is sent together.
    #[test]
    fn datagrams_keep_their_bounds_and_order() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let (front, back, server, client) = (socket(any), socket(any), socket(any), socket(any));
            back.connect(server.local_addr().unwrap()).unwrap();
            let sizes = [100, 100, 100, 40, 100, 0, 1200, 1200, 7, 9, 1200];
            for (number, size) in sizes.iter().enumerate() {
                client.send_to(&vec![number as u8; *size], front.local_addr().unwrap()).unwrap();
            }
            let mut datagrams = Datagrams::default();
            assert_eq!(datagrams.receive(front.as_fd()).unwrap(), sizes.len());
            let (mut first, mut runs) = (0, Vec::new());
            while first < sizes.len() {
                let run = datagrams.run(first);
                runs.push(run);
                assert_eq!(datagrams.peer(first).unwrap().address, client.local_addr().unwrap());
                match run {
                    1 => drop(back.send(datagrams.get(first)).unwrap()),
                    _ => datagrams.send_run(back.as_fd(), None, first..first + run).unwrap(),
                }
                first += run;
            }
            assert_eq!(runs, [4, 1, 1, 3, 1, 1]);
            for (number, size) in sizes.iter().enumerate() {
                let mut buffer = [0; 2000];
                let (n, from) = server.recv_from(&mut buffer).unwrap();
                assert_eq!((n, from), (*size, back.local_addr().unwrap()));
                assert!(buffer[..n].iter().all(|byte| *byte == number as u8));
            }
            assert_eq!(datagrams.receive(front.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            // To an address.
            for _ in 0..3 {
                client.send_to(&[5; 50], front.local_addr().unwrap()).unwrap();
            }
            assert_eq!(datagrams.receive(front.as_fd()).unwrap(), 3);
            let to = Peer { address: client.local_addr().unwrap(), local: None };
            datagrams.send_run(front.as_fd(), Some(to), 0..3).unwrap();
            for _ in 0..3 {
                let (n, from) = client.recv_from(&mut [0; 100]).unwrap();
                assert_eq!((n, from), (50, front.local_addr().unwrap()));
            }
        }
    }

    /// An answer comes from the address that was spoken to, of sockets of one family and of both.
    #[test]
    fn answers_have_the_address_that_was_spoken_to() {
        use crate::netlink::listen::{self, Filter, Kind, Opening, Reach};
        let filter = Filter::load();
        let any4 = SocketAddr::from(([0, 0, 0, 0], 0));
        let any6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        for (bound, reach, spoken_to) in [
            (any4, Reach::Own, "127.0.0.77"),
            (any6, Reach::Both, "127.0.0.77"),
            (any6, Reach::Both, "::1"),
            (any6, Reach::Own, "::1"),
        ] {
            let front = UdpSocket::from(listen::bind(Kind::Udp, (bound, reach), (Opening::Later, &filter)).unwrap());
            listen::start(Kind::Udp, &front.try_clone().unwrap().into()).unwrap();
            let to: IpAddr = spoken_to.parse().unwrap();
            let to = SocketAddr::new(to, front.local_addr().unwrap().port());
            let client = socket(if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" });
            // A connected socket hears nobody else.
            client.connect(to).unwrap();
            let mut datagrams = Datagrams::default();
            for sizes in [&[3][..], &[3, 3, 2]] {
                for size in sizes {
                    let _ = client.send(&vec![1; *size]).unwrap();
                }
                assert_eq!(datagrams.receive(front.as_fd()).unwrap(), sizes.len());
                assert_eq!(datagrams.run(0), sizes.len());
                let peer = datagrams.peer(0).unwrap();
                assert_eq!(peer.local.unwrap().to_canonical(), to.ip());
                datagrams.send_run(front.as_fd(), Some(peer), 0..sizes.len()).unwrap();
                for size in sizes {
                    assert_eq!(client.recv(&mut [0; 8]).unwrap(), *size, "{bound} {spoken_to}");
                }
            }
        }
    }
}
