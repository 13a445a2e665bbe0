//! The container's root: made as a detached mount, attached, and in the end pivoted to.
//!
//! It exists in the container's mount namespace only; the host's mount table never changes.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, MountFlags, UnmountFlags, fsconfig_set_string, fsopen, mount, unmount};
use sys::mount::{Attr, Propagation, Reach, set_attr, set_root_propagation};
use sys::rooted::Rooted;

use super::tree::{self, Fd};
use crate::Rootfs;
use crate::error::{At, Stage, StartError};

/// Longest value that fsconfig takes, without its zero.
const MAX_VALUE: usize = 255;
/// Longest option string of the classic mount call (a page, less a zero).
const MAX_OPTIONS: usize = 4095;

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
        Rootfs::Overlay { lower, upper, work } => overlay(lower, upper, work)?,
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

fn overlay(lower: &[PathBuf], upper: &Path, work: &Path) -> Result<OwnedFd, StartError> {
    let paths = lower.iter().map(PathBuf::as_path).chain([upper, work]);
    let fits = paths.clone().all(|p| p.as_os_str().len() <= MAX_VALUE);
    if fits {
        match overlay_by_layer(lower, upper, work) {
            // A kernel without `lowerdir+` (before 6.5).
            Err(Errno::INVAL) => {}
            other => return other.at(rootfs, "overlay"),
        }
    }
    overlay_classic(lower, upper, work)
}

fn overlay_by_layer(lower: &[PathBuf], upper: &Path, work: &Path) -> rustix::io::Result<OwnedFd> {
    let context = tree::keep(fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?);
    fsconfig_set_string(context, "source", "overlay")?;
    for layer in lower {
        fsconfig_set_string(context, "lowerdir+", layer)?;
    }
    fsconfig_set_string(context, "upperdir", upper)?;
    fsconfig_set_string(context, "workdir", work)?;
    // Inode numbers of another run of the same layers must not be looked for.
    fsconfig_set_string(context, "index", "off")?;
    tree::create(context, Attr::default())
}

/// One option string of a page: paths are made short by starting from the directory that all layers share.
fn overlay_classic(lower: &[PathBuf], upper: &Path, work: &Path) -> Result<OwnedFd, StartError> {
    let base = shared_parent(lower);
    let short = |p: &Path| escape(&p.strip_prefix(&base).unwrap_or(p).to_string_lossy());
    let layers: Vec<String> = lower.iter().map(|p| short(p)).collect();
    let full = |p: &Path| escape(&p.to_string_lossy());
    let options = format!("index=off,lowerdir={},upperdir={},workdir={}", layers.join(":"), full(upper), full(work));
    if options.len() > MAX_OPTIONS {
        return Err(StartError::new(Stage::Rootfs, Errno::TOOBIG.raw_os_error(), "overlay options"));
    }
    rustix::process::chdir(&base).at(rootfs, "chdir")?;
    let options = std::ffi::CString::new(options).map_err(|_| StartError::new(Stage::Rootfs, 0, "invalid path"))?;
    // Mounted on a directory that certainly exists, then taken from there as a detached copy.
    mount("overlay", upper, "overlay", MountFlags::empty(), options.as_c_str()).at(rootfs, "mount overlay")?;
    let tree = tree::clone_at(upper, Reach::Mount).at(rootfs, "open_tree")?;
    unmount(upper, UnmountFlags::DETACH).at(rootfs, "umount")?;
    rustix::process::chdir("/").at(rootfs, "chdir")?;
    tree.try_clone_to_owned().at(rootfs, "dup")
}

fn shared_parent(paths: &[PathBuf]) -> PathBuf {
    let mut base = paths.first().and_then(|p| p.parent()).unwrap_or(Path::new("/")).to_owned();
    while !paths.iter().all(|p| p.starts_with(&base)) && base.pop() {}
    base
}

/// `:` separates layers, `,` options.
fn escape(path: &str) -> String {
    path.replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names() {
        let paths = ["/d/overlay/a/fs", "/d/overlay/b/fs"].map(PathBuf::from);
        assert_eq!(shared_parent(&paths), Path::new("/d/overlay"));
        assert_eq!(shared_parent(&paths[..1]), Path::new("/d/overlay/a"));
        assert_eq!(escape("a:b,c\\d"), "a\\:b\\,c\\\\d");
    }
}
