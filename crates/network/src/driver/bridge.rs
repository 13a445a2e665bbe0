//! Bridge networks: a bridge device on the host, a pair of links per endpoint, translated ports.
//!
//! Order of `join`: ports (books, then sockets), the pair of links, rules, sockets opened. Each step is undone when a
//! later one fails. Nothing is locked while links are made.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ipnet::IpNet;
use model::id::EndpointId;
use model::{Context, Error, Result};
use store::Store;
use sys::netlink::{Socket, link, listen, namespace};

use super::announce::{Announcements, Announcer};
use super::bridges::{Bridge, Bridges};
use super::firewalld::{Firewalld, Known};
use super::gates::Gates;
use super::inside::{self, Indices, Nature, Refused};
use super::lingering::{self, Lingering};
use super::rules::Rules;
use super::settings::{self, Settings};
use super::watch::Watch;
use super::{Join, NetworkDriver, Publish, device, option};
use crate::bound::{BoundPorts, Run};
use crate::config::{DEFAULT_BRIDGE, DirectRouting, Enabled, NetworkConfig, PublishMode};
use crate::endpoint::{Assigned, BoundPort, Endpoint, Joined, Protocol, PublishSpec, Sockets};
use crate::family::{self, Family};
use crate::forwarding::Forwarding;
use crate::ipam::Surroundings;
use crate::mac::MacAddress;
use crate::plan::{BridgePort, EndpointLinks, Filtered, GatewayMode, Topology};
use crate::port::{self, Bound, Ports};
use crate::published::{Published, PublishedPorts, Verdict};
use crate::row::{NetworkRow, Progress};
use crate::sandbox::Namespace;

/// How often a pair is tried when its name or index is taken.
const ATTEMPTS: usize = 8;
/// Names of our ends of pairs: `veth` and this many hex digits.
const LINK_DIGITS: usize = 7;
/// The message of `EndpointLinks::inside` that makes the pair.
const CREATION: usize = 1;

/// The settings of br_netfilter.
const BRIDGED: [&str; 2] = ["net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"];

/// See the module.
pub struct BridgeDriver {
    config: NetworkConfig,
    ports: Ports,
    bridges: Arc<Bridges>,
    forwarding: Forwarding,
    /// The daemon's namespace: where the bridges are.
    host: OwnedFd,
    lingering: Lingering,
    announcer: Announcer,
    indices: Indices,
    /// The host has IPv6.
    ipv6: bool,
    reconciled: AtomicBool,
}

/// What the default network's subnet of a family is chosen from.
#[derive(Clone, Debug)]
pub struct DefaultSubnet {
    /// `None` = any predefined one but those in `avoid`.
    pub subnet: Option<IpNet>,
    /// The bridge's own address, when it lies in the subnet.
    pub own: Option<IpAddr>,
    pub avoid: Surroundings,
}

impl BridgeDriver {
    /// Works in the calling thread's namespace. `known`: the networks that will be opened next; their rules stand from
    /// now on, in one transaction.
    pub fn new(config: NetworkConfig, store: &Store, known: &[NetworkRow]) -> Result<BridgeDriver> {
        let forwarding = Forwarding::look(&config, store)?;
        let settings = known.iter().filter_map(|network| settings::parse(network, &config).ok());
        let topology = Topology {
            bridges: settings.map(|settings| settings.rules).collect(),
            published: PublishedPorts::default(),
            userland_proxy: config.userland_proxy,
            drop_foreign: forwarding.drop_foreign(),
            filtered: Filtered { ipv4: config.iptables, ipv6: config.ip6tables },
            direct_routing: Enabled::from(config.direct_routing != DirectRouting::Forbidden),
            accept_mark: config.accept_mark,
        };
        let kept = config.iptables.yes() || config.ip6tables.yes();
        let rules = if kept { Rules::open(topology) } else { Rules::off(topology) };
        Ok(BridgeDriver {
            ports: Ports::open(&config.daemon_addresses),
            bridges: Arc::new(Bridges::new(rules, Firewalld::new(config.system_bus.clone()))?),
            forwarding,
            host: namespace::current().context("opening the network namespace")?,
            lingering: Lingering::default(),
            announcer: Announcer::default(),
            indices: Indices::default(),
            ipv6: listen::has_ipv6(),
            reconciled: AtomicBool::new(false),
            config,
        })
    }

