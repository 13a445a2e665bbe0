//! Any OCI command-line runtime (`runc`, `crun`, …) behind [`Runtime`].
//!
//! Runs in the container's monitor. What the program needs lies in `<state_dir>/bundle` (configuration, root, log, pid files)
//! and `<state_dir>/state` (its own state): both vanish with `cleanup`. The monitor becomes the reaper of its descendants, so
//! that the container's processes, which the program leaves behind as orphans, become its children and can be waited for.
//! An overlay root is mounted in a mount namespace of the monitor's own.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open, set_child_subreaper};
use sys::process;
use sys::rooted::Rooted;

use crate::error::{At, Stage, StartError, What};
use crate::pending::SIGKILL;
use crate::{Action, Begun, Bundle, Pending, Process, Progress, Runtime, Scope, Stdio, oci, user};

mod command;
mod config;
mod console;
mod rootfs;

use command::{Call, Output, Running};
use console::Console;
use rootfs::rootfs_stage;

/// A runtime program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cli {
    /// The program; looked up in `PATH` if it contains no slash.
    pub path: PathBuf,
    /// Global arguments, put before the command.
    pub args: Vec<String>,
}

/// Files of one container.
struct Files {
    bundle: PathBuf,
    state: PathBuf,
}

impl Files {
    fn of(bundle: &Bundle) -> Files {
        Files { bundle: bundle.state_dir.join("bundle"), state: bundle.state_dir.join("state") }
    }

    fn make(&self) -> io::Result<()> {
        let mut dir = fs::DirBuilder::new();
        // Remapped users must be able to reach the root.
        dir.recursive(true).mode(0o711);
        dir.create(&self.bundle)?;
        dir.create(&self.state)
    }

    fn config(&self) -> PathBuf {
        self.bundle.join("config.json")
    }

    fn rootfs(&self) -> PathBuf {
        self.bundle.join("rootfs")
    }

    fn log(&self) -> PathBuf {
        self.bundle.join("log.json")
    }

    fn init_pid(&self) -> PathBuf {
        self.bundle.join("init.pid")
    }
}

impl Cli {
    /// A call of the program for this container, its command still to be added. It writes what goes wrong to `log`.
    fn call(&self, bundle: &Bundle, log: PathBuf) -> Call {
        let files = Files::of(bundle);
        let mut call = Call::new(&self.path, log.clone());
        call.args(&self.args);
        call.arg("--root").arg(&files.state);
        call.arg("--log").arg(log).args(["--log-format", "json"]);
        if is_systemd_path(&bundle.spec.linux.cgroups_path) {
            call.arg("--systemd-cgroup");
        }
        call
    }

    /// Begins a command without streams.
    fn begin(&self, bundle: &Bundle, command: &str, args: &[&str], then: Then) -> Begun {
        let mut call = self.call(bundle, Files::of(bundle).log());
        call.arg(command).args(args);
        let failed = |failure: command::Failure| failure.to_error();
        let mut running = match (call.spawn(Output::Captured), &then) {
            (Ok(running), _) => running,
            // What the program does not clear away is cleared away all the same.
            (Err(failure), Then::Remove(_) | Then::Kill(_)) => return then.act(Some(failure)).map(|()| None),
            (Err(failure), Then::Nothing) => return Err(failed(failure)),
        };
        if matches!(then, Then::Kill(_)) {
            running.deadline = Instant::now() + KILL_PATIENCE;
        }
        Ok(Some(Box::new(Program { running, then })))
    }

    /// A command without streams, to its end.
    fn simple(&self, bundle: &Bundle, command: &str, args: &[&str]) -> model::Result<()> {
        let mut call = self.call(bundle, Files::of(bundle).log());
        call.arg(command).args(args);
        call.run(Output::Captured).map_err(|failure| failure.to_error())
    }

    fn create(&self, bundle: &Bundle, io: Stdio, netns: Option<BorrowedFd<'_>>) -> Result<Command, StartError> {
        let files = Files::of(bundle);
        files.make().at(rootfs_stage, "state directory")?;
        // The container's processes will be orphans.
        set_child_subreaper(Some(rustix::process::getpid())).at(|| Stage::Clone, "prctl")?;
        let root = rootfs::mount(&bundle.rootfs, &files.rootfs())?;
        let mut spec = config::adapt(&bundle.spec, &root, netns);
        resolve_user(&mut spec.process, &Rooted::open_dir(&root).at(rootfs_stage, "open")?)?;
        let brought = rootfs::bring(&mut spec, &files.bundle)?;
        write_private(&files.config(), &spec.to_json()).at(rootfs_stage, "config.json")?;

        let console = Console::listen(spec.process.terminal, &files.bundle)?;
        let mut call = self.call(bundle, files.log());
        call.arg("create").arg("--bundle").arg(&files.bundle).arg("--pid-file").arg(files.init_pid());
        console.add_to(&mut call);
        call.arg(&bundle.id);
        let mut start = self.call(bundle, files.log());
        start.arg("start").arg(&bundle.id);
        let running = call.spawn(Output::Container(io)).map_err(|failure| failure.to_start_error(What::Create))?;
        let (what, pid_file) = (What::Create, files.init_pid());
        Ok(Command {
            running,
            next: Some(start),
            what,
            pid_file,
            console,
            process: None,
            of_exec: None,
            _brought: brought,
        })
    }
}

