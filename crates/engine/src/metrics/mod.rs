//! What the daemon and its containers are and use, in the text format of Prometheus.
//!
//! Figures of containers are read by one loop, which runs as long as somebody asks now and then; an answer has those of its
//! newest round. The reference's metrics of the engine have their names (`engine_daemon_…`); those of containers begin
//! with `gantry_container_`.

mod containers;
mod rounds;
pub mod text;
mod timers;

use std::sync::Arc;

use model::Result;

use self::text::Text;
use crate::Engine;
use crate::system;

pub use rounds::Rounds;
pub use timers::{Timers, Transfer};

/// Everything that is measured.
#[derive(Default)]
pub struct Metrics {
    /// How long the API's calls took.
    pub timers: Timers,
    rounds: Rounds,
}

impl Metrics {
    /// All of it, as of now.
    ///
    /// Errors: `System` when nothing can be read.
    pub async fn scrape(&self, engine: &Arc<Engine>) -> Result<String> {
        let round = self.rounds.newest(engine).await?;
        let mut text = Text::default();
        engine_of(&mut text, engine);
        self.timers.write(&mut text);
        process(&mut text);
        containers::write(&mut text, engine, &round);
        Ok(text.finish())
    }
}

/// The reference's metrics of the engine.
fn engine_of(text: &mut Text, engine: &Engine) {
    let host = &engine.host;
    let labels = [
        ("version", system::ENGINE_VERSION),
        ("commit", ""),
        ("architecture", host.machine.as_str()),
        ("graphdriver", engine.snapshots.roots.name()),
        ("kernel", host.kernel.as_str()),
        ("os", host.operating_system.as_str()),
        ("os_type", "linux"),
        ("os_version", host.os_version.as_str()),
        ("daemon_id", host.engine_id.as_str()),
    ];
    let about = "The information related to the engine and the OS it is running on";
    text.gauge("engine_daemon_engine_info", about).value(&labels, 1.0);
    let about = "The number of cpus that the host system of the engine has";
    text.gauge("engine_daemon_engine_cpus_cpus", about).value(&[], host.processors as f64);
    let about = "The number of bytes of memory that the host system of the engine has";
    text.gauge("engine_daemon_engine_memory_bytes", about).value(&[], host.memory as f64);
    text.counter("engine_daemon_events_total", "The number of events logged").value(&[], engine.events.newest() as f64);
    text.gauge("engine_daemon_events_subscribers_total", "The number of current subscribers to events")
        .value(&[], engine.events.listeners() as f64);
    probes(text, engine);
    let (mut running, mut paused, mut stopped) = (0, 0, 0);
    for handle in engine.containers.all() {
        let state = handle.view().row.state;
        match (state.is_paused(), state.is_running()) {
            (true, _) => paused += 1,
            (false, true) => running += 1,
            (false, false) => stopped += 1,
        }
    }
    let mut states =
        text.gauge("engine_daemon_container_states_containers", "The count of containers in various states");
    for (state, count) in [("paused", paused), ("running", running), ("stopped", stopped)] {
        states.value(&[("state", state)], f64::from(count));
    }
}

/// Health checks.
fn probes(text: &mut Text, engine: &Engine) {
    let probes = engine.containers.probes.read();
    text.counter("engine_daemon_health_checks_total", "The total number of health checks")
        .value(&[], probes.begun as f64);
    text.counter("engine_daemon_health_checks_failed_total", "The total number of failed health checks")
        .value(&[], probes.failed as f64);
    let about = "The number of seconds it takes to prepare to run health checks";
    let mut family = text.summary("engine_daemon_health_check_start_duration_seconds", about);
    family.part("_sum", &[], probes.starting.as_secs_f64());
    family.part("_count", &[], probes.started as f64);
}

/// The daemon's own process, by the names that client libraries of Prometheus use.
#[expect(clippy::disallowed_methods, reason = "the kernel's own files, which are in memory")]
fn process(text: &mut Text) {
    if let Ok(resident) = sys::memory::resident() {
        text.gauge("process_resident_memory_bytes", "Resident memory size in bytes").value(&[], resident as f64);
    }
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    text.gauge("process_open_fds", "Number of open file descriptors").value(&[], open as f64);
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    text.gauge("process_threads", "Number of threads").value(&[], threads as f64);
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = used.tv_sec as f64 + used.tv_nsec as f64 / 1e9;
    text.counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds").value(&[], seconds);
}
