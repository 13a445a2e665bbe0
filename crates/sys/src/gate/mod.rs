//! Gates: what the far end of a link may send, checked where its frames come in (clsact and cls_bpf, tc-bpf(8)).
//!
//! The programs hang at the near end of a pair of links, so nothing at the far end, whatever its privileges are there, can
//! remove or evade them: also frames that a packet socket sends come by. They need no rule of a packet filter, outlive
//! whoever has put them there, and go with the link. Whoever knows the link finds the maps behind them again.
//!
//! A gate always checks that what is sent carries the link's own addresses. Where it checks destinations, too, it passes what
//! goes to one of `nets` or to one that was [`Gate::allow`]ed, and answers to what has come in: of TCP as long as nobody
//! begins a connection, of other protocols for three minutes. It tells of what it drops.

mod assemble;
mod program;
mod ring;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::time::ClockId;

use crate::bpf::{self, MapAttr};
use crate::netlink::wire::{Batch, Writer, read_u32};
use crate::netlink::{Error, Socket};
use program::{Maps, REPORT};
use ring::Ring;

pub use program::Own;

// `enum bpf_map_type`.
const HASH: u32 = 1;
const LRU_HASH: u32 = 9;
const LPM_TRIE: u32 = 11;
const RING: u32 = 27;
const NO_PREALLOC: u32 = 1;
const PROG_TYPE_SCHED_CLS: u32 = 3;

/// Networks of a gate.
pub const MAX_NETS: usize = 16 << 10;
/// Addresses that are allowed for a time, each with a port.
pub const MAX_NAMES: usize = 4096;
/// Others that may be answered; beyond, those that were silent longest are forgotten.
const MAX_FLOWS: u32 = 4096;
/// Destinations that are not told of anew.
const MAX_TOLD: u32 = 512;
/// Bytes of records that wait to be read: a page. What does not fit is not told.
const RING_SIZE: u32 = 4096;
/// Maps of a program.
const MAX_MAPS: usize = 8;

// Traffic control (linux/rtnetlink.h, linux/pkt_sched.h, linux/pkt_cls.h).
const NEW_QDISC: u16 = 36;
const NEW_FILTER: u16 = 44;
const GET_FILTER: u16 = 46;
const CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
/// The program's result is the verdict.
const DIRECT: u32 = 1;
const TCMSG: usize = 20;

/// Whose rules a gate has; a link may have a gate of each, and a frame has to pass all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    Container,
    Network,
}

impl Slot {
    /// The filter's priority.
    fn priority(self) -> u32 {
        match self {
            Slot::Container => 1,
            Slot::Network => 2,
        }
    }

    /// What the filter is called where traffic control is listed.
    fn name(self) -> &'static str {
        match self {
            Slot::Container => "gantry-container",
            Slot::Network => "gantry-network",
        }
    }
}

/// A network that a rule is about. Of those that have an address the longest decides, with the port first, then without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    pub address: IpAddr,
    /// Bits.
    pub length: u8,
    /// `None` = all, and protocols that have none.
    pub port: Option<u16>,
    pub verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Drop,
}

/// A destination of a frame that was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dropped {
    /// The number in the IP header.
    pub protocol: u8,
    pub address: IpAddr,
    /// 0 of protocols that have none.
    pub port: u16,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct NameKey {
    family: u8,
    protocol: u8,
    /// Network order.
    port: [u8; 2],
    address: [u8; 16],
}

#[repr(C)]
struct NetKey {
    /// Bits of what follows.
    length: u32,
    key: NameKey,
}

impl NameKey {
    fn new(address: IpAddr, port: Option<u16>) -> NameKey {
        let mut bytes = [0; 16];
        let family = match address {
            IpAddr::V4(v4) => {
                bytes[..4].copy_from_slice(&v4.octets());
                4
            }
            IpAddr::V6(v6) => {
                bytes = v6.octets();
                6
            }
        };
        NameKey { family, protocol: 0, port: port.unwrap_or(0).to_be_bytes(), address: bytes }
    }
}

