//! Bridge networks: a bridge device on the host, a pair of links per container, translated ports.
//!
//! Order of `connect`: address and ports (books, then sockets), namespace with its links, rules, sockets opened. Each
//! step is undone when a later one fails; a namespace that is dropped takes its links with it. Nothing is locked while
//! the namespace and its links are made.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ipnet::Ipv4Net;
use model::id::EndpointId;
use model::{Context, Error, Result};
use rustix::io::Errno;
use sys::netlink::{Socket, link, listen, namespace};

use super::bridges::{Bridge, Bridges};
use super::lingering::{self, Lingering};
use super::rules::Rules;
use super::watch::Watch;
use super::{NetworkDriver, device};
use crate::config::{DEFAULT_BRIDGE, Enabled, NetworkConfig};
use crate::endpoint::{BoundPort, Connected, Endpoint, EndpointSpec};
use crate::ipam::{Ipam, PoolRequest};
use crate::mac::MacAddress;
use crate::plan::{BridgeNetwork, BridgePort, EndpointLinks, Published, Topology};
use crate::port::{self, Ports, Sockets};
use crate::row::NetworkRow;
use crate::spares::Spares;

/// Driver options of a bridge network's row.
pub mod option {
    pub const NAME: &str = "com.docker.network.bridge.name";
    pub const DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";
    pub const ICC: &str = "com.docker.network.bridge.enable_icc";
    pub const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
    pub const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
    pub const MTU: &str = "com.docker.network.driver.mtu";
}

/// The first index that is free in most new namespaces (1 is loopback).
const FIRST_INDEX: u32 = 2;
/// How often a pair is tried when its name or index is taken.
const ATTEMPTS: usize = 8;
/// Names of our ends of pairs: `veth` and this many hex digits.
const LINK_DIGITS: usize = 7;
const IPV6_DEFAULT: &str = "net/ipv6/conf/default/disable_ipv6";

/// See the module.
pub struct BridgeDriver {
    config: NetworkConfig,
    ipam: Box<dyn Ipam>,
    ports: Ports,
    bridges: Arc<Bridges>,
    /// The daemon's namespace: where the bridges are.
    host: OwnedFd,
    lingering: Lingering,
    namespaces: Arc<Spares>,
    /// Index for the container's end; moves on when a kernel puts links of its own into new namespaces.
    index: AtomicU32,
    ipv6: bool,
}

impl BridgeDriver {
    /// Works in the calling thread's namespace. `drop_foreign`: traffic that is not of bridges made here is dropped.
    pub fn new(
        config: NetworkConfig,
        ipam: Box<dyn Ipam>,
        namespaces: Arc<Spares>,
        drop_foreign: Enabled,
    ) -> Result<BridgeDriver> {
        let (bridges, published, userland_proxy) = (Vec::new(), Vec::new(), config.userland_proxy);
        let topology = Topology { bridges, published, userland_proxy, drop_foreign };
        let rules = if config.iptables.yes() { Rules::open(topology) } else { Rules::off(topology) };
        Ok(BridgeDriver {
            ipam,
            ports: Ports::open(&config.daemon_addresses),
            bridges: Arc::new(Bridges::new(rules)?),
            host: namespace::current().context("opening the network namespace")?,
            lingering: Lingering::default(),
            namespaces,
            index: AtomicU32::new(FIRST_INDEX),
            ipv6: listen::has_ipv6(),
            config,
        })
    }

    /// Whether firewall rules stand; without them published ports work through the proxy only.
    pub fn translates(&self) -> bool {
        self.bridges.rules.enabled()
    }

    /// Removes docker0 where an earlier daemon had a default network and this one has none.
    pub fn remove_default_device(&self) {
        let removed = self.bridges.links(|socket| match device::find(socket, DEFAULT_BRIDGE)? {
            None => Ok(()),
            Some(found) => {
                let mut batch = sys::netlink::Batch::new();
                link::delete(&mut batch, &found.name);
                socket.request(&mut batch).map_err(device::failed)
            }
        });
        if let Err(error) = removed {
            tracing::warn!(%error, "cannot remove {DEFAULT_BRIDGE}");
        }
    }

    fn links<T>(&self, call: impl FnOnce(&mut Socket) -> T) -> T {
        self.bridges.links(call)
    }

