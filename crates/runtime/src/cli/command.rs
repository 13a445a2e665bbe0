//! One run of the runtime program: its streams, its time limit, and what its log says when it fails.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio as Stream};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Deserialize;

use crate::error::{Stage, StartError, What, libc_errno};
use crate::process::{Stdio, ended};

/// A runtime that takes longer is stuck and is killed.
const PATIENCE: Duration = Duration::from_secs(120);
/// Of a log or an error stream, its last part is read.
const MAX_TEXT: u64 = 64 * 1024;

// The words that the reference's shim puts before what the runtime says.
const CREATE_PREFIX: &str =
    "failed to create task for container: failed to create shim task: OCI runtime create failed: ";
const EXEC_PREFIX: &str = "OCI runtime exec failed: ";
const SUFFIX: &str = ": unknown";

/// What the program's streams are.
pub(super) enum Output {
    /// The container's: the program passes them on.
    Container(Stdio),
    /// Nobody's; what it writes is kept for the error text.
    Captured,
}

/// A command line in the making.
pub(super) struct Call {
    command: Command,
    log: PathBuf,
}

impl Call {
    /// A call of the program; `log` is where it writes its messages.
    pub fn new(program: &Path, log: PathBuf) -> Call {
        Call { command: Command::new(program), log }
    }

    /// Adds an argument.
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Call {
        self.command.arg(arg);
        self
    }

    /// Adds several arguments.
    pub fn args<S: AsRef<OsStr>>(&mut self, args: impl IntoIterator<Item = S>) -> &mut Call {
        self.command.args(args);
        self
    }

    /// Runs the program to its end.
    pub fn run(self, output: Output) -> Result<(), Failure> {
        let mut running = self.spawn(output)?;
        loop {
            if let Some(result) = running.result() {
                return result;
            }
            let left = running.deadline.saturating_duration_since(Instant::now());
            ended(running.pidfd.as_fd(), left);
        }
    }

    /// Starts the program.
    pub fn spawn(mut self, output: Output) -> Result<Running, Failure> {
        // A file, since whatever the program leaves running could keep a pipe open.
        let errors = self.log.with_extension("err");
        let stream = |fd: Option<std::os::fd::OwnedFd>| fd.map_or_else(Stream::null, Stream::from);
        match output {
            Output::Container(io) => {
                self.command.stdin(stream(io.stdin)).stdout(stream(io.stdout)).stderr(stream(io.stderr));
            }
            Output::Captured => {
                let file = fs::File::create(&errors).map_or_else(|_| Stream::null(), Stream::from);
                self.command.stdin(Stream::null()).stdout(Stream::null()).stderr(file);
            }
        }
        // The log tells about this run only.
        let _ = fs::remove_file(&self.log);
        let program = self.command.get_program().to_string_lossy().into_owned();
        let spawned = self.command.spawn();
        // Or the container's streams would stay open here.
        drop(self.command);
        let failed = |e: std::io::Error| Failure::new(not_begun(&program, &self.log, &e));
        let child = spawned.map_err(failed)?;
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(|e| failed(e.into()))?;
        Ok(Running { child, pidfd, deadline: Instant::now() + PATIENCE, program, errors, log: self.log })
    }
}

/// What the reference's shim says of a program that cannot be executed: it looks for the program's log first.
fn not_begun(program: &str, log: &Path, error: &std::io::Error) -> String {
    let cause = match program.contains('/') {
        false if error.kind() == std::io::ErrorKind::NotFound => {
            format!("exec: {program:?}: executable file not found in $PATH")
        }
        _ => format!("fork/exec {program}: {}", model::io_text(error)),
    };
    format!("unable to retrieve OCI runtime error (open {}: no such file or directory): {cause}", log.display())
}

/// A run of the program.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
    /// Then it is stuck.
    pub deadline: Instant,
    program: String,
    errors: PathBuf,
    log: PathBuf,
}

impl Running {
    /// How it has ended, if it has; a program that is stuck is killed.
    pub fn result(&mut self) -> Option<Result<(), Failure>> {
        let program = &self.program;
        let status = match self.child.try_wait() {
            Ok(Some(status)) => status,
            Ok(None) if Instant::now() < self.deadline => return None,
            Ok(None) => {
                let _ = self.child.kill();
                return Some(Err(Failure::new(format!("{program}: no end after two minutes"))));
            }
            Err(e) => return Some(Err(Failure::new(format!("{program}: {}", model::io_text(&e))))),
        };
        if status.success() {
            return Some(Ok(()));
        }
        let said = || tail(&self.errors).map(|t| t.trim().to_owned()).filter(|t| !t.is_empty());
        let told = last_error(&self.log).or_else(said);
        Some(Err(Failure::new(told.unwrap_or_else(|| format!("{program}: {status}")))))
    }
}

/// A line of the program's JSON log.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    level: String,
    #[serde(default)]
    msg: String,
}

