//! Memory of the daemon and of monitors, and `ps -a` over many containers.

use std::time::{Duration, Instant};

use testkit::{Daemon, process};

use crate::Scale;
use crate::engine::{Engine, Network, micros};
use crate::figures::{Figures, Samples};

/// A field of a file of a process below /proc that is told in KiB, in MB.
pub fn mib(pid: u32, file: &str, field: &str) -> f64 {
    process::memory_kib(pid, file, field).unwrap_or(0) as f64 / 1024.0
}

/// Private memory of a process, MB.
pub fn private(pid: u32) -> f64 {
    mib(pid, "smaps_rollup", "Private_Clean:") + mib(pid, "smaps_rollup", "Private_Dirty:")
}

/// The daemon after boot with one image.
pub fn idle(daemon: &Daemon, figures: &mut Figures) {
    std::thread::sleep(Duration::from_secs(1));
    figures.at_most("daemon idle, RSS", mib(daemon.pid(), "status", "VmRSS:"), "MB", Some(16.0));
    figures.at_most("daemon idle, private", private(daemon.pid()), "MB", None);
}

/// The daemon and the monitors with many running containers; `ps -a`.
pub fn crowd(scale: Scale, daemon: &Daemon, engine: &Engine, figures: &mut Figures) {
    let mut client = engine.connect();
    let ids: Vec<String> = (0..scale.containers)
        .map(|_| {
            let id = client.create(&["sleep", "100000"], Network::None, "");
            client.start(&id);
            id
        })
        .collect();
    let name = format!("daemon with {} containers", ids.len());
    figures.at_most(&format!("{name}, RSS"), mib(daemon.pid(), "status", "VmRSS:"), "MB", Some(40.0));
    let monitors: Vec<u32> =
        process::all().into_iter().filter(|pid| process::parent(*pid) == Some(daemon.pid())).collect();
    let average =
        |value: &dyn Fn(u32) -> f64| monitors.iter().map(|pid| value(*pid)).sum::<f64>() / monitors.len().max(1) as f64;
    figures.at_most("monitor, private", average(&private), "MB", Some(1.0));
    figures.at_most("monitor, PSS", average(&|pid| mib(pid, "smaps_rollup", "Pss:")), "MB", Some(1.2));
    let mut times = Vec::new();
    for _ in 0..50 {
        let begin = Instant::now();
        client.get("/v1.41/containers/json?all=1");
        times.push(micros(begin));
    }
    figures.time_within(&format!("ps -a of {}", ids.len()), &Samples::new(times), 50.0, 5.0);
    ids.iter().for_each(|id| client.remove(id));
}
