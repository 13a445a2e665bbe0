//! Unpacking a tar into a directory of a container, whose processes may change that directory meanwhile.
//!
//! Invariants:
//! - every path is looked up below the container's root by [`Rooted`]; an entry is made, and everything about it is changed,
//!   through a descriptor of its parent or of itself, so that no link that a process puts in the way is followed;
//! - what is removed to make room lies on the file system of its parent: a mount in the way is `EBUSY`, and its content stays;
//! - memory does not grow with the archive: what is kept is the directories above the current entry.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;
use sys::rooted::Rooted;

use crate::apply::{clean, named, node, proc_path, split, times, xattrs};
use crate::archive::{Archive, Entry, Kind, Time, bad};
use crate::{sparse, tree};

/// Bytes copied at once.
const CHUNK: usize = 256 << 10;
/// Mode of directories that the archive has files in but no entry for.
const IMPLIED: Mode = Mode::from_raw_mode(0o755);
/// Tries to put an entry in place while somebody else puts something there.
const RACES: usize = 16;

/// How [`extract`] treats the archive's entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extraction {
    /// Owner and group of everything; `None`: the archive's.
    pub owner: Option<(u32, u32)>,
    /// A directory is replaced by a directory only, and so is everything else.
    pub keep_kinds: bool,
    /// The directory itself gets what the archive says of it.
    pub whole: bool,
    /// A link whose target, as it is written, lies outside of the directory is refused.
    pub links_inside: bool,
}

/// Unpacks the uncompressed `tar` into `directory` (absolute, below `root`).
///
/// Errors: `InvalidData` when the archive is malformed or an entry leaves the directory; `AlreadyExists` for what
/// [`Extraction::keep_kinds`] refuses; the kernel's, with the entry's name. What was unpacked before stays.
pub fn extract(root: &Rooted, directory: &Path, tar: impl Read, how: Extraction) -> io::Result<()> {
    let mut extractor = Extractor {
        root,
        top: directory.as_os_str().as_bytes().to_vec(),
        how,
        parent: None,
        above: Vec::new(),
        itself: None,
        buffer: vec![0; CHUNK],
    };
    let mut archive = Archive::new(tar);
    while let Some(entry) = archive.next_entry()? {
        extractor.entry(&entry, &mut archive).map_err(|e| named(&entry.path, e))?;
    }
    archive.drain()?;
    extractor.leave(b"")?;
    extractor.finish()
}

struct Extractor<'r> {
    root: &'r Rooted,
    /// Path of the directory below the root.
    top: Vec<u8>,
    how: Extraction,
    /// The directory of the last entry: archives come ordered.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Directories whose entries may still come, and the times to give them then.
    above: Vec<(Vec<u8>, Time)>,
    /// What the archive says of the directory itself, which it gets last.
    itself: Option<Entry>,
    buffer: Vec<u8>,
}

