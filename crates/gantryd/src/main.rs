//! `gantryd`: one executable, six programs.
//!
//! By its own name (or `dockerd`) the daemon, or a command that asks it something; as `gantry-monitor` a container's monitor;
//! as `gantry-volumes` what keeps the mounts of volumes; as `gantry-sandbox` what becomes a program of the host that a build needs;
//! as `gantry-enter` the short life of what makes a process in a running container; as `gantry-init` or `docker-init` PID 1 of
//! a container started with `--init`. Which one it is must be known before anything else is set
//! up: a monitor has no async runtime and an init next to no memory.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

#[allow(clippy::disallowed_methods, reason = "a command serves nobody")]
mod command;
#[allow(clippy::disallowed_methods, reason = "read on the main thread, which serves nobody")]
mod config;
mod control;
mod daemon;
#[cfg(debug_assertions)]
#[allow(clippy::disallowed_methods, reason = "faults that a test asks for")]
mod faults;
mod listen;
mod mask;
mod pidfile;
mod signals;
mod upgrade;
mod wiring;

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use config::Program;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    let name = Path::new(&program).file_name().unwrap_or(OsStr::new("gantryd")).to_string_lossy().into_owned();
    match name.as_str() {
        "gantry-monitor" => monitor::main(),
        monitor::ENTER => monitor::enter(),
        volume::keeper::NAME => volume::keeper::main(),
        build::sources::sandbox::NAME => build::sources::sandbox::main(),
        "gantry-init" | "docker-init" => {
            let command: Vec<_> = arguments.collect();
            let code = runtime::init::main(&command);
            ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
        }
        _ => {
            let arguments: Vec<String> = arguments.map(|a| a.to_string_lossy().into_owned()).collect();
            command::run(&name, &arguments).unwrap_or_else(|| {
                let commands = if name == "dockerd" { String::new() } else { command::list(&name) };
                daemon::main(Program { name: &name, commands: &commands }, arguments)
            })
        }
    }
}
