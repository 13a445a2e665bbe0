//! What is mounted for a step's program: files of steps before it, caches, memory, secrets, sockets of SSH agents.

use std::collections::HashMap;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use bollard_buildkit_proto::pb;
use model::{Context, Error, Result};
use snapshot::LayerKey;

use super::input::input;
use crate::caches::{Caches, Held};
use crate::graph::Vertex;
use crate::job::{Job, StepMount, StepSource};
use crate::record::{Chain, keys};
use crate::result::Solved;
use crate::root::{self, Roots, Work};

/// Permissions of a socket for which none are given.
const SOCKET: u32 = 0o600;
/// The agent that is meant if none is named.
const AGENT: &str = "default";

/// What a mount is.
pub(super) fn kind(mount: &pb::Mount) -> pb::MountType {
    pb::MountType::try_from(mount.mount_type).unwrap_or(pb::MountType::Bind)
}

/// A writable root of a step, and the output that it becomes.
pub(super) struct Written {
    pub work: Work,
    pub below: Chain,
    pub output: i64,
    /// Places of mounts that were not there.
    pub stubs: Vec<String>,
}

/// What mounts of a step take from elsewhere: its client, and caches.
#[derive(Default)]
pub(super) struct Taken {
    /// Secrets by their ids, for mounts; what is optional and not there is missing.
    secrets: HashMap<String, Vec<u8>>,
    /// Names of variables with the values of secrets.
    pub variables: Vec<(String, String)>,
    /// Agents that the client forwards.
    agents: Vec<String>,
    /// Caches by their names.
    pub caches: HashMap<String, Held>,
}

/// The agent of a mount.
fn agent_of(mount: &pb::Mount) -> &str {
    match mount.ssh_opt.as_ref().map(|option| option.id.as_str()) {
        None | Some("") => AGENT,
        Some(id) => id,
    }
}

impl Taken {
    /// Asks the client, and waits for caches.
    ///
    /// Errors: `NotFound` for a secret or agent that the client has not and that is not optional.
    pub(super) async fn all(job: &Job, exec: &pb::ExecOp) -> Result<Taken> {
        let mut taken = Taken::default();
        taken.ask_secrets(job, exec).await?;
        for mount in exec.mounts.iter().filter(|mount| kind(mount) == pb::MountType::Ssh) {
            let id = agent_of(mount);
            match job.inputs.has_agent(id).await {
                Ok(()) => taken.agents.push(id.to_owned()),
                Err(_) if mount.ssh_opt.as_ref().is_some_and(|option| option.optional) => {}
                Err(error) => return Err(error),
            }
        }
        let caches = exec.mounts.iter().filter(|mount| kind(mount) == pb::MountType::Cache);
        let mut caches: Vec<pb::CacheOpt> = caches.map(|mount| mount.cache_opt.clone().unwrap_or_default()).collect();
        // In one order for all steps, so that none waits for another that waits for it.
        caches.sort_by(|a, b| (&a.id, b.sharing).cmp(&(&b.id, a.sharing)));
        caches.dedup_by(|later, first| later.id == first.id);
        for cache in caches {
            let sharing = pb::CacheSharingOpt::try_from(cache.sharing).unwrap_or(pb::CacheSharingOpt::Shared);
            let held = tokio::select! {
                held = job.builder.caches.hold(&cache.id, sharing) => held?,
                () = job.cancel.cancelled() => return Err(crate::cancel::cancelled()),
            };
            taken.caches.insert(cache.id, held);
        }
        Ok(taken)
    }

    async fn ask_secrets(&mut self, job: &Job, exec: &pb::ExecOp) -> Result<()> {
        let missing = |id: &str| Error::not_found(format!("secret {id}: not found"));
        for option in exec.mounts.iter().filter_map(|mount| mount.secret_opt.as_ref()) {
            match job.inputs.secret(&option.id).await? {
                Some(value) => _ = self.secrets.insert(option.id.clone(), value),
                None if option.optional => {}
                None => return Err(missing(&option.id)),
            }
        }
        for variable in &exec.secretenv {
            let value = match job.inputs.secret(&variable.id).await? {
                Some(value) => String::from_utf8_lossy(&value).into_owned(),
                None if variable.optional => String::new(),
                None => return Err(missing(&variable.id)),
            };
            self.variables.push((variable.name.clone(), value));
        }
        Ok(())
    }
}

/// A socket in a step, and the agent of the client that it leads to.
pub(super) struct Socket {
    pub listener: UnixListener,
    pub agent: String,
}

/// Makes a step's root and mounts.
pub(super) struct Preparation<'p> {
    roots: &'p Roots,
    vertex: &'p Vertex,
    inputs: &'p [Arc<Solved>],
    pub written: Vec<Written>,
    pub mounts: Vec<StepMount>,
    pub sockets: Vec<Socket>,
}

