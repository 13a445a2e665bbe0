//! Networks of a plugin: `NetworkDriver.*`. The plugin makes a link on the host and names it; here it is moved into the
//! container's sandbox, called as the plugin wants, and furnished.

mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use model::id::{EndpointId, NetworkId};
use model::lock::{Mutex, MutexGuard};
use model::{Context, Error, Result};
use serde_json::Value;
use sys::netlink::address::{self, Address};
use sys::netlink::link::{self, LOOPBACK};
use sys::netlink::{Batch, Route, Socket, namespace};

use super::{Join, NetworkDriver};
use crate::endpoint::{Assigned, Endpoint, Joined, Sockets};
use crate::family::{self, Family};
use crate::mac::MacAddress;
use crate::plugins::Asked;
use crate::row::{NetworkRow, Progress};
use crate::sandbox::Namespace;
use wire::{
    Bare, Capabilities, EndpointAnswer, EndpointCall, GatewayAnswer, GatewayCall, Interface, JoinAnswer, JoinCall,
    NetworkCall, Nothing, PlaceCall,
};

/// What a plugin says that it implements.
pub const KIND: &str = "NetworkDriver";
/// Routes that a plugin may give one container.
const MAX_ROUTES: usize = 256;
/// A route by a next hop, in the protocol; the other kind leads to the link itself.
const NEXT_HOP: i64 = 0;

/// See the module.
pub struct RemoteDriver {
    plugin: Asked,
    capabilities: Capabilities,
    /// The daemon's namespace: where plugins make links.
    host: Arc<OwnedFd>,
    /// The directory of the links to network namespaces of containers.
    sandboxes: PathBuf,
    /// Endpoints whose containers go out by them.
    ways_out: Mutex<BTreeSet<EndpointId>>,
}

/// What a plugin has said about an endpoint.
struct Said {
    /// Name of the link on the host.
    source: String,
    /// Name of the link in the container.
    link: String,
    mac: Option<MacAddress>,
    addresses: Vec<Assigned>,
    /// Default routes that lead here.
    gateways: Vec<IpAddr>,
    /// Further ones; without a next hop they lead to the link itself.
    routes: Vec<(IpNet, Option<IpAddr>)>,
}

impl RemoteDriver {
    /// Asks the plugin what it can. `host`: the daemon's namespace.
    pub fn new(plugin: Asked, host: Arc<OwnedFd>, sandboxes: PathBuf) -> Result<RemoteDriver> {
        let capabilities: Capabilities = plugin.ask("GetCapabilities", &Nothing {})?;
        for scope in [&capabilities.scope, &capabilities.connectivity_scope] {
            let empty = std::ptr::eq(scope, &capabilities.connectivity_scope) && scope.is_empty();
            if !empty && !matches!(scope.as_str(), "local" | "global") {
                let text = format!("invalid capability: expecting 'local' or 'global', got {scope}");
                return Err(Error::system(text));
            }
        }
        Ok(RemoteDriver { plugin, capabilities, host, sandboxes, ways_out: Mutex::default() })
    }

