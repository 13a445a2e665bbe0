//! Copying a directory of the merged view out of the layers: what a new volume takes over from its image (B-vol-4).
//!
//! Nothing is mounted; links are not followed; hard links become files of their own. The target is the caller's and
//! empty.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use model::{Context, Result};
use rustix::fs::Mode;
use rustix::io::Errno;

use crate::merge::copy_one;
use crate::tree;
use crate::view::{Found, View, copy_attributes, xattrs};

/// Bytes of the longest path that is copied.
const PATH: usize = 4096;

/// Copies the directory at `path` (absolute in the image) into `target`. Nothing happens when there is none.
pub(crate) fn copy_out(view: &View, path: &str, target: &Path) -> Result<()> {
    let relative = path.trim_matches('/').as_bytes();
    let to: OwnedFd = File::open(target).with_context(|| format!("opening {}", target.display()))?.into();
    let copied = match view.shown(relative) {
        Ok(Some(found)) if tree::file_type(&found.stat).is_dir() => directory(view, relative, &found, &to),
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    copied.with_context(|| format!("copying {path} of the image"))
}

fn directory(view: &View, path: &[u8], found: &Found, to: &OwnedFd) -> io::Result<()> {
    if path.len() > PATH {
        return Err(Errno::NAMETOOLONG.into());
    }
    for name in view.list(path)? {
        let below = [path, b"/", name.as_bytes()].concat();
        let Some(entry) = view.shown(&below)? else { continue };
        if tree::file_type(&entry.stat).is_dir() {
            rustix::fs::mkdirat(to, &name, Mode::from_raw_mode(0o700))?;
            directory(view, &below, &entry, &tree::open_dir(to, &name)?)?;
        } else {
            copy_one(&entry.parent, to, &CString::from(name.as_c_str()), &entry.stat)?;
        }
    }
    let source = tree::open_dir(&found.parent, &found.name)?;
    copy_attributes(to, &found.stat, &xattrs(&source)?)
}
