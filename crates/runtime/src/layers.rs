//! The layers of an image as one mount that nobody can write to.
//!
//! Made on a thread of its own in a mount namespace of its own, which goes with it: the host's mount table never changes, and a
//! part of the mount can be copied, which needs the mount to stand somewhere (open_tree(2), before Linux 6.15).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::thread;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsmount, fsopen,
    move_mount, open_tree,
};
use sys::clone::Flags;
use sys::mount::{Attr, Propagation, Reach, set_attr, set_root_propagation};
use sys::ns;
use sys::rooted::Rooted;

use crate::overlay;

/// Bytes of the thread's stack.
const STACK: usize = 256 << 10;

/// A detached read-only mount of layers (top first), or of a part of what they make up together; no link on the way to it
/// may lead out (`EXDEV`). Blocks.
pub fn mount(layers: &[PathBuf], part: &str) -> io::Result<OwnedFd> {
    let part = if part.is_empty() { "." } else { part };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("layers".into()).stack_size(STACK);
        let made = thread.spawn_scoped(scope, || make(layers, part))?;
        made.join().unwrap_or_else(|_| Err(io::Error::other("mounting the layers of an image broke off")))
    })
}

const COPY: OpenTreeFlags =
    OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC).union(OpenTreeFlags::AT_EMPTY_PATH);

fn make(layers: &[PathBuf], part: &str) -> io::Result<OwnedFd> {
    ns::unshare(Flags::NEWNS)?;
    set_root_propagation(Reach::Tree, Propagation::Private)?;
    let open = |path: &PathBuf| {
        rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    };
    let whole = match layers {
        [] => {
            let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_create(&context)?;
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?
        }
        [only] => open_tree(open(only)?, "", COPY)?,
        [top, ..] => overlay::mount_read_only(layers, top)?,
    };
    let root = open(&PathBuf::from("/"))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&whole, "", &root, "", flags)?;
    let place = Rooted::from_fd(whole).locate_beneath(part)?;
    let tree = open_tree(place, "", COPY)?;
    set_attr(tree.as_fd(), Reach::Mount, Attr::RDONLY, Attr::default(), Some(Propagation::Private))?;
    Ok(tree)
}
