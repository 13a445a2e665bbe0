//! What others do to the rules and the bridge while a daemon runs.

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use network::{DefaultFamily, Enabled, NetworkConfig, plan};
use sys::netlink::{Notices, Socket, link};
use sys::nft::{self, Family};

use crate::world::*;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);

/// Everything that takes rules of ours away, or makes them say something else.
const ATTACKS: &[&str] = &[
    "flush ruleset",
    "flush ruleset inet",
    "delete table inet gantry",
    "flush table inet gantry",
    "flush chain inet gantry forward",
    "flush map inet gantry published-any",
    "delete element inet gantry published-any { tcp . 8081 }",
    "add chain inet gantry forward { policy drop; }",
    "insert rule inet gantry forward accept",
    "add chain inet gantry mine",
    "delete table inet gantry; add table inet gantry",
];

#[test]
fn rules_that_others_take_away_are_put_back_at_once() {
    world(NetworkConfig::default(), |world| {
        let _watch = world.networks.watch().unwrap();
        let outside = outside_host();
        let web = world.connect("web", vec![publish(8081, 80)]);
        serve(web.netns.as_ref().unwrap(), 80);
        serve(web.netns.as_ref().unwrap(), 81);
        route_to_containers(&outside);
        let whole = listing();
        for attack in ATTACKS {
            assert!(nft(attack), "{attack}");
            eventually(attack, || listing_now().as_ref() == Some(&whole));
            assert_eq!(enter(&outside, || ask(UPLINK, 8081)), Some(OUTSIDE.into()), "{attack}: the published port");
        }
        assert!(enter(&outside, || no_answer(address_of(&web), 81)), "an unpublished port");
        assert!(enter(&outside, || no_answer(address_of(&web), 80)), "a published one by the container's address");
        world.networks.release(&web.endpoint.container).unwrap();
        assert_eq!(elements(), 0);
    });
}

#[test]
fn changes_of_other_tables_move_nothing() {
    world(NetworkConfig::default(), |world| {
        let _watch = world.networks.watch().unwrap();
        let mut notices = Notices::nf_tables().unwrap();
        let rules = "add table ip mine; add table ip gantry; add table ip6 gantry; delete table ip gantry";
        assert!(nft(rules));
        let web = world.connect("web", vec![publish(8081, 80)]);
        world.networks.release(&web.endpoint.container).unwrap();
        // Were the table written again, it would be told of before this.
        assert!(nft("add table ip last; delete table ip last"));
        let (mut writes, mut last) = (0, false);
        eventually("the last change is told of", || {
            let each = |message: sys::netlink::wire::Message<'_>| {
                writes += usize::from(is_deletion(&message) && nft::is_about(&message, plan::TABLE_FAMILY, "gantry"));
                last |= nft::is_about(&message, Family::Ip, "last");
            };
            notices.read(each).unwrap();
            last
        });
        assert_eq!(writes, 0);
    });
}

fn is_deletion(message: &sys::netlink::wire::Message<'_>) -> bool {
    message.kind & 0xff == 2
}

#[test]
fn who_fights_for_the_table_does_not_keep_the_daemon_busy() {
    world(NetworkConfig::default(), |world| {
        let _watch = world.networks.watch().unwrap();
        let whole = listing();
        let mut notices = Notices::nf_tables().unwrap();
        let mut writes = 0;
        let own = |message: &sys::netlink::wire::Message<'_>| {
            is_deletion(message) && nft::is_about(message, plan::TABLE_FAMILY, "gantry")
        };
        let begun = Instant::now();
        let mut attacks = 0;
        while begun.elapsed() < Duration::from_secs(4) {
            attacks += usize::from(nft("delete table inet gantry"));
            notices.read(|message| writes += usize::from(own(&message))).unwrap();
        }
        eventually("the table stands in the end", || listing_now().as_ref() == Some(&whole));
        notices.read(|message| writes += usize::from(own(&message))).unwrap();
        // Pauses of 10, 20, 40 … 1000 ms; deletions by others are counted as well.
        let elapsed = begun.elapsed().as_secs() as usize;
        assert!(attacks > 0 && writes - attacks <= 10 + elapsed, "{writes} deletions, {attacks} by others");
    });
}

