//! What `reach` says, against packets from every side.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use network::reach::{Source, Way};
use network::row::Traits;
use network::{NetworkConfig, NewNetwork, PublishSpec};

use crate::networks::new;
use crate::world::*;

/// Served in every container; the first is published where something is.
const PORTS: [u16; 2] = [80, 81];

/// A place that packets are sent from.
struct Place {
    name: &'static str,
    netns: Option<OwnedFd>,
    /// The networks that it is on.
    networks: Vec<&'static str>,
}

impl Place {
    fn reaches(&self, address: SocketAddr) -> bool {
        let asked = || !no_answer(address.ip(), address.port());
        self.netns.as_ref().map_or_else(asked, |netns| enter(netns, asked))
    }

    /// What the ways say: one of them is for this place and leads there.
    fn should_reach(&self, ways: &[Way], address: SocketAddr) -> bool {
        ways.iter().any(|way| {
            let is_for = match &way.from {
                // An internal network leads nowhere.
                Source::Anyone => !self.networks.contains(&"inner"),
                Source::Host => self.netns.is_none(),
                Source::Network(name) => self.networks.contains(&name.as_str()),
                Source::Link(_) | Source::Mark(_) => false,
            };
            let own = way.address == address.ip()
                || way.address.is_unspecified() && way.address.is_ipv4() == address.is_ipv4();
            is_for && own && way.port.is_none_or(|port| port == address.port())
        })
    }
}

/// A network's name, its options, and whether it is internal.
type Kind = (&'static str, &'static [(&'static str, &'static str)], bool);

fn network(world: &World, name: &'static str, options: &[(&str, &str)], internal: bool) {
    let options =
        options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>();
    let traits = Traits { ipv4: true, internal, ..Traits::default() };
    drop(world.networks.create(NewNetwork { options, traits, ..new(name) }).expect("a scene"));
}

fn container(world: &World, network: &str, ports: Vec<PublishSpec>) -> One {
    let one = join(&world.networks, &spec_of(&world.networks, network, "c", ports)).expect("a scene");
    PORTS.iter().for_each(|port| serve(one.netns.as_ref().expect("a scene"), *port));
    one
}

#[test]
fn ways_are_as_packets_find_them() {
    const MODE: &str = "com.docker.network.bridge.gateway_mode_ipv4";
    let kinds: [Kind; 5] = [
        ("plain", &[], false),
        ("quiet", &[("com.docker.network.bridge.enable_icc", "false")], false),
        ("open", &[(MODE, "nat-unprotected")], false),
        ("routed", &[(MODE, "routed")], false),
        ("inner", &[], true),
    ];
    world(NetworkConfig::default(), |world| {
        let outside = outside_host();
        for net in [
            Ipv4Addr::new(172, 18, 0, 0),
            Ipv4Addr::new(172, 19, 0, 0),
            Ipv4Addr::new(172, 20, 0, 0),
            Ipv4Addr::new(172, 21, 0, 0),
            Ipv4Addr::new(172, 22, 0, 0),
        ] {
            route(&outside, net, UPLINK);
        }
        let mut places = vec![
            Place { name: "host", netns: None, networks: Vec::new() },
            Place { name: "outside", netns: Some(outside), networks: Vec::new() },
        ];
        let mut targets = Vec::new();
        for (index, (name, options, internal)) in kinds.into_iter().enumerate() {
            network(world, name, options, internal);
            let host_port = 8080 + u16::try_from(index).expect("few");
            let loopback = PublishSpec { host_ip: Some(Ipv4Addr::LOCALHOST.into()), ..publish(host_port + 100, 81) };
            let target = container(world, name, vec![publish(host_port, 80), loopback]);
            targets.push((name, host_port, target));
            let peer = container(world, name, Vec::new());
            places.push(Place { name, netns: peer.netns, networks: vec![name] });
        }
        std::thread::scope(|scope| {
            for place in &places {
                let (networks, targets) = (&world.networks, &targets);
                let here = sys::netlink::namespace::current().expect("a scene");
                scope.spawn(move || {
                    enter(&here, || {
                        for (name, host_port, target) in targets {
                            let ways = networks.reach(&target.endpoint.container);
                            let own = IpAddr::from(address_of(target));
                            let addresses = PORTS.map(|port| SocketAddr::new(own, port)).to_vec();
                            let published = SocketAddr::new(UPLINK.into(), *host_port);
                            let loopback = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), host_port + 100);
                            // The proxy is the monitor's, which is not here: of the published port what is translated.
                            let proxied = place.netns.is_none() || !place.networks.is_empty();
                            let rest = if proxied { Vec::new() } else { vec![published, loopback] };
                            for address in addresses.into_iter().chain(rest) {
                                let (said, found) = (place.should_reach(&ways, address), place.reaches(address));
                                assert_eq!(said, found, "{} -> {name} {address}: {ways:#?}", place.name);
                            }
                        }
                    });
                });
            }
        });
    });
}
