//! Links: bridges, pairs of virtual Ethernet devices, and what can be changed about any link.
//!
//! A pair is created in one message from inside the container's namespace: the near end with its final name, address,
//! MTU and index, up; the far end directly in the host's namespace. Nothing is created here and moved there, and since
//! the near end's index is chosen by the caller, its address and routes go into the same batch. (From the host's side
//! this does not work: the kernel neither takes an index for a far end nor lets it be created up.)

use std::os::fd::{AsRawFd, BorrowedFd};

use super::socket::{Error, Socket};
use super::wire::{Batch, Message, Writer, read_string, read_u32};

/// Longest name of a link (`IFNAMSIZ` without its zero).
pub const MAX_NAME: usize = 15;
/// The loopback link's index in every namespace.
pub const LOOPBACK: u32 = 1;

const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFINFOMSG: usize = 16;
const UP: u32 = libc::IFF_UP as u32;

/// A link as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// `bridge`, `veth`, …; empty for hardware and loopback.
    pub kind: String,
    pub mac: Option<[u8; 6]>,
    pub mtu: u32,
    /// Index of the bridge that the link is a port of; 0 = none.
    pub master: u32,
    /// Administratively up.
    pub up: bool,
}

/// A bridge to create.
#[derive(Clone, Copy, Debug)]
pub struct Bridge<'a> {
    pub name: &'a str,
    pub mac: [u8; 6],
    pub mtu: u32,
}

/// A pair to create. The near end lies in the socket's namespace and is up, the far end in another and is down.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    pub name: &'a str,
    pub mac: [u8; 6],
    /// The near end's index; it must be free.
    pub index: u32,
    pub mtu: u32,
    pub far_name: &'a str,
    pub far_namespace: BorrowedFd<'a>,
}

/// Writes `struct ifinfomsg`.
fn header(w: &mut Writer<'_>, index: u32, flags: u32, change: u32) {
    w.put(&[libc::AF_UNSPEC as u8, 0]);
    w.put(&0u16.to_ne_bytes());
    w.put(&index.to_ne_bytes());
    w.put(&flags.to_ne_bytes());
    w.put(&change.to_ne_bytes());
}

/// Creates a bridge, down.
pub fn create_bridge(batch: &mut Batch, bridge: &Bridge<'_>) {
    batch.push("create bridge", libc::RTM_NEWLINK, CREATE, |w| {
        header(w, 0, 0, 0);
        w.string(libc::IFLA_IFNAME, bridge.name);
        w.bytes(libc::IFLA_ADDRESS, &bridge.mac);
        w.u32(libc::IFLA_MTU, bridge.mtu);
        w.nested(libc::IFLA_LINKINFO, |w| w.string(libc::IFLA_INFO_KIND, "bridge"));
    });
}

/// Creates a pair; see `Veth`.
pub fn create_veth(batch: &mut Batch, veth: &Veth<'_>) {
    batch.push("create veth pair", libc::RTM_NEWLINK, CREATE, |w| {
        header(w, veth.index, UP, UP);
        w.string(libc::IFLA_IFNAME, veth.name);
        w.bytes(libc::IFLA_ADDRESS, &veth.mac);
        w.u32(libc::IFLA_MTU, veth.mtu);
        w.nested(libc::IFLA_LINKINFO, |w| {
            w.string(libc::IFLA_INFO_KIND, "veth");
            w.nested(libc::IFLA_INFO_DATA, |w| w.nested(VETH_INFO_PEER, |w| write_far_end(w, veth)));
        });
    });
}

/// What a link that lies on another one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upper {
    /// `MACVLAN_MODE_*` of linux/if_link.h.
    Macvlan { mode: u32 },
    /// `IPVLAN_MODE_*` and `IPVLAN_F_*`.
    Ipvlan { mode: u16, flags: u16 },
    /// 802.1q, with its number.
    Vlan { id: u16 },
}

/// A link on another one, to create in the socket's namespace, down.
#[derive(Clone, Copy, Debug)]
pub struct OnLink<'a> {
    pub name: &'a str,
    /// `None` = the kernel's choice.
    pub mac: Option<[u8; 6]>,
    /// Its index where it goes; 0 = the kernel's choice.
    pub index: u32,
    /// Index of the link below.
    pub parent: u32,
    /// `None` = the parent's.
    pub mtu: Option<u32>,
    pub kind: Upper,
    /// Where the new link goes; `None` = the socket's own namespace.
    pub namespace: Option<BorrowedFd<'a>>,
}

const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_FLAGS: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;

