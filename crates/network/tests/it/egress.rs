//! What containers may send, as rules of theirs and of their networks say: packets to every side, from containers that have
//! all privileges in their namespace.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use model::egress::Egress;
use network::{EndpointSpec, NetworkConfig, NewNetwork, SandboxSpec};
use sys::gate::{Gate, Slot};
use sys::netlink::{Socket, link};

use crate::world::{
    OUTSIDE, One, UPLINK, World, address_of, answer_all, ask, enter, eventually, gateway_of, inside, ip, join, nft,
    no_answer, no_ping, outside_host, ping, ping_once, route_to_containers, serve, world,
};

/// A second outside address.
const FAR: &str = "192.0.2.7";

fn confined(world: &World, network: &str, rules: &str) -> SandboxSpec {
    let mut spec = world.spec_in(network, "confined", Vec::new());
    spec.endpoints[0].egress = Some(Egress::parse(rules).expect(rules));
    spec
}

fn connect(world: &World, spec: &SandboxSpec) -> One {
    join(&world.networks, spec).expect("connect")
}

fn gate(one: &One, slot: Slot) -> Gate {
    let mut socket = Socket::route().expect("socket");
    let name = one.endpoint.host_link.as_deref().expect("link");
    let link = link::find(&mut socket, name).expect("find").expect("link");
    Gate::find(&mut socket, link.index, slot).expect("find").expect("gate")
}

/// An outside host with two addresses and servers at ports 80 and 81 of both.
fn servers() -> OwnedFd {
    let outside = outside_host();
    route_to_containers(&outside);
    enter(&outside, || ip(&format!("addr add {FAR}/32 dev eth0")));
    ip(&format!("route add {FAR}/32 via {OUTSIDE}"));
    serve(&outside, 80);
    serve(&outside, 81);
    outside
}

/// Whether a datagram to somebody who sends it back comes back, from the calling thread's namespace.
fn echoes(to: SocketAddr, patience: Duration) -> bool {
    let local = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(local).expect("bind");
    socket.set_read_timeout(Some(patience)).expect("timeout");
    socket.send_to(b"x", to).is_ok() && socket.recv_from(&mut [0; 8]).is_ok()
}

/// Answers from the address that was asked.
fn echo_datagrams(netns: &OwnedFd, (address, port): (&str, u16)) {
    let socket = enter(netns, || UdpSocket::bind((address, port)).expect("bind"));
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
}

const SHORT: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::from_secs(30);

#[test]
fn a_container_reaches_what_its_rules_name_and_nothing_else() {
    world(NetworkConfig::default(), |world| {
        let outside = servers();
        echo_datagrams(&outside, (&OUTSIDE.to_string(), 53));
        echo_datagrams(&outside, (FAR, 53));
        let spec = confined(world, "bridge", &format!("allow:{OUTSIDE}:80,{FAR}"));
        let (one, other) = (connect(world, &spec), world.connect("other", Vec::new()));
        serve(other.netns.as_ref().expect("namespace"), 80);
        let gateway = gateway_of(&one).expect("gateway");
        std::thread::spawn({
            let listener = TcpListener::bind(("0.0.0.0", 82)).expect("listen");
            move || answer_all(&listener)
        });
        inside(&one, || {
            assert_eq!(ask(OUTSIDE, 80), Some(UPLINK.into()), "the port of a rule");
            assert!(no_answer(OUTSIDE, 81), "another port");
            assert!(no_ping(OUTSIDE), "another protocol");
            assert!(!echoes(SocketAddr::new(OUTSIDE.into(), 53), SHORT));
            let far: IpAddr = FAR.parse().unwrap();
            assert!(ask(far, 80).is_some() && ask(far, 81).is_some(), "every port");
            assert!(echoes(SocketAddr::new(far, 53), LONG));
            assert!(no_answer(gateway, 82) && no_answer(UPLINK, 82), "the host");
            assert!(no_answer(address_of(&other), 80), "a neighbour");
            assert!(no_answer("169.254.169.254".parse::<IpAddr>().unwrap(), 80));
        });
        // A container without rules beside it is as it was.
        inside(&other, || assert!(ask(OUTSIDE, 81).is_some() && ping(OUTSIDE)));
        let mut gate = gate(&one, Slot::Container);
        let told: Vec<_> = std::iter::from_fn(|| gate.next_dropped()).map(|one| (one.address, one.port)).collect();
        for (address, port) in [(OUTSIDE.into(), 81), (OUTSIDE.into(), 53), (gateway, 82), (UPLINK.into(), 82)] {
            assert!(told.contains(&(address, port)), "{address}:{port} of {told:?}");
        }
    });
}

