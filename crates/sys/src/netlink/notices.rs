//! What the kernel tells of changes: links, addresses, nf_tables (netlink(7), multicast groups).
//!
//! A socket that is read too slowly loses messages; it then says so once (`ENOBUFS`), and what stands has to be read anew.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType};

use super::socket::set_option;
use super::wire::{Message, Messages};

/// Room for messages that wait, in bytes. A transaction with thousands of elements arrives in one piece.
const WAITING: i32 = 4 * 1024 * 1024;
/// Room for one datagram; the kernel gathers notices of nf_tables up to a page.
const DATAGRAM: usize = 64 * 1024;
/// Datagrams taken in one call: more wait for the next.
const DATAGRAMS: usize = 4096;

/// Multicast groups as bits of `sockaddr_nl.nl_groups`.
const NF_TABLES: u32 = 1 << (libc::NFNLGRP_NFTABLES - 1);
const LINKS: u32 = 1 << (libc::RTNLGRP_LINK - 1);
const IPV4_ADDRESSES: u32 = 1 << (libc::RTNLGRP_IPV4_IFADDR - 1);
const IPV6_ADDRESSES: u32 = 1 << (libc::RTNLGRP_IPV6_IFADDR - 1);

/// A socket that receives changes in the namespace of the thread that opened it.
#[derive(Debug)]
pub struct Notices {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

/// Whether every message was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    All,
    /// Messages were lost since the last call.
    Part,
}

impl Notices {
    /// Of tables, chains, rules, sets and their elements.
    pub fn nf_tables() -> io::Result<Notices> {
        Notices::open(Some(netlink::NETFILTER), NF_TABLES)
    }

    /// Of links and their addresses.
    pub fn links() -> io::Result<Notices> {
        // NETLINK_ROUTE is 0, the default protocol.
        Notices::open(None, LINKS | IPV4_ADDRESSES | IPV6_ADDRESSES)
    }

    fn open(protocol: Option<Protocol>, groups: u32) -> io::Result<Notices> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, WAITING)?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups))?;
        Ok(Notices { fd, buffer: Vec::new() })
    }

    /// Gives every message that waits to `each`. Does not block; leaves what is more than `DATAGRAMS` for the next call.
    pub fn read(&mut self, mut each: impl FnMut(Message<'_>)) -> Result<Delivery, Errno> {
        self.buffer.resize(DATAGRAM, 0);
        let mut delivery = Delivery::All;
        for _ in 0..DATAGRAMS {
            match rustix::net::recv(&self.fd, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => Messages::new(&self.buffer[..length]).for_each(&mut each),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => (),
                Err(Errno::NOBUFS) => delivery = Delivery::Part,
                Err(errno) => return Err(errno),
            }
        }
        Ok(delivery)
    }
}

impl AsFd for Notices {
    /// Readable when a message waits or was lost.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
