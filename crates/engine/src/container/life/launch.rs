//! The launch: from a row to a running process, straight down, with an undo for every step (ARCHITECTURE, flow of start).
//!
//! Runs on a blocking thread and touches nothing of the actor: it gets what it needs and gives back what it made, or an
//! error after taking everything back.

use std::cell::RefCell;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::lifecycle::State;
use model::time::Timestamp;
use model::{Context, Error, Kind, Result};
use monitor::client::{self, Client};
use monitor::proto::{self, Event, LogSpec, Request, RuntimeChoice, StartSpec};
use network::Networks;
use runtime::Scope;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::donors::Donors;
use super::durable::{self, Durable};
use super::{facts, place};
use crate::Engine;
use crate::container::row::{self, ContainerRow, RunPlace};
use crate::container::session::attach::Attached;
use crate::settings::{BUILT_IN_RUNTIMES, Roots, Runtimes, Settings};

/// What a start says that its log refuses.
const NO_LOG: &str = "failed to create task for container: failed to initialize logging driver";
/// How long a monitor may take to start a process before it is given up.
const START_WAIT: Duration = Duration::from_secs(120);

/// Makes ready for the next launches: what needs no container is done before there is one.
pub async fn replenish(engine: &Arc<Engine>) {
    let engine = engine.clone();
    let made = tokio::task::spawn_blocking(move || {
        sys::sched::in_the_background(|| {
            engine.networks.replenish()?;
            engine.snapshots.make_ahead(&super::files::make_ahead)?;
            engine.containers.monitors.refill().context("starting monitors ahead")
        })
    });
    if let Ok(Err(error)) = made.await {
        // The next launch will try, and tell its client.
        tracing::warn!(%error, "nothing is ready for the next start");
    }
}

/// What a launch made.
pub struct Launched {
    /// The line to the monitor.
    pub client: Client,
    /// The monitor, to be reaped.
    pub monitor: OwnedFd,
    /// The container's init on the host.
    pub pid: i32,
    /// Unix nanoseconds.
    pub started_at: i64,
    /// Its directory and cgroup.
    pub place: RunPlace,
    /// Its connections.
    pub endpoints: Vec<network::Endpoint>,
}

/// The row of a container that runs.
pub fn note_run(
    row: &mut ContainerRow,
    (pid, started_at): (i32, i64),
    place: RunPlace,
    endpoints: Vec<network::Endpoint>,
) {
    row.state = State::Running { pid };
    row.endpoints = endpoints;
    let run = &mut row.run;
    run.place = Some(place);
    run.started_at = Timestamp::from_unix_nanos(started_at);
    (run.exit_code, run.oom_killed, run.was_started, run.manually_stopped) = (0, false, true, false);
    (run.start_failed, run.error) = (false, String::new());
}

/// Why a launch failed: what the client is told, and the exit code that is recorded (126, 127 or 128).
pub struct Failed {
    /// For the client, and the row's `State.Error`.
    pub error: Error,
    /// For the row.
    pub exit_code: i32,
    /// The program ran, could not be recorded, and was ended for that.
    pub ran: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed { error, exit_code: 128, ran: false }
    }
}

/// How long a monitor may take to take a start back.
const CANCEL_WAIT: Duration = Duration::from_secs(15);

/// Breaks a launch off that hangs: a process on its way may wait for a file system or a program that never answers.
#[derive(Debug)]
pub struct Cancel {
    /// Readable once it was broken off.
    fired: OwnedFd,
}

impl Cancel {
    /// Of a launch that goes on.
    pub fn new() -> Result<Cancel> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Cancel { fired: eventfd(0, flags).map_err(std::io::Error::from).context("making an eventfd")? })
    }

    /// Breaks it off; one that is over stays as it is.
    pub fn fire(&self) {
        let _ = rustix::io::write(&self.fired, &1u64.to_ne_bytes());
    }

    /// Whether it was broken off.
    pub fn was_fired(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.fired, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
    }
}

/// A launch under way.
struct Launch<'a> {
    engine: &'a Arc<Engine>,
    settings: &'a Settings,
    row: &'a ContainerRow,
    place: &'a RunPlace,
    /// Clients that were attached before the start.
    attached: Vec<Attached>,
    /// What the row will refer to.
    durable: RefCell<Durable>,
    cancel: &'a Cancel,
}

/// Starts the container; blocks until its program runs or could not.
pub fn launch(
    engine: &Arc<Engine>,
    row: &ContainerRow,
    attached: Vec<Attached>,
    cancel: &Cancel,
) -> Result<Launched, Failed> {
    let settings = engine.settings();
    let place = place::next(&settings, row)?;
    place::make_run_dir(&place.dir)?;
    let durable = RefCell::new(Durable::begin(engine, row));
    let launch = Launch { engine, settings: &settings, row, place: &place, attached, durable, cancel };
    let outcome = launch.with_network();
    if outcome.is_err() {
        // The monitor has ended or never was; a later start makes the directory anew.
        drop(fs::remove_dir_all(&place.dir));
    }
    outcome
}

