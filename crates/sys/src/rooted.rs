//! Paths inside a container's root, resolved by the kernel so that they cannot leave it.
//!
//! Every lookup is one `openat2` with `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`: absolute symlinks and `..` stop at the
//! root, `/proc/<pid>/root` and the like are refused, and a racing rename cannot widen the view. What is created is
//! created relative to a descriptor of its parent.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// Retries of a lookup that raced with a rename elsewhere (`EAGAIN`).
const RACES: usize = 128;
/// Symbolic links followed while making directories, as in the kernel.
const LINKS: usize = 40;

/// A directory that is `/` for all paths given.
#[derive(Debug)]
pub struct Rooted {
    root: OwnedFd,
}

/// What a mount point must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Directory,
    File,
}

impl Rooted {
    /// The directory at `path` of the calling process.
    pub fn open_dir(path: impl AsRef<Path>) -> io::Result<Rooted> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Rooted { root: rustix::fs::openat(CWD, path.as_ref(), flags, Mode::empty())? })
    }

    /// `root` is a descriptor of a directory.
    pub fn from_fd(root: OwnedFd) -> Rooted {
        Rooted { root }
    }

    /// The directory that is the root.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens what `path` leads to (the last component's symlink is followed unless `flags` say NOFOLLOW).
    pub fn open(&self, path: impl AsRef<Path>, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Ok(openat2(self.root.as_fd(), path.as_ref(), flags, mode, resolve)?)
    }

    /// A place to work on, without opening the file itself.
    pub fn locate(&self, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
        self.open(path, OFlags::PATH, Mode::empty())
    }

    /// The same, if no link on the way leads out of the root; what would is `EXDEV`.
    pub fn locate_beneath(&self, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        Ok(openat2(self.root.as_fd(), path.as_ref(), OFlags::PATH, Mode::empty(), resolve)?)
    }

    /// The whole of a regular file of at most `max` bytes; anything else is `InvalidData`.
    pub fn read(&self, path: impl AsRef<Path>, max: u64) -> io::Result<Vec<u8>> {
        use std::io::Read;
        // NONBLOCK: opening a FIFO that the image has put there must not hang.
        let file = File::from(self.open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
        }
        let mut out = Vec::new();
        if file.take(max + 1).read_to_end(&mut out)? as u64 > max {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "file too large"));
        }
        Ok(out)
    }

    /// The status of what `path` leads to.
    pub fn stat(&self, path: impl AsRef<Path>) -> io::Result<Stat> {
        Ok(rustix::fs::fstat(self.locate(path)?)?)
    }

    /// The text of the symbolic link at `path`.
    pub fn read_link(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        use std::os::unix::ffi::OsStringExt;
        let link = self.open(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
        let text = rustix::fs::readlinkat(link, "", Vec::new())?;
        Ok(PathBuf::from(std::ffi::OsString::from_vec(text.into_bytes())))
    }

    /// Makes `path` and its parents directories (root's, `mode`), following links inside the root, even dangling ones.
    /// Returns a descriptor of the directory. An existing non-directory on the way is `ENOTDIR`.
    pub fn make_dir_all(&self, path: impl AsRef<Path>, mode: Mode) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.open(path.as_ref(), flags, Mode::empty()) {
            Err(e) if e.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {}
            other => return other,
        }
        match self.make_last(path.as_ref(), mode)? {
            Some(fd) => Ok(fd),
            None => self.walk(path.as_ref(), mode),
        }
    }

    /// The usual case: only the last component is missing. `None` if it is not so plain.
    fn make_last(&self, path: &Path, mode: Mode) -> io::Result<Option<OwnedFd>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
        let Ok(parent) = self.open(parent, flags, Mode::empty()) else { return Ok(None) };
        match rustix::fs::mkdirat(&parent, name, mode) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        Ok(Some(openat2(parent.as_fd(), Path::new(name), flags, Mode::empty(), resolve)?))
    }

    /// The slow way of [`Rooted::make_dir_all`]: component by component. `done` is what exists, textually.
    fn walk(&self, path: &Path, mode: Mode) -> io::Result<OwnedFd> {
        let mut todo = components(path);
        let mut done = PathBuf::from("/");
        let mut here = self.open("/", OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == ".." {
                done.pop();
                here = self.open(&done, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
                continue;
            }
            match rustix::fs::mkdirat(&here, &name, mode) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
            let next = openat2(
                here.as_fd(),
                Path::new(&name),
                OFlags::PATH | OFlags::NOFOLLOW,
                Mode::empty(),
                ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
            )?;
            if rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&next)?.st_mode).is_symlink() {
                links += 1;
                if links > LINKS {
                    return Err(Errno::LOOP.into());
                }
                let text = self.read_link_at(&next)?;
                if text.is_absolute() {
                    done = PathBuf::from("/");
                    here = self.open("/", OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
                }
                todo.extend(components(&text));
                continue;
            }
            done.push(&name);
            here = next;
        }
        // Every component was opened without following links; only the type of the last one is open.
        self.directory(here)
    }

    fn read_link_at(&self, link: &OwnedFd) -> io::Result<PathBuf> {
        use std::os::unix::ffi::OsStringExt;
        let text = rustix::fs::readlinkat(link, "", Vec::new())?;
        Ok(PathBuf::from(std::ffi::OsString::from_vec(text.into_bytes())))
    }

    fn directory(&self, fd: OwnedFd) -> io::Result<OwnedFd> {
        let mode = rustix::fs::fstat(&fd)?.st_mode;
        if rustix::fs::FileType::from_raw_mode(mode).is_dir() { Ok(fd) } else { Err(Errno::NOTDIR.into()) }
    }

    /// The mount point `path`, made if it is missing (directories 0755, an empty file 0644).
    pub fn mount_point(&self, path: impl AsRef<Path>, target: Target) -> io::Result<OwnedFd> {
        let path = path.as_ref();
        match self.locate(path) {
            Err(e) if e.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {}
            other => return other,
        }
        if target == Target::Directory {
            return self.make_dir_all(path, Mode::from_raw_mode(0o755));
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::ISDIR.into()) };
        let parent = self.make_dir_all(parent, Mode::from_raw_mode(0o755))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644));
        match made {
            Ok(_) => self.locate(path),
            // A dangling link: its target is not made, as nobody can have meant that.
            Err(e) => Err(e.into()),
        }
    }

    /// Removes a file (or, with `AtFlags::REMOVEDIR`, an empty directory) at `path`, not following a link there.
    pub fn unlink(&self, path: impl AsRef<Path>, flags: AtFlags) -> io::Result<()> {
        let path = path.as_ref();
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::BUSY.into()) };
        let parent = self.open(parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        Ok(rustix::fs::unlinkat(parent, name, flags)?)
    }
}