    /// Whether firewall rules of a family stand; without them published ports work through the proxy only.
    pub fn translates(&self, family: Family) -> bool {
        self.config.filters(family) && self.bridges.rules.enabled()
    }

    /// Removes docker0 where an earlier daemon had a default network and this one has none.
    pub fn remove_default_device(&self) {
        let removed = self.links(|socket| match device::find(socket, DEFAULT_BRIDGE)? {
            None => Ok(()),
            Some(found) => device::remove(socket, &found.name),
        });
        if let Err(error) = removed {
            tracing::warn!(%error, "cannot remove {DEFAULT_BRIDGE}");
        }
    }

    fn links<T>(&self, call: impl FnOnce(&mut Socket) -> T) -> T {
        self.bridges.links(call)
    }

    /// Where the default network's subnet of a family comes from: the configuration, else the device's address when it
    /// stands, else what the network had before, else the first predefined one that hides nothing the host reaches.
    pub fn default_subnet(&self, network: &NetworkRow, family: Family) -> Result<DefaultSubnet> {
        let config = self.config.default_family(family).copied().unwrap_or_default();
        if let Some(bip) = config.bip {
            return Ok(DefaultSubnet {
                subnet: Some(bip.trunc()),
                own: Some(bip.addr()),
                avoid: Surroundings::default(),
            });
        }
        let name = network.options.get(option::NAME).map_or(DEFAULT_BRIDGE, String::as_str);
        let index = self.links(|socket| device::find(socket, name))?.map_or(0, |l| l.index);
        let avoid = self.links(|socket| device::reached(socket, index))?;
        let standing = self.links(|socket| device::addresses(socket, index))?;
        let standing = standing.iter().find(|a| index != 0 && family::of(a.address) == family);
        let before = network.pool(family);
        let (mut subnet, mut own) = (before.map(|pool| pool.subnet), before.and_then(|pool| pool.own()));
        if let Some(first) = standing {
            subnet = Some(IpNet::new(first.address, first.prefix_len).context("the bridge's address")?.trunc());
            own = Some(first.address);
        } else if self.config.bridge_is_given() {
            return Err(Error::invalid(format!("bridge {name} has no {} address", family.word())));
        } else {
            subnet = subnet.filter(|subnet| !avoid.near.iter().any(|other| family::overlap(*other, *subnet)));
        }
        // The range decides when it lies elsewhere.
        if let Some(range) = config.range.filter(|range| subnet.is_none_or(|subnet| !subnet.contains(range))) {
            subnet = Some(range.trunc());
        }
        Ok(DefaultSubnet { subnet, own, avoid })
    }

    fn is_default(&self, network: &NetworkRow) -> bool {
        network.flag(option::DEFAULT_BRIDGE, false)
    }

    /// Two networks share neither a device nor a subnet.
    fn refuse_conflict(&self, network: &NetworkRow, settings: &Settings) -> Result<()> {
        let Some((other, why)) = self.bridges.conflict(&network.id, settings) else { return Ok(()) };
        let text = format!(
            "cannot create network {} ({}): conflicts with network {} ({}): {why}",
            network.id, settings.device, other.0, other.1
        );
        Err(Error::forbidden(text))
    }

    /// Whether the device is not ours: the administrator's by the configuration, or found when the network was made.
    fn is_foreign(&self, network: &NetworkRow, settings: &Settings) -> Result<bool> {
        match network.progress {
            _ if self.is_default(network) => Ok(false),
            Progress::Making => {
                self.links(|socket| device::find(socket, &settings.device)).map(|found| found.is_some())
            }
            _ => Ok(network.mac.is_none()),
        }
    }