/// More is changed in one transaction than the socket of the watch has room for.
#[test]
fn lost_notices_make_the_rules_be_written() {
    world(NetworkConfig::default(), |world| {
        let _watch = world.networks.watch().unwrap();
        let whole = listing();
        let mut script = String::from("add table ip mine\nadd set ip mine s { type ipv4_addr; }\n");
        for block in 0..600u32 {
            let element = |n: u32| Ipv4Addr::from(0x0a00_0000 + block * 256 + n).to_string();
            let elements: Vec<_> = (0..256).map(element).collect();
            script.push_str(&format!("add element ip mine s {{ {} }}\n", elements.join(", ")));
        }
        script.push_str("delete table inet gantry\n");
        let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft");
        nft.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success());
        eventually("the table is written again", || listing_now().as_ref() == Some(&whole));
    });
}

/// Deletes docker0 and makes it anew, as a script of the administrator would.
fn make_docker0_anew() {
    ip("link del docker0");
    ip("link add docker0 type bridge");
}

fn index(name: &str) -> u32 {
    link::find(&mut Socket::route().expect("a link"), name).expect("a link").map_or(0, |link| link.index)
}

fn is_port(container: &One) -> bool {
    let name = container.endpoint.host_link.as_deref().expect("a link");
    let link = link::find(&mut Socket::route().expect("a link"), name).expect("a link").expect("a link");
    link.up && link.master == index("docker0")
}

#[test]
fn a_bridge_made_anew_gets_back_what_it_had() {
    for config in [
        NetworkConfig::default(),
        NetworkConfig { mtu: 1400, userland_proxy: Enabled::No, ..NetworkConfig::default() },
        NetworkConfig {
            ipv4: DefaultFamily { bip: Some("172.17.5.1/16".parse().unwrap()), ..DefaultFamily::default() },
            ..NetworkConfig::default()
        },
    ] {
        let gateway = config.ipv4.bip.map_or(GATEWAY.into(), |bip| bip.addr());
        let mtu = config.mtu;
        let hairpin = !config.userland_proxy.yes();
        world(config, |world| {
            let _watch = world.networks.watch().unwrap();
            let outside = outside_host();
            serve(&outside, 7000);
            let (one, two) = (world.connect("one", vec![publish(8081, 80)]), world.connect("two", Vec::new()));
            serve(one.netns.as_ref().unwrap(), 80);
            let before = link::find(&mut Socket::route().unwrap(), "docker0").unwrap().unwrap();
            make_docker0_anew();
            eventually("the links are ports again", || is_port(&one) && is_port(&two));
            let device = link::find(&mut Socket::route().unwrap(), "docker0").unwrap().unwrap();
            assert_eq!((device.mtu, device.mac, device.up), (mtu, before.mac, true));
            assert!(inside(&one, || ping_any(gateway)), "the gateway");
            assert!(inside(&one, || ping(address_of(&two))), "a neighbour");
            assert_eq!(inside(&two, || ask(OUTSIDE, 7000)), Some(UPLINK.into()), "the way out");
            assert_eq!(enter(&outside, || ask(UPLINK, 8081)), Some(OUTSIDE.into()), "the way in");
            let port = one.endpoint.host_link.as_deref().unwrap();
            let mode = std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{}/route_localnet", "docker0"));
            assert_eq!(mode.unwrap().trim() == "1", hairpin, "{port}");
            if hairpin {
                assert_eq!(inside(&one, || ask(UPLINK, 8081)), Some(gateway), "itself through the host");
            }
        });
    }
}

/// Rules know a bridge by its name: one that was renamed has it again at once, or with the next container when nobody
/// watches; a link that has taken the name is not touched.
#[test]
fn a_bridge_that_is_renamed_has_its_name_again() {
    world(NetworkConfig::default(), |world| {
        let (one, before) = (world.connect("one", Vec::new()), index("docker0"));
        ip("link set docker0 name other0");
        let two = world.connect("two", Vec::new());
        assert!(index("docker0") == before && is_port(&one) && is_port(&two));
        let _watch = world.networks.watch().expect("a watch");
        ip("link set docker0 name other0");
        eventually("the name is back", || index("docker0") == before);
        assert!(inside(&one, || ping(GATEWAY)) && inside(&two, || ping(address_of(&one))));
        assert_eq!(index("other0"), 0);
    });
}

