//! Whom this host forwards for, and what reaches its loopback addresses.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use network::{Enabled, NetworkConfig, Networks, NewNetwork};
use store::Store;
use sys::netlink::link;
use sys::netlink::{Socket, namespace};

use crate::world::*;

const OTHER_LINK: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 2);
const IPV4: &str = "net/ipv4/ip_forward";

/// Two neighbours with routes through this host, which forwards nothing yet. The second one serves port 7000.
fn neighbours() -> (OwnedFd, OwnedFd) {
    namespace::set_sysctl(IPV4, "0").expect("forwarding");
    let (one, other) = (outside_host(), neighbour("other0", OTHER_LINK, OTHER));
    route(&one, Ipv4Addr::new(10, 8, 0, 0), UPLINK);
    route(&other, Ipv4Addr::new(10, 9, 0, 0), OTHER_LINK);
    serve(&other, 7000);
    (one, other)
}

struct Host {
    store: Store,
    _dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Host {
        let dir = tempfile::tempdir().expect("forwarding");
        Host { store: Store::open(&dir.path().join("db")).expect("forwarding"), _dir: dir }
    }

    fn daemon(&self, config: &NetworkConfig) -> Networks {
        let networks = Networks::open(config.clone(), &self.store).expect("forwarding");
        networks.reconcile(&[]).expect("forwarding");
        networks
    }
}

fn forwards(one: &OwnedFd) -> bool {
    enter(one, || ask(OTHER, 7000)).is_some()
}

fn forwards_now(one: &OwnedFd) -> bool {
    !enter(one, || no_answer(OTHER, 7000))
}

fn drops(one: &OwnedFd) -> bool {
    namespace::sysctl(IPV4).expect("forwarding") == "1" && enter(one, || no_answer(OTHER, 7000))
}

#[test]
fn a_host_that_was_no_router_forwards_for_containers_only() {
    in_namespace(|| {
        let (one, other) = neighbours();
        let host = Host::new();
        let config = NetworkConfig::default();
        let networks = host.daemon(&config);
        assert!(drops(&one), "a neighbour is not forwarded");
        assert_eq!(listing(), include_str!("../golden/drop-foreign.nft"));

        let web = join(&networks, &spec_of(&networks, "bridge", "web", vec![publish(8081, 80)])).unwrap();
        serve(web.netns.as_ref().unwrap(), 80);
        assert_eq!(inside(&web, || ask(OTHER, 7000)), Some(OTHER_LINK.into()), "the container's way out");
        assert_eq!(enter(&other, || ask(OTHER_LINK, 8081)), Some(OTHER.into()), "the way in");
        drop(networks);

        // Later daemons find forwarding on, and remember who switched it.
        drop(host.daemon(&config));
        assert!(drops(&one), "remembered");
        drop(host.daemon(&NetworkConfig { ip_forward: Enabled::No, ..config.clone() }));
        assert!(drops(&one), "remembered where nothing is to be switched");
        drop(host.daemon(&NetworkConfig { bridge: Some("none".to_owned()), ..config.clone() }));
        assert_eq!(namespace::sysctl(IPV4).expect("forwarding"), "0", "given up where no network needs it");
        assert!(!listing().contains("counter packets 0 bytes 0 drop"), "and so is the rule");
        assert!(!forwards_now(&one));
        drop(host.daemon(&config));
        assert!(drops(&one), "switched on again");
        drop(host.daemon(&NetworkConfig { ip_forward_no_drop: Enabled::Yes, ..config.clone() }));
        assert!(forwards(&one), "never with the option");
        drop(host.daemon(&config));
        assert!(drops(&one), "and without it again");
    });
}

#[test]
fn a_router_stays_a_router() {
    in_namespace(|| {
        let (one, _other) = neighbours();
        namespace::set_sysctl(IPV4, "1").unwrap();
        let host = Host::new();
        drop(host.daemon(&NetworkConfig::default()));
        assert!(forwards(&one));
        assert_eq!(listing(), include_str!("../golden/default.nft"));
        drop(host.daemon(&NetworkConfig::default()));
        assert!(forwards(&one), "after a restart");
    });
}

#[test]
fn the_option_keeps_forwarding_open_from_the_beginning() {
    in_namespace(|| {
        let (one, _other) = neighbours();
        let host = Host::new();
        drop(host.daemon(&NetworkConfig { ip_forward_no_drop: Enabled::Yes, ..NetworkConfig::default() }));
        assert!(forwards(&one));
    });
}

/// What is remembered belongs to a namespace: the same data root elsewhere starts anew.
#[test]
fn another_namespace_is_another_host() {
    let host = Host::new();
    in_namespace(|| {
        let (one, _other) = neighbours();
        drop(host.daemon(&NetworkConfig::default()));
        assert!(drops(&one));
    });
    in_namespace(|| {
        let (one, _other) = neighbours();
        namespace::set_sysctl(IPV4, "1").unwrap();
        drop(host.daemon(&NetworkConfig::default()));
        assert!(forwards(&one));
    });
}

