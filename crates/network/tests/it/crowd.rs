//! Many containers at once.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::time::Instant;

use network::plan::{TABLE, TABLE_FAMILY};
use network::{NetworkConfig, Networks, PublishSpec, SandboxSpec};
use sys::netlink::namespace;

use crate::world::*;

const THREADS: usize = 8;
const ROUNDS: usize = 8;

#[test]
fn eight_at_a_time() {
    world(NetworkConfig::default(), |world| {
        let here = namespace::current().unwrap();
        let any = PublishSpec { host_ports: None, ..publish(0, 80) };
        let connected: Vec<_> = std::thread::scope(|scope| {
            let worker = || {
                // Threads start in the namespace of their maker; a blocking pool's are made anywhere.
                namespace::enter(here.as_fd(), || {
                    Ok((0..ROUNDS).map(|_| world.connect("c", vec![any.clone()])).collect::<Vec<_>>())
                })
                .unwrap()
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(worker)).collect();
            threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
        });
        let count = THREADS * ROUNDS;
        let unique = |values: BTreeSet<String>| assert_eq!(values.len(), count);
        unique(connected.iter().map(|c| address_of(c).to_string()).collect());
        unique(
            connected
                .iter()
                .flat_map(|c| c.endpoint.ports.iter().next())
                .map(|port| port.host_port.to_string())
                .collect(),
        );
        unique(connected.iter().map(|c| c.endpoint.mac.unwrap().to_string()).collect());
        unique(host_links().into_iter().map(|l| l.name).collect());
        assert_eq!(elements(), count);
        assert!(inside(&connected[0], || ping(address_of(&connected[count - 1]))));

        let containers: Vec<_> = connected.iter().map(|c| c.endpoint.container.clone()).collect();
        drop(connected);
        std::thread::scope(|scope| {
            for part in containers.chunks(ROUNDS) {
                scope.spawn(|| part.iter().for_each(|c| world.networks.release(c).unwrap()));
            }
        });
        assert_eq!(elements(), 0);
        eventually("all links are gone", || host_links().is_empty());
    });
}

/// A daemon that starts beside many networks and containers writes nothing again, and another container is one more. In the
/// full form (`cargo xtask soak crowd`) it tells how long both take.
#[test]
fn a_daemon_starts_beside_many() {
    let soak = std::env::var_os("GANTRY_SOAK").is_some();
    let (networks, containers) = if soak { (200, 500) } else { (20, 50) };
    world(NetworkConfig::default(), |world| {
        let name = |number: usize| format!("n{number}");
        for number in 0..networks {
            world.networks.create(crate::networks::new(&name(number))).expect("a network");
        }
        let one = |number: usize| {
            let ports = if number.is_multiple_of(2) {
                vec![publish(10_000 + u16::try_from(number).unwrap(), 80)]
            } else {
                Vec::new()
            };
            let network = name(number % networks);
            join(&world.networks, &spec_of(&world.networks, &network, &format!("c{number}"), ports))
                .expect("a container")
        };
        let connected: Vec<_> = (0..containers).map(one).collect();
        let live: Vec<_> = connected.iter().map(|one| one.endpoint.clone()).collect();
        let mut notices = sys::netlink::Notices::nf_tables().expect("notices");
        let begun = Instant::now();
        let next = Networks::open(NetworkConfig::default(), &world.store).expect("networks");
        let opened = begun.elapsed();
        next.reconcile(&live).expect("networks");
        let reconciled = begun.elapsed() - opened;
        let mut writes = 0;

        notices
            .read(|message| writes += usize::from(sys::nft::is_about(&message, TABLE_FAMILY, TABLE)))
            .expect("notices");
        assert_eq!(writes, 0, "the rules stand and are not written again");
        next.replenish().expect("a namespace");
        let spec = spec_of(&next, &name(0), "further", vec![publish(9000, 80)]);
        let begun = Instant::now();
        let further = join(&next, &spec).expect("a container");
        let joined = begun.elapsed();
        assert!(inside(&further, || ping_any(gateway_of(&further).expect("a gateway"))));
        assert!(inside(&connected[0], || ping(address_of(&further))));
        eprintln!(
            "{networks} networks, {containers} containers: opened in {opened:?}, reconciled in {reconciled:?}; \
             one container more: {joined:?}"
        );
    });
}

/// So many containers want the same port, or the same address: one has it, the others are told by whom.
#[test]
fn of_sixty_four_containers_one_gets_the_port_and_one_the_address() {
    world(NetworkConfig::default(), |world| {
        let race = |specs: Vec<SandboxSpec>| {
            let joined: Vec<_> = std::thread::scope(|scope| {
                let begun: Vec<_> = specs.iter().map(|spec| scope.spawn(|| join(&world.networks, spec))).collect();
                begun.into_iter().map(|thread| thread.join().expect("no panic")).collect()
            });
            let (won, lost): (Vec<_>, Vec<_>) = joined.into_iter().partition(Result::is_ok);
            assert_eq!((won.len(), lost.len()), (1, 63));
            let texts = lost.into_iter().map(|lost| lost.expect_err("partitioned").message().to_owned());
            (won, texts.collect::<Vec<_>>())
        };
        let names: Vec<String> = (0..64).map(|number| format!("c{number}")).collect();
        let (won, texts) = race(names.iter().map(|name| world.spec(name, vec![publish(8080, 80)])).collect());
        assert!(texts.iter().all(|text| text.contains("port is already allocated")), "{texts:?}");
        assert_eq!(elements(), 1);
        let fixed = |name: &String| {
            let mut spec = world.spec(name, Vec::new());
            spec.endpoints[0].addresses = vec!["172.17.77.7".parse().expect("address")];
            spec
        };
        let (_also, texts) = race(names.iter().map(fixed).collect());
        assert!(texts.iter().all(|text| text.contains("Address already in use")), "{texts:?}");
        drop(won);
    });
}