impl Launch<'_> {
    fn with_network(&self) -> Result<Launched, Failed> {
        prepare_sources(self.row)?;
        let connected = match connect(&self.engine.networks, self.row) {
            // A monitor that is being born may hold a copy of a socket that was closed, and its port with it.
            Err(_) if self.engine.containers.monitors.await_births() => connect(&self.engine.networks, self.row),
            other => other,
        }?;
        match self.with_files(connected.as_ref()) {
            Ok(Spawned { client, monitor, run: (pid, started_at) }) => {
                let endpoints = connected.into_iter().map(|c| c.endpoint).collect();
                let place = self.place.clone();
                Ok(Launched { client, monitor, pid, started_at, place, endpoints })
            }
            Err(failed) => {
                if let Err(error) = self.engine.networks.release(&self.row.id) {
                    tracing::warn!(container = self.row.id.short(), %error, "releasing the network of a failed start");
                }
                Err(failed)
            }
        }
    }

    fn with_files(&self, connected: Option<&network::Connected>) -> Result<Spawned, Failed> {
        super::files::write(&self.engine.networks, self.settings, self.row, connected)?;
        let donors = Donors::find(&self.engine.containers, self.row)?;
        let joined = donors.open()?;
        let spec = StartSpec { joined: joined.iter().map(|(kind, _)| *kind).collect(), ..self.start_spec(connected)? };
        let listener = client::listen(&self.place.dir).context("making the socket of the container's monitor")?;
        let spawned = self.engine.containers.monitors.take().context("starting the container's monitor")?;
        let fds = client::StartFds {
            listener: listener.as_fd(),
            netns: connected.and_then(|c| c.netns.as_ref()).map(AsFd::as_fd),
            joined: joined.iter().map(|(_, fd)| fd.as_fd()).collect(),
            clients: self.attached.iter().map(|a| a.socket.as_fd()).collect(),
        };
        let sent = spawned.client.start(1, &spec, &fds).context("starting the container");
        let mut commit = None;
        let born = |run| commit = Some(self.commit(run, connected));
        let started = sent.map_err(Failed::from).and_then(|()| await_start(&spawned.client, self.cancel, born));
        // A start is answered for what is on the disk; one that cannot get there has not happened.
        let recorded = started.and_then(|run| match commit.unwrap_or_else(|| self.commit(run, connected)) {
            Ok(()) => Ok(run),
            Err(error) => Err(Failed { error: error.prefix("recording the start"), exit_code: 128, ran: true }),
        });
        match recorded {
            Ok(run) => {
                hand_over_ports(&spawned.client, connected);
                Ok(Spawned { client: spawned.client, monitor: spawned.pidfd, run })
            }
            Err(failed) => {
                if failed.ran {
                    client::end_container(&spawned.client);
                }
                client::end(spawned);
                // It has cleaned up after itself, unless it was killed.
                let cleared =
                    place::cgroup_at(&self.engine.host, self.place).and_then(|cgroup| Ok(super::exit::clear(&cgroup)?));
                if let Err(error) = cleared {
                    tracing::warn!(container = self.row.id.short(), %error, "clearing the cgroup of a failed start");
                }
                Err(failed)
            }
        }
    }

    /// Records the run while the container prepares its program. A start that fails after this is recorded behind it; one
    /// whose daemon dies is found by the next as what became of it; one that cannot be recorded is taken back.
    fn commit(&self, run: (i32, i64), connected: Option<&network::Connected>) -> Result<()> {
        let mut row = self.row.clone();
        note_run(&mut row, run, self.place.clone(), connected.map(|c| c.endpoint.clone()).into_iter().collect());
        self.durable.borrow_mut().wait()?;
        self.engine.store.write_blocking(move |tx| {
            durable::note_use(tx, &row)?;
            row::put(tx, &row)
        })
    }

    fn start_spec(&self, connected: Option<&network::Connected>) -> Result<StartSpec> {
        let Launch { engine, settings, row, place, attached, durable: _, cancel: _ } = self;
        let run_dir = &place.dir;
        let mut narrow = facts::container_spec(engine, settings, row, &place.cgroup)?;
        let mut facts = engine.host.runtime.clone();
        facts.time_namespaces &= settings.containers.isolation.time_namespaces;
        if row.host_config.privileged {
            facts.devices = runtime::spec::host::host_devices().context("reading /dev")?;
        }
        let runtime = runtime_choice(&settings.containers.runtimes, &row.host_config.runtime)?;
        let seccomp = match &runtime {
            RuntimeChoice::Builtin => engine.host.seccomp.program(&mut narrow.security, &facts)?,
            RuntimeChoice::Cli { .. } => runtime::seccomp::Program::default(),
        };
        let spec = runtime::spec::build(&narrow, &facts)?;
        let rootfs = match engine.snapshots.rootfs(row.id.as_str(), &row.image.layers)? {
            snapshot::Rootfs::Overlay { lower, upper, work } => runtime::Rootfs::Overlay { lower, upper, work },
            snapshot::Rootfs::Dir(path) => runtime::Rootfs::Dir(path),
        };
        let bundle =
            runtime::Bundle { id: row.id.as_str().into(), spec, rootfs, seccomp, state_dir: run_dir.join("runtime") };
        Ok(StartSpec {
            bundle,
            runtime,
            open_stdin: row.config.open_stdin,
            stdin_once: row.config.stdin_once,
            log: log_spec(&settings.roots, row)?,
            exit_path: run_dir.join(client::EXIT_RECORD),
            spill_dir: settings.roots.tmp.clone(),
            netns: connected.is_some_and(|c| c.netns.is_some()),
            joined: Vec::new(),
            attach: attached.iter().map(wire_attach).collect(),
        })
    }
}

