//! The container of this monitor: started once, with any number of execs, ended once.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use logs::JsonFile;
use runtime::{Bundle, Process, Runtime, Scope, Stage, StartError, Stdio, oci};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::WaitOptions;

use crate::backlog::Room;
use crate::births::{Asked, Entering, Starting};
use crate::memory::Memory;
use crate::proto::{
    Exec, ExecState, Exit, LogSpec, MAX_ENDED_EXECS, MAX_RUNNING_EXECS, MAX_SPEC, Reason, Refusal, RuntimeChoice,
    State, VERSION,
};
use crate::session::{Session, Streams};

const SIGKILL: i32 = 9;

/// A started container.
pub struct Container {
    bundle: Bundle,
    runtime: Box<dyn Runtime>,
    pub init: Session,
    pub execs: Vec<Session>,
    ended_execs: VecDeque<ExecState>,
    exit_path: PathBuf,
    /// For slow clients' backlogs.
    pub room: Rc<Room>,
    started_at: i64,
    paused: bool,
    pub memory: Memory,
    /// Processes of the container may become children of the monitor.
    adopts: bool,
    exit: Option<Exit>,
}

impl Container {
    /// Around its first process, with the clients that were there before.
    pub fn started(starting: Starting, process: Process) -> (Container, Vec<OwnedFd>) {
        let Starting { mut spec, runtime, pending, streams, sockets, started_at, log, .. } = starting;
        let mut init = Session::new(None, process, streams, spec.stdin_once);
        if !spec.open_stdin {
            init = init.without_input();
        }
        init.log = log;
        let room = Rc::new(Room::new(spec.spill_dir));
        for (socket, attach) in sockets.into_iter().zip(spec.attach) {
            // Nobody is there yet who could be told of a detachment.
            let _ = init.attach(socket, attach, &room);
        }
        forget_what_is_done(&mut spec.bundle);
        let container = Container {
            bundle: spec.bundle,
            runtime,
            init,
            execs: Vec::new(),
            ended_execs: VecDeque::new(),
            exit_path: spec.exit_path,
            room,
            started_at,
            paused: false,
            memory: Memory::default(),
            adopts: matches!(spec.runtime, RuntimeChoice::Cli { .. }),
            exit: None,
        };
        (container, pending.leftovers())
    }

    pub fn id(&self) -> &str {
        &self.bundle.id
    }

    pub fn started_at(&self) -> i64 {
        self.started_at
    }

