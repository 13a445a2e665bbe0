//! The project's own tasks: `cargo xtask tidy | test | soak | vm | demo | bench | coverage`.
//!
//! Each task is one file. They need nothing but cargo and, for tests, root; what else is missing they install or name.

#![forbid(unsafe_code)]

mod compose;
mod demo;
mod firewalls;
mod libraries;
mod measure;
mod requirements;
mod routes;
mod setup;
mod shell;
mod soak;
mod test;
mod tidy;
mod vm;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask TASK

  tidy [--update|--list]  the repository's own law: layers, sizes, names, licences, measures of structure
  test [FILTER]           everything: programs, formatting, lints, tidy, all tests
  soak [NAME ...]         the full forms of long tests
  vm [systemd|net|volumes] [FILTER]
                          tests that depend on the version of cgroups, on an emulated machine with version 2 alone, or with
                          systemd as its first program; those of links and protocols that a kernel may lack; volumes by
                          quotas of projects, NFS and CIFS
  demo                    a container's output on the screen, from nothing
  bench [images|life|net|volumes] [--quick] [--only PART] [--vs unix://SOCKET]
                          speed and memory against the kernel's floor and another engine; of images; of containers over
                          their lives; of networks; of volumes
  coverage                routes of the API: which are served; requirements: which are proven";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let rest = words.get(1..).unwrap_or_default();
    let result = match words.first().map(String::as_str) {
        Some("tidy") => tidy::run(rest),
        Some("test") => test::run(rest),
        Some("soak") => soak::run(rest),
        Some("vm") => vm::run_tests(rest),
        Some("demo") => demo::run(),
        Some("bench") => measure::run(rest),
        Some("coverage") => routes::run().and_then(|()| requirements::run()),
        _ => Err(USAGE.to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