    /// A pair of links between the sandbox and the bridge; the name of our end.
    fn build(&self, request: &Join<'_>, device: &Bridge, sandbox: &Namespace) -> Result<String> {
        let place = request.endpoint;
        let subnets = place.addresses.iter().map(|assigned| (assigned.address, assigned.prefix_len));
        let link_local = place.link_local.iter().map(|address| (*address, family::of(*address).bits()));
        let addresses: Vec<_> = subnets.chain(link_local).collect();
        let ipv6 = Enabled::from(addresses.iter().any(|(address, _)| address.is_ipv6()));
        for _ in 0..ATTEMPTS {
            let host_link = link_name();
            let links = EndpointLinks {
                host_link: &host_link,
                name: &place.link,
                mac: place.mac,
                index: self.indices.next(sandbox)?,
                mtu: device.mtu,
                addresses: &addresses,
                gateways: &place.gateways,
                bridge: device.index,
                port: device.port,
            };
            let announcements = Announcements::of(&request.network.options);
            let nature = Nature { ipv6, announces: Enabled::from(announcements.count > 0) };
            match inside::furnish(sandbox, &self.indices, nature, CREATION, links.inside(self.host.as_fd())) {
                Ok(mut inner) => {
                    let gates =
                        Gates { request, addresses: &addresses, subnets: &device.subnets, host: &device.addresses };
                    let hung = self.links(|socket| gates.hang(socket, &host_link));
                    let attached = hung.and_then(|()| {
                        let attached = self.links(|socket| socket.request(&mut links.outside()));
                        let ready = attached.and_then(|()| inner.request(&mut links.await_carrier()));
                        ready.map_err(|error| device::failed(error).prefix(format!("attaching {host_link}")))
                    });
                    attached.inspect_err(|_| self.delete_link(&host_link))?;
                    self.announcer.add(request, links.index);
                    return Ok(host_link);
                }
                Err(Refused::Taken) => (),
                Err(Refused::Failed(error)) => {
                    // Where a later message was refused, the pair stands.
                    self.delete_link(&host_link);
                    return Err(error);
                }
            }
        }
        // Names of our end are drawn anew each time; that of the other end is the user's choice.
        Err(Error::system(format!("error renaming interface to {:?}: file exists", place.link)))
    }

    fn delete_link(&self, host_link: &str) {
        if let Err(error) = self.links(|socket| device::remove(socket, host_link)) {
            tracing::warn!(%error, link = host_link, "cannot delete link");
        }
    }

    fn published(&self, endpoint: &Endpoint) -> Vec<Published> {
        let known = self.bridges.known(&endpoint.network);
        let nothing = (PublishMode::default(), Enabled::No);
        let (mode, trusts) = known.map_or(nothing, |bridge| (bridge.publish, bridge.trusts));
        let direct = self.config.direct_routing != DirectRouting::Forbidden || trusts.yes();
        let of_run = |Run { first: port, count }: &Run| {
            let count = *count;
            if self.config.userland_proxy.yes()
                && self.config.filters(Family::Ipv4)
                && let Some(kept) = endpoint.addresses.first().and_then(|own| Published::kept(port, own.address))
            {
                return Some([Some(Published { count, ..kept }), None]);
            }
            let family = family::of(port.host_ip);
            let own = endpoint.assigned(family).filter(|_| self.config.filters(family))?.address;
            let (protocol, container_port) = (port.protocol, port.container_port);
            let directly =
                Published { protocol, host: None, container: own, container_port, count, verdict: Verdict::Accept };
            if port.host_port == 0 {
                return Some([Some(directly), None]);
            }
            if mode == PublishMode::HostFirewall {
                return None;
            }
            // What is published on a loopback address is for this host alone.
            let directly = Some(directly).filter(|_| direct && !port.host_ip.is_loopback());
            let translated = Published::translated(port, own, self.config.userland_proxy);
            Some([translated.map(|translated| Published { count, ..translated }), directly])
        };
        endpoint.ports.runs().iter().filter_map(of_run).flatten().flatten().collect()
    }

