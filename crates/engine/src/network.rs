//! Networks as the API shows them: made, listed, inspected, pruned, removed; containers that join and leave them.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ::network::ipam::Wanted;
use ::network::networks::{self, is_predefined};
use ::network::row::{NetworkRow, PoolRow, Traits, parse_flag};
use ::network::{Family, Networks, NewNetwork, NewPool, option};
use events::{Events, now};
use gojson::netip;
use ipnet::IpNet;
use model::filter::Filters;
use model::own_label::{KEEP, asks_to_keep};
use model::time::Timestamp;
use model::{Error, Kind, Result};

use crate::container::definition::places::Places;
use crate::container::registry::arguments::{Force, Place};
use crate::container::registry::command::Command;
use crate::container::unloaded::Unloaded;
use crate::container::{Containers, Handle};
use crate::disk::{self, Turns};
use crate::settings::Settings;

const KEYS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];
const PRUNE_KEYS: &[&str] = &["label", "label!", "until"];
/// The scope of networks, but of those whose plugin says otherwise: there is no swarm.
const LOCAL: &str = "local";
const GLOBAL: &str = "global";

/// All networks that pass the filters, by name.
pub fn list(networks: &Networks, filters: &Filters) -> Result<Vec<api::Network>> {
    filters.validate(KEYS)?;
    let dangling = dangling(filters)?;
    if let Some(kind) = filters.get("type").find(|kind| !matches!(*kind, "builtin" | "custom")) {
        // A 500 in the reference, too.
        return Err(Error::system(format!("invalid filter: 'type'='{kind}'")));
    }
    let any = |key: &str, test: &dyn Fn(&str) -> bool| !filters.contains(key) || filters.get(key).any(test);
    let mut networks = networks.list();
    networks.retain(|network| {
        let row = &network.row;
        let kind = if is_predefined(&row.name) { "builtin" } else { "custom" };
        let unused = network.endpoints.is_empty() && !is_predefined(&row.name);
        any("driver", &|driver| driver == row.driver)
            && (!filters.contains("id") || filters.pattern_match("id", row.id.as_str()))
            && (!filters.contains("name") || filters.pattern_match("name", &row.name))
            && any("scope", &|wanted| wanted == scope(row))
            && any("type", &|wanted| wanted == kind)
            && dangling.is_none_or(|wanted| wanted == unused)
            && filters.match_kv_list("label", &row.labels)
    });
    Ok(networks.iter().map(|network| wire(&network.row)).collect())
}

fn dangling(filters: &Filters) -> Result<Option<bool>> {
    let values: Vec<_> = filters.get("dangling").collect();
    match values[..] {
        [] => Ok(None),
        ["0" | "false"] => Ok(Some(false)),
        ["1" | "true"] => Ok(Some(true)),
        [_] => Err(Error::invalid(
            "invalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \"0\")",
        )),
        _ => Err(Error::invalid("got more than one value for filter key \"dangling\"")),
    }
}

fn scope(row: &NetworkRow) -> &'static str {
    if row.traits.global { GLOBAL } else { LOCAL }
}

/// One network with its containers. `scope` is what the client narrows its question to; empty = any.
pub fn inspect(networks: &Networks, containers: &Containers, key: &str, scope: &str) -> Result<api::Network> {
    let network = networks.find(key)?;
    if !scope.is_empty() && scope != self::scope(&network.row) {
        return Err(Error::not_found(format!("network {key} not found")));
    }
    let endpoints = network.endpoints.iter().filter_map(|endpoint| {
        let view = containers.find(endpoint.container.as_str()).ok()?.view();
        let address = |family| {
            let own = endpoint.assigned(family);
            own.map(|own| format!("{}/{}", own.address, own.prefix_len)).unwrap_or_default()
        };
        let resource = api::EndpointResource {
            name: view.row.name.clone(),
            endpoint_id: endpoint.id.as_str().into(),
            mac_address: endpoint.mac.map(|m| m.to_string()).unwrap_or_default(),
            ipv4_address: address(Family::Ipv4),
            ipv6_address: address(Family::Ipv6),
        };
        Some((endpoint.container.as_str().to_string(), resource))
    });
    let (containers, status) = (endpoints.collect(), status(networks, &network.row));
    Ok(api::Network { containers: Some(containers), status: Some(status), ..wire(&network.row) })
}

/// How far each subnet is used.
fn status(networks: &Networks, row: &NetworkRow) -> api::network::NetworkStatus {
    let counts = |usage: ::network::ipam::Usage| api::network::SubnetStatus {
        ips_in_use: usage.taken,
        dynamic_ips_available: usage.available,
    };
    let subnets = networks.usage(row).into_iter().map(|(subnet, usage)| (subnet.to_string(), counts(usage)));
    api::network::NetworkStatus { ipam: api::network::IpamStatus { subnets: subnets.collect() } }
}

