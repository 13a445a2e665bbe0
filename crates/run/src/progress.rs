//! How far a start has come, seen by the thread that makes it and by whoever waits for it.
//!
//! The thread enters one [`Step`] after the other; each has a limit of time. A start that is over its limit, or that
//! nobody wants any more, is cancelled: its monitor is asked to take it back, and killed when it does not, and the next
//! step is refused. A thread
//! that hangs in the kernel (a path on a dead file system) notices that later; until then it holds nothing but itself
//! and what it has made, which it takes back. Once a run is being recorded it cannot be given up any more.

use std::sync::Arc;
use std::time::Duration;

use model::fault::Faults;
use model::lock::{Mutex, MutexGuard};
use model::{Error, Result};
use monitor::Spawned;
use monitor::proto::Request;
use runtime::Scope;
use rustix::process::{Signal, pidfd_send_signal};
use tokio::time::Instant;

/// The steps of a start, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Clients that have announced themselves connect.
    Clients,
    /// The paths, devices and other containers that the specification names are looked up.
    Specification,
    /// The drivers of its volumes mount them.
    Volumes,
    /// The directory of the run is made.
    Directory,
    /// The network is joined.
    Network,
    /// `hosts`, `hostname` and `resolv.conf` are written.
    Files,
    /// A monitor is given the specification.
    Monitor,
    /// The monitor starts the first process.
    Process,
    /// The run is recorded.
    Record,
    /// The process mounts its file systems and executes its program.
    Program,
    /// The monitor takes over published ports.
    Ports,
}

impl Step {
    /// All of them.
    pub const ALL: [Step; 11] = [
        Step::Clients,
        Step::Specification,
        Step::Volumes,
        Step::Directory,
        Step::Network,
        Step::Files,
        Step::Monitor,
        Step::Process,
        Step::Record,
        Step::Program,
        Step::Ports,
    ];

    /// The name of its point in [`Faults`].
    pub fn name(self) -> &'static str {
        match self {
            Step::Clients => "clients",
            Step::Specification => "specification",
            Step::Volumes => "volumes",
            Step::Directory => "directory",
            Step::Network => "network",
            Step::Files => "files",
            Step::Monitor => "monitor",
            Step::Process => "process",
            Step::Record => "record",
            Step::Program => "program",
            Step::Ports => "ports",
        }
    }

    /// What a start in this step waits for, in an error text.
    fn waits_for(self) -> &'static str {
        match self {
            Step::Clients => "the clients that are being attached",
            Step::Specification => "the sources of its mounts and its devices to be found",
            Step::Volumes => "its volumes to be mounted",
            Step::Directory => "the directory of its monitor to be made",
            Step::Network => "its network to be set up",
            Step::Files => "its hosts, hostname and resolv.conf to be written",
            Step::Monitor => "its monitor to be started",
            Step::Process => "its monitor to start its first process",
            Step::Record => "the metadata store to record the run",
            Step::Program => "its file systems to be mounted and its program to be executed",
            Step::Ports => "its monitor to take over its published ports",
        }
    }

    /// How long it may take.
    pub fn limit(self) -> Duration {
        match self {
            Step::Volumes | Step::Process | Step::Record | Step::Program => Duration::from_secs(120),
            _ => Duration::from_secs(60),
        }
    }
}

/// A start under way; shared by the thread that makes it and those who wait for it.
#[derive(Debug)]
pub struct Progress {
    state: Mutex<State>,
    faults: Faults,
}

#[derive(Debug)]
struct State {
    step: Step,
    since: Instant,
    /// Why it is given up.
    cancelled: Option<Error>,
    /// The run is being recorded, or is.
    recorded: bool,
    monitor: Option<Arc<Spawned>>,
}

impl Progress {
    /// At the first step.
    pub fn begin(faults: Faults) -> Progress {
        let state =
            State { step: Step::Clients, since: Instant::now(), cancelled: None, recorded: false, monitor: None };
        Progress { state: Mutex::new(state), faults }
    }

    /// The rule of a test, or none.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The step before is done and `step` begins. Errors: the start was cancelled; a test has made the step before fail.
    pub fn enter(&self, step: Step) -> Result<()> {
        let mut state = self.state();
        let before = std::mem::replace(&mut state.step, step);
        state.since = Instant::now();
        if let Some(reason) = &state.cancelled {
            return Err(reason.copy());
        }
        drop(state);
        self.faults.pass("start", before.name())
    }

