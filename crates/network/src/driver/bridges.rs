//! The bridge devices of open networks, their rules, and the ports that belong to them.
//!
//! Others may delete a device and make it anew while containers run. A device is therefore looked up by name whenever it
//! is used; one with another index than before gets its address and settings back, and the links of live containers
//! become its ports again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use model::id::NetworkId;
use model::lock::{Mutex, MutexGuard};
use model::{Context, Error, Result};
use sys::netlink::address::{self, Address};
use sys::netlink::link::{self, Link};
use sys::netlink::{Batch, Socket, namespace};

use super::device;
use super::firewalld::Firewalld;
use super::rules::Rules;
use super::settings::Settings;
use crate::config::{Enabled, PublishMode};
use crate::family::{self, Family};
use crate::mac::MacAddress;
use crate::plan::{BridgePort, GatewayMode};

/// The device of an open network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// When it was last looked up; 0 = never.
    pub index: u32,
    pub name: String,
    /// The administrator's: used as found, never made or changed.
    pub given: Enabled,
    /// Found when the network was made: what it lacks is added, it is never deleted.
    pub foreign: Enabled,
    pub mac: MacAddress,
    pub mtu: u32,
    /// The device's own addresses, with their prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    pub subnets: Vec<IpNet>,
    /// Where ports without a host address are published.
    pub host_binding: IpAddr,
    pub publish: PublishMode,
    /// Some links' packets may go to published ports by the containers' own addresses.
    pub trusts: Enabled,
    /// By family that the network has.
    pub modes: Vec<(Family, GatewayMode)>,
    pub port: BridgePort,
    /// Packets to 127.0.0.0/8 are routed: for translation without a proxy.
    pub route_localnet: Enabled,
}

/// See the module.
pub struct Bridges {
    pub rules: Rules,
    pub firewalld: Firewalld,
    links: Mutex<Socket>,
    open: Mutex<BTreeMap<NetworkId, Bridge>>,
    /// Host ends of live containers' pairs.
    ports: Mutex<BTreeMap<String, NetworkId>>,
    /// Held while a device is brought back; nothing else waits for it.
    mending: Mutex<()>,
}

impl Bridges {
    /// Works in the calling thread's namespace.
    pub fn new(rules: Rules, firewalld: Firewalld) -> Result<Bridges> {
        let links = Mutex::new(Socket::route().context("opening a netlink socket")?);
        let (open, ports, mending) = (Mutex::default(), Mutex::default(), Mutex::default());
        Ok(Bridges { rules, firewalld, links, open, ports, mending })
    }

    /// Lets the traffic of the bridges pass the host's own firewall, whatever keeps it. A network works without where no other
    /// firewall drops.
    pub fn keep_passage(&self) {
        if let Err(error) = self.rules.keep_jumps() {
            tracing::warn!(%error, "the host's own firewall may drop what is forwarded for containers");
        }
        self.keep_in_zone();
    }

    /// Has firewalld count the bridges of which rules are kept to its zone, and no others of ours.
    pub fn keep_in_zone(&self) {
        let devices = self.rules.devices();
        let kept = if self.rules.enabled() { self.firewalld.keep(&devices) } else { self.firewalld.forget(&devices) };
        if let Err(error) = kept {
            tracing::warn!(%error, "firewalld may drop what is forwarded for containers");
        }
    }

    /// A bridge that goes is no member of firewalld's zone any more.
    pub fn leave_zone(&self, device: &str) {
        if let Err(error) = self.firewalld.forget(&[device.to_owned()]) {
            tracing::warn!(%error, device, "firewalld keeps a bridge in its zone that is gone");
        }
    }

    /// Requests about links of the daemon's namespace.
    pub fn links<T>(&self, call: impl FnOnce(&mut Socket) -> T) -> T {
        // A socket is usable after a panic: it skips answers that it did not ask for.
        call(&mut self.links.lock())
    }

    /// Makes the device, or finds the administrator's, and keeps it from now on.
    pub fn keep(&self, network: &NetworkId, bridge: Bridge) -> Result<()> {
        let index = self.furnish(&bridge, Present::AsWanted)?;
        self.open().insert(network.clone(), Bridge { index, ..bridge });
        Ok(())
    }

    /// Forgets a device; returns what was known of it.
    pub fn forget(&self, network: &NetworkId) -> Option<Bridge> {
        self.open().remove(network)
    }

    /// What is known of a device, without a look at the kernel.
    pub fn known(&self, network: &NetworkId) -> Result<Bridge> {
        let bridge = self.open().get(network).cloned();
        bridge.ok_or_else(|| Error::system(format!("network {network} is not open")))
    }

