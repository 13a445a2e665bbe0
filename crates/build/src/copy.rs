//! Copying from one file system to another: what COPY and ADD do.
//!
//! Invariants:
//! - both sides are resolved below their roots by the kernel ([`Rooted`]); what is copied is read and made through
//!   descriptors, never through a link;
//! - modes, times, extended attributes and links between files that are copied together stay; owners stay unless others are
//!   asked for;
//! - a directory replaces nothing but a directory, and nothing replaces one.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use dockerfile::ignore::Matcher;
use model::{Error, Result};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use sys::rooted::Rooted;
use sys::tree;

use crate::content::{self, join, open_at, open_directory, open_file};
use crate::mode::ModeChange;

/// How it is copied.
#[derive(Debug, Default)]
pub struct How {
    /// Owner and group of everything; `None`: those of the source.
    pub owner: Option<(u32, u32)>,
    /// Another mode.
    pub mode: Option<ModeChange>,
    /// Of a directory what lies in it, not itself.
    pub contents: bool,
    /// Unix nanoseconds that everything gets; `None`: the source's.
    pub time: Option<i64>,
    /// Only what these have, relative to the source; `None`: everything.
    pub include: Option<Matcher>,
    /// Not what these have, relative to the source.
    pub exclude: Option<Matcher>,
    /// What stands in the way goes, whatever it is.
    pub replace: bool,
}

impl How {
    /// Whether a path below the source is copied.
    pub fn takes(&self, relative: &str) -> bool {
        let has = |list: &Matcher| list.matches(relative.trim_start_matches("./"));
        self.include.as_ref().is_none_or(has) && !self.exclude.as_ref().is_some_and(has)
    }

    fn is_filtered(&self) -> bool {
        self.include.is_some() || self.exclude.is_some()
    }
}

/// Where it is copied to.
pub struct Target<'t> {
    /// The root.
    pub root: &'t Rooted,
    /// Absolute; with a slash at its end (or as `.`) it is a directory.
    pub path: &'t str,
}

/// Copies `node` (open by `O_PATH`), whose name is `name`.
///
/// Errors: `InvalidParameter` for a directory onto a file and the other way round; the kernel's.
pub fn copy(node: &OwnedFd, name: &str, target: &Target<'_>, how: &How) -> Result<()> {
    let stat = rustix::fs::fstat(node).map_err(io::Error::from)?;
    let is_dir = tree::file_type(&stat).is_dir();
    let mut copier = Copier { how, links: HashMap::new() };
    if is_dir && how.contents {
        let made = make_directories(target.root, target.path, how)?;
        return copier.directory((node, &stat), &made.dir, "", made.is_new).map_err(|e| e.at(target.path));
    }
    let place = if names_directory(target.path) || is_directory(target.root, target.path) {
        format!("{}/{name}", target.path.trim_end_matches('/'))
    } else {
        target.path.to_owned()
    };
    let (parent, last) = split(&place);
    let parent = make_directories(target.root, parent, how)?.dir;
    let last = CString::new(last).map_err(|_| Error::invalid("name with a zero byte"))?;
    copier.entry((node, &stat), &parent, &last, "").map_err(|e| e.at(&place))
}

/// Whether the text says that a path is a directory.
fn names_directory(path: &str) -> bool {
    path.is_empty() || path.ends_with('/') || path.ends_with("/.")
}

fn is_directory(root: &Rooted, path: &str) -> bool {
    root.stat(path).is_ok_and(|stat| tree::file_type(&stat).is_dir())
}

/// The directory and the last name of an absolute path.
pub fn split(path: &str) -> (&str, &str) {
    match path.trim_end_matches('/').rsplit_once('/') {
        Some(("", last)) => ("/", last),
        Some(parts) => parts,
        None => ("/", path),
    }
}

/// A directory that is there now.
pub struct Made {
    /// Open by `O_PATH`.
    pub dir: OwnedFd,
    /// It was not before.
    pub is_new: bool,
}

