//! Copies of whole trees within this host: what a snapshot of a volume is where its file system cannot make one.
//!
//! Invariants:
//! - the source may be changed by others meanwhile: what vanishes is passed over, no link is followed, and nothing but regular
//!   files is ever opened; a directory that is moved while it is read is an error, as parts of it might be missed;
//! - the target is the caller's alone;
//! - owners, modes, times to the nanosecond, extended attributes, devices, holes and hard links are kept; content is shared
//!   where the file system can (reflink, `FICLONE`);
//! - a few descriptors are held, whatever the depth; memory grows with the number of files that have several links.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;
use sys::tree::Walk;

use crate::apply::proc_path;
use crate::sparse;
use crate::tree;
use crate::view::{copy_attributes, stat_times, xattrs};

/// Bytes of names kept to tell links by; files beyond that are copied as files of their own.
const LINK_BYTES: usize = 256 << 20;

/// Copies what lies in the directory `source` into the empty directory `target`, which gets the attributes of `source`, too.
/// `go_on` is asked before each entry, and its error ends the copy.
pub fn copy_tree(source: &OwnedFd, target: &OwnedFd, go_on: &dyn Fn() -> io::Result<()>) -> io::Result<()> {
    let mut walk = Walk::new(tree::open_dir(source, c".")?, c".")?;
    let mut copy = Copy {
        top: tree::open_dir(target, c".")?,
        here: tree::open_dir(target, c".")?,
        path: PathBuf::new(),
        links: HashMap::new(),
        left: LINK_BYTES,
    };
    loop {
        go_on()?;
        if let Some(name) = walk.next_name() {
            copy.entry(&mut walk, &name)?;
            continue;
        }
        copy_attributes(&copy.here, &rustix::fs::fstat(&walk.here)?, &xattrs(&walk.here)?)?;
        if walk.leave()?.is_none() {
            return Ok(());
        }
        copy.here = tree::open_dir(&copy.here, c"..")?;
        copy.path.pop();
    }
}

struct Copy {
    /// The target.
    top: OwnedFd,
    /// The copy of the directory that is read.
    here: OwnedFd,
    /// Where that is below the target.
    path: PathBuf,
    /// Where the first of several links was copied to, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
    /// Bytes of names that may still be kept.
    left: usize,
}

impl Copy {
    fn entry(&mut self, walk: &mut Walk, name: &CString) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let node = match rustix::fs::openat(&walk.here, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        let stat = rustix::fs::fstat(&node)?;
        if !tree::file_type(&stat).is_dir() {
            return self.other(&node, &stat, name);
        }
        if walk.enter(name)? {
            rustix::fs::mkdirat(&self.here, name, Mode::RWXU)?;
            self.here = tree::open_dir(&self.here, name)?;
            self.path.push(OsStr::from_bytes(name.as_bytes()));
        }
        Ok(())
    }

