//! The system's clocks.

use std::time::Duration;

use model::clock::Clock;
use model::time::Timestamp;

/// `CLOCK_REALTIME`.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl System {
    /// Nanoseconds since 1970-01-01T00:00:00Z.
    pub fn unix_nanos(self) -> i64 {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        t.tv_sec * 1_000_000_000 + t.tv_nsec
    }
}

/// Processor time that this process has used (`CLOCK_PROCESS_CPUTIME_ID`).
pub fn process_time() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(t.tv_sec.cast_unsigned(), u32::try_from(t.tv_nsec).unwrap_or_default())
}

impl Clock for System {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_nanos(self.unix_nanos())
    }
}