    /// Binds what is to be published for a container with these addresses. A family whose mode is routed has no port of the
    /// host: number 0 stands for it.
    fn bind(&self, own: &[Assigned], wanted: &[PublishSpec], device: &Bridge) -> Result<(Bound, BoundPorts)> {
        let has = |family| own.iter().any(|a| family::of(a.address) == family);
        let mode = |family| device.modes.iter().find(|(of, _)| *of == family).map(|(_, mode)| *mode);
        let routed = |family| mode(family) == Some(GatewayMode::Routed);
        if device.publish == PublishMode::HostFirewall && wanted.iter().any(|port| port.protocol == Protocol::Sctp) {
            return Err(Error::invalid(
                "publish-mode host-firewall cannot publish SCTP ports: there is no proxy for them",
            ));
        }
        let proxy = self.config.userland_proxy.yes();
        let (ipv4, ipv6) = (has(Family::Ipv4), has(Family::Ipv6));
        let defaults = port::Defaults {
            address: device.host_binding,
            ipv4: (ipv4 || ipv6 && proxy) && !routed(Family::Ipv4),
            ipv6: self.ipv6 && (ipv6 || ipv4 && proxy) && !routed(Family::Ipv6),
            shared: Enabled::from(proxy && ipv4 != ipv6),
        };
        let opening = if self.opens_sockets() { listen::Opening::Later } else { listen::Opening::Never };
        let bound = self.ports.bind(&port::groups(wanted, defaults), opening)?;
        let mut ports = bound.ports.clone();
        for family in Family::BOTH.into_iter().filter(|family| routed(*family) && has(*family)) {
            let unspecified = family.address(0);
            let reached: BTreeSet<_> = wanted
                .iter()
                .map(|port| BoundPort {
                    container_port: port.container_port,
                    protocol: port.protocol,
                    host_ip: unspecified,
                    host_port: 0,
                })
                .collect();
            ports.extend(reached);
        }
        Ok((bound, ports))
    }

    /// Whether sockets listen, since translation does not do everything.
    fn opens_sockets(&self) -> bool {
        self.config.userland_proxy.yes() || Family::BOTH.into_iter().any(|family| !self.translates(family))
    }

    /// The rules of bound ports, then their sockets.
    fn let_in(&self, sockets: &Bound, published: &[Published]) -> Result<()> {
        self.bridges.rules.add(published)?;
        let opened = if self.opens_sockets() { sockets.listen() } else { Ok(()) };
        opened.inspect_err(|_| self.forget(published))
    }

    /// At the start once, when all networks are open.
    fn keep_passage(&self) {
        if self.reconciled.load(Ordering::Acquire) {
            self.bridges.keep_passage();
        }
    }

