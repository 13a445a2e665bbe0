//! macvlan and ipvlan networks: each endpoint has a link of its own on a link of the host, the parent.
//!
//! The host has no part in the traffic: there are no rules and no published ports. A parent that the network's options do
//! not name is made with the network and goes with it: an 802.1q link (`eth0.10`), or one that leads nowhere where no
//! parent is named at all; the network is then internal in effect.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use model::id::NetworkId;
use model::lock::{Mutex, MutexGuard};
use model::{Context, Error, Result};
use rustix::io::Errno;
use sys::netlink::address::{self, Address};
use sys::netlink::link::{self, LOOPBACK, OnLink, Upper};
use sys::netlink::{Batch, Route, Socket};

use super::announce::{Announcements, Announcer};
use super::inside::{self, Indices};
use super::{Join, NetworkDriver, announce, device, option, settings};
use crate::config::Enabled;
use crate::endpoint::{Endpoint, Joined, Sockets};
use crate::family::{self, Family};
use crate::mac::MacAddress;
use crate::row::{NetworkRow, Progress};

/// No message of a batch makes a link.
const NO_CREATION: usize = usize::MAX;
/// Numbers of 802.1q networks.
const VLAN_IDS: std::ops::RangeInclusive<u16> = 1..=4094;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Macvlan,
    Ipvlan,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Macvlan => "macvlan",
            Kind::Ipvlan => "ipvlan",
        }
    }
}

/// See the module.
pub struct OnParentDriver {
    kind: Kind,
    links: Mutex<Socket>,
    open: Mutex<BTreeMap<NetworkId, Settings>>,
    indices: Indices,
    announcer: Announcer,
}

/// What a network's options say.
#[derive(Clone, Debug)]
struct Settings {
    parent: String,
    /// The parent was made with the network.
    own_parent: Enabled,
    upper: Upper,
    mtu: Option<u32>,
}

impl Settings {
    /// Whether the links route by themselves (ipvlan's l3 modes): the default route has no gateway.
    fn routes(&self) -> bool {
        matches!(self.upper, Upper::Ipvlan { mode, .. } if mode != IPVLAN_L2)
    }

    fn is_passthru(&self) -> bool {
        self.upper == Upper::Macvlan { mode: MACVLAN_PASSTHRU }
    }
}

/// `MACVLAN_MODE_*` of linux/if_link.h.
const MACVLAN_PASSTHRU: u32 = 8;
const MACVLAN_MODES: [(&str, u32); 4] = [("bridge", 4), ("private", 1), ("vepa", 2), ("passthru", MACVLAN_PASSTHRU)];
/// `IPVLAN_MODE_*` and `IPVLAN_F_*`.
const IPVLAN_L2: u16 = 0;
const IPVLAN_MODES: [(&str, u16); 3] = [("l2", IPVLAN_L2), ("l3", 1), ("l3s", 2)];
const IPVLAN_FLAGS: [(&str, u16); 3] = [("bridge", 0), ("private", 1), ("vepa", 2)];

impl OnParentDriver {
    /// Works in the calling thread's namespace.
    pub fn new(kind: Kind) -> Result<OnParentDriver> {
        let links = Mutex::new(Socket::route().context("opening a netlink socket")?);
        Ok(OnParentDriver {
            kind,
            links,
            open: Mutex::default(),
            indices: Indices::default(),
            announcer: Announcer::default(),
        })
    }

