//! A tree that a client sends, written over what it sent before.
//!
//! Invariants:
//! - paths are the client's word: they have to be clean, in the order of a walk, below directories that were sent; the kernel
//!   resolves each below the root and follows no link on the way;
//! - the tree is what was sent, whatever was there before: what is not sent is removed;
//! - content is asked only for files whose status differs from what is there, for a bounded number at one time.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use blocking::Blocking;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use model::{Error, Result};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use sys::rooted::Rooted;
use sys::tree;

use super::mode;

/// Entries of one tree.
const ENTRIES: u32 = 2_000_000;
/// Directories below each other.
const DEPTH: usize = 512;
/// Bytes of a path, as in the kernel.
const PATH: usize = 4095;
/// Files whose content is on its way at one time.
const WINDOW: usize = 64;
/// Extended attributes of one file.
const ATTRIBUTES: usize = 64;
/// Nanoseconds of a second.
const SECOND: i64 = 1_000_000_000;
const BELOW: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Which files are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Differ {
    /// Those whose status differs from that of the file that is there.
    Metadata,
    /// All of them.
    None,
}

/// See the module. Every call may block on the disk, none on the client.
pub struct Receiver {
    root: Rooted,
    differ: Differ,
    /// From the root to the directory whose entries are sent.
    levels: Vec<Level>,
    /// How many statuses came.
    count: u32,
    walked: bool,
    /// Files whose content is to be asked for.
    waiting: VecDeque<u32>,
    /// What is known of them, and of those that were asked for.
    wanted: HashMap<u32, Stat>,
    /// Those whose content is on its way.
    open: HashMap<u32, Option<File>>,
    /// What directories get when all is done, deepest last.
    directories: BTreeMap<String, Stat>,
    changed: bool,
}

/// A directory whose entries are sent.
struct Level {
    path: String,
    dir: OwnedFd,
    /// What was there before and was not sent yet, last first.
    before: Vec<CString>,
    last: String,
    /// As it was sent; the root is not.
    stat: Option<Stat>,
    /// Its entries were changed, and its time with them.
    touched: bool,
}

impl Receiver {
    /// Writes below `root`, whose content is what was sent before.
    pub fn new(root: Rooted, differ: Differ) -> Result<Receiver> {
        let top = level(&root, "", None)?;
        Ok(Receiver {
            root,
            differ,
            levels: vec![top],
            count: 0,
            walked: false,
            waiting: VecDeque::new(),
            wanted: HashMap::new(),
            open: HashMap::new(),
            directories: BTreeMap::new(),
            changed: false,
        })
    }