    fn ways_out(&self) -> MutexGuard<'_, BTreeSet<EndpointId>> {
        // Every change is a single insertion or removal: a panic elsewhere leaves the set right.
        self.ways_out.lock()
    }

    fn wrong(&self, what: impl std::fmt::Display) -> Error {
        Error::system(format!("network plugin {:?}: {what}", self.plugin.name()))
    }

    fn forget_endpoint(&self, network: &NetworkId, endpoint: &EndpointId) -> Result<()> {
        self.plugin.ask::<Bare>("DeleteEndpoint", &PlaceCall::of(network, endpoint)).map(drop)
    }

    fn leave_sandbox(&self, network: &NetworkId, endpoint: &EndpointId) -> Result<()> {
        let call = PlaceCall::of(network, endpoint);
        if self.ways_out().remove(endpoint) {
            self.plugin.ask_if_known::<Bare>("RevokeExternalConnectivity", &call)?;
        }
        self.plugin.ask::<Bare>("Leave", &call).map(drop)
    }

    /// Undoes what the plugin was told; the error of what failed, with what came of it, in the reference's words.
    fn rolled_back(error: Error, undone: Result<()>) -> Error {
        match undone {
            Ok(()) => Error::system(format!("{}; rolled back", error.message())).with_source(error),
            Err(other) => Error::system(format!("{}; failed to roll back: {}", other.message(), error.message())),
        }
    }

    fn create_endpoint(&self, request: &Join<'_>) -> Result<Said> {
        let place = request.endpoint;
        let address = |family| {
            let own = place.addresses.iter().find(|own| family::of(own.address) == family);
            own.map(|own| format!("{}/{}", own.address, own.prefix_len)).unwrap_or_default()
        };
        let call = EndpointCall {
            network: request.network.id.as_str(),
            endpoint: place.id.as_str(),
            interface: Interface {
                address: address(Family::Ipv4),
                address_ipv6: address(Family::Ipv6),
                mac_address: place.wanted_mac.map(|mac| mac.to_string()).unwrap_or_default(),
            },
            options: wire::endpoint_options(place.options, request.ports),
        };
        let answer: EndpointAnswer = self.plugin.ask("CreateEndpoint", &call)?;
        let said = self.interface(request, answer.interface.unwrap_or_default());
        said.map_err(|error| {
            let undone = self.forget_endpoint(&request.network.id, &place.id);
            RemoteDriver::rolled_back(error, undone)
        })
    }

    /// What a plugin says about a link: only what was left open is its to choose.
    fn interface(&self, request: &Join<'_>, answer: Interface) -> Result<Said> {
        let place = request.endpoint;
        let (mut addresses, mut mac) = (place.addresses.clone(), place.wanted_mac);
        if !answer.mac_address.is_empty() {
            let own = MacAddress::parse(&answer.mac_address)
                .ok_or_else(|| Error::system(format!("address {}: invalid MAC address", answer.mac_address)))?;
            if let Some(wanted) = mac {
                let text = format!("endpoint interface MAC address present ({wanted}). Cannot be modified with {own}.");
                return Err(Error::system(format!("driver modified interface MAC address: {text}")));
            }
            mac = Some(own);
        }
        for (text, family) in [(&answer.address, Family::Ipv4), (&answer.address_ipv6, Family::Ipv6)] {
            if text.is_empty() {
                continue;
            }
            let net: IpNet = text.parse().map_err(|_| Error::system(format!("invalid CIDR address: {text}")))?;
            if family::of_net(net) != family {
                return Err(self.wrong(format_args!("{net} is no {} address", family.word())));
            }
            if let Some(own) = addresses.iter().find(|own| family::of(own.address) == family) {
                let text = format!("endpoint interface IP present ({}/{}).", own.address, own.prefix_len);
                let text = format!("driver modified interface address: {text} Cannot be modified with ({net}).");
                return Err(Error::system(text));
            }
            addresses.push(Assigned { address: net.addr(), prefix_len: net.prefix_len(), gateway: None });
        }
        let (source, link) = (String::new(), place.link.clone());
        Ok(Said { source, link, mac, addresses, gateways: Vec::new(), routes: Vec::new() })
    }

    fn join_sandbox(&self, request: &Join<'_>, said: Said) -> Result<Said> {
        let place = request.endpoint;
        let options = wire::sandbox_options(request.ports);
        let call = JoinCall {
            place: PlaceCall::of(&request.network.id, &place.id),
            sandbox_key: self.sandboxes.join(request.container.short()).display().to_string(),
            options: options.clone(),
        };
        let answer: JoinAnswer = self.plugin.ask("Join", &call)?;
        let joined = self.joined(request, said, answer).and_then(|said| {
            if place.exits.is_empty() {
                return Ok(said);
            }
            self.ways_out().insert(place.id.clone());
            let call = wire::ConnectivityCall { place: PlaceCall::of(&request.network.id, &place.id), options };
            self.plugin.ask_if_known::<Bare>("ProgramExternalConnectivity", &call).map(|_| said)
        });
        joined.map_err(|error| {
            let undone = self.leave_sandbox(&request.network.id, &place.id);
            RemoteDriver::rolled_back(error, undone)
        })
    }

    /// What the answer to a join adds.
    fn joined(&self, request: &Join<'_>, mut said: Said, answer: JoinAnswer) -> Result<Said> {
        let names = answer.interface_name.unwrap_or_default();
        for name in [&names.src_name, &names.dst_prefix, &names.dst_name] {
            if name.len() > link::MAX_NAME || name.contains(['/', '\0', ' ']) {
                return Err(self.wrong(format_args!("{name:?} is no name of a link")));
            }
        }
        said.source = names.src_name;
        let place = request.endpoint;
        if !names.dst_prefix.is_empty() && !place.link_is_given {
            said.link = first_free(request, &names.dst_prefix)?;
        } else if !names.dst_name.is_empty() && !place.link_is_given {
            said.link = names.dst_name;
        }
        for (text, label) in [(&answer.gateway, "Gateway"), (&answer.gateway_ipv6, "GatewayIPv6")] {
            if text.is_empty() {
                continue;
            }
            let gateway: IpAddr =
                text.parse().map_err(|_| Error::system(format!("unable to parse {label} \"{text}\"")))?;
            let family = family::of(gateway);
            for own in said.addresses.iter_mut().filter(|own| family::of(own.address) == family) {
                own.gateway = Some(gateway).filter(|_| !request.network.traits.internal);
            }
            said.gateways.extend(Some(gateway).filter(|_| place.exits.contains(&family)));
        }
        let routes = answer.static_routes.unwrap_or_default();
        if routes.len() > MAX_ROUTES {
            return Err(self.wrong(format_args!("more than {MAX_ROUTES} routes")));
        }
        for route in routes {
            let destination: IpNet = route
                .destination
                .parse()
                .map_err(|_| Error::system(format!("invalid CIDR address: {}", route.destination)))?;
            let hop = Some(&route.next_hop).filter(|hop| !hop.is_empty() && route.route_type == NEXT_HOP);
            let hop =
                hop.map(|hop| hop.parse().map_err(|_| Error::system(format!("failed to parse nexthop IP {hop}"))));
            said.routes.push((destination.trunc(), hop.transpose()?));
        }
        Ok(said)
    }

    /// Moves the link that the plugin has made into the sandbox and furnishes it.
    fn furnish(&self, request: &Join<'_>, sandbox: &Namespace, said: &Said) -> Result<()> {
        let found = namespace::enter(self.host.as_fd(), || {
            let mut socket = Socket::route()?;
            let Some(found) = link::find(&mut socket, &said.source)? else { return Ok(None) };
            let mut batch = Batch::new();
            link::move_to(&mut batch, found.index, sandbox.fd(), &said.link);
            socket.request(&mut batch)?;
            Ok(Some(()))
        });
        found
            .context("moving a plugin's link")
            .map_err(|error| error.prefix(format!("error setting interface {:?}", said.source)))?
            .ok_or_else(|| self.wrong(format_args!("there is no link {:?}", said.source)))?;
        sandbox.count_link();
        let furnished = namespace::enter(sandbox.fd(), || {
            let ipv6 = said.addresses.iter().any(|own| own.address.is_ipv6());
            for (setting, value) in [("accept_ra", "0"), ("disable_ipv6", if ipv6 { "0" } else { "1" })] {
                // A kernel without IPv6 has neither.
                let _ = namespace::set_sysctl(&format!("net/ipv6/conf/{}/{setting}", said.link), value);
            }
            let mut socket = Socket::route()?;
            let index = link::find(&mut socket, &said.link)?.map(|link| link.index).unwrap_or_default();
            Ok(socket.request(&mut furniture(request, said, index))?)
        });
        furnished.context("furnishing a plugin's link")
    }

    /// Gives the link back to the host, under the plugin's name.
    fn take_out(&self, sandbox: BorrowedFd<'_>, source: &str, name: &str) {
        let taken = namespace::enter(sandbox, || {
            let mut socket = Socket::route()?;
            let Some(found) = link::find(&mut socket, name)? else { return Ok(()) };
            let mut batch = Batch::new();
            link::move_to(&mut batch, found.index, self.host.as_fd(), source);
            Ok(socket.request(&mut batch)?)
        });
        if let Err(error) = taken {
            tracing::warn!(%error, link = name, "a plugin's link cannot be given back");
        }
    }
}

