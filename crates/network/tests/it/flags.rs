//! What the daemon's options about networks, and the options of bridge networks, make of packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::fd::OwnedFd;

use network::config::{DirectRouting, Mark};
use network::networks::Owner;
use network::row::Traits;
use network::{DefaultFamily, Enabled, EndpointSpec, Family, NetworkConfig, NewNetwork, NewPool, PublishSpec};

use crate::networks::new;
use crate::world::*;

/// The daemon's address on the link to the outside host, and that host's own, of IPv6.
const UPLINK_6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 1);
const OUTSIDE_6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 2);

/// An outside host of both families with routes to 172.16.0.0/12 and fd00:1::/32, that serves at port 7.
fn outside() -> OwnedFd {
    let outside = outside_host();
    ip(&format!("addr add {UPLINK_6}/64 dev uplink0 nodad"));
    enter(&outside, || {
        ip(&format!("addr add {OUTSIDE_6}/64 dev eth0 nodad"));
        ip(&format!("route add 172.16.0.0/12 via {UPLINK}"));
        ip(&format!("-6 route add fd00:1::/32 via {UPLINK_6}"));
    });
    serve_both(&outside, 7);
    outside
}

fn serve_both(netns: &OwnedFd, port: u16) {
    let listener = enter(netns, || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).expect("listen"));
    std::thread::spawn(move || answer_all(&listener));
}

/// A network of both families with these options; `internal` leads nowhere.
fn both(world: &World, name: &str, options: &[(&str, &str)], internal: bool) {
    let options = options.iter().map(|(key, value)| (format!("com.docker.network.{key}"), (*value).to_owned()));
    let pools = ["172.30.0.0/16", "fd00:1::/64"].map(|net| NewPool::of(net.parse().expect("a subnet")));
    let traits = Traits { ipv4: true, ipv6: true, internal, ..Traits::default() };
    let new = NewNetwork { options: options.collect(), pools: pools.to_vec(), traits, ..new(name) };
    world.networks.create(new).expect("a network");
}

/// A container that serves at ports 80 and 81.
fn server(world: &World, network: &str, ports: Vec<PublishSpec>) -> One {
    let one = join(&world.networks, &world.spec_in(network, "c", ports)).expect("a container");
    [80, 81].into_iter().for_each(|port| serve_both(one.netns.as_ref().expect("a namespace"), port));
    one
}

fn own(one: &One, family: Family) -> IpAddr {
    one.endpoint.assigned(family).expect("an address").address
}

fn addresses(one: &One) -> [IpAddr; 2] {
    Family::BOTH.map(|family| own(one, family))
}

fn reaches(from: &OwnedFd, address: IpAddr, port: u16) -> bool {
    enter(from, || ask(address, port).is_some())
}

fn misses(from: &OwnedFd, address: IpAddr, port: u16) -> bool {
    enter(from, || no_answer(address, port))
}

fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(six) => six.to_canonical(),
        four => four,
    }
}

#[test]
fn direct_routing_opens_published_ports_alone() {
    let config = |direct_routing| NetworkConfig { direct_routing, ..NetworkConfig::default() };
    let loopback = PublishSpec { host_ip: Some(Ipv4Addr::LOCALHOST.into()), ..publish(8081, 81) };
    world(config(DirectRouting::Forbidden), |world| {
        let outside = outside();
        both(world, "net", &[], false);
        let one = server(world, "net", vec![publish(8080, 80)]);
        for address in addresses(&one) {
            assert!(misses(&outside, address, 80), "{address}");
        }
    });
    for how in [DirectRouting::Allowed, DirectRouting::Insecure] {
        world(config(how), |world| {
            let outside = outside();
            both(world, "net", &[], false);
            let one = server(world, "net", vec![publish(8080, 80), publish(8090, 80), loopback.clone()]);
            for address in addresses(&one) {
                assert!(reaches(&outside, address, 80), "{address}");
                assert!(misses(&outside, address, 81), "what is published on a loopback address, or not at all");
            }
            // One of two ports that lead to the same is taken back.
            let owner = Owner { container: &one.endpoint.container, name: "c" };
            let gone = |port| one.endpoint.ports.iter().filter(|own| own.host_port == port).collect::<Vec<_>>();
            world.networks.change_published(owner, &gone(8080), &[]).outcome.expect("changed");
            assert!(reaches(&outside, own(&one, Family::Ipv4), 80));
            world.networks.change_published(owner, &gone(8090), &[]).outcome.expect("changed");
            assert!(misses(&outside, own(&one, Family::Ipv4), 80) && misses(&outside, own(&one, Family::Ipv6), 80));
            assert_eq!(elements(), 1, "the one at a loopback address is kept from others");
        });
    }
}

