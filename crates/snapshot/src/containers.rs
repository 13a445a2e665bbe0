//! The writable layer of a container: `<containers>/<id>/rw`, whatever a driver keeps in it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use model::{Context, Error, Result};

use crate::layers::{make_dir, remove_tree};
use crate::tree;

pub(crate) const RW: &str = "rw";

/// The path of the writable layer. Ids are names of directories: anything else is `InvalidParameter`.
pub(crate) fn rw(root: &Path, container: &str) -> Result<PathBuf> {
    Ok(dir(root, container)?.join(RW))
}

/// The container's directory.
pub(crate) fn dir(root: &Path, container: &str) -> Result<PathBuf> {
    let plain = !container.is_empty() && container.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !plain {
        return Err(Error::invalid(format!("invalid container id: {container:?}")));
    }
    Ok(root.join(container))
}

/// Makes the directory of a new writable layer in the container's. `Conflict` when there is one.
pub(crate) fn new_rw(dir: &Path) -> Result<PathBuf> {
    make_dir(dir, 0o710)?;
    let rw = dir.join(RW);
    match fs::create_dir(&rw) {
        Ok(()) => Ok(rw),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let container = dir.file_name().unwrap_or_default().display();
            Err(Error::conflict(format!("container {container} has a writable layer already")))
        }
        Err(e) => Err(Error::from(e).prefix(format!("creating {}", rw.display()))),
    }
}

/// Removes the writable layer; absent is fine.
pub(crate) fn remove(root: &Path, container: &str) -> Result<()> {
    remove_tree(&dir(root, container)?, RW)
}

/// Bytes of content of a tree; `NotFound` when it is absent.
pub(crate) fn usage(tree: &Path) -> Result<u64> {
    let dir = File::open(tree).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::not_found(format!("no writable layer at {}", tree.display())),
        _ => Error::from(e),
    })?;
    tree::content_bytes(dir.into()).with_context(|| format!("measuring {}", tree.display()))
}
