//! The overlay of a container's layers.
//!
//! The kernel takes the layers one by one since Linux 6.7, each by a path of at most [`MAX_VALUE`] bytes. Otherwise they
//! stand in one option string of at most a page: then they are opened, and their names there are numbers below
//! `/proc/self/fd`, so that it holds as many layers as the kernel stacks (500) wherever they lie.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, open_tree,
};

use crate::spec::kernel;

/// The first kernel with the option `lowerdir+`.
const ONE_BY_ONE: (u32, u32) = (6, 7);
/// Longest value that fsconfig takes, without its zero.
const MAX_VALUE: usize = 255;
/// Longest option string of the classic mount call (a page, less a zero).
const MAX_OPTIONS: usize = 4095;
const OPEN_DESCRIPTORS: &str = "/proc/self/fd";

/// A detached overlay mount; `lower` is top first. `place` is a directory of the caller's own mount namespace where it may
/// stand for a moment. `TOOBIG`: more layers than the kernel takes.
pub(crate) fn mount(lower: &[PathBuf], upper: &Path, work: &Path, place: &Path) -> Result<OwnedFd> {
    stack(lower, Some((upper, work)), place)
}

/// The same without a writable layer, of two layers or more.
pub(crate) fn mount_read_only(lower: &[PathBuf], place: &Path) -> Result<OwnedFd> {
    stack(lower, None, place)
}

/// The upper and the working directory.
type Writable<'a> = Option<(&'a Path, &'a Path)>;

fn stack(lower: &[PathBuf], writable: Writable<'_>, place: &Path) -> Result<OwnedFd> {
    let above = writable.into_iter().flat_map(|(upper, work)| [upper, work]);
    let mut paths = lower.iter().map(PathBuf::as_path).chain(above);
    if kernel() >= ONE_BY_ONE && paths.all(|path| path.as_os_str().len() <= MAX_VALUE) {
        one_by_one(lower, writable)
    } else {
        by_descriptors(lower, writable, place)
    }
}

fn one_by_one(lower: &[PathBuf], writable: Writable<'_>) -> Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "overlay")?;
    for layer in lower {
        fsconfig_set_string(&context, "lowerdir+", layer)?;
    }
    if let Some((upper, work)) = writable {
        fsconfig_set_string(&context, "upperdir", upper)?;
        fsconfig_set_string(&context, "workdir", work)?;
    }
    // Inode numbers of another run of the same layers must not be looked for.
    fsconfig_set_string(&context, "index", "off")?;
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

fn by_descriptors(lower: &[PathBuf], writable: Writable<'_>, place: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &Path| rustix::fs::openat(CWD, path, flags, Mode::empty());
    let writable = writable.map(|(upper, work)| Ok::<_, Errno>((open(upper)?, open(work)?))).transpose()?;
    let lower = lower.iter().map(|path| open(path)).collect::<Result<Vec<OwnedFd>>>()?;
    let names: Vec<String> = lower.iter().map(|layer| layer.as_raw_fd().to_string()).collect();
    let above = writable.as_ref().map(|(upper, work)| (upper.as_raw_fd(), work.as_raw_fd()));
    let above = above.map(|(upper, work)| format!(",upperdir={upper},workdir={work}")).unwrap_or_default();
    let options = format!("index=off,lowerdir={}{above}", names.join(":"));
    if options.len() > MAX_OPTIONS {
        return Err(Errno::TOOBIG);
    }
    let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
    rustix::process::chdir(OPEN_DESCRIPTORS)?;
    let mounted = rustix::mount::mount("overlay", place, "overlay", MountFlags::empty(), options.as_c_str());
    rustix::process::chdir("/")?;
    mounted?;
    let tree = open_tree(CWD, place, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC);
    rustix::mount::unmount(place, UnmountFlags::DETACH)?;
    tree
}
