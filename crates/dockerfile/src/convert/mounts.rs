//! `RUN --mount`.

use bollard_buildkit_proto::pb;
use model::mount::clean;

use super::at::{At, Result, refuse};
use super::plan::{Plan, SCRATCH};
use crate::instruction::{Mount, MountKind, Sharing};
use crate::llb::{
    About, Action, CacheMount, ExecMount, Holder, MakeDirectory, Output, Owner, SecretMount, SshMount, Vertex,
};
use crate::text::{join, last_element, quote};

/// What is mounted for a command.
#[derive(Default)]
pub(super) struct Mounted {
    /// Files.
    pub files: Vec<ExecMount>,
    /// Secrets in variables.
    pub secrets: Vec<pb::SecretEnv>,
    /// Where sockets of agents are.
    pub sockets: Vec<String>,
}

/// All mounts of a command.
pub(super) fn all(plan: &mut Plan<'_>, at: &At<'_>, mounts: &[Mount]) -> Result<Mounted> {
    let mut mounted = Mounted::default();
    for (number, mount) in mounts.iter().enumerate() {
        match mount.kind {
            MountKind::Secret => secret(plan, at, mount, &mut mounted)?,
            MountKind::Ssh => agent(plan, at, mount, &mut mounted)?,
            MountKind::Bind | MountKind::Cache | MountKind::Tmpfs => {
                let files = files(plan, at, mount, number)?;
                mounted.files.push(files);
            }
        }
    }
    Ok(mounted)
}

fn files(plan: &mut Plan<'_>, at: &At<'_>, mount: &Mount, number: usize) -> Result<ExecMount> {
    let from = match mount.from.as_str() {
        "" if mount.kind == MountKind::Cache => SCRATCH,
        from => from,
    };
    let source = at.step.sources.get(number).copied().filter(|_| !from.is_empty());
    if source.is_some_and(|source| !plan.stages[source].progress.done) {
        let (from, target) = (quote(from), quote(&mount.target));
        return refuse(format!(
            "cannot mount from stage {from} to {target}, stage needs to be defined before current command"
        ));
    }
    let mut input = match (mount.kind, source) {
        (MountKind::Tmpfs, _) => None,
        (_, Some(source)) => plan.stages[source].state.output,
        (_, None) => plan.context,
    };
    let target = target(plan, at, mount)?;
    let source_path = join("/", &mount.source);
    let mut selector = if source_path == "/" { String::new() } else { source_path.clone() };
    if selector.is_empty() && mount.access.is_given() {
        input = Some(owned(plan, mount, input));
        selector = "/cache".into();
    }
    match source {
        Some(source) => plan.uses(source, &source_path),
        None => drop(plan.stages[at.stage].context_paths.insert(source_path)),
    }
    let readonly = mount.readonly;
    let holder = match mount.kind {
        MountKind::Cache => Holder::Cache(cache(plan, mount)),
        MountKind::Tmpfs => Holder::Memory(mount.size),
        _ => Holder::Input,
    };
    Ok(ExecMount { input, selector, target, readonly, kept: false, holder })
}

fn target(plan: &Plan<'_>, at: &At<'_>, mount: &Mount) -> Result<String> {
    let target = match mount.target.starts_with('/') {
        true => mount.target.clone(),
        false => clean(&format!("/{}/{}", plan.stages[at.stage].state.directory, mount.target)),
    };
    match clean(&target) == "/" {
        true => refuse(format!("invalid mount target {}", quote("/"))),
        false => Ok(target),
    }
}

fn cache(plan: &Plan<'_>, mount: &Mount) -> CacheMount {
    let id = if mount.id.is_empty() { clean(&mount.target) } else { mount.id.clone() };
    let sharing = match mount.sharing {
        None | Some(Sharing::Shared) => pb::CacheSharingOpt::Shared,
        Some(Sharing::Private) => pb::CacheSharingOpt::Private,
        Some(Sharing::Locked) => pb::CacheSharingOpt::Locked,
    };
    CacheMount { id: format!("{}/{id}", plan.job.options.run.cache_namespace), sharing: sharing.into() }
}

/// A cache begins as a directory with this owner and mode.
fn owned(plan: &mut Plan<'_>, mount: &Mount, input: Option<Output>) -> Output {
    let access = mount.access;
    let mode = access.mode.unwrap_or(0o755) & 0o777;
    let form = pb::FileActionMkDir {
        path: "/cache".into(),
        mode: i32::try_from(mode).unwrap_or(0o755),
        make_parents: false,
        owner: None,
        timestamp: -1,
    };
    let owner = Some(Owner::numbers(access.uid.unwrap_or(0), access.gid.unwrap_or(0)));
    let mut about = About::named("[internal] setting cache mount permissions");
    about.needs("file.base");
    let action = Action::Directory(MakeDirectory { form, owner });
    plan.graph.add(Vertex::File(input, vec![action]), about)
}

fn secret(plan: &mut Plan<'_>, at: &At<'_>, mount: &Mount, mounted: &mut Mounted) -> Result<()> {
    let id = match (mount.source.as_str(), mount.id.as_str()) {
        ("", "") if mount.target.is_empty() => return refuse("one of source, target required"),
        ("", "") => last_element(&mount.target).to_owned(),
        ("", id) => id.to_owned(),
        (source, _) => source.to_owned(),
    };
    let note = (mount.required, at.step.command.lines);
    plan.stages[at.stage].outline.secrets.entry(id.clone()).or_insert(note);
    if let Some(name) = &mount.env {
        let secret = pb::SecretEnv { id: id.clone(), name: name.clone(), optional: !mount.required };
        mounted.secrets.push(secret);
        if mount.target.is_empty() {
            return Ok(());
        }
    }
    let target = match mount.target.as_str() {
        "" => format!("/run/secrets/{}", last_element(&id)),
        target => target.to_owned(),
    };
    let access = mount.access;
    let secret = SecretMount {
        id,
        uid: access.uid.unwrap_or(0),
        gid: access.gid.unwrap_or(0),
        mode: access.mode.unwrap_or(0o400),
        optional: !mount.required,
    };
    mounted.files.push(ExecMount { target, holder: Holder::Secret(secret), ..ExecMount::default() });
    Ok(())
}

fn agent(plan: &mut Plan<'_>, at: &At<'_>, mount: &Mount, mounted: &mut Mounted) -> Result<()> {
    if !mount.source.is_empty() {
        return refuse("ssh does not support source");
    }
    let id = if mount.id.is_empty() { "default" } else { &mount.id };
    let note = (mount.required, at.step.command.lines);
    plan.stages[at.stage].outline.agents.entry(id.to_owned()).or_insert(note);
    let target = match mount.target.as_str() {
        "" => format!("/run/buildkit/ssh_agent.{}", mounted.sockets.len()),
        target => target.to_owned(),
    };
    mounted.sockets.push(target.clone());
    let access = mount.access;
    let agent = SshMount {
        id: mount.id.clone(),
        uid: access.uid.unwrap_or(0),
        gid: access.gid.unwrap_or(0),
        mode: access.mode.unwrap_or(0o600),
        optional: !mount.required,
    };
    mounted.files.push(ExecMount { target, holder: Holder::Ssh(agent), ..ExecMount::default() });
    Ok(())
}
