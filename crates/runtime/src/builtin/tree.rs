//! Mounting by descriptor: new file systems, clones of existing trees, and attaching them to a place already resolved.
//!
//! Nothing here takes a path inside a container as text; the place to mount on is always a descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Result;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use sys::mount::{Attr, Reach};

/// A new, detached mount of a file system. `data` are its options.
pub(super) fn new(kind: &str, source: &str, data: &[String], attr: Attr) -> Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    if !source.is_empty() {
        fsconfig_set_string(&context, "source", source)?;
    }
    for option in data {
        match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(&context, key, value)?,
            None => fsconfig_set_flag(&context, option.as_str())?,
        }
    }
    create(&context, attr)
}

/// The detached mount of a configured context.
pub(super) fn create(context: &OwnedFd, attr: Attr) -> Result<OwnedFd> {
    fsconfig_create(context)?;
    let attr = MountAttrFlags::from_bits_retain(attr.0 as u32);
    fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attr)
}

fn clone_flags(reach: Reach) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if reach == Reach::Tree { flags | OpenTreeFlags::AT_RECURSIVE } else { flags }
}

/// A detached copy of the mount (or tree) at a path of the calling process.
pub(super) fn clone_at(path: &Path, reach: Reach) -> Result<OwnedFd> {
    open_tree(CWD, path, clone_flags(reach))
}

/// A detached copy of the mount (or tree) at a descriptor.
pub(super) fn clone_fd(fd: BorrowedFd<'_>, reach: Reach) -> Result<OwnedFd> {
    open_tree(fd, "", clone_flags(reach) | OpenTreeFlags::AT_EMPTY_PATH)
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