/// Sources of binds that vanished since create are made again, as the reference does for `Binds` (B-vol-2).
fn prepare_sources(row: &ContainerRow) -> Result<()> {
    for mount in row.mounts.iter().filter(|m| m.kind == crate::container::row::MountKind::Bind) {
        if fs::exists(&mount.source).unwrap_or(false) {
            continue;
        }
        if mount.from_mounts {
            let text =
                format!("invalid mount config for type \"bind\": bind source path does not exist: {}", mount.source);
            return Err(Error::invalid(text));
        }
        fs::create_dir_all(&mount.source)
            .with_context(|| format!("error while creating mount source path '{}'", mount.source))?;
    }
    Ok(())
}

/// Joins the container to its network. Modes without one of their own connect nothing.
fn connect(networks: &Networks, row: &ContainerRow) -> Result<Option<network::Connected>> {
    let mode = network_mode(row);
    if mode.starts_with("container:") {
        return Ok(None);
    }
    let mode = if has_no_network(networks, row) { "none" } else { mode };
    let network = networks.id_of(mode)?;
    // Others than the mode's cannot be joined yet, but must be there.
    let joined = row.networks.keys().filter(|name| !is_default(name.as_str()) || networks.has_default());
    joined.map(|name| networks.id_of(name)).try_for_each(|found| found.map(drop))?;
    let endpoint = row.networks.get(mode).or_else(|| row.networks.get(network.as_str()));
    let mac = endpoint.map_or("", |e| e.mac_address.as_str());
    let spec = network::EndpointSpec {
        container: row.id.clone(),
        name: row.name.clone(),
        network,
        mac: network::MacAddress::parse(mac),
        address: None,
        ports: crate::container::create::publish_specs(row)?,
    };
    networks.connect(&spec).map(Some)
}

/// Whether a container that runs has a namespace with nothing but loopback in it and is on no network: its network is disabled,
/// or it is on the default bridge and the daemon has none (`--bridge=none`).
pub fn has_no_network(networks: &Networks, row: &ContainerRow) -> bool {
    row.config.network_disabled || is_default(network_mode(row)) && !networks.has_default()
}

fn is_default(network: &str) -> bool {
    matches!(network, "" | "default" | "bridge")
}

/// `default` and empty mean the default bridge; a container whose network is disabled has none.
pub fn network_mode(row: &ContainerRow) -> &str {
    match row.host_config.network_mode.as_str() {
        mode if row.config.network_disabled && !mode.starts_with("container:") => "none",
        "" | "default" => "bridge",
        mode => mode,
    }
}

/// A started container's monitor.
struct Spawned {
    client: Client,
    monitor: OwnedFd,
    /// Pid and unix nanoseconds.
    run: (i32, i64),
}

