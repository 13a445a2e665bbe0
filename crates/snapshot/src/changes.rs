//! What a container changed over its image: `docker diff`, and what a commit packs.
//!
//! Overlay: only the upper directory is walked; whiteouts are deletions. Copy: the whole tree is compared with the
//! merged view of the layers. The rules are the reference's: a directory's time and size say nothing, a directory counts
//! as modified when its other attributes differ or something below changed, and is told before what is in it; a name
//! whose kind changed is modified, and what was below it is not told.
//!
//! The empty places of a container's own mounts ([`PLACES`]) are taken for a part of the image, as in the reference: a
//! container in which one was touched, or made because the tree of them could not be had, has not changed by that.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use model::{Context, Error, Result};
use rustix::fs::{FileType, Mode, OFlags, Stat};

use crate::apply::{is_whiteout, proc_path};
use crate::archive::Entry;
use crate::view::{Found, View, link_target, xattr};
use crate::walk::{Seen, Walk};
use crate::{Change, ChangeKind, pack, places::PLACES, tree};

/// Bytes compared at once.
const CHUNK: usize = 64 << 10;

/// Which names of a container's directory to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// An overlay's upper directory: what it has no entry for is unchanged.
    Upper,
    /// A whole tree: what it has no entry for is deleted.
    Whole,
}

/// One difference, by its relative path.
pub(crate) enum Changed<'c> {
    /// In the image only.
    Gone(&'c [u8]),
    /// A directory; its head.
    Directory(ChangeKind, &'c Entry),
    /// Anything else.
    Other(ChangeKind, &'c [u8], &'c Seen),
    /// As in the image, but one of several names: another of them may have changed.
    Same(&'c [u8], &'c Stat),
}

/// Takes differences in the order of the walk.
type Take<'t> = dyn FnMut(Changed<'_>) -> io::Result<()> + 't;

/// A comparison.
pub(crate) struct Differ<'v> {
    view: &'v View,
    source: Source,
    walk: Walk,
    /// Unchanged directories on the way to here: told as modified before the first change below them.
    pending: Vec<Entry>,
    /// The directories on the way to here that the image does not have.
    new: Vec<Vec<u8>>,
}