    /// A device as it stands now; brought back first when it is gone or was made anew.
    pub fn current(&self, network: &NetworkId) -> Result<Bridge> {
        let known = self.known(network)?;
        let found = self.links(|socket| device::find(socket, &known.name))?;
        if found.is_some_and(|link| link.index == known.index) { Ok(known) } else { self.mend(network) }
    }

    /// A link that belongs to a container and is a port of the network's device.
    pub fn add_port(&self, link: &str, network: &NetworkId) {
        self.ports().insert(link.to_owned(), network.clone());
    }

    /// The link is gone, or no container's any more.
    pub fn remove_port(&self, link: &str) {
        self.ports().remove(link);
    }

    /// Whether a notice about a link of this name and index, or about an address of the index, is about a device here.
    pub fn is_ours(&self, name: Option<&str>, index: u32) -> bool {
        self.open().values().any(|bridge| bridge.index == index || Some(bridge.name.as_str()) == name)
    }

    /// Gives devices that others made anew, or took the address of, what they had. A device that is gone stays so until
    /// it is used: whoever deleted it may be about to make it again.
    pub fn mend_present(&self) -> Result<()> {
        let open: Vec<_> = self.open().iter().map(|(network, bridge)| (network.clone(), bridge.clone())).collect();
        // Looked up once: there may be hundreds of networks.
        let (links, standing) =
            self.links(|socket| Ok((link::list(socket)?, address::list(socket)?))).map_err(device::failed)?;
        let is_whole = |bridge: &Bridge| links.iter().any(|found| bridge.is_whole(found, &standing));
        let mut result = Ok(());
        for (network, bridge) in open.iter().filter(|(_, bridge)| !is_whole(bridge)) {
            result = result.and(self.mend_if_present(network, bridge));
        }
        result
    }

    /// Makes the links of all live containers ports of their devices where they are not.
    pub fn attach_all_ports(&self) -> Result<()> {
        let open: BTreeMap<_, _> = self.open().clone();
        let ports = self.ports().clone();
        let standing = self.links(link::list).map_err(device::failed)?;
        for link in &standing {
            let Some(bridge) = ports.get(&link.name).and_then(|network| open.get(network)) else { continue };
            self.links(|socket| bridge.attach(socket, link));
        }
        Ok(())
    }

    fn mend_if_present(&self, network: &NetworkId, bridge: &Bridge) -> Result<()> {
        self.links(|socket| bridge.call_again(socket))?;
        let Some(found) = self.links(|socket| device::find(socket, &bridge.name))? else { return Ok(()) };
        let addresses = self.links(|socket| device::addresses(socket, found.index))?;
        if bridge.is_whole(&found, &addresses) { Ok(()) } else { self.mend(network).map(drop) }
    }

    fn mend(&self, network: &NetworkId) -> Result<Bridge> {
        let _turn = self.mending.lock();
        let known = self.known(network)?;
        self.links(|socket| known.call_again(socket))?;
        let index = self.furnish(&known, Present::Kept)?;
        if index != known.index {
            tracing::warn!(device = %known.name, "the bridge was made anew; it has its address and its ports again");
        }
        let bridge = Bridge { index, ..known };
        self.attach_ports(network, &bridge)?;
        if let Some(open) = self.open().get_mut(network) {
            open.index = index;
        }
        Ok(bridge)
    }

    /// The device with its address and settings; its index.
    fn furnish(&self, bridge: &Bridge, present: Present) -> Result<u32> {
        let name = &bridge.name;
        if bridge.given.yes() {
            let found = self.links(|socket| device::find(socket, name))?;
            let missing =
                || Error::system(format!("bridge device with non default name {name} must be created manually"));
            let index = found.map(|l| l.index).ok_or_else(missing)?;
            return self.set_loopback_routing(bridge).map(|()| index);
        }
        let wanted = device::Wanted { name, mac: bridge.mac, mtu: bridge.mtu, addresses: &bridge.addresses };
        if bridge.addresses.iter().any(|(address, _)| address.is_ipv6()) {
            self.prepare_for_ipv6(&wanted)?;
        }
        let index = self.links(|socket| match present {
            Present::AsWanted if !bridge.foreign.yes() => device::ensure(socket, &wanted),
            _ => device::restore(socket, &wanted, bridge.index),
        })?;
        self.set_loopback_routing(bridge).map(|()| index)
    }

    /// A bridge of an IPv6 network has IPv6 wherever the host has it on no link by default, and routes for its containers
    /// alone: nobody's advertisements are for it.
    fn prepare_for_ipv6(&self, wanted: &device::Wanted<'_>) -> Result<()> {
        let bare = device::Wanted { addresses: &[], ..*wanted };
        if self.links(|socket| device::find(socket, wanted.name))?.is_none() {
            self.links(|socket| device::ensure(socket, &bare))?;
        }
        for (setting, value) in [("disable_ipv6", "0"), ("accept_ra", "0")] {
            let name = format!("net/ipv6/conf/{}/{setting}", wanted.name);
            namespace::set_sysctl(&name, value).context("preparing a bridge for IPv6")?;
        }
        Ok(())
    }