fn failed(error: Error) -> io::Error {
    io::Error::from(error)
}

/// Makes the link's filters possible; nothing happens when they are already.
fn prepare(socket: &mut Socket, link: u32) -> io::Result<()> {
    let mut batch = Batch::new();
    let flags = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
    batch.push("add clsact to link", NEW_QDISC, flags, |w| {
        header(w, link, CLSACT_HANDLE, (CLSACT, 0));
        w.string(TCA_KIND, "clsact");
    });
    match socket.request(&mut batch) {
        Err(error) if error.errno != Errno::EXIST => Err(failed(error)),
        _ => Ok(()),
    }
}

/// Writes `struct tcmsg`.
fn header(w: &mut Writer<'_>, link: u32, handle: u32, (parent, info): (u32, u32)) {
    w.put(&[libc::AF_UNSPEC as u8, 0, 0, 0]);
    for field in [link, handle, parent, info] {
        w.put(&field.to_ne_bytes());
    }
}

fn add_filter(batch: &mut Batch, link: u32, (parent, slot): (u32, Slot), program: &OwnedFd) {
    let flags = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
    let all = u32::from((libc::ETH_P_ALL as u16).to_be());
    batch.push("add filter to link", NEW_FILTER, flags, |w| {
        header(w, link, 0, (parent, slot.priority() << 16 | all));
        w.string(TCA_KIND, "bpf");
        w.nested(TCA_OPTIONS, |w| {
            w.u32(TCA_BPF_FD, program.as_raw_fd() as u32);
            w.string(TCA_BPF_NAME, slot.name());
            w.u32(TCA_BPF_FLAGS, DIRECT);
        });
    });
}

/// Lets nothing of the far end of a link pass that carries other addresses than its own: Ethernet, ARP, IPv4, IPv6 and its
/// discovery of neighbours; nor advertisements of a router. Needs CAP_BPF and CAP_NET_ADMIN. `socket` belongs to the
/// namespace of the near end.
pub fn check_addresses(socket: &mut Socket, link: u32, slot: Slot, own: Own<'_>) -> io::Result<()> {
    prepare(socket, link)?;
    let program = bpf::load(PROG_TYPE_SCHED_CLS, 0, &program::outward(&own, None))?;
    let mut batch = Batch::new();
    add_filter(&mut batch, link, (INGRESS, slot), &program);
    socket.request(&mut batch).map_err(failed)
}

/// The same, and lets nothing pass but to `nets`, and answers.
pub fn check_destinations(socket: &mut Socket, link: u32, slot: Slot, own: Own<'_>, nets: &[Net]) -> io::Result<()> {
    prepare(socket, link)?;
    let Made { outward, inward, .. } = make(&own, nets)?;
    let mut batch = Batch::new();
    add_filter(&mut batch, link, (EGRESS, slot), &inward);
    add_filter(&mut batch, link, (INGRESS, slot), &outward);
    socket.request(&mut batch).map_err(failed)
}

/// Programs that check destinations, and their maps.
struct Made {
    outward: OwnedFd,
    inward: OwnedFd,
    /// Of names, the ring, of networks, flows, what was told. The programs keep them.
    _maps: [OwnedFd; 5],
}

