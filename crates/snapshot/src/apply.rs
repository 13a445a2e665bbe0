//! Unpacking one layer's tar into a directory.
//!
//! Invariants:
//! - the parent of every entry is looked up with [`Rooted`] (links are followed, but inside the directory only); the
//!   entry itself is made, changed or removed relative to that parent's descriptor and never through a link;
//! - a name that climbs out (`../x` once cleaned) is an error, as is a whiteout without a name;
//! - `trusted.overlay.*` attributes of the archive are dropped: only this code says what is opaque;
//! - modes and times of directories are set last, so that neither setgid nor a read-only directory gets in the way.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use sys::rooted::Rooted;

use crate::archive::{Archive, Entry, Kind, Time, bad};
use crate::sparse;
use crate::tree;

/// Entries of one layer.
const ENTRIES: u64 = 8 << 20;
/// Bytes of one layer, unpacked.
const BYTES: u64 = 512 << 30;
/// Bytes of an entry's name: what the kernel takes as a path.
const NAME: usize = 4095;
/// Bytes of the directories' names that are kept until the end, a constant for each included.
const NOTES: usize = if cfg!(test) { 4 << 20 } else { 64 << 20 };
const NOTE: usize = 64;
/// Bytes copied at once.
const CHUNK: usize = 256 << 10;
/// Mode of directories the archive has files in but no entry for.
const IMPLICIT: Mode = Mode::from_raw_mode(0o755);

pub(crate) const WHITEOUT: &[u8] = b".wh.";
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";
pub(crate) const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

/// How deletions of lower layers are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whiteouts {
    /// Overlay's way: a character device 0:0, an attribute on the directory.
    Overlay,
    /// As in the archive: empty files named `.wh.…`.
    Files,
}

/// What unpacking found out beside the files.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// Directories (relative paths) that the archive has no entry for: their attributes come from the layers below.
    pub implicit: BTreeSet<Vec<u8>>,
    /// Bytes the files take, in whole blocks.
    pub size: u64,
}

/// Unit in which an entry's size is counted.
const BLOCK: u64 = 4096;

/// Unpacks `tar` into the empty directory `root`.
pub(crate) fn apply(root: OwnedFd, tar: impl Read, whiteouts: Whiteouts) -> io::Result<Applied> {
    let here = rustix::fs::readlink(proc_path(&root), Vec::new())?.into_bytes();
    let mut applier = Applier {
        root: Rooted::from_fd(root),
        here,
        whiteouts,
        parent: None,
        directories: BTreeMap::new(),
        applied: Applied::default(),
        buffer: vec![0; CHUNK],
        bytes: BYTES,
        notes: NOTES,
    };
    let mut archive = Archive::new(tar);
    let mut entries = 0;
    while let Some(entry) = archive.next_entry()? {
        entries += 1;
        if entries > ENTRIES {
            return Err(bad("too many entries"));
        }
        applier.entry(&entry, &mut archive).map_err(|e| named(&entry.path, e))?;
    }
    archive.drain()?;
    applier.finish()
}

/// Adds the entry's name to an error that the kernel gave.
pub(crate) fn named(path: &[u8], error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(_) => {
            io::Error::new(error.kind(), format!("{}: {}", String::from_utf8_lossy(path), model::io_text(&error)))
        }
        None => error,
    }
}

struct Applier {
    root: Rooted,
    /// The absolute path of the root, to tell where a descriptor lies in it.
    here: Vec<u8>,
    whiteouts: Whiteouts,
    /// The directory of the last entry: archives come ordered.
    parent: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Attributes to give directories at the end, by path.
    directories: BTreeMap<Vec<u8>, (u32, Time)>,
    applied: Applied,
    buffer: Vec<u8>,
    /// Bytes that may still be written.
    bytes: u64,
    /// Bytes of names that may still be kept.
    notes: usize,
}

