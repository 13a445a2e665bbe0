//! The merged view of a chain of layers, without mounting it: what is where, and what a container changed over it.
//!
//! Lookups go component by component with `NOFOLLOW`, top layer first, and stop at what hides the rest: a whiteout, an
//! opaque directory, something that is no directory.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use model::{Context, Result};
use rustix::fs::{FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::apply::{OPAQUE, OPAQUE_XATTR, WHITEOUT, Whiteouts, is_whiteout};
use crate::layers::Layer;
use crate::tree;

/// Largest extended attribute copied.
const XATTR_BYTES: usize = 64 << 10;
/// What is enough for nearly all of them.
const XATTR_GUESS: usize = 256;
/// Links on the way to a path before it counts as a circle, as the kernel has it.
const LINKS: usize = 40;

/// A chain, top first.
pub(crate) struct View {
    layers: Vec<(Arc<Layer>, OwnedFd)>,
    whiteouts: Whiteouts,
}

/// Where a name was found.
pub(crate) struct Found {
    pub stat: Stat,
    /// Index of the layer, 0 is the top.
    pub layer: usize,
    /// The directory that holds it in that layer.
    pub parent: OwnedFd,
    pub name: CString,
}

/// What one layer says of a path.
enum Look {
    Here(Found),
    /// Not in this layer; those below may have it.
    Below,
    /// Not in this layer, and those below are hidden.
    Hidden,
}

impl View {
    /// A view of the chain (bottom first).
    pub(crate) fn open(chain: &[Arc<Layer>], whiteouts: Whiteouts) -> Result<View> {
        let open = |layer: &Arc<Layer>| -> Result<(Arc<Layer>, OwnedFd)> {
            let fs = File::open(&layer.fs).with_context(|| format!("opening layer {}", layer.fs.display()))?;
            Ok((layer.clone(), fs.into()))
        };
        Ok(View { layers: chain.iter().rev().map(open).collect::<Result<_>>()?, whiteouts })
    }

    /// Makes the directories that the chain's top has no entry for in `upper`, with the attributes found further down.
    pub(crate) fn fill_implicit(&self, upper: &Path) -> Result<()> {
        let mut paths: Vec<&str> =
            self.layers.iter().flat_map(|(l, _)| l.implicit.iter().map(String::as_str)).collect();
        // What lies in a directory comes right behind it.
        paths.sort_unstable_by(|a, b| a.split('/').cmp(b.split('/')));
        paths.dedup();
        let upper: OwnedFd = File::open(upper).context("opening a writable layer")?.into();
        let mut made = BTreeSet::new();
        // The last directory that one layer has alone: so it has what is in it.
        let mut alone: Option<&str> = None;
        for path in paths {
            if alone.is_some_and(|alone| path.strip_prefix(alone).is_some_and(|rest| rest.starts_with('/'))) {
                continue;
            }
            let context = || format!("making {path} in a writable layer");
            let Some(top) = self.find(path.as_bytes(), 0).with_context(context)? else { continue };
            if self.find(path.as_bytes(), top.layer + 1).with_context(context)?.is_none() {
                alone = Some(path);
                continue;
            }
            self.fill(&upper, (path, &top), &mut made).with_context(context)?;
        }
        // Deepest first: making a directory has changed the times of the one above.
        for path in made.iter().rev() {
            self.dress(&upper, path).with_context(|| format!("making {path} in a writable layer"))?;
        }
        Ok(())
    }

    /// Makes `path` and its parents, if the chain shows attributes for it that its top layer does not have.
    fn fill(&self, upper: &OwnedFd, (path, top): (&str, &Found), made: &mut BTreeSet<String>) -> io::Result<()> {
        if !self.layers[top.layer].0.implicit.contains(path) || self.attributes_of(path, top.layer)?.is_none() {
            return Ok(());
        }
        let mut here = upper.try_clone()?;
        let mut end = 0;
        for part in path.split('/') {
            end += part.len();
            let name = CString::new(part)?;
            match rustix::fs::mkdirat(&here, &name, Mode::from_raw_mode(0o755)) {
                Ok(()) => _ = made.insert(path[..end].to_owned()),
                Err(Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
            here = tree::open_dir(&here, &name)?;
            end += 1;
        }
        Ok(())
    }

    /// Gives a directory of the upper layer the attributes that the chain shows for it.
    fn dress(&self, upper: &OwnedFd, path: &str) -> io::Result<()> {
        let mut here = upper.try_clone()?;
        for part in path.split('/') {
            here = tree::open_dir(&here, &CString::new(part)?)?;
        }
        match self.attributes_of(path, 0)? {
            Some(found) => {
                let source = tree::open_dir(&found.parent, &found.name)?;
                copy_attributes(&here, &found.stat, &xattrs(&source)?)
            }
            None => Ok(()),
        }
    }

    /// The directory whose attributes `path` shows: the first from layer `from` on that has an entry of its own.
    fn attributes_of(&self, path: &str, from: usize) -> io::Result<Option<Found>> {
        let mut at = from;
        while let Some(found) = self.find(path.as_bytes(), at)? {
            if !tree::file_type(&found.stat).is_dir() {
                return Ok(None);
            }
            if !self.layers[found.layer].0.implicit.contains(path) {
                return Ok(Some(found));
            }
            at = found.layer + 1;
        }
        Ok(None)
    }

    /// What the merged view shows at a relative path: as [`View::find`], with the attributes that count.
    pub(crate) fn shown(&self, path: &[u8]) -> io::Result<Option<Found>> {
        let Some(found) = self.find(path, 0)? else { return Ok(None) };
        let implicit = std::str::from_utf8(path).ok().filter(|p| self.layers[found.layer].0.implicit.contains(*p));
        match implicit {
            Some(path) => Ok(self.attributes_of(path, found.layer)?.or(Some(found))),
            None => Ok(Some(found)),
        }
    }

    /// What a path leads to.
    pub(crate) fn file_type(&self, path: &[u8]) -> io::Result<Option<FileType>> {
        Ok(self.find(&self.resolve(path)?, 0)?.map(|found| tree::file_type(&found.stat)))
    }

    /// The relative path that a container would come to by `path`: links are followed, none leads out of the tree. What is
    /// not there stays as it is named. `ELOOP` when there is no end to the links.
    pub(crate) fn resolve(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        let parts = |path: &[u8]| path.split(|b| *b == b'/').rev().map(<[u8]>::to_vec).collect::<Vec<_>>();
        let (mut ahead, mut done, mut links) = (parts(path), Vec::new(), 0);
        while let Some(part) = ahead.pop() {
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    done.truncate(done.iter().rposition(|b| *b == b'/').unwrap_or(0));
                    continue;
                }
                _ => {}
            }
            let next = if done.is_empty() { part } else { [done.as_slice(), b"/", &part].concat() };
            let Some(link) = self.find(&next, 0)?.filter(|found| tree::file_type(&found.stat).is_symlink()) else {
                done = next;
                continue;
            };
            links += 1;
            if links > LINKS {
                return Err(Errno::LOOP.into());
            }
            let target = link_target(&link.parent, &link.name)?;
            if target.as_bytes().starts_with(b"/") {
                done.clear();
            }
            ahead.extend(parts(target.as_bytes()));
        }
        Ok(done)
    }

    /// Looks a relative path up in the layers from `from` (0: the top) down. Links are not followed.
    pub(crate) fn find(&self, path: &[u8], from: usize) -> io::Result<Option<Found>> {
        for layer in from..self.layers.len() {
            match self.look(layer, path)? {
                Look::Here(found) => return Ok(Some(found)),
                Look::Hidden => return Ok(None),
                Look::Below => {}
            }
        }
        Ok(None)
    }

    fn look(&self, layer: usize, path: &[u8]) -> io::Result<Look> {
        let mut here = self.layers[layer].1.try_clone()?;
        let mut hidden = false;
        let mut parts = path.split(|b| *b == b'/').filter(|p| !p.is_empty()).peekable();
        while let Some(part) = parts.next() {
            let name = CString::new(part)?;
            hidden |= self.opaque(&here)?;
            let stat = match tree::stat(&here, &name)? {
                Some(stat) if self.whiteouts == Whiteouts::Overlay && is_whiteout(&stat) => return Ok(Look::Hidden),
                Some(stat) => stat,
                None => {
                    hidden |= self.whiteout_file(&here, part)?;
                    return Ok(if hidden { Look::Hidden } else { Look::Below });
                }
            };
            if parts.peek().is_none() {
                return Ok(Look::Here(Found { stat, layer, parent: here, name }));
            }
            if !tree::file_type(&stat).is_dir() {
                return Ok(Look::Hidden);
            }
            here = tree::open_dir(&here, &name)?;
        }
        Ok(Look::Hidden)
    }

    /// Whether a directory of a layer hides those below.
    fn opaque(&self, dir: &OwnedFd) -> io::Result<bool> {
        match self.whiteouts {
            Whiteouts::Overlay => is_opaque(dir),
            Whiteouts::Files => Ok(tree::stat(dir, &CString::new(OPAQUE)?)?.is_some()),
        }
    }

    fn whiteout_file(&self, dir: &OwnedFd, name: &[u8]) -> io::Result<bool> {
        match self.whiteouts {
            Whiteouts::Overlay => Ok(false),
            Whiteouts::Files => Ok(tree::stat(dir, &CString::new([WHITEOUT, name].concat())?)?.is_some()),
        }
    }

    /// Every name in the merged directory.
    pub(crate) fn list(&self, path: &[u8]) -> io::Result<BTreeSet<CString>> {
        let mut names = BTreeSet::new();
        let mut gone = BTreeSet::new();
        let mut from = 0;
        while let Some(found) = self.find_dir(path, from)? {
            let (layer, dir) = found;
            for name in tree::names(&dir)? {
                let bytes = name.as_bytes();
                let deleted = match self.whiteouts {
                    Whiteouts::Overlay => tree::stat(&dir, &name)?.is_some_and(|s| is_whiteout(&s)),
                    Whiteouts::Files => bytes.starts_with(WHITEOUT),
                };
                if !deleted {
                    if !gone.contains(&name) {
                        names.insert(name);
                    }
                    continue;
                }
                let hidden = if self.whiteouts == Whiteouts::Files { &bytes[WHITEOUT.len()..] } else { bytes };
                let hidden = CString::new(hidden)?;
                if !names.contains(&hidden) {
                    gone.insert(hidden);
                }
            }
            if self.opaque(&dir)? {
                break;
            }
            from = layer + 1;
        }
        Ok(names)
    }

    fn find_dir(&self, path: &[u8], from: usize) -> io::Result<Option<(usize, OwnedFd)>> {
        if path.is_empty() {
            return match self.layers.get(from) {
                Some((_, dir)) => Ok(Some((from, dir.try_clone()?))),
                None => Ok(None),
            };
        }
        match self.find(path, from)? {
            Some(found) if tree::file_type(&found.stat).is_dir() => {
                Ok(Some((found.layer, tree::open_dir(&found.parent, &found.name)?)))
            }
            _ => Ok(None),
        }
    }

    /// The layers' trees, top first.
    pub(crate) fn trees(&self) -> io::Result<Vec<OwnedFd>> {
        self.layers.iter().map(|(_, tree)| tree.try_clone()).collect()
    }
}

pub(crate) fn is_opaque(dir: &OwnedFd) -> io::Result<bool> {
    let mut value = [0; 2];
    match rustix::fs::fgetxattr(dir, OPAQUE_XATTR, &mut value) {
        Ok(n) => Ok(&value[..n] == b"y"),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Gives an open file or directory ownership, attributes, mode and times, in the order in which they do not undo each
/// other.
pub(crate) fn copy_attributes(file: &OwnedFd, stat: &Stat, xattrs: &[(Vec<u8>, Vec<u8>)]) -> io::Result<()> {
    rustix::fs::fchown(file, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    for (key, value) in xattrs {
        match rustix::fs::fsetxattr(file, key.as_slice(), value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP | Errno::PERM) => {}
            Err(e) => return Err(e.into()),
        }
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    Ok(rustix::fs::futimens(file, &stat_times(stat))?)
}

pub(crate) fn stat_times(stat: &Stat) -> Timestamps {
    let time = |tv_sec: i64, nsec: u64| Timespec { tv_sec, tv_nsec: i64::try_from(nsec).unwrap_or(0) };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// The extended attributes of an open file, overlay's own left out.
pub(crate) fn xattrs(file: &OwnedFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    // Nearly every file has none.
    let mut names = vec![0; XATTR_GUESS];
    let listed = match rustix::fs::flistxattr(file, &mut names) {
        Err(Errno::RANGE) => {
            names.resize(XATTR_BYTES, 0);
            rustix::fs::flistxattr(file, &mut names)
        }
        other => other,
    };
    let length = match listed {
        Ok(length) => length,
        Err(Errno::NOTSUP) => 0,
        Err(e) => return Err(e.into()),
    };
    let mut found = Vec::new();
    for name in names[..length].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        if name.starts_with(b"trusted.overlay.") {
            continue;
        }
        if let Some(value) = xattr(file, name)? {
            found.push((name.to_vec(), value));
        }
    }
    Ok(found)
}

/// One extended attribute of an open file.
pub(crate) fn xattr(file: &OwnedFd, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; XATTR_GUESS];
    let read = match rustix::fs::fgetxattr(file, name, &mut value) {
        Err(Errno::RANGE) => {
            value.resize(XATTR_BYTES, 0);
            rustix::fs::fgetxattr(file, name, &mut value)
        }
        other => other,
    };
    match read {
        Ok(n) => {
            value.truncate(n);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The target of the symbolic link `name`.
pub(crate) fn link_target(parent: &OwnedFd, name: &CString) -> io::Result<CString> {
    Ok(rustix::fs::readlinkat(parent, name, Vec::new())?)
}
