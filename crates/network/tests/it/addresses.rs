//! Subnets and addresses of networks: chosen around what the host has, shared, exhausted, raced for and persistent.

use std::net::IpAddr;
use std::sync::Barrier;

use model::Kind;
use model::lock::Mutex;
use network::ipam::Wanted;
use network::row::Traits;
use network::{EndpointSpec, Family, NetworkConfig, Networks, NewNetwork, NewPool, SandboxSpec};

use crate::networks::new;
use crate::world::*;

fn on(subnet: &str, name: &str) -> NewNetwork {
    NewNetwork { pools: vec![NewPool::of(subnet.parse().expect("a subnet"))], ..new(name) }
}

fn subnets(networks: &Networks, name: &str) -> Vec<String> {
    let row = networks.look_up(name).expect("a network");
    row.ipam.pools.iter().map(|pool| pool.subnet.to_string()).collect()
}

fn at(networks: &Networks, network: &str, name: &str, address: &str) -> SandboxSpec {
    let mut spec = spec_of(networks, network, name, Vec::new());
    spec.endpoints[0].addresses = vec![address.parse().expect("an address")];
    spec
}

/// Routes of the host, bridges of another engine (with and without a carrier) and addresses of its links are gone around.
#[test]
fn chosen_subnets_hide_nothing_that_the_host_reaches() {
    world(NetworkConfig::default(), |world| {
        let _outside = outside_host();
        ip("route add 172.18.7.0/24 via 10.9.0.2");
        ip("link add br-other type bridge");
        ip("addr add 172.19.0.1/16 dev br-other");
        ip("link add br-down type bridge");
        ip("addr add 172.20.255.1/24 dev br-down");
        ip("route add blackhole 172.21.0.0/30");
        ip("route add 0.0.0.0/1 via 10.9.0.2");
        ip("route add 172.22.0.0/16 via 10.9.0.2");
        for name in ["a", "b"] {
            world.networks.create(new(name)).expect("a network");
        }
        assert_eq!(subnets(&world.networks, "a"), ["172.21.0.0/16"], "what is no way to anybody is free");
        assert_eq!(subnets(&world.networks, "b"), ["172.23.0.0/16"]);
        // Where everything big is taken, something smaller is found.
        ip("addr add 172.16.0.1/12 dev br-down");
        ip("addr add 192.168.0.1/17 dev br-other");
        world.networks.create(new("small")).expect("a network");
        assert_eq!(subnets(&world.networks, "small"), ["192.168.128.0/24"]);
        ip("route add 192.168.128.0/17 via 10.9.0.2");
        world.networks.create(new("behind")).expect("a network");
        assert_eq!(subnets(&world.networks, "behind"), ["192.168.129.0/24"], "rather than none");
        ip("addr add 192.168.128.1/17 dev br-other");
        let refused = world.networks.create(new("last")).unwrap_err();
        let text = "all predefined address pools have been fully subnetted";
        assert_eq!((refused.kind(), refused.message()), (Kind::InvalidParameter, text));
        // A subnet that the user names is his concern.
        world.networks.create(on("192.168.200.0/24", "named")).expect("a network");
    });
}

#[test]
fn a_subnet_of_a_length() {
    world(NetworkConfig::default(), |world| {
        let of_length = |name, length| {
            let pool = NewPool { wanted: Wanted::Length(length), ..NewPool::any(Family::Ipv4) };
            world.networks.create(NewNetwork { pools: vec![pool], ..new(name) })
        };
        of_length("a", 26).expect("a network");
        assert_eq!(subnets(&world.networks, "a"), ["172.18.0.0/26"]);
        let refused = of_length("b", 8).unwrap_err();
        assert_eq!((refused.kind(), refused.message()), (Kind::InvalidParameter, "invalid address pool"));
        let next = Networks::open(NetworkConfig::default(), &world.store).expect("networks");
        assert_eq!(subnets(&next, "a"), ["172.18.0.0/26"]);
        next.create(new("c")).expect("a network");
        assert_eq!(subnets(&next, "c"), ["172.19.0.0/16"], "the subnet of before is taken");
    });
}