/// A program that has not killed a container by then has been given the chance.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// A command under way.
struct Program {
    running: Running,
    then: Then,
}

/// What follows a command, whatever its outcome.
enum Then {
    Nothing,
    /// The process of this pidfd is killed by hand if the program has not done so.
    Kill(OwnedFd),
    /// What this container has is removed.
    Remove(Box<Bundle>),
}

impl Action for Program {
    fn awaited(&self) -> Option<BorrowedFd<'_>> {
        Some(self.running.pidfd.as_fd())
    }

    fn next(&self) -> Instant {
        self.running.deadline
    }

    fn look(&mut self) -> Option<model::Result<()>> {
        self.running.result().map(|result| self.then.act(result.err()))
    }
}

impl Then {
    fn act(&self, failure: Option<command::Failure>) -> model::Result<()> {
        let outcome = failure.map_or(Ok(()), |failure| Err(failure.to_error()));
        match self {
            Then::Nothing => outcome,
            Then::Kill(pidfd) => match outcome {
                Err(error) if error.kind() != model::Kind::NotFound => Ok(process::signal(pidfd, SIGKILL)?),
                other => other,
            },
            Then::Remove(bundle) => {
                let files = Files::of(bundle);
                rootfs::unmount(&bundle.rootfs, &files.rootfs());
                for dir in [&files.bundle, &files.state] {
                    match fs::remove_dir_all(dir) {
                        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
                        _ => {}
                    }
                }
                outcome
            }
        }
    }
}

/// A start or an exec by the program.
struct Command {
    running: Running,
    /// Runs after it.
    next: Option<Call>,
    what: What,
    pid_file: PathBuf,
    console: Console,
    process: Option<Process>,
    /// The directory with the files of an exec.
    of_exec: Option<PathBuf>,
    _brought: rootfs::Brought,
}

impl Pending for Command {
    fn awaited(&self) -> BorrowedFd<'_> {
        self.running.pidfd.as_fd()
    }

    fn deadline(&self) -> Instant {
        self.running.deadline
    }

    fn advance(&mut self) -> Result<Progress, StartError> {
        let what = self.what;
        match self.running.result() {
            None => return Ok(Progress::Waiting),
            Some(result) => result.map_err(|failure| failure.to_start_error(what))?,
        }
        let process = match self.process.take() {
            None => started(&self.pid_file, &self.console)?,
            Some(process) => process,
        };
        let Some(next) = self.next.take() else { return Ok(Progress::Running(process)) };
        let pid = process.pid;
        self.process = Some(process);
        self.running = next.spawn(Output::Captured).map_err(|failure| failure.to_start_error(what))?;
        Ok(Progress::Born(pid))
    }

    fn processes(&self) -> Vec<BorrowedFd<'_>> {
        let process = self.process.iter().map(|process| process.pidfd.as_fd());
        process.chain([self.running.pidfd.as_fd()]).collect()
    }

    fn leftovers(mut self: Box<Self>) -> Vec<OwnedFd> {
        let process = self.process.take().map(|process| process.pidfd);
        process.into_iter().chain(self.running.pidfd.try_clone()).collect()
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        if let Some(dir) = &self.of_exec {
            // What stays vanishes with the container's directory.
            let _ = fs::remove_dir_all(dir);
        }
    }
}

impl Runtime for Cli {
    fn start(&self, bundle: &Bundle, io: Stdio, netns: Option<BorrowedFd<'_>>) -> Result<Box<dyn Pending>, StartError> {
        match self.create(bundle, io, netns) {
            Ok(command) => Ok(Box::new(command)),
            Err(error) => {
                // The first failure is the one to tell.
                let _ = self.cleanup(bundle);
                Err(error)
            }
        }
    }

