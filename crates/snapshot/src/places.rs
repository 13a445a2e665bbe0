//! The empty places that a container's own mounts need: files and directories which the runtime mounts over, and which an
//! image may lack. They are one tree, the lowest layer of every container, so that none of them is made anew for each;
//! what an image has of the same name lies above and hides it. The reference has the same tree as a layer above the image.
//!
//! Where the tree cannot be had (a copy, a chain as long as the kernel takes), the runtime makes what it mounts over, and the
//! mark is made in the container's own layer.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;

use model::{Context, Result};
use rustix::fs::FileType;

use crate::layers::make_dir;

/// Where the tree lies, beside the layers.
pub(crate) const DIR: &str = "places";

/// The empty file by which programs find out that they run in a container.
const MARK: &str = ".dockerenv";

/// Relative paths, each behind what it lies in.
pub(crate) const PLACES: [(&str, FileType); 12] = [
    (MARK, FileType::RegularFile),
    ("dev", FileType::Directory),
    ("dev/console", FileType::RegularFile),
    ("dev/pts", FileType::Directory),
    ("dev/shm", FileType::Directory),
    ("etc", FileType::Directory),
    ("etc/hostname", FileType::RegularFile),
    ("etc/hosts", FileType::RegularFile),
    ("etc/mtab", FileType::Symlink),
    ("etc/resolv.conf", FileType::RegularFile),
    ("proc", FileType::Directory),
    ("sys", FileType::Directory),
];

/// What `etc/mtab` points at.
const MOUNTS: &str = "/proc/mounts";

/// Makes the tree at `root`, or what is missing of it.
pub(crate) fn make(root: &Path) -> Result<()> {
    make_dir(root, 0o755)?;
    for (name, kind) in PLACES {
        let path = root.join(name);
        match kind {
            FileType::Directory => make_dir(&path, 0o755)?,
            FileType::Symlink => unless_there(symlink(MOUNTS, &path), &path)?,
            _ => make_file(&path)?,
        }
    }
    Ok(())
}

/// Makes the mark in a container's own tree, unless that has the name already: an image may.
pub(crate) fn mark(root: &Path) -> Result<()> {
    make_file(&root.join(MARK))
}

/// Whether an image's layer brings a mark of its own.
pub(crate) fn is_marked(layer: &Path) -> bool {
    layer.join(MARK).symlink_metadata().is_ok()
}

fn make_file(path: &Path) -> Result<()> {
    unless_there(OpenOptions::new().write(true).create_new(true).mode(0o755).open(path).map(drop), path)
}

fn unless_there(made: io::Result<()>, path: &Path) -> Result<()> {
    match made {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => {
            Err(e).with_context(|| format!("creating {}", path.display()))
        }
        _ => Ok(()),
    }
}
