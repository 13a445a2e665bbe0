//! Published ports: translation, the sockets for the proxy, conflicts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};

use network::networks::Owner;
use network::{BoundPort, Enabled, NetworkConfig, Protocol, PublishSpec};

use crate::world::*;

#[test]
fn a_published_port_is_reached_from_everywhere() {
    world(NetworkConfig::default(), |world| {
        let outside = outside_host();
        let mut web = world.connect("web", vec![publish(8081, 80)]);
        let peer = world.connect("peer", Vec::new());
        serve(web.netns.as_ref().unwrap(), 80);
        assert_eq!(elements(), 1, "one element for all addresses");
        assert_eq!(
            enter(&outside, || ask(UPLINK, 8081)),
            Some(OUTSIDE.into()),
            "translated, the client's address kept"
        );
        assert_eq!(ask(UPLINK, 8081), Some(UPLINK.into()), "the host by its own address");

        let hosts: Vec<_> = web.sockets.iter().map(|(port, ..)| port.host_ip).collect();
        assert_eq!(hosts, [IpAddr::V6(Ipv6Addr::UNSPECIFIED)], "one socket of both families");
        let ports: Vec<_> = web.endpoint.ports.iter().map(|port| port.host_ip).collect();
        assert_eq!(ports, [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]);
        // The proxy's part: here it answers itself.
        for (_, _, socket) in web.sockets.drain(..) {
            std::thread::spawn(move || answer_all(&TcpListener::from(socket)));
        }
        assert_eq!(ask(Ipv4Addr::LOCALHOST, 8081), Some(Ipv4Addr::LOCALHOST.into()), "loopback goes to the proxy");
        assert_eq!(ask(Ipv6Addr::LOCALHOST, 8081), Some(Ipv6Addr::LOCALHOST.into()), "IPv6 goes to the proxy");
        let hairpin = inside(&peer, || ask(UPLINK, 8081));
        assert_eq!(hairpin, Some(address_of(&peer).into()), "other containers go to the proxy");
    });
}

#[test]
fn without_a_proxy_translation_does_everything() {
    world(NetworkConfig { userland_proxy: Enabled::No, ..NetworkConfig::default() }, |world| {
        let web = world.connect("web", vec![publish(8081, 80)]);
        let peer = world.connect("peer", Vec::new());
        let _outside = outside_host();
        serve(web.netns.as_ref().unwrap(), 80);
        assert_eq!(web.sockets.len(), 1, "no IPv6");
        let gateway = Some(IpAddr::V4(Ipv4Addr::new(172, 17, 0, 1)));
        assert_eq!(ask(Ipv4Addr::LOCALHOST, 8081), gateway, "loopback, masqueraded");
        assert_eq!(inside(&peer, || ask(UPLINK, 8081)), gateway, "another container, masqueraded");
        assert_eq!(inside(&web, || ask(UPLINK, 8081)), gateway, "itself");
    });
}

#[test]
fn ports_of_one_address_and_other_protocols() {
    world(NetworkConfig::default(), |world| {
        let outside = outside_host();
        let at = |ip: &str, container_port| PublishSpec {
            container_port,
            protocol: Protocol::Tcp,
            host_ip: Some(ip.parse().unwrap()),
            host_ports: Some((8081, 8081)),
        };
        let dns = PublishSpec { protocol: Protocol::Udp, ..publish(5353, 53) };
        let first = world.connect("first", vec![at("10.9.0.1", 80), dns]);
        let second = world.connect("second", vec![at("127.0.0.1", 80)]);
        serve(first.netns.as_ref().unwrap(), 80);
        assert_eq!(enter(&outside, || ask(UPLINK, 8081)), Some(OUTSIDE.into()));
        assert_eq!(elements(), 3, "127.0.0.1 is served by the proxy alone, and kept from others");
        assert_eq!(second.sockets.len(), 1);
        let server = inside(&first, || UdpSocket::bind("0.0.0.0:53").unwrap());
        server.set_read_timeout(Some(TIMEOUT)).unwrap();
        enter(&outside, || UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"hello", (UPLINK, 5353)).unwrap());
        let mut buffer = [0; 16];
        let (length, from) = server.recv_from(&mut buffer).expect("the datagram arrives");
        assert_eq!((&buffer[..length], from.ip()), (&b"hello"[..], OUTSIDE.into()));
    });
}

