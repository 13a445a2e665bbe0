//! Published ports whose packets the host's own firewall decides about.

use std::io::Write;
use std::net::{IpAddr, TcpListener};

use network::{NetworkConfig, NewNetwork, PublishMode};

use crate::world::{
    OUTSIDE, One, UPLINK, World, ask, elements, enter, inside, join, nft, no_answer, outside_host, publish, serve,
    world,
};

/// Serves the sockets of a container's ports as the monitor's proxy does: what is sent back is the peer's address, and what
/// the container sees as such.
fn proxy(one: &mut One) {
    for (_, target, socket) in one.sockets.drain(..) {
        let listener = TcpListener::from(socket);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let peer = stream.peer_addr().map(|peer| peer.ip().to_canonical().to_string()).unwrap_or_default();
                let seen = std::net::TcpStream::connect(target).is_ok();
                let _ = stream.write_all(if seen { peer.as_bytes() } else { b"" });
            }
        });
    }
}

fn connected(world: &World, network: &str, port: u16) -> One {
    let mut one = join(&world.networks, &world.spec_in(network, "web", vec![publish(port, 80)])).expect("connect");
    serve(one.netns.as_ref().expect("namespace"), 80);
    proxy(&mut one);
    one
}

fn from_outside(outside: &std::os::fd::OwnedFd, port: u16) -> Option<IpAddr> {
    enter(outside, || if no_answer(UPLINK, port) { None } else { ask(UPLINK, port) })
}

#[test]
fn the_host_s_own_input_rules_decide() {
    let config = NetworkConfig { publish_mode: PublishMode::HostFirewall, ..NetworkConfig::default() };
    world(config, |world| {
        let outside = outside_host();
        let one = connected(world, "bridge", 8080);
        assert_eq!(elements(), 0, "nothing is translated");
        assert_eq!(from_outside(&outside, 8080), Some(OUTSIDE.into()), "the socket sees who comes");
        assert!(nft("add table inet host { chain input { type filter hook input priority 0; policy accept; }; }"));
        assert!(nft("add rule inet host input iifname uplink0 tcp dport 8080 drop"));
        assert_eq!(from_outside(&outside, 8080), None);
        assert!(ask("127.0.0.1".parse::<IpAddr>().unwrap(), 8080).is_some(), "the host itself");
        let other = world.connect("other", Vec::new());
        inside(&other, || assert!(ask(UPLINK, 8080).is_some(), "a container, by the host's address"));
        assert!(nft("insert rule inet host input ip saddr 10.9.0.2 accept"));
        assert_eq!(from_outside(&outside, 8080), Some(OUTSIDE.into()), "by the source address");
        // Closed by default, as a firewall of the administrator's is.
        assert!(nft("flush chain inet host input") && nft("chain inet host input { policy drop; }"));
        assert_eq!(from_outside(&outside, 8080), None);
        let ways = world.networks.reach(&one.endpoint.container);
        assert!(
            ways.iter().any(|way| way.by == network::reach::By::HostFirewall && way.port == Some(8080)),
            "{ways:?}"
        );
    });
}

/// A network may have another mode than the others, and the daemon that comes next keeps it.
#[test]
fn networks_choose_their_mode() {
    world(NetworkConfig::default(), |world| {
        let outside = outside_host();
        let options = [("gantry.publish-mode".to_owned(), "host-firewall".to_owned())].into();
        let traits = network::row::Traits { ipv4: true, ..Default::default() };
        let new = NewNetwork { name: "app".into(), options, traits, ..NewNetwork::default() };
        world.networks.create(new).expect("network");
        let (decided, translated) = (connected(world, "app", 8080), connected(world, "bridge", 8081));
        assert!(nft("add table inet host { chain input { type filter hook input priority 0; policy drop; }; }"));
        assert_eq!((from_outside(&outside, 8080), from_outside(&outside, 8081)), (None, Some(OUTSIDE.into())));
        let live = [decided.endpoint.clone(), translated.endpoint.clone()];
        let next = network::Networks::open(NetworkConfig::default(), &world.store).expect("networks");
        next.reconcile(&live).expect("reconcile");
        assert_eq!((from_outside(&outside, 8080), from_outside(&outside, 8081)), (None, Some(OUTSIDE.into())));
    });
}

#[test]
fn what_no_proxy_can_serve_is_refused() {
    let config = NetworkConfig { publish_mode: PublishMode::HostFirewall, ..NetworkConfig::default() };
    world(config, |world| {
        let sctp = network::PublishSpec { protocol: network::Protocol::Sctp, ..publish(8080, 80) };
        let refused = join(&world.networks, &world.spec("web", vec![sctp])).expect_err("SCTP");
        assert!(refused.message().contains("cannot publish SCTP ports"), "{refused}");
        let create = |pairs: &[(&str, &str)]| {
            let options = pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            let traits = network::row::Traits { ipv4: true, ..Default::default() };
            let new = NewNetwork { name: "app".into(), options, traits, ..NewNetwork::default() };
            world.networks.create(new).expect_err("refused")
        };
        assert!(create(&[("gantry.publish-mode", "open")]).message().contains("\"host-firewall\""));
        let routed = "com.docker.network.bridge.gateway_mode_ipv4";
        let both = create(&[("gantry.publish-mode", "host-firewall"), (routed, "routed")]);
        assert!(both.message().contains("publishes no port of this host"), "{both}");
    });
    let config = NetworkConfig { userland_proxy: network::Enabled::No, ..NetworkConfig::default() };
    world(config, |world| {
        let options = [("gantry.publish-mode".to_owned(), "host-firewall".to_owned())].into();
        let traits = network::row::Traits { ipv4: true, ..Default::default() };
        let new = NewNetwork { name: "app".into(), options, traits, ..NewNetwork::default() };
        let refused = world.networks.create(new).expect_err("no proxy");
        assert!(refused.message().contains("userland proxy"), "{refused}");
    });
}
