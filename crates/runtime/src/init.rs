//! PID 1 of containers started with `--init`.
//!
//! Runs inside the container, as a single thread without privileges of its own: starts the container's program, passes every
//! signal on to it, reaps whatever orphans the container leaves behind, and ends with the program's exit code. It holds no
//! file, allocates nothing after the start, and calls only what the default seccomp profile allows.

use std::ffi::OsString;
use std::io;
use std::process::Command;

use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};
use sys::signal::{self, Blocked};

use crate::error::{EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND};

/// A shell's offset of exit codes of processes killed by a signal.
const SIGNALLED: i32 = 128;
/// The init itself failed.
const EXIT_FAILED: i32 = 1;

/// Runs `args` (program and arguments, a leading `--` is skipped) and returns the exit code.
pub fn main(args: &[OsString]) -> i32 {
    let args = if args.first().is_some_and(|a| a == "--") { &args[1..] } else { args };
    match run(args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("docker-init: {error}");
            EXIT_FAILED
        }
    }
}

fn run(args: &[OsString]) -> io::Result<i32> {
    let Some((program, rest)) = args.split_first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no program given"));
    };
    let signals = Blocked::all()?;
    // The terminal is the child's; using it from here must not stop PID 1.
    signal::ignore(signal::TERMINAL_INPUT)?;
    signal::ignore(signal::TERMINAL_OUTPUT)?;
    let child = match signal::spawn_in_foreground(Command::new(program).args(rest)) {
        Ok(child) => child.id().cast_signed(),
        Err(error) => {
            eprintln!("docker-init: exec {} failed: {error}", program.to_string_lossy());
            let missing = error.kind() == io::ErrorKind::NotFound;
            return Ok(if missing { EXIT_NOT_FOUND } else { EXIT_NOT_EXECUTABLE });
        }
    };
    loop {
        match signals.next()? {
            signal::CHILD => {
                if let Some(code) = reap(child)? {
                    return Ok(code);
                }
            }
            other => signal::send(child, other)?,
        }
    }
}

/// Collects everything that has ended; the exit code of `main` if it is among that.
fn reap(main: i32) -> io::Result<Option<i32>> {
    let mut code = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get() == main => {
                let signalled = status.terminating_signal().map(|s| SIGNALLED + s);
                code = status.exit_status().or(signalled);
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(Errno::CHILD) => return Ok(code),
            Err(error) => return Err(error.into()),
        }
    }
}