/// The monitor's answer to the start request; `born` hears of the process first.
fn await_start(client: &Client, cancel: &Cancel, mut born: impl FnMut((i32, i64))) -> Result<(i32, i64), Failed> {
    let mut deadline = Instant::now() + START_WAIT;
    let mut cancelled = false;
    loop {
        let timeout = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok();
        let mut fds = [PollFd::new(client, PollFlags::IN), PollFd::new(&cancel.fired, PollFlags::IN)];
        let awaited = if cancelled { &mut fds[..1] } else { &mut fds[..] };
        if poll(awaited, timeout.as_ref()).unwrap_or(0) == 0 {
            return Err(Error::system("the container did not start in time").into());
        }
        if !cancelled && !fds[1].revents().is_empty() {
            (cancelled, deadline) = (true, Instant::now() + CANCEL_WAIT);
            // It answers as to every start that fails.
            let kill = Request::Signal { exec: None, signal: model::signal::KILL, scope: Scope::All };
            client.send_by(deadline, &kill, &[]).context("breaking the start off")?;
        }
        match client.receive() {
            Ok(Some(packet)) => match packet.body {
                Event::Born { pid, at } => born((pid, at)),
                Event::Started { exec: None, pid, at } => return Ok((pid, at)),
                Event::Failed { exec: None, error } => {
                    let (error, exit_code) = error.to_error(runtime::What::Create);
                    return Err(Failed { error, exit_code, ran: false });
                }
                _ => {}
            },
            Ok(None) => return Err(Error::system("the container's monitor ended while starting it").into()),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(Error::from(e).prefix("starting the container").into()),
        }
    }
}

/// Gives the monitor the bound sockets of published ports; without them only the packet filter forwards. Nobody waits for
/// its word.
fn hand_over_ports(client: &Client, connected: Option<&network::Connected>) {
    let Some(connected) = connected.filter(|c| !c.sockets.is_empty()) else {
        return;
    };
    let Some(address) = connected.endpoint.address else {
        return;
    };
    let transport = |p: network::Protocol| match p {
        network::Protocol::Udp => Some(proto::Transport::Udp),
        network::Protocol::Tcp => Some(proto::Transport::Tcp),
        network::Protocol::Sctp => None,
    };
    let proxied = |port: &network::BoundPort| {
        let target = SocketAddr::new(IpAddr::V4(address), port.container_port);
        Some(proto::Port { transport: transport(port.protocol)?, target })
    };
    let parked = connected.parked.iter().map(|(ports, queue)| (ports.iter().map(proxied).collect(), queue.as_fd()));
    let parked: Vec<(Vec<_>, _)> = parked.collect();
    let proxied = connected.sockets.iter().filter_map(|(port, socket)| Some((proxied(port)?, socket.as_fd())));
    let (ports, sockets): (Vec<_>, Vec<_>) = proxied.unzip();
    let deadline = Instant::now() + HAND_OVER_WAIT;
    for (ports, sockets) in ports.chunks(PORTS_PER_MESSAGE).zip(sockets.chunks(PORTS_PER_MESSAGE)) {
        if let Err(error) = client.send_by(deadline, &Request::Ports(ports.to_vec()), sockets) {
            return tracing::warn!(%error, "published ports have no proxy");
        }
    }
    for (ports, queue) in parked {
        if let Err(error) = client.send_by(deadline, &Request::ParkedPorts(ports), &[queue]) {
            return tracing::warn!(%error, "published ports have no proxy");
        }
    }
}

/// How long a monitor may take to accept all sockets: thousands of them do not fit into its queue at once.
const HAND_OVER_WAIT: Duration = Duration::from_secs(30);
/// Sockets in one message: below the kernel's limit of 253 descriptors.
const PORTS_PER_MESSAGE: usize = 60;

/// A client in the protocol's words; its socket travels beside it.
pub fn wire_attach(client: &Attached) -> proto::Attach {
    proto::Attach {
        stdin: client.stdin,
        stdout: client.stdout,
        stderr: client.stderr,
        multiplex: client.multiplex,
        detach_keys: client.detach_keys.clone(),
        prefix: client.prefix.clone(),
    }
}

/// The runtime of this name; an unknown one is refused as the reference does.
pub fn runtime_choice(runtimes: &Runtimes, name: &str) -> Result<RuntimeChoice> {
    let name = if name.is_empty() { runtimes.default.as_str() } else { name };
    if let Some(program) = runtimes.programs.get(name) {
        return Ok(RuntimeChoice::Cli { path: program.path.clone().into(), args: program.args.clone() });
    }
    if BUILT_IN_RUNTIMES.contains(&name) {
        return Ok(RuntimeChoice::Builtin);
    }
    Err(Error::invalid(format!("unknown or invalid runtime name: {name}")))
}

fn log_spec(roots: &Roots, row: &ContainerRow) -> Result<LogSpec> {
    let config = &row.host_config.log_config;
    match config.kind.as_str() {
        "none" => Ok(LogSpec::None),
        _ => {
            let options = config.config.clone().unwrap_or_default();
            let options = crate::container::read::logs::attributes(row)
                .and_then(|attributes| logs::options::parse(&options, attributes))
                .map_err(|error| error.with_kind(Kind::System).prefix(NO_LOG))?;
            Ok(LogSpec::JsonFile { path: crate::container::read::logs::path(roots, row), options })
        }
    }
}
