//! Figures of each container. Those that do not run have what they were, and use nothing.

use std::sync::Arc;

use model::health::{Health, Status};

use super::rounds::{Round, Usage};
use super::text::Text;
use crate::Engine;
use crate::container::view::ContainerView;

/// A container and what it used.
struct Shown {
    view: Arc<ContainerView>,
    usage: Option<Usage>,
}

/// A figure of a container; `None` where it has none.
type Figure = fn(&Shown) -> Option<f64>;

fn of_usage(shown: &Shown, figure: impl Fn(&Usage) -> u64) -> Option<f64> {
    shown.usage.as_ref().map(|usage| figure(usage) as f64)
}

/// The state of the health check of a container that runs.
fn health(shown: &Shown) -> Option<&Health> {
    shown.view.row.run.health.as_deref().filter(|_| shown.view.pid > 0)
}

/// What is counted: name, description, figure.
const COUNTERS: [(&str, &str, Figure); 7] = [
    ("gantry_container_cpu_seconds_total", "Processor time used", |shown| {
        of_usage(shown, |usage| usage.figures.cpu).map(|nanos| nanos / 1e9)
    }),
    ("gantry_container_io_read_bytes_total", "Bytes read from block devices", |shown| {
        of_usage(shown, |usage| usage.figures.io_read)
    }),
    ("gantry_container_io_written_bytes_total", "Bytes written to block devices", |shown| {
        of_usage(shown, |usage| usage.figures.io_written)
    }),
    ("gantry_container_network_receive_bytes_total", "Bytes received over links", |shown| {
        of_usage(shown, |usage| usage.received)
    }),
    ("gantry_container_network_transmit_bytes_total", "Bytes sent over links", |shown| {
        of_usage(shown, |usage| usage.sent)
    }),
    ("gantry_container_log_bytes_total", "Bytes of output given to the log", |shown| {
        of_usage(shown, |usage| usage.logged.bytes)
    }),
    ("gantry_container_log_dropped_lines_total", "Lines that could not be written to the log", |shown| {
        of_usage(shown, |usage| usage.logged.dropped)
    }),
];

/// What goes up and down.
const GAUGES: [(&str, &str, Figure); 9] = [
    ("gantry_container_memory_bytes", "Memory in use, caches included", |shown| {
        of_usage(shown, |usage| usage.figures.memory)
    }),
    ("gantry_container_memory_limit_bytes", "Limit of memory; absent without one", |shown| {
        Some(shown.view.row.host_config.memory).filter(|limit| *limit > 0).map(|limit| limit as f64)
    }),
    ("gantry_container_pids", "Processes and threads", |shown| of_usage(shown, |usage| usage.figures.pids)),
    ("gantry_container_running", "1 while it runs", |shown| Some(f64::from(u8::from(shown.view.pid > 0)))),
    ("gantry_container_restarts", "Restarts by policy since it was started by hand", |shown| {
        Some(f64::from(shown.view.row.run.restart_count))
    }),
    ("gantry_container_exit_code", "Exit code of the newest run that has ended; absent while it runs", |shown| {
        let ended = shown.view.pid == 0 && shown.view.row.run.was_started;
        ended.then(|| f64::from(shown.view.row.run.exit_code))
    }),
    ("gantry_container_healthy", "1 while its health check says so; absent without one", |shown| {
        health(shown).map(|health| f64::from(u8::from(health.status == Status::Healthy)))
    }),
    ("gantry_container_health_failing_streak", "Probes that have failed in a row; absent without a check", |shown| {
        health(shown).map(|health| f64::from(health.failing_streak))
    }),
    ("gantry_container_start_time_seconds", "When the newest run began, in Unix seconds", |shown| {
        let nanos = shown.view.row.run.started_at.unix_nanos();
        shown.view.row.run.was_started.then_some(nanos as f64 / 1e9)
    }),
];

/// Writes the figures of all containers.
pub(super) fn write(text: &mut Text, engine: &Engine, round: &Round) {
    let handles = engine.containers.all();
    let shown: Vec<Shown> = handles
        .iter()
        .map(|handle| Shown { view: handle.view(), usage: round.get(&handle.id).copied() })
        .map(|shown| Shown { usage: shown.usage.filter(|_| shown.view.pid > 0), ..shown })
        .collect();
    for (name, about, figure) in COUNTERS {
        let mut family = text.counter(name, about);
        for (shown, value) in shown.iter().filter_map(|shown| Some((shown, figure(shown)?))) {
            family.value(&labels(shown), value);
        }
    }
    for (name, about, figure) in GAUGES {
        let mut family = text.gauge(name, about);
        for (shown, value) in shown.iter().filter_map(|shown| Some((shown, figure(shown)?))) {
            family.value(&labels(shown), value);
        }
    }
}

fn labels(shown: &Shown) -> [(&'static str, &str); 3] {
    let row = &shown.view.row;
    [("id", row.id.as_str()), ("name", &row.name), ("image", &row.config.image)]
}