    fn exec(
        &self,
        bundle: &Bundle,
        init: &Process,
        process: &oci::Process,
        io: Stdio,
    ) -> Result<Box<dyn Pending>, StartError> {
        let root = format!("/proc/{}/root", init.pid);
        let root = Rooted::open_dir(&root).at(|| Stage::NotRunning, "container is not running")?;
        let mut process = process.clone();
        resolve_user(&mut process, &root)?;
        // Execs overlap.
        let dir = Files::of(bundle).bundle.join(format!("exec-{:016x}", sys::random::number()));
        fs::DirBuilder::new().mode(0o700).create(&dir).at(rootfs_stage, "exec directory")?;
        let (description, pid_file) = (dir.join("process.json"), dir.join("pid"));
        let begin = || {
            write_private(&description, &process.to_json()).at(rootfs_stage, "process.json")?;
            let console = Console::listen(process.terminal, &dir)?;
            let mut call = self.call(bundle, dir.join("log.json"));
            call.args(["exec", "--detach", "--process"]).arg(&description).arg("--pid-file").arg(&pid_file);
            console.add_to(&mut call);
            call.arg(&bundle.id);
            let running = call.spawn(Output::Container(io)).map_err(|failure| failure.to_start_error(What::Exec))?;
            Ok((running, console))
        };
        let (running, console) = begin().inspect_err(|_| drop(fs::remove_dir_all(&dir)))?;
        Ok(Box::new(Command {
            running,
            next: None,
            what: What::Exec,
            pid_file,
            console,
            process: None,
            of_exec: Some(dir),
            _brought: rootfs::Brought::default(),
        }))
    }

    fn begin_kill(&self, bundle: &Bundle, process: &Process, signal: i32, scope: Scope) -> Begun {
        let text = signal.to_string();
        match scope {
            Scope::All => self.begin(bundle, "kill", &["--all", &bundle.id, &text], Then::Nothing),
            // The program may stand between the container and its pid on the host (sandboxes).
            Scope::Process if read_pid(&Files::of(bundle).init_pid()).ok() == Some(process.pid) => {
                let held = process.pidfd.try_clone().map_err(model::Error::from)?;
                let then = if signal == SIGKILL { Then::Kill(held) } else { Then::Nothing };
                self.begin(bundle, "kill", &[&bundle.id, &text], then)
            }
            Scope::Process => crate::process::signal(process, signal).map(|()| None),
        }
    }

    fn begin_pause(&self, bundle: &Bundle) -> Begun {
        self.begin(bundle, "pause", &[&bundle.id], Then::Nothing)
    }

    fn begin_resume(&self, bundle: &Bundle) -> Begun {
        self.begin(bundle, "resume", &[&bundle.id], Then::Nothing)
    }

    fn begin_cleanup(&self, bundle: &Bundle) -> Begun {
        if !Files::of(bundle).state.exists() {
            return Ok(None);
        }
        self.begin(bundle, "delete", &["--force", &bundle.id], Then::Remove(Box::new(bundle.clone())))
    }

    fn update(&self, bundle: &Bundle, resources: &oci::Resources) -> model::Result<()> {
        let file = Files::of(bundle).bundle.join("resources.json");
        write_private(&file, &config::resources(resources))?;
        self.simple(bundle, "update", &["--resources", &file.to_string_lossy(), &bundle.id])
    }
}

/// The environment of a process may hold secrets.
fn write_private(file: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(file)?.write_all(content)
}

/// `slice:prefix:name`
fn is_systemd_path(path: &str) -> bool {
    path.split(':').count() == 3 && !path.starts_with('/')
}

/// Names become numbers: command-line runtimes know only these.
fn resolve_user(process: &mut oci::Process, root: &Rooted) -> Result<(), StartError> {
    let Some(name) = process.user.username.take() else { return Ok(()) };
    let found = user::resolve(root, &name, &process.user.groups)?;
    process.user.groups.clear();
    process.user.uid = found.uid;
    process.user.gid = found.gid;
    process.user.additional_gids = found.groups;
    Ok(())
}

/// The process that the program has left behind, now our child.
fn started(pid_file: &Path, console: &Console) -> Result<Process, StartError> {
    let pid = read_pid(pid_file).at(|| Stage::Runtime, "pid file")?;
    let raw = Pid::from_raw(pid).ok_or_else(|| StartError::new(Stage::Runtime, 0, "pid file: no pid"))?;
    let pidfd: OwnedFd = pidfd_open(raw, PidfdFlags::empty()).at(|| Stage::Runtime, "pidfd_open")?;
    Ok(Process::new(pid, pidfd, console.receive()?))
}

fn read_pid(file: &Path) -> io::Result<i32> {
    let text = fs::read_to_string(file)?;
    text.trim().parse().map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}
