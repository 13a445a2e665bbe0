//! A container's places in networks: what its row asks for, in the network crate's own terms.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use model::egress::Egress;
use model::id::ContainerId;
use model::{Error, Result};
use network::row::NetworkRow;
use network::{Enabled, EndpointSpec, Family, MacAddress, Networks, SandboxSpec};

use crate::container::definition::Definition;
use crate::container::definition::modes::NetworkMode;
use crate::container::definition::network::is_default;

/// The driver option of an endpoint that holds the sysctls of its interface.
const ENDPOINT_SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
/// Refusals that clients compare.
const SHARED: &str =
    "container sharing network namespace with another container or host cannot be connected to any other network";
const WITH_NONE: &str =
    "container cannot be connected to multiple networks with one of the networks in private (none) mode";

/// The places of one container.
#[derive(Clone, Copy)]
pub struct Places<'a> {
    row: &'a Definition,
}

impl<'a> Places<'a> {
    /// Those that the row asks for.
    pub fn of(row: &'a Definition) -> Places<'a> {
        Places { row }
    }

    /// Whether a container that runs has a namespace with nothing but loopback in it and is on no network: its network is
    /// disabled, or it is on the default bridge and the daemon has none (`--bridge=none`).
    pub fn has_no_network(self, networks: &Networks) -> bool {
        self.row.config.network_disabled
            || self.row.network_mode().network().is_some_and(is_default) && !networks.has_default()
    }

    /// The networks that the container is to be on, by name or id as they were asked for. Rows of older daemons do not
    /// name the mode's.
    pub fn wanted(self) -> BTreeMap<String, api::EndpointSettings> {
        let Some(mode) = self.row.network_mode().network().filter(|_| !self.row.config.network_disabled) else {
            return BTreeMap::new();
        };
        let mut wanted = self.row.networks.clone();
        if !self.row.networks_named {
            wanted.entry(mode.to_owned()).or_default();
        }
        wanted
    }

    /// As `wanted` says, in the order in which they are joined: the mode's first, then by name.
    fn ordered(self) -> Vec<(String, api::EndpointSettings)> {
        let mode = self.row.network_mode().network();
        let mut wanted: Vec<_> = self.wanted().into_iter().collect();
        wanted.sort_by_key(|(name, _)| Some(name.as_str()) != mode);
        wanted
    }

    /// The networks that it is to be on which are there, and what it asks of them, in the order in which they are joined.
    pub fn standing(self, networks: &Networks) -> Vec<(Arc<NetworkRow>, api::EndpointSettings)> {
        let all = self.ordered().into_iter();
        all.filter_map(|(name, settings)| Some((networks.look_up(&name).ok()?, settings))).collect()
    }

    /// Whether there is a resolver in its sandbox: one of its networks was made by a user, or it may reach some names only.
    pub fn has_resolver(self, networks: &Networks) -> bool {
        let is_users = |name: &str| !network::networks::is_predefined(name);
        let standing = self.standing(networks);
        standing.iter().any(|(network, _)| is_users(&network.name)) || !standing.is_empty() && self.egress().is_some()
    }

    /// All that the container may reach; `None` = whatever its networks let it.
    pub fn egress(self) -> Option<&'a Egress> {
        self.row.own_labels.egress.as_ref()
    }

