//! From a [`RunSpec`] to a running process: one straight line of steps, each with its undo.
//!
//! Blocks; to be called on a thread that may wait. What it has made is taken back before it returns an error.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use model::id::ContainerId;
use model::{Context, Error, Result};
use monitor::Spares;
use monitor::client::{self, Client, Spawned};
use monitor::proto::{Event, StartSpec};
use network::{Connected, Endpoint, Networks, SandboxSpec};
use runtime::oci::NamespaceKind;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::attached::Attached;
use crate::files::Files;
use crate::place::{self, Place};
use crate::ports;
use crate::progress::{Progress, Step};
use crate::undo::Undo;

/// The exit code that is recorded for a start that failed before there was a program to blame.
const SETUP_FAILED: i32 = 128;

/// What is to run, and how. Nothing in it refers to a record of the daemon's.
#[derive(Debug)]
pub struct RunSpec {
    /// Names the run's endpoints and its monitor: 64 hex digits.
    pub id: ContainerId,
    /// Its directory and control group.
    pub place: Place,
    /// What the monitor starts. The network namespace, what it joins and who is attached are filled in by the start.
    pub program: StartSpec,
    /// The sandbox that it gets, with its networks; `None`: the program's specification says all.
    pub network: Option<SandboxSpec>,
    /// Namespaces of others that it joins.
    pub joined: Vec<(NamespaceKind, OwnedFd)>,
    /// Detached mounts that its specification attaches, by number.
    pub trees: Vec<OwnedFd>,
    /// Its name resolution files; `None`: they are another's.
    pub files: Option<Files>,
    /// Clients that were attached before the start.
    pub clients: Vec<Attached>,
}

/// What a start uses of the daemon.
pub struct Services<'a> {
    /// Joins and releases networks.
    pub networks: &'a Networks,
    /// Monitors without a container.
    pub monitors: &'a Spares,
    /// Where control groups are.
    pub cgroups: &'a sys::cgroup::Layout,
}

/// A first process that is there, its program not necessarily.
#[derive(Clone, Debug)]
pub struct Process {
    /// On the host.
    pub pid: i32,
    /// Unix nanoseconds.
    pub started_at: i64,
    /// Its places in networks.
    pub endpoints: Vec<Endpoint>,
}

/// A run under the supervision of its monitor.
#[derive(Debug)]
pub struct Running {
    /// The connection to the monitor.
    pub client: Client,
    /// The monitor, to be reaped.
    pub monitor: OwnedFd,
    /// What runs.
    pub process: Process,
}

/// Why a start failed.
#[derive(Debug)]
pub struct Failed {
    /// For the client.
    pub error: Error,
    /// 126 or 127 when the program could not be executed, else 128.
    pub exit_code: i32,
    /// The program may have run; it was ended because a later step failed.
    pub ran: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed { error, exit_code: SETUP_FAILED, ran: false }
    }
}

/// Records a run, durably, while its process prepares its program. An error takes the run back.
pub type Recorder<'a> = dyn FnMut(&Process) -> Result<()> + 'a;

/// Starts the run; returns when its program runs and is recorded, or could not be started and nothing of it is left.
pub fn start(
    services: &Services<'_>,
    spec: RunSpec,
    progress: &Progress,
    record: &mut Recorder<'_>,
) -> Result<Running, Failed> {
    let RunSpec { id, place, program, network, joined, trees, files, clients } = spec;
    let around = Surroundings { id, place, network, joined, trees, files, clients };
    let (monitor, was_asked, ran) = Default::default();
    let line = Line { services, spec: around, progress, monitor, was_asked, ran };
    let mut undo = Undo::default();
    line.run(program, &mut undo, record).map_err(|failed| {
        undo.unwind(progress.faults());
        let error = match progress.cancelled() {
            Some(reason) if reason.message() != failed.error.message() => failed.error.prefix(reason.message()),
            _ => failed.error,
        };
        Failed { error, exit_code: failed.exit_code, ran: line.ran.get() }
    })
}

/// A [`RunSpec`] without its program.
struct Surroundings {
    id: ContainerId,
    place: Place,
    network: Option<SandboxSpec>,
    joined: Vec<(NamespaceKind, OwnedFd)>,
    trees: Vec<OwnedFd>,
    files: Option<Files>,
    clients: Vec<Attached>,
}

/// A start under way.
struct Line<'a> {
    services: &'a Services<'a>,
    spec: Surroundings,
    progress: &'a Progress,
    monitor: RefCell<Option<Arc<Spawned>>>,
    /// The monitor was asked to start the program, and has not answered that it could not.
    was_asked: Cell<bool>,
    /// The program may have run.
    ran: Cell<bool>,
}

