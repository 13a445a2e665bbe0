//! What the resolver in a container's sandbox knows: a container on a network that users made has one (B-dns-2, B-dns-4).

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use monitor::proto::{ResolverSpec, Upstream, Zone};
use network::files::DnsConfig;
use network::row::NetworkRow;
use network::{Family, Networks};

use super::egress;
use crate::container::definition::links;
use crate::container::definition::places::Places;
use crate::settings::{DnsDefaults, Settings};

/// What the resolver knows; `None`: the container needs none.
pub fn of(
    networks: &Networks,
    settings: &Settings,
    places: Places<'_>,
    host: &api::HostConfig,
) -> Option<ResolverSpec> {
    places.has_resolver(networks).then(|| spec(networks, settings, places, host))
}

/// The same of a container that has one.
pub fn spec(networks: &Networks, settings: &Settings, places: Places<'_>, host: &api::HostConfig) -> ResolverSpec {
    let (gates, is_confined) = egress::gates(networks, places);
    let mut places = places.standing(networks);
    places.sort_by_key(|(network, settings)| {
        (Reverse(settings.gw_priority), network.traits.internal, Reverse(gateways(network)), network.name.clone())
    });
    let zone = |(network, endpoint): &(Arc<NetworkRow>, api::EndpointSettings)| {
        let names = networks.names_of(network)?;
        // Older clients ask for the links of the mode's network there.
        let of_mode = host.links.iter().flatten().filter(|_| network.name == host.network_mode);
        let links = endpoint.links.iter().flatten().chain(of_mode);
        let aliases = links.filter_map(|link| links::parse(link).ok()).map(|link| (link.alias, link.name)).collect();
        Some(Zone { network: network.name.clone(), names, aliases })
    };
    let dns = dns_config(&settings.containers.dns, host);
    ResolverSpec {
        zones: places.iter().filter_map(zone).collect(),
        is_internal: places.iter().all(|(network, _)| network.traits.internal || gateways(network) == 0),
        keeps_single_labels: network::files::has_ndots(&run::files::host_resolv_conf().0, &dns),
        upstream: upstream(dns.servers),
        gates,
        is_confined,
    }
}

fn upstream(servers: Vec<IpAddr>) -> Upstream {
    if servers.is_empty() { Upstream::Host } else { Upstream::Given(servers) }
}

/// How many families have a way out.
fn gateways(network: &NetworkRow) -> usize {
    let leads_out = |family: &Family| network.pool(*family).is_some_and(|pool| pool.gateway.is_some());
    Family::BOTH.iter().filter(|family| leads_out(family)).count()
}

/// What the container says of name resolution, else what the daemon's configuration says.
pub fn dns_config(dns: &DnsDefaults, host: &api::HostConfig) -> DnsConfig {
    let pick = |own: &Option<Vec<String>>, default: &[String]| match own {
        Some(own) if !own.is_empty() => own.clone(),
        _ => default.to_vec(),
    };
    DnsConfig {
        servers: pick(&host.dns, &dns.servers).iter().filter_map(|s| s.parse().ok()).collect(),
        search: pick(&host.dns_search, &dns.search),
        options: pick(&host.dns_options, &dns.options),
    }
}
