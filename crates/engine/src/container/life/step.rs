//! A step of a build: a program that runs like a container's, without a container.
//!
//! Its specification comes about as a container's does, from a definition that is never recorded, so that limits, networks,
//! name resolution and what protects the host are the same. Its root and its directory are the build's; what a daemon that is
//! killed leaves of it, the next one ends and removes as it does with anything that no row names.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use build::cancel::Cancel;
use build::job::{self, Answer, Connection, Network, Output, Runner, Step, StepSource};
use events::now;
use model::digest::Digest;
use model::{Context, Error, Result};
use monitor::client;
use monitor::proto::{Event, Request, RuntimeChoice, StartSpec};
use run::files::Hosts;
use run::progress::Cause;
use run::start::Process;
use run::{Attached, Failed, Link, Place, Progress, RunSpec, Running, Services, link};
use runtime::Scope;
use runtime::spec::{self, Access, Bind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::donors::Donors;
use super::{files, place, plan, resolver, runtime_spec};
use crate::Engine;
use crate::container::definition::places::Places;
use crate::container::definition::{Definition, ImagePin};
use crate::ending::Ending;
use crate::held::{Held, Shown};

/// How long a start that was cancelled may take to come back before its monitor is killed.
const CANCEL_WAIT: Duration = Duration::from_secs(15);
/// How long what a program wrote may take to arrive when it has ended.
const OUTPUT_WAIT: Duration = Duration::from_secs(30);
/// Bytes of the head of a frame: the stream's number, and the length at the end.
const HEAD: usize = 8;
/// The number of the standard output in a frame.
const STDOUT: u8 = 1;
/// Bytes of a frame that are passed on at once.
const CHUNK: usize = 32 << 10;

/// Runs programs of steps as the engine runs containers.
pub struct Steps(pub Arc<Engine>);

impl Runner for Steps {
    fn run(&self, step: Step, output: Output, cancel: Cancel) -> Answer<'_, Result<i32>> {
        Box::pin(run(self.0.clone(), step, Streams { output, dialogue: None }, cancel))
    }

    fn converse(
        &self,
        step: Step,
        output: Output,
        dialogue: Box<dyn Connection>,
        cancel: Cancel,
    ) -> Answer<'_, Result<i32>> {
        Box::pin(run(self.0.clone(), step, Streams { output, dialogue: Some(dialogue) }, cancel))
    }
}

/// Where a program's streams lead.
struct Streams {
    /// What it writes.
    output: Output,
    /// What it reads, and what it writes to its standard output; `None`: it reads nothing.
    dialogue: Option<Box<dyn Connection>>,
}

async fn run(engine: Arc<Engine>, step: Step, streams: Streams, cancel: Cancel) -> Result<i32> {
    engine.containers.refuse_new()?;
    cancel.check()?;
    let (own, theirs) = UnixStream::pair().context("making the streams of a step")?;
    own.set_nonblocking(true).context("making the streams of a step")?;
    let own = tokio::net::UnixStream::from_std(own).context("making the streams of a step")?;
    let id = step.id.clone();
    let place = at(&engine, &step)?;
    let theirs = Theirs { socket: theirs.into(), reads: streams.dialogue.is_some() };
    let ended = async {
        let Running { client, monitor, process: _ } = start(&engine, step, place.clone(), theirs, &cancel).await?;
        link::reap(monitor);
        let reading = tokio::spawn(pass(own, streams));
        let link = Link::new(client).context("speaking to the monitor of a step")?;
        let code = follow(link, &place, &cancel, &engine.containers.ending).await;
        drop(tokio::time::timeout(OUTPUT_WAIT, reading).await);
        code
    };
    let code = ended.await;
    let shared = engine.clone();
    let put_away = engine.containers.threads.ends.run(move |_| {
        let released = shared.networks.release(&id);
        let cleared = place.clear_cgroup(&shared.host.cgroups);
        released.and(cleared).and(run::place::remove_dir(&place.dir))
    });
    if let Err(error) = put_away.await {
        tracing::warn!(%error, "what a step had is not all put away");
    }
    cancel.check()?;
    code
}

/// The program's end of its streams.
struct Theirs {
    socket: OwnedFd,
    /// Whether it reads.
    reads: bool,
}

/// Starts the program; a start that was cancelled has taken everything back.
async fn start(engine: &Arc<Engine>, step: Step, place: Place, streams: Theirs, cancel: &Cancel) -> Result<Running> {
    let progress = Arc::new(Progress::begin(engine.host.faults.clone()));
    let turn = engine.containers.threads.starts.turn().await;
    let (shared, own) = (engine.clone(), progress.clone());
    let mut starting = turn.begin(move |_| {
        let client = Attached {
            socket: streams.socket,
            prefix: Vec::new(),
            stdin: streams.reads,
            stdout: true,
            stderr: true,
            multiplex: true,
            detach_keys: Vec::new(),
            place: None,
        };
        let spec = spec(&shared, step, place, client)?;
        let (networks, monitors) = (&shared.networks, &shared.containers.monitors);
        let services = Services { networks, monitors, cgroups: &shared.host.cgroups };
        // Nobody has to find it after the daemon's death but those who end it.
        run::start(&services, spec, &own, &mut |_: &Process| Ok(()))
    });
    let ended = tokio::select! {
        ended = &mut starting => ended,
        cause = given_up(&progress, cancel) => {
            progress.cancel(cause);
            match tokio::time::timeout(CANCEL_WAIT, &mut starting).await {
                Ok(ended) => ended,
                Err(_) => {
                    progress.kill_monitor();
                    starting.await
                }
            }
        }
    };
    match ended {
        Ok(outcome) => outcome.map_err(|Failed { error, .. }| error),
        Err(panicked) => Err(Error::system("internal error: starting a step failed").with_source(panicked)),
    }
}