/// Where IPv6 is switched off, networks of IPv4 work, and those of both families do on the links that are made for them.
#[test]
fn ipv6_switched_off_by_the_host() {
    let set = |name: &str, value| sys::netlink::namespace::set_sysctl(name, value).expect("a setting");
    in_namespace(|| {
        for place in ["all", "default"] {
            set(&format!("net/ipv6/conf/{place}/disable_ipv6"), "1");
        }
        let world = World::open(NetworkConfig::default());
        let (one, two) = (world.connect("one", vec![publish(8081, 80)]), world.connect("two", Vec::new()));
        assert!(inside(&one, || ping(GATEWAY)) && inside(&two, || ping(address_of(&one))));
        let traits = network::row::Traits { ipv4: true, ipv6: true, ..Default::default() };
        let both = network::NewNetwork { traits, ..crate::networks::new("both") };
        world.networks.create(both).expect("a network of both families");
        let ends = ["a", "b"]
            .map(|name| join(&world.networks, &world.spec_in("both", name, Vec::new())).expect("a container"));
        let six = ends[0].endpoint.assigned(network::Family::Ipv6).expect("an address").address;
        assert!(inside(&ends[1], || ping_any(six)));
    });
}

#[test]
fn a_bridge_that_is_gone_is_made_by_the_next_container() {
    world(NetworkConfig::default(), |world| {
        let one = world.connect("one", Vec::new());
        ip("link del docker0");
        let two = world.connect("two", Vec::new());
        assert!(is_port(&one) && is_port(&two));
        assert!(inside(&two, || ping(GATEWAY)) && inside(&two, || ping(address_of(&one))));
        // Made anew by somebody else; nobody watches.
        make_docker0_anew();
        let three = world.connect("three", Vec::new());
        assert!(inside(&three, || ping(address_of(&one))) && inside(&one, || ping(GATEWAY)));
    });
}

#[test]
fn closed_containers_stay_closed_on_a_bridge_made_anew() {
    world(NetworkConfig { icc: Enabled::No, ..NetworkConfig::default() }, |world| {
        let _watch = world.networks.watch().unwrap();
        let (one, two) = (world.connect("one", Vec::new()), world.connect("two", Vec::new()));
        make_docker0_anew();
        eventually("the links are ports again", || is_port(&one) && is_port(&two));
        assert!(inside(&one, || ping(GATEWAY)));
        assert!(inside(&one, || no_ping(address_of(&two))));
    });
}

#[test]
fn a_script_that_makes_the_bridge_anew_finds_its_steps_undone() {
    world(NetworkConfig::default(), |world| {
        let _watch = world.networks.watch().unwrap();
        let one = world.connect("one", Vec::new());
        make_docker0_anew();
        ip("addr add 172.17.0.1/16 dev docker0");
        ip("link set docker0 up");
        eventually("the link is a port again", || is_port(&one));
        assert!(inside(&one, || ping(GATEWAY)));
        // An address that is taken away alone comes back; a further one is nobody's business.
        ip("addr add 10.77.0.1/24 dev docker0");
        ip("addr del 172.17.0.1/16 dev docker0");
        eventually("the address is back", || inside(&one, || ping_once(GATEWAY)));
        assert!(inside(&one, || ping(Ipv4Addr::new(10, 77, 0, 1))));
    });
}

#[test]
fn what_is_no_bridge_is_named() {
    world(NetworkConfig::default(), |world| {
        ip("link del docker0");
        ip("link add docker0 type veth peer name other0");
        let error = join(&world.networks, &world.spec("c", Vec::new())).unwrap_err();
        assert!(error.message().ends_with("existing interface docker0 is not a bridge"), "{}", error.message());
        ip("link del docker0");
        world.connect("c", Vec::new());
    });
}
