//! The container of this monitor: started once, with any number of execs, ended once.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use logs::Sink;
use runtime::{Action, Begun, Bundle, Process, Runtime, Scope, Stage, StartError, Stdio, oci};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::WaitOptions;

use crate::actions::{Actions, Kind};
use crate::backlog::Room;
use crate::births::{Asked, Entering, Starting};
use crate::counted::Counter;
use crate::memory::Memory;
use crate::probe::{Probe, Results};
use crate::proto::{
    Exec, ExecState, Exit, MAX_ENDED_EXECS, MAX_RUNNING_EXECS, MAX_SPEC, PASSING, ProbeState, Reason, Refusal,
    RuntimeChoice, State, VERSION,
};
use crate::session::{Session, Streams};

const SIGKILL: i32 = 9;

/// A connection that has had the container frozen for the time of an operation of its daemon.
#[derive(Clone, Copy, Debug)]
pub struct Passing {
    pub connection: u32,
    /// When its last request came.
    pub heard: Instant,
}

impl Passing {
    /// When it hangs, unless a request comes before.
    pub fn ends(&self) -> Instant {
        self.heard + PASSING
    }
}

/// A started container.
pub struct Container {
    bundle: Bundle,
    runtime: Box<dyn Runtime>,
    pub init: Session,
    pub execs: Vec<Session>,
    ended_execs: VecDeque<ExecState>,
    /// Of health checks.
    pub probed: Results,
    exit_path: PathBuf,
    /// For slow clients' backlogs.
    pub room: Rc<Room>,
    started_at: i64,
    paused: bool,
    /// Who had it frozen in passing.
    pub frozen_for: Option<Passing>,
    pub memory: Memory,
    /// Processes of the container may become children of the monitor.
    adopts: bool,
    pub actions: Actions,
    /// What is told of the log.
    counter: Counter,
    /// The run is over, and what it had is being removed.
    cleaning: Option<(Exit, Begun)>,
    exit: Option<Exit>,
}