    fn links<T>(&self, call: impl FnOnce(&mut Socket) -> T) -> T {
        // A socket is usable after a panic: it skips answers that it did not ask for.
        call(&mut self.links.lock())
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<NetworkId, Settings>> {
        // Every change is a single insertion or removal: a panic elsewhere leaves the map right.
        self.open.lock()
    }

    fn settings(&self, network: &NetworkRow) -> Result<Settings> {
        let option = |name: &str| network.options.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let word = self.kind.word();
        let named = option(option::PARENT);
        if named == Some("lo") {
            return Err(Error::system(format!("loopback interface is not a valid {word} parent link")));
        }
        let upper = match self.kind {
            Kind::Macvlan => {
                let mode = option(option::MACVLAN_MODE).unwrap_or("bridge");
                let invalid = || {
                    format!("requested macvlan mode '{mode}' is not valid, 'bridge' mode is the macvlan driver default")
                };
                Upper::Macvlan { mode: pick(&MACVLAN_MODES, mode).ok_or_else(|| Error::system(invalid()))? }
            }
            Kind::Ipvlan => {
                let mode = option(option::IPVLAN_MODE).unwrap_or("l2");
                let invalid =
                    || format!("requested ipvlan mode '{mode}' is not valid, 'l2' mode is the ipvlan driver default");
                let flag = option(option::IPVLAN_FLAG).unwrap_or("bridge");
                let wrong =
                    || format!("requested ipvlan flag '{flag}' is not valid, 'bridge' is the ipvlan driver default");
                Upper::Ipvlan {
                    mode: pick(&IPVLAN_MODES, mode).ok_or_else(|| Error::system(invalid()))?,
                    flags: pick(&IPVLAN_FLAGS, flag).ok_or_else(|| Error::system(wrong()))?,
                }
            }
        };
        let prefix = if self.kind == Kind::Macvlan { "dm" } else { "di" };
        let parent = named.map_or_else(|| format!("{prefix}-{}", network.id.short()), str::to_owned);
        let own_parent = Enabled::from(named.is_none());
        Ok(Settings { parent, own_parent, upper, mtu: settings::mtu(network)? })
    }

    /// A parent that hands everything to one link cannot have two networks; nor can one of ipvlan.
    fn refuse_shared(&self, network: &NetworkRow, settings: &Settings) -> Result<()> {
        let open = self.open();
        let Some((id, other)) = open.iter().find(|(id, other)| **id != network.id && other.parent == settings.parent)
        else {
            return Ok(());
        };
        let (parent, word) = (&settings.parent, self.kind.word());
        let text = match self.kind {
            Kind::Ipvlan => format!("network {id} is already using parent interface {parent}"),
            Kind::Macvlan if settings.is_passthru() => {
                format!("cannot use mode passthru, {word} network {id} is already using parent interface {parent}")
            }
            Kind::Macvlan if other.is_passthru() => {
                format!("{word} network {id} is already using parent interface {parent} in mode passthru")
            }
            Kind::Macvlan => return Ok(()),
        };
        Err(Error::system(text))
    }

    /// The parent's index; made where it is missing. `true` = made now.
    fn ensure_parent(&self, settings: &Settings) -> Result<(u32, Enabled)> {
        let name = &settings.parent;
        if let Some(found) = self.links(|socket| link::find(socket, name)).map_err(device::failed)? {
            return Ok((found.index, Enabled::No));
        }
        let mut batch = Batch::new();
        if settings.own_parent.yes() {
            link::create_dummy(&mut batch, name);
            self.request(&mut batch, "dummy links (module dummy)")?;
        } else {
            let (below, id) = self.vlan(name)?;
            let kind = Upper::Vlan { id };
            let made = OnLink { name, mac: None, index: 0, parent: below, mtu: None, kind, namespace: None };
            link::create_on_link(&mut batch, &made);
            self.request(&mut batch, "802.1q links (module 8021q)")?;
        }
        let found = self.links(|socket| link::find(socket, name)).map_err(device::failed)?;
        let index = found.ok_or_else(|| Error::system(format!("link {name} vanished")))?.index;
        let mut batch = Batch::new();
        link::set_up(&mut batch, index);
        self.links(|socket| socket.request(&mut batch)).map_err(device::failed)?;
        Ok((index, Enabled::Yes))
    }

    /// `eth0.10`: the index of `eth0`, and 10.
    fn vlan(&self, name: &str) -> Result<(u32, u16)> {
        let invalid = || Error::system(format!("invalid subinterface vlan name {name}, example formatting is eth0.10"));
        let (below, id) = name.rsplit_once('.').ok_or_else(invalid)?;
        let id: u16 = id.parse().map_err(|_| {
            Error::system(format!("unable to parse a valid vlan id from: {id} (ex. eth0.10 for vlan 10)"))
        })?;
        if !VLAN_IDS.contains(&id) {
            return Err(Error::system(format!("vlan id must be between 1-4094, received: {id}")));
        }
        let found = self.links(|socket| link::find(socket, below)).map_err(device::failed)?;
        let missing = || Error::system(format!("-o parent interface was not found on the host: {below}"));
        Ok((found.ok_or_else(missing)?.index, id))
    }

    /// Carries requests out; `what` is named where the kernel has no such links.
    fn request(&self, batch: &mut Batch, what: &str) -> Result<()> {
        self.links(|socket| socket.request(batch)).map_err(|error| match error.errno {
            Errno::OPNOTSUPP => Error::system(format!("this kernel has no {what}")).with_source(error),
            _ => device::failed(error),
        })
    }

    /// Refuses a network whose links the kernel cannot make, by making one.
    fn try_link(&self, settings: &Settings, parent: u32) -> Result<()> {
        let namespace = sys::netlink::namespace::create().context("creating a network namespace")?;
        let namespace = Some(std::os::fd::AsFd::as_fd(&namespace));
        let mut batch = Batch::new();
        let (name, kind) = ("eth0", settings.upper);
        let made = OnLink { name, mac: None, index: 0, parent, mtu: settings.mtu, kind, namespace };
        link::create_on_link(&mut batch, &made);
        let word = self.kind.word();
        self.request(&mut batch, &format!("{word} links (module {word})"))
            .map_err(|error| error.prefix(format!("failed to create the {word} port")))
    }
}

fn pick<T: Copy>(table: &[(&str, T)], word: &str) -> Option<T> {
    table.iter().find(|(name, _)| *name == word).map(|(_, value)| *value)
}

impl NetworkDriver for OnParentDriver {
    fn name(&self) -> &str {
        self.kind.word()
    }

