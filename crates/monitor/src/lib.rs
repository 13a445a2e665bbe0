//! The monitor: one small process per running container, and the daemon's side of talking to it.
//!
//! A monitor owns its container's streams, terminal, log, exec sessions, published-port proxies and exit record, so that
//! nothing of these depends on the daemon being alive. It has one thread and one poll loop; no descriptor of it blocks
//! except the log file. `docs/design/0006-monitor.md` tells why it is built like this.
#![forbid(unsafe_code)]

mod actions;
mod backlog;
mod births;
pub mod client;
mod clock;
mod container;
pub mod counted;
mod detach;
mod input;
mod link;
mod memory;
mod probe;
pub mod proto;
mod proxy;
mod reach;
mod resolver;
mod run;
mod session;
mod spares;
mod viewer;

use runtime::Runtime;
use runtime::builtin::Builtin;
use runtime::cli::Cli;

use clock::now;

pub use client::{Client, Spawned, spawn};
pub use spares::Spares;

/// The name by which a process enters a container, and the `main` that goes with it: a monitor's executable needs both.
pub use runtime::builtin::enter::{NAME as ENTER, main as enter};

use proto::RuntimeChoice;

/// Runs as a monitor until the container has ended; called by `gantryd` in a process of its own whose descriptor 3 is the
/// control connection. All that needs no container is done before the first request is read.
pub fn main() -> ! {
    let _ = sys::spawn::unblock_signals();
    let Ok(control) = sys::spawn::inherited(3) else { std::process::exit(1) };
    // Only for `ps`: the name would be the number of the descriptor that was executed.
    let _ = rustix::thread::set_name(c"gantry-monitor");
    let layout = sys::cgroup::Layout::detect().ok();
    let mut monitor = run::Monitor::new(control, Box::new(move |choice| make_runtime(choice, layout.clone())));
    // Without it the container runs all the same; only a daemon that has to end a monitor which does not listen needs it.
    match sys::argument::Argument::find(1) {
        Ok(argument) => monitor.name = Some(argument),
        Err(error) => tell(format_args!("a monitor cannot show its container's id: {error}")),
    }
    monitor.run();
    std::process::exit(0)
}

fn make_runtime(choice: &RuntimeChoice, layout: Option<sys::cgroup::Layout>) -> Box<dyn Runtime> {
    match choice {
        RuntimeChoice::Builtin => Box::new(Builtin::new(layout)),
        RuntimeChoice::Cli { path, args } => {
            // The container becomes our child when the program that started it ends. (`run` reaps what else does.)
            let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
            Box::new(Cli { path: path.clone(), args: args.clone() })
        }
    }
}

/// Writes a line to standard error, which is the daemon's; it may be gone, and its terminal with it.
fn tell(text: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}
