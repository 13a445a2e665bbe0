//! The default bridge: the device, containers on it, the way out.

use std::net::Ipv4Addr;

use network::{DefaultFamily, Enabled, NetworkConfig, Networks};
use sys::netlink::address::{self, Address};
use sys::netlink::link::{self, Bridge};
use sys::netlink::{Batch, Socket};

use crate::world::*;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);

fn subnet_of(network: &network::Network) -> String {
    network.row.ipam.pools[0].subnet.to_string()
}

#[test]
fn docker0_stands_with_address_rules_and_forwarding() {
    world(NetworkConfig { mtu: 1400, ..NetworkConfig::default() }, |world| {
        let bridge = world.networks.find("bridge").unwrap();
        assert_eq!(subnet_of(&bridge), "172.17.0.0/16");
        assert_eq!(bridge.row.ipam.pools[0].gateway, Some(GATEWAY.into()));
        assert_eq!(bridge.row.options["com.docker.network.bridge.name"], "docker0");
        let mut socket = Socket::route().unwrap();
        let device = link::find(&mut socket, "docker0").unwrap().unwrap();
        assert_eq!((device.kind.as_str(), device.mtu, device.up), ("bridge", 1400, true));
        let own = Address { link: device.index, address: GATEWAY.into(), prefix_len: 16 };
        assert!(address::list(&mut socket).unwrap().contains(&own));
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), "1\n");
        assert_eq!(listing(), include_str!("../golden/default.nft"));
        assert_eq!(
            world.networks.list().iter().map(|n| n.row.name.as_str()).collect::<Vec<_>>(),
            ["bridge", "host", "none"]
        );

        // A later daemon finds everything as it was.
        let again = Networks::open(NetworkConfig { mtu: 1400, ..NetworkConfig::default() }, &world.store).unwrap();
        assert_eq!(again.find("bridge").unwrap().row.id, bridge.row.id);
        assert_eq!(link::find(&mut socket, "docker0").unwrap().unwrap(), device);
    });
}

#[test]
fn containers_reach_each_other_and_the_gateway() {
    world(NetworkConfig::default(), |world| {
        let one = world.connect("one", Vec::new());
        let two = world.connect("two", Vec::new());
        assert_eq!(address_of(&one), Ipv4Addr::new(172, 17, 0, 2));
        assert_eq!(address_of(&two), Ipv4Addr::new(172, 17, 0, 3));
        assert!(inside(&one, || ping(GATEWAY)), "gateway");
        assert!(inside(&one, || ping(Ipv4Addr::new(172, 17, 0, 3))), "peer");
        assert!(inside(&two, || ping(Ipv4Addr::LOCALHOST)), "loopback is up");
        assert!(ping(Ipv4Addr::new(172, 17, 0, 2)), "from the host");
        let eth0 = inside(&one, || link::find(&mut Socket::route().unwrap(), "eth0").unwrap().unwrap());
        assert_eq!((eth0.mtu, eth0.mac), (1500, one.endpoint.mac.map(|m| m.0)));
        let ipv6 = |link: &str| format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6");
        let read = |path: String| std::fs::read_to_string(path).unwrap();
        let (link, default) = inside(&one, || (read(ipv6("eth0")), read(ipv6("default"))));
        assert_eq!((link.as_str(), default.as_str()), ("1\n", "0\n"), "the network has no IPv6");
        assert_eq!(world.networks.find("bridge").unwrap().endpoints.len(), 2);
    });
}

/// TCP segments that were sent more than once in the calling thread's namespace.
fn sent_again() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp").expect("counters");
    let mut tcp = text.lines().filter(|line| line.starts_with("Tcp: ")).map(|line| line.split(' '));
    let (names, counts) = (tcp.next().expect("names"), tcp.next().expect("counts"));
    let count = names.zip(counts).find_map(|(name, count)| (name == "RetransSegs").then(|| count.parse().ok())?);
    count.expect("a count")
}

