//! The bridge device of a network: found or made, with its address, MTU and state.

use std::net::IpAddr;

use ipnet::IpNet;
use model::{Error, Result};
use sys::netlink::address::{self, Address};
use sys::netlink::link::{self, Bridge, Link};
use sys::netlink::{Batch, Route, Socket};

use crate::files;
use crate::ipam::Surroundings;
use crate::mac::MacAddress;

/// What a bridge device should be.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub name: &'a str,
    pub mac: MacAddress,
    pub mtu: u32,
    /// Its own, with their prefix lengths.
    pub addresses: &'a [(IpAddr, u8)],
}

impl Wanted<'_> {
    fn of(&self, link: u32) -> Vec<Address> {
        let of_link =
            |(address, prefix_len): &(IpAddr, u8)| Address { link, address: *address, prefix_len: *prefix_len };
        self.addresses.iter().map(of_link).collect()
    }
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

/// The addresses of a link, those that the kernel gives by itself left out.
pub fn addresses(socket: &mut Socket, link: u32) -> Result<Vec<Address>> {
    let all = address::list_of(socket, link).map_err(failed)?;
    Ok(all.into_iter().filter(|a| !a.is_link_local()).collect())
}

/// Networks that the host reaches by other links than `except`.
pub fn reached(socket: &mut Socket, except: u32) -> Result<Surroundings> {
    let net = |(address, length)| IpNet::new(address, length).ok().map(|net| net.trunc());
    let routes = address::list_routes(socket).map_err(failed)?;
    let of_others =
        |route: &&Route| route.link != except && is_one_network(route) && !is_of_every_link(route.destination);
    let (far, near): (Vec<&Route>, Vec<&Route>) =
        routes.iter().filter(of_others).partition(|route| route.gateway.is_some());
    let addresses = address::list(socket).map_err(failed)?;
    let addresses = addresses.iter().filter(|own| own.link != except && !own.is_link_local());
    let near = near.into_iter().map(|route: &Route| (route.destination, route.prefix_len));
    let near = near.chain(addresses.map(|own| (own.address, own.prefix_len))).filter_map(net);
    let far = far.into_iter().filter_map(|route: &Route| net((route.destination, route.prefix_len)));
    let servers = files::host_servers().into_iter().map(IpNet::from);
    Ok(Surroundings { near: near.chain(servers).collect(), far: far.collect() })
}

/// Whether a route leads to a network: what is wider than any is a default route, or a half of one (a VPN's).
fn is_one_network(route: &Route) -> bool {
    let widest = match route.destination {
        IpAddr::V4(_) => 7,
        IpAddr::V6(_) => 3,
    };
    route.prefix_len > widest
}

/// fe80::/10, which every link has.
fn is_of_every_link(destination: IpAddr) -> bool {
    matches!(destination, IpAddr::V6(address) if address.is_unicast_link_local() || address.is_multicast())
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
    let want = wanted.of(device.index);
    let standing = addresses(socket, device.index)?;
    for other in standing.iter().filter(|a| !want.contains(a)) {
        address::remove(&mut batch, other);
    }
    for missing in want.iter().filter(|a| !standing.contains(a)) {
        address::add(&mut batch, missing);
    }
    if !device.up {
        link::set_up(&mut batch, device.index);
    }
    if !batch.is_empty() {
        socket.request(&mut batch).map_err(failed)?;
    }
    Ok(device.index)
}

/// Gives a device of ours its name back that somebody has renamed: rules and notices know it by that. One that has taken the
/// name since is left alone.
pub fn call_again(socket: &mut Socket, wanted: &Wanted<'_>, before: u32) -> Result<()> {
    let all = link::list(socket).map_err(failed)?;
    let is_it = |link: &&Link| link.index == before && link.kind == "bridge" && link.mac == Some(wanted.mac.0);
    let Some(found) = all.iter().find(is_it).filter(|_| all.iter().all(|link| link.name != wanted.name)) else {
        return Ok(());
    };
    tracing::warn!(device = wanted.name, name = found.name, "the bridge was renamed; it has its name again");
    let mut batch = Batch::new();
    link::rename(&mut batch, before, wanted.name);
    match socket.request(&mut batch) {
        // Before Linux 6.3 only one that is down.
        Err(error) if error.errno == rustix::io::Errno::BUSY => {
            let mut batch = Batch::new();
            link::set_down(&mut batch, before);
            link::rename(&mut batch, before, wanted.name);
            link::set_up(&mut batch, before);
            socket.request(&mut batch).map_err(failed)
        }
        other => other.map_err(failed),
    }
}

/// Deletes the device of this name where there is one.
pub fn remove(socket: &mut Socket, name: &str) -> Result<()> {
    let mut batch = Batch::new();
    link::delete(&mut batch, name);
    match socket.request(&mut batch) {
        Err(error) if error.errno == rustix::io::Errno::NODEV => Ok(()),
        other => other.map_err(failed),
    }
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
    let standing = addresses(socket, device.index)?;
    for missing in wanted.of(device.index).iter().filter(|a| !standing.contains(a)) {
        address::add(&mut batch, missing);
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