    /// Copies what is no directory.
    fn other(&mut self, node: &OwnedFd, stat: &Stat, name: &CStr) -> io::Result<()> {
        if stat.st_nlink > 1 && self.linked(stat, name)? {
            return Ok(());
        }
        match tree::file_type(stat) {
            FileType::RegularFile => return self.file(node, stat, name),
            FileType::Symlink => {
                rustix::fs::symlinkat(rustix::fs::readlinkat(node, c"", Vec::new())?, &self.here, name)?;
            }
            kind => rustix::fs::mknodat(&self.here, name, kind, Mode::RUSR | Mode::WUSR, stat.st_rdev)?,
        }
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::chownat(&self.here, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if !tree::file_type(stat).is_symlink() {
            rustix::fs::chmodat(&self.here, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
        }
        Ok(rustix::fs::utimensat(&self.here, name, &stat_times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Whether the file is a further link to one that was copied, which it is then made here, too.
    fn linked(&mut self, stat: &Stat, name: &CStr) -> io::Result<bool> {
        let file = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.links.get(&file) {
            // All directories on the way were made here.
            return match rustix::fs::linkat(&self.top, first, &self.here, name, AtFlags::empty()) {
                Ok(()) => Ok(true),
                // Too many links, or a path that the kernel does not take.
                Err(Errno::MLINK | Errno::NAMETOOLONG) => Ok(false),
                Err(e) => Err(e.into()),
            };
        }
        let path = self.path.join(Path::new(OsStr::from_bytes(name.to_bytes())));
        if let Some(left) = self.left.checked_sub(path.as_os_str().len() + size_of::<((u64, u64), PathBuf)>()) {
            self.left = left;
            self.links.insert(file, path);
        }
        Ok(false)
    }

    fn file(&self, node: &OwnedFd, stat: &Stat, name: &CStr) -> io::Result<()> {
        // By the name of the descriptor: whatever has taken its place meanwhile is not opened.
        let read = OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
        let mut source = File::from(rustix::fs::open(proc_path(node), read, Mode::empty())?);
        let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut target = File::from(rustix::fs::openat(&self.here, name, write, Mode::RUSR | Mode::WUSR)?);
        if rustix::fs::ioctl_ficlone(&target, &source).is_err() {
            sparse::copy(&mut source, &mut target)?;
        }
        copy_attributes(&target.into(), stat, &xattrs(&source.into())?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn open(path: &Path) -> OwnedFd {
        File::open(path).unwrap().into()
    }

    fn copied(from: &Path, to: &Path) -> io::Result<()> {
        copy_tree(&open(from), &open(to), &|| Ok(()))
    }

    /// What two trees have in common, in words, by path.
    fn listing(top: &Path) -> Vec<String> {
        let mut all = Vec::new();
        let mut todo = vec![top.to_owned()];
        while let Some(path) = todo.pop() {
            let meta = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(top).unwrap().display().to_string();
            let content = match () {
                () if meta.is_file() => format!("{:?}", fs::read(&path).unwrap()),
                () if meta.is_symlink() => format!("{:?}", fs::read_link(&path).unwrap()),
                () => String::new(),
            };
            let mut value = [0; 64];
            let xattr = match meta.is_file() || meta.is_dir() {
                true => rustix::fs::getxattr(&path, c"user.note", &mut value).unwrap_or(0),
                false => 0,
            };
            all.push(format!(
                "{name} {:o} {}:{} {} {}.{} {} {content} {:?}",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.rdev(),
                meta.mtime(),
                meta.mtime_nsec(),
                if meta.is_dir() { 0 } else { meta.nlink() },
                &value[..xattr]
            ));
            if meta.is_dir() {
                todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        all.sort();
        all
    }

    #[test]
    fn everything_of_a_tree_is_copied() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |name: &str| from.path().join(name);
        fs::create_dir_all(at("d/e")).unwrap();
        fs::write(at("d/file"), "content").unwrap();
        fs::hard_link(at("d/file"), at("d/e/link")).unwrap();
        symlink("/etc/passwd", at("absolute")).unwrap();
        File::create(at("holes")).unwrap().write_all_at(b"end", 8 << 20).unwrap();
        for (name, kind, device) in [("fifo", FileType::Fifo, 0), ("socket", FileType::Socket, 0)] {
            rustix::fs::mknodat(rustix::fs::CWD, at(name), kind, Mode::RUSR, device).unwrap();
        }
        let null = rustix::fs::makedev(1, 3);
        // Only root makes devices.
        let _ = rustix::fs::mknodat(rustix::fs::CWD, at("null"), FileType::CharacterDevice, Mode::RUSR, null);
        rustix::fs::setxattr(at("d/file"), c"user.note", b"kept", rustix::fs::XattrFlags::empty()).unwrap();
        rustix::fs::setxattr(at("d"), c"user.note", b"dir", rustix::fs::XattrFlags::empty()).unwrap();
        drop(std::os::unix::fs::chown(at("d/file"), Some(1000), Some(1001)));
        fs::set_permissions(at("d/file"), fs::Permissions::from_mode(0o4751)).unwrap();
        fs::set_permissions(at("d"), fs::Permissions::from_mode(0o1700)).unwrap();
        fs::set_permissions(from.path(), fs::Permissions::from_mode(0o2711)).unwrap();
        copied(from.path(), to.path()).unwrap();
        assert_eq!(listing(from.path()), listing(to.path()));
        assert!(fs::metadata(to.path().join("holes")).unwrap().blocks() * 512 < 1 << 20);
    }

    #[test]
    fn deeper_than_paths_are_long() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut here = open(from.path());
        for _ in 0..1500 {
            rustix::fs::mkdirat(&here, c"abcdefgh", Mode::RWXU).unwrap();
            here = tree::open_dir(&here, c"abcdefgh").unwrap();
        }
        copied(from.path(), to.path()).unwrap();
        let mut depth = 0;
        let mut here = open(to.path());
        while let Ok(next) = tree::open_dir(&here, c"abcdefgh") {
            (here, depth) = (next, depth + 1);
        }
        assert_eq!(depth, 1500);
        for dir in [from, to] {
            tree::remove(open(dir.path()), c"abcdefgh").unwrap();
        }
    }

    /// Names that turn into links, pipes and directories while they are read.
    #[test]
    fn a_tree_that_changes_leads_nowhere() {
        let (from, secret) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(secret.path().join("s"), "secret").unwrap();
        let (done, name) = (AtomicBool::new(false), from.path().join("x"));
        std::thread::scope(|scope| {
            let swapping = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let _ = (fs::write(&name, "own"), fs::remove_file(&name));
                    let _ = (symlink(secret.path().join("s"), &name), fs::remove_file(&name));
                    let fifo = rustix::fs::mknodat(rustix::fs::CWD, &name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0);
                    let _ = (fifo, fs::remove_file(&name));
                    let _ = (symlink(secret.path(), &name), fs::remove_file(&name));
                    let _ = (fs::create_dir(&name), fs::remove_dir(&name));
                }
            });
            for _ in 0..500 {
                let to = tempfile::tempdir().unwrap();
                if copied(from.path(), to.path()).is_ok() {
                    let made = to.path().join("x");
                    match fs::symlink_metadata(&made) {
                        Ok(meta) if meta.is_file() => assert_ne!(fs::read(&made).unwrap(), b"secret"),
                        Ok(meta) if meta.is_dir() => assert_eq!(fs::read_dir(&made).unwrap().count(), 0),
                        _ => {}
                    }
                }
            }
            done.store(true, Ordering::Relaxed);
            swapping.join().unwrap();
        });
    }

    #[test]
    fn who_is_asked_ends_it() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(from.path().join("f"), "x").unwrap();
        let late = || Err(io::Error::other("late"));
        assert_eq!(copy_tree(&open(from.path()), &open(to.path()), &late).unwrap_err().to_string(), "late");
        assert!(!to.path().join("f").exists());
    }
}