/// The list of all changes, ordered by path.
pub(crate) fn list(view: &View, tree: &Path, source: Source) -> Result<Vec<Change>> {
    let mut found = Vec::new();
    let outcome = Differ::new(view, tree, source)?.run(&mut |change| {
        let Some(kind) = pack::kind(&change) else { return Ok(()) };
        let path = match &change {
            Changed::Gone(path) | Changed::Other(_, path, _) | Changed::Same(path, _) => path,
            Changed::Directory(_, entry) => entry.path.as_slice(),
        };
        found.push(Change { path: format!("/{}", String::from_utf8_lossy(path)), kind });
        Ok(())
    });
    outcome.with_context(|| format!("comparing {}", tree.display()))?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

impl<'v> Differ<'v> {
    /// Compares the tree with what the view shows. `NotFound` when there is no such tree.
    pub(crate) fn new(view: &'v View, tree: &Path, source: Source) -> Result<Differ<'v>> {
        let root = open_tree(tree)?;
        let walk = Walk::new(vec![root], false).with_context(|| format!("reading {}", tree.display()))?;
        Ok(Differ { view, source, walk, pending: Vec::new(), new: Vec::new() })
    }

    /// Tells all differences.
    pub(crate) fn run(mut self, take: &mut Take<'_>) -> io::Result<()> {
        self.deleted(take)?;
        while let Some(seen) = self.walk.next()? {
            self.one(&seen, take)?;
        }
        Ok(())
    }

    fn one(&mut self, seen: &Seen, take: &mut Take<'_>) -> io::Result<()> {
        let path = self.walk.path().to_vec();
        self.pending.retain(|above| is_above(&above.path, &path));
        self.new.retain(|above| is_above(above, &path));
        let lower = if self.new.is_empty() { self.view.shown(&path)? } else { None };
        if self.source == Source::Upper && is_whiteout(&seen.stat) {
            return if lower.is_some() { self.tell(Changed::Gone(&path), take) } else { Ok(()) };
        }
        let kind = self.compare(&path, seen, lower.as_ref())?;
        if tree::file_type(&seen.stat).is_dir() {
            let in_image = lower.as_ref().is_none_or(|lower| tree::file_type(&lower.stat).is_dir());
            return self.directory(path, seen, (kind, in_image), take);
        }
        match kind {
            Some(kind) => self.tell(Changed::Other(kind, &path, seen), take),
            None if seen.stat.st_nlink > 1 => take(Changed::Same(&path, &seen.stat)),
            None => Ok(()),
        }
    }

    fn directory(
        &mut self,
        path: Vec<u8>,
        seen: &Seen,
        (kind, in_image): (Option<ChangeKind>, bool),
        take: &mut Take<'_>,
    ) -> io::Result<()> {
        let Some(entry) = pack::entry(&path, &seen.node, &seen.stat)? else { return Ok(()) };
        match kind {
            Some(kind) => self.tell(Changed::Directory(kind, &entry), take)?,
            None => self.pending.push(entry),
        }
        if kind == Some(ChangeKind::Added) || !in_image {
            self.new.push(path);
        }
        self.walk.descend(seen)?;
        self.deleted(take)
    }

    /// Names that the image has in the current directory and the container does not.
    fn deleted(&mut self, take: &mut Take<'_>) -> io::Result<()> {
        let complete = self.source == Source::Whole || self.walk.hides()?;
        if !complete || !self.new.is_empty() {
            return Ok(());
        }
        let path = self.walk.path().to_vec();
        for name in self.view.list(&path)? {
            if !self.walk.has(&name)? {
                let gone = if path.is_empty() { name.into_bytes() } else { [&path, name.as_bytes()].join(&b'/') };
                self.tell(Changed::Gone(&gone), take)?;
            }
        }
        Ok(())
    }

    /// Tells a change, and before it the directories above it.
    fn tell(&mut self, change: Changed<'_>, take: &mut Take<'_>) -> io::Result<()> {
        for above in self.pending.drain(..) {
            take(Changed::Directory(ChangeKind::Modified, &above))?;
        }
        take(change)
    }

    /// What became of a name; `None`: nothing.
    fn compare(&self, path: &[u8], seen: &Seen, lower: Option<&Found>) -> io::Result<Option<ChangeKind>> {
        let Some(lower) = lower else {
            return Ok(Some(ChangeKind::Added).filter(|_| !self.new.is_empty() || !is_place(path, &seen.stat)));
        };
        let same = same_stat(&seen.stat, &lower.stat)
            && match tree::file_type(&seen.stat) {
                FileType::Symlink => {
                    link_target(&seen.node, &CString::default())? == link_target(&lower.parent, &lower.name)?
                }
                FileType::RegularFile => self.same_file(seen, lower)?,
                _ => true,
            };
        Ok(if same { None } else { Some(ChangeKind::Modified) })
    }

    /// Capabilities are compared. Content is, too, of a file in the upper directory: that is seldom one that looks
    /// unchanged, and somebody may have set its time back.
    fn same_file(&self, seen: &Seen, lower: &Found) -> io::Result<bool> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let image = rustix::fs::openat(&lower.parent, &lower.name, flags, Mode::empty())?;
        let own = rustix::fs::open(proc_path(&seen.node), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        if xattr(&own, b"security.capability")? != xattr(&image, b"security.capability")? {
            return Ok(false);
        }
        Ok(self.source == Source::Whole || same_content(File::from(own), File::from(image))?)
    }
}

/// Opens a container's tree.
pub(crate) fn open_tree(tree: &Path) -> Result<OwnedFd> {
    match File::open(tree) {
        Ok(root) => Ok(root.into()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(Error::not_found(format!("no writable layer at {}", tree.display())))
        }
        Err(e) => Err(Error::from(e).prefix(format!("opening {}", tree.display()))),
    }
}

fn is_above(above: &[u8], path: &[u8]) -> bool {
    path.starts_with(above) && path.get(above.len()) == Some(&b'/')
}

/// Whether this is one of the empty places that the runtime makes.
fn is_place(path: &[u8], stat: &Stat) -> bool {
    let kind = tree::file_type(stat);
    PLACES.iter().any(|(place, of)| place.as_bytes() == path && *of == kind)
        && (kind != FileType::RegularFile || stat.st_size == 0)
}

/// As far as the reference looks. Archives often keep whole seconds only, so a time without a fraction fits any.
fn same_stat(a: &Stat, b: &Stat) -> bool {
    let same_time = a.st_mtime == b.st_mtime
        && (a.st_mtime_nsec == b.st_mtime_nsec || a.st_mtime_nsec == 0 || b.st_mtime_nsec == 0);
    a.st_mode == b.st_mode
        && (a.st_uid, a.st_gid) == (b.st_uid, b.st_gid)
        && a.st_rdev == b.st_rdev
        && (tree::file_type(a).is_dir() || (a.st_size == b.st_size && same_time))
}

fn same_content(mut a: File, mut b: File) -> io::Result<bool> {
    let (mut one, mut other) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let n = a.read(&mut one)?;
        if n == 0 {
            return Ok(b.read(&mut other)? == 0);
        }
        match b.read_exact(&mut other[..n]) {
            Ok(()) if one[..n] == other[..n] => {}
            Ok(()) => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(e) => return Err(e),
        }
    }
}