#[test]
fn marked_packets_are_let_in() {
    let accept_mark = Some(Mark { value: 2, mask: 3 });
    world(NetworkConfig { accept_mark, ..NetworkConfig::default() }, |world| {
        let outside = outside();
        both(world, "net", &[], false);
        let one = server(world, "net", Vec::new());
        let mark = |value: u32| {
            nft("delete table inet marks");
            assert!(nft("add table inet marks"));
            assert!(nft("add chain inet marks pre { type filter hook prerouting priority -200; }"));
            assert!(nft(&format!("add rule inet marks pre iifname uplink0 meta mark set {value}")));
        };
        for address in addresses(&one) {
            mark(1);
            assert!(misses(&outside, address, 80), "{address}");
            mark(6);
            assert!(reaches(&outside, address, 80), "{address}");
        }
    });
}

#[test]
fn the_address_of_the_host_for_ports() {
    world(NetworkConfig { host_binding_ip: UPLINK.into(), ..NetworkConfig::default() }, |world| {
        let outside = outside();
        ip("addr add 10.9.0.9/24 dev uplink0");
        let one = server(world, "bridge", vec![publish(8080, 80)]);
        assert_eq!(one.endpoint.ports.iter().map(|port| port.host_ip).collect::<Vec<_>>(), [IpAddr::from(UPLINK)]);
        assert!(reaches(&outside, UPLINK.into(), 8080) && misses(&outside, Ipv4Addr::new(10, 9, 0, 9).into(), 8080));
        let option = [("bridge.host_binding_ipv4", "10.9.0.9")];
        both(world, "net", &option, false);
        let two = server(world, "net", vec![publish(8080, 80)]);
        assert_eq!(two.endpoint.ports.len(), 1);
        assert!(reaches(&outside, Ipv4Addr::new(10, 9, 0, 9).into(), 8080));
    });
}

/// Who a container is for the outside host, in each family.
fn seen(one: &One) -> [IpAddr; 2] {
    [IpAddr::from(OUTSIDE), OUTSIDE_6.into()].map(|to| plain(inside(one, || ask(to, 7)).expect("an answer")))
}

#[test]
fn sources_of_what_leaves() {
    world(NetworkConfig::default(), |world| {
        let _outside = outside();
        ip("addr add 10.9.0.77/24 dev uplink0");
        ip("addr add fd00:99::77/64 dev uplink0 nodad preferred_lft 0");
        let translated: [IpAddr; 2] = ["10.9.0.77", "fd00:99::77"].map(|text| text.parse().expect("an address"));
        let masqueraded = [IpAddr::from(UPLINK), UPLINK_6.into()];
        let [four, six] = ["bridge.gateway_mode_ipv4", "bridge.gateway_mode_ipv6"];
        type Case<'a> = (&'a [(&'a str, &'a str)], Option<[IpAddr; 2]>);
        let cases: [Case<'_>; 5] = [
            (&[], Some(masqueraded)),
            (&[("bridge.enable_ip_masquerade", "false")], None),
            (&[("host_ipv4", "10.9.0.77"), ("host_ipv6", "fd00:99::77")], Some(translated)),
            (&[(four, "nat-unprotected"), (six, "nat-unprotected")], Some(masqueraded)),
            (&[(four, "routed"), (six, "routed")], None),
        ];
        for (options, source) in cases {
            both(world, "net", options, false);
            let one = server(world, "net", Vec::new());
            let source = source.unwrap_or_else(|| addresses(&one));
            assert_eq!(seen(&one), source, "{options:?}");
            world.networks.release(&one.endpoint.container).expect("released");
            world.networks.remove(&one.endpoint.network).expect("removed");
        }
    });
    let ipv6 = DefaultFamily { bip: Some("fd00:1::1/64".parse().expect("an address")), ..DefaultFamily::default() };
    let config = NetworkConfig { ip_masq: Enabled::No, ipv6: Some(ipv6), ..NetworkConfig::default() };
    world(config, |world| {
        let _outside = outside();
        let one = server(world, "bridge", Vec::new());
        assert_eq!(seen(&one), addresses(&one), "without masquerading of the default bridge");
    });
}