/// Makes a directory with those above it, which get the owner that is asked for.
pub fn make_directories(root: &Rooted, path: &str, how: &How) -> Result<Made> {
    const MODE: Mode = Mode::from_raw_mode(0o755);
    let mut here = String::new();
    let mut is_new = false;
    let mut dir = root.locate("/")?;
    for part in crate::pattern::components(path) {
        here = format!("{here}/{part}");
        let found = root.stat(&here);
        is_new = found.is_err();
        if let Ok(stat) = found
            && !tree::file_type(&stat).is_dir()
        {
            return Err(Error::invalid(format!("cannot copy to non-directory: {here}")));
        }
        dir = root.make_dir_all(&here, MODE)?;
        if is_new {
            chown(&dir, how.owner.unwrap_or_default())?;
            if how.time.is_some() {
                touch(&dir, times(&rustix::fs::fstat(&dir).map_err(io::Error::from)?, how))?;
            }
        }
    }
    Ok(Made { dir, is_new })
}

fn chown(node: &OwnedFd, (uid, gid): (u32, u32)) -> io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    Ok(rustix::fs::chownat(node, c"", uid, gid, AtFlags::EMPTY_PATH)?)
}

/// Sets the times of something that is open, be it by `O_PATH`.
pub fn touch(node: &OwnedFd, times: Timestamps) -> io::Result<()> {
    Ok(rustix::fs::utimensat(CWD, place(node), &times, AtFlags::empty())?)
}

fn times(stat: &Stat, how: &How) -> Timestamps {
    match how.time {
        Some(nanos) => at(nanos),
        None => Timestamps {
            last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec.cast_signed() },
            last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec.cast_signed() },
        },
    }
}

/// A time in unix nanoseconds, for both times.
pub fn at(nanos: i64) -> Timestamps {
    let time = Timespec { tv_sec: nanos.div_euclid(1_000_000_000), tv_nsec: nanos.rem_euclid(1_000_000_000) };
    Timestamps { last_access: time, last_modification: time }
}

/// The name of a descriptor, which no link can redirect.
pub fn place(node: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", node.as_raw_fd())
}

/// What a copy was stopped by.
enum Stopped {
    Io(io::Error),
    Refused(&'static str),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Stopped {
        Stopped::Io(error)
    }
}

impl From<Errno> for Stopped {
    fn from(error: Errno) -> Stopped {
        Stopped::Io(error.into())
    }
}

impl Stopped {
    fn at(self, place: &str) -> Error {
        match self {
            Stopped::Io(error) => Error::from(error).prefix(format!("copying to {place}")),
            Stopped::Refused("file") => Error::invalid(format!("cannot replace to directory {place} with file")),
            Stopped::Refused(_) => Error::invalid(format!("cannot copy to non-directory: {place}")),
        }
    }
}

struct Copier<'h> {
    how: &'h How,
    /// Where the first of several links was copied to.
    links: HashMap<(u64, u64), OwnedFd>,
}

type Node<'n> = (&'n OwnedFd, &'n Stat);