/// Whether making such a network waits for plugins.
pub fn asks_plugins(request: &api::network::NetworkCreateRequest) -> bool {
    let driver = if request.driver.is_empty() { "bridge" } else { &request.driver };
    networks::asks_plugins(driver, request.ipam.as_ref().map_or("", |ipam| &ipam.driver))
        || request.config_from.as_ref().is_some_and(|from| !from.network.is_empty())
}

/// Whether removing a network waits for plugins.
pub fn is_of_plugins(networks: &Networks, key: &str) -> bool {
    networks.look_up(key).is_ok_and(|row| networks::asks_plugins(&row.driver, &row.ipam.driver))
}

/// Makes a network. Event: create. Blocks.
pub fn create(
    networks: &Networks,
    events: &Events,
    settings: &Settings,
    request: api::network::NetworkCreateRequest,
) -> Result<api::network::NetworkCreateResponse> {
    let row = networks.create(new_network(settings, request)?)?;
    event(events, "create", &row);
    Ok(api::network::NetworkCreateResponse { id: row.id.as_str().into(), warning: String::new() })
}

fn event(events: &Events, action: &str, row: &NetworkRow) {
    let attributes = [("name", row.name.clone()), ("type", row.driver.clone())];
    events.publish("network", action, row.id.as_str(), attributes);
}

/// A request in the network crate's own terms.
fn new_network(settings: &Settings, request: api::network::NetworkCreateRequest) -> Result<NewNetwork> {
    let driver = if request.driver.is_empty() { "bridge".to_owned() } else { request.driver };
    if is_predefined(&request.name) {
        return Err(Error::forbidden(format!("operation is not permitted on predefined {} network ", request.name)));
    }
    if driver == "overlay" {
        return Err(Error::forbidden(
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node \
             to swarm and try again.",
        ));
    }
    if request.ingress {
        return Err(Error::forbidden("Ingress network can only be global scope network"));
    }
    if request.scope == "swarm" || request.scope == "global" {
        return Err(Error::forbidden("cannot create a swarm scoped network when swarm is not active"));
    }
    let config_from = request.config_from.map(|from| from.network).unwrap_or_default();
    let mut options = request.options.unwrap_or_default();
    if config_from.is_empty() {
        for (key, value) in settings.services.network.default_options.get(&driver).into_iter().flatten() {
            options.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    let ipv4 = family_switch(request.enable_ipv4, &mut options, option::ENABLE_IPV4, true)?;
    let ipv6 = family_switch(request.enable_ipv6, &mut options, option::ENABLE_IPV6, false)?;
    let ipam = request.ipam.unwrap_or_default();
    let pools = pools(ipam.config.unwrap_or_default(), ipv6)?;
    Ok(NewNetwork {
        local: request.scope == LOCAL,
        name: request.name,
        driver,
        traits: Traits {
            ipv4,
            ipv6,
            internal: request.internal,
            attachable: request.attachable,
            config_only: request.config_only,
            config_from,
            global: false,
        },
        labels: request.labels.unwrap_or_default(),
        options,
        ipam_driver: ipam.driver,
        ipam_options: ipam.options.unwrap_or_default(),
        pools,
    })
}

/// What the request says about a family, else its option. A request that says it makes the option void.
fn family_switch(
    asked: Option<bool>,
    options: &mut BTreeMap<String, String>,
    option: &str,
    default: bool,
) -> Result<bool> {
    if let Some(asked) = asked {
        options.remove(option);
        return Ok(asked);
    }
    let Some(value) = options.get(option) else { return Ok(default) };
    parse_flag(value).ok_or_else(|| Error::invalid(format!("driver-opt {option:?} is not a valid bool")))
}

/// The subnets of a request; everything that is wrong with them is told at once.
fn pools(configs: Vec<api::IpamConfig>, ipv6: bool) -> Result<Vec<NewPool>> {
    let (mut pools, mut wrongs) = (Vec::new(), Vec::new());
    for config in configs {
        let pool = pool(&config)?;
        if ipv6 || pool.family == Family::Ipv4 {
            check_pool(&pool, &mut wrongs);
        }
        pools.push(pool);
    }
    match wrongs.is_empty() {
        true => Ok(pools),
        false => {
            let list = match &wrongs[..] {
                [one] => one.clone(),
                several => several.iter().map(|wrong| format!("* {wrong}")).collect::<Vec<_>>().join("\n"),
            };
            Err(Error::invalid(format!("invalid network config:\n{list}")))
        }
    }
}

fn net(text: &str) -> Result<Option<IpNet>> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |why: String| Error::invalid(format!("invalid JSON: {why}"));
    let (address, length) = netip::parse_prefix(text).map_err(wrong)?;
    let parsed = IpNet::new(address, length).map_err(|error| wrong(error.to_string()))?;
    Ok(Some(parsed).filter(|net| !net.addr().is_unspecified() || net.prefix_len() > 0))
}

fn address(text: &str) -> Result<Option<IpAddr>> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = netip::parse_addr(text).map_err(|why| Error::invalid(format!("invalid JSON: {why}")))?;
    Ok(Some(parsed.to_canonical()))
}