/// Opens `path` below `dir` under the given constraints, close-on-exec, again while renames race.
pub fn openat2(
    dir: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    for _ in 1..RACES {
        match rustix::fs::openat2(dir, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Components in reverse order, ready to be popped; `.` left out, `..` kept.
fn components(path: &Path) -> Vec<std::ffi::OsString> {
    use std::path::Component;
    let mut out: Vec<_> = path
        .components()
        .filter_map(|c| match c {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect();
    out.reverse();
    out
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> (Tree, Rooted) {
            let path = std::env::temp_dir().join(format!("rooted-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(path.join("root")).unwrap();
            let rooted = Rooted::open_dir(path.join("root")).unwrap();
            (Tree(path), rooted)
        }
        fn at(&self, path: &str) -> PathBuf {
            self.0.join("root").join(path)
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    const MODE: Mode = Mode::from_raw_mode(0o755);

    #[test]
    fn links_stay_inside() {
        let (tree, rooted) = Tree::new("links");
        std::fs::write(tree.0.join("secret"), "outside").unwrap();
        std::fs::write(tree.at("secret"), "inside").unwrap();
        symlink("../../secret", tree.at("up")).unwrap();
        symlink("/secret", tree.at("absolute")).unwrap();
        symlink("/proc/self/root", tree.at("magic")).unwrap();
        for path in ["up", "absolute", "/../../secret"] {
            assert_eq!(rooted.read(path, 100).unwrap(), b"inside", "{path}");
        }
        assert!(rooted.read("magic/etc/passwd", 100).is_err());
        assert_eq!(rooted.read_link("absolute").unwrap(), Path::new("/secret"));
        symlink("secret", tree.at("beside")).unwrap();
        rooted.locate_beneath("beside").unwrap();
        for path in ["up", "absolute", "../root/secret", "/secret"] {
            let refused = rooted.locate_beneath(path).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::EXDEV), "{path}");
        }
    }

    #[test]
    fn directories_through_links() {
        let (tree, rooted) = Tree::new("mkdir");
        symlink("/made/by/link", tree.at("dangling")).unwrap();
        symlink("../../../../escape", tree.at("climb")).unwrap();
        rooted.make_dir_all("/dangling/below", MODE).unwrap();
        rooted.make_dir_all("climb/x", MODE).unwrap();
        assert!(tree.at("made/by/link/below").is_dir());
        assert!(tree.at("escape/x").is_dir());
        assert!(!tree.0.join("escape").exists());
        std::fs::write(tree.at("file"), "").unwrap();
        assert_eq!(rooted.make_dir_all("file/x", MODE).unwrap_err().raw_os_error(), Some(libc::ENOTDIR));
        assert_eq!(rooted.make_dir_all("file", MODE).unwrap_err().raw_os_error(), Some(libc::ENOTDIR));
        symlink("loop", tree.at("loop")).unwrap();
        assert_eq!(rooted.make_dir_all("loop/x", MODE).unwrap_err().raw_os_error(), Some(libc::ELOOP));
    }

    #[test]
    fn mount_points() {
        let (tree, rooted) = Tree::new("points");
        rooted.mount_point("/a/b/file", Target::File).unwrap();
        rooted.mount_point("/a/b/dir", Target::Directory).unwrap();
        assert!(tree.at("a/b/file").is_file() && tree.at("a/b/dir").is_dir());
        rooted.unlink("/a/b/file", AtFlags::empty()).unwrap();
        assert!(!tree.at("a/b/file").exists());
    }

    #[test]
    fn reading_is_bounded_and_never_blocks() {
        let (tree, rooted) = Tree::new("read");
        std::fs::write(tree.at("big"), [0; 100]).unwrap();
        assert!(rooted.read("big", 99).is_err());
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(CWD, tree.at("fifo"), fifo, MODE, 0).unwrap();
        assert!(rooted.read("fifo", 99).is_err());
    }
}