    /// Takes what the client sends.
    ///
    /// Errors: `InvalidParameter` for what no honest client sends; the disk's.
    pub fn take(&mut self, packet: Packet, on: &Blocking) -> Result<()> {
        match packet.r#type() {
            PacketType::PacketErr => {
                Err(Error::system(format!("error from sender: {}", String::from_utf8_lossy(&packet.data))))
            }
            PacketType::PacketStat if self.walked => Err(Error::invalid("a status behind the end of a walk")),
            PacketType::PacketStat => match packet.stat {
                Some(stat) => self.entry(stat, on),
                None => self.end_of_walk(),
            },
            PacketType::PacketData => self.data(packet.id, &packet.data),
            PacketType::PacketReq => Err(Error::invalid("a request from a sender")),
            PacketType::PacketFin => Ok(()),
        }
    }

    /// The numbers of files to be asked for now.
    pub fn requests(&mut self) -> Vec<u32> {
        let count = self.waiting.len().min(WINDOW.saturating_sub(self.open.len()));
        let ids: Vec<u32> = self.waiting.drain(..count).collect();
        self.open.extend(ids.iter().map(|id| (*id, None)));
        ids
    }

    /// Whether all has come.
    pub fn is_complete(&self) -> bool {
        self.walked && self.waiting.is_empty() && self.open.is_empty()
    }

    /// Gives directories their modes and times; whether anything differs from what was there before.
    pub fn finish(mut self) -> Result<bool> {
        for (path, stat) in std::mem::take(&mut self.directories).iter().rev() {
            let dir = self.directory(path)?;
            describe(&dir, stat).map_err(|error| at(path, error))?;
        }
        Ok(self.changed)
    }

    fn entry(&mut self, stat: Stat, on: &Blocking) -> Result<()> {
        let id = self.count;
        if id >= ENTRIES {
            return Err(Error::invalid(format!("more than {ENTRIES} files")));
        }
        self.count += 1;
        let (parent, name) = check(&stat.path)?;
        self.enter(parent, &stat.path)?;
        let name = CString::new(name).map_err(|_| Error::invalid("a path with a zero byte"))?;
        self.forget_before(Some(&name)).map_err(|error| at(&stat.path, error))?;
        self.write(id, stat, &name, on)
    }

    /// Makes the directory the current one; checks the order.
    fn enter(&mut self, parent: &str, path: &str) -> Result<()> {
        let out_of_order = |last: &str| Error::invalid(format!("changes out of order: {path:?} {last:?}"));
        while self.current().path != parent {
            let is_above = self.levels.len() > 1 && !below(parent, &self.current().path);
            if !is_above {
                let level = self.current();
                return Err(out_of_order(&join(&level.path, &level.last)));
            }
            self.leave()?;
        }
        let level = self.levels.last_mut().expect("the root is never left");
        let name = path.rsplit('/').next().unwrap_or_default();
        if level.last.as_str() >= name && !level.last.is_empty() {
            return Err(out_of_order(&join(&level.path, &level.last)));
        }
        name.clone_into(&mut level.last);
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        self.forget_before(None).map_err(|error| at(&self.current().path, error))?;
        let Some(level) = self.levels.pop() else { return Ok(()) };
        if let (true, Some(stat)) = (level.touched, level.stat) {
            self.directories.insert(level.path, stat);
        }
        Ok(())
    }

    fn current(&self) -> &Level {
        self.levels.last().expect("the root is never left")
    }

    /// Removes what was there before up to this name, which itself is kept; `None`: all of it.
    fn forget_before(&mut self, name: Option<&CString>) -> io::Result<()> {
        let level = self.levels.last_mut().expect("the root is never left");
        while let Some(old) = level.before.last() {
            match name {
                Some(name) if old > name => break,
                Some(name) if old == name => {
                    level.before.pop();
                    break;
                }
                _ => {}
            }
            let Some(old) = level.before.pop() else { break };
            level.touched = true;
            tree::remove(&level.dir, &old)?;
            self.changed = true;
        }
        Ok(())
    }

    /// Writes an entry of the current directory, as far as its status tells it.
    #[expect(clippy::disallowed_methods, reason = "on a thread that may block")]
    fn write(&mut self, id: u32, stat: Stat, name: &CString, on: &Blocking) -> Result<()> {
        let (kind, _) = mode::from_wire(stat.mode);
        let told = |error: io::Error| at(&stat.path, error);
        let old = tree::stat(&self.current().dir, name).map_err(told)?;
        let is_same = old.as_ref().is_some_and(|old| self.is_same(name, old, &stat, on));
        let level = self.levels.last_mut().expect("the root is never left");
        let was_directory = old.as_ref().is_some_and(|old| tree::file_type(old).is_dir());
        if kind == FileType::Directory {
            if !was_directory {
                level.touched = true;
                if old.is_some() {
                    tree::remove(&level.dir, name).map_err(told)?;
                }
                rustix::fs::mkdirat(&level.dir, name, Mode::from_raw_mode(0o700)).map_err(|e| told(e.into()))?;
            }
            if !is_same {
                self.changed = true;
                self.directories.insert(stat.path.clone(), stat.clone());
            }
            return self.descend(stat);
        }
        if is_same && self.differ == Differ::Metadata {
            return Ok(());
        }
        self.changed = true;
        level.touched = true;
        if old.is_some() {
            tree::remove(&level.dir, name).map_err(told)?;
        }
        let made = make(&self.root, level, name, &stat, on)?;
        if made == Made::File {
            self.wanted.insert(id, stat);
            self.waiting.push_back(id);
        }
        Ok(())
    }

    /// Whether what is there is what was sent, as far as a status tells it; the time of a directory does not count.
    #[expect(clippy::disallowed_methods, reason = "on a thread that may block")]
    fn is_same(&self, name: &CString, old: &rustix::fs::Stat, new: &Stat, _on: &Blocking) -> bool {
        let dir = &self.current().dir;
        let (kind, permissions) = mode::from_wire(new.mode);
        if tree::file_type(old) != kind || (old.st_uid, old.st_gid) != (new.uid, new.gid) {
            return false;
        }
        let is_link = kind == FileType::Symlink;
        if !is_link && old.st_mode & 0o7777 != permissions {
            return false;
        }
        if kind == FileType::Directory {
            return true;
        }
        let nanos = i64::try_from(old.st_mtime_nsec).unwrap_or(0);
        if old.st_mtime.saturating_mul(SECOND).saturating_add(nanos) != new.mod_time {
            return false;
        }
        if is_link {
            let target = rustix::fs::readlinkat(dir, name, Vec::new());
            return target.is_ok_and(|target| target.as_bytes() == new.linkname.as_bytes());
        }
        if kind != FileType::RegularFile {
            return old.st_rdev == device(new);
        }
        if !new.linkname.is_empty() {
            // The file that it is a link to may be a new one.
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let first = sys::rooted::openat2(self.root.as_fd(), Path::new(&new.linkname), flags, Mode::empty(), BELOW);
            let first = first.and_then(rustix::fs::fstat);
            return first.is_ok_and(|first| (first.st_dev, first.st_ino) == (old.st_dev, old.st_ino));
        }
        if old.st_size != new.size {
            return false;
        }
        let place = format!("/proc/self/fd/{}/{}", dir.as_raw_fd(), name.to_string_lossy());
        attributes(new).all(|(name, value)| {
            let mut found = vec![0; value.len() + 1];
            rustix::fs::lgetxattr(place.as_str(), name.as_str(), &mut found)
                .is_ok_and(|length| found.get(..length) == Some(value.as_slice()))
        })
    }

    fn descend(&mut self, stat: Stat) -> Result<()> {
        if self.levels.len() > DEPTH {
            return Err(Error::invalid(format!("more than {DEPTH} directories below each other")));
        }
        let path = stat.path.clone();
        self.levels.push(level(&self.root, &path, Some(stat))?);
        Ok(())
    }

    fn directory(&self, path: &str) -> Result<OwnedFd> {
        open_directory(&self.root, path).map_err(|error| at(path, error))
    }

    fn end_of_walk(&mut self) -> Result<()> {
        while self.levels.len() > 1 {
            self.leave()?;
        }
        self.forget_before(None)?;
        self.walked = true;
        Ok(())
    }

    fn data(&mut self, id: u32, data: &[u8]) -> Result<()> {
        let unknown = || Error::invalid(format!("invalid file request {id}"));
        let slot = self.open.get_mut(&id).ok_or_else(unknown)?;
        let stat = self.wanted.get(&id).ok_or_else(unknown)?;
        if slot.is_none() {
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = sys::rooted::openat2(self.root.as_fd(), Path::new(&stat.path), flags, Mode::empty(), BELOW);
            *slot = Some(File::from(opened.map_err(|error| at(&stat.path, error.into()))?));
        }
        let Some(file) = slot else { return Err(unknown()) };
        if !data.is_empty() {
            return file.write_all(data).map_err(|error| at(&stat.path, error));
        }
        describe(&file.as_fd().try_clone_to_owned()?, stat).map_err(|error| at(&stat.path, error))?;
        self.open.remove(&id);
        self.wanted.remove(&id);
        Ok(())
    }
}