/// The last error of the log.
fn last_error(log: &Path) -> Option<String> {
    let text = tail(log)?;
    let lines = text.lines().rev().filter_map(|l| serde_json::from_str::<Line>(l).ok());
    let mut errors = lines.filter(|l| matches!(l.level.as_str(), "error" | "fatal"));
    errors.next().map(|l| l.msg.trim().to_owned()).filter(|m| !m.is_empty())
}

fn tail(file: &Path) -> Option<String> {
    let mut file = fs::File::open(file).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_TEXT))).ok()?;
    let mut bytes = Vec::new();
    file.take(MAX_TEXT).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Why the program failed, in its own words.
#[derive(Debug)]
pub(super) struct Failure {
    text: String,
}

impl Failure {
    fn new(text: String) -> Failure {
        Failure { text }
    }

    /// For starting a process; the errno is what the text stands for, as the reference reads it.
    pub fn to_start_error(&self, what: What) -> StartError {
        let prefix = if what == What::Create { CREATE_PREFIX } else { EXEC_PREFIX };
        let detail = format!("{prefix}{}{SUFFIX}", self.text);
        StartError::new(Stage::Runtime, errno_of(&self.text), detail)
    }

    /// For everything else.
    pub fn to_error(&self) -> model::Error {
        let text = self.text.to_lowercase();
        let gone = ["process already finished", "container not running", "no such process", "does not exist"];
        if gone.iter().any(|words| text.contains(words)) {
            return model::Error::not_found(self.text.clone());
        }
        model::Error::system(self.text.clone())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A command-line runtime tells the cause in words only; clients depend on the exit codes that follow from them.
fn errno_of(text: &str) -> i32 {
    const CAUSES: [(&str, i32); 5] = [
        ("executable file not found", libc_errno::ENOENT),
        ("no such file or directory", libc_errno::ENOENT),
        ("permission denied", libc_errno::EACCES),
        ("is a directory", libc_errno::EISDIR),
        ("not a directory", libc_errno::ENOTDIR),
    ];
    let text = text.to_lowercase();
    CAUSES.iter().find(|(words, _)| text.contains(words)).map_or(0, |(_, errno)| *errno)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_UNKNOWN};

    #[test]
    fn exit_codes_follow_from_words() {
        let code = |text: &str| Failure::new(text.into()).to_start_error(What::Create).to_error(What::Create);
        let (error, exit) = code("runc create failed: exec: \"x\": executable file not found in $PATH");
        assert_eq!(exit, EXIT_NOT_FOUND);
        assert_eq!(
            error.message(),
            "failed to create task for container: failed to create shim task: OCI runtime create failed: \
             runc create failed: exec: \"x\": executable file not found in $PATH: unknown"
        );
        assert_eq!(code("exec: \"/etc\": permission denied").1, EXIT_NOT_EXECUTABLE);
        assert_eq!(code("exec: \"/etc\": is a directory").1, EXIT_NOT_EXECUTABLE);
        assert_eq!(code("mount: Not a directory").1, EXIT_NOT_FOUND);
        assert_eq!(code("something else").1, EXIT_UNKNOWN);
    }

    #[test]
    fn log_files() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log.json");
        assert_eq!(last_error(&log), None);
        let text = "{\"level\":\"error\",\"msg\":\"first\",\"time\":\"t\"}\n{\"level\":\"warning\",\"msg\":\"w\"}\n";
        fs::write(&log, text.to_owned() + "{\"level\":\"error\",\"msg\":\"last\\n\"}\nnot json\n").unwrap();
        assert_eq!(last_error(&log).as_deref(), Some("last"));
    }

    #[test]
    fn programs_that_fail() {
        let dir = tempfile::tempdir().unwrap();
        let run = |program: &str, args: &[&str]| {
            let mut call = Call::new(Path::new(program), dir.path().join("log"));
            call.args(args);
            call.run(Output::Captured).map_err(|f| f.to_string())
        };
        assert_eq!(run("true", &[]), Ok(()));
        assert_eq!(run("sh", &["-c", "echo why >&2; exit 1"]), Err("why".into()));
        assert_eq!(run("false", &[]), Err("false: exit status: 1".into()));
        let log = dir.path().join("log").display().to_string();
        let missing = format!("unable to retrieve OCI runtime error (open {log}: no such file or directory): ");
        for (program, cause) in [
            ("/no/such/program", "fork/exec /no/such/program: no such file or directory"),
            ("no-such-program", "exec: \"no-such-program\": executable file not found in $PATH"),
            ("/etc/passwd", "fork/exec /etc/passwd: permission denied"),
        ] {
            let text = run(program, &[]).unwrap_err();
            assert_eq!(text, format!("{missing}{cause}"));
            assert_eq!(Failure::new(text).to_start_error(What::Create).to_error(What::Create).1, EXIT_NOT_FOUND);
        }
    }
}