    /// A known network that has the device or a subnet of another one: its id and device, and what both have.
    pub fn conflict(&self, network: &NetworkId, settings: &Settings) -> Option<((NetworkId, String), &'static str)> {
        let open = self.open();
        let mut others = open.iter().filter(|(id, _)| *id != network);
        others.find_map(|(id, other)| {
            let why = if other.name == settings.device {
                Some("networks have same bridge name")
            } else {
                let mut own = settings.rules.subnets.iter().map(|subnet| subnet.net);
                own.find(|own| other.subnets.iter().any(|net| family::overlap(*own, *net))).map(|net| {
                    match family::of_net(net) {
                        Family::Ipv4 => "networks have overlapping IPv4",
                        Family::Ipv6 => "networks have overlapping IPv6",
                    }
                })
            };
            why.map(|why| ((id.clone(), other.name.clone()), why))
        })
    }

    /// A given device keeps the setting when there is a proxy: the administrator may have made it. Rules drop what it
    /// would let in.
    fn set_loopback_routing(&self, bridge: &Bridge) -> Result<()> {
        let value = match (bridge.route_localnet.yes(), bridge.given.yes()) {
            (true, _) => "1",
            (false, false) => "0",
            (false, true) => return Ok(()),
        };
        let name = format!("net/ipv4/conf/{}/route_localnet", bridge.name);
        namespace::set_sysctl(&name, value).context("setting the routing of loopback addresses")
    }

    /// Makes the links of the network's live containers ports of the device where they are not.
    fn attach_ports(&self, network: &NetworkId, bridge: &Bridge) -> Result<()> {
        let ports = self.ports();
        let ours: BTreeSet<_> = ports.iter().filter(|(_, of)| *of == network).map(|(link, _)| link.clone()).collect();
        drop(ports);
        self.links(|socket| {
            let standing = link::list(socket).map_err(device::failed)?;
            standing.iter().filter(|link| ours.contains(&link.name)).for_each(|link| bridge.attach(socket, link));
            Ok(())
        })
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<NetworkId, Bridge>> {
        // Every change is a single insertion, removal or assignment: a panic elsewhere leaves the map right.
        self.open.lock()
    }

    fn ports(&self) -> MutexGuard<'_, BTreeMap<String, NetworkId>> {
        // Likewise.
        self.ports.lock()
    }

    /// How many links are known to be ports.
    pub fn port_count(&self) -> usize {
        self.ports().len()
    }

    /// Indices of all devices.
    pub fn indices(&self) -> BTreeSet<u32> {
        self.open().values().map(|bridge| bridge.index).collect()
    }
}

/// What a device that stands has beside what is wanted.
#[derive(Clone, Copy)]
enum Present {
    /// Goes: the daemon starts, the configuration says what is wanted.
    AsWanted,
    /// Stays: the daemon runs, and somebody else has just made it.
    Kept,
}

impl Bridge {
    /// Has its name again when somebody has renamed it; others' devices are theirs to name.
    fn call_again(&self, socket: &mut Socket) -> Result<()> {
        if self.given.yes() || self.foreign.yes() {
            return Ok(());
        }
        let wanted = device::Wanted { name: &self.name, mac: self.mac, mtu: self.mtu, addresses: &self.addresses };
        device::call_again(socket, &wanted, self.index)
    }

    /// Makes the link of a container a port of the device unless it is one.
    fn attach(&self, socket: &mut Socket, link: &Link) {
        if link.master == self.index {
            return;
        }
        let mut batch = Batch::new();
        self.port.attach(&mut batch, &link.name, self.index);
        if let Err(error) = socket.request(&mut batch) {
            // Its container may have ended meanwhile.
            tracing::warn!(%error, link = %link.name, "cannot attach the link to its bridge");
        }
    }

    /// Whether a link that stands is the device, with what it had.
    fn is_whole(&self, found: &Link, standing: &[Address]) -> bool {
        let is_it = (&found.name, found.index, found.kind.as_str()) == (&self.name, self.index, "bridge");
        is_it && (self.given.yes() || self.has_its_addresses(found, standing))
    }

    fn has_its_addresses(&self, found: &Link, standing: &[Address]) -> bool {
        let of_link = |(address, prefix_len): &(IpAddr, u8)| Address {
            link: found.index,
            address: *address,
            prefix_len: *prefix_len,
        };
        self.addresses.iter().map(of_link).all(|own| standing.contains(&own))
    }
}
