//! The built-in runtime against the real kernel, every case in its own mount and network namespace. Needs root; fails
//! without.

#![forbid(unsafe_code)]
// A test in all but the harness.
#![allow(clippy::unwrap_used)]

use std::process::ExitCode;

use cases::Case;
use runtime::builtin::enter;

mod basics;
mod bench;
mod built;
mod escape;
mod execs;
mod fixture;
mod limits;
mod mounts;
mod security;
mod unified;
mod views;

/// Makes the program wait until this file is there, for a test that executes it inside a container.
const IDLE: &str = "--idle";
const AWAITED: &str = "/tmp/opened";

fn main() -> ExitCode {
    if std::env::args().next().as_deref() == Some(enter::NAME) {
        enter::main();
    }
    if std::env::args().nth(1).is_some_and(|first| first == IDLE) {
        let pause = std::time::Duration::from_millis(10);
        let come = (0..6000).any(|_| std::path::Path::new(AWAITED).exists() || (std::thread::sleep(pause), false).1);
        return if come { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let all = [
        basics::CASES,
        execs::CASES,
        mounts::CASES,
        security::CASES,
        limits::CASES,
        escape::CASES,
        unified::CASES,
        views::CASES,
        built::CASES,
        bench::CASES,
    ];
    cases::run(&all.concat(), fixture::private_namespaces)
}