#[test]
fn datagrams_of_an_old_client_reach_the_new_container() {
    world(NetworkConfig::default(), |world| {
        let outside = outside_host();
        let client = enter(&outside, || UdpSocket::bind("0.0.0.0:0").unwrap());
        let dns = PublishSpec { protocol: Protocol::Udp, ..publish(5353, 53) };
        for round in [b"1", b"2"] {
            let connected = world.connect("c", vec![dns.clone()]);
            let server = inside(&connected, || UdpSocket::bind("0.0.0.0:53").unwrap());
            server.set_read_timeout(Some(TIMEOUT)).unwrap();
            client.send_to(round, (UPLINK, 5353)).unwrap();
            let mut buffer = [0; 16];
            assert_eq!(server.recv(&mut buffer).expect("arrives"), 1);
            assert_eq!(buffer[0], round[0]);
            world.networks.release(&connected.endpoint.container).unwrap();
        }
    });
}

#[test]
fn conflicts_have_the_texts_that_clients_know_and_leave_nothing() {
    world(NetworkConfig::default(), |world| {
        let first = world.connect("first", vec![publish(8081, 80)]);
        let refused =
            join(&world.networks, &world.spec("second", vec![publish(9000, 1), publish(8081, 80)])).unwrap_err();
        let text = refused.message();
        assert!(
            text.starts_with(
                "failed to set up container networking: driver failed programming external connectivity on endpoint second ("
            ) && text.ends_with("): Bind for 0.0.0.0:8081 failed: port is already allocated"),
            "{text}"
        );
        assert_eq!(refused.kind(), model::Kind::System);
        let foreign = TcpListener::bind("0.0.0.0:8082").unwrap();
        let refused = join(&world.networks, &world.spec("third", vec![publish(8082, 80)])).unwrap_err();
        let text = refused.message();
        assert!(text.ends_with("): failed to bind host port 0.0.0.0:8082/tcp: address already in use"), "{text}");

        let range = PublishSpec { host_ports: Some((8081, 8083)), ..publish(0, 80) };
        let third = world.connect("third", vec![range]);
        assert_eq!(
            third.endpoint.ports.iter().next().map(|port| port.host_port),
            Some(8083),
            "the first that is free of both"
        );
        assert_eq!(host_links().len(), 2);
        assert_eq!(elements(), 2);
        drop((foreign, first.sockets));
        world.networks.release(&first.endpoint.container).unwrap();
        world.connect("again", vec![publish(8081, 80), publish(8082, 80), publish(9000, 1)]);
    });
}

#[test]
fn automatic_ports_run_on() {
    world(NetworkConfig::default(), |world| {
        let any = PublishSpec { host_ports: None, ..publish(0, 80) };
        let made: Vec<_> = (0..3).map(|_| world.connect("c", vec![any.clone()])).collect();
        let number = |c: &One, at| c.endpoint.ports.iter().nth(at).map_or(0, |port: BoundPort| port.host_port);
        let numbers: Vec<_> = made.iter().map(|c| number(c, 0)).collect();
        assert_eq!(numbers, [numbers[0], numbers[0] + 1, numbers[0] + 2]);
        for connected in &made {
            assert_eq!(connected.endpoint.ports.len(), 2, "IPv4 and IPv6");
            assert_eq!(number(connected, 0), number(connected, 1));
        }
    });
}

/// Ports of the host that lead to the same ones of a container.
fn same(ports: std::ops::Range<u16>) -> Vec<PublishSpec> {
    ports.map(|port| publish(port, port)).collect()
}

#[test]
fn a_range_is_one_element_of_which_parts_go_and_come() {
    world(NetworkConfig::default(), |world| {
        let outside = outside_host();
        let mut web = world.connect("web", same(9000..9100));
        assert_eq!((web.endpoint.ports.len(), web.endpoint.ports.runs().len()), (200, 2), "one for each family");
        let ends = [9000, 9050, 9099];
        ends.into_iter().for_each(|port| serve(web.netns.as_ref().unwrap(), port));
        let asked = |port| enter(&outside, || ask(UPLINK, port));
        assert_eq!((elements(), ends.map(asked)), (1, [Some(OUTSIDE.into()); 3]));
        assert!(enter(&outside, || no_answer(UPLINK, 8999) && no_answer(UPLINK, 9100)));
        // What does not keep its number is no range.
        let shifted = (0..20).map(|n| publish(7000 + n, 100 + n)).collect();
        let other = world.connect("other", shifted);
        serve(other.netns.as_ref().unwrap(), 119);
        assert_eq!((elements(), asked(7019)), (21, Some(OUTSIDE.into())));
        world.networks.release(&other.endpoint.container).unwrap();

        let middle: Vec<_> = web.endpoint.ports.iter().filter(|port| port.host_port == 9050).collect();
        web.sockets.retain(|(port, ..)| port.host_port != 9050);
        let owner = Owner { container: &web.endpoint.container, name: "web" };
        world.networks.change_published(owner, &middle, &[]).outcome.unwrap();
        assert_eq!((elements(), asked(9000), asked(9099)), (2, Some(OUTSIDE.into()), Some(OUTSIDE.into())));
        assert!(enter(&outside, || no_answer(UPLINK, 9050)));
        let again = world.networks.change_published(owner, &[], &same(9050..9051));
        again.outcome.unwrap();
        assert_eq!((elements(), asked(9050)), (1, Some(OUTSIDE.into())));
        world.networks.release(&web.endpoint.container).unwrap();
        assert_eq!(elements(), 0);
    });
}