/// Why a start is not waited for any longer.
async fn given_up(progress: &Progress, cancel: &Cancel) -> Cause {
    loop {
        let deadline = progress.deadline();
        tokio::select! {
            () = cancel.cancelled() => return Cause::Request,
            () = tokio::time::sleep_until(deadline) => {
                // A later step has a limit of its own.
                if progress.deadline() <= deadline {
                    return Cause::Deadline;
                }
            }
        }
    }
}

/// Waits for the program's end, which a cancelled build brings about.
async fn follow(mut link: Link, place: &Place, cancel: &Cancel, ending: &Ending) -> Result<i32> {
    let mut is_killed = false;
    let code = loop {
        let given_up = async {
            tokio::select! {
                () = cancel.cancelled() => {}
                // Nobody would take up the build.
                () = ending.begun() => cancel.cancel(),
            }
        };
        tokio::select! {
            packet = link.receive() => match packet.map(|packet| packet.body) {
                Some(Event::Exited { exec: None, exit }) => break exit.code,
                Some(_) => {}
                None => break link::exit_record(&place.dir).map_or(super::exit::KILLED, |exit| exit.code),
            },
            () = given_up, if !is_killed => {
                is_killed = true;
                let kill = Request::Signal { exec: None, signal: 9, scope: Scope::All };
                // One that is gone has ended it.
                drop(link.send(&kill, &[]).await);
            }
        }
    };
    drop(link.send(&Request::Release, &[]).await);
    Ok(code)
}

/// Passes on what the program writes, frame by frame, and what is said to it.
async fn pass(own: tokio::net::UnixStream, streams: Streams) -> io::Result<()> {
    let Streams { output, dialogue } = streams;
    let (mut from, mut to) = own.into_split();
    let Some(dialogue) = dialogue else { return read(&mut from, &output, None).await };
    let (mut said, mut answered) = tokio::io::split(dialogue);
    let send = async {
        tokio::io::copy(&mut said, &mut to).await?;
        // The program reads to the end.
        to.shutdown().await
    };
    let receive = async {
        let ready = read(&mut from, &output, Some(&mut answered)).await;
        drop(answered.shutdown().await);
        ready
    };
    // When the program has ended, nothing is said to it any more.
    tokio::pin!(send, receive);
    tokio::select! {
        ready = &mut receive => ready,
        said = &mut send => {
            drop(said);
            receive.await
        }
    }
}

/// What the program writes; its standard output is `answered`, if there is one.
async fn read(
    from: &mut (dyn AsyncRead + Send + Unpin),
    output: &Output,
    mut answered: Option<&mut (dyn AsyncWrite + Send + Unpin)>,
) -> io::Result<()> {
    let mut head = [0; HEAD];
    loop {
        if from.read_exact(&mut head).await.is_err() {
            return Ok(());
        }
        let stream = head[0];
        let mut left = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        while left > 0 {
            let mut bytes = vec![0; left.min(CHUNK)];
            from.read_exact(&mut bytes).await?;
            left -= bytes.len();
            match &mut answered {
                // Who does not listen any more has what was wanted.
                Some(answered) if stream == STDOUT => drop(answered.write_all(&bytes).await),
                _ => output.write(stream, bytes).await,
            }
        }
    }
}

/// Where the step has what lies outside of its root.
fn at(engine: &Engine, step: &Step) -> Result<Place> {
    let settings = engine.settings();
    let cgroup = place::cgroups_path(&settings.containers, &step.limits.cgroup_parent, step.id.as_str());
    let cgroup_origin = sys::cgroup::origin(&cgroup).context("finding the daemon's own cgroup")?;
    Ok(Place { dir: settings.roots.run(step.id.as_str()), cgroup, cgroup_origin })
}

