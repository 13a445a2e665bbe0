//! How many probes of health checks this daemon has made, for the metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Probes of all containers since the daemon's start.
#[derive(Debug, Default)]
pub struct ProbeCounts {
    begun: AtomicU64,
    failed: AtomicU64,
    started: AtomicU64,
    /// Nanoseconds.
    starting: AtomicU64,
}

/// What was counted until now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Probes {
    /// Those that were due and were begun.
    pub begun: u64,
    /// Those that were not passed: failed, too late, or impossible to make.
    pub failed: u64,
    /// Those whose process, or connection, came about.
    pub started: u64,
    /// How long that took, all together.
    pub starting: Duration,
}

impl ProbeCounts {
    /// One is due.
    pub fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// One runs, after so long.
    pub fn start(&self, after: Duration) {
        self.started.fetch_add(1, Ordering::Relaxed);
        self.starting.fetch_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// One was not passed.
    pub fn fail(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts now.
    pub fn read(&self) -> Probes {
        let value = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Probes {
            begun: value(&self.begun),
            failed: value(&self.failed),
            started: value(&self.started),
            starting: Duration::from_nanos(value(&self.starting)),
        }
    }
}
