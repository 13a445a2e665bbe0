//! Many networks and endpoints: what a container on a network costs, a restart of the daemon, one more endpoint.

use std::time::Instant;

use testkit::{Daemon, process};

use super::Scale;
use crate::engine::{Engine, Network, micros};
use crate::figures::{Figures, Samples};
use crate::memory::private;

/// Containers whose memory is compared.
const CONTAINERS: usize = 50;
/// Rounds of connect and disconnect.
const CONNECTS: usize = 20;

/// Private memory of the daemon and its monitors per container, with a network and without.
pub fn memory(_: Scale, daemon: &Daemon, engine: &Engine, figures: &mut Figures) {
    engine.bench_network();
    let mut client = engine.connect();
    let mut per_container = |network: Network| {
        let before = private(daemon.pid());
        let ids: Vec<String> = (0..CONTAINERS)
            .map(|_| {
                let id = client.create(&["sleep", "100000"], network, "");
                client.start(&id);
                id
            })
            .collect();
        let monitors = process::all().into_iter().filter(|pid| process::parent(*pid) == Some(daemon.pid()));
        let used = private(daemon.pid()) - before + monitors.map(private).sum::<f64>();
        ids.iter().for_each(|id| client.remove(id));
        used / CONTAINERS as f64
    };
    // The daemon keeps what it grew by; the first round is not counted.
    let _ = per_container(Network::User);
    let (none, user) = (per_container(Network::None), per_container(Network::User));
    figures.at_most("container without network, private", none, "MB", None);
    figures.at_most("container on a network, private", user, "MB", None);
    figures.at_most("a network's part of it", user - none, "MB", Some(0.1));
    engine.remove_bench_network();
}

/// Kills the daemon and starts it over many networks and endpoints; joins one more endpoint.
pub fn restart(scale: Scale, daemon: &mut Daemon, engine: &Engine, figures: &mut Figures) {
    let mut client = engine.connect();
    for n in 0..scale.networks {
        client.post("/networks/create", &format!(r#"{{"Name":"many-{n}"}}"#), 201);
    }
    let mut ids = Vec::new();
    for n in 0..scale.endpoints {
        let network = format!("many-{}", n % scale.networks);
        let body =
            format!(r#"{{"Image":"probe","Cmd":["sleep","100000"],"HostConfig":{{"NetworkMode":"{network}"}}}}"#);
        let answer = client.post("/v1.41/containers/create", &body, 201);
        let id = answer["Id"].as_str().expect("an id").to_string();
        client.start(&id);
        ids.push(id);
    }
    let mut boots = Vec::new();
    for _ in 0..scale.rounds {
        drop(client);
        daemon.kill9();
        let begin = Instant::now();
        daemon.boot().expect("the daemon starts");
        boots.push(micros(begin));
        client = engine.connect();
    }
    let what = format!("restart, {} networks, {} endpoints", scale.networks, ids.len());
    figures.time_within(&what, &Samples::new(boots), 50.0, 300.0);
    let mut joins = Vec::new();
    for _ in 0..CONNECTS {
        let body = format!(r#"{{"Container":"{}"}}"#, ids[0]);
        let begin = Instant::now();
        client.post("/networks/many-1/connect", &body, 200);
        joins.push(micros(begin));
        client.post("/networks/many-1/disconnect", &body, 200);
    }
    figures.time_within("one more endpoint", &Samples::new(joins), 50.0, 10.0);
    ids.iter().for_each(|id| client.remove(id));
    (0..scale.networks).for_each(|n| client.delete(&format!("/networks/many-{n}")));
}