impl Applier {
    fn entry<R: Read>(&mut self, entry: &Entry, archive: &mut Archive<R>) -> io::Result<()> {
        let path = clean(&entry.path, "the layer")?;
        // The root belongs to the snapshotter, whatever the archive says of it.
        let Some((parent, name)) = split(&path) else { return Ok(()) };
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(parent, name, hidden);
        }
        if entry.kind == Kind::Other {
            return Ok(());
        }
        let dir = self.parent(parent)?;
        let name = c_name(name)?;
        if entry.kind == Kind::File {
            return self.file((&dir, &name), &path, entry, archive);
        }
        let hidden = self.make_room(&dir, &name, entry.kind, &path)?;
        match entry.kind {
            Kind::Directory => {
                self.directory(&dir, &name, entry, path)?;
                return if hidden { set_opaque(&tree::open_dir(&*dir, &name)?) } else { Ok(()) };
            }
            Kind::HardLink => return self.hard_link(&dir, &name, entry),
            Kind::Symlink => {
                rustix::fs::symlinkat(c_name(&entry.link)?, &*dir, &name)?;
            }
            Kind::Char => node(&dir, &name, FileType::CharacterDevice, entry)?,
            Kind::Block => node(&dir, &name, FileType::BlockDevice, entry)?,
            Kind::Fifo => node(&dir, &name, FileType::Fifo, entry)?,
            Kind::File | Kind::Other => {}
        }
        attributes(&dir, &name, entry)
    }

    /// Sets what had to wait: modes and times of directories, deepest first.
    fn finish(mut self) -> io::Result<Applied> {
        self.parent = None;
        while let Some((path, (mode, time))) = self.directories.pop_last() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let dir = match self.root.open(Path::new(OsStr::from_bytes(&path)), flags, Mode::empty()) {
                Ok(dir) => dir,
                // Replaced by a later entry through another name.
                Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => {
                    continue;
                }
                Err(e) => return Err(named(&path, e)),
            };
            rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode))?;
            rustix::fs::futimens(&dir, &times(time))?;
        }
        Ok(self.applied)
    }

    /// The directory `path`, made with its parents if the archive has no entry for it.
    fn parent(&mut self, path: &[u8]) -> io::Result<Rc<OwnedFd>> {
        if let Some((known, dir)) = &self.parent
            && known == path
        {
            return Ok(dir.clone());
        }
        // From the deepest that exists down; a loop, for a name may have two thousand parts.
        let (mut end, mut missing) = (path.len(), Vec::new());
        let mut dir = loop {
            if let Some(found) = self.existing(&path[..end])? {
                break found;
            }
            missing.push(end);
            end = split(&path[..end]).expect("the root exists").0.len();
        };
        for end in missing.into_iter().rev() {
            dir = self.implicit(&dir, &path[..end])?;
        }
        let dir = Rc::new(dir);
        self.parent = Some((path.to_vec(), dir.clone()));
        Ok(dir)
    }

    /// The directory `path`, unless it has to be made.
    fn existing(&self, path: &[u8]) -> io::Result<Option<OwnedFd>> {
        let path = if path.is_empty() { b"/" } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.root.open(Path::new(OsStr::from_bytes(path)), flags, Mode::empty()) {
            Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::NOENT | Errno::NOTDIR)) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Makes the directory `path`, whose parent is `dir`, and notes it.
    fn implicit(&mut self, dir: &OwnedFd, path: &[u8]) -> io::Result<OwnedFd> {
        let (_, name) = split(path).expect("the root exists");
        let name = c_name(name)?;
        if tree::stat(dir, &name)?.is_some_and(|s| is_whiteout(&s)) {
            // Deleted below, made anew here: what the lower layers have in it stays deleted.
            rustix::fs::unlinkat(dir, &name, AtFlags::empty())?;
            rustix::fs::mkdirat(dir, &name, IMPLICIT)?;
            set_opaque(&tree::open_dir(dir, &name)?)?;
        } else {
            match rustix::fs::mkdirat(dir, &name, IMPLICIT) {
                Ok(()) => {
                    let mut made = self.place(dir)?;
                    made.extend_from_slice(name.as_bytes());
                    self.note(&made)?;
                    self.applied.implicit.insert(made);
                }
                // A link that leads nowhere yet: its target is made, as in a chroot.
                Err(Errno::EXIST) => return self.root.make_dir_all(Path::new(OsStr::from_bytes(path)), IMPLICIT),
                Err(e) => return Err(e.into()),
            }
        }
        let made = tree::open_dir(dir, &name)?;
        // The mode above was cut by the umask.
        rustix::fs::fchmod(&made, IMPLICIT)?;
        Ok(made)
    }

    /// Where a directory lies below the root: empty, or ending with a slash.
    fn place(&self, dir: &OwnedFd) -> io::Result<Vec<u8>> {
        let path = rustix::fs::readlink(proc_path(dir), Vec::new())?.into_bytes();
        let below = path.strip_prefix(self.here.as_slice()).unwrap_or_default();
        let below = below.strip_prefix(b"/").unwrap_or(below);
        let mut below = below.to_vec();
        if !below.is_empty() {
            below.push(b'/');
        }
        Ok(below)
    }

    /// Removes what stands where the entry goes, except a directory for a directory. Tells whether a whiteout stood there.
    fn make_room(&mut self, dir: &OwnedFd, name: &CString, kind: Kind, path: &[u8]) -> io::Result<bool> {
        let Some(old) = tree::stat(dir, name)? else { return Ok(false) };
        let is_dir = tree::file_type(&old).is_dir();
        if is_dir && kind == Kind::Directory {
            return Ok(false);
        }
        tree::remove(dir, name)?;
        if is_dir {
            self.parent = None;
            self.forget(path);
        }
        Ok(is_whiteout(&old))
    }

    /// Drops what was noted of directories at and below `path`.
    fn forget(&mut self, path: &[u8]) {
        self.directories.remove(path);
        self.applied.implicit.remove(path);
        // In the order of names, those below come between `path/` and what follows the slash.
        let (from, to) = ([path, b"/"].concat(), [path, b"0"].concat());
        while let Some(below) = self.directories.range(from.clone()..to.clone()).next().map(|(p, _)| p.clone()) {
            self.directories.remove(&below);
        }
        while let Some(below) = self.applied.implicit.range(from.clone()..to.clone()).next().cloned() {
            self.applied.implicit.remove(&below);
        }
    }

    fn directory(&mut self, dir: &OwnedFd, name: &CString, entry: &Entry, path: Vec<u8>) -> io::Result<()> {
        match rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => self.applied.size += BLOCK,
            Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        let made = tree::open_dir(dir, name)?;
        let (uid, gid) = owner(entry);
        rustix::fs::fchown(&made, uid, gid)?;
        xattrs(entry, |key, value| rustix::fs::fsetxattr(&made, key, value, XattrFlags::empty()))?;
        let mut place = self.place(dir)?;
        place.extend_from_slice(name.as_bytes());
        self.applied.implicit.remove(&place);
        self.note(&path)?;
        self.directories.insert(path, (entry.mode, entry.mtime));
        Ok(())
    }

    /// Counts a name that is kept in memory.
    fn note(&mut self, path: &[u8]) -> io::Result<()> {
        self.notes = self.notes.checked_sub(path.len() + NOTE).ok_or_else(|| bad("too many directories"))?;
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        (dir, name): (&OwnedFd, &CString),
        path: &[u8],
        entry: &Entry,
        archive: &mut Archive<R>,
    ) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600));
        let file = match create() {
            // Rare, so nothing is asked before.
            Err(Errno::EXIST) => {
                self.make_room(dir, name, entry.kind, path)?;
                create()?
            }
            other => other?,
        };
        let mut file = File::from(file);
        match &entry.sparse {
            None => {
                if self.copy(&mut file, entry.size, archive)? < entry.size {
                    // Its end may be a hole.
                    file.set_len(entry.size)?;
                }
            }
            Some(map) => {
                for (offset, length) in map {
                    io::Seek::seek(&mut file, io::SeekFrom::Start(*offset))?;
                    self.copy(&mut file, *length, archive)?;
                }
                file.set_len(entry.size)?;
            }
        }
        let (uid, gid) = owner(entry);
        // A file made by root belongs to root: no directory has its setgid bit yet.
        if (entry.uid, entry.gid) != (0, 0) {
            rustix::fs::fchown(&file, uid, gid)?;
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode))?;
        xattrs(entry, |key, value| rustix::fs::fsetxattr(&file, key, value, XattrFlags::empty()))?;
        rustix::fs::futimens(&file, &times(entry.mtime))?;
        Ok(())
    }

    /// Copies so many bytes, runs of zeros as holes; answers how many were written.
    fn copy<R: Read>(&mut self, file: &mut File, length: u64, archive: &mut Archive<R>) -> io::Result<u64> {
        self.bytes = self.bytes.checked_sub(length).ok_or_else(|| bad("layer too large"))?;
        let (mut written, mut left) = (0, length);
        while left > 0 {
            let wanted = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let n = archive.read(&mut self.buffer[..wanted])?;
            if n == 0 {
                return Err(bad("file data is missing"));
            }
            written += sparse::write(file, &self.buffer[..n])?;
            left -= n as u64;
        }
        self.applied.size += written.next_multiple_of(BLOCK);
        Ok(written)
    }

    fn hard_link(&mut self, dir: &OwnedFd, name: &CString, entry: &Entry) -> io::Result<()> {
        let target = clean(&entry.link, "the layer")?;
        let Some((above, target_name)) = split(&target) else { return Err(Errno::PERM.into()) };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let above = self.root.open(
            Path::new(OsStr::from_bytes(if above.is_empty() { b"/" } else { above })),
            flags,
            Mode::empty(),
        );
        let linked =
            above.and_then(|above| Ok(rustix::fs::linkat(&above, c_name(target_name)?, dir, name, AtFlags::empty())?));
        linked.map_err(|e| {
            let text = format!("hard link to {}: {}", String::from_utf8_lossy(&entry.link), model::io_text(&e));
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: {text}", String::from_utf8_lossy(&entry.path)))
        })
    }

    fn whiteout(&mut self, parent: &[u8], name: &[u8], hidden: &[u8]) -> io::Result<()> {
        let dir = self.parent(parent)?;
        if name == OPAQUE {
            return match self.whiteouts {
                // O_PATH descriptors take no attributes.
                Whiteouts::Overlay => set_opaque(&tree::open_dir(&*dir, c".")?),
                Whiteouts::Files => marker(&dir, name),
            };
        }
        if hidden.starts_with(WHITEOUT) {
            // Book-keeping of aufs.
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(bad("invalid whiteout"));
        }
        let hidden_name = c_name(hidden)?;
        match tree::stat(&*dir, &hidden_name)? {
            // This layer has the name too: a whiteout speaks of the layers below only.
            Some(old) if tree::file_type(&old).is_dir() => match self.whiteouts {
                Whiteouts::Overlay => set_opaque(&tree::open_dir(&*dir, &hidden_name)?),
                Whiteouts::Files => marker(&tree::open_dir(&*dir, &hidden_name)?, OPAQUE),
            },
            Some(_) => Ok(()),
            None => match self.whiteouts {
                Whiteouts::Overlay => {
                    let none = Mode::empty();
                    Ok(rustix::fs::mknodat(&*dir, &hidden_name, FileType::CharacterDevice, none, 0)?)
                }
                Whiteouts::Files => marker(&dir, name),
            },
        }
    }
}

