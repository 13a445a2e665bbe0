//! The container's root: made as a detached mount, attached, and in the end pivoted to.
//!
//! It exists in the container's mount namespace only; the host's mount table never changes.

use std::os::fd::AsFd;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{UnmountFlags, unmount};
use sys::mount::{Attr, Propagation, Reach, set_attr, set_root_propagation};
use sys::rooted::Rooted;

use super::tree::{self, Fd};
use crate::Rootfs;
use crate::error::{At, Stage, StartError};
use crate::overlay;

fn rootfs() -> Stage {
    Stage::Rootfs
}

/// How mount events spread between the container and the host. The specification's `rootfsPropagation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Host events reach the copy of the host's tree from which binds are taken (the default), or nothing does.
    Apart(Propagation),
    /// Mounts of the container appear on the host.
    Shared,
}

impl Sharing {
    pub(super) fn of(word: &str) -> Sharing {
        match word {
            "shared" | "rshared" => Sharing::Shared,
            "private" | "rprivate" => Sharing::Apart(Propagation::Private),
            "unbindable" | "runbindable" => Sharing::Apart(Propagation::Unbindable),
            _ => Sharing::Apart(Propagation::Slave),
        }
    }
}

/// Cuts the fresh copy of the host's mount tree off, so that nothing that follows can reach the host.
pub(super) fn isolate(sharing: Sharing) -> Result<(), StartError> {
    match sharing {
        // An unbindable source could not be bound from.
        Sharing::Apart(Propagation::Unbindable) => set_root_propagation(Reach::Tree, Propagation::Private),
        Sharing::Apart(p) => set_root_propagation(Reach::Tree, p),
        Sharing::Shared => Ok(()),
    }
    .at(rootfs, "mount propagation")
}

/// The root file system, attached on top of `/` of the process, which keeps seeing the old one.
pub(super) fn prepare(rootfs_spec: &Rootfs, sharing: Sharing) -> Result<Rooted, StartError> {
    let tree = match rootfs_spec {
        Rootfs::Dir(path) => {
            let tree = tree::clone_at(path, Reach::Tree).at(rootfs, &path.display().to_string())?;
            set_attr(tree.as_fd(), Reach::Tree, Attr::default(), Attr::default(), Some(Propagation::Private))
                .at(rootfs, "mount_setattr")?;
            tree.try_clone_to_owned().at(rootfs, "dup")?
        }
        // A directory that certainly exists; unless mounts are shared, nobody else sees what stands there.
        Rootfs::Overlay { lower, upper, work } => overlay::mount(lower, upper, work, upper).at(rootfs, "overlay")?,
    };
    if sharing == Sharing::Shared {
        // The mount that the root is attached to must not be shared, or the host would see it.
        set_root_propagation(Reach::Mount, Propagation::Private).at(rootfs, "mount propagation")?;
    }
    tree::attach(&tree, slash()?).at(rootfs, "move_mount")?;
    Ok(Rooted::from_fd(tree))
}

fn slash() -> Result<Fd, StartError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, "/", flags, Mode::empty()).map(tree::keep).at(rootfs, "open")
}

/// Makes the prepared root the process's `/` and lets the host's go.
pub(super) fn pivot(root: &Rooted, sharing: Sharing, readonly: bool) -> Result<(), StartError> {
    let old = if sharing == Sharing::Shared { Some(slash()?) } else { None };
    rustix::process::fchdir(root.as_fd()).at(rootfs, "fchdir")?;
    // The old root lands on top of the new one, so that no directory for it is needed.
    rustix::process::pivot_root(".", ".").at(rootfs, "pivot_root")?;
    if let Some(old) = old {
        // Or detaching it would detach the host's own mounts.
        set_attr(old, Reach::Tree, Attr::default(), Attr::default(), Some(Propagation::Slave))
            .at(rootfs, "mount propagation")?;
    }
    unmount(".", UnmountFlags::DETACH).at(rootfs, "umount")?;
    rustix::process::chdir("/").at(rootfs, "chdir")?;
    let propagation = match sharing {
        Sharing::Shared => Some(Propagation::Shared),
        Sharing::Apart(_) => None,
    };
    if readonly || propagation.is_some() {
        let set = if readonly { Attr::RDONLY } else { Attr::default() };
        set_attr(root.as_fd(), Reach::Mount, set, Attr::default(), propagation).at(rootfs, "mount_setattr")?;
    }
    Ok(())
}
