//! A client of a run's streams, as the daemon holds it before the monitor does.

use std::os::fd::OwnedFd;

use tokio::sync::OwnedSemaphorePermit;

use monitor::proto;

/// A client that is (or waits to be) attached.
#[derive(Debug)]
pub struct Attached {
    /// The client's socket.
    pub socket: OwnedFd,
    /// Bytes the client sent behind its request.
    pub prefix: Vec<u8>,
    /// Feed the container's stdin.
    pub stdin: bool,
    /// Receive stdout.
    pub stdout: bool,
    /// Receive stderr.
    pub stderr: bool,
    /// 8-byte frame heads.
    pub multiplex: bool,
    /// Key codes that detach; empty for none.
    pub detach_keys: Vec<u8>,
    /// Its place among those that wait for a start; free again when it is handed to the monitor. A session of exec needs none.
    pub place: Option<OwnedSemaphorePermit>,
}

impl Attached {
    /// Itself, unless it has no stream to wait for: such a client is let go at once.
    pub fn with_streams(self) -> Option<Attached> {
        Some(self).filter(|client| client.stdin || client.stdout || client.stderr)
    }

    /// The client in the protocol's words; its socket travels beside it.
    pub fn request(&self) -> proto::Attach {
        proto::Attach {
            stdin: self.stdin,
            stdout: self.stdout,
            stderr: self.stderr,
            multiplex: self.multiplex,
            detach_keys: self.detach_keys.clone(),
            prefix: self.prefix.clone(),
        }
    }
}
