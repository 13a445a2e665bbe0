//! Networks as the API shows them. Making and joining networks beside the predefined ones has its own issue of work;
//! what stands here is what the default networks need.

use std::collections::{BTreeMap, BTreeSet};

use ::network::Networks;
use model::filter::Filters;
use model::{Error, Result};

use crate::container::Containers;
use crate::disk::{self, Turns};
use crate::events::{Events, now};

const KEYS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];
const PRUNE_KEYS: &[&str] = &["label", "label!", "until"];

/// All networks that pass the filters, by name.
pub fn list(networks: &Networks, filters: &Filters) -> Result<Vec<api::Network>> {
    filters.validate(KEYS)?;
    check_values(filters)?;
    let any = |key: &str, test: &dyn Fn(&str) -> bool| !filters.contains(key) || filters.get(key).any(test);
    let mut networks = networks.list();
    networks.retain(|network| {
        any("driver", &|driver| driver == network.driver)
            && any("id", &|id| network.id.as_str().starts_with(id))
            && any("name", &|name| network.name.contains(name))
            && any("scope", &|scope| scope == "local")
            && any("type", &|kind| kind == "builtin")
            && any("dangling", &|word| matches!(word, "false" | "0"))
            && filters.match_kv_list("label", &BTreeMap::new())
    });
    Ok(networks.into_iter().map(wire).collect())
}

/// Refuses values that say nothing.
fn check_values(filters: &Filters) -> Result<()> {
    let words: Vec<_> = filters.get("dangling").collect();
    match words[..] {
        [] | ["0" | "false" | "1" | "true"] => {}
        [_] => {
            let text = "invalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \"0\")";
            return Err(Error::invalid(text));
        }
        _ => return Err(Error::invalid("got more than one value for filter key \"dangling\"")),
    }
    match filters.get("type").find(|kind| !matches!(*kind, "builtin" | "custom")) {
        // A 500 in the reference, too.
        Some(kind) => Err(Error::system(format!("invalid filter: 'type'='{kind}'"))),
        None => Ok(()),
    }
}

/// One network with its containers; `scope`: only if it is of this one.
pub fn inspect(networks: &Networks, containers: &Containers, (key, scope): (&str, &str)) -> Result<api::Network> {
    let network = networks.find(key)?;
    if !matches!(scope, "" | "local") {
        return Err(Error::not_found(format!("network {key} not found")));
    }
    let endpoints = network.endpoints.iter().filter_map(|endpoint| {
        let view = containers.find(endpoint.container.as_str()).ok()?.view();
        let address = endpoint.address.map(|a| format!("{a}/{}", endpoint.prefix_len)).unwrap_or_default();
        let resource = api::EndpointResource {
            name: view.row.name.clone(),
            endpoint_id: endpoint.id.as_str().into(),
            mac_address: endpoint.mac.map(|m| m.to_string()).unwrap_or_default(),
            ipv4_address: address,
            ipv6_address: String::new(),
        };
        Some((endpoint.container.as_str().to_string(), resource))
    });
    let (containers, status) = (endpoints.collect(), status(&network));
    Ok(api::Network { containers: Some(containers), status: Some(status), ..wire(network) })
}

/// How many addresses are taken: those of containers, the gateway's, and the first and the last of the subnet.
fn status(network: &::network::Network) -> api::network::NetworkStatus {
    let mut subnets = BTreeMap::new();
    if let Some(subnet) = network.subnet {
        let own = (subnet.prefix_len() < 31).then(|| [subnet.network(), subnet.broadcast()]);
        let taken: BTreeSet<_> = network
            .endpoints
            .iter()
            .filter_map(|e| e.address)
            .chain(network.gateway)
            .chain(own.into_iter().flatten())
            .collect();
        let range = network.range.unwrap_or(subnet);
        let size = 1_u64 << (32 - range.prefix_len());
        let taken_of_range = taken.iter().filter(|address| range.contains(*address)).count() as u64;
        let counts =
            api::network::SubnetStatus { ips_in_use: taken.len() as u64, dynamic_ips_available: size - taken_of_range };
        subnets.insert(subnet.to_string(), counts);
    }
    api::network::NetworkStatus { ipam: api::network::IpamStatus { subnets } }
}

/// The predefined networks stay.
pub fn remove(networks: &Networks, key: &str) -> Result<()> {
    let network = networks.find(key)?;
    Err(Error::forbidden(format!("{} is a pre-defined network and cannot be removed", network.name)))
}

/// Removes the networks that users made and nobody uses: none can be made yet, so none is removed. Event: prune.
pub fn prune(events: &Events, turns: &Turns, filters: &Filters) -> Result<api::NetworkPruneReport> {
    let _turn = disk::turn(&turns.networks)?;
    filters.validate(PRUNE_KEYS)?;
    filters.until(now())?;
    events.publish("network", "prune", "", [("reclaimed", "0".to_owned())]);
    Ok(api::NetworkPruneReport::default())
}

fn wire(network: ::network::Network) -> api::Network {
    let pool = network.subnet.map(|subnet| api::IpamConfig {
        subnet: subnet.to_string(),
        gateway: network.gateway.map(|g| g.to_string()).unwrap_or_default(),
        ip_range: network.range.map(|r| r.to_string()).unwrap_or_default(),
        ..api::IpamConfig::default()
    });
    api::Network {
        name: network.name,
        id: network.id.as_str().into(),
        created: network.created.rfc3339_nano(),
        scope: "local".into(),
        driver: network.driver,
        enable_ipv4: true,
        ipam: api::Ipam { driver: "default".into(), options: None, config: pool.map(|pool| vec![pool]) },
        options: Some(network.options),
        labels: Some(BTreeMap::new()),
        ..api::Network::default()
    }
}
