//! Operations that run a program.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bollard_buildkit_proto::pb;
use model::digest::Digest;
use model::{Context, Error, Result};
use rustix::fs::{AtFlags, Mode, OFlags};
use sys::rooted::Rooted;

use super::agent;
use super::input::{input, not_calculated};
use super::mounts::{self, Preparation, Socket, Taken, Written, kind};
use crate::content;
use crate::graph::Vertex;
use crate::job::{Event, Job, Limits, Network, Output, Step, StepMount};
use crate::key::Key;
use crate::record::{Layer, keys};
use crate::result::{Made, Solved, Unmade};
use crate::root::{Roots, Tree};

/// The name of the host that programs of a build run on.
const HOSTNAME: &str = "buildkitsandbox";
/// Mounts of one step.
const MOUNTS: usize = 128;

/// What the inputs count as that are only mounted to be read, by their index.
pub(crate) fn contents(
    roots: &Roots,
    vertex: &Vertex,
    exec: &pb::ExecOp,
    inputs: &[Arc<Solved>],
) -> Result<HashMap<usize, Digest>> {
    let is_read = |mount: &pb::Mount| mount.readonly && mount.dest != "/" && kind(mount) == pb::MountType::Bind;
    let mut read: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for mount in exec.mounts.iter().filter(|mount| is_read(mount)) {
        if let Ok(at) = usize::try_from(mount.input) {
            read.entry(at).or_default().push(&mount.selector);
        }
    }
    read.retain(|at, _| {
        let of_it = |mount: &&pb::Mount| usize::try_from(mount.input).ok() == Some(*at);
        exec.mounts.iter().filter(of_it).all(is_read)
    });
    let mut found = HashMap::new();
    for (at, selectors) in read {
        let tree = Tree::open(roots, &keys(&input(vertex, inputs, at as i64)?))?;
        let mut key = Key::new("mounts");
        for selector in selectors {
            let part = format!("/{}", selector.trim_start_matches('/'));
            let node = tree.root().locate(&part).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => not_calculated(&inputs[at].key, &part),
                _ => Error::from(error).prefix(format!("mounting {part:?} at a step")),
            })?;
            let digest = content::digest(&node, &|_| true).context("reading what is to be mounted")?;
            key.part(digest.as_str().as_bytes());
        }
        found.insert(at, key.finish());
    }
    Ok(found)
}
/// Runs the program; its outputs are what it has written.
pub(crate) async fn run(
    job: &Arc<Job>,
    vertex: &Arc<Vertex>,
    exec: &pb::ExecOp,
    inputs: &[Arc<Solved>],
) -> Result<Made, Unmade> {
    let meta = exec.meta.clone().unwrap_or_default();
    let mut prepared = prepare(job, vertex, exec, inputs).await?;
    let step = step(job, exec, &meta, &mut prepared);
    let Prepared { written, sockets, taken, .. } = prepared;
    let serving = agent::serve(job, sockets)?;
    job.tell(Event::Running { step: vertex.digest.clone(), id: step.id.clone() }).await;
    let output = Output { events: job.events.clone(), step: vertex.digest.clone() };
    let ended = job.runner.run(step, output, job.cancel.clone()).await;
    // Nothing of the step is mounted any more.
    drop((serving, taken));
    let is_wanted =
        |code| if meta.valid_exit_codes.is_empty() { code == 0 } else { meta.valid_exit_codes.contains(&code) };
    if !ended.as_ref().is_ok_and(|code| is_wanted(*code)) {
        // What it has written goes, on a thread that may wait for the disk.
        let removed = move |_: &_| {
            drop(written);
            Ok(())
        };
        job.builder.threads.run(removed).await?;
        let code = ended?;
        let text = format!("process \"{}\" did not complete successfully: exit code: {code}", meta.args.join(" "));
        return Err(Unmade { error: Error::system(text), exit_code: Some(code) });
    }
    let lease = job.lease.clone();
    Ok(job.builder.threads.run(move |_| commit(written, &lease)).await?)
}

/// Makes what the program runs in.
pub(super) async fn prepare(
    job: &Arc<Job>,
    vertex: &Arc<Vertex>,
    exec: &pb::ExecOp,
    inputs: &[Arc<Solved>],
) -> Result<Prepared> {
    allowed(job, exec)?;
    let taken = Taken::all(job, exec).await?;
    let cwd = exec.meta.as_ref().map(|meta| meta.cwd.clone()).unwrap_or_default();
    let (roots, caches) = (job.builder.roots.clone(), job.builder.caches.clone());
    let (owned, mounted) = (exec.mounts.clone(), (vertex.clone(), inputs.to_vec()));
    let prepare = move |_: &_| {
        let (vertex, inputs) = mounted;
        let mut preparation = Preparation::new(&roots, &vertex, &inputs);
        let top = preparation.root(&owned)?;
        for mount in owned.iter().filter(|mount| mount.dest != "/") {
            preparation.mount(&mounts::placed(mount, &cwd)?, &caches, &taken)?;
        }
        preparation.note_stubs(top)?;
        let (written, mounts, sockets) = (preparation.written, preparation.mounts, preparation.sockets);
        Ok(Prepared { top, written, mounts, sockets, taken })
    };
    job.builder.threads.run(prepare).await
}

/// What a step has before its program runs.
pub(super) struct Prepared {
    /// The root, among what is written.
    top: usize,
    pub(super) written: Vec<Written>,
    mounts: Vec<StepMount>,
    pub(super) sockets: Vec<Socket>,
    /// Secrets, and the caches that it holds.
    pub(super) taken: Taken,
}

