//! Directory trees by descriptor: list, remove, measure. No path is ever resolved below the first directory.
//!
//! Every function works on `(parent descriptor, name)` and never follows a symbolic link, so a tree that a container
//! wrote cannot lead out of itself. A tree may be deeper than paths are long or descriptors are many: a walk holds one
//! descriptor, goes up by `..` and checks that it came back to where it was.

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use crate::rooted::openat2;

/// Opens the directory `name` of `parent` for reading, not through a link.
pub fn open_dir(parent: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

/// The same, unless something is mounted there: `EBUSY`.
fn open_unmounted(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    openat2(parent, Path::new(OsStr::from_bytes(name.to_bytes())), flags, Mode::empty(), resolve).map_err(|e| match e {
        Errno::XDEV => Errno::BUSY.into(),
        e => e.into(),
    })
}

/// The status of `name` itself; `None` when there is no such name.
pub fn stat(parent: impl AsFd, name: &CStr) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The file type in a status.
pub fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// The names in a directory, `.` and `..` left out, sorted.
pub fn names(dir: impl AsFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// A walk's way back: which directory a level was, what is left to visit in it, and its own name above.
struct Level {
    id: (u64, u64),
    todo: Vec<CString>,
    name: CString,
}

/// A position in a tree.
pub struct Walk {
    /// The directory that the walk is in.
    pub here: OwnedFd,
    levels: Vec<Level>,
}

impl Walk {
    /// Begins in `dir`.
    pub fn new(dir: OwnedFd, name: &CStr) -> io::Result<Walk> {
        let mut walk = Walk { here: dir, levels: Vec::new() };
        walk.push(name)?;
        Ok(walk)
    }

    fn push(&mut self, name: &CStr) -> io::Result<()> {
        let mut todo = names(&self.here)?;
        todo.reverse();
        self.levels.push(Level { id: identity(&self.here)?, todo, name: name.to_owned() });
        Ok(())
    }

    /// What is left to visit in the current directory, last name first.
    pub fn left(&self) -> &[CString] {
        self.levels.last().map_or(&[], |level| &level.todo)
    }

    /// The next name in the current directory; `None` when all were visited.
    pub fn next_name(&mut self) -> Option<CString> {
        self.levels.last_mut()?.todo.pop()
    }

    /// Enters a directory; false when it is gone or not a directory any more.
    pub fn enter(&mut self, name: &CStr) -> io::Result<bool> {
        let opened = open_dir(&self.here, name);
        self.go(opened, name)
    }

    /// As [`Walk::enter`]; a directory that something is mounted on is `EBUSY`.
    fn enter_unmounted(&mut self, name: &CStr) -> io::Result<bool> {
        let opened = open_unmounted(self.here.as_fd(), name);
        self.go(opened, name)
    }

    fn go(&mut self, opened: io::Result<OwnedFd>, name: &CStr) -> io::Result<bool> {
        match opened {
            Ok(dir) => self.here = dir,
            Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => {
                return Ok(false);
            }
            Err(e) => return Err(e),
        }
        self.push(name)?;
        Ok(true)
    }

    /// Goes up; answers the name of the directory that was left, `None` at the top.
    pub fn leave(&mut self) -> io::Result<Option<CString>> {
        let Some(left) = self.levels.pop() else { return Ok(None) };
        let Some(above) = self.levels.last() else { return Ok(None) };
        self.here = open_dir(&self.here, c"..")?;
        if identity(&self.here)? != above.id {
            return Err(io::Error::other("a directory was moved while its tree was walked"));
        }
        Ok(Some(left.name))
    }

    /// As [`Walk::leave`] in a tree that others change meanwhile: when the way up is lost, the walk goes on in the deepest
    /// directory of its way that is still in its place below `top`. False at the top.
    fn leave_changing(&mut self, top: &OwnedFd) -> io::Result<bool> {
        self.levels.pop();
        let Some(above) = self.levels.last() else { return Ok(false) };
        match open_dir(&self.here, c"..") {
            Ok(up) if identity(&up)? == above.id => self.here = up,
            _ => self.descend(top)?,
        }
        Ok(true)
    }

    fn descend(&mut self, top: &OwnedFd) -> io::Result<()> {
        self.here = open_dir(top, c".")?;
        for depth in 1..self.levels.len() {
            let Level { id, name, .. } = &self.levels[depth];
            match open_dir(&self.here, name) {
                Ok(dir) if identity(&dir)? == *id => self.here = dir,
                _ => {
                    self.levels.truncate(depth);
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Names in a tree from which on one call for its whole file system takes less time than one for each.
const MANY: usize = 256;

/// Whether there are so many names in a tree.
fn has_many(top: &OwnedFd) -> io::Result<bool> {
    let mut walk = Walk::new(open_dir(top, c".")?, c".")?;
    let mut seen = walk.left().len();
    while seen < MANY {
        let Some(name) = walk.next_name() else {
            match walk.leave()? {
                Some(_) => continue,
                None => return Ok(false),
            }
        };
        if stat(&walk.here, &name)?.is_some_and(|stat| file_type(&stat).is_dir()) && walk.enter(&name)? {
            seen += walk.left().len();
        }
    }
    Ok(true)
}

/// Makes a tree durable: the content of its files, its directories, and the directory itself. Files of other kinds have
/// nothing but their names. A large tree is synced with all that its file system has to write (syncfs(2)).
pub fn sync(top: OwnedFd) -> io::Result<()> {
    if has_many(&top)? {
        return Ok(rustix::fs::syncfs(&top)?);
    }
    let mut walk = Walk::new(top, c".")?;
    loop {
        let Some(name) = walk.next_name() else {
            rustix::fs::fsync(&walk.here)?;
            if walk.leave()?.is_none() {
                return Ok(());
            }
            continue;
        };
        match stat(&walk.here, &name)?.as_ref().map(file_type) {
            Some(FileType::Directory) => _ = walk.enter(&name)?,
            Some(FileType::RegularFile) => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                rustix::fs::fsync(rustix::fs::openat(&walk.here, &name, flags, Mode::empty())?)?;
            }
            _ => {}
        }
    }
}

fn identity(dir: &OwnedFd) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(dir)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Removes `name` of `parent` and all below it; absent is fine. A mount in the tree is `EBUSY`; what is mounted there stays.
pub fn remove(parent: impl AsFd, name: &CStr) -> io::Result<()> {
    let parent = parent.as_fd();
    if unlink(parent, name)? {
        return Ok(());
    }
    let mut walk = Walk::new(open_unmounted(parent, name)?, name)?;
    loop {
        while let Some(child) = walk.next_name() {
            if !unlink(walk.here.as_fd(), &child)? {
                walk.enter_unmounted(&child)?;
            }
        }
        match walk.leave()? {
            Some(left) => remove_dir(walk.here.as_fd(), &left)?,
            None => return remove_dir(parent, name),
        }
    }
}

/// Removes a name that is no directory; false when it is one. The kernel keeps a mount point only in the mount namespace of
/// the caller: in others it would take the mount away, in that of a container for one.
fn unlink(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    if is_mount_point(parent, name)? {
        return Err(Errno::BUSY.into());
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::ISDIR) => Ok(false),
        // What POSIX says of a directory; also an immutable file.
        Err(Errno::PERM) if stat(parent, name)?.is_some_and(|s| file_type(&s).is_dir()) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Whether something is mounted on a name; of a directory this need not be asked ([`open_unmounted`]).
fn is_mount_point(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match rustix::fs::statx(parent, name, flags, StatxFlags::TYPE) {
        Ok(found) => Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

fn remove_dir(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Bytes of content of everything below `dir`: lengths of files and of links, nothing for directories. For the rest see
/// [`disk_usage`].
pub fn content_bytes(dir: OwnedFd) -> io::Result<u64> {
    measure(dir, |stat| if file_type(stat).is_dir() { 0 } else { stat.st_size.unsigned_abs() })
}

/// Bytes on disk of everything below `dir` and of itself; an inode with several links counts once. Whoever changes the
/// tree meanwhile, by accident or on purpose, may change the figure but neither makes this fail nor last for ever.
pub fn disk_usage(dir: OwnedFd) -> io::Result<u64> {
    measure(dir, blocks)
}

fn measure(dir: OwnedFd, size: fn(&Stat) -> u64) -> io::Result<u64> {
    let mut seen = HashSet::new();
    let mut bytes = size(&rustix::fs::fstat(&dir)?);
    let mut left = most_entries(&dir);
    let top = dir.try_clone()?;
    let mut walk = Walk::new(dir, c".")?;
    loop {
        while let Some(name) = walk.next_name() {
            left -= 1;
            if left == 0 {
                return Ok(bytes);
            }
            let Some(stat) = stat(&walk.here, &name)? else { continue };
            let directory = file_type(&stat).is_dir();
            if !directory && stat.st_nlink > 1 && !seen.insert((stat.st_dev, stat.st_ino)) {
                continue;
            }
            bytes = bytes.saturating_add(size(&stat));
            if directory {
                walk.enter(&name)?;
            }
        }
        if !walk.leave_changing(&top)? {
            return Ok(bytes);
        }
    }
}

/// Entries that a walk may see on the file system of `dir`: far more than there are, so that only a tree which grows
/// as fast as it is walked comes near.
fn most_entries(dir: &OwnedFd) -> u64 {
    const SLACK: u64 = 1 << 20;
    // Some file systems do not count their inodes.
    const UNCOUNTED: u64 = 1 << 32;
    match rustix::fs::fstatvfs(dir) {
        Ok(stat) if stat.f_files > 0 => stat.f_files.saturating_sub(stat.f_ffree).saturating_mul(2) + SLACK,
        _ => UNCOUNTED,
    }
}

/// Bytes on disk of one inode.
fn blocks(stat: &Stat) -> u64 {
    stat.st_blocks.unsigned_abs() * 512
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::fs::File;

    #[test]
    fn a_tree_is_removed_without_following_links() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("t/a/b")).unwrap();
        fs::write(dir.path().join("kept"), "x").unwrap();
        std::os::unix::fs::symlink("../../kept", dir.path().join("t/a/link")).unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("t/up")).unwrap();
        let parent = File::open(dir.path()).unwrap();
        remove(&parent, c"t").unwrap();
        remove(&parent, c"t").unwrap();
        assert_eq!(names(&parent).unwrap(), [c"kept".to_owned()]);
    }

    #[test]
    fn hard_links_count_once() {
        let dir = tempfile::tempdir().unwrap();
        let measured =
            |measure: fn(OwnedFd) -> io::Result<u64>| measure(File::open(dir.path()).unwrap().into()).unwrap();
        fs::write(dir.path().join("a"), vec![1; 100_000]).unwrap();
        let before = measured(disk_usage);
        fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        assert_eq!((measured(disk_usage), measured(content_bytes)), (before, 100_000));
        assert!(before >= 100_000);
    }

    #[test]
    fn content_is_what_files_and_links_hold_and_blocks_are_what_the_disk_gives() {
        let dir = tempfile::tempdir().unwrap();
        let measured =
            |measure: fn(OwnedFd) -> io::Result<u64>| measure(File::open(dir.path()).unwrap().into()).unwrap();
        fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
        assert_eq!(measured(content_bytes), 0);
        let empty = measured(disk_usage);
        File::create(dir.path().join("a/sparse")).unwrap().set_len(1 << 30).unwrap();
        fs::write(dir.path().join("a/b/file"), "12345").unwrap();
        std::os::unix::fs::symlink("file", dir.path().join("a/b/link")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("pipe"), Mode::from_raw_mode(0o600)).unwrap();
        assert_eq!(measured(content_bytes), (1 << 30) + 5 + 4);
        assert!((empty..1 << 20).contains(&measured(disk_usage)));
    }

    #[test]
    fn a_tree_that_changes_is_measured_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = |text: &str| dir.path().join(text);
        fs::create_dir_all(path("kept")).unwrap();
        fs::write(path("kept/file"), vec![1; 100_000]).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    fs::create_dir_all(path("a/b/c/d/e")).unwrap();
                    fs::rename(path("a/b/c"), path("moved")).unwrap();
                    fs::rename(path("moved"), path("a/c")).unwrap();
                    fs::remove_dir_all(path("a")).unwrap();
                }
            });
            for _ in 0..2000 {
                let bytes = disk_usage(File::open(dir.path()).unwrap().into()).unwrap();
                assert!((100_000..400_000).contains(&bytes), "{bytes}");
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_walked() {
        let dir = tempfile::tempdir().unwrap();
        let top: OwnedFd = File::open(dir.path()).unwrap().into();
        let mut here = top.try_clone().unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&here, c"d", Mode::from_raw_mode(0o755)).unwrap();
            here = open_dir(&here, c"d").unwrap();
        }
        assert_eq!(content_bytes(top.try_clone().unwrap()).unwrap(), 0);
        remove(&top, c"d").unwrap();
        assert!(names(&top).unwrap().is_empty());
    }
}