    fn check(&self, network: &NetworkRow) -> Result<()> {
        self.settings(network)?;
        network.check_pools()
    }

    /// The gateway is a router beside the host, which only the user knows.
    fn needs_gateway(&self, _: &NetworkRow) -> Result<Vec<Family>> {
        Ok(Vec::new())
    }

    fn open(&self, network: &mut NetworkRow) -> Result<()> {
        let mut settings = self.settings(network)?;
        self.refuse_shared(network, &settings)?;
        let (parent, made) = self.ensure_parent(&settings)?;
        if made.yes() && network.progress == Progress::Making {
            // As of a bridge: a device that was made with the network is known by it.
            network.mac = Some(MacAddress::random());
        }
        settings.own_parent = network.mac.is_some().into();
        if network.progress == Progress::Making
            && let Err(error) = self.try_link(&settings, parent)
        {
            if made.yes() {
                self.links(|socket| device::remove(socket, &settings.parent))?;
            }
            return Err(error);
        }
        self.open().insert(network.id.clone(), settings);
        Ok(())
    }

    /// A parent that was made here goes with the last network on it.
    fn close(&self, network: &NetworkRow) -> Result<()> {
        let known = self.open().remove(&network.id);
        // One that was never opened here may be left from a daemon that died while it was made or removed.
        let Some(settings) = known.or_else(|| self.settings(network).ok()) else { return Ok(()) };
        let shared = self.open().values().any(|other| other.parent == settings.parent);
        if settings.own_parent.yes() && !shared {
            return self.links(|socket| device::remove(socket, &settings.parent));
        }
        Ok(())
    }

    fn reconcile(&self, _: &[Endpoint]) -> Result<()> {
        Ok(())
    }