    /// By its daemon; a container that can freeze itself is not paused.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    pub fn not_running(&self) -> StartError {
        StartError::new(Stage::NotRunning, 0, format!("container {} is not running", self.bundle.id))
    }

    /// Begins a further process; `memory` holds it as JSON.
    pub fn enter(
        &self,
        exec: Exec,
        (memory, client): (Option<OwnedFd>, Option<OwnedFd>),
        asked: Asked,
    ) -> Result<Entering, StartError> {
        if self.init.exit().is_some() {
            return Err(self.not_running());
        }
        // Whoever froze it: the new process would stop before its program begins.
        if self.paused || runtime::builtin::cgroup(&self.bundle).is_ok_and(|cgroup| cgroup.is_frozen()) {
            let text = format!("Container {} is paused, unpause the container before exec", self.bundle.id);
            return Err(StartError::new(Stage::NotRunning, 0, text));
        }
        let process: oci::Process = read_memory(memory)
            .and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from))
            .map_err(|e| StartError::new(Stage::Runtime, 0, format!("exec specification: {e}")))?;
        let wants = exec.attach.as_ref();
        let piped = !process.terminal;
        let stdin = piped && exec.open_stdin && wants.is_some_and(|attach| attach.stdin);
        let (stdio, streams) =
            pipes(stdin, piped && wants.is_some_and(|a| a.stdout), piped && wants.is_some_and(|a| a.stderr))?;
        let pending = self.runtime.exec(&self.bundle, &self.init.process, &process, stdio);
        let pending = pending.map_err(|error| self.explain(error))?;
        let deadline = pending.deadline();
        Ok(Entering { exec, asked, pending, streams, client, deadline, outcome: None })
    }

    /// The container may have ended under it. Its init has left its namespaces before its end can be seen.
    pub fn explain(&self, error: StartError) -> StartError {
        let has_ended = error.errno == Errno::SRCH.raw_os_error() || self.init.process.has_ended();
        if has_ended { self.not_running() } else { error }
    }

    /// A further process runs; its number.
    pub fn entered(&mut self, entered: Entering, process: Process) -> (i32, Vec<OwnedFd>) {
        let Entering { exec, pending, streams, client, .. } = entered;
        let pid = process.pid;
        let mut session = Session::new(Some(exec.id), process, streams, true);
        if !exec.open_stdin {
            session = session.without_input();
        }
        if let (Some(attach), Some(socket)) = (exec.attach, client) {
            let _ = session.attach(socket, attach, &self.room);
        }
        self.execs.push(session);
        (pid, pending.leftovers())
    }

    /// The container (`None`) or a running exec.
    pub fn session(&mut self, exec: Option<&str>) -> Result<&mut Session, Refusal> {
        let session = match exec {
            None => Some(&mut self.init),
            Some(id) => self.execs.iter_mut().find(|session| session.exec.as_deref() == Some(id)),
        };
        session.filter(|session| session.exit().is_none()).ok_or_else(|| not_running(exec, &self.bundle.id))
    }

    pub fn resize(&mut self, exec: Option<&str>, rows: u16, columns: u16) -> Result<(), Refusal> {
        match self.session(exec)?.terminal() {
            Some(terminal) => sys::pty::resize(terminal, rows, columns).map_err(failed),
            None => Ok(()),
        }
    }

    pub fn signal(&mut self, exec: Option<&str>, signal: i32, scope: Scope) -> Result<(), Refusal> {
        self.session(exec)?;
        let target = match exec {
            None => Some(&self.init),
            Some(id) => self.execs.iter().find(|session| session.exec.as_deref() == Some(id)),
        };
        let Some(target) = target else { return Err(not_running(exec, &self.bundle.id)) };
        let killed = self.runtime.kill(&self.bundle, &target.process, signal, scope).map_err(|e| match e.kind() {
            model::Kind::NotFound => Refusal::new(Reason::NotRunning, e.message()),
            _ => failed(e),
        });
        if signal == SIGKILL
            && let Ok(cgroup) = runtime::builtin::cgroup(&self.bundle)
        {
            cgroup.thaw_v1();
        }
        killed
    }

    pub fn freeze(&mut self, frozen: bool) -> Result<(), Refusal> {
        self.session(None)?;
        let done = if frozen { self.runtime.pause(&self.bundle) } else { self.runtime.resume(&self.bundle) };
        done.map_err(failed)?;
        self.paused = frozen;
        Ok(())
    }

    /// Reaps processes that have lost their parent inside the container and were left to us; an orphan that nobody reaps
    /// would stay a zombie for as long as the container runs.
    pub fn reap_adopted(&mut self) {
        if !self.adopts {
            return;
        }
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get();
            let sessions = std::iter::once(&mut self.init).chain(&mut self.execs);
            if let Some(session) = sessions.filter(|s| s.exit().is_none()).find(|s| s.process.pid == pid) {
                session.has_ended(status.exit_status(), status.terminating_signal());
            }
        }
    }

    /// An exec has ended: remembered for a daemon that connects later.
    pub fn exec_ended(&mut self, id: &str, pid: i32, exit: &Exit) {
        if self.ended_execs.len() == MAX_ENDED_EXECS {
            self.ended_execs.pop_front();
        }
        self.ended_execs.push_back(ExecState { id: id.to_owned(), pid, exit: Some(exit.clone()) });
    }

    /// After each round of a running container: whether the kernel has killed more of its processes for want of memory.
    pub fn memory_has_run_out(&mut self, now: Instant) -> bool {
        self.memory.begin(|| runtime::builtin::cgroup(&self.bundle));
        self.memory.news(now, || runtime::builtin::cgroup(&self.bundle))
    }

    /// The container has ended: how, and whether memory has run out since that was told last.
    pub fn ended(&mut self, mut exit: Exit) -> (Exit, bool) {
        // Without a limit of its own, a container in which memory ran out will hardly have ended well.
        let limited = self.bundle.spec.linux.resources.memory.as_ref().is_some_and(|memory| memory.limit.is_some());
        if !limited && exit.code == 0 {
            exit.oom = self.memory.has_struck();
            return (exit, false);
        }
        let news;
        (news, exit.oom) = self.memory.end(|| runtime::builtin::cgroup(&self.bundle));
        (exit, news)
    }

    /// Removes what the run had, records the end and returns it.
    pub fn clean_up(&mut self, mut exit: Exit) -> Exit {
        if let Err(e) = self.runtime.cleanup(&self.bundle) {
            append(&mut exit.error, &format!("cleaning up: {e}"));
        }
        crate::proto::cut(&mut exit.error);
        if let Err(e) = write_record(&self.exit_path, &exit) {
            append(&mut exit.error, &format!("writing the exit record: {e}"));
        }
        self.init.log = None;
        self.exit = Some(exit.clone());
        exit
    }

    /// All that a daemon needs to take over.
    pub fn state(&self) -> State {
        let running = self.execs.iter().filter(|session| session.exit().is_none());
        let running = running.take(MAX_RUNNING_EXECS).map(|session| ExecState {
            id: session.exec.clone().unwrap_or_default(),
            pid: session.process.pid,
            exit: None,
        });
        State {
            version: VERSION,
            id: self.bundle.id.clone(),
            pid: self.init.process.pid,
            started_at: self.started_at,
            tty: self.init.tty(),
            paused: self.paused,
            exit: self.exit.clone(),
            memory_has_run_out: self.memory.has_struck(),
            execs: running.chain(self.ended_execs.iter().cloned()).collect(),
        }
    }
}