    /// The last step is done. Errors as [`Progress::enter`].
    pub fn finish(&self) -> Result<()> {
        let state = self.state();
        if let Some(reason) = &state.cancelled {
            return Err(reason.copy());
        }
        let last = state.step;
        drop(state);
        self.faults.pass("start", last.name())
    }

    /// From now on the run is recorded: it can be ended, but not be given up as if it had never been. Errors: it was
    /// cancelled before.
    pub fn record(&self) -> Result<()> {
        self.enter(Step::Record)?;
        let mut state = self.state();
        if let Some(reason) = &state.cancelled {
            return Err(reason.copy());
        }
        state.recorded = true;
        Ok(())
    }

    /// The monitor of the start, which is asked to take it back when the start is cancelled. Errors: it was cancelled before.
    pub fn has_monitor(&self, monitor: Arc<Spawned>) -> Result<()> {
        let mut state = self.state();
        if let Some(reason) = &state.cancelled {
            return Err(reason.copy());
        }
        state.monitor = Some(monitor);
        Ok(())
    }

    /// When the step under way is over its limit.
    pub fn deadline(&self) -> Instant {
        let state = self.state();
        state.since + state.step.limit()
    }

    /// Gives the start up, for want of time or because somebody has asked for its end.
    pub fn cancel(&self, cause: Cause) -> Cancelled {
        let mut state = self.state();
        let (waited, what) = (state.since.elapsed().as_secs(), state.step.waits_for());
        state.cancelled = Some(match cause {
            Cause::Deadline => Error::system(format!("the start was given up after {waited} s of waiting for {what}")),
            Cause::Request => Error::conflict(format!("the start was cancelled while it waited for {what}")),
        });
        let Some(monitor) = &state.monitor else { return Cancelled::BeforeMonitor };
        // It answers as to every start that fails. One that does not take it is killed in time.
        let kill = Request::Signal { exec: None, signal: model::signal::KILL, scope: Scope::All };
        if let Err(error) = monitor.client.send(0, &kill, &[]) {
            tracing::debug!(%error, "a start was not cancelled by its monitor");
        }
        Cancelled::ByMonitor
    }

    /// Kills the monitor of a start; false: there is none any more.
    pub fn kill_monitor(&self) -> bool {
        let monitor = self.state().monitor.take();
        // It may have ended already.
        monitor.map(|monitor| pidfd_send_signal(&monitor.pidfd, Signal::KILL)).is_some()
    }

    /// Forgets the monitor: its end is the caller's concern from now on.
    pub fn release_monitor(&self) {
        self.state().monitor = None;
    }

    /// Why the start is given up, if it is.
    pub fn cancelled(&self) -> Option<Error> {
        self.state().cancelled.as_ref().map(Error::copy)
    }

    /// Whether a thread that does not come back may be left alone: it has recorded nothing and will not.
    pub fn may_be_abandoned(&self) -> bool {
        let state = self.state();
        state.cancelled.is_some() && !state.recorded
    }

    /// What it waits for now, for an error text.
    pub fn waits_for(&self) -> &'static str {
        self.state().step.waits_for()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// Who takes a cancelled start back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// The thread, at its next step.
    BeforeMonitor,
    /// The monitor was asked to, for which the thread waits.
    ByMonitor,
}

/// Why a start is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A step is over its limit.
    Deadline,
    /// A client has asked for the container's end.
    Request,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_start_goes_no_further() {
        let progress = Progress::begin(Faults::default());
        progress.enter(Step::Network).unwrap();
        progress.cancel(Cause::Request);
        let error = progress.enter(Step::Files).unwrap_err();
        assert_eq!(error.message(), "the start was cancelled while it waited for its network to be set up");
        assert!(progress.may_be_abandoned());
        assert!(progress.record().is_err() && progress.finish().is_err());
    }

    #[test]
    fn what_is_recorded_is_not_abandoned() {
        let progress = Progress::begin(Faults::default());
        progress.record().unwrap();
        progress.cancel(Cause::Deadline);
        assert!(!progress.may_be_abandoned());
    }

    #[test]
    fn every_step_has_a_point() {
        for pair in Step::ALL.windows(2) {
            let progress = Progress::begin(Faults::new(move |point| point == format!("start.{}", pair[0].name())));
            progress.state().step = pair[0];
            assert!(progress.enter(pair[1]).is_err(), "{pair:?}");
        }
    }
}