/// Refuses what the build was not granted, and what this engine has not.
fn allowed(job: &Job, exec: &pb::ExecOp) -> Result<()> {
    if let Some(device) = exec.cdi_devices.iter().find(|device| !device.optional) {
        return Err(Error::not_found(format!("required device {:?} is not registered", device.name)));
    }
    if exec.security == pb::SecurityMode::Insecure as i32 && !job.entitlements.insecure {
        return Err(Error::forbidden("security.insecure is not allowed"));
    }
    if exec.network == pb::NetMode::Host as i32 && !job.entitlements.network_host {
        return Err(Error::forbidden("network.host is not allowed"));
    }
    if exec.mounts.len() > MOUNTS {
        return Err(Error::invalid(format!("more than {MOUNTS} mounts of one step")));
    }
    Ok(())
}

/// What is run; takes the mounts.
pub(super) fn step(job: &Job, exec: &pb::ExecOp, meta: &pb::Meta, prepared: &mut Prepared) -> Step {
    let root = &prepared.written[prepared.top];
    Step {
        id: root.work.id.clone(),
        layers: root.work.layers.clone(),
        args: meta.args.clone(),
        env: environment(meta, std::mem::take(&mut prepared.taken.variables)),
        cwd: meta.cwd.clone(),
        user: meta.user.clone(),
        hostname: if meta.hostname.is_empty() { HOSTNAME.to_owned() } else { meta.hostname.clone() },
        network: match pb::NetMode::try_from(exec.network) {
            Ok(pb::NetMode::Host) => Network::Host,
            Ok(pb::NetMode::None) => Network::None,
            _ => job.network.clone(),
        },
        insecure: exec.security == pb::SecurityMode::Insecure as i32,
        readonly_root: exec.mounts.iter().any(|mount| mount.dest == "/" && mount.readonly),
        extra_hosts: meta.extra_hosts.iter().map(|host| (host.host.clone(), host.ip.clone())).collect(),
        mounts: std::mem::take(&mut prepared.mounts),
        limits: limits(&job.limits, meta),
    }
}

/// Limits of a step: those of the build, and what the step says itself.
fn limits(of_build: &Limits, meta: &pb::Meta) -> Limits {
    let mut limits = of_build.clone();
    let ulimit = |own: &pb::Ulimit| api::Ulimit { name: own.name.clone(), soft: own.soft, hard: own.hard };
    limits.ulimits.extend(meta.ulimit.iter().map(ulimit));
    if !meta.cgroup_parent.is_empty() {
        limits.cgroup_parent.clone_from(&meta.cgroup_parent);
    }
    limits
}

/// The step's own variables, then those that its key does not have: proxies in both spellings, and secrets.
fn environment(meta: &pb::Meta, secrets: Vec<(String, String)>) -> Vec<String> {
    let mut env = meta.env.clone();
    let proxies = meta.proxy_env.clone().unwrap_or_default();
    for (name, value) in [
        ("HTTP_PROXY", proxies.http_proxy),
        ("HTTPS_PROXY", proxies.https_proxy),
        ("FTP_PROXY", proxies.ftp_proxy),
        ("NO_PROXY", proxies.no_proxy),
        ("ALL_PROXY", proxies.all_proxy),
    ] {
        if !value.is_empty() {
            env.extend([format!("{name}={value}"), format!("{}={value}", name.to_lowercase())]);
        }
    }
    env.extend(secrets.into_iter().map(|(name, value)| format!("{name}={value}")));
    env
}

/// Turns what the program has written into layers.
fn commit(written: Vec<Written>, lease: &store::Lease) -> Result<Made> {
    let mut made = Made { outputs: BTreeMap::new(), size: 0 };
    for Written { work, below, output, stubs } in written {
        if output < 0 {
            continue;
        }
        if let Some(upper) = work.upper()? {
            remove_stubs(&Rooted::open_dir(upper)?, &stubs)?;
        }
        let (key, size) = work.commit(lease)?;
        made.size += size;
        let chain: Vec<Layer> = below.iter().cloned().chain([Layer { key, blob: None }]).collect();
        made.outputs.insert(output, Arc::new(chain));
    }
    Ok(made)
}

/// Removes places of mounts that are empty, the deepest first. What is no longer plain stays.
fn remove_stubs(upper: &Rooted, stubs: &[String]) -> Result<()> {
    for path in stubs {
        let (parent, name) = crate::copy::split(path);
        let Ok(parent) = open_plain(upper, parent) else { continue };
        let Ok(stat) = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let flags = match sys::tree::file_type(&stat) {
            rustix::fs::FileType::Directory => AtFlags::REMOVEDIR,
            rustix::fs::FileType::RegularFile if stat.st_size == 0 => AtFlags::empty(),
            _ => continue,
        };
        // One that is not empty is the step's.
        let _ = rustix::fs::unlinkat(&parent, name, flags);
    }
    Ok(())
}

/// A directory that no link leads to.
fn open_plain(root: &Rooted, path: &str) -> std::io::Result<OwnedFd> {
    let resolve = rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS;
    let path = path.trim_start_matches('/');
    let path = if path.is_empty() { "." } else { path };
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    Ok(sys::rooted::openat2(root.as_fd(), std::path::Path::new(path), flags, Mode::empty(), resolve)?)
}
