//! The bridge device of a network: found or made, with its address, MTU and state.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use model::{Error, Result};
use sys::netlink::address::{self, Address};
use sys::netlink::link::{self, Bridge, Link};
use sys::netlink::{Batch, Socket};

use crate::mac::MacAddress;

/// What a bridge device should be.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub name: &'a str,
    pub mac: MacAddress,
    pub mtu: u32,
    pub address: Ipv4Addr,
    pub prefix_len: u8,
}

pub fn failed(error: sys::netlink::Error) -> Error {
    Error::system(error.to_string()).with_source(error)
}

/// The device of this name; an error when it is no bridge.
pub fn find(socket: &mut Socket, name: &str) -> Result<Option<Link>> {
    match link::find(socket, name).map_err(failed)? {
        Some(found) if found.kind != "bridge" => {
            Err(Error::system(format!("existing interface {name} is not a bridge")))
        }
        found => Ok(found),
    }
}

/// The IPv4 addresses of a link.
pub fn addresses(socket: &mut Socket, link: u32) -> Result<Vec<Address>> {
    let all = address::list(socket).map_err(failed)?;
    Ok(all.into_iter().filter(|a| a.link == link).collect())
}

/// Networks that the host reaches by other links than `except`: an automatic subnet must not hide them.
pub fn reached(socket: &mut Socket, except: u32) -> Result<Vec<Ipv4Net>> {
    let routes = address::list_routes(socket).map_err(failed)?;
    let addresses = address::list(socket).map_err(failed)?;
    let routes = routes.iter().filter(|r| r.link != except && r.prefix_len > 0).map(|r| (r.destination, r.prefix_len));
    let addresses = addresses.iter().filter(|a| a.link != except).map(|a| (a.address, a.prefix_len));
    Ok(routes.chain(addresses).filter_map(|(ip, length)| Ipv4Net::new(ip, length).ok()).map(|n| n.trunc()).collect())
}

/// Makes or changes a device of ours to be what is wanted; returns its index.
pub fn ensure(socket: &mut Socket, wanted: &Wanted<'_>) -> Result<u32> {
    if wanted.name.len() > link::MAX_NAME {
        return Err(Error::invalid(format!("bridge name {} is longer than {} bytes", wanted.name, link::MAX_NAME)));
    }
    let device = match find(socket, wanted.name)? {
        Some(found) => found,
        None => create(socket, wanted)?,
    };
    let mut batch = Batch::new();
    if device.mtu != wanted.mtu {
        link::set_mtu(&mut batch, device.index, wanted.mtu);
    }
    let want = Address { link: device.index, address: wanted.address, prefix_len: wanted.prefix_len };
    let standing = addresses(socket, device.index)?;
    for other in standing.iter().filter(|a| **a != want) {
        address::remove(&mut batch, other);
    }
    if !standing.contains(&want) {
        address::add(&mut batch, &want);
    }
    if !device.up {
        link::set_up(&mut batch, device.index);
    }
    socket.request(&mut batch).map_err(failed)?;
    Ok(device.index)
}

/// Gives a device that others made anew, or took the address of, what is wanted; what it has beside that stays. `before`:
/// the index that it had; a device with this index was not made anew and keeps its state. Returns its index.
pub fn restore(socket: &mut Socket, wanted: &Wanted<'_>, before: u32) -> Result<u32> {
    let Some(device) = find(socket, wanted.name)? else { return ensure(socket, wanted) };
    let mut batch = Batch::new();
    if device.index != before {
        // With the address that it had, containers need not ask for the gateway's again.
        link::set_mac(&mut batch, device.index, wanted.mac.0);
        link::set_mtu(&mut batch, device.index, wanted.mtu);
        link::set_up(&mut batch, device.index);
    }
    let want = Address { link: device.index, address: wanted.address, prefix_len: wanted.prefix_len };
    if !addresses(socket, device.index)?.contains(&want) {
        address::add(&mut batch, &want);
    }
    match socket.request(&mut batch) {
        // Somebody else has just added the address.
        Err(error) if error.errno == rustix::io::Errno::EXIST => Ok(device.index),
        other => other.map(|()| device.index).map_err(failed),
    }
}

fn create(socket: &mut Socket, wanted: &Wanted<'_>) -> Result<Link> {
    let mut batch = Batch::new();
    link::create_bridge(&mut batch, &Bridge { name: wanted.name, mac: wanted.mac.0, mtu: wanted.mtu });
    socket.request(&mut batch).map_err(failed)?;
    find(socket, wanted.name)?.ok_or_else(|| Error::system(format!("bridge {} vanished", wanted.name)))
}
