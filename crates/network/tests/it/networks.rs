//! Networks that come and go, what an interrupted daemon leaves of them, and the rules of older daemons.

use std::collections::BTreeMap;

use network::row::{NETWORKS, Progress, Traits};
use network::{EndpointSpec, Family, NetworkConfig, Networks, NewNetwork, SandboxSpec};
use network::{plan, published};
use sys::netlink::{Socket, link};
use sys::nft::{self, Chain, Element, Family as Tables, Field, Set, Table, Transaction};

use crate::world::*;

pub fn new(name: &str) -> NewNetwork {
    NewNetwork { name: name.to_owned(), traits: Traits { ipv4: true, ..Traits::default() }, ..NewNetwork::default() }
}

pub fn device(name: &str) -> bool {
    link::find(&mut Socket::route().expect("a world"), name).expect("a world").is_some()
}

fn devices() -> usize {
    let all = link::list(&mut Socket::route().expect("a world")).expect("a world");
    all.iter().filter(|link| link.kind == "bridge").count()
}

#[test]
fn a_sandbox_is_joined_to_several_networks_or_to_none() {
    world(NetworkConfig::default(), |world| {
        let networks = &world.networks;
        let ids: Vec<_> = ["a", "b", "c"].map(|name| networks.create(new(name)).expect("a world").id.clone()).to_vec();
        let before = networks.sizes();
        let endpoints: Vec<_> = ids.iter().map(|id| EndpointSpec::new(id.clone())).collect();
        let spec = SandboxSpec { endpoints, ..world.spec("c", vec![publish(8081, 80)]) };
        let connected = networks.connect(&spec).expect("a world");
        assert_eq!(connected.endpoints.iter().map(|e| e.link.as_str()).collect::<Vec<_>>(), ["eth0", "eth1", "eth2"]);
        assert_eq!(connected.endpoints.iter().map(|e| e.ports.len()).collect::<Vec<_>>(), [2, 0, 0], "the way out");
        assert_eq!(networks.remove(&ids[1]).unwrap_err().kind(), model::Kind::Forbidden);
        networks.release(&spec.container).expect("a world");
        drop(connected);

        // The last one refuses: nothing of the others stays.
        let mut refused = spec.clone();
        refused.endpoints[2].mac = Some(network::MacAddress([1, 0, 0, 0, 0, 1]));
        networks.connect(&refused).unwrap_err();
        eventually("nothing is left", || host_links().is_empty() && networks.sizes() == before);
        ids.iter().for_each(|id| drop(networks.remove(id).expect("a world")));
        assert_eq!(devices(), 1);
    });
}

#[test]
fn what_is_not_whole_goes_at_the_next_start() {
    world(NetworkConfig::default(), |world| {
        for progress in [Progress::Making, Progress::Removing] {
            let row = world.networks.create(new("half")).expect("a world");
            let name = format!("br-{}", row.id.short());
            let half = network::row::NetworkRow { progress, ..(*row).clone() };
            world.store.write_blocking(move |tx| tx.put(&NETWORKS, half.id.as_str(), &half)).expect("a world");
            assert!(device(&name));
            let next = Networks::open(NetworkConfig::default(), &world.store).expect("a world");
            assert!(next.find("half").is_err() && !device(&name), "{progress:?}");
            world.networks.remove(&row.id).expect("a world");
        }
        // A whole one comes back as it was.
        let row = world.networks.create(new("whole")).expect("a world");
        let next = Networks::open(NetworkConfig::default(), &world.store).expect("a world");
        assert_eq!(next.look_up("whole").expect("a world"), row);
        assert!(listing().contains(&format!("to-br-{}", row.id.short())));
    });
}

#[test]
fn a_network_that_is_refused_leaves_nothing() {
    world(NetworkConfig::default(), |world| {
        let before = (devices(), listing(), world.networks.sizes());
        let options = BTreeMap::from([("com.docker.network.bridge.name".to_owned(), "x".repeat(16))]);
        world.networks.create(NewNetwork { options, ..new("long") }).unwrap_err();
        let taken = network::NewPool::of("172.17.8.0/24".parse().expect("a world"));
        world.networks.create(NewNetwork { pools: vec![taken], ..new("overlapping") }).unwrap_err();
        assert_eq!((devices(), listing(), world.networks.sizes()), before);
        assert_eq!(world.store.read(|tx| tx.scan(&NETWORKS)).expect("a world").len(), 3);
    });
}

