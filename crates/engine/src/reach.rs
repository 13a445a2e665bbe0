//! Who can reach which container: the answer of `gantryd reach`.

use model::Result;
use network::Networks;
use network::reach::Way;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::container::Containers;
use crate::container::definition::Definition;
use crate::container::definition::modes::NetworkMode;
use crate::container::definition::places::Places;

/// One container that runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reached {
    /// 64 hex digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The network mode, where that says all: of another container, or the host's.
    pub mode: String,
    /// The ways to it ([`Way`]).
    pub ways: Vec<Value>,
    /// The same in words.
    pub texts: Vec<String>,
    /// What it may reach, where rules say so; a destination has to pass all that are about the network.
    #[serde(default)]
    pub egress: Vec<Egress>,
}

/// A rule about what a container may reach.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Egress {
    /// `container`, or `network` and its name.
    pub by: String,
    /// As they were given: names, addresses, networks, with ports.
    pub destinations: Vec<String>,
}

/// All that run, by name, or one.
pub fn reach(networks: &Networks, containers: &Containers, name: Option<&str>) -> Result<Vec<Reached>> {
    let handles = match name {
        Some(name) => vec![containers.find(name)?],
        None => containers.all(),
    };
    let views = handles.into_iter().map(|handle| handle.view()).filter(|view| view.pid != 0);
    let mut all: Vec<_> = views
        .map(|view| {
            let ways = networks.reach(&view.row.id);
            let value = |way: &Way| serde_json::to_value(way).unwrap_or_default();
            Reached {
                id: view.row.id.as_str().to_owned(),
                name: view.row.name.clone(),
                mode: match view.row.network_mode() {
                    NetworkMode::Host | NetworkMode::Container(_) => view.row.host_config.network_mode.clone(),
                    NetworkMode::None | NetworkMode::Network(_) => String::new(),
                },
                ways: ways.iter().map(value).collect(),
                texts: ways.iter().map(ToString::to_string).collect(),
                egress: egress(networks, &view.row),
            }
        })
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// The rules of a container and of its networks.
fn egress(networks: &Networks, row: &Definition) -> Vec<Egress> {
    let rule = |by: String, egress: &model::egress::Egress| Egress {
        by,
        destinations: egress.destinations.iter().map(ToString::to_string).collect(),
    };
    let places = Places::of(row);
    let own = places.egress().map(|egress| rule("container".to_owned(), egress));
    let standing = places.standing(networks);
    let of_networks = standing.iter().filter_map(|(network, _)| {
        let confinement = network::confine::of(network).ok()?;
        Some(rule(format!("network {}", network.name), &confinement.egress?))
    });
    own.into_iter().chain(of_networks).collect()
}