/// The directory and the name of a path that a client sent.
fn check(path: &str) -> Result<(&str, &str)> {
    let refuse = |why: &str| Error::invalid(format!("{why} {path}: invalid argument"));
    if path.starts_with('/') {
        return Err(refuse("absolute path"));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(refuse("escape check"));
    }
    let is_clean = !path.is_empty() && path.split('/').all(|part| !part.is_empty() && part != ".");
    if !is_clean || path.len() > PATH || path.contains('\0') {
        return Err(refuse("unclean path"));
    }
    Ok(path.rsplit_once('/').unwrap_or(("", path)))
}

/// Whether `path` is `dir` or lies below it.
fn below(path: &str, dir: &str) -> bool {
    dir.is_empty() || path == dir || path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

fn at(path: &str, error: io::Error) -> Error {
    Error::from(error).prefix(format!("receiving {path}"))
}

fn open_directory(root: &Rooted, path: &str) -> io::Result<OwnedFd> {
    let path = if path.is_empty() { "." } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(sys::rooted::openat2(root.as_fd(), Path::new(path), flags, Mode::empty(), BELOW)?)
}

fn level(root: &Rooted, path: &str, stat: Option<Stat>) -> Result<Level> {
    let dir = open_directory(root, path).map_err(|error| at(path, error))?;
    let mut before = tree::names(&dir).map_err(|error| at(path, error))?;
    before.sort_unstable_by(|a, b| b.cmp(a));
    Ok(Level { path: path.to_owned(), dir, before, last: String::new(), stat, touched: false })
}

fn device(stat: &Stat) -> u64 {
    let number = |number: i64| u32::try_from(number).unwrap_or(0);
    rustix::fs::makedev(number(stat.devmajor), number(stat.devminor))
}

/// The attributes that are kept: those of users and the capabilities of programs. Those of the file system's own are not the client's.
fn attributes(stat: &Stat) -> impl Iterator<Item = (&String, &Vec<u8>)> {
    let kept = |name: &str| name.starts_with("user.") || name == "security.capability";
    stat.xattrs.iter().filter(move |(name, _)| kept(name)).take(ATTRIBUTES)
}

#[derive(PartialEq, Eq)]
enum Made {
    /// Its content is missing.
    File,
    Whole,
}

/// Makes what is no directory.
#[expect(clippy::disallowed_methods, reason = "on a thread that may block")]
fn make(root: &Rooted, level: &Level, name: &CString, stat: &Stat, _on: &Blocking) -> Result<Made> {
    let (kind, mode) = mode::from_wire(stat.mode);
    let told = |error: rustix::io::Errno| at(&stat.path, error.into());
    let dir = &level.dir;
    match kind {
        FileType::RegularFile if !stat.linkname.is_empty() => {
            check(&stat.linkname)?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let first = sys::rooted::openat2(root.as_fd(), Path::new(&stat.linkname), flags, Mode::empty(), BELOW);
            let first = first.map_err(|error| at(&stat.linkname, error.into()))?;
            let is_file = rustix::fs::fstat(&first).is_ok_and(|found| tree::file_type(&found).is_file());
            if !is_file {
                return Err(Error::invalid(format!("{} links to {}, which is no file", stat.path, stat.linkname)));
            }
            let place = format!("/proc/self/fd/{}", first.as_raw_fd());
            rustix::fs::linkat(rustix::fs::CWD, place, dir, name, AtFlags::SYMLINK_FOLLOW).map_err(told)?;
            return Ok(Made::Whole);
        }
        FileType::RegularFile => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600)).map_err(told)?;
            return Ok(Made::File);
        }
        FileType::Symlink => rustix::fs::symlinkat(stat.linkname.as_str(), dir, name).map_err(told)?,
        FileType::Fifo => rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(mode), 0).map_err(told)?,
        FileType::CharacterDevice | FileType::BlockDevice if device(stat) != 0 => {
            rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(mode), device(stat)).map_err(told)?;
        }
        FileType::Socket => return Ok(Made::Whole),
        _ => return Err(Error::invalid(format!("{}: a file of an unknown kind", stat.path))),
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(told)?;
    describe(&made, stat).map_err(|error| at(&stat.path, error))?;
    Ok(Made::Whole)
}