/// The modes of a family, by who reaches published and unpublished ports.
#[test]
fn gateway_modes_of_both_families() {
    world(NetworkConfig::default(), |world| {
        let outside = outside();
        let modes = ["nat", "nat-unprotected", "routed"];
        for (four, six) in modes.into_iter().flat_map(|four| modes.map(|six| (four, six))) {
            both(world, "net", &[("bridge.gateway_mode_ipv4", four), ("bridge.gateway_mode_ipv6", six)], false);
            let one = server(world, "net", vec![publish(8080, 80)]);
            let hosts = [IpAddr::from(UPLINK), UPLINK_6.into()];
            for ((address, host), mode) in addresses(&one).into_iter().zip(hosts).zip([four, six]) {
                let directly = [80, 81].map(|port| match (mode, port) {
                    ("nat", _) | ("routed", 81) => misses(&outside, address, port),
                    _ => reaches(&outside, address, port),
                });
                assert_eq!(directly, [true; 2], "{four} {six} {address}");
                let by_host =
                    if mode == "routed" { misses(&outside, host, 8080) } else { reaches(&outside, host, 8080) };
                assert!(by_host, "{four} {six} {host}");
            }
            world.networks.release(&one.endpoint.container).expect("released");
            world.networks.remove(&one.endpoint.network).expect("removed");
        }
    });
}

#[test]
fn an_isolated_network_is_its_containers_alone() {
    world(NetworkConfig::default(), |world| {
        let outside = outside();
        let modes = [("bridge.gateway_mode_ipv4", "isolated"), ("bridge.gateway_mode_ipv6", "isolated")];
        let options = modes.map(|(key, value)| (format!("com.docker.network.{key}"), value.to_owned()));
        let refused = world.networks.create(NewNetwork { options: options.into(), ..new("open") }).unwrap_err();
        assert!(refused.message().contains("gateway mode 'isolated' can only be used for an internal network"));
        both(world, "net", &modes, true);
        let (one, two) = (server(world, "net", Vec::new()), server(world, "net", Vec::new()));
        assert!(one.endpoint.addresses.iter().all(|own| own.gateway.is_none()));
        for address in addresses(&one) {
            assert!(inside(&two, || ask(address, 80)).is_some() && misses(&outside, address, 80));
            assert!(no_answer(address, 80), "the host has no address there");
        }
        let device = format!("br-{}", one.endpoint.network.short());
        let listed =
            std::process::Command::new("ip").args(["-o", "addr", "show", "dev", &device]).output().expect("ip");
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(!listed.contains("172.30.") && !listed.contains("fd00:1:"), "{listed}");
    });
}

/// Rules of one family are kept without those of the other.
#[test]
fn each_family_has_its_own_switch() {
    type Case = ([Enabled; 2], [bool; 2]);
    let cases: [Case; 3] = [
        ([Enabled::No, Enabled::Yes], [true, false]),
        ([Enabled::Yes, Enabled::No], [false, true]),
        ([Enabled::No, Enabled::No], [true, true]),
    ];
    for ([iptables, ip6tables], open) in cases {
        let config = NetworkConfig { iptables, ip6tables, ip_masq: iptables, ..NetworkConfig::default() };
        world(config, |world| {
            let outside = outside();
            sys::netlink::namespace::set_sysctl("net/ipv6/conf/all/forwarding", "1").expect("forwarding");
            assert_eq!(listing_now().is_some(), iptables.yes(), "no rules for what is not there");
            both(world, "net", &[], false);
            let one = server(world, "net", vec![publish(8080, 80)]);
            for (address, open) in addresses(&one).into_iter().zip(open) {
                let found = if open { reaches(&outside, address, 81) } else { misses(&outside, address, 81) };
                assert!(found, "{iptables:?} {ip6tables:?} {address}");
            }
            let kept = usize::from(iptables.yes()) + usize::from(ip6tables.yes());
            assert_eq!(listing_now().map_or(0, |_| elements()), kept, "ports are translated where there are rules");
            let sources = seen(&one);
            let own = addresses(&one);
            assert_eq!([sources[0] == own[0], sources[1] == own[1]], open, "masqueraded where there are rules");
            world.networks.release(&one.endpoint.container).expect("released");
            world.networks.remove(&one.endpoint.network).expect("removed");
            assert_eq!(listing_now().is_some(), iptables.yes());
        });
    }
}