/// The prefix and the first number that no link in the sandbox has.
fn first_free(request: &Join<'_>, prefix: &str) -> Result<String> {
    let Some(sandbox) = request.sandbox.namespace() else { return Ok(format!("{prefix}0")) };
    let standing = namespace::enter(sandbox.fd(), || Ok(link::list(&mut Socket::route()?)?));
    let standing = standing.context("looking at the links of a sandbox")?;
    let mut names = (0..=standing.len()).map(|number| format!("{prefix}{number}"));
    let free = names.find(|name| !standing.iter().any(|link| link.name == *name));
    Ok(free.unwrap_or_else(|| format!("{prefix}0")))
}

/// What is done inside the sandbox once the link is there.
fn furniture(request: &Join<'_>, said: &Said, index: u32) -> Batch {
    let mut batch = Batch::new();
    link::set_up(&mut batch, LOOPBACK);
    if let Some(mac) = said.mac {
        link::set_mac(&mut batch, index, mac.0);
    }
    let own = said.addresses.iter().map(|assigned| (assigned.address, assigned.prefix_len));
    let further = request.endpoint.link_local.iter().map(|own| (*own, family::of(*own).bits()));
    for (address, prefix_len) in own.chain(further) {
        address::add(&mut batch, &Address { link: index, address, prefix_len });
    }
    link::set_up(&mut batch, index);
    // Next hops may lie on links that the others make reachable.
    let (on_link, by_hop): (Vec<_>, Vec<_>) = said.routes.iter().partition(|(_, hop)| hop.is_none());
    for &(destination, gateway) in on_link.into_iter().chain(by_hop) {
        let (destination, prefix_len) = (destination.network(), destination.prefix_len());
        address::replace_route(&mut batch, &Route { destination, prefix_len, gateway, link: index });
    }
    for gateway in &said.gateways {
        address::replace_route(&mut batch, &Route::default_by(*gateway, index));
    }
    batch
}