impl<'p> Preparation<'p> {
    /// Nothing is made yet.
    pub(super) fn new(roots: &'p Roots, vertex: &'p Vertex, inputs: &'p [Arc<Solved>]) -> Preparation<'p> {
        Preparation { roots, vertex, inputs, written: Vec::new(), mounts: Vec::new(), sockets: Vec::new() }
    }

    /// Prepares the root; its place among what is written.
    pub(super) fn root(&mut self, mounts: &[pb::Mount]) -> Result<usize> {
        let mount = mounts.iter().find(|mount| mount.dest == "/");
        let mount = mount.ok_or_else(|| Error::invalid("a step without a root file system"))?;
        self.write(mount)
    }

    fn write(&mut self, mount: &pb::Mount) -> Result<usize> {
        let below = input(self.vertex, self.inputs, mount.input)?;
        let work = Work::prepare(self.roots, &keys(&below))?;
        let output = if mount.readonly { -1 } else { mount.output };
        self.written.push(Written { work, below, output, stubs: Vec::new() });
        Ok(self.written.len() - 1)
    }

    /// Makes a mount; what is optional and not there makes none.
    pub(super) fn mount(&mut self, mount: &pb::Mount, caches: &Caches, taken: &Taken) -> Result<()> {
        let part = mount.selector.trim_start_matches('/');
        let source = match kind(mount) {
            pb::MountType::Bind if mount.readonly => {
                let chain = input(self.vertex, self.inputs, mount.input)?;
                let missing = || Error::not_implemented("mounts of several layers need the overlay driver");
                let tree =
                    root::mount(self.roots, &keys(&chain), part).map_err(|error| of_part(error, part, &mount.dest))?;
                StepSource::Tree(tree.ok_or_else(missing)?)
            }
            pb::MountType::Bind => {
                let at = self.write(mount)?;
                let tree = self.written[at].work.mount(part);
                StepSource::Tree(tree.map_err(|error| of_part(error, part, &mount.dest))?)
            }
            pb::MountType::Cache => {
                let id = mount.cache_opt.as_ref().map(|option| option.id.as_str()).unwrap_or_default();
                let held = taken.caches.get(id).ok_or_else(|| Error::system(format!("cache {id:?} is not held")))?;
                let chain = input(self.vertex, self.inputs, mount.input)?;
                let place = caches.place(self.roots, held, &chain, part);
                StepSource::Directory(place.map_err(|error| of_part(error, part, &mount.dest))?)
            }
            pb::MountType::Tmpfs => StepSource::Tmpfs(mount.tmpfs_opt.map_or(0, |option| option.size)),
            pb::MountType::Secret => {
                let option = mount.secret_opt.clone().unwrap_or_default();
                let Some(value) = taken.secrets.get(&option.id) else { return Ok(()) };
                let file = runtime::layers::File { content: value, owner: (option.uid, option.gid), mode: option.mode };
                StepSource::Tree(runtime::layers::file(&file).context("mounting a secret")?)
            }
            pb::MountType::Ssh => match self.socket(mount, taken)? {
                Some(source) => source,
                None => return Ok(()),
            },
        };
        let writable = !mount.readonly && kind(mount) != pb::MountType::Secret;
        self.mounts.push(StepMount { target: mount.dest.clone(), source, writable });
        Ok(())
    }

    fn socket(&mut self, mount: &pb::Mount, taken: &Taken) -> Result<Option<StepSource>> {
        let agent = agent_of(mount);
        if !taken.agents.iter().any(|known| known == agent) {
            return Ok(None);
        }
        let option = mount.ssh_opt.clone().unwrap_or_default();
        let mode = if option.mode == 0 { SOCKET } else { option.mode };
        let made = runtime::layers::socket((option.uid, option.gid), mode).context("mounting a socket")?;
        let (tree, listener) = made;
        self.sockets.push(Socket { listener, agent: agent.to_owned() });
        Ok(Some(StepSource::Tree(tree)))
    }

    /// Notes which places of mounts are not there yet: they go again when they are still empty after the step.
    pub(super) fn note_stubs(&mut self, top: usize) -> Result<()> {
        let layers = &self.roots.snapshots.layers;
        let below: Vec<LayerKey> = self.written[top].work.layers.clone();
        let mut stubs = Vec::new();
        for mount in &self.mounts {
            let parts = crate::pattern::components(&mount.target);
            for count in (1..=parts.len()).rev() {
                let path = format!("/{}", parts[..count].join("/"));
                if layers.file_type(&below, &path)?.is_some() {
                    break;
                }
                stubs.push(path);
            }
        }
        stubs.sort_by_key(|path| std::cmp::Reverse(path.len()));
        stubs.dedup();
        self.written[top].stubs = stubs;
        Ok(())
    }
}

/// The mount at an absolute place, which is not the root's.
pub(super) fn placed(mount: &pb::Mount, cwd: &str) -> Result<pb::Mount> {
    let dest = model::mount::clean(&match mount.dest.starts_with('/') {
        true => mount.dest.clone(),
        false => format!("/{cwd}/{}", mount.dest),
    });
    if dest == "/" {
        return Err(Error::invalid(format!("invalid mount target {:?}", mount.dest)));
    }
    Ok(pb::Mount { dest, ..mount.clone() })
}

/// What a mount takes of files is not there, or leads out.
pub(super) fn of_part(error: Error, part: &str, target: &str) -> Error {
    match error.kind() {
        model::Kind::NotFound => {
            Error::not_found(format!("{:?}: not found", format!("/{}", part.trim_start_matches('/'))))
        }
        _ => error.prefix(format!("mounting {part:?} at {target}")),
    }
}