#[test]
fn a_network_of_ipv6_alone() {
    world(NetworkConfig::default(), |world| {
        let outside = outside();
        let traits = Traits { ipv6: true, ..Traits::default() };
        let pools = vec![NewPool::of("fd00:1::/64".parse().expect("a subnet"))];
        world.networks.create(NewNetwork { traits, pools, ..new("six") }).expect("a network");
        let (one, two) = (server(world, "six", vec![publish(8080, 80)]), server(world, "six", Vec::new()));
        assert!(one.endpoint.assigned(Family::Ipv4).is_none());
        let address = own(&one, Family::Ipv6);
        assert!(inside(&two, || ask(address, 81)).is_some() && misses(&outside, address, 80));
        assert!(reaches(&outside, UPLINK_6.into(), 8080));
        assert_eq!(plain(inside(&one, || ask(OUTSIDE_6, 7)).expect("an answer")), IpAddr::from(UPLINK_6));
        let traits = Traits::default();
        let refused = world.networks.create(NewNetwork { traits, ..new("neither") }).unwrap_err();
        assert_eq!(refused.message(), "IPv4 or IPv6 must be enabled");
    });
}

#[test]
fn the_default_bridge_of_ipv6_as_it_is_configured() {
    let parsed = |text: &str| text.parse().expect("a network");
    let ipv6 = DefaultFamily {
        bip: Some(parsed("fd00:1::9/64")),
        range: Some(parsed("fd00:1::8000/126")),
        gateway: Some("fd00:1::fe".parse().expect("an address")),
    };
    world(NetworkConfig { ipv6: Some(ipv6), mtu: 1400, ..NetworkConfig::default() }, |world| {
        let one = world.connect("c", Vec::new());
        assert_eq!(own(&one, Family::Ipv6), "fd00:1::8000".parse::<IpAddr>().expect("an address"));
        assert!(inside(&one, || ping_any("fd00:1::9".parse().expect("an address"))), "docker0");
        let said = |words: &[&str]| {
            let out = inside(&one, || std::process::Command::new("ip").args(words).output().expect("ip"));
            String::from_utf8_lossy(&out.stdout).into_owned()
        };
        assert!(said(&["-6", "route"]).contains("default via fd00:1::fe dev eth0"));
        assert!(said(&["link", "show", "eth0"]).contains("mtu 1400"));
    });
    // A range alone decides about the subnet; without anything it is a unique local one.
    for (ipv6, bridge) in [
        (DefaultFamily { range: Some(parsed("fd00:7::/80")), ..DefaultFamily::default() }, "fd00:7::1"),
        (DefaultFamily::default(), "fd00::1"),
    ] {
        world(NetworkConfig { ipv6: Some(ipv6), ..NetworkConfig::default() }, |world| {
            let one = world.connect("c", Vec::new());
            assert!(inside(&one, || ping_any(bridge.parse().expect("an address"))), "{bridge}");
        });
    }
}

#[test]
fn trusted_links_lead_to_published_ports() {
    world(NetworkConfig::default(), |world| {
        let outside = outside();
        let other = neighbour("wg0", Ipv4Addr::new(10, 8, 0, 1), Ipv4Addr::new(10, 8, 0, 2));
        enter(&other, || ip("route add 172.16.0.0/12 via 10.8.0.1"));
        both(world, "net", &[("bridge.trusted_host_interfaces", "wg0:wg1")], false);
        let one = server(world, "net", vec![publish(8080, 80)]);
        let address = own(&one, Family::Ipv4);
        assert!(reaches(&other, address, 80) && misses(&outside, address, 80));
        assert!(misses(&other, address, 81), "it is not published");
    });
}

/// Addresses of a link that no subnet has.
#[test]
fn link_local_addresses_of_containers() {
    world(NetworkConfig::default(), |world| {
        both(world, "net", &[], false);
        let with = |name: &str, addresses: &[&str]| {
            let mut spec = world.spec_in("net", name, Vec::new());
            let link_local = addresses.iter().map(|text| text.parse().expect("an address")).collect();
            spec.endpoints = vec![EndpointSpec { link_local, ..spec.endpoints[0].clone() }];
            join(&world.networks, &spec).expect("a container")
        };
        let one = with("one", &["169.254.34.68", "fe80::68"]);
        let two = with("two", &["169.254.34.69"]);
        for netns in [&one, &two] {
            inside(netns, || ip("route add 169.254.34.0/24 dev eth0"));
        }
        assert!(inside(&two, || ping("169.254.34.68".parse().expect("an address"))));
    });
}