/// Who comes is answered, whatever the rules: by a neighbour, by the host, from outside through a published port.
#[test]
fn a_confined_container_is_served_from_all_sides() {
    world(NetworkConfig::default(), |world| {
        let outside = servers();
        let mut spec = confined(world, "bridge", "allow:192.0.2.99");
        spec.ports = vec![crate::world::publish(8080, 80)];
        let (one, other) = (connect(world, &spec), world.connect("other", Vec::new()));
        let netns = one.netns.as_ref().expect("namespace");
        serve(netns, 80);
        echo_datagrams(netns, ("0.0.0.0", 53));
        let own = address_of(&one);
        let from_all = || {
            assert!(ask(own, 80).is_some() && ping(own) && echoes(SocketAddr::new(own.into(), 53), LONG));
            inside(&other, || {
                assert!(ask(own, 80).is_some() && ping(own) && echoes(SocketAddr::new(own.into(), 53), LONG));
            });
            enter(&outside, || assert_eq!(ask(UPLINK, 8080), Some(OUTSIDE.into())));
        };
        from_all();
        inside(&one, || assert!(no_answer(OUTSIDE, 80) && no_answer(address_of(&other), 80)));
        from_all();
    });
}

/// What is opened for a name passes until its time is over; a connection stays.
#[test]
fn connections_outlive_the_time_of_a_name() {
    world(NetworkConfig::default(), |world| {
        let outside = servers();
        let listener = enter(&outside, || TcpListener::bind(("0.0.0.0", 90)).expect("listen"));
        let one = connect(world, &confined(world, "bridge", "allow:example.org:80"));
        let gate = gate(&one, Slot::Container);
        inside(&one, || assert!(no_answer(OUTSIDE, 80)));
        gate.allow(OUTSIDE.into(), Some(80), Duration::from_secs(600)).unwrap();
        gate.allow(OUTSIDE.into(), Some(90), Duration::from_secs(600)).unwrap();
        inside(&one, || assert!(ask(OUTSIDE, 80).is_some() && no_answer(OUTSIDE, 81)));
        let mut stream = inside(&one, || TcpStream::connect((OUTSIDE, 90)).expect("connect"));
        let (mut accepted, _) = listener.accept().expect("accept");
        gate.allow(OUTSIDE.into(), Some(80), Duration::ZERO).unwrap();
        gate.forget(OUTSIDE.into(), Some(90)).expect("forgotten");
        inside(&one, || assert!(no_answer(OUTSIDE, 80) && no_answer(OUTSIDE, 90)));
        for round in 0..3u8 {
            stream.write_all(&[round]).unwrap();
            let mut byte = [0];
            accepted.read_exact(&mut byte).unwrap();
            accepted.write_all(&byte).unwrap();
            stream.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [round]);
        }
    });
}