    /// The network's subnet, reserved, and the bridge device's own address in it.
    ///
    /// Without a given subnet: that of the device's address when it stands, else the one it had before, else the first
    /// predefined one that hides nothing the host reaches.
    fn choose_subnet(&self, network: &NetworkRow, name: &str) -> Result<(Ipv4Net, Ipv4Addr)> {
        let given = !network.options.contains_key(option::DEFAULT_BRIDGE) || self.config.bip.is_some();
        let index = self.links(|socket| device::find(socket, name))?.map_or(0, |l| l.index);
        let mut subnet = network.subnet;
        let mut own = network.address;
        let mut avoid = Vec::new();
        if !given {
            avoid = self.links(|socket| device::reached(socket, index))?;
            let standing = self.links(|socket| device::addresses(socket, index))?;
            if let Some(first) = standing.first() {
                subnet = Some(Ipv4Net::new(first.address, first.prefix_len).context("the bridge's address")?.trunc());
                own = Some(first.address);
            } else if self.config.bridge_is_given() {
                return Err(Error::invalid(format!("bridge {name} has no IPv4 address")));
            } else {
                subnet = subnet.filter(|s| !avoid.iter().any(|other| other.contains(s) || s.contains(other)));
            }
            // The range decides when it lies elsewhere.
            if let Some(range) = network.range.filter(|r| subnet.is_none_or(|s| !s.contains(r))) {
                subnet = Some(range.trunc());
            }
        }
        let subnet = self.reserve(subnet, network.range, avoid)?;
        let own = own.filter(|o| subnet.contains(o)).or_else(|| subnet.hosts().next());
        Ok((subnet, own.ok_or_else(|| Error::invalid(format!("no address in {subnet}")))?))
    }

    fn reserve(&self, subnet: Option<Ipv4Net>, range: Option<Ipv4Net>, avoid: Vec<Ipv4Net>) -> Result<Ipv4Net> {
        let pool = self.ipam.request_pool(&PoolRequest { subnet, range, avoid })?;
        pool.ok_or_else(|| Error::invalid("a bridge network needs a subnet"))
    }

    /// Makes the device and its rules; the subnet is reserved and the row complete.
    fn open_device(&self, network: &mut NetworkRow, name: &str, subnet: Ipv4Net, own: Ipv4Addr) -> Result<()> {
        let switch = |key: &str| network.options.get(key).is_none_or(|value| value == "true").into();
        let rules = BridgeNetwork {
            device: name.to_owned(),
            subnet,
            icc: switch(option::ICC),
            masquerade: switch(option::MASQUERADE),
        };
        let port = if !self.config.userland_proxy.yes() {
            BridgePort::Hairpin
        } else if !rules.icc.yes() {
            BridgePort::Isolated
        } else {
            BridgePort::Normal
        };
        // Rules first: what they drop must not pass while the device is set up.
        self.bridges.rules.change(|topology| {
            topology.bridges.retain(|b| b.device != rules.device);
            topology.bridges.push(rules);
        })?;
        let bridge = Bridge {
            index: 0,
            name: name.to_owned(),
            given: self.config.bridge_is_given().into(),
            mac: *network.mac.get_or_insert_with(MacAddress::random),
            mtu: network.options.get(option::MTU).and_then(|m| m.parse().ok()).unwrap_or(self.config.mtu),
            own,
            subnet,
            gateway: network.gateway.unwrap_or(own),
            port,
            route_localnet: (!self.config.userland_proxy.yes() && self.translates()).into(),
        };
        self.bridges.keep(&network.id, bridge)
    }

    /// A new namespace with its pair of links, attached to the bridge.
    fn build(&self, device: &Bridge, mac: MacAddress, address: Ipv4Addr) -> Result<(OwnedFd, String)> {
        for _ in 0..ATTEMPTS {
            let host_link = link_name();
            let index = self.index.load(Ordering::Relaxed);
            let links = EndpointLinks {
                host_link: &host_link,
                mac,
                index,
                mtu: device.mtu,
                address,
                prefix_len: device.subnet.prefix_len(),
                gateway: device.gateway,
                bridge: device.index,
                port: device.port,
            };
            let netns = self.namespaces.take().context("creating a network namespace")?;
            match namespace::enter(netns.as_fd(), || self.furnish(&links)).context("entering a network namespace")? {
                Ok(mut inner) => {
                    let attached = self.links(|socket| socket.request(&mut links.outside()));
                    let settled = attached.and_then(|()| inner.request(&mut links.settle()));
                    settled.map_err(device::failed).context(format!("attaching {host_link}"))?;
                    return Ok((netns, host_link));
                }
                Err(Refused { errno: Errno::EXIST, .. }) => (),
                Err(Refused { errno: Errno::BUSY, highest, .. }) => self.index.store(highest + 1, Ordering::Relaxed),
                Err(refused) => return Err(refused.error),
            }
        }
        Err(Error::system("cannot find a free name for the container's link"))
    }

