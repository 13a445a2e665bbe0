//! Mounting by descriptor: new file systems, clones of existing trees, and attaching them to a place already resolved.
//!
//! Nothing here takes a path inside a container as text; the place to mount on is always a descriptor. This is the child's
//! code: descriptors stay open until its execve closes them all, which is cheaper than one by one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Result;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use sys::mount::{Attr, Reach};

/// A descriptor that is open as long as the child is not its program yet.
pub(super) type Fd = BorrowedFd<'static>;

/// Leaves a descriptor to the execve.
pub(super) fn keep(fd: OwnedFd) -> Fd {
    let fd: &'static OwnedFd = Box::leak(Box::new(fd));
    fd.as_fd()
}

/// A new, detached mount of a file system. `data` are its options.
pub(super) fn new(kind: &str, source: &str, data: &[String], attr: Attr) -> Result<Fd> {
    let context = keep(fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?);
    if !source.is_empty() {
        fsconfig_set_string(context, "source", source)?;
    }
    configure(context, data)?;
    create(context, attr).map(keep)
}

/// Sets options of a context, `key=value` or flags.
pub(super) fn configure(context: Fd, data: &[String]) -> Result<()> {
    data.iter().try_for_each(|option| match option.split_once('=') {
        Some((key, value)) => fsconfig_set_string(context, key, value),
        None => fsconfig_set_flag(context, option.as_str()),
    })
}

/// The detached mount of a configured context.
pub(super) fn create(context: Fd, attr: Attr) -> Result<OwnedFd> {
    fsconfig_create(context)?;
    let attr = MountAttrFlags::from_bits_retain(attr.0 as u32);
    fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attr)
}

fn clone_flags(reach: Reach) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if reach == Reach::Tree { flags | OpenTreeFlags::AT_RECURSIVE } else { flags }
}

/// A detached copy of the mount (or tree) at a path of the calling process.
pub(super) fn clone_at(path: &Path, reach: Reach) -> Result<Fd> {
    open_tree(CWD, path, clone_flags(reach)).map(keep)
}

/// A detached copy of the mount (or tree) at a descriptor.
pub(super) fn clone_fd(fd: BorrowedFd<'_>, reach: Reach) -> Result<Fd> {
    open_tree(fd, "", clone_flags(reach) | OpenTreeFlags::AT_EMPTY_PATH).map(keep)
}

/// Attaches a detached mount to the file or directory `target`.
pub(super) fn attach(mount: impl AsFd, target: impl AsFd) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount.as_fd(), "", target.as_fd(), "", flags)
}

/// Attaches a detached mount to the entry `name` of the directory `dir`, which nobody else can have changed.
pub(super) fn attach_in(mount: impl AsFd, dir: impl AsFd, name: &str) -> Result<()> {
    move_mount(mount.as_fd(), "", dir.as_fd(), name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}