/// Nothing that a container can do to its own side of the link, as its administrator, leads out.
#[test]
fn an_administrator_of_the_namespace_stays_inside() {
    world(NetworkConfig::default(), |world| {
        let _outside = servers();
        let one = connect(world, &confined(world, "bridge", &format!("allow:{OUTSIDE}:80")));
        inside(&one, || {
            assert!(nft("flush ruleset"));
            // Another address, which the rules of its neighbours might let pass.
            ip("addr add 172.17.200.1/16 dev eth0");
            ip(&format!("route replace {FAR}/32 dev eth0 via 172.17.0.1 src 172.17.200.1"));
            ip(&format!("route replace {OUTSIDE}/32 dev eth0 via 172.17.0.1 src 172.17.200.1"));
            assert!(no_answer(OUTSIDE, 80) && no_answer(FAR.parse::<IpAddr>().unwrap(), 80));
            ip("route del 10.9.0.2/32 dev eth0");
            assert!(ask(OUTSIDE, 80).is_some(), "with its own address");
            // Another hardware address.
            ip("link set eth0 address 02:00:00:00:77:77");
            assert!(no_ping("172.17.0.1".parse().unwrap()) && no_answer(OUTSIDE, 80));
        });
        // The filter stands at the host's end, and no rule of a packet filter holds it.
        assert!(nft("flush ruleset"));
        inside(&one, || assert!(no_answer(OUTSIDE, 81)));
    });
}

#[test]
fn a_network_s_rules_are_about_what_leaves_it() {
    let options = [("gantry.egress", format!("allow:{OUTSIDE}:80,{FAR}:81"))];
    let options = options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    world(NetworkConfig::default(), |world| {
        let _outside = servers();
        let traits = network::row::Traits { ipv4: true, ..Default::default() };
        let new = NewNetwork { name: "app".into(), options, traits, ..NewNetwork::default() };
        world.networks.create(new).expect("network");
        let spec = world.spec_in("app", "one", Vec::new());
        let both = confined(world, "app", &format!("allow:{OUTSIDE},{FAR}:80"));
        let (one, other) = (connect(world, &spec), connect(world, &both));
        serve(one.netns.as_ref().expect("namespace"), 80);
        serve(other.netns.as_ref().expect("namespace"), 80);
        std::thread::spawn({
            let listener = TcpListener::bind(("0.0.0.0", 82)).expect("listen");
            move || answer_all(&listener)
        });
        let far: IpAddr = FAR.parse().unwrap();
        let gateway = gateway_of(&one).expect("gateway");
        inside(&one, || {
            assert!(ask(OUTSIDE, 80).is_some() && no_answer(OUTSIDE, 81) && ask(far, 81).is_some());
            assert!(ask(address_of(&other), 80).is_some() && ping(address_of(&other)), "a neighbour");
            assert!(no_answer(gateway, 82) && no_answer(UPLINK, 82), "the host");
        });
        // Both have to let it pass.
        inside(&other, || {
            assert!(ask(OUTSIDE, 80).is_some() && no_answer(OUTSIDE, 81));
            assert!(no_answer(far, 80) && no_answer(far, 81) && no_answer(address_of(&one), 80));
        });
    });
}

#[test]
fn rules_hold_for_ipv6() {
    let ipv6 = Some(network::DefaultFamily::default());
    let config = NetworkConfig { ipv6, ..NetworkConfig::default() };
    world(config, |world| {
        let (one, other) = (
            connect(world, &confined(world, "bridge", "allow:0.0.0.0/0,[fd00::/8]:80")),
            world.connect("other", Vec::new()),
        );
        let address = |one: &One| one.endpoint.assigned(network::Family::Ipv6).expect("IPv6").address;
        for one in [&one, &other] {
            let listener = inside(one, || TcpListener::bind("[::]:80").expect("listen"));
            std::thread::spawn(move || answer_all(&listener));
            let listener = inside(one, || TcpListener::bind("[::]:81").expect("listen"));
            std::thread::spawn(move || answer_all(&listener));
        }
        let to = address(&other);
        inside(&one, || {
            eventually("its address can be used", || ask(to, 80).is_some());
            assert!(no_answer(to, 81) && ask(address_of(&other), 81).is_some());
        });
        inside(&other, || assert!(ask(address(&one), 81).is_some()));
    });
}