    /// Of the families that no network has any more.
    fn give_up_forwarding(&self) -> Result<()> {
        let unused = |family: &Family| !self.bridges.rules.has_family(*family);
        Family::BOTH
            .into_iter()
            .filter(unused)
            .try_for_each(|family| self.forwarding.give_up(family, &self.bridges.rules))
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

/// Whether the rules of both families see what ports of a bridge send each other (module br_netfilter).
fn bridged_frames_are_filtered() -> bool {
    let is_on = |setting| namespace::sysctl(setting).is_ok_and(|value| value.trim() == "1");
    BRIDGED.into_iter().all(is_on)
}

/// The reference's words for what goes wrong with published ports.
fn outside(error: Error, container: &str, endpoint: &EndpointId) -> Error {
    error.prefix(format!("driver failed programming external connectivity on endpoint {container} ({endpoint})"))
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
    fn name(&self) -> &str {
        "bridge"
    }

    fn check(&self, network: &NetworkRow) -> Result<()> {
        let settings = settings::parse(network, &self.config)?;
        network.check_pools()?;
        // It would be taken for the default network's own: never for one that others made.
        if self.is_default(network) && network.name != "bridge" {
            let device = settings.device;
            return Err(Error::forbidden(format!(
                "bridge device with non default name {device} must be created manually"
            )));
        }
        Ok(())
    }

    /// An isolated network has none.
    fn needs_gateway(&self, network: &NetworkRow) -> Result<Vec<Family>> {
        let needs = |family: &Family| {
            let mode = if *family == Family::Ipv4 { option::GATEWAY_MODE_4 } else { option::GATEWAY_MODE_6 };
            let isolated = network.options.get(mode).is_some_and(|mode| mode == "isolated");
            let inhibited =
                *family == Family::Ipv4 && network.traits.internal && network.flag(option::INHIBIT_IPV4, false);
            !isolated && !inhibited
        };
        Ok(Family::BOTH.into_iter().filter(needs).collect())
    }

    fn surroundings(&self) -> Result<Surroundings> {
        self.links(|socket| device::reached(socket, 0))
    }

    fn open(&self, network: &mut NetworkRow) -> Result<()> {
        let settings = settings::parse(network, &self.config)?;
        self.refuse_conflict(network, &settings)?;
        let foreign = self.is_foreign(network, &settings)?;
        let given = self.is_default(network) && self.config.bridge_is_given();
        if !foreign && !given {
            network.mac.get_or_insert_with(MacAddress::random);
        }
        // Without a proxy a container's packets to a published port come back to its bridge: by the host's routing, which an
        // isolated port hears, or translated within the bridge, where our rules see what its ports send each other.
        let port = if !self.config.userland_proxy.yes() && (settings.rules.icc.yes() || bridged_frames_are_filtered()) {
            BridgePort::Hairpin
        } else if !settings.rules.icc.yes() {
            BridgePort::Isolated
        } else {
            BridgePort::Normal
        };
        let rules = settings.rules.clone();
        let modes = rules.subnets.iter().map(|subnet| (family::of_net(subnet.net), subnet.mode)).collect();
        // Rules first: what they drop must not pass while the device is set up.
        self.bridges.rules.change(|topology| match topology.bridges.iter_mut().find(|b| b.device == rules.device) {
            Some(known) => *known = rules,
            None => topology.bridges.push(rules),
        })?;
        let bridge = Bridge {
            index: 0,
            subnets: settings.rules.subnets.iter().map(|subnet| subnet.net).collect(),
            name: settings.device.clone(),
            given: given.into(),
            foreign: foreign.into(),
            mac: network.mac.unwrap_or_else(MacAddress::random),
            mtu: settings.mtu,
            addresses: settings.addresses,
            host_binding: settings.host_binding,
            publish: settings.publish,
            trusts: Enabled::from(!settings.rules.trusted.is_empty()),
            modes,
            port,
            route_localnet: (!self.config.userland_proxy.yes() && self.translates(Family::Ipv4)).into(),
        };
        self.keep_passage();
        let families = bridge.modes.iter().map(|(family, _)| *family).collect::<Vec<_>>();
        let opened = self
            .bridges
            .keep(&network.id, bridge)
            .and_then(|()| self.forwarding.ensure(&families, &self.bridges.rules));
        opened.inspect_err(|_| {
            if let Err(error) = self.close(network) {
                tracing::warn!(%error, network = %network.name, "cannot remove what was made of the network");
            }
        })
    }

    fn close(&self, network: &NetworkRow) -> Result<()> {
        let known = self.bridges.forget(&network.id);
        // One that was never opened here may be left from a daemon that died while it was made or removed.
        let device = known.as_ref().map_or_else(|| format!("br-{}", network.id.short()), |known| known.name.clone());
        self.bridges.rules.change(|topology| topology.bridges.retain(|b| b.device != device))?;
        self.give_up_forwarding()?;
        self.bridges.leave_zone(&device);
        self.keep_passage();
        if known.is_some_and(|known| known.given.yes() || known.foreign.yes()) {
            return Ok(());
        }
        self.links(|socket| device::remove(socket, &device))
    }

    fn reconcile(&self, live: &[Endpoint]) -> Result<()> {
        let mut published = Vec::new();
        for endpoint in live {
            self.ports.adopt(endpoint.ports.iter().filter(|port| port.host_port != 0));
            if let Some(link) = &endpoint.host_link {
                self.bridges.add_port(link, &endpoint.network);
            }
            published.extend(self.published(endpoint));
        }
        self.bridges.rules.replace_published(published)?;
        self.bridges.attach_all_ports()?;
        self.give_up_forwarding()?;
        self.reconciled.store(true, Ordering::Release);
        self.keep_passage();
        self.remove_stale_links(live)
    }

    fn join(&self, request: &Join<'_>) -> Result<Joined> {
        let device = self.bridges.current(&request.network.id)?;
        let sandbox = request.sandbox.namespace();
        let sandbox = sandbox.ok_or_else(|| Error::invalid("the host's namespace cannot join a bridge network"))?;
        let outside = |error| outside(error, request.name, &request.endpoint.id);
        let (sockets, ports) = self.bind(&request.endpoint.addresses, request.ports, &device).map_err(outside)?;
        let mut endpoint = Endpoint { mac: Some(request.endpoint.mac), ports, ..request.bare() };
        let published = self.published(&endpoint);
        let made = self.build(request, &device, sandbox).and_then(|link| {
            let opened = self.let_in(&sockets, &published);
            let undo = |_: &Error| {
                self.announcer.forget(&request.endpoint.id);
                self.delete_link(&link);
            };
            opened.map_err(outside).inspect_err(undo).map(|()| link)
        });
        let host_link = match made {
            Ok(link) => link,
            Err(error) => {
                self.ports.give_back(sockets);
                return Err(error);
            }
        };
        self.bridges.add_port(&host_link, &request.network.id);
        endpoint.host_link = Some(host_link);
        let ports = sockets.hand_out(|port| endpoint.target(port));
        Ok(Joined { endpoint, ports })
    }

    fn leave(&self, _: &NetworkRow, endpoint: &Endpoint, sandbox: Option<BorrowedFd<'_>>) -> Result<()> {
        self.announcer.forget(&endpoint.id);
        let removed = self.bridges.rules.remove(&self.published(endpoint));
        self.ports.release(endpoint.ports.iter());
        let Some(link) = &endpoint.host_link else { return removed };
        self.bridges.remove_port(link);
        if sandbox.is_some() {
            return removed.and(self.links(|socket| device::remove(socket, link)));
        }
        self.lingering.watch(link.clone(), || namespace::enter(self.host.as_fd(), Socket::route));
        removed
    }

    fn publish(&self, request: &Publish<'_>) -> Result<(BoundPorts, Sockets)> {
        let device = self.bridges.current(&request.network.id)?;
        let outside = |error| outside(error, request.name, &request.endpoint.id);
        let (sockets, ports) = self.bind(&request.endpoint.addresses, request.ports, &device).map_err(outside)?;
        let endpoint = Endpoint { ports, ..request.endpoint.clone() };
        let made = self.let_in(&sockets, &self.published(&endpoint)).map_err(outside);
        if let Err(error) = made {
            self.ports.give_back(sockets);
            return Err(error);
        }
        let sockets = sockets.hand_out(|port| endpoint.target(port));
        Ok((endpoint.ports, sockets))
    }

    fn unpublish(&self, endpoint: &Endpoint, ports: &BoundPorts) -> Result<()> {
        let gone = Endpoint { ports: ports.clone(), ..endpoint.clone() };
        let removed = self.bridges.rules.remove(&self.published(&gone));
        self.ports.release(ports.iter());
        removed
    }

    fn sizes(&self) -> Vec<(&'static str, usize)> {
        vec![
            ("ports", self.ports.taken()),
            ("links", self.bridges.port_count()),
            ("lingering-links", self.lingering.count()),
            ("announcements", self.announcer.count()),
            ("translations", self.bridges.rules.published()),
        ]
    }

    fn firewalld(&self) -> Known {
        self.bridges.firewalld.known()
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
