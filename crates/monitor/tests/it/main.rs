//! Monitors as processes of their own, around real containers of static busybox, every case in its own mount and network
//! namespace. Needs root; fails without.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, dead_code)] // a test may; the fixture has more than is needed here

use std::process::ExitCode;

use monitor as api;

mod daemon;
#[path = "../../../runtime/tests/it/fixture.rs"]
mod fixture;
mod life;

/// Makes the program a daemon that will be killed.
const DAEMON: &str = "--daemon";

fn main() -> ExitCode {
    if std::env::args().next().as_deref() == Some(monitor::ENTER) {
        monitor::enter();
    }
    if let [flag, directory] = std::env::args().skip(1).collect::<Vec<_>>().as_slice()
        && flag == DAEMON
    {
        life::doomed_daemon(directory.as_ref());
    }
    cases::run(life::CASES, fixture::private_namespaces)
}