/// A link that a running container gets is checked from its first packet on, and the checks end with the link.
#[test]
fn networks_that_are_joined_later_are_checked_too() {
    world(NetworkConfig::default(), |world| {
        let _outside = servers();
        let traits = network::row::Traits { ipv4: true, ..Default::default() };
        let new = NewNetwork { name: "app".into(), traits, ..NewNetwork::default() };
        let network = world.networks.create(new).expect("network");
        let spec = confined(world, "bridge", &format!("allow:{OUTSIDE}:80"));
        let one = connect(world, &spec);
        let owner = network::networks::Owner { container: &spec.container, name: "confined" };
        let netns = one.netns.as_ref().expect("namespace");
        let place = EndpointSpec {
            egress: spec.endpoints[0].egress.clone(),
            priority: 5,
            ..EndpointSpec::new(network.id.clone())
        };
        let plugged = world.networks.plug(owner, netns.try_clone().unwrap(), &place, None).outcome.expect("plug");
        inside(&one, || assert!(ask(OUTSIDE, 80).is_some() && no_answer(OUTSIDE, 81)));
        let link = plugged.host_link.expect("link");
        world.networks.unplug(owner, &network.id, netns, &[]).outcome.expect("unplug");
        eventually("the link is gone", || link::find(&mut Socket::route().unwrap(), &link).unwrap().is_none());
        inside(&one, || assert!(ask(OUTSIDE, 80).is_some() && no_answer(OUTSIDE, 81)));
        // Also one that is put back after a change that failed.
        let own = one.endpoint.network.clone();
        let gone = world.networks.unplug(owner, &own, netns, &[]).outcome.expect("unplug").expect("endpoint");
        inside(&one, || assert!(no_answer(OUTSIDE, 80)));
        world.networks.plug_again(owner, netns.try_clone().unwrap(), &gone, &[]).outcome.expect("plug again");
        inside(&one, || assert!(ask(OUTSIDE, 80).is_some() && no_answer(OUTSIDE, 81)));
    });
}

/// With the option that checks source addresses nobody takes the place of a neighbour or of the gateway.
#[test]
fn spoofed_addresses_are_stopped_by_an_option() {
    let options = [("gantry.spoof-check".to_owned(), "true".to_owned())].into();
    let ipv6_pool = network::NewPool::of("fd00:77::/64".parse().unwrap());
    world(NetworkConfig::default(), |world| {
        let _outside = servers();
        let traits = network::row::Traits { ipv4: true, ipv6: true, ..Default::default() };
        let pools = vec![ipv6_pool];
        let new = NewNetwork { name: "app".into(), options, traits, pools, ..NewNetwork::default() };
        world.networks.create(new).expect("network");
        let one = connect(world, &world.spec_in("app", "one", Vec::new()));
        let other = connect(world, &world.spec_in("app", "other", Vec::new()));
        let (own, neighbour) = (address_of(&one), address_of(&other));
        let v6 = |one: &One| one.endpoint.assigned(network::Family::Ipv6).expect("IPv6").address;
        inside(&one, || {
            assert!(ping(neighbour) && ask(OUTSIDE, 81).is_some(), "everything with its own addresses");
            eventually("IPv6 is ready", || crate::world::ping_any(v6(&other)));
            // The neighbour's address taken: who asks for it hears nothing of us.
            ip(&format!("addr add {neighbour}/32 dev eth0"));
            let _ = std::process::Command::new("busybox")
                .args([
                    "arping",
                    "-U",
                    "-c",
                    "2",
                    "-w",
                    "2",
                    "-I",
                    "eth0",
                    "-s",
                    &neighbour.to_string(),
                    &own.to_string(),
                ])
                .output();
            ip(&format!("addr del {neighbour}/32 dev eth0"));
        });
        assert!(ping(neighbour), "the host still finds the neighbour");
        inside(&one, || {
            ip("link set eth0 address 02:00:00:00:66:66");
            assert!(!ping_once(neighbour), "another hardware address");
        });
    });
}