/// A bridge of the administrator's is used, and stays when the network goes.
#[test]
fn a_device_that_stands_is_adopted() {
    world(NetworkConfig::default(), |world| {
        ip("link add lan0 type bridge");
        ip("addr add 10.99.0.1/24 dev lan0");
        let options = BTreeMap::from([("com.docker.network.bridge.name".to_owned(), "lan0".to_owned())]);
        let row = world.networks.create(NewNetwork { options, ..new("lan") }).expect("a world");
        let next = Networks::open(NetworkConfig::default(), &world.store).expect("a world");
        next.reconcile(&[]).expect("a world");
        let one = join(&next, &spec_of(&next, "lan", "c", Vec::new())).expect("a world");
        assert!(inside(&one, || ping_any(gateway_of(&one).expect("a world"))));
        next.release(&one.endpoint.container).expect("a world");
        next.remove(&row.id).expect("a world");
        assert!(device("lan0"));
    });
}

fn old_table(fingerprint: &[u8]) {
    let map = |name: &str, key: Vec<Field>, elements| Set {
        name: name.to_owned(),
        key,
        data: vec![Field::Ipv4, Field::Port],
        elements,
    };
    let mut element = Element::default();
    Element::push_protocol(&mut element.key, 6);
    Element::push_port(&mut element.key, 8081);
    Element::push_address(&mut element.data, "172.17.0.2".parse().expect("a world"));
    Element::push_port(&mut element.data, 80);
    let table = Table {
        family: Tables::Ip,
        name: plan::TABLE.to_owned(),
        sets: vec![
            map(published::BY_ADDRESS, vec![Field::Protocol, Field::Ipv4, Field::Port], Vec::new()),
            map(published::BY_PORT, vec![Field::Protocol, Field::Port], vec![element]),
        ],
        chains: vec![Chain { name: "published".to_owned(), hook: None, rules: Vec::new() }],
    };
    let mut change = Transaction::new();
    change.replace_table(&table, fingerprint);
    change.commit(&mut Socket::netfilter().expect("a world")).expect("a world");
}

#[test]
fn the_table_of_an_older_daemon_is_taken_over() {
    in_namespace(|| {
        old_table(b"gantry 0123456789abcdef");
        let world = World::open_only(NetworkConfig::default());
        assert!(!nft("list table ip gantry"), "the old table goes");
        assert!(listing().contains("tcp . 8081 : 172.17.0.2 . 80"), "its ports stay: {}", listing());
        world.networks.reconcile(&[]).expect("a world");
        assert_eq!(elements(), 0);
    });
    in_namespace(|| {
        old_table(b"");
        let _world = World::open(NetworkConfig::default());
        assert!(nft("list table ip gantry"), "one of other makers stays");
    });
}

#[test]
fn default_bridge_of_both_families() {
    let ipv6 = network::DefaultFamily { bip: Some("fd00:5::1/64".parse().expect("a world")), ..Default::default() };
    world(NetworkConfig { ipv6: Some(ipv6), ..NetworkConfig::default() }, |world| {
        let (one, two) = (world.connect("one", vec![publish(8081, 80)]), world.connect("two", Vec::new()));
        let own = |one: &One| one.endpoint.assigned(Family::Ipv6).expect("a world").address;
        assert!(
            inside(&one, || ping_any(own(&two))) && inside(&one, || ping_any("fd00:5::1".parse().expect("a world")))
        );
        assert!(listing().contains("ip6 saddr fd00:5::/64 masquerade"));
        assert_eq!(elements(), 2, "translated in both families");
        assert_eq!(sys::netlink::namespace::sysctl("net/ipv6/conf/all/forwarding").expect("a world"), "1");
    });
}

