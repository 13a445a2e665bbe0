//! Probes of health checks: an exec whose output and time are bounded, or a connection from inside the sandbox ([`crate::reach`]).
//!
//! The monitor tells the result by itself, and keeps the newest for a daemon that was not there: [`Results`].

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use model::health::{LOG_ENTRIES, NO_EXIT_CODE, OUTPUT_BYTES};
use runtime::Process;
use rustix::process::{Pid, Signal, kill_process_group, pidfd_send_signal};

use crate::clock;
use crate::proto::{Exit, Probed};

/// How long a probe that was killed may take to end before its result is told all the same.
const DEATH_WAIT: Duration = Duration::from_secs(2);

/// Marks output that was cut off, as the reference does.
const CUT: &[u8] = b"...";

/// An exec that is a probe.
#[derive(Debug)]
pub struct Probe {
    output: Vec<u8>,
    /// More was written than is kept.
    is_cut: bool,
    started_at: i64,
    deadline: Instant,
    killed: Option<Instant>,
    told: bool,
}

impl Probe {
    /// One whose program runs from now on.
    pub fn begin(timeout: Duration) -> Probe {
        // More seconds than the clock has are as good as for ever.
        let now = Instant::now();
        let deadline = now.checked_add(timeout).unwrap_or_else(|| now + Duration::from_secs(u32::MAX.into()));
        Probe { output: Vec::new(), is_cut: false, started_at: clock::now(), deadline, killed: None, told: false }
    }

    /// When it was started, in unix nanoseconds.
    pub fn started_at(&self) -> i64 {
        self.started_at
    }

    /// Keeps the first bytes of its output.
    pub fn take(&mut self, bytes: &[u8]) {
        let kept = bytes.len().min(OUTPUT_BYTES - self.output.len());
        self.output.extend_from_slice(&bytes[..kept]);
        self.is_cut |= kept < bytes.len();
    }

    /// When [`Probe::check`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        match self.killed {
            None => Some(self.deadline),
            Some(killed) => (!self.told).then_some(killed + DEATH_WAIT),
        }
    }

    /// Kills one that has run out of time, with what it has started. The result of one that does not die either.
    pub fn check(&mut self, id: &str, process: &Process, now: Instant) -> Option<Probed> {
        match self.killed {
            None if now >= self.deadline => {
                self.killed = Some(now);
                kill(process);
                None
            }
            Some(killed) if now >= killed + DEATH_WAIT => {
                self.result(id, &Exit { at: clock::now(), ..Exit::default() })
            }
            _ => None,
        }
    }

    /// Kills it; its result is not told.
    pub fn give_up(&mut self, process: &Process) {
        self.told = true;
        self.killed.get_or_insert_with(Instant::now);
        kill(process);
    }

    /// The result at its end; `None`: it was told before.
    pub fn result(&mut self, id: &str, exit: &Exit) -> Option<Probed> {
        if std::mem::replace(&mut self.told, true) {
            return None;
        }
        let mut output = std::mem::take(&mut self.output);
        if self.is_cut {
            output.extend_from_slice(CUT);
        }
        let is_late = self.killed.is_some();
        Some(Probed {
            id: id.to_owned(),
            code: if is_late { NO_EXIT_CODE } else { exit.code },
            is_late,
            output,
            started_at: self.started_at,
            ended_at: exit.at,
        })
    }
}

/// Kills a process that has not been reaped and all of its group: no other group can have its number meanwhile.
fn kill(process: &Process) {
    if let Some(leader) = Pid::from_raw(process.pid) {
        // There is none where the runtime has put it into another's.
        let _ = kill_process_group(leader, Signal::KILL);
    }
    // It may have ended just now.
    let _ = pidfd_send_signal(process.pidfd.as_fd(), Signal::KILL);
}

/// The newest results, for a daemon that connects later.
#[derive(Debug, Default)]
pub struct Results(VecDeque<Probed>);

impl Results {
    /// Keeps one.
    pub fn push(&mut self, result: Probed) {
        if self.0.len() == LOG_ENTRIES {
            self.0.pop_front();
        }
        self.0.push_back(result);
    }

    /// Oldest first.
    pub fn all(&self) -> impl Iterator<Item = &Probed> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32) -> Exit {
        Exit { code, at: 5, ..Exit::default() }
    }

    #[test]
    fn output_is_bounded_and_told_once() {
        let mut probe = Probe::begin(Duration::MAX);
        for _ in 0..100 {
            probe.take(&[b'x'; 100]);
        }
        let result = probe.result("e", &exit(3)).expect("a result");
        assert_eq!(result.output.len(), OUTPUT_BYTES + CUT.len());
        assert!(result.output.ends_with(b"x..."));
        assert_eq!((result.code, result.is_late, result.ended_at), (3, false, 5));
        assert_eq!(probe.result("e", &exit(3)), None);
        let mut exact = Probe::begin(Duration::MAX);
        exact.take(&[b'x'; OUTPUT_BYTES]);
        assert_eq!(exact.result("e", &exit(0)).expect("a result").output.len(), OUTPUT_BYTES);
    }

    #[test]
    fn the_newest_results_are_kept() {
        let mut results = Results::default();
        for code in 0..9 {
            results.push(Probed { code, ..Probed::default() });
        }
        assert_eq!(results.all().map(|one| one.code).collect::<Vec<_>>(), [4, 5, 6, 7, 8]);
    }
}