/// What has become of a request.
pub enum Asks {
    /// It is done.
    Done,
    /// It is under way and will be answered.
    Later,
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
            probed: Results::default(),
            counter: Counter::new(spec.exit_path.parent().unwrap_or(Path::new("/"))),
            exit_path: spec.exit_path,
            room,
            started_at,
            paused: false,
            frozen_for: None,
            memory: Memory::default(),
            adopts: matches!(spec.runtime, RuntimeChoice::Cli { .. }),
            actions: Actions::default(),
            cleaning: None,
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
        if exec.probe != 0 && self.probe().is_some() {
            let text = "the last probe of the health check has not ended, although it was killed";
            return Err(StartError::new(Stage::Runtime, 0, text));
        }
        let process: oci::Process = read_memory(memory)
            .and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from))
            .map_err(|e| StartError::new(Stage::Runtime, 0, format!("exec specification: {e}")))?;
        let wants = exec.attach.as_ref();
        let piped = !process.terminal;
        let stdin = piped && exec.open_stdin && wants.is_some_and(|attach| attach.stdin);
        let is_probe = exec.probe != 0;
        let stdout = piped && (is_probe || wants.is_some_and(|attach| attach.stdout));
        let stderr = piped && (is_probe || wants.is_some_and(|attach| attach.stderr));
        let (stdio, streams) = pipes(stdin, stdout, stderr)?;
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
        session.probe = (exec.probe != 0).then(|| Probe::begin(Duration::from_millis(exec.probe.into())));
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

    /// Begins to send a signal.
    pub fn signal(&mut self, exec: Option<&str>, (signal, scope): (i32, Scope), asked: Asked) -> Result<Asks, Refusal> {
        if self.session(exec)?.give_up_probe() {
            return Ok(Asks::Done);
        }
        self.actions.admit()?;
        let target = match exec {
            None => Some(&self.init),
            Some(id) => self.execs.iter().find(|session| session.exec.as_deref() == Some(id)),
        };
        let Some(target) = target else { return Err(not_running(exec, &self.bundle.id)) };
        let begun = self.runtime.begin_kill(&self.bundle, &target.process, signal, scope);
        self.begun(Kind::Signal(signal), asked, begun)
    }

    /// Begins to pause or to resume, once what was asked before is over.
    pub fn freeze(&mut self, frozen: bool, asked: Asked) -> Result<Asks, Refusal> {
        self.session(None)?;
        self.actions.admit()?;
        if self.actions.defer(frozen, asked) {
            return Ok(Asks::Later);
        }
        self.begin_freeze(frozen, asked)
    }

    /// Who had it frozen in passing may be gone, or hang: it goes on.
    pub fn thaw_if_abandoned(&mut self, stands: impl Fn(u32) -> bool, now: Instant) {
        if let Some(passing) = self.frozen_for.filter(|one| !stands(one.connection) || now >= one.ends()) {
            self.frozen_for = None;
            // Nobody waits for the answer.
            if let Err(refused) = self.freeze(false, (passing.connection, 0)) {
                crate::tell(format_args!("monitor of {}: it stays frozen: {}", self.bundle.id, refused.message));
            }
        }
    }

    fn begin_freeze(&mut self, frozen: bool, asked: Asked) -> Result<Asks, Refusal> {
        let (runtime, bundle) = (&self.runtime, &self.bundle);
        let begun = if frozen { runtime.begin_pause(bundle) } else { runtime.begin_resume(bundle) };
        self.begun(Kind::Freeze { frozen }, asked, begun)
    }

    fn begun(&mut self, kind: Kind, asked: Asked, begun: Begun) -> Result<Asks, Refusal> {
        match begun {
            Ok(Some(action)) => {
                self.actions.add(kind, asked, action);
                Ok(Asks::Later)
            }
            Ok(None) => self.acted(kind, Ok(())).map(|()| Asks::Done),
            Err(error) => self.acted(kind, Err(error)).map(|()| Asks::Done),
        }
    }

    /// An action is over.
    fn acted(&mut self, kind: Kind, outcome: model::Result<()>) -> Result<(), Refusal> {
        match kind {
            Kind::Signal(SIGKILL) => {
                if let Ok(cgroup) = runtime::builtin::cgroup(&self.bundle) {
                    cgroup.thaw_v1();
                }
            }
            Kind::Freeze { frozen } if outcome.is_ok() => self.paused = frozen,
            _ => {}
        }
        outcome.map_err(|e| match (e.kind(), kind) {
            (model::Kind::NotFound, Kind::Signal(_)) => Refusal::new(Reason::NotRunning, e.message()),
            _ => failed(e),
        })
    }

    /// After each round: the actions that are over, for those who have asked for them; what has waited for them begins.
    pub fn finish_actions(&mut self) -> Vec<(Asked, Result<(), Refusal>)> {
        let mut answers = Vec::new();
        for (kind, asked, outcome) in self.actions.take_finished() {
            answers.push((asked, self.acted(kind, outcome)));
        }
        while let Some((frozen, asked)) = self.actions.next_freeze() {
            match self.begin_freeze(frozen, asked) {
                Ok(Asks::Later) => {}
                Ok(Asks::Done) => answers.push((asked, Ok(()))),
                Err(refusal) => answers.push((asked, Err(refusal))),
            }
        }
        answers
    }

    /// Reaps processes that have lost their parent inside the container and were left to us; an orphan that nobody reaps
    /// would stay a zombie for as long as the container runs.
    pub fn reap_adopted(&mut self) {
        // A program of the runtime is waited for by whoever has started it.
        if !self.adopts || !self.actions.is_empty() || self.cleaning.is_some() {
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

    /// The probe that runs, or has not died yet.
    pub fn probe(&self) -> Option<ProbeState> {
        let mut probes = self.execs.iter().filter(|session| session.exit().is_none());
        probes.find_map(|session| {
            let started_at = session.probe.as_ref()?.started_at();
            Some(ProbeState { id: session.exec.clone().unwrap_or_default(), started_at })
        })
    }

    /// After each round of a running container: whether the kernel has killed more of its processes for want of memory.
    pub fn memory_has_run_out(&mut self, now: Instant) -> bool {
        let limited = self.is_limited().then_some(now);
        self.memory.begin(limited, || runtime::builtin::cgroup(&self.bundle));
        self.memory.news(now, || runtime::builtin::cgroup(&self.bundle))
    }

    /// Whether its memory has a limit of its own.
    fn is_limited(&self) -> bool {
        self.bundle.spec.linux.resources.memory.as_ref().is_some_and(|memory| memory.limit.is_some())
    }

    /// The container has ended: how, and whether memory has run out since that was told last.
    pub fn ended(&mut self, mut exit: Exit) -> (Exit, bool) {
        // Without a limit of its own, a container in which memory ran out will hardly have ended well.
        if !self.is_limited() && exit.code == 0 {
            exit.oom = self.memory.has_struck();
            return (exit, false);
        }
        let news;
        (news, exit.oom) = self.memory.end(|| runtime::builtin::cgroup(&self.bundle));
        (exit, news)
    }

    /// Begins to remove what the run had; the end comes from [`Container::cleaned`].
    pub fn clean_up(&mut self, exit: Exit) {
        self.actions = Actions::default();
        self.cleaning = Some((exit, self.runtime.begin_cleanup(&self.bundle)));
    }

    /// What to poll while the container is acted upon or cleaned up.
    pub fn awaited(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let cleanup = self.cleanup().and_then(|action| action.awaited());
        self.actions.awaited().chain(cleanup)
    }

    /// When to look at that at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.actions.deadline().into_iter().chain(self.cleanup().map(|action| action.next())).min()
    }

    pub fn is_cleaning(&self) -> bool {
        self.cleaning.is_some()
    }

    fn cleanup(&self) -> Option<&dyn Action> {
        match &self.cleaning {
            Some((_, Ok(Some(action)))) => Some(&**action),
            _ => None,
        }
    }

    /// Once all that the run had is removed, records the end and returns it.
    pub fn cleaned(&mut self) -> Option<Exit> {
        let (mut exit, begun) = self.cleaning.take()?;
        let outcome = match begun {
            Ok(None) => Ok(()),
            Err(error) => Err(error),
            Ok(Some(mut action)) => match action.look() {
                Some(outcome) => outcome,
                None => {
                    self.cleaning = Some((exit, Ok(Some(action))));
                    return None;
                }
            },
        };
        if let Err(e) = outcome {
            append(&mut exit.error, &format!("cleaning up: {e}"));
        }
        crate::proto::cut(&mut exit.error);
        if let Err(e) = write_record(&self.exit_path, &exit) {
            append(&mut exit.error, &format!("writing the exit record: {e}"));
        }
        self.init.log = None;
        self.exit = Some(exit.clone());
        Some(exit)
    }

    /// Tells of the log what has changed.
    pub fn count(&mut self, now: Instant) {
        self.counter.note(now, self.init.logged());
    }

    /// When there is something to tell.
    pub fn count_deadline(&self) -> Option<Instant> {
        self.counter.deadline(self.init.logged())
    }

    /// A request has come through this connection.
    pub fn hear(&mut self, connection: u32, now: Instant) {
        if let Some(passing) = self.frozen_for.as_mut().filter(|passing| passing.connection == connection) {
            passing.heard = now;
        }
    }

    /// All that a daemon needs to take over.
    pub fn state(&self) -> State {
        // One whose output is still being delivered is told of as one that runs: its end is an event to come.
        let is_told = |session: &&Session| {
            session.probe.is_some() || self.ended_execs.iter().any(|ended| Some(&ended.id) == session.exec.as_ref())
        };
        let running = self.execs.iter().filter(|session| session.exit().is_none() || !is_told(session));
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
            ports: 0,
            probe: self.probe(),
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

pub fn open_log(log: &logs::Spec) -> Result<Option<Box<dyn Sink>>, StartError> {
    logs::open(log).map_err(|e| {
        let place = log.place.dir.display();
        let text = format!("failed to initialize logging driver: {place}: {}", model::io_text(&e));
        StartError::new(Stage::Runtime, e.raw_os_error().unwrap_or(0), text)
    })
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