    /// The container that has them.
    pub fn container(self) -> &'a ContainerId {
        &self.row.id
    }

    /// The sandbox that a start makes; `None`: another container's is joined.
    pub fn sandbox(self, networks: &Networks) -> Result<Option<SandboxSpec>> {
        if self.row.network_mode().container().is_some() {
            return Ok(None);
        }
        let mut all = self.ordered();
        if self.has_no_network(networks) {
            all.retain(|(name, _)| !matches!(name.as_str(), "bridge" | "default"));
            if all.is_empty() {
                all.push(("none".to_owned(), api::EndpointSettings::default()));
            }
        }
        let mut places = Vec::new();
        for (name, settings) in all {
            places.push((networks.look_up(&name)?, settings));
        }
        let has = |driver: &str| places.iter().any(|(network, _)| network.driver == driver);
        if places.len() > 1 && has("host") {
            return Err(Error::invalid(SHARED));
        }
        if places.len() > 1 && has("null") {
            return Err(Error::invalid(WITH_NONE));
        }
        let endpoints = places.iter().map(|(network, settings)| self.endpoint(network, settings));
        Ok(Some(SandboxSpec {
            container: self.row.id.clone(),
            name: self.row.name.clone(),
            endpoints: endpoints.collect::<Result<_>>()?,
            ports: self.row.parsed().ports()?.to_vec(),
        }))
    }

    /// One place in a network.
    pub fn endpoint(self, network: &NetworkRow, settings: &api::EndpointSettings) -> Result<EndpointSpec> {
        check_addresses(network, settings)?;
        let addresses = settings.ipam_config.clone().unwrap_or_default();
        let parsed = |text: &str| text.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        let fixed = [parsed(&addresses.ipv4_address), parsed(&addresses.ipv6_address)];
        let options = settings.driver_opts.as_ref();
        let link = options.and_then(|options| options.get(network::option::ENDPOINT_LINK));
        let sysctls =
            options.and_then(|options| options.get(ENDPOINT_SYSCTLS)).map_or_else(Vec::new, |all| sysctls(all));
        Ok(EndpointSpec {
            mac: MacAddress::parse(&settings.mac_address),
            addresses: fixed.into_iter().flatten().collect(),
            link_local: addresses.link_local_ips.iter().filter_map(|text| parsed(text)).collect(),
            link: link.filter(|name| !name.is_empty()).cloned(),
            ipv6: Enabled::from(!self.row.turns_ipv6_off("all") && !take_ipv6(&sysctls)),
            sysctls,
            options: options.cloned().unwrap_or_default(),
            priority: settings.gw_priority,
            egress: self.row.own_labels.egress.clone(),
            dns_names: self.dns_names(network, settings.aliases.as_deref().unwrap_or_default()),
            ..EndpointSpec::new(network.id.clone())
        })
    }

    /// What the container is called in a network that users made (B-dns-3); the first name is the one of its address.
    pub fn dns_names(self, network: &NetworkRow, aliases: &[String]) -> Vec<String> {
        if network::networks::is_predefined(&network.name) {
            return Vec::new();
        }
        let row = self.row;
        let mut names: Vec<String> = Vec::new();
        let own = [row.name.as_str()].into_iter().chain(aliases.iter().map(String::as_str));
        for name in own.chain([row.id.short(), row.config.hostname.as_str()]) {
            if !name.is_empty() && !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        names
    }

    /// Why the container cannot be on this network beside those that it is on.
    pub fn refuse_beside(self, networks: &Networks, network: &NetworkRow) -> Result<()> {
        let mode = self.row.network_mode();
        if mode.container().is_some() {
            return Err(Error::invalid(SHARED));
        }
        if *mode != NetworkMode::Host && network.driver == "host" {
            let text = "cannot connect container to host network - container must be created in host network mode";
            return Err(Error::invalid(text));
        }
        if self.egress().is_some() && network.driver != "bridge" {
            return Err(network::confine::unsupported(&network.driver));
        }
        for name in self.wanted().keys() {
            let Ok(other) = networks.look_up(name) else { continue };
            if other.id == network.id {
                continue;
            }
            if other.driver == "host" || network.driver == "host" {
                return Err(Error::invalid(SHARED));
            }
            if other.driver == "null" || network.driver == "null" {
                return Err(Error::invalid(WITH_NONE));
            }
        }
        Ok(())
    }
}

/// Whether settings of an endpoint's link take IPv6 from it.
fn take_ipv6(sysctls: &[(String, String)]) -> bool {
    let is_it = |name: &str| name.eq_ignore_ascii_case("net.ipv6.conf.IFNAME.disable_ipv6");
    sysctls.iter().any(|(name, value)| is_it(name) && super::is_on(value))
}

/// `net.ipv4.conf.IFNAME.log_martians=1,…` by name and value.
fn sysctls(list: &str) -> Vec<(String, String)> {
    let entries = list.split(',').filter_map(|entry| entry.split_once('='));
    entries.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What the requested endpoints become in a new row: by the networks' names where they are there, the mode's alone when
/// none was asked for.
pub fn named(
    networks: &Networks,
    mode: &str,
    asked: BTreeMap<String, api::EndpointSettings>,
) -> BTreeMap<String, api::EndpointSettings> {
    let name = |key: &str| networks.look_up(key).map_or_else(|_| key.to_owned(), |row| row.name.clone());
    let mut named: BTreeMap<_, _> = asked.into_iter().map(|(key, endpoint)| (name(&key), endpoint)).collect();
    if named.is_empty() && !mode.starts_with("container:") {
        named.insert(
            name(if matches!(mode, "" | "default") { "bridge" } else { mode }),
            api::EndpointSettings::default(),
        );
    }
    named
}

/// Fixed addresses lie in the network's subnets.
pub fn check_addresses(network: &NetworkRow, settings: &api::EndpointSettings) -> Result<()> {
    let Some(config) = &settings.ipam_config else { return Ok(()) };
    let texts = [&config.ipv4_address, &config.ipv6_address].into_iter().filter(|text| !text.is_empty());
    for text in texts {
        let address: IpAddr = text.parse().map_err(|_| Error::invalid(format!("invalid IP address: {text}")))?;
        let address = address.to_canonical();
        if network.pool_of(address).is_none() {
            let why = format!("no configured subnet contains IP address {address}");
            return Err(Error::invalid(format!("invalid endpoint settings:\n{why}")));
        }
    }
    Ok(())
}

/// What inspect shows of an endpoint while it stands.
pub fn show(settings: &mut api::EndpointSettings, live: Option<&network::Endpoint>) {
    let of = |family| live.and_then(|endpoint| endpoint.assigned(family));
    let text = |address: Option<IpAddr>| address.map(|a| a.to_string()).unwrap_or_default();
    let (v4, v6) = (of(Family::Ipv4), of(Family::Ipv6));
    settings.endpoint_id = live.map(|e| e.id.as_str().to_string()).unwrap_or_default();
    settings.gateway = text(v4.and_then(|own| own.gateway));
    settings.ip_address = text(v4.map(|own| own.address));
    settings.ip_prefix_len = v4.map_or(0, |own| i64::from(own.prefix_len));
    settings.ipv6_gateway = text(v6.and_then(|own| own.gateway));
    settings.global_ipv6_address = text(v6.map(|own| own.address));
    settings.global_ipv6_prefix_len = v6.map_or(0, |own| i64::from(own.prefix_len));
    if let Some(mac) = live.and_then(|e| e.mac) {
        settings.mac_address = mac.to_string();
    }
}