#[test]
fn a_range_with_a_port_of_another_process_is_refused_and_leaves_nothing() {
    world(NetworkConfig::default(), |world| {
        for address in ["127.0.0.1:9777", "0.0.0.0:9777", "[::]:9777", "[::1]:9777"] {
            let foreign = TcpListener::bind(address).unwrap();
            let refused = join(&world.networks, &world.spec("web", same(9000..10_000))).unwrap_err();
            // The standard library's listener at [::] takes IPv4 as well.
            let host = if address == "[::1]:9777" { "[::]" } else { "0.0.0.0" };
            let wanted = format!("): failed to bind host port {host}:9777/tcp: address already in use");
            assert!(refused.message().ends_with(&wanted), "{address}: {}", refused.message());
            assert_eq!(elements(), 0);
            drop(foreign);
            assert!(TcpListener::bind("0.0.0.0:9000").is_ok(), "nothing is held");
        }
        let web = world.connect("web", same(9000..10_000));
        for address in ["127.0.0.1:9999", "0.0.0.0:9000", "[::]:9500", "[::1]:9998"] {
            let refused = TcpListener::bind(address).unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::AddrInUse, "{address}");
        }
        let refused = join(&world.networks, &world.spec("next", same(9999..10_100))).unwrap_err();
        let wanted = "): Bind for 0.0.0.0:9999 failed: port is already allocated";
        assert!(refused.message().ends_with(wanted), "{}", refused.message());
        drop(web);
    });
}

/// Sixty-four threads ask for the same range at once: one has it, whole, and the others have nothing of it.
#[test]
fn of_many_that_want_one_range_exactly_one_gets_it() {
    world(NetworkConfig::default(), |world| {
        let here = sys::netlink::namespace::current().unwrap();
        let specs: Vec<_> = (0..64).map(|n| world.spec(&format!("c{n}"), same(9000 + n % 3..9020))).collect();
        let made: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                specs.iter().map(|spec| scope.spawn(|| enter(&here, || join(&world.networks, spec)))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let (won, lost): (Vec<_>, Vec<_>) = made.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 63));
        for refused in lost {
            let error = refused.unwrap_err();
            assert!(error.message().ends_with("port is already allocated"), "{}", error.message());
        }
        let won = won.into_iter().next().unwrap().unwrap();
        assert_eq!((elements(), host_links().len()), (1, 1));
        world.networks.release(&won.endpoint.container).unwrap();
        drop(won);
        assert_eq!(elements(), 0);
        assert!(TcpListener::bind("0.0.0.0:9010").is_ok());
    });
}

/// A port at a loopback address is this host's alone, whatever routes a neighbour has and whatever the kernel may route.
#[test]
fn a_neighbour_with_routes_does_not_reach_a_port_at_a_loopback_address() {
    world(NetworkConfig::default(), |world| {
        let outside = outside_host();
        let local = |spec| PublishSpec { host_ip: Some(Ipv4Addr::LOCALHOST.into()), ..spec };
        let ports = [publish(8081, 80)].into_iter().chain(same(9000..9020)).map(local).collect();
        let mut web = world.connect("web", ports);
        for (_, _, socket) in web.sockets.drain(..) {
            std::thread::spawn(move || answer_all(&TcpListener::from(socket)));
        }
        let own = TcpListener::bind("127.0.0.1:7777").unwrap();
        std::thread::spawn(move || answer_all(&own));
        let routes_localnet = |link: &str| {
            let name = format!("net/ipv4/conf/{link}/route_localnet");
            sys::netlink::namespace::set_sysctl(&name, "1").unwrap();
        };
        routes_localnet("uplink0");
        enter(&outside, || routes_localnet("eth0"));
        route(&outside, Ipv4Addr::new(127, 0, 0, 0), UPLINK);
        let from_outside = |port| enter(&outside, || ask(Ipv4Addr::LOCALHOST, port));
        assert_eq!(from_outside(7777), Some(OUTSIDE.into()), "what is not published is the administrator's");
        for port in [8081, 9000, 9019] {
            assert!(enter(&outside, || no_answer(Ipv4Addr::LOCALHOST, port)), "{port}");
            assert_eq!(ask(Ipv4Addr::LOCALHOST, port), Some(Ipv4Addr::LOCALHOST.into()));
        }
        world.networks.release(&web.endpoint.container).unwrap();
        assert_eq!(elements(), 0);
    });
}