/// Creates a link on another one. `OPNOTSUPP`: the kernel has no such kind.
pub fn create_on_link(batch: &mut Batch, made: &OnLink<'_>) {
    batch.push("create link on a parent", libc::RTM_NEWLINK, CREATE, |w| {
        header(w, made.index, 0, 0);
        w.string(libc::IFLA_IFNAME, made.name);
        w.u32(libc::IFLA_LINK, made.parent);
        if let Some(mac) = made.mac {
            w.bytes(libc::IFLA_ADDRESS, &mac);
        }
        if let Some(mtu) = made.mtu {
            w.u32(libc::IFLA_MTU, mtu);
        }
        if let Some(namespace) = made.namespace {
            w.u32(libc::IFLA_NET_NS_FD, namespace.as_raw_fd() as u32);
        }
        w.nested(libc::IFLA_LINKINFO, |w| match made.kind {
            Upper::Macvlan { mode } => {
                w.string(libc::IFLA_INFO_KIND, "macvlan");
                w.nested(libc::IFLA_INFO_DATA, |w| w.u32(IFLA_MACVLAN_MODE, mode));
            }
            Upper::Ipvlan { mode, flags } => {
                w.string(libc::IFLA_INFO_KIND, "ipvlan");
                w.nested(libc::IFLA_INFO_DATA, |w| {
                    w.bytes(IFLA_IPVLAN_MODE, &mode.to_ne_bytes());
                    w.bytes(IFLA_IPVLAN_FLAGS, &flags.to_ne_bytes());
                });
            }
            Upper::Vlan { id } => {
                w.string(libc::IFLA_INFO_KIND, "vlan");
                w.nested(libc::IFLA_INFO_DATA, |w| w.bytes(IFLA_VLAN_ID, &id.to_ne_bytes()));
            }
        });
    });
}

/// Creates a link that leads nowhere, down. `OPNOTSUPP`: the kernel has no such kind.
pub fn create_dummy(batch: &mut Batch, name: &str) {
    batch.push("create dummy link", libc::RTM_NEWLINK, CREATE, |w| {
        header(w, 0, 0, 0);
        w.string(libc::IFLA_IFNAME, name);
        w.nested(libc::IFLA_LINKINFO, |w| w.string(libc::IFLA_INFO_KIND, "dummy"));
    });
}

fn write_far_end(w: &mut Writer<'_>, veth: &Veth<'_>) {
    header(w, 0, 0, 0);
    w.string(libc::IFLA_IFNAME, veth.far_name);
    w.u32(libc::IFLA_MTU, veth.mtu);
    w.u32(libc::IFLA_NET_NS_FD, veth.far_namespace.as_raw_fd() as u32);
}

/// Makes a link a port of the bridge and sets it up.
pub fn attach(batch: &mut Batch, name: &str, bridge: u32) {
    batch.push("attach link to bridge", libc::RTM_NEWLINK, 0, |w| {
        header(w, 0, UP, UP);
        w.string(libc::IFLA_IFNAME, name);
        w.u32(libc::IFLA_MASTER, bridge);
    });
}

/// Lets a bridge port send frames back where they came from (needed for hairpin NAT).
pub fn set_hairpin(batch: &mut Batch, name: &str) {
    set_port(batch, "set hairpin mode", name, IFLA_BRPORT_MODE);
}

/// Keeps frames of a bridge port from other isolated ports.
pub fn set_isolated(batch: &mut Batch, name: &str) {
    set_port(batch, "isolate bridge port", name, IFLA_BRPORT_ISOLATED);
}

/// Turns a flag of a bridge port on.
fn set_port(batch: &mut Batch, label: &'static str, name: &str, flag: u16) {
    batch.push(label, libc::RTM_NEWLINK, 0, |w| {
        header(w, 0, 0, 0);
        w.string(libc::IFLA_IFNAME, name);
        w.nested(libc::IFLA_LINKINFO, |w| {
            w.string(libc::IFLA_INFO_SLAVE_KIND, "bridge");
            w.nested(libc::IFLA_INFO_SLAVE_DATA, |w| w.u8(flag, 1));
        });
    });
}

pub fn set_up(batch: &mut Batch, index: u32) {
    batch.push("set link up", libc::RTM_NEWLINK, 0, |w| header(w, index, UP, UP));
}

/// Takes a link out of service; it keeps its IPv4 addresses.
pub fn set_down(batch: &mut Batch, index: u32) {
    batch.push("set link down", libc::RTM_NEWLINK, 0, |w| header(w, index, 0, UP));
}

pub fn set_mtu(batch: &mut Batch, index: u32, mtu: u32) {
    batch.push("set link MTU", libc::RTM_NEWLINK, 0, |w| {
        header(w, index, 0, 0);
        w.u32(libc::IFLA_MTU, mtu);
    });
}

