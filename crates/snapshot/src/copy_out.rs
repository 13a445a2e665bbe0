//! Copying a directory of the merged view out of the layers: what a new volume takes over from its image (B-vol-4).
//!
//! Nothing is mounted; links on the way to the directory are followed within the image, those in it are copied; hard
//! links stay links. The target is the caller's and empty.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use model::{Context, Result};
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use crate::merge::{copy_one, on_a_deep_stack};
use crate::tree;
use crate::view::{Found, View, copy_attributes, xattrs};

/// Bytes of the longest path that is copied.
const PATH: usize = 4096;

/// Copies the directory at `path` (absolute in the image) into `target`. Nothing happens when nothing is there.
///
/// Errors: `System` when something else is there, in the reference's words (`CopyDir` of containerd's `fs`).
pub(crate) fn copy_out(view: &View, path: &str, target: &Path) -> Result<()> {
    let top: OwnedFd = File::open(target).with_context(|| format!("opening {}", target.display()))?.into();
    let copy = || {
        let source = view.resolve(path.as_bytes())?;
        let Some(found) = view.shown(&source)? else { return Ok(()) };
        if !tree::file_type(&found.stat).is_dir() {
            return Err(io::Error::other(format!("source {path} is not directory")));
        }
        let mut copy = Copy { view, top: top.try_clone()?, links: HashMap::new() };
        on_a_deep_stack(|| copy.directory(&source, &found, &top, Path::new("")))
    };
    copy().with_context(|| format!("copying {path} of the image"))
}

struct Copy<'v> {
    view: &'v View,
    /// The target.
    top: OwnedFd,
    /// Where the first of several links was copied to, by layer and inode.
    links: HashMap<(usize, u64), PathBuf>,
}

impl Copy<'_> {
    /// Copies the directory `path` of the view to `to`, which is `inside` the target.
    fn directory(&mut self, path: &[u8], found: &Found, to: &OwnedFd, inside: &Path) -> io::Result<()> {
        if path.len() > PATH {
            return Err(Errno::NAMETOOLONG.into());
        }
        for name in self.view.list(path)? {
            let below = [path, b"/", name.as_bytes()].concat();
            let Some(entry) = self.view.shown(&below)? else { continue };
            let inside = inside.join(OsStr::from_bytes(name.as_bytes()));
            if tree::file_type(&entry.stat).is_dir() {
                rustix::fs::mkdirat(to, &name, Mode::from_raw_mode(0o700))?;
                self.directory(&below, &entry, &tree::open_dir(to, &name)?, &inside)?;
            } else {
                self.other(&entry, to, &name, inside)?;
            }
        }
        let source = tree::open_dir(&found.parent, &found.name)?;
        copy_attributes(to, &found.stat, &xattrs(&source)?)
    }

    fn other(&mut self, entry: &Found, to: &OwnedFd, name: &CString, inside: PathBuf) -> io::Result<()> {
        if entry.stat.st_nlink > 1 {
            let file = (entry.layer, entry.stat.st_ino);
            if let Some(first) = self.links.get(&file) {
                // All directories on the way were made here.
                return Ok(rustix::fs::linkat(&self.top, first, to, name, AtFlags::empty())?);
            }
            self.links.insert(file, inside);
        }
        copy_one(&entry.parent, to, name, &entry.stat)
    }
}