fn failed(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(Reason::Failed, error.to_string())
}

fn not_running(exec: Option<&str>, id: &str) -> Refusal {
    let text = match exec {
        None => format!("container {id} is not running"),
        Some(exec) => format!("exec process {exec} is not running"),
    };
    Refusal::new(Reason::NotRunning, text)
}

fn append(text: &mut String, more: &str) {
    if !text.is_empty() {
        text.push_str("; ");
    }
    text.push_str(&model::worded(more.to_owned()));
}

/// Exec, kill and cleanup need the namespaces, the cgroup and the seccomp program only; the rest is memory that a monitor
/// would keep for as long as its container runs.
fn forget_what_is_done(bundle: &mut Bundle) {
    bundle.spec.mounts = Vec::new();
    bundle.spec.process = oci::Process::default();
    bundle.spec.annotations.clear();
}

pub fn open_log(log: &LogSpec) -> Result<Option<JsonFile>, StartError> {
    match log {
        LogSpec::None => Ok(None),
        LogSpec::JsonFile { path, options } => JsonFile::open(path, options.clone()).map(Some).map_err(|e| {
            let text = format!("failed to initialize logging driver: {}: {}", path.display(), model::io_text(&e));
            StartError::new(Stage::Runtime, e.raw_os_error().unwrap_or(0), text)
        }),
    }
}

/// The child's ends and ours.
pub fn pipes(stdin: bool, stdout: bool, stderr: bool) -> Result<(Stdio, Streams), StartError> {
    let pipe = |wanted: bool| match wanted {
        true => pipe_with(PipeFlags::CLOEXEC).map(|(read, write)| (Some(read), Some(write))),
        false => Ok((None, None)),
    };
    let all = || -> rustix::io::Result<_> { Ok((pipe(stdin)?, pipe(stdout)?, pipe(stderr)?)) };
    let (stdin, stdout, stderr) = all().map_err(|e| StartError::new(Stage::Clone, e.raw_os_error(), "pipe"))?;
    let stdio = Stdio { stdin: stdin.0, stdout: stdout.1, stderr: stderr.1 };
    Ok((stdio, Streams { stdin: stdin.1, stdout: stdout.0, stderr: stderr.0 }))
}

/// The contents of a memfd.
pub fn read_memory(memory: Option<OwnedFd>) -> io::Result<Vec<u8>> {
    let file =
        File::from(memory.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a descriptor is missing"))?);
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if length > MAX_SPEC {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too large"));
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Complete or not there at all.
pub fn write_record(path: &Path, exit: &Exit) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    fs::write(&new, serde_json::to_vec(exit)?)?;
    fs::rename(&new, path)
}
