//! Many containers at once.

use std::collections::BTreeSet;
use std::os::fd::AsFd;

use network::{NetworkConfig, PublishSpec};
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
        unique(connected.iter().map(|c| c.endpoint.ports[0].host_port.to_string()).collect());
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
