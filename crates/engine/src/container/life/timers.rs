//! What a container's actor will do at a later time: at most one time of each kind.

use std::collections::BTreeMap;
use std::future::pending;

use tokio::time::{Instant, sleep_until};

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// The time to stop in is over: SIGKILL is due.
    Stop,
    /// SIGKILL was sent and the container still lives.
    Kill,
    /// The monitor has not answered a ping.
    Ping,
    /// A restart by policy is due.
    BackOff,
    /// A start may be over the limit of its step, or is to be given up.
    Launch,
    /// The monitor still removes what the run had.
    Cleanup,
    /// A fact that could not be committed is tried again.
    Record,
    /// A probe of the health check is due.
    Health,
    /// The monitor has told no result of a probe.
    Probe,
    /// What is let go or removed takes longer than anybody should wait.
    Procedure,
}

/// The times that are set.
#[derive(Debug, Default)]
pub struct Timers(BTreeMap<Timer, Instant>);

impl Timers {
    /// Sets one; the time that it had is forgotten.
    pub fn set(&mut self, timer: Timer, at: Instant) {
        self.0.insert(timer, at);
    }

    /// Brings one that is set forward.
    pub fn hasten(&mut self, timer: Timer, at: Instant) {
        self.0.entry(timer).and_modify(|due| *due = at.min(*due));
    }

    /// Forgets one.
    pub fn cancel(&mut self, timer: Timer) {
        self.0.remove(&timer);
    }

    /// Whether it is set.
    pub fn has(&self, timer: Timer) -> bool {
        self.0.contains_key(&timer)
    }

    /// Resolves when the next one is due, which is forgotten then. Cancel-safe.
    pub async fn next(&mut self) -> Timer {
        let Some((timer, at)) = self.0.iter().map(|(timer, at)| (*timer, *at)).min_by_key(|(_, at)| *at) else {
            return pending().await;
        };
        sleep_until(at).await;
        self.0.remove(&timer);
        timer
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_earliest_is_first_and_each_kind_is_set_once() {
        let mut timers = Timers::default();
        let at = |seconds| Instant::now() + Duration::from_secs(seconds);
        timers.set(Timer::Stop, at(9));
        timers.set(Timer::BackOff, at(2));
        timers.set(Timer::Stop, at(1));
        timers.hasten(Timer::BackOff, at(3));
        timers.hasten(Timer::Launch, at(0));
        timers.set(Timer::Ping, at(0));
        timers.cancel(Timer::Ping);
        assert_eq!((timers.next().await, timers.next().await), (Timer::Stop, Timer::BackOff));
        assert!(!timers.has(Timer::Launch));
        assert!(tokio::time::timeout(Duration::from_secs(100), timers.next()).await.is_err());
    }
}