fn pool(config: &api::IpamConfig) -> Result<NewPool> {
    let subnet = net(&config.subnet)?;
    let (range, gateway) = (net(&config.ip_range)?, address(&config.gateway)?);
    let mut aux = BTreeMap::new();
    for (name, text) in &config.aux_addresses {
        aux.extend(address(text)?.map(|address| (name.clone(), address)));
    }
    let family = subnet.map_or(Family::Ipv4, ::network::family::of_net);
    let wanted = match subnet {
        None => Wanted::Any,
        Some(any) if any.network().is_unspecified() => Wanted::Length(any.prefix_len()),
        Some(net) => Wanted::Net(net),
    };
    Ok(NewPool { family, wanted, range, gateway, aux })
}

fn check_pool(pool: &NewPool, wrongs: &mut Vec<String>) {
    let Wanted::Net(subnet) = pool.wanted else { return };
    let block = match pool.family {
        Family::Ipv4 => "parent subnet is an IPv4 block",
        Family::Ipv6 => "parent subnet is an IPv6 block",
    };
    if subnet != subnet.trunc() {
        wrongs.push(format!("invalid subnet {subnet}: it should be {}", subnet.trunc()));
    }
    let subnet = subnet.trunc();
    if let Some(range) = pool.range {
        if ::network::family::of_net(range) != pool.family {
            wrongs.push(format!("invalid ip-range {range}: {block}"));
        } else {
            if range.prefix_len() < subnet.prefix_len() {
                wrongs.push(format!("invalid ip-range {range}: CIDR block is bigger than its parent subnet {subnet}"));
            }
            if range != range.trunc() {
                wrongs.push(format!("invalid ip-range {range}: it should be {}", range.trunc()));
            }
            if !::network::family::overlap(subnet, range) {
                wrongs.push(format!("invalid ip-range {range}: parent subnet {subnet} doesn't contain ip-range"));
            }
        }
    }
    let outside = |address: IpAddr| match ::network::family::of(address) == pool.family {
        false => Some(block.to_owned()),
        true if !subnet.contains(&address) => Some(format!("parent subnet {subnet} doesn't contain this address")),
        true => None,
    };
    if let Some((gateway, why)) = pool.gateway.and_then(|gateway| Some((gateway, outside(gateway)?))) {
        wrongs.push(format!("invalid gateway {gateway}: {why}"));
    }
    for (name, address) in &pool.aux {
        if let Some(why) = outside(*address) {
            wrongs.push(format!("invalid auxiliary address {name}: {why}"));
        }
    }
}

/// Removes a network that no container is on. Event: destroy. Blocks.
pub fn remove(networks: &Networks, events: &Events, key: &str) -> Result<()> {
    let row = networks.look_up(key)?;
    let removed = networks.remove(&row.id)?;
    if !removed.traits.config_only {
        event(events, "destroy", &removed);
    }
    Ok(())
}

/// Removes the networks that users made and no container refers to. Event: prune. Blocks.
pub fn prune(
    networks: &Networks,
    containers: &Containers,
    events: &Events,
    turns: &Turns,
    filters: &Filters,
) -> Result<api::NetworkPruneReport> {
    let _turn = disk::turn(&turns.networks)?;
    filters.validate(PRUNE_KEYS)?;
    let until = filters.until(now())?;
    let used = used(networks, containers);
    let mut deleted = Vec::new();
    for network in networks.list() {
        let row = &network.row;
        let old = until.is_none_or(|until| Timestamp::from_unix_nanos(row.created) < until);
        let may_use = |one: &Unloaded| one.may_use(&row.name) || one.may_use(row.id.as_str());
        let unused =
            network.endpoints.is_empty() && !used.contains(&row.name) && !containers.unloaded.iter().any(may_use);
        let is_kept = row.labels.get(KEEP).is_some_and(|value| asks_to_keep(value));
        if is_predefined(&row.name) || is_kept || !old || !unused || !filters.match_labels(&row.labels) {
            continue;
        }
        match remove(networks, events, row.id.as_str()) {
            Ok(()) => deleted.push(row.name.clone()),
            Err(error) => tracing::warn!(%error, network = %row.name, "could not remove local network"),
        }
    }
    events.publish("network", "prune", "", [("reclaimed", "0".to_owned())]);
    Ok(api::NetworkPruneReport { networks_deleted: Some(deleted).filter(|deleted| !deleted.is_empty()) })
}

