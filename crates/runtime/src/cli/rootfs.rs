//! The container's root as a path that a runtime program can be given.
//!
//! An overlay is mounted in a mount namespace that the monitor enters for it, with the mount of the bundle cut off from its
//! peers: the host's table stays as it was, and the mount goes when the monitor does. All other mounts keep their
//! propagation, so that shared binds of the container still reach the host.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount,
};
use sys::clone::Flags;
use sys::ns;

use super::rootfs_stage;
use crate::Rootfs;
use crate::error::{At, Stage, StartError};
use crate::spec::source_mount;

/// Longest option string of the classic mount call (a page, less a zero).
const MAX_OPTIONS: usize = 4095;

/// The path of the root; an overlay becomes visible at `target`, for this process and its children only.
pub(super) fn mount(rootfs: &Rootfs, target: &Path) -> Result<PathBuf, StartError> {
    let (lower, upper, work) = match rootfs {
        Rootfs::Dir(path) => return Ok(path.clone()),
        Rootfs::Overlay { lower, upper, work } => (lower, upper, work),
    };
    fs::create_dir_all(target).at(rootfs_stage, "bundle")?;
    let target = fs::canonicalize(target).at(rootfs_stage, "bundle")?;
    ns::unshare(Flags::NEWNS).at(|| Stage::Namespace, "unshare")?;
    let table = fs::read_to_string("/proc/self/mountinfo").at(rootfs_stage, "mountinfo")?;
    let point = source_mount(&table, &target.to_string_lossy()).map_or_else(|| "/".to_owned(), |m| m.point);
    mount_change(point, MountPropagationFlags::DOWNSTREAM).at(rootfs_stage, "mount propagation")?;
    match by_layer(lower, upper, work, &target) {
        // A kernel before 6.5, or a path too long for fsconfig.
        Err(Errno::INVAL) => by_options(lower, upper, work, &target),
        result => result,
    }
    .at(rootfs_stage, "overlay")?;
    Ok(target)
}

fn by_layer(lower: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> rustix::io::Result<()> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in lower {
        fsconfig_set_string(&context, "lowerdir+", layer)?;
    }
    fsconfig_set_string(&context, "upperdir", upper)?;
    fsconfig_set_string(&context, "workdir", work)?;
    fsconfig_set_string(&context, "index", "off")?;
    fsconfig_create(&context)?;
    let tree = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    move_mount(&tree, "", rustix::fs::CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// One option string of at most a page, relative to the directory that all layers share.
fn by_options(lower: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> rustix::io::Result<()> {
    let mut base = lower.first().and_then(|l| l.parent()).unwrap_or(Path::new("/")).to_owned();
    while !lower.iter().all(|l| l.starts_with(&base)) && base.pop() {}
    let escape = |p: &Path| p.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,");
    let layers: Vec<String> = lower.iter().map(|l| escape(l.strip_prefix(&base).unwrap_or(l))).collect();
    let (layers, upper, work) = (layers.join(":"), escape(upper), escape(work));
    let options = format!("index=off,lowerdir={layers},upperdir={upper},workdir={work}");
    if options.len() > MAX_OPTIONS {
        return Err(Errno::TOOBIG);
    }
    let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
    rustix::process::chdir(&base)?;
    let mounted = rustix::mount::mount("overlay", target, "overlay", MountFlags::empty(), options.as_c_str());
    rustix::process::chdir("/")?;
    mounted
}

/// Undoes [`mount`]; an overlay that is not mounted (any more) is fine.
pub(super) fn unmount(rootfs: &Rootfs, target: &Path) {
    if matches!(rootfs, Rootfs::Overlay { .. }) {
        let _ = rustix::mount::unmount(target, UnmountFlags::DETACH);
    }
}
