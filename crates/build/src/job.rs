//! A build that goes on: what it uses of the daemon and of its client, and what it tells.

use std::collections::BTreeMap;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use bollard_buildkit_proto::pb;
use image::Transfers;
use model::digest::Digest;
use model::id::ContainerId;
use model::lock::Mutex;
use model::{Error, Result};
use registry::Credentials;
use snapshot::LayerKey;
use store::Lease;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::builder::Builder;
use crate::cancel::Cancel;
use crate::graph::Vertex;
use crate::record::{Busy, Chain};
use crate::result::{Memo, Solved};
use crate::sources::rules::Rules;

/// What a build tells, at most so many messages ahead of its client.
pub const EVENTS: usize = 256;

/// A future that a trait answers with.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What happens in a build.
#[derive(Debug)]
pub enum Event {
    /// A step begins.
    Started {
        /// Which.
        step: Digest,
        /// As people are told of it.
        name: String,
        /// The steps that it needs.
        inputs: Vec<Digest>,
    },
    /// A step's program is started.
    Running {
        /// Which.
        step: Digest,
        /// What it is known by.
        id: ContainerId,
    },
    /// A step's program has written.
    Output {
        /// Which.
        step: Digest,
        /// 1 or 2.
        stream: u8,
        /// What.
        bytes: Vec<u8>,
    },
    /// A step has ended.
    Ended {
        /// Which.
        step: Digest,
        /// Nothing was done for it: its result was there.
        cached: bool,
        /// Why it failed.
        error: Option<String>,
    },
}

/// Where a step's program writes to.
#[derive(Clone)]
pub struct Output {
    /// The build's events.
    pub events: mpsc::Sender<Event>,
    /// The step.
    pub step: Digest,
}

impl Output {
    /// Passes on what was written; waits for a client that is slow.
    pub async fn write(&self, stream: u8, bytes: Vec<u8>) {
        // A client that left has cancelled the build.
        drop(self.events.send(Event::Output { step: self.step.clone(), stream, bytes }).await);
    }
}

/// A program to be run on layers.
#[derive(Debug)]
pub struct Step {
    /// What it is known by; its writable root is prepared under this name.
    pub id: ContainerId,
    /// What lies below the root, bottom first.
    pub layers: Vec<LayerKey>,
    /// The program and its arguments.
    pub args: Vec<String>,
    /// Its variables.
    pub env: Vec<String>,
    /// Where it starts; empty: `/`.
    pub cwd: String,
    /// Who it runs as; empty: root.
    pub user: String,
    /// Its host name.
    pub hostname: String,
    /// Its network.
    pub network: Network,
    /// It gets all capabilities, and nothing protects the host from it.
    pub insecure: bool,
    /// The root cannot be written to.
    pub readonly_root: bool,
    /// Further lines of its hosts file: name, address.
    pub extra_hosts: Vec<(String, String)>,
    /// What is mounted besides the root.
    pub mounts: Vec<StepMount>,
    /// What it may use.
    pub limits: Limits,
}

/// The network of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// The engine's default bridge.
    #[default]
    Default,
    /// The host's.
    Host,
    /// A loopback only.
    None,
    /// The engine's network of this name, or `container:…`.
    Named(String),
}

/// What a step may use. Zero and empty: as much as a container.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Bytes.
    pub memory: i64,
    /// Bytes of memory and swap; -1: any.
    pub memory_swap: i64,
    /// Shares of processors.
    pub cpu_shares: i64,
    /// Microseconds.
    pub cpu_period: i64,
    /// Microseconds of a period.
    pub cpu_quota: i64,
    /// A list of processors.
    pub cpuset_cpus: String,
    /// A list of memory nodes.
    pub cpuset_mems: String,
    /// The parent of its control group.
    pub cgroup_parent: String,
    /// Bytes of /dev/shm.
    pub shm_size: i64,
    /// setrlimit(2)
    pub ulimits: Vec<api::Ulimit>,
}

/// A mount of a step.
#[derive(Debug)]
pub struct StepMount {
    /// Absolute, in the step.
    pub target: String,
    /// What is mounted.
    pub source: StepSource,
    /// The step may write to it.
    pub writable: bool,
}

/// What is mounted in a step.
#[derive(Debug)]
pub enum StepSource {
    /// A detached mount.
    Tree(OwnedFd),
    /// A directory of the daemon's.
    Directory(PathBuf),
    /// Memory: bytes at most, 0 for the kernel's bound.
    Tmpfs(i64),
}

