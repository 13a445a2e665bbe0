//! Signals as requests: reload, dump, end, upgrade.

use std::path::PathBuf;

use model::Result;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// SIGHUP.
    Reload,
    /// SIGUSR1.
    Dump,
    /// SIGTERM or SIGINT.
    End,
    /// A command: another executable goes on.
    Upgrade(PathBuf),
}

/// Signals to end that are taken with patience; with one more the daemon ends at once, as the reference does.
pub const FORCE_COUNT: u32 = 3;

/// The signals a daemon listens to.
pub struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    user: Signal,
}

impl Signals {
    /// Begins to listen; SIGPIPE is ignored by Rust's runtime already.
    pub fn new() -> Result<Signals> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            user: signal(SignalKind::user_defined1())?,
        })
    }

    /// Resolves when, after the first, so many signals to end have come that whoever sends them does not want to wait: the
    /// exit status of a daemon that ends at once, 128 and the signal's number.
    pub async fn insist(&mut self) -> i32 {
        let mut count = 1;
        loop {
            let kind = tokio::select! {
                _ = self.hangup.recv() => continue,
                _ = self.terminate.recv() => SignalKind::terminate(),
                _ = self.interrupt.recv() => SignalKind::interrupt(),
            };
            if count == FORCE_COUNT {
                return 128 + kind.as_raw_value();
            }
            count += 1;
            tracing::info!(signal = kind.as_raw_value(), "ending already");
        }
    }

    /// The next request; `upgrade` resolves when another executable is to go on.
    pub async fn next(&mut self, upgrade: impl Future<Output = PathBuf>) -> Request {
        tokio::select! {
            executable = upgrade => Request::Upgrade(executable),
            _ = self.hangup.recv() => Request::Reload,
            _ = self.user.recv() => Request::Dump,
            _ = self.terminate.recv() => Request::End,
            _ = self.interrupt.recv() => Request::End,
        }
    }
}