/// A dropped ARP request or SYN is sent again after a second: a new container must not need that.
#[test]
fn the_first_packet_arrives() {
    world(NetworkConfig::default(), |world| {
        let listener = std::net::TcpListener::bind("0.0.0.0:7000").unwrap();
        std::thread::spawn(move || answer_all(&listener));
        for round in 0..30 {
            let container = world.connect("short", Vec::new());
            let (answer, again) = inside(&container, || (ask(GATEWAY, 7000), sent_again()));
            assert!(answer.is_some() && again == 0, "round {round}: {answer:?}, {again} segments were sent again");
            world.networks.release(&container.endpoint.container).unwrap();
            drop(container);
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    });
}

#[test]
fn the_way_out_is_masqueraded_and_the_way_in_closed() {
    world(NetworkConfig::default(), |world| {
        let outside = outside_host();
        serve(&outside, 7000);
        let container = world.connect("c", Vec::new());
        let seen = inside(&container, || ask(OUTSIDE, 7000));
        assert_eq!(seen, Some(UPLINK.into()), "the outside sees the host");
        serve(container.netns.as_ref().unwrap(), 80);
        route_to_containers(&outside);
        assert!(enter(&outside, || ping(UPLINK)), "the route works");
        assert!(enter(&outside, || no_answer(address_of(&container), 80)), "an unpublished port");
        assert_eq!(ask(address_of(&container), 80), Some(GATEWAY.into()), "the host itself may");
    });
}

#[test]
fn without_icc_containers_do_not_reach_each_other() {
    let cases = [(Enabled::Yes, "1"), (Enabled::Yes, "0"), (Enabled::No, "1"), (Enabled::No, "0")];
    for (userland_proxy, bridged) in cases {
        in_namespace(|| {
            // Where the kernel has no br_netfilter nothing bridged is filtered either.
            for setting in ["net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"] {
                let _ = sys::netlink::namespace::set_sysctl(setting, bridged);
            }
            let world = World::open(NetworkConfig { icc: Enabled::No, userland_proxy, ..NetworkConfig::default() });
            let _outside = outside_host();
            let one = world.connect("one", Vec::new());
            let two = world.connect("two", vec![publish(8081, 80)]);
            serve(two.netns.as_ref().unwrap(), 80);
            assert!(inside(&one, || no_ping(address_of(&two))), "{userland_proxy:?} {bridged}");
            assert!(inside(&one, || no_answer(address_of(&two), 80)), "{userland_proxy:?} {bridged}");
            assert!(inside(&one, || ping(GATEWAY)));
            if userland_proxy == Enabled::No {
                // What is published is reached by the host's address, also by the container itself.
                let gateway = Some(GATEWAY.into());
                assert_eq!(inside(&one, || ask(UPLINK, 8081)), gateway, "{bridged}");
                assert_eq!(inside(&two, || ask(UPLINK, 8081)), gateway, "{bridged}");
            }
        });
    }
}

#[test]
fn settings_of_the_default_bridge() {
    let config = NetworkConfig {
        ipv4: DefaultFamily {
            bip: Some("192.168.77.9/24".parse().unwrap()),
            range: Some("192.168.77.128/30".parse().unwrap()),
            gateway: Some(Ipv4Addr::new(192, 168, 77, 254).into()),
        },
        ..NetworkConfig::default()
    };
    world(config, |world| {
        let first = world.connect("c", Vec::new());
        assert_eq!(address_of(&first), Ipv4Addr::new(192, 168, 77, 128));
        assert_eq!(first.endpoint.addresses[0].prefix_len, 24);
        assert_eq!(gateway_of(&first), Some(Ipv4Addr::new(192, 168, 77, 254).into()));
        assert!(inside(&first, || ping(Ipv4Addr::new(192, 168, 77, 9))), "docker0");
        for _ in 0..3 {
            world.connect("more", Vec::new());
        }
        let full = join(&world.networks, &world.spec("full", Vec::new())).unwrap_err();
        assert!(
            full.message().contains("no available IPv4 addresses on this network's address pools: bridge ("),
            "{}",
            full.message()
        );
    });
}

#[test]
fn the_first_pool_that_hides_nothing_is_chosen() {
    in_namespace(|| {
        let mut socket = Socket::route().unwrap();
        let mut batch = Batch::new();
        link::create_bridge(&mut batch, &Bridge { name: "other0", mac: [2, 0, 0, 0, 0, 7], mtu: 1500 });
        socket.request(&mut batch).unwrap();
        let other = link::find(&mut socket, "other0").unwrap().unwrap();
        let mut batch = Batch::new();
        link::set_up(&mut batch, other.index);
        address::add(
            &mut batch,
            &Address { link: other.index, address: Ipv4Addr::new(172, 17, 9, 1).into(), prefix_len: 24 },
        );
        socket.request(&mut batch).unwrap();
        let world = World::open(NetworkConfig::default());
        assert_eq!(subnet_of(&world.networks.find("bridge").unwrap()), "172.18.0.0/16");
    });
}

#[test]
fn an_administrators_bridge_is_used_as_found() {
    in_namespace(|| {
        let config = NetworkConfig { bridge: Some("lan0".to_owned()), ..NetworkConfig::default() };
        let dir = tempfile::tempdir().unwrap();
        let store = store::Store::open(&dir.path().join("db")).unwrap();
        assert!(Networks::open(config.clone(), &store).is_err(), "it is not made");
        let mut socket = Socket::route().unwrap();
        let mut batch = Batch::new();
        link::create_bridge(&mut batch, &Bridge { name: "lan0", mac: [2, 0, 0, 0, 0, 8], mtu: 1500 });
        socket.request(&mut batch).unwrap();
        let lan0 = link::find(&mut socket, "lan0").unwrap().unwrap();
        let mut batch = Batch::new();
        link::set_up(&mut batch, lan0.index);
        address::add(
            &mut batch,
            &Address { link: lan0.index, address: Ipv4Addr::new(10, 44, 0, 5).into(), prefix_len: 24 },
        );
        socket.request(&mut batch).unwrap();
        let world = World::open(config);
        let container = world.connect("c", Vec::new());
        assert_eq!(gateway_of(&container), Some(Ipv4Addr::new(10, 44, 0, 5).into()));
        assert!(inside(&container, || ping(Ipv4Addr::new(10, 44, 0, 5))));
    });
}

#[test]
fn without_a_default_bridge_nothing_is_made() {
    in_namespace(|| {
        // A new namespace has the host's value.
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let world = World::open(NetworkConfig { bridge: Some("none".to_owned()), ..NetworkConfig::default() });
        assert_eq!(world.networks.find("bridge").unwrap_err().kind(), model::Kind::NotFound);
        assert_eq!(link::find(&mut Socket::route().unwrap(), "docker0").unwrap(), None);
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), "0\n");
        for name in ["host", "none"] {
            let spec = world.spec_in(name, "c", vec![publish(80, 80)]);
            let connected = join(&world.networks, &spec).unwrap();
            // `none` is a namespace of its own, `host` is the host's.
            assert_eq!(connected.netns.is_some(), name == "none");
            assert!(connected.sockets.is_empty() && connected.endpoint.addresses.is_empty());
        }
    });
}
