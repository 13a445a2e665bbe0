//! The list of mounts: defaults, Gantry's files, the user's mounts, and what read-only and privileged make of them.

use model::{Error, Result};

use super::input::{Access, Bind, ContainerSpec, Mount, MountKind, Propagation, Recursion, Shm};
use super::tmpfs::TmpfsOptions;
use super::{HostFeatures, INIT_PATH, defaults};
use crate::oci;

/// Mounts, and the propagation that the root needs for them.
pub(super) struct Planned {
    pub mounts: Vec<oci::Mount>,
    /// Empty = private.
    pub rootfs_propagation: String,
}

pub(super) fn plan(container: &ContainerSpec, host: &HostFeatures, init: Option<&str>) -> Result<Planned> {
    let user = user_mounts(container);
    let mut mounts = default_mounts(container, &user);
    mounts.extend(init.map(init_mount));
    let mut root = None;
    for mount in &user {
        mounts.push(match &mount.kind {
            MountKind::Tmpfs { options } => tmpfs(&mount.target, options),
            MountKind::Bind(bind) => bind_mount(&mount.target, bind, host, &mut root)?,
        });
    }
    if container.readonly_rootfs {
        for mount in mounts.iter_mut().filter(|m| !stays_writable(m, &user)) {
            mount.options.push("ro".to_owned());
        }
    }
    for mount in &mut mounts {
        let sys = mount.destination == "/sys" && container.security.privileged;
        let cgroup = mount.kind == "cgroup" && writable_cgroups(container);
        if sys || cgroup {
            mount.options.retain(|o| o != "ro");
        }
    }
    let rootfs_propagation = root.map_or("", Propagation::as_str).to_owned();
    Ok(Planned { mounts, rootfs_propagation })
}

/// The user's mounts and Gantry's own binds, parents before children.
fn user_mounts(container: &ContainerSpec) -> Vec<Mount> {
    let mut all = container.mounts.user.clone();
    let own = |source: &str, access| Bind {
        source: source.to_owned(),
        access,
        propagation: Some(Propagation::RPrivate),
        ..Bind::default()
    };
    let mut add = |target: &str, bind| {
        if !all.iter().any(|m| m.target == target) {
            all.push(Mount { target: target.to_owned(), kind: MountKind::Bind(bind) });
        }
    };
    match &container.mounts.shm {
        Shm::Bind(source) => add(defaults::SHM, own(source, Access::ReadWrite)),
        Shm::Join => {
            let namespace = Some(oci::PASSED.to_owned());
            add(defaults::SHM, Bind { namespace, ..own(defaults::SHM, Access::ReadWrite) });
        }
        Shm::None | Shm::Private { .. } => {}
    }
    let access = if container.readonly_rootfs { Access::ReadOnly } else { Access::ReadWrite };
    for file in &container.mounts.files {
        add(&file.target, own(&file.source, access));
    }
    all.sort_by_key(|m| m.target.split('/').filter(|part| !part.is_empty()).count());
    all
}

/// The defaults that the user's mounts leave in place.
fn default_mounts(container: &ContainerSpec, user: &[Mount]) -> Vec<oci::Mount> {
    let taken = |target: &str| user.iter().any(|m| m.target == target);
    let own_dev = taken("/dev");
    let mut mounts = defaults::mounts();
    mounts.retain(|m| !(taken(&m.destination) || own_dev && m.destination.starts_with("/dev/")));
    match container.mounts.shm {
        Shm::Private { size } => {
            let shm = mounts.iter_mut().filter(|m| m.destination == defaults::SHM);
            shm.for_each(|m| m.options.push(format!("size={size}")));
        }
        Shm::None | Shm::Bind(_) | Shm::Join => mounts.retain(|m| m.destination != defaults::SHM),
    }
    mounts
}

fn init_mount(source: &str) -> oci::Mount {
    oci::Mount {
        destination: INIT_PATH.to_owned(),
        kind: "bind".to_owned(),
        source: source.to_owned(),
        options: vec!["bind".to_owned(), "ro".to_owned()],
        ..oci::Mount::default()
    }
}

fn stays_writable(mount: &oci::Mount, user: &[Mount]) -> bool {
    defaults::WRITABLE_MOUNTS.contains(&mount.destination.as_str())
        || user.iter().any(|m| m.target == mount.destination)
        || mount.options.iter().any(|o| o == "ro")
}

fn writable_cgroups(container: &ContainerSpec) -> bool {
    // Read only cannot be had there: a mount in a user namespace cannot be remounted.
    container.namespaces.user.is_some() || container.security.writable_cgroups.unwrap_or(container.security.privileged)
}

fn bind_mount(target: &str, bind: &Bind, host: &HostFeatures, root: &mut Option<Propagation>) -> Result<oci::Mount> {
    if let Some(needed) = required_of_root(bind)?
        && (needed == Propagation::Shared || root.is_none())
    {
        // Shared outranks slave outranks private.
        *root = Some(needed);
    }
    let mut options = vec![if bind.recursion == Recursion::Top { "bind" } else { "rbind" }];
    options.extend(match bind.access {
        Access::ReadWrite => None,
        Access::ReadOnlyTop => Some("ro"),
        Access::ReadOnly if host.recursive_readonly => Some("rro"),
        Access::ReadOnly => Some("ro"),
        Access::ReadOnlyForced if host.recursive_readonly => Some("rro"),
        Access::ReadOnlyForced => {
            return Err(Error::system("rro is not supported: no mount_setattr (kernel is older than 5.12?)"));
        }
    });
    options.extend(bind.propagation.map(Propagation::as_str));
    Ok(oci::Mount {
        destination: target.to_owned(),
        kind: "bind".to_owned(),
        source: bind.source.clone(),
        subpath: bind.subpath.clone(),
        namespace: bind.namespace.clone(),
        tree: bind.tree,
        options: options.into_iter().map(str::to_owned).collect(),
    })
}

/// What the bind's propagation needs of the root mount, if the host's mount can give it.
fn required_of_root(bind: &Bind) -> Result<Option<Propagation>> {
    let Some(propagation) = bind.propagation else { return Ok(None) };
    let source = bind.source_mount.clone().unwrap_or_default();
    let refused = |kind: &str| {
        let text = format!("path {} is mounted on {} but it is not a {kind} mount", bind.source, source.point);
        Error::system(text)
    };
    match propagation {
        Propagation::Private | Propagation::RPrivate => Ok(None),
        Propagation::Shared | Propagation::RShared if source.shared => Ok(Some(Propagation::Shared)),
        Propagation::Shared | Propagation::RShared => Err(refused("shared")),
        Propagation::Slave | Propagation::RSlave if source.shared || source.slave => Ok(Some(Propagation::RSlave)),
        Propagation::Slave | Propagation::RSlave if bind.propagation_optional => Ok(None),
        Propagation::Slave | Propagation::RSlave => Err(refused("shared or slave")),
    }
}

fn tmpfs(target: &str, options: &TmpfsOptions) -> oci::Mount {
    oci::Mount {
        destination: target.to_owned(),
        kind: "tmpfs".to_owned(),
        source: "tmpfs".to_owned(),
        options: options.words().to_vec(),
        ..oci::Mount::default()
    }
}
