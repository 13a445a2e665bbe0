//! `gantryd upgrade [EXECUTABLE]`: the running daemon goes on as another executable. Everything is looked at before the daemon
//! is told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use model::{Context, Error, Kind, Result};
use serde::Deserialize;

use crate::control;

/// Longest wait for an answer of the daemon.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest wait for the daemon to be there again, and the pause between looks.
const BACK: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(50);

/// What the running daemon says of itself.
#[derive(Deserialize)]
struct Running {
    version: String,
    /// Another one after each start.
    instance: String,
    arguments: Vec<String>,
    directory: PathBuf,
    formats: BTreeMap<String, u32>,
    fell_back: bool,
}

/// Prints the formats that this executable reads and writes.
pub fn formats() -> Result<ExitCode> {
    let formats = engine::formats::all();
    println!("{}", serde_json::to_string(&formats).map_err(|error| Error::system(error.to_string()))?);
    Ok(ExitCode::SUCCESS)
}

/// Has the daemon go on as this executable, or another.
pub fn upgrade(exec_root: &Path, operands: &[String]) -> Result<ExitCode> {
    let executable = match operands.first() {
        Some(path) => std::fs::canonicalize(path).with_context(|| path.clone())?,
        None => std::env::current_exe().context("finding this executable")?,
    };
    let socket = control::socket(exec_root);
    let running = ask(&socket)?;
    check_formats(&executable, &running)?;
    check_arguments(&executable, &running)?;
    let body = serde_json::json!({ "executable": executable }).to_string();
    control::post(&socket, "/upgrade", &body, PATIENCE)?;
    let next = await_next(&socket, &running)?;
    if next.fell_back {
        let text =
            format!("{} could not start, as the daemon's log tells; {} goes on", executable.display(), next.version);
        return Err(Error::system(text));
    }
    println!("{} -> {}", running.version, next.version);
    Ok(ExitCode::SUCCESS)
}

fn ask(socket: &Path) -> Result<Running> {
    let answer = control::get(socket, "/upgrade", PATIENCE)?;
    serde_json::from_slice(&answer).map_err(|error| Error::system(format!("the daemon is of another version: {error}")))
}

/// The executable reads everything that the running daemon writes.
fn check_formats(executable: &Path, running: &Running) -> Result<()> {
    let shown = executable.display();
    let output = Command::new(executable).arg("formats").arg0_of_daemon().stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("executing {shown}"))?;
    let read: Option<BTreeMap<String, u32>> = serde_json::from_slice(&output.stdout).ok();
    let Some(read) = read.filter(|_| output.status.success()) else {
        return Err(Error::conflict(format!("{shown} is no gantryd, or one that is too old to take over")));
    };
    for (name, version) in &running.formats {
        let known = read.get(name).copied().unwrap_or(0);
        if known < *version {
            return Err(Error::conflict(format!(
                "{shown} is too old: the running daemon has {name} in version {version}, and it knows version {known}"
            )));
        }
    }
    Ok(())
}

/// It accepts the daemon's options and its configuration file.
fn check_arguments(executable: &Path, running: &Running) -> Result<()> {
    let mut command = Command::new(executable);
    command.arg0_of_daemon().args(&running.arguments).arg("--validate").current_dir(&running.directory);
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("executing {}", executable.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::conflict(format!("{} does not accept the daemon's configuration: {why}", executable.display())))
}

/// The name by which an executable is a daemon, whatever its file is called.
trait AsDaemon {
    fn arg0_of_daemon(&mut self) -> &mut Self;
}

impl AsDaemon for Command {
    fn arg0_of_daemon(&mut self) -> &mut Command {
        std::os::unix::process::CommandExt::arg0(self, "gantryd")
    }
}

/// Waits until the next daemon answers.
fn await_next(socket: &Path, running: &Running) -> Result<Running> {
    let begun = Instant::now();
    loop {
        match ask(socket) {
            Ok(next) if next.instance != running.instance => return Ok(next),
            // It ends meanwhile, or has not begun to serve.
            Ok(_) => {}
            Err(error) if error.kind() == Kind::Unavailable => {}
            Err(error) => tracing::debug!(%error, "not yet"),
        }
        if begun.elapsed() > BACK {
            return Err(Error::system(format!("the daemon did not come back within {BACK:?}")));
        }
        std::thread::sleep(LOOK);
    }
}
