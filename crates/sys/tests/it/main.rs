//! `sys` against the real kernel, every case in its own mount and network namespace. Needs root; fails without.

// A test in all but the harness.
#![allow(clippy::unwrap_used)]

use std::process::ExitCode;

use cases::Case;
use sys::clone::Flags;
use sys::mount::{Propagation, Reach};

mod cgroups;
mod files;
mod processes;
mod steering;

fn private_namespaces() {
    sys::ns::unshare(Flags::NEWNS | Flags::NEWNET).unwrap();
    sys::mount::set_root_propagation(Reach::Tree, Propagation::Private).unwrap();
}

fn main() -> ExitCode {
    cases::run(&[cgroups::CASES, files::CASES, processes::CASES, steering::CASES].concat(), private_namespaces)
}