fn times(time: Timespec) -> Timestamps {
    Timestamps { last_access: time, last_modification: time }
}

/// Owner, attributes, mode and time of what is open, be it by `O_PATH`.
fn describe(node: &OwnedFd, stat: &Stat) -> io::Result<()> {
    let (kind, mode) = mode::from_wire(stat.mode);
    let (uid, gid) = (Some(Uid::from_raw(stat.uid)), Some(Gid::from_raw(stat.gid)));
    rustix::fs::chownat(node, c"", uid, gid, AtFlags::EMPTY_PATH)?;
    let nanos = stat.mod_time.rem_euclid(SECOND);
    let time = times(Timespec { tv_sec: stat.mod_time.div_euclid(SECOND), tv_nsec: nanos });
    if kind == FileType::Symlink {
        let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
        return Ok(rustix::fs::utimensat(node, c"", &time, flags)?);
    }
    let place = format!("/proc/self/fd/{}", node.as_raw_fd());
    for (name, value) in attributes(stat) {
        rustix::fs::setxattr(place.as_str(), name.as_str(), value, XattrFlags::empty())?;
    }
    rustix::fs::chmod(place.as_str(), Mode::from_raw_mode(mode))?;
    Ok(rustix::fs::utimensat(rustix::fs::CWD, place.as_str(), &time, AtFlags::empty())?)
}

#[cfg(test)]
#[path = "receive_tests.rs"]
mod tests;