    /// Published ports have no meaning here and are ignored.
    fn join(&self, request: &Join<'_>) -> Result<Joined> {
        let settings = self.open().get(&request.network.id).cloned();
        let settings = settings.ok_or_else(|| Error::system(format!("network {} is not open", request.network.id)))?;
        let (parent, _) = self.ensure_parent(&settings)?;
        let sandbox = request.sandbox.namespace();
        let sandbox = sandbox.ok_or_else(|| Error::invalid("the host's namespace cannot join such a network"))?;
        let (place, kind) = (request.endpoint, settings.upper);
        let index = self.indices.next(sandbox)?;
        let mac = (self.kind == Kind::Macvlan && !settings.is_passthru()).then_some(place.mac);
        let mut outside = Batch::new();
        let made = OnLink {
            name: &place.link,
            mac: mac.map(|mac| mac.0),
            index,
            parent,
            mtu: settings.mtu,
            kind,
            namespace: Some(sandbox.fd()),
        };
        link::create_on_link(&mut outside, &made);
        let word = self.kind.word();
        self.request(&mut outside, &format!("{word} links (module {word})"))
            .map_err(|error| error.prefix(format!("failed to create the {word} port")))?;
        let ipv6 = Enabled::from(place.addresses.iter().any(|assigned| assigned.address.is_ipv6()));
        let announcements = Announcements::of(&request.network.options);
        let nature = inside::Nature { ipv6, announces: Enabled::from(announcements.count > 0) };
        let _ = sys::netlink::namespace::enter(sandbox.fd(), || {
            let value = if nature.announces.yes() { "1" } else { "0" };
            // A kernel without IPv6 has the first one alone.
            announce::settings(&place.link).for_each(|name| drop(sys::netlink::namespace::set_sysctl(&name, value)));
            Ok(())
        });
        let furnished =
            inside::furnish(sandbox, &self.indices, nature, NO_CREATION, furniture(request, &settings, index));
        match furnished {
            Err(inside::Refused::Failed(error)) => {
                inside::remove(sandbox.fd(), &place.link);
                return Err(error);
            }
            Ok(_) if mac.is_some() => self.announcer.add(request, index),
            Ok(_) | Err(inside::Refused::Taken) => (),
        }
        Ok(Joined { endpoint: Endpoint { mac, ..request.bare() }, ports: Sockets::default() })
    }

    /// A link dies with its namespace.
    fn leave(&self, _: &NetworkRow, endpoint: &Endpoint, sandbox: Option<BorrowedFd<'_>>) -> Result<()> {
        self.announcer.forget(&endpoint.id);
        if let Some(sandbox) = sandbox {
            inside::remove(sandbox, &endpoint.link);
        }
        Ok(())
    }

    fn sizes(&self) -> Vec<(&'static str, usize)> {
        vec![("announcements", self.announcer.count())]
    }
}

/// What is done inside the sandbox once the link is there.
fn furniture(request: &Join<'_>, settings: &Settings, index: u32) -> Batch {
    let place = request.endpoint;
    let mut batch = Batch::new();
    link::set_up(&mut batch, LOOPBACK);
    let own = place.addresses.iter().map(|assigned| (assigned.address, assigned.prefix_len));
    let further = place.link_local.iter().map(|address| (*address, family::of(*address).bits()));
    for (address, prefix_len) in own.chain(further) {
        address::add(&mut batch, &Address { link: index, address, prefix_len });
    }
    link::set_up(&mut batch, index);
    if settings.routes() {
        // Everything leaves by the parent, which routes.
        let families: Vec<IpAddr> = place.addresses.iter().map(|assigned| assigned.address).collect();
        for like in families {
            address::replace_route(&mut batch, &Route::default_on(like, index));
        }
        return batch;
    }
    for gateway in &place.gateways {
        address::replace_route(&mut batch, &Route::default_by(*gateway, index));
    }
    batch
}