/// Runs programs of steps. Implemented by the engine, and by tests that have no kernel.
pub trait Runner: Send + Sync {
    /// Runs a program to its end and answers its exit code. When the build is cancelled, it is killed.
    ///
    /// Errors: it could not be started; `context canceled`.
    fn run(&self, step: Step, output: Output, cancel: Cancel) -> Answer<'_, Result<i32>>;

    /// The same for a program that is spoken with: `dialogue` is what it reads and what it writes to its standard output.
    ///
    /// Errors: `NotImplemented` by one that speaks with none.
    fn converse(&self, _: Step, _: Output, _: Box<dyn Connection>, _: Cancel) -> Answer<'_, Result<i32>> {
        Box::pin(async { Err(Error::not_implemented("front ends in containers are not run here")) })
    }
}

/// Files that a build gets of its client.
#[derive(Clone, Debug)]
pub struct Local {
    /// Their layers.
    pub chain: Chain,
    /// What they count as where all of them are used.
    pub key: Digest,
}

/// What a build gets of its client: a context that came with the request, or the services of a session.
pub trait Inputs: Send + Sync {
    /// The files of this name, with these attributes.
    ///
    /// Errors: `NotFound` for a name that the client has not.
    fn local<'a>(&'a self, name: &'a str, attributes: &'a Attributes) -> Answer<'a, Result<Local>>;

    /// A secret; `None`: the client has none of this name.
    fn secret<'a>(&'a self, id: &'a str) -> Answer<'a, Result<Option<Vec<u8>>>>;

    /// What a registry is shown; `host` is its name as references have it (`docker.io`). None by default.
    fn credentials<'a>(&'a self, _host: &'a str) -> Answer<'a, Result<Credentials>> {
        Box::pin(async { Ok(Credentials::default()) })
    }

    /// Whether the client forwards an SSH agent of this name (`default`). It has none by default.
    ///
    /// Errors: `NotFound` `no SSH key "x" forwarded from the client`.
    fn has_agent<'a>(&'a self, id: &'a str) -> Answer<'a, Result<()>> {
        Box::pin(async move { Err(Error::not_found(format!("no SSH key {id:?} forwarded from the client"))) })
    }

    /// A connection to that agent.
    fn agent<'a>(&'a self, id: &'a str) -> Answer<'a, Result<Box<dyn Connection>>> {
        Box::pin(async move { Err(Error::not_found(format!("no SSH key {id:?} forwarded from the client"))) })
    }

    /// What the client sends in the place of a server: the body of `http://buildkit-session/<path>` or
    /// `http://build-context-<id>`. Readable once.
    fn upload<'a>(&'a self, address: &'a str) -> Answer<'a, Result<Incoming>> {
        Box::pin(async move { Err(Error::not_found(format!("the client sends nothing for {address}"))) })
    }

    /// A blob of an OCI layout that the client has: its store is `oci:<name>`.
    fn layout_blob<'a>(&'a self, store: &'a str, digest: &'a Digest) -> Answer<'a, Result<Incoming>> {
        Box::pin(async move { Err(Error::not_found(format!("the client has no {digest} in {store}"))) })
    }
}

/// A cache that was made elsewhere.
pub trait Imports: Send + Sync {
    /// Looks for what the cache has of a vertex: of a source once it is solved (`solved` is its result), of a step once its inputs
    /// are (`solved`).
    fn follow<'a>(
        &'a self,
        job: &'a Arc<Job>,
        vertex: &'a Arc<Vertex>,
        solved: &'a [Arc<Solved>],
    ) -> Answer<'a, Result<()>>;

    /// The layers of a step's outputs, here and pinned for the build; `None`: it does not have the step. `key` is the step's
    /// content key.
    fn find<'a>(
        &'a self,
        job: &'a Arc<Job>,
        key: &'a Digest,
        vertex: &'a Vertex,
    ) -> Answer<'a, Result<Option<BTreeMap<i64, Chain>>>>;
}

/// Bytes from the client, as they come.
pub type Incoming = Box<dyn AsyncRead + Send + Unpin>;

/// A two-way stream.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// What a build may do that others may not, and was granted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entitlements {
    /// `network.host`
    pub network_host: bool,
    /// `security.insecure`
    pub insecure: bool,
    /// `device`: names of devices, or `*`.
    pub devices: Vec<String>,
}

/// Attributes of a source.
pub type Attributes = std::collections::BTreeMap<String, String>;

