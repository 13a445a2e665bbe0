//! Copying a layer onto a tree: what the copying driver does instead of mounting.
//!
//! Both sides are walked by descriptor and never through a link. Whiteout files delete, opaque marks empty; hard links
//! within a layer stay links. A directory the layer has no entry for keeps the attributes it has below.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use crate::apply::{OPAQUE, WHITEOUT};
use crate::layers::Layer;
use crate::sparse;
use crate::tree;
use crate::view::{copy_attributes, link_target, stat_times, xattrs};

/// Bytes of the longest path in a layer: the names of its archive are bounded, links in them may add to it.
const PATH: usize = 1 << 16;

struct Merge<'l> {
    layer: &'l Layer,
    top: OwnedFd,
    /// Where the first of several links was copied to, by inode.
    links: HashMap<u64, PathBuf>,
}

/// Stack of a copy: as many directories as a path can name take a frame each. Only what is used is memory.
const STACK: usize = 64 << 20;

/// Copies the layer's tree onto `target`.
pub(crate) fn merge(layer: &Layer, target: &Path) -> io::Result<()> {
    let top: OwnedFd = File::open(target)?.into();
    let source: OwnedFd = File::open(&layer.fs)?.into();
    let mut merge = Merge { layer, top: top.try_clone()?, links: HashMap::new() };
    on_a_deep_stack(|| merge.directory(&source, &top, Path::new("")))
}

/// Runs a copy that takes a frame for each directory of a path, on a thread of its own.
pub(crate) fn on_a_deep_stack(copy: impl FnOnce() -> io::Result<()> + Send) -> io::Result<()> {
    std::thread::scope(|scope| {
        let copying = std::thread::Builder::new().name("copy".into()).stack_size(STACK).spawn_scoped(scope, copy)?;
        copying.join().unwrap_or_else(|_| Err(io::Error::other("internal error: copying a layer failed")))
    })
}

impl Merge<'_> {
    fn directory(&mut self, from: &OwnedFd, to: &OwnedFd, path: &Path) -> io::Result<()> {
        if path.as_os_str().len() > PATH {
            return Err(Errno::NAMETOOLONG.into());
        }
        let names = tree::names(from)?;
        if names.iter().any(|name| name.as_bytes() == OPAQUE) {
            for name in tree::names(to)? {
                tree::remove(to, &name)?;
            }
        }
        for name in names.iter().filter_map(|name| name.as_bytes().strip_prefix(WHITEOUT)) {
            if !name.starts_with(WHITEOUT) {
                tree::remove(to, &CString::new(name)?)?;
            }
        }
        for name in names.iter().filter(|name| !name.as_bytes().starts_with(WHITEOUT)) {
            self.name(from, to, name, &path.join(OsStr::from_bytes(name.as_bytes())))?;
        }
        Ok(())
    }

    fn name(&mut self, from: &OwnedFd, to: &OwnedFd, name: &CString, path: &Path) -> io::Result<()> {
        let Some(stat) = tree::stat(from, name)? else { return Ok(()) };
        let kind = tree::file_type(&stat);
        let old = tree::stat(to, name)?;
        let keep = kind.is_dir() && old.as_ref().is_some_and(|old| tree::file_type(old).is_dir());
        if old.is_some() && !keep {
            tree::remove(to, name)?;
        }
        if kind.is_dir() {
            if !keep {
                rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
            }
            let (source, target) = (tree::open_dir(from, name)?, tree::open_dir(to, name)?);
            let before = rustix::fs::fstat(&target)?;
            self.directory(&source, &target, path)?;
            let implicit = keep && path.to_str().is_some_and(|path| self.layer.implicit.contains(path));
            return match implicit {
                true => Ok(rustix::fs::futimens(&target, &stat_times(&before))?),
                false => copy_attributes(&target, &stat, &xattrs(&source)?),
            };
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&stat.st_ino) {
                return self.link(first, to, name);
            }
            self.links.insert(stat.st_ino, path.to_owned());
        }
        copy_one(from, to, name, &stat)
    }

    fn link(&self, first: &Path, to: &OwnedFd, name: &CString) -> io::Result<()> {
        let rooted = sys::rooted::Rooted::from_fd(self.top.try_clone()?);
        let (Some(parent), Some(base)) = (first.parent(), first.file_name()) else { return Err(Errno::NOENT.into()) };
        let parent = if parent.as_os_str().is_empty() { Path::new("/") } else { parent };
        let parent = rooted.open(parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        Ok(rustix::fs::linkat(parent, base, to, name, AtFlags::empty())?)
    }
}

/// Copies what is no directory; the name is free in `to`.
pub(crate) fn copy_one(from: &OwnedFd, to: &OwnedFd, name: &CString, stat: &Stat) -> io::Result<()> {
    match tree::file_type(stat) {
        FileType::RegularFile => return copy_file(from, to, name, stat),
        FileType::Symlink => rustix::fs::symlinkat(link_target(from, name)?, to, name)?,
        kind => rustix::fs::mknodat(to, name, kind, Mode::from_raw_mode(0o600), stat.st_rdev)?,
    }
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if !tree::file_type(stat).is_symlink() {
        rustix::fs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
    }
    Ok(rustix::fs::utimensat(to, name, &stat_times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn copy_file(from: &OwnedFd, to: &OwnedFd, name: &CString, stat: &Stat) -> io::Result<()> {
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut source = File::from(rustix::fs::openat(from, name, read, Mode::empty())?);
    let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut target = File::from(rustix::fs::openat(to, name, write, Mode::from_raw_mode(0o600))?);
    if rustix::fs::ioctl_ficlone(&target, &source).is_err() {
        sparse::copy(&mut source, &mut target)?;
    }
    copy_attributes(&target.into(), stat, &xattrs(&source.into())?)
}