impl Copier<'_> {
    /// Copies what lies in a directory, and its attributes if it is new in the target or not the top.
    fn directory(&mut self, source: Node<'_>, target: &OwnedFd, path: &str, is_new: bool) -> Result<(), Stopped> {
        let depth = path.split('/').count();
        if depth > content::DEPTH {
            return Err(content::too_deep().into());
        }
        let from = open_directory(source.0)?;
        for name in tree::names(&from)? {
            let below = join(path, &name);
            let child = open_at(&from, &name)?;
            let stat = rustix::fs::fstat(&child)?;
            let is_dir = tree::file_type(&stat).is_dir();
            if self.how.takes(&below) {
                self.entry((&child, &stat), target, &name, &below)?;
            } else if is_dir && self.how.is_filtered() && self.has_wanted(&child, &below)? {
                // Something in it is wanted, itself is not: it is made as parents are.
                self.entry((&child, &stat), target, &name, &below)?;
            }
        }
        if is_new || !path.is_empty() { self.describe(source, target) } else { Ok(()) }
    }

    /// Whether anything below a directory that is not wanted itself is.
    fn has_wanted(&self, node: &OwnedFd, path: &str) -> Result<bool, Stopped> {
        let dir = open_directory(node)?;
        for name in tree::names(&dir)? {
            let below = join(path, &name);
            if self.how.takes(&below) {
                return Ok(true);
            }
            let child = open_at(&dir, &name)?;
            if tree::file_type(&rustix::fs::fstat(&child)?).is_dir() && self.has_wanted(&child, &below)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn entry(&mut self, source: Node<'_>, parent: &OwnedFd, name: &CString, path: &str) -> Result<(), Stopped> {
        let (node, stat) = source;
        let kind = tree::file_type(stat);
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            // What a layer without those below it has deleted.
            return Ok(());
        }
        // A parent that is open by `O_PATH` cannot be listed, but named.
        if let Some(old) = tree::stat(parent, name)? {
            let old = tree::file_type(&old);
            match (kind.is_dir(), old.is_dir()) {
                (true, true) => {}
                _ if self.how.replace => tree::remove(parent, name)?,
                (true, false) => return Err(Stopped::Refused("directory")),
                (false, true) => return Err(Stopped::Refused("file")),
                (false, false) => tree::remove(parent, name)?,
            }
        }
        let first = Some((stat.st_dev, stat.st_ino)).filter(|_| !kind.is_dir() && stat.st_nlink > 1);
        if let Some(first) = first.and_then(|file| self.links.get(&file)) {
            return Ok(rustix::fs::linkat(CWD, place(first), parent, name, AtFlags::SYMLINK_FOLLOW)?);
        }
        let made = match kind {
            FileType::Directory => {
                match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(e.into()),
                }
                let made = open_at(parent, name)?;
                // The copy of a whole directory is not its contents alone: its attributes come along.
                return self.directory(source, &made, if path.is_empty() { "." } else { path }, true);
            }
            FileType::RegularFile => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?;
                let mut to = File::from(made);
                let mut from = open_file(node)?;
                if rustix::fs::ioctl_ficlone(&to, &from).is_err() {
                    io::copy(&mut from, &mut to)?;
                }
                OwnedFd::from(to)
            }
            FileType::Symlink => {
                let text = rustix::fs::readlinkat(node, c"", Vec::new())?;
                rustix::fs::symlinkat(text, parent, name)?;
                open_at(parent, name)?
            }
            // Neither has content.
            FileType::Socket | FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
                rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(0o600), stat.st_rdev)?;
                open_at(parent, name)?
            }
            _ => return Ok(()),
        };
        self.describe(source, &made)?;
        if stat.st_nlink > 1 {
            self.links.insert((stat.st_dev, stat.st_ino), made);
        }
        Ok(())
    }

    /// Owner, mode, attributes and times.
    fn describe(&self, (node, stat): Node<'_>, made: &OwnedFd) -> Result<(), Stopped> {
        let kind = tree::file_type(stat);
        chown(made, self.how.owner.unwrap_or((stat.st_uid, stat.st_gid)))?;
        let place = place(made);
        if kind.is_symlink() {
            return Ok(rustix::fs::utimensat(
                made,
                c"",
                &times(stat, self.how),
                AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW,
            )?);
        }
        for (name, value) in content::xattrs(node)? {
            rustix::fs::setxattr(place.as_str(), name.as_slice(), &value, XattrFlags::empty())?;
        }
        let mode = stat.st_mode & 0o7777;
        let mode = self.how.mode.as_ref().map_or(mode, |change| change.apply(mode, kind.is_dir()));
        rustix::fs::chmod(place.as_str(), Mode::from_raw_mode(mode))?;
        Ok(touch(made, times(stat, self.how))?)
    }
}
