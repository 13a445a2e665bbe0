//! Addresses of links, routes and neighbours, of both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::socket::{Error, Socket};
use super::wire::{Batch, Message, Writer, read_ip, read_u32};

const IFADDRMSG: usize = 8;
const RTMSG: usize = 12;
const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const REPLACE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    pub link: u32,
    pub address: IpAddr,
    /// Bits.
    pub prefix_len: u8,
}

impl Address {
    /// An IPv6 address that the kernel gave itself (fe80::/10).
    pub fn is_link_local(&self) -> bool {
        matches!(self.address, IpAddr::V6(address) if address.is_unicast_link_local())
    }
}

/// A route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Length 0: the default route of the address's family.
    pub destination: IpAddr,
    /// Bits.
    pub prefix_len: u8,
    pub gateway: Option<IpAddr>,
    /// Index of the outgoing link; 0 = none given.
    pub link: u32,
}

impl Route {
    /// The default route of the gateway's family.
    pub fn default_by(gateway: IpAddr, link: u32) -> Route {
        Route { destination: unspecified(&gateway), prefix_len: 0, gateway: Some(gateway), link }
    }

    /// The default route by a link without a gateway, of the family of `like`.
    pub fn default_on(like: IpAddr, link: u32) -> Route {
        Route { destination: unspecified(&like), prefix_len: 0, gateway: None, link }
    }
}

fn unspecified(like: &IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

fn family(address: &IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

fn address_header(w: &mut Writer<'_>, address: &Address) {
    // An IPv6 address is used at once: nobody else can have what the books gave.
    let flags = if address.address.is_ipv6() { libc::IFA_F_NODAD as u8 } else { 0 };
    w.put(&[family(&address.address), address.prefix_len, flags, libc::RT_SCOPE_UNIVERSE]);
    w.put(&address.link.to_ne_bytes());
}

/// Adds an address, of IPv4 with its broadcast address; the kernel adds the route to its subnet.
pub fn add(batch: &mut Batch, address: &Address) {
    batch.push("add address", libc::RTM_NEWADDR, CREATE, |w| {
        address_header(w, address);
        w.ip(libc::IFA_LOCAL, address.address);
        w.ip(libc::IFA_ADDRESS, address.address);
        if let IpAddr::V4(v4) = address.address
            && address.prefix_len < 31
        {
            let host_bits = u32::MAX >> address.prefix_len;
            w.ip(libc::IFA_BROADCAST, IpAddr::V4(Ipv4Addr::from(u32::from(v4) | host_bits)));
        }
    });
}

pub fn remove(batch: &mut Batch, address: &Address) {
    batch.push("remove address", libc::RTM_DELADDR, 0, |w| {
        address_header(w, address);
        w.ip(libc::IFA_LOCAL, address.address);
    });
}

/// The addresses of all links, of both families.
pub fn list(socket: &mut Socket) -> Result<Vec<Address>, Error> {
    let header = |w: &mut Writer<'_>| {
        w.put(&[libc::AF_UNSPEC as u8, 0, 0, 0]);
        w.put(&0u32.to_ne_bytes());
    };
    socket.dump(libc::RTM_GETADDR, header, |message| parse_address(&message))
}

/// The addresses of one link, of both families; none of a link that is not there.
pub fn list_of(socket: &mut Socket, link: u32) -> Result<Vec<Address>, Error> {
    let header = |w: &mut Writer<'_>| {
        w.put(&[libc::AF_UNSPEC as u8, 0, 0, 0]);
        w.put(&link.to_ne_bytes());
    };
    match socket.dump_selected(libc::RTM_GETADDR, header, |message| parse_address(&message)) {
        Err(error) if error.errno == rustix::io::Errno::NODEV => Ok(Vec::new()),
        other => other.map(|all: Vec<Address>| all.into_iter().filter(|own| own.link == link).collect()),
    }
}

/// The address that a notice says was removed.
pub fn removed(message: &Message<'_>) -> Option<Address> {
    if message.kind == libc::RTM_DELADDR { parse(message) } else { None }
}

