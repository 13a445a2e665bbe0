//! Running the host's `ps`.
//!
//! It gets a clean environment, no descriptor of the daemon's and a time limit; whatever it leaves running is killed with
//! it. No thread waits for it: its streams and its end are polled. One that cannot be killed (it may hang in the kernel
//! over a process's memory) holds one of a few places until it ends.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use blocking::Class;
use model::{Error, Result, io_text};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, waitid};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::unix::pipe;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::table::Table;
use crate::container::registry::threads::Threads;
use run::link::register;

/// Longest time for an answer, waiting for a place included.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of the list of process ids on the command line; a container with more is filtered here only.
const SELECTION: usize = 64 * 1024;
/// Bytes of standard error that are kept.
const COMPLAINT: usize = 4096;
const CHUNK: usize = 64 * 1024;
/// All that `ps` is told: plain formats, and names of processes as they are.
const LOCALE: &str = "LC_ALL=C.UTF-8";

/// The places for runs of `ps`.
pub struct Runs {
    threads: Class,
    places: Arc<Semaphore>,
    patience: Duration,
}

impl Runs {
    /// On the threads and in the places that all runs share.
    pub fn of(threads: &Threads) -> Runs {
        Runs { threads: threads.programs.clone(), places: threads.programs_at_once.clone(), patience: PATIENCE }
    }

    /// The lines of these processes, as `program` prints them when it is given `arguments`.
    pub async fn list(&self, program: &Path, arguments: &str, pids: &[i32]) -> Result<api::TopResponse> {
        let work = self.list_somehow(program, arguments, pids);
        let slow = |_| Error::system(format!("ps: killed after {} seconds", self.patience.as_secs()));
        tokio::time::timeout_at(Instant::now() + self.patience, work).await.map_err(slow)?
    }

    /// Some options do not go together with a selection (`f`): then all processes are listed.
    async fn list_somehow(&self, program: &Path, arguments: &str, pids: &[i32]) -> Result<api::TopResponse> {
        let words: Vec<&str> = arguments.split(' ').collect();
        let selection = pids.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
        if selection.len() <= SELECTION {
            let selection = format!("-q{selection}");
            let narrow: Vec<&str> = words.iter().copied().chain([selection.as_str()]).collect();
            if let Ok(Ran { status: None, table, .. }) = self.run(program, &narrow, pids).await {
                return table.finish();
            }
        }
        let failed = |error: io::Error| {
            Error::system(format!("ps: fork/exec {}: {}", program.display(), io_text(&error))).with_source(error)
        };
        let Ran { status, table, complaint } = self.run(program, &words, pids).await.map_err(failed)?;
        match status {
            None => table.finish(),
            Some(_) if !complaint.is_empty() => Err(Error::system(format!("ps: {complaint}"))),
            Some(status) => Err(Error::system(format!("ps: {status}"))),
        }
    }

    async fn run(&self, program: &Path, words: &[&str], pids: &[i32]) -> io::Result<Ran> {
        let place = self.places.clone().acquire_owned().await.map_err(io::Error::other)?;
        let path = text(program.as_os_str().as_bytes())?;
        let argv: Vec<CString> = ["ps"].iter().chain(words).map(|word| text(*word)).collect::<io::Result<_>>()?;
        // The clone and the execve block.
        let started = self.threads.turn().await.begin(move |_| start(&path, &argv, place)).await;
        let (process, output, errors) = started.map_err(io::Error::other)??;
        let mut table = Table::new(pids.iter().copied());
        let (output, errors) = (pipe::Receiver::from_owned_fd(output)?, pipe::Receiver::from_owned_fd(errors)?);
        let (read, complaint) = tokio::join!(read_table(output, &mut table), read_complaint(errors));
        read?;
        Ok(Ran { status: process.end().await?, table, complaint: complaint? })
    }
}

/// A word for execve(2), which takes none with a zero byte.
fn text(word: impl Into<Vec<u8>>) -> io::Result<CString> {
    CString::new(word).map_err(|_| rustix::io::Errno::INVAL.into())
}

/// What a run came to.
struct Ran {
    /// None: it succeeded.
    status: Option<String>,
    table: Table,
    /// The first line of its standard error.
    complaint: String,
}

