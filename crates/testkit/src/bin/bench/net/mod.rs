//! `gantry-bench net`: cycles on networks of users, an application by Compose, throughput of published ports, restarts and
//! changes with many networks, many ports, names, memory; beside another engine when its socket is given.

mod application;
mod cycles;
mod many;
mod names;
mod ports;
mod throughput;

use testkit::{Daemon, images as kit};

use crate::engine::Engine;
use crate::figures::Figures;

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Scale {
    /// Cycles, execs and seconds of the measurements that starts have as well.
    starts: crate::Scale,
    /// Rounds of what takes seconds.
    rounds: usize,
    /// Networks and endpoints of a restart.
    networks: usize,
    endpoints: usize,
}

/// Full size.
pub const FULL: Scale = Scale { starts: crate::FULL, rounds: 5, networks: 200, endpoints: 500 };
/// A part of it.
pub const QUICK: Scale = Scale { starts: crate::QUICK, rounds: 3, networks: 40, endpoints: 100 };

/// Ports that the kernel gives to connections: none that is published here.
const EPHEMERAL: &str = "45000 60999";

/// Everything, or one part: `cycles`, `application`, `throughput`, `ports`, `names` or `many`.
pub fn run(scale: Scale, (only, other): (Option<&str>, Option<&str>), figures: &mut Figures) {
    let wanted = |part: &str| only.is_none_or(|only| only == part);
    let mut daemon = Daemon::start();
    daemon.probe();
    let range = format!("echo {EPHEMERAL} > /proc/sys/net/ipv4/ip_local_port_range");
    let _ = daemon.exec_inside(&["sh", "-c", &range]).ok();
    let own = Engine::open(&daemon.socket());
    let other = other.map(|address| {
        let engine = Engine::open(address.trim_start_matches("unix://").as_ref());
        engine.load(kit::probe_archive());
        engine
    });
    if wanted("cycles") {
        cycles::run(scale, &own, other.as_ref(), figures);
    }
    if wanted("application") {
        application::run(scale, &own, other.as_ref(), figures);
    }
    if wanted("throughput") {
        throughput::routed(scale, &daemon, &own, figures);
        throughput::proxied(scale, &own, other.as_ref(), figures);
    }
    if wanted("ports") {
        ports::run(&daemon, &own, figures);
    }
    if wanted("names") {
        names::run(scale, &own, figures);
        names::dead_server(&own, figures);
    }
    if wanted("many") {
        many::memory(scale, &daemon, &own, figures);
        many::restart(scale, &mut daemon, &own, figures);
    }
    daemon.finish();
}

/// The engines with the first words of their figures.
fn engines<'e>(own: &'e Engine, other: Option<&'e Engine>) -> Vec<(&'static str, &'e Engine)> {
    [("", Some(own)), ("other: ", other)].into_iter().filter_map(|(name, engine)| Some((name, engine?))).collect()
}
