//! The running program as a file that nobody can write to.
//!
//! A process in a container can open `/proc/<pid>/exe` of a Gantry process that has entered it; if that opened the
//! daemon's program for writing, the container would own the host (CVE-2019-5736). The file is therefore executed through
//! a detached read-only mount: opening it for writing through the magic link fails with `EROFS`, while its pages in the
//! page cache stay shared with the daemon's.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::mount::{Attr, Reach, set_attr};

/// A descriptor of this program's file on a detached read-only mount of its own. Execute it as `/proc/self/fd/<n>`.
pub fn sealed() -> io::Result<OwnedFd> {
    let file = rustix::fs::openat(CWD, "/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(&file, "", flags)?;
    set_attr(tree.as_fd(), Reach::Mount, Attr::RDONLY | Attr::NOSUID | Attr::NODEV, Attr::default(), None)?;
    Ok(tree)
}
