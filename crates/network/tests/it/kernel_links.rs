//! Links and protocols that not every kernel has: ipvlan, dummy, 802.1q, SCTP. They are built with the feature
//! `kernel-links` alone, with which `cargo xtask vm net` runs them on Debian's kernel.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::OwnedFd;

use network::{NetworkConfig, Protocol, PublishSpec};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, ipproto};

use crate::networks::{device, on_parent};
use crate::world::*;

/// The router of the network, on the outside host.
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 1);

/// Two containers of a network with such links reach each other; `body` gets the first and the outside host.
fn two_on_a_parent(driver: &str, options: &[(&str, &str)], body: impl FnOnce(&OwnedFd, &One) + Send) {
    world(NetworkConfig::default(), |world| {
        let outside = outside_host();
        let before = links();
        let row = world.networks.create(on_parent(driver, options)).expect("a network");
        let spec = |name: &str| spec_of(&world.networks, "lan", name, Vec::new());
        let one = join(&world.networks, &spec("one")).expect("a container");
        let two = join(&world.networks, &spec("two")).expect("a container");
        assert!(inside(&one, || ping(address_of(&two))) && inside(&two, || ping(address_of(&one))));
        body(&outside, &one);
        for container in [&one, &two] {
            world.networks.release(&container.endpoint.container).expect("released");
        }
        drop((one, two));
        world.networks.remove(&row.id).expect("removed");
        assert_eq!(links(), before, "what was made for the network went with it");
    });
}

/// Names of all links of the calling thread's namespace.
fn links() -> Vec<String> {
    let mut socket = sys::netlink::Socket::route().expect("a socket");
    let all = sys::netlink::link::list(&mut socket).expect("links");
    all.into_iter().map(|link| link.name).collect()
}

#[test]
fn ipvlan_of_layer_2_has_neighbours() {
    two_on_a_parent("ipvlan", &[("parent", "uplink0")], |outside, one| {
        enter(outside, || ip("addr add 10.97.0.1/24 dev eth0"));
        assert!(inside(one, || ping(ROUTER)) && inside(one, || ping(OUTSIDE)));
        assert!(enter(outside, || ping(address_of(one))));
    });
}

#[test]
fn private_links_of_ipvlan_reach_the_router_alone() {
    world(NetworkConfig::default(), |world| {
        let outside = outside_host();
        enter(&outside, || ip("addr add 10.97.0.1/24 dev eth0"));
        let options = [("parent", "uplink0"), ("ipvlan_flag", "private")];
        let _ = world.networks.create(on_parent("ipvlan", &options)).expect("a network");
        let [one, two] = ["one", "two"].map(|name| {
            join(&world.networks, &spec_of(&world.networks, "lan", name, Vec::new())).expect("a container")
        });
        assert!(inside(&one, || ping(ROUTER)) && inside(&two, || ping(ROUTER)));
        assert!(inside(&one, || no_ping(address_of(&two))));
    });
}

#[test]
fn ipvlan_of_layer_3_is_routed() {
    for mode in ["l3", "l3s"] {
        two_on_a_parent("ipvlan", &[("parent", "uplink0"), ("ipvlan_mode", mode)], |outside, one| {
            route(outside, Ipv4Addr::new(10, 97, 0, 0), UPLINK);
            assert!(inside(one, || ping(OUTSIDE)), "{mode}");
            assert!(enter(outside, || ping(address_of(one))), "{mode}");
        });
    }
}

#[test]
fn without_a_parent_containers_reach_each_other_alone() {
    for driver in ["macvlan", "ipvlan"] {
        two_on_a_parent(driver, &[], |_, one| {
            assert!(inside(one, || no_ping(OUTSIDE)), "{driver}");
        });
    }
}

#[test]
fn a_parent_of_a_vlan_is_made_and_removed() {
    for driver in ["macvlan", "ipvlan"] {
        two_on_a_parent(driver, &[("parent", "uplink0.10")], |outside, one| {
            assert!(device("uplink0.10"));
            enter(outside, || {
                ip("link add link eth0 name eth0.10 type vlan id 10");
                ip("addr add 10.97.0.1/24 dev eth0.10");
                ip("link set eth0.10 up");
            });
            assert!(inside(one, || ping(ROUTER)), "{driver}");
            assert!(enter(outside, || ping(address_of(one))), "{driver}");
        });
    }
}

fn sctp() -> OwnedFd {
    let (family, kind) = (AddressFamily::INET, SocketType::STREAM);
    net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(ipproto::SCTP)).expect("a socket of SCTP")
}

#[test]
fn a_published_port_of_sctp_is_reached() {
    world(NetworkConfig::default(), |world| {
        let outside = outside_host();
        let port = PublishSpec { protocol: Protocol::Sctp, ..publish(8081, 80) };
        let one = world.connect("one", vec![port]);
        let listener = inside(&one, || {
            let listener = sctp();
            net::bind(&listener, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 80)).expect("bound");
            net::listen(&listener, 1).expect("listening");
            listener
        });
        let server = std::thread::spawn(move || {
            let mut stream = TcpStream::from(net::accept(&listener).expect("a client"));
            stream.write_all(b"heard").expect("sent");
        });
        let mut client = enter(&outside, || {
            let client = sctp();
            net::connect(&client, &SocketAddrV4::new(UPLINK, 8081)).expect("connected");
            TcpStream::from(client)
        });
        let mut answer = [0; 5];
        client.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"heard");
        server.join().expect("a server");
        let taken = SocketAddr::from((UPLINK, 8081));
        assert!(TcpStream::connect_timeout(&taken, TIMEOUT).is_err(), "the port of TCP is nobody's");
    });
}
