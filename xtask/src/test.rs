//! `cargo xtask test`: everything that must hold, in the order in which it is cheapest to fail.
//!
//! - Steps: programs → formatting → lints → tidy → build → tests (unit, kernel, crash, client).
//! - A failing step does not stop the later ones, except the build.
//! - The last line is `N passed, N failed`; an ignored test counts as failed, because nothing may be skipped silently.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::{compose, firewalls, libraries, requirements, setup, shell, tidy};

/// Results so far.
#[derive(Default)]
pub struct Tally {
    passed: u64,
    failed: u64,
    faults: Vec<String>,
    /// Names of the tests that passed.
    succeeded: BTreeSet<String>,
    /// Test programs that came to their end.
    pub programs: usize,
}

impl Tally {
    /// Takes a line that a test program has printed.
    pub fn read(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("test ").and_then(|l| l.strip_suffix(" ... ok")) {
            self.succeeded.insert(name.into());
        }
        if let Some(name) = line.strip_prefix("test ").and_then(|l| l.strip_suffix(" ... FAILED")) {
            self.faults.push(format!("test {name}"));
        }
        if let Some(counts) = result_line(line) {
            self.programs += 1;
            self.passed += counts.passed;
            self.failed += counts.failed + counts.ignored;
            if counts.ignored > 0 {
                self.faults.push(format!("{} ignored tests", counts.ignored));
            }
        }
    }

    /// Tests that ran.
    pub fn counted(&self) -> u64 {
        self.passed + self.failed
    }

    /// The closing lines; whether all is well.
    pub fn finish(&self, task: &str) -> Result<(), String> {
        if !self.faults.is_empty() {
            println!("\nfailed:");
            self.faults.iter().for_each(|fault| println!("  {fault}"));
        }
        println!("\n{} passed, {} failed", self.passed, self.failed);
        if self.failed == 0 && self.faults.is_empty() { Ok(()) } else { Err(format!("{task} failed")) }
    }

    fn step(&mut self, name: &str, result: Result<(), String>) {
        if let Err(why) = result {
            self.failed += 1;
            self.faults.push(format!("{name}: {why}"));
        }
    }
}

/// Runs all steps; `words` go to the tests as a filter.
pub fn run(words: &[String]) -> Result<(), String> {
    shell::require_root("cargo xtask test")?;
    let mut tally = Tally::default();
    heading("programs");
    setup::programs()?;
    libraries::all()?;
    compose::all()?;
    firewalls::all()?;
    if words.is_empty() {
        heading("formatting");
        tally.step("formatting", shell::run(&mut shell::cargo(&["fmt", "--all", "--check"])));
        heading("lints");
        let clippy = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
        tally.step("lints", shell::run(&mut shell::cargo(&clippy)));
        heading("tidy");
        tally.step("tidy", tidy::run(&[]));
    }
    heading("build");
    shell::run(&mut shell::cargo(&["build", "-p", "gantryd", "-p", "testkit", "--bins"]))?;
    heading("tests");
    tests(words, &mut tally)?;
    if words.is_empty() {
        tally.step("requirements", requirements::unmet(&tally.succeeded));
    }
    tally.step("left behind", leftovers());
    tally.finish("cargo xtask test")
}

fn heading(name: &str) {
    println!("\n== {name}");
}

fn tests(words: &[String], tally: &mut Tally) -> Result<(), String> {
    let mut args = vec!["test", "--workspace", "--no-fail-fast", "--"];
    args.extend(words.iter().map(String::as_str));
    // Tests interrupt programs; what runs in the background of a script has inherited that this is ignored.
    let cargo = shell::cargo(&args);
    let mut cargo_test = Command::new("env");
    cargo_test.arg("--default-signal").arg(cargo.get_program()).args(cargo.get_args()).current_dir(shell::root());
    let faults = tally.faults.len();
    let succeeded = shell::watch(&mut cargo_test, |line| tally.read(line))?;
    if !succeeded && tally.faults.len() == faults {
        tally.step("tests", Err("a test program did not build or died".into()));
    }
    Ok(())
}

/// Counts of one test program.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// Reads `test result: ok. 3 passed; 0 failed; 0 ignored; …`.
fn result_line(line: &str) -> Option<Counts> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |word: &str| {
        let part = counts.split(';').find(|part| part.trim().ends_with(word))?;
        part.split_whitespace().next()?.parse().ok()
    };
    Some(Counts { passed: count("passed")?, failed: count("failed")?, ignored: count("ignored")? })
}

/// Cgroups of test processes that no longer exist.
fn leftovers() -> Result<(), String> {
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    let roots = hierarchies.chain([Path::new("/sys/fs/cgroup").to_path_buf()]);
    let orphan = |path: &Path| {
        let name = path.file_name()?.to_str()?;
        let pid = name.strip_prefix("gantry-test-")?.split('-').next()?;
        (!Path::new("/proc").join(pid).exists()).then(|| path.display().to_string())
    };
    let entries = roots.flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten());
    let found: Vec<String> = entries.filter_map(|entry| orphan(&entry.path())).collect();
    if found.is_empty() { Ok(()) } else { Err(format!("cgroups without an owner: {}", found.join(" "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_counted() {
        let line = "test result: FAILED. 11 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.25s";
        assert_eq!(result_line(line), Some(Counts { passed: 11, failed: 2, ignored: 1 }));
        assert_eq!(result_line("test a::b ... ok"), None);
    }
}