#[test]
fn configured_pools_keep_their_size() {
    let pool = |base: &str, size| network::AddressPool { base: base.parse().expect("a pool"), size };
    let default_address_pools = vec![pool("10.70.0.0/24", 25), pool("10.60.0.0/24", 24), pool("10.60.0.0/26", 28)];
    world(NetworkConfig { default_address_pools, ..NetworkConfig::default() }, |world| {
        assert_eq!(subnets(&world.networks, "bridge"), ["10.60.0.0/24"], "by their addresses, the wider one alone");
        for (name, subnet) in [("a", "10.70.0.0/25"), ("b", "10.70.0.128/25")] {
            world.networks.create(new(name)).expect("a network");
            assert_eq!(subnets(&world.networks, name), [subnet]);
        }
        let refused = world.networks.create(new("c")).unwrap_err();
        assert_eq!(refused.message(), "all predefined address pools have been fully subnetted");
        let six = Traits { ipv4: false, ipv6: true, ..Traits::default() };
        world.networks.create(NewNetwork { traits: six, ..new("six") }).expect("the other family has its own pool");
        assert_eq!(subnets(&world.networks, "six"), ["fd00::/64"]);
    });
}

#[test]
fn an_exhausted_network_says_so_and_goes_on_with_the_next_free_address() {
    world(NetworkConfig::default(), |world| {
        let row = world.networks.create(on("10.80.0.0/29", "tiny")).expect("a network");
        let all: Vec<_> = (0..5)
            .map(|n| {
                join(&world.networks, &spec_of(&world.networks, "tiny", &n.to_string(), Vec::new())).expect("room")
            })
            .collect();
        let given: Vec<_> = all.iter().map(|one| address_of(one).octets()[3]).collect();
        assert_eq!(given, [2, 3, 4, 5, 6]);
        let before = world.networks.sizes();
        let refused = join(&world.networks, &spec_of(&world.networks, "tiny", "more", Vec::new())).unwrap_err();
        let text = format!("no available IPv4 addresses on this network's address pools: tiny ({})", row.id);
        assert!(refused.message().ends_with(&text), "{refused}");
        assert_eq!(refused.kind(), Kind::System);
        assert_eq!(world.networks.sizes(), before, "nothing of it is left");
        for which in [3, 1] {
            world.networks.release(&all[which].endpoint.container).expect("released");
        }
        let again = join(&world.networks, &spec_of(&world.networks, "tiny", "again", Vec::new())).expect("room");
        assert_eq!(address_of(&again).octets()[3], 3, "after the last one given, from the beginning");
    });
}

/// One range exhausted does not make the network give addresses outside of it.
#[test]
fn a_range_and_its_auxiliary_addresses() {
    world(NetworkConfig::default(), |world| {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let pool = NewPool {
            range: Some("10.81.0.8/30".parse().expect("a range")),
            gateway: Some(address("10.81.0.254")),
            aux: [("router".to_owned(), address("10.81.0.9")), ("printer".to_owned(), address("10.81.0.200"))].into(),
            ..NewPool::of("10.81.0.0/24".parse().expect("a subnet"))
        };
        world.networks.create(NewNetwork { pools: vec![pool], ..new("parted") }).expect("a network");
        let mut given = Vec::new();
        while let Ok(one) = join(&world.networks, &spec_of(&world.networks, "parted", "c", Vec::new())) {
            assert_eq!(gateway_of(&one), Some(address("10.81.0.254")));
            given.push((address_of(&one).octets()[3], one));
        }
        assert_eq!(given.iter().map(|(last, _)| *last).collect::<Vec<_>>(), [8, 10, 11]);
        let taken = |wanted: &str| join(&world.networks, &at(&world.networks, "parted", "x", wanted)).map(drop);
        assert!(taken("10.81.0.9").unwrap_err().message().ends_with("Address already in use"));
        assert!(taken("10.81.0.254").unwrap_err().message().ends_with("Address already in use"));
        assert!(taken("10.81.0.100").is_ok(), "a fixed one may lie outside of the range");
        assert!(
            taken("10.82.0.1").unwrap_err().message().ends_with("does not belong to any of this network's subnets")
        );
    });
}

