//! Release and restart: nothing stays that belongs to nobody, nothing goes that lives.

use std::net::Ipv4Addr;
use std::process::Command;

use network::{NetworkConfig, Networks};
use sys::netlink::link;
use sys::netlink::{Batch, Socket};

use crate::world::*;

#[test]
fn release_leaves_nothing() {
    world(NetworkConfig::default(), |world| {
        let connected = world.connect("c", vec![publish(8081, 80)]);
        let container = connected.endpoint.container.clone();
        assert_eq!((host_links().len(), elements()), (1, 1));
        drop(connected);
        world.networks.release(&container).unwrap();
        assert_eq!(elements(), 0);
        eventually("the link is gone", || host_links().is_empty());
        assert!(world.networks.find("bridge").unwrap().endpoints.is_empty());
        world.networks.release(&container).unwrap();
        let mut spec = world.spec("d", vec![publish(8081, 80)]);
        spec.endpoints[0].addresses = vec![Ipv4Addr::new(172, 17, 0, 2).into()];
        join(&world.networks, &spec).expect("address and port are free again");
    });
}

#[test]
fn the_books_come_back_to_their_size() {
    world(NetworkConfig::default(), |world| {
        let before = world.networks.sizes();
        for round in 0..500 {
            let network = ["none", "host", "bridge"][round % 3];
            let connected = join(&world.networks, &world.spec_in(network, "c", vec![publish(8081, 80)])).unwrap();
            let mut refused = world.spec("d", vec![publish(8082, 80)]);
            refused.endpoints[0].mac = Some(network::MacAddress([1, 0, 0, 0, 0, 1]));
            join(&world.networks, &refused).unwrap_err();
            world.networks.release(&connected.endpoint.container).unwrap();
        }
        eventually("nothing lingers", || world.networks.sizes() == before);
    });
}

#[test]
fn a_link_whose_namespace_lives_on_is_deleted() {
    world(NetworkConfig::default(), |world| {
        let connected = world.connect("c", Vec::new());
        world.networks.release(&connected.endpoint.container).unwrap();
        eventually("the link is deleted", || host_links().is_empty());
        assert_eq!(inside(&connected, || link::find(&mut Socket::route().unwrap(), "eth0").unwrap()), None);
    });
}

#[test]
fn a_new_daemon_keeps_what_lives_and_removes_the_rest() {
    world(NetworkConfig::default(), |world| {
        let live = world.connect("live", vec![publish(8081, 80)]);
        let lost = world.connect("lost", vec![publish(8082, 80)]);
        serve(live.netns.as_ref().unwrap(), 80);
        // The daemon is killed; its sockets are held by the monitors.
        let next = Networks::open(NetworkConfig::default(), &world.store).unwrap();
        assert_eq!(elements(), 2, "opening takes nothing away");
        assert_eq!(join(&next, &world.spec("early", Vec::new())).unwrap_err().kind(), model::Kind::Unavailable);
        next.reconcile(std::slice::from_ref(&live.endpoint)).unwrap();
        assert_eq!(elements(), 1);
        assert_eq!(
            host_links().iter().map(|l| l.name.clone()).collect::<Vec<_>>(),
            [live.endpoint.host_link.clone().unwrap()]
        );
        assert!(no_answer(UPLINK, 8081), "there is no such address here");
        assert_eq!(
            ask(Ipv4Addr::new(172, 17, 0, 1), 8081),
            Some(Ipv4Addr::new(172, 17, 0, 1).into()),
            "still translated"
        );

        let taken = join(&next, &world.spec("other", vec![publish(8081, 80)])).unwrap_err();
        assert!(taken.message().ends_with("port is already allocated"), "{}", taken.message());
        drop(lost);
        let new = join(&next, &world.spec("new", vec![publish(8082, 80)])).unwrap();
        assert_ne!(new.endpoint.addresses, live.endpoint.addresses);
        next.release(&live.endpoint.container).unwrap();
        next.release(&new.endpoint.container).unwrap();
        assert_eq!(elements(), 0);
    });
}

#[test]
fn a_flushed_ruleset_is_written_again() {
    world(NetworkConfig::default(), |world| {
        let first = world.connect("first", vec![publish(8081, 80)]);
        assert!(Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success());
        let _second = world.connect("second", vec![publish(8082, 80)]);
        assert_eq!(elements(), 2);
        assert!(Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success());
        world.networks.release(&first.endpoint.container).unwrap();
        assert_eq!(elements(), 1);
        assert!(listing().contains("masquerade"));
    });
}

#[test]
fn strangers_are_left_alone() {
    world(NetworkConfig::default(), |world| {
        let rules = "add table ip mine; add chain ip mine c; add rule ip mine c accept";
        assert!(Command::new("nft").arg(rules).status().unwrap().success());
        let mut socket = Socket::route().unwrap();
        let mut batch = Batch::new();
        let here = sys::netlink::namespace::current().unwrap();
        let far_namespace = std::os::fd::AsFd::as_fd(&here);
        let (name, far_name, mac) = ("veth1234567", "other0", [2, 0, 0, 0, 0, 1]);
        link::create_veth(&mut batch, &link::Veth { name, mac, index: 0, mtu: 1500, far_name, far_namespace });
        socket.request(&mut batch).unwrap();
        let next = Networks::open(NetworkConfig::default(), &world.store).unwrap();
        next.reconcile(&[]).unwrap();
        assert!(link::find(&mut socket, "veth1234567").unwrap().is_some(), "not on our bridge");
        assert!(Command::new("nft").args(["list", "chain", "ip", "mine", "c"]).status().unwrap().success());
    });
}

#[test]
fn a_failure_half_way_is_undone() {
    world(NetworkConfig::default(), |world| {
        // The kernel gives no link an address of a group.
        let mac = Some(network::MacAddress([1, 0, 0, 0, 0, 1]));
        let mut spec = world.spec("c", vec![publish(8081, 80)]);
        spec.endpoints[0].mac = mac;
        let error = join(&world.networks, &spec).unwrap_err();
        assert!(error.message().contains("create veth pair"), "{}", error.message());
        assert_eq!(elements(), 0);
        eventually("the pair is gone", || host_links().is_empty());
        let mut spec = world.spec("c", vec![publish(8081, 80)]);
        spec.endpoints[0].addresses = vec![Ipv4Addr::new(172, 17, 0, 2).into()];
        join(&world.networks, &spec).expect("address and port are free again");
    });
}
