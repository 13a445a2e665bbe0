//! What a driver hands out for a use of a volume.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{OpenTreeFlags, open_tree};
use sys::rooted::Rooted;

use crate::keeper::Kept;

/// The data of a volume, reachable.
#[derive(Clone, Debug)]
pub enum Mounted {
    /// A directory of the host: of the data root, or where a plugin has mounted something.
    Directory(PathBuf),
    /// A file system of the volume's own, mounted where the host does not see it.
    Tree(Arc<Kept>),
}

impl Mounted {
    /// The volume, or the part of it that `subpath` names, by a descriptor. Of a directory it is opened with `O_PATH`; of a
    /// tree it is a detached copy of the mount, for one place to attach it to. No link may lead out of the volume
    /// (`EXDEV`).
    pub fn open(&self, subpath: &str) -> io::Result<OwnedFd> {
        let part = if subpath.is_empty() { "." } else { subpath };
        match self {
            Mounted::Directory(path) => Rooted::open_dir(path)?.locate_beneath(part),
            Mounted::Tree(kept) => kept.copy(part),
        }
    }
}

/// A detached copy of the mount at a path, with all below it.
pub(crate) fn copy_of(path: &std::path::Path, recursive: bool) -> io::Result<OwnedFd> {
    let place = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let reach = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    Ok(open_tree(place, "", COPY | reach)?)
}

/// Of open_tree(2): a copy of what a descriptor names.
pub(crate) const COPY: OpenTreeFlags =
    OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC).union(OpenTreeFlags::AT_EMPTY_PATH);