/// Several subnets of a family (macvlan): the second is used when the first is full.
#[test]
fn the_next_subnet_of_a_network_is_used_when_one_is_full() {
    world(NetworkConfig::default(), |world| {
        let _outside = outside_host();
        let pool = |subnet: &str, gateway: &str| NewPool {
            gateway: Some(gateway.parse().expect("an address")),
            ..NewPool::of(subnet.parse().expect("a subnet"))
        };
        let new = NewNetwork {
            driver: "macvlan".to_owned(),
            options: [("parent".to_owned(), "uplink0".to_owned())].into(),
            pools: vec![pool("10.83.0.0/30", "10.83.0.1"), pool("10.84.0.0/30", "10.84.0.1")],
            ..new("lan")
        };
        world.networks.create(new).expect("a network");
        let place = |name| join(&world.networks, &spec_of(&world.networks, "lan", name, Vec::new()));
        let (one, two) = (place("one").expect("room"), place("two").expect("room"));
        assert_eq!([address_of(&one), address_of(&two)].map(|own| own.to_string()), ["10.83.0.2", "10.84.0.2"]);
        assert_eq!(gateway_of(&two), Some("10.84.0.1".parse().expect("an address")), "the gateway of its own subnet");
        assert!(place("three").unwrap_err().message().contains("no available IPv4 addresses"));
    });
}

#[test]
fn of_64_containers_that_want_an_address_one_gets_it() {
    world(NetworkConfig::default(), |world| {
        world.networks.create(on("10.85.0.0/24", "raced")).expect("a network");
        let (start, won) = (Barrier::new(64), Mutex::new(Vec::new()));
        let specs: Vec<_> = (0..64).map(|n| at(&world.networks, "raced", &format!("c{n}"), "10.85.0.77")).collect();
        let here = sys::netlink::namespace::current().expect("a namespace");
        std::thread::scope(|threads| {
            for spec in &specs {
                threads.spawn(|| {
                    let joined = enter(&here, || {
                        start.wait();
                        join(&world.networks, spec)
                    });
                    match joined {
                        Ok(one) => {
                            assert_eq!(address_of(&one).to_string(), "10.85.0.77");
                            won.lock().push(one);
                        }
                        Err(error) => assert!(error.message().ends_with("Address already in use"), "{error}"),
                    }
                });
            }
        });
        assert_eq!(won.lock().len(), 1);
        eventually("one pair of links", || host_links().len() == 1);
    });
}

/// What was given before the daemon died is not given again.
#[test]
fn addresses_outlive_the_daemon() {
    world(NetworkConfig::default(), |world| {
        world.networks.create(on("10.86.0.0/24", "kept")).expect("a network");
        let one = join(&world.networks, &spec_of(&world.networks, "kept", "one", Vec::new())).expect("room");
        let next = Networks::open(NetworkConfig::default(), &world.store).expect("networks");
        next.reconcile(std::slice::from_ref(&one.endpoint)).expect("reconciled");
        let same = join(&next, &at(&next, "kept", "two", "10.86.0.2")).unwrap_err();
        assert!(same.message().ends_with("Address already in use"), "{same}");
        let two = join(&next, &spec_of(&next, "kept", "two", Vec::new())).expect("room");
        assert_eq!(address_of(&two).to_string(), "10.86.0.3");
        let refused = next.create(on("10.86.0.128/25", "other")).unwrap_err();
        let text = "invalid pool request: Pool overlaps with other one on this address space";
        assert_eq!((refused.kind(), refused.message()), (Kind::Forbidden, text));
    });
}

/// Networks that share a subnet by different ranges are refused on bridges, each of which would have all of it.
#[test]
fn bridges_do_not_share_a_subnet() {
    world(NetworkConfig::default(), |world| {
        let part = |range: &str, name| {
            let pool = NewPool {
                range: Some(range.parse().expect("a range")),
                gateway: None,
                ..NewPool::of("10.87.0.0/24".parse().expect("a subnet"))
            };
            world.networks.create(NewNetwork { pools: vec![pool], ..new(name) })
        };
        part("10.87.0.0/25", "low").expect("a network");
        let before = world.networks.sizes();
        let refused = part("10.87.0.128/25", "high").unwrap_err();
        assert!(refused.message().ends_with("networks have overlapping IPv4"), "{refused}");
        assert_eq!((refused.kind(), world.networks.sizes()), (Kind::Forbidden, before));
        let spec = EndpointSpec::new(world.networks.look_up("low").expect("a network").id.clone());
        assert!(spec.options.is_empty());
    });
}