impl NetworkDriver for RemoteDriver {
    fn name(&self) -> &str {
        self.plugin.name()
    }

    fn is_global(&self) -> bool {
        self.capabilities.scope == "global"
    }

    fn check(&self, _: &NetworkRow) -> Result<()> {
        Ok(())
    }

    fn needs_gateway(&self, network: &NetworkRow) -> Result<Vec<Family>> {
        if !self.capabilities.gw_alloc_checker {
            return Ok(Family::BOTH.to_vec());
        }
        let call = GatewayCall { options: wire::network_options(network) };
        let answer: GatewayAnswer = self.plugin.ask("GwAllocCheck", &call)?;
        let skipped = [answer.skip_ipv4, answer.skip_ipv6];
        Ok(Family::BOTH.into_iter().zip(skipped).filter(|(_, skipped)| !skipped).map(|(family, _)| family).collect())
    }

    /// The plugin keeps its networks itself: it is told of one when it is made, not at each start of the daemon.
    fn open(&self, network: &mut NetworkRow) -> Result<()> {
        match network.progress {
            Progress::Making => self.plugin.ask::<Bare>("CreateNetwork", &NetworkCall::of(network)).map(drop),
            Progress::Whole | Progress::Removing => Ok(()),
        }
    }

    fn close(&self, network: &NetworkRow) -> Result<()> {
        let call = BTreeMap::from([("NetworkID", Value::from(network.id.as_str()))]);
        self.plugin.ask::<Bare>("DeleteNetwork", &call).map(drop)
    }

    fn reconcile(&self, _: &[Endpoint]) -> Result<()> {
        Ok(())
    }

    /// Published ports are the plugin's concern.
    fn join(&self, request: &Join<'_>) -> Result<Joined> {
        let sandbox = request.sandbox.namespace();
        let sandbox = sandbox.ok_or_else(|| Error::invalid("the host's namespace cannot join such a network"))?;
        let (network, place) = (&request.network.id, request.endpoint);
        let said = self.create_endpoint(request)?;
        let joined = self.join_sandbox(request, said).and_then(|said| {
            // A plugin may have no link for a container.
            let furnished = if said.source.is_empty() { Ok(()) } else { self.furnish(request, sandbox, &said) };
            furnished.map(|()| said).inspect_err(|_| {
                if let Err(error) = self.leave_sandbox(network, &place.id) {
                    tracing::warn!(%error, "a plugin cannot take a place in a network back");
                }
            })
        });
        let said = joined.inspect_err(|_| {
            if let Err(error) = self.forget_endpoint(network, &place.id) {
                tracing::warn!(%error, "a plugin cannot take an endpoint back");
            }
        })?;
        let source = Some(said.source).filter(|source| !source.is_empty());
        let endpoint =
            Endpoint { addresses: said.addresses, mac: said.mac, link: said.link, host_link: source, ..request.bare() };
        Ok(Joined { endpoint, ports: Sockets::default() })
    }

    /// A link goes back to the host where its sandbox lives on; a virtual one dies with it otherwise. The plugin's refusals
    /// keep nobody in the network.
    fn leave(&self, _: &NetworkRow, endpoint: &Endpoint, sandbox: Option<BorrowedFd<'_>>) -> Result<()> {
        let left = self.leave_sandbox(&endpoint.network, &endpoint.id);
        if let Err(error) = &left {
            tracing::warn!(%error, plugin = self.plugin.name(), "driver error disconnecting container");
        }
        if let (Some(sandbox), Some(source)) = (sandbox, &endpoint.host_link) {
            self.take_out(sandbox, source, &endpoint.link);
        }
        if let Err(error) = self.forget_endpoint(&endpoint.network, &endpoint.id) {
            tracing::warn!(%error, plugin = self.plugin.name(), "driver error deleting endpoint");
        }
        Ok(())
    }
}
