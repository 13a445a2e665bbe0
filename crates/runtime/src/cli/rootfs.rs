//! The container's root as a path that a runtime program can be given.
//!
//! An overlay is mounted in a mount namespace that the monitor enters for it, with the mount of the bundle cut off from its
//! peers: the host's table stays as it was, and the mount goes when the monitor does. All other mounts keep their
//! propagation, so that shared binds of the container still reach the host.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rustix::fs::FileType;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount};
use sys::clone::Flags;
use sys::mount::Reach;
use sys::ns;

use crate::error::{At, Stage, StartError};
use crate::oci::Spec;
use crate::spec::source_mount;
use crate::{Rootfs, foreign, overlay};

/// The path of the root; an overlay becomes visible at `target`, for this process and its children only.
pub(super) fn mount(rootfs: &Rootfs, target: &Path) -> Result<PathBuf, StartError> {
    let (lower, upper, work) = match rootfs {
        Rootfs::Dir(path) => return Ok(path.clone()),
        Rootfs::Overlay { lower, upper, work } => (lower, upper, work),
    };
    fs::create_dir_all(target).at(rootfs_stage, "bundle")?;
    let target = private_place(target)?;
    let tree = overlay::mount(lower, upper, work, &target).at(rootfs_stage, "overlay")?;
    move_mount(&tree, "", rustix::fs::CWD, &target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .at(rootfs_stage, "move_mount")?;
    Ok(target)
}

/// What is mounted at `target` from now on is seen by this process and its children only.
fn private_place(target: &Path) -> Result<PathBuf, StartError> {
    let target = fs::canonicalize(target).at(rootfs_stage, "bundle")?;
    ns::unshare(Flags::NEWNS).at(|| Stage::Namespace, "unshare")?;
    let table = fs::read_to_string("/proc/self/mountinfo").at(rootfs_stage, "mountinfo")?;
    let point = source_mount(&table, &target.to_string_lossy()).map_or_else(|| "/".to_owned(), |m| m.point);
    mount_change(point, MountPropagationFlags::DOWNSTREAM).at(rootfs_stage, "mount propagation")?;
    Ok(target)
}

/// What containers have a hand in, mounted where the program can bind it from. Gone with this value: before anything below the
/// bundle is removed.
#[derive(Default)]
pub(super) struct Brought(Vec<PathBuf>);

impl Drop for Brought {
    fn drop(&mut self) {
        for place in &self.0 {
            let _ = rustix::mount::unmount(place, UnmountFlags::DETACH);
        }
    }
}

/// Brings the specification's binds of which no path may be given to the program to places below `dir`.
pub(super) fn bring(spec: &mut Spec, dir: &Path) -> Result<Brought, StartError> {
    let mut brought = Brought::default();
    for (at, mount) in spec.mounts.iter_mut().enumerate() {
        let Some(tree) = foreign::source(mount, Reach::Tree) else { continue };
        let stage = || Stage::Mount { source: mount.source.clone(), target: mount.destination.clone() };
        let tree = tree.at(stage, "open_tree")?;
        let place = dir.join(format!("foreign-{at}"));
        make_place(&tree, &place).at(rootfs_stage, "bundle")?;
        let place = private_place(&place)?;
        move_mount(&tree, "", rustix::fs::CWD, &place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .at(stage, "move_mount")?;
        mount.source = place.to_string_lossy().into_owned();
        mount.subpath.clear();
        mount.namespace = None;
        mount.tree = None;
        brought.0.push(place);
    }
    Ok(brought)
}

/// Makes what the mount can be attached to: a directory, or a file for one of a file.
fn make_place(mount: &OwnedFd, place: &Path) -> io::Result<()> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(mount)?.st_mode);
    if kind.is_dir() {
        return fs::create_dir_all(place);
    }
    fs::create_dir_all(place.parent().unwrap_or(Path::new("/")))?;
    fs::File::create(place).map(drop)
}

/// Undoes [`mount`]; an overlay that is not mounted (any more) is fine.
pub(super) fn unmount(rootfs: &Rootfs, target: &Path) {
    if matches!(rootfs, Rootfs::Overlay { .. }) {
        let _ = rustix::mount::unmount(target, UnmountFlags::DETACH);
    }
}

/// The stage at which files of the root file system are made.
pub(super) fn rootfs_stage() -> Stage {
    Stage::Rootfs
}