/// A build that goes on.
pub struct Job {
    /// Whose.
    pub builder: Arc<Builder>,
    /// Runs its programs.
    pub runner: Arc<dyn Runner>,
    /// Its client.
    pub inputs: Arc<dyn Inputs>,
    /// What it tells.
    pub events: mpsc::Sender<Event>,
    /// Ends it.
    pub cancel: Cancel,
    /// What its steps may use.
    pub limits: Limits,
    /// The network of steps that ask for none.
    pub network: Network,
    /// What it was granted.
    pub entitlements: Entitlements,
    /// Downloads at one time.
    pub transfers: Transfers,
    /// What it has made or found until it ends.
    pub lease: Arc<Lease>,
    /// Records that are being written, and those that it uses.
    pub(crate) records: Arc<Mutex<Pending>>,
    /// What it has solved.
    pub(crate) memo: Arc<Memo>,
}

/// Records of a build.
#[derive(Default)]
pub(crate) struct Pending {
    pub(crate) keeps: Vec<JoinHandle<Result<()>>>,
    pub(crate) busy: Vec<Busy>,
    /// What sources turned out to be, by their identifiers: an image's digest, a commit, the digest of a file.
    pub(crate) pins: BTreeMap<String, String>,
    /// Caches that it may use.
    pub(crate) imports: Vec<Arc<dyn Imports>>,
    /// Policies of its client for sources.
    pub(crate) rules: Vec<Arc<Rules>>,
}

impl Job {
    /// A build of this client.
    pub fn new(
        builder: &Arc<Builder>,
        runner: Arc<dyn Runner>,
        inputs: Arc<dyn Inputs>,
        events: mpsc::Sender<Event>,
    ) -> Job {
        Job {
            builder: builder.clone(),
            runner,
            inputs,
            events,
            cancel: Cancel::default(),
            limits: Limits::default(),
            network: Network::default(),
            entitlements: Entitlements::default(),
            transfers: Transfers { downloads: 0, uploads: 0 },
            lease: Arc::new(builder.images.pins.lease()),
            records: Arc::default(),
            memo: Arc::default(),
        }
    }

    /// Has steps that a cache has not run. To be called before anything is solved.
    pub fn use_cache(&self, cache: Arc<dyn Imports>) {
        self.records.lock().imports.push(cache);
    }

    /// Obeys policies for sources from now on, besides those that it obeys.
    pub fn obey(&self, rules: Rules) {
        if !rules.is_empty() {
            self.records.lock().rules.push(Arc::new(rules));
        }
    }

    /// What its policies make of a source; `None`: it stays as it is.
    ///
    /// Errors: `Forbidden` for one that is denied.
    pub(crate) fn judged(&self, source: &pb::SourceOp) -> Result<Option<pb::SourceOp>> {
        let rules = self.records.lock().rules.clone();
        let mut made = None;
        for rules in rules {
            if let Some(next) = rules.evaluate(made.as_ref().unwrap_or(source))? {
                made = Some(next);
            }
        }
        Ok(made)
    }

    /// The result of a vertex that this build has solved.
    pub(crate) fn solved(&self, vertex: &Digest) -> Option<Arc<Solved>> {
        self.memo.solved(vertex)
    }

    /// Notes what a source turned out to be.
    pub(crate) fn note_pin(&self, source: String, pin: String) {
        self.records.lock().pins.insert(source, pin);
    }

    /// What sources turned out to be.
    pub(crate) fn pins(&self) -> BTreeMap<String, String> {
        self.records.lock().pins.clone()
    }

    /// A part of the build: it shares all but its end.
    pub(crate) fn part(&self) -> Arc<Job> {
        Arc::new(Job {
            builder: self.builder.clone(),
            runner: self.runner.clone(),
            inputs: self.inputs.clone(),
            events: self.events.clone(),
            cancel: self.cancel.part(),
            limits: self.limits.clone(),
            network: self.network.clone(),
            entitlements: self.entitlements.clone(),
            transfers: self.transfers,
            lease: self.lease.clone(),
            records: self.records.clone(),
            memo: self.memo.clone(),
        })
    }

    /// Waits until what it has made is durable. To be called before it is dropped; records that cannot be written are gone
    /// with the daemon.
    pub async fn await_kept(&self) {
        let keeps = std::mem::take(&mut self.records.lock().keeps);
        for keep in keeps {
            if let Ok(Err(error)) = keep.await {
                tracing::warn!(%error, "a result of a build is not kept");
            }
        }
    }

    pub(crate) async fn tell(&self, event: Event) {
        // A client that left has cancelled the build.
        drop(self.events.send(event).await);
    }
}
