//! The layers of an image as one mount that nobody can write to.
//!
//! Made on a thread of its own in a mount namespace of its own, which goes with it: the host's mount table never changes, and a
//! part of the mount can be copied, which needs the mount to stand somewhere (open_tree(2), before Linux 6.15).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
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

use crate::{Rootfs, overlay};

/// Bytes of the thread's stack.
const STACK: usize = 256 << 10;

/// A detached read-only mount of layers (top first), or of a part of what they make up together; no link on the way to it
/// may lead out (`EXDEV`). Blocks.
pub fn mount(layers: &[PathBuf], part: &str) -> io::Result<OwnedFd> {
    let part = if part.is_empty() { "." } else { part };
    apart(&|| {
        let tree = place(whole(layers)?, part)?;
        set_attr(tree.as_fd(), Reach::Mount, Attr::RDONLY, Attr::default(), None)?;
        Ok(tree)
    })
}

/// A detached mount of a writable root, or of a part of it; no link on the way may lead out (`EXDEV`). The caller sees to it that
/// nobody else mounts the root as long as the mount lives. Blocks.
pub fn mount_writable(root: &Rootfs, part: &str) -> io::Result<OwnedFd> {
    let part = if part.is_empty() { "." } else { part };
    let make = || {
        let whole = match root {
            Rootfs::Overlay { lower, upper, work } => overlay::mount(lower, upper, work, upper)?,
            Rootfs::Dir(path) => open_tree(open(path)?, "", COPY)?,
        };
        place(whole, part)
    };
    apart(&make)
}

/// A file that is in memory only.
#[derive(Debug)]
pub struct File<'f> {
    /// What it says.
    pub content: &'f [u8],
    /// User and group.
    pub owner: (u32, u32),
    /// Permissions.
    pub mode: u32,
}

/// A detached read-only mount of a file that is in memory, and gone with the mount. Blocks.
pub fn file(file: &File<'_>) -> io::Result<OwnedFd> {
    use std::io::Write;
    let make = || {
        let executable = file.mode & 0o111 != 0;
        let memory = memory(if executable { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_NOEXEC })?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut made = std::fs::File::from(rustix::fs::openat(&memory, NAME, flags, Mode::from_raw_mode(0o600))?);
        made.write_all(file.content)?;
        std::os::unix::fs::fchown(&made, Some(file.owner.0), Some(file.owner.1))?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(file.mode & 0o7777))?;
        drop(made);
        let tree = place(memory, NAME)?;
        set_attr(tree.as_fd(), Reach::Mount, Attr::RDONLY, Attr::default(), None)?;
        Ok(tree)
    };
    apart(&make)
}

/// A detached mount of a socket that is listened on; it is gone with the mount. Blocks.
pub fn socket(owner: (u32, u32), mode: u32) -> io::Result<(OwnedFd, UnixListener)> {
    let memory = memory(MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
    let path = format!("/proc/self/fd/{}/{NAME}", memory.as_raw_fd());
    let listener = UnixListener::bind(&path)?;
    std::os::unix::fs::chown(&path, Some(owner.0), Some(owner.1))?;
    std::fs::set_permissions(&path, PermissionsExt::from_mode(mode & 0o7777))?;
    let tree = apart(&|| place(rustix::io::fcntl_dupfd_cloexec(&memory, 0)?, NAME))?;
    Ok((tree, listener))
}

/// The name of the one file of a file system in memory.
const NAME: &str = "file";

/// A detached file system in memory.
fn memory(attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let always = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, always | attributes)?)
}

/// Runs `make` on a thread in a mount namespace of its own.
fn apart(make: &(dyn Fn() -> io::Result<OwnedFd> + Sync)) -> io::Result<OwnedFd> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("layers".into()).stack_size(STACK);
        let made = thread.spawn_scoped(scope, || {
            ns::unshare(Flags::NEWNS)?;
            set_root_propagation(Reach::Tree, Propagation::Private)?;
            make()
        })?;
        made.join().unwrap_or_else(|_| Err(io::Error::other("mounting a file system broke off")))
    })
}

fn open(path: &PathBuf) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

/// Mounts what is detached on the root of the thread's own namespace, and copies a part of it.
fn place(whole: OwnedFd, part: &str) -> io::Result<OwnedFd> {
    let root = open(&PathBuf::from("/"))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&whole, "", &root, "", flags)?;
    let part = Rooted::from_fd(whole).locate_beneath(part)?;
    let tree = open_tree(part, "", COPY)?;
    set_attr(tree.as_fd(), Reach::Mount, Attr::default(), Attr::default(), Some(Propagation::Private))?;
    Ok(tree)
}

const COPY: OpenTreeFlags =
    OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC).union(OpenTreeFlags::AT_EMPTY_PATH);

/// A detached mount of all layers.
fn whole(layers: &[PathBuf]) -> io::Result<OwnedFd> {
    Ok(match layers {
        [] => {
            let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_create(&context)?;
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?
        }
        [only] => open_tree(open(only)?, "", COPY)?,
        [top, ..] => overlay::mount_read_only(layers, top)?,
    })
}