/// A container that gets the address of another one is known at once to those who knew that.
#[test]
fn an_address_is_announced_by_its_new_owner() {
    world(NetworkConfig::default(), |world| {
        both(world, "net", &[], false);
        both_fixed(world, "net", "172.30.0.9", "fd00:1::9", |peer, first| {
            let known = |family: &str| {
                let out =
                    inside(peer, || std::process::Command::new("ip").args([family, "neigh"]).output().expect("ip"));
                String::from_utf8_lossy(&out.stdout).into_owned()
            };
            let mac = first.endpoint.mac.expect("an address").to_string();
            assert!(known("-4").contains(&mac) && known("-6").contains(&mac));
            world.networks.release(&first.endpoint.container).expect("released");
            let second = fixed(world, "net", "172.30.0.9", "fd00:1::9");
            let mac = second.endpoint.mac.expect("an address").to_string();
            eventually("the new owner is known", || {
                ["-4", "-6"]
                    .into_iter()
                    .all(|family| known(family).lines().any(|line| line.contains(&mac) && !line.starts_with("fe80")))
            });
        });
        let option = |key: &str, value: &str| {
            let options = [(format!("com.docker.network.{key}"), value.to_owned())].into();
            world.networks.create(NewNetwork { options, ..new("x") }).unwrap_err().message().to_owned()
        };
        let counted = "com.docker.network.advertise_addr_nmsgs must be in the range 0 to 3";
        assert_eq!(option("advertise_addr_nmsgs", "4"), counted);
        assert!(option("advertise_addr_ms", "x").ends_with("\"x\" must be integer milliseconds"));
    });
}

/// Who has learned another owner of the address meanwhile does not keep to that.
#[test]
fn addresses_are_announced_again() {
    world(NetworkConfig::default(), |world| {
        both(world, "net", &[("advertise_addr_ms", "500")], false);
        let peer = server(world, "net", Vec::new());
        eventually("a peer is put right", || {
            let one = fixed(world, "net", "172.30.0.9", "fd00:1::9");
            let mac = one.endpoint.mac.expect("an address").to_string();
            // On a machine that is slow it may come too late.
            inside(&peer, || ip("neigh replace 172.30.0.9 dev eth0 lladdr 02:00:00:00:00:99 nud stale"));
            let is_known = || {
                let out =
                    inside(&peer, || std::process::Command::new("ip").args(["-4", "neigh"]).output().expect("ip"));
                String::from_utf8_lossy(&out.stdout).contains(&mac)
            };
            let waits = || world.networks.sizes().get("announcements") == Some(&1);
            while !is_known() && waits() {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            world.networks.release(&one.endpoint.container).expect("released");
            is_known()
        });
    });
}

fn fixed(world: &World, network: &str, four: &str, six: &str) -> One {
    let mut spec = world.spec_in(network, "c", Vec::new());
    spec.endpoints[0].addresses = [four, six].map(|text| text.parse().expect("an address")).to_vec();
    join(&world.networks, &spec).expect("a container")
}

/// A container that has spoken to one with these addresses.
fn both_fixed(world: &World, network: &str, four: &str, six: &str, then: impl FnOnce(&One, One)) {
    let peer = server(world, network, Vec::new());
    let first = fixed(world, network, four, six);
    assert!([four, six].into_iter().all(|to| inside(&peer, || ping_any(to.parse().expect("an address")))));
    then(&peer, first);
}

#[test]
fn subnets_that_no_bridge_can_have() {
    world(NetworkConfig::default(), |world| {
        for (subnet, text) in [
            ("ff02:1::/64", "multicast subnet 'ff02:1::1/64' is not allowed"),
            ("fe80::/60", "'fe80::1/60' clashes with the Link-Local prefix 'fe80::/64'"),
        ] {
            let traits = Traits { ipv4: true, ipv6: true, ..Traits::default() };
            let pools = vec![NewPool::of(subnet.parse().expect("a subnet"))];
            let refused = world.networks.create(NewNetwork { traits, pools, ..new("six") }).unwrap_err();
            assert_eq!(refused.message(), text);
        }
    });
}