fn make(own: &Own<'_>, allowed: &[Net]) -> io::Result<Made> {
    if allowed.len() > MAX_NETS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many networks and ports"));
    }
    let map = |map_type, key_size, value_size, max_entries, map_flags| {
        bpf::create(&MapAttr { map_type, key_size, value_size, max_entries, map_flags })
    };
    let (net_key, name_key) = (size_of::<NetKey>() as u32, size_of::<NameKey>() as u32);
    let nets = map(LPM_TRIE, net_key, 4, allowed.len().max(1) as u32, NO_PREALLOC)?;
    for net in allowed {
        let key = NetKey { length: 32 + u32::from(net.length), key: NameKey::new(net.address, net.port) };
        bpf::update(&nets, &key, &u32::from(net.verdict == Verdict::Pass))?;
    }
    let names = map(HASH, name_key, 8, MAX_NAMES as u32, NO_PREALLOC)?;
    let flows = map(LRU_HASH, 24, 8, MAX_FLOWS, 0)?;
    let told = map(LRU_HASH, name_key, 8, MAX_TOLD, 0)?;
    let ring = map(RING, 0, 0, RING_SIZE, 0)?;
    let maps = Maps {
        nets: nets.as_raw_fd(),
        names: names.as_raw_fd(),
        flows: flows.as_raw_fd(),
        told: told.as_raw_fd(),
        ring: ring.as_raw_fd(),
    };
    let outward = bpf::load(PROG_TYPE_SCHED_CLS, 0, &program::outward(own, Some(maps)))?;
    let inward = bpf::load(PROG_TYPE_SCHED_CLS, 0, &program::inward(own, maps))?;
    Ok(Made { outward, inward, _maps: [names, ring, nets, flows, told] })
}

/// A gate that checks destinations.
#[derive(Debug)]
pub struct Gate {
    names: OwnedFd,
    ring: Ring,
}

impl Gate {
    /// The gate of a link; `None`: it has none that checks destinations. Needs CAP_SYS_ADMIN.
    pub fn find(socket: &mut Socket, link: u32, slot: Slot) -> io::Result<Option<Gate>> {
        let found = socket.dump(
            GET_FILTER,
            |w| header(w, link, 0, (INGRESS, 0)),
            |message| {
                let info = message.payload.get(16..).and_then(read_u32)?;
                if message.kind != NEW_FILTER || info >> 16 != slot.priority() {
                    return None;
                }
                message.attributes(TCMSG).inside(TCA_OPTIONS).find(TCA_BPF_ID).and_then(read_u32)
            },
        );
        let Some(program) = found.map_err(failed)?.into_iter().next() else { return Ok(None) };
        let (mut names, mut ring) = (None, None);
        for (kind, map) in bpf::maps_of::<MAX_MAPS>(program)? {
            match kind {
                HASH => names = Some(map),
                RING => ring = Some(Ring::open(map, RING_SIZE as usize)?),
                _ => {}
            }
        }
        Ok(names.zip(ring).map(|(names, ring)| Gate { names, ring }))
    }

    /// Lets what goes to the address pass for as long, from now on. `None`: with every port, and what has none. `NOSPC`,
    /// `2BIG`: there are [`MAX_NAMES`] already.
    pub fn allow(&self, address: IpAddr, port: Option<u16>, lasts: Duration) -> io::Result<()> {
        let now = rustix::time::clock_gettime(ClockId::Monotonic);
        let now = Duration::new(now.tv_sec as u64, now.tv_nsec as u32);
        bpf::update(&self.names, &NameKey::new(address, port), &((now + lasts).as_nanos() as u64))
    }

    /// Does not, from now on; nothing happens when it did not.
    pub fn forget(&self, address: IpAddr, port: Option<u16>) -> io::Result<()> {
        match bpf::delete(&self.names, &NameKey::new(address, port)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Readable when something was dropped.
    pub fn pollable(&self) -> BorrowedFd<'_> {
        self.ring.pollable()
    }

    /// A destination of what was dropped, each once a minute.
    pub fn next_dropped(&mut self) -> Option<Dropped> {
        let mut record = [0; REPORT];
        if self.ring.next(&mut record)? < REPORT {
            return None;
        }
        let [family, protocol, high, low, rest @ ..] = record;
        let address = match family {
            4 => IpAddr::V4(Ipv4Addr::new(rest[0], rest[1], rest[2], rest[3])),
            _ => IpAddr::V6(Ipv6Addr::from(rest)),
        };
        Some(Dropped { protocol, address, port: u16::from_be_bytes([high, low]) })
    }
}

#[cfg(test)]
mod tests;