fn parse_address(message: &Message<'_>) -> Option<Address> {
    if message.kind == libc::RTM_NEWADDR { parse(message) } else { None }
}

fn parse(message: &Message<'_>) -> Option<Address> {
    let attributes = message.attributes(IFADDRMSG);
    // The kernel tells an IPv6 address without a peer by IFA_ADDRESS alone.
    let address = attributes.find(libc::IFA_LOCAL).or_else(|| attributes.find(libc::IFA_ADDRESS)).and_then(read_ip)?;
    let same_family = *message.payload.first()? == family(&address);
    same_family.then_some(Address {
        link: read_u32(message.payload.get(4..)?)?,
        address,
        prefix_len: *message.payload.get(1)?,
    })
}

fn route_header(w: &mut Writer<'_>, route: &Route, scope: u8) {
    w.put(&[family(&route.destination), route.prefix_len, 0, 0, libc::RT_TABLE_MAIN]);
    w.put(&[libc::RTPROT_BOOT, scope, libc::RTN_UNICAST]);
    w.put(&0u32.to_ne_bytes());
}

/// Adds a unicast route to the main table.
pub fn add_route(batch: &mut Batch, route: &Route) {
    put_route(batch, route, "add route", CREATE);
}

/// As [`add_route`]; replaces the route that has the same destination.
pub fn replace_route(batch: &mut Batch, route: &Route) {
    put_route(batch, route, "replace route", REPLACE);
}

fn put_route(batch: &mut Batch, route: &Route, label: &'static str, flags: u16) {
    batch.push(label, libc::RTM_NEWROUTE, flags, |w| {
        let with_gateway = route.gateway.is_some() || route.destination.is_ipv6();
        let scope = if with_gateway { libc::RT_SCOPE_UNIVERSE } else { libc::RT_SCOPE_LINK };
        route_header(w, route, scope);
        if route.prefix_len > 0 {
            w.ip(libc::RTA_DST, route.destination);
        }
        if let Some(gateway) = route.gateway {
            w.ip(libc::RTA_GATEWAY, gateway);
        }
        if route.link != 0 {
            w.u32(libc::RTA_OIF, route.link);
        }
    });
}

/// The unicast routes of the main table, of both families.
pub fn list_routes(socket: &mut Socket) -> Result<Vec<Route>, Error> {
    let header = |w: &mut Writer<'_>| {
        w.put(&[libc::AF_UNSPEC as u8, 0, 0, 0, 0, 0, 0, 0]);
        w.put(&0u32.to_ne_bytes());
    };
    socket.dump(libc::RTM_GETROUTE, header, |message| parse_route(&message))
}

fn parse_route(message: &Message<'_>) -> Option<Route> {
    let fixed = message.payload.get(..RTMSG)?;
    if message.kind != libc::RTM_NEWROUTE {
        return None;
    }
    let any = match i32::from(fixed[0]) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let attributes = message.attributes(RTMSG);
    let table = attributes.find(libc::RTA_TABLE).and_then(read_u32).unwrap_or(u32::from(fixed[4]));
    if table != u32::from(libc::RT_TABLE_MAIN) || fixed[7] != libc::RTN_UNICAST {
        return None;
    }
    Some(Route {
        destination: attributes.find(libc::RTA_DST).and_then(read_ip).unwrap_or(any),
        prefix_len: fixed[1],
        gateway: attributes.find(libc::RTA_GATEWAY).and_then(read_ip),
        link: attributes.find(libc::RTA_OIF).and_then(read_u32).unwrap_or(0),
    })
}

/// Sets or replaces a neighbour entry that the kernel may confirm or forget as any learned one.
pub fn set_neighbour(batch: &mut Batch, link: u32, address: IpAddr, mac: [u8; 6]) {
    batch.push("set neighbour", libc::RTM_NEWNEIGH, REPLACE, |w| {
        w.put(&[family(&address), 0, 0, 0]);
        w.put(&link.to_ne_bytes());
        w.put(&libc::NUD_STALE.to_ne_bytes());
        w.put(&[0, libc::RTN_UNICAST]);
        w.ip(libc::NDA_DST, address);
        w.bytes(libc::NDA_LLADDR, &mac);
    });
}
