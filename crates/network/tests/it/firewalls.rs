//! Hosts whose own firewall forwards nothing by default: containers reach out, published ports work, and what the
//! administrator forbids stays forbidden.

use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use network::{Enabled, NetworkConfig, NewNetwork};
use store::Store;

use crate::world::*;

/// Runs a program in the calling thread's namespace; what it writes.
fn run(words: &str) -> String {
    let mut words = words.split(' ');
    let out = Command::new(words.next().expect("a firewall")).args(words).output().expect("a firewall");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("a firewall")
}

fn script(text: &str) {
    let out = Command::new("sh").args(["-ec", text]).output().expect("a firewall");
    assert!(out.status.success(), "{text}: {}", String::from_utf8_lossy(&out.stderr));
}

const SERVER: u16 = 7000;

/// An outside host that serves, and one container that publishes a port and serves another one, too.
pub struct Scene {
    outside: OwnedFd,
    pub web: One,
}

impl Scene {
    pub fn new(world: &World) -> Scene {
        let outside = outside_host();
        route_to_containers(&outside);
        serve(&outside, SERVER);
        let web = world.connect("web", vec![publish(8081, 80)]);
        serve(web.netns.as_ref().expect("a scene"), 80);
        serve(web.netns.as_ref().expect("a scene"), 81);
        Scene { outside, web }
    }

    fn reaches_out(&self) -> bool {
        inside(&self.web, || ask(OUTSIDE, SERVER)) == Some(UPLINK.into())
    }

    pub fn is_reached(&self) -> bool {
        enter(&self.outside, || ask(UPLINK, 8081)) == Some(OUTSIDE.into())
    }

    pub fn reaches_out_once(&self) -> bool {
        inside(&self.web, || !no_answer(OUTSIDE, SERVER))
    }

    /// Whether the host serves the container at a port.
    pub fn asks_the_host(&self, port: u16) -> bool {
        inside(&self.web, || ask(gateway_of(&self.web).expect("a gateway"), port)) == Some(address_of(&self.web).into())
    }

    /// Whether it does not serve the outside host there.
    pub fn is_refused_by_the_host(&self, port: u16) -> bool {
        enter(&self.outside, || no_answer(UPLINK, port))
    }

    /// The rest is as closed as before.
    fn is_closed(&self) -> bool {
        enter(&self.outside, || no_answer(address_of(&self.web), 81))
    }

    pub fn works(&self) {
        eventually("the way out", || inside(&self.web, || !no_answer(OUTSIDE, SERVER)));
        assert!(self.reaches_out() && self.is_reached() && self.is_closed());
    }
}

/// What a host's firewall is made by, what it lists, and how often our chain is named there when all is well.
struct Firewall {
    make: &'static str,
    list: &'static str,
}

const PLAIN: Firewall = Firewall {
    make: "nft 'add table inet mine; add chain inet mine entry { type filter hook forward priority 0; policy drop; }; \
           add rule inet mine entry iifname other0 accept'",
    list: "nft list table inet mine",
};
const IPTABLES_NFT: Firewall = Firewall { make: "iptables-nft -P FORWARD DROP", list: "iptables-nft -S" };
const LEGACY: Firewall = Firewall { make: "iptables-legacy -P FORWARD DROP", list: "iptables-legacy -S" };
/// As ufw writes its rules, again and again.
const UFW: Firewall = Firewall {
    make: "printf '*filter\n:FORWARD DROP [0:0]\n:ufw-before-forward - [0:0]\n:ufw-after-forward - [0:0]\n\
           :ufw-user-forward - [0:0]\n-F FORWARD\n-A FORWARD -j ufw-before-forward\n-A FORWARD -j ufw-after-forward\n\
           -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
           -A ufw-before-forward -j ufw-user-forward\nCOMMIT\n' | iptables-nft-restore --noflush",
    list: "iptables-nft -S",
};
const CLOSED_BY_A_RULE: Firewall = Firewall {
    make: "iptables-nft -A FORWARD -i other0 -j ACCEPT; iptables-nft -A FORWARD -j REJECT",
    list: "iptables-nft -S",
};

fn named(firewall: &Firewall) -> usize {
    run(firewall.list).lines().filter(|line| line.contains("GANTRY-FORWARD")).count()
}

fn with(firewall: &Firewall) {
    in_namespace(|| {
        let dir = tempfile::tempdir().expect("a firewall");
        let store = Store::open(&dir.path().join("db")).expect("a firewall");
        script(firewall.make);
        let before = run(firewall.list);
        let world = World::with(NetworkConfig::default(), store.clone());
        let scene = Scene::new(&world);
        scene.works();
        let count = named(firewall);
        assert!(count >= 2, "{}", run(firewall.list));
        // A network more is a part of it; what is right is not written twice.
        let row = world.networks.create(NewNetwork { name: "more".into(), ..crate::networks::new("more") });
        let row = row.expect("a firewall");
        assert!(run(firewall.list).contains(&format!("br-{}", row.id.short())));
        world.networks.remove(&row.id).expect("a firewall");
        let listed = run(firewall.list);
        world.networks.reconcile(std::slice::from_ref(&scene.web.endpoint)).expect("a firewall");
        assert_eq!((named(firewall), run(firewall.list).lines().count()), (count, listed.lines().count()));
        // Who wants no rules finds the host's firewall as it was.
        world.networks.release(&scene.web.endpoint.container).expect("a firewall");
        drop(world);
        drop(World::with(NetworkConfig { iptables: Enabled::No, ..NetworkConfig::default() }, store));
        assert_eq!(run(firewall.list), before);
        assert!(listing_now().is_none(), "our table goes with them");
    });
}