impl Extractor<'_> {
    fn entry<R: Read>(&mut self, entry: &Entry, archive: &mut Archive<R>) -> io::Result<()> {
        let path = self.clean(&entry.path)?;
        self.leave(&path)?;
        let Some((parent, name)) = split(&path) else {
            let is_told = self.how.whole && entry.kind == Kind::Directory;
            self.itself = if is_told { Some(entry.clone()) } else { self.itself.take() };
            return Ok(());
        };
        if entry.kind == Kind::Other {
            return Ok(());
        }
        self.enter(parent)?;
        let name = CString::new(name).map_err(|_| bad("name with a zero byte"))?;
        for _ in 1..RACES {
            match self.put(&path, &name, entry, archive) {
                // A process of the container was faster.
                Err(e) if e.raw_os_error() == Some(Errno::EXIST.raw_os_error()) => {}
                other => return other,
            }
        }
        Err(Errno::EXIST.into())
    }

    fn put<R: Read>(&mut self, path: &[u8], name: &CString, entry: &Entry, archive: &mut Archive<R>) -> io::Result<()> {
        let Some((_, parent)) = &self.parent else { return Err(Errno::NOENT.into()) };
        self.make_room(parent, path, name, entry.kind)?;
        match entry.kind {
            Kind::File => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut file = File::from(rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?);
                fill(&mut file, entry, archive, &mut self.buffer)?;
                let file = OwnedFd::from(file);
                self.describe(&file, entry)?;
                return Ok(rustix::fs::futimens(&file, &times(entry.mtime))?);
            }
            Kind::Directory => {
                match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(e.into()),
                }
                let made = tree::open_dir(parent, name)?;
                self.describe(&made, entry)?;
                self.above.push((path.to_vec(), entry.mtime));
                return Ok(());
            }
            Kind::HardLink => return self.hard_link(parent, name, entry),
            Kind::Symlink => {
                self.check_link(path, &entry.link)?;
                let target = CString::new(entry.link.as_slice()).map_err(|_| bad("name with a zero byte"))?;
                rustix::fs::symlinkat(target, parent, name)?;
            }
            Kind::Char => node(parent, name, FileType::CharacterDevice, entry)?,
            Kind::Block => node(parent, name, FileType::BlockDevice, entry)?,
            Kind::Fifo => node(parent, name, FileType::Fifo, entry)?,
            Kind::Other => return Ok(()),
        }
        let made = rustix::fs::openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        self.describe(&made, entry)?;
        // By the name of the descriptor, which no link of the container can redirect.
        Ok(rustix::fs::utimensat(CWD, proc_path(&made), &times(entry.mtime), AtFlags::empty())?)
    }

    /// Owner, mode and attributes of something that is open, be it by `O_PATH`.
    fn describe(&self, made: &OwnedFd, entry: &Entry) -> io::Result<()> {
        let (uid, gid) = self.owner(entry);
        rustix::fs::chownat(made, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
        let place = proc_path(made);
        if !tree::file_type(&rustix::fs::fstat(made)?).is_symlink() {
            rustix::fs::chmod(&place, Mode::from_raw_mode(entry.mode))?;
        }
        xattrs(entry, |key, value| rustix::fs::setxattr(&place, key, value, XattrFlags::empty()))
    }

    /// Gives the directory itself what the archive says of it.
    fn finish(&mut self) -> io::Result<()> {
        let Some(entry) = self.itself.take() else { return Ok(()) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = self.root.open(self.path(b""), flags, Mode::empty())?;
        self.describe(&top, &entry)?;
        Ok(rustix::fs::futimens(&top, &times(entry.mtime))?)
    }

    fn owner(&self, entry: &Entry) -> (Uid, Gid) {
        let (uid, gid) = self.how.owner.unwrap_or((entry.uid, entry.gid));
        (Uid::from_raw(uid), Gid::from_raw(gid))
    }

    /// Sets the times of the directories that `path` does not lie in: an archive comes directory by directory.
    fn leave(&mut self, path: &[u8]) -> io::Result<()> {
        while let Some((above, time)) = self.above.pop_if(|(above, _)| !is_below(path, above)) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            match self.root.open(self.path(&above), flags, Mode::empty()) {
                Ok(directory) => rustix::fs::futimens(&directory, &times(time))?,
                // Replaced meanwhile.
                Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => {}
                Err(e) => return Err(named(&above, e)),
            }
        }
        Ok(())
    }

    /// Opens the directory of the entries to come; makes it if it is missing.
    fn enter(&mut self, path: &[u8]) -> io::Result<()> {
        if self.parent.as_ref().is_none_or(|(known, _)| known != path) {
            let directory = self.root.make_dir_all(self.path(path), IMPLIED)?;
            self.parent = Some((path.to_vec(), directory));
        }
        Ok(())
    }

    /// Removes what stands where the entry goes, except a directory for a directory.
    fn make_room(&self, parent: &OwnedFd, path: &[u8], name: &CString, kind: Kind) -> io::Result<()> {
        let Some(old) = tree::stat(parent, name)? else { return Ok(()) };
        let was_dir = tree::file_type(&old).is_dir();
        let is_dir = kind == Kind::Directory;
        if was_dir && is_dir {
            return Ok(());
        }
        if self.how.keep_kinds && (was_dir || is_dir) {
            let place = self.path(path);
            let (place, top) = (place.display(), String::from_utf8_lossy(&self.top));
            let text = match was_dir {
                true => format!("cannot overwrite directory \"{place}\" with non-directory \"{top}\""),
                false => format!("cannot overwrite non-directory \"{place}\" with directory \"{top}\""),
            };
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        // As the reference says it.
        let busy = |e: io::Error| match Errno::from_io_error(&e) {
            Some(Errno::BUSY) => {
                io::Error::new(e.kind(), format!("unlinkat {}: {}", self.path(path).display(), model::io_text(&e)))
            }
            _ => e,
        };
        tree::remove(parent, name).map_err(busy)
    }

    /// Where a link leads to is counted from its own directory, also when it is absolute, as the reference does (`createTarFile` of
    /// go-archive). Nothing depends on it: names are looked up below the root.
    fn check_link(&self, path: &[u8], link: &[u8]) -> io::Result<()> {
        let place = self.path(path);
        let target =
            place.parent().unwrap_or(Path::new("/")).display().to_string() + "/" + &String::from_utf8_lossy(link);
        if !self.how.links_inside || starts_with(model::mount::clean(&target).as_bytes(), &self.top) {
            return Ok(());
        }
        let text = format!("invalid symlink {:?} -> {:?}", place.display().to_string(), String::from_utf8_lossy(link));
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }

    fn hard_link(&self, parent: &OwnedFd, name: &CString, entry: &Entry) -> io::Result<()> {
        let target = self.clean(&entry.link)?;
        let Some((above, target)) = split(&target) else { return Err(Errno::PERM.into()) };
        let target = CString::new(target).map_err(|_| bad("name with a zero byte"))?;
        let above = self.root.open(self.path(above), OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        Ok(rustix::fs::linkat(&above, &target, parent, name, AtFlags::empty())?)
    }

    /// The path below the root of one below the directory.
    fn path(&self, below: &[u8]) -> PathBuf {
        Path::new(OsStr::from_bytes(&self.top)).join(OsStr::from_bytes(below))
    }

    /// A name of the archive, relative to the directory.
    fn clean(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        clean(name, &format!("{:?}", String::from_utf8_lossy(&self.top)))
    }
}

/// Writes a file's data, holes as holes.
fn fill<R: Read>(file: &mut File, entry: &Entry, archive: &mut Archive<R>, buffer: &mut [u8]) -> io::Result<()> {
    match &entry.sparse {
        None => copy(file, entry.size, archive, buffer)?,
        Some(map) => {
            for (offset, length) in map {
                file.seek(SeekFrom::Start(*offset))?;
                copy(file, *length, archive, buffer)?;
            }
        }
    }
    // Its end may be a hole.
    file.set_len(entry.size)
}

fn copy<R: Read>(file: &mut File, length: u64, archive: &mut Archive<R>, buffer: &mut [u8]) -> io::Result<()> {
    let mut left = length;
    while left > 0 {
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let n = archive.read(&mut buffer[..wanted])?;
        if n == 0 {
            return Err(bad("file data is missing"));
        }
        sparse::write(file, &buffer[..n])?;
        left -= n as u64;
    }
    Ok(())
}

/// As texts: the root is a prefix of all.
fn starts_with(path: &[u8], top: &[u8]) -> bool {
    path.starts_with(top.strip_suffix(b"/").unwrap_or(top))
}

/// Whether `path` is `above` or lies in it.
fn is_below(path: &[u8], above: &[u8]) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests;
