//! `gantry-bench`: speed and memory of the engine against the bare kernel's floor, and against another engine.
//!
//! Everything is measured in one run on one machine: the floor first, then Gantry over one kept-alive connection, the other
//! engine (`--vs unix://SOCKET`) in turn with it. The table goes to the screen, all figures to `target/bench.json`.
//! `gantry-bench calls` only counts what one start costs. `gantry-bench net` measures networks, with figures in
//! `bench-net.json` (`--only PART` measures one part), `gantry-bench life` containers over their lives, in `bench-life.json`,
//! `gantry-bench volumes` volumes, in `bench-volumes.json`. `gantry-bench images` measures pulls, the store and the list of images instead, with figures in
//! `bench-images.json`.
//! Budgets are those of SPECIFICATION.md; a figure over its budget makes the run fail.

#![forbid(unsafe_code)]

mod engine;
mod figures;
mod images;
mod life;
mod load;
mod logs;
mod memory;
mod net;
mod trace;
mod volumes;

use std::process::ExitCode;

use engine::{Engine, Network};
use figures::{Figures, Samples};
use testkit::{Daemon, command, images as kit, places};

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Scale {
    /// Cycles of the latency measurements.
    pub cycles: usize,
    /// Seconds under concurrent load.
    pub seconds: u64,
    /// Containers of the memory measurement.
    pub containers: usize,
    /// Bytes of log.
    pub log_bytes: u64,
}

const FULL: Scale = Scale { cycles: 300, seconds: 10, containers: 200, log_bytes: 100_000_000 };
const QUICK: Scale = Scale { cycles: 60, seconds: 3, containers: 50, log_bytes: 20_000_000 };

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let quick = words.iter().any(|word| word == "--quick");
    let after = |flag: &str| words.iter().position(|word| word == flag).and_then(|at| words.get(at + 1));
    let (other, only) = (after("--vs"), after("--only"));
    let mut figures = Figures::default();
    if words.first().is_some_and(|word| word == "images") {
        let scale = if quick { images::QUICK } else { images::FULL };
        images::run(scale, other.map(String::as_str), &mut figures);
        return end(&figures, "bench-images.json");
    }
    if words.first().is_some_and(|word| word == "calls") {
        calls(&mut figures);
        return end(&figures, "bench-calls.json");
    }
    if words.first().is_some_and(|word| word == "net") {
        let scale = if quick { net::QUICK } else { net::FULL };
        net::run(scale, (only.map(String::as_str), other.map(String::as_str)), &mut figures);
        return end(&figures, "bench-net.json");
    }
    if words.first().is_some_and(|word| word == "life") {
        life::run(if quick { life::QUICK } else { life::FULL }, &mut figures);
        return end(&figures, "bench-life.json");
    }
    if words.first().is_some_and(|word| word == "volumes") {
        let scale = if quick { volumes::QUICK } else { volumes::FULL };
        volumes::run(scale, other.map(String::as_str), &mut figures);
        return end(&figures, "bench-volumes.json");
    }
    starts(if quick { QUICK } else { FULL }, other, &mut figures);
    end(&figures, "bench.json")
}

/// Prints and keeps the figures; fails when one is over its budget.
fn end(figures: &Figures, file: &str) -> ExitCode {
    figures.print();
    let path = places::target_dir().join(file);
    std::fs::write(&path, figures.json()).expect("target can be written");
    println!("\nall figures: {}", path.display());
    if figures.over_budget() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What one start costs in system calls alone.
fn calls(figures: &mut Figures) {
    let daemon = Daemon::start();
    daemon.probe();
    trace::per_start(&daemon, &Engine::open(&daemon.socket()), figures);
    daemon.finish();
}

/// Containers: latencies, memory, logs.
fn starts(scale: Scale, other: Option<&String>, figures: &mut Figures) {
    let daemon = Daemon::start();
    daemon.probe();
    let gantry = Engine::open(&daemon.socket());
    let other = other.map(|address| {
        let engine = Engine::open(address.trim_start_matches("unix://").as_ref());
        engine.load(kit::probe_archive());
        engine
    });
    memory::idle(&daemon, figures);
    latencies(scale, &gantry, other.as_ref(), figures);
    trace::per_start(&daemon, &gantry, figures);
    load::concurrent(scale, &gantry, figures);
    logs::throughput(scale, &gantry, figures);
    memory::crowd(scale, &daemon, &gantry, figures);
    daemon.finish();
}

/// The bare kernel, in namespaces of its own: microseconds of each cycle.
fn floor(cycles: usize) -> Vec<f64> {
    let dir = tempfile::Builder::new().prefix("gt-floor").tempdir_in("/tmp").expect("a directory in /tmp");
    let namespaces = testkit::namespaces::Namespaces::new();
    let mut program = namespaces.command(places::program("gantry-floor"));
    program.arg(cycles.to_string()).arg(dir.path()).arg(places::program("gantry-probe"));
    let output = command::run(&mut program, b"").ok().stdout;
    output.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Whole cycles, starts and execs. The kernel alone, this engine and the other one work in turn: what slows the machine
/// down for a while does so for all.
fn latencies(scale: Scale, gantry: &Engine, other: Option<&Engine>, figures: &mut Figures) {
    let batches = 6;
    let each = (scale.cycles / batches).max(5);
    let engines: Vec<(&str, &Engine)> =
        [("", Some(gantry)), ("other: ", other)].into_iter().filter_map(|(name, e)| Some((name, e?))).collect();
    let mut found = vec![engine::Latencies::default(); engines.len()];
    let mut alone = Vec::new();
    for _ in 0..batches {
        alone.extend(floor(each));
        for (at, (_, engine)) in engines.iter().enumerate() {
            // A slow engine gets fewer rounds.
            let rounds = if at == 0 { each } else { each.min(5) };
            engine.cycles(rounds, Network::None, &mut found[at].none);
            engine.cycles(rounds, Network::Bridge, &mut found[at].bridge);
            engine.execs(rounds, &mut found[at].exec);
        }
    }
    let floor = Samples::new(alone);
    figures.time("floor", &floor);
    for ((name, _), latency) in engines.iter().zip(&found) {
        for (what, samples) in latency.all() {
            figures.time(&format!("{name}{what}"), &samples);
        }
    }
    let own = &found[0];
    let p50 = |samples: &[f64]| Samples::new(samples.to_vec()).percentile(50.0);
    figures.ratio("cycle, none / floor", p50(&own.none.whole) / floor.percentile(50.0), Some(4.0));
    figures.ratio("start, none / floor", p50(&own.none.start) / floor.percentile(50.0), Some(2.5));
    figures.ratio("cycle, bridge / none", p50(&own.bridge.whole) / p50(&own.none.whole), Some(1.8));
    if let Some(reference) = found.get(1) {
        figures.at_least("cycle, none: times faster", p50(&reference.none.whole) / p50(&own.none.whole), Some(15.0));
        figures.at_least("exec: times faster", p50(&reference.exec) / p50(&own.exec), Some(10.0));
        figures.at_least("cycle, bridge: times faster", p50(&reference.bridge.whole) / p50(&own.bridge.whole), None);
    }
}
