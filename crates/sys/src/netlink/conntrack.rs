//! Connections that the kernel tracks: forgetting those to a port whose translation changed.
//!
//! A translation is decided by a connection's first packet. UDP has no end, so a client that goes on sending would be
//! led to yesterday's container for ever.

use std::collections::HashSet;
use std::net::IpAddr;

use rustix::io::Errno;

use super::socket::{Error, Socket};
use super::wire::{Attributes, Batch, Message, Writer, read_ip};

const SUBSYSTEM: u16 = 1;
const NEW: u16 = SUBSYSTEM << 8;
const GET: u16 = SUBSYSTEM << 8 | 1;
const DELETE: u16 = SUBSYSTEM << 8 | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const IP_DESTINATION: u16 = 2;
const IP6_DESTINATION: u16 = 4;
const PROTOCOL_NUMBER: u16 = 1;
const DESTINATION_PORT: u16 = 3;
/// The kernel (Linux 5.8) lists matching connections only; older ones ignore this and list all.
const FILTER: u16 = 25;
const FILTER_ORIGINAL: u16 = 1;
const FILTER_PROTOCOL: u32 = 1 << 3;
const FILTER_DESTINATION_PORT: u32 = 1 << 5;
/// Length of `struct nfgenmsg`.
const NFGENMSG: usize = 4;

/// Connections by what their first packet was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Number in the IP header.
    pub protocol: u8,
    /// `None` = any address.
    pub address: Option<IpAddr>,
    pub port: u16,
}

/// Forgets the connections of either family that match any of `to` and returns their number. Takes a netfilter socket. The kernel's
/// whole table is walked once: a single destination is told to the kernel, of several only what they share.
pub fn forget(socket: &mut Socket, to: &[Destination]) -> Result<usize, Error> {
    let Some(first) = to.first() else { return Ok(0) };
    let wanted: HashSet<_> = to.iter().copied().collect();
    let single = (wanted.len() == 1).then_some(first.port);
    let mut forgotten = 0;
    for family in [libc::AF_INET, libc::AF_INET6] {
        let of_family = |wanted: &Destination| wanted.address.is_none_or(|a| a.is_ipv4() == (family == libc::AF_INET));
        if !wanted.iter().any(of_family) {
            continue;
        }
        let filter = |w: &mut Writer<'_>| write_filter(w, family, first.protocol, single);
        let tuples = socket.dump(GET, filter, |message| matching(&message, &wanted))?;
        forgotten += tuples.len();
        delete(socket, family, &tuples)?;
    }
    Ok(forgotten)
}

fn delete(socket: &mut Socket, family: i32, tuples: &[Vec<u8>]) -> Result<(), Error> {
    for tuple in tuples {
        let mut batch = Batch::new();
        batch.push("forget connection", DELETE, 0, |w| {
            header(w, family);
            w.nested(TUPLE_ORIGINAL, |w| w.put(tuple));
        });
        match socket.request(&mut batch) {
            Ok(()) => (),
            // It ended by itself.
            Err(error) if error.errno == Errno::NOENT => (),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn header(w: &mut Writer<'_>, family: i32) {
    w.put(&[family as u8, 0, 0, 0]);
}

fn write_filter(w: &mut Writer<'_>, family: i32, protocol: u8, port: Option<u16>) {
    header(w, family);
    w.nested(TUPLE_ORIGINAL, |w| {
        w.nested(TUPLE_PROTOCOL, |w| {
            w.u8(PROTOCOL_NUMBER, protocol);
            if let Some(port) = port {
                w.bytes(DESTINATION_PORT, &port.to_be_bytes());
            }
        });
    });
    let by_port = if port.is_some() { FILTER_DESTINATION_PORT } else { 0 };
    w.nested(FILTER, |w| w.u32(FILTER_ORIGINAL, FILTER_PROTOCOL | by_port));
}

/// The original tuple's attributes, when the connection matches.
fn matching(message: &Message<'_>, wanted: &HashSet<Destination>) -> Option<Vec<u8>> {
    if message.kind != NEW {
        return None;
    }
    let tuple = message.attributes(NFGENMSG).find(TUPLE_ORIGINAL)?;
    let parts = Attributes::new(tuple);
    let of_protocol = parts.inside(TUPLE_PROTOCOL);
    let addresses = parts.inside(TUPLE_IP);
    let address = addresses.find(IP_DESTINATION).or_else(|| addresses.find(IP6_DESTINATION)).and_then(read_ip)?;
    let protocol = *of_protocol.find(PROTOCOL_NUMBER)?.first()?;
    let port = u16::from_be_bytes(of_protocol.find(DESTINATION_PORT)?.try_into().ok()?);
    let goes_to = |address| wanted.contains(&Destination { protocol, address, port });
    (goes_to(Some(address)) || goes_to(None)).then(|| tuple.to_vec())
}
