//! Monitors as processes of their own, around real containers of static busybox. Needs root; fails without.
//!
//! `main` runs every case in a process of its own, in its own mount and network namespace, and prints results as libtest
//! does. Arguments filter by name.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, dead_code)] // a test may; the fixture has more than is needed here

use std::process::{Command, ExitCode};

use monitor as api;

mod cases;
mod daemon;
#[path = "../../../runtime/tests/it/fixture.rs"]
mod fixture;

const CASE: &str = "--case";
const DAEMON: &str = "--daemon";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some(CASE) => return run_case(&args[1]),
        Some(DAEMON) => cases::doomed_daemon(args[1].as_ref()),
        _ => {}
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("these tests need root");
        return ExitCode::FAILURE;
    }
    if args.iter().any(|a| a == "--list") {
        cases::CASES.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = args.iter().filter(|a| !a.starts_with('-')).collect();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|f| name.contains(f.as_str()));
    let mut failed = Vec::new();
    for (name, _) in cases::CASES.iter().filter(|(name, _)| wanted(name)) {
        let status = Command::new("/proc/self/exe").args([CASE, name]).status().unwrap();
        println!("test {name} ... {}", if status.success() { "ok" } else { "FAILED" });
        if !status.success() {
            failed.push(name);
        }
    }
    println!("\nfailed: {failed:?}");
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_case(name: &str) -> ExitCode {
    let (_, case) = cases::CASES.iter().find(|(known, _)| *known == name).expect("a known case");
    fixture::private_namespaces();
    case();
    ExitCode::SUCCESS
}
