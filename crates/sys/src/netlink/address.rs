//! Addresses of links, routes and neighbours (IPv4).

use std::net::Ipv4Addr;

use super::socket::{Error, Socket};
use super::wire::{Batch, Message, Writer, read_ipv4, read_u32};

const IFADDRMSG: usize = 8;
const RTMSG: usize = 12;
const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const REPLACE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    pub link: u32,
    pub address: Ipv4Addr,
    pub prefix_len: u8,
}

/// A route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// 0.0.0.0/0 is the default route.
    pub destination: Ipv4Addr,
    pub prefix_len: u8,
    pub gateway: Option<Ipv4Addr>,
    /// Index of the outgoing link; 0 = none given.
    pub link: u32,
}

fn address_header(w: &mut Writer<'_>, address: &Address) {
    w.put(&[libc::AF_INET as u8, address.prefix_len, 0, libc::RT_SCOPE_UNIVERSE]);
    w.put(&address.link.to_ne_bytes());
}

/// Adds an address with its broadcast address; the kernel adds the route to its subnet.
pub fn add(batch: &mut Batch, address: &Address) {
    batch.push("add address", libc::RTM_NEWADDR, CREATE, |w| {
        address_header(w, address);
        w.ipv4(libc::IFA_LOCAL, address.address);
        w.ipv4(libc::IFA_ADDRESS, address.address);
        if address.prefix_len < 31 {
            let host_bits = u32::MAX >> address.prefix_len;
            w.ipv4(libc::IFA_BROADCAST, Ipv4Addr::from(u32::from(address.address) | host_bits));
        }
    });
}

pub fn remove(batch: &mut Batch, address: &Address) {
    batch.push("remove address", libc::RTM_DELADDR, 0, |w| {
        address_header(w, address);
        w.ipv4(libc::IFA_LOCAL, address.address);
    });
}

/// The IPv4 addresses of all links.
pub fn list(socket: &mut Socket) -> Result<Vec<Address>, Error> {
    let all = Address { link: 0, address: Ipv4Addr::UNSPECIFIED, prefix_len: 0 };
    socket.dump(libc::RTM_GETADDR, |w| address_header(w, &all), |message| parse_address(&message))
}

/// The address that a notice says was removed.
pub fn removed(message: &Message<'_>) -> Option<Address> {
    if message.kind == libc::RTM_DELADDR { parse(message) } else { None }
}

fn parse_address(message: &Message<'_>) -> Option<Address> {
    if message.kind == libc::RTM_NEWADDR { parse(message) } else { None }
}

fn parse(message: &Message<'_>) -> Option<Address> {
    if *message.payload.first()? != libc::AF_INET as u8 {
        return None;
    }
    let attributes = message.attributes(IFADDRMSG);
    Some(Address {
        link: read_u32(message.payload.get(4..)?)?,
        address: attributes.find(libc::IFA_LOCAL).and_then(read_ipv4)?,
        prefix_len: *message.payload.get(1)?,
    })
}

fn route_header(w: &mut Writer<'_>, prefix_len: u8, scope: u8) {
    w.put(&[libc::AF_INET as u8, prefix_len, 0, 0, libc::RT_TABLE_MAIN]);
    w.put(&[libc::RTPROT_BOOT, scope, libc::RTN_UNICAST]);
    w.put(&0u32.to_ne_bytes());
}

/// Adds a unicast route to the main table.
pub fn add_route(batch: &mut Batch, route: &Route) {
    batch.push("add route", libc::RTM_NEWROUTE, CREATE, |w| {
        let scope = if route.gateway.is_some() { libc::RT_SCOPE_UNIVERSE } else { libc::RT_SCOPE_LINK };
        route_header(w, route.prefix_len, scope);
        if route.prefix_len > 0 {
            w.ipv4(libc::RTA_DST, route.destination);
        }
        if let Some(gateway) = route.gateway {
            w.ipv4(libc::RTA_GATEWAY, gateway);
        }
        if route.link != 0 {
            w.u32(libc::RTA_OIF, route.link);
        }
    });
}

/// The IPv4 unicast routes of the main table.
pub fn list_routes(socket: &mut Socket) -> Result<Vec<Route>, Error> {
    socket.dump(libc::RTM_GETROUTE, |w| route_header(w, 0, libc::RT_SCOPE_UNIVERSE), |message| parse_route(&message))
}

fn parse_route(message: &Message<'_>) -> Option<Route> {
    let fixed = message.payload.get(..RTMSG)?;
    if message.kind != libc::RTM_NEWROUTE || fixed[0] != libc::AF_INET as u8 {
        return None;
    }
    let attributes = message.attributes(RTMSG);
    let table = attributes.find(libc::RTA_TABLE).and_then(read_u32).unwrap_or(u32::from(fixed[4]));
    if table != u32::from(libc::RT_TABLE_MAIN) || fixed[7] != libc::RTN_UNICAST {
        return None;
    }
    Some(Route {
        destination: attributes.find(libc::RTA_DST).and_then(read_ipv4).unwrap_or(Ipv4Addr::UNSPECIFIED),
        prefix_len: fixed[1],
        gateway: attributes.find(libc::RTA_GATEWAY).and_then(read_ipv4),
        link: attributes.find(libc::RTA_OIF).and_then(read_u32).unwrap_or(0),
    })
}

/// Sets or replaces a neighbour entry that the kernel may confirm or forget as any learned one.
pub fn set_neighbour(batch: &mut Batch, link: u32, address: Ipv4Addr, mac: [u8; 6]) {
    batch.push("set neighbour", libc::RTM_NEWNEIGH, REPLACE, |w| {
        w.put(&[libc::AF_INET as u8, 0, 0, 0]);
        w.put(&link.to_ne_bytes());
        w.put(&libc::NUD_STALE.to_ne_bytes());
        w.put(&[0, libc::RTN_UNICAST]);
        w.ipv4(libc::NDA_DST, address);
        w.bytes(libc::NDA_LLADDR, &mac);
    });
}