pub fn set_mac(batch: &mut Batch, index: u32, mac: [u8; 6]) {
    batch.push("set link address", libc::RTM_NEWLINK, 0, |w| {
        header(w, index, 0, 0);
        w.bytes(libc::IFLA_ADDRESS, &mac);
    });
}

/// The kernel refuses to rename a link that is up (before Linux 6.3).
pub fn rename(batch: &mut Batch, index: u32, name: &str) {
    batch.push("rename link", libc::RTM_NEWLINK, 0, |w| {
        header(w, index, 0, 0);
        w.string(libc::IFLA_IFNAME, name);
    });
}

/// Moves a link into another namespace, where it is called `name` and down.
pub fn move_to(batch: &mut Batch, index: u32, namespace: BorrowedFd<'_>, name: &str) {
    batch.push("move link", libc::RTM_NEWLINK, 0, |w| {
        header(w, index, 0, 0);
        w.string(libc::IFLA_IFNAME, name);
        w.u32(libc::IFLA_NET_NS_FD, namespace.as_raw_fd() as u32);
    });
}

/// Makes a link a port of a bridge; 0 takes it out.
pub fn set_master(batch: &mut Batch, index: u32, bridge: u32) {
    batch.push("set link master", libc::RTM_NEWLINK, 0, |w| {
        header(w, index, 0, 0);
        w.u32(libc::IFLA_MASTER, bridge);
    });
}

/// Makes the kernel finish what a changed carrier set off (opening a bridge's port, starting a queue): that runs in the
/// background, and until it did the link drops what it is given. Asking about a link waits for it (Linux 6.8).
pub fn await_carrier(batch: &mut Batch, index: u32) {
    batch.push("await the carrier of a link", libc::RTM_GETLINK, 0, |w| header(w, index, 0, 0));
}

/// `await_carrier` for a link known by name.
pub fn await_carrier_named(batch: &mut Batch, name: &str) {
    batch.push("await the carrier of a link", libc::RTM_GETLINK, 0, |w| {
        header(w, 0, 0, 0);
        w.string(libc::IFLA_IFNAME, name);
    });
}

/// Deleting one end of a pair deletes both.
pub fn delete(batch: &mut Batch, name: &str) {
    batch.push("delete link", libc::RTM_DELLINK, 0, |w| {
        header(w, 0, 0, 0);
        w.string(libc::IFLA_IFNAME, name);
    });
}

/// All links of the socket's namespace.
pub fn list(socket: &mut Socket) -> Result<Vec<Link>, Error> {
    socket.dump(libc::RTM_GETLINK, |w| header(w, 0, 0, 0), |message| parse(&message))
}

/// One link by name; `None` when there is none.
pub fn find(socket: &mut Socket, name: &str) -> Result<Option<Link>, Error> {
    let mut batch = Batch::new();
    batch.push("find link", libc::RTM_GETLINK, 0, |w| {
        header(w, 0, 0, 0);
        w.string(libc::IFLA_IFNAME, name);
    });
    let mut found = None;
    match socket.transact(&mut batch, 0, |message| found = parse(&message)) {
        Ok(()) => Ok(found),
        Err(error) if error.errno == rustix::io::Errno::NODEV => Ok(None),
        Err(error) => Err(error),
    }
}

/// The link that a notice of a new, changed or deleted link is about.
pub fn changed(message: &Message<'_>) -> Option<Link> {
    // Notices about a bridge's port name the port, in the family AF_BRIDGE.
    let family = *message.payload.first()?;
    let about_links = matches!(message.kind, libc::RTM_NEWLINK | libc::RTM_DELLINK) && family == libc::AF_UNSPEC as u8;
    about_links.then(|| parse_link(message))?
}

fn parse(message: &Message<'_>) -> Option<Link> {
    if message.kind != libc::RTM_NEWLINK {
        return None;
    }
    parse_link(message)
}

fn parse_link(message: &Message<'_>) -> Option<Link> {
    let attributes = message.attributes(IFINFOMSG);
    Some(Link {
        index: read_u32(message.payload.get(4..)?)?,
        name: attributes.find(libc::IFLA_IFNAME).map(read_string)?,
        kind: attributes.inside(libc::IFLA_LINKINFO).find(libc::IFLA_INFO_KIND).map(read_string).unwrap_or_default(),
        mac: attributes.find(libc::IFLA_ADDRESS).and_then(|a| a.try_into().ok()),
        mtu: attributes.find(libc::IFLA_MTU).and_then(read_u32).unwrap_or(0),
        master: attributes.find(libc::IFLA_MASTER).and_then(read_u32).unwrap_or(0),
        up: read_u32(message.payload.get(8..)?)? & UP != 0,
    })
}