/// Names of the networks that containers that run are on.
fn used(networks: &Networks, containers: &Containers) -> HashSet<String> {
    let views = containers.all().into_iter().map(|handle| handle.view()).filter(|view| view.pid != 0);
    let names = views.flat_map(|view| Places::of(&view.row).wanted().into_keys());
    names.filter_map(|name| networks.look_up(&name).ok()).map(|row| row.name.clone()).collect()
}

/// Puts a container on a network: at once when it runs, else when it starts. Event: connect.
pub async fn connect(
    containers: &Containers,
    network: &str,
    container: &str,
    settings: api::EndpointSettings,
) -> Result<()> {
    let place = Box::new(Place { network: network.to_owned(), settings });
    containers.find(container)?.ask(|reply| Command::Connect { place, reply }).await
}

/// Changes the published ports of a container, also while it runs; those that it has then. Event: update.
pub async fn change_ports(
    networks: &Networks,
    containers: &Containers,
    container: &str,
    change: api::PortsChange,
) -> Result<api::PortsChanged> {
    let handle = containers.find(container)?;
    handle.ask(|reply| Command::ChangePorts { change, reply }).await?;
    Ok(api::PortsChanged { ports: crate::container::read::inspect::ports(networks, &handle.view().row) })
}

/// Takes a container off a network. Event: disconnect.
pub async fn disconnect(
    networks: &Arc<Networks>,
    containers: &Containers,
    network: &str,
    container: &str,
    force: bool,
) -> Result<()> {
    let handle = match containers.find(container) {
        Err(error) if force && error.kind() == Kind::NotFound => {
            return end_stale(networks, containers, network, container).await;
        }
        other => other?,
    };
    let force = if force { Force::Yes } else { Force::No };
    let network = network.to_owned();
    ask_to_leave(handle, network, force).await
}

async fn ask_to_leave(handle: Handle, network: String, force: Force) -> Result<()> {
    handle.ask(|reply| Command::Disconnect { network, force, reply }).await
}

/// An endpoint of that name whose container is not known any more.
async fn end_stale(networks: &Arc<Networks>, containers: &Containers, network: &str, name: &str) -> Result<()> {
    let found = networks.find(network)?;
    let stale = found.endpoints.iter().find(|endpoint| endpoint.dns_names.first().is_some_and(|own| own == name));
    let container = stale.map(|endpoint| endpoint.container.clone());
    let container = container.ok_or_else(|| Error::not_found(format!("endpoint {name} not found")))?;
    let networks = networks.clone();
    containers.threads.networks.run(move |_| networks.release(&container)).await
}

fn wire(row: &NetworkRow) -> api::Network {
    let pools: Vec<_> = row.ipam.pools.iter().map(wire_pool).collect();
    let ipam = api::Ipam {
        driver: if row.ipam.driver == "null" { "default".to_owned() } else { row.ipam.driver.clone() },
        options: Some(row.ipam.options.clone()).filter(|options| !options.is_empty()),
        config: Some(pools).filter(|pools| !pools.is_empty()),
    };
    api::Network {
        name: row.name.clone(),
        id: row.id.as_str().into(),
        created: Timestamp::from_unix_nanos(row.created).rfc3339_nano(),
        scope: scope(row).into(),
        driver: row.driver.clone(),
        enable_ipv4: row.traits.ipv4,
        enable_ipv6: row.traits.ipv6,
        ipam,
        internal: row.traits.internal,
        attachable: row.traits.attachable,
        config_from: api::network::ConfigReference { network: row.traits.config_from.clone() },
        config_only: row.traits.config_only,
        options: Some(row.options.clone()),
        labels: Some(row.labels.clone()),
        ..api::Network::default()
    }
}

fn wire_pool(pool: &PoolRow) -> api::IpamConfig {
    api::IpamConfig {
        subnet: pool.subnet.to_string(),
        gateway: pool.gateway.map(|g| g.to_string()).unwrap_or_default(),
        ip_range: pool.range.map(|r| r.to_string()).unwrap_or_default(),
        aux_addresses: pool.aux.iter().map(|(name, address)| (name.clone(), address.to_string())).collect(),
    }
}