/// Makes an empty file that stands for itself.
fn marker(dir: &OwnedFd, name: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, c_name(name)?, flags, Mode::empty())?;
    Ok(())
}

pub(crate) fn set_opaque(dir: &OwnedFd) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(dir, OPAQUE_XATTR, b"y", XattrFlags::empty())?)
}

/// Overlay's mark of a deleted name.
pub(crate) fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    tree::file_type(stat).is_char_device() && stat.st_rdev == 0
}

pub(crate) fn node(dir: &OwnedFd, name: &CString, kind: FileType, entry: &Entry) -> io::Result<()> {
    let device = rustix::fs::makedev(entry.major, entry.minor);
    Ok(rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(0o600), device)?)
}

/// Ownership, mode, extended attributes and times of something that cannot be opened.
fn attributes(dir: &OwnedFd, name: &CString, entry: &Entry) -> io::Result<()> {
    let (uid, gid) = owner(entry);
    rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if entry.kind != Kind::Symlink {
        // Made a moment ago in a directory nobody else writes: the name is not a link.
        rustix::fs::chmodat(dir, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
    }
    if !entry.xattrs.is_empty() {
        let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
        let path = proc_path(&file);
        xattrs(entry, |key, value| rustix::fs::setxattr(path.as_str(), key, value, XattrFlags::empty()))?;
    }
    Ok(rustix::fs::utimensat(dir, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// The name under which the kernel reaches a descriptor of this process.
pub(crate) fn proc_path(fd: impl AsFd) -> String {
    let fd: BorrowedFd<'_> = fd.as_fd();
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

pub(crate) fn xattrs(entry: &Entry, set: impl Fn(&[u8], &[u8]) -> rustix::io::Result<()>) -> io::Result<()> {
    for (key, value) in &entry.xattrs {
        if key.starts_with(b"trusted.overlay.") || key.starts_with(b"user.overlay.") {
            continue;
        }
        match set(key, value) {
            Ok(()) => {}
            // The file system or the kind of file takes no such attribute; the reference goes on as well.
            Err(Errno::NOTSUP | Errno::PERM) => {
                tracing::debug!(key = %String::from_utf8_lossy(key), "extended attribute not kept");
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
}

pub(crate) fn times(time: Time) -> Timestamps {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanos };
    Timestamps { last_access: time, last_modification: time }
}

fn c_name(name: &[u8]) -> io::Result<CString> {
    CString::new(name).map_err(|_| bad("name with a zero byte"))
}

/// The name without `.`, empty and `..` components; a name that climbs out of `top` is an error.
pub(crate) fn clean(name: &[u8], top: &str) -> io::Result<Vec<u8>> {
    if name.len() > NAME {
        return Err(bad("name too long"));
    }
    let absolute = name.starts_with(b"/");
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                // At the root of an absolute name there is nothing above.
                if parts.pop().is_none() && !absolute {
                    let text = format!("{:?} is outside of {top}", model::mount::clean(&String::from_utf8_lossy(name)));
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

/// Parent and last component; `None` for the root.
pub(crate) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => Some((&path[..at], &path[at + 1..])),
        None => Some((b"", path)),
    }
}

#[cfg(test)]
pub(crate) mod tests;