#[test]
fn hundreds_of_networks_are_opened_at_once() {
    world(NetworkConfig::default(), |world| {
        let count = 60;
        for number in 0..count {
            world.networks.create(new(&format!("n{number}"))).expect("a world");
        }
        let mut notices = sys::netlink::Notices::nf_tables().expect("a world");
        let next = Networks::open(NetworkConfig::default(), &world.store).expect("a world");
        let mut writes = 0;
        notices
            .read(|message| writes += usize::from(nft::is_about(&message, plan::TABLE_FAMILY, plan::TABLE)))
            .expect("a world");
        assert_eq!(writes, 0, "the rules stand and are not written again");
        assert_eq!(next.list().len(), count + 3);
        assert_eq!(devices(), count + 1);
    });
}

/// A network of links on a parent, whose gateway is a router outside.
pub fn on_parent(driver: &str, options: &[(&str, &str)]) -> NewNetwork {
    let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let gateway = Some("10.97.0.1".parse().expect("a world"));
    let pool = network::NewPool { gateway, ..network::NewPool::of("10.97.0.0/24".parse().expect("a world")) };
    NewNetwork { driver: driver.to_owned(), options, pools: vec![pool], ..new("lan") }
}

/// The neighbour is the router of the network; the containers have links on the uplink and are its neighbours, too.
#[test]
fn macvlan_on_a_link_of_the_host() {
    world(NetworkConfig::default(), |world| {
        let outside = outside_host();
        enter(&outside, || ip("addr add 10.97.0.1/24 dev eth0"));
        let row = world.networks.create(on_parent("macvlan", &[("parent", "uplink0")])).expect("a world");
        let (one, two) =
            (spec_of(&world.networks, "lan", "one", Vec::new()), spec_of(&world.networks, "lan", "two", Vec::new()));
        let (one, two) = (join(&world.networks, &one).expect("a world"), join(&world.networks, &two).expect("a world"));
        assert!(
            inside(&one, || ping("10.97.0.1".parse().expect("a world"))) && inside(&one, || ping(address_of(&two)))
        );
        assert!(inside(&one, || ping(OUTSIDE)), "by the gateway");
        assert!(enter(&outside, || ping(address_of(&two))));
        assert!(one.endpoint.host_link.is_none() && one.endpoint.mac.is_some());
        assert_eq!(world.networks.remove(&row.id).unwrap_err().kind(), model::Kind::Forbidden);
        for container in [&one, &two] {
            world.networks.release(&container.endpoint.container).expect("a world");
        }
        world.networks.remove(&row.id).expect("a world");
        assert!(device("uplink0"), "the parent is the host's");
    });
}

#[test]
fn refusals_of_links_on_a_parent() {
    world(NetworkConfig::default(), |world| {
        let _outside = outside_host();
        let refused = |driver, options: &[(&str, &str)]| {
            world.networks.create(on_parent(driver, options)).unwrap_err().message().to_owned()
        };
        assert_eq!(refused("macvlan", &[("parent", "lo")]), "loopback interface is not a valid macvlan parent link");
        assert_eq!(
            refused("macvlan", &[("parent", "nowhere")]),
            "invalid subinterface vlan name nowhere, example formatting is eth0.10"
        );
        assert!(
            refused("macvlan", &[("parent", "uplink0"), ("macvlan_mode", "odd")])
                .starts_with("requested macvlan mode 'odd' is not valid")
        );
        assert!(
            refused("ipvlan", &[("parent", "uplink0"), ("ipvlan_flag", "odd")])
                .starts_with("requested ipvlan flag 'odd' is not valid")
        );
        assert_eq!(refused("macvlan", &[("parent", "uplink0.9999")]), "vlan id must be between 1-4094, received: 9999");
        let passthru = [("parent", "uplink0"), ("macvlan_mode", "passthru")];
        let row = world.networks.create(on_parent("macvlan", &passthru)).expect("a world");
        let pools = Vec::new();
        let second = NewNetwork { pools, ..on_parent("macvlan", &[("parent", "uplink0")]) };
        let text = world.networks.create(NewNetwork { name: "other".to_owned(), ..second }).unwrap_err();
        assert!(text.message().ends_with("is already using parent interface uplink0 in mode passthru"), "{text}");
        world.networks.remove(&row.id).expect("a world");
        assert_eq!(world.store.read(|tx| tx.scan(&NETWORKS)).expect("a world").len(), 3, "nothing of it is left");
    });
}
