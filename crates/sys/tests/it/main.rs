//! `sys` against the real kernel. Needs root; fails without.
//!
//! clone3 wants a single-threaded caller, so that this is not a libtest binary: `main` runs every case in a process of its
//! own, in its own mount and network namespace, and prints results as libtest does. Arguments filter by name.

// A test in all but the harness.
#![allow(clippy::unwrap_used)]

use std::process::{Command, ExitCode};

use sys::clone::Flags;
use sys::mount::{Propagation, Reach};

mod cgroups;
mod files;
mod processes;

/// A named test.
type Case = (&'static str, fn());

const ARGUMENT: &str = "--case";

fn cases() -> Vec<Case> {
    [cgroups::CASES, files::CASES, processes::CASES].concat()
}

fn private_namespaces() {
    sys::ns::unshare(Flags::NEWNS | Flags::NEWNET).unwrap();
    sys::mount::set_root_propagation(Reach::Tree, Propagation::Private).unwrap();
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|a| a == ARGUMENT) {
        let name = args.get(1).expect("a name follows");
        let (_, case) = cases().into_iter().find(|(n, _)| n == name).expect("a known case");
        private_namespaces();
        case();
        return ExitCode::SUCCESS;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("these tests need root");
        return ExitCode::FAILURE;
    }
    if args.iter().any(|a| a == "--list") {
        cases().iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = args.iter().filter(|a| !a.starts_with('-')).collect();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|f| name.contains(f.as_str()));
    let own = std::env::current_exe().expect("own path");
    let mut failed = Vec::new();
    for (name, _) in cases().into_iter().filter(|(n, _)| wanted(n)) {
        let status = Command::new(&own).args([ARGUMENT, name]).status().expect("own program runs");
        println!("test {name} ... {}", if status.success() { "ok" } else { "FAILED" });
        if !status.success() {
            failed.push(name);
        }
    }
    println!("\nfailed: {failed:?}");
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
