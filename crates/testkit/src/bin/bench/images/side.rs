//! One of the engines that are compared: its socket, its process, the registry beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use testkit::http::Connection;
use testkit::process;

use super::make::Store;
use super::registry::{self, ADDRESS, Registry};

/// Clock ticks of `/proc/<pid>/stat` in a second.
const TICKS: f64 = 100.0;

/// An engine.
pub struct Side {
    /// In front of its figures.
    pub name: &'static str,
    socket: PathBuf,
    pid: u32,
    _registry: Registry,
}

/// What something cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// By the clock.
    pub seconds: f64,
    /// Of processor time, in the daemon and the children that it waited for.
    pub processor: f64,
    /// The daemon's largest resident size meanwhile, in MB.
    pub peak: f64,
}

impl Side {
    /// The engine behind a socket.
    pub fn new(name: &'static str, socket: &Path, store: &Store) -> Side {
        let pid = registry::peer(socket);
        Side { name, socket: socket.to_path_buf(), pid, _registry: Registry::beside(pid, &store.root) }
    }

    /// A connection of its own.
    pub fn connect(&self) -> Connection {
        Connection::open(&self.socket).unwrap_or_else(|e| panic!("{}: {e}", self.socket.display()))
    }

    /// What some work costs the engine. What was written before is on the disk first.
    pub fn cost(&self, work: impl FnOnce()) -> Cost {
        rustix::fs::sync();
        fs::write(format!("/proc/{}/clear_refs", self.pid), "5").expect("root may reset the peak");
        let (before, begun) = (processor(self.pid), Instant::now());
        work();
        let seconds = begun.elapsed().as_secs_f64();
        let peak = process::memory_kib(self.pid, "status", "VmHWM:").unwrap_or(0) as f64 / 1024.0;
        Cost { seconds, processor: processor(self.pid) - before, peak }
    }

    /// Pulls an image of the store.
    pub fn pull(&self, name: &str, tag: usize) -> Cost {
        let mut client = self.connect();
        self.cost(|| {
            let path = format!("/v1.41/images/create?fromImage={ADDRESS}/{name}&tag={tag}");
            let text = client.request("POST", &path, "").expect(200).text();
            assert!(text.contains("Downloaded newer image"), "{text}");
        })
    }

    /// Removes it with all that it has.
    pub fn remove(&self, name: &str, tag: usize) {
        let path = format!("/v1.41/images/{ADDRESS}/{name}:{tag}?force=1");
        let _ = self.connect().request("DELETE", &path, "").expect(200);
    }
}

/// Seconds of processor time.
fn processor(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the engine lives");
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // utime, stime, cutime, cstime
    fields.skip(11).take(4).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS
}

/// Measures each side in turn, so often; the medians.
pub fn in_turn(rounds: usize, sides: &[&Side], measure: impl Fn(&Side, usize) -> Cost) -> Vec<Cost> {
    let mut all = vec![Vec::new(); sides.len()];
    for round in 1..=rounds {
        for (side, found) in sides.iter().zip(&mut all) {
            found.push(measure(side, round));
        }
    }
    all.iter().map(|found| medians(found)).collect()
}

fn medians(costs: &[Cost]) -> Cost {
    let median = |of: fn(&Cost) -> f64| crate::Samples::new(costs.iter().map(of).collect()).percentile(50.0);
    let peak = costs.iter().map(|cost| cost.peak).fold(0.0, f64::max);
    Cost { seconds: median(|c| c.seconds), processor: median(|c| c.processor), peak }
}