    /// Runs in the new namespace: everything inside it, in one batch. Returns the socket, which stays in there.
    fn furnish(&self, links: &EndpointLinks<'_>) -> std::io::Result<Result<Socket, Refused>> {
        let mut socket = Socket::route()?;
        // The network has no IPv6: its links must not have either. The setting for links to come is on only while this
        // one is made.
        disable_ipv6("1");
        let made = socket.request(&mut links.inside(self.host.as_fd()));
        disable_ipv6("0");
        let Err(error) = made else { return Ok(Ok(socket)) };
        let present = link::list(&mut socket).unwrap_or_default();
        let highest = present.iter().map(|l| l.index).max().unwrap_or(FIRST_INDEX);
        // Only the second message (the pair) is refused for a name or an index.
        let errno = if error.index == 1 { error.errno } else { Errno::IO };
        Ok(Err(Refused { errno, highest, error: device::failed(error) }))
    }

    fn published(&self, address: Option<Ipv4Addr>, ports: &[BoundPort]) -> Vec<Published> {
        let Some(address) = address else { return Vec::new() };
        ports.iter().filter_map(|port| Published::new(port, address, self.config.userland_proxy)).collect()
    }

    /// What comes after the address is taken.
    fn connect_at(&self, device: &Bridge, spec: &EndpointSpec, address: Ipv4Addr) -> Result<Connected> {
        let id = EndpointId::from_bytes(sys::random::bytes32());
        let ipv6 = self.ipv6 && self.config.userland_proxy.yes();
        let defaults = port::Defaults { address: self.config.host_binding_ip, ipv6 };
        let outside = |error: Error| {
            error.prefix(format!("driver failed programming external connectivity on endpoint {} ({id})", spec.name))
        };
        let sockets = self.ports.bind(&port::groups(&spec.ports, defaults)).map_err(outside)?;
        let ports = sockets.ports();
        let mac = spec.mac.unwrap_or_else(MacAddress::random);
        let published = self.published(Some(address), &ports);
        let made = self.build(device, mac, address).and_then(|built| {
            self.bridges.rules.add(&published).map_err(outside)?;
            self.open_sockets(&sockets).inspect_err(|_| self.forget(&published)).map_err(outside)?;
            Ok(built)
        });
        let (netns, host_link) = made.inspect_err(|_| self.ports.release(&ports))?;
        self.bridges.add_port(&host_link, &spec.network);
        let endpoint = Endpoint {
            id,
            network: spec.network.clone(),
            container: spec.container.clone(),
            address: Some(address),
            prefix_len: device.subnet.prefix_len(),
            gateway: Some(device.gateway),
            mac: Some(mac),
            host_link: Some(host_link),
            ports,
        };
        Ok(Connected { endpoint, netns: Some(netns), sockets: sockets.loose, parked: sockets.parked })
    }

    /// Lets the sockets hear, unless translation does everything.
    fn open_sockets(&self, sockets: &Sockets) -> Result<()> {
        if self.config.userland_proxy.yes() || !self.translates() {
            sockets.hear().context("opening a published port")?;
        }
        Ok(())
    }

    fn forget(&self, published: &[Published]) {
        if let Err(error) = self.bridges.rules.remove(published) {
            tracing::warn!(%error, "cannot remove rules of published ports");
        }
    }

    /// Deletes links of ours on our bridges that belong to no live endpoint.
    fn remove_stale_links(&self, live: &[Endpoint]) -> Result<()> {
        let bridges = self.bridges.indices();
        let wanted: BTreeSet<&str> = live.iter().filter_map(|e| e.host_link.as_deref()).collect();
        self.links(|socket| {
            let standing = link::list(socket).map_err(device::failed)?;
            let stale = standing
                .into_iter()
                .filter(|l| bridges.contains(&l.master) && is_ours(&l.name) && !wanted.contains(l.name.as_str()))
                .map(|l| l.name)
                .collect();
            lingering::delete_present(socket, &stale);
            Ok(())
        })
    }
}

/// A pair that was not made.
struct Refused {
    errno: Errno,
    /// The highest index in the namespace.
    highest: u32,
    error: Error,
}

fn disable_ipv6(value: &str) {
    match namespace::set_sysctl(IPV6_DEFAULT, value) {
        Ok(()) => (),
        // A kernel without IPv6.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => (),
        Err(error) => tracing::warn!(%error, "cannot switch IPv6 off on a container's link"),
    }
}

