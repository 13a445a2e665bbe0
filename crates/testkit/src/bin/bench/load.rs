//! Eight clients at once, and how `ps` fares meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Scale;
use crate::engine::{Engine, Network, micros};
use crate::figures::{Figures, Samples};

const CLIENTS: usize = 8;

/// Cycles per second of eight clients; latency of `ps` during it.
pub fn concurrent(scale: Scale, engine: &Engine, figures: &mut Figures) {
    let ps = busy(scale, engine, (Network::None, "cycles per second, 8 clients", 100.0), figures);
    figures.time_within("ps during it", &ps, 99.0, 20.0);
}

/// Cycles per second of eight clients on a network, with the figure's name and budget; latency of `ps` meanwhile.
pub fn busy(
    scale: Scale,
    engine: &Engine,
    (network, name, budget): (Network, &str, f64),
    figures: &mut Figures,
) -> Samples {
    let stop = Arc::new(AtomicBool::new(false));
    let begin = Instant::now();
    let workers: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (mut client, stop) = (engine.connect(), Arc::clone(&stop));
            thread::spawn(move || {
                let mut count = 0_u32;
                while !stop.load(Ordering::Relaxed) {
                    client.cycle(network);
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut client = engine.connect();
    let mut ps = Vec::new();
    while begin.elapsed() < Duration::from_secs(scale.seconds) {
        let asked = Instant::now();
        client.get("/v1.41/containers/json?all=1");
        ps.push(micros(asked));
        thread::sleep(Duration::from_millis(20));
    }
    stop.store(true, Ordering::Relaxed);
    let cycles: u32 = workers.into_iter().map(|worker| worker.join().expect("a client ends")).sum();
    figures.at_least(name, f64::from(cycles) / begin.elapsed().as_secs_f64(), Some(budget));
    Samples::new(ps)
}