/// IPv4 alone was switched on: a router of IPv6 stays one.
#[test]
fn the_other_family_is_left_alone() {
    in_namespace(|| {
        let (one, other) = neighbours();
        if namespace::set_sysctl("net/ipv6/conf/all/forwarding", "1").is_err() {
            return;
        }
        ip("addr add fd09::1/64 dev uplink0 nodad");
        ip("addr add fd08::1/64 dev other0 nodad");
        enter(&one, || {
            ip("addr add fd09::2/64 dev eth0 nodad");
            ip("-6 route add fd08::/64 via fd09::1");
        });
        enter(&other, || {
            ip("addr add fd08::2/64 dev eth0 nodad");
            ip("-6 route add fd09::/64 via fd08::1");
        });
        let server = enter(&other, || std::net::TcpListener::bind("[::]:7001").unwrap());
        std::thread::spawn(move || answer_all(&server));
        let host = Host::new();
        drop(host.daemon(&NetworkConfig::default()));
        assert!(drops(&one));
        let far: std::net::Ipv6Addr = "fd08::2".parse().unwrap();
        let mut answer = None;
        eventually("IPv6 is forwarded", || {
            answer = enter(&one, || ask(far, 7001));
            answer.is_some()
        });
    });
}

#[test]
fn the_proxy_that_comes_back_closes_the_way_to_loopback() {
    in_namespace(|| {
        let host = Host::new();
        let setting = || namespace::sysctl("net/ipv4/conf/docker0/route_localnet").unwrap();
        let without = NetworkConfig { userland_proxy: Enabled::No, ..NetworkConfig::default() };
        drop(host.daemon(&without));
        assert_eq!(setting(), "1");
        let networks = host.daemon(&NetworkConfig::default());
        assert_eq!(setting(), "0");
        // The administrator's own setting opens nothing either.
        namespace::set_sysctl("net/ipv4/conf/docker0/route_localnet", "1").unwrap();
        let secret = std::net::TcpListener::bind("127.0.0.1:7000").unwrap();
        std::thread::spawn(move || answer_all(&secret));
        let container = join(&networks, &spec_of(&networks, "bridge", "c", Vec::new())).unwrap();
        inside(&container, || {
            namespace::set_sysctl("net/ipv4/conf/all/route_localnet", "1").unwrap();
            ip("addr del 127.0.0.1/8 dev lo");
            ip("route add 127.0.0.1/32 via 172.17.0.1");
            assert!(no_answer(Ipv4Addr::LOCALHOST, 7000));
        });
        // Without rules there is no translation and nothing to route for.
        drop(networks);
        drop(host.daemon(&NetworkConfig { iptables: Enabled::No, ..without }));
        assert_eq!(setting(), "0");
    });
}

#[test]
fn without_a_default_network_docker0_goes() {
    in_namespace(|| {
        let host = Host::new();
        drop(host.daemon(&NetworkConfig::default()));
        let none = NetworkConfig { bridge: Some("none".to_owned()), ..NetworkConfig::default() };
        drop(host.daemon(&none));
        assert_eq!(link::find(&mut Socket::route().unwrap(), "docker0").unwrap(), None);
        assert!(!listing().contains("docker0"));
        drop(host.daemon(&none));
        drop(host.daemon(&NetworkConfig::default()));
        assert!(link::find(&mut Socket::route().unwrap(), "docker0").unwrap().is_some());
    });
}

/// What Gantry switched on for a network of IPv6 goes with the last of them.
#[test]
fn forwarding_of_ipv6_goes_with_its_last_network() {
    const IPV6: &str = "net/ipv6/conf/all/forwarding";
    in_namespace(|| {
        let host = Host::new();
        let networks = host.daemon(&NetworkConfig::default());
        let before = listing();
        let traits = network::row::Traits { ipv4: true, ipv6: true, ..Default::default() };
        let new = |name: &str| NewNetwork { name: name.to_owned(), traits: traits.clone(), ..NewNetwork::default() };
        let (a, b) = (networks.create(new("a")).expect("forwarding"), networks.create(new("b")).expect("forwarding"));
        let six = || (namespace::sysctl(IPV6).expect("forwarding"), listing().contains("meta nfproto ipv6 counter"));
        assert_eq!(six(), ("1".to_owned(), true));
        networks.remove(&a.id).expect("forwarding");
        assert_eq!(six(), ("1".to_owned(), true), "another one needs it");
        drop(networks);
        let networks = host.daemon(&NetworkConfig::default());
        networks.remove(&b.id).expect("forwarding");
        assert_eq!((six(), listing()), (("0".to_owned(), false), before));
    });
}

/// A host that was a router of IPv6 stays one.
#[test]
fn forwarding_of_others_stays() {
    const IPV6: &str = "net/ipv6/conf/all/forwarding";
    in_namespace(|| {
        namespace::set_sysctl(IPV6, "1").expect("forwarding");
        let networks = Host::new().daemon(&NetworkConfig::default());
        let traits = network::row::Traits { ipv4: true, ipv6: true, ..Default::default() };
        let row = networks.create(NewNetwork { name: "a".to_owned(), traits, ..NewNetwork::default() });
        networks.remove(&row.expect("forwarding").id).expect("forwarding");
        assert_eq!(namespace::sysctl(IPV6).expect("forwarding"), "1");
    });
}