#[test]
fn plain_nftables() {
    with(&PLAIN);
}

#[test]
fn iptables_of_nftables() {
    with(&IPTABLES_NFT);
}

#[test]
fn iptables_of_old() {
    with(&LEGACY);
}

#[test]
fn like_ufw() {
    with(&UFW);
}

#[test]
fn closed_by_a_last_rule() {
    with(&CLOSED_BY_A_RULE);
}

/// A firewall that comes up, or is loaded anew, while the daemon runs.
#[test]
fn a_firewall_is_reloaded() {
    for firewall in [&PLAIN, &UFW] {
        world(NetworkConfig::default(), |world| {
            let _watch = world.networks.watch().expect("a firewall");
            let scene = Scene::new(world);
            scene.works();
            for _ in 0..3 {
                script(firewall.make);
                eventually("the jump", || named(firewall) >= 2);
                scene.works();
                script("nft flush ruleset");
                // Who asks meanwhile is tracked as one that is not translated.
                eventually("our table", || nft("list table inet gantry"));
            }
            scene.works();
        });
    }
}

/// Rules of the administrator come before ours, and those in `DOCKER-USER` before all.
#[test]
fn what_the_administrator_forbids_stays_forbidden() {
    for program in ["iptables-nft", "iptables-legacy"] {
        in_namespace(|| {
            script(&format!(
                "{program} -P FORWARD DROP; {program} -A FORWARD -s 172.17.0.0/16 -p tcp --dport 7000 -j DROP"
            ));
            let world = World::open(NetworkConfig::default());
            let scene = Scene::new(&world);
            assert!(scene.is_reached());
            assert!(inside(&scene.web, || no_answer(OUTSIDE, SERVER)), "{program}");
            // Behind ours: taken to the end again.
            script(&format!("{program} -F FORWARD; {program} -N DOCKER-USER"));
            world.networks.reconcile(std::slice::from_ref(&scene.web.endpoint)).expect("a firewall");
            scene.works();
            script(&format!(
                "{program} -A DOCKER-USER -d 172.17.0.0/16 -p tcp -m conntrack --ctorigdstport 8081 -j DROP"
            ));
            assert!(scene.reaches_out());
            assert!(enter(&scene.outside, || no_answer(UPLINK, 8081)), "{program}");
            // His own jump is as good as ours.
            script(&format!("{program} -I FORWARD -j DOCKER-USER"));
            world.networks.reconcile(std::slice::from_ref(&scene.web.endpoint)).expect("a firewall");
            let jumps = run(&format!("{program} -S FORWARD")).matches("-j DOCKER-USER").count();
            assert_eq!(jumps, 1, "{program}");
        });
    }
}

/// A default that refuses lies in a chain of its own, which is led to behind the administrator's rules.
#[test]
fn closed_by_a_chain_that_refuses_all() {
    with(&Firewall {
        make: "iptables-nft -N no; iptables-nft -A no -j REJECT; iptables-nft -A FORWARD -i other0 -j ACCEPT; \
               iptables-nft -A FORWARD -j no; iptables-nft -N later; iptables-nft -A FORWARD -j later",
        list: "iptables-nft -S",
    });
    with(&Firewall {
        make: "iptables-legacy -N no; iptables-legacy -A no -j REJECT; iptables-legacy -A FORWARD -i other0 -j ACCEPT; \
               iptables-legacy -A FORWARD -j no; iptables-legacy -N later; iptables-legacy -A FORWARD -j later",
        list: "iptables-legacy -S",
    });
    with(&Firewall {
        make: "nft 'add table inet mine; add chain inet mine no; add rule inet mine no counter drop; \
               add chain inet mine entry { type filter hook forward priority 0; policy accept; }; \
               add rule inet mine entry iifname other0 accept; add rule inet mine entry goto no'",
        list: "nft list table inet mine",
    });
}

/// A table that only one process may change is left alone, and the others are seen to all the same.
#[test]
fn a_table_with_an_owner() {
    in_namespace(|| {
        let mut owner = Command::new("nft").arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("nft");
        let mut input = owner.stdin.take().expect("a pipe");
        let table = "add table inet own { flags owner; }\nadd chain inet own entry \
                     { type filter hook forward priority 0; policy drop; }\nadd rule inet own entry accept\n";
        input.write_all(table.as_bytes()).expect("nft");
        eventually("the table", || nft("list chain inet own entry"));
        script(PLAIN.make);
        let world = World::open(NetworkConfig::default());
        let scene = Scene::new(&world);
        scene.works();
        assert!(named(&PLAIN) >= 2);
        drop(input);
        owner.wait().expect("nft");
    });
}

/// Who is no container's peer gains nothing.
#[test]
fn others_are_forwarded_no_more_than_before() {
    in_namespace(|| {
        script(PLAIN.make);
        let world = World::open(NetworkConfig::default());
        let scene = Scene::new(&world);
        let far = neighbour("far0", Ipv4Addr::new(10, 8, 0, 1), Ipv4Addr::new(10, 8, 0, 2));
        route(&scene.outside, Ipv4Addr::new(10, 8, 0, 0), UPLINK);
        serve(&far, SERVER);
        assert!(enter(&scene.outside, || no_answer(Ipv4Addr::new(10, 8, 0, 2), SERVER)));
        scene.works();
    });
}