async fn read_table(mut output: pipe::Receiver, table: &mut Table) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match output.read(&mut chunk).await? {
            0 => return Ok(()),
            count => table.feed(&chunk[..count]),
        }
    }
}

async fn read_complaint(mut errors: pipe::Receiver) -> io::Result<String> {
    let (mut kept, mut chunk) = (Vec::new(), [0; COMPLAINT]);
    loop {
        match errors.read(&mut chunk).await? {
            0 => break,
            count => kept.extend_from_slice(&chunk[..count.min(COMPLAINT - kept.len())]),
        }
    }
    let line = kept.split(|&byte| byte == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}

/// In a thread that may block, inside the runtime.
fn start(path: &CString, argv: &[CString], place: OwnedSemaphorePermit) -> io::Result<(Process, OwnedFd, OwnedFd)> {
    let (output, output_end) = io::pipe()?;
    let (errors, errors_end) = io::pipe()?;
    let mut env = vec![text(LOCALE)?, text([b"PATH=", super::search_path().as_bytes()].concat())?];
    // Times of day are those of the daemon.
    if let Some(zone) = std::env::var_os("TZ") {
        env.push(text([b"TZ=", zone.as_bytes()].concat())?);
    }
    let child = sys::spawn::program(path, argv, &env, output_end.as_fd(), errors_end.as_fd())?;
    let pid = Pid::from_raw(child.pid).ok_or(io::ErrorKind::InvalidData)?;
    let process = Process { pid, state: Some((child.pidfd, place)), runtime: Handle::current() };
    Ok((process, output.into(), errors.into()))
}

/// A running `ps`; killed when dropped.
struct Process {
    pid: Pid,
    /// Until it is waited for.
    state: Option<(OwnedFd, OwnedSemaphorePermit)>,
    runtime: Handle,
}

impl Process {
    /// Waits for its end; None: success, otherwise the status in Go's words.
    async fn end(mut self) -> io::Result<Option<String>> {
        if let Some((pidfd, _)) = &self.state {
            let pidfd = register(pidfd.as_fd(), Interest::READABLE)?;
            let _ready = pidfd.readable().await?;
        }
        match self.state.take() {
            Some((pidfd, _place)) => collect(self.pid, &pidfd),
            None => Ok(None),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some((pidfd, place)) = self.state.take() else { return };
        let pid = self.pid;
        // It may be gone: then its group may, too.
        let _ = kill_process_group(pid, Signal::KILL);
        self.runtime.spawn(async move {
            let Ok(pidfd) = register(pidfd, Interest::READABLE) else { return };
            if pidfd.readable().await.is_ok() {
                // Nobody asks how it ended.
                let _ = collect(pid, pidfd.get_ref());
            }
            drop(place);
        });
    }
}

/// Takes what is left of a process that has ended, and ends whatever is left of its group.
fn collect(pid: Pid, pidfd: &OwnedFd) -> io::Result<Option<String>> {
    // Before it is waited for: until then the number is its own. An empty group is fine.
    let _ = kill_process_group(pid, Signal::KILL);
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)?;
    Ok(status.and_then(|status| in_words(&status)))
}

/// None: success.
fn in_words(status: &WaitIdStatus) -> Option<String> {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(format!("exit status {code}")),
        (None, Some(9)) => Some("signal: killed".into()),
        (None, Some(11)) => Some("signal: segmentation fault".into()),
        (None, Some(15)) => Some("signal: terminated".into()),
        (None, signal) => Some(format!("signal: signal {}", signal.unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A shell script in place of `ps`. A child writes it: a program that this process has open for writing, or another
    /// test's child that is about to be executed, could not be run.
    fn script(dir: &tempfile::TempDir, text: &str) -> PathBuf {
        let path = dir.path().join("ps");
        let write = "printf '#!/bin/sh\\n%s\\n' \"$2\" > \"$1\" && chmod 755 \"$1\"";
        let status = std::process::Command::new("sh").args(["-c", write, "sh"]).arg(&path).arg(text).status();
        assert!(status.unwrap().success());
        path
    }

    fn runs() -> Runs {
        Runs::of(&Threads::new())
    }

    async fn list(text: &str, arguments: &str) -> Result<api::TopResponse> {
        let dir = tempfile::tempdir().unwrap();
        runs().list(&script(&dir, text), arguments, &[7, 8]).await
    }

    async fn message(text: &str) -> String {
        list(text, "-ef").await.unwrap_err().message().to_owned()
    }

    #[tokio::test]
    async fn it_gets_the_arguments_and_a_selection() {
        let answer = list("echo PID ARGS; echo 7 \"$#\" \"$@\"; echo 9 no", "-o  x=y").await.unwrap();
        assert_eq!(answer.processes, [["7", "4 -o x=y -q7,8"]]);
        // Some options do not go together with a selection.
        let refuses = "case $* in *-q*) exit 1;; esac; echo PID ARGS; echo 8 \"$@\"";
        assert_eq!(list(refuses, "axf").await.unwrap().processes, [["8", "axf"]]);
        // And some selections do not fit on a command line.
        let (dir, many) = (tempfile::tempdir().unwrap(), (1_000_000..1_020_000).collect::<Vec<i32>>());
        let program = script(&dir, "echo PID ARGS; echo 1000007 \"$@\"");
        let answer = runs().list(&program, "-ef", &many).await.unwrap();
        assert_eq!(answer.processes, [["1000007", "-ef"]]);
    }

    #[tokio::test]
    async fn its_environment_is_clean() {
        let text = "echo PID WHAT; echo 7 $(/usr/bin/env | /bin/grep -vE '^(PWD|SHLVL|_|TZ)=' | /usr/bin/sort)";
        let answer = list(text, "-ef").await.unwrap();
        let path = super::super::search_path().into_string().unwrap();
        assert_eq!(answer.processes, [["7".to_owned(), format!("LC_ALL=C.UTF-8 PATH={path}")]]);
    }

    #[tokio::test]
    async fn failures_are_told_in_its_words() {
        assert_eq!(message("echo 'error: why' >&2; echo usage >&2; exit 1").await, "ps: error: why");
        assert_eq!(message("exit 3").await, "ps: exit status 3");
        assert_eq!(message("kill -9 $$").await, "ps: signal: killed");
        assert_eq!(message("echo ok >&2").await, "Couldn't find PID field in ps output");
        let error = list("", "a\0b").await.unwrap_err();
        assert!(error.message().ends_with("ps: invalid argument"), "{error}");
        let gone = runs().list(Path::new("/no/such/ps"), "-ef", &[]).await.unwrap_err();
        assert_eq!(gone.message(), "ps: fork/exec /no/such/ps: no such file or directory");
        // As much as it likes to say.
        let text = message("head -c 3000000 /dev/zero | tr '\\0' x >&2; exit 1").await;
        assert_eq!(text.len(), "ps: ".len() + COMPLAINT);
    }

    /// Whatever it started is killed with it, and its place is free again.
    #[tokio::test]
    async fn one_that_hangs_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        let program = script(&dir, &format!("sleep 1000 & echo $$ $! > {}; wait", pids.display()));
        let runs = Runs { places: Arc::new(Semaphore::new(1)), patience: Duration::from_millis(300), ..runs() };
        let ended = || async {
            let _place = runs.places.clone().acquire_owned().await.unwrap();
            let text = std::fs::read_to_string(&pids).unwrap_or_default();
            let state = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // What is left of the second one is somebody else's to wait for.
            text.split_whitespace().all(|pid| state(pid).is_empty() || state(pid).contains(") Z "))
        };
        for _ in 0..2 {
            let error = runs.list(&program, "-ef", &[1]).await.unwrap_err();
            assert_eq!(error.message(), "ps: killed after 0 seconds");
            while !ended().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        // Nor does a place that is never freed hold anybody up.
        let _place = runs.places.clone().acquire_owned().await.unwrap();
        assert!(runs.list(&program, "-ef", &[1]).await.is_err());
    }

    #[tokio::test]
    async fn what_it_leaves_running_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let program = script(&dir, "sleep 1000 > /dev/null 2>&1 & echo PID CHILD; echo 7 $!");
        let answer = runs().list(&program, "-ef", &[7]).await.unwrap();
        let stat = format!("/proc/{}/stat", answer.processes[0][1]);
        while std::fs::read_to_string(&stat).is_ok_and(|text| !text.contains(") Z ")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
