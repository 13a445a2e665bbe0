//! Connections that the kernel tracks: forgetting those to a port whose translation changed.
//!
//! A translation is decided by a connection's first packet. UDP has no end, so a client that goes on sending would be
//! led to yesterday's container for ever.

use std::net::Ipv4Addr;

use rustix::io::Errno;

use super::socket::{Error, Socket};
use super::wire::{Attributes, Batch, Message, Writer, read_ipv4};

const SUBSYSTEM: u16 = 1;
const NEW: u16 = SUBSYSTEM << 8;
const GET: u16 = SUBSYSTEM << 8 | 1;
const DELETE: u16 = SUBSYSTEM << 8 | 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const IP_DESTINATION: u16 = 2;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Number in the IP header.
    pub protocol: u8,
    /// `None` = any address.
    pub address: Option<Ipv4Addr>,
    pub port: u16,
}

/// Forgets the matching IPv4 connections and returns their number. Takes a netfilter socket.
pub fn forget(socket: &mut Socket, to: Destination) -> Result<usize, Error> {
    let tuples = socket.dump(GET, |w| write_filter(w, to), |message| matching(&message, to))?;
    for tuple in &tuples {
        let mut batch = Batch::new();
        batch.push("forget connection", DELETE, 0, |w| {
            header(w);
            w.nested(TUPLE_ORIGINAL, |w| w.put(tuple));
        });
        match socket.request(&mut batch) {
            Ok(()) => (),
            // It ended by itself.
            Err(error) if error.errno == Errno::NOENT => (),
            Err(error) => return Err(error),
        }
    }
    Ok(tuples.len())
}

fn header(w: &mut Writer<'_>) {
    w.put(&[libc::AF_INET as u8, 0, 0, 0]);
}

fn write_filter(w: &mut Writer<'_>, to: Destination) {
    header(w);
    w.nested(TUPLE_ORIGINAL, |w| {
        w.nested(TUPLE_PROTOCOL, |w| {
            w.u8(PROTOCOL_NUMBER, to.protocol);
            w.bytes(DESTINATION_PORT, &to.port.to_be_bytes());
        });
    });
    w.nested(FILTER, |w| w.u32(FILTER_ORIGINAL, FILTER_PROTOCOL | FILTER_DESTINATION_PORT));
}

/// The original tuple's attributes, when the connection matches.
fn matching(message: &Message<'_>, to: Destination) -> Option<Vec<u8>> {
    if message.kind != NEW {
        return None;
    }
    let tuple = message.attributes(NFGENMSG).find(TUPLE_ORIGINAL)?;
    let parts = Attributes::new(tuple);
    let protocol = parts.inside(TUPLE_PROTOCOL);
    let address = parts.inside(TUPLE_IP).find(IP_DESTINATION).and_then(read_ipv4)?;
    let same = protocol.find(PROTOCOL_NUMBER)? == [to.protocol]
        && protocol.find(DESTINATION_PORT)? == to.port.to_be_bytes()
        && to.address.is_none_or(|wanted| wanted == address);
    same.then(|| tuple.to_vec())
}
