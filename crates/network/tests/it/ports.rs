//! Published ports: translation, the sockets for the proxy, conflicts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};

use network::{Enabled, NetworkConfig, Protocol, PublishSpec};

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
        assert_eq!(hosts, [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]);
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
        assert_eq!(elements(), 2, "127.0.0.1 is served by the proxy alone");
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
        assert_eq!(third.endpoint.ports[0].host_port, 8083, "the first that is free of both");
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
        let numbers: Vec<_> = made.iter().map(|c| c.endpoint.ports[0].host_port).collect();
        assert_eq!(numbers, [numbers[0], numbers[0] + 1, numbers[0] + 2]);
        for connected in &made {
            assert_eq!(connected.endpoint.ports.len(), 2, "IPv4 and IPv6");
            assert_eq!(connected.endpoint.ports[0].host_port, connected.endpoint.ports[1].host_port);
        }
    });
}
