//! What a container may reach by rules of its own (`gantry.egress` of the create request) and of its networks: what the
//! monitor has to know of them, and what they did not let pass.

use std::net::IpAddr;

use monitor::proto::{Denied, GateSpec, Whose};
use network::{Networks, confine};

use crate::container::definition::places::Places;

/// The port that names are asked for at.
const DNS_PORT: u16 = 53;

/// The gates at the links of a container, whose names are known once it is connected, and whether every link has one.
pub fn gates(networks: &Networks, places: Places<'_>) -> (Vec<GateSpec>, bool) {
    let standing = places.standing(networks);
    let pools = standing.iter().flat_map(|(network, _)| &network.ipam.pools);
    let never: Vec<(IpAddr, u8)> = pools.map(|pool| (pool.subnet.network(), pool.subnet.prefix_len())).collect();
    let endpoints = networks.endpoints_of(places.container());
    let (mut gates, mut is_confined) = (Vec::new(), !standing.is_empty());
    for (network, _) in &standing {
        let endpoint = endpoints.iter().find(|endpoint| endpoint.network == network.id);
        let gate = |whose, rules: String| GateSpec {
            network: network.id.as_str().to_owned(),
            link: endpoint.and_then(|endpoint| endpoint.host_link.clone()).unwrap_or_default(),
            whose,
            rules,
            never: never.clone(),
        };
        let own = places.egress().map(|egress| gate(Whose::Container, egress.to_string()));
        // A row that cannot be read lets nobody join its network.
        let of_network = confine::of(network).unwrap_or_default().egress;
        let of_network = of_network.map(|egress| gate(Whose::Network, egress.to_string()));
        is_confined &= own.is_some() || of_network.is_some();
        gates.extend(own.into_iter().chain(of_network));
    }
    (gates, is_confined)
}

/// What the events `egress_denied` say of what the rules did not let pass, one for each destination.
pub fn denied(all: Vec<Denied>) -> Vec<[(&'static str, String); 3]> {
    let one = |denied: Denied| {
        let (destination, port, protocol) = match denied.to {
            Some(to) => (to.ip().to_string(), to.port(), protocol_name(denied.protocol)),
            None => (denied.name, DNS_PORT, "dns".to_owned()),
        };
        [("destination", destination), ("port", port.to_string()), ("protocol", protocol)]
    };
    all.into_iter().map(one).collect()
}

/// As `/etc/protocols` has the common ones, else the number.
fn protocol_name(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "ipv6-icmp".to_owned(),
        132 => "sctp".to_owned(),
        number => number.to_string(),
    }
}