fn link_name() -> String {
    let number = sys::random::number() & ((1 << (4 * LINK_DIGITS)) - 1);
    format!("veth{number:0LINK_DIGITS$x}")
}

fn is_ours(name: &str) -> bool {
    name.strip_prefix("veth").is_some_and(|digits| {
        digits.len() == LINK_DIGITS && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

impl NetworkDriver for BridgeDriver {
    fn name(&self) -> &'static str {
        "bridge"
    }

    fn open(&self, network: &mut NetworkRow) -> Result<()> {
        let name = network.options.get(option::NAME).cloned().unwrap_or_else(|| format!("br-{}", network.id.short()));
        let (subnet, own) = self.choose_subnet(network, &name)?;
        let opened = (|| {
            let own = self.ipam.request_address(subnet, Some(own))?;
            if let Some(gateway) = network.gateway.filter(|g| *g != own && subnet.contains(g)) {
                self.ipam.request_address(subnet, Some(gateway))?;
            }
            self.open_device(network, &name, subnet, own)?;
            network.gateway.get_or_insert(own);
            network.subnet = Some(subnet);
            network.address = Some(own);
            Ok(())
        })();
        if opened.is_err() {
            self.ipam.release_pool(subnet);
        }
        opened
    }

    fn close(&self, network: &NetworkRow) -> Result<()> {
        let Some(device) = self.bridges.forget(&network.id) else { return Ok(()) };
        self.ipam.release_pool(device.subnet);
        self.bridges.rules.change(|topology| topology.bridges.retain(|b| b.device != device.name))?;
        let present = self.links(|socket| device::find(socket, &device.name))?;
        if present.is_none() || device.given.yes() {
            return Ok(());
        }
        let mut batch = sys::netlink::Batch::new();
        link::delete(&mut batch, &device.name);
        self.links(|socket| socket.request(&mut batch)).map_err(device::failed)
    }

    fn reconcile(&self, live: &[Endpoint]) -> Result<()> {
        let mut published = Vec::new();
        for endpoint in live {
            let device = self.bridges.known(&endpoint.network)?;
            let taken = endpoint.address.map(|address| self.ipam.request_address(device.subnet, Some(address)));
            if let Some(Err(error)) = taken {
                tracing::warn!(%error, container = %endpoint.container, "a live container's address is not free");
            }
            self.ports.adopt(&endpoint.ports);
            if let Some(link) = &endpoint.host_link {
                self.bridges.add_port(link, &endpoint.network);
            }
            published.extend(self.published(endpoint.address, &endpoint.ports));
        }
        self.bridges.rules.replace_published(published)?;
        self.bridges.attach_all_ports()?;
        self.remove_stale_links(live)
    }

    fn connect(&self, network: &NetworkRow, spec: &EndpointSpec) -> Result<Connected> {
        let device = self.bridges.current(&network.id)?;
        let address = self.ipam.request_address(device.subnet, spec.address)?;
        self.connect_at(&device, spec, address).inspect_err(|_| self.ipam.release_address(device.subnet, address))
    }

    fn release(&self, network: &NetworkRow, endpoint: &Endpoint) -> Result<()> {
        let device = self.bridges.known(&network.id)?;
        let removed = self.bridges.rules.remove(&self.published(endpoint.address, &endpoint.ports));
        self.ports.release(&endpoint.ports);
        if let Some(link) = &endpoint.host_link {
            self.bridges.remove_port(link);
            self.lingering.watch(link.clone(), || namespace::enter(self.host.as_fd(), Socket::route));
        }
        if let Some(address) = endpoint.address {
            self.ipam.release_address(device.subnet, address);
        }
        removed
    }

    fn sizes(&self) -> Vec<(&'static str, usize)> {
        vec![
            ("addresses", self.ipam.taken()),
            ("ports", self.ports.taken()),
            ("links", self.bridges.port_count()),
            ("lingering-links", self.lingering.count()),
            ("translations", self.bridges.rules.published()),
        ]
    }

    fn watch(&self) -> Result<Option<Watch>> {
        Watch::start(self.bridges.clone()).map(Some).context("watching rules and bridges")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names() {
        for _ in 0..100 {
            let name = link_name();
            assert!(is_ours(&name) && name.len() <= link::MAX_NAME, "{name}");
        }
        for other in ["veth", "veth123456", "veth12345678", "vethABCDEF0", "eth0", "vethghijklm"] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