/// What is to run for the step.
fn spec(engine: &Engine, step: Step, place: Place, client: Attached) -> Result<RunSpec> {
    let reads = client.stdin;
    let settings = &*engine.settings();
    let definition = definition(engine, &step);
    let network = Places::of(&definition).sandbox(&engine.networks)?;
    let joined = Donors::find(&engine.containers, &definition)?.open()?;
    let mut shown = Shown::new(Held::default());
    let mut narrow = runtime_spec::container_spec(engine, settings, &definition, &place.cgroup, &mut shown)?;
    for mount in step.mounts {
        let kind = kind(mount.source, mount.writable, &mut shown)?;
        narrow.mounts.user.push(spec::Mount { target: mount.target, kind });
    }
    let mut host = engine.host.runtime.clone();
    host.time_namespaces &= settings.containers.isolation.time_namespaces;
    let runtime = plan::runtime_choice(&settings.containers.runtimes, "")?;
    let seccomp = match &runtime {
        RuntimeChoice::Builtin => engine.host.seccomp.program(&mut narrow.security, &host)?,
        RuntimeChoice::Cli { .. } => runtime::seccomp::Program::default(),
    };
    let spec = spec::build(&narrow, &host)?;
    let rootfs = match engine.snapshots.roots.rootfs(step.id.as_str(), &step.layers)? {
        snapshot::Rootfs::Overlay { lower, upper, work } => runtime::Rootfs::Overlay { lower, upper, work },
        snapshot::Rootfs::Dir(path) => runtime::Rootfs::Dir(path),
    };
    let state_dir = place.dir.join("runtime");
    let program = StartSpec {
        bundle: runtime::Bundle { id: step.id.as_str().into(), spec, rootfs, seccomp, state_dir },
        runtime,
        open_stdin: reads,
        stdin_once: reads,
        log: logs::Spec {
            driver: "none".to_owned(),
            options: logs::Options::default(),
            attrs: String::new(),
            place: logs::Place { dir: place.dir.clone(), id: step.id.as_str().to_owned() },
        },
        exit_path: place.dir.join(client::EXIT_RECORD),
        spill_dir: settings.roots.tmp.clone(),
        netns: false,
        joined: Vec::new(),
        trees: 0,
        attach: Vec::new(),
        resolver: resolver::of(&engine.networks, settings, Places::of(&definition), &definition.host_config),
    };
    let mut files = files::of(&engine.networks, settings, &definition)?;
    if let Some(files) = &mut files {
        let extra = files::extra_hosts(&engine.networks, &settings.containers.dns, &definition.host_config)?;
        files.hosts = Hosts::Step { extra };
    }
    let trees = shown.trees;
    Ok(RunSpec { id: step.id, place, program, network, joined, trees, files, clients: vec![client] })
}

fn kind(source: StepSource, writable: bool, shown: &mut Shown) -> Result<spec::MountKind> {
    let access = if writable { Access::ReadWrite } else { Access::ReadOnly };
    let bind = Bind { access, ..Bind::default() };
    let mode = if writable { "rw" } else { "ro" };
    Ok(match source {
        StepSource::Tree(tree) => spec::MountKind::Bind(shown.pass(tree, bind)?),
        StepSource::Directory(path) => spec::MountKind::Bind(Bind { source: path.display().to_string(), ..bind }),
        StepSource::Tmpfs(0) => tmpfs(&format!("exec,{mode}"))?,
        StepSource::Tmpfs(size) => tmpfs(&format!("exec,{mode},size={size}"))?,
    })
}

fn tmpfs(options: &str) -> Result<spec::MountKind> {
    Ok(spec::MountKind::Tmpfs { options: spec::TmpfsOptions::parse(options)? })
}

/// The step as if it were a container's definition. Its image is no image, and its root not looked up by it.
fn definition(engine: &Engine, step: &Step) -> Definition {
    let limits: &job::Limits = &step.limits;
    let config = api::ContainerConfig {
        hostname: step.hostname.clone(),
        user: step.user.clone(),
        env: Some(step.env.clone()),
        cmd: Some(step.args.clone()),
        working_dir: step.cwd.clone(),
        ..api::ContainerConfig::default()
    };
    let settings = engine.settings();
    let host_config = api::HostConfig {
        network_mode: match &step.network {
            Network::Default => "bridge".to_owned(),
            Network::Host => "host".to_owned(),
            Network::None => "none".to_owned(),
            Network::Named(name) => name.clone(),
        },
        readonly_rootfs: step.readonly_root,
        privileged: step.insecure,
        extra_hosts: Some(step.extra_hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect()),
        ipc_mode: "private".to_owned(),
        shm_size: if limits.shm_size > 0 { limits.shm_size } else { settings.containers.shm_size },
        memory: limits.memory,
        memory_swap: limits.memory_swap,
        cpu_shares: limits.cpu_shares,
        cpu_period: limits.cpu_period,
        cpu_quota: limits.cpu_quota,
        cpuset_cpus: limits.cpuset_cpus.clone(),
        cpuset_mems: limits.cpuset_mems.clone(),
        cgroup_parent: limits.cgroup_parent.clone(),
        ulimits: Some(limits.ulimits.clone()),
        ..api::HostConfig::default()
    };
    Definition {
        id: step.id.clone(),
        name: format!("step-{}", step.id.short()),
        created: now(),
        config,
        host_config,
        own_labels: Default::default(),
        networks: BTreeMap::new(),
        networks_named: false,
        image: ImagePin {
            id: Digest::from_sha256(&[0; 32]),
            reference: String::new(),
            layers: Vec::new(),
            platform: String::new(),
            manifest: None,
        },
        mounts: Vec::new(),
        storage: engine.snapshots.roots.name().to_owned(),
        parsed: Default::default(),
    }
}