impl Line<'_> {
    fn run<'l>(
        &'l self,
        mut program: StartSpec,
        undo: &mut Undo<'l>,
        record: &mut Recorder<'_>,
    ) -> Result<Running, Failed> {
        let Line { spec, services, progress, .. } = self;
        progress.enter(Step::Directory)?;
        undo.push("the directory of the run", || place::remove_dir(&spec.place.dir));
        place::make_dir(&spec.place.dir)?;
        progress.enter(Step::Network)?;
        undo.push("the network", || services.networks.release(&spec.id));
        let connected = self.connect()?;
        let connected = connected.as_ref();
        let endpoints = connected.map(|c| c.endpoints.clone()).unwrap_or_default();
        for gate in program.resolver.iter_mut().flat_map(|resolver| &mut resolver.gates) {
            // The links' names are known only now.
            let link = endpoints.iter().find(|endpoint| endpoint.network.as_str() == gate.network);
            gate.link = link.and_then(|endpoint| endpoint.host_link.clone()).unwrap_or_default();
        }
        progress.enter(Step::Files)?;
        if let Some(files) = &spec.files {
            let own = endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
            let own: Vec<IpAddr> = own.map(|assigned| assigned.address).collect();
            files.write(&own)?;
        }
        progress.enter(Step::Monitor)?;
        let listener = client::listen(&spec.place.dir).context("making the socket of the container's monitor")?;
        undo.push("the monitor", || self.end_monitor());
        let monitor = Arc::new(services.monitors.take().context("starting the container's monitor")?);
        self.monitor.replace(Some(monitor.clone()));
        progress.has_monitor(monitor.clone())?;
        let netns = connected.and_then(|c| c.netns.as_ref()).map(AsFd::as_fd);
        program.netns = netns.is_some();
        program.joined = spec.joined.iter().map(|(kind, _)| *kind).collect();
        program.trees = u16::try_from(spec.trees.len()).unwrap_or(u16::MAX);
        program.attach = spec.clients.iter().map(Attached::request).collect();
        let clients = spec.clients.iter().map(|client| client.socket.as_fd()).collect();
        let joined = spec.joined.iter().map(|(_, fd)| fd.as_fd()).collect();
        let trees = spec.trees.iter().map(|tree| tree.as_fd()).collect();
        let fds = client::StartFds { listener: listener.as_fd(), netns, joined, trees, clients };
        monitor.client.start(1, &program, &fds).context("starting the container")?;
        self.was_asked.set(true);
        progress.enter(Step::Process)?;
        let process = self.await_program(&monitor.client, endpoints, record)?;
        progress.enter(Step::Ports)?;
        ports::hand_over(&monitor.client, connected);
        progress.finish()?;
        progress.release_monitor();
        self.monitor.take();
        let alone = Arc::into_inner(monitor).ok_or_else(|| Error::system("a monitor is in use twice"))?;
        Ok(Running { client: alone.client, monitor: alone.pidfd, process })
    }

    /// Makes the sandbox and joins its networks. A monitor that is being started may hold a copy of a socket that was closed, and its port with
    /// it: then once more.
    fn connect(&self) -> Result<Option<Connected>> {
        let Some(sandbox) = &self.spec.network else { return Ok(None) };
        let networks = self.services.networks;
        let connected = match networks.connect(sandbox) {
            Err(_) if self.services.monitors.await_births() => networks.connect(sandbox),
            other => other,
        };
        connected.map(Some)
    }

    /// The monitor's answers to the start request: its first process is there, which is recorded; the program runs, or
    /// does not. A monitor that does not tell of the first is one of an older daemon.
    fn await_program(
        &self,
        client: &Client,
        endpoints: Vec<Endpoint>,
        record: &mut Recorder<'_>,
    ) -> Result<Process, Failed> {
        let mut recorded = None;
        loop {
            match next_event(client)? {
                Event::Born { pid, at } => {
                    if self.spec.network.is_some() {
                        place::link_namespace(&self.spec.place.dir, pid)?;
                    }
                    let process = Process { pid, started_at: at, endpoints: endpoints.clone() };
                    recorded = Some(self.record(&process, record));
                    self.progress.enter(Step::Program)?;
                }
                Event::Started { exec: None, pid, at } => {
                    self.ran.set(true);
                    let process = Process { pid, started_at: at, endpoints };
                    // A start is answered for what is on the disk; one that cannot get there has not happened.
                    let recorded = recorded.unwrap_or_else(|| self.record(&process, record));
                    return recorded.map(|()| process).map_err(|error| error.prefix("recording the start").into());
                }
                Event::Failed { exec: None, error } => {
                    self.was_asked.set(false);
                    let (error, exit_code) = error.to_error(runtime::What::Create);
                    return Err(Failed { error, exit_code, ran: false });
                }
                _ => {}
            }
        }
    }

    fn record(&self, process: &Process, record: &mut Recorder<'_>) -> Result<()> {
        self.progress.record()?;
        record(process)
    }

    /// Ends the monitor with what it has started, and clears the control group: it has done so itself unless it was killed.
    fn end_monitor(&self) -> Result<()> {
        self.progress.release_monitor();
        if let Some(monitor) = self.monitor.take().and_then(Arc::into_inner) {
            if self.was_asked.get() {
                client::end_container(&monitor.client);
            }
            client::end(monitor);
        }
        self.spec.place.clear_cgroup(self.services.cgroups)
    }
}

/// The monitor's next event, which the limit of the step bounds.
fn next_event(client: &Client) -> Result<Event> {
    loop {
        let limit = Step::Program.limit();
        let timeout = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: 0 };
        let mut fds = [PollFd::new(client, PollFlags::IN)];
        if poll(&mut fds, Some(&timeout)).unwrap_or(0) == 0 {
            return Err(Error::system("the container did not start in time"));
        }
        match client.receive() {
            Ok(Some(packet)) => return Ok(packet.body),
            Ok(None) => return Err(Error::system("the container's monitor ended while starting it")),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(Error::from(e).prefix("starting the container")),
        }
    }
}
