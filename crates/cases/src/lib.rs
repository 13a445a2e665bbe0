//! Test programs whose every case runs in a process of its own.
//!
//! libtest runs tests as threads of one process. Some cannot be run like that: clone3 wants a caller with one thread, and
//! whoever changes its namespaces or loads a seccomp filter does it for good. Such a program (`harness = false`) hands its
//! cases to [`run`], which runs each in the program itself and prints results as libtest does, the closing line included.
//! Arguments filter by name; `--list` names the cases.

#![forbid(unsafe_code)]

use std::os::unix::fs::MetadataExt;
use std::process::{Command, ExitCode};

/// A named test; it panics when it fails.
pub type Case = (&'static str, fn());

/// The argument that makes the program run one case.
pub const CASE: &str = "--case";

/// The `main` of a test program: runs the cases that the arguments name, each after `prepare`. Needs root, and fails
/// without.
#[must_use]
pub fn run(cases: &[Case], prepare: fn()) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some(CASE) => {
            let name = args.get(1).expect("a name follows");
            let (_, case) = cases.iter().find(|(known, _)| known == name).expect("a known case");
            prepare();
            case();
            return ExitCode::SUCCESS;
        }
        Some("--list") => {
            cases.iter().for_each(|(name, _)| println!("{name}: test"));
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    if std::fs::metadata("/proc/self").map_or(0, |own| own.uid()) != 0 {
        eprintln!("these tests need root");
        return ExitCode::FAILURE;
    }
    let filters: Vec<&str> = args.iter().map(String::as_str).filter(|word| !word.starts_with('-')).collect();
    let passed = |name: &str| {
        let own = std::env::current_exe().expect("a running program has a path");
        let passed = Command::new(own).args([CASE, name]).status().is_ok_and(|status| status.success());
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        passed
    };
    let wanted = cases.iter().map(|(name, _)| *name).filter(|name| selects(&filters, name));
    let (passed, failed): (Vec<&str>, Vec<&str>) = wanted.partition(|name| passed(name));
    let result = if failed.is_empty() { "ok" } else { "FAILED" };
    println!("\ntest result: {result}. {} passed; {} failed; 0 ignored\n", passed.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// As libtest: a case runs if its name contains a filter, or if there is none.
fn selects(filters: &[&str], name: &str) -> bool {
    filters.is_empty() || filters.iter().any(|filter| name.contains(filter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_parts_of_names() {
        assert!(selects(&[], "a::b"));
        assert!(selects(&["x", "::b"], "a::b"));
        assert!(!selects(&["x", "y"], "a::b"));
    }
}
