//! The monitor: one small process per running container, and the daemon's side of talking to it.
//!
//! A monitor owns its container's streams, terminal, log, exec sessions, published-port proxies and exit record, so that
//! nothing of these depends on the daemon being alive. It has one thread and one poll loop; no descriptor of it blocks
//! except the log file. `docs/design/0004-monitor.md` tells why it is built like this.
#![forbid(unsafe_code)]

pub mod client;
pub mod proto;

/// Runs as a monitor until the container has ended; called by `gantryd` in a process of its own whose descriptor 3 is the
/// control connection and 4 the listening socket.
pub fn main() -> ! {
    std::process::exit(1)
}
